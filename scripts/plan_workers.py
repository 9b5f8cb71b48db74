"""How a run on several GPUs would go: `python scripts/plan_workers.py [--speed FILE] [...]` prints a table.

A simulation of `run --workers`: the chunks that the engine cuts a task's texts into, two of them with each worker,
which tokenises and then encodes one after the other; and the first process, which sends and receives one chunk at a
time. How long a GPU and its tokenizer take was measured on one H200 with 16 cores (docs/gpu.md), or is taken from
`listcon-eval speed --json`; what the first process takes is measured here, by the code that does it in a run.
"""

import argparse
import heapq
import json
import pickle
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from listcon_eval.files import sha256_of_texts
from listcon_eval.inference.features import text_chunks
from listcon_eval.inference.memory import Budgets
from listcon_eval.results.chunk_cache import ChunkCache
from listcon_eval.speed.workload import SHAPES
from listcon_eval.tables import table

_GPUS = (1, 2, 4, 8)
_MAX_LENGTH = 512
_CHUNK_TOKENS = 16 * Budgets.for_device(torch.device("cuda")).tokens
_FEATURE_BYTES = 2 * 1792  # of a text, in float16
_IN_FLIGHT = 2


class Chunk(NamedTuple):
    """The seconds that a chunk takes: of the first process to send it and to receive it, and of a worker."""

    send: float
    receive: float
    work: float


class Plan(NamedTuple):
    """Seconds of a task on some GPUs, and the shares of them in which the first process and the GPUs were busy."""

    seconds: float
    first: float
    workers: float


def simulate(chunks: Sequence[Chunk], workers: int) -> Plan:
    """Send the chunks to the workers as `RayWorkers` does."""
    waiting = deque(chunks)
    free = [0.0] * workers  # when a worker has done all that it has
    done: list[tuple[float, int, Chunk]] = []
    now = 0.0  # of the first process

    def send(worker: int) -> None:
        nonlocal now
        chunk = waiting.popleft()
        now += chunk.send
        free[worker] = max(free[worker], now) + chunk.work
        heapq.heappush(done, (free[worker], worker, chunk))

    for place in range(min(len(chunks), _IN_FLIGHT * workers)):
        send(place % workers)
    while done:
        ready, worker, chunk = heapq.heappop(done)
        now = max(now, ready) + chunk.receive
        if waiting:
            send(worker)
    busy = sum(chunk.send + chunk.receive for chunk in chunks)
    return Plan(now, busy / now, sum(chunk.work for chunk in chunks) / (workers * now))


def chunks_of(
    task: str, tokens_a_second: float, characters_a_second: float, send: float, receive: float
) -> list[Chunk]:
    """A task's chunks; `send` is the first process's seconds a character, `receive` those a byte of features."""
    shape, random = SHAPES[task], np.random.default_rng(0)
    documents = shape.document_length.draw(shape.distinct_documents, random)
    drawn = [documents, shape.query_length.draw(shape.queries, random)]
    lengths = np.concatenate(drawn)
    tokens = np.minimum(lengths + 2, _MAX_LENGTH)
    most = Budgets.for_device(torch.device("cuda")).chunk_texts
    return [
        Chunk(
            send * int(lengths[places].sum()),
            receive * _FEATURE_BYTES * len(places),
            # A long text is tokenised up to where it will be cut.
            int(tokens[places].sum()) / tokens_a_second + int(tokens[places].sum()) / characters_a_second,
        )
        for places in text_chunks(lengths, most, _CHUNK_TOKENS, _MAX_LENGTH)
    ]


def measured_costs() -> tuple[float, float]:
    """Seconds of the first process a character that it names and sends, and a byte that it receives and keeps.

    They are a processor's seconds, without waiting for the disk.
    """
    texts = ["字" * 120] * 8192
    features = np.zeros(len(texts) * _FEATURE_BYTES, dtype=np.uint8)
    sends, receives = [], []
    with tempfile.TemporaryDirectory() as folder:
        cache = ChunkCache(Path(folder))
        for number in range(5):
            start = time.process_time()
            sha256_of_texts(texts)
            pickle.dumps(texts)
            sends.append((time.process_time() - start) / sum(map(len, texts)))
            start = time.process_time()
            cache.save(str(number), features)
            torch.empty(len(features), dtype=torch.uint8).copy_(
                torch.frombuffer(bytearray(features), dtype=torch.uint8)
            )
            receives.append((time.process_time() - start) / len(features))
    return median(sends), median(receives)


def encoder_rate(path: Path) -> float:
    """The encoder's tokens a second in a file of `listcon-eval speed --json`, of all its workloads together."""
    found = [measured["encoder"] for measured in json.loads(path.read_text(encoding="utf-8"))["measurements"]]
    return float(sum(own["tokens"] for own in found) / sum(median(own["seconds"]) for own in found))


def main() -> None:
    """Print the plan of each task and of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", type=Path, help="a file of `listcon-eval speed --json` from one GPU")
    parser.add_argument("--tokens-a-second", type=float, default=0.68e6, help="of one GPU, without --speed")
    parser.add_argument("--characters-a-second", type=float, default=4.3e6, help="of the tokenizer beside each GPU")
    parser.add_argument("--disk", type=float, default=500.0, help="MB/s that the first process writes chunks with")
    given = parser.parse_args()
    tokens_a_second = encoder_rate(given.speed) if given.speed else given.tokens_a_second
    send, receive = measured_costs()
    receive += 1e-6 / given.disk
    rates = (tokens_a_second, given.characters_a_second, send, receive)
    print(  # noqa: T201
        f"a GPU: {tokens_a_second / 1e6:.2f} M tokens/s; its tokenizer: {rates[1] / 1e6:.1f} M characters/s\n"
        f"first process: sends {1e-6 / send:.0f} M characters/s, receives {1e-6 / receive:.0f} MB/s, its disk of "
        f"{given.disk:.0f} MB/s included\n"
    )
    rows = []
    totals = dict.fromkeys(_GPUS, 0.0)
    for task in SHAPES:
        chunks = chunks_of(task, *rates)
        for gpus in _GPUS:
            plan = simulate(chunks, gpus)
            totals[gpus] += plan.seconds
            shares = [f"{100 * plan.workers:.0f} %", f"{100 * plan.first:.0f} %"]
            rows.append([task, str(len(chunks)), str(gpus), f"{plan.seconds:.1f}", *shares])
    rows += [["all four", "", str(gpus), f"{totals[gpus]:.1f}", "", ""] for gpus in _GPUS]
    headers = ["Task", "Chunks", "GPUs", "Seconds", "Workers busy", "First process busy"]
    print(table(headers, rows, "markdown", numbers=5))  # noqa: T201


if __name__ == "__main__":
    main()
