"""Encode once: the feature of every distinct text of a run, computed a single time and kept.

Texts are taken in order of length, in chunks of a bounded number of tokens, and each chunk is cut into batches of a
token budget, so padding is small and memory follows the budgets, not the corpus. A chunk is tokenised while the one
before it is encoded.
"""

import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from listcon_eval.files import sha256_of_texts
from listcon_eval.inference.chunks import ChunkStore, cut
from listcon_eval.inference.devices import Workers, to_device
from listcon_eval.inference.encoder import FastEncoder
from listcon_eval.inference.memory import BatchBudget, Budgets, chunk_tokens
from listcon_eval.inference.tokens import TextTokenizer, TokenCounts
from listcon_eval.progress import Phases, Progress, no_progress
from listcon_eval.workers import RayWorkers

_CHECKED_TEXTS = 4
_MIN_TOKENS = 256  # of a batch that is made small so that every worker has one


class FeatureStore:
    """The features of N texts, (N, D): on the device while they fit the budget, else in a temporary file."""

    def __init__(self, texts: int, width: int, dtype: torch.dtype, device: torch.device, budget: int) -> None:
        self.device, self.dtype = device, dtype
        size = texts * width * dtype.itemsize
        self.spilled = size > budget
        self._mapped: mmap.mmap | None = None
        if self.spilled:
            # The file has no name, so it disappears with the process, however that ends.
            with tempfile.TemporaryFile(prefix="listcon-features-") as file:
                # A full disk has to show here, as an error; later, in a mapped file, the process would be killed.
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
        self._rows[to_device(indices, self._rows.device)] = features.to(self._rows.device)
        self.release_memory()

    def get(self, indices: NDArray[np.int64]) -> Tensor:
        """The features of the texts at `indices`, of any shape, on the device: (*indices.shape, D)."""
        return to_device(self._rows[to_device(indices, self._rows.device)], self.device)

    def release_memory(self) -> None:
        """Give the pages of the file that were read or written back to the system."""
        if self._mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)


@torch.inference_mode()
def encode_texts(
    encoder: FastEncoder,
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    *,
    budgets: Budgets,
    budget: BatchBudget,
    phases: Phases,
    progress: Progress = no_progress,
    cache: ChunkStore | None = None,
    workers: RayWorkers | None = None,
) -> tuple[FeatureStore, TokenCounts]:
    """Compute the features of N distinct texts of valid Unicode, (N, D), in their order; and the counts over them.

    A batch has as many tokens as `budget` allows, which starts as `budgets` says and may have been halved since.
    Seconds of "tokenise" (in a thread of its own) and "encode" are added to `phases`. Finished chunks are kept in the
    cache and loaded from it; the others are computed by the workers, if there are any, as `chunk_of` does. An encoder
    that has not been checked is compared with the plain model on a few of the texts first.

    Raises:
        ListconError: a single text does not fit into the device's memory, or the check fails.
    """
    writer = _Writer(encoder, len(texts), budgets.feature_bytes, cache)
    missing: list[tuple[str, NDArray[np.int64]]] = []
    done = 0
    most = chunk_tokens(budgets.tokens, encoder.network, encoder.device)
    lengths = np.fromiter((len(text) for text in texts), dtype=np.int64, count=len(texts))
    work = np.minimum(lengths, tokenizer.max_length) + 1  # about: characters instead of tokens
    total = int(work.sum())
    for chunk in text_chunks(lengths, budgets.chunk_texts, most, tokenizer.max_length):
        name = f"features-{sha256_of_texts(texts[index] for index in chunk)[:32]}" if cache else ""
        kept = cache.load(name) if cache else None
        if kept is None:
            missing.append((name, chunk))
        else:
            writer.take(kept, chunk)
            done += int(work[chunk].sum())
    if workers is not None:
        chunks = (([texts[index] for index in chunk],) for _, chunk in missing)
        for number, content in phases.timed("encode", workers.run("encode_chunk", chunks)):
            name, chunk = missing[number]
            if cache:
                cache.save(name, content)
            writer.take(content, chunk)
            done += int(work[chunk].sum())
            progress("encode", done, total)
        return writer.store, writer.counts

    def tokenized(chunk: NDArray[np.int64]) -> tuple[list[NDArray[np.int32]], TokenCounts]:
        with phases.measured("tokenise"):
            return tokenizer([texts[index] for index in chunk])

    def finish(encoding: _Encoding) -> None:
        """Wait for a chunk's batches and keep its features."""
        nonlocal done
        for rows, features in encoding.batches:
            features.result()
            done += int(work[encoding.chunk[rows]].sum())
            progress("encode", done, total)
        writer.finish()
        writer.start(encoding)

    with ThreadPoolExecutor(max_workers=1) as thread, Workers(encoder.device) as threads:
        waiting = [thread.submit(tokenized, chunk) for _, chunk in missing[:1]]
        running: list[_Encoding] = []
        for number, (name, chunk) in enumerate(missing, start=1):
            ids, counts = waiting.pop().result()
            waiting += [thread.submit(tokenized, following) for _, following in missing[number : number + 1]]
            with phases.measured("encode"):
                if not encoder.checked:
                    encoder.check(ids[:: max(1, len(ids) // _CHECKED_TEXTS)][:_CHECKED_TEXTS])
                rows = list(_batches(ids, budget.size, threads.count))
                parts = [[ids[row] for row in batch] for batch in rows]
                # The threads get this chunk before the last one is waited for, so none is idle in between.
                futures = threads.start(lambda part: budget.run(encoder.features, part, len), parts)
                running.append(_Encoding(name, chunk, counts, list(zip(rows, futures, strict=True))))
                if len(running) > 1:
                    finish(running.pop(0))
        with phases.measured("encode"):
            for encoding in running:
                finish(encoding)
            writer.finish()
    return writer.store, writer.counts


class _Encoding(NamedTuple):
    """A chunk of texts whose batches (the places of their rows in the chunk, and their features) may be running."""

    name: str
    chunk: NDArray[np.int64]
    counts: TokenCounts
    batches: list[tuple[NDArray[np.int64], Future[Tensor]]]


class _Writer:
    """Writes chunks' features to the store and the cache, without making a GPU wait for the copy to the host.

    `counts` are those of all chunks, also of those that the cache had.
    """

    def __init__(self, encoder: FastEncoder, texts: int, budget: int, cache: ChunkStore | None) -> None:
        self.store = FeatureStore(texts, encoder.width, encoder.features_dtype, encoder.device, budget)
        self.counts = TokenCounts()
        self._cache = cache
        self._copying: list[tuple[_Encoding, Tensor, torch.cuda.Event]] = []

    def take(self, content_of_chunk: NDArray[np.generic], chunk: NDArray[np.int64]) -> None:
        """Write a chunk that the cache had or a worker computed."""
        content = content_of_chunk.tobytes()
        size = np.dtype(np.int64).itemsize * len(TokenCounts._fields)
        self._count(TokenCounts(*np.frombuffer(content[:size], dtype=np.int64).tolist()))
        features = torch.frombuffer(bytearray(content[size:]), dtype=self.store.dtype)
        self.store.put(chunk, features.view(len(chunk), -1))

    def start(self, encoding: _Encoding) -> None:
        """Write a chunk whose batches are done; on a GPU, what is copied to the host is there after `finish`."""
        joined = torch.cat([features.result() for _, features in encoding.batches])
        places = np.argsort(np.concatenate([rows for rows, _ in encoding.batches]))
        encoding.batches.clear()
        features = joined[to_device(places, joined.device)]  # (n, D), in the order of the chunk
        self._count(encoding.counts)
        if not self.store.spilled:
            self.store.put(encoding.chunk, features)
        if not features.is_cuda:
            self._write(encoding, features)
        elif self._cache or self.store.spilled:
            copy = torch.empty_like(features, device="cpu", pin_memory=True).copy_(features, non_blocking=True)
            ready = torch.cuda.Event()  # type: ignore[no-untyped-call, unused-ignore]
            ready.record()
            self._copying.append((encoding, copy, ready))

    def finish(self) -> None:
        """Write what was copied."""
        for encoding, copy, ready in self._copying:
            ready.synchronize()
            self._write(encoding, copy)
        self._copying = []

    def _count(self, counts: TokenCounts) -> None:
        self.counts = TokenCounts(*(one + other for one, other in zip(self.counts, counts, strict=True)))

    def _write(self, encoding: _Encoding, features: Tensor) -> None:
        if self.store.spilled:
            self.store.put(encoding.chunk, features)
        if self._cache:
            self._cache.save(encoding.name, chunk_of(encoding.counts, features))


def chunk_of(counts: TokenCounts, features: Tensor) -> NDArray[np.uint8]:
    """A chunk's counts and features as one array of bytes, so that neither is ever there without the other."""
    content = np.array(counts, dtype=np.int64).tobytes() + features.cpu().numpy().tobytes()
    return np.frombuffer(content, dtype=np.uint8)


def _batches(ids: Sequence[NDArray[np.int32]], tokens: int, workers: int) -> Iterator[NDArray[np.int64]]:
    """Yield batches as the places of their rows in `ids` (n,), longest rows first, about equal for each worker."""
    lengths = np.array([len(row) for row in ids])
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])  # tokens up to and with each text
    rounds = -(-ends[-1] // (tokens * workers))
    share = max(_MIN_TOKENS, -(-ends[-1] // (rounds * workers)))
    start, given = 0, 0
    while start < len(order):
        padded = start + max(1, tokens // lengths[order[start]])
        end = min(padded, int(np.searchsorted(ends, given + share)) + 1)
        yield order[start:end]
        start, given = end, ends[min(end, len(order)) - 1]


def text_chunks(
    lengths: NDArray[np.int64], most_texts: int, most_tokens: int, max_length: int
) -> Iterator[NDArray[np.int64]]:
    """Cut texts, longest first, into chunks of a bounded number of texts and (about a character each) tokens.

    `lengths` are their characters, (N,).
    """
    # Longest first: what does not fit into memory shows at the start, and the last batches are the quick ones.
    order = np.argsort(-lengths, kind="stable")
    for part in cut(np.minimum(lengths[order], max_length).tolist(), most_tokens, most_texts):
        yield order[part]
