"""Iterative inference by hand: who leaves when, with the points where the published loop misbehaves."""

import re

import numpy as np
import pytest
import torch

from listcon_eval import ListConRanker
from listcon_eval.errors import ListconError
from listcon_eval.inference.iterative import ListState
from listcon_eval.inference.tokens import IndexedList
from texts import random_list


def simulate(keys: list[float]) -> ListState:
    """Run the rounds on keys that do not change between rounds."""
    state = ListState(IndexedList("q", 0, np.arange(1, 1 + len(keys)), None), 0)
    number = 0
    while len(state.remaining):
        remaining = np.asarray(keys)[state.remaining]
        state.finish_round(number, remaining, remaining, "iterative")
        number += 1
    return state


def sizes(state: ListState) -> list[int]:
    """How many passages are alive at the start of each round."""
    return [int((state.rounds >= number).sum()) for number in range(state.rounds.max() + 1)]


def test_a_hundred_passages_take_six_rounds_before_the_last() -> None:
    state = simulate(np.linspace(0.1, 0.9, 100).tolist())
    assert sizes(state) == [100, 80, 64, 51, 40, 30, 20]
    assert sum(sizes(state)) == 385


def test_a_thousand_passages_take_about_4900_scorings() -> None:
    state = simulate(np.linspace(0.1, 0.9, 1000).tolist())
    assert len(sizes(state)) == 18
    assert 4850 < sum(sizes(state)) < 4950


def test_twenty_passages_take_one_round_and_twenty_one_take_two() -> None:
    assert sizes(simulate(np.linspace(0.1, 0.9, 20).tolist())) == [20]
    assert sizes(simulate(np.linspace(0.1, 0.9, 21).tolist())) == [21, 11]


def test_ties_with_the_last_one_leave_with_it() -> None:
    keys = [0.1] * 8 + [0.2] * 5 + np.linspace(0.3, 0.9, 17).tolist()
    state = simulate(keys)
    assert sizes(state) == [30, 17]
    assert state.scores.tolist() == keys
    np.testing.assert_allclose(state.result("float16").scores[13:], np.asarray(keys[13:]) + 1)


def test_all_equal_leave_together_with_one_score() -> None:
    state = simulate([0.5] * 40)
    assert state.scores.tolist() == [0.5] * 40
    assert state.rounds.tolist() == [0] * 40


def test_equal_texts_throughout_a_list(ranker: ListConRanker) -> None:
    scores = ranker.iterative_inference(["问", *["同一段话"] * 50])
    assert len(scores) == 50
    assert len(set(scores)) == 1


def test_a_list_of_one_passage_is_a_list_of_one_score(ranker: ListConRanker) -> None:
    for scores in (ranker.iterative_inference(["问", "答"]), ranker.compute_score([["问", "答"]])[0]):
        assert isinstance(scores, list)
        assert [type(score) for score in scores] == [float]


def test_rounds_tell_when_a_passage_left(ranker: ListConRanker) -> None:
    query, *passages = random_list(60, seed=1)
    ranked = ranker.rank_encoded(ranker.encode([query], [passages]), "iterative")[0]
    assert sorted(set(ranked.rounds)) == [0, 1, 2, 3, 4]  # 60, 48, 38, 28 and 18 alive
    assert [int(score) for score in ranked.scores] == list(ranked.rounds)


def test_weights_that_are_no_numbers_are_named_with_the_query(ranker: ListConRanker) -> None:
    weight = ranker.model.linear_score1.weight
    kept = weight.detach().clone()
    try:
        with torch.no_grad():
            weight[0, 0] = float("nan")
        with pytest.raises(
            ListconError, match=re.escape("query 0 ('为什么'): 2 of 2 scores are not numbers")
        ) as raised:
            ranker.compute_score([["为什么", "甲", "乙"]])
        assert "linear_score1.weight" in str(raised.value)
    finally:
        with torch.no_grad():
            weight.copy_(kept)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([["问", "答"], ["", "答"]], "query 1 (''): the query is empty"),
        ([["  ", "答"]], "the query is empty"),
        ([["问"]], "query 0 ('问') has no passages"),
        ([[]], "list 0 is []"),
        (["问答"], "list 0 is '问答'"),
        ([["问", 3]], "query 0 ('问'): passage 0 is a int (3)"),
        ([[None, "答"]], "the query is a NoneType"),
        ([["问", "答", "坏\ud800"]], "not valid Unicode"),
    ],
)
def test_bad_input_is_one_clear_error(ranker: ListConRanker, lists: list[list[str]], message: str) -> None:
    with pytest.raises(ListconError, match=re.escape(message)):
        ranker.rank(lists, "conventional")


def test_no_lists_are_no_scores(ranker: ListConRanker) -> None:
    assert ranker.rank([], "iterative") == []


def test_an_empty_passage_is_scored(ranker: ListConRanker) -> None:
    scores = ranker.compute_score([["问", "", "答"]])[0]
    assert len(scores) == 2
    assert all(0 < score < 1 for score in scores)
    assert scores[0] != scores[1]


def test_an_unknown_mode_is_an_error(ranker: ListConRanker) -> None:
    with pytest.raises(ListconError, match="no mode 'itertive': give one of conventional, iterative"):
        ranker.rank([["问", "答"]], mode="itertive")  # type: ignore[arg-type]
