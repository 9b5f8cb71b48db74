"""Directions of words are spread by the texts they are summed in."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from listcon_eval.train.directions import spread_directions

TEXTS, VOCABULARY, WIDTH = 2000, 400, 48


def zipf_texts(texts: int = TEXTS, *, seed: int = 0) -> csr_array:
    """Texts of 5 to 60 words; usual words are usual, and each of the first 40 brings its partner along."""
    rng = np.random.default_rng(seed)
    weights = 1 / (5 + np.arange(VOCABULARY))
    rows, words = [], []
    for text in range(texts):
        drawn = rng.choice(VOCABULARY, int(rng.integers(5, 60)), p=weights / weights.sum())
        partners = VOCABULARY - 1 - drawn[drawn < 40]
        distinct = np.unique(np.concatenate([drawn, partners]))
        rows += [text] * len(distinct)
        words += distinct.tolist()
    return csr_array((np.ones(len(rows), dtype=np.float32), (rows, words)), shape=(texts, VOCABULARY))


def random_directions() -> torch.Tensor:
    drawn = torch.randn(VOCABULARY, WIDTH)
    return torch.nn.functional.normalize(drawn - drawn.mean(dim=1, keepdim=True), dim=1)


def variances(words: csr_array, directions: torch.Tensor) -> torch.Tensor:
    """Of sums, along their principal axes, the smallest first; the first is the direction that no mean is in."""
    sums = torch.from_numpy(words @ directions.numpy()).double()
    found: torch.Tensor = torch.linalg.eigvalsh(torch.cov(sums.T))
    return found


def test_every_direction_has_length_1_and_mean_0() -> None:
    torch.manual_seed(0)
    directions = spread_directions(zipf_texts(), WIDTH)
    assert directions.shape == (VOCABULARY, WIDTH)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(VOCABULARY))
    torch.testing.assert_close(directions.mean(dim=1), torch.zeros(VOCABULARY), atol=1e-6, rtol=0)


def test_sums_vary_alike_in_every_direction() -> None:
    torch.manual_seed(0)
    words = zipf_texts()
    before, after = variances(words, random_directions())[1:], variances(words, spread_directions(words, WIDTH))[1:]
    assert before.max() / before.min() > 5
    assert after.max() / after.min() < 1.2


def test_words_of_one_text_are_less_alike_than_by_chance() -> None:
    """What two texts have in common by chance is what several hundred words in 48 numbers cannot avoid."""
    torch.manual_seed(0)
    words = zipf_texts()
    directions = spread_directions(words, WIDTH)
    for texts in (words, zipf_texts(seed=1)):  # those it is made for, and others of their kind
        present = torch.from_numpy(texts.toarray())
        centred = present - present.mean(dim=0)

        def noise(of: torch.Tensor, centred: torch.Tensor = centred) -> float:
            """The mean square of what a word's inner product with a text owes to its other words."""
            apart = (of @ of.T).fill_diagonal_(0)
            return float((centred @ apart).square().mean())

        assert noise(directions) < 0.8 * noise(random_directions())


@pytest.mark.parametrize("texts", [1, 10])
def test_a_few_texts_are_not_believed(texts: int) -> None:
    torch.manual_seed(0)
    directions = spread_directions(zipf_texts(texts), WIDTH)
    assert torch.isfinite(directions).all()
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(VOCABULARY))
    assert torch.linalg.matrix_rank(directions) == WIDTH - 1


def test_one_seed_gives_the_same_directions() -> None:
    words = zipf_texts(100)
    torch.manual_seed(3)
    first = spread_directions(words, WIDTH)
    torch.manual_seed(3)
    assert torch.equal(spread_directions(words, WIDTH), first)
