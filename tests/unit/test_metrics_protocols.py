"""The cases in which the two protocols part, worked by hand; both protocols are to give exactly these."""

import numpy as np
import pytest

from listcon_eval.metrics import cmteb
from listcon_eval.metrics import mteb as mteb_protocol


def _one_relevant(rank: int, length: int) -> list[bool]:
    return [position == rank for position in range(1, length + 1)]


# relevant, scores, cmteb AP, cmteb MRR@10, mteb MAP@1000, mteb MRR@10
Case = tuple[list[bool], list[float], float, float, float, float]
CASES: dict[str, Case] = {
    "no ties": ([False, True, False, True], [4.0, 3.0, 2.0, 1.0], 0.5, 0.5, 0.5, 0.5),
    "one of each, tied": ([True, False], [1.0, 1.0], 0.5, 1.0, 0.5, 0.5),
    "two of each, tied": ([True, True, False, False], [1.0] * 4, 0.5, 1.0, 5 / 12, 1 / 3),
    "relevant at rank 1001 of 1002": (
        _one_relevant(1001, 1002),
        [float(-i) for i in range(1002)],
        1 / 1001,
        0.0,
        0.0,
        0.0,
    ),
    "relevant at ranks 1 and 1002": (
        [True] + [False] * 1000 + [True],
        [float(-i) for i in range(1002)],
        (1 + 2 / 1002) / 2,
        1.0,
        0.5,
        1.0,
    ),
    "a difference below float32": ([True, False], [1.0 + 1e-9, 1.0], 1.0, 1.0, 0.5, 1.0),
    "two relevant tied, then another": ([True, True, False], [2.0, 2.0, 1.0], 1.0, 1.0, 1.0, 1.0),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_cmteb(case: Case) -> None:
    relevant, scores, ap, mrr, _, _ = case
    measured = cmteb.query_metrics(relevant, scores).values
    assert measured["map"] == pytest.approx(ap, abs=1e-12)
    assert measured["mrr_10"] == pytest.approx(mrr, abs=1e-12)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_mteb(case: Case) -> None:
    relevant, scores, _, _, ap, mrr = case
    # ids that sort the irrelevant above the relevant, as those of mteb's own conversion do
    ids = [f"{'apositive' if label else 'negative'}_{i:05d}" for i, label in enumerate(relevant)]
    measured = mteb_protocol.evaluate(
        {"q": dict(zip(ids, map(int, relevant), strict=True))}, {"q": dict(zip(ids, scores, strict=True))}
    )
    assert measured.per_query["q"]["map_at_1000"] == pytest.approx(ap, abs=1e-9)
    assert measured.per_query["q"]["mrr_at_10"] == pytest.approx(mrr, abs=1e-12)
    assert measured.means["map_at_1000"] == round(ap, 5)


def test_a_difference_below_float32_is_one() -> None:
    """The sixth case rests on it: float32 holds both scores for equal, float64 does not."""
    relevant, other = CASES["a difference below float32"][1]
    assert relevant > other
    assert np.float32(relevant) == np.float32(other)
