"""Encode once: the feature of every distinct text of a run, computed a single time and kept.

Texts are taken in order of length, in chunks whose tokens fit a bound, and each chunk is cut into batches of a token
budget, so padding is small and memory follows the budgets, not the corpus. A chunk is tokenised while the one before
it is encoded.
"""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from listcon_eval.errors import ListconError
from listcon_eval.model import ListConModel
from listcon_eval.progress import Phases, Progress

_CHUNK_TEXTS = 4096
_CHUNK_CHARACTERS = 4_000_000


@dataclass(frozen=True)
class Budgets:
    """What inference may hold at once.

    Attributes:
        tokens: tokens of one encoder batch, padding counted.
        rows: rows (queries and passages) of one batch of lists, padding counted.
        feature_bytes: features kept on the device; beyond it they go to an unnamed temporary file.
    """

    tokens: int
    rows: int
    feature_bytes: int

    @classmethod
    def for_device(cls, device: torch.device) -> "Budgets":
        """Budgets that suit a device: a CPU is fastest while a batch stays near its caches."""
        if device.type == "cpu":
            return cls(tokens=4096, rows=4096, feature_bytes=2 * 2**30)
        return cls(tokens=65_536, rows=65_536, feature_bytes=4 * 2**30)


class FeatureStore:
    """The features of N texts, (N, D): on the device while they fit the budget, else in a temporary file."""

    def __init__(self, texts: int, width: int, dtype: torch.dtype, device: torch.device, budget: int) -> None:
        self.device = device
        size = texts * width * dtype.itemsize
        self.spilled = size > budget
        if self.spilled:
            # The file has no name: it is gone with the process, however that ends.
            self._file = tempfile.TemporaryFile(prefix="listcon-features-")  # noqa: SIM115 - lives as long as the store
            numbers = np.float16 if dtype == torch.float16 else np.float32
            self._rows = torch.from_numpy(np.memmap(self._file, dtype=numbers, mode="w+", shape=(texts, width)))
        else:
            self._rows = torch.empty(texts, width, dtype=dtype, device=device)

    def put(self, indices: NDArray[np.int64], features: Tensor) -> None:
        """Keep the features (n, D) of the texts at `indices` (n,)."""
        self._rows[torch.from_numpy(indices).to(self._rows.device)] = features.to(self._rows.device)

    def get(self, indices: NDArray[np.int64]) -> Tensor:
        """The features of the texts at `indices`, of any shape, on the device: (*indices.shape, D)."""
        return self._rows[torch.from_numpy(indices).to(self._rows.device)].to(self.device)


@torch.inference_mode()
def encode_texts(
    model: ListConModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    *,
    max_length: int,
    budgets: Budgets,
    phases: Phases,
    progress: Progress,
) -> FeatureStore:
    """Compute the features of distinct texts.

    Args:
        model: the model, on its device and in its precision.
        tokenizer: its tokenizer.
        texts: N distinct texts.
        max_length: tokens a text is cut to, the special ones counted.
        budgets: what may be held at once.
        phases: seconds of "tokenise" (in a thread of its own) and "encode" are added here.
        progress: told of texts encoded.

    Returns:
        The features, (N, D), in the order of `texts`.

    Raises:
        ListconError: when a text cannot be tokenised (it is no valid Unicode).
    """
    parameter = next(model.linear_in_embedding.parameters())
    width = model.config.list_width
    store = FeatureStore(len(texts), width, parameter.dtype, parameter.device, budgets.feature_bytes)
    cutting = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())  # a copy: the caller's keeps its settings
    cutting.enable_truncation(max_length)
    cutting.no_padding()
    pad = tokenizer.pad_token_id or 0

    def tokenised(chunk: NDArray[np.int64]) -> list[list[int]]:
        with phases.measured("tokenise"):
            try:
                return [encoding.ids for encoding in cutting.encode_batch_fast([texts[index] for index in chunk])]
            except (TypeError, UnicodeEncodeError) as error:
                broken = next((texts[index] for index in chunk if not _is_unicode(texts[index])), None)
                if broken is None:
                    raise
                raise ListconError(f"a text is no valid Unicode and cannot be tokenised: {broken[:40]!r}") from error

    done = 0
    chunks = list(_chunks(texts))
    with ThreadPoolExecutor(max_workers=1) as thread:
        waiting = thread.submit(tokenised, chunks[0]) if chunks else None
        for number, chunk in enumerate(chunks):
            assert waiting is not None
            ids = waiting.result()
            waiting = thread.submit(tokenised, chunks[number + 1]) if number + 1 < len(chunks) else None
            for batch in _batches([len(row) for row in ids], budgets.tokens):
                with phases.measured("encode"):
                    input_ids, mask = _padded([ids[row] for row in batch], pad)
                    features = model.features(input_ids.to(parameter.device), mask.to(parameter.device))
                    store.put(chunk[batch], features)
                done += len(batch)
                progress("encode", done, len(texts))
    return store


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _chunks(texts: Sequence[str]) -> Iterator[NDArray[np.int64]]:
    """Cut the texts, longest first, into chunks of a bounded number of texts and characters."""
    lengths = np.fromiter((len(text) for text in texts), dtype=np.int64, count=len(texts))
    # Longest first: what does not fit into memory shows at the start, and the last batches are the quick ones.
    order = np.argsort(-lengths, kind="stable")
    start, characters = 0, 0
    for end, index in enumerate(order):
        if end > start and (end - start >= _CHUNK_TEXTS or characters + lengths[index] > _CHUNK_CHARACTERS):
            yield order[start:end]
            start, characters = end, 0
        characters += lengths[index]
    if start < len(order):
        yield order[start:]


def _batches(lengths: Sequence[int], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Group rows of similar length so that rows x longest stays within `tokens` (or is a single row)."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    cuts = [0]
    while cuts[-1] < len(order):
        longest = lengths[order[cuts[-1]]]
        cuts.append(min(len(order), cuts[-1] + max(1, tokens // longest)))
    for start, end in pairwise(cuts):
        yield order[start:end]


def _padded(ids: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, (N, T) each, of rows whose first is the longest."""
    input_ids = np.full((len(ids), len(ids[0])), pad, dtype=np.int64)
    mask = np.zeros_like(input_ids)
    for row, tokens in enumerate(ids):
        input_ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return torch.from_numpy(input_ids), torch.from_numpy(mask)
