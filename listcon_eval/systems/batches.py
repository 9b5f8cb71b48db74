"""What systems that run a network share: chunks that a journal keeps, and batches that fit into memory."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from listcon_eval.errors import ListconError
from listcon_eval.inference.budgets import Budgets

logger = logging.getLogger(__name__)

T = TypeVar("T")
WEIGHT_FILES = (".safetensors", ".gz", ".bin", ".pt", ".json", ".jinja", ".txt", ".model")
"""Suffixes of the files that decide a model's scores: weights, configuration, tokenizer, prompts."""


def network_dtype(device: torch.device, precision: str) -> torch.dtype:
    """The number format of a network's weights: float16 as published on an accelerator, float32 otherwise.

    Raises:
        ListconError: for another precision.
    """
    if precision not in ("published", "precise"):
        raise ListconError(f"this kind of system has no precision {precision!r}: give published or precise")
    return torch.float16 if precision == "published" and device.type != "cpu" else torch.float32


def chunks(lengths: Sequence[int], budgets: Budgets) -> Iterator[NDArray[np.int64]]:
    """Cut units, the longest first, into chunks for a journal: yields the places of a chunk's units, (n,).

    What does not fit into memory shows at the start, and a batch within a chunk has little padding.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    for start in range(0, len(order), budgets.chunk_texts):
        yield order[start : start + budgets.chunk_texts]


def chunk_name(what: str, texts: Iterable[str]) -> str:
    """A journal name for what was computed of texts, in their order."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8) + encoded)
    return f"{what}-{digest.hexdigest()[:32]}"


class Batches:
    """How many units go through a network at once: a budget of tokens, halved when the memory is too small.

    Args:
        device: the device.
        tokens: tokens of one batch, padding counted.
    """

    def __init__(self, device: torch.device, tokens: int) -> None:
        self.device = device
        self.tokens = tokens
        self._has_taken_less = False

    def size(self, longest: int) -> int:
        """How many units fit into a batch whose longest has so many tokens."""
        return max(1, self.tokens // max(1, longest))

    def run(self, longest: int, work: Callable[[int], T]) -> T:
        """Call `work` with a batch size, and with smaller ones while the device is out of memory.

        Raises:
            ListconError: when a single unit does not fit.
        """
        while True:
            size = self.size(longest)
            try:
                return work(size)
            except torch.OutOfMemoryError as error:
                if size == 1:
                    raise ListconError(
                        f"a single text of the longest kind does not fit into the memory of {self.device}: free some, "
                        "use another device, or lower --max-length"
                    ) from error
                self.tokens = size * max(1, longest) // 2
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                if not self._has_taken_less:
                    logger.warning(
                        "%s is out of memory: going on with batches of %d tokens or less", self.device, self.tokens
                    )
                self._has_taken_less = True
