"""ListConRanker, whole: encoder, projection, list transformer with ListAttention, score head.

Source: "ListConRanker: A Contrastive Text Reranker with Listwise Encoding" (arXiv 2501.07111) and the parameter
names of its published checkpoint, which the attributes here keep. Shapes in comments: N texts, T tokens, B lists,
P passages a list (padded to the longest), S = 1 + P rows a list (row 0 is the query), H encoder width, D list width.
"""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import MODEL_MAPPING, AutoModel, PreTrainedConfig, PreTrainedModel

QUERY_TAG, PASSAGE_TAG = 1, 0


@dataclass(frozen=True)
class ListConConfig:
    """The sizes of a ListConRanker. All of them follow from a checkpoint; none is a constant in code.

    Attributes:
        encoder: the encoder's own configuration (H = `hidden_size`), a BERT's in the published checkpoint; its head
            count is the list transformer's too.
        list_width: D, the width of the list transformer.
        list_layers: L, the number of its layers.
        feedforward_width: the inner width of its feed-forward blocks.
        list_dropout: the list transformer's dropout, which only training uses.
    """

    encoder: PreTrainedConfig
    list_width: int
    list_layers: int
    feedforward_width: int = 2048
    list_dropout: float = 0.1


class ListAttention(nn.Module):
    """Multi-head self-attention in which passages see the query and all passages, and the query sees itself alone."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Attend within lists, (B, S, D) -> (B, S, D); `valid` (B, S) is False where a row is padding, never row 0."""
        lists, rows, width = x.shape
        projected = functional.linear(x, self.in_proj_weight, self.in_proj_bias)  # (B, S, 3D)
        split = projected.view(lists, rows, 3, self.heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4)  # (B, heads, S, D/heads) each
        dropout = self.dropout if self.training else 0.0
        passages = functional.scaled_dot_product_attention(
            query[:, :, 1:], key, value, attn_mask=valid[:, None, None, :], dropout_p=dropout
        )  # (B, heads, P, D/heads)
        # A softmax over one key is 1: what the query, seeing itself alone, attends to is its own value.
        mixed = torch.cat([value[:, :, :1], passages], dim=2)  # (B, heads, S, D/heads)
        attended: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(lists, rows, width))
        return attended


class ListTransformerLayer(nn.Module):
    """A post-norm transformer encoder layer (erf-GELU) around ListAttention."""

    def __init__(self, width: int, heads: int, feedforward_width: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = ListAttention(width, heads, dropout)
        self.linear1 = nn.Linear(width, feedforward_width)
        self.linear2 = nn.Linear(feedforward_width, width)
        self.norm1 = nn.LayerNorm(width, eps=1e-5)
        self.norm2 = nn.LayerNorm(width, eps=1e-5)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Transform rows (B, S, D) of lists whose padding `valid` (B, S) marks as False."""
        x = self.norm1(x + self.dropout(self.self_attn(x, valid)))
        inner = self.dropout(functional.gelu(self.linear1(x)))  # (B, S, feedforward_width)
        transformed: Tensor = self.norm2(x + self.dropout(self.linear2(inner)))
        return transformed


class ListTransformer(nn.Module):
    """The stack of layers that lets the passages of one query be compared. It knows no positions."""

    def __init__(self, config: ListConConfig) -> None:
        super().__init__()
        sizes = (config.list_width, config.encoder.num_attention_heads, config.feedforward_width, config.list_dropout)
        self.layers = nn.ModuleList(ListTransformerLayer(*sizes) for _ in range(config.list_layers))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Transform rows (B, S, D) of lists whose padding `valid` (B, S) marks as False."""
        for layer in self.layers:
            x = layer(x, valid)
        return x


class QueryEmbedding(nn.Module):
    """Tags the query row and the passage rows of a list, then normalises."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_embedding = nn.Embedding(2, width)
        self.layerNorm = nn.LayerNorm(width, eps=1e-5)

    def forward(self, features: Tensor) -> Tensor:
        """Tag and normalise the rows of lists, (B, S, D) -> (B, S, D)."""
        tags = torch.full(features.shape[1:2], PASSAGE_TAG, device=features.device)  # (S,)
        tags[:1].fill_(QUERY_TAG)  # `tags[0] = ...` would copy a number to the device, and wait for it
        tagged: Tensor = self.layerNorm(features + self.query_embedding(tags))
        return tagged


class ListConModel(nn.Module):
    """The whole ranker on tensors: texts' tokens to features, lists of features to logits.

    Raises:
        ValueError: when the encoder's head count does not divide the list width.
    """

    def __init__(self, config: ListConConfig) -> None:
        super().__init__()
        if config.list_width % config.encoder.num_attention_heads:
            raise ValueError(
                f"the list width {config.list_width} is not a multiple of the encoder's "
                f"{config.encoder.num_attention_heads} attention heads"
            )
        self.config = config
        width = config.list_width
        self.encoder = new_encoder(config.encoder)
        self.linear_in_embedding = nn.Linear(config.encoder.hidden_size, width)
        self.query_embedding = QueryEmbedding(width)
        self.list_transformer = ListTransformer(config)
        self.linear_score1 = nn.Linear(2 * width, 1)
        self.linear_score2 = nn.Linear(2 * width, width)
        self.linear_score3 = nn.Linear(2 * width, width)

    def features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode texts (encoder, mean over the tokens, projection): ids and mask (N, T) -> (N, D)."""
        pooled = self.pool(input_ids, attention_mask)
        # With dtype bfloat16 the encoder alone is in it.
        projected: Tensor = self.linear_in_embedding(pooled.to(self.linear_in_embedding.weight.dtype))
        return projected

    def pool(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The encoder's part of `features`: the mean of the tokens' vectors, (N, H)."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (N, T, H)
        weights = attention_mask.unsqueeze(-1).float()  # (N, T, 1); the mean is summed in float32
        mean: Tensor = (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)
        return mean.to(hidden.dtype)

    def logits(self, features: Tensor, valid: Tensor) -> Tensor:
        """Score the passages of lists: features, query first (B, S, D) -> logits (B, P), whose sigmoid is the score.

        `valid` (B, S) is False where a row is padding; the logits there have no meaning.
        """
        pairs = torch.cat([self._own(features), self._compared(features, valid)], dim=-1)  # (B, P, 2D)
        scored: Tensor = self.linear_score1(pairs)
        return scored.squeeze(-1)  # (B, P)

    def pointwise_logits(self, features: Tensor) -> Tensor:
        """The part of `logits` that does not depend on the other passages, (B, S, D) -> (B, P) in float32.

        It is the same in every round of iterative inference. `pointwise_logits + listwise_logits` are the logits
        without the bias of `linear_score1`; both are float32 in every dtype, so that their sum is rounded once.
        """
        weight, _ = self.linear_score1.weight.float().chunk(2, dim=1)  # (1, D)
        return functional.linear(self._own(features).float(), weight).squeeze(-1)

    def listwise_logits(self, features: Tensor, valid: Tensor) -> Tensor:
        """The part of `logits` that comes from the comparison within the list, (B, S, D) -> (B, P) in float32."""
        _, weight = self.linear_score1.weight.float().chunk(2, dim=1)  # (1, D)
        return functional.linear(self._compared(features, valid).float(), weight).squeeze(-1)

    def _own(self, features: Tensor) -> Tensor:
        return functional.relu(_on_pairs(self.linear_score2, features))  # (B, P, D)

    def _compared(self, features: Tensor, valid: Tensor) -> Tensor:
        rows = self.list_transformer(self.query_embedding(features), valid)  # (B, S, D)
        return functional.relu(_on_pairs(self.linear_score3, rows))  # (B, P, D)


def new_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """An encoder of the architecture that a configuration names, in float32, without a pooler where it has one."""
    model_class: Any = MODEL_MAPPING[type(config)]
    accepted = inspect.signature(model_class).parameters
    options = {"add_pooling_layer": False} if "add_pooling_layer" in accepted else {}
    auto_model: Any = AutoModel
    encoder: PreTrainedModel = auto_model.from_config(config, dtype=torch.float32, **options)
    return encoder


def max_tokens(encoder: nn.Module) -> int | None:
    """How many tokens an encoder has positions for; None when nothing bounds them.

    RoBERTa counts positions from its padding token's id on, so that 514 positions are 512 tokens.
    """
    for name, module in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    stated: int | None = getattr(encoder.config, "max_position_embeddings", None)
    return stated


def _on_pairs(linear: nn.Linear, rows: Tensor) -> Tensor:
    """Apply Linear(2D, E) to [query ; passage] for every passage: (B, S, D) -> (B, P, E).

    The weight is split into its query half and its passage half, so the query's part is computed once a list.
    """
    query_half, passage_half = linear.weight.chunk(2, dim=1)  # (E, D) each
    return functional.linear(rows[:, 1:], passage_half) + functional.linear(rows[:, :1], query_half, linear.bias)
