"""How far a run is and where its time went: the two things inference tells the outside while it works."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int, int], None]
"""Called with a phase's name, the units done so far and the units in all."""


def no_progress(phase: str, done: int, total: int) -> None:
    """Say nothing."""


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
