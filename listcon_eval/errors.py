"""The errors this package raises on purpose: one message each, saying what was wrong, the value seen, what to do."""


def count_of(number: int, noun: str) -> str:
    """A number of things in words: "1 run", "3 queries"."""
    plural = f"{noun.removesuffix('y')}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


class ListconError(Exception):
    """A mistake in the input or the environment that its user can put right. The command line exits with 2."""


class CheckFailedError(ListconError):
    """A check was made and did not hold (not the same as a check that could not be made). Exits with 1."""
