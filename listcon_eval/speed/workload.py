"""What is ranked in a measurement: made-up lists in the shape of a task, or lists from a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from listcon_eval.errors import ListconError
from listcon_eval.speed.shapes import Shape

_TOPIC = 300  # characters that one text draws from
_SENTENCE = 12  # characters between two punctuation marks, about
_AT_ONCE = 500_000  # characters that are drawn at once, about


@dataclass(frozen=True)
class Workload:
    """Candidate lists to rank.

    Attributes:
        name: what the lists are, in a few words.
        queries: one query a list.
        passages: the passages of each list.
    """

    name: str
    queries: list[str]
    passages: list[list[str]]

    @property
    def documents(self) -> int:
        """Passages of all lists together."""
        return sum(map(len, self.passages))

    def distinct_texts(self) -> list[str]:
        """Every text that is to be encoded, once."""
        return list(dict.fromkeys([*self.queries, *(text for passages in self.passages for text in passages)]))

    def subset(self, count: int) -> list[int]:
        """The places of so many lists, spread evenly over the lists by size: what stands for all of them."""
        order = sorted(range(len(self.queries)), key=lambda place: len(self.passages[place]))
        count = min(count, len(order))
        return sorted(order[int((number + 0.5) * len(order) / count)] for number in range(count))

    def some(self, places: Sequence[int]) -> "Workload":
        """The lists at those places alone."""
        return Workload(
            self.name, [self.queries[place] for place in places], [self.passages[place] for place in places]
        )


def synthetic_workload(shape: Shape, *, scale: float = 1.0, seed: int = 0) -> Workload:
    """Make lists in a task's shape out of common Chinese characters, with its lengths, sizes and repeated documents.

    Args:
        shape: the task's shape.
        scale: the share of its queries to make, one at least; documents and distinct documents follow.
        seed: equal seeds make equal texts.

    Raises:
        ListconError: when the scale is not above 0.
    """
    if not scale > 0:
        raise ListconError(f"the scale is {scale}: give the share of a task's queries to make, such as 0.02")
    random = np.random.default_rng(seed)
    queries = max(1, round(shape.queries * scale))
    sizes = shape.candidates.draw(queries, random)
    documents = int(sizes.sum())
    distinct = max(1, round(documents * shape.distinct_documents / shape.documents))
    pool = _texts(shape.document_length.draw(distinct, random), random)
    # Every distinct document stands in some list; the rest of the places repeat some of them.
    places = np.concatenate([np.arange(distinct), random.integers(0, distinct, documents - distinct)])
    random.shuffle(places)
    parts = np.split(places, np.cumsum(sizes)[:-1])
    return Workload(
        shape.name,
        _texts(shape.query_length.draw(queries, random), random),
        [[pool[place] for place in part] for part in parts],
    )


def read_workload(path: Path) -> Workload:
    """Read lists in the layout of the original C-MTEB files: `query`, `positive`, `negative`.

    Raises:
        ListconError: when there is no such file, or its rows are of another layout.
    """
    from listcon_eval.data.original_layout import read_original

    if not path.exists():
        raise ListconError(f"no data at {path}: give a file (.jsonl, .jsonl.gz) with query, positive, negative")
    parts = read_original(path, "test")
    lists = [
        (query, [parts.documents[doc_id].text for doc_id in parts.top_ranked[query_id]])
        for query_id, query in parts.queries.items()
    ]
    return Workload(path.name, [query for query, _ in lists], [passages for _, passages in lists])


def _texts(lengths: NDArray[np.int64], random: np.random.Generator) -> list[str]:
    """Random texts of so many characters, each with a choice of characters of its own, as a topic has, and punctuation.

    Texts that all drew from one table would be alike in the mean over their tokens, and their scores nearly tied.
    """
    characters = _common_characters()
    # In blocks: the numbers that a character is drawn by take many times its memory.
    blocks = np.cumsum(lengths) // _AT_ONCE
    borders = np.flatnonzero(np.diff(blocks)) + 1
    return [text for block in np.split(lengths, borders) for text in _block(block, characters, random)]


def _block(lengths: NDArray[np.int64], characters: NDArray[np.uint32], random: np.random.Generator) -> list[str]:
    total = int(lengths.sum())
    starts = np.repeat(random.integers(0, len(characters), len(lengths)), lengths)
    # Cubed uniform numbers favour a few characters, as a text does.
    codes = characters[(starts + random.random(total) ** 3 * _TOPIC).astype(np.int64) % len(characters)]
    marks = random.random(total) < 1 / _SENTENCE
    codes[marks] = random.choice(np.array([ord(mark) for mark in ",。,、?"], dtype=np.uint32), int(marks.sum()))
    content = codes.astype("<u4").tobytes().decode("utf-32-le")
    ends = np.cumsum(lengths)
    return [content[end - length : end] for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)]


def _common_characters() -> NDArray[np.uint32]:
    """The 3,755 common characters of GB 2312's first level, as code points: BERT-Chinese has a token for each."""
    rows = (bytes([first, second]) for first in range(0xB0, 0xD8) for second in range(0xA1, 0xFF))
    return np.array([ord(pair.decode("gb2312")) for pair in rows if pair < b"\xd7\xfa"], dtype=np.uint32)
