"""What is ranked in a measurement: synthetic lists in the shape of an official task, or lists from a file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from listcon_eval.errors import ListconError, count_of

_TOPIC = 300  # characters that one text draws from
_SENTENCE = 12  # mean number of characters between two punctuation marks
_BLOCK = 500_000  # characters drawn at once: the random numbers take many times the memory of the text


class Distribution(NamedTuple):
    """A log-normal distribution of whole numbers, cut at bounds; `sigma` is the logarithm's standard deviation."""

    min: int
    mean: float
    max: int
    sigma: float

    def draw(self, count: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Draw `count` numbers, (count,), with the stated mean up to rounding."""
        drawn = np.exp(random.normal(0.0, self.sigma, count))
        for _ in range(20):  # cutting at the bounds moves the mean: correct and cut again
            drawn = np.clip(drawn * (self.mean / drawn.mean()), self.min, self.max)
        return np.rint(drawn).astype(np.int64)


class Shape(NamedTuple):
    """The shape of one task's data; lengths in characters."""

    queries: int
    documents: int
    distinct_documents: int
    candidates: Distribution
    document_length: Distribution
    query_length: Distribution


# From mteb's descriptive statistics of the official data. They have no deviations: each sigma is chosen to give about
# the number of tokens and the padding that the task is known to have.
SHAPES = {
    "CMedQAv1-reranking": Shape(
        1000,
        100_000,
        62_326,
        candidates=Distribution(100, 100, 100, 0),
        document_length=Distribution(5, 106.6, 265, 0.45),
        query_length=Distribution(3, 55.7, 505, 0.45),
    ),
    "CMedQAv2-reranking": Shape(
        1000,
        100_000,
        74_473,
        candidates=Distribution(100, 100, 100, 0),
        document_length=Distribution(11, 100.6, 264, 0.45),
        query_length=Distribution(11, 48.8, 153, 0.45),
    ),
    "MMarcoReranking": Shape(
        100,
        100_026,
        98_057,
        candidates=Distribution(1000, 1000.26, 1002, 0),
        document_length=Distribution(13, 123.8, 803, 0.45),
        query_length=Distribution(4, 11.4, 61, 0.45),
    ),
    "T2Reranking": Shape(
        5908,
        97_422,
        96_331,
        candidates=Distribution(2, 16.5, 335, 0.8),
        document_length=Distribution(1, 840.8, 120_026, 0.8),
        query_length=Distribution(4, 10.9, 29, 0.45),
    ),
}


@dataclass(frozen=True)
class Workload:
    """Candidate lists to rank: what they are in a few words, and each one's query and passages."""

    name: str
    queries: list[str]
    passages: list[list[str]]

    @property
    def size(self) -> int:
        """The number of passages in all lists."""
        return sum(map(len, self.passages))

    @property
    def in_words(self) -> str:
        """Its size in words."""
        return f"{count_of(len(self.queries), 'query')}, {count_of(self.size, 'passage')}"

    def distinct_texts(self) -> list[str]:
        """Every text that has to be encoded, once."""
        return list(dict.fromkeys([*self.queries, *(text for passages in self.passages for text in passages)]))

    def sample(self, count: int) -> list[int]:
        """The places of at most `count` lists, spread evenly over the lists sorted by size."""
        order = sorted(range(len(self.queries)), key=lambda place: len(self.passages[place]))
        count = min(count, len(order))
        return sorted(order[int((number + 0.5) * len(order) / count)] for number in range(count))

    def subset(self, places: Sequence[int]) -> "Workload":
        """The lists at those places alone."""
        return Workload(
            self.name, [self.queries[place] for place in places], [self.passages[place] for place in places]
        )


def synthetic_workload(name: str, *, scale: float) -> Workload:
    """Make lists in a task's shape out of common Chinese characters: its lengths, list sizes and repeated documents.

    `scale` is the share of the task's queries to make; at least one is made. They are the same every time.

    Raises:
        ListconError: for an unknown name or a scale that is not a number above 0.
    """
    if name not in SHAPES:
        raise ListconError(f"no shape {name!r}: give one of {', '.join(SHAPES)}")
    if not 0 < scale < float("inf"):
        raise ListconError(f"the scale is {scale}: give the share of a task's queries to make, such as 0.02")
    shape = SHAPES[name]
    random = np.random.default_rng(0)
    queries = max(1, round(shape.queries * scale))
    sizes = shape.candidates.draw(queries, random)
    documents = int(sizes.sum())
    distinct = max(1, round(documents * shape.distinct_documents / shape.documents))
    pool = _texts(shape.document_length.draw(distinct, random), random)
    # Every distinct document is in some list; the remaining places repeat some of them.
    places = np.concatenate([np.arange(distinct), random.integers(0, distinct, documents - distinct)])
    random.shuffle(places)
    return Workload(
        name,
        _texts(shape.query_length.draw(queries, random), random),
        [[pool[place] for place in part] for part in np.split(places, np.cumsum(sizes)[:-1])],
    )


def read_workload(path: Path) -> Workload:
    """Read lists in the layout of the original C-MTEB files: `query`, `positive`, `negative`.

    Raises:
        ListconError: when there is no such file, or its rows have another layout.
    """
    from listcon_eval.data import read_lists

    if not path.exists():
        raise ListconError(f"no data at {path}: give a file (.jsonl, .jsonl.gz) with query, positive, negative")
    lists = list(read_lists(path))
    return Workload(path.name, [row.query for row in lists], [list(row.passages) for row in lists])


def _texts(lengths: NDArray[np.int64], random: np.random.Generator) -> list[str]:
    """Random texts of these lengths, each from a range of characters of its own, as if it had a topic.

    Texts that all drew from one range would have nearly the same features, and their scores would nearly tie.
    """
    characters = _common_characters()
    texts = []
    for block in np.split(lengths, np.flatnonzero(np.diff(np.cumsum(lengths) // _BLOCK)) + 1):
        total = int(block.sum())
        starts = np.repeat(random.integers(0, len(characters), len(block)), block)
        # The cube of a uniform number favours a few characters, as real texts do.
        codes = characters[(starts + random.random(total) ** 3 * _TOPIC).astype(np.int64) % len(characters)]
        marks = random.random(total) < 1 / _SENTENCE
        codes[marks] = random.choice(np.array([ord(mark) for mark in ",。,、?"], dtype=np.uint32), int(marks.sum()))
        content = codes.astype("<u4").tobytes().decode("utf-32-le")
        ends = np.cumsum(block).tolist()
        texts += [content[end - length : end] for end, length in zip(ends, block.tolist(), strict=True)]
    return texts


def _common_characters() -> NDArray[np.uint32]:
    """The 3,755 characters of GB 2312's first level, as code points: BERT-Chinese has a token for each."""
    rows = (bytes([first, second]) for first in range(0xB0, 0xD8) for second in range(0xA1, 0xFF))
    return np.array([ord(pair.decode("gb2312")) for pair in rows if pair < b"\xd7\xfa"], dtype=np.uint32)
