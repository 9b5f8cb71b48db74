"""The verbs of `listcon-eval`, a file each."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from listcon_eval import __version__
from listcon_eval.cli import check, clean, compare, doctor, export, report, run, show, speed, sweep, table, tasks, train
from listcon_eval.cli.console import echo, help_of, plain_app, refuse_empty


class _Verbs(TyperGroup):
    """The verbs, which take no empty value: `Path` would make it the current folder."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer brings its own click, or not
        refuse_empty(args)
        return super().parse_args(ctx, args)


app = plain_app(cls=_Verbs, name="listcon-eval", no_args_is_help=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        echo(__version__)
        raise typer.Exit


@app.callback()
def listcon_eval(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Rank with ListConRanker, and evaluate it and other rerankers."""


for verb in (
    run.run,
    sweep.sweep,
    table.table,
    report.report,
    compare.compare,
    show.show,
    check.check,
    tasks.tasks,
    doctor.doctor,
    clean.clean,
    speed.speed,
):
    app.command(help=help_of(verb))(verb)
app.add_typer(export.app, name="export")
# transformers' parser reads the options of `train`, so that every option of TrainingArguments is known.
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, add_help_option=False)(
    train.train
)
