import math

import numpy as np
import pytest

from listcon_eval.errors import ListconError
from listcon_eval.metrics import MTEB_MEASURES
from listcon_eval.metrics import mteb as mteb_protocol
from listcon_eval.ordering import ranked_list
from listcon_eval.records import NOT_RETRIEVED, CandidateList

QRELS = {"a": {"x": 1, "y": 0}, "b": {"x": 0, "y": 2}, "c": {"x": 1}}
RUN = {"a": {"x": 2.0, "y": 1.0}, "b": {"x": 2.0, "y": 1.0}, "c": {}}


def test_values_of_each_query_and_their_means() -> None:
    means, per_query, *_ = mteb_protocol.evaluate(QRELS, RUN)
    assert per_query["a"] == {"map_at_1000": 1.0, "ndcg_at_10": 1.0, "recall_at_10": 1.0, "mrr_at_10": 1.0}
    assert per_query["b"] == pytest.approx(
        {"map_at_1000": 0.5, "ndcg_at_10": 1 / math.log2(3), "recall_at_10": 1.0, "mrr_at_10": 0.5}
    )
    assert set(per_query["c"].values()) == {0.0}
    assert means["map_at_1000"] == 0.5
    assert means["recall_at_10"] == 0.66667  # mteb rounds to 5 digits
    assert means["mrr_at_10"] == 0.5
    assert set(means) == set(per_query["a"]) == {measure.name for measure in MTEB_MEASURES}


def test_values_belong_to_their_query_whatever_the_order() -> None:
    turned = mteb_protocol.evaluate(dict(reversed(QRELS.items())), dict(reversed(RUN.items())))
    assert list(turned.per_query) == ["c", "b", "a"]
    assert turned.per_query["b"] == mteb_protocol.evaluate(QRELS, RUN).per_query["b"]


def test_a_relevant_document_that_is_no_candidate_is_missed() -> None:
    measured = mteb_protocol.evaluate({"a": {"x": 1, "z": 1}}, {"a": {"x": 1.0}})
    assert measured.per_query["a"]["map_at_1000"] == 0.5
    assert measured.per_query["a"]["recall_at_10"] == 0.5


def test_scores_of_numpy_are_taken() -> None:
    score: float = np.float32(1.0)  # type: ignore[assignment]
    assert mteb_protocol.evaluate({"a": {"x": 1}}, {"a": {"x": score}}).means["map_at_1000"] == 1.0


def test_what_was_not_retrieved_is_not_in_the_run() -> None:
    lists = [
        CandidateList("a", "问", ("x", "y", "z"), ("甲", "乙", "丙"), (1, 0, 1)),
        CandidateList("e", "问", (), (), ()),
    ]
    run = mteb_protocol.run_of(lists, [ranked_list([0.25, 0.5, NOT_RETRIEVED]), ranked_list([])])
    assert run == {"a": {"x": 0.25, "y": 0.5}, "e": {}}
    measured = mteb_protocol.evaluate({"a": {"x": 1, "z": 1}, "e": {"x": 1}}, run)
    assert measured.per_query["a"]["map_at_1000"] == 0.25
    assert set(measured.per_query["e"].values()) == {0.0}


def test_what_mteb_would_pass_over_is_refused() -> None:
    with pytest.raises(ListconError, match="the run lacks 1 judged query, the first is 'c'"):
        mteb_protocol.evaluate(QRELS, {"a": RUN["a"], "b": RUN["b"]})
    with pytest.raises(ListconError, match="no judgements for 1 query of the run, the first is 'b'"):
        mteb_protocol.evaluate({"a": QRELS["a"]}, {"a": RUN["a"], "b": RUN["b"]})
    with pytest.raises(ListconError, match="Query a: the score of y is nan"):
        mteb_protocol.evaluate({"a": QRELS["a"]}, {"a": {"x": 1.0, "y": math.nan}})
    with pytest.raises(ListconError, match="No queries"):
        mteb_protocol.evaluate({}, {})
