"""Measures the engine and transformers' encoder in turns in one run, and shows the figures."""

import math
import os
import platform
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.profiler import ProfilerActivity, profile

from listcon_eval.errors import count_of
from listcon_eval.inference.memory import device_peak, host_peak, in_words, reset_peak
from listcon_eval.inference.ranker import ListConRanker
from listcon_eval.inference.tokens import TextTokenizer
from listcon_eval.model import load_checkpoint
from listcon_eval.progress import Phases, RunProgress, no_progress
from listcon_eval.records import DType, Mode, RankedList
from listcon_eval.speed.peers import PeerComparison, PeerTiming, compare_peers
from listcon_eval.speed.procedure import Agreement, PublishedProcedure, compare_rankings
from listcon_eval.speed.workload import Workload

T = TypeVar("T")
_ENCODER_BATCHES = 4
# What the profiler counts as a device's without a kernel running: waits and copies.
_NO_KERNEL = re.compile(r"Memcpy|Memset|(Context|Event|Stream) Sync|Stream Wait")
_VERSIONS = ("listcon-eval", "torch", "transformers", "tokenizers", "numpy")
_PEER_VERSIONS = ("sentence-transformers", "onnxruntime", "openvino", "mteb")
_PREFACE = """# Speed

Written by `listcon-eval speed --output`: one section per workload, model and machine. The next run on the same replaces
its section. Everything in a section was measured in one run, in turns: the median, and in brackets the minimum and
maximum over the repeats. Speed depends on the processor: run the command of a section on yours.

- **engine**: what `listcon-eval run` does, from texts to scores, on the whole workload.
- **ceiling**: the rate of a large matrix product on this device, the best of torch's and oneDNN's.
- **rankings**: compared with those of the published procedure, or of features in float64, up to exact ties of these.
  Where orders differ, the largest difference of the scores involved is given; the same float32 sums in another order
  differ by about 1e-7.
- **peers** (`--peers`): what people would use instead, on the same texts with the same weights, threads and
  `max_length`, in turns, each in a process of its own. The difference is of a text's feature from the one in float64,
  as a share of its length. sentence-transformers loads its ONNX Runtime and OpenVINO backends through optimum, and no
  release of that supports the transformers that this package needs: the encoder is exported without it, and everything
  else is sentence-transformers' own. The published procedure ranks one query at a time, its texts padded to the
  longest, and encodes every remaining text again in every round; mteb's loop is its search over its own wrapper of
  ListConRanker, with the line that fails mended, around the published procedure.
"""


class Ratio(NamedTuple):
    """Median, minimum and maximum over the repeats."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Ratio":
        """The three of some values."""
        return cls(median(values), min(values), max(values))

    def shown(self, form: str) -> str:
        """The median, with minimum and maximum in brackets where they differ."""
        spread = f" ({self.min:{form}} to {self.max:{form}})" if self.min != self.max else ""
        return f"{self.median:{form}}{spread}"


@dataclass(frozen=True)
class EncoderTiming:
    """The seconds from text to features in each repeat, of the same texts in batches sorted by length.

    `seconds` are the engine's, by its `backend`; `padded_seconds` are those of transformers' BertModel on padded
    batches. `tokens` and `flop` (floating point operations) are without padding.
    """

    backend: str
    tokens: int
    flop: float
    seconds: tuple[float, ...]
    padded_seconds: tuple[float, ...]

    @property
    def times_faster(self) -> Ratio:
        """How many times faster the engine is than transformers."""
        return Ratio.of([theirs / ours for theirs, ours in zip(self.padded_seconds, self.seconds, strict=True)])


@dataclass(frozen=True)
class Measurement:
    """What was measured on one workload. Memory is in bytes; a budget of None is no bound.

    Attributes:
        distinct_texts: the number of texts that were encoded, with `tokens` tokens in all.
        flop: the floating point operations that encoding them takes, without padding. The list transformer is not
            counted: it takes under 1 % in full-size models.
        ceiling: floating point operations per second of a large matrix product on this device, in the encoder's dtype.
        seconds: the engine's time from texts to scores in each repeat.
        agreement: how its rankings agree with the published procedure's; None when these were not made.
        phases: the engine's seconds by phase, over all repeats; phases overlap.
        host_peak: peak memory of the process in the engine's first repeat, the model included.
        device_peak: the same of a CUDA device; None on others.
        busy: the share of encoding during which a CUDA kernel was running, in the profiled run; None without one.
        peers: the comparison with peers; None without one.
    """

    workload: str
    model: str
    machine: str
    versions: dict[str, str]
    mode: Mode
    dtype: DType
    queries: int
    passages: int
    distinct_texts: int
    tokens: int
    flop: float
    ceiling: float
    seconds: tuple[float, ...]
    agreement: Agreement | None
    phases: dict[str, float]
    encoder: EncoderTiming
    host_peak: int
    device_peak: int | None
    host_budget: int | None
    device_budget: int | None
    busy: float | None
    peers: PeerComparison | None

    @property
    def median_seconds(self) -> float:
        """The engine's median time."""
        return median(self.seconds)

    @property
    def flop_per_second(self) -> float:
        """The encoder's floating point operations over the engine's whole time."""
        return self.flop / self.median_seconds

    def to_json(self) -> dict[str, Any]:
        """All fields, and the figures that follow from them."""
        return asdict(self) | {
            "median_seconds": self.median_seconds,
            "tokens_per_second": self.tokens / self.median_seconds,
            "flop_per_second": self.flop_per_second,
            "share_of_ceiling": self.flop_per_second / self.ceiling,
            "times_faster_than_transformers": self.encoder.times_faster._asdict(),
        }


def measure(
    ranker: ListConRanker,
    workload: Workload,
    *,
    model_name: str,
    mode: Mode = "iterative",
    repeats: int = 3,
    reference_queries: int = 2,
    with_peers: bool = False,
    trace: Path | None = None,
    progress: RunProgress = no_progress,
) -> Measurement:
    """Measure one workload, everything `repeats` times.

    The published procedure ranks `reference_queries` lists as well, spread over the workload by size, for `agreement`;
    0 leaves it out. It runs the ranker's model; for bfloat16, the same weights in float32. With peers, which
    `check_peers` has to let through, it is one of them and ranks nothing else. `trace` is a file for a profiler trace
    of encoding those lists once more.

    Raises:
        ListconError: when a list cannot be ranked.
    """
    device, tokenizer, model = ranker.device, ranker.checkpoint.tokenizer, ranker.model
    subset_places = workload.sample(0 if with_peers else reference_queries)
    subset = workload.subset(subset_places)
    padded = PublishedProcedure(model, tokenizer, dtype=ranker.dtype, max_length=ranker.max_length)
    procedure = padded
    if ranker.dtype == "bfloat16" and subset_places:
        precise = load_checkpoint(ranker.checkpoint.source.folder).model.to(device)
        procedure = PublishedProcedure(precise, tokenizer, dtype=ranker.dtype, max_length=ranker.max_length)
    texts = workload.distinct_texts()
    rows, _ = TextTokenizer(tokenizer, ranker.max_length)(texts)
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    batches = sample_batches(lengths, ranker.budgets.tokens)
    batch_texts = [[texts[place] for place in batch] for batch in batches]
    encoded_texts = [text for batch in batch_texts for text in batch]  # the longest first: no empty query
    seconds: list[tuple[float, float, float]] = []
    phases = Phases()

    def engine() -> list[RankedList]:
        encoded = ranker.encode(workload.queries, workload.passages, phases=phases)
        return ranker.rank_encoded(encoded, mode, phases=phases)

    reset_peak(device)
    for repeat in range(repeats):
        of_engine, found = seconds_of(engine, device)
        if repeat == 0:  # before the padded encoder, which needs more
            peaks = host_peak(), device_peak(device)
        of_encoder, _ = seconds_of(lambda: ranker.encode(encoded_texts[:1], [encoded_texts]), device)
        of_padded, _ = seconds_of(lambda: [padded.features(batch) for batch in batch_texts], device)
        seconds.append((of_engine, of_encoder, of_padded))
        progress("measuring", (repeat + 1) / repeats)
    agreement = None
    if subset_places:
        expected = procedure.rank_lists(subset, mode)
        agreement = compare_rankings(expected, [found[place] for place in subset_places], subset.passages)
    profiled = subset if subset_places else workload.subset(workload.sample(1))
    sampled = lengths[np.concatenate(batches)]
    engine_seconds, encoder_seconds, padded_seconds = zip(*seconds, strict=True)
    packages = (*_VERSIONS, *(_PEER_VERSIONS if with_peers else ()))
    return Measurement(
        workload=f"{workload.name}, {workload.in_words}",
        model=model_name,
        machine=machine_name(device),
        versions={"python": platform.python_version(), **{name: version(name) for name in packages}},
        mode=mode,
        dtype=ranker.dtype,
        queries=len(workload.queries),
        passages=workload.size,
        distinct_texts=len(texts),
        tokens=int(lengths.sum()),
        flop=encoder_flop(ranker, lengths),
        ceiling=matrix_product_ceiling(device, model.encoder.dtype),
        seconds=engine_seconds,
        agreement=agreement,
        phases={name: spent for name, spent in phases.seconds.items() if spent > 0},
        encoder=EncoderTiming(
            ranker.encoder.describe(),
            int(sampled.sum()),
            encoder_flop(ranker, sampled),
            encoder_seconds,
            padded_seconds,
        ),
        host_peak=peaks[0],
        device_peak=peaks[1],
        host_budget=ranker.memory,
        device_budget=ranker.device_memory,
        busy=busy_share(lambda: ranker.encode(profiled.queries, profiled.passages), device, trace) if trace else None,
        peers=compare_peers(
            ranker, workload, mode=mode, repeats=repeats, reference_queries=reference_queries, progress=progress
        )
        if with_peers
        else None,
    )


def sample_batches(lengths: NDArray[np.int64], max_tokens: int) -> list[NDArray[np.int64]]:
    """The places of the texts of a few batches of at most `max_tokens`, spread over the texts sorted by length."""
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        rows = max(1, int(max_tokens // lengths[order[start]]))
        batches.append(order[start : start + rows])
        start += rows
    count = min(_ENCODER_BATCHES, len(batches))
    return [batches[int((number + 0.5) * len(batches) / count)] for number in range(count)]


def encoder_flop(ranker: ListConRanker, lengths: NDArray[np.int64]) -> float:
    """The operations that encoding texts of these token lengths takes; a multiplication and an addition are two."""
    config = ranker.model.config.encoder
    per_token = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size
    attention = 2 * config.hidden_size * float((lengths.astype(np.float64) ** 2).sum())
    return float(2 * config.num_hidden_layers * (per_token * float(lengths.sum()) + attention))


def machine_name(device: torch.device) -> str:
    """The hardware in words: "NVIDIA H100 80GB HBM3", "AMD EPYC 9R14, 2 cores, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        name = found[1].strip() if found else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = f"{name}, {cores} cores, {torch.get_num_threads()} threads"
    return name if device.type == "cpu" else f"{device.type} of {name}"


def seconds_of(work: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """The time of some work, until the device has finished it, and its result."""
    synchronise = torch.accelerator.synchronize if device.type != "cpu" else lambda _: None
    synchronise(device)
    start = time.perf_counter()
    result = work()
    synchronise(device)
    return time.perf_counter() - start, result


def repeated_seconds(work: Callable[[], object], device: torch.device, *, at_least: float) -> list[float]:
    """The times of some work in as many repeats as fill some seconds; once more before, unmeasured."""
    work()  # the first call sets up the library
    taken: list[float] = []
    while not taken or sum(taken) < at_least:
        taken.append(seconds_of(work, device)[0])
    return taken


@torch.inference_mode()
def matrix_product_ceiling(device: torch.device, dtype: torch.dtype, *, seconds: float = 0.3) -> float:
    """The floating point operations per second of a large matrix product, the fastest of repeats over some seconds.

    The best of torch's own product and, on a CPU, of oneDNN's with prepacked weights: either may be faster, depending
    on the processor.
    """
    size = 1024 if device.type == "cpu" else 8192
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    products: list[Callable[[], object]] = [lambda: left @ right]
    if device.type == "cpu":
        with suppress(AttributeError, RuntimeError, TypeError):  # not in this build of torch, or not for this dtype
            packed = torch.ops.mkldnn._reorder_linear_weight(right, size)
            linear = torch.ops.mkldnn._linear_pointwise
            linear(left, packed, None, "none", [], "")
            products.append(lambda: linear(left, packed, None, "none", [], ""))
    fastest = min(min(repeated_seconds(product, device, at_least=seconds)) for product in products)
    return 2 * float(size) ** 3 / fastest


def busy_share(work: Callable[[], object], device: torch.device, trace: Path | None = None) -> float | None:
    """The share of the time of some work during which a CUDA kernel was running, by torch's profiler; None elsewhere.

    `trace` is a file for the profiler's trace, with what the CPU did.
    """
    on_cuda = device.type == "cuda"
    activities = [
        *([ProfilerActivity.CPU] if trace or not on_cuda else []),
        *([ProfilerActivity.CUDA] if on_cuda else []),
    ]
    with profile(activities=activities) as recorded:
        seconds, _ = seconds_of(work, device)
    if trace:
        trace.parent.mkdir(parents=True, exist_ok=True)
        recorded.export_chrome_trace(str(trace))
    if not on_cuda:
        return None
    kernels = (
        (event.time_range.start, event.time_range.end)
        for event in recorded.events() or []
        if event.device_type.name == "CUDA" and not _NO_KERNEL.match(event.name)
    )
    return covered(kernels) / 1e6 / seconds


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """How much of a line spans (start, end) cover, each part counted once."""
    total, reached = 0.0, -math.inf
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def as_text(measurement: Measurement) -> str:
    """One measurement for a terminal."""
    title = f"{measurement.workload}; {measurement.mode} inference, {measurement.dtype}"
    return "\n".join([title, "", *_lines(measurement), *_tables(measurement, "terminal")])


def updated_markdown(existing: str | None, measurements: Sequence[Measurement], command: str) -> str:
    """The Markdown file with the measurements of one run, made by `command`.

    Each measurement takes the place of the one with the same heading in the `existing` file, or is added at the end.
    """
    parts = re.split(r"^(?=## )", existing or "", flags=re.MULTILINE)
    sections = {part.partition("\n")[0]: part.strip() for part in parts if part.startswith("## ")}
    for measured in measurements:
        heading = f"## {measured.workload}, {measured.mode}: {measured.model}, {measured.dtype}, on {measured.machine}"
        used = ", ".join(f"{name} {number}" for name, number in measured.versions.items())
        lines = "\n".join(f"- {line}" for line in _lines(measured))
        sections[heading] = "\n\n".join(
            [heading, f"```bash\n{command}\n```", f"{used}.", lines, *_tables(measured, "markdown")]
        )
    return "\n\n".join([_PREFACE.strip(), *sections.values()]) + "\n"


def _tables(measurement: Measurement, style: Literal["terminal", "markdown"]) -> list[str]:
    """The tables of the peers, each behind a line that says what was done; none where they were not measured."""
    if measurement.peers is None:
        return []
    from listcon_eval.tables import table  # `measure` does not need its libraries

    encoders, rankers = measurement.peers.encoders, measurement.peers.rankers
    columns = ("Seconds", "Engine = 1", "Rankings alike", "Peak memory")
    encoder_rows = [
        [*_cells(peer, encoders[0]), f"{peer.difference:.1e}", f"{measurement.tokens / median(peer.seconds):,.0f}"]
        for peer in encoders
    ]
    parts = [
        f"From {count_of(measurement.distinct_texts, 'text')} to features:",
        table(("", *columns, "Difference", "Tokens/s"), encoder_rows, style, numbers=6),
    ]
    if rankers:
        parts += [
            f"From {count_of(measurement.peers.queries, 'list')} to scores:",
            table(("", *columns), [_cells(peer, rankers[0]) for peer in rankers], style, numbers=4),
        ]
    return parts


def _cells(peer: PeerTiming, engine: PeerTiming) -> list[str]:
    """A peer's name, seconds, ratio to the engine's, rankings and memory."""
    ratios = [theirs / ours for theirs, ours in zip(peer.seconds, engine.seconds, strict=True)]
    alike = f"{peer.agreement.identical} of {peer.agreement.lists}"
    if peer.agreement.max_gap:
        alike += f" (gap {peer.agreement.max_gap:.0e})"
    seconds = Ratio.of(peer.seconds).shown(".2f")
    return [peer.name, seconds, Ratio.of(ratios).shown(".2f"), alike, f"{peer.peak / 1e9:.2f} GB"]


def _lines(measurement: Measurement) -> list[str]:
    """The other figures, one line each."""
    encoder, ceiling, agreement = measurement.encoder, measurement.ceiling, measurement.agreement
    fast, padded = median(encoder.seconds), median(encoder.padded_seconds)
    whole = sum(measurement.seconds)
    phases = ", ".join(f"{name} {spent / whole:.0%}" for name, spent in measurement.phases.items())
    memory = in_words(
        measurement.host_peak,
        measurement.device_peak,
        memory=measurement.host_budget,
        device_memory=measurement.device_budget,
    )
    lines = [
        f"engine: {Ratio.of(measurement.seconds).shown('.2f')} s, "
        f"{measurement.tokens / measurement.median_seconds:,.0f} tokens/s of {measurement.distinct_texts:,} distinct "
        f"texts, {measurement.flop_per_second / 1e9:,.1f} GFLOP/s: "
        f"{measurement.flop_per_second / ceiling:.0%} of the ceiling ({ceiling / 1e9:,.0f} GFLOP/s)",
        f"phases, which overlap, as shares of the engine's time: {phases}",
        f"encoder alone, from text: {encoder.tokens / fast:,.0f} tokens/s, x{encoder.times_faster.shown('.2f')} of "
        f"transformers sorted and padded ({encoder.tokens / padded:,.0f} tokens/s); "
        f"{encoder.flop / fast / ceiling:.0%} and {encoder.flop / padded / ceiling:.0%} of the "
        f"ceiling; backend {encoder.backend}",
        f"peak memory of the engine, model included: {memory}",
    ]
    if measurement.busy is not None:
        lines.append(f"a kernel was running in {measurement.busy:.0%} of the time of encoding (profiled)")
    if agreement is not None:
        gap = f"; largest score difference ordered the other way: {agreement.max_gap:.1e}" if agreement.max_gap else ""
        lines.append(f"rankings as the published procedure's: {agreement.identical} of {agreement.lists} lists{gap}")
    return lines
