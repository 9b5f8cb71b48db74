"""ListConRanker written a second time, slowly: one list at a time, every text encoded again in every round.

Nothing is shared with the package but the weights: torch's own TransformerEncoder with an explicit mask takes the
list part, transformers' BertModel one unpadded text at a time the encoder part. It can run in float64.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertModel, PreTrainedTokenizerFast

from listcon_eval.model import ListConModel


class Oracle:
    """Scores lists `[query, passage, ...]` with the weights of a model, in a number format of choice."""

    def __init__(
        self,
        model: ListConModel,
        tokenizer: PreTrainedTokenizerFast,
        dtype: torch.dtype,
        max_length: int = 512,
    ) -> None:
        self.tokenizer, self.max_length, self.dtype = tokenizer, max_length, dtype
        weights = {key: value.to(dtype) for key, value in model.state_dict().items()}
        self.weights = weights
        encoder = {key.removeprefix("encoder."): value for key, value in weights.items() if key.startswith("encoder.")}
        config: Any = model.config.encoder
        bert: nn.Module = BertModel(config, add_pooling_layer=False)
        bert.load_state_dict(encoder)
        self.bert = bert.to(dtype).eval()
        layer = nn.TransformerEncoderLayer(
            d_model=model.config.list_width,
            nhead=model.config.encoder.num_attention_heads,
            dim_feedforward=model.config.feedforward_width,
            activation="gelu",
            batch_first=True,
        )
        self.lists = nn.TransformerEncoder(layer, model.config.list_layers, enable_nested_tensor=False).to(dtype).eval()
        self.lists.load_state_dict(
            {
                key.removeprefix("list_transformer."): value
                for key, value in weights.items()
                if key.startswith("list_transformer.")
            }
        )

    def _linear(self, name: str, x: Tensor) -> Tensor:
        result: Tensor = x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        return result

    def _feature(self, text: str) -> Tensor:
        ids = torch.tensor([self.tokenizer(text, truncation=True, max_length=self.max_length)["input_ids"]])
        hidden = self.bert(input_ids=ids).last_hidden_state[0]
        return self._linear("linear_in_embedding", hidden.mean(dim=0))

    @torch.inference_mode()
    def score(self, query: str, passages: Sequence[str]) -> list[float]:
        """One probability a passage, all of them in one list."""
        f = torch.stack([self._feature(text) for text in (query, *passages)])
        tags = self.weights["query_embedding.query_embedding.weight"]
        tagged = f + torch.stack([tags[1], *[tags[0]] * len(passages)])
        norm = (
            self.weights["query_embedding.layerNorm.weight"],
            self.weights["query_embedding.layerNorm.bias"],
        )
        x = nn.functional.layer_norm(tagged, tagged.shape[-1:], *norm, eps=1e-5)
        blocked = torch.zeros(len(x), len(x), dtype=torch.bool)
        blocked[0, 1:] = True  # the query sees itself alone
        y = self.lists(x.unsqueeze(0), mask=blocked)[0]
        scores = []
        for i in range(1, len(x)):
            a = torch.relu(self._linear("linear_score2", torch.cat([f[0], f[i]])))
            b = torch.relu(self._linear("linear_score3", torch.cat([y[0], y[i]])))
            logit = self._linear("linear_score1", torch.cat([a, b]))
            # float16 is the published procedure: the logit is rounded to float16, and so is its sigmoid.
            scores.append(float(torch.sigmoid(logit if self.dtype == torch.float16 else logit.double())))
        return scores

    def iterative(self, query: str, passages: Sequence[str]) -> list[float]:
        """Iterative inference by positions, with the reference's rule for ties."""
        alive = list(range(len(passages)))
        final = [math.nan] * len(passages)
        round_number = 0
        while len(alive) > 20:
            scores = dict(zip(alive, self.score(query, [passages[i] for i in alive]), strict=True))
            k = max(10, math.ceil(0.2 * len(alive)))
            limit = sorted(scores.values())[k - 1]
            for i in [i for i in alive if scores[i] <= limit]:
                final[i] = scores[i] + round_number
                alive.remove(i)
            round_number += 1
        if alive:
            for i, score in zip(alive, self.score(query, [passages[i] for i in alive]), strict=True):
                final[i] = score + round_number
        return final
