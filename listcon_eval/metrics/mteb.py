"""The protocol of today's leaderboard: mteb's own metrics, computed by mteb's own functions.

Ties are broken by document id, descending. A candidate that was not retrieved is not in the run, as in trec_eval.
"""

import math
from collections.abc import Mapping, Sequence

from listcon_eval import mteb_compat
from listcon_eval.errors import ListconError, count_of
from listcon_eval.records import NOT_RETRIEVED, CandidateList, Metrics, RankedList


def run_of(lists: Sequence[CandidateList], ranked: Sequence[RankedList]) -> dict[str, dict[str, float]]:
    """The run as mteb takes it: query id -> document id -> score, without candidates that were not retrieved."""
    return {
        row.query_id: {
            doc_id: score for doc_id, score in zip(row.doc_ids, own.scores, strict=True) if score != NOT_RETRIEVED
        }
        for row, own in zip(lists, ranked, strict=True)
    }


def evaluate(
    qrels: Mapping[str, Mapping[str, int]],
    run: Mapping[str, Mapping[str, float]],
    main_score: str | None = None,
    relevance: int = 1,
) -> Metrics:
    """map_at_1000, ndcg_at_10, mrr_at_10 and recall_at_10 of a run, as mteb computes them.

    Args:
        qrels: query id -> document id -> relevance.
        run: query id -> document id -> score. A query without documents counts 0.
        main_score: the task's main score, which is computed as well if it is a mean over queries.
        relevance: the judgement from which on a document is relevant; nDCG, which knows grades, takes all for gains.

    Returns:
        Means as mteb puts them in a `TaskResult` (rounded to 5 digits, but for MRR), and unrounded values by query.

    Raises:
        ListconError: no queries, a query that is missing from the run (mteb would leave it out of the mean
            without a word) or has no judgements, or a score that is not finite.
    """
    if not qrels:
        raise ListconError("No queries to evaluate: there are no relevance judgements.")
    if missing := [query_id for query_id in qrels if query_id not in run]:
        raise ListconError(f"the run lacks {count_of(len(missing), 'judged query')}, the first is {missing[0]!r}.")
    if extra := [query_id for query_id in run if query_id not in qrels]:
        raise ListconError(f"no judgements for {count_of(len(extra), 'query')} of the run, the first is {extra[0]!r}.")
    for query_id, scores in run.items():
        for doc_id, score in scores.items():
            if not math.isfinite(score):
                raise ListconError(f"Query {query_id}: the score of {doc_id} is {score}; expected a finite number.")
    own = [main_score] if main_score is not None and mteb_compat.is_query_metric(main_score) else []
    names = tuple(dict.fromkeys((*mteb_compat.USUAL_METRICS, *own)))
    found = mteb_compat.retrieval_metrics(mteb_compat.relevant_from(qrels, relevance), run, names)
    if relevance > 1:
        graded = mteb_compat.retrieval_metrics(qrels, run, tuple(name for name in names if name.startswith("ndcg_")))
        found.means.update(graded.means)
        for query_id, row in graded.per_query.items():
            found.per_query[query_id].update(row)
    return found
