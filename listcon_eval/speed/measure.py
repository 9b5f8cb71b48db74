"""The measurement: the published procedure, the same with features kept, and the engine, alternating in one run."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from listcon_eval.errors import ListconError
from listcon_eval.inference import ListConRanker, memory
from listcon_eval.inference.devices import placed
from listcon_eval.inference.encoder import FastEncoder
from listcon_eval.inference.tokens import TextCutter
from listcon_eval.inference.workers import Workers
from listcon_eval.model import ListConModel, load_checkpoint
from listcon_eval.progress import Progress, no_progress
from listcon_eval.records import Mode, RankedList
from listcon_eval.speed import machine
from listcon_eval.speed.agreement import compare_rankings
from listcon_eval.speed.profiling import write_trace
from listcon_eval.speed.published import PublishedProcedure
from listcon_eval.speed.records import EncoderSpeed, Measurement, Timing
from listcon_eval.speed.workload import Workload

T = TypeVar("T")
_TOKENISED_AT_ONCE = 1024


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Attributes:
        mode: the inference mode.
        repeats: how often each way is measured, taking turns.
        reference_queries: lists that the published procedure ranks, spread over the workload; 0 leaves it out.
        encoder_batches: batches that the encoder alone is measured on, spread over the sorted texts.
        trace: where a profiler's trace of one more run, on the reference's lists, goes; None for none.
    """

    mode: Mode = "iterative"
    repeats: int = 3
    reference_queries: int = 2
    encoder_batches: int = 4
    trace: Path | None = None


def measure(
    ranker: ListConRanker,
    workload: Workload,
    settings: Settings,
    *,
    model_name: str,
    progress: Progress = no_progress,
) -> Measurement:
    """Measure one workload.

    Args:
        ranker: the engine, whose model the reference runs too.
        workload: the lists.
        settings: how to measure.
        model_name: what to call the model.
        progress: told of repeats done.

    Raises:
        ListconError: when a setting has no meaning, a list cannot be ranked, or the fast encoder does not compute the
            model's features.
    """
    if settings.repeats < 1 or settings.reference_queries < 0 or settings.encoder_batches < 1:
        raise ListconError(
            f"repeats ({settings.repeats}) and encoder batches ({settings.encoder_batches}) start at 1, "
            f"reference queries ({settings.reference_queries}) at 0"
        )
    model = _reference_model(ranker)
    subset = workload.subset(settings.reference_queries) if settings.reference_queries else []
    engine_seconds: list[float] = []
    kept_seconds: list[float] = []
    published_seconds: list[float] = []
    before = dict(ranker.phases.seconds)
    results: list[RankedList] = []
    reference: list[NDArray[np.float64]] = []
    host, device = 0, None
    memory.forget_peaks(ranker.device)
    for repeat in range(settings.repeats):
        results = _timed(ranker, engine_seconds, lambda: _rank(ranker, workload, settings.mode))
        if repeat == 0:  # before the reference, which needs more
            host, device = memory.host_peak(), memory.device_peak(ranker.device)
        if subset:
            for seconds, keep in ((kept_seconds, True), (published_seconds, False)):
                procedure = PublishedProcedure(
                    model,
                    ranker.checkpoint.tokenizer,
                    precision=ranker.precision,
                    max_length=ranker.max_length,
                    keep_features=keep,
                )
                reference = _timed(
                    ranker,
                    seconds,
                    lambda procedure=procedure: [  # type: ignore[misc]
                        procedure.rank(workload.queries[place], workload.passages[place], settings.mode)
                        for place in subset
                    ],
                )
        progress("repeats", repeat + 1, settings.repeats)
    phases = {name: spent - before.get(name, 0.0) for name, spent in ranker.phases.seconds.items()}
    texts = workload.distinct_texts()
    lengths = _token_lengths(ranker, texts)
    compared = [workload.passages[place] for place in subset]
    return Measurement(
        workload=f"{workload.name}, {len(workload.queries)} queries, {workload.documents} passages",
        model=model_name,
        machine=machine.machine_name(ranker.device),
        versions=machine.versions(),
        mode=settings.mode,
        precision=ranker.precision,
        distinct_texts=len(texts),
        tokens=int(lengths.sum()),
        encoder_flop=_encoder_flop(ranker, lengths),
        ceiling=machine.matrix_product_ceiling(ranker.device, ranker.model.encoder.dtype),
        engine=Timing(len(workload.queries), workload.documents, tuple(engine_seconds)),
        kept=_of_subset(compared, kept_seconds),
        published=_of_subset(compared, published_seconds),
        agreement=compare_rankings(reference, [np.array(results[place].scores) for place in subset], compared)
        if subset
        else None,
        phases={name: spent for name, spent in phases.items() if spent > 0},
        encoder=_encoder_speed(ranker, texts, lengths, settings),
        host_bytes=host,
        device_bytes=device,
        host_budget=ranker.memory,
        device_budget=ranker.device_memory,
        busy=write_trace(ranker, workload.some(subset or workload.subset(1)), settings.mode, settings.trace)
        if settings.trace
        else None,
    )


def _reference_model(ranker: ListConRanker) -> ListConModel:
    """What the published procedure runs: the engine's own model, but for an encoder in bfloat16 the float32 one."""
    if ranker.precision != "bfloat16":
        return ranker.model
    source = ranker.checkpoint.source
    return placed(load_checkpoint(source.folder).model, ranker.device, "precise")


def _rank(ranker: ListConRanker, workload: Workload, mode: Mode) -> list[RankedList]:
    return ranker.rank_encoded(ranker.encode(workload.queries, workload.passages), mode)


def _timed(ranker: ListConRanker, seconds: list[float], work: Callable[[], T]) -> T:
    machine.synchronise(ranker.device)
    start = time.perf_counter()
    result = work()
    machine.synchronise(ranker.device)
    seconds.append(time.perf_counter() - start)
    return result


def _of_subset(lists: Sequence[Sequence[str]], seconds: list[float]) -> Timing | None:
    return Timing(len(lists), sum(map(len, lists)), tuple(seconds)) if lists else None


def _encoder_flop(ranker: ListConRanker, lengths: NDArray[np.float64]) -> float:
    """Operations that encoding texts of so many tokens takes: a multiplication and an addition are two."""
    config = ranker.model.config.encoder
    linears = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size
    attention = 2 * config.hidden_size * float((lengths**2).sum())
    return 2 * float(config.num_hidden_layers) * (linears * float(lengths.sum()) + attention)


def _token_lengths(ranker: ListConRanker, texts: Sequence[str]) -> NDArray[np.float64]:
    """The tokens of each text, (N,); the ids of all of them at once would be the most of a large run's memory."""
    cutter = TextCutter(ranker.checkpoint.tokenizer, ranker.max_length)
    parts = (texts[start : start + _TOKENISED_AT_ONCE] for start in range(0, len(texts), _TOKENISED_AT_ONCE))
    return np.array([len(row) for part in parts for row in cutter(part)], dtype=np.float64)


def _encoder_speed(
    ranker: ListConRanker, texts: Sequence[str], lengths: NDArray[np.float64], settings: Settings
) -> EncoderSpeed:
    """The fastest encoder beside transformers', on the same batches, taking turns, each as it is used.

    Args:
        ranker: the engine, which computes its batches side by side; transformers' has all threads for each.
        texts: all texts. Batches are of neighbours by length, so they have the padding that they have in a run.
        lengths: their tokens, (N,).
        settings: how to measure.
    """
    order = np.argsort(-lengths, kind="stable")
    places = []
    start = 0
    while start < len(order):
        rows = max(1, int(ranker.budgets.tokens // lengths[order[start]]))
        places.append(order[start : start + rows])
        start += rows
    count = min(settings.encoder_batches, len(places))
    cutter = TextCutter(ranker.checkpoint.tokenizer, ranker.max_length)
    chosen = [places[int((number + 0.5) * len(places) / count)] for number in range(count)]
    batches = [cutter([texts[place] for place in batch]) for batch in chosen]
    encoders = ranker.encoder, FastEncoder.for_model(ranker.model, path="plain")
    encoders[0].check([batch[0] for batch in batches])
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(settings.repeats):
        with Workers(ranker.device) as workers:
            _timed(ranker, seconds[0], lambda workers=workers: workers.map(encoders[0].features, batches))  # type: ignore[misc]
        _timed(ranker, seconds[1], lambda: [encoders[1].features(batch) for batch in batches])
    return EncoderSpeed(
        path=encoders[0].describe(),
        batches=count,
        tokens=sum(len(row) for batch in batches for row in batch),
        flop=_encoder_flop(ranker, lengths[np.concatenate(chosen)]),
        seconds=tuple(seconds[0]),
        plain_seconds=tuple(seconds[1]),
    )
