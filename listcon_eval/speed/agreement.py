"""Do two ways of ranking agree? Orders are compared, not scores, and what the reference ties may stand either way."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from listcon_eval.speed.records import Agreement


def compare_rankings(
    reference: Sequence[NDArray[np.float64]], scores: Sequence[NDArray[np.float64]], texts: Sequence[Sequence[str]]
) -> Agreement:
    """Compare the orders that scores put lists in.

    Args:
        reference: the reference's scores, an array (P,) a list.
        scores: the scores to compare.
        texts: the passages; of equal texts in a list only the first counts, since the reference may round them apart.

    Returns:
        How many orders are the same but for the reference's exact ties, and the largest gap that was reversed or tied.
    """
    gaps = []
    for expected, found, passages in zip(reference, scores, texts, strict=True):
        first = np.array(sorted({text: place for place, text in reversed(list(enumerate(passages)))}.values()))
        gaps.append(reversed_gap(expected[first], found[first]))
    return Agreement(len(gaps), sum(gap == 0 for gap in gaps), max(gaps, default=0.0))


def reversed_gap(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """The largest difference in `expected` between two items that `found` orders the other way, or ties; else 0."""
    # Among equal scores the lower expected one first: a tie counts as the worse of its orders.
    order = np.lexsort((expected, -found))
    ordered = expected[order]
    later = np.maximum.accumulate(ordered[::-1])[::-1]  # the highest from each place on
    return float((later - ordered).max(initial=0.0))
