"""How a system's order and ties reach both protocols unchanged; how each protocol breaks ties is in metrics/.

A system's order, and exactly its ties, are what both protocols measure. Scores alone do not carry it: pytrec_eval
compares float32, a sigmoid saturates, and the round in front of an iterative score takes digits. So every system
states its order by levels, and `ranked_list` moves scores by as few float32 steps as keep the levels apart.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from listcon_eval.errors import ListconError
from listcon_eval.records import NOT_RETRIEVED, RankedList

Protocol = Literal["cmteb", "mteb", "ir_measures"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


def levels_of(*keys: ArrayLike) -> NDArray[np.int64]:
    """The level of each of P items by one or more keys, the first key counting most: 0 is the lowest.

    Items have one level if and only if all their keys are equal.
    """
    columns = np.stack([np.asarray(key, dtype=np.float64) + 0.0 for key in keys], axis=1)  # (P, K); no -0.0
    _, levels = np.unique(columns, axis=0, return_inverse=True)
    return levels.reshape(-1).astype(np.int64)


def ranked_list(
    scores: ArrayLike, *, rounds: Sequence[int] | None = None, levels: NDArray[np.int64] | None = None
) -> RankedList:
    """A ranked list whose scores keep their order and their ties, as float64 and as float32.

    Args:
        scores: P scores; `NOT_RETRIEVED` for a candidate without a rank.
        rounds: P round numbers; all 0 when None.
        levels: P levels, as `levels_of` gives them, where the scores are too coarse to tell the order; by default
            equal scores share a level and others do not. Levels that are given decide the order.

    Returns:
        The list; a NaN or infinity among the scores stays where it is, and then nothing is moved.

    Raises:
        ListconError: the scores are no row of numbers.
    """
    given = np.asarray(scores, dtype=np.float64)
    if given.ndim != 1:
        raise ListconError(f"scores of a list in the shape {given.shape}: expected one number for each passage")
    numbers = tuple(rounds) if rounds is not None else (0,) * len(given)
    found = given.copy()
    retrieved = given != NOT_RETRIEVED
    if retrieved.any() and np.isfinite(given[retrieved]).all():
        own = levels[retrieved] if levels is not None else levels_of(given[retrieved])
        found[retrieved] = _separated(given[retrieved], own)
    return RankedList(tuple(found.tolist()), numbers)


def _separated(scores: NDArray[np.float64], levels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Scores as float32 values that are equal where levels are, and rise with them."""
    _, levels = np.unique(levels, return_inverse=True)  # without gaps
    limit = np.finfo(np.float32).max
    targets = np.zeros(levels.max() + 1, dtype=np.float32)
    targets[levels] = np.clip(scores, -limit, limit)
    steps = _to_steps(targets)
    place = np.arange(len(steps))
    # From the highest down: the largest values that are no larger than the targets and rise by a step or more.
    moved = np.minimum.accumulate((steps - place)[::-1])[::-1] + place
    lowest = np.float32(0) if targets[0] >= 0 else -limit  # a probability stays one, and nothing becomes infinite
    moved = np.maximum(moved, _to_steps(np.array([lowest])) + place)
    return _from_steps(moved)[levels].astype(np.float64)


def _to_steps(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Float32 values counted in float32 steps from 0."""
    bits = (values + np.float32(0)).view(np.int32).astype(np.int64)  # adding 0 turns -0.0 into 0.0
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _from_steps(steps: NDArray[np.int64]) -> NDArray[np.float32]:
    bits = np.where(steps < 0, (-steps) | 0x80000000, steps)
    return bits.astype(np.uint32).view(np.float32)


def ranked_places(scores: Sequence[float], doc_ids: Sequence[str], protocol: Protocol) -> list[int]:
    """The places of the candidates that were retrieved, best first.

    Args:
        scores: P scores of a `RankedList`.
        doc_ids: P document ids.
        protocol: "cmteb" keeps tied candidates in candidate order; the others put the higher document id first.
    """
    places = [place for place, score in enumerate(scores) if score != NOT_RETRIEVED]
    if protocol == "cmteb":
        return sorted(places, key=lambda place: -scores[place])
    return sorted(places, key=lambda place: (scores[place], doc_ids[place]), reverse=True)
