"""Compare runs: per task and measure means with intervals, paired tests, and the queries that moved most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from listcon_eval.compare.contestants import Contestant, TaskRun
from listcon_eval.compare.ranking import ranks_of_relevant
from listcon_eval.compare.statistics import (
    LEVEL,
    RESAMPLES,
    SEED,
    Count,
    Interval,
    count_wins,
    holm,
    mean_interval,
    randomisation_test,
)
from listcon_eval.errors import ListconError
from listcon_eval.metrics import Measure

DEFAULT_MEASURES = (
    Measure("cmteb", "map"),
    Measure("cmteb", "mrr_10"),
    Measure("mteb", "map_at_1000"),
    Measure("mteb", "mrr_at_10"),
)
MOST_RUNS = 16


@dataclass(frozen=True)
class Pair:
    """Two runs on one task by one measure; differences are `other` minus `base`, a query at a time.

    Attributes:
        base: the place of the one among the contestants.
        other: the place of the other.
        measure: the measure.
        difference: the mean difference, with its bootstrap interval.
        p: the p-value of the paired randomisation test.
        corrected: the same after Holm's correction over all pairs, tasks and measures of the comparison.
        count: queries on which `other` wins, ties and loses.
    """

    base: int
    other: int
    measure: Measure
    difference: Interval
    p: float
    corrected: float
    count: Count


@dataclass(frozen=True)
class Moved:
    """A query whose value differs between the first run and another one.

    Attributes:
        base: the place of the first run among the contestants.
        other: the place of the other.
        query_id: the query's id.
        query: its text; None when no run of the comparison has it.
        before: its value in the first run.
        after: its value in the other.
        ranks_before: the ranks of its relevant passages in the first run, from 1.
        ranks_after: the same in the other.
    """

    base: int
    other: int
    query_id: str
    query: str | None
    before: float
    after: float
    ranks_before: tuple[int, ...]
    ranks_after: tuple[int, ...]


@dataclass(frozen=True)
class TaskComparison:
    """One task's part of a comparison; `intervals[i][measure]` is contestant i's mean."""

    task: str
    queries: int
    intervals: Sequence[Mapping[Measure, Interval]]
    signatures: Sequence[str]
    pairs: Sequence[Pair]
    moved: Sequence[Moved]


@dataclass(frozen=True)
class Comparison:
    """Runs, compared.

    Attributes:
        labels: the contestants' names.
        measures: the measures, in order; the first decides which queries moved.
        tasks: the tasks' parts.
        skipped: tasks that not every contestant has, with the names of those that have it.
        level: the corrected p-value up to which a difference is called significant.
        resamples: the draws of every interval and test.
        seed: their generator's seed.
    """

    labels: Sequence[str]
    measures: Sequence[Measure]
    tasks: Sequence[TaskComparison]
    skipped: Mapping[str, Sequence[str]]
    level: float
    resamples: int
    seed: int

    @property
    def tests(self) -> int:
        """How many tests Holm's correction is over."""
        return sum(len(task.pairs) for task in self.tasks)


def compare(
    contestants: Sequence[Contestant],
    measures: Sequence[Measure] = (),
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    most_moved: int = 5,
) -> Comparison:
    """Compare runs on the tasks that all of them have.

    Args:
        contestants: the runs by task, two of them or more.
        measures: what to compare by; by default those of `DEFAULT_MEASURES` that every run has.
        level: the corrected p-value up to which a difference is significant.
        resamples: the draws of every interval and test.
        seed: their generator's seed.
        most_moved: how many queries that moved to name a task, for the first run beside each other one.

    Raises:
        ListconError: fewer than two runs or too many, no task in common, a measure that a run does not have, or runs
            over different queries or data.
    """
    if not 2 <= len(contestants) <= MOST_RUNS:
        raise ListconError(f"{len(contestants)} runs to compare ({_names(contestants)}); give 2 to {MOST_RUNS}")
    everywhere = [name for name in contestants[0].tasks if all(name in other.tasks for other in contestants)]
    if not everywhere:
        has = "; ".join(f"{contestant.label}: {', '.join(contestant.tasks)}" for contestant in contestants)
        raise ListconError(f"the runs have no task in common ({has}): give runs of the same tasks")
    rows = {name: [contestant.tasks[name] for contestant in contestants] for name in everywhere}
    for name, runs in rows.items():
        check_comparable(name, contestants, runs)
    chosen = _chosen(measures, rows, contestants)
    pairs = _correct({name: _pairs(runs, chosen, resamples, seed) for name, runs in rows.items()})
    return Comparison(
        labels=[contestant.label for contestant in contestants],
        measures=chosen,
        tasks=[
            TaskComparison(
                task=name,
                queries=len(_values(runs[0], chosen[0])),
                intervals=[
                    {m: mean_interval(list(_values(run, m).values()), resamples=resamples, seed=seed) for m in chosen}
                    for run in runs
                ],
                signatures=[run.signature for run in runs],
                pairs=pairs[name],
                moved=_moved(runs, chosen[0], most_moved),
            )
            for name, runs in rows.items()
        ],
        skipped={
            name: [contestant.label for contestant in contestants if name in contestant.tasks]
            for name in sorted({name for contestant in contestants for name in contestant.tasks} - {*everywhere})
        },
        level=level,
        resamples=resamples,
        seed=seed,
    )


def _names(contestants: Sequence[Contestant]) -> str:
    return "; ".join(contestant.label for contestant in contestants) or "none"


def _values(run: TaskRun, measure: Measure) -> Mapping[str, float]:
    return run.values[str(measure)]


def check_comparable(task: str, contestants: Sequence[Contestant], runs: Sequence[TaskRun]) -> None:
    """Check that runs of one task can be laid side by side.

    Args:
        task: the task's name.
        contestants: whose runs they are.
        runs: the runs, in the same order.

    Raises:
        ListconError: they are over different data or different queries; says which.
    """
    revisions = {run.data_revision: c.label for c, run in zip(contestants, runs, strict=True) if run.data_revision}
    if len(revisions) > 1:
        seen = "; ".join(f"{label}: {revision}" for revision, label in revisions.items())
        raise ListconError(
            f"{task}: the runs were made on different revisions of the data ({seen}): run one of them again on the "
            "other's data"
        )
    first = next(iter(runs[0].values.values())).keys()
    for contestant, run in zip(contestants[1:], runs[1:], strict=True):
        queries = next(iter(run.values.values())).keys()
        if first != queries:
            lacks, extra = sorted(first - queries), sorted(queries - first)
            raise ListconError(
                f"{task}: {contestants[0].label} has {len(first)} queries and {contestant.label} has {len(queries)}; "
                f"only in the first: {len(lacks)}{_few(lacks)}; only in the second: {len(extra)}{_few(extra)}; "
                "runs are compared over the same queries"
            )


def _few(query_ids: Sequence[str]) -> str:
    return f" ({', '.join(query_ids[:3])}{', ...' if len(query_ids) > 3 else ''})" if query_ids else ""


def _chosen(
    measures: Sequence[Measure], rows: Mapping[str, Sequence[TaskRun]], contestants: Sequence[Contestant]
) -> list[Measure]:
    runs = [run for of_task in rows.values() for run in of_task]
    if not measures:
        return [measure for measure in DEFAULT_MEASURES if all(str(measure) in run.values for run in runs)]
    for measure in measures:
        for of_task in rows.values():
            for contestant, run in zip(contestants, of_task, strict=True):
                if str(measure) not in run.values:
                    raise ListconError(
                        f"{contestant.label} has no {measure}; it has {', '.join(run.values)} (a TREC run does not "
                        "hold the order and the texts of its candidates, which the cmteb measures need)"
                    )
    return list(dict.fromkeys(measures))


def _pairs(runs: Sequence[TaskRun], measures: Sequence[Measure], resamples: int, seed: int) -> list[Pair]:
    order = list(_values(runs[0], measures[0]))
    series = {
        measure: np.array([[_values(run, measure)[query_id] for query_id in order] for run in runs])  # (runs, Q)
        for measure in measures
    }
    keys = [(base, other, measure) for base, other in combinations(range(len(runs)), 2) for measure in measures]
    differences = np.array([series[measure][other] - series[measure][base] for base, other, measure in keys])  # (T, Q)
    p_values = randomisation_test(differences, resamples=resamples, seed=seed)
    return [
        Pair(*key, mean_interval(row, resamples=resamples, seed=seed), float(p), float(p), count_wins(row))
        for key, row, p in zip(keys, differences, p_values, strict=True)
    ]


def _correct(pairs: Mapping[str, Sequence[Pair]]) -> dict[str, list[Pair]]:
    """Holm's correction over the pairs of all tasks."""
    flat = [pair for of_task in pairs.values() for pair in of_task]
    corrected = iter(holm([pair.p for pair in flat]))
    return {
        task: [Pair(**{**pair.__dict__, "corrected": next(corrected)}) for pair in of_task]
        for task, of_task in pairs.items()
    }


def _moved(runs: Sequence[TaskRun], measure: Measure, most: int) -> list[Moved]:
    before = _values(runs[0], measure)
    chosen: list[tuple[int, str]] = []
    for place, run in enumerate(runs[1:], start=1):
        after = _values(run, measure)
        by_size = sorted(before, key=lambda query_id, after=after: -abs(after[query_id] - before[query_id]))  # type: ignore[misc]
        moved = [query_id for query_id in by_size[:most] if abs(after[query_id] - before[query_id]) > 1e-9]
        chosen += [(place, query_id) for query_id in moved]
    if not chosen:
        return []
    rankings = [run.load_rankings() for run in runs]
    texts = {query_id: _text(query_id, rankings) for _, query_id in chosen}
    return [
        Moved(
            0,
            place,
            query_id,
            texts[query_id],
            before[query_id],
            _values(runs[place], measure)[query_id],
            ranks_of_relevant(rankings[0][query_id], measure.protocol),
            ranks_of_relevant(rankings[place][query_id], measure.protocol),
        )
        for place, query_id in chosen
    ]


def _text(query_id: str, rankings: Sequence[Mapping[str, object]]) -> str | None:
    return next((text for found in rankings if (text := getattr(found[query_id], "query", None)) is not None), None)
