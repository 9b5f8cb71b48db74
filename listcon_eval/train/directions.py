"""Directions for words of which there are more than numbers, chosen for the texts that they will be summed in.

A text's words are kept as the sum of their directions, so an inner product of two sums holds, beside the words that
both have, what every word of one has in common with every word of the other by chance. Random directions (Bingham and
Mannila 2001, "Random projection in dimensionality reduction") leave words that stand in many texts, or together, as
near to each other as any. Here the directions are spread by the texts: turned and stretched until sums of them vary
alike in every direction (a tight frame: Benedetto and Fickus 2003, "Finite normalized tight frames", with each word as
heavy as the texts make it). What is usual in texts of this kind then counts less than by its rarity alone.
"""

import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn import functional

_ROUNDS = 4  # after which the variances differ by less than 1 %


def spread_directions(words: csr_array, width: int) -> Tensor:
    """Directions of words, by the texts that they are in; their numbers come from torch's generator.

    Few texts say little of many directions: the variances are drawn towards their mean, as if W texts of random words
    were among them.

    Args:
        words: what each word adds to each text's sum, (N, V).
        width: W, numbers of a direction, 2 or more.

    Returns:
        A direction of length 1 and mean 0 for every word, (V, W).
    """
    texts, vocabulary = words.shape
    directions = of_length_1(torch.randn(vocabulary, width))
    shrinkage = width / (texts + width)
    for _ in range(_ROUNDS):
        sums = torch.from_numpy(words @ directions.numpy())  # (N, W)
        sums -= sums.mean(dim=0)
        covariance = (sums.T @ sums).double()
        if covariance.trace() == 0:  # a single text: nothing varies
            break
        covariance = (1 - shrinkage) * covariance + shrinkage * covariance.trace() / width * torch.eye(width)
        variances, axes = torch.linalg.eigh(covariance)  # (W,), (W, W)
        directions = of_length_1(directions @ ((axes * variances.rsqrt()) @ axes.T).float())
    return directions


def of_length_1(directions: Tensor) -> Tensor:
    """Directions, (V, W), each less its mean, which LayerNorm would take away, and then of length 1."""
    return functional.normalize(directions - directions.mean(dim=1, keepdim=True), dim=1)
