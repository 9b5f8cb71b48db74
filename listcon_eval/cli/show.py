"""`listcon-eval show`."""

from pathlib import Path
from typing import Annotated

import typer

from listcon_eval.cli import options
from listcon_eval.cli.console import echo, echo_json, handled_errors
from listcon_eval.errors import ListconError


@handled_errors()
def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder, or one with a single run in it.")],
    query: Annotated[str, typer.Option(help="The query's id.")],
    data: Annotated[
        Path | None,
        typer.Option(help="The data to read the passages' texts from.", show_default="where the run had them from"),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="The best passages only.", show_default="all")] = None,
    full: Annotated[bool, typer.Option("--full", help="Texts in full length.")] = False,
    style: options.Style = "terminal",
    as_json: options.Json = False,
) -> None:
    """Show the ranked passages of one query: scores, labels and, of iterative inference, the round each one left in.

    A run stores ids and scores, not texts: these are read again from the run's own data, if it is still the same.

    Examples:
      listcon-eval show results/.../experiments/RUN --query 42 --top 10

      listcon-eval show results/.../experiments/RUN --query 7 --data ./my_lists.jsonl.gz --full
    """
    from listcon_eval.comparison import show as shown
    from listcon_eval.results import load_results
    from listcon_eval.tables import terminal_width

    if as_json:
        options.refuse_with("--json", format=style != "terminal", full=full)
    found = load_results(run)
    if len(found) > 1:
        folders = "\n".join(f"  {result.folder}" for result in found)
        raise ListconError(f"{run} holds {len(found)} runs; give one of them:\n{folders}")
    one = shown.show_query(found[0], query, data=data, top=top)
    if as_json:
        echo_json(shown.as_json(one))
    else:
        echo(shown.as_text(one, style, full=full, width=terminal_width() if style == "terminal" else None))
