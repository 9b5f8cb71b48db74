"""Groups of lists: what goes through the rounds together, and what a journal keeps of it."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from listcon_eval.inference.texts import IndexedList
from listcon_eval.records import Mode, RankedList


def groups_of(lists: Sequence[IndexedList], passages: int) -> Iterator[Sequence[IndexedList]]:
    """Cut lists, in their order, into groups of at most `passages` passages (or of a single list)."""
    start, size = 0, 0
    for end, row in enumerate(lists):
        if end > start and size + len(row.passages) > passages:
            yield lists[start:end]
            start, size = end, 0
        size += len(row.passages)
    if start < len(lists):
        yield lists[start:]


def group_name(mode: Mode, texts: Sequence[str], group: Sequence[IndexedList]) -> str:
    """A journal name for the ranking of a group: it follows the mode and every text of the group, in order."""
    digest = hashlib.sha256()
    for row in group:
        digest.update(len(row.passages).to_bytes(8))
        for index in (row.query, *row.passages):
            text = texts[index].encode()
            digest.update(len(text).to_bytes(8) + text)
    return f"{mode}-{digest.hexdigest()[:32]}"


def packed(results: Sequence[RankedList]) -> NDArray[np.float64]:
    """Scores and rounds of lists as one array, (2, passages)."""
    scores = [score for result in results for score in result.scores]
    rounds = [number for result in results for number in result.rounds]
    return np.array([scores, rounds], dtype=np.float64)


def unpacked(array: NDArray[np.generic], group: Sequence[IndexedList]) -> list[RankedList]:
    """The lists that `packed` made an array of."""
    ends = np.cumsum([len(row.passages) for row in group])[:-1]
    parts = zip(np.split(array[0], ends), np.split(array[1], ends), strict=True)
    return [RankedList(tuple(map(float, scores)), tuple(map(int, rounds))) for scores, rounds in parts]
