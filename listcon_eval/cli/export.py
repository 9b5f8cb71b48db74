"""`listcon-eval export`: files to publish."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from listcon_eval.cli import options
from listcon_eval.cli.console import echo, handled_errors, help_of, note
from listcon_eval.data.mteb_tasks import split_names
from listcon_eval.records import Mode

app = typer.Typer(
    no_args_is_help=True, help="Files to publish: for mteb's leaderboard, for a model card, a checkpoint made small."
)

Runs = Annotated[list[Path], typer.Argument(metavar="RUN [RUN ...]", help="Folders with runs, all of one system.")]


@handled_errors()
def leaderboard(
    runs: Runs,
    output: Annotated[Path, typer.Option(help="The folder named `results`, or the one to make it in.")],
    mode: Annotated[
        Literal["both", "iterative", "conventional"],
        typer.Option(
            help="both: iterative inference as the model's results, as published, and conventional as an experiment; "
            "or the one mode to export."
        ),
    ] = "both",
    trained_on: Annotated[
        str | None,
        typer.Option(
            help="The mteb tasks whose data the model was trained on, separated by commas, or none.",
            show_default="what model_meta.json declares",
        ),
    ] = None,
) -> None:
    """Write files for mteb's results repository: official data and revision, all queries, a hub model.

    If a run may not be submitted, one error gives every reason and nothing is written.

    Examples:
      listcon-eval export leaderboard results/org__model --output submission

      listcon-eval export leaderboard results/org__model --output submission --trained-on T2Reranking,MMarcoReranking
    """
    from listcon_eval.publish.leaderboard import export_leaderboard

    exported = export_leaderboard(runs, output, mode=mode, training_data=_task_names(trained_on))
    for remark in exported.remarks:
        note(f"note: {remark}")
    echo(str(exported.folder))


@handled_errors()
def model_card(
    runs: Runs,
    mode: Annotated[Mode, typer.Option(help="The inference mode: a card has no place for two.")] = "iterative",
    readme: Annotated[
        Path | None,
        typer.Option(
            help="A model card to put the results into; the rest of it does not change.", show_default="print"
        ),
    ] = None,
) -> None:
    """Write a model card's `model-index`: map, mrr_1, mrr_5, mrr_10 in percent, of the card's four tasks.

    In a README a table between `<!-- listcon-eval table -->` and `<!-- end -->` is replaced as well.

    Examples:
      listcon-eval export model-card results/org__model

      listcon-eval export model-card results/org__model --readme ./my-model/README.md
    """
    from listcon_eval.publish.model_card import model_card_front_matter, update_model_card

    if readme is None:
        echo(model_card_front_matter(runs, mode))
        return
    for changed in update_model_card(readme, runs, mode):
        note(f"written: {changed}")
    echo(str(readme))


@handled_errors()
def quantised(
    model: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Checkpoint folder or hub id.")],
    output: Annotated[Path, typer.Option(help="The new checkpoint's folder.")],
    revision: options.Revision = None,
) -> None:
    """Write a ListConRanker checkpoint at a quarter of its size or less: 8-bit matrices, compressed.

    Only this package loads it. It is another model, with slightly different scores.

    Examples:
      listcon-eval export quantised ./trained/model --output ./small
    """
    from listcon_eval.files import check_writable
    from listcon_eval.model import load_checkpoint, save_quantised

    check_writable(output.parent)
    checkpoint = load_checkpoint(model, revision)
    folder = save_quantised(checkpoint.model, checkpoint.tokenizer, output)
    size = sum(path.stat().st_size for path in folder.iterdir())
    echo(f"{size / 2**20:.1f} MiB")
    echo(str(folder))


def _task_names(given: str | None) -> list[str] | None:
    if given is None:
        return None
    return [] if given.strip().casefold() == "none" else split_names(given)


for verb in (leaderboard, model_card, quantised):
    app.command(verb.__name__.replace("_", "-"), help=help_of(verb))(verb)
