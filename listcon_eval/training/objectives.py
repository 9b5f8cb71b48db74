"""What a stage minimises: Circle Loss over lists (stages 1 and 2), or InfoNCE over pairs (stage 0).

Each adds the gradient of a batch's mean loss piece by piece, so that memory follows the micro-batch, not the batch.
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
from listcon_eval.training.circle_loss import circle_loss
from listcon_eval.training.lists import ListSampler, SampledList, TrainingList, relevant_by_query
from listcon_eval.training.pooling import Pooling, autocast_on
from listcon_eval.training.tokens import TokenisedTexts

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
            logits = model.logits(_rows(features, rows.reshape(indices.shape)), valid)  # (B, P)
        return circle_loss(
            torch.sigmoid(logits.float()),
            positive,
            valid[:, 1:] & ~positive,
            margin=self.margin,
            scale=self.scale,
        )


class PairObjective:
    """InfoNCE on pairs of a query and one of its positives, against the batch's other passages.

    What an embedding model brings to the published recipe, for an encoder that brings nothing. A batch is compared
    whole, whatever the micro-batch: the embeddings are computed without gradient first, and a micro-batch at a time
    again with the gradient that the comparison gave them (GradCache, arXiv 2101.06983).

    Args:
        pooling: the model and how its encoder is run.
        texts: the training texts.
        lists: all training lists: a passage that is a positive of an equal query is never its negative.
        micro_batch: pairs whose texts are in memory at once.
        temperature: what cosine similarities are divided by.
        hard_negatives: negatives of each query's own list that join the batch.
    """

    def __init__(
        self,
        pooling: Pooling,
        texts: TokenisedTexts,
        lists: Sequence[TrainingList],
        *,
        micro_batch: int,
        temperature: float,
        hard_negatives: int,
    ) -> None:
        self.pooling = pooling
        self.texts = texts
        self.micro_batch = micro_batch
        self.temperature = temperature
        self.hard_negatives = hard_negatives
        self._relevant = relevant_by_query(lists)

    def accumulate(self, batch: Sequence[TrainingList], rng: np.random.Generator, backward: Backward) -> BatchLosses:
        """Add the gradient of the mean InfoNCE over a batch of lists, of which each gives one pair."""
        targets = np.array([rng.choice(row.positives) for row in batch])  # (B,)
        hard = [rng.choice(row.negatives, min(self.hard_negatives, len(row.negatives)), replace=False) for row in batch]
        queries = np.array([row.query for row in batch])  # (B,)
        candidates = np.unique(np.concatenate([targets, *hard]))  # (M,)
        distinct = np.unique(np.concatenate([queries, candidates]))  # (n,)
        pieces = self._pieces(distinct, -(-len(batch) // self.micro_batch))
        seeds = rng.integers(2**63, size=len(pieces)).tolist()  # one dropout for both passes over a piece
        with torch.set_grad_enabled(len(pieces) == 1):
            embedded = torch.cat([self._embed(piece, seed) for piece, seed in zip(pieces, seeds, strict=True)])
        leaf = embedded.detach().requires_grad_()  # (n, H), in the order of the pieces
        order = np.argsort(np.concatenate(pieces))
        losses = info_nce(
            _rows(leaf, order[np.searchsorted(distinct, queries)]),
            _rows(leaf, order[np.searchsorted(distinct, candidates)]),
            torch.from_numpy(np.searchsorted(candidates, targets)).to(leaf.device),
            self._also_relevant(batch, targets, candidates).to(leaf.device),
            self.temperature,
        )  # (B,)
        backward(losses.mean())
        assert leaf.grad is not None
        if len(pieces) == 1:
            torch.autograd.backward(embedded, leaf.grad)
        else:
            parts = torch.split(leaf.grad, [len(piece) for piece in pieces])
            for piece, seed, gradient in zip(pieces, seeds, parts, strict=True):
                torch.autograd.backward(self._embed(piece, seed), gradient)
        return BatchLosses([row.name for row in batch], losses.detach().cpu())

    def _pieces(self, distinct: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
        """The texts, the longest first, in at most `count` pieces of about as many tokens each."""
        order = distinct[np.argsort(-self.texts.lengths[distinct], kind="stable")]
        tokens = np.cumsum(self.texts.lengths[order])
        cuts = np.searchsorted(tokens, tokens[-1] * np.arange(1, count) / count)
        return [piece for piece in np.split(order, cuts) if len(piece)]

    def _embed(self, indices: NDArray[np.int64], seed: int) -> Tensor:
        torch.manual_seed(seed)
        return self.pooling.some(self.texts, indices)

    def _also_relevant(
        self, batch: Sequence[TrainingList], targets: NDArray[np.int64], candidates: NDArray[np.int64]
    ) -> Tensor:
        """True where a candidate is another positive of the query's than its target, (B, M)."""
        mask = np.zeros((len(batch), len(candidates)), dtype=bool)
        for place, (row, target) in enumerate(zip(batch, targets, strict=True)):
            mask[place] = np.isin(candidates, self._relevant[row.query]) & (candidates != target)
        return torch.from_numpy(mask)


def info_nce(queries: Tensor, passages: Tensor, targets: Tensor, left_out: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each query: the cross-entropy of its target among the passages, by cosine similarity.

    Args:
        queries: embeddings, (B, H).
        passages: embeddings, (M, H).
        targets: the place of each query's positive among the passages, (B,).
        left_out: True where a passage is no negative of a query, (B, M); never at its target.
        temperature: what similarities are divided by.

    Returns:
        One loss a query, (B,), in float32.
    """
    similarity = functional.normalize(queries.float(), dim=1) @ functional.normalize(passages.float(), dim=1).T
    logits = (similarity / temperature).masked_fill(left_out, -torch.inf)  # (B, M)
    return functional.cross_entropy(logits, targets, reduction="none")


def _rows(matrix: Tensor, indices: NDArray[np.int64]) -> Tensor:
    """Rows of a matrix, (*indices.shape, width).

    An embedding look-up, because its gradient is summed in one order; indexing's is not on several threads.
    """
    return functional.embedding(torch.from_numpy(indices).to(matrix.device), matrix)
