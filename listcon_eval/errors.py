"""The errors this package raises on purpose: one message each, saying what was wrong, the value seen, what to do."""


class ListconError(Exception):
    """A mistake in the input or the environment that its user can put right. The command line exits with 2."""


class CheckFailedError(ListconError):
    """A check was made and did not hold (not the same as a check that could not be made). Exits with 1."""
