"""The errors this package raises on purpose: one message each, saying what was wrong, the value seen, what to do."""

from collections.abc import Iterable
from difflib import get_close_matches


def count_of(number: int, noun: str) -> str:
    """A number of things in words: "1 run", "3 queries"."""
    plural = f"{noun.removesuffix('y')}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The hint " (did you mean NAME?)" at the known name that is most like a wrong one; "" when none is like it."""
    names = {name.casefold(): name for name in known}
    near = get_close_matches(given.strip().casefold(), names, n=1)
    return f" (did you mean {names[near[0]]}?)" if near else ""


def first_line(error: Exception) -> str:
    """The first line of an error's message, and the second where it ends in a colon; its class when it has none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines[: 1 + lines[0].endswith(":")])


def first_line_with_class(error: Exception) -> str:
    """The name of an error's class, and the first line of its message."""
    name = type(error).__name__
    return f"{name}: {first_line(error)}" if str(error).strip() else name


class ListconError(Exception):
    """A mistake in the input or the environment that its user can put right. The command line exits with 2."""


class CheckFailedError(ListconError):
    """A check was made and did not hold (not the same as a check that could not be made). Exits with 1."""
