"""Files for mteb's results repository, with the checks that mteb does not make.

mteb loads a main score of 7.5, a revision that there is not and a tenth of the queries without a word. Here nothing is
written before every run has passed every check, and all reasons against are given at once.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from listcon_eval.data import OFFICIAL, OfficialTask
from listcon_eval.errors import ListconError
from listcon_eval.files import check_writable, write_text
from listcon_eval.publish.chosen import official_of, reasons_against
from listcon_eval.report.leaderboard import shown_on_leaderboard
from listcon_eval.results import RunRecord, results_folder

MAIN_SCORE = "map_at_1000"
META, SETTINGS = "model_meta.json", "run_settings.jsonl"
_FLAGGED_DIFFERENCE = 0.001  # what the results repository's own check flags
_TOLERANCE = 1.1e-5  # mteb rounds to five digits
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes:
        folder: the folder of the model's revision.
        paths: the files written.
        signatures: one a task.
        remarks: what a submitter should know: differences from results already published, tasks left out, declared
            training data.
    """

    folder: Path
    paths: Sequence[Path]
    signatures: Sequence[str]
    remarks: Sequence[str]


def export_leaderboard(
    records: Sequence[RunRecord], output: Path, *, training_data: Sequence[str] | None = None
) -> Exported:
    """Write runs in the layout of mteb's results repository: `results/{org__model}/{revision}/{Task}.json`.

    The tree has no place for experiments: mode and precision stay in `run_settings.jsonl` (`encode_kwargs`). mteb's
    own JSON is copied byte for byte, with the bare NaN that mteb writes for an nAUC that is not defined; anywhere else
    a NaN is refused.

    Args:
        records: the runs, one a task, of one model in one mode.
        output: the folder named `results`, or the one to make it in.
        training_data: names of the mteb tasks whose data the model was trained on, empty for none; None takes what
            the run's `model_meta.json` declares.

    Raises:
        ListconError: a run may not be submitted, or cannot be read; gives every reason.
    """
    reasons = list(_reasons(records))
    meta: dict[str, Any] = {}
    try:
        meta = _meta(records[0], training_data)
    except ListconError as error:
        reasons.append(str(error))
    if meta and meta["training_datasets"] is None:
        reasons.append(
            f"{META} does not declare the training data of {records[0].model}: say with --trained-on TASK,TASK which "
            "mteb tasks' data it was trained on, or --trained-on none"
        )
    if reasons:
        raise ListconError("not exported:\n" + "\n".join(f"  - {reason}" for reason in reasons))
    first = records[0]
    folder = results_folder(output) / first.model.replace("/", "__").replace(" ", "_") / first.model_revision
    check_writable(folder)
    paths = [
        write_text(folder / f"{record.task}.json", _result_path(record).read_text(encoding="utf-8"))
        for record in records
    ]
    paths.append(write_text(folder / META, json.dumps(meta, indent=4, ensure_ascii=False)))
    rows = [json.dumps(row, ensure_ascii=False) for record in records for row in _settings(record)]
    paths.append(write_text(folder / SETTINGS, "".join(f"{row}\n" for row in rows)))
    remarks = [*_remarks(records), *_declared(records, meta)]
    return Exported(folder, paths, [record.signature for record in records], remarks)


def _result_path(record: RunRecord) -> Path:
    return record.folder.with_name(f"{record.folder.name}.json")


def _reasons(records: Sequence[RunRecord]) -> Iterator[str]:
    first = records[0]
    if first.model.startswith("local/") or not _HUB_ID.fullmatch(first.model):
        yield f"{first.model} is no model of the hub: upload the checkpoint, and run it by its hub id"
    if not _COMMIT.fullmatch(first.model_revision):
        yield f"the model's revision is {first.model_revision}; a submission needs the hub's commit (40 hex digits)"
    for record in records:
        found = list(reasons_against(record))
        yield from found
        task = official_of(record)
        if task is not None and record.is_official:
            try:
                yield from _result_reasons(record, task)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, ListconError) as error:
                yield f"{_result_path(record)} cannot be read as mteb's result of {record.task}: {error!r}"


def _result_reasons(record: RunRecord, task: OfficialTask) -> Iterator[str]:
    """What is wrong with the JSON that would be submitted."""
    name = f"{record.task}.json"
    content = json.loads(_result_path(record).read_text(encoding="utf-8"))
    if content["task_name"] != record.task:
        yield f"{name}: it is a result of {content['task_name']}"
    if content["dataset_revision"] != task.revision:
        yield f"{name}: data revision {content['dataset_revision']}; the official one is {task.revision}"
    if _major(content["mteb_version"]) < 2:
        yield f"{name}: made by mteb {content['mteb_version']}; a submission needs 2.0 or later"
    settings = _settings(record)
    if not settings:
        yield f"{SETTINGS} has no row for {record.task}"
    for row in settings:
        if _major(row["version"]["mteb"]) < 2:
            yield f"{SETTINGS}, {record.task}: mteb {row['version']['mteb']}; a submission needs 2.0 or later"
    if list(content["scores"]) != [task.split] or len(content["scores"][task.split]) != 1:
        yield f"{name}: splits {', '.join(content['scores'])}; expected one entry of {task.split}"
        return
    (scores,) = content["scores"][task.split]
    if scores.get("hf_subset") != "default":
        yield f"{name}: subset {scores.get('hf_subset')}; expected default"
    yield from (f"{name}: {problem}" for problem in _score_problems(scores, record))


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _score_problems(scores: Mapping[str, Any], record: RunRecord) -> Iterator[str]:
    numbers = {metric: value for metric, value in scores.items() if isinstance(value, int | float)}
    for metric, value in numbers.items():
        if metric.startswith("nauc_"):  # not defined where a metric is constant (NaN), and not bounded below
            if math.isinf(value):
                yield f"{metric} is {value}; expected a finite number"
        elif not math.isfinite(value):
            yield f"{metric} is {value}; expected a finite number"
        elif not 0 <= value <= 1:
            yield f"{metric} is {value}; expected a value from 0 to 1"
    if numbers.get("main_score") != numbers.get(MAIN_SCORE):
        yield f"main_score is {numbers.get('main_score')}, {MAIN_SCORE} is {numbers.get(MAIN_SCORE)}; they are one"
    for metric, mean in record.mteb.items():
        if not abs(numbers.get(metric, math.nan) - mean) <= _TOLERANCE:
            yield f"{metric} is {numbers.get(metric)}, the run's own files say {mean:.6f}"


def _settings(record: RunRecord) -> list[dict[str, Any]]:
    path = record.folder.with_name(SETTINGS)
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise ListconError(f"{path} cannot be read: {error}; run the evaluation again") from error
    return [row for row in rows if row.get("task") == record.task]


def _meta(record: RunRecord, training_data: Sequence[str] | None) -> dict[str, Any]:
    path = record.folder.with_name(META)
    try:
        meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ListconError(f"{path} cannot be read: {error}; run the evaluation again") from error
    if (meta.get("name"), meta.get("revision")) != (record.model, record.model_revision):
        raise ListconError(
            f"{path} is of {meta.get('name')}@{meta.get('revision')}, the run of {record.model}@{record.model_revision}"
        )
    declared = meta.get("training_datasets") if training_data is None else training_data
    return {
        **meta,
        "experiment_kwargs": None,
        "training_datasets": None if declared is None else sorted(set(declared)),
    }


def _remarks(records: Sequence[RunRecord]) -> Iterator[str]:
    for record in records:
        shown = shown_on_leaderboard(record.model, record.task)
        own = record.mteb[MAIN_SCORE]
        if shown is not None and abs(own - shown.main_score) > _FLAGGED_DIFFERENCE:
            yield (
                f"{record.task}: {MAIN_SCORE} is {own:.5f}, the leaderboard shows {shown.main_score:.5f} "
                f"({own - shown.main_score:+.5f}; {shown.mode}, revision {shown.revision}): the results repository "
                f"flags differences over {_FLAGGED_DIFFERENCE}"
            )
    absent = [task.name for task in OFFICIAL if task.name not in {record.task for record in records}]
    if absent:
        yield f"not among the runs: {', '.join(absent)}"


def _declared(records: Sequence[RunRecord], meta: Mapping[str, Any]) -> Iterator[str]:
    declared = meta["training_datasets"]
    overlap = [record.task for record in records if record.task in declared]
    yield f"declared training data: {', '.join(declared) or 'of no mteb task'}"
    if overlap:
        yield f"trained on data of {', '.join(overlap)}: the leaderboard shows these scores as not zero-shot"
