"""The engine on a GPU, measured and checked by one command: `python -m listcon_eval.speed.gpu`, or `make gpu`.

It needs torch, transformers and numpy alone, and no installed package. It makes a random checkpoint of the published
size and texts in the shapes of the four official tasks, prints each figure as it comes, and writes `gpu.json` and
`gpu.md` after every section, so that a killed run leaves what it had. `--device cpu --scale tiny` tries the same code.
"""

import argparse
import gc
import logging
import math
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, partial
from importlib.metadata import version
from logging.handlers import BufferingHandler
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from listcon_eval.errors import CheckFailedError, ListconError, first_line_with_class
from listcon_eval.files import check_writable, write_json, write_text
from listcon_eval.inference.devices import choose_device, resolve_dtype
from listcon_eval.inference.encoder import BACKENDS, TOLERANCES, FastEncoder, TokenIds, backend_problem, distance
from listcon_eval.inference.memory import device_peak, host_peak, reset_peak
from listcon_eval.inference.ranker import ListConRanker
from listcon_eval.inference.tokens import TextTokenizer
from listcon_eval.metrics import cmteb
from listcon_eval.progress import Phases
from listcon_eval.records import DType, RankedList
from listcon_eval.speed.checks import CHECKS
from listcon_eval.speed.measure import (
    busy_share,
    encoder_flop,
    machine_name,
    matrix_product_ceiling,
    repeated_seconds,
    sample_batches,
    seconds_of,
)
from listcon_eval.speed.procedure import PublishedProcedure, compare_rankings, lost_pairs
from listcon_eval.speed.random_model import write_random_checkpoint
from listcon_eval.speed.workload import SHAPES, Workload, synthetic_workload

_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")
_SHORT, _LONG = "CMedQAv1-reranking", "T2Reranking"
_MAX_GAP = 1e-4  # between scores that two ways of computing in float32 may order differently


class Scale(NamedTuple):
    """How much is measured.

    Attributes:
        model: the random model's size.
        share: the share of each task's queries.
        passages: the most passages of a list; the others are left out.
        texts: texts of a shape of which the batches for the encoder alone are made.
        lists: lists of a shape whose rankings are compared.
        plain_lists: as many of them are ranked by the published procedure.
        budgets: the memory budgets to try, in GB.
        time: what a section takes, as a share of what it takes at full scale.
    """

    model: str
    share: float
    passages: int | None
    texts: int
    lists: int
    plain_lists: int
    budgets: tuple[int, ...]
    time: float


SCALES = {
    "full": Scale("large", 1.0, passages=None, texts=4096, lists=50, plain_lists=6, budgets=(2, 4, 8), time=1.0),
    "tiny": Scale("tiny", 0.0005, passages=21, texts=2, lists=1, plain_lists=1, budgets=(8,), time=0.0),
}


class Goal(NamedTuple):
    """What a figure should reach at full scale on one H100; a stretch below the goal means that less is better."""

    goal: float
    stretch: float

    def verdict(self, value: float) -> str:
        """The goal in words, and whether a value reaches it."""
        sign = 1 if self.stretch >= self.goal else -1
        marks = {"goal": self.goal} if self.stretch == self.goal else self._asdict()
        reached = [name for name, mark in marks.items() if sign * (value - mark) >= 0]
        stretch = f", stretch {_shown(self.stretch)}" if "stretch" in marks else ""
        return f"{_shown(self.goal)}{stretch}: {f'{reached[-1]} reached' if reached else 'missed'}"


_TOKENS_PER_SECOND, _ALL_SHAPES, _BUSY = Goal(0.95e6, 1.03e6), Goal(100, 80), Goal(0.95, 0.95)


class Figure(NamedTuple):
    """One measured figure: what it is of, its value and unit, and in words what is wanted of it; "" for nothing."""

    what: str
    value: float
    unit: str
    wanted: str = ""


@dataclass
class Outcome:
    """What came of one section. `note` says why it was skipped or failed; `details` is the error's traceback."""

    section: str
    state: Literal["done", "failed", "skipped"] = "done"
    seconds: float = 0.0
    figures: list[Figure] = field(default_factory=list)
    note: str = ""
    details: str = ""


class Bench:
    """What the sections share: a device, a random checkpoint, and what was made of it before."""

    def __init__(self, device: torch.device, scale: Scale, folder: Path) -> None:
        self.device, self.scale, self.folder = device, scale, folder
        self.dtype = resolve_dtype("auto", device)
        self.task_seconds: dict[str, float] = {}
        self.ranker, self.workload = cache(self.new_ranker), cache(self._workload)  # each is made once

    def wanted(self, goal: Goal, value: float) -> str:
        """Whether a value reaches a goal, which is set for a GPU and full scale."""
        return goal.verdict(value) if self.device.type == "cuda" and self.scale is SCALES["full"] else ""

    def new_ranker(self, dtype: DType, *, budget: int | None = None) -> ListConRanker:
        """The checkpoint in a dtype, within so many bytes of the memory that texts are encoded in; warm."""
        on_cpu = self.device.type == "cpu"
        ranker = ListConRanker.from_pretrained(
            self.folder,
            device=str(self.device),
            dtype=dtype,
            memory=budget if on_cpu else None,
            device_memory=None if on_cpu else budget,
        )
        ranker.rank([["问", "答", "一二三"]])  # the first call makes handles and plans
        return ranker

    def release(self) -> None:
        """Forget the loaded models, so that a peak of memory is that of one."""
        self.ranker.cache_clear()
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _workload(self, name: str) -> Workload:
        """The lists in a task's shape."""
        made = synthetic_workload(name, scale=self.scale.share)
        return replace(made, passages=[passages[: self.scale.passages] for passages in made.passages])

    def sample(self, name: str, lists: int) -> Workload:
        """A few of those lists, spread over their sizes."""
        whole = self.workload(name)
        return whole.subset(whole.sample(lists))


Section = Callable[[Bench], Iterator[Figure]]


def checks(bench: Bench) -> Iterator[Figure]:
    """Every check of a device; one that fails does not keep the others from running."""
    failed = []
    checked = {name: check for name, check in CHECKS.items() if bench.device.type == "cuda" or not check.cuda_only}
    for name, check in checked.items():
        try:
            value = check.run(bench.device, bench.folder)
        except Exception as error:  # whatever a kernel raises
            failed.append(f"{name}: {first_line_with_class(error)}")
            continue
        yield Figure(name, value, check.unit, f"{check.limit:g} at most")
        if not value <= check.limit:
            failed.append(f"{name}: {value:g} {check.unit}, and the limit is {check.limit:g}")
    if failed:
        raise CheckFailedError(f"{len(failed)} of {len(checked)} checks failed: {'; '.join(failed)}")


def encoder(bench: Bench) -> Iterator[Figure]:
    """Tokens per second of each backend, from token ids to features, and the share of the matrix products' ceiling."""
    dtypes: tuple[DType, ...] = ("float16", "bfloat16")
    for dtype in dtypes:
        ranker = bench.ranker(dtype)
        if bench.device.type == "cuda" and (problem := backend_problem(ranker.model, "varlen")):
            raise CheckFailedError(f"encoding without padding cannot run: {problem}")
        ceiling = matrix_product_ceiling(bench.device, ranker.encoder.dtype, seconds=bench.scale.time)
        yield Figure(f"{dtype}: matrix product", ceiling / 1e12, "TFLOP/s")
        for name in (_SHORT, _LONG):
            texts = bench.workload(name).distinct_texts()
            spread = texts[:: max(1, len(texts) // bench.scale.texts)][: bench.scale.texts]
            ids, _ = TextTokenizer(ranker.checkpoint.tokenizer, ranker.max_length)(spread)
            lengths = np.array([len(row) for row in ids])
            batches = sample_batches(lengths, ranker.budgets.tokens)
            sampled = lengths[np.concatenate(batches)]
            for backend in BACKENDS:
                if backend_problem(ranker.model, backend) is not None:
                    continue
                fast = FastEncoder.for_model(ranker.model, backend=backend)

                def encode(fast: FastEncoder = fast, ids: TokenIds = ids, batches: Any = batches) -> None:  # noqa: ANN401
                    for batch in batches:
                        fast.features([ids[row] for row in batch])

                seconds = median(repeated_seconds(encode, bench.device, at_least=2 * bench.scale.time))
                rate, what = float(sampled.sum()) / seconds, f"{dtype}, {name}, {backend}"
                is_goal = dtype == "float16" and backend == ranker.encoder.backend
                yield Figure(what, rate, "tokens/s", bench.wanted(_TOKENS_PER_SECOND, rate) if is_goal else "")
                yield Figure(what, encoder_flop(ranker, sampled) / seconds / ceiling, "of the ceiling")


def task(name: str, bench: Bench) -> Iterator[Figure]:
    """One task's shape at full scale: from texts to metrics, by iterative inference."""
    workload, ranker = bench.workload(name), bench.ranker(bench.dtype)
    random, shape = np.random.default_rng(0), SHAPES[name]
    relevant = [random.random(len(passages)) < 2 / shape.candidates.mean for passages in workload.passages]
    phases = Phases()

    def evaluate() -> tuple[int, float]:
        encoded = ranker.encode(workload.queries, workload.passages, phases=phases)
        ranked = ranker.rank_encoded(encoded, "iterative", phases=phases)
        with phases.measured("metrics"):
            metrics = cmteb.evaluate_labelled(
                (str(place), (labels.tolist(), row.scores))
                for place, (labels, row) in enumerate(zip(relevant, ranked, strict=True))
            )
        return len(encoded.texts), metrics.means.get("map", 0.0)

    reset_peak(bench.device)
    seconds, (texts, mean) = seconds_of(evaluate, bench.device)
    bench.task_seconds[name] = seconds
    # A synthetic text has a token per character, and two special ones.
    lengths = np.minimum([len(text) + 2 for text in workload.distinct_texts()], ranker.max_length)
    yield Figure("all", seconds, "s")
    for phase, spent in phases.seconds.items():
        yield Figure(f"of which {phase} (phases overlap)", spent, "s")
    yield Figure("distinct texts", texts, "texts")
    yield Figure("tokens", float(lengths.sum()), "tokens")
    yield Figure("text to metrics", float(lengths.sum()) / seconds, "tokens/s")
    yield Figure("MAP of random judgements", mean, "")
    yield Figure("peak memory of the process", host_peak() / 1e9, "GB")
    if (peak := device_peak(bench.device)) is not None:
        yield Figure("peak memory of the device", peak / 1e9, "GB")


def all_tasks(bench: Bench) -> Iterator[Figure]:
    """The shapes that were measured together."""
    seconds, measured = sum(bench.task_seconds.values()), len(bench.task_seconds)
    wanted = bench.wanted(_ALL_SHAPES, seconds) if measured == len(SHAPES) else ""
    yield Figure(f"{measured} of {len(SHAPES)} shapes, text to metrics, iterative", seconds, "s", wanted)


def busy(bench: Bench) -> Iterator[Figure]:
    """The share of encoding one shape during which a kernel was running; on a CPU there is none to see."""
    workload, ranker = bench.workload(_SHORT), bench.ranker(bench.dtype)
    share = busy_share(lambda: ranker.encode(workload.queries, workload.passages), bench.device)
    if share is not None:
        yield Figure(f"a kernel running while {_SHORT} is encoded", share, "of the time", bench.wanted(_BUSY, share))


def rankings(bench: Bench) -> Iterator[Figure]:
    """The float32 engine against the plain procedure in float32; then the other dtypes against the float32 engine."""
    dtypes: tuple[DType, ...] = ("float16", "bfloat16")
    reference, largest = bench.ranker("float32"), 0.0
    for name in (_SHORT, _LONG):
        lists, few = bench.sample(name, bench.scale.lists), bench.sample(name, bench.scale.plain_lists)
        agreement = compare_rankings(_plain(reference, few), _ranked(reference, few), few.passages)
        yield Figure(f"{name}: float32 as the plain procedure", agreement.identical, f"of {agreement.lists} lists")
        yield Figure(f"{name}: largest difference ordered otherwise", agreement.max_gap, "", f"{_MAX_GAP:g} at most")
        largest = max(largest, agreement.max_gap)
        expected = _ranked(reference, lists)
        for dtype in dtypes:
            found = _ranked(bench.ranker(dtype), lists)
            yield from _compared(f"{name}: {dtype} against float32", expected, found)
    if largest > _MAX_GAP:
        raise CheckFailedError("the float32 engine does not rank as the plain procedure does")


def unfused(bench: Bench) -> Iterator[Figure]:
    """The float16 engine against the plain procedure in float16, with attention as products and a softmax."""
    ranker = bench.ranker("float16")
    for name in (_SHORT, _LONG):
        lists = bench.sample(name, bench.scale.plain_lists)
        with sdpa_kernel(SDPBackend.MATH):
            expected = _plain(ranker, lists)
        yield from _compared(f"{name}: float16 against plain float16", expected, _ranked(ranker, lists))


def _ranked(ranker: ListConRanker, lists: Workload) -> list[RankedList]:
    return ranker.rank_encoded(ranker.encode(lists.queries, lists.passages), "iterative")


def _plain(ranker: ListConRanker, lists: Workload) -> list[RankedList]:
    procedure = PublishedProcedure(
        ranker.model, ranker.checkpoint.tokenizer, dtype=ranker.dtype, max_length=ranker.max_length
    )
    return procedure.rank_lists(lists, "iterative")


def _compared(what: str, expected: Sequence[RankedList], found: Sequence[RankedList]) -> Iterator[Figure]:
    """How one way of ranking differs from another, whose first two passages (or ties) are relevant for MAP."""
    scores = [(np.array(theirs.scores), np.array(ours.scores)) for theirs, ours in zip(expected, found, strict=True)]
    ordered, reversed_, tied = np.sum([lost_pairs(*pair) for pair in scores], axis=0).tolist()
    yield Figure(f"{what}: pairs the other way", reversed_ / max(1, ordered), "of the pairs")
    yield Figure(f"{what}: pairs tied", tied / max(1, ordered), "of the pairs")
    metrics = cmteb.evaluate_labelled(
        (str(place), ((theirs >= np.sort(theirs)[-2:][0]).tolist(), ours.tolist()))
        for place, (theirs, ours) in enumerate(scores)
    )
    yield Figure(f"{what}: MAP, the other's first two relevant", metrics.means.get("map", 0.0), "")


def memory(bench: Bench) -> Iterator[Figure]:
    """The peak under each budget, the model included."""
    bench.release()
    over = []
    lists = bench.sample(_LONG, 20 * bench.scale.lists)
    for budget in bench.scale.budgets:
        reset_peak(bench.device)
        ranker = bench.new_ranker(bench.dtype, budget=budget * 10**9)
        _ranked(ranker, lists)
        peak = device_peak(bench.device)
        used = (host_peak() if peak is None else peak) / 1e9
        yield Figure(
            f"peak within {budget} GB, batches of {ranker.budgets.tokens} tokens", used, "GB", f"{budget} GB at most"
        )
        if bench.device.type == "cuda":
            reserved = torch.cuda.max_memory_reserved(bench.device) / 1e9
            yield Figure(f"what torch holds of the device within {budget} GB", reserved, "GB")
        if used > budget:
            over.append(f"{used:.2f} GB within {budget} GB")
        del ranker
        bench.release()
    if over:
        raise CheckFailedError(f"over the budget: {', '.join(over)}")


def out_of_memory(bench: Bench) -> Iterator[Figure]:
    """A device with too little memory for a usual batch: batches are halved, and the features stay the same."""
    bench.release()
    ranker, lists = bench.ranker(bench.dtype), bench.sample(_LONG, 10 * bench.scale.lists)
    whole = ranker.encode(lists.queries, lists.passages)
    places = np.arange(len(whole.texts))
    expected = whole.store.get(places).cpu()
    del whole
    with _short_of_memory(ranker) as warned:
        halved = ranker.encode(lists.queries, lists.passages)
        ranker.rank_encoded(halved, "iterative")
    apart, limit = distance(halved.store.get(places), expected), TOLERANCES[ranker.encoder.dtype]
    yield Figure("stages that went on with smaller batches", len(warned), "stages", "1 at least")
    yield Figure("features against those of whole batches", apart, "of a feature's length", f"{limit:g} at most")
    if not warned or not apart <= limit:
        raise CheckFailedError("the memory did not run out" if not warned else "the features are others")


@contextmanager
def _short_of_memory(ranker: ListConRanker) -> Iterator[list[logging.LogRecord]]:
    """Leave a CUDA device too little memory for a batch, or have a CPU refuse one; what was logged of it."""
    handler = BufferingHandler(1000)
    logger, whole, device = logging.getLogger("listcon_eval.inference.memory"), ranker.encoder.features, ranker.device
    limit = ranker.budgets.tokens // 4

    def refusing(ids: TokenIds) -> torch.Tensor:
        if len(ids) * max(map(len, ids)) > limit and len(ids) > 1:
            raise torch.OutOfMemoryError
        return whole(ids)

    with ExitStack() as undone:
        logger.addHandler(handler)
        undone.callback(logger.removeHandler, handler)
        if device.type == "cuda":
            torch.cuda.empty_cache()
            # A quarter of what the rows within an encoder layer take: see `Budgets.within`.
            config = ranker.model.config.encoder
            row = ranker.encoder.dtype.itemsize * (8 * config.hidden_size + 2 * config.intermediate_size)
            allowed = torch.cuda.memory_reserved(device) + limit * row
            total = torch.cuda.get_device_properties(device).total_memory
            torch.cuda.set_per_process_memory_fraction(allowed / total, device.index or 0)
            undone.callback(torch.cuda.set_per_process_memory_fraction, 1.0, device.index or 0)
        else:
            ranker.encoder.features = refusing  # type: ignore[method-assign]
            undone.callback(setattr, ranker.encoder, "features", whole)
        yield handler.buffer


# Name -> the section, and the seconds that it takes at full scale on an H200, rounded up.
SECTIONS: dict[str, tuple[Section, int]] = {
    "checks": (checks, 30),
    "encoder": (encoder, 35),
    **{f"task {name}": (partial(task, name), 75 if name == _LONG else 25) for name in SHAPES},
    "all tasks": (all_tasks, 0),
    "busy": (busy, 20),
    "rankings": (rankings, 40),
    "unfused": (unfused, 10),
    "memory": (memory, 45),
    "out of memory": (out_of_memory, 20),
}


def run(device: torch.device, scale_name: str, minutes: float, output: Path) -> list[Outcome]:
    """Run the sections there is time for, and write `gpu.json` and `gpu.md` after each.

    A section is skipped when less of the minutes is left than it needs, and left after the figure that ends too late.

    Raises:
        ListconError: the folder cannot be written to, or there are no minutes.
    """
    if not 0 < minutes < math.inf:
        raise ListconError(f"--minutes is {minutes:g}: give a number above 0")
    check_writable(output)
    deadline, scale = time.monotonic() + 60 * minutes, SCALES[scale_name]
    outcomes: list[Outcome] = []
    about = {
        "machine": machine_name(device),
        "device": str(device),
        "scale": scale_name,
        "versions": {"python": sys.version.split()[0], **{name: version(name) for name in _LIBRARIES}},
    }
    with tempfile.TemporaryDirectory(prefix="listcon-gpu-") as temporary:
        _say(f"{about['machine']}: making a random model ({scale.model})")
        bench = Bench(device, scale, write_random_checkpoint(scale.model, Path(temporary) / "model"))
        for name, (section, needs) in SECTIONS.items():
            _say(f"{name} ({deadline - time.monotonic():.0f} s left)")
            outcomes.append(_outcome(name, section, bench, needs * scale.time, deadline))
            _write(output, about, outcomes)
    return outcomes


def _outcome(name: str, section: Section, bench: Bench, needs: float, deadline: float) -> Outcome:
    outcome = Outcome(name)
    left, start = deadline - time.monotonic(), time.monotonic()
    if left < needs or left <= 0:
        outcome.state, outcome.note = "skipped", f"{max(0.0, left):.0f} s were left, and it needs {needs:.0f}"
        _say(f"  skipped: {outcome.note}")
        return outcome
    try:
        with closing(section(bench)) as figures:  # type: ignore[type-var]
            for figure in figures:
                outcome.figures.append(figure)
                _say(f"  {figure.what}: {_shown(figure.value)} {figure.unit}  {figure.wanted}".rstrip())
                if time.monotonic() > deadline:
                    outcome.state, outcome.note = "skipped", "the time was up; the figures after these are missing"
                    break
    except Exception as error:  # one section must not cost the others
        outcome.state, outcome.note, outcome.details = "failed", first_line_with_class(error), traceback.format_exc()
        _say(f"  FAILED: {outcome.note}")
    outcome.seconds = time.monotonic() - start
    return outcome


def _write(output: Path, about: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
    sections = [
        vars(outcome) | {"figures": [row._asdict() | {"value": _strict(row.value)} for row in outcome.figures]}
        for outcome in outcomes
    ]
    write_json(output / "gpu.json", about | {"sections": sections})
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    rows = [("Section", "Figure", "Value", "Wanted"), ("---", "---", "---:", "---")]
    for outcome in outcomes:
        rows += [(outcome.section, row.what, f"{_shown(row.value)} {row.unit}", row.wanted) for row in outcome.figures]
        if outcome.state != "done":
            rows.append((outcome.section, f"**{outcome.state}**: {outcome.note}", "", ""))
    table = "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)
    title = f"# {about['machine']}, scale {about['scale']}"
    write_text(output / "gpu.md", f"{title}\n\nBy `python -m listcon_eval.speed.gpu`: {versions}.\n\n{table}\n")


def _strict(value: float) -> float | str:
    """A number as strict JSON can hold it: NaN and infinity as text."""
    return value if math.isfinite(value) else str(value)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or float(value).is_integer() else f"{value:.3g}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 1 when a section failed, and 2 for unusable input."""
    parser = argparse.ArgumentParser("python -m listcon_eval.speed.gpu", description="Measure and check the engine.")
    parser.add_argument("--device", default="cuda", help="where to run it (default: cuda)")
    parser.add_argument("--scale", choices=list(SCALES), default="full", help="how much to measure (default: full)")
    parser.add_argument("--minutes", type=float, default=8.0, help="the time for all of it (default: 8)")
    parser.add_argument("--output", type=Path, default=Path("build/gpu"), help="the folder to write to")
    given = parser.parse_args(arguments)
    try:
        outcomes = run(choose_device(given.device), given.scale, given.minutes, given.output)
    except ListconError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    for state in ("skipped", "failed"):
        if names := [outcome.section for outcome in outcomes if outcome.state == state]:
            _say(f"{state}: {', '.join(names)}")
    _say(f"{given.output / 'gpu.json'}\n{given.output / 'gpu.md'}")
    return int(any(outcome.state == "failed" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
