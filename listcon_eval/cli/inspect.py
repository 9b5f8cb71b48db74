"""`listcon-eval table` and `listcon-eval tasks`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from tabulate import tabulate

from listcon_eval.cli.console import ends_well, say
from listcon_eval.errors import ListconError

Style = Annotated[
    Literal["terminal", "markdown"], typer.Option("--format", help="A table for the terminal, or Markdown.")
]
_TABULATE = {"terminal": "simple", "markdown": "github"}


@ends_well
def table(
    results: Annotated[Path, typer.Argument(help="The folder that `run --output` named.")] = Path("results"),
    published: Annotated[
        bool,
        typer.Option("--published", help="Put the model card's figures, marked as published, beside them."),
    ] = False,
    measure: Annotated[
        str, typer.Option("--measure", help="cmteb:map, cmteb:mrr_10, mteb:map_at_1000, ...")
    ] = "cmteb:map",
    style: Annotated[
        Literal["terminal", "markdown", "latex", "csv", "json"],
        typer.Option("--format", help="For people: terminal, markdown, latex. For programs: csv, json."),
    ] = "terminal",
    readme: Annotated[
        Path | None,
        typer.Option(
            "--readme",
            help="A Markdown file whose lines between `<!-- listcon-eval table -->` and `<!-- end -->` become the "
            "table; nothing else in it changes.",
        ),
    ] = None,
) -> None:
    """Print the comparison table of the results on disk: percent, the best of each column in bold.

    The average stands only in rows with a number for every task. Rows of official tasks in cmteb:map whose model and
    mode the model card has are held against it: the difference, and whether it is within 0.1 point.

    Examples:
      listcon-eval table --published

      listcon-eval table my-output --measure mteb:map_at_1000 --format latex

      listcon-eval table --published --readme README.md
    """
    from listcon_eval.data import OFFICIAL
    from listcon_eval.metrics import Measure
    from listcon_eval.report import comparison, styles
    from listcon_eval.report.block import markdown_block, update_block
    from listcon_eval.report.published import MAP
    from listcon_eval.results import find_runs, results_folder

    wanted = Measure.parse(measure)
    if published and wanted != MAP:
        raise ListconError(f"--published has figures for {MAP} only, not for {wanted}: leave one of the two out")
    if readme is not None and style not in ("terminal", "markdown"):
        raise ListconError(f"--readme writes Markdown, not {style}: leave --format out")
    runs = list(find_runs(results)) if results_folder(results).is_dir() or not published else []
    tables = comparison(runs, measure=wanted, with_published=published, official_order=[task.name for task in OFFICIAL])
    if not tables:
        raise ListconError(
            f"no runs under {results_folder(results)}: `listcon-eval run --output {results}` writes them"
        )
    if readme is not None:
        update_block(readme, markdown_block(tables, runs))
        say(str(readme))
    elif style == "json":
        say(json.dumps(styles.as_json(tables), ensure_ascii=False, indent=2, allow_nan=False))
    elif style == "csv":
        say(styles.as_csv(tables).rstrip("\n"))
    elif style == "latex":
        say("\n\n".join(map(styles.as_latex, tables)))
    elif style == "markdown":
        say(markdown_block(tables, runs))
    else:
        for shown in tables:
            say(f"{styles.as_text(shown)}\n")
        for record in runs:
            say(record.signature)


@ends_well
def tasks(style: Style = "terminal") -> None:
    """List the tasks that `run --tasks` knows, with the shape of their data.

    Examples:
      listcon-eval tasks

      listcon-eval tasks --format markdown
    """
    from listcon_eval.data import MINI, list_tasks, mini_task

    headers = ("Task", "Also known as", "Split", "Data set", "Queries", "Documents", "Candidates a query")
    rows = [
        (
            task.name,
            ", ".join(task.aliases),
            task.split,
            f"{task.dataset}@{task.revision[:8]}",
            task.queries,
            task.documents,
            f"{task.fewest_candidates} to {task.most_candidates}, mean {task.mean_candidates:.1f}",
        )
        for task in list_tasks()
    ]
    say(tabulate(rows, headers=headers, tablefmt=_TABULATE[style]))
    say("\nPackaged mini benchmark (no official tasks; all of them: --tasks mini)\n")
    mini = []
    for name in MINI:
        task = mini_task(name)
        sizes = [len(row.passages) for row in task.candidate_lists()]
        mini.append((name, len(sizes), sum(sizes), f"{min(sizes)} to {max(sizes)}, mean {sum(sizes) / len(sizes):.1f}"))
    say(tabulate(mini, headers=(headers[0], *headers[4:]), tablefmt=_TABULATE[style]))
