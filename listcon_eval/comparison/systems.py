"""What is compared: results of this package, found in folders, and TREC run files of other tools."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

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
    path: Path | None = None  # the task's folder in the run's, or the TREC run file; None for scores in memory
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


@dataclass
class _Found:
    """A system, before it is known which of its runs are compared."""

    names: Sequence[str]  # what it can be called, the shortest first
    # task -> revision of its data -> its run
    runs: "dict[str, dict[str | None, Result | TaskRun]]" = field(default_factory=dict)
    scores: "Path | IdTable | None" = None  # what a run is to be read from, when it has none
    is_bound: bool = False
    # what tells its runs from others': their paths, resolved, or the object itself when there is none
    keys: set[Path | int] = field(default_factory=set)

    def add(self, run: "Result | TaskRun") -> None:
        """Take a run in."""
        self.runs.setdefault(run.task, {})[run.data_revision] = run
        path = run.path if isinstance(run, TaskRun) else run.folder / run.task
        self.keys.add(id(run) if path is None else path.resolve())


Given: TypeAlias = "Path | IdTable | ComparedSystem"


def read_systems(
    paths: Sequence[Path], qrels: "Path | IdTable | None" = None, metrics: Sequence[str] = ()
) -> list[ComparedSystem]:
    """Read what is to be compared, in the order given.

    Of several revisions of a task's data the newest that all systems with runs of the task have is compared.

    Args:
        paths: folders of runs, or with runs in them, where every model, mode and dtype is a system; TREC run files.
            What is given twice is read once.
        qrels: the judgements for TREC run files; by default a `qrels.trec` beside the file, or the compared runs' own.
        metrics: those of ir_measures that are to be compared.

    Raises:
        ListconError: something cannot be read, or the judgements of a TREC run are missing, not the runs' own, or not
            needed.
    """
    return compared_systems([(None, path) for path in paths], qrels=qrels, metrics=metrics)[0]


def compared_systems(
    given: Sequence[tuple[str | None, Given]],
    base: Path | ComparedSystem | None = None,
    *,
    qrels: "Path | IdTable | None" = None,
    metrics: Sequence[str] = (),
) -> tuple[list[ComparedSystem], ComparedSystem | None]:
    """The systems to compare, under labels of which no two are the same, and the one to test against.

    Args:
        given: paths as `read_systems` takes them, scores in memory, or systems that were read before; each under a
            name of its own, when it is one system, or None.
        base: the one to test against. It is one of the others if it has a run in common with it, and comes first if
            it has none.
        qrels: as `read_systems`.
        metrics: as `read_systems`.

    Raises:
        ListconError: as `read_systems`, a name or `base` stands for several systems, or two have one name.
    """
    loaded: dict[Path, list[Result]] = {}
    found: list[_Found] = []
    for name, one in given:
        own = _found_in(one, loaded, metrics)
        if name is None:
            for new in own:
                _join(found, new)
        else:
            found.append(replace(_only(own, one, name), names=[name]))
    tested = None
    if base is not None:
        tested = _only(_found_in(base, loaded, metrics), base)
        named = [one.names[0] for (name, _), one in zip(given, found, strict=False) if name and one.keys & tested.keys]
        if len(named) > 1:
            raise ListconError(f"{' and '.join(named)} both have runs of the system to test against: give one of them")
        tested = _join(found, tested, is_first=True)
    chosen = _chosen_runs(found)
    _read_scores(found, chosen, qrels)
    if qrels is not None and found and all(one.scores is None for one in found):
        raise ListconError("qrels are for TREC run files and scores in memory, and none is to be read: leave them out")
    labels = _labels(found)
    if repeated := [label for label, times in Counter(labels).items() if times > 1]:
        raise ListconError(
            f"two of the systems are called {repeated[0]}: give each a name of its own, compare({{name: run, ...}})"
        )
    systems = [
        ComparedSystem(
            label,
            {task: run if isinstance(run, TaskRun) else _task_run(run) for task, run in own.items()},
            one.is_bound,
        )
        for label, one, own in zip(labels, found, chosen, strict=True)
    ]
    return systems, next((own for own, one in zip(systems, found, strict=True) if one is tested), None)


def _found_in(one: Given, loaded: dict[Path, list[Result]], metrics: Sequence[str]) -> list[_Found]:
    """The systems of what was given: several of a folder, whose results are `loaded` once, one of anything else."""
    if isinstance(one, ComparedSystem):
        paths = [run.path for run in one.tasks.values() if run.path is not None]
        names = [one.label, *(f"{one.label} ({path})" for path in paths[:1])]
        read_before = _Found(names, is_bound=one.is_bound)
        for run in one.tasks.values():
            read_before.add(run)
        return [read_before]
    if not isinstance(one, Path):
        return [_Found([], scores=one)]
    if one.is_file():
        return [_Found([one.stem, f"{one.stem} ({one})"], scores=one, keys={one.resolve()})]
    if (place := one.resolve()) not in loaded:
        loaded[place] = load_results(one, metrics)
    systems: dict[tuple[object, ...], _Found] = {}
    for result in loaded[place]:
        new = _Found(_names(result, one), is_bound=result.kind in ("random", "oracle"))
        systems.setdefault((*result.system_key, result.folder.parent), new).add(result)
    return list(systems.values())


def _join(found: list[_Found], new: _Found, *, is_first: bool = False) -> _Found:
    """Add a system, at the end or as the first; it is one with all that have a run in common with it."""
    same = [one for one in found if one.keys & new.keys]
    if not same:
        found.insert(0 if is_first else len(found), new)
        return new
    first, *others = same
    for other in (*others, new):
        for task, by_revision in other.runs.items():
            first.runs[task] = {**by_revision, **first.runs.get(task, {})}
        first.keys |= other.keys
        if other.runs:
            first.scores = None  # the file was read before
    found[:] = [one for one in found if all(one is not other for other in others)]
    return first


def _only(found: Sequence[_Found], given: Given, name: str | None = None) -> _Found:
    if len(found) > 1:
        names = "; ".join(_labels(found))
        label = f"{name}: {given}" if name else str(given)
        raise ListconError(f"{label} holds {len(found)} systems ({names}): give the folder of one of them")
    return found[0]


def _labels(found: Sequence[_Found]) -> list[str]:
    """Each system's shortest name that is no other's, or its longest."""
    uses = Counter(name for one in found for name in {*one.names})
    return [next((name for name in one.names if uses[name] == 1), one.names[-1]) for one in found]


def _chosen_runs(found: Sequence[_Found]) -> "list[dict[str, Result | TaskRun]]":
    """Each system's run of each task.

    A task's runs are on one revision of its data: the one that was run last of those that all systems have which ran
    the task. Where there is none, each system has the one that it was run on last.
    """
    runs_of: dict[str, list[Mapping[str | None, Result]]] = {}
    for one in found:
        for task, by_revision in one.runs.items():
            results = {revision: own for revision, run in by_revision.items() if (own := _result(run)) is not None}
            if results:
                runs_of.setdefault(task, []).append(results)
    chosen = {task: _common_revision(task, runs) for task, runs in runs_of.items()}
    return [
        {
            task: by_revision.get(chosen.get(task, "")) or max(by_revision.values(), key=_finished)
            for task, by_revision in one.runs.items()
        }
        for one in found
    ]


def _common_revision(task: str, runs: "Sequence[Mapping[str | None, Result]]") -> str:
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


def _result(run: Result | TaskRun) -> Result | None:
    return run.result if isinstance(run, TaskRun) else run


def _finished(run: Result | TaskRun) -> datetime:
    result = _result(run)
    return datetime.min.replace(tzinfo=UTC) if result is None else result.finished


def _task_run(result: Result) -> TaskRun:
    return TaskRun(
        task=result.task,
        data_revision=result.data_revision,
        signature=result.signature,
        values=read_per_query(result),
        load_rankings=partial(read_rankings, result),
        result=result,
        path=result.folder / result.task,
    )


def _read_scores(
    found: Sequence[_Found], chosen: "Sequence[dict[str, Result | TaskRun]]", qrels: "Path | IdTable | None"
) -> None:
    """Read the runs that are still to be read into `chosen`: they are of the task of the runs beside them."""
    runs = [run for own in chosen for run in own.values()]
    results = [run for run in runs if isinstance(run, Result)]
    before = [own for run in runs if isinstance(run, TaskRun) and (own := run.result) is not None]
    if not results and len({result.task for result in before}) == 1:
        results = before  # of several tasks it could be any
    for one, tasks in zip(found, chosen, strict=True):
        if one.scores is not None:
            scored = _scored_run(one.names[0] if len(one.names) == 1 else str(one.scores), one.scores, qrels, results)
            tasks[scored.task] = scored


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
