"""`listcon-eval tasks`."""

from typing import Annotated

import typer

from listcon_eval.cli import options
from listcon_eval.cli.console import echo, handled_errors


@handled_errors()
def tasks(
    language: Annotated[
        str | None,
        typer.Option(help="Only tasks with this language: an ISO 639-3 code such as zho, or an English name."),
    ] = None,
    style: options.Style = "terminal",
) -> None:
    """List the tasks that bring candidate lists, by the names that `run --tasks` takes, with the shape of their data.

    Examples:
      listcon-eval tasks

      listcon-eval tasks --language zho --format markdown
    """
    from listcon_eval.data import MINI, card_task, list_tasks, mini_task
    from listcon_eval.hub import is_cached
    from listcon_eval.tables import table, terminal_width

    sizes = ("Queries", "Documents", "Candidates per query")
    headers = ("Task", "Also known as", "Languages", "Data set", "In the cache", "Main score", *sizes)
    rows = []
    for task in list_tasks(language):
        card, candidates = card_task(task.name), task.statistics()["top_ranked_statistics"]
        low, mean, high = (candidates[f"{which}_top_ranked_per_query"] for which in ("min", "average", "max"))
        cells = (
            task.name,
            ", ".join(card.aliases if card else ()),
            ", ".join(task.languages),
            f"{task.location}@{task.revision[:8]}",
            "yes" if is_cached(task.location, task.revision) else "no",
            task.main_score,
        )
        rows.append((*cells, *map(str, task.shipped_sizes()), f"{low} to {high}, mean {mean:.1f}"))
    echo(table(headers, rows, style, width=terminal_width()))
    if language is not None:
        return
    echo("\nPackaged mini benchmark (no official tasks; all of them: --tasks mini)\n")
    mini = []
    for name in MINI:
        lengths = [len(row.passages) for row in mini_task(name).candidate_lists()]
        shape = f"{min(lengths)} to {max(lengths)}, mean {sum(lengths) / len(lengths):.1f}"
        mini.append((name, str(len(lengths)), str(sum(lengths)), shape))
    echo(table((headers[0], *sizes), mini, style, width=terminal_width()))
