"""A profiler's trace of a run, and how much of the time of encoding the device was at work in."""

from collections.abc import Iterable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, record_function

from listcon_eval.inference import ListConRanker
from listcon_eval.records import Mode
from listcon_eval.speed.machine import synchronise
from listcon_eval.speed.workload import Workload

_ENCODING = "listcon-eval: encode"


def write_trace(ranker: ListConRanker, workload: Workload, mode: Mode, path: Path) -> float | None:
    """Rank a workload under torch's profiler and write the trace (for chrome://tracing or Perfetto).

    Returns:
        On CUDA the share of the time of encoding, tokenising included, that the device was at work in; else None.
    """
    on_cuda = ranker.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]) as recorded:
        with record_function(_ENCODING):
            encoded = ranker.encode(workload.queries, workload.passages)
            synchronise(ranker.device)
        ranker.rank_encoded(encoded, mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    recorded.export_chrome_trace(str(path))
    if not on_cuda:
        return None
    events = recorded.events() or []
    whole = next(event for event in events if event.name == _ENCODING and event.device_type.name == "CPU")
    kernels = (
        (event.time_range.start, event.time_range.end)
        for event in events
        if event.device_type.name == "CUDA" and event.name != _ENCODING
    )
    return covered_share(kernels, whole.time_range.start, whole.time_range.end)


def covered_share(spans: Iterable[tuple[float, float]], start: float, end: float) -> float:
    """The share of the time from `start` to `end` that some of the spans (start, end) cover."""
    covered, reached = 0.0, start
    for first, last in sorted(spans):
        last = min(last, end)
        covered += max(0.0, last - max(first, reached))
        reached = max(reached, last)
    return covered / (end - start)
