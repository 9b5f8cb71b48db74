"""Which runs are published, and whether they may be: official data, all of it, and numbers that follow from scores."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from listcon_eval.data import OFFICIAL, OfficialTask
from listcon_eval.errors import ListconError
from listcon_eval.metrics import cmteb, mteb_protocol
from listcon_eval.records import POINTWISE, Mode
from listcon_eval.results import RankedQuery, RunRecord, read_per_query, read_provenance, read_rankings, runs_at
from listcon_eval.results.layout import METRICS, RUN, TREC_QRELS
from listcon_eval.results.trec import read_qrels

_TOLERANCE = 1.1e-5  # mteb rounds to five digits
# Kinds without a model whose results could be anybody's.
_NO_MODELS = {
    "bm25": "a baseline, for comparison",
    "run-file": "scores of a file, whose making is not known",
    "random": "a bound, for comparison",
    "oracle": "a bound, made of the judgements themselves",
}


def chosen_runs(paths: Sequence[Path], mode: Mode) -> list[RunRecord]:
    """The runs of one inference mode in folders, one a task, all of one model; without any, those that have no modes.

    Args:
        paths: run folders, or folders with runs in them.
        mode: the mode to publish: neither the leaderboard nor a model card has a place for two.

    Raises:
        ListconError: there is none, or the choice is not clear: several models, precisions, or runs of a task.
    """
    every = {record.folder.resolve(): record for path in paths for record in runs_at(path)}
    of_mode = [record for record in every.values() if record.mode == mode]
    records = of_mode or [record for record in every.values() if record.mode == POINTWISE]
    where = ", ".join(map(str, paths))
    if not records:
        modes = sorted({record.mode for record in every.values()})
        raise ListconError(f"no run in {mode} inference in {where}; there is {', '.join(modes)}: choose with --mode")
    systems = sorted({f"{record.model}@{record.model_revision}, {record.precision}" for record in records})
    if len(systems) > 1:
        raise ListconError(f"{where} holds runs of {len(systems)} systems ({'; '.join(systems)}): give one's folder")
    tasks = [record.task for record in records]
    repeated = sorted({task for task in tasks if tasks.count(task) > 1})
    if repeated:
        folders = [str(record.folder) for record in records if record.task in repeated]
        raise ListconError(f"more than one run of {', '.join(repeated)}: {'; '.join(folders)}; give one of them")
    order = {task.name: place for place, task in enumerate(OFFICIAL)}
    return sorted(records, key=lambda record: order.get(record.task, len(order)))


def official_of(record: RunRecord) -> OfficialTask | None:
    """The official task that a run's name claims."""
    return next((task for task in OFFICIAL if task.name == record.task), None)


def reasons_against(record: RunRecord) -> Iterator[str]:
    """Why a run may not be published, whatever for: no model, not official data, not all of it, or changed numbers."""
    if record.kind in _NO_MODELS:
        yield f"{record.model} on {record.task} is no model's result: {_NO_MODELS[record.kind]}"
        return
    task = official_of(record)
    if task is None or not record.is_official:
        yield f"{record.task} ({record.folder}) was not run on the official data of an official task"
        return
    try:
        data = read_provenance(record)["data"]
        if data["is_official"] is not True:
            yield f"{record.task}: its provenance says that the data is not official ({data['source']})"
        for name, found in (("signature", record.data_revision), ("provenance", data["revision"])):
            if found != task.revision:
                yield f"{record.task}: data revision {found} in its {name}; the official one is {task.revision}"
        if data["split"] != task.split:
            yield f"{record.task}: split {data['split']}; the official one is {task.split}"
        if record.queries != task.statistics()["num_queries"]:
            yield f"{record.task}: {record.queries} queries; the official data has {task.statistics()['num_queries']}"
        read_per_query(record)
        yield from _changed(record)
    except (ListconError, KeyError, TypeError) as error:
        yield f"{record.task}: {error if isinstance(error, ListconError) else f'its provenance lacks {error}'}"


def _changed(record: RunRecord) -> Iterator[str]:
    """Compute the means again from the stored scores and judgements, and name those that differ."""
    rankings = read_rankings(record)
    if len(rankings) != record.queries:
        yield f"{record.task}: {RUN} has {len(rankings)} queries, {METRICS} says {record.queries}"
        return
    run = {entry.query_id: dict(zip(entry.doc_ids, entry.scores, strict=True)) for entry in rankings.values()}
    again: dict[str, Mapping[str, float]] = {
        "cmteb": _cmteb(list(rankings.values())),
        "mteb": mteb_protocol.evaluate(read_qrels(record.folder / TREC_QRELS), run).means,
    }
    for protocol, means in again.items():
        stated: Mapping[str, float] = getattr(record, protocol)
        for name, value in means.items():
            if not abs(stated.get(name, math.nan) - value) <= _TOLERANCE:
                yield (
                    f"{record.task}: {protocol}:{name} is {stated.get(name)} in {METRICS}, but {value:.6f} by the "
                    f"scores in {RUN}: the files were changed after the run"
                )


def _cmteb(rankings: Sequence[RankedQuery]) -> dict[str, float]:
    rows = [cmteb.score_list(entry.labels, entry.scores) for entry in rankings]
    return {name: math.fsum(row[name] for row in rows) / len(rows) for name in rows[0]}
