"""What must hold of any listwise ranker, whatever its weights (the invariants of the design)."""

import random

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from listcon_eval import ListConRanker
from listcon_eval.records import MODES, Mode
from texts import lists, random_list

TOLERANCE = 1e-5
modes = st.sampled_from(MODES)
thorough = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@thorough
@given(batch=st.lists(lists, min_size=1, max_size=5), mode=modes)
def test_a_batch_of_lists_is_the_lists_one_by_one(ranker: ListConRanker, batch: list[list[str]], mode: Mode) -> None:
    together = ranker.rank(batch, mode)
    for row, scores in zip(batch, together, strict=True):
        np.testing.assert_allclose(scores, ranker.rank([row], mode)[0], rtol=0, atol=TOLERANCE)


@thorough
@given(row=lists, mode=modes, seed=st.integers(0, 100))
def test_permuting_candidates_permutes_scores(ranker: ListConRanker, row: list[str], mode: Mode, seed: int) -> None:
    query, *passages = row
    order = list(range(len(passages)))
    random.Random(seed).shuffle(order)
    scores = ranker.rank([row], mode)[0]
    shuffled = ranker.rank([[query, *(passages[i] for i in order)]], mode)[0]
    np.testing.assert_allclose(shuffled, [scores[i] for i in order], rtol=0, atol=TOLERANCE)


@thorough
@given(row=lists)
def test_iterative_is_conventional_up_to_twenty_candidates(ranker: ListConRanker, row: list[str]) -> None:
    short = row[:21]
    assert ranker.rank([short], "iterative") == ranker.rank([short], "conventional")


@thorough
@given(row=lists, mode=modes, repeats=st.integers(1, 30))
def test_equal_texts_get_equal_scores(ranker: ListConRanker, row: list[str], mode: Mode, repeats: int) -> None:
    passages = [*row[1:], *row[1 : 1 + repeats]]
    by_text: dict[str, float] = {}
    for text, score in zip(passages, ranker.rank([[row[0], *passages]], mode)[0], strict=True):
        assert by_text.setdefault(text, score) == score


@thorough
@given(row=lists, other=st.lists(st.sampled_from("甲乙丙丁"), min_size=1, max_size=5))
def test_the_query_does_not_see_the_passages(ranker: ListConRanker, row: list[str], other: list[str]) -> None:
    """The query's row after the list transformer is the same whatever passages stand beside it."""
    compared = []
    for passages in (row[1:], other):
        encoded = ranker.encode([row[0]], [passages])
        indices = np.concatenate([[encoded.lists[0].query], encoded.lists[0].passages])
        features = encoded.store.get(indices).unsqueeze(0)
        with torch.inference_mode():
            tagged = ranker.model.query_embedding(features)
            valid = torch.ones(features.shape[:2], dtype=torch.bool)
            compared.append(ranker.model.list_transformer(tagged, valid)[0, 0])
    np.testing.assert_allclose(compared[0], compared[1], rtol=0, atol=TOLERANCE)


@thorough
@given(row=lists, padding=st.integers(1, 30), filler=st.floats(-1e4, 1e4))
def test_padding_does_not_matter(ranker: ListConRanker, row: list[str], padding: int, filler: float) -> None:
    """Rows of padding change no logit, whatever they hold."""
    encoded = ranker.encode([row[0]], [row[1:]])
    features = encoded.store.get(np.concatenate([[encoded.lists[0].query], encoded.lists[0].passages])).unsqueeze(0)
    padded = torch.cat([features, torch.full((1, padding, features.shape[-1]), filler)], dim=1)
    valid = torch.arange(padded.shape[1])[None] < features.shape[1]
    with torch.inference_mode():
        alone = ranker.model.logits(features, torch.ones(features.shape[:2], dtype=torch.bool))
        beside = ranker.model.logits(padded, valid)[:, : features.shape[1] - 1]
    np.testing.assert_allclose(beside, alone, rtol=0, atol=TOLERANCE)


def test_what_no_round_changes_and_the_rest_are_the_logits(ranker: ListConRanker) -> None:
    features = torch.randn(3, 9, ranker.model.config.list_width)
    valid = torch.arange(9)[None] < torch.tensor([9, 5, 2])[:, None]
    with torch.inference_mode():
        whole = ranker.model.logits(features, valid)
        parts = (
            ranker.model.pointwise_logits(features)
            + ranker.model.listwise_logits(features, valid)
            + ranker.model.linear_score1.bias
        )
    torch.testing.assert_close(parts, whole, rtol=0, atol=TOLERANCE)
    assert float(whole.std()) > 0.1


def test_budgets_change_no_score(ranker: ListConRanker) -> None:
    """One text a batch, one list a batch, features in a file: the scores are those of the default budgets."""
    batch = [random_list(size, seed=size) for size in (1, 25, 45)]
    wide = ranker.rank(batch, "iterative")
    kept = ranker.budgets
    try:
        ranker.budgets = type(kept)(tokens=1, rows=1, feature_bytes=0)
        assert ranker.encode([batch[0][0]], [batch[0][1:]]).store.spilled
        narrow = ranker.rank(batch, "iterative")
    finally:
        ranker.budgets = kept
    for one, other in zip(wide, narrow, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE)
