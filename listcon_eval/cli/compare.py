"""`listcon-eval compare` and `listcon-eval show`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from listcon_eval.cli.console import ends_well, say
from listcon_eval.errors import ListconError


@ends_well
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN RUN [RUN ...]",
            help="A run's folder; a folder with runs in it (every model, mode and precision counts as one); or a "
            "TREC run file.",
        ),
    ],
    qrels: Annotated[
        Path | None,
        typer.Option(
            "--qrels",
            help="TREC qrels for TREC run files.",
            show_default="qrels.trec beside the file, or the compared runs' own",
        ),
    ] = None,
    measure: Annotated[
        list[str] | None,
        typer.Option(
            "--measure",
            help="cmteb:map, mteb:ndcg_at_10, ...; repeatable; the first decides which queries moved.",
            show_default="cmteb:map, cmteb:mrr_10, mteb:map_at_1000, mteb:mrr_at_10",
        ),
    ] = None,
    moved: Annotated[int, typer.Option("--moved", min=0, help="How many queries that moved to show a task.")] = 5,
    max_p: Annotated[
        float, typer.Option("--max-p", min=0, max=1, help="The corrected p-value up to which a difference is marked.")
    ] = 0.05,
    resamples: Annotated[
        int, typer.Option("--resamples", min=99, help="The draws of every interval and test.")
    ] = 9_999,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The draws' seed.")] = 20_241_211,
    style: Annotated[Literal["terminal", "markdown", "json", "latex"], typer.Option("--format")] = "terminal",
) -> None:
    """Compare runs query by query: means with 95 % intervals, paired tests, and the queries that moved most.

    A number carries the superscript letters of the runs that it is significantly better than: paired randomisation
    test, p-values corrected by Holm's method over all pairs, tasks and measures shown.

    Examples:
      listcon-eval compare results                     # every model and mode that was run

      listcon-eval compare yesterday/results today/results --measure cmteb:map --format markdown

      listcon-eval compare results/.../T2Reranking other-tool.trec --qrels results/.../T2Reranking/qrels.trec
    """
    from listcon_eval import compare as comparison
    from listcon_eval.compare import render
    from listcon_eval.metrics import Measure

    compared = comparison.compare(
        comparison.contestants(runs, qrels),
        [Measure.parse(name) for name in measure or ()],
        level=max_p,
        resamples=resamples,
        seed=seed,
        most_moved=moved,
    )
    if style == "json":
        say(json.dumps(render.as_json(compared), ensure_ascii=False, indent=2, allow_nan=False))
    elif style == "latex":
        say(render.as_latex(compared))
    else:
        say(render.as_text(compared, style))


@ends_well
def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or one with a single run in it.")],
    query: Annotated[str, typer.Option("--query", help="The query's id.")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", help="The data to read the passages' texts from.", show_default="where the run had them from"
        ),
    ] = None,
    top: Annotated[int | None, typer.Option("--top", min=1, help="The best passages only.", show_default="all")] = None,
    full: Annotated[bool, typer.Option("--full", help="Texts in full length.")] = False,
    style: Annotated[Literal["terminal", "markdown", "json"], typer.Option("--format")] = "terminal",
) -> None:
    """Show the ranked passages of one query: scores, labels and, of iterative inference, the round each one left in.

    A run stores ids and scores, not texts: these are read again from the run's own data, if it is still the same.

    Examples:
      listcon-eval show results/.../T2Reranking --query 42 --top 10

      listcon-eval show results/.../my-lists --query 7 --data ./my_lists.jsonl.gz --full
    """
    from listcon_eval.compare.passages import as_json, as_text, shown_query
    from listcon_eval.results import runs_at

    found = runs_at(run)
    if len(found) > 1:
        folders = "\n".join(f"  {record.folder}" for record in found)
        raise ListconError(f"{run} holds {len(found)} runs; give one of them:\n{folders}")
    shown = shown_query(found[0], query, data=data, top=top)
    if style == "json":
        say(json.dumps(as_json(shown), ensure_ascii=False, indent=2, allow_nan=False))
    else:
        say(as_text(shown, style, full=full))
