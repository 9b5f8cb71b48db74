"""From lists of texts to lists of numbers: every distinct text of a run gets one index, whatever lists it stands in."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from listcon_eval.errors import ListconError


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
    """Index the distinct texts of lists.

    Args:
        queries: one query a list.
        passages: the passages of each list.
        names: what messages call each list's query; by default its place and text.

    Returns:
        The distinct texts, and the lists over their indices.

    Raises:
        ListconError: for an empty query, a list without passages or a text that is not a string, naming the query.
    """
    indices: dict[str, int] = {}
    lists: list[IndexedList] = []
    for place, (query, texts) in enumerate(zip(queries, passages, strict=True)):
        name = names[place] if names is not None else f"query {place} ({_shortened(query)})"
        check_list(name, query, texts)
        row = np.fromiter((indices.setdefault(text, len(indices)) for text in texts), dtype=np.int64, count=len(texts))
        _, first, inverse = np.unique(row, return_index=True, return_inverse=True)
        lists.append(
            IndexedList(
                name,
                indices.setdefault(query, len(indices)),
                row,
                first[inverse] if len(first) < len(row) else None,
            )
        )
    return list(indices), lists


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
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise ListconError(
                f"{name}: passage {position} is a {type(text).__name__} ({_shortened(text)}); a passage is a string"
            )
    for text in (query, *texts):
        if not _is_unicode(text):
            raise ListconError(f"{name}: a text is no valid Unicode and cannot be tokenised: {_shortened(text)}")


def _is_unicode(text: object) -> bool:
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return False
    return True


def _shortened(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
