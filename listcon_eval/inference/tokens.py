"""Texts to numbers: lists over distinct texts, and texts to rows of token ids. It imports no torch."""

import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from listcon_eval.errors import ListconError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# Characters that BERT's normalizer surely sets apart with spaces: the ideographs of the two large blocks.
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")
# A text gives about a token a character. The first cut leaves this many characters more, for those that give no token
# of their own (spaces, letters inside words).
_SLACK = 48
_TEXTS_AT_ONCE = 128


class IndexedList(NamedTuple):
    """One query and its P passages, as indices of distinct texts.

    Attributes:
        name: how messages name the list's query.
        query: the query's index.
        passages: the passages' indices, (P,).
        first: for each passage the position of the first one with the same text, (P,); None without equal texts.
    """

    name: str
    query: int
    passages: NDArray[np.int64]
    first: NDArray[np.int64] | None


def index_texts(
    queries: Sequence[str], passages: Sequence[Sequence[str]], names: Sequence[str] | None = None
) -> tuple[list[str], list[IndexedList]]:
    """The distinct texts of lists, and the lists over their indices. Messages call a query by its name in `names`.

    Raises:
        ListconError: for an empty query, a list without passages or a text that is not a string, naming the query.
    """
    indices: dict[str, int] = {}

    def index(text: str) -> int:
        return indices.setdefault(text, len(indices))

    lists: list[IndexedList] = []
    for place, (query, texts) in enumerate(zip(queries, passages, strict=True)):
        name = names[place] if names is not None else f"query {place} ({_shortened(query)})"
        lists.append(index_list(name, query, texts, index))
    return list(indices), lists


def index_list(name: str, query: str, texts: Sequence[str], index: Callable[[str], int]) -> IndexedList:
    """One list over the indices that `index` gives distinct texts.

    Raises:
        ListconError: as `check_list`.
    """
    check_list(name, query, texts)
    row = np.fromiter(map(index, texts), dtype=np.int64, count=len(texts))
    _, first, inverse = np.unique(row, return_index=True, return_inverse=True)
    return IndexedList(name, index(query), row, first[inverse] if len(first) < len(row) else None)


def over_own_texts(lists: Sequence[IndexedList]) -> tuple[NDArray[np.int64], list[IndexedList]]:
    """The indices of the texts that lists hold, rising, (N,); and the lists over the places of these."""
    own = np.unique(np.concatenate([np.append(row.passages, row.query) for row in lists]))
    return own, [
        row._replace(query=int(np.searchsorted(own, row.query)), passages=np.searchsorted(own, row.passages))
        for row in lists
    ]


def check_list(name: str, query: object, texts: Sequence[object]) -> None:
    """Raise ListconError, naming the query, when a list cannot be ranked."""
    if not isinstance(query, str):
        raise ListconError(f"{name}: the query is a {type(query).__name__}; a query is a string")
    if not query.strip():
        raise ListconError(f"{name}: the query is empty; give it a text, or leave its list out")
    if isinstance(texts, str):
        raise ListconError(f"{name}: its passages are one string ({_shortened(texts)}); give a list of strings")
    if not texts:
        raise ListconError(f"{name} has no passages: a list needs at least one to rank")
    for position, text in enumerate((query, *texts), start=-1):
        if not isinstance(text, str):
            raise ListconError(
                f"{name}: passage {position} is a {type(text).__name__} ({_shortened(text)}); a passage is a string"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ListconError(
                f"{name}: a text is not valid Unicode and cannot be tokenised: {_shortened(text)}"
            ) from error


def _shortened(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


class TokenCounts(NamedTuple):
    """How many texts have more than `max_length` tokens, and of the tokens read, without special ones, are unknown."""

    truncated: int = 0
    tokens: int = 0
    unknown: int = 0


class TextTokenizer:
    """Tokenises texts and cuts them to a number of tokens, over a copy of a tokenizer. Threads may share one.

    The first 512 tokens of a long text do not need all of it. BERT's tokenizer makes every ideograph a word of its own,
    so the text before one gives the same tokens whatever follows. A long text is therefore cut before an ideograph; if
    that gave too few tokens, it is tokenised in full. The ids are those of the whole text in every case.

    Args:
        tokenizer: the tokenizer; its own settings are neither used nor changed.
        max_length: tokens a text is cut to, the special ones counted.

    Attributes:
        cuts: whether the tokenizer is one for which this holds; texts are always tokenised in full otherwise.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerFast", max_length: int) -> None:
        self.max_length = max_length
        content = tokenizer.backend_tokenizer.to_str()
        self.cuts = _sets_ideographs_apart(json.loads(content))
        self._tokenizer = Tokenizer.from_str(content)
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.no_padding()
        self._special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self._unknown = -1 if tokenizer.unk_token_id is None else tokenizer.unk_token_id

    def __call__(self, texts: Sequence[str]) -> tuple[list[NDArray[np.int32]], TokenCounts]:
        """One row of at most `max_length` token ids per text, special tokens included, and what was counted."""
        starts = list(map(self._start_of, texts))
        rows, truncated = self._tokenized(starts)
        is_start = [len(start) < len(text) for start, text in zip(starts, texts, strict=True)]
        short = [place for place, row in enumerate(rows) if is_start[place] and len(row) < self.max_length]
        if short:
            full, were_truncated = self._tokenized([texts[place] for place in short])
            for place, row, was in zip(short, full, were_truncated, strict=True):
                rows[place], truncated[place], is_start[place] = row, was, False
        # The rest of a text that was cut has at least one token: the ideograph it begins with.
        cut = sum(was or start for was, start in zip(truncated, is_start, strict=True))
        tokens = sum(max(0, len(row) - self._special) for row in rows)
        unknown = sum(int(np.count_nonzero(row == self._unknown)) for row in rows)
        return rows, TokenCounts(cut, tokens, unknown)

    def _tokenized(self, texts: list[str]) -> tuple[list[NDArray[np.int32]], list[bool]]:
        rows: list[NDArray[np.int32]] = []
        truncated: list[bool] = []
        # A few at a time: the tokenizer returns 30 times as much as the ids.
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            for encoding in self._tokenizer.encode_batch_fast(texts[start : start + _TEXTS_AT_ONCE]):
                rows.append(np.array(encoding.ids, dtype=np.int32))
                truncated.append(bool(encoding.overflowing))
        return rows, truncated

    def _start_of(self, text: str) -> str:
        """The text up to an ideograph behind the characters that are needed; all of it where there is none."""
        found = _IDEOGRAPH.search(text, self.max_length + _SLACK) if self.cuts else None
        return text[: found.start()] if found else text


def _sets_ideographs_apart(content: dict[str, Any]) -> bool:
    """Whether a tokenizer, as its JSON says, tokenises what stands before an ideograph without looking beyond it."""
    normalizer = content.get("normalizer") or {}
    return (
        normalizer.get("type") == "BertNormalizer"
        and normalizer.get("handle_chinese_chars") is True
        and (content.get("pre_tokenizer") or {}).get("type") == "BertPreTokenizer"
        and (content.get("model") or {}).get("type") == "WordPiece"
        # Added tokens are looked for in the whole text, before words are set apart.
        and not any(
            token.get("single_word") or not token.get("content", "").isascii()
            for token in content.get("added_tokens") or ()
        )
    )


def pad(rows: Sequence[NDArray[Any] | Sequence[int]], filler: int = 0) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows of different lengths as one array, filled up at their ends: (N, longest), and which entries are theirs."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    own = np.arange(lengths.max(initial=0)) < lengths[:, None]
    padded = np.full(own.shape, filler, dtype=np.int64)
    padded[own] = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows]) if len(rows) else ()
    return padded, own
