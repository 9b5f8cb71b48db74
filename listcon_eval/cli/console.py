"""What every command shares: where words go, how progress looks, and how mistakes end."""

import inspect
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from listcon_eval.errors import CheckFailedError, ListconError
from listcon_eval.progress import RunProgress, no_progress

CHECK_FAILED, UNUSABLE_INPUT, INTERRUPTED, CLOSED_PIPE, TERMINATED = 1, 2, 130, 141, 143
RESUMES = "; finished work is kept: the same command resumes it"
_SECONDS_BETWEEN_LINES = 60


class _Console(Console):
    def on_broken_pipe(self) -> NoReturn:
        """End as SIGPIPE ends a program: the reader of what is printed has seen enough, as `head` does."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):  # for what is flushed at the very end
            os.dup2(nowhere, stream.fileno())
        sys.exit(CLOSED_PIPE)


stderr = _Console(stderr=True, highlight=False, emoji=False)
"""Where words about the work go; results go to standard output."""


plain_app = partial(
    typer.Typer,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
"""An app whose help and usage errors are plain text, in which `[zh]` is no markup."""


def help_of(command: Callable[..., object]) -> str:
    """A command's docstring as its help: `Examples:` and what follows keep their lines."""
    words, separator, examples = inspect.cleandoc(command.__doc__ or "").partition("Examples:\n")
    lines = [line for line in examples.splitlines() if line.strip()]
    return "\n".join([words, *(["\b", separator.rstrip(), *lines] if lines else [])])


def echo(text: str = "") -> None:
    """Print a result."""
    try:
        typer.echo(text)
    except BrokenPipeError:
        stderr.on_broken_pipe()
    except OSError as error:
        error.filename = "standard output"
        raise


def echo_json(value: Mapping[str, Any]) -> None:
    """Print strict JSON."""
    echo(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False))


def note(text: str) -> None:
    """Print a line about the work."""
    stderr.print(text, soft_wrap=True, markup=False)


class _Terminated(KeyboardInterrupt):
    """The process was asked to end, by SIGTERM."""


def _terminate(*_: object) -> NoReturn:
    raise _Terminated


@contextmanager
def handled_errors(at_end: str = "") -> Iterator[None]:
    """Turn errors of this package into one message and an exit code: 2 for unusable input, 1 for a failed check.

    `at_end` is said of a command that was cut short: `RESUMES`, of one that keeps finished work.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed from the start, as by `>&-`
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - for the rest of the process
        elif hasattr(stream, "reconfigure"):  # a character that the output's encoding lacks is written as an escape
            stream.reconfigure(errors="backslashreplace")
    if at_end:
        signal.signal(signal.SIGTERM, _terminate)  # what was begun is tidied up, as after an interrupt
    try:
        yield
    except ListconError as error:
        _print_error(str(error))
        raise typer.Exit(CHECK_FAILED if isinstance(error, CheckFailedError) else UNUSABLE_INPUT) from error
    except KeyboardInterrupt as error:
        note(("terminated" if isinstance(error, _Terminated) else "interrupted") + at_end)
        raise typer.Exit(TERMINATED if isinstance(error, _Terminated) else INTERRUPTED) from error
    except OSError as error:  # a full disk, a file that may not be read: the machine's fault, not the program's
        where = f"{error.filename}: " if error.filename else ""
        _print_error(f"{where}{error.strerror or error}{at_end}")
        raise typer.Exit(UNUSABLE_INPUT) from error


def refuse_empty(arguments: Sequence[str]) -> None:
    """End a command that got an empty value, which `Path` would make the current folder."""
    with handled_errors():
        for before, given in pairwise(["listcon-eval", *arguments]):
            if not given or re.fullmatch("--[^=]+=", given):
                raise ListconError(f"the value after {given or before} is '' (empty): give one, or leave it out")


def _print_error(text: str) -> None:
    stderr.print(f"error: {text}", style="red", markup=False, soft_wrap=True)


def set_up_logging(quiet: bool) -> None:
    """Send warnings of this package to standard error; messages of mteb and the hub's client stay away."""
    handler = RichHandler(console=stderr, show_time=False, show_path=False, show_level=False)
    package = logging.getLogger("listcon_eval")
    package.handlers = [handler]
    package.setLevel(logging.ERROR if quiet else logging.WARNING)
    package.propagate = False
    logging.getLogger("mteb").setLevel(logging.ERROR)


@contextmanager
def progress_shown(quiet: bool) -> Iterator[RunProgress]:
    """Progress on standard error: one bar on a terminal, a line a minute elsewhere, nothing if `quiet` is set."""
    if quiet:
        yield no_progress
    elif stderr.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=stderr, transient=True) as bars:
            bar = bars.add_task("", total=1.0)
            yield lambda words, share: bars.update(bar, description=words, completed=share)
    else:
        yield _lines()


def _lines() -> RunProgress:
    start = last = time.monotonic()
    first: float | None = None

    def progress(words: str, share: float) -> None:
        nonlocal last, first
        first = share if first is None else first
        now = time.monotonic()
        if now - last < _SECONDS_BETWEEN_LINES:
            return
        last = now
        rate = (share - first) / (now - start)  # of this start; what was resumed took no time
        pace = f" ({60 * rate:.1%} a minute, about {_duration((1 - share) / rate)} left)" if rate > 0 else ""
        note(f"{words}: {share:.1%} done after {_duration(now - start)}{pace}")

    return progress


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
