"""The losses: Circle Loss against the paper's formula and hand-worked values, distillation against scipy's."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy
from torch import Tensor

from listcon_eval.train.trainer import circle_loss, distillation_loss

Similarity = st.floats(0, 1)


def by_the_paper(positives: Tensor, negatives: Tensor, margin: float, scale: float) -> Tensor:
    """Equation 6 as it stands, a sum over all pairs, with the weights and optima of equations 5 and 8, in float64."""
    weights_p = torch.clamp(1 + margin - positives.detach(), min=0)  # O_p = 1 + m
    weights_n = torch.clamp(negatives.detach() + margin, min=0)  # O_n = -m
    pairs = torch.zeros((), dtype=torch.float64)
    for n in range(len(negatives)):
        for p in range(len(positives)):
            away = weights_n[n] * (negatives[n] - margin) - weights_p[p] * (positives[p] - (1 - margin))
            pairs = pairs + torch.exp(scale * away)
    return torch.log(1 + pairs)


@given(
    positives=st.lists(Similarity, min_size=1, max_size=5),
    negatives=st.lists(Similarity, min_size=1, max_size=8),
    margin=st.floats(0, 0.9),
    scale=st.floats(0.5, 128),
)
def test_value_and_gradient_are_the_formulas(
    positives: list[float], negatives: list[float], margin: float, scale: float
) -> None:
    exact_p = torch.tensor(positives, dtype=torch.float64, requires_grad=True)
    exact_n = torch.tensor(negatives, dtype=torch.float64, requires_grad=True)
    exact = by_the_paper(exact_p, exact_n, margin, scale)
    exact.backward()  # type: ignore[no-untyped-call]
    assert exact_p.grad is not None
    assert exact_n.grad is not None

    scores = torch.tensor([[*positives, *negatives, 0.5]], requires_grad=True)  # the last one is padding
    positive = torch.tensor([[True] * len(positives) + [False] * (len(negatives) + 1)])
    negative = torch.tensor([[False] * len(positives) + [True] * len(negatives) + [False]])
    loss = circle_loss(scores, positive, negative, margin=margin, scale=scale)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact.item(), rel=1e-4, abs=1e-5)
    assert scores.grad is not None
    expected = [*exact_p.grad.tolist(), *exact_n.grad.tolist(), 0.0]
    assert scores.grad[0].tolist() == pytest.approx(expected, rel=1e-3, abs=1e-4 * scale)


def test_values_worked_by_hand() -> None:
    """With m = 0.25 and gamma = 4: at 0.5 both weights are 0.75; at the optima both are 0."""
    halves = circle_loss(
        torch.tensor([[0.5, 0.5]]), torch.tensor([[True, False]]), torch.tensor([[False, True]]), margin=0.25, scale=4
    )
    # negative: 4 * 0.75 * (0.5 - 0.25) = 0.75; positive: -4 * 0.75 * (0.5 - 0.75) = 0.75; softplus(1.5)
    assert halves.item() == pytest.approx(math.log1p(math.exp(1.5)), rel=1e-6)
    right = circle_loss(
        torch.tensor([[1.0, 0.0]]), torch.tensor([[True, False]]), torch.tensor([[False, True]]), margin=0.25, scale=4
    )
    # negative: 4 * 0.25 * (0 - 0.25) = -0.25; positive: -4 * 0.25 * (1 - 0.75) = -0.25; softplus(-0.5)
    assert right.item() == pytest.approx(math.log1p(math.exp(-0.5)), rel=1e-6)
    three = circle_loss(
        torch.tensor([[0.75, 0.25, 0.25]]),
        torch.tensor([[True, False, False]]),
        torch.tensor([[False, True, True]]),
        margin=0.25,
        scale=8,
    )
    # every similarity is at its margin, so every term is 0: log(1 + 2 pairs)
    assert three.item() == pytest.approx(math.log(3), rel=1e-6)


def test_the_weights_are_constants_of_the_gradient() -> None:
    """Finite differences of the loss with its weights held still, and not of the loss with them moving."""
    scores, margin, scale = [0.6, 0.3], 0.2, 10.0

    def loss(p: float, n: float, weight_p: float, weight_n: float) -> float:
        return math.log1p(math.exp(scale * weight_n * (n - margin) - scale * weight_p * (p - (1 - margin))))

    held = (1 + margin - scores[0], scores[1] + margin)
    step = 1e-6
    by_p = (loss(scores[0] + step, scores[1], *held) - loss(scores[0] - step, scores[1], *held)) / (2 * step)
    by_n = (loss(scores[0], scores[1] + step, *held) - loss(scores[0], scores[1] - step, *held)) / (2 * step)
    ours = torch.tensor([scores], requires_grad=True)
    positive = torch.tensor([[True, False]])
    circle_loss(ours, positive, ~positive, margin=margin, scale=scale).sum().backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None
    assert ours.grad[0].tolist() == pytest.approx([by_p, by_n], rel=1e-4)


def test_a_huge_scale_overflows_nowhere() -> None:
    scores = torch.tensor([[0.0, 1.0], [1.0, 0.0]], requires_grad=True)
    positive = torch.tensor([[True, False], [True, False]])
    loss = circle_loss(scores, positive, ~positive, margin=0.25, scale=1e6)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite().all()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert loss[0].item() == pytest.approx(2 * 1e6 * 1.25 * 0.75)


def test_lists_of_a_batch_do_not_touch() -> None:
    torch.manual_seed(0)
    scores = torch.rand(3, 6)
    positive = torch.tensor([[True, False, False, False, False, False]] * 3)
    negative = torch.tensor([[False, True, True, True, True, True]] * 3)
    negative[1, 3:] = False
    together = circle_loss(scores, positive, negative, margin=0.25, scale=32)
    for row, size in enumerate((6, 3, 6)):
        alone = circle_loss(
            scores[row : row + 1, :size],
            positive[row : row + 1, :size],
            negative[row : row + 1, :size],
            margin=0.25,
            scale=32,
        )
        assert together[row].item() == pytest.approx(alone.item(), rel=1e-6)


def test_distillation_is_the_divergence_from_the_teachers_softmax() -> None:
    logits = torch.tensor([[1.0, -2.0, 0.5, 9.0], [0.3, 0.1, 0.2, 0.4]], requires_grad=True)
    nothing = torch.nan
    teacher = torch.tensor([[0.9, 0.7, 0.8, nothing], [0.5, nothing, nothing, nothing]])
    loss = distillation_loss(logits, teacher, temperature=0.1)
    expected = entropy(torch.tensor([9.0, 7.0, 8.0]).softmax(0).numpy(), logits[0, :3].detach().softmax(0).numpy())
    assert loss.tolist() == pytest.approx([expected, 0.0], rel=1e-5)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 3] == 0
    assert not logits.grad[1].any()


def test_distillation_is_0_for_the_teachers_own_scores() -> None:
    scores = torch.rand(2, 5)
    assert distillation_loss(scores * 20 + 3, scores, temperature=0.05).tolist() == pytest.approx([0, 0], abs=1e-5)
