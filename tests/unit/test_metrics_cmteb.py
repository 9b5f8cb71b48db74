import itertools
import math
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from listcon_eval.errors import ListconError
from listcon_eval.metrics import CMTEB_MEASURES, cmteb
from listcon_eval.ordering import ranked_list
from listcon_eval.records import NOT_RETRIEVED, CandidateList, RankedList

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


def scored(*scores: float) -> RankedList:
    return ranked_list(scores)


def values_of(relevant: Sequence[bool], scores: Sequence[float]) -> dict[str, float]:
    return cmteb.query_metrics(relevant, scores).values


@given(SCORED)
def test_agrees_with_the_definitions_when_nothing_is_tied(scored: list[tuple[bool, int]]) -> None:
    relevant = [label for label, _ in scored]
    ranked = [label for label, _ in sorted(scored, key=lambda x: -x[1])]
    measured = values_of(relevant, [float(score) for _, score in scored])
    assert measured["map"] == pytest.approx(slow_ap(ranked), abs=1e-12)
    for k in (1, 5, 10):
        assert measured[f"mrr_{k}"] == slow_mrr(ranked, k)
    assert set(measured) == {measure.name for measure in CMTEB_MEASURES}


@given(
    st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=1, max_size=40).filter(
        lambda s: any(r for r, _ in s)
    )
)
def test_average_precision_is_scikit_learns(scored: list[tuple[bool, int]]) -> None:
    relevant, scores = [label for label, _ in scored], [float(score) for _, score in scored]
    expected = float(average_precision_score(relevant, scores))
    assert values_of(relevant, scores)["map"] == pytest.approx(expected, abs=1e-12)


@given(SCORED)
def test_only_the_order_of_the_scores_counts(scored: list[tuple[bool, int]]) -> None:
    relevant = [label for label, _ in scored]
    plain = values_of(relevant, [float(score) for _, score in scored])
    assert values_of(relevant, [math.atan(score / 100) for _, score in scored]) == plain


@given(SCORED, st.randoms())
def test_candidate_order_does_not_count_without_ties(scored: list[tuple[bool, int]], random: Random) -> None:
    shuffled = random.sample(scored, len(scored))
    assert values_of([r for r, _ in shuffled], [float(s) for _, s in shuffled]) == pytest.approx(
        values_of([r for r, _ in scored], [float(s) for _, s in scored]), abs=1e-12
    )


def test_ties_are_broken_by_candidate_order_in_mrr_alone() -> None:
    assert values_of([False, True], [1.0, 1.0]) == {
        "map": 0.5,
        "mrr_1": 0.0,
        "mrr_5": 0.5,
        "mrr_10": 0.5,
    }
    assert values_of([True, False], [1.0, 1.0]) == {
        "map": 0.5,
        "mrr_1": 1.0,
        "mrr_5": 1.0,
        "mrr_10": 1.0,
    }


@pytest.mark.parametrize(("relevant", "scores"), [([False, False], [1.0, 2.0]), ([], [])])
def test_nothing_relevant_counts_zero(relevant: list[bool], scores: list[float]) -> None:
    assert set(values_of(relevant, scores).values()) == {0.0}


def test_a_perfect_ranking_is_never_above_one() -> None:
    for relevant in range(1, 40):
        labels = [True] * relevant + [False] * 20
        assert values_of(labels, range(len(labels), 0, -1))["map"] == pytest.approx(1, abs=1e-12)
        assert values_of(labels, range(len(labels), 0, -1))["map"] <= 1


def test_the_range_of_mrr_is_that_of_all_orders_of_the_ties() -> None:
    generator = Random(3)
    for _ in range(200):
        size = generator.randint(2, 6)
        relevant = [generator.random() < 0.4 for _ in range(size)]
        scores = [float(generator.randint(0, 2)) for _ in range(size)]
        found = cmteb.query_metrics(relevant, scores)
        orders = [
            [relevant[place] for place in order]
            for order in itertools.permutations(range(size))
            if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
        ]
        for k in (1, 5, 10):
            all_values = [slow_mrr(order, k) for order in orders]
            assert (found.lowest[f"mrr_{k}"], found.highest[f"mrr_{k}"]) == (min(all_values), max(all_values))


@given(SCORED, st.integers(0, 40))
def test_a_candidate_that_was_not_retrieved_adds_nothing(scored: list[tuple[bool, int]], kept: int) -> None:
    relevant = [label for label, _ in scored]
    cut = sorted((score for _, score in scored), reverse=True)[:kept]
    scores = [float(score) if score in cut else NOT_RETRIEVED for _, score in scored]
    ranked = [label for label, score in sorted(scored, key=lambda x: -x[1]) if score in cut]
    precisions = [sum(ranked[:rank]) / rank for rank in range(1, len(ranked) + 1) if ranked[rank - 1]]
    measured = values_of(relevant, scores)
    assert measured["map"] == pytest.approx(sum(precisions) / max(1, sum(relevant)), abs=1e-12)
    assert measured["mrr_10"] == slow_mrr(ranked, 10)


def test_labels_of_equal_texts() -> None:
    candidates = candidate_list("q", (1, 1, 0, 2, 0), ("甲", "乙", "乙", "丙", "丁"))
    assert cmteb.labels(candidates, "conventional") == [True, True, False, True, False]
    assert cmteb.labels(candidates, "pointwise") == [True, True, False, True, False]
    assert cmteb.labels(candidates, "iterative") == [True, False, False, True, False]


def test_the_mode_changes_the_number_of_a_text_that_is_both() -> None:
    candidates = candidate_list("q", (1, 1, 0), ("甲", "乙", "乙"))
    run = [scored(1.0, 3.0, 2.0)]
    assert cmteb.evaluate([candidates], run, "conventional").means["map"] == pytest.approx((1 + 2 / 3) / 2)
    assert cmteb.evaluate([candidates], run, "iterative").means["map"] == pytest.approx(1 / 3)


def test_one_sided_queries_are_dropped_as_published() -> None:
    lists = [
        candidate_list("a", (1, 0)),
        candidate_list("b", (0, 0)),
        candidate_list("c", (1, 1)),
        candidate_list("d", ()),
    ]
    lists.append(candidate_list("e", (0, 1)))
    run = [scored(2.0, 1.0), scored(2.0, 1.0), scored(2.0, 1.0), scored(), scored(2.0, 1.0)]
    found = cmteb.evaluate(lists, run, "conventional")
    assert found.dropped == ("b", "c", "d")
    assert list(found.per_query) == ["a", "e"]
    assert found.means == {"map": 0.75, "mrr_1": 0.5, "mrr_5": 0.75, "mrr_10": 0.75}
    assert cmteb.evaluate(lists[1:3], run[1:3], "conventional") == ({}, {}, ("b", "c"), {})


def test_ranges_are_given_where_they_are_not_a_point() -> None:
    lists = [candidate_list("a", (1, 0)), candidate_list("b", (1, 0, 0))]
    found = cmteb.evaluate(lists, [scored(1.0, 1.0), scored(3.0, 2.0, 2.0)], "conventional")
    assert found.ranges == {"mrr_1": (0.5, 1.0), "mrr_5": (0.75, 1.0), "mrr_10": (0.75, 1.0)}
    assert cmteb.evaluate(lists, [scored(2.0, 1.0), scored(3.0, 2.0, 2.0)], "conventional").ranges == {}


def test_scores_that_cannot_be_measured_are_refused() -> None:
    row = candidate_list("a", (1, 0))
    for bad in (math.nan, math.inf):
        with pytest.raises(ListconError, match=f"Query a: The score of candidate 1 is {bad}"):
            cmteb.evaluate([row], [RankedList((1.0, bad), (0, 0))], "conventional")
    with pytest.raises(ListconError, match="2 labels but 1 scores"):
        cmteb.evaluate([row], [RankedList((1.0,), (0,))], "conventional")
