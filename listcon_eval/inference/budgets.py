"""What inference may hold at once: sizes that suit a device, or that follow from a stated memory budget."""

from dataclasses import dataclass, replace

import torch

from listcon_eval.errors import ListconError
from listcon_eval.model import ListConConfig

# Shares of a host budget. Over a half of it is left to Python, the libraries, the weights and the texts themselves.
_FEATURES, _BATCHES, _ROUNDS = 1 / 8, 1 / 8, 1 / 16
# Shares of a device budget, whose other tenth is the weights' and the kernels' own.
_DEVICE_FEATURES, _DEVICE_BATCHES = 0.4, 0.5
_FEWEST_TOKENS = 512  # of a batch: one text of the longest kind
_FEWEST_ROWS = 128


@dataclass(frozen=True)
class Budgets:
    """What inference may hold at once.

    Attributes:
        tokens: tokens of one encoder batch, padding counted.
        rows: rows (queries and passages) of one batch of lists, padding counted.
        feature_bytes: features kept on the device; beyond it they go to an unnamed temporary file.
        chunk_texts: texts that are tokenised at once, and kept by a journal at once.
        group_passages: passages whose lists go through the rounds together, and are kept by a journal at once.
        host_bytes: memory of the host that the process should stay within; None for no statement.
    """

    tokens: int
    rows: int
    feature_bytes: int
    chunk_texts: int = 1024
    group_passages: int = 20_000
    host_bytes: int | None = None

    @classmethod
    def for_device(cls, device: torch.device) -> "Budgets":
        """Budgets that suit a device: a CPU is fastest while a batch stays near its caches."""
        if device.type == "cpu":
            return cls(tokens=2048, rows=2048, feature_bytes=2 * 2**30)
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
        """These budgets, made smaller where stated memory asks for it.

        They follow from the statement and the model alone, never from what is free: equal commands cut equal batches,
        and so compute equal numbers.

        Args:
            config: the model's sizes.
            device: where it runs.
            host_bytes: memory of the host that the process should stay within; None for no statement.
            device_bytes: memory of the device; None for no statement.
            item_bytes: bytes of a number of the encoder.
            batches: batches that are computed at the same time.

        Raises:
            ListconError: for a device budget on a device without memory of its own.
        """
        on_host = device.type == "cpu"
        if device_bytes is not None and on_host:
            raise ListconError("a CPU has no memory of its own to give a device budget for: give the host budget")
        found = self
        held = [(host_bytes, _FEATURES, _BATCHES)] if on_host else [(device_bytes, _DEVICE_FEATURES, _DEVICE_BATCHES)]
        for stated, features, share in held:
            if stated is not None:
                token, row = _token_bytes(config, item_bytes), _row_bytes(config)
                found = replace(
                    found,
                    tokens=_least(found.tokens, stated * share / batches / token, _FEWEST_TOKENS),
                    rows=_least(found.rows, stated * share / batches / row, _FEWEST_ROWS),
                    feature_bytes=min(found.feature_bytes, int(stated * features)),
                )
        if host_bytes is not None:
            # A group's features, should they come from a file, and a chunk's on their way to it.
            feature = 4 * config.list_width
            found = replace(
                found,
                host_bytes=host_bytes,
                chunk_texts=_least(found.chunk_texts, host_bytes * _ROUNDS / 2 / feature, 32),
                group_passages=_least(found.group_passages, host_bytes * _ROUNDS / feature, _FEWEST_ROWS),
            )
        return found


def _least(usual: int, allowed: float, fewest: int) -> int:
    return min(usual, max(fewest, int(allowed)))


def _token_bytes(config: ListConConfig, item_bytes: int) -> int:
    """Bytes of a token on its way through an encoder layer: what is joined, attended, inner (twice), and four rows."""
    width = config.encoder.hidden_size
    return item_bytes * (4 * width + 2 * config.encoder.intermediate_size + 4 * width)


def _row_bytes(config: ListConConfig) -> int:
    """Bytes of a row on its way through a list layer, in float32."""
    return 4 * (8 * config.list_width + 2 * config.feedforward_width)
