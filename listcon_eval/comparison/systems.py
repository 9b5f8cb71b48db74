"""What is compared: results of this package, found in folders, and TREC run files of other tools."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from listcon_eval.data.trec import read_qrels, read_trec_run, short_hash
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


def named_systems(
    runs: "Mapping[str, str | Path | IdTable]", qrels: "Path | IdTable | None" = None, metrics: Sequence[str] = ()
) -> list[ComparedSystem]:
    """Systems under names of one's own: paths as `read_systems` takes them, or scores in memory.

    Raises:
        ListconError: as `read_systems`, or a path holds several systems.
    """
    given = {name: Path(run) if isinstance(run, (str, Path)) else run for name, run in runs.items()}
    folders = {name: run for name, run in given.items() if isinstance(run, Path) and not run.is_file()}
    read = {name: read_systems([run], metrics=metrics) for name, run in folders.items()}
    results = [run.result for own in read.values() for system in own for run in system.tasks.values() if run.result]
    found = []
    for name, run in given.items():
        own = read.get(name)
        if own is None:
            scored = _scored_run(name, run, qrels, results)
            found.append(ComparedSystem(name, {scored.task: scored}))
        elif len(own) == 1:
            found.append(replace(own[0], label=name))
        else:
            labels = "; ".join(system.label for system in own)
            raise ListconError(f"{name}: {run} holds {len(own)} systems ({labels}): give the folder of one of them")
    return found


def read_systems(
    paths: Sequence[Path], qrels: "Path | IdTable | None" = None, metrics: Sequence[str] = ()
) -> list[ComparedSystem]:
    """Read what is to be compared, in the order given.

    Args:
        paths: folders of runs, or with runs in them, where every model, mode and dtype is a system; TREC run files.
            What is given twice is read once.
        qrels: the judgements for TREC run files; by default a `qrels.trec` beside the file, or the compared runs' own.
        metrics: those of ir_measures that are to be compared.

    Raises:
        ListconError: something cannot be read, or the judgements of a TREC run are missing or not the runs' own.
    """
    once = list({path.resolve(): path for path in paths}.values())
    by_path = {path: [] if path.is_file() else load_results(path, metrics) for path in once}
    if qrels is not None and by_path and all(by_path.values()):
        raise ListconError(f"--qrels {qrels} is for TREC run files, and none was given: leave it out")
    results = [result for own in by_path.values() for result in own]
    found: list[tuple[list[str], dict[str, TaskRun], bool]] = []  # names from the shortest, runs, is_bound
    seen: set[Path] = set()
    for path, own in by_path.items():
        if path.is_file():
            run = _scored_run(str(path), path, qrels, results)
            found.append(([path.stem, f"{path.stem} ({path})"], {run.task: run}, False))
            continue
        groups: dict[tuple[object, ...], list[Result]] = {}
        for result in own:
            if result.folder.resolve() not in seen:
                groups.setdefault((*result.system_key, result.folder.parent), []).append(result)
        for group in groups.values():
            # Of several revisions of one task's data the one that was run last is compared.
            newest = {result.task: result for result in sorted(group, key=lambda result: result.finished)}
            runs = {
                run.task: TaskRun(
                    task=run.task,
                    data_revision=run.data_revision,
                    signature=run.signature,
                    values=read_per_query(run),
                    load_rankings=partial(read_rankings, run),
                    result=run,
                )
                for run in group
                if newest[run.task] is run
            }
            found.append((_names(group[0], path), runs, group[0].kind in ("random", "oracle")))
        seen |= {result.folder.resolve() for result in own}
    uses = Counter(name for names, *_ in found for name in {*names})
    return [
        ComparedSystem(next((name for name in names if uses[name] == 1), names[-1]), runs, is_bound)
        for names, runs, is_bound in found
    ]


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
    run = read_trec_run(scores, qrels)
    if own is not None and judgements is not own:
        _check_judgements(qrels, source, read_qrels(own), own)
    # A query without a line has no candidates, and a document without one is not retrieved, as in trec_eval.
    lacking = [query_id for query_id in qrels if query_id not in run]
    if len(lacking) == len(qrels):
        raise ListconError(
            f"{name} has no query that {source} judges, such as {lacking[0]!r}; its own "
            f"are such as {next(iter(run), 'none')!r}"
        )
    ordered = {
        query_id: dict(zip(row, ranked_list(list(row.values())).scores, strict=True))
        for query_id, row in {**run, **{lacked: {} for lacked in lacking}}.items()
    }
    try:
        per_query = mteb_protocol.evaluate(qrels, ordered, result.main_score if result else None, relevance).per_query
    except ListconError as error:
        raise ListconError(f"{name} with the judgements of {source}: {error}") from error
    shown = scores.name if isinstance(scores, Path) else name
    note = f"{shown} lacks {count_of(len(lacking), 'judged query')} (of {len(qrels)}): each counts 0"
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
        notes=(note,) if lacking else (),
    )


def _check_judgements(
    qrels: Mapping[str, Mapping[str, int]], path: str, others: Mapping[str, Mapping[str, int]], other: Path
) -> None:
    if qrels.keys() != others.keys():
        odd = sorted(qrels.keys() ^ others.keys())
        raise ListconError(f"{path} and {other} judge different queries: {len(odd)} are in one alone, such as {odd[0]}")
    for query_id, judged in qrels.items():
        here, there = ({doc for doc, value in row.items() if value > 0} for row in (judged, others[query_id]))
        if here != there:
            raise ListconError(
                f"{path} and {other} differ in what is relevant: query {query_id}, document {min(here ^ there)}, and "
                "perhaps more; the runs were made on different data"
            )


def ranks_of_relevant(entry: RankedQuery, protocol: str) -> tuple[int, ...]:
    """The ranks, from 1, of the retrieved candidates that are relevant by a protocol's labels, in its order of ties."""
    relevant = entry.cmteb_relevant if protocol == "cmteb" else [value > 0 for value in entry.relevance]
    order = ranked_places(entry.final_scores, entry.doc_ids, "cmteb" if protocol == "cmteb" else "mteb")
    return tuple(rank for rank, place in enumerate(order, start=1) if relevant[place])
