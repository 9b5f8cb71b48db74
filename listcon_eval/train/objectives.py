"""What stages 1 and 2 minimise, Circle Loss over lists, and what every stage's loss is to the trainer.

An objective adds the gradient of a batch's mean loss piece by piece: memory follows the micro-batch, not the batch.
Shapes in comments: B lists, P passages a list (padded), S = 1 + P rows, n distinct texts, H and D the widths.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from listcon_eval.inference.features import FeatureStore
from listcon_eval.train.circle_loss import circle_loss
from listcon_eval.train.lists import ListSampler, SampledList, TrainingList
from listcon_eval.train.pooling import Pooling, autocast_on
from listcon_eval.train.tokens import TokenisedTexts

Backward = Callable[[Tensor], None]
"""Adds the gradient of a scalar to the parameters', scaled where float16 asks for it."""


class BatchLosses:
    """The losses of a batch's lists.

    Args:
        names: the lists' names.
        losses: one loss a list, in that order, on the CPU.
    """

    def __init__(self, names: Sequence[str], losses: Tensor) -> None:
        self.names = names
        self.losses = losses

    @property
    def mean(self) -> float:
        """The batch's loss."""
        return float(self.losses.double().mean())

    @property
    def not_finite(self) -> list[str]:
        """The lists whose loss is no number."""
        return [name for name, fine in zip(self.names, self.losses.isfinite().tolist(), strict=True) if not fine]


class Objective(Protocol):
    """A loss over batches of training lists."""

    def accumulate(self, batch: Sequence[TrainingList], rng: np.random.Generator, backward: Backward) -> BatchLosses:
        """Add the gradient of the mean loss over a batch to the parameters', and say each list's loss."""
        ...


class ListObjective:
    """Circle Loss on the scores of lists.

    Args:
        pooling: the model and how its encoder is run.
        texts: the training texts.
        pooled: the encoder's outputs where it is frozen, else None.
        sampler: chooses the passages of a list.
        micro_batch: lists that are in memory at once.
        margin: m of Circle Loss.
        scale: gamma of Circle Loss.
    """

    def __init__(
        self,
        pooling: Pooling,
        texts: TokenisedTexts,
        pooled: FeatureStore | None,
        sampler: ListSampler,
        *,
        micro_batch: int,
        margin: float,
        scale: float,
    ) -> None:
        self.pooling = pooling
        self.texts = texts
        self.pooled = pooled
        self.sampler = sampler
        self.micro_batch = micro_batch
        self.margin = margin
        self.scale = scale

    def accumulate(self, batch: Sequence[TrainingList], rng: np.random.Generator, backward: Backward) -> BatchLosses:
        """Add the gradient of the mean Circle Loss over a batch; lists of similar length share a micro-batch."""
        sampled = [self.sampler.sample(row, rng) for row in batch]
        sampled.sort(key=lambda row: -int(self.texts.lengths[row.passages].sum()))
        losses = []
        for start in range(0, len(sampled), self.micro_batch):
            of_lists = self._losses(sampled[start : start + self.micro_batch])
            backward(of_lists.sum() / len(sampled))
            losses.append(of_lists.detach())
        return BatchLosses([row.name for row in sampled], torch.cat(losses).cpu())

    def _losses(self, lists: Sequence[SampledList]) -> Tensor:
        sizes = np.array([len(row.passages) for row in lists])  # (B,)
        indices = np.empty((len(lists), 1 + sizes.max()), dtype=np.int64)  # (B, S)
        for place, row in enumerate(lists):
            indices[place] = row.query  # in row 0 as itself, in the rest as padding that is masked
            indices[place, 1 : 1 + len(row.passages)] = row.passages
        distinct, rows = np.unique(indices, return_inverse=True)
        device = self.pooling.device
        place_in_list = torch.arange(indices.shape[1], device=device)  # (S,)
        valid = place_in_list <= torch.from_numpy(sizes).to(device)[:, None]  # (B, S), row 0 too
        last_positive = torch.tensor([row.positives for row in lists], device=device)[:, None]
        positive = (place_in_list <= last_positive)[:, 1:]  # (B, P)
        pooled = self.pooling.some(self.texts, distinct) if self.pooled is None else self.pooled.get(distinct)  # (n, H)
        model = self.pooling.model
        with autocast_on(device, self.pooling.autocast):
            features = model.linear_in_embedding(pooled)  # (n, D)
            logits = model.logits(rows_of(features, rows.reshape(indices.shape)), valid)  # (B, P)
        return circle_loss(
            torch.sigmoid(logits.float()),
            positive,
            valid[:, 1:] & ~positive,
            margin=self.margin,
            scale=self.scale,
        )


def rows_of(matrix: Tensor, indices: NDArray[np.int64] | Tensor) -> Tensor:
    """Rows of a matrix, (*indices.shape, width).

    An embedding look-up, because its gradient is summed in one order; indexing's is not on several threads.
    """
    return functional.embedding(torch.as_tensor(indices, device=matrix.device), matrix)
