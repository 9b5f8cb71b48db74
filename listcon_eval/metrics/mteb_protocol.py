"""The protocol of today's leaderboard: mteb's own metrics, query by query, computed by mteb's own functions.

Ties are broken by document id, descending; pytrec_eval compares scores as float32, MRR as float64.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from listcon_eval.errors import ListconError
from listcon_eval.records import ScoredList

# mteb's names in a TaskResult -> pytrec_eval's names in mteb's per-query scores
_PYTREC_NAMES = {"map_at_1000": "map_cut_1000", "ndcg_at_10": "ndcg_cut_10", "recall_at_10": "recall_10"}


class Evaluation(NamedTuple):
    """The numbers of one run, under mteb's names.

    Attributes:
        means: measure name -> the value mteb puts in its `TaskResult`, a fraction from 0 to 1 (mteb rounds
            all but MRR to 5 digits).
        per_query: query id -> measure name -> value, a fraction from 0 to 1, unrounded.
    """

    means: dict[str, float]
    per_query: dict[str, dict[str, float]]


def run_of(scored: Sequence[ScoredList]) -> dict[str, dict[str, float]]:
    """The run as mteb takes it: query id -> document id -> score."""
    return {entry.query_id: dict(zip(entry.doc_ids, entry.scores, strict=True)) for entry in scored}


def evaluate(qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]]) -> Evaluation:
    """Score a run as mteb does.

    Args:
        qrels: query id -> document id -> relevance.
        run: query id -> document id -> score.

    Returns:
        Means and values of each query for map_at_1000, ndcg_at_10, mrr_at_10 and recall_at_10, in the run's
        order. A query without candidates counts 0.

    Raises:
        ListconError: no queries, a query that is missing from the run (mteb would leave it out of the mean
            without a word) or has no judgements, or a score that is not finite.
    """
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores, mrr
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    _check(qrels, run)
    judgements = {query_id: dict(judged) for query_id, judged in qrels.items()}
    # pytrec_eval takes Python floats and no others
    results = {query_id: {doc: float(score) for doc, score in scores.items()} for query_id, scores in run.items()}
    scores = calculate_retrieval_scores(results, judgements, list(AbsTaskRetrieval.k_values))
    reciprocal = dict(zip(results, mrr(judgements, results, [10])["MRR@10"], strict=True))
    per_query = {}
    for query_id in results:
        own = scores.all_scores[query_id]
        per_query[query_id] = {name: own[key] for name, key in _PYTREC_NAMES.items()}
        per_query[query_id]["mrr_at_10"] = reciprocal[query_id]
    means = {
        "map_at_1000": scores.map["MAP@1000"],
        "ndcg_at_10": scores.ndcg["NDCG@10"],
        "recall_at_10": scores.recall["Recall@10"],
        "mrr_at_10": scores.mrr["MRR@10"],
    }
    return Evaluation(means, per_query)


def _check(qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]]) -> None:
    if not qrels:
        raise ListconError("No queries to evaluate: there are no relevance judgements.")
    if missing := [query_id for query_id in qrels if query_id not in run]:
        raise ListconError(f"{len(missing)} judged queries are missing from the run, the first is {missing[0]!r}.")
    if extra := [query_id for query_id in run if query_id not in qrels]:
        raise ListconError(f"{len(extra)} queries of the run have no judgements, the first is {extra[0]!r}.")
    for query_id, scores in run.items():
        for doc_id, score in scores.items():
            if not math.isfinite(score):
                raise ListconError(f"Query {query_id}: the score of {doc_id} is {score}; expected a finite number.")
