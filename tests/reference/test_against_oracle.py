"""The package against a second, slow implementation: scores within 1e-5, rankings identical."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from listcon_eval import ListConRanker
from listcon_eval.ordering import levels_of
from reference.oracle import Oracle
from texts import random_list, random_text

TOLERANCE = 1e-5
SIZES = (1, 2, 3, 20, 21, 60, 100)


@pytest.fixture(scope="module")
def float32(ranker: ListConRanker) -> Oracle:
    return Oracle(ranker.model, ranker.checkpoint.tokenizer, torch.float32)


@pytest.fixture(scope="module")
def float64(ranker: ListConRanker) -> Oracle:
    return Oracle(ranker.model, ranker.checkpoint.tokenizer, torch.float64)


def ranking(scores: Sequence[float]) -> list[int]:
    return [int(place) for place in np.argsort(-np.asarray(scores), kind="stable")]


def assert_agree(ours: Sequence[float], oracle: Sequence[float]) -> None:
    np.testing.assert_allclose(ours, oracle, rtol=0, atol=TOLERANCE)
    assert ranking(ours) == ranking(oracle)


@pytest.mark.parametrize("size", SIZES)
def test_both_modes_agree_with_float32(ranker: ListConRanker, float32: Oracle, size: int) -> None:
    query, *passages = random_list(size, seed=size)
    assert_agree(ranker.compute_score([[query, *passages]])[0], float32.score(query, passages))
    assert_agree(ranker.iterative_inference([query, *passages]), float32.iterative(query, passages))


@pytest.mark.parametrize("size", [3, 60])
def test_both_modes_agree_with_float64(ranker: ListConRanker, float64: Oracle, size: int) -> None:
    query, *passages = random_list(size, seed=1000 + size)
    assert_agree(ranker.compute_score([[query, *passages]])[0], float64.score(query, passages))
    assert_agree(ranker.iterative_inference([query, *passages]), float64.iterative(query, passages))


# Among the scores of a thousand random passages some two are almost always closer than float32 can tell apart. These
# seeds were searched for lists in which no two are, so that an identical ranking can be asked for.
def test_a_thousand_passages_agree_in_conventional_inference(
    ranker: ListConRanker, float32: Oracle, float64: Oracle
) -> None:
    query, *passages = random_list(1000, seed=5, longest=20)
    ours, exact = ranker.compute_score([[query, *passages]])[0], float64.score(query, passages)
    assert np.diff(np.sort(exact)).min() > 1e-6
    assert_agree(ours, exact)
    assert_agree(ours, float32.score(query, passages))


def test_a_thousand_passages_agree_in_iterative_inference(
    ranker: ListConRanker, float32: Oracle, float64: Oracle
) -> None:
    query, *passages = random_list(1000, seed=29, longest=20)
    ours, exact = ranker.iterative_inference([query, *passages]), float64.iterative(query, passages)
    assert np.diff(np.sort(exact)).min() > 1e-6
    assert_agree(ours, exact)
    assert_agree(ours, float32.iterative(query, passages))


def test_texts_over_512_tokens_agree(ranker: ListConRanker, float64: Oracle) -> None:
    rng = random.Random(7)
    passages = [random_text(rng, 500, 1500) for _ in range(22)]
    query = random_text(rng, 600, 600)
    assert len(ranker.checkpoint.tokenizer(query)["input_ids"]) > 512
    assert_agree(ranker.compute_score([[query, *passages]])[0], float64.score(query, passages))
    assert_agree(ranker.iterative_inference([query, *passages]), float64.iterative(query, passages))


def test_equal_texts_agree_and_are_equal(ranker: ListConRanker, float64: Oracle) -> None:
    query, *distinct = random_list(30, seed=9)
    passages = distinct + distinct[:12] + distinct[:5]
    ours = ranker.iterative_inference([query, *passages])
    np.testing.assert_allclose(ours, float64.iterative(query, passages), rtol=0, atol=TOLERANCE)
    assert ours[:12] == ours[30:42]
    assert ours[:5] == ours[42:]
    assert_agree(ours[:30], float64.iterative(query, passages)[:30])


def test_many_lists_together_agree(ranker: ListConRanker, float64: Oracle) -> None:
    lists = [random_list(size, seed=50 + size) for size in (35, 1, 64, 20, 21)]
    for ours, row in zip(ranker.rank(lists, "iterative"), lists, strict=True):
        assert_agree(ours, float64.iterative(row[0], row[1:]))


# float16 on a CPU: the package and the oracle add up in other orders, so their float16 values may be a few steps apart.
# What must agree exactly is the procedure on one set of values: it is compared by handing the oracle ours.
@pytest.fixture(scope="module")
def half(checkpoint_folder: Path) -> ListConRanker:
    return ListConRanker.from_pretrained(checkpoint_folder, device="cpu", dtype="float16")


@pytest.mark.parametrize("size", [3, 20, 60])
def test_float16_scores_agree_with_a_plain_float16_evaluation(half: ListConRanker, size: int) -> None:
    query, *passages = random_list(size, seed=size)
    oracle = Oracle(half.model, half.checkpoint.tokenizer, torch.float16)
    ours, theirs = half.compute_score([[query, *passages]])[0], oracle.score(query, passages)
    assert all(score == float(np.float16(score)) for score in (*ours, *theirs))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-3)


def test_float16_rounding_ties_and_drops_are_the_published_ones(
    half: ListConRanker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Iterative inference on our own float16 scores of each round, by the oracle's separate loop: equal to the bit."""
    query, *passages = random_list(150, seed=3)
    encoded = half.encode([query], [passages])
    oracle = Oracle(half.model, half.checkpoint.tokenizer, torch.float16)
    index = dict(zip(passages, encoded.lists[0].passages.tolist(), strict=True))
    rounds = 0

    def plain_float16(_: str, remaining: Sequence[str]) -> list[float]:
        """All passages as one list, in float16 throughout: one rounded logit, one rounded sigmoid."""
        nonlocal rounds
        rounds += 1
        features = encoded.store.get(np.array([encoded.lists[0].query, *(index[text] for text in remaining)]))[None]
        with torch.inference_mode():
            model, valid = half.model, torch.ones(features.shape[:2], dtype=torch.bool)
            logits = (
                model.pointwise_logits(features) + model.listwise_logits(features, valid)
            ).double() + model.linear_score1.bias.double()
        assert model.linear_score1.weight.dtype == torch.float16
        return [float(score) for score in torch.sigmoid(logits.half())[0]]

    monkeypatch.setattr(oracle, "score", plain_float16)
    expected = np.array(oracle.iterative(query, passages))
    found = half.rank_encoded(encoded, "iterative")[0]
    assert rounds == max(found.rounds) + 1 > 5
    np.testing.assert_allclose(
        found.scores, expected, rtol=0, atol=2e-6
    )  # float32 keeps order and ties, not all digits
    np.testing.assert_array_equal(levels_of(found.scores), levels_of(expected))
    assert len(set(expected)) < len(expected)  # there are ties
