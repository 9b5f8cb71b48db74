"""`listcon-eval tasks`."""

from listcon_eval.cli import options
from listcon_eval.cli.console import echo, handle_errors


@handle_errors
def tasks(style: options.Style = "terminal") -> None:
    """List the tasks that `run --tasks` knows, with the shape of their data.

    Examples:
      listcon-eval tasks

      listcon-eval tasks --format markdown
    """
    from listcon_eval.data import MINI, list_tasks, mini_task
    from listcon_eval.tables import table, terminal_width

    headers = ("Task", "Also known as", "Split", "Data set", "Queries", "Documents", "Candidates per query")
    rows = [
        (
            task.name,
            ", ".join(task.aliases),
            task.split,
            f"{task.dataset}@{task.revision[:8]}",
            str(task.queries),
            str(task.documents),
            f"{task.min_candidates} to {task.max_candidates}, mean {task.mean_candidates:.1f}",
        )
        for task in list_tasks()
    ]
    echo(table(headers, rows, style, width=terminal_width()))
    echo("\nPackaged mini benchmark (no official tasks; all of them: --tasks mini)\n")
    mini = []
    for name in MINI:
        sizes = [len(row.passages) for row in mini_task(name).candidate_lists()]
        shape = f"{min(sizes)} to {max(sizes)}, mean {sum(sizes) / len(sizes):.1f}"
        mini.append((name, str(len(sizes)), str(sum(sizes)), shape))
    echo(table((headers[0], *headers[4:]), mini, style, width=terminal_width()))
