"""A training run, whole: lists and a starting point go in; checkpoints, a log and a picture come out."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from listcon_eval.data import Task, local_task
from listcon_eval.errors import ListconError
from listcon_eval.files import check_writable, write_json
from listcon_eval.inference.devices import choose_device
from listcon_eval.progress import Progress, no_progress
from listcon_eval.train import plot
from listcon_eval.train.evaluator import Evaluator
from listcon_eval.train.lists import ListSampler, repeated, set_aside, training_data
from listcon_eval.train.log import LOG_FILE, Log
from listcon_eval.train.pooling import Pooling
from listcon_eval.train.settings import Settings
from listcon_eval.train.start import start_from
from listcon_eval.train.state import STATE_FILE, load_state
from listcon_eval.train.tokens import TokenisedTexts
from listcon_eval.train.trainer import BEST, LAST, StepReport, Trainer

RUN_FILE = "run.json"
_SET_ASIDE = "set aside"  # with a space, which no task's name has


class Outcome(NamedTuple):
    """What a run left.

    Attributes:
        best: the checkpoint of the best MAP, or None without evaluation lists.
        best_map: that MAP, the mean over the evaluation sets.
        last: the checkpoint after the last step.
        log: the log.
        plot: the picture of loss and MAP, or None without matplotlib.
    """

    best: Path | None
    best_map: float | None
    last: Path
    log: Path
    plot: Path | None


def train(
    settings: Settings,
    eval_tasks: Sequence[Task] = (),
    *,
    progress: Progress = no_progress,
    on_step: Callable[[StepReport], None] = lambda _: None,
    announce: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Train a ListConRanker.

    Args:
        settings: what to do.
        eval_tasks: held-out lists to evaluate on after every epoch.
        progress: told of texts tokenised and encoded.
        on_step: told of every optimiser step.
        announce: told in words what starts, and the MAP after every epoch.

    Raises:
        ListconError: for data, a starting point, a device or an output folder that cannot be used, an unfinished run
            in the output folder, or a loss that is not a number.
    """
    output = settings.output
    check_writable(output)
    device = choose_device(settings.device)
    if settings.autocast != "none" and device.type == "cpu":
        raise ListconError(
            f"autocast {settings.autocast} was asked for on the CPU: leave it out, or give an accelerator"
        )
    if not plot.can_plot():
        announce(plot.HOW_TO_PLOT)
    announce(f"loading {settings.data}")
    task = local_task(settings.data, name="training-data")
    run = {
        **settings.of_the_result(),
        "device": str(device),
        "torch": str(torch.__version__),
        "data_revision": task.revision,
        "eval_revisions": {one.name: one.revision for one in eval_tasks},
    }
    if not settings.resume and (output / STATE_FILE).exists():
        raise ListconError(f"{output} holds a run: go on with it by --resume, or give another --output")
    state = load_state(output, run)
    if state is not None and state.done:
        announce("this run was finished before: nothing is left to do")
        return _outcome(output, state.best_map)

    rows = [row for row in task.candidate_lists() if row.passages]
    rows, held = set_aside(rows, settings.share_set_aside(has_eval_data=bool(eval_tasks)), settings.seed)
    data = training_data(rows)
    lists = repeated(data.lists, settings.repeat)
    sampler = ListSampler(data.lists, settings.list_size, fill=settings.fill_lists)
    counts = {"lists": len(data.lists), "set_aside": len(held), "one_class": data.skipped, "oversize": sampler.oversize}
    announce(
        f"{counts['lists']} lists to train on, {counts['set_aside']} set aside, {counts['one_class']} of one class "
        f"skipped, {counts['oversize']} with more positives than fit {settings.list_size} passages kept whole"
    )
    model, tokenizer = start_from(settings, data.texts)
    if state is not None:
        model.load_state_dict(state.model)
    if settings.gradient_checkpointing:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # its name changes in transformers 5.x
            model.encoder.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
    pooling = Pooling(model.to(device), device, settings.autocast)
    evaluated = [(one.name, one.candidate_lists()) for one in eval_tasks] + ([(_SET_ASIDE, held)] if held else [])
    evaluators = [Evaluator(name, lists, tokenizer, settings.max_length, progress) for name, lists in evaluated]
    write_json(output / RUN_FILE, {"data": str(settings.data), **run, "counts": counts})
    log = Log(output, state.log_bytes if state is not None else 0)
    try:
        trainer = Trainer(
            settings=settings,
            run=run,
            lists=lists,
            texts=TokenisedTexts(data.texts, tokenizer, settings.max_length, progress),
            sampler=sampler,
            pooling=pooling,
            tokenizer=tokenizer,
            evaluators=evaluators,
            log=log,
            progress=progress,
            on_step=on_step,
            announce=announce,
        )
        best_map = trainer.train(state)
    finally:
        log.close()
    return _outcome(output, best_map)


def _outcome(output: Path, best_map: float | None) -> Outcome:
    picture = output / plot.PLOT_FILE
    return Outcome(
        best=output / BEST if best_map is not None else None,
        best_map=best_map,
        last=output / LAST,
        log=output / LOG_FILE,
        plot=picture if picture.exists() else None,
    )
