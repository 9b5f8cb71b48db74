"""Encode once: the feature of every distinct text of a run, computed a single time and kept.

Texts are taken in order of length, in chunks whose tokens fit a bound, and each chunk is cut into batches of a token
budget, so padding is small and memory follows the budgets, not the corpus. A chunk is tokenised while the one before
it is encoded.
"""

import hashlib
import logging
import mmap
import os
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from listcon_eval.errors import ListconError
from listcon_eval.inference.budgets import Budgets
from listcon_eval.inference.encoder import FastEncoder
from listcon_eval.inference.journal import Journal
from listcon_eval.inference.layouts import moved, on_device
from listcon_eval.inference.memory import stay_within
from listcon_eval.inference.tokens import TextCutter
from listcon_eval.inference.workers import Workers
from listcon_eval.progress import Phases, Progress

logger = logging.getLogger(__name__)

_CHUNK_CHARACTERS = 2_000_000
_CHECKED_TEXTS = 4
_FEWEST_TOKENS = 256  # of a batch that is made small so that every worker has one


class FeatureStore:
    """The features of N texts, (N, D): on the device while they fit the budget, else in a temporary file."""

    def __init__(self, texts: int, width: int, dtype: torch.dtype, device: torch.device, budget: int) -> None:
        self.device = device
        size = texts * width * dtype.itemsize
        self.spilled = size > budget
        self._mapped: mmap.mmap | None = None
        if self.spilled:
            # The file has no name: it is gone with the process, however that ends.
            with tempfile.TemporaryFile(prefix="listcon-features-") as file:
                # A full disk has to show here, as an error: in a mapped file it would show later, as a killed process.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
                self._mapped = mmap.mmap(file.fileno(), size)  # keeps the file open
            self._rows = torch.frombuffer(self._mapped, dtype=dtype).view(texts, width)
        else:
            self._rows = torch.empty(texts, width, dtype=dtype, device=device)

    def put(self, indices: NDArray[np.int64], features: Tensor) -> None:
        """Keep the features (n, D) of the texts at `indices` (n,)."""
        self._rows[moved(indices, self._rows.device)] = features.to(self._rows.device)
        self.forget()

    def get(self, indices: NDArray[np.int64]) -> Tensor:
        """The features of the texts at `indices`, of any shape, on the device: (*indices.shape, D)."""
        return on_device(self._rows[moved(indices, self._rows.device)], self.device)

    def forget(self) -> None:
        """Let go of the pages of the file that were read or written: they are not this process's memory any more."""
        if self._mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)


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
        name = _name_of(texts[index] for index in chunk) if journal else ""
        kept = journal.load(name) if journal else None
        if kept is None:
            missing.append((name, chunk))
        else:
            store.put(chunk, torch.from_numpy(kept))
            done += len(chunk)

    keep = _Kept(store, journal)

    def take(encoded: _Encoded) -> None:
        """Keep a chunk's features as soon as they are there."""
        nonlocal done
        for size in encoded.sizes():
            done += size
            progress("encode", done, len(texts))
        keep.finish()
        keep.start(encoded)
        stay_within(budgets.host_bytes)

    with ThreadPoolExecutor(max_workers=1) as thread, Workers(encoder.device) as workers:
        waiting = [thread.submit(tokenised, chunk) for _, chunk in missing[:1]]
        running: list[_Encoded] = []
        for number, (name, chunk) in enumerate(missing, start=1):
            ids = waiting.pop().result()
            waiting += [thread.submit(tokenised, following) for _, following in missing[number : number + 1]]
            with phases.measured("encode"):
                if check and number == 1:
                    encoder.check(ids[:: max(1, len(ids) // _CHECKED_TEXTS)][:_CHECKED_TEXTS])
                # This chunk's work is given out before the last one's is waited for: nobody stands idle in between.
                running.append(_Encoded(name, chunk, ids, batches, workers))
                if len(running) > 1:
                    take(running.pop(0))
        with phases.measured("encode"):
            for encoded in running:
                take(encoded)
            keep.finish()
    return store


class _Encoded:
    """A chunk of texts whose batches are at work, or done."""

    def __init__(
        self,
        name: str,
        chunk: NDArray[np.int64],
        ids: Sequence[NDArray[np.int32]],
        batches: "_Batches",
        workers: Workers,
    ) -> None:
        self.name, self.chunk = name, chunk
        rows = list(batches.of(ids, workers.count))
        parts = [[ids[row] for row in batch] for batch in rows]
        self._running = list(zip(rows, workers.start(batches.features, parts), strict=True))

    def sizes(self) -> Iterator[int]:
        """The texts of each batch, as soon as it is done."""
        for rows, features in self._running:
            features.result()
            yield len(rows)

    def features(self) -> Tensor:
        """The features of the chunk's texts, in their order, (n, D), on the encoder's device."""
        joined = torch.cat([features.result() for _, features in self._running])
        places = np.argsort(np.concatenate([rows for rows, _ in self._running]))
        self._running = []
        return joined[moved(places, joined.device)]


class _Kept:
    """Takes chunks' features into the store and the journal, without making a GPU wait for the copy to the host."""

    def __init__(self, store: FeatureStore, journal: Journal | None) -> None:
        self._store, self._journal = store, journal
        self._copying: list[tuple[str, NDArray[np.int64], Tensor, torch.cuda.Event]] = []

    def start(self, encoded: _Encoded) -> None:
        """Take a chunk, or begin to: what a GPU has to copy to the host is there after `finish`."""
        features = encoded.features()
        if not self._store.spilled:
            self._store.put(encoded.chunk, features)
        if not features.is_cuda:
            self._write(encoded.name, encoded.chunk, features)
        elif self._journal or self._store.spilled:
            copy = torch.empty_like(features, device="cpu", pin_memory=True).copy_(features, non_blocking=True)
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call, unused-ignore]
            ready.record()
            self._copying.append((encoded.name, encoded.chunk, copy, ready))

    def finish(self) -> None:
        """Write what has been begun."""
        for name, chunk, copy, ready in self._copying:
            ready.synchronize()
            self._write(name, chunk, copy)
        self._copying = []

    def _write(self, name: str, chunk: NDArray[np.int64], features: Tensor) -> None:
        if self._store.spilled:
            self._store.put(chunk, features)
        if self._journal:
            self._journal.save(name, features.cpu().numpy())


class _Batches:
    """Encodes token ids in batches of a token budget, which it halves when the device's memory is too small."""

    def __init__(self, encoder: FastEncoder, tokens: int) -> None:
        self.encoder = encoder
        self.tokens = tokens
        self._lock = threading.Lock()
        self._has_taken_less = False

    def of(self, ids: Sequence[NDArray[np.int32]], workers: int) -> Iterator[NDArray[np.int64]]:
        """Yield batches as the places of their rows in `ids` (n,), longest rows first, about equal for each worker."""
        lengths = np.array([len(row) for row in ids])
        order = np.argsort(-lengths, kind="stable")
        ends = np.cumsum(lengths[order])  # tokens up to and with each text
        rounds = -(-ends[-1] // (self.tokens * workers))
        share = max(_FEWEST_TOKENS, -(-ends[-1] // (rounds * workers)))
        start, given = 0, 0
        while start < len(order):
            padded = start + max(1, self.tokens // lengths[order[start]])
            end = min(padded, int(np.searchsorted(ends, given + share)) + 1)
            yield order[start:end]
            start, given = end, ends[min(end, len(order)) - 1]

    def features(self, ids: Sequence[NDArray[np.int32]]) -> Tensor:
        """The features of one batch, (n, D); in two halves when the memory is too small for it."""
        try:
            return self.encoder.features(ids)
        except torch.OutOfMemoryError as error:
            self._take_less(ids, error)
        half = len(ids) // 2
        return torch.cat([self.features(ids[:half]), self.features(ids[half:])])

    def _take_less(self, ids: Sequence[NDArray[np.int32]], error: torch.OutOfMemoryError) -> None:
        device = self.encoder.device
        if len(ids) == 1:
            raise ListconError(
                f"a single text of the longest kind does not fit into the memory of {device}: free some, use "
                f"another device, or lower max_length"
            ) from error
        with self._lock:
            self.tokens = min(self.tokens, sum(map(len, ids)) // 2)
            if not self._has_taken_less:
                logger.warning("%s is out of memory: going on with batches of %d tokens or less", device, self.tokens)
            self._has_taken_less = True
        if device.type == "cuda":
            torch.cuda.empty_cache()


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
