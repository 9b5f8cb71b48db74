"""What every command shares: where words go, how progress looks, and how mistakes end."""

import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from listcon_eval.errors import CheckFailedError, ListconError
from listcon_eval.progress import Progress as Report

P = ParamSpec("P")
R = TypeVar("R")

CHECK_FAILED, UNUSABLE_INPUT, INTERRUPTED = 1, 2, 130
_UNITS = {"encode": "encoding texts", "list": "ranking passages", "score": "scoring pairs"}

notes = Console(stderr=True, highlight=False)
"""Where words about the work go; results go to standard output."""


def say(text: str = "") -> None:
    """Print a result."""
    typer.echo(text)


def ends_well(command: Callable[P, R]) -> Callable[P, R]:
    """Turn this package's errors into one message and an exit code: 2 for unusable input, 1 for a failed check."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except ListconError as error:
            notes.print(f"error: {error}", style="red", markup=False, soft_wrap=True)
            raise typer.Exit(CHECK_FAILED if isinstance(error, CheckFailedError) else UNUSABLE_INPUT) from error
        except KeyboardInterrupt as error:
            notes.print("interrupted: what is finished is kept; the same command goes on with it")
            raise typer.Exit(INTERRUPTED) from error
        except BrokenPipeError as error:  # the reader of standard output has seen enough, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the very end
            raise typer.Exit(CHECK_FAILED) from error
        except OSError as error:  # a full disk, a file that may not be read: the machine's fault, not the program's
            where = f" ({error.filename})" if error.filename else ""
            notes.print(
                f"error: {error.strerror or error}{where}; put that right and start the same command again: what is "
                f"finished is kept",
                style="red",
                markup=False,
                soft_wrap=True,
            )
            raise typer.Exit(UNUSABLE_INPUT) from error

    return wrapped


def set_up_logging(quiet: bool) -> None:
    """Send warnings of this package to standard error; mteb's and the hub's own chatter stays away."""
    handler = RichHandler(console=notes, show_time=False, show_path=False, show_level=False)
    package = logging.getLogger("listcon_eval")
    package.handlers = [handler]
    package.setLevel(logging.ERROR if quiet else logging.WARNING)
    package.propagate = False
    logging.getLogger("mteb").setLevel(logging.ERROR)


Show = Callable[[str, str, int, int], None]
"""Called with a bar's name, its words, the units done so far and the units in all."""


@contextmanager
def bars_shown(quiet: bool) -> Iterator[Show]:
    """Progress bars on standard error, or none when it is not a terminal or `quiet` is set."""
    if quiet or not sys.stderr.isatty():
        yield lambda *_: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=notes, transient=True) as bars:
        shown: dict[str, TaskID] = {}

        def show(name: str, words: str, done: int, total: int) -> None:
            if name not in shown:
                shown[name] = bars.add_task(words, total=total)
            bars.update(shown[name], description=words, completed=done, total=total)
            if done >= total:
                bars.remove_task(shown.pop(name))

        yield show


@contextmanager
def progress_shown(quiet: bool) -> Iterator[Report]:
    """A bar for each phase of inference, as `bars_shown`."""
    with bars_shown(quiet) as show:
        yield lambda phase, done, total: show(phase, _UNITS.get(phase, phase), done, total)
