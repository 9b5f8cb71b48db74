"""What `run` can be told beside a model and data: a trial on the first queries, a file of options."""

import json
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


def test_a_file_of_options(data: Path, tmp_path: Path) -> None:
    """A file and the same options on the command line are one run; the command line wins."""
    (tmp_path / "run.yaml").write_text(f"model: bm25\ndata: [{data}]\nlimit: 2\nquiet: true\n", encoding="utf-8")
    (tmp_path / "run.json").write_text(json.dumps({"data": [str(data)], "keep-going": True, "max_length": 9}))
    done = listcon_eval("run", "--options", tmp_path / "run.yaml", "--output", tmp_path)
    assert done.stderr == ""
    assert [folder.name for folder in run_folders(tmp_path)] == ["few-first2"]
    listcon_eval("run", "--output", tmp_path, "--limit", "3", "--options", tmp_path / "run.yaml")
    assert [folder.name for folder in run_folders(tmp_path)] == ["few-first2", "few-first3"]
    refused = listcon_eval("run", "--options", tmp_path / "run.json", "-m", "bm25", "--output", tmp_path, code=2)
    assert "leave out --max-length" in one_line(refused.stderr)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("max-lenght: 3", "'max-lenght' is no option of this command; did you mean max-length? known: model, kind"),
        ("options: other.yaml", "'options' is no option"),
        ("limit: many", "limit is 'many': Input should be a valid integer"),
        ("limit: true", "limit is True: Input should be a valid integer"),
        ("limit: 0", "limit is 0: Input should be greater than or equal to 1"),
        ("fresh: 1", "fresh is 1: Input should be a valid boolean"),
        ("revision: 20250101", "revision is 20250101: Input should be a valid string"),
        ("data: [a.jsonl, 3]", "data is ['a.jsonl', 3]: Input should be a valid string"),
        ("data: a.jsonl", "data is 'a.jsonl': Input should be a valid array"),
        ("dtype: float64", "dtype is 'float64': Input should be 'auto', 'float16'"),
        ("model:", "model is None: Input should be a valid string"),
        ("- model", "holds ['model']: expected options with their values"),
        ("{", "cannot be read as YAML or JSON"),
    ],
)
def test_a_mistake_in_a_file_of_options_names_file_and_key(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(content, encoding="utf-8")
    done = listcon_eval("run", "--options", path, "--output", tmp_path, code=2)
    assert f"error: {path}" in one_line(done.stderr)
    assert message in one_line(done.stderr)
    assert done.stdout == ""
    assert "cannot be read" in listcon_eval("run", "--options", tmp_path / "none.yaml", code=2).stderr
