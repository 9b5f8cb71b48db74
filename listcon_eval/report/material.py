"""What a report is made of: the runs of each task side by side, query by query."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from listcon_eval.compare import Contestant, TaskRun
from listcon_eval.compare.compare import MOST_RUNS, check_comparable
from listcon_eval.compare.passages import read_texts
from listcon_eval.compare.render import LETTERS
from listcon_eval.errors import ListconError
from listcon_eval.metrics import Measure
from listcon_eval.records import NO_PRECISION, POINTWISE
from listcon_eval.results import RankedQuery, RunRecord, read_provenance

CANDIDATE_ORDER = "data"
"""The name of the data's own candidate order as what stood before reranking."""
AP = Measure("cmteb", "map")
_AP_OF_TREC = Measure("mteb", "map_at_1000")


@dataclass(frozen=True)
class System:
    """One system's run of a task; Q queries.

    Attributes:
        place: its place among the systems of the report: its colour and letter.
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
        """What stands for it in figures."""
        return LETTERS[self.place]

    @property
    def name(self) -> str:
        """Its letter and its name; no name starts with an underscore, which would keep it out of a legend."""
        return f"{self.letter}: {self.label}"

    @property
    def is_iterative(self) -> bool:
        """Whether it ranked in rounds."""
        return self.run.record is not None and self.run.record.mode == "iterative"

    @cached_property
    def provenance(self) -> Mapping[str, Any] | None:
        """Where its numbers come from; None for a TREC run file."""
        return None if self.run.record is None else read_provenance(self.run.record)


@dataclass(frozen=True)
class TaskMaterial:
    """One task with the systems that ran it.

    Attributes:
        task: the task's name.
        measure: the average precision that every system has: cmteb:map, or mteb:map_at_1000 where a TREC run is
            among them.
        query_ids: Q queries, in the order of the first system.
        systems: the systems.
        before: what stood before reranking; None for the candidate order of the data.
        data: where to read texts; None for where the runs had them from.
    """

    task: str
    measure: Measure
    query_ids: tuple[str, ...]
    systems: tuple[System, ...]
    before: System | None
    data: Path | None

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Candidates a query, (Q,)."""
        return np.array([len(self.ordered.rankings[query_id].doc_ids) for query_id in self.query_ids])

    @cached_property
    def is_in_candidate_order(self) -> bool:
        """Whether candidates are known in the data's order; a TREC run alone has none."""
        return any(system.run.record is not None for system in self.systems)

    @cached_property
    def ordered(self) -> System:
        """A system whose candidates are listed in the data's order, where there is one."""
        return next((system for system in self.systems if system.run.record is not None), self.systems[0])

    @property
    def mode_pairs(self) -> list[tuple[System, System]]:
        """Conventional and iterative inference of one model in one precision."""
        found: dict[tuple[str, str, str], dict[str, System]] = {}
        for system in self.systems:
            if (record := system.run.record) is not None:
                key = (record.model, record.model_revision, record.precision)
                found.setdefault(key, {})[record.mode] = system
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
        """The candidates' texts of some queries, read again from the runs' data, or why they cannot be had."""
        reason = "TREC run files hold ids alone, and no run of this package is beside them"
        for system in self.systems:
            if system.run.record is not None:
                found, missing = read_texts(system.run.record, {*query_ids}, self.data)
                if missing is None:
                    return found, None
                reason = missing
        return {}, reason


def gather(
    contestants: Sequence[Contestant],
    *,
    before: str | None = None,
    data: Mapping[str | None, Path] | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[TaskMaterial]:
    """Read all that a report shows of runs.

    Args:
        contestants: the runs.
        before: the run, by its name or a part of it, whose ranking stood before reranking, or "data" for the
            candidate order. By default a BM25 run where there is one, else the candidate order.
        data: task -> data to read texts from; the task None is for a report of one task.
        progress: told of runs read, and of all.

    Raises:
        ListconError: too many runs, runs of one task over different data, or no run or several of that name.
    """
    if len(contestants) > MOST_RUNS:
        raise ListconError(f"{len(contestants)} runs for one report; give at most {MOST_RUNS}")
    names = list(dict.fromkeys(task for contestant in contestants for task in contestant.tasks))
    given = _data_of(names, data or {})
    chosen = _chosen(contestants, before)
    total = sum(len(contestant.tasks) for contestant in contestants)
    done = 0
    materials = []
    for name in names:
        own = [(place, contestant) for place, contestant in enumerate(contestants) if name in contestant.tasks]
        runs = [contestant.tasks[name] for _, contestant in own]
        check_comparable(name, [contestant for _, contestant in own], runs)
        measure = AP if all(str(AP) in run.values for run in runs) else _AP_OF_TREC
        query_ids = tuple(runs[0].values[str(measure)])
        systems = []
        for (place, contestant), run in zip(own, runs, strict=True):
            values = run.values[str(measure)]
            ap = np.array([values[query_id] for query_id in query_ids])
            systems.append(System(place, contestant.label, run, ap, run.load_rankings()))
            done += 1
            progress(done, total)
        stood = next((s for s in systems if s.place == chosen), None) if isinstance(chosen, int) else None
        if chosen is None:
            stood = next((s for s in systems if s.run.record is not None and s.run.record.kind == "bm25"), None)
        materials.append(TaskMaterial(name, measure, query_ids, tuple(systems), stood, given.get(name)))
    return materials


def records_of(materials: Sequence[TaskMaterial]) -> list[RunRecord]:
    """The records for the comparison table; one is made for each TREC run, which has mteb's measures alone."""
    return [
        system.run.record or _trec_record(material, system) for material in materials for system in material.systems
    ]


def _trec_record(material: TaskMaterial, system: System) -> RunRecord:
    """The record of a TREC run, on the data of the runs beside it, whose judgements it was checked to share."""
    known = material.ordered.run
    own_data, _, rest = system.run.signature.partition("|")
    revision = known.data_revision or own_data.rpartition("@")[2]
    return RunRecord(
        folder=Path(),
        task=material.task,
        is_official=known.record is not None and known.record.is_official,
        model=f"run-file/{system.label.partition(' (')[0]}",
        model_revision=rest.partition("|")[0].rpartition("@")[2],
        mode=POINTWISE,
        precision=NO_PRECISION,
        queries=len(material.query_ids),
        cmteb={},
        mteb={
            measure.removeprefix("mteb:"): float(np.mean(list(values.values())))
            for measure, values in system.run.values.items()
        },
        signature=f"{material.task}@{revision}|{rest}",
        kind="run-file",
    )


def _chosen(contestants: Sequence[Contestant], before: str | None) -> int | str | None:
    """The place of the run that `before` names, or `before` itself for the candidate order and for no choice."""
    if before in (None, CANDIDATE_ORDER):
        return before
    labels = [contestant.label for contestant in contestants]
    found = [place for place, label in enumerate(labels) if label == before] or [
        place for place, label in enumerate(labels) if str(before).lower() in label.lower()
    ]
    if len(found) != 1:
        raise ListconError(
            f"--before {before!r} names {len(found)} of the runs; give enough of one name to tell it from the others "
            f"({'; '.join(labels)}), or {CANDIDATE_ORDER!r} for the data's candidate order"
        )
    return found[0]


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
