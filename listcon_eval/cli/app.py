"""The verbs of `listcon-eval`."""

from typing import Annotated

import typer

from listcon_eval import __version__
from listcon_eval.cli import bench, check, compare, doctor, export, inspect, report, run, train
from listcon_eval.cli.console import say

app = typer.Typer(
    name="listcon-eval",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        say(__version__)
        raise typer.Exit


@app.callback()
def listcon_eval(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Rank with ListConRanker, and evaluate it on the C-MTEB reranking tasks."""


app.command()(run.run)
app.command()(train.train)
app.command()(inspect.table)
app.command()(inspect.tasks)
app.command()(report.report)
app.command()(compare.compare)
app.command()(compare.show)
app.command()(check.check)
app.add_typer(export.app, name="export")
app.command()(bench.bench)
app.command()(doctor.doctor)


def main() -> None:
    """Run the command line."""
    app()
