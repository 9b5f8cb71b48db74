"""Texts as tokens: every distinct text of a training run is tokenised once and kept."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from listcon_eval.progress import Progress

_CHUNK_TEXTS = 4096


class TokenBatch(NamedTuple):
    """Texts of similar length, padded to the longest.

    Attributes:
        places: where the texts stand among those that were asked for, (n,).
        input_ids: token ids, (n, T).
        attention_mask: 1 for tokens, 0 for padding, (n, T).
    """

    places: NDArray[np.int64]
    input_ids: Tensor
    attention_mask: Tensor


class TokenisedTexts:
    """The tokens of N texts, one after the other.

    Args:
        texts: the texts, valid Unicode.
        tokenizer: the model's tokenizer.
        max_length: tokens a text is cut to, the special ones counted.
        progress: told of texts tokenised.
    """

    def __init__(
        self, texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, max_length: int, progress: Progress
    ) -> None:
        cutting = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())  # a copy: the caller's keeps its settings
        cutting.enable_truncation(max_length)
        cutting.no_padding()
        self._pad = tokenizer.pad_token_id or 0
        parts: list[NDArray[np.int32]] = []
        for start in range(0, len(texts), _CHUNK_TEXTS):
            encodings = cutting.encode_batch_fast(list(texts[start : start + _CHUNK_TEXTS]))
            parts.extend(np.array(encoding.ids, dtype=np.int32) for encoding in encodings)
            progress("tokenise", len(parts), len(texts))
        self.lengths = np.array([len(part) for part in parts], dtype=np.int64)
        """Tokens of each text, (N,)."""
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._ids = np.concatenate(parts)

    def __len__(self) -> int:
        return len(self.lengths)

    def batches(self, indices: NDArray[np.int64], tokens: int, device: torch.device) -> Iterator[TokenBatch]:
        """The texts at `indices`, the longest first, in batches of at most `tokens` with padding, or of one text."""
        order = np.argsort(-self.lengths[indices], kind="stable")
        start = 0
        while start < len(order):
            longest = int(self.lengths[indices[order[start]]])
            places = order[start : start + max(1, tokens // longest)]
            input_ids = np.full((len(places), longest), self._pad, dtype=np.int64)
            mask = np.zeros_like(input_ids)
            for row, place in enumerate(places):
                begin, end = self._starts[indices[place]], self._starts[indices[place] + 1]
                input_ids[row, : end - begin] = self._ids[begin:end]
                mask[row, : end - begin] = 1
            yield TokenBatch(places, torch.from_numpy(input_ids).to(device), torch.from_numpy(mask).to(device))
            start += len(places)
