"""Cross-encoders: a classifier with one label reads query and passage together, one pair at a time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from listcon_eval.errors import ListconError
from listcon_eval.records import CandidateList, RankedList
from listcon_eval.systems.batches import Batches, chunk_name, chunks
from listcon_eval.systems.chat_classifier import ChatClassifier, is_chat_classifier
from listcon_eval.systems.detection import Found
from listcon_eval.systems.network import NetworkSystem
from listcon_eval.systems.system import Job, Options
from listcon_eval.systems.weights import check_weights, loading, quiet_loading

Pair = tuple[str, str]
_SPECIAL_TOKENS = 8


class PairScorer(Protocol):
    """What scores pairs of texts.

    Attributes:
        model: the network.
        max_length: tokens a pair is cut to.
        reads: how a pair becomes a text, in a few words.
    """

    model: nn.Module
    max_length: int
    reads: str

    def __call__(self, pairs: Sequence[Pair], batches: Batches) -> NDArray[np.float32]:
        """The logits of pairs of query and passage, (N,)."""


class CrossEncoder(NetworkSystem):
    """A cross-encoder, ranking by its logits. Every distinct pair is scored once.

    Args:
        found: the model.
        options: device, precision, and perhaps a length.

    Raises:
        ListconError: the model cannot be loaded, or has not one label.
    """

    kind = "cross-encoder"
    phase_names = ("score",)
    model_type = "cross-encoder"
    frameworks = ("Sentence Transformers", "PyTorch", "Transformers")

    def _network(self, found: Found, options: Options) -> nn.Module:
        self.scorer = _load(found, options.max_length, self._device)
        self.max_length = self.scorer.max_length
        self._is_cut = options.max_length is not None
        return self.scorer.model

    def rank(self, lists: Sequence[CandidateList], mode: str, job: Job) -> list[RankedList]:
        """Score the distinct pairs of all lists together."""
        del mode
        pairs = list(dict.fromkeys((row.query, passage) for row in lists for passage in row.passages))
        scores = self._scores(pairs, job)
        places = {pair: place for place, pair in enumerate(pairs)}
        return [
            RankedList(
                tuple(float(scores[places[row.query, passage]]) for passage in row.passages), (0,) * len(row.passages)
            )
            for row in lists
        ]

    def _scores(self, pairs: Sequence[Pair], job: Job) -> NDArray[np.float32]:
        """Logits of distinct pairs, in their order, (N,)."""
        scores = np.empty(len(pairs), dtype=np.float32)
        done = 0
        for chunk in chunks([len(query) + len(passage) for query, passage in pairs], self._budgets):
            of_chunk = [pairs[place] for place in chunk]
            name = chunk_name("pairs", (text for pair in of_chunk for text in pair))
            kept = job.journal.load(name) if job.journal else None
            if kept is None:
                with self.phases.measured("score"):
                    kept = self.scorer(of_chunk, self._batches)
                if job.journal and np.isfinite(kept).all():
                    job.journal.save(name, kept)
            scores[chunk] = kept
            done += len(chunk)
            job.progress("score", done, len(pairs))
        return scores

    def experiment(self) -> Mapping[str, Any]:
        """A length that was asked for."""
        return self.settings() if self._is_cut else {}

    def key(self) -> Mapping[str, Any]:
        """Weights, length, device, and how a pair is read."""
        return {**super().key(), **self._told()}

    def _told(self) -> Mapping[str, Any]:
        return {"reads": self.scorer.reads}


class SentenceTransformersScorer:
    """A cross-encoder that sentence-transformers loads: pairs as its tokenizer and its prompts make them.

    Args:
        folder: the model's folder.
        max_length: tokens a pair is cut to; the model's own when None.
        device: the device.

    Raises:
        ListconError: it has not one label, or does not take that length.
    """

    reads = "pairs, as sentence-transformers"

    def __init__(self, folder: Path, max_length: int | None, device: torch.device) -> None:
        import sentence_transformers

        self.model = sentence_transformers.CrossEncoder(str(folder), device=str(device), local_files_only=True)
        if self.model.num_labels != 1:
            raise ListconError(
                f"the classifier in {folder} has {self.model.num_labels} labels: a reranker has one, its score"
            )
        if self.model.transformers_model is not None:
            check_weights(folder, self.model.transformers_model)
        positions = getattr(self.model.config, "max_position_embeddings", None)
        limits = [limit for limit in (self.model.max_seq_length, positions) if limit is not None]
        own = min(limits) if limits else None
        if max_length is not None and (max_length < 4 or (own is not None and max_length > own)):
            raise ListconError(f"max_length is {max_length}: the classifier in {folder} takes 4 to {own or 'any'}")
        self.max_length: int = max_length or own or 512
        self.model.max_seq_length = self.max_length

    def __call__(self, pairs: Sequence[Pair], batches: Batches) -> NDArray[np.float32]:
        """The logits of pairs, (N,)."""
        longest = min(self.max_length, max(len(query) + len(passage) for query, passage in pairs) + _SPECIAL_TOKENS)

        def work(size: int) -> NDArray[np.float32]:
            logits = self.model.predict(
                [list(pair) for pair in pairs], batch_size=size, show_progress_bar=False, activation_fn=nn.Identity()
            )
            return np.asarray(logits, dtype=np.float32)

        return batches.run(longest, work)


def _load(found: Found, max_length: int | None, device: torch.device) -> PairScorer:
    source = found.folder_of_model()
    with loading(found.given, source.folder, "a cross-encoder"), quiet_loading():
        if is_chat_classifier(source.folder):
            return ChatClassifier(source.folder, max_length)
        return SentenceTransformersScorer(source.folder, max_length, device)
