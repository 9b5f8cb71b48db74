"""`listcon-eval train`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from listcon_eval.cli import options
from listcon_eval.cli.console import bars_shown, ends_well, notes, say, set_up_logging
from listcon_eval.errors import ListconError
from listcon_eval.progress import Progress as Report
from listcon_eval.records import Mode
from listcon_eval.train import Settings
from listcon_eval.train.settings import Autocast

if TYPE_CHECKING:
    from listcon_eval.train.trainer import StepReport

_UNITS = {"tokenise": "tokenising texts", "encode": "encoding texts"}


@ends_well
def train(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            help="Training lists: any local data that `run --data` reads, with positive and negative passages.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder for the checkpoints, the log and the plot.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Start from a ListConRanker checkpoint: folder or hub id.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", help="Start from a BERT encoder: folder or hub id.")
    ] = None,
    encoder_config: Annotated[
        Path | None,
        typer.Option(
            "--encoder-config",
            help="Start from nothing: a BERT config.json, with a vocabulary built from the training text.",
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Hub revision of the model or encoder.")] = None,
    minimum_count: Annotated[
        int, typer.Option("--minimum-count", help="How often a character must occur to enter a new vocabulary.")
    ] = Settings.minimum_count,
    vocabulary_size: Annotated[
        int | None,
        typer.Option(
            "--vocabulary-size",
            help="Tokens of a new vocabulary, pieces of up to four characters.",
            show_default="single characters",
        ),
    ] = None,
    meaning_width: Annotated[
        int | None,
        typer.Option(
            "--meaning-width",
            help="New encoder: begin by matching words, beside a meaning of so many numbers; stage 0 trains it and "
            "how much each word counts.",
        ),
    ] = None,
    list_width: Annotated[
        int | None,
        typer.Option("--list-width", help="Width of a new list transformer.", show_default="7/4 of the encoder's"),
    ] = None,
    list_layers: Annotated[
        int | None, typer.Option("--list-layers", help="Layers of a new list transformer.", show_default="2")
    ] = None,
    list_feedforward: Annotated[
        int | None,
        typer.Option(
            "--list-feedforward",
            help="Inner width of a new list transformer.",
            show_default="twice the encoder's width",
        ),
    ] = None,
    list_dropout: Annotated[
        float, typer.Option("--list-dropout", help="Dropout of the list transformer.")
    ] = Settings.list_dropout,
    eval_data: Annotated[
        list[str] | None,
        typer.Option("--eval-data", help="Held-out lists, as PATH or NAME=PATH; repeatable."),
    ] = None,
    eval_split: Annotated[
        float | None,
        typer.Option(
            "--eval-split",
            help="Share of the training queries to set aside and evaluate on.",
            show_default="0.02, or 0 with --eval-data",
        ),
    ] = None,
    eval_mode: Annotated[Mode, typer.Option("--eval-mode", help="Inference mode of the evaluation.")] = (
        Settings.eval_mode
    ),
    list_size: Annotated[
        int, typer.Option("--list-size", help="Passages a list: all positives, and sampled negatives.")
    ] = Settings.list_size,
    fill_lists: Annotated[
        bool, typer.Option("--fill-lists", help="Fill shorter lists with passages of other queries.")
    ] = Settings.fill_lists,
    margin: Annotated[float, typer.Option("--margin", help="Circle Loss: the margin m.")] = Settings.margin,
    scale: Annotated[float, typer.Option("--scale", help="Circle Loss: the scale gamma.")] = Settings.scale,
    contrastive_epochs: Annotated[
        int | None,
        typer.Option(
            "--contrastive-epochs",
            help="Epochs of stage 0, the contrastive warm-up of the encoder.",
            show_default="5 with --encoder-config, else 0",
        ),
    ] = None,
    contrastive_batch: Annotated[
        int, typer.Option("--contrastive-batch", help="Pairs of query and positive a step of stage 0.")
    ] = Settings.contrastive_batch,
    contrastive_learning_rate: Annotated[
        float, typer.Option("--contrastive-lr", help="Learning rate of stage 0.")
    ] = Settings.contrastive_learning_rate,
    temperature: Annotated[
        float, typer.Option("--temperature", help="What stage 0 divides similarities by.")
    ] = Settings.temperature,
    hard_negatives: Annotated[
        int, typer.Option("--hard-negatives", help="Negatives of each query's own list in a batch of stage 0.")
    ] = Settings.hard_negatives,
    pseudo_queries: Annotated[
        float,
        typer.Option("--pseudo-queries", help="Pairs of a passage and a piece of it, for each pair of stage 0."),
    ] = Settings.pseudo_queries,
    token_dropout: Annotated[
        float, typer.Option("--token-dropout", help="Share of tokens that stage 0 leaves out at random.")
    ] = Settings.token_dropout,
    stage_1_epochs: Annotated[
        int, typer.Option("--stage-1-epochs", help="Epochs with the encoder frozen; 0 leaves them out.")
    ] = Settings.stage_1_epochs,
    stage_1_batch: Annotated[
        int, typer.Option("--stage-1-batch", help="Lists a step of stage 1.")
    ] = Settings.stage_1_batch,
    stage_1_learning_rate: Annotated[
        float, typer.Option("--stage-1-lr", help="Learning rate of stage 1.")
    ] = Settings.stage_1_learning_rate,
    stage_2_epochs: Annotated[
        int, typer.Option("--stage-2-epochs", help="Epochs with everything trained; 0 leaves them out.")
    ] = Settings.stage_2_epochs,
    stage_2_batch: Annotated[
        int, typer.Option("--stage-2-batch", help="Lists a step of stage 2.")
    ] = Settings.stage_2_batch,
    stage_2_learning_rate: Annotated[
        float, typer.Option("--stage-2-lr", help="Learning rate of stage 2.")
    ] = Settings.stage_2_learning_rate,
    micro_batch: Annotated[
        int, typer.Option("--micro-batch", help="Lists in memory at once; batches are made of as many as they need.")
    ] = Settings.micro_batch,
    weight_decay: Annotated[float, typer.Option("--weight-decay", help="AdamW's weight decay.")] = (
        Settings.weight_decay
    ),
    warm_up: Annotated[
        float, typer.Option("--warm-up", help="Share of a stage's steps in which the learning rate rises.")
    ] = Settings.warm_up,
    max_grad_norm: Annotated[
        float, typer.Option("--max-grad-norm", help="What gradients are clipped to.")
    ] = Settings.max_grad_norm,
    autocast: Annotated[
        Autocast, typer.Option("--autocast", help="Format of matrix products on an accelerator.")
    ] = Settings.autocast,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory for the encoder, more computing.")
    ] = Settings.gradient_checkpointing,
    max_length: options.MaxLength = Settings.max_length,
    repeat: Annotated[
        list[str] | None,
        typer.Option(
            "--repeat",
            metavar="BEGINNING=TIMES",
            help="Lists whose query ids begin so come so often in an epoch; repeatable.",
            show_default="all once",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="What every random choice follows from.")] = Settings.seed,
    device: options.Device = None,
    save_every: Annotated[
        int, typer.Option("--save-every", help="Steps between saved states, beside the end of every epoch.")
    ] = Settings.save_every,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the state saved in the output folder, if there is one.")
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a ListConRanker with Circle Loss: first with the encoder frozen, then everything.

    Examples:
      listcon-eval train --data lists.jsonl.gz --encoder ./encoder --output ./trained

      listcon-eval train --data lists.jsonl.gz -m ./my-checkpoint --stage-1-epochs 0 --output ./tuned --autocast bf16

      listcon-eval train --data lists.jsonl.gz --encoder-config small.json --hard-negatives 2 --output ./small

      listcon-eval train --data lists.jsonl.gz --encoder ./encoder --output ./trained --resume   # after a kill
    """
    settings = Settings(
        data=data,
        output=output,
        model=model,
        encoder=encoder,
        encoder_config=encoder_config,
        revision=revision,
        list_width=list_width,
        list_layers=list_layers,
        list_feedforward=list_feedforward,
        list_dropout=list_dropout,
        minimum_count=minimum_count,
        vocabulary_size=vocabulary_size,
        meaning_width=meaning_width,
        repeat=_times(repeat or []),
        eval_split=eval_split,
        eval_mode=eval_mode,
        list_size=list_size,
        fill_lists=fill_lists,
        margin=margin,
        scale=scale,
        contrastive_epochs=contrastive_epochs,
        contrastive_batch=contrastive_batch,
        contrastive_learning_rate=contrastive_learning_rate,
        temperature=temperature,
        hard_negatives=hard_negatives,
        pseudo_queries=pseudo_queries,
        token_dropout=token_dropout,
        stage_1_epochs=stage_1_epochs,
        stage_1_batch=stage_1_batch,
        stage_1_learning_rate=stage_1_learning_rate,
        stage_2_epochs=stage_2_epochs,
        stage_2_batch=stage_2_batch,
        stage_2_learning_rate=stage_2_learning_rate,
        micro_batch=micro_batch,
        weight_decay=weight_decay,
        warm_up=warm_up,
        max_grad_norm=max_grad_norm,
        autocast=autocast,
        gradient_checkpointing=gradient_checkpointing,
        max_length=max_length,
        seed=seed,
        device=device,
        save_every=save_every,
        resume=resume,
    )
    from listcon_eval.train import train as train_model

    set_up_logging(quiet)
    eval_tasks = options.chosen_tasks(None, eval_data) if eval_data else []
    with _shown(quiet) as (progress, on_step):
        outcome = train_model(
            settings,
            eval_tasks,
            progress=progress,
            on_step=on_step,
            announce=(lambda _: None) if quiet else (lambda words: notes.print(words, markup=False)),
        )
    if outcome.best is not None:
        say(f"best MAP {outcome.best_map:.4f}")
    for path in (outcome.log, outcome.plot, outcome.last, outcome.best):
        if path is not None:
            say(f"{path}")


def _times(given: list[str]) -> dict[str, int]:
    """What `--repeat BEGINNING=TIMES` says."""
    times: dict[str, int] = {}
    for one in given:
        beginning, _, count = one.rpartition("=")
        if not beginning or not count.isdecimal():
            raise ListconError(f"--repeat is {one!r}: give how query ids begin, '=' and a number: law:=4")
        if beginning in times:
            raise ListconError(f"--repeat is given twice for {beginning!r}, the second time as {one!r}: give it once")
        times[beginning] = int(count)
    return times


@contextmanager
def _shown(quiet: bool) -> Iterator[tuple[Report, Callable[["StepReport"], None]]]:
    """A bar for the stage's steps, with loss and rate, and one for texts; or none, as in `run`."""
    with bars_shown(quiet) as show:

        def progress(phase: str, done: int, total: int) -> None:
            show(phase, _UNITS[phase], done, total)

        def on_step(report: "StepReport") -> None:
            words = f"stage {report.stage}: loss {report.loss:.4f}, {report.lists_per_second:.1f} lists/s"
            show(f"stage {report.stage}", words, report.stage_step, report.stage_steps)

        yield progress, on_step
