"""`listcon-eval table`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from listcon_eval.cli import options
from listcon_eval.cli.console import echo, echo_json, handled_errors


@handled_errors()
def table(
    results: Annotated[Path, typer.Argument(help="The folder that `run --output` named.")] = Path("results"),
    published: Annotated[
        bool, typer.Option("--published", help="Put the published figures by this measure, marked as published, first.")
    ] = False,
    measure: Annotated[
        str, typer.Option(help="cmteb:map, mteb:map_at_1000, mteb:main_score, nDCG@10 (of `run --metrics`), ...")
    ] = "cmteb:map",
    style: Annotated[
        Literal["terminal", "markdown", "latex", "csv"], typer.Option("--format", help="How to print the table.")
    ] = "terminal",
    as_json: options.Json = False,
    readme: Annotated[
        Path | None,
        typer.Option(
            help="A Markdown file whose lines between `<!-- listcon-eval table -->` and `<!-- end -->` become the "
            "table; nothing else in it changes."
        ),
    ] = None,
) -> None:
    """Print the comparison table of the results on disk: percent, the best of each column marked.

    Only rows with a number for every task have an average. Rows of official tasks are compared with the published
    figures of the same model, revision and mode: the difference, and whether it is within 0.1 point.

    Examples:
      listcon-eval table --published

      listcon-eval table my-output --measure mteb:map_at_1000 --format latex

      listcon-eval table --published --readme README.md
    """
    from listcon_eval.report import table as report
    from listcon_eval.tables import terminal_width

    if readme is not None:
        options.refuse_with("--readme", json=as_json, format=style not in ("terminal", "markdown"))
    if as_json:
        options.refuse_with("--json", format=style != "terminal")
    tables = report.read_tables(results, measure, with_published=published)
    if readme is not None:
        report.update_block(readme, tables)
        echo(str(readme))
    elif as_json:
        echo_json(report.as_json(tables))
    elif style == "csv":
        echo(report.as_csv(tables).rstrip("\n"))
    else:
        echo("\n\n".join(report.as_text(shown, style, width=terminal_width()) for shown in tables))
