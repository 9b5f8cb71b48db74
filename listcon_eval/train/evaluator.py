"""Evaluation on held-out lists while a model is trained: the harness's own inference and `cmteb` measures."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from listcon_eval.inference.features import FeatureStore
from listcon_eval.inference.rounds import rank_features
from listcon_eval.inference.texts import index_texts
from listcon_eval.metrics import cmteb
from listcon_eval.progress import Progress
from listcon_eval.records import CandidateList, Mode, RankedList, ScoredList
from listcon_eval.train.pooling import Pooling
from listcon_eval.train.tokens import TokenisedTexts

_PROJECTED_AT_ONCE = 8192


class Evaluator:
    """One set of held-out lists, tokenised once.

    Args:
        name: what log and plot call it.
        lists: its candidate lists.
        tokenizer: the model's tokenizer.
        max_length: tokens a text is cut to.
        progress: told of texts tokenised and encoded.

    Raises:
        ListconError: for an empty query or a list without passages.
    """

    def __init__(
        self,
        name: str,
        lists: Sequence[CandidateList],
        tokenizer: PreTrainedTokenizerFast,
        max_length: int,
        progress: Progress,
    ) -> None:
        self.name = name
        self._lists = lists
        texts, self._indexed = index_texts(
            [row.query for row in lists], [row.passages for row in lists], [row.query_id for row in lists]
        )
        self._texts = TokenisedTexts(texts, tokenizer, max_length, progress)
        self._progress = progress
        self._kept: FeatureStore | None = None

    def map_of_lists(self, pooling: Pooling, mode: Mode, *, frozen: bool) -> float:
        """MAP by the model's scores.

        Args:
            pooling: the model, which is left in evaluation mode.
            mode: the inference mode.
            frozen: whether the encoder is still as in the calls before that said so: its outputs are kept then.

        Raises:
            ListconError: when a score is not a number, naming the query.
        """
        pooling.model.eval()
        pooled = self._kept if frozen and self._kept is not None else pooling.all(self._texts, self._progress)
        self._kept = pooled if frozen else None
        ranked = rank_features(
            pooling.model,
            self._projected(pooling, pooled),
            self._indexed,
            mode=mode,
            precision="precise",
            budgets=pooling.budgets,
        )
        return self._mean(ranked, mode)

    def map_of_embeddings(self, pooling: Pooling) -> float:
        """MAP by the cosine similarity of the features: what stage 0 trains."""
        pooling.model.eval()
        features = self._projected(pooling, pooling.all(self._texts, self._progress))
        ranked = []
        for row in self._indexed:
            query = functional.normalize(features.get(np.array([row.query])), dim=1)  # (1, D)
            passages = functional.normalize(features.get(row.passages), dim=1)  # (P, D)
            scores = (passages @ query.T).squeeze(1).tolist()
            ranked.append(RankedList(tuple(scores), (0,) * len(scores)))
        return self._mean(ranked, "conventional")

    def _projected(self, pooling: Pooling, pooled: FeatureStore) -> FeatureStore:
        """The features of the texts from the encoder's outputs, (N, H) -> (N, D)."""
        model = pooling.model
        features = FeatureStore(
            len(self._texts), model.config.list_width, torch.float32, pooling.device, pooling.budgets.feature_bytes
        )
        with torch.inference_mode():
            for start in range(0, len(self._texts), _PROJECTED_AT_ONCE):
                indices = np.arange(start, min(len(self._texts), start + _PROJECTED_AT_ONCE))
                features.put(indices, model.linear_in_embedding(pooled.get(indices)))
        return features

    def _mean(self, ranked: Sequence[RankedList], mode: Mode) -> float:
        scored = [
            ScoredList(row.query_id, row.doc_ids, entry.scores, entry.rounds)
            for row, entry in zip(self._lists, ranked, strict=True)
        ]
        return cmteb.evaluate(self._lists, scored, mode).means["map"]
