"""What stage 0 minimises: InfoNCE over pairs of a query and a passage, real ones and ones cut from passages.

Shapes in comments: B pairs, M candidates, n rows of tokens, D the width of the features.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from listcon_eval.train.lists import TrainingList, relevant_by_query
from listcon_eval.train.objectives import Backward, BatchLosses, rows_of
from listcon_eval.train.pooling import Pooling
from listcon_eval.train.tokens import TokenisedTexts, TokenRows

# Tokens of a pseudo-query, its special ones not counted, as questions have them; never more than half of its passage.
_SHORTEST_PIECE, _LONGEST_PIECE = 4, 16
_FEWEST_KEPT = 6  # tokens below which none is left out of a text


Embed = Callable[[TokenRows, NDArray[np.int64]], Tensor]
"""Gives the vectors of the rows at given indices, (n, D), with their gradient."""


class PairObjective:
    """InfoNCE on pairs of a query and one of its positives, against the batch's other passages.

    What an embedding model brings to the published recipe, for an encoder that brings nothing. A batch is compared
    whole, whatever the micro-batch: the embeddings are computed without gradient first, and a micro-batch at a time
    again with the gradient that the comparison gave them (GradCache, arXiv 2101.06983).

    Pairs of a passage and a piece cut from it can join (the inverse cloze task, arXiv 1906.00300, with the piece left
    in its passage: what is learnt is to tell passages apart by their words).

    Args:
        embed: gives the vectors of the rows at given indices, whose inner products are similarities.
        texts: the training texts.
        lists: all training lists: a passage that is a positive of an equal query is never its negative.
        micro_batch: pairs whose texts are in memory at once.
        temperature: what similarities are divided by.
        hard_negatives: negatives of each query's own list that join the batch.
        pseudo_queries: pseudo-queries that join the batch for each query of it.
        token_dropout: the share of a text's tokens that is left out at random.
    """

    def __init__(
        self,
        embed: Embed,
        texts: TokenisedTexts,
        lists: Sequence[TrainingList],
        *,
        micro_batch: int,
        temperature: float,
        hard_negatives: int,
        pseudo_queries: float = 0.0,
        token_dropout: float = 0.0,
    ) -> None:
        self.embed = embed
        self.texts = texts
        self.micro_batch = micro_batch
        self.temperature = temperature
        self.hard_negatives = hard_negatives
        self.pseudo_queries = pseudo_queries
        self.token_dropout = token_dropout
        self._relevant = relevant_by_query(lists)
        passages = np.unique(np.concatenate([part for row in lists for part in (row.positives, row.negatives)]))
        self._cuttable = passages[texts.lengths[passages] >= 2 + 2 * _SHORTEST_PIECE]

    def accumulate(self, batch: Sequence[TrainingList], rng: np.random.Generator, backward: Backward) -> BatchLosses:
        """Add the gradient of the mean InfoNCE over a batch of lists, of which each gives one pair, and pieces."""
        hard = [rng.choice(row.negatives, min(self.hard_negatives, len(row.negatives)), replace=False) for row in batch]
        wanted = min(round(self.pseudo_queries * len(batch)), len(self._cuttable))
        cut = rng.choice(self._cuttable, wanted, replace=False)
        targets = np.concatenate([[rng.choice(row.positives) for row in batch], cut]).astype(np.int64)  # (B,)
        candidates = np.unique(np.concatenate([targets, *hard]))  # (M,)
        queries = np.array([row.query for row in batch])
        distinct = np.unique(np.concatenate([queries, candidates]))
        # The rows of this step: its distinct texts, then the pieces.
        drawn = [self._thinned(self.texts.row(index), rng) for index in distinct]
        drawn += [self._thinned(self._piece_of(self.texts.row(index), rng), rng) for index in cut]
        rows = TokenRows(drawn, self.texts.pad)
        asking = np.concatenate([np.searchsorted(distinct, queries), len(distinct) + np.arange(wanted)])  # (B,)
        pieces = self._pieces(rows, -(-len(targets) // self.micro_batch))
        seeds = rng.integers(2**63, size=len(pieces)).tolist()  # one dropout for both passes over a piece
        with torch.set_grad_enabled(len(pieces) == 1):
            embedded = torch.cat([self._embed(rows, piece, seed) for piece, seed in zip(pieces, seeds, strict=True)])
        leaf = embedded.detach().requires_grad_()  # (n, D), in the order of the pieces
        order = np.argsort(np.concatenate(pieces))
        losses = info_nce(
            rows_of(leaf, order[asking]),
            rows_of(leaf, order[np.searchsorted(distinct, candidates)]),
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
                torch.autograd.backward(self._embed(rows, piece, seed), gradient)
        names = [row.name for row in batch] + [f"a piece of text {index}" for index in cut]
        return BatchLosses(names, losses.detach().cpu())

    def _piece_of(self, row: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int32]:
        """A random piece of a text, between the text's own special tokens."""
        inner = row[1:-1]
        size = int(rng.integers(_SHORTEST_PIECE, min(_LONGEST_PIECE, len(inner) // 2) + 1))
        start = int(rng.integers(0, len(inner) - size + 1))
        return np.concatenate([row[:1], inner[start : start + size], row[-1:]])

    def _thinned(self, row: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int32]:
        """A text without a random share of its tokens; the special ones stay."""
        if not self.token_dropout or len(row) < _FEWEST_KEPT:
            return row
        kept = rng.random(len(row)) >= self.token_dropout
        kept[[0, -1]] = True
        return row[kept]

    def _pieces(self, rows: TokenRows, count: int) -> list[NDArray[np.int64]]:
        """The rows, the longest first, in at most `count` pieces of about as many tokens each."""
        order = np.argsort(-rows.lengths, kind="stable")
        tokens = np.cumsum(rows.lengths[order])
        cuts = np.searchsorted(tokens, tokens[-1] * np.arange(1, count) / count)
        return [piece for piece in np.split(order, cuts) if len(piece)]

    def _embed(self, rows: TokenRows, indices: NDArray[np.int64], seed: int) -> Tensor:
        torch.manual_seed(seed)
        return self.embed(rows, indices)

    def _also_relevant(
        self, batch: Sequence[TrainingList], targets: NDArray[np.int64], candidates: NDArray[np.int64]
    ) -> Tensor:
        """True where a candidate is another positive of the query's than its target, (B, M)."""
        mask = np.zeros((len(targets), len(candidates)), dtype=bool)
        for place, (row, target) in enumerate(zip(batch, targets, strict=False)):  # pieces have no other positives
            mask[place] = np.isin(candidates, self._relevant[row.query]) & (candidates != target)
        return torch.from_numpy(mask)


def normalised_features(pooling: Pooling) -> Embed:
    """Embed texts as the model's features of length 1: inner products are cosines."""

    def embed(rows: TokenRows, indices: NDArray[np.int64]) -> Tensor:
        features: Tensor = pooling.model.linear_in_embedding(pooling.some(rows, indices))
        return functional.normalize(features.float(), dim=1)

    return embed


def info_nce(queries: Tensor, passages: Tensor, targets: Tensor, left_out: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each query: the cross-entropy of its target among the passages, by inner products.

    Args:
        queries: vectors, (B, D).
        passages: vectors, (M, D).
        targets: the place of each query's positive among the passages, (B,).
        left_out: True where a passage is no negative of a query, (B, M); never at its target.
        temperature: what similarities are divided by.

    Returns:
        One loss a query, (B,), in float32.
    """
    logits = (queries.float() @ passages.float().T / temperature).masked_fill(left_out, -torch.inf)  # (B, M)
    return functional.cross_entropy(logits, targets, reduction="none")
