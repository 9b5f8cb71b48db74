"""What a report shows: the runs of each task query by query, and the numbers behind its figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from listcon_eval.comparison.pairwise import MAX_SYSTEMS, check_comparable
from listcon_eval.comparison.render import LETTERS
from listcon_eval.comparison.show import read_texts
from listcon_eval.comparison.systems import ComparedSystem, TaskRun, find_system
from listcon_eval.errors import ListconError
from listcon_eval.metrics import CARD_MAP, MAIN_SCORE, Measure
from listcon_eval.records import NOT_RETRIEVED, POINTWISE
from listcon_eval.results import Provenance, RankedQuery, Result, read_provenance

NOT_RANKED = 10**9
"""The rank of a candidate that a system did not rank: beyond every depth."""
_MAX_BINS = 8


@dataclass(frozen=True, eq=False)
class SystemRun:
    """One system's run of a task with Q queries."""

    place: int  # its place among the systems of the report, which gives its colour and letter
    label: str  # its name
    run: TaskRun
    ap: NDArray[np.float64]  # the measure by query, 0 to 1, in the task's order of queries, (Q,)
    rankings: Mapping[str, RankedQuery]  # query id -> its ranked candidates

    @property
    def letter(self) -> str:
        """Its short name in figures."""
        return LETTERS[self.place]

    @property
    def name(self) -> str:
        """Its letter and its name. A name that began with an underscore would be missing in matplotlib's legend."""
        return f"{self.letter}: {self.label}"

    @property
    def mode(self) -> str | None:
        """The inference mode, or "pointwise"; None for a TREC run file."""
        return None if self.run.result is None else self.run.result.mode

    @cached_property
    def provenance(self) -> Provenance | None:
        """Where its numbers come from; None for a TREC run file."""
        return None if self.run.result is None else read_provenance(self.run.result)


@dataclass(frozen=True)
class TaskResults:
    """One task with the systems that ran it."""

    task: str
    # cmteb:map; where not all systems have it, the task's main score if that is a mean over queries, else
    # mteb:map_at_1000
    measure: Measure
    query_ids: tuple[str, ...]  # the Q queries that every system has this measure of, in the order of the first system
    queries_left_out: int  # how many queries are not among them: `cmteb` drops some
    systems: tuple[SystemRun, ...]
    before: SystemRun | None  # the first stage; None for the candidate order of the data
    data: Path | None  # where to read texts; None for the data that was ranked

    @property
    def value_name(self) -> str:
        """What the measure is called of one query: a mean of "AP" is MAP."""
        return "AP" if self.measure in (CARD_MAP, MAIN_SCORE) else self.measure.name

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Candidates a query, (Q,)."""
        return np.array([len(self.candidates[query_id].doc_ids) for query_id in self.query_ids])

    @cached_property
    def relevant(self) -> Mapping[str, Sequence[str]]:
        """Each query's relevant documents: of the data's candidates, then those that only a system's run has."""
        return {
            query_id: [
                *dict.fromkeys(
                    doc_id
                    for rankings in (self.candidates, *(system.rankings for system in self.systems))
                    for doc_id, value in zip(rankings[query_id].doc_ids, rankings[query_id].relevance, strict=True)
                    if value > 0
                )
            ]
            for query_id in self.query_ids
        }

    @property
    def candidates(self) -> Mapping[str, RankedQuery]:
        """Each query with its candidates in the data's order, if that is known: a TREC run does not have it."""
        return next((system for system in self.systems if system.mode is not None), self.systems[0]).rankings

    @property
    def mode_pairs(self) -> list[tuple[SystemRun, SystemRun]]:
        """Conventional and iterative inference of one model, with the same settings otherwise."""

        def but_for_mode(system: SystemRun) -> tuple[object, ...]:
            own = system.run.signature
            return own.model, own.model_revision, {**own.settings, "mode": None}

        return [
            (one, other)
            for one, other in permutations(self.systems, 2)
            if (one.mode, other.mode) == ("conventional", "iterative") and but_for_mode(one) == but_for_mode(other)
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
                found, missing = read_texts(system.run.result, system.rankings, {*query_ids}, self.data)
                if missing is None:
                    return found, None
                reason = missing
        return {}, reason


def task_results(
    systems: Sequence[ComparedSystem], *, before: str | None, data: Mapping[str | None, Path]
) -> list[TaskResults]:
    """Read the runs of systems, task by task.

    What stood `before` is a system, by its label or a part of it, or "data" for the candidate order; None is a run of
    the first stage or of BM25 if there is one, else the candidate order. `data` is by task what to read texts from; the
    key None is for a report of one task.

    Raises:
        ListconError: too many systems, runs of one task over different data, or no system or several of that label.
    """
    if len(systems) > MAX_SYSTEMS:
        raise ListconError(f"{len(systems)} systems for one report; give at most {MAX_SYSTEMS}")
    tasks = list(dict.fromkeys(task for system in systems for task in system.tasks))
    given = _data_of(tasks, data)
    chosen = None if before in (None, "data") else find_system(systems, str(before)).label
    found = []
    for task in tasks:
        runs = {place: system.tasks[task] for place, system in enumerate(systems) if task in system.tasks}
        check_comparable(task, {systems[place].label: run for place, run in runs.items()})
        results = [run.result for run in runs.values() if run.result is not None]
        if task in given and not results:
            raise ListconError(f"--data {given[task]}: TREC run files alone show no passages; leave it out")
        choices = [CARD_MAP, *(Measure("mteb", result.main_score) for result in results), MAIN_SCORE]
        measure = next(m for m in choices if all(str(m) in run.values for run in runs.values()))
        values = {place: run.values[str(measure)] for place, run in runs.items()}
        first, *others = values.values()
        query_ids = tuple(query_id for query_id in first if all(query_id in row for row in others))
        read = tuple(
            SystemRun(
                place=place,
                label=systems[place].label,
                run=run,
                ap=np.array([values[place][query_id] for query_id in query_ids]),
                rankings=run.load_rankings(),
            )
            for place, run in runs.items()
        )
        kinds = ("first-stage", "bm25") if before is None else ()
        stages = [own for own in read if own.label == chosen]
        stages += [own for kind in kinds for own in read if own.run.result is not None and own.run.result.kind == kind]
        every = {query_id for run in runs.values() for query_id in run.query_ids}
        found.append(
            TaskResults(
                task=task,
                measure=measure,
                query_ids=query_ids,
                queries_left_out=len(every) - len(query_ids),
                systems=read,
                before=stages[0] if stages else None,
                data=given.get(task),
            )
        )
    return found


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
        given[name or tasks[0]] = path
    return given


def results_of(tasks: Sequence[TaskResults]) -> list[Result]:
    """The results for the comparison table, with one made for each TREC run."""
    return [system.run.result or _trec_result(task, system) for task in tasks for system in task.systems]


def _trec_result(task: TaskResults, system: SystemRun) -> Result:
    """The result of a TREC run, on the data of the compared runs: their judgements were checked to be equal."""
    run = system.run
    known = next((other.run for other in task.systems if other.run.result is not None), run)
    return Result.model_construct(
        folder=Path(),
        task=task.task,
        is_official=known.result is not None and known.result.is_official,
        kind="run-file",
        model=f"run-file/{system.label.replace('/', '_')}",  # the name follows the last slash
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


def gain_by_length(lengths: NDArray[np.int64], gains: NDArray[np.float64]) -> pd.DataFrame:
    """Mean gain by list length, (Q,) each, in at most 8 bins of similar size; lists of one length share a bin.

    Returns:
        A row a bin: `shortest` and `longest` length, how many `queries`, and their mean `gain`.
    """
    edges = np.unique(lengths)
    if len(edges) > _MAX_BINS:
        edges = np.unique(np.quantile(lengths, np.linspace(0, 1, _MAX_BINS + 1)[:-1], method="lower"))
    bins = pd.DataFrame({"length": lengths, "gain": gains}).groupby(np.searchsorted(edges, lengths, side="right"))
    return bins.agg(
        shortest=("length", "min"), longest=("length", "max"), queries=("length", "size"), gain=("gain", "mean")
    )


def tied_ranks(scores: Sequence[float]) -> NDArray[np.int64]:
    """The first and the last rank, from 1, that each of P candidates can have, (P, 2): they differ where it is tied.

    A candidate without a rank has `NOT_RANKED` for both.
    """
    negated = -np.array(scores, dtype=np.float64)
    ranks = np.stack([rankdata(negated, method="min"), rankdata(negated, method="max")], axis=1).astype(np.int64)
    ranks[negated == -NOT_RETRIEVED] = NOT_RANKED
    return ranks


def ranks_of_relevant(results: TaskResults, system: SystemRun) -> NDArray[np.int64]:
    """`tied_ranks` of the R relevant documents of all queries, (R, 2); `NOT_RANKED` for those that the system lacks.

    They are those that any of the systems ranks: a TREC run can have others than the data's candidates.
    """
    ranks = []
    for query_id in results.query_ids:
        entry = system.rankings[query_id]
        own = dict(zip(entry.doc_ids, tied_ranks(entry.final_scores).tolist(), strict=True))
        ranks += [own.get(doc_id, [NOT_RANKED, NOT_RANKED]) for doc_id in results.relevant[query_id]]
    return np.array(ranks, dtype=np.int64).reshape(-1, 2)


def candidate_places(results: TaskResults) -> NDArray[np.int64]:
    """The places, from 1, of the same R documents in the data's order, as first and last, (R, 2)."""
    places = []
    for query_id in results.query_ids:
        own = {doc_id: place for place, doc_id in enumerate(results.candidates[query_id].doc_ids, start=1)}
        places += [own.get(doc_id, NOT_RANKED) for doc_id in results.relevant[query_id]]
    return np.repeat(np.array(places, dtype=np.int64)[:, None], 2, axis=1)


def positives_first(results: TaskResults) -> tuple[int, int]:
    """How many queries with both classes list all relevant candidates first, and how many have both classes."""
    labels = [[value > 0 for value in results.candidates[query_id].relevance] for query_id in results.query_ids]
    both = [row for row in labels if any(row) and not all(row)]
    return sum(row == sorted(row, reverse=True) for row in both), len(both)


def share_within(ranks: NDArray[np.int64], depths: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of candidates that are within each depth: first and last ranks (R, 2) and depths (K,) to (K,).

    A tied candidate counts in equal shares at each of its ranks, which is the mean over ties broken at random.
    """
    if not len(ranks):
        return np.zeros(len(depths))
    first, last = ranks[:, :1], ranks[:, 1:]  # (R, 1)
    return np.asarray(np.clip((depths - first + 1) / (last - first + 1), 0, 1).mean(axis=0), dtype=np.float64)


def round_counts(results: TaskResults, system: SystemRun) -> pd.DataFrame:
    """How many passages leave in each round of an iterative run, by the round's number.

    Returns:
        Columns `dropped` and `kept` (it was the last round of their list), and of each how many are relevant:
        `dropped_relevant` and `kept_relevant`.
    """
    rows = []
    for query_id in results.query_ids:
        entry = system.rankings[query_id]
        last = max(entry.rounds, default=0)
        for number, relevance in zip(entry.rounds, entry.relevance, strict=True):
            is_kept, is_relevant = number == last, relevance > 0
            rows.append((number, not is_kept, not is_kept and is_relevant, is_kept, is_kept and is_relevant))
    columns = ["round", "dropped", "dropped_relevant", "kept", "kept_relevant"]
    return pd.DataFrame(rows, columns=columns).groupby("round").sum()
