"""What inference has finished, kept for a next start: finished chunks by name, each loaded instead of computed."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Journal(Protocol):
    """Keeps arrays by name. A name says what was computed, so an array that is there can be taken for the work."""

    def load(self, name: str) -> NDArray[np.generic] | None:
        """The array kept under a name; None when there is none, or a damaged one."""

    def save(self, name: str, array: NDArray[np.generic]) -> None:
        """Keep an array, whole or not at all."""
