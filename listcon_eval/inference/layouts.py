"""Three ways to lay the tokens of a batch of texts in rows, and to attend within each text.

A layout knows which texts its rows hold, and nothing of weights: the rest of an encoder layer works row by row.
Shapes: N texts of T tokens at most, R rows, H the width of all heads that attend, A their number.
"""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

TokenIds = Sequence[NDArray[np.int32] | list[int]]
"""Token ids of N texts, each with one token or more."""


class Layout(Protocol):
    """The rows of one batch of texts.

    Attributes:
        ids: the token id of each row, (R,), on the device.
        positions: its position in its text, (R,).
    """

    ids: Tensor
    positions: Tensor

    def attend(self, query_key_value: Tensor, heads: int) -> Tensor:
        """Attend within each text: (R, 3H) -> (R, H)."""

    def mean(self, hidden: Tensor) -> Tensor:
        """The mean over the tokens of each text, summed in float32, in the order of the texts: (R, H) -> (N, H)."""


class PaddedLayout:
    """Every text padded to the longest one: R = N * T. Without a mask when all texts are equally long."""

    def __init__(self, texts: TokenIds, device: torch.device) -> None:
        counts = np.fromiter((len(text) for text in texts), dtype=np.int32, count=len(texts))
        self._shape = len(texts), int(counts.max())
        padded = np.zeros(self._shape, dtype=np.int32)  # any token will do as padding: it is masked
        for row, text in enumerate(texts):
            padded[row, : len(text)] = text
        self.ids = moved(padded.reshape(-1), device)
        places = torch.arange(self._shape[1], dtype=torch.int32, device=device)  # (T,)
        self.positions = places.repeat(len(texts))
        self._counts = moved(counts, device)
        equal = int(counts.min()) == self._shape[1]
        self._valid = None if equal else places < self._counts[:, None]  # (N, T)

    def attend(self, query_key_value: Tensor, heads: int) -> Tensor:
        """Attend within each text: (R, 3H) -> (R, H)."""
        mask = None if self._valid is None else self._valid[:, None, None, :]  # (N, 1, 1, T)
        return _attend_equal(query_key_value, *self._shape, heads, mask)

    def mean(self, hidden: Tensor) -> Tensor:
        """The mean over the tokens of each text: (R, H) -> (N, H) in float32."""
        rows = hidden.view(*self._shape, -1).float()  # (N, T, H)
        if self._valid is not None:
            rows = rows.masked_fill(~self._valid.unsqueeze(-1), 0.0)
        return rows.sum(dim=1) / self._counts.unsqueeze(-1)


class PackedLayout:
    """No padding, texts of equal length side by side: they attend together, and no mask is needed."""

    def __init__(self, texts: TokenIds, device: torch.device) -> None:
        order = sorted(range(len(texts)), key=lambda text: len(texts[text]))
        counts = [len(texts[text]) for text in order]
        self._order = moved(np.array(order), device)
        self._runs = [(len(list(equal)), count) for count, equal in groupby(counts)]  # (texts, tokens of each)
        self._rows = [texts * tokens for texts, tokens in self._runs]
        self.ids = moved(np.concatenate([np.asarray(texts[text], dtype=np.int32) for text in order]), device)
        self.positions = moved(_positions(np.array(counts, dtype=np.int32)), device)

    def attend(self, query_key_value: Tensor, heads: int) -> Tensor:
        """Attend within each text: (R, 3H) -> (R, H)."""
        parts = torch.split(query_key_value, self._rows)
        attended = [_attend_equal(part, *run, heads, None) for part, run in zip(parts, self._runs, strict=True)]
        return attended[0] if len(attended) == 1 else torch.cat(attended)

    def mean(self, hidden: Tensor) -> Tensor:
        """The mean over the tokens of each text, in the order they were given in: (R, H) -> (N, H) in float32."""
        parts = torch.split(hidden, self._rows)
        means = torch.empty(len(self._order), hidden.shape[-1], device=hidden.device)
        means[self._order] = torch.cat(
            [part.float().view(*run, -1).mean(dim=1) for part, run in zip(parts, self._runs, strict=True)]
        )
        return means


class FlashLayout:
    """No padding, texts one after another: flash attention knows where each begins. CUDA, float16 and bfloat16."""

    def __init__(self, texts: TokenIds, device: torch.device) -> None:
        counts = np.fromiter((len(text) for text in texts), dtype=np.int32, count=len(texts))
        starts = np.zeros(len(texts) + 1, dtype=np.int32)
        np.cumsum(counts, out=starts[1:])
        self._longest = int(counts.max())
        # One array, and so one copy to the device, for all that the batch is.
        numbers = [*(np.asarray(text, dtype=np.int32) for text in texts), _positions(counts), counts, starts]
        on_device = moved(np.concatenate(numbers), device)
        rows = int(starts[-1])
        self.ids, self.positions, self._counts, self._starts = torch.split(
            on_device, [rows, rows, len(counts), len(starts)]
        )
        # The kernel wants the starts at an aligned address of their own.
        self._starts = self._starts.clone()

    def attend(self, query_key_value: Tensor, heads: int) -> Tensor:
        """Attend within each text: (R, 3H) -> (R, H)."""
        query, key, value = query_key_value.view(len(self.ids), 3, heads, -1).unbind(dim=1)  # (R, A, H/A) each
        # The seven positional arguments are those that every torch since 2.10 has.
        attended: Tensor = _flash()(query, key, value, self._starts, self._starts, self._longest, self._longest)
        return attended.reshape(len(self.ids), -1)

    def mean(self, hidden: Tensor) -> Tensor:
        """The mean over the tokens of each text: (R, H) -> (N, H) in float32."""
        # One thread sums one column of a text in order: no atomics, so equal runs give equal features. `unsafe` leaves
        # out a check of the lengths that would wait for the device.
        sums: Tensor = torch.segment_reduce(hidden.float(), "sum", lengths=self._counts.long(), axis=0, unsafe=True)
        return sums / self._counts.unsqueeze(-1)


def moved(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on the device; to a GPU from pinned memory, without waiting for the copy."""
    return on_device(torch.from_numpy(array), device)


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device; from the host to a GPU from pinned memory, without waiting for the copy."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _positions(counts: NDArray[np.int32]) -> NDArray[np.int32]:
    """0, 1, ... for each text of so many tokens, one text after another."""
    ends = np.cumsum(counts, dtype=np.int32)
    return np.arange(ends[-1], dtype=np.int32) - np.repeat(ends - counts, counts)


def _attend_equal(query_key_value: Tensor, texts: int, tokens: int, heads: int, mask: Tensor | None) -> Tensor:
    """Attend within texts of equal length (or padded to it): (N * T, 3H) -> (N * T, H)."""
    query, key, value = query_key_value.view(texts, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)  # (N, A, T, H/A)
    attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    rows: Tensor = attended.transpose(1, 2).reshape(texts * tokens, -1)
    return rows


def _flash() -> Callable[..., Tensor]:
    """Flash attention over packed texts; imported here because some builds lack it."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn  # type: ignore[return-value, unused-ignore]
