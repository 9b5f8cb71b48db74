"""The published procedure, written plainly: the engine's speed and rankings are compared with it.

Source: the inference code described on the model card of ByteDance/ListConRanker. One query at a time, its texts
padded to the longest, transformers' own BertModel; iterative inference encodes every remaining text again in every
round. Scores are kept by position, where the published code keeps them by text.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from listcon_eval.model import ListConModel
from listcon_eval.ordering import levels_of, ranked_list
from listcon_eval.records import DType, Mode, RankedList
from listcon_eval.speed.workload import Workload


class PublishedProcedure:
    """Ranks one list at a time with a model, as published.

    In float16 the rounded sigmoid decides the order, in other dtypes the logit.
    """

    def __init__(
        self, model: ListConModel, tokenizer: PreTrainedTokenizerFast, *, dtype: DType, max_length: int
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._by_score = dtype == "float16"
        self._max_length = max_length

    @torch.inference_mode()
    def rank(self, query: str, passages: Sequence[str], mode: Mode) -> RankedList:
        """Rank one list of P passages."""
        keys, scores = np.empty(len(passages)), np.empty(len(passages))
        rounds = np.zeros(len(passages), dtype=np.int64)
        remaining = np.arange(len(passages))
        number = 0
        while len(remaining):
            features = self.features([query, *(passages[place] for place in remaining.tolist())])  # (1 + R, D)
            key, score = self._keys_and_scores(features)
            dropped = np.ones(len(remaining), dtype=bool)
            if mode == "iterative" and len(remaining) > 20:
                lowest = max(10, math.ceil(0.2 * len(remaining)))
                dropped = key <= np.sort(key)[lowest - 1]
            keys[remaining[dropped]], scores[remaining[dropped]] = key[dropped], score[dropped] + number
            rounds[remaining[dropped]] = number
            remaining = remaining[~dropped]
            number += 1
        levels = None if self._by_score else levels_of(rounds, keys)
        return ranked_list(scores, rounds=rounds.tolist(), levels=levels)

    def rank_lists(self, lists: Workload, mode: Mode) -> list[RankedList]:
        """Rank lists one after the other."""
        return [self.rank(query, texts, mode) for query, texts in zip(lists.queries, lists.passages, strict=True)]

    @torch.inference_mode()
    def features(self, texts: Sequence[str]) -> Tensor:
        """The features of texts, encoded as one batch padded to the longest, (N, D)."""
        batch = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._max_length, return_tensors="pt"
        ).to(self._model.linear_in_embedding.weight.device)
        return self._model.features(batch["input_ids"], batch["attention_mask"])

    def _keys_and_scores(self, features: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What decides the order of one list's passages, and their scores: (1 + R, D) -> (R,), (R,)."""
        valid = torch.ones(1, len(features), dtype=torch.bool, device=features.device)
        logits = self._model.logits(features.unsqueeze(0), valid)[0]
        scores = torch.sigmoid(logits if self._by_score else logits.double()).double().cpu().numpy()
        return (scores if self._by_score else logits.double().cpu().numpy()), scores


@dataclass(frozen=True)
class Agreement:
    """Whether the engine ranks as the published procedure does.

    Attributes:
        lists: the number of lists that were compared.
        identical: how many of them have the same order, up to exact ties of the procedure.
        max_gap: the largest difference between two scores of the procedure that the engine orders the other way; 0
            when all lists are identical.
    """

    lists: int
    identical: int
    max_gap: float


def compare_rankings(
    expected: Sequence[RankedList], found: Sequence[RankedList], passages: Sequence[Sequence[str]]
) -> Agreement:
    """Compare orders list by list.

    Of equal texts in a list only the first counts: the procedure may round their scores differently.
    """
    gaps = []
    for theirs, ours, texts in zip(expected, found, passages, strict=True):
        first = sorted({text: place for place, text in reversed(list(enumerate(texts)))}.values())
        gaps.append(reversed_gap(np.array(theirs.scores)[first], np.array(ours.scores)[first]))
    return Agreement(len(gaps), sum(gap == 0 for gap in gaps), max(gaps, default=0.0))


def reversed_gap(expected: NDArray[np.float64], found: NDArray[np.float64]) -> float:
    """The largest difference in `expected` between two items that `found` orders the other way, or ties; else 0."""
    order = np.lexsort((expected, -found))  # among ties the lower expected one first: a tie counts as its worst order
    ordered = expected[order]
    highest_from_here = np.maximum.accumulate(ordered[::-1])[::-1]
    return float((highest_from_here - ordered).max(initial=0.0))


def lost_pairs(expected: NDArray[np.float64], found: NDArray[np.float64]) -> tuple[int, int, int]:
    """How many pairs of P items `expected` orders, how many of them `found` orders otherwise, and how many it ties."""
    above = expected[:, None] > expected  # (P, P)
    return (
        int(above.sum()),
        int((above & (found[:, None] < found)).sum()),
        int((above & (found[:, None] == found)).sum()),
    )
