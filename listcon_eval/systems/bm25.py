"""BM25 over the candidates of each query, by the library bm25s."""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from itertools import pairwise
from typing import Any, Self

import bm25s

from listcon_eval.errors import ListconError
from listcon_eval.records import CandidateList, RankedList
from listcon_eval.systems.detection import Found
from listcon_eval.systems.system import Job, Options, System

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets DEBUG for itself, and tells of every index

K1, B = 1.2, 0.75  # Lucene's
Tokens = Callable[[str], list[str]]


def characters(text: str) -> list[str]:
    """Characters and pairs of neighbouring ones, in lower case; white space and punctuation are left out first."""
    found = re.findall(r"\w", text.lower())
    return found + [first + second for first, second in pairwise(found)]


def _jieba() -> Tokens:
    try:
        import jieba
    except ImportError as error:
        raise ListconError("bm25:jieba needs jieba: pip install 'listcon-eval[jieba]', or give bm25") from error
    jieba.setLogLevel("ERROR")
    return lambda text: [word for word in jieba.lcut(text.lower()) if re.search(r"\w", word)]


TOKENS: dict[str, Callable[[], Tokens]] = {"characters": lambda: characters, "jieba": _jieba}
"""Variant -> what makes its tokenizer."""


class Bm25(System):
    """BM25 as Lucene has it. Document frequencies and lengths are those of one query's candidates.

    Args:
        variant: "characters" (uni- and bigrams), or "jieba" (words).
    """

    kind = "bm25"

    def __init__(self, variant: str = "characters") -> None:
        super().__init__()
        if variant not in TOKENS:
            raise ListconError(f"bm25 has no tokens {variant!r}: give {' or '.join(f'bm25:{name}' for name in TOKENS)}")
        self.variant = variant
        with self.phases.measured("load"):
            self._tokens = TOKENS[variant]()
        self.name = f"baseline/bm25-{variant}"
        self.revision = f"bm25s-{version('bm25s')}"
        self.packages = ("bm25s", "numpy", *(["jieba"] if variant == "jieba" else []))
        self.device = "cpu"

    @classmethod
    def load(cls, found: Found, options: Options) -> Self:
        """`bm25`, or `bm25:` and a variant."""
        del options
        return cls(found.variant or "characters")

    def rank(self, lists: Sequence[CandidateList], mode: str, job: Job) -> list[RankedList]:
        """Score every list by itself."""
        del mode
        ranked = []
        done, total = 0, sum(len(row.passages) for row in lists)
        for row in lists:
            with self.phases.measured("score"):
                scores = self._scores(row.query, row.passages)
            ranked.append(RankedList(tuple(scores), (0,) * len(scores)))
            done += len(row.passages)
            job.progress("list", done, total)
        return ranked

    def _scores(self, query: str, passages: Sequence[str]) -> list[float]:
        words, documents = self._tokens(query), [self._tokens(passage) for passage in passages]
        if not words or not any(documents):
            return [0.0] * len(passages)  # nothing to match
        # float64: equal texts are tied, and float32's rounding ties no others
        index = bm25s.BM25(k1=K1, b=B, method="lucene", dtype="float64")
        index.index(documents, show_progress=False)
        return [float(score) for score in index.get_scores(words)]

    def settings(self) -> Mapping[str, Any]:
        """The formula's variant and constants."""
        return {"bm25": "lucene", "k1": K1, "b": B}

    def key(self) -> Mapping[str, Any]:
        """The same: the tokens are part of the name."""
        return self.settings()
