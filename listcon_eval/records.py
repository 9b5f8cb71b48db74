"""The plain records that the packages hand to each other."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

Mode = Literal["conventional", "iterative"]
MODES: tuple[Mode, ...] = get_args(Mode)
POINTWISE = "pointwise"
"""The mode of a system that scores each passage without the others: it has no inference modes."""
DType = Literal["float16", "bfloat16", "float32"]
DTYPES: tuple[DType, ...] = get_args(DType)
DTypeOption = Literal["auto", "float16", "bfloat16", "float32"]
NOT_RETRIEVED = float("-inf")
"""The score of a candidate that a system did not return. It has no rank, as in trec_eval."""


class CandidateList(NamedTuple):
    """One query with the passages to rerank and their relevance judgements.

    Attributes:
        query_id: the query's id, unique in its task (two queries may share one text).
        query: the query's text.
        doc_ids: one id a candidate, in candidate order; P of them.
        passages: the candidates' texts, in the same order; equal texts are allowed.
        relevance: the candidates' judgements, in the same order; above 0 is relevant.
        grades: the same before a threshold made those below it 0; empty where there is no threshold.
    """

    query_id: str
    query: str
    doc_ids: tuple[str, ...]
    passages: tuple[str, ...]
    relevance: tuple[int, ...]
    grades: tuple[int, ...] = ()


class RankedList(NamedTuple):
    """The scores of one list of P passages, made by `ordering.ranked_list`.

    Attributes:
        scores: P final scores in candidate order; the higher ranks first, equal scores are ties, `NOT_RETRIEVED` has
            no rank. Conventional: a probability. Iterative: the probability in the round a passage left, plus that
            round's number. Other systems: their own. Scores that differ also differ as float32.
        rounds: P round numbers, the round each passage left in; all 0 but in iterative inference.
    """

    scores: tuple[float, ...]
    rounds: tuple[int, ...]


class Metrics(NamedTuple):
    """The metrics of one run by one protocol, all of them from 0 to 1.

    Attributes:
        means: metric -> mean over the queries that count.
        per_query: query id -> metric -> value; a query that was dropped is absent.
        dropped: ids of the queries that the protocol leaves out.
        ranges: metric -> the lowest and highest mean that any order of tied candidates gives, where they differ.
    """

    means: dict[str, float]
    per_query: dict[str, dict[str, float]]
    dropped: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = {}
