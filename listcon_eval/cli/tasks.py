"""`listcon-eval tasks`."""

from typing import Annotated

import typer

from listcon_eval.cli import options
from listcon_eval.cli.console import echo, handle_errors


@handle_errors
def tasks(
    language: Annotated[
        str | None,
        typer.Option(
            "--language", help="Only tasks with this language: an ISO 639-3 code such as zho, or an English name."
        ),
    ] = None,
    style: options.Style = "terminal",
) -> None:
    """List the tasks that bring candidate lists, by the names that `run --tasks` takes, with the shape of their data.

    Examples:
      listcon-eval tasks

      listcon-eval tasks --language zho --format markdown
    """
    from listcon_eval.data import MINI, list_tasks, mini_task
    from listcon_eval.tables import table, terminal_width

    sizes = ("Queries", "Documents", "Candidates per query")
    headers = ("Task", "Also known as", "Languages", "Data set", "In the cache", "Main score", *sizes)
    rows = [
        (
            task.name,
            ", ".join(task.aliases),
            ", ".join(task.languages),
            f"{task.dataset}@{task.revision[:8]}",
            "yes" if task.is_cached else "no",
            task.main_score,
            str(task.queries),
            str(task.documents),
            f"{task.min_candidates} to {task.max_candidates}, mean {task.mean_candidates:.1f}",
        )
        for task in list_tasks(language)
    ]
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
