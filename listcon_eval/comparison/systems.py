"""What is compared: results of this package, found in folders, and TREC run files of other tools."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from listcon_eval.data.mteb_tasks import leaves_out_own_documents
from listcon_eval.data.trec import note_of_ranks, read_qrels, read_trec_run, short_hash
from listcon_eval.errors import ListconError, count_of
from listcon_eval.mteb_compat import relevant_from
from listcon_eval.ordering import ranked_list, ranked_places
from listcon_eval.records import POINTWISE
from listcon_eval.results import RankedQuery, Result, Signature, load_results, read_per_query, read_rankings
from listcon_eval.results import environment as env
from listcon_eval.results.records import TREC_QRELS
from listcon_eval.results.store import key_of

if TYPE_CHECKING:
    from listcon_eval.data.trec import IdTable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskRun:
    """One system's run of one task."""

    task: str
    # the revision of its data; a hash of the judgements when they alone are known, None when they are another run's
    data_revision: str | None
    signature: Signature  # what its numbers depend on
    # measure (as `cmteb:map`) -> query id -> value, 0 to 1. `cmteb` may cover fewer queries
    values: Mapping[str, Mapping[str, float]]
    # reads the ranked candidates, by query id; they are large and seldom needed
    load_rankings: Callable[[], Mapping[str, RankedQuery]]
    result: Result | None = None  # the result of this package; None for a TREC run file
    path: Path | None = None  # its folder, or its TREC run file; None for scores in memory
    notes: tuple[str, ...] = ()  # what has to be known of the numbers, such as queries that a TREC run file lacks

    @property
    def query_ids(self) -> tuple[str, ...]:
        """The queries of the task, in the order of the run."""
        whole_first = sorted(self.values, key=lambda measure: measure.startswith("cmteb:"))
        return tuple(dict.fromkeys(query_id for measure in whole_first for query_id in self.values[measure]))


@dataclass(frozen=True)
class ComparedSystem:
    """One system in one mode, with its runs."""

    label: str  # its name, which no other system of the comparison has
    tasks: Mapping[str, TaskRun]  # task -> its run
    is_bound: bool = False  # whether it is the random order or the oracle, which are tested only when asked for

    def is_in(self, path: Path) -> bool:
        """Whether all of its runs are of a TREC run file, or in a folder."""
        paths = [run.path for run in self.tasks.values()]
        return bool(paths) and all(own is not None and own.resolve().is_relative_to(path.resolve()) for own in paths)

    @property
    def results(self) -> list[Result]:
        """Its runs that are results of this package."""
        return [run.result for run in self.tasks.values() if run.result is not None]


def named_systems(
    runs: "Mapping[str, str | Path | IdTable]",
    qrels: "Path | IdTable | None" = None,
    metrics: Sequence[str] = (),
    beside: Sequence[ComparedSystem] = (),
) -> list[ComparedSystem]:
    """Systems under names of one's own: paths as `read_systems` takes them, or scores in memory.

    Raises:
        ListconError: as `read_systems`, or a path holds several systems.
    """
    if empty := [name for name, run in runs.items() if isinstance(run, str) and not run]:
        raise ListconError(f"{empty[0]}: the path is '' (empty): give a run's folder, or a TREC run file")
    given = {name: Path(run) if isinstance(run, (str, Path)) else run for name, run in runs.items()}
    folders = {run for run in given.values() if isinstance(run, Path) and not run.is_file()}
    by_folder = _systems_in({folder: load_results(folder, metrics) for folder in folders})
    results = [result for own in by_folder.values() for system in own for result in system.values()]
    results += [result for system in beside for result in system.results]
    found = []
    for name, run in given.items():
        if not isinstance(run, Path) or run not in by_folder:
            scored = _scored_run(name, run, qrels, results)
            found.append(ComparedSystem(name, {scored.task: scored}))
        elif len(own := by_folder[run]) == 1:
            found.append(_compared(name, own[0]))
        else:
            names = "; ".join(system.label for system in read_systems([run]))
            raise ListconError(f"{name}: {run} holds {len(own)} systems ({names}): give the folder of one of them")
    return found


def read_systems(
    paths: Sequence[Path],
    qrels: "Path | IdTable | None" = None,
    metrics: Sequence[str] = (),
    beside: Sequence[ComparedSystem] = (),
) -> list[ComparedSystem]:
    """Read what is to be compared, in the order given.

    Of several revisions of a task's data the newest that all systems with runs of the task have is compared.

    Args:
        paths: folders of runs, or with runs in them, where every model, mode and dtype is a system; TREC run files.
            What is given twice is read once.
        qrels: the judgements for TREC run files; by default a `qrels.trec` beside the file, or the compared runs' own.
        metrics: those of ir_measures that are to be compared.
        beside: systems read before, with which these are compared: TREC run files are of their task.

    Raises:
        ListconError: something cannot be read, or the judgements of a TREC run are missing or not the runs' own.
    """
    once = list({path.resolve(): path for path in paths}.values())
    by_folder: dict[Path, list[Result]] = {}
    seen: set[Path] = set()
    for path in once:
        if not path.is_file():
            own = load_results(path, metrics)
            by_folder[path] = [result for result in own if result.folder.resolve() not in seen]
            seen |= {result.folder.resolve() for result in own}
    if qrels is not None and by_folder and len(by_folder) == len(once):
        raise ListconError(f"--qrels {qrels} is for TREC run files, and none was given: leave it out")
    systems = _systems_in(by_folder)
    results = [result for own in systems.values() for system in own for result in system.values()]
    results += [result for system in beside for result in system.results]
    found: list[tuple[list[str], TaskRun | Mapping[str, Result]]] = []  # its names from the shortest, and what it is
    for path in once:
        if path in systems:
            found += [(_names(next(iter(system.values())), path), system) for system in systems[path]]
        else:
            found.append(([path.stem, f"{path.stem} ({path})"], _scored_run(str(path), path, qrels, results)))
    uses = Counter(name for names, _ in found for name in {*names})
    labels = [next((name for name in names if uses[name] == 1), names[-1]) for names, _ in found]
    return [
        ComparedSystem(label, {run.task: run}) if isinstance(run, TaskRun) else _compared(label, run)
        for label, (_, run) in zip(labels, found, strict=True)
    ]


def _systems_in(folders: Mapping[Path, Sequence[Result]]) -> dict[Path, list[dict[str, Result]]]:
    """The systems whose runs are in folders, each as task -> its run.

    A task's runs are on one revision of its data: the one that was run last of those that all systems have which ran
    the task. Where there is none, each system has the one that it was run on last.
    """
    found: dict[Path, list[dict[str, dict[str, Result]]]] = {}  # folder -> its systems: task -> revision -> run
    for folder, results in folders.items():
        groups: dict[tuple[object, ...], dict[str, dict[str, Result]]] = {}
        for result in results:
            tasks = groups.setdefault((*result.system_key, result.folder.parent), {})
            tasks.setdefault(result.task, {})[result.data_revision] = result
        found[folder] = list(groups.values())
    systems = [system for own in found.values() for system in own]
    chosen = {
        task: _common_revision(task, [own[task] for own in systems if task in own]) for own in systems for task in own
    }
    return {
        folder: [
            {task: runs.get(chosen[task]) or max(runs.values(), key=_finished) for task, runs in system.items()}
            for system in own
        ]
        for folder, own in found.items()
    }


def _common_revision(task: str, runs: Sequence[Mapping[str, Result]]) -> str:
    """The revision that was run last of those that all systems have, whose runs are given by revision; "" for none."""
    shared = set.intersection(*map(set, runs))
    latest = max((own[revision] for own in runs for revision in shared), key=_finished, default=None)
    if latest is None:
        return ""
    if len(shared) > 1:
        logger.warning(
            "%s: all systems have runs on %s revisions of its data; those on %s are compared, where a run was made "
            "last. To compare others, give the folders of these runs",
            task,
            len(shared),
            latest.data_revision,
        )
    return latest.data_revision


def _finished(result: Result) -> datetime:
    return result.finished


def _compared(label: str, runs: Mapping[str, Result]) -> ComparedSystem:
    """A system by its label, with its run of each task."""
    read = {
        task: TaskRun(
            task=task,
            data_revision=run.data_revision,
            signature=run.signature,
            values=read_per_query(run),
            load_rankings=partial(read_rankings, run),
            result=run,
            path=run.folder / task,
        )
        for task, run in runs.items()
    }
    return ComparedSystem(label, read, any(run.kind in ("random", "oracle") for run in runs.values()))


def find_system(systems: Sequence[ComparedSystem], name: str) -> ComparedSystem:
    """The system of that label, or the only one whose label holds the text."""
    found = [system for system in systems if system.label == name]
    found = found or [system for system in systems if name.casefold() in system.label.casefold()]
    if len(found) != 1:
        raise ListconError(
            f"{name!r} names {len(found)} of the systems ({'; '.join(system.label for system in systems)}): give a "
            "part of one name that no other has"
        )
    return found[0]


def _names(result: Result, path: Path) -> list[str]:
    """What a system can be called, the shortest first; it gets the first that no other system has."""
    mode = [] if result.mode == POINTWISE else [result.mode]
    others = [f"{key} {value}" for key, value in result.settings.items() if key not in ("mode", "dtype")]
    name = ", ".join([result.system, *mode, *filter(None, [result.dtype])])
    return [
        name,
        ", ".join([name, *others]),
        f"{name}, {result.model_revision[:14]}",
        f"{name} ({path})",
        f"{name} ({result.folder})",
    ]


def _scored_run(
    name: str, scores: "Path | IdTable", given: "Path | IdTable | None", results: Sequence[Result]
) -> TaskRun:
    """A TREC run file, or scores in memory, measured by the judgements given, beside the file or of the results."""
    from listcon_eval.metrics import mteb as mteb_protocol  # mteb takes seconds, and scores alone need it

    tasks = {result.task: result for result in results}
    if len(tasks) > 1:
        raise ListconError(
            f"{name} is a TREC run of one task, and the folders beside it hold {len(tasks)} ({', '.join(tasks)}): "
            "give folders of that one task's runs"
        )
    result = next(iter(tasks.values()), None)
    relevance = (result and result.signature.relevance) or 1
    own = result.file(TREC_QRELS) if result else None
    beside = scores.with_name(TREC_QRELS) if given is None and isinstance(scores, Path) else None
    judgements = beside if beside is not None and beside.is_file() else own if given is None else given
    if judgements is None:
        raise ListconError(f"{name}: a TREC run needs judgements: give them with --qrels FILE")
    source = str(judgements) if isinstance(judgements, Path) else "qrels"
    qrels = {query_id: row for query_id, row in read_qrels(judgements).items() if row}
    if not qrels:
        raise ListconError(f"{source} has no judgements; expected lines `query 0 document relevance`")
    if not any(value >= relevance for row in qrels.values() for value in row.values()):
        raise ListconError(
            f"{source} judges no document of any query {relevance} or more, from which on one is relevant: nothing can "
            "be measured"
        )
    run = read_trec_run(scores, qrels)
    shown = scores.name if isinstance(scores, Path) else name
    notes = []
    with_own = [query_id for query_id, row in run.items() if query_id in row]
    if result and with_own and leaves_out_own_documents(result.task):
        others = {query_id: [doc_id for doc_id in row if doc_id != query_id] for query_id, row in run.items()}
        run = {query_id: {doc_id: run[query_id][doc_id] for doc_id in own} for query_id, own in others.items() if own}
        if not run:
            raise ListconError(
                f"{name} lists no documents but those with the id of their query, which mteb leaves out of "
                f"{result.task}: give a run of other documents"
            )
        notes.append(
            f"{shown}: documents with the id of their query are left out ({count_of(len(with_own), 'query')}), as mteb "
            f"does for {result.task}"
        )
    if own is not None and judgements is not own:
        _check_judgements(qrels, source, read_qrels(own), own)
    # A query without a line has no candidates, and a document without one is not retrieved, as in trec_eval.
    lacking = [query_id for query_id in qrels if query_id not in run]
    if len(lacking) == len(qrels):
        raise ListconError(
            f"{name} has no query that {source} judges, such as {lacking[0]!r}; its own "
            f"are such as {next(iter(run), 'none')!r}"
        )
    if not _knows(qrels, run) and not (result and _knows(_candidates(result), run)):
        query_id = next(query_id for query_id in run if query_id in qrels)
        raise ListconError(
            f"{name} has no document that {source} judges{' or a run beside it ranks' if result else ''}, for any "
            f"query: its documents of query {query_id} are such as {next(iter(run[query_id]))!r}, those judged "
            f"such as {next(iter(qrels[query_id]))!r}; give the judgements of the same data"
        )
    ordered = {
        query_id: dict(zip(row, ranked_list(list(row.values())).scores, strict=True))
        for query_id, row in {**run, **{lacked: {} for lacked in lacking}}.items()
    }
    try:
        per_query = mteb_protocol.evaluate(qrels, ordered, result.main_score if result else None, relevance).per_query
    except ListconError as error:
        raise ListconError(f"{name} with the judgements of {source}: {error}") from error
    if lacking:
        notes.append(f"{shown} lacks {count_of(len(lacking), 'judged query')} (of {len(qrels)}): each counts 0")
    if isinstance(scores, Path) and (note := note_of_ranks(scores)):
        notes.append(f"{shown}: {note}")
    content = f"sha256-{key_of(qrels)[:12]}"
    task = result.task if result else judgements.stem if isinstance(judgements, Path) else source
    versions = env.package_versions()
    return TaskRun(
        task=task,
        data_revision=None if result else f"qrels-{content}",
        signature=Signature(
            task=task,
            relevance=result.signature.relevance if result else None,
            data_revision=f"qrels-{short_hash(judgements) if isinstance(judgements, Path) else content}",
            model=f"TREC run {shown}" if isinstance(scores, Path) else shown,
            model_revision=short_hash(scores) if isinstance(scores, Path) else f"sha256-{key_of(run)[:12]}",
            settings={"mode": POINTWISE},
            ties=env.TIES,
            versions={package: versions[package] for package in env.measuring_packages()},
            device="none",
        ),
        values={
            f"mteb:{metric}": {query_id: row[metric] for query_id, row in per_query.items()}
            for metric in next(iter(per_query.values()))
        },
        load_rankings=lambda: {
            query_id: RankedQuery(
                query_id=query_id,
                query=None,
                doc_ids=tuple(ordered[query_id]),
                scores=tuple(ordered[query_id].values()),
                rounds=(0,) * len(ordered[query_id]),
                relevance=tuple(judged.get(doc_id, 0) for doc_id in ordered[query_id]),
                cmteb_relevant=tuple(judged.get(doc_id, 0) > 0 for doc_id in ordered[query_id]),
            )
            for query_id, judged in relevant_from(qrels, relevance).items()
        },
        notes=tuple(notes),
        path=scores if isinstance(scores, Path) else None,
    )


def _knows(known: Mapping[str, Collection[str]], run: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether one of a run's documents, or more, is known of its query."""
    return any(doc_id in known.get(query_id, ()) for query_id, row in run.items() for doc_id in row)


def _candidates(result: Result) -> dict[str, tuple[str, ...]]:
    return {query_id: row.doc_ids for query_id, row in read_rankings(result).items()}


def _check_judgements(
    qrels: Mapping[str, Mapping[str, int]], path: str, others: Mapping[str, Mapping[str, int]], other: Path
) -> None:
    if qrels.keys() != others.keys():
        odd = sorted(qrels.keys() ^ others.keys())
        raise ListconError(f"{path} and {other} judge different queries: {len(odd)} are in one alone, such as {odd[0]}")
    for query_id, judged in qrels.items():
        # What measures see: a judgement of 0 or less is as none, and nDCG knows grades, whatever counts as relevant.
        here, there = ({(doc, value) for doc, value in row.items() if value > 0} for row in (judged, others[query_id]))
        if odd := sorted(doc for doc, _ in here ^ there):
            raise ListconError(
                f"{path} and {other} differ in what is relevant: query {query_id}, document {odd[0]} is judged "
                f"{judged.get(odd[0], 0)} and {others[query_id].get(odd[0], 0)}, and perhaps there are more; the runs "
                "were made on different data"
            )


def ranks_of_relevant(entry: RankedQuery, protocol: str) -> tuple[int, ...]:
    """The ranks, from 1, of the retrieved candidates that are relevant by a protocol's labels, in its order of ties."""
    relevant = entry.cmteb_relevant if protocol == "cmteb" else [value > 0 for value in entry.relevance]
    order = ranked_places(entry.final_scores, entry.doc_ids, "cmteb" if protocol == "cmteb" else "mteb")
    return tuple(rank for rank, place in enumerate(order, start=1) if relevant[place])
