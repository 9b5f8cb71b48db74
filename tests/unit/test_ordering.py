"""Order and ties survive float32, whatever the size of the scores."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray

from listcon_eval.ordering import levels_of, ranked_list, ranked_places
from listcon_eval.records import NOT_RETRIEVED

ANY = st.floats(allow_nan=False, allow_infinity=False)
CLOSE = st.integers(-20, 20).map(lambda step: 1.0 + step * 2.0**-50)  # one value as float32
SCORES = st.lists(ANY | CLOSE | st.sampled_from([0.0, -0.0, 1.0, 5e-324, -5e-324]), min_size=1, max_size=30)


def relations(values: ArrayLike) -> NDArray[np.int64]:
    """-1, 0 or 1 for each pair: which one is larger."""
    column = np.asarray(values)
    larger: NDArray[np.int64] = (column[:, None] > column[None, :]).astype(np.int64)
    return larger - larger.T


@given(SCORES)
@example([0.0, -0.0, 5e-324, -5e-324])
@example([1e308, 1.1e308, -1e308, -1.1e308])
def test_order_and_ties_are_those_of_the_scores_in_both_formats(scores: list[float]) -> None:
    found = ranked_list(scores).scores
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(relations(found), relations(scores))
    as_float32 = np.asarray(found, dtype=np.float32)
    assert np.isfinite(as_float32).all()
    np.testing.assert_array_equal(relations(as_float32), relations(scores))
    assert ranked_list(found).scores == found  # nothing is moved twice


@given(st.lists(st.tuples(st.integers(0, 24), st.floats(-80, 80)), min_size=1, max_size=60))
def test_rounds_and_logits_decide_the_order_whatever_a_sigmoid_makes_of_them(rows: list[tuple[int, float]]) -> None:
    rounds, logits = [row[0] for row in rows], [row[1] for row in rows]
    levels = levels_of(rounds, logits)
    scores = [1 / (1 + math.exp(-logit)) + number for number, logit in rows]
    found = ranked_list(scores, rounds=rounds, levels=levels)
    order = sorted(set(rows))
    wanted = relations([order.index(row) for row in rows])
    np.testing.assert_array_equal(relations(np.asarray(found.scores, dtype=np.float32)), wanted)
    assert found.rounds == tuple(rounds)
    np.testing.assert_allclose(found.scores, scores, atol=1e-3)


@given(st.lists(st.floats(-800, 800), min_size=1, max_size=60))
def test_a_probability_stays_one(logits: list[float]) -> None:
    scores = [1 / (1 + math.exp(-max(-700.0, logit))) for logit in logits]
    found = ranked_list(scores, levels=levels_of(logits)).scores
    assert 0 <= min(found) <= max(found) <= 1
    np.testing.assert_array_equal(relations(np.asarray(found, dtype=np.float32)), relations(logits))
    np.testing.assert_allclose(found, scores, atol=1e-5)


def test_scores_that_float32_holds_apart_are_not_moved() -> None:
    assert ranked_list([0.25, 0.5, 0.25, -3.0]).scores == (0.25, 0.5, 0.25, -3.0)


def test_what_was_not_retrieved_keeps_no_rank_and_a_nan_stays() -> None:
    assert ranked_list([1.0, NOT_RETRIEVED, 1.0 + 1e-12]).scores[1] == NOT_RETRIEVED
    assert math.isnan(ranked_list([1.0, math.nan]).scores[1])
    assert ranked_list([NOT_RETRIEVED]).scores == (NOT_RETRIEVED,)
    assert ranked_list([]).scores == ()


def test_levels_of_several_keys() -> None:
    assert levels_of([1, 0, 1, 1], [0.5, 9.0, 0.5, -1.0]).tolist() == [2, 0, 2, 1]
    assert levels_of([0.0, -0.0]).tolist() == [0, 0]


@pytest.mark.parametrize(("protocol", "places"), [("cmteb", [3, 0, 1]), ("mteb", [3, 1, 0])])
def test_tied_candidates(protocol: str, places: list[int]) -> None:
    assert ranked_places([1.0, 1.0, NOT_RETRIEVED, 2.0], ["a", "b", "c", "d"], protocol) == places  # type: ignore[arg-type]
