"""The protocol of the model card's numbers: mean AP and MRR@k as the evaluators of mteb 1.1 computed them.

AP is that of scikit-learn's `average_precision_score`, where tied scores form one threshold. The published MRR ordered
ties by an unstable sort, so it is one draw from a range. Here tied candidates keep their candidate order, and the range
is reported beside the mean.
Queries without a positive or without a negative are dropped before scoring, as `RerankingEvaluator` of mteb 1.1 does.
"""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from listcon_eval.errors import ListconError
from listcon_eval.ordering import ranked_places
from listcon_eval.records import NOT_RETRIEVED, CandidateList, Metrics, RankedList

_MRR_CUTOFFS = (1, 5, 10)


class QueryMetrics(NamedTuple):
    """The metrics of one query."""

    values: dict[str, float]  # `map`, `mrr_1`, `mrr_5`, `mrr_10`, from 0 to 1
    lowest: dict[str, float]  # the MRRs of the worst order of tied candidates
    highest: dict[str, float]  # the MRRs of the best one


def query_metrics(relevant: Sequence[bool], scores: Sequence[float]) -> QueryMetrics:
    """AP and MRR@1, 5, 10 of one query from its P labels and P scores (higher ranks first), in candidate order.

    A relevant candidate that was not retrieved adds nothing to AP, as in trec_eval.

    Raises:
        ListconError: the two differ in length, or a score is NaN or positive infinity.
    """
    if len(relevant) != len(scores):
        raise ListconError(f"{len(relevant)} labels but {len(scores)} scores; expected one score per candidate.")
    for place, score in enumerate(scores):
        if not math.isfinite(score) and score != NOT_RETRIEVED:
            raise ListconError(f"The score of candidate {place} is {score}; expected a finite number.")
    order = ranked_places(scores, (), "cmteb")
    labels = np.asarray(relevant, dtype=bool)
    if not labels[order].any():
        nothing = _reciprocal_ranks(math.inf)
        return QueryMetrics({"map": 0.0, **nothing}, nothing, nothing)
    retrieved = np.asarray(scores, dtype=np.float64)[order]
    found = labels[order]
    first = int(np.argmax(found))
    ties = retrieved == retrieved[first]
    before = int((retrieved > retrieved[first]).sum())
    return QueryMetrics(
        {"map": _average_precision(found, retrieved, int(labels.sum())), **_reciprocal_ranks(first + 1)},
        _reciprocal_ranks(before + 1 + int((ties & ~found).sum())),
        _reciprocal_ranks(before + 1),
    )


def _average_precision(found: NDArray[np.bool_], scores: NDArray[np.float64], relevant: int) -> float:
    """AP of R labels in the order of their scores, (R,), the highest first; `relevant` of the candidates are so."""
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))  # the last place of each group of ties
    hits = np.cumsum(found)[ends]
    total = float((np.diff(hits, prepend=0) * (hits / (ends + 1))).sum())
    return min(1.0, total / relevant)  # rounding may leave it a little above 1


def _reciprocal_ranks(rank: float) -> dict[str, float]:
    return {f"mrr_{k}": 1.0 / rank if rank <= k else 0.0 for k in _MRR_CUTOFFS}


def labels(candidates: CandidateList, mode: str) -> list[bool]:
    """One label a candidate, in candidate order.

    Conventional inference is labelled by occurrence, and so is every system without inference modes. The published
    iterative script kept labels by text, writing positives first and negatives over them: equal texts share one label
    there, and the negative wins.
    """
    relevant = [judgement > 0 for judgement in candidates.relevance]
    if mode != "iterative":
        return relevant
    negative = {text for text, label in zip(candidates.passages, relevant, strict=True) if not label}
    return [text not in negative for text in candidates.passages]


def evaluate(lists: Sequence[CandidateList], ranked: Sequence[RankedList], mode: str) -> Metrics:
    """The metrics of a run: candidate lists and, in the same order, their scores; `mode` is that of `labels`.

    Raises:
        ListconError: a list's scores cannot be measured.
    """
    rows = {row.query_id: (labels(row, mode), own.scores) for row, own in zip(lists, ranked, strict=True)}
    return evaluate_labelled(rows.items())


def evaluate_labelled(rows: Iterable[tuple[str, tuple[Sequence[bool], Sequence[float]]]]) -> Metrics:
    """The metrics of query ids with their labels and scores, as `evaluate`; none if every query is dropped."""
    found: dict[str, QueryMetrics] = {}
    dropped: list[str] = []
    for query_id, (relevant, scores) in rows:
        if not any(relevant) or all(relevant):
            dropped.append(query_id)
            continue
        try:
            found[query_id] = query_metrics(relevant, scores)
        except ListconError as error:
            raise ListconError(f"Query {query_id}: {error}") from error
    if not found:
        return Metrics({}, {}, tuple(dropped))
    measured = list(found.values())
    means = {name: fmean(row.values[name] for row in measured) for name in measured[0].values}
    ranges = {
        name: (fmean(row.lowest[name] for row in measured), fmean(row.highest[name] for row in measured))
        for name in measured[0].lowest
    }
    differing = {name: (low, high) for name, (low, high) in ranges.items() if low < high}
    return Metrics(means, {query_id: row.values for query_id, row in found.items()}, tuple(dropped), differing)
