"""`listcon-eval report`."""

from pathlib import Path
from typing import Annotated

import typer

from listcon_eval.cli.console import bars_shown, ends_well, say, set_up_logging
from listcon_eval.cli.options import Quiet
from listcon_eval.errors import ListconError


@ends_well
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN [RUN ...]",
            help="A run's folder; a folder with runs in it (every model, mode and precision counts as one); or a "
            "TREC run file.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path("report.html"),
    plots: Annotated[
        Path | None, typer.Option("--plots", help="Write the figures as PNG and SVG into this folder too.")
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            "--before",
            help="What stood before reranking: one of the runs, by its name or a part of it, or `data` for the data's "
            "candidate order.",
            show_default="a BM25 run if there is one, else data",
        ),
    ] = None,
    queries: Annotated[
        int, typer.Option("--queries", min=0, help="For how many queries of a task to put passages into the page.")
    ] = 200,
    top: Annotated[int, typer.Option("--top", min=1, help="How many of a run's best passages to show.")] = 10,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            help="The data to read passages' texts from, as PATH or TASK=PATH; repeatable.",
            show_default="where the runs had them from",
        ),
    ] = None,
    qrels: Annotated[
        Path | None,
        typer.Option(
            "--qrels",
            help="TREC qrels for TREC run files.",
            show_default="qrels.trec beside the file, or the runs' own",
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write one HTML page of runs: table, figures by task, queries with their passages, provenance.

    The page needs no network. It needs the extra `report`: pip install 'listcon-eval[report]'.

    Examples:
      listcon-eval report results -o report.html

      listcon-eval report results bm25.trec --before bm25 --plots figures
    """
    from listcon_eval.report.page import check_installed

    check_installed()
    set_up_logging(quiet)
    from listcon_eval import report as reports
    from listcon_eval.compare import contestants
    from listcon_eval.data import OFFICIAL
    from listcon_eval.files import write_text
    from listcon_eval.metrics import Measure
    from listcon_eval.report.material import gather, records_of
    from listcon_eval.report.page import TaskPage, page
    from listcon_eval.report.plots import write_plots
    from listcon_eval.report.queries import queries_of
    from listcon_eval.report.sections import sections

    if output.is_dir():
        raise ListconError(f"{output} is a folder; give the name of the page, such as {output / 'report.html'}")
    with bars_shown(quiet) as show:
        materials = gather(
            contestants(runs, qrels),
            before=before,
            data=_data(data or []),
            progress=lambda done, total: show("read", "reading runs", done, total),
        )
        records = records_of(materials)
        tables = [
            table
            for measure in ("cmteb:map", "mteb:map_at_1000")
            for table in reports.comparison(
                records,
                measure=Measure.parse(measure),
                with_published=any(record.is_official for record in records),
                official_order=[task.name for task in OFFICIAL],
            )
        ]
        pages = []
        for done, material in enumerate(materials, start=1):
            found = sections(material)
            pages.append(TaskPage(material, found, queries_of(material, most=queries, top=top)))
            show("draw", "drawing figures", done, len(materials))
        write_text(output, page(tables, pages))
        if plots is not None:
            write_plots(
                plots,
                {shown.material.task: shown.sections for shown in pages},
                lambda done, total: show("plots", "writing plots", done, total),
            )
    if plots is not None:
        say(str(plots))
    say(str(output))


def _data(given: list[str]) -> dict[str | None, Path]:
    """What `--data` gives, by task; a PATH alone is under None."""
    found: dict[str | None, Path] = {}
    for text in given:
        task, separator, path = text.partition("=")
        name = task if separator and not Path(text).exists() else None
        if name in found:
            raise ListconError(f"--data {text}: data of {name or 'the runs'} was given twice; give TASK=PATH for each")
        found[name] = Path(path if name is not None else text)
    return found
