"""How far a run is, and where its time went."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""Called with a phase's name, the work done so far and the work in all, in a unit of the phase's own."""

RunProgress = Callable[[str, float], None]
"""Called with what is being done, in words, and the share of the whole job that is done, 0 to 1."""
PHASES = {"encode": "encoding texts", "list": "ranking passages", "score": "scoring pairs"}
"""Phase -> the same in words."""


def no_progress(*_: object) -> None:
    """Say nothing: either kind of progress."""


class Phases:
    """Seconds by phase, added up. Phases may run in several threads at once, so they may add up to more than a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def measured(self, phase: str) -> Iterator[None]:
        """Add the seconds spent inside to `phase`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start

    def timed(self, phase: str, items: Iterable[T]) -> Iterator[T]:
        """The same items; the seconds that each is waited for are added to `phase`."""
        iterator, ended = iter(items), object()
        while True:
            with self.measured(phase):
                item = next(iterator, ended)
            if item is ended:
                return
            yield item  # type: ignore[misc]
