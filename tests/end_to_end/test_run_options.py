"""What `run` can be told beside a model and data: a trial on the first queries."""

from pathlib import Path

import pytest
from mteb import TaskResult

from command import listcon_eval, one_line
from listcon_eval import evaluate
from listcon_eval.data import local_task
from listcon_eval.errors import ListconError
from result_folders import ScoresByText, official_stand_in
from run_files import read_json, read_jsonl, run_folders, write_few_lists


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_few_lists(tmp_path / "few.jsonl", queries=4)


def test_a_trial_has_the_first_queries_and_a_name_of_its_own(data: Path, tmp_path: Path) -> None:
    command = ("run", "-m", "bm25", "--data", data, "--output", tmp_path)
    listcon_eval(*command)
    done = listcon_eval(*command, "--limit", "2")
    trial, whole = sorted(run_folders(tmp_path), key=lambda folder: folder.name, reverse=True)
    assert (trial.name, whole.name) == ("few-first2", "few")
    for name in ("run.jsonl", "per_query.jsonl"):
        assert read_jsonl(trial / name) == read_jsonl(whole / name)[:2]
    assert TaskResult.from_disk(trial.with_suffix(".json")).task_name == "few-first2"
    metrics, provenance = (read_json(trial / name) for name in ("metrics.json", "provenance.json"))
    assert (metrics["queries"], metrics["signature"]["limit"], metrics["is_official"]) == (2, 2, False)
    assert provenance["data"]["task"] == "few"
    listcon_eval("run", "-m", "random", "--data", data, "--output", tmp_path, "--limit", "2")
    compared = listcon_eval("compare", tmp_path, "--with-bounds")
    checked = listcon_eval("check", "--baseline", whole, "--current", tmp_path)
    for shown in (done, listcon_eval("table", tmp_path), compared, checked):
        assert "few-first2" in shown.stdout
    assert "finished before" in listcon_eval(*command, "--limit", "2").stderr
    assert "finished before" not in listcon_eval(*command, "--limit", "3").stderr
    query = read_jsonl(trial / "run.jsonl")[1]["query_id"]
    assert "No texts" not in listcon_eval("show", trial, "--query", query).stdout


def test_a_trial_is_nothing_to_publish_or_to_check_against(tmp_path: Path) -> None:
    system = ScoresByText("org/name", "0" * 40, {})
    evaluate(system, [official_stand_in("CMedQAv1-reranking")], output=tmp_path, limit=3)
    baseline = tmp_path / "baseline.json"
    for refused in (
        ("export", "leaderboard", tmp_path, "--output", tmp_path / "out", "--trained-on", "none"),
        ("export", "model-card", tmp_path),
        ("check", "--baseline", baseline, "--current", tmp_path, "--update"),
        ("check", "--baseline", tmp_path, "--current", tmp_path),
    ):
        told = one_line(listcon_eval(*refused, code=2).stderr)
        assert "CMedQAv1-reranking-first3" in told
        assert "without --limit" in told
    assert not baseline.exists()
    assert not (tmp_path / "out").exists()


def test_a_limit_below_1_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ListconError, match="limit is 0"):
        evaluate("random", [local_task(data)], output=tmp_path, limit=0)
    assert "'--limit'" in listcon_eval("run", "--limit", "0", code=2).stderr
