"""`listcon-eval export`: files to publish."""

from pathlib import Path
from typing import Annotated

import typer

from listcon_eval.cli import options
from listcon_eval.cli.console import ends_well, notes, say
from listcon_eval.records import Mode

app = typer.Typer(
    no_args_is_help=True, help="Files to publish: for mteb's leaderboard, for a model card, a checkpoint made small."
)

Runs = Annotated[list[Path], typer.Argument(metavar="RUN [RUN ...]", help="Run folders, or folders with runs in them.")]
ModeOption = Annotated[Mode, typer.Option("--mode", help="The inference mode to publish; there is room for one.")]


@app.command()
@ends_well
def leaderboard(
    runs: Runs,
    output: Annotated[Path, typer.Option("--output", help="The folder named `results`, or the one to make it in.")],
    mode: ModeOption = "iterative",
    trained_on: Annotated[
        str | None,
        typer.Option(
            "--trained-on",
            help="The mteb tasks whose data the model was trained on, separated by commas, or none.",
            show_default="what model_meta.json declares",
        ),
    ] = None,
) -> None:
    """Write files for mteb's results repository: official data and revision, all queries, a hub model.

    Every reason against is given at once, and then nothing is written.

    Examples:
      listcon-eval export leaderboard results --output submission

      listcon-eval export leaderboard results/org__model --output submission --trained-on T2Reranking,MMarcoReranking
    """
    from listcon_eval.publish import chosen_runs, export_leaderboard

    exported = export_leaderboard(chosen_runs(runs, mode), output, training_data=_names(trained_on))
    for remark in exported.remarks:
        notes.print(f"note: {remark}", markup=False, soft_wrap=True)
    for signature in exported.signatures:
        say(signature)
    say()
    say(str(exported.folder))


@app.command("model-card")
@ends_well
def model_card(
    runs: Runs,
    mode: ModeOption = "iterative",
    readme: Annotated[
        Path | None,
        typer.Option(
            "--readme",
            help="A model card to put the results into; nothing else of it is touched.",
            show_default="print",
        ),
    ] = None,
) -> None:
    """Write a model card's `model-index`: map, mrr_1, mrr_5, mrr_10 in percent, for every official task.

    In a README a table between `<!-- listcon-eval table -->` and `<!-- end -->` is made anew as well.

    Examples:
      listcon-eval export model-card results

      listcon-eval export model-card results --readme ./my-model/README.md
    """
    from listcon_eval.publish import chosen_runs, model_index, update_readme
    from listcon_eval.publish.model_card import front_matter_block

    records = chosen_runs(runs, mode)
    if readme is None:
        say(f"---\n{front_matter_block(model_index(records), [record.signature for record in records])}---")
        return
    for changed in update_readme(readme, records):
        notes.print(f"written: {changed}", markup=False, soft_wrap=True)
    for record in records:
        say(record.signature)
    say()
    say(str(readme))


@app.command()
@ends_well
def quantised(
    model: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Checkpoint folder or hub id.")],
    output: Annotated[Path, typer.Option("--output", help="The new checkpoint's folder.")],
    revision: options.Revision = None,
) -> None:
    """Write a ListConRanker checkpoint at a quarter of its size or less: 8-bit matrices, one scale a row, compressed.

    This package loads it like any other (it is another model, with other scores); the published code does not.

    Example:
      listcon-eval export quantised ./trained/best --output ./small
    """
    from listcon_eval.files import check_writable
    from listcon_eval.model import load_checkpoint, save_quantised

    check_writable(output.parent)
    checkpoint = load_checkpoint(model, revision)
    folder = save_quantised(checkpoint.model, checkpoint.tokenizer, output)
    size = sum(path.stat().st_size for path in folder.iterdir())
    say(f"{size / 2**20:.1f} MiB")
    say(str(folder))


def _names(given: str | None) -> list[str] | None:
    if given is None:
        return None
    return [] if given.strip().casefold() == "none" else [name.strip() for name in given.split(",") if name.strip()]
