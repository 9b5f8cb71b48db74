"""`listcon-eval report`."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from listcon_eval.cli.console import echo, handled_errors, progress_shown, set_up_logging
from listcon_eval.cli.options import Quiet
from listcon_eval.errors import ListconError


@handled_errors()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN [RUN ...]",
            help="A run's folder; a folder with runs in it (every model, mode and dtype counts as one); or a "
            "TREC run file.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
    plots: Annotated[Path | None, typer.Option(help="Write the figures as PNG and SVG into this folder too.")] = None,
    before: Annotated[
        str | None,
        typer.Option(
            help="The first stage: one of the runs, by its name or a part of it, or `data` for the data's candidate "
            "order.",
            show_default="the run of the first stage or of BM25 if there is one, else data",
        ),
    ] = None,
    queries: Annotated[
        int, typer.Option(min=0, help="For how many queries of a task to put passages into the page.")
    ] = 200,
    top: Annotated[int, typer.Option(min=1, help="How many of a run's best passages to show.")] = 10,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="The data to read passages' texts from, as PATH or TASK=PATH; repeatable.",
            show_default="where the runs had them from",
        ),
    ] = None,
    qrels: Annotated[
        Path | None,
        typer.Option(
            help="TREC qrels for TREC run files.", show_default="qrels.trec beside the file, or the runs' own"
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write one HTML page of runs: table, figures by task, queries with their passages, provenance.

    The page needs no network. It needs the extra `report`: pip install 'listcon-eval[report]'.

    Examples:
      listcon-eval report results -o report.html

      listcon-eval report results/.../experiments/RUN bm25.trec --before bm25 --plots figures
    """
    if missing := missing_extra():
        raise ListconError(missing)
    from listcon_eval.report.page import write_report

    set_up_logging(quiet)
    with progress_shown(quiet) as progress:
        write_report(
            runs,
            output,
            plots=plots,
            before=before,
            data=_data_by_task(data or []),
            qrels=qrels,
            queries=queries,
            top=top,
            progress=progress,
        )
    if plots is not None:
        echo(str(plots))
    echo(str(output))


def missing_extra() -> str | None:
    """In words, what a report needs that is not installed; None where all of it is there."""
    absent = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if not absent:
        return None
    return f"a report needs {' and '.join(absent)}, which is not installed: `pip install 'listcon-eval[report]'`"


def _data_by_task(given: list[str]) -> dict[str | None, Path]:
    """What `--data` gives, by task; a PATH alone is under None."""
    found: dict[str | None, Path] = {}
    for text in given:
        task, separator, path = text.partition("=")
        name = task if separator and not Path(text).exists() else None
        if name in found:
            raise ListconError(f"--data {text}: data of {name or 'the runs'} was given twice; give TASK=PATH for each")
        if name is not None and not path:
            raise ListconError(f"--data {text}: the path is '' (empty); give TASK=PATH")
        found[name] = Path(path if name is not None else text)
    return found
