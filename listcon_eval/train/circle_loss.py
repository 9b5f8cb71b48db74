"""Circle Loss over the positives and negatives of lists.

Source: "Circle Loss: A Unified Perspective of Pair Similarity Optimization" (arXiv 2002.10857), equations 6 to 8, with
the scores of one list as the similarities.
"""

import torch
from torch import Tensor
from torch.nn import functional


def circle_loss(scores: Tensor, positive: Tensor, negative: Tensor, *, margin: float, scale: float) -> Tensor:
    """Circle Loss of each list, in float32.

    Args:
        scores: similarities between 0 and 1, (B, P).
        positive: True at relevant passages, (B, P); at least one in each list.
        negative: True at the others, (B, P); at least one in each list. A place that is neither is padding.
        margin: m; positives are pulled above 1 - m, negatives pushed below m.
        scale: gamma, the factor on similarities.

    Returns:
        One loss a list, (B,). Its gradient flows through the similarities alone: the weights that say how far each
        of them is from its optimum are constants, as the paper has them.
    """
    scores = scores.float()
    fixed = scores.detach()
    negative_terms = scale * functional.relu(fixed + margin) * (scores - margin)  # (B, P)
    positive_terms = -scale * functional.relu(1 + margin - fixed) * (scores - (1 - margin))  # (B, P)
    total = _logsumexp(negative_terms, negative) + _logsumexp(positive_terms, positive)  # (B,)
    return functional.softplus(total)


def _logsumexp(terms: Tensor, wanted: Tensor) -> Tensor:
    return torch.logsumexp(terms.masked_fill(~wanted, -torch.inf), dim=1)
