"""The encoder's pooled outputs: of a few texts with their gradient, or of all texts once."""

from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from listcon_eval.inference.budgets import Budgets
from listcon_eval.inference.features import FeatureStore
from listcon_eval.model import ListConModel
from listcon_eval.progress import Progress
from listcon_eval.train.settings import Autocast
from listcon_eval.train.tokens import TokenBatch, TokenRows

_TOKENS_ON_CPU = 4096
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast_on(device: torch.device, autocast: Autocast) -> AbstractContextManager[object]:
    """The context in which matrix products run in the wanted format."""
    return torch.autocast(device.type, dtype=_DTYPES.get(autocast), enabled=autocast != "none")


class Pooling:
    """Runs a model's encoder over tokenised texts, in batches of texts of similar length.

    Args:
        model: the model, on its device.
        device: that device.
        autocast: the format of matrix products.
    """

    def __init__(self, model: ListConModel, device: torch.device, autocast: Autocast) -> None:
        self.model = model
        self.device = device
        self.autocast = autocast
        self.budgets = Budgets.for_device(device)
        if device.type == "cpu":  # dropout follows the batches: what suits inference best must not change a training
            self.budgets = replace(self.budgets, tokens=_TOKENS_ON_CPU)

    def batch(self, batch: TokenBatch) -> Tensor:
        """The pooled outputs of one batch, (n, H), in float32."""
        with autocast_on(self.device, self.autocast):
            return self.model.pool(batch.input_ids, batch.attention_mask).float()

    def batches(self, texts: TokenRows, indices: NDArray[np.int64]) -> list[TokenBatch]:
        """The texts at `indices` in batches that the device's token budget allows."""
        return list(texts.batches(indices, self.budgets.tokens, self.device))

    def some(self, texts: TokenRows, indices: NDArray[np.int64]) -> Tensor:
        """The pooled outputs of the texts at `indices`, (n, H), with their gradient."""
        batches = self.batches(texts, indices)
        pooled = torch.cat([self.batch(batch) for batch in batches])
        return pooled[torch.from_numpy(np.argsort(np.concatenate([batch.places for batch in batches])))]

    @torch.no_grad()
    def all(self, texts: TokenRows, progress: Progress) -> FeatureStore:
        """The pooled outputs of all texts, (N, H), without dropout: the encoder is left in evaluation mode."""
        self.model.encoder.train(False)
        store = FeatureStore(
            len(texts), self.model.config.encoder.hidden_size, torch.float32, self.device, self.budgets.feature_bytes
        )
        done = 0
        for batch in texts.batches(np.arange(len(texts)), self.budgets.tokens, self.device):
            store.put(batch.places, self.batch(batch))
            done += len(batch.places)
            progress("encode", done, len(texts))
        return store
