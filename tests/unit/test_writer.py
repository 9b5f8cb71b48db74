"""TREC files of ids with white space, and tables that average complete rows only."""

from pathlib import Path

import pytest

from listcon_eval.records import CandidateList, ScoredList
from listcon_eval.report import comparison
from listcon_eval.results import RunRecord, write_run

TASKS = ("CMedQAv1-reranking", "CMedQAv2-reranking", "MMarcoReranking", "T2Reranking")


def record(
    folder: Path, task: str = "own", value: float = 0.5, *, official: bool = False, mode: str = "iterative"
) -> RunRecord:
    return RunRecord(
        folder,
        task,
        official,
        "org/model",
        "rev",
        mode,
        "precise",
        1,
        {"map": value},
        {"map_at_1000": value},
        "signature",
    )


def test_white_space_in_ids_does_not_break_trec_files(tmp_path: Path) -> None:
    lists = [CandidateList("query 1", "问", ("a b", "c"), ("甲", "乙"), (1, 0))]
    scored = [ScoredList("query 1", ("a b", "c"), (0.25, 1.5), (0, 1))]
    (tmp_path / "run.json").write_text("{}")  # mteb's file, which the manifest covers too
    folder = write_run(
        record(tmp_path / "run"),
        lists=lists,
        scored=scored,
        labels=[[True, False]],
        per_query={"query 1": {"cmteb": {"map": 0.5}, "mteb": {"map_at_1000": 0.5}}},
        qrels={"query 1": {"a b": 1, "c": 0, "unseen": 2}},
        provenance={},
        key="key",
    )
    assert (folder / "run.trec").read_text().splitlines() == [
        "query%201 Q0 c 1 1.5 org/model-iterative",
        "query%201 Q0 a%20b 2 0.25 org/model-iterative",
    ]
    assert (folder / "qrels.trec").read_text().splitlines() == [
        "query%201 0 a%20b 1",
        "query%201 0 c 0",
        "query%201 0 unseen 2",
    ]


def test_an_average_needs_every_task(tmp_path: Path) -> None:
    runs = [record(tmp_path, task, 0.1 * place, official=True) for place, task in enumerate(TASKS, start=1)]
    runs += [record(tmp_path, task, 0.9, official=True, mode="conventional") for task in TASKS[:3]]
    (table,) = comparison(runs, official_order=TASKS)
    complete, partial = table.frame.to_dict("records")
    assert complete["Avg."] == pytest.approx(25.0)
    assert partial["Avg."] != partial["Avg."]
    assert table.render().splitlines()[-1].split()[-2:] == ["-", "-"]


def test_official_and_other_data_share_no_table(tmp_path: Path) -> None:
    tables = comparison([record(tmp_path, "T2Reranking", official=True), record(tmp_path)], official_order=TASKS)
    assert [table.title.split(",")[0] for table in tables] == ["Official tasks", "Other data (no official results)"]
    assert "own" not in tables[0].frame.columns
    assert "T2Reranking" not in tables[1].frame.columns


def test_published_rows_are_called_published(tmp_path: Path) -> None:
    (table,) = comparison([record(tmp_path, "T2Reranking", official=True)], with_published=True, official_order=TASKS)
    assert table.frame["Source"].tolist()[:-1] == ["published"] * 6
    assert table.frame["Source"].tolist()[-1].startswith("measured")
