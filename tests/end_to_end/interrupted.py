"""Kill runs with SIGKILL at random moments: `python interrupted.py CHECKPOINT DATA FOLDER KILLS`.

Everything is imported once and every start is a fork, so that a start takes as long as its work. The work is cut
into many small chunks. Each run that gets to its end is compared with an uninterrupted one, byte by byte.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from mteb import TaskResult

from listcon_eval.data import local_task
from listcon_eval.evaluate import Request, evaluate
from listcon_eval.inference.budgets import Budgets

FILES = ("run.jsonl", "run.trec", "qrels.trec", "per_query.jsonl", "metrics.json")


def work(checkpoint: str, data: str, output: Path) -> None:
    """Do a whole run."""
    evaluate(Request(checkpoint, [local_task(data)], ("conventional", "iterative"), output, precision="precise"))


def start(checkpoint: str, data: str, output: Path) -> int:
    """Start a run in a process of its own and return its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            work(checkpoint, data, output)
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def results(output: Path) -> dict[str, bytes]:
    """The bytes of everything a run says, by file."""
    found = {}
    for folder in sorted(path.parent for path in output.glob("results/*/*/experiments/*/*/metrics.json")):
        for name in FILES:
            found[f"{folder.parent.name}/{name}"] = (folder / name).read_bytes()
        scores = TaskResult.from_disk(folder.with_name(f"{folder.name}.json")).scores
        found[f"{folder.parent.name}.json"] = repr(scores).encode()
    return found


def ended_well(status: int) -> bool:
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0


def main(checkpoint: str, data: str, folder: Path, kills: int) -> dict[str, int]:
    """Kill `kills` times; return how many runs ended and how many chunks were taken from earlier starts."""
    torch.set_num_threads(1)
    work(checkpoint, data, folder / "whole")  # in this process: it imports what is imported late
    expected = results(folder / "whole")
    assert len(expected) == 2 * (len(FILES) + 1)
    begun = time.monotonic()
    _, status = os.waitpid(start(checkpoint, data, folder / "again"), 0)
    duration = time.monotonic() - begun
    assert ended_well(status)
    assert results(folder / "again") == expected

    rng = random.Random(0)
    done, run, reused = 0, 0, 0
    while True:
        output = folder / f"run-{run}"
        pid = start(checkpoint, data, output)
        if done < kills:
            time.sleep(rng.uniform(0, duration))
            if os.waitpid(pid, os.WNOHANG)[0] == 0:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                done += 1
                continue
        else:
            _, status = os.waitpid(pid, 0)
            assert ended_well(status)
        assert results(output) == expected
        assert list(output.rglob(".*")) == []
        for path in output.glob("results/*/*/experiments/*/*/provenance.json"):
            reused += json.loads(path.read_text())["chunks_of_an_earlier_start"]
        run += 1
        if done >= kills:
            return {"runs": run, "kills": done, "reused": reused}


if __name__ == "__main__":
    Budgets.for_device = classmethod(  # type: ignore[method-assign,assignment]
        lambda cls, _: cls(tokens=256, rows=512, feature_bytes=2**30, chunk_texts=12, group_passages=30)
    )
    print(json.dumps(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))))  # noqa: T201
