"""The plain records that the rooms of this package hand to each other."""

from typing import Literal, NamedTuple, get_args

Mode = Literal["conventional", "iterative"]
Precision = Literal["published", "precise", "bfloat16"]
MODES: tuple[Mode, ...] = get_args(Mode)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
POINTWISE = "pointwise"
"""The mode of a system that scores each passage without the others: it has no inference modes."""
NO_PRECISION = "none"
"""The precision of a system that has no such choice."""


class CandidateList(NamedTuple):
    """One query with the passages to rerank and their relevance judgements.

    Attributes:
        query_id: the query's id, unique in its task (two queries may share one text).
        query: the query's text.
        doc_ids: one id a candidate, in candidate order; P of them.
        passages: the candidates' texts, in the same order; equal texts are allowed.
        relevance: the candidates' judgements, in the same order; above 0 is relevant.
    """

    query_id: str
    query: str
    doc_ids: tuple[str, ...]
    passages: tuple[str, ...]
    relevance: tuple[int, ...]


class RankedList(NamedTuple):
    """What inference says of one list of P passages.

    Attributes:
        scores: P final scores in candidate order; higher ranks first. Conventional: a probability.
            Iterative: the probability in the round a passage left, plus that round's number. Other systems: their own.
        rounds: P round numbers, the round each passage left in; all 0 but in iterative inference.
    """

    scores: tuple[float, ...]
    rounds: tuple[int, ...]


class ScoredList(NamedTuple):
    """One query of a run: its candidates' ids with the scores and rounds of `RankedList`, in candidate order."""

    query_id: str
    doc_ids: tuple[str, ...]
    scores: tuple[float, ...]
    rounds: tuple[int, ...]
