"""What is compared: runs of this package, found in folders, and TREC runs of other tools."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from listcon_eval.errors import ListconError
from listcon_eval.records import NO_PRECISION
from listcon_eval.results import RankedQuery, RunRecord, package_versions, read_per_query, read_rankings, runs_at
from listcon_eval.results.layout import TREC_QRELS
from listcon_eval.results.trec import read_qrels, read_trec_run, short_hash


@dataclass(frozen=True)
class TaskRun:
    """One contestant's run of one task.

    Attributes:
        task: the task's name.
        data_revision: the revision of its data; None when only judgements are known.
        signature: what its numbers depend on.
        values: measure (as `cmteb:map`) -> query id -> value, 0 to 1.
        load_rankings: reads the ranked candidates, by query id; they are large and seldom needed.
        record: the run of this package; None for a TREC run file.
    """

    task: str
    data_revision: str | None
    signature: str
    values: Mapping[str, Mapping[str, float]]
    load_rankings: Callable[[], Mapping[str, RankedQuery]]
    record: RunRecord | None = None


@dataclass(frozen=True)
class Contestant:
    """One system with its runs, by task."""

    label: str
    tasks: Mapping[str, TaskRun]


def contestants(paths: Sequence[Path], qrels: Path | None = None) -> list[Contestant]:
    """Read what is to be compared, in the order given.

    Args:
        paths: run folders; folders with runs in them, where every model, mode and precision is a contestant; TREC
            run files.
        qrels: the judgements for TREC run files; by default a `qrels.trec` beside the file, or the compared runs' own.

    Raises:
        ListconError: something cannot be read, or the judgements of a TREC run are missing or not the runs' own.
    """
    read: list[tuple[Path, list[RunRecord]]] = [(path, [] if path.is_file() else runs_at(path)) for path in paths]
    folders = [record for _, records in read for record in records]
    groups: list[tuple[list[str], dict[str, TaskRun]]] = []
    for path, records in read:
        if path.is_file():
            groups.append(([path.stem, f"{path.stem} ({path})"], _trec_run(path, qrels, folders)))
        else:
            groups += [(_labels(own[0], path), _by_task(own)) for own in _by_system(records)]
    if qrels is not None and all(records for _, records in read):
        raise ListconError(f"--qrels {qrels} is for TREC run files, and none was given: leave it out")
    return [Contestant(label, tasks) for label, (_, tasks) in zip(_unique([g[0] for g in groups]), groups, strict=True)]


def _by_system(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    groups: dict[tuple[str, ...], list[RunRecord]] = {}
    for record in records:
        key = (record.model, record.model_revision, record.mode, record.precision, str(record.folder.parent))
        groups.setdefault(key, []).append(record)
    return list(groups.values())


def _by_task(records: Sequence[RunRecord]) -> dict[str, TaskRun]:
    return {record.task: _folder_run(record) for record in records}


def _folder_run(record: RunRecord) -> TaskRun:
    return TaskRun(
        record.task,
        record.data_revision,
        record.signature,
        read_per_query(record),
        lambda: read_rankings(record),
        record,
    )


def _labels(record: RunRecord, path: Path) -> list[str]:
    """Names of a contestant, from the shortest to the one that tells it from every other."""
    mode = [] if record.shown_mode == "-" else [record.mode]
    precision = [] if record.precision == NO_PRECISION else [record.precision]
    name = ", ".join([record.system, *mode, *precision])
    return [name, f"{name}, {record.model_revision[:14]}", f"{name} ({path})", f"{name} ({record.folder.parent})"]


def _unique(choices: Sequence[Sequence[str]]) -> list[str]:
    """For each contestant the first of its names that no other one has at that place."""
    chosen = []
    for place, names in enumerate(choices):
        others = {name for other, row in enumerate(choices) if other != place for name in row}
        label = next((name for name in names if name not in others), None)
        if label is None:
            raise ListconError(f"{names[-1]} was given twice: a run is compared with other runs")
        chosen.append(label)
    return chosen


def _trec_run(path: Path, given: Path | None, folders: Sequence[RunRecord]) -> dict[str, TaskRun]:
    # pytrec_eval and mteb are needed for TREC files alone
    from listcon_eval.metrics import mteb_protocol

    tasks = {record.task: record for record in folders}
    if len(tasks) > 1:
        raise ListconError(
            f"{path} is a TREC run of one task, and the folders beside it hold {len(tasks)} ({', '.join(tasks)}): "
            "give folders of that one task's runs"
        )
    record = next(iter(tasks.values()), None)
    own = record.folder / TREC_QRELS if record else None
    beside = path.with_name(TREC_QRELS)
    judgements = given or (beside if beside.is_file() else own)
    if judgements is None:
        raise ListconError(f"{path}: a TREC run needs judgements: give them with --qrels FILE")
    qrels, run = read_qrels(judgements), read_trec_run(path)
    if own is not None and own != judgements:
        _check_judgements(qrels, judgements, read_qrels(own), own)
    try:
        per_query = mteb_protocol.evaluate(qrels, run).per_query
    except ListconError as error:
        raise ListconError(f"{path} with the judgements of {judgements}: {error}") from error
    task = record.task if record else judgements.stem
    versions = package_versions()
    signature = (
        f"{task}@qrels-{short_hash(judgements)}|TREC run {path.name}@{short_hash(path)}|ties:mteb=doc-id"
        f"|listcon-eval:{versions['listcon-eval']}|mteb:{versions['mteb']}"
    )
    names = {name for values in per_query.values() for name in values}
    values = {f"mteb:{name}": {query_id: row[name] for query_id, row in per_query.items()} for name in sorted(names)}
    return {task: TaskRun(task, None, signature, values, lambda: _trec_rankings(run, qrels))}


def _check_judgements(
    qrels: Mapping[str, Mapping[str, int]], path: Path, others: Mapping[str, Mapping[str, int]], other: Path
) -> None:
    if qrels.keys() != others.keys():
        odd = sorted(qrels.keys() ^ others.keys())
        raise ListconError(f"{path} and {other} judge different queries: {len(odd)} are in one alone, such as {odd[0]}")
    for query_id, judged in qrels.items():
        here, there = ({doc for doc, value in row.items() if value > 0} for row in (judged, others[query_id]))
        if here != there:
            doc_id = min(here ^ there)
            raise ListconError(
                f"{path} and {other} differ in what is relevant: query {query_id}, document {doc_id}, and perhaps "
                "more; the runs were made on different data"
            )


def _trec_rankings(
    run: Mapping[str, Mapping[str, float]], qrels: Mapping[str, Mapping[str, int]]
) -> dict[str, RankedQuery]:
    rankings = {}
    for query_id, scores in run.items():
        relevance = tuple(qrels[query_id].get(doc_id, 0) for doc_id in scores)
        rankings[query_id] = RankedQuery(
            query_id,
            None,
            tuple(scores),
            tuple(scores.values()),
            (0,) * len(scores),
            relevance,
            tuple(value > 0 for value in relevance),
        )
    return rankings
