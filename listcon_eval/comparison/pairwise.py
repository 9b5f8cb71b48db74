"""Compare systems: per task and measure means with intervals, paired tests, and the queries that changed most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, InstanceOf, NonNegativeInt

from listcon_eval.arguments import checked
from listcon_eval.comparison.render import ChangedQuery, Comparison, Pair, TaskComparison
from listcon_eval.comparison.statistics import (
    LEVEL,
    SEED,
    Interval,
    count_wins,
    holm,
    is_exact,
    mean_intervals,
    randomisation_test,
    resamples_for,
)
from listcon_eval.comparison.systems import (
    ComparedSystem,
    TaskRun,
    find_system,
    named_systems,
    ranks_of_relevant,
    read_systems,
)
from listcon_eval.errors import ListconError, count_of
from listcon_eval.metrics import Measure

DEFAULT_MEASURES = (
    Measure("cmteb", "map"),
    Measure("cmteb", "mrr_10"),
    Measure("mteb", "map_at_1000"),
    Measure("mteb", "mrr_at_10"),
)
MAX_SYSTEMS = 16
_EQUAL = 1e-9


@dataclass(frozen=True)
class _Settings:
    measures: Sequence[Measure]
    level: float
    resamples: int | None
    seed: int
    max_changed: int
    against: int | None
    with_bounds: bool


@checked
def compare(
    runs: Sequence[InstanceOf[ComparedSystem] | str | Path] | Mapping[str, Any] | str | Path,
    measures: Sequence[InstanceOf[Measure] | str] = (),
    *,
    against: InstanceOf[ComparedSystem] | str | Path | None = None,
    qrels: str | Path | Mapping[str, Any] | InstanceOf[pd.DataFrame] | None = None,
    with_bounds: bool = False,
    level: Annotated[float, Field(ge=0.001, le=1)] = LEVEL,
    resamples: Annotated[int, Field(ge=99)] | None = None,
    seed: NonNegativeInt = SEED,
    max_changed: NonNegativeInt = 5,
) -> Comparison:
    """Compare systems, task by task, among those that ran the task.

    Args:
        runs: run folders, folders with runs in them, TREC run files, or systems read before by `read_systems`; one
            path alone is a folder with several. Or name -> a path, or scores in memory: query id -> document id ->
            score, or a DataFrame with columns `query_id`, `doc_id`, `score`.
        measures: what to compare by, as `cmteb:map`; by default the `DEFAULT_MEASURES` and the task's main score, as
            far as all runs of the task have values of them by query.
        against: test all others against this system alone: a path, a part of its label, or the system.
            None: every pair is tested.
        qrels: the judgements of TREC run files and of scores in memory: a file, query id -> document id -> relevance,
            or a DataFrame with columns `query_id`, `doc_id`, `relevance`. By default a `qrels.trec` beside a file, or
            the compared runs' own.
        with_bounds: whether the random order and the oracle are tested too.
        level: the corrected p-value up to which a difference is significant.
        resamples: the draws of every interval and test; as many as the pairs need when None.
        seed: their generator's seed.
        max_changed: how many changed queries to name a task for the first system (or `against`) and each other one.

    Raises:
        ListconError: fewer than two systems or too many, no task that two of them have, a measure that a run does not
            have, runs of different queries or data, or too few resamples for anything to be significant.
    """
    given = [runs] if isinstance(runs, str | Path) else runs
    systems, base = _read(given, against, Path(qrels) if isinstance(qrels, str) else qrels)
    if not 2 <= len(systems) <= MAX_SYSTEMS:
        names = "; ".join(system.label for system in systems) or "none"
        raise ListconError(f"systems to compare: {len(systems)} ({names}); give 2 to {MAX_SYSTEMS} different ones")
    if with_bounds and not any(system.is_bound for system in systems):
        raise ListconError("the bounds were asked for, and no run is of random or oracle: run them, or leave that out")
    by_task: dict[str, dict[int, TaskRun]] = {}
    for place, system in enumerate(systems):
        for name, run in system.tasks.items():
            by_task.setdefault(name, {})[place] = run
    shared = {name: own for name, own in by_task.items() if len(own) > 1}
    if not shared:
        has = "; ".join(f"{system.label}: {', '.join(system.tasks)}" for system in systems)
        raise ListconError(f"no two systems have a task in common ({has}): give runs of the same tasks")
    for name, own in shared.items():
        check_comparable(name, [systems[place] for place in own], list(own.values()))
    chosen = list(dict.fromkeys(m if isinstance(m, Measure) else Measure.parse(m) for m in measures))
    settings = _Settings(chosen, level, resamples, seed, max_changed, base, with_bounds)
    return Comparison(
        labels=[system.label for system in systems],
        tasks=[_compare_task(name, own, systems, settings) for name, own in shared.items()],
        not_compared={name: systems[place].label for name, own in by_task.items() if len(own) == 1 for place in own},
        level=level,
        seed=seed,
    )


def _read(
    runs: Sequence[ComparedSystem | str | Path] | Mapping[str, Any],
    against: ComparedSystem | str | Path | None,
    qrels: Path | Mapping[str, Any] | pd.DataFrame | None,
) -> tuple[list[ComparedSystem], int | None]:
    """The systems, and the place of the one to test against."""
    if against == "":
        raise ListconError("the system to test against is '' (empty): give a path or a part of a name, or leave it out")
    if isinstance(runs, Mapping):
        runs = named_systems(runs, qrels)
    paths = [Path(run) for run in runs if not isinstance(run, ComparedSystem)]
    is_path = isinstance(against, Path) or (isinstance(against, str) and Path(against).exists())
    if is_path:
        paths.insert(0, Path(str(against)))
    systems = [*read_systems(paths, qrels), *(run for run in runs if isinstance(run, ComparedSystem))]
    if is_path and paths[0].is_dir() and len(own := read_systems(paths[:1])) != 1:
        labels = "; ".join(system.label for system in own)
        raise ListconError(f"{against} holds {len(own)} systems ({labels}): name the one to test against")
    if against is None or is_path:
        return systems, 0 if is_path else None
    chosen = against if isinstance(against, ComparedSystem) else find_system(systems, str(against))
    if chosen not in systems:
        raise ListconError(f"{chosen.label}, to test the others against, is not among the runs: give it with them")
    return systems, systems.index(chosen)


def check_comparable(task: str, systems: Sequence[ComparedSystem], runs: Sequence[TaskRun]) -> None:
    """Refuse runs of one task over different data or different queries; `systems` says whose runs they are."""
    revisions = {run.data_revision: own.label for own, run in zip(systems, runs, strict=True) if run.data_revision}
    if len(revisions) > 1:
        seen = "; ".join(f"{label}: {revision}" for revision, label in revisions.items())
        raise ListconError(
            f"{task}: the runs were made on different revisions of the data ({seen}): run one of them again on the "
            "other's data"
        )
    first = set(runs[0].query_ids)
    for system, run in zip(systems[1:], runs[1:], strict=True):
        queries = set(run.query_ids)
        if first != queries:
            lacks, extra = sorted(first - queries), sorted(queries - first)
            raise ListconError(
                f"{task}: {systems[0].label} has {count_of(len(first), 'query')}, {system.label} has {len(queries)}; "
                f"only in the first: {len(lacks)}{_some(lacks)}; only in the second: {len(extra)}{_some(extra)}; "
                "runs are compared over the same queries"
            )


def _some(query_ids: Sequence[str]) -> str:
    return f" ({', '.join(query_ids[:3])}{', ...' if len(query_ids) > 3 else ''})" if query_ids else ""


def _compare_task(
    task: str, runs: Mapping[int, TaskRun], systems: Sequence[ComparedSystem], settings: _Settings
) -> TaskComparison:
    measures = _measures_of(task, runs, systems, settings.measures)
    keys = _pairs_of(runs, systems, settings)
    resamples = settings.resamples or resamples_for(len(keys), settings.level)
    query_ids = next(iter(runs.values())).query_ids
    exact = is_exact(len(query_ids))
    if not exact and len(keys) / (resamples + 1) > settings.level:
        raise ListconError(
            f"--resamples {resamples}: with {count_of(len(keys), 'pair')} no corrected p-value can be as low as "
            f"{settings.level:g}; give {resamples_for(len(keys), settings.level)} or leave the option out"
        )
    values = {  # NaN: a query that cmteb drops
        (place, measure): np.array([run.values[str(measure)].get(query_id, np.nan) for query_id in query_ids])
        for measure in measures
        for place, run in runs.items()
    }
    differences = {
        (measure, base, other): values[other, measure] - values[base, measure]
        for measure in measures
        for base, other in keys
    }
    rows = np.array([*values.values(), *differences.values()])
    intervals = mean_intervals(rows, resamples=resamples, seed=settings.seed)
    means = dict(zip(values, intervals, strict=False))
    return TaskComparison(
        task=task,
        queries=len(query_ids),
        measures=measures,
        means={place: {measure: means[place, measure] for measure in measures} for place in runs},
        signatures={place: run.signature for place, run in runs.items()},
        pairs=_tested(differences, intervals[len(values) :], resamples, settings.seed),
        changed=_changed(runs, measures[0], keys, settings.max_changed),
        resamples=resamples,
        exact=exact,
        notes=[*_dropped(values, len(query_ids), systems), *(note for run in runs.values() for note in run.notes)],
    )


def _measures_of(
    task: str, runs: Mapping[int, TaskRun], systems: Sequence[ComparedSystem], wanted: Sequence[Measure]
) -> list[Measure]:
    for measure in wanted:
        for place, run in runs.items():
            if str(measure) not in run.values:
                raise ListconError(
                    f"{task}: {systems[place].label} has no {measure}; it has {', '.join(run.values)} (a TREC run has "
                    "the mteb measures alone; those of ir_measures are there when `run --metrics` asked for them)"
                )
    mains = [Measure("mteb", run.result.main_score) for run in runs.values() if run.result is not None]
    usual = dict.fromkeys((*DEFAULT_MEASURES, *mains))
    return list(wanted) or [m for m in usual if all(str(m) in run.values for run in runs.values())]


def _pairs_of(
    runs: Mapping[int, TaskRun], systems: Sequence[ComparedSystem], settings: _Settings
) -> list[tuple[int, int]]:
    """The pairs to test, as places of base and other."""
    tested = [place for place in runs if settings.with_bounds or not systems[place].is_bound]
    if settings.against is not None:
        return [(settings.against, place) for place in tested if place != settings.against and settings.against in runs]
    return list(combinations(tested, 2))


def _tested(
    differences: Mapping[tuple[Measure, int, int], NDArray[np.float64]],
    intervals: Sequence[Interval],
    resamples: int,
    seed: int,
) -> list[Pair]:
    """Test all differences of a task, and correct the p-values of each measure."""
    if not differences:
        return []
    p_values = randomisation_test(np.array([*differences.values()]), resamples=resamples, seed=seed).tolist()
    corrected: dict[tuple[Measure, int, int], float] = {}
    for measure in {key[0] for key in differences}:
        family = {key: p for key, p in zip(differences, p_values, strict=True) if key[0] == measure}
        corrected |= zip(family, holm(list(family.values())), strict=True)
    return [
        Pair(base, other, measure, interval, p, corrected[measure, base, other], count_wins(row))
        for ((measure, base, other), row), interval, p in zip(differences.items(), intervals, p_values, strict=True)
    ]


def _dropped(
    values: Mapping[tuple[int, Measure], NDArray[np.float64]],
    queries: int,
    systems: Sequence[ComparedSystem],
) -> list[str]:
    """What to say of queries that cmteb drops: the two modes label equal texts differently, and may drop others."""
    counted = {
        place: int((~np.isnan(row)).sum()) for (place, measure), row in values.items() if measure.protocol == "cmteb"
    }
    if not counted or min(counted.values()) == queries:
        return []
    if len(set(counted.values())) == 1:
        own = f"{next(iter(counted.values()))} of {queries} queries"
    else:
        own = "; ".join(f"{systems[place].label}: {count} of {queries} queries" for place, count in counted.items())
    return [f"cmteb counts the queries with a relevant and another candidate ({own}); a pair is over those of both"]


def _changed(
    runs: Mapping[int, TaskRun], measure: Measure, pairs: Sequence[tuple[int, int]], most: int
) -> list[ChangedQuery]:
    """The queries that changed most between the first tested system and each other one."""
    chosen: list[tuple[int, int, str]] = []
    for base, other in pairs:
        if base != pairs[0][0]:
            continue
        before, after = (runs[place].values[str(measure)] for place in (base, other))
        changes = [(-abs(after[query_id] - before[query_id]), query_id) for query_id in before if query_id in after]
        largest = sorted((row for row in changes if row[0] < -_EQUAL), key=lambda row: row[0])
        chosen += [(base, other, query_id) for _, query_id in largest[:most]]
    if not chosen:
        return []
    rankings = {place: run.load_rankings() for place, run in runs.items()}
    return [
        ChangedQuery(
            base=base,
            other=other,
            query_id=query_id,
            query=next((row[query_id].query for row in rankings.values() if row[query_id].query is not None), None),
            before=runs[base].values[str(measure)][query_id],
            after=runs[other].values[str(measure)][query_id],
            ranks_before=ranks_of_relevant(rankings[base][query_id], measure.protocol),
            ranks_after=ranks_of_relevant(rankings[other][query_id], measure.protocol),
        )
        for base, other, query_id in chosen
    ]
