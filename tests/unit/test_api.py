"""The public functions from a notebook: data in memory goes in, DataFrames come out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import listcon_eval
from listcon_eval import compare, evaluate, load_results
from listcon_eval.errors import ListconError

ROWS: list[dict[str, Any]] = [
    {"query": "头痛怎么办", "positive": ["头痛要多休息。"], "negative": ["今天下雨。", "头痛。"]},
    {"query": "月亮", "positive": ["月有阴晴圆缺。"], "negative": ["皮蛋性凉。"]},
    {"query": "皮蛋", "positive": ["皮蛋性凉。"], "negative": []},
]
QRELS = {"q1": {"a": 1, "b": 0, "c": 0}, "q2": {"a": 0, "b": 1}}
GOOD = {"q1": {"a": 3.0, "b": 2.0, "c": 1.0}, "q2": {"a": 0.0, "b": 1.0}}
BAD = {"q1": {"a": 1.0, "b": 2.0, "c": 3.0}, "q2": {"a": 1.0, "b": 0.0}}


def table(nested: dict[str, dict[str, Any]], column: str) -> pd.DataFrame:
    rows = [(query_id, doc_id, value) for query_id, row in nested.items() for doc_id, value in row.items()]
    return pd.DataFrame(rows, columns=["query_id", "doc_id", column])


def test_every_public_name_can_be_imported() -> None:
    assert all(getattr(listcon_eval, name) for name in listcon_eval.__all__)


def test_lists_are_the_same_data_as_rows_a_frame_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    given: list[Any] = [{"mine": ROWS}, {"mine": pd.DataFrame(ROWS)}, {"mine": str(path)}, path, str(path)]
    found = [evaluate("bm25", own, output=tmp_path / str(place)).results[0] for place, own in enumerate(given)]
    assert {result.task for result in found} == {"mine"}
    assert len({result.data_revision for result in found}) == 1
    assert len({json.dumps([result.cmteb, result.mteb]) for result in found}) == 1


def test_results_are_frames(tmp_path: Path) -> None:
    evaluated = [evaluate(system, {"mine": ROWS}, output=tmp_path).results[0] for system in ("oracle", "random")]
    results = load_results(tmp_path)
    frame = results.frame()
    assert list(results) == evaluated
    assert frame["system"].tolist() == ["oracle (upper bound)", "random order"]
    assert frame["cmteb:map"].tolist() == [result.cmteb["map"] for result in evaluated]
    rows = results.per_query()
    assert len(rows) == 2 * len(ROWS)
    means = rows.groupby("system")[["cmteb:map", "mteb:map_at_1000"]].mean()  # NaN, a query cmteb drops, is left out
    assert means["cmteb:map"].tolist() == pytest.approx(frame["cmteb:map"].tolist())
    assert rows["cmteb:map"].isna().sum() == 2
    assert means["mteb:map_at_1000"].tolist() == pytest.approx(frame["mteb:map_at_1000"].tolist(), abs=1e-5)


def test_rows_of_two_results_can_be_told_apart(tmp_path: Path) -> None:
    for system in ("random", "random:1", "bm25"):
        evaluate(system, {"mine": ROWS}, output=tmp_path)
    columns = [name for name in load_results(tmp_path).frame() if ":" not in str(name) and name != "queries"]
    for rows in (load_results(tmp_path).frame(), load_results(tmp_path).per_query()):
        assert len(rows[columns].drop_duplicates()) == 3


def test_a_frame_has_the_metrics_that_were_asked_for(tmp_path: Path) -> None:
    evaluate("random", {"plain": ROWS}, output=tmp_path)
    results = evaluate("random", {"mine": ROWS}, output=tmp_path, metrics="RR@10 AP").results
    columns = ["ir_measures:RR@10", "ir_measures:AP"]
    assert results.frame()[columns].iloc[0].tolist() == list(results[0].ir_measures.values())
    assert load_results(tmp_path).frame()[columns].isna().all(axis=1).tolist() == [False, True]


def test_scores_in_memory_are_compared(tmp_path: Path) -> None:
    from_dicts = compare({"good": GOOD, "bad": BAD}, qrels=QRELS)
    from_frames = compare(
        {"good": table(GOOD, "score"), "bad": table(BAD, "score").astype({"score": np.float32})},
        qrels=table(QRELS, "relevance"),
    )
    means = from_dicts.means()
    pd.testing.assert_frame_equal(means, from_frames.means())
    first = means[means["measure"] == "mteb:map_at_1000"].set_index("run")
    assert first["mean"].to_dict() == {"good": 1.0, "bad": pytest.approx((1 / 3 + 1 / 2) / 2)}
    (row,) = from_dicts.differences().query("measure == 'mteb:map_at_1000'").to_dict("records")
    assert (row["base"], row["other"], row["p"]) == ("good", "bad", 0.5)
    assert [row[name] for name in ("wins", "ties", "losses")] == [0, 0, 2]


def test_scores_in_memory_stand_beside_a_run_of_ours(tmp_path: Path) -> None:
    (result,) = evaluate("oracle", {"mine": ROWS}, output=tmp_path).results
    own = {"test_query0": {"apositive_test_query0_00000": 1.0}, "test_query1": {}, "test_query2": {}}
    found = compare({"theirs": own, "best": tmp_path}, against="best", with_bounds=True)
    assert found.labels == ["theirs", "best"]
    assert found.tasks[0].task == "mine"
    assert found.means().query("run == 'theirs' and measure == 'mteb:map_at_1000'")["mean"].tolist() == [
        pytest.approx(1 / 3)
    ]
    evaluate("random", {"mine": ROWS}, output=tmp_path)
    with pytest.raises(ListconError, match="holds 2 systems"):
        compare({"theirs": own, "best": tmp_path})
    with pytest.raises(ListconError, match="differ in what is relevant"):
        compare({"theirs": own, "best": result.folder}, qrels={name: {"other": 1} for name in own})


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (table(GOOD, "points"), "has no column score: expected query_id, doc_id, score; it has query_id, doc_id, p"),
        (pd.concat([table(GOOD, "score")] * 2), "document a comes a second time for query q1"),
        ({"q1": {"a": float("nan")}}, "scores in memory, query 'q1': the score is nan"),
        ({"q1": {"a": None}}, "expected a number"),
        ({"other": {"a": 1.0}}, "has no query that qrels judges"),
    ],
)
def test_scores_that_cannot_be_used_are_refused(scores: dict[str, dict[str, float]], reason: str) -> None:
    with pytest.raises(ListconError, match=reason):
        compare({"good": GOOD, "mine": scores}, qrels=QRELS)


def test_scores_without_judgements_are_refused() -> None:
    with pytest.raises(ListconError, match="good: a TREC run needs judgements"):
        compare({"good": GOOD, "bad": BAD})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "m is None; expected a path, a DataFrame or a list of rows"),
        (5, "m is 5; expected a path"),
        (pd.Series([1]), "m, row 1 is 1; expected a list of rows"),
        (
            pd.DataFrame([["q", ["a"], ["b"], ["c"]]], columns=["query", "positive", *["negative"] * 2]),
            "a column twice",
        ),
    ],
)
def test_data_that_is_none_is_refused(data: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ListconError, match=message):
        evaluate("bm25", {"m": data}, output=tmp_path)


def test_rows_that_are_none_and_empty_paths_are_refused() -> None:
    with pytest.raises(ListconError, match="m, row 1 is 'query'; expected a list of rows"):
        evaluate("bm25", {"m": ROWS[0]})
    with pytest.raises(ListconError, match="the path of the data is '' "):
        evaluate("bm25", {"m": ""})
