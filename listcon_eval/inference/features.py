"""Encode once: the feature of every distinct text of a run, computed a single time and kept.

Texts are taken in order of length, in chunks whose tokens fit a bound, and each chunk is cut into batches of a token
budget, so padding is small and memory follows the budgets, not the corpus. A chunk is tokenised while the one before
it is encoded.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from listcon_eval.errors import ListconError
from listcon_eval.inference.encoder import FastEncoder
from listcon_eval.inference.journal import Journal
from listcon_eval.inference.tokens import TextCutter
from listcon_eval.progress import Phases, Progress

logger = logging.getLogger(__name__)

_CHUNK_CHARACTERS = 2_000_000
_CHECKED_TEXTS = 4


@dataclass(frozen=True)
class Budgets:
    """What inference may hold at once.

    Attributes:
        tokens: tokens of one encoder batch, padding counted.
        rows: rows (queries and passages) of one batch of lists, padding counted.
        feature_bytes: features kept on the device; beyond it they go to an unnamed temporary file.
        chunk_texts: texts that are tokenised at once, and kept by a journal at once.
        group_passages: passages whose lists go through the rounds together, and are kept by a journal at once.
    """

    tokens: int
    rows: int
    feature_bytes: int
    chunk_texts: int = 1024
    group_passages: int = 20_000

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
            # A full disk has to show here, as an error: in a mapped file it would show later, as a killed process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._file.fileno(), 0, size)
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
    encoder: FastEncoder,
    cutter: TextCutter,
    texts: Sequence[str],
    *,
    budgets: Budgets,
    phases: Phases,
    progress: Progress,
    journal: Journal | None = None,
    check: bool = False,
) -> FeatureStore:
    """Compute the features of distinct texts.

    Args:
        encoder: what encodes token ids.
        cutter: what tokenises texts.
        texts: N distinct texts, valid Unicode.
        budgets: what may be held at once.
        phases: seconds of "tokenise" (in a thread of its own) and "encode" are added here.
        progress: told of texts encoded.
        journal: finished chunks are loaded from it, and kept in it.
        check: whether to hold the encoder against the plain model on a few of the texts first.

    Returns:
        The features, (N, D), in the order of `texts`.

    Raises:
        ListconError: when a single text does not fit into the device's memory, or the check fails.
    """
    store = FeatureStore(len(texts), encoder.width, encoder.features_dtype, encoder.device, budgets.feature_bytes)
    batches = _Batches(encoder, budgets.tokens)

    def tokenised(chunk: NDArray[np.int64]) -> list[NDArray[np.int32]]:
        with phases.measured("tokenise"):
            return cutter([texts[index] for index in chunk])

    done = 0
    missing: list[tuple[str, NDArray[np.int64]]] = []
    for chunk in _chunks(texts, budgets):
        name = _name_of(texts[index] for index in chunk)
        kept = journal.load(name) if journal else None
        if kept is None:
            missing.append((name, chunk))
        else:
            store.put(chunk, torch.from_numpy(kept))
            done += len(chunk)
    with ThreadPoolExecutor(max_workers=1) as thread:
        waiting = [thread.submit(tokenised, chunk) for _, chunk in missing[:1]]
        for number, (name, chunk) in enumerate(missing, start=1):
            ids = waiting.pop().result()
            waiting += [thread.submit(tokenised, following) for _, following in missing[number : number + 1]]
            with phases.measured("encode"):
                if check and number == 1:
                    encoder.check(ids[:: max(1, len(ids) // _CHECKED_TEXTS)][:_CHECKED_TEXTS])
                features = torch.empty(len(chunk), encoder.width, dtype=encoder.features_dtype, device=encoder.device)
                for rows, encoded in batches.of(ids):
                    features[torch.from_numpy(rows).to(encoder.device)] = encoded
                    done += len(rows)
                    progress("encode", done, len(texts))
                store.put(chunk, features)
                if journal:
                    journal.save(name, features.cpu().numpy())
    return store


class _Batches:
    """Encodes token ids in batches of a token budget, which it halves when the device's memory is too small."""

    def __init__(self, encoder: FastEncoder, tokens: int) -> None:
        self.encoder = encoder
        self.tokens = tokens
        self.has_taken_less = False

    def of(self, ids: Sequence[NDArray[np.int32]]) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield batches as the places of their rows in `ids` (n,) and their features (n, D), longest rows first."""
        order = np.argsort([-len(row) for row in ids], kind="stable")
        start = 0
        while start < len(order):
            rows = order[start : start + max(1, self.tokens // len(ids[order[start]]))]
            try:
                features = self.encoder.features([ids[row] for row in rows])
            except torch.OutOfMemoryError as error:
                self._take_less(len(rows), error)
                continue
            yield rows, features
            start += len(rows)

    def _take_less(self, rows: int, error: torch.OutOfMemoryError) -> None:
        device = self.encoder.device
        if rows == 1:
            raise ListconError(
                f"a single text of the longest kind does not fit into the memory of {device}: free some, use "
                f"another device, or lower max_length"
            ) from error
        self.tokens //= 2
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if not self.has_taken_less:
            logger.warning("%s is out of memory: going on with batches of %d tokens or less", device, self.tokens)
        self.has_taken_less = True


def _name_of(texts: Iterable[str]) -> str:
    """A journal name for the features of texts, in their order."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8) + encoded)
    return f"features-{digest.hexdigest()[:32]}"


def _chunks(texts: Sequence[str], budgets: Budgets) -> Iterator[NDArray[np.int64]]:
    """Cut the texts, longest first, into chunks of a bounded number of texts and characters."""
    lengths = np.fromiter((len(text) for text in texts), dtype=np.int64, count=len(texts))
    # Longest first: what does not fit into memory shows at the start, and the last batches are the quick ones.
    order = np.argsort(-lengths, kind="stable")
    start, characters = 0, 0
    for end, index in enumerate(order):
        full = end - start >= budgets.chunk_texts or characters + lengths[index] > _CHUNK_CHARACTERS
        if end > start and full:
            yield order[start:end]
            start, characters = end, 0
        characters += lengths[index]
    if start < len(order):
        yield order[start:]
