"""ListConRanker, whole: encoder, projection, list transformer with ListAttention, score head.

Source: "ListConRanker: A Contrastive Text Reranker with Listwise Encoding" (arXiv 2501.07111) and the parameter
names of its published checkpoint, which the attributes here keep. Shapes in comments: N texts, T tokens, B lists,
P passages a list (padded to the longest), S = 1 + P rows a list (row 0 is the query), H encoder width, D list width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, BertModel

QUERY_TAG, PASSAGE_TAG = 1, 0


@dataclass(frozen=True)
class ListConConfig:
    """The sizes of a ListConRanker. All of them follow from a checkpoint; none is a constant in code.

    Attributes:
        encoder: the encoder's own configuration (H = `hidden_size`); its head count is the list transformer's too.
        list_width: D, the width of the list transformer.
        list_layers: L, the number of its layers.
        feedforward_width: the inner width of its feed-forward blocks.
        list_dropout: the list transformer's dropout, which only training uses.
    """

    encoder: BertConfig
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
        """Attend within each list.

        Args:
            x: rows of B lists, (B, S, D).
            valid: False where a row is padding, (B, S); row 0 is always valid.

        Returns:
            (B, S, D); rows of padding hold numbers without meaning.
        """
        lists, rows, width = x.shape
        projected = functional.linear(x, self.in_proj_weight, self.in_proj_bias)  # (B, S, 3D)
        query, key, value = projected.view(lists, rows, 3, self.heads, -1).permute(
            2, 0, 3, 1, 4
        )  # (B, heads, S, D/heads)
        passages = functional.scaled_dot_product_attention(
            query[:, :, 1:],
            key,
            value,
            attn_mask=valid[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
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
        self.layers = nn.ModuleList(
            ListTransformerLayer(
                config.list_width,
                config.encoder.num_attention_heads,
                config.feedforward_width,
                config.list_dropout,
            )
            for _ in range(config.list_layers)
        )

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
        tags[0] = QUERY_TAG
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
        self.encoder = BertModel(config.encoder, add_pooling_layer=False)
        self.linear_in_embedding = nn.Linear(config.encoder.hidden_size, width)
        self.query_embedding = QueryEmbedding(width)
        self.list_transformer = ListTransformer(config)
        self.linear_score1 = nn.Linear(2 * width, 1)
        self.linear_score2 = nn.Linear(2 * width, width)
        self.linear_score3 = nn.Linear(2 * width, width)

    def features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode texts one by one: BERT, mean over the tokens, projection.

        Args:
            input_ids: token ids, padded, (N, T).
            attention_mask: 1 for tokens, 0 for padding, (N, T).

        Returns:
            One feature a text, (N, D).
        """
        pooled = self.pool(input_ids, attention_mask)
        # The encoder may be in a coarser format than the projection.
        projected: Tensor = self.linear_in_embedding(pooled.to(self.linear_in_embedding.weight.dtype))
        return projected

    def pool(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The encoder's part of `features`, (N, H): all that can be kept while only the rest is trained."""
        return mean_over_tokens(
            self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state, attention_mask
        )

    def logits(self, features: Tensor, valid: Tensor) -> Tensor:
        """Score the passages of lists.

        Args:
            features: the features of B lists, query first, padded, (B, S, D).
            valid: False where a row is padding, (B, S).

        Returns:
            One logit a passage, (B, P); a score is its sigmoid. Those of padding hold numbers without meaning.
        """
        scored: Tensor = self.linear_score1(torch.cat([self._before(features), self._after(features, valid)], dim=-1))
        return scored.squeeze(-1)  # (B, P)

    def logits_before(self, features: Tensor) -> Tensor:
        """The part of `logits` that no other passage has a share in: the same in every round, (B, S, D) -> (B, P).

        In float32, as is `logits_after`: their sum is rounded once, as the one product in `logits` is.
        """
        weight, _ = self.linear_score1.weight.float().chunk(2, dim=1)  # (1, D)
        return functional.linear(self._before(features).float(), weight, self.linear_score1.bias.float()).squeeze(-1)

    def logits_after(self, features: Tensor, valid: Tensor) -> Tensor:
        """The part of `logits` that follows from the comparison within the list, (B, S, D) -> (B, P) in float32."""
        _, weight = self.linear_score1.weight.float().chunk(2, dim=1)  # (1, D)
        return functional.linear(self._after(features, valid).float(), weight).squeeze(-1)

    def _before(self, features: Tensor) -> Tensor:
        return functional.relu(_on_pairs(self.linear_score2, features))  # (B, P, D)

    def _after(self, features: Tensor, valid: Tensor) -> Tensor:
        compared = self.list_transformer(self.query_embedding(features), valid)  # (B, S, D)
        return functional.relu(_on_pairs(self.linear_score3, compared))  # (B, P, D)


def mean_over_tokens(hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The mean of the tokens' vectors, (N, T, H), where the mask, (N, T), is 1: (N, H), summed in float32."""
    weights = attention_mask.unsqueeze(-1).float()  # (N, T, 1)
    mean = (hidden.float() * weights).sum(dim=1) / weights.sum(dim=1)
    return mean.to(hidden.dtype)


def _on_pairs(linear: nn.Linear, rows: Tensor) -> Tensor:
    """Apply Linear(2D, E) to [query ; passage] for every passage: (B, S, D) -> (B, P, E).

    The weight is split into its query half and its passage half, so the query's part is computed once a list.
    """
    query_half, passage_half = linear.weight.chunk(2, dim=1)  # (E, D) each
    return functional.linear(rows[:, 1:], passage_half) + functional.linear(rows[:, :1], query_half, linear.bias)
