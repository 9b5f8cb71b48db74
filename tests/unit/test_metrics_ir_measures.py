import math
import random

import pytest

from listcon_eval.errors import ListconError
from listcon_eval.metrics import Measure
from listcon_eval.metrics import ir_measures as named
from listcon_eval.metrics import mteb as mteb_protocol
from listcon_eval.ordering import ranked_list

QRELS = {"a b": {"x": 2, "y": 1, "z": 0}, "十": {"x": 1}, "c": {"x": 3, "unlisted": 2}}
RUN = {"a b": {"x": 0.5, "y": 0.5, "z": 0.5}, "十": {}, "c": {"x": 1.0}}


def test_values_worked_by_hand() -> None:
    """Ties by document id, descending; a query without documents counts 0, and so does a document not retrieved."""
    means, per_query, *_ = named.evaluate(["AP", "nDCG@10", "RR@10", "R@50", "P(rel=2)@1"], QRELS, RUN)
    assert per_query["a b"] == pytest.approx(
        {
            "AP": (1 / 2 + 2 / 3) / 2,
            "nDCG@10": (1 / math.log2(3) + 2 / math.log2(4)) / (2 + 1 / math.log2(3)),
            "RR@10": 1 / 2,
            "R@50": 1.0,
            "P(rel=2)@1": 0.0,
        }
    )
    assert set(per_query["十"].values()) == {0.0}
    assert per_query["c"]["AP"] == per_query["c"]["R@50"] == 0.5
    assert means["P(rel=2)@1"] == pytest.approx(1 / 3)


def test_names_that_become_one_measure_keep_their_values() -> None:
    row = named.evaluate(["P@1", "P(rel=2)@1"], QRELS, RUN, 2).per_query["a b"]
    assert row["P@1"] == row["P(rel=2)@1"]


def test_a_threshold_is_for_metrics_without_grades_that_state_none() -> None:
    names = ["AP", "nDCG@10", "RR@10", "P(rel=3)@1"]
    plain, high = (named.evaluate(names, QRELS, RUN, relevance).per_query["a b"] for relevance in (1, 2))
    assert high["AP"] == high["RR@10"] == pytest.approx(1 / 3)
    assert (high["nDCG@10"], high["P(rel=3)@1"]) == (plain["nDCG@10"], plain["P(rel=3)@1"])
    both = [mteb_protocol.evaluate(QRELS, RUN, relevance=relevance).per_query["a b"] for relevance in (1, 2)]
    assert both[1]["map_at_1000"] == both[1]["mrr_at_10"] == pytest.approx(1 / 3)
    assert both[1]["ndcg_at_10"] == both[0]["ndcg_at_10"] == pytest.approx(plain["nDCG@10"])


def test_order_and_ties_are_those_of_the_mteb_protocol() -> None:
    """Scores that float32 would tie, and exact ties: every tool behind the library sees the order of pytrec_eval."""
    draw = random.Random(7)
    qrels, run = {}, {}
    for number in range(40):
        ids = [f"d{draw.randrange(10**6)}" for _ in range(30)]
        scores = ranked_list([1000 + draw.randrange(12) * 1e-9 for _ in ids]).scores
        run[f"q {number}"] = dict(zip(ids, scores, strict=True))
        qrels[f"q {number}"] = {doc_id: draw.choice([0, 0, 0, 1, 2]) for doc_id in ids}
    found = named.evaluate(["AP", "nDCG@10", "RR@10", "R@10"], qrels, run).per_query
    theirs = mteb_protocol.evaluate(qrels, run).per_query
    for query_id, row in theirs.items():
        assert found[query_id] == pytest.approx(
            {
                "AP": row["map_at_1000"],
                "nDCG@10": row["ndcg_at_10"],
                "RR@10": row["mrr_at_10"],
                "R@10": row["recall_at_10"],
            }
        )


def test_names_are_the_librarys_own() -> None:
    assert named.metric_names(" AP  nDCG@10 MAP RR(rel=1)@10 ") == ["AP", "nDCG@10", "RR@10"]
    assert named.metric_names(()) == []
    for text in ("nDCG@10", "ir_measures:nDCG@10"):
        assert Measure.parse(text) == Measure("ir_measures", "nDCG@10")
    assert str(Measure.parse("R@50")) == "ir_measures:R@50"


def test_judgements_far_below_zero_are_as_minus_one() -> None:
    run = {"q": {"a": 2.0, "b": 1.0}, "r": {"a": 1.0, "b": 2.0}}
    judged = [{"q": {"a": low, "b": low}, "r": {"a": 1, "b": low}} for low in (-1, -2)]
    found = [named.evaluate(["AP", "nDCG@10"], qrels, run) for qrels in judged]  # pytrec_eval would end the process
    assert found[0] == found[1]
    assert found[0].per_query["r"]["AP"] == 0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("NDCG10", r"no metric 'NDCG10' \(did you mean NDCG\?\): measure not found"),
        ("P", "the metric P: its parameters are cutoff, rel"),
        ("nDCG(depth=3)", "its parameters are cutoff, dcg"),
        ("P@0", "cutoff is 0: give 1 to 1000000"),
        ("AP@", "no metric 'AP@'"),
        ("NumRet", "counts .here 3.: give one whose values are 0 to 1"),
        ("nDCG(gains={1:'a'})@3", "no metric .*gains"),
        ("Accuracy", "cannot compute Accuracy: float division by zero|has no Accuracy of 1 query"),
        ("Accuracy@5", "cannot compute Accuracy@5: float division by zero|has no Accuracy@5 of 1 query"),
        ("ERR_IA@5", "cannot compute ERR_IA@5: Unsupported measures"),
    ],
)
def test_a_name_that_is_none_is_refused(given: str, message: str) -> None:
    with pytest.raises(ListconError, match=message):
        named.metric_names(f"AP {given}")


def test_a_stated_relevance_of_one_is_not_lost() -> None:
    """The library's name of AP(rel=1) is AP, which a threshold would change."""
    assert named.metric_names("AP(rel=1) AP(rel=2)") == ["AP", "AP(rel=2)"]
    assert named.metric_names("AP AP(rel=2)", relevance=2) == ["AP", "AP(rel=2)"]
    with pytest.raises(ListconError, match=r"AP\(rel=1\): its rel=1 cannot be told from none, which is --relevance 2"):
        named.metric_names("AP AP(rel=1)", relevance=2)
