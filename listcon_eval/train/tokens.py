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


class TokenRows:
    """The tokens of N texts, one after the other.

    Args:
        rows: the token ids of each text, special tokens included.
        pad: the id that padding is made of.
    """

    def __init__(self, rows: Sequence[NDArray[np.int32]], pad: int) -> None:
        self.pad = pad
        self.lengths = np.array([len(row) for row in rows], dtype=np.int64)
        """Tokens of each text, (N,)."""
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._ids = np.concatenate(rows)

    def __len__(self) -> int:
        return len(self.lengths)

    def row(self, index: int) -> NDArray[np.int32]:
        """The token ids of one text."""
        return self._ids[self._starts[index] : self._starts[index + 1]]

    def batches(self, indices: NDArray[np.int64], tokens: int, device: torch.device) -> Iterator[TokenBatch]:
        """The texts at `indices`, the longest first, in batches of at most `tokens` with padding, or of one text."""
        order = np.argsort(-self.lengths[indices], kind="stable")
        start = 0
        while start < len(order):
            longest = int(self.lengths[indices[order[start]]])
            places = order[start : start + max(1, tokens // longest)]
            input_ids = np.full((len(places), longest), self.pad, dtype=np.int64)
            mask = np.zeros_like(input_ids)
            for row, place in enumerate(places):
                tokens_of_text = self.row(indices[place])
                input_ids[row, : len(tokens_of_text)] = tokens_of_text
                mask[row, : len(tokens_of_text)] = 1
            yield TokenBatch(places, torch.from_numpy(input_ids).to(device), torch.from_numpy(mask).to(device))
            start += len(places)


class TokenisedTexts(TokenRows):
    """The tokens of N texts of a training run.

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
        rows: list[NDArray[np.int32]] = []
        for start in range(0, len(texts), _CHUNK_TEXTS):
            encodings = cutting.encode_batch_fast(list(texts[start : start + _CHUNK_TEXTS]))
            rows.extend(np.array(encoding.ids, dtype=np.int32) for encoding in encodings)
            progress("tokenise", len(rows), len(texts))
        super().__init__(rows, tokenizer.pad_token_id or 0)
