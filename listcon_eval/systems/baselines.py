"""The systems without a model: BM25, and what any ranking lies between, a random one and the oracle's."""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from itertools import pairwise
from typing import Any, Self

import numpy as np

from listcon_eval.errors import ListconError
from listcon_eval.ordering import ranked_list
from listcon_eval.records import CandidateList
from listcon_eval.systems.base import LoadOptions, RankContext, Ranking, System
from listcon_eval.systems.resolve import ModelSpec

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


_TOKENIZERS: dict[str, Callable[[], Tokens]] = {"characters": lambda: characters, "jieba": _jieba}


class Bm25(System):
    """BM25 as Lucene has it, by bm25s. Document frequencies and lengths are those of one query's candidates.

    Args:
        variant: "characters" (uni- and bigrams), or "jieba" (words).
    """

    kind = "bm25"
    reads_every_list = True

    def __init__(self, variant: str = "characters") -> None:
        if variant not in _TOKENIZERS:
            known = " or ".join(f"bm25:{name}" for name in _TOKENIZERS)
            raise ListconError(f"bm25 has no tokenizer {variant!r}: give {known}")
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets DEBUG for itself and logs every index
        self._bm25: Any = bm25s.BM25
        self._tokens = _TOKENIZERS[variant]()
        self.name = f"baseline/bm25-{variant}"
        self.revision = f"bm25s-{version('bm25s')}"
        self.packages = ("bm25s", "numpy", *(["jieba"] if variant == "jieba" else []))
        self.device = "cpu"

    @classmethod
    def load(cls, spec: ModelSpec, options: LoadOptions) -> Self:
        """`bm25`, or `bm25:` and a variant."""
        return cls(spec.variant or "characters")

    def _rank(self, lists: Sequence[CandidateList], mode: str, context: RankContext) -> Ranking:
        ranked = []
        for done, row in enumerate(lists, start=1):
            with context.phases.measured("score"):
                ranked.append(ranked_list(self._scores(row.query, row.passages)))
            context.progress("score", done, len(lists))
        return Ranking(ranked, {}, {})

    def _scores(self, query: str, passages: Sequence[str]) -> list[float]:
        words, documents = self._tokens(query), [self._tokens(passage) for passage in passages]
        if not words or not any(documents):
            return [0.0] * len(passages)  # nothing to match
        # float64: equal texts are tied, and float32's rounding ties no others
        index = self._bm25(k1=K1, b=B, method="lucene", dtype="float64")
        index.index(documents, show_progress=False)
        return [float(score) for score in index.get_scores(words)]

    def retrieve(
        self, queries: Mapping[str, str], documents: Mapping[str, str], top_k: int
    ) -> dict[str, dict[str, float]]:
        """Search a whole corpus (id -> text), whose frequencies and lengths count: query id -> document id -> score.

        Each query (id -> text) has at most `top_k` documents, best first, ties in the corpus's order; documents without
        a word of the query are left out.
        """
        index = self._bm25(k1=K1, b=B, method="lucene", dtype="float64")
        ids, words_of = list(documents), [self._tokens(text) for text in documents.values()]
        if not any(words_of):
            return {query_id: {} for query_id in queries}
        index.index(words_of, show_progress=False)
        run = {}
        for query_id, query in queries.items():
            words = self._tokens(query)
            scores = index.get_scores(words) if words else np.zeros(len(ids))
            best = np.argsort(-scores, kind="stable")[:top_k]
            run[query_id] = {ids[place]: float(scores[place]) for place in best if scores[place] > 0}
        return run

    def settings(self) -> Mapping[str, Any]:
        """The formula's variant and constants; the tokenizer is part of the name."""
        return {"bm25": "lucene", "k1": K1, "b": B}


class Random(System):
    """Scores from 0 to 1 that follow from a seed, the query's id and the document's id, and from nothing else."""

    kind = "random"
    reads_texts = False

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.name = "baseline/random"
        self.revision = f"seed-{seed}"

    @classmethod
    def load(cls, spec: ModelSpec, options: LoadOptions) -> Self:
        """`random`, or `random:SEED`."""
        if not re.fullmatch("[0-9]{0,18}", spec.variant):
            raise ListconError(
                f"the seed in {spec.given!r:.80} is {spec.variant!r:.40}: give a whole number of at most 18 digits, as "
                "in random:7"
            )
        return cls(int(spec.variant or 0))

    def _rank(self, lists: Sequence[CandidateList], mode: str, context: RankContext) -> Ranking:
        with context.phases.measured("score"):
            ranked = [ranked_list([self._draw(row.query_id, doc_id) for doc_id in row.doc_ids]) for row in lists]
        return Ranking(ranked, {}, {})

    def _draw(self, query_id: str, doc_id: str) -> float:
        digest = hashlib.sha256(f"{self.seed}\0{query_id}\0{doc_id}".encode()).digest()
        return (int.from_bytes(digest[:8]) >> 11) / 2**53  # as many bits as a float's fraction has


class Oracle(System):
    """Ranks by the judgements themselves: the most that reordering these candidates can reach."""

    kind = "oracle"
    name = "baseline/oracle"
    revision = "judgements"
    reads_texts = False
    needs_judgements = True

    @classmethod
    def load(cls, spec: ModelSpec, options: LoadOptions) -> Self:
        """`oracle`."""
        if spec.variant:
            raise ListconError(f"the kind oracle has no variants, and {spec.given!r} asks for one: give oracle")
        return cls()

    def _rank(self, lists: Sequence[CandidateList], mode: str, context: RankContext) -> Ranking:
        with context.phases.measured("score"):
            return Ranking([ranked_list(row.grades or row.relevance) for row in lists], {}, {})
