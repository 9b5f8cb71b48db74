"""Chunks: the units of work that a cache keeps, and that workers in other processes may compute."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import starmap
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from listcon_eval.inference.tokens import IndexedList
from listcon_eval.progress import Phases
from listcon_eval.workers import RayWorkers


class ChunkStore(Protocol):
    """Keeps arrays by name. A name says what was computed, so an array that is there need not be computed again."""

    def load(self, name: str) -> NDArray[np.generic] | None:
        """The array kept under a name; None when there is none, or a damaged one."""

    def save(self, name: str, array: NDArray[np.generic]) -> None:
        """Keep an array, whole or not at all."""


def chunk_results(
    names: Sequence[str],
    arguments: Callable[[int], tuple[Any, ...]],
    work: Callable[..., NDArray[Any]],
    *,
    phase: str,
    phases: Phases,
    cache: ChunkStore | None,
    workers: RayWorkers | None = None,
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Place and result of every chunk: first of those that the cache has, then of the others as they get done.

    Args:
        names: what the cache calls each chunk.
        arguments: the arguments of the chunk at a place, made when it is its turn.
        work: computes a chunk; the workers call the method of that name.
        phase: the phase that seconds are added to.
        phases: the seconds by phase.
        cache: keeps what is computed, unless it holds a number that is not finite.
        workers: compute the chunks; this process when None.
    """
    missing = []
    for place, name in enumerate(names):
        kept = cache.load(name) if cache is not None else None
        if kept is None:
            missing.append(place)
        else:
            yield place, kept
    chunks = map(arguments, missing)
    computed = enumerate(starmap(work, chunks)) if workers is None else workers.run(work.__name__, chunks)
    for number, found in phases.timed(phase, computed):
        if cache is not None and np.isfinite(found).all():
            cache.save(names[missing[number]], found)
        yield missing[number], found


def cut(sizes: Sequence[int], most: int, most_items: float = math.inf) -> Iterator[slice]:
    """Cut items into parts of at most so much in all, or of one item; and of at most so many items."""
    start, total = 0, 0
    for end, size in enumerate(sizes):
        if end > start and (total + size > most or end - start >= most_items):
            yield slice(start, end)
            start, total = end, 0
        total += size
    if sizes:
        yield slice(start, len(sizes))


def texts_of(arguments: tuple[Any, ...]) -> Iterator[str]:
    """The texts that a chunk's arguments begin with, or the names of its lists."""
    for unit in arguments[0]:
        if isinstance(unit, str):
            yield unit
        elif isinstance(unit, IndexedList):
            yield unit.name
        else:
            yield from unit
