"""The layout of a model that matches words, and what it makes of a text by its words alone.

`matching` gives a model's weights their tasks; here is what both it and training must agree on. Shapes in comments:
V tokens of the vocabulary, H and D the widths, n texts, W numbers of the words, M of the meaning.
"""

import math
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from listcon_eval.errors import ListconError
from listcon_eval.model import ListConModel
from listcon_eval.train.objectives import rows_of
from listcon_eval.train.tokens import TokenRows

CODE = 64  # numbers of a word's code
FILL = 36  # numbers that fill an embedding up
MARK = 2  # numbers of a mark: one and its negative, so that no mark changes a vector's mean
SCALE = 8.0  # the embeddings' length, in which a learning rate is small or large
CODE_SHARE = math.sqrt(0.1)  # of an embedding whose length is 1
# Attention on a repetition and on the marks, beside 1 for another word; and how much longer repetitions make a code.
SAME, ELSEWHERE, GAIN = 60.0, 3000.0, 300.0
MEANING_WEIGHT = 0.36  # of the cosine of two meanings, beside the words that two texts share
LEARNING_WEIGHT = 0.14  # the same in training: a meaning that counts less there learns to say more
LONG = 1000.0  # tokens of a passage that counts half: the longer, the more words are there by chance
_FASTER = 5.0  # than the meaning learn the words' weights, by the same learning rate
_ROOM = 0.95  # of what code and meaning leave of an embedding's length, a word may take


class Places(NamedTuple):
    """Where the parts are in an encoder's vector (H) and in a list's (D): half-open ranges.

    In both, `words` and then `meaning` come first: in an encoder's vector `meaning` is gathered in `[CLS]`, and
    `word_meaning` is the words' own.
    """

    words: slice
    meaning: slice
    word_meaning: slice
    code: slice
    cls: slice
    sep: slice
    fill: slice
    length: slice
    query: slice
    attention: slice
    reference: slice
    list_width: int

    @classmethod
    def of(cls, width: int, heads: int, meaning: int) -> "Places":
        """The places in an encoder of a width and head count.

        Raises:
            ListconError: when there is no room for them.
        """
        words = width - 2 * meaning - CODE - FILL - 2 * MARK
        head = width // heads
        if words < 1 or heads < 2 or head < max(CODE + 1, meaning):
            raise ListconError(
                f"an encoder of {width} numbers in {heads} heads is too small to begin by matching words: give it 2 "
                f"heads or more, each of {max(CODE + 1, meaning)} or more, and "
                f"{2 * meaning + CODE + FILL + 2 * MARK + 1} or more in all"
            )
        bounds = np.cumsum([0, words, meaning, meaning, CODE, MARK, MARK, FILL]).tolist()
        word, gathered, own, code, first, last, fill = (slice(start, end) for start, end in pairwise(bounds))
        # The last head of the list transformer looks at nothing, so the words and the meaning fit into the others.
        list_head = max(-(-(words + meaning) // (heads - 1)), -(-(words + meaning + 4 * MARK) // heads))
        length, query, attention, reference = (
            slice(words + meaning + MARK * place, words + meaning + MARK * (place + 1)) for place in range(4)
        )
        return cls(
            words=word,
            meaning=gathered,
            word_meaning=own,
            code=code,
            cls=first,
            sep=last,
            fill=fill,
            length=length,
            query=query,
            attention=attention,
            reference=reference,
            list_width=list_head * heads,
        )


class WordBags:
    """What a model that began by `start_matching` makes of a text, by its words alone: the encoder is not run.

    Inner products of two texts' vectors are about the logits of attention on the query. The gradient reaches the words'
    meaning, and how much each word counts; the directions of words stay.

    Args:
        model: the model.
        meaning: the width of the meaning, M.
        meaning_weight: of the cosine of two meanings, beside the words.

    Attributes:
        gains: what a step of training adds to the logarithm of each word's weight, by `_FASTER`, (V,). It is 0 in a
            step, and `absorb` makes it 0 again.
    """

    def __init__(self, model: ListConModel, meaning: int, meaning_weight: float = MEANING_WEIGHT) -> None:
        config = model.config.encoder
        tables: Any = model.encoder.embeddings
        self._places = Places.of(config.hidden_size, config.num_attention_heads, meaning)
        self._table: nn.Parameter = tables.word_embeddings.weight
        self._meaning_weight = meaning_weight
        self.gains = nn.Parameter(torch.zeros(len(self._table), device=self._table.device))
        projection = model.linear_in_embedding.weight.detach()
        meaning_scale = projection[self._places.meaning.start, self._places.meaning.start]
        words_scale = projection[self._places.words.start, self._places.words.start]
        self._usual = float(meaning_scale / words_scale) / math.sqrt(MEANING_WEIGHT)  # the norm of usual words

    def words(self, rows: TokenRows, indices: NDArray[np.int64]) -> Tensor:
        """The sum of the words of the texts at `indices`, (n, W), in units of the `[SEP]` mark's length."""
        tokens, starts, _, saturated = self._counted(rows, indices)
        return self._words(tokens, starts, saturated)

    def __call__(self, rows: TokenRows, indices: NDArray[np.int64]) -> Tensor:
        """Words and meaning of the texts at `indices`, (n, W + M), so that usual words have an inner product of 1."""
        tokens, starts, counts, saturated = self._counted(rows, indices)
        meaning = functional.normalize(_sums(self._table[:, self._places.word_meaning], tokens, starts, counts), dim=1)
        words = self._words(tokens, starts, saturated) / self._usual
        vectors = torch.cat([words, math.sqrt(self._meaning_weight) * meaning], dim=1)
        return vectors / (1 + torch.from_numpy(rows.lengths[indices]).to(vectors)[:, None] / LONG)

    @torch.no_grad()
    def absorb(self) -> None:
        """Take `gains` into the embeddings, and fill these up to one length again."""
        words, fill = self._table[:, self._places.words], self._table[:, self._places.fill]  # views
        others = self._table.square().sum(dim=1) - words.square().sum(dim=1) - fill.square().sum(dim=1)
        room = (SCALE**2 - others).clamp(min=0)  # (V,), 0 in marks
        words.mul_((_FASTER * self.gains).exp()[:, None])
        self.gains.zero_()
        words.mul_((_ROOM * room.sqrt() / words.norm(dim=1)).nan_to_num(1.0).clamp(max=1)[:, None])
        rest = (room - words.square().sum(dim=1)).clamp(min=0).sqrt()
        fill.copy_(filling(rest))

    def _words(self, tokens: Tensor, starts: Tensor, saturated: Tensor) -> Tensor:
        table = self._table.detach()[:, self._places.words] / SCALE
        gains = rows_of(self.gains[:, None], tokens).squeeze(1)
        return _sums(table, tokens, starts, saturated * (_FASTER * gains).exp())

    def _counted(self, rows: TokenRows, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Distinct tokens of all texts, where each text's start, their counts, and those saturated."""
        counted = count_words(rows, indices)
        tokens, starts, counts, saturated = (torch.from_numpy(part).to(self._table.device) for part in counted)
        return tokens, starts[:-1], counts, saturated


class WordCounts(NamedTuple):
    """The distinct tokens of n texts, one text after another; special tokens are left out.

    Attributes:
        tokens: all texts' tokens.
        starts: where each text's start, and the end of the last, (n + 1,).
        counts: how often each token is in its text.
        saturated: what the encoder makes of that number.
    """

    tokens: NDArray[np.int64]
    starts: NDArray[np.int64]
    counts: NDArray[np.float32]
    saturated: NDArray[np.float32]


def count_words(rows: TokenRows, indices: NDArray[np.int64]) -> WordCounts:
    """Count the distinct tokens of the texts at `indices`."""
    counted = [np.unique(rows.row(index)[1:-1], return_counts=True) for index in indices]
    sizes = np.array([len(tokens) for tokens, _ in counted])
    tokens = np.concatenate([tokens for tokens, _ in counted]).astype(np.int64)
    counts = np.concatenate([counts for _, counts in counted]).astype(np.float32)
    saturated = counts * _shrinking(counts, np.repeat(rows.lengths[indices], sizes).astype(np.float32))
    return WordCounts(tokens, np.concatenate([[0], np.cumsum(sizes)]), counts, saturated)


def signs(count: int) -> Tensor:
    """1, -1, 1, ... : their sum is 0."""
    return torch.tensor([1.0, -1.0]).repeat(count // 2)


def filling(lengths: Tensor) -> Tensor:
    """What fills embeddings up: numbers of mean 0, each row as long as is asked for, (V,) -> (V, FILL)."""
    return lengths[:, None] * signs(FILL).to(lengths) / math.sqrt(FILL)


def _sums(table: Tensor, tokens: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    return functional.embedding_bag(tokens, table, starts, mode="sum", per_sample_weights=weights)


def _shrinking(counts: NDArray[np.float32], lengths: NDArray[np.float32]) -> NDArray[np.float32]:
    """What LayerNorm after the first attention leaves of a token that occurs `counts` times among `lengths`."""
    found = counts * SAME / (counts * SAME + lengths + ELSEWHERE)
    return (1 / np.sqrt(1 - CODE_SHARE**2 + CODE_SHARE**2 * (1 + GAIN * found) ** 2)).astype(np.float32)
