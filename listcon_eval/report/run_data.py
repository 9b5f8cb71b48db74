"""What a report shows: the runs of each task query by query, and the numbers behind its figures."""

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from listcon_eval.comparison.pairwise import check_comparable
from listcon_eval.comparison.show import read_texts
from listcon_eval.comparison.systems import ComparedSystem, TaskRun, find_system
from listcon_eval.errors import ListconError
from listcon_eval.metrics import CARD_MAP, MAIN_SCORE, Measure
from listcon_eval.records import NOT_RETRIEVED, POINTWISE
from listcon_eval.results import Provenance, RankedQuery, Result, read_provenance

CANDIDATE_ORDER = "data"
"""What `before` names the data's own candidate order."""
MAX_SYSTEMS = 16
NOT_RANKED = 10**9
"""The rank of a candidate that a system did not rank: beyond every depth."""
_MAX_BINS = 8
_LOADING, _MEASURING = "load", "measure"


@dataclass(frozen=True)
class SystemRun:
    """One system's run of a task with Q queries.

    Attributes:
        place: its place among the systems of the report, which gives its colour and letter.
        label: its name.
        run: the run.
        ap: average precision, 0 to 1, in the task's order of queries, (Q,).
        rankings: its ranked candidates by query id.
    """

    place: int
    label: str
    run: TaskRun
    ap: NDArray[np.float64]
    rankings: Mapping[str, RankedQuery]

    @property
    def letter(self) -> str:
        """Its short name in figures."""
        return string.ascii_lowercase[self.place]

    @property
    def name(self) -> str:
        """Its letter and its name. A name that began with an underscore would be missing in matplotlib's legend."""
        return f"{self.letter}: {self.label}"

    @property
    def is_iterative(self) -> bool:
        """Whether it ranked in rounds."""
        return self.run.result is not None and self.run.result.mode == "iterative"

    @cached_property
    def provenance(self) -> Provenance | None:
        """Where its numbers come from; None for a TREC run file."""
        return None if self.run.result is None else read_provenance(self.run.result)


@dataclass(frozen=True)
class TaskResults:
    """One task with the systems that ran it.

    Attributes:
        task: the task's name.
        measure: cmteb:map; where not all systems have it, the task's main score if that is a mean over queries, else
            mteb:map_at_1000.
        query_ids: the Q queries that every system has this measure of, in the order of the first system.
        queries_left_out: how many queries are not among them: `cmteb` drops some.
        systems: the systems.
        before: the first stage; None for the candidate order of the data.
        data: where to read texts; None for the data that was ranked.
    """

    task: str
    measure: Measure
    query_ids: tuple[str, ...]
    queries_left_out: int
    systems: tuple[SystemRun, ...]
    before: SystemRun | None
    data: Path | None

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Candidates a query, (Q,)."""
        return np.array([len(self.in_candidate_order.rankings[query_id].doc_ids) for query_id in self.query_ids])

    @property
    def has_candidate_order(self) -> bool:
        """Whether the data's order of candidates is known; a TREC run does not have it."""
        return any(system.run.result is not None for system in self.systems)

    @cached_property
    def in_candidate_order(self) -> SystemRun:
        """A system whose candidates are in the data's order, if any system's are."""
        return next((system for system in self.systems if system.run.result is not None), self.systems[0])

    @property
    def mode_pairs(self) -> list[tuple[SystemRun, SystemRun]]:
        """Conventional and iterative inference of one model, with the same settings otherwise."""
        found: dict[tuple[object, ...], dict[str, SystemRun]] = {}
        for system in self.systems:
            if (result := system.run.result) is not None:
                others = sorted((name, str(value)) for name, value in result.settings.items() if name != "mode")
                key = (result.model, result.model_revision, *others)
                found.setdefault(key, {})[result.mode] = system
        return [
            (modes["conventional"], modes["iterative"])
            for modes in found.values()
            if {"conventional", "iterative"} <= modes.keys()
        ]

    def query_text(self, query_id: str) -> str | None:
        """A query's text; None when no run has it."""
        texts = (system.rankings[query_id].query for system in self.systems)
        return next((text for text in texts if text is not None), None)

    def texts(self, query_ids: Sequence[str]) -> tuple[Mapping[str, Mapping[str, str]], str | None]:
        """Query id -> document id -> text, read again from the data, and None; or nothing, and the reason."""
        reason = "TREC run files hold only ids, and no run of this package was given with them"
        for system in self.systems:
            if system.run.result is not None:
                found, missing = read_texts(system.run.result, {*query_ids}, self.data)
                if missing is None:
                    return found, None
                reason = missing
        return {}, reason


def task_results(
    systems: Sequence[ComparedSystem],
    *,
    before: str | None = None,
    data: Mapping[str | None, Path] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[TaskResults]:
    """Read the runs of systems, task by task.

    Args:
        systems: the systems with their runs.
        before: the first stage: a system, by its label or a part of it, or "data" for the candidate order. By default
            a run of the first stage or of BM25 if there is one, else the candidate order.
        data: task -> data to read texts from; the key None is for a report of one task.
        progress: called with the number of runs read, and of all.

    Raises:
        ListconError: too many systems, runs of one task over different data, or no system or several of that label.
    """
    if len(systems) > MAX_SYSTEMS:
        raise ListconError(f"{len(systems)} systems for one report; give at most {MAX_SYSTEMS}")
    names = list(dict.fromkeys(task for system in systems for task in system.tasks))
    given = _data_of(names, data or {})
    chosen = None if before in (None, CANDIDATE_ORDER) else find_system(systems, str(before)).label
    total = sum(len(system.tasks) for system in systems)
    done = 0
    found = []
    for name in names:
        own = [(place, system) for place, system in enumerate(systems) if name in system.tasks]
        runs = [system.tasks[name] for _, system in own]
        check_comparable(name, [system for _, system in own], runs)
        if name in given and all(run.result is None for run in runs):
            raise ListconError(f"--data {given[name]}: TREC run files alone show no passages; leave it out")
        mains = [Measure("mteb", run.result.main_score) for run in runs if run.result is not None]
        choices = [m for m in (CARD_MAP, *mains) if all(str(m) in run.values for run in runs)]
        measure = choices[0] if choices else MAIN_SCORE
        shared = set.intersection(*({*run.values[str(measure)]} for run in runs))
        query_ids = tuple(query_id for query_id in runs[0].values[str(measure)] if query_id in shared)
        read = []
        for (place, system), run in zip(own, runs, strict=True):
            values = run.values[str(measure)]
            ap = np.array([values[query_id] for query_id in query_ids])
            read.append(SystemRun(place, system.label, run, ap, run.load_rankings()))
            done += 1
            progress(done, total)
        if before is None:
            first_stage = next(
                (s for s in read if s.run.result is not None and s.run.result.kind in ("first-stage", "bm25")), None
            )
        else:
            first_stage = next((s for s in read if s.label == chosen), None)
        left_out = len({query_id for run in runs for query_id in run.query_ids}) - len(query_ids)
        found.append(TaskResults(name, measure, query_ids, left_out, tuple(read), first_stage, given.get(name)))
    return found


def results_of(tasks: Sequence[TaskResults]) -> list[Result]:
    """The results for the comparison table, with one made for each TREC run."""
    return [system.run.result or _trec_result(task, system) for task in tasks for system in task.systems]


def _trec_result(task: TaskResults, system: SystemRun) -> Result:
    """The result of a TREC run, on the data of the compared runs: their judgements were checked to be equal."""
    run, known = system.run, task.in_candidate_order.run
    return Result.model_construct(
        folder=Path(),
        task=task.task,
        is_official=known.result is not None and known.result.is_official,
        kind="run-file",
        model=f"run-file/{system.label}",
        model_revision=run.signature.model_revision,
        data_revision=known.data_revision or run.signature.data_revision,
        settings={"mode": POINTWISE},
        queries=len(task.query_ids),
        dropped=0,
        cmteb={},
        mteb={
            Measure.parse(measure).name: float(np.mean(list(values.values()))) for measure, values in run.values.items()
        },
        main_score=MAIN_SCORE.name if known.result is None else known.result.main_score,
        ranges={},
        signature=run.signature,
    )


def _data_of(tasks: Sequence[str], data: Mapping[str | None, Path]) -> dict[str, Path]:
    given = {}
    for name, path in data.items():
        if name is None and len(tasks) != 1:
            raise ListconError(
                f"--data {path}: the runs are of {len(tasks)} tasks ({', '.join(tasks)}); say which one it is of, "
                "with --data TASK=PATH"
            )
        if name is not None and name not in tasks:
            raise ListconError(f"--data {name}={path}: no run is of a task {name}; there are {', '.join(tasks)}")
        given[tasks[0] if name is None else name] = path
    return given


class LengthBin(NamedTuple):
    """Queries of similar list length: its bounds, how many queries, and their mean gain."""

    min_length: int
    max_length: int
    queries: int
    gain: float


class RoundCounts(NamedTuple):
    """One round of iterative inference, from 0, over all queries.

    Passages are dropped in it, or kept when it is the last round of their list.
    """

    number: int
    dropped: int
    dropped_relevant: int
    kept: int
    kept_relevant: int


class PhaseTimes(NamedTuple):
    """Seconds of a run by phase, without loading the model, and how many passages and queries it ranked."""

    seconds: Mapping[str, float]
    passages: int
    queries: int

    @property
    def ranking(self) -> float:
        """Seconds of the phases that rank: all but the computing of metrics."""
        return sum(seconds for phase, seconds in self.seconds.items() if phase != _MEASURING)


def gain_by_length(lengths: NDArray[np.int64], gains: NDArray[np.float64]) -> list[LengthBin]:
    """Mean gain by list length, (Q,) each, in at most 8 bins of similar size; lists of one length share a bin."""
    distinct = np.unique(lengths)
    if len(distinct) <= _MAX_BINS:
        edges = distinct
    else:
        edges = np.unique(np.quantile(lengths, np.linspace(0, 1, _MAX_BINS + 1)[:-1], method="lower"))
    place = np.searchsorted(edges, lengths, side="right") - 1  # (Q,)
    return [
        LengthBin(int(lengths[own].min()), int(lengths[own].max()), int(own.sum()), float(gains[own].mean()))
        for own in (place == number for number in range(len(edges)))
    ]


def tied_ranks(scores: Sequence[float]) -> NDArray[np.int64]:
    """The first and the last rank, from 1, that each of P candidates can have, (P, 2): they differ where it is tied.

    A candidate without a rank has `NOT_RANKED` for both.
    """
    negated = -np.array(scores, dtype=np.float64)
    ranks = np.stack([rankdata(negated, method="min"), rankdata(negated, method="max")], axis=1).astype(np.int64)
    ranks[negated == -NOT_RETRIEVED] = NOT_RANKED
    return ranks


def ranks_of_relevant(results: TaskResults, system: SystemRun) -> NDArray[np.int64]:
    """`tied_ranks` of the relevant candidates of all queries, (R, 2); `NOT_RANKED` for those a TREC run lacks."""
    ranks = []
    for query_id in results.query_ids:
        entry, listed = system.rankings[query_id], results.in_candidate_order.rankings[query_id]
        ranks.append(tied_ranks(entry.final_scores)[np.array(entry.relevance) > 0])
        relevant = {doc_id for doc_id, value in zip(listed.doc_ids, listed.relevance, strict=True) if value > 0}
        ranks.append(np.full((len(relevant.difference(entry.doc_ids)), 2), NOT_RANKED))
    return np.concatenate(ranks)


def candidate_places(results: TaskResults) -> NDArray[np.int64]:
    """The places, from 1, of all relevant candidates of all queries in the data's order, as first and last, (R, 2)."""
    rankings = results.in_candidate_order.rankings
    places = [
        place
        for query_id in results.query_ids
        for place, value in enumerate(rankings[query_id].relevance, start=1)
        if value > 0
    ]
    return np.array([(place, place) for place in places], dtype=np.int64).reshape(-1, 2)


def positives_first(results: TaskResults) -> tuple[int, int]:
    """How many queries with both classes list all relevant candidates first, and how many have both classes."""
    first = both = 0
    for query_id in results.query_ids:
        relevant = [value > 0 for value in results.in_candidate_order.rankings[query_id].relevance]
        if 0 < sum(relevant) < len(relevant):
            both += 1
            first += all(relevant[: sum(relevant)])
    return first, both


def share_within(ranks: NDArray[np.int64], depths: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of candidates that are within each depth: first and last ranks (R, 2) and depths (K,) to (K,).

    A tied candidate counts in equal shares at each of its ranks, which is the mean over ties broken at random.
    """
    if not len(ranks):
        return np.zeros(len(depths))
    first, last = ranks[:, :1], ranks[:, 1:]  # (R, 1)
    return np.asarray(np.clip((depths - first + 1) / (last - first + 1), 0, 1).mean(axis=0), dtype=np.float64)


def round_counts(results: TaskResults, system: SystemRun) -> list[RoundCounts]:
    """How many passages, and how many relevant ones, leave in each round of an iterative run."""
    count: dict[int, list[int]] = {}
    for query_id in results.query_ids:
        entry = system.rankings[query_id]
        last = max(entry.rounds, default=0)
        for number, relevance in zip(entry.rounds, entry.relevance, strict=True):
            row = count.setdefault(number, [0, 0, 0, 0])
            column = 2 if number == last else 0
            row[column] += 1
            row[column + 1] += relevance > 0
    return [RoundCounts(number, *count[number]) for number in sorted(count)]


def phase_times(system: SystemRun) -> PhaseTimes | None:
    """A run's time by phase; None for a TREC run, which does not say."""
    provenance = system.provenance
    if provenance is None or not provenance.seconds:
        return None
    seconds = {phase: value for phase, value in provenance.seconds.items() if phase != _LOADING}
    return PhaseTimes(seconds, sum(len(entry.doc_ids) for entry in system.rankings.values()), len(system.rankings))


def phases_of(all_times: Sequence[PhaseTimes]) -> list[str]:
    """The phases of several runs, in their order."""
    return list(dict.fromkeys(phase for found in all_times for phase in found.seconds))
