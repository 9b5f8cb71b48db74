"""The errors this package raises on purpose: one message each, saying what was wrong, the value seen, what to do."""


def count_of(number: int, noun: str) -> str:
    """A number of things in words: "1 run", "3 queries"."""
    plural = f"{noun.removesuffix('y')}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def first_line(error: Exception) -> str:
    """The first line of an error's message; the name of its class when it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def first_line_with_class(error: Exception) -> str:
    """The name of an error's class, and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


class ListconError(Exception):
    """A mistake in the input or the environment that its user can put right. The command line exits with 2."""


class CheckFailedError(ListconError):
    """A check was made and did not hold (not the same as a check that could not be made). Exits with 1."""
