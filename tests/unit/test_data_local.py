import json
from pathlib import Path
from typing import Any

import pytest
from mteb.abstasks.task_metadata import TaskMetadata

from listcon_eval.data import FirstStage, local_task, reranking_of
from listcon_eval.errors import ListconError
from listcon_eval.evaluation import evaluate
from listcon_eval.systems.base import LoadOptions

ROWS = [
    {"query": "皮蛋是寒性的食物吗", "positive": ["皮蛋性凉", "是"], "negative": ["月有阴晴圆缺"]},
    {"query": "月亮", "positive": ["月有阴晴圆缺"], "negative": ["皮蛋性凉", "不知道"]},
]
# What mteb ships for an official data set, here for ROWS, worked by hand. The least and most relevant ones
# of a query are as an older mteb counted them, which made the shipped files: with the irrelevant ones.
STATISTICS: dict[str, Any] = {
    "num_samples": 8,
    "number_of_characters": 35,
    "documents_text_statistics": {
        "total_text_length": 24,
        "min_text_length": 1,
        "average_text_length": 4.0,
        "max_text_length": 6,
        "unique_texts": 4,
    },
    "documents_image_statistics": None,
    "queries_text_statistics": {
        "total_text_length": 11,
        "min_text_length": 2,
        "average_text_length": 5.5,
        "max_text_length": 9,
        "unique_texts": 2,
    },
    "relevant_docs_statistics": {
        "num_relevant_docs": 3,
        "min_relevant_docs_per_query": 3,
        "average_relevant_docs_per_query": 1.5,
        "max_relevant_docs_per_query": 3,
        "unique_relevant_docs": 6,
    },
    "top_ranked_statistics": {
        "num_top_ranked": 6,
        "min_top_ranked_per_query": 3,
        "average_top_ranked_per_query": 3.0,
        "max_top_ranked_per_query": 3,
    },
    "num_documents": 6,
    "num_queries": 2,
}


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The shipped statistics of T2Reranking (dev), as if ROWS were the official data."""
    statistics: dict[str, Any] = json.loads(json.dumps(STATISTICS))
    monkeypatch.setattr(TaskMetadata, "descriptive_stats", property(lambda _: {"dev": statistics}))
    return statistics


@pytest.mark.parametrize("claim", ["T2Reranking", "t2reranking", "C-MTEB/T2Reranking"])
def test_a_copy_that_matches_carries_the_official_name(tmp_path: Path, shipped: dict[str, Any], claim: str) -> None:
    path = write(tmp_path / "copy.jsonl")
    task = local_task(path, claim=claim)
    assert (task.name, task.split, task.is_official) == ("T2Reranking", "dev", True)
    assert task.revision == "a34fe6bc0dff185af1228e49a0f6fb1de1565627"
    assert (task.source, task.location) == ("local copy of official data", str(path))
    assert task.mteb_task.metadata.dataset["path"] == "mteb/T2Reranking"
    assert [c.query_id for c in task.candidate_lists()] == ["dev_query0", "dev_query1"]


def test_an_official_name_is_a_claim(tmp_path: Path, shipped: dict[str, Any]) -> None:
    assert local_task(write(tmp_path / "t2reranking.jsonl")).source == "local copy of official data"
    assert local_task(write(tmp_path / "copy.jsonl"), name="T2Reranking").is_official


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("num_queries",), 3, "num_queries: official 3, here 2"),
        (("documents_text_statistics", "max_text_length"), 7, "max_text_length: official 7, here 6"),
        (("queries_text_statistics", "average_text_length"), 5.5001, "official 5.5001, here 5.5"),
        (("relevant_docs_statistics", "num_relevant_docs"), 4, "num_relevant_docs: official 4, here 3"),
        (("top_ranked_statistics", "min_top_ranked_per_query"), 2, "per_query: official 2, here 3"),
    ],
)
def test_a_copy_that_differs_is_refused_with_both_values(
    tmp_path: Path, shipped: dict[str, Any], keys: tuple[str, ...], value: float, message: str
) -> None:
    statistics = shipped
    for key in keys[:-1]:
        statistics = statistics[key]
    statistics[keys[-1]] = value
    with pytest.raises(ListconError) as caught:
        local_task(write(tmp_path / "copy.jsonl"), claim="T2Reranking")
    said = str(caught.value)
    assert "is not a copy of T2Reranking" in said
    assert "1 of its statistics differ" in said
    assert message in said
    assert "under a name of its own" in said


def test_one_character_more_is_a_difference(tmp_path: Path, shipped: dict[str, Any]) -> None:
    path = write(tmp_path / "copy.jsonl", [{**ROWS[0], "negative": ["月有阴晴圆缺。"]}, ROWS[1]])
    with pytest.raises(ListconError, match=r"documents_text_statistics\.total_text_length: official 24, here 25"):
        local_task(path, claim="T2Reranking")


def test_other_data_does_not_pass_for_the_real_official_data(tmp_path: Path) -> None:
    with pytest.raises(ListconError, match="num_queries: official 5908, here 2"):
        local_task(write(tmp_path / "copy.jsonl"), claim="T2Reranking")


@pytest.mark.parametrize("name", ["SciFact", "scifact", "MIRACLReranking", "T2Retrieval"])
def test_names_of_other_tasks_of_mteb_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ListconError, match=f"(?i){name} is a task of mteb"):
        local_task(write(tmp_path / "mine.jsonl"), name=name)
    with pytest.raises(ListconError, match=f"(?i){name} is a task of mteb"):
        local_task(write(tmp_path / f"{name}.jsonl"))


@pytest.mark.parametrize(
    ("file", "name"),
    [("my data (1).jsonl", "my-data-1-"), ("医疗.v2.jsonl", "医疗.v2"), ("..hidden.json", "hidden")],
)
def test_a_file_name_becomes_a_safe_task_name(tmp_path: Path, file: str, name: str) -> None:
    assert local_task(write(tmp_path / file)).name == name


@pytest.mark.parametrize("name", ["", "a/b", "../up", "a b", ".hidden"])
def test_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ListconError, match="is not usable"):
        local_task(write(tmp_path / "a.jsonl"), name=name)


@pytest.mark.parametrize("name", ["数" * 72, "n" * 151])
def test_a_name_too_long_for_a_folder_is_refused_before_any_work(tmp_path: Path, name: str) -> None:
    with pytest.raises(ListconError, match=r"has \d+ bytes; expected at most 150.*--data NAME=PATH"):
        local_task(write(tmp_path / f"{name}.jsonl"))
    with pytest.raises(ListconError, match="expected at most 150"):
        reranking_of(local_task(write(tmp_path / "a.jsonl")), FirstStage(name, "1", 2, {}), {})


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    """A task's, as a variant and with the settings of the packaged model, and a run file's."""
    name = "数" * 50
    path = write(tmp_path / f"{name}.jsonl")
    for _ in range(2):
        (first, _) = evaluate(
            "mini", path, output=tmp_path, limit=2, options=LoadOptions(max_length=64), fresh=True
        ).results
    run = first.file("run.trec").rename(tmp_path / f"{'r' * 250}.trec")
    (result,) = evaluate(run, {name: path}, output=tmp_path, limit=2).results
    assert result.mteb == first.mteb


def test_a_claim_leaves_no_choice_of_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl")
    with pytest.raises(ListconError, match="a claim is the name"):
        local_task(path, name="mine", claim="T2Reranking")
    with pytest.raises(ListconError, match="unknown task 'SciFacts'"):
        local_task(path, claim="SciFacts")
