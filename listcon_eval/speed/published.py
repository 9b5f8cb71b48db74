"""The published procedure written plainly: what every speed-up is a ratio to, and what rankings are held against.

Source: the inference code described on the model card of ByteDance/ListConRanker. One query at a time, its texts
padded to its longest, transformers' own BertModel; iterative inference encodes every surviving text again in every
round. Scores are kept by position, where the published code keeps them by text.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from listcon_eval.model import ListConModel
from listcon_eval.records import Mode, Precision


class PublishedProcedure:
    """Ranks one list at a time with a model, as published.

    Args:
        model: the model, on its device and in its precision.
        tokenizer: its tokenizer.
        precision: "published" ranks by the sigmoid in the model's own format, the others by the logit, its sigmoid
            taken in float64.
        max_length: tokens a text is cut to.
        keep_features: whether to encode a query's texts once, instead of in every round.
    """

    def __init__(
        self,
        model: ListConModel,
        tokenizer: PreTrainedTokenizerFast,
        *,
        precision: Precision,
        max_length: int,
        keep_features: bool = False,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._precision = precision
        self._max_length = max_length
        self._keep_features = keep_features

    @torch.inference_mode()
    def rank(self, query: str, passages: Sequence[str], mode: Mode) -> NDArray[np.float64]:
        """The final scores of a list's passages, (P,); the higher ranks first."""
        final = np.empty(len(passages))
        alive = np.arange(len(passages))
        kept = self._features([query, *passages]) if self._keep_features else None
        number = 0
        while len(alive):
            if kept is None:
                features = self._features([query, *(passages[place] for place in alive.tolist())])
            else:
                features = kept[[0, *(alive + 1)]]
            scores = self._scores(features)
            leaving = np.ones(len(alive), dtype=bool)
            if mode == "iterative" and len(alive) > 20:
                lowest = max(10, math.ceil(0.2 * len(alive)))
                leaving = scores <= np.sort(scores)[lowest - 1]
            final[alive[leaving]] = scores[leaving] + number
            alive = alive[~leaving]
            number += 1
        return final

    def _features(self, texts: list[str]) -> Tensor:
        """The features of texts, padded to the longest, (N, D)."""
        batch = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_length, return_tensors="pt"
        ).to(self._model.linear_in_embedding.weight.device)
        return self._model.features(batch["input_ids"], batch["attention_mask"])

    def _scores(self, features: Tensor) -> NDArray[np.float64]:
        """The scores of one list's passages, whose features follow the query's, (1 + P, D) -> (P,)."""
        valid = torch.ones(1, len(features), dtype=torch.bool, device=features.device)
        logits = self._model.logits(features.unsqueeze(0), valid)[0]
        scores = torch.sigmoid(logits.double() if self._precision != "published" else logits)
        numbers: NDArray[np.float64] = scores.double().cpu().numpy()
        return numbers
