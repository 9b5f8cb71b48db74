"""The protocol of the model card's numbers: mean AP and MRR@k as the evaluators of mteb 1.1 computed them.

AP is scikit-learn's, where tied scores form one threshold. The published MRR ordered ties by an unstable
sort; here tied candidates keep their candidate order, so that the number does not depend on the sort in use.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score

from listcon_eval.errors import ListconError
from listcon_eval.records import CandidateList, Mode, ScoredList

_MRR_CUTOFFS = (1, 5, 10)


class Evaluation(NamedTuple):
    """The numbers of one run.

    Attributes:
        means: measure name -> mean over queries, a fraction from 0 to 1.
        per_query: query id -> measure name -> value, a fraction from 0 to 1.
    """

    means: dict[str, float]
    per_query: dict[str, dict[str, float]]


def score_list(relevant: Sequence[bool], scores: Sequence[float]) -> dict[str, float]:
    """AP and MRR@1, 5, 10 of one query.

    Args:
        relevant: P labels in candidate order.
        scores: P scores in candidate order; higher ranks first.

    Returns:
        `map`, `mrr_1`, `mrr_5`, `mrr_10` as fractions; all 0 when nothing is relevant.

    Raises:
        ListconError: the two differ in length, or a score is not finite.
    """
    if len(relevant) != len(scores):
        raise ListconError(f"{len(relevant)} labels but {len(scores)} scores; expected one score a candidate.")
    for position, score in enumerate(scores):
        if not math.isfinite(score):
            raise ListconError(f"The score of candidate {position} is {score}; expected a finite number.")
    if not any(relevant):  # scikit-learn would warn; the published evaluators count 0
        return {"map": 0.0, **{f"mrr_{k}": 0.0 for k in _MRR_CUTOFFS}}
    order = np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")
    first = int(np.argmax(np.asarray(relevant, dtype=bool)[order])) + 1  # rank of the first relevant one
    precision = average_precision_score(np.asarray(relevant, dtype=int), np.asarray(scores, dtype=np.float64))
    return {
        "map": min(1.0, float(precision)),  # a sum of fractions, which rounding may leave a little above 1
        **{f"mrr_{k}": 1.0 / first if first <= k else 0.0 for k in _MRR_CUTOFFS},
    }


def labels(candidates: CandidateList, mode: Mode) -> list[bool]:
    """One label a candidate, in candidate order.

    Conventional inference is labelled by occurrence. The published iterative script keyed labels by text,
    writing positives first and negatives over them: equal texts share one label there, and the negative wins.
    """
    relevant = [judgement > 0 for judgement in candidates.relevance]
    if mode == "conventional":
        return relevant
    negative = {text for text, label in zip(candidates.passages, relevant, strict=True) if not label}
    return [text not in negative for text in candidates.passages]


def evaluate(lists: Sequence[CandidateList], scored: Sequence[ScoredList], mode: Mode) -> Evaluation:
    """Score a run against its candidate lists.

    Args:
        lists: the task's candidate lists.
        scored: the run: one entry for every list, in any order, each with the list's candidates in its order.
        mode: the inference mode, which decides how candidates with equal texts are labelled.

    Returns:
        Means over all queries and the values of every query, in the order of `lists`.

    Raises:
        ListconError: no queries, a query missing from the run, scored twice or not in the task, candidates
            that differ, or a score that is not finite.
    """
    by_query = _match(lists, scored)
    per_query: dict[str, dict[str, float]] = {}
    for candidates in lists:
        entry = by_query[candidates.query_id]
        if entry.doc_ids != candidates.doc_ids:
            raise ListconError(_difference(candidates, entry))
        try:
            per_query[candidates.query_id] = score_list(labels(candidates, mode), entry.scores)
        except ListconError as error:
            raise ListconError(f"Query {candidates.query_id}: {error}") from error
    names = ("map", *(f"mrr_{k}" for k in _MRR_CUTOFFS))
    means = {name: math.fsum(values[name] for values in per_query.values()) / len(per_query) for name in names}
    return Evaluation(means, per_query)


def _match(lists: Sequence[CandidateList], scored: Sequence[ScoredList]) -> Mapping[str, ScoredList]:
    if not lists:
        raise ListconError("No queries to evaluate: the task has no candidate lists.")
    wanted = _unique([candidates.query_id for candidates in lists], "the task")
    given = _unique([entry.query_id for entry in scored], "the run")
    missing = [query_id for query_id in wanted if query_id not in given]
    extra = [query_id for query_id in given if query_id not in wanted]
    if missing or extra:
        raise ListconError(
            f"The run does not hold the task's queries: {len(missing)} missing{_few(missing)}, "
            f"{len(extra)} not in the task{_few(extra)}."
        )
    return {entry.query_id: entry for entry in scored}


def _unique(query_ids: Sequence[str], where: str) -> dict[str, None]:
    seen: dict[str, None] = {}  # a set that keeps its order
    for query_id in query_ids:
        if query_id in seen:
            raise ListconError(f"Query {query_id} occurs twice in {where}.")
        seen[query_id] = None
    return seen


def _few(query_ids: Sequence[str]) -> str:
    return f" ({', '.join(query_ids[:3])}{', ...' if len(query_ids) > 3 else ''})" if query_ids else ""


def _difference(candidates: CandidateList, entry: ScoredList) -> str:
    if len(candidates.doc_ids) != len(entry.doc_ids):
        seen = f"{len(entry.doc_ids)} candidates scored, {len(candidates.doc_ids)} in the task"
    else:
        pairs = enumerate(zip(candidates.doc_ids, entry.doc_ids, strict=True))
        position, (wanted, got) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
        seen = f"candidate {position} is {got!r} in the run, {wanted!r} in the task"
    return f"Query {candidates.query_id}: the run's candidates are not the task's: {seen}."
