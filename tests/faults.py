"""Deliberate faults in the ranking code, to see the gate turn red: each is put in by replacing what it breaks."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from listcon_eval.inference import iterative
from listcon_eval.inference.iterative import ListState
from listcon_eval.model import architecture
from listcon_eval.model.architecture import ListAttention
from listcon_eval.records import Mode

Fault = Callable[[pytest.MonkeyPatch], None]


def query_sees_passages(patch: pytest.MonkeyPatch) -> None:
    """List attention without its mask: the query's row attends to the passages too."""

    def forward(self: ListAttention, x: Tensor, valid: Tensor) -> Tensor:
        lists, rows, width = x.shape
        projected = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        query, key, value = projected.view(lists, rows, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=valid[:, None, None, :])
        out: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(lists, rows, width))
        return out

    patch.setattr(ListAttention, "forward", forward)


def padding_not_masked(patch: pytest.MonkeyPatch) -> None:
    """Rows of padding are attended to."""
    honest = ListAttention.forward
    patch.setattr(ListAttention, "forward", lambda self, x, valid: honest(self, x, torch.ones_like(valid)))


def query_tag_swapped(patch: pytest.MonkeyPatch) -> None:
    """The query is tagged as a passage, and the passages as the query."""
    patch.setattr(architecture, "QUERY_TAG", architecture.PASSAGE_TAG)
    patch.setattr(architecture, "PASSAGE_TAG", 1 - architecture.PASSAGE_TAG)


def ties_dropped_one_by_one(patch: pytest.MonkeyPatch) -> None:
    """Of passages that are tied where the tail of a list is cut, some leave and some stay."""

    def finish_round(
        self: ListState, number: int, keys: NDArray[np.float64], scores: NDArray[np.float64], mode: Mode
    ) -> None:
        if self.source.first is not None:
            same = np.searchsorted(self.remaining, self.source.first[self.remaining]).clip(max=len(keys) - 1)
            keys, scores = keys[same], scores[same]
        dropped = np.ones(len(self.remaining), dtype=bool)
        if mode == "iterative" and len(self.remaining) > iterative.LAST_ROUND_SIZE:
            count = max(iterative.MIN_DROP, math.ceil(iterative.DROPPED_SHARE * len(self.remaining)))
            dropped[:] = False
            dropped[np.argsort(keys, kind="stable")[:count]] = True
        places = self.remaining[dropped]
        self.keys[places], self.scores[places], self.rounds[places] = keys[dropped], scores[dropped], number
        self.remaining = self.remaining[~dropped]

    patch.setattr(ListState, "finish_round", finish_round)


def sorted_ascending(patch: pytest.MonkeyPatch) -> None:
    """The best passage is taken for the worst."""
    honest = ListState.finish_round

    def finish_round(
        self: ListState, number: int, keys: NDArray[np.float64], scores: NDArray[np.float64], mode: Mode
    ) -> None:
        honest(self, number, -keys, 1 - scores, mode)

    patch.setattr(ListState, "finish_round", finish_round)


FAULTS: tuple[Fault, ...] = (
    query_sees_passages,
    padding_not_masked,
    query_tag_swapped,
    ties_dropped_one_by_one,
    sorted_ascending,
)
