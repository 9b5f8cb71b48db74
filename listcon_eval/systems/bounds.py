"""What any ranking lies between: a random one, and the oracle's, which knows what is relevant."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

from listcon_eval.errors import ListconError
from listcon_eval.records import CandidateList, RankedList
from listcon_eval.systems.detection import Found
from listcon_eval.systems.system import Job, Options, System


class Random(System):
    """Scores from 0 to 1 that follow from a seed, the query's id and the document's id, and from nothing else.

    Args:
        seed: the seed.
    """

    kind = "random"
    reads_texts = False

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self.name = "baseline/random"
        self.revision = f"seed-{seed}"

    @classmethod
    def load(cls, found: Found, options: Options) -> Self:
        """`random`, or `random:SEED`."""
        del options
        if not (found.variant or "0").isdecimal():
            raise ListconError(f"the seed in {found.given!r} is {found.variant!r}: give a whole number, as in random:7")
        return cls(int(found.variant or 0))

    def rank(self, lists: Sequence[CandidateList], mode: str, job: Job) -> list[RankedList]:
        """Draw the scores."""
        del mode, job
        return [
            RankedList(tuple(self._draw(row.query_id, doc_id) for doc_id in row.doc_ids), (0,) * len(row.doc_ids))
            for row in lists
        ]

    def _draw(self, query_id: str, doc_id: str) -> float:
        digest = hashlib.sha256(f"{self.seed}\0{query_id}\0{doc_id}".encode()).digest()
        return (int.from_bytes(digest[:8]) >> 11) / 2**53  # as many bits as a float's fraction has

    def key(self) -> Mapping[str, Any]:
        """The seed."""
        return {"seed": self.seed}


class Oracle(System):
    """Ranks by the judgements themselves: the most that reordering these candidates can reach."""

    kind = "oracle"
    reads_texts = False
    needs_judgements = True

    def __init__(self) -> None:
        super().__init__()
        self.name = "baseline/oracle"
        self.revision = "judgements"

    @classmethod
    def load(cls, found: Found, options: Options) -> Self:
        """`oracle`."""
        del options
        if found.variant:
            raise ListconError(f"the kind oracle has no variants, and {found.given!r} asks for one: give oracle")
        return cls()

    def rank(self, lists: Sequence[CandidateList], mode: str, job: Job) -> list[RankedList]:
        """Take the judgements for scores."""
        del mode, job
        return [RankedList(tuple(map(float, row.relevance)), (0,) * len(row.doc_ids)) for row in lists]
