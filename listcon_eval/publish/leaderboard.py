"""Files for mteb's results repository, with the checks that mteb does not make.

mteb accepts a main score of 7.5, a revision that does not exist and a tenth of the queries. Here nothing is written
before every run has passed every check, and one error gives all reasons.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mteb.models.model_meta import ModelMeta

from listcon_eval import mteb_compat
from listcon_eval.data import CARD_TASKS, Task, official_task, official_tasks
from listcon_eval.data.mteb_tasks import mteb_name
from listcon_eval.errors import ListconError, did_you_mean
from listcon_eval.files import check_writable, write_bytes, write_text
from listcon_eval.metrics import MAIN_SCORE
from listcon_eval.publish.eligibility import MTEB_TOLERANCE, choose_results, official_task_of, publish_blockers
from listcon_eval.records import POINTWISE
from listcon_eval.report.table import published_rows
from listcon_eval.results import Result, results_folder

META, SETTINGS = "model_meta.json", "run_settings.jsonl"
_FLAGGED_DIFFERENCE = 0.001  # what the results repository's own check flags
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
ExportMode = Literal["both", "iterative", "conventional"]


class Export(NamedTuple):
    """The folder of the model's revision, the results in it, and remarks for the submitter."""

    folder: Path
    results: Sequence[Result]
    remarks: Sequence[str]


def export_leaderboard(
    paths: Sequence[Path], output: Path, *, mode: ExportMode = "both", training_data: Sequence[str] | None = None
) -> Export:
    """Write results as mteb's results repository has them: `results/{org__model}/{revision}/{Task}.json`.

    With both modes, the iterative runs are the model's main results, as in the published ones, and the conventional
    runs go to `experiments/{name}/`, where mteb keeps runs with other settings. mteb's own JSON is copied unchanged,
    with the NaN that mteb writes for an undefined nAUC. All subsets and splits of a task go into one JSON, as mteb has
    them. `training_data` names the mteb tasks whose data the model was trained on, empty for none; None takes what the
    runs' `model_meta.json` declares.

    Raises:
        ListconError: a run may not be submitted, or cannot be read; mteb does not know what a model was trained on; the
            folder holds results of other tasks. Gives every reason.
    """
    main = choose_results(paths, "iterative" if mode == "both" else mode)
    experiments = choose_results(paths, "conventional") if mode == "both" and main[0].mode != POINTWISE else []
    results = [*main, *experiments]
    systems = {(result.model, result.model_revision, result.dtype) for result in results}
    if len(systems) > 1:
        raise ListconError(f"the modes are of different systems ({sorted(map(str, systems))}): give one's folder")
    first = main[0]
    reasons = list(_blockers(results))
    if training_data is not None:
        known = mteb_compat.training_data_names()
        named = {name: mteb_name(name) or known.get(name.strip().casefold()) for name in training_data}
        reasons += [_unknown_data(name, known) for name, found in named.items() if found is None]
        training_data = [found for found in named.values() if found is not None]
    metas: list[dict[str, Any]] = []
    try:
        metas = [_meta(own[0], training_data, is_main=own is main) for own in (main, experiments) if own]
    except ListconError as error:
        reasons.append(str(error))
    if metas and metas[0]["training_datasets"] is None:
        reasons.append(
            f"{META} does not declare the training data of {first.model}: say with --trained-on TASK,TASK which mteb "
            "tasks' data it was trained on, or --trained-on none"
        )
    folder = results_folder(output) / mteb_compat.model_folder_name(first.model) / first.model_revision
    places = [(folder, main)]
    if experiments and metas:
        name = mteb_compat.experiment_name(ModelMeta.model_validate(metas[1]))
        places.append((folder / "experiments" / name, experiments))
    for place, own in places:
        if others := {*_exported(place)} - {result.task for result in own}:
            reasons.append(
                f"{place} holds results of {', '.join(sorted(others))}, which are not among these runs: they would be "
                f"lost, or its {SETTINGS} and {META} no longer be theirs: export all runs together, or into another "
                "folder"
            )
    if reasons:
        raise ListconError("not exported:\n" + "\n".join(f"  - {reason}" for reason in reasons))
    check_writable(folder)
    for (place, own), meta in zip(places, metas, strict=True):
        _write(place, own, meta)
    return Export(folder, results, list(_remarks(results, main, metas[0]["training_datasets"])))


def _unknown_data(name: str, known: Mapping[str, str]) -> str:
    hint = did_you_mean(name, known.values())
    return (
        f"--trained-on {name}: mteb knows no task or data set of this name{hint}, and so would count the model as "
        "zero-shot: give names of mteb, and leave out data that it does not know"
    )


def _exported(folder: Path) -> Iterator[str]:
    """The tasks, with subset and split, of which a folder has results; a file's own name if it is no result."""
    for path in folder.glob("*.json"):
        if path.name == META:
            continue
        try:
            scores = json.loads(path.read_text(encoding="utf-8"))["scores"]
            parts = [f"{path.stem}[{entry['hf_subset']}][{split}]" for split in scores for entry in scores[split]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            parts = []
        for part in parts or [path.name]:
            try:
                yield official_task(part).name
            except ListconError:
                yield part


def _write(folder: Path, results: Sequence[Result], meta: Mapping[str, Any]) -> None:
    by_task: dict[str, list[Path]] = {}
    for result in results:
        name = f"{result.mteb_task}.json"
        by_task.setdefault(name, []).append(result.folder / name)
    for name, paths in by_task.items():
        write_bytes(folder / name, paths[0].read_bytes() if len(paths) == 1 else _merged(paths))
    write_text(folder / META, json.dumps(meta, indent=4, ensure_ascii=False))
    rows = [(result.folder / SETTINGS).read_text(encoding="utf-8").strip() for result in results]
    write_text(folder / SETTINGS, "".join(f"{row}\n" for row in rows))


def _merged(paths: Sequence[Path]) -> bytes:
    """One result of a task from those of its subsets and splits."""
    merged, *others = (json.loads(path.read_text(encoding="utf-8")) for path in paths)
    for other in others:
        for split, scores in other["scores"].items():
            merged["scores"].setdefault(split, []).extend(scores)
        merged["evaluation_time"] += other["evaluation_time"]
    return json.dumps(merged, indent=2).encode()


def _blockers(results: Sequence[Result]) -> Iterator[str]:
    """Every reason why results may not be submitted."""
    first = results[0]
    if first.model.startswith("local/") or not _HUB_ID.fullmatch(first.model):
        yield f"{first.model} is not a model of the hub: upload the checkpoint, and run it by its hub id"
    if not _COMMIT.fullmatch(first.model_revision):
        yield f"the model's revision is {first.model_revision}; a submission needs the hub's commit (40 hex digits)"
    for result in results:
        yield from publish_blockers(result)
        if (task := official_task_of(result)) is not None:
            path = result.folder / f"{result.mteb_task}.json"
            try:
                yield from _json_blockers(result, task, json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                yield f"{path} cannot be read as mteb's result of {result.task}: {error!r}"


def _json_blockers(result: Result, task: Task, content: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the JSON that would be submitted."""
    name = f"{result.task}, {result.mode}, {result.mteb_task}.json"
    if (content["task_name"], content["dataset_revision"]) != (result.mteb_task, task.revision):
        yield f"{name}: it is of {content['task_name']}@{content['dataset_revision']}, not of the official task"
        return
    if list(content["scores"]) != [task.split] or len(content["scores"][task.split]) != 1:
        yield f"{name}: splits {', '.join(content['scores'])}; expected one entry of {task.split}"
        return
    (scores,) = content["scores"][task.split]
    main = task.main_score
    if scores["hf_subset"] != task.subset:
        yield f"{name}: it is of the subset {scores['hf_subset']}, not of {task.subset}"
    numbers = {metric: value for metric, value in scores.items() if isinstance(value, int | float)}
    for metric, value in numbers.items():
        # An nAUC is not defined (NaN) where a metric is constant, and has no lower bound; p-MRR goes down to -1.
        low = -1 if "p-MRR" in (metric, main if metric == "main_score" else "") else 0
        if math.isinf(value) if "nauc_" in metric else not low <= value <= 1:
            yield f"{name}: {metric} is {value}; expected a value from {low} to 1"
    if numbers.get("main_score") != numbers.get(main):
        yield f"{name}: main_score is {numbers.get('main_score')}, {main} {numbers.get(main)}"
    for metric, mean in (result.mteb | result.task_scores).items():
        if not abs(numbers.get(metric, math.nan) - mean) <= MTEB_TOLERANCE:
            yield f"{name}: {metric} is {numbers.get(metric)}, the run's own files say {mean:.6f}"


def _meta(result: Result, training_data: Sequence[str] | None, *, is_main: bool) -> dict[str, Any]:
    """The content of the `model_meta.json` to submit, checked by mteb's schema."""
    path = result.folder / META
    try:
        meta: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ListconError(f"{path} cannot be read: {error}; run the evaluation again") from error
    if (meta.get("name"), meta.get("revision")) != (result.model, result.model_revision):
        raise ListconError(
            f"{path} is of {meta.get('name')}@{meta.get('revision')}, the run of {result.model}@{result.model_revision}"
        )
    declared = meta.get("training_datasets") if training_data is None else training_data
    meta |= {"training_datasets": None if declared is None else sorted(set(declared))}
    if is_main:
        meta["experiment_kwargs"] = None
    try:
        ModelMeta.model_validate(meta)
    except ValueError as error:
        raise ListconError(f"{path} is not a valid ModelMeta of mteb: {error}") from error
    return meta


def _remarks(results: Sequence[Result], main: Sequence[Result], declared: Sequence[str]) -> Iterator[str]:
    """What the results repository's own checks will say, what is missing, and what the training data means."""
    model, revision = main[0].model, main[0].model_revision
    registered = mteb_compat.registered_model(model)
    if registered is None:
        yield (
            f"{model} is not in mteb's registry, and the results repository takes only models that are: add an "
            "implementation to mteb first"
        )
    elif registered.revision != revision:
        yield (
            f"mteb's registry has revision {registered.revision} of {model}, and these runs are of {revision}: the "
            "results repository refuses a second revision. To submit the registry's: "
            f"`listcon-eval run -m {model} --revision {registered.revision}`"
        )
    published = [row for row in published_rows(MAIN_SCORE) if row.hub == model]
    if published:
        yield (
            f"the results repository already has results of {model} at "
            f"{', '.join(str(row.revision) for row in published)}: it accepts new ones only if they replace these"
        )
    for result in results:
        for row in published:
            if (row.revision, row.mode) == (revision, result.mode) and result.task in row.values:
                own, theirs = result.mteb[MAIN_SCORE.name], row.values[result.task] / 100
                if abs(own - theirs) > _FLAGGED_DIFFERENCE:
                    yield (
                        f"{result.task}, {result.mode}: {MAIN_SCORE.name} is {own:.5f}, published for this revision is "
                        f"{theirs:.5f} ({own - theirs:+.5f}): the results repository flags differences over "
                        f"{_FLAGGED_DIFFERENCE}"
                    )
    tasks = list(dict.fromkeys(result.mteb_task for result in main))
    card = [task.name for task in CARD_TASKS]
    wanted = [*(card if {*card} & {*tasks} else []), *(part.name for task in tasks for part in official_tasks(task))]
    if absent := [name for name in dict.fromkeys(wanted) if name not in {result.task for result in main}]:
        yield f"not among the runs: {', '.join(absent)}"
    yield f"declared training data: {', '.join(declared) or 'of no mteb task'}"
    if overlap := [task for task in tasks if task in declared]:
        yield f"trained on data of {', '.join(overlap)}: the leaderboard shows these scores as not zero-shot"
