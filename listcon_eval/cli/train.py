"""`listcon-eval train`."""

from typing import Annotated

import typer

from listcon_eval.cli.console import echo, handled_errors, note, progress_shown, set_up_logging


@handled_errors()
def train(
    context: typer.Context,
    wants_help: Annotated[bool, typer.Option("--help", "-h", help="Show the options and exit.")] = False,
) -> None:
    """Train a ListConRanker with Circle Loss, on transformers.Trainer (see its own --help)."""
    from listcon_eval.train.arguments import help_text, parse_arguments

    if wants_help or not context.args:
        echo(help_text())
        return
    arguments = parse_arguments(context.args)
    from listcon_eval.train.run import train as train_model

    set_up_logging(quiet=False)
    is_main = arguments.training.process_index == 0
    with progress_shown(not is_main) as progress:
        trained = train_model(
            arguments,
            announce=lambda words: note(words) if is_main else None,
            progress=lambda _, done, total: progress("encoding texts", done / total),
        )
    if is_main:
        for name, value in (("best", trained.best_map), ("last", trained.last_map)):
            if value is not None:
                echo(f"{name} MAP {value:.4f}")
        echo(str(trained.folder))
