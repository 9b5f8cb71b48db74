import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listcon_eval.errors import ListconError
from listcon_eval.metrics import CMTEB_MEASURES, cmteb
from listcon_eval.records import CandidateList, ScoredList

# distinct whole scores far from float limits: no ties before or after a monotone transform
SCORED = st.lists(st.tuples(st.booleans(), st.integers(-500, 500)), min_size=1, max_size=40, unique_by=lambda x: x[1])


def slow_ap(relevant: list[bool]) -> float:
    """Mean over the relevant ones of the precision at their rank; `relevant` in rank order."""
    precisions = [sum(relevant[:rank]) / rank for rank in range(1, len(relevant) + 1) if relevant[rank - 1]]
    return sum(precisions) / len(precisions) if precisions else 0.0


def slow_mrr(relevant: list[bool], k: int) -> float:
    for rank, label in enumerate(relevant[:k], start=1):
        if label:
            return 1 / rank
    return 0.0


def candidate_list(query_id: str, relevance: tuple[int, ...], passages: tuple[str, ...] | None = None) -> CandidateList:
    doc_ids = tuple(f"{query_id}-{i}" for i in range(len(relevance)))
    return CandidateList(query_id, "问", doc_ids, passages or doc_ids, relevance)


def scored_list(candidates: CandidateList, *scores: float) -> ScoredList:
    return ScoredList(candidates.query_id, candidates.doc_ids, scores, (0,) * len(scores))


@given(SCORED)
def test_agrees_with_the_definitions_when_nothing_is_tied(scored: list[tuple[bool, int]]) -> None:
    relevant = [label for label, _ in scored]
    ranked = [label for label, _ in sorted(scored, key=lambda x: -x[1])]
    measured = cmteb.score_list(relevant, [float(score) for _, score in scored])
    assert measured["map"] == pytest.approx(slow_ap(ranked), abs=1e-12)
    for k in (1, 5, 10):
        assert measured[f"mrr_{k}"] == slow_mrr(ranked, k)
    assert set(measured) == {measure.name for measure in CMTEB_MEASURES}


@given(SCORED)
def test_only_the_order_of_the_scores_counts(scored: list[tuple[bool, int]]) -> None:
    relevant = [label for label, _ in scored]
    plain = cmteb.score_list(relevant, [float(score) for _, score in scored])
    assert cmteb.score_list(relevant, [math.atan(score / 100) for _, score in scored]) == plain


@given(SCORED, st.randoms())
def test_candidate_order_does_not_count_without_ties(scored: list[tuple[bool, int]], random: Random) -> None:
    shuffled = random.sample(scored, len(scored))
    assert cmteb.score_list([r for r, _ in shuffled], [float(s) for _, s in shuffled]) == pytest.approx(
        cmteb.score_list([r for r, _ in scored], [float(s) for _, s in scored]), abs=1e-12
    )


def test_ties_are_broken_by_candidate_order_in_mrr_alone() -> None:
    assert cmteb.score_list([False, True], [1.0, 1.0]) == {
        "map": 0.5,
        "mrr_1": 0.0,
        "mrr_5": 0.5,
        "mrr_10": 0.5,
    }
    assert cmteb.score_list([True, False], [1.0, 1.0]) == {
        "map": 0.5,
        "mrr_1": 1.0,
        "mrr_5": 1.0,
        "mrr_10": 1.0,
    }


@pytest.mark.parametrize(("relevant", "scores"), [([False, False], [1.0, 2.0]), ([], [])])
def test_nothing_relevant_counts_zero(relevant: list[bool], scores: list[float]) -> None:
    assert set(cmteb.score_list(relevant, scores).values()) == {0.0}


def test_a_perfect_ranking_is_never_above_one() -> None:
    for relevant in range(1, 40):
        labels = [True] * relevant + [False] * 20
        assert cmteb.score_list(labels, range(len(labels), 0, -1))["map"] == pytest.approx(1, abs=1e-12)
        assert cmteb.score_list(labels, range(len(labels), 0, -1))["map"] <= 1


def test_labels_of_equal_texts() -> None:
    candidates = candidate_list("q", (1, 1, 0, 2, 0), ("甲", "乙", "乙", "丙", "丁"))
    assert cmteb.labels(candidates, "conventional") == [True, True, False, True, False]
    assert cmteb.labels(candidates, "iterative") == [True, False, False, True, False]


def test_the_mode_changes_the_number_of_a_text_that_is_both() -> None:
    candidates = candidate_list("q", (1, 1, 0), ("甲", "乙", "乙"))
    run = [scored_list(candidates, 1.0, 3.0, 2.0)]
    assert cmteb.evaluate([candidates], run, "conventional").means["map"] == pytest.approx((1 + 2 / 3) / 2)
    assert cmteb.evaluate([candidates], run, "iterative").means["map"] == pytest.approx(1 / 3)


def test_means_are_over_all_queries_in_any_order_of_the_run() -> None:
    first, second, third = (
        candidate_list("a", (1, 0)),
        candidate_list("b", (0, 1)),
        candidate_list("c", (0, 0)),
    )
    run = [scored_list(third, 1.0, 2.0), scored_list(second, 2.0, 1.0), scored_list(first, 2.0, 1.0)]
    means, per_query = cmteb.evaluate([first, second, third], run, "conventional")
    assert list(per_query) == ["a", "b", "c"]
    assert per_query["b"] == {"map": 0.5, "mrr_1": 0.0, "mrr_5": 0.5, "mrr_10": 0.5}
    assert means == pytest.approx({"map": 0.5, "mrr_1": 1 / 3, "mrr_5": 0.5, "mrr_10": 0.5})


def test_a_run_that_does_not_fit_is_refused() -> None:
    first, second = candidate_list("a", (1, 0)), candidate_list("b", (0, 1))
    full = [scored_list(first, 2.0, 1.0), scored_list(second, 2.0, 1.0)]
    with pytest.raises(ListconError, match=r"1 missing \(b\), 0 not in the task"):
        cmteb.evaluate([first, second], full[:1], "conventional")
    with pytest.raises(ListconError, match=r"0 missing, 1 not in the task \(b\)"):
        cmteb.evaluate([first], full, "conventional")
    with pytest.raises(ListconError, match="b occurs twice in the run"):
        cmteb.evaluate([first, second], [*full, full[1]], "conventional")
    with pytest.raises(ListconError, match="a occurs twice in the task"):
        cmteb.evaluate([first, first], full, "conventional")
    with pytest.raises(ListconError, match="candidate 0 is 'a-1' in the run, 'a-0' in the task"):
        cmteb.evaluate([first], [full[0]._replace(doc_ids=("a-1", "a-0"))], "conventional")
    with pytest.raises(ListconError, match="1 candidates scored, 2 in the task"):
        cmteb.evaluate([first], [full[0]._replace(doc_ids=("a-0",))], "conventional")
    with pytest.raises(ListconError, match="No queries"):
        cmteb.evaluate([], [], "conventional")


def test_scores_that_are_no_numbers_or_too_few_are_refused() -> None:
    first = candidate_list("a", (1, 0))
    with pytest.raises(ListconError, match="Query a: The score of candidate 1 is nan"):
        cmteb.evaluate([first], [scored_list(first, 1.0, math.nan)], "conventional")
    with pytest.raises(ListconError, match="2 labels but 1 scores"):
        cmteb.evaluate([first], [scored_list(first, 1.0)], "conventional")
