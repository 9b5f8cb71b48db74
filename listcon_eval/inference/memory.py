"""Memory: what inference may hold at once, what to do when a device is out of it, and what a process has used."""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from listcon_eval.errors import ListconError
from listcon_eval.model import ListConConfig

logger = logging.getLogger(__name__)

A = TypeVar("A")

# Shares of a host budget. Over a half of it is left to Python, the libraries, the weights and the texts themselves.
_FEATURES, _BATCHES, _ROUNDS = 1 / 8, 1 / 8, 1 / 16
# Shares of a device budget, whose other tenth is the weights' and the kernels' own.
_DEVICE_FEATURES, _DEVICE_BATCHES = 0.4, 0.5
_MIN_TOKENS = 512  # of a batch: one text of the usual greatest length
_MIN_ROWS = 128
# A chunk is what an interrupted run loses: seconds on a GPU, and on a CPU a fraction of a minute.
_BATCHES_PER_CHUNK = 16
_THREAD_PRODUCTS = 1e11  # multiplications of a chunk for each thread of a CPU, which does some 2e10 a second


@dataclass(frozen=True)
class Budgets:
    """What inference may hold at once.

    Attributes:
        tokens: tokens of one encoder batch, padding counted.
        rows: rows (queries and passages) of one batch of lists, padding counted.
        feature_bytes: features kept on the device; beyond it they go to an unnamed temporary file.
        chunk_texts: texts that are tokenised at once, and kept by a cache at once.
        group_passages: passages whose lists go through the rounds together, and are kept by a cache at once.
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
            return cls(tokens=2048, rows=2048, feature_bytes=2 * 2**30, group_passages=2048)
        return cls(tokens=65_536, rows=65_536, feature_bytes=4 * 2**30, chunk_texts=8192)

    def within(
        self,
        config: ListConConfig,
        device: torch.device,
        *,
        host_bytes: int | None,
        device_bytes: int | None,
        item_bytes: int,
        batches: int,
    ) -> "Budgets":
        """These budgets, made smaller for a model that is to stay within so many bytes of the host, or of the device.

        They depend on the stated memory, the model, the bytes of its encoder's numbers and how many batches run at the
        same time, never on what is free: equal commands make equal batches, and so equal numbers.

        Raises:
            ListconError: for a device budget on a device without memory of its own.
        """
        on_host = device.type == "cpu"
        if device_bytes is not None and on_host:
            raise ListconError("a CPU has no memory of its own to give a device budget for: give the host budget")
        found = self
        stated = host_bytes if on_host else device_bytes
        if stated is not None:
            features, share = (_FEATURES, _BATCHES) if on_host else (_DEVICE_FEATURES, _DEVICE_BATCHES)
            # A token within an encoder layer: query, key, value and context (4 H), inner rows twice, 4 rows of H. Not
            # every configuration calls its inner width so.
            hidden: int = config.encoder.hidden_size
            inner: int = getattr(config.encoder, "intermediate_size", 4 * hidden)
            token = item_bytes * (8 * hidden + 2 * inner)
            row = 4 * (8 * config.list_width + 2 * config.feedforward_width)  # within a list layer, in float32
            found = replace(
                found,
                tokens=_bounded(found.tokens, stated * share / batches / token, _MIN_TOKENS),
                rows=_bounded(found.rows, stated * share / batches / row, _MIN_ROWS),
                feature_bytes=min(found.feature_bytes, int(stated * features)),
            )
        if host_bytes is not None:
            # The features of a group, read from the file, and of a chunk before they are written to it.
            feature = 4 * config.list_width
            found = replace(
                found,
                chunk_texts=_bounded(found.chunk_texts, host_bytes * _ROUNDS / 2 / feature, 32),
                group_passages=_bounded(found.group_passages, host_bytes * _ROUNDS / feature, _MIN_ROWS),
            )
        return found


def chunk_tokens(batch: int, network: nn.Module, device: torch.device) -> int:
    """The tokens of a chunk: 16 batches, on a CPU fewer for a large network, but one batch at least."""
    usual = _BATCHES_PER_CHUNK * batch
    if device.type != "cpu":
        return usual
    layers = [module for module in network.modules() if not isinstance(module, nn.Embedding)]
    weights = sum(weight.numel() for layer in layers for weight in layer.parameters(recurse=False))
    return _bounded(usual, _THREAD_PRODUCTS * torch.get_num_threads() / max(1, weights), batch)


def _bounded(usual: int, allowed: float, minimum: int) -> int:
    return min(usual, max(minimum, int(allowed)))


class BatchBudget:
    """How much goes through a network at once; halved when the device is out of memory. Threads may share one.

    `size` is the units (tokens or rows) of one batch, padding counted; messages call them `unit`, and what a batch
    consists of `item`.
    """

    def __init__(self, device: torch.device, size: int, *, unit: str = "tokens", item: str = "text") -> None:
        self.device, self.size, self._unit, self._item = device, size, unit, item
        self._lock = threading.Lock()
        self._was_halved = False

    def run(self, work: Callable[[Sequence[A]], Tensor], batch: Sequence[A], cost: Callable[[A], int]) -> Tensor:
        """What `work` gives for a batch of items of some cost in units, in halves while the device is out of memory.

        Raises:
            ListconError: a single item does not fit.
        """
        try:
            return work(batch)
        except torch.OutOfMemoryError as error:
            self.halve(len(batch) * max(map(cost, batch)), len(batch), error)
        # Outside of the handler: the error holds the tensors of the batch that did not fit.
        half = len(batch) // 2
        return torch.cat([self.run(work, batch[:half], cost), self.run(work, batch[half:], cost)])

    def halve(self, used: int, items: int, error: torch.OutOfMemoryError) -> None:
        """Allow at most half of the `used` units of a batch of `items` that did not fit.

        Raises:
            ListconError: it had a single item, which cannot be divided.
        """
        if items == 1:
            raise ListconError(
                f"a single {self._item} of {used} {self._unit} does not fit into the memory of {self.device}: free "
                "some, give a smaller max_length (--max-length), or use the CPU"
            ) from error
        with self._lock:
            self.size = max(1, min(self.size, used // 2))
            if not self._was_halved:
                logger.warning(
                    "%s is out of memory: continuing with batches of %d %s", self.device, self.size, self._unit
                )
            self._was_halved = True
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def rss_bytes() -> int:
    """The memory that this process holds, in bytes."""
    return _own_memory("VmRSS", "rss")


def reset_peak(device: torch.device) -> None:
    """Let the peaks of memory start anew from what is held now: the device's, and on Linux the process's."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # other systems, and containers without the file, keep the peak of the whole process
        Path("/proc/self/clear_refs").write_text("5")


def host_peak() -> int:
    """The most memory that this process has held since `reset_peak`, in bytes; on other systems what it holds now."""
    return _own_memory("VmHWM", "peak_wset") or rss_bytes()


def _own_memory(name: str, elsewhere: str) -> int:
    """A figure of this process's memory in bytes, by its name on Linux or in psutil `elsewhere`; 0 where there is none.

    psutil does not have Linux's peak.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    import psutil

    held: int = getattr(psutil.Process().memory_info(), elsewhere, 0)
    return held


def device_peak(device: torch.device) -> int | None:
    """The most memory that tensors have held on the device since `reset_peak`, in bytes; None where that is unknown."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def in_words(host: int, device: int | None, *, memory: int | None = None, device_memory: int | None = None) -> str:
    """Peaks and their budgets: "host 0.61 GB of 1.00 GB, within the budget; device 9.71 GB"."""
    parts = []
    for name, size, budget in (("host", host, memory), ("device", device, device_memory)):
        if size is not None:
            parts.append(f"{name} {size / 1e9:.2f} GB")
            if budget is not None:
                verdict = "within" if size <= budget else "OVER"
                parts[-1] += f" of {budget / 1e9:.2f} GB, {verdict} the budget"
    return "; ".join(parts)
