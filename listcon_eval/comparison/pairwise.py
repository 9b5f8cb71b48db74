"""Compare systems: per task and measure means with intervals, paired tests, and the queries that changed most."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, InstanceOf, NonNegativeInt

from listcon_eval.arguments import checked
from listcon_eval.comparison.render import LETTERS, ChangedQuery, Comparison, Pair, TaskComparison
from listcon_eval.comparison.statistics import (
    LEVEL,
    SEED,
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
    compared_systems,
    find_system,
    ranks_of_relevant,
)
from listcon_eval.errors import ListconError, count_of
from listcon_eval.metrics import Measure, metrics_of

if TYPE_CHECKING:
    from listcon_eval.results import RankedQuery

DEFAULT_MEASURES = tuple(map(Measure.parse, ("cmteb:map", "cmteb:mrr_10", "mteb:map_at_1000", "mteb:mrr_at_10")))
MAX_SYSTEMS = len(LETTERS)
_EQUAL = 1e-9


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
        against: test all others against this system alone: a path, a part of its label, or the system; it is compared
            too if it is not among `runs`. None: every pair is tested.
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
    wanted = list(dict.fromkeys(m if isinstance(m, Measure) else Measure.parse(m) for m in measures))
    systems, base = _read(given, against, Path(qrels) if isinstance(qrels, str) else qrels, metrics_of(wanted))
    if not 2 <= len(systems) <= MAX_SYSTEMS:
        names = "; ".join(system.label for system in systems) or "none"
        raise ListconError(f"systems to compare: {len(systems)} ({names}); give 2 to {MAX_SYSTEMS} different ones")
    if with_bounds and not any(system.is_bound for system in systems):
        raise ListconError("the bounds were asked for, and no run is of random or oracle: run them, or leave that out")
    lettered = dict(zip(LETTERS, systems, strict=False))
    tested = next((letter for letter, system in lettered.items() if system is base), None)
    by_task: dict[str, dict[str, TaskRun]] = {}
    for letter, system in lettered.items():
        for name, run in system.tasks.items():
            by_task.setdefault(name, {})[letter] = run
    shared = {name: own for name, own in by_task.items() if len(own) > 1}
    if not shared:
        has = "; ".join(f"{system.label}: {', '.join(system.tasks)}" for system in systems)
        raise ListconError(
            f"no two systems have a task in common ({has}): give runs of the same tasks; a TREC run is of the "
            "task of the folders that are compared with it, when that is one"
        )
    labels = {letter: system.label for letter, system in lettered.items()}
    tasks = []
    for name, own in shared.items():
        by_label = {labels[letter]: run for letter, run in own.items()}
        check_comparable(name, by_label)
        letters = [letter for letter in own if with_bounds or not lettered[letter].is_bound]
        pairs = list(combinations(letters, 2))
        if tested is not None:
            pairs = [(tested, letter) for letter in letters if tested in own and letter != tested]
        chosen = _measures_of(name, by_label, wanted)
        tasks.append(
            _compare_task(
                name, own, labels, chosen, pairs, level=level, resamples=resamples, seed=seed, max_changed=max_changed
            )
        )
    return Comparison(
        labels=list(labels.values()),
        tasks=tasks,
        not_compared={name: labels[letter] for name, own in by_task.items() if len(own) == 1 for letter in own},
        level=level,
        seed=seed,
    )


def _read(
    runs: Sequence[ComparedSystem | str | Path] | Mapping[str, Any],
    against: ComparedSystem | str | Path | None,
    qrels: Path | Mapping[str, Any] | pd.DataFrame | None,
    metrics: Sequence[str],
) -> tuple[list[ComparedSystem], ComparedSystem | None]:
    """The systems, and the one to test against."""
    entries = runs.items() if isinstance(runs, Mapping) else [(None, run) for run in runs]
    if empty := [name for name, run in entries if isinstance(run, str) and not run]:
        raise ListconError(f"{empty[0] or 'runs'}: the path is '' (empty): give a run's folder, or a TREC run file")
    given = [(name, Path(run) if isinstance(run, str) else run) for name, run in entries]
    labels = {run.label if isinstance(run, ComparedSystem) and name is None else name for name, run in given}
    if isinstance(against, str) and (against in labels or not Path(against).exists()):
        systems, _ = compared_systems(given, qrels=qrels, metrics=metrics)
        return systems, find_system(systems, against)
    return compared_systems(given, Path(against) if isinstance(against, str) else against, qrels=qrels, metrics=metrics)


def check_comparable(task: str, runs: Mapping[str, TaskRun]) -> None:
    """Refuse runs of one task, by their systems' names, over different data or different queries."""
    revisions = {run.data_revision: label for label, run in runs.items() if run.data_revision}
    if len(revisions) > 1:
        seen = "; ".join(f"{label}: {revision}" for revision, label in revisions.items())
        raise ListconError(
            f"{task}: the runs were made on different revisions of the data ({seen}): run all of these systems on one"
        )
    (first, queries), *others = [(label, {*run.query_ids}) for label, run in runs.items()]
    for label, own in others:
        if own != queries:
            lacks, extra = sorted(queries - own), sorted(own - queries)
            raise ListconError(
                f"{task}: {first} has {count_of(len(queries), 'query')}, {label} has {len(own)}; "
                f"only in the first: {len(lacks)}{_some(lacks)}; only in the second: {len(extra)}{_some(extra)}; "
                "runs are compared over the same queries"
            )


def _some(query_ids: Sequence[str]) -> str:
    return f" ({', '.join(query_ids[:3])}{', ...' if len(query_ids) > 3 else ''})" if query_ids else ""


def _measures_of(task: str, runs: Mapping[str, TaskRun], wanted: Sequence[Measure]) -> list[Measure]:
    for measure in wanted:
        for label, run in runs.items():
            if str(measure) not in run.values:
                raise ListconError(
                    f"{task}: {label} has no {measure}; it has {', '.join(run.values)} (a TREC run has "
                    "the mteb measures alone; those of ir_measures are there when `run --metrics` asked for them)"
                )
    mains = [Measure("mteb", run.result.main_score) for run in runs.values() if run.result is not None]
    usual = dict.fromkeys((*DEFAULT_MEASURES, *mains))
    return list(wanted) or [m for m in usual if all(str(m) in run.values for run in runs.values())]


def _compare_task(
    task: str,
    runs: Mapping[str, TaskRun],
    labels: Mapping[str, str],
    measures: Sequence[Measure],
    pairs: Sequence[tuple[str, str]],
    *,
    level: float,
    resamples: int | None,
    seed: int,
    max_changed: int,
) -> TaskComparison:
    """One task's part of a comparison; runs and pairs (base, other) go by the letters of the systems."""
    query_ids = next(iter(runs.values())).query_ids
    exact = is_exact(len(query_ids))
    needed = resamples_for(len(pairs), level)
    resamples = resamples or needed
    if not exact and len(pairs) / (resamples + 1) > level:
        raise ListconError(
            f"--resamples {resamples}: with {count_of(len(pairs), 'pair')} no corrected p-value can be as low as "
            f"{level:g}; give {needed} or leave the option out"
        )
    values = {  # NaN: a query that cmteb drops
        (measure, letter): np.array([run.values[str(measure)].get(query_id, np.nan) for query_id in query_ids])
        for measure in measures
        for letter, run in runs.items()
    }
    keys = [(measure, base, other) for measure in measures for base, other in pairs]
    differences = [values[measure, other] - values[measure, base] for measure, base, other in keys]
    intervals = mean_intervals([*values.values(), *differences], resamples=resamples, seed=seed)
    means = dict(zip(values, intervals, strict=False))
    p_values = randomisation_test(differences, resamples=resamples, seed=seed).tolist() if pairs else []
    corrected = [
        p for start in range(0, len(keys), len(pairs) or 1) for p in holm(p_values[start : start + len(pairs)])
    ]
    return TaskComparison(
        task=task,
        queries=len(query_ids),
        measures=measures,
        means={letter: {measure: means[measure, letter] for measure in measures} for letter in runs},
        signatures={letter: run.signature for letter, run in runs.items()},
        pairs=[
            Pair(base, other, measure, interval, p, p_holm, count_wins(row))
            for (measure, base, other), row, interval, p, p_holm in zip(
                keys, differences, intervals[len(values) :], p_values, corrected, strict=True
            )
        ],
        changed=_changed(runs, measures[0], pairs, max_changed),
        resamples=resamples,
        exact=exact,
        notes=[*_dropped(values, len(query_ids), labels), *(note for run in runs.values() for note in run.notes)],
    )


def _dropped(
    values: Mapping[tuple[Measure, str], NDArray[np.float64]], queries: int, labels: Mapping[str, str]
) -> list[str]:
    """What to say of queries that cmteb drops: the two modes label equal texts differently, and may drop others."""
    counted = {
        letter: int((~np.isnan(row)).sum()) for (measure, letter), row in values.items() if measure.protocol == "cmteb"
    }
    if not counted or min(counted.values()) == queries:
        return []
    own = f"{min(counted.values())} of {queries} queries"
    if len(set(counted.values())) > 1:
        own = "; ".join(f"{labels[letter]}: {count} of {queries} queries" for letter, count in counted.items())
    return [f"cmteb counts the queries with a relevant and another candidate ({own}); a pair is over those of both"]


def _changed(
    runs: Mapping[str, TaskRun], measure: Measure, pairs: Sequence[tuple[str, str]], most: int
) -> list[ChangedQuery]:
    """The queries that changed most between the first tested system and each other one."""
    rankings: dict[str, Mapping[str, RankedQuery]] = {}
    found = []
    for base, other in pairs:
        before, after = (runs[letter].values[str(measure)] for letter in (base, other))
        changes = {query_id: abs(after[query_id] - before[query_id]) for query_id in before if query_id in after}
        largest = sorted((query_id for query_id in changes if changes[query_id] > _EQUAL), key=lambda q: -changes[q])
        for query_id in largest[:most] if base == pairs[0][0] else ():
            rankings = rankings or {letter: run.load_rankings() for letter, run in runs.items()}
            texts = (row[query_id].query for row in rankings.values())
            found.append(
                ChangedQuery(
                    base=base,
                    other=other,
                    query_id=query_id,
                    query=next((text for text in texts if text is not None), None),
                    before=before[query_id],
                    after=after[query_id],
                    ranks_before=ranks_of_relevant(rankings[base][query_id], measure.protocol),
                    ranks_after=ranks_of_relevant(rankings[other][query_id], measure.protocol),
                )
            )
    return found
