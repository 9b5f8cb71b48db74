"""`listcon-eval compare`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from listcon_eval.cli import options
from listcon_eval.cli.console import echo, echo_json, handled_errors


@handled_errors()
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN [RUN ...]",
            help="A run's folder; a folder with runs in it (every model, mode and dtype counts as one system); or a "
            "TREC run file.",
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Test all others against this one alone: a run's folder or file, or a part of a system's name.",
            show_default="every pair is tested",
        ),
    ] = None,
    qrels: Annotated[
        Path | None,
        typer.Option(
            help="TREC qrels for TREC run files.", show_default="qrels.trec beside the file, or the compared runs' own"
        ),
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            help="cmteb:map, mteb:ndcg_at_10, nDCG@10 (of `run --metrics`), ...; repeatable; the first decides which "
            "queries changed.",
            show_default="cmteb:map, cmteb:mrr_10, mteb:map_at_1000, mteb:mrr_at_10, the task's main score",
        ),
    ] = None,
    with_bounds: Annotated[
        bool, typer.Option("--with-bounds", help="Test the random order and the oracle too.")
    ] = False,
    changed: Annotated[int, typer.Option(min=0, help="How many changed queries to show a pair.")] = 5,
    max_p: Annotated[
        float, typer.Option(min=0.001, max=1, help="The corrected p-value up to which a difference is marked.")
    ] = 0.05,
    resamples: Annotated[
        int | None,
        typer.Option(min=99, help="The draws of every interval and test.", show_default="9999, more for many pairs"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The draws' seed.")] = 20_241_211,
    style: Annotated[Literal["terminal", "markdown", "latex"], typer.Option("--format")] = "terminal",
    as_json: options.Json = False,
) -> None:
    """Compare runs query by query: means with 95 % intervals, paired tests, and the queries that changed most.

    A number carries the superscript letters of the systems that it is significantly better than: paired randomisation
    test, p-values corrected by Holm's method over the pairs within a task and measure. A candidate that a TREC run
    does not list is not retrieved, as in trec_eval.

    Examples:
      listcon-eval compare results                     # every model and mode that was run

      listcon-eval compare results --against bm25 --measure cmteb:map --format markdown

      listcon-eval compare results/.../experiments/RUN other-tool.trec --qrels judged.qrels
    """
    from listcon_eval import comparison
    from listcon_eval.comparison import render
    from listcon_eval.tables import terminal_width

    if as_json:
        options.refuse_with("--json", format=style != "terminal")
    found = comparison.compare(
        runs,
        measure or (),
        against=against,
        qrels=qrels,
        with_bounds=with_bounds,
        level=max_p,
        resamples=resamples,
        seed=seed,
        max_changed=changed,
    )
    if as_json:
        echo_json(render.as_json(found))
    else:
        echo(found.as_text(style, width=terminal_width() if style == "terminal" else None))
