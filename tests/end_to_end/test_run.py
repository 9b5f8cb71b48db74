"""The main job as its users start it: a checkpoint and data in, files and a table out."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytrec_eval
from mteb import ResultCache, TaskResult
from sklearn.metrics import average_precision_score

from texts import random_list

ROOT = Path(__file__).resolve().parents[2]
MODES = ("conventional", "iterative")


def run(*arguments: str | Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Start a command as a user would, without a hub, and check how it ends."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def listcon_eval(*arguments: str | Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    return run(Path(sys.executable).parent / "listcon-eval", *arguments, code=code, **environment)


def write_lists(path: Path) -> Path:
    """Lists of 1 to 1002 candidates with the awkward cases: equal queries, equal texts, one class only."""
    rows: list[dict[str, Any]] = []
    for seed, (positives, negatives) in enumerate([(1, 0), (1, 1), (2, 18), (3, 22), (0, 5), (4, 0), (2, 1000)]):
        query, *passages = random_list(positives + negatives, seed=seed, longest=30)
        rows.append({"query": query, "positive": passages[:positives], "negative": passages[positives:]})
    rows.append({"query": rows[3]["query"], "positive": rows[3]["positive"], "negative": rows[2]["negative"]})
    repeated = random_list(26, seed=99, longest=30)
    # Equal documents among the negatives, a text that is positive and negative at once, and an empty passage.
    rows.append(
        {
            "query": repeated[0],
            "positive": [repeated[1], repeated[2]],
            "negative": [*repeated[3:], repeated[5], repeated[2], ""],
        }
    )
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path


@pytest.fixture(scope="module")
def outcome(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One run of both modes on those lists: its output folder and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    data = write_lists(folder / "awkward.jsonl.gz")
    done = listcon_eval(
        "run",
        "--model",
        checkpoint_folder,
        "--data",
        data,
        "--mode",
        "both",
        "--output",
        folder,
        "--precision",
        "precise",
        "--memory",
        "4GB",
    )
    (folder / "notes.txt").write_text(done.stderr, encoding="utf-8")
    return folder, done.stdout


def folders(output: Path) -> dict[str, Path]:
    """The folder of each mode's files."""
    found = {path.parent.parent.name: path.parent for path in output.glob("results/*/*/experiments/*/*/metrics.json")}
    return {mode: next(path for name, path in found.items() if f"mode_{mode}" in name) for mode in MODES}


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=_refuse) for line in path.read_text(encoding="utf-8").splitlines()]


def read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    return content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def check_every_number(folder: Path) -> None:
    """Compute every number of a run again from its files, with scikit-learn and pytrec_eval alone."""
    metrics = read_json(folder / "metrics.json")
    per_query = {row["query_id"]: row for row in read_jsonl(folder / "per_query.jsonl")}
    rows = read_jsonl(folder / "run.jsonl")
    assert len(rows) == len(per_query) == metrics["queries"]

    values: dict[str, list[float]] = {"map": [], "mrr_1": [], "mrr_5": [], "mrr_10": []}
    for row in rows:
        labels, scores = np.array(row["cmteb_relevant"]), np.array(row["scores"])
        values["map"].append(average_precision_score(labels, scores) if labels.any() else 0.0)
        ranked = [label for _, label in sorted(zip(-scores, labels, strict=True), key=lambda pair: float(pair[0]))]
        first = ranked.index(1) + 1 if 1 in ranked else None
        for k in (1, 5, 10):
            values[f"mrr_{k}"].append(1 / first if first is not None and first <= k else 0.0)
        for name, series in values.items():
            assert per_query[row["query_id"]]["cmteb"][name] == pytest.approx(series[-1])
    for name, series in values.items():
        assert metrics["cmteb"][name] == pytest.approx(np.mean(series))

    with (folder / "qrels.trec").open() as file:
        qrels = pytrec_eval.parse_qrel(file)
    with (folder / "run.trec").open() as file:
        trec = pytrec_eval.parse_run(file)
    names = {"map_cut_1000": "map_at_1000", "ndcg_cut_10": "ndcg_at_10", "recall_10": "recall_at_10"}
    evaluated = pytrec_eval.RelevanceEvaluator(qrels, {"map_cut.1000", "ndcg_cut.10", "recall.10"}).evaluate(trec)
    result = TaskResult.from_disk(folder.with_name(f"{folder.name}.json"))
    (reported,) = next(iter(result.scores.values()))
    for theirs, ours in names.items():
        mean = np.mean([of_query[theirs] for of_query in evaluated.values()])
        assert metrics["mteb"][ours] == pytest.approx(mean, abs=1e-5)
        assert reported[ours] == pytest.approx(mean, abs=1e-5)
        for query_id, of_query in evaluated.items():
            assert per_query[query_id]["mteb"][ours] == pytest.approx(of_query[theirs])
    reciprocal = []
    for query_id, found in trec.items():
        ranked_ids = sorted(found, key=lambda doc_id: (found[doc_id], doc_id), reverse=True)[:10]
        hits = [rank for rank, doc_id in enumerate(ranked_ids, start=1) if qrels[query_id].get(doc_id, 0) > 0]
        reciprocal.append(1 / hits[0] if hits else 0.0)
        assert per_query[query_id]["mteb"]["mrr_at_10"] == pytest.approx(reciprocal[-1])
    assert reported["mrr_at_10"] == pytest.approx(np.mean(reciprocal), abs=1e-5)
    assert reported["main_score"] == reported["map_at_1000"]


def test_every_number_can_be_computed_again(outcome: tuple[Path, str]) -> None:
    for folder in folders(outcome[0]).values():
        check_every_number(folder)


@pytest.mark.parametrize("name", ["heldout_t2ranking_sample", "heldout_100_statute", "heldout_1000_statute"])
def test_real_data_in_both_modes(
    name: str, checkpoint_folder: Path, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    listcon_eval("run", "-m", checkpoint_folder, "--data", real_data(f"{name}.jsonl.gz"), "--output", tmp_path)
    for folder in folders(tmp_path).values():
        assert folder.name == name
        check_every_number(folder)


def test_equal_texts_share_a_score_and_in_iterative_mode_a_label(outcome: tuple[Path, str]) -> None:
    for mode, folder in folders(outcome[0]).items():
        row = read_jsonl(folder / "run.jsonl")[-1]
        twice_judged = (1, 27)  # the second positive, and its copy among the negatives
        assert row["scores"][twice_judged[0]] == row["scores"][twice_judged[1]]
        assert [row["cmteb_relevant"][i] for i in twice_judged] == ([1, 0] if mode == "conventional" else [0, 0])


def test_mteb_loads_both_modes_side_by_side(outcome: tuple[Path, str]) -> None:
    results = ResultCache(outcome[0]).load_results(load_experiments="match_name", require_model_meta=True)
    loaded = {model.experiment_name: [task.task_name for task in model.task_results] for model in results.model_results}
    assert loaded == {f"mode_{mode}__precision_precise": ["awkward"] for mode in MODES}


def test_provenance_says_where_the_numbers_come_from(outcome: tuple[Path, str]) -> None:
    for mode, folder in folders(outcome[0]).items():
        provenance = read_json(folder / "provenance.json")
        assert provenance["settings"] == {"mode": mode, "precision": "precise", "max_length": 512}
        assert set(provenance["seconds"]) == {"load", "tokenise", "encode", "list", "measure"}
        assert provenance["data"]["is_official"] is False
        assert len(provenance["model"]["weights_sha256"]) == 64
        assert provenance["signature"] == read_json(folder / "metrics.json")["signature"]
        assert provenance["versions"]["mteb"].startswith("2.")
        if provenance["git"] is not None:
            assert set(provenance["git"]) == {"commit", "dirty"}


def test_the_paths_of_what_was_written_are_printed_last(outcome: tuple[Path, str]) -> None:
    output, printed = outcome
    last = printed.strip().splitlines()[-2:]
    assert {Path(line) for line in last} == {folder.parent for folder in folders(output).values()}


def test_no_temporary_file_is_left(outcome: tuple[Path, str]) -> None:
    assert list(outcome[0].rglob(".*")) == []


def test_the_table_shows_both_modes_and_no_official_name(outcome: tuple[Path, str]) -> None:
    printed = listcon_eval("table", outcome[0], "--format", "markdown").stdout
    assert "Other data (no official results)" in printed
    rows = [line for line in printed.splitlines() if line.startswith("| tiny-random")]
    assert [row.split("|")[2].strip() for row in rows] == list(MODES)
    maps = [read_json(folder / "metrics.json")["cmteb"]["map"] for folder in folders(outcome[0]).values()]
    assert [row.split("|")[4].strip(" *") for row in rows] == [f"{100 * value:.2f}" for value in maps]


@pytest.mark.parametrize(
    ("script", "mode"),
    [("eval_listconranker.py", "conventional"), ("eval_listconranker_iterative_inference.py", "iterative")],
)
def test_the_reproduction_scripts(script: str, mode: str, checkpoint_folder: Path, tmp_path: Path) -> None:
    data = write_lists(tmp_path / "lists.jsonl.gz")
    options = (
        "--model_name_or_path",
        checkpoint_folder,
        "--data",
        f"mine={data}",
        "--output",
        tmp_path / "results",
    )
    printed = run(sys.executable, ROOT / script, *options, "--device", "cpu").stdout
    folder = Path(printed.strip().splitlines()[-1])
    assert folder.name == f"mode_{mode}__precision_published"
    assert folder.is_relative_to(tmp_path / "results" / "local__tiny-random")
    check_every_number(folder / "mine")


def test_the_peak_stands_beside_the_budget(outcome: tuple[Path, str]) -> None:
    notes = (outcome[0] / "notes.txt").read_text(encoding="utf-8")
    assert re.search(r"^peak memory: host \d\.\d\d GB of 4\.00 GB, within the budget$", notes, flags=re.MULTILINE)


def test_a_second_run_says_the_same(outcome: tuple[Path, str], checkpoint_folder: Path, tmp_path: Path) -> None:
    data = outcome[0] / "awkward.jsonl.gz"
    listcon_eval("run", "-m", checkpoint_folder, "--data", data, "--output", tmp_path, "--precision", "precise", "-q")
    for mode, folder in folders(tmp_path).items():
        for name in ("run.trec", "per_query.jsonl"):
            assert (folder / name).read_bytes() == (folders(outcome[0])[mode] / name).read_bytes()


def test_without_hub_and_data_there_is_one_message(checkpoint_folder: Path, tmp_path: Path) -> None:
    done = listcon_eval("run", "-m", checkpoint_folder, "--output", tmp_path, code=2, HF_HOME=str(tmp_path))
    assert done.stderr.count("error:") == 1
    for part in ("CMedQAv1-reranking", "HF_HUB_OFFLINE", "--data", "HF_HOME", "HF_ENDPOINT"):
        assert part in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "./nowhere"], "no checkpoint folder at ./nowhere"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--tasks", "T3Reranking"], "T2Reranking"),
        (["--precision", "exact"], "exact"),
        (["--device", "abacus"], "no device 'abacus'"),
        (["--memory", "much"], "--memory is 'much': give a size with its unit"),
        (["--memory", "50MB"], "the host budget is 0.05 GB"),
        (["--output", "/proc/nowhere"], "cannot write to /proc/nowhere"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    options: list[str], message: str, checkpoint_folder: Path, tmp_path: Path
) -> None:
    data = write_lists(tmp_path / "lists.jsonl.gz")
    given = {"--model": str(checkpoint_folder), "--data": str(data), "--output": str(tmp_path)}
    if options[0] == "--tasks":
        del given["--data"]
    given |= dict([options])
    done = listcon_eval("run", *(word for pair in given.items() for word in pair), code=2)
    assert message in " ".join(done.stderr.split())
    assert done.stdout == ""


def test_doctor_says_what_is_missing_and_what_is_there(checkpoint_folder: Path, tmp_path: Path) -> None:
    data = write_lists(tmp_path / "lists.jsonl.gz")
    done = listcon_eval("doctor", "-m", checkpoint_folder, "--data", data)
    assert "FAIL" not in done.stdout
    assert "9 queries" in done.stdout
    assert "encoded by packed" in done.stdout or "encoded by onednn" in done.stdout
    done = listcon_eval("doctor", "-m", checkpoint_folder, "--tasks", "T2Reranking", code=1, HF_HOME=str(tmp_path))
    assert "FAIL  data of T2Reranking" in done.stdout
    assert "FAIL  checkpoint ./nowhere" in listcon_eval("doctor", "-m", "./nowhere", "--data", data, code=1).stdout


def test_the_published_table_needs_no_results(tmp_path: Path) -> None:
    printed = listcon_eval("table", tmp_path, "--published", "--format", "markdown").stdout
    row = next(line for line in printed.splitlines() if "ListConRanker" in line and "iterative" in line)
    assert [cell.strip() for cell in row.split("|")[3:-1]] == [
        "published",
        "90.55",
        "89.38",
        "**43.88**",
        "69.17",
        "**73.25**",
    ]
    assert "no results at" in listcon_eval("table", tmp_path, code=2).stderr


@pytest.mark.parametrize("verb", [[], ["run"], ["table"], ["tasks"], ["doctor"]])
def test_help_is_quick_and_has_examples(verb: list[str]) -> None:
    printed = listcon_eval(*verb, "--help").stdout
    assert not verb or "Examples:" in printed
    loaded = run(
        sys.executable,
        "-c",
        "import sys, listcon_eval.cli; print([m for m in ('torch', 'mteb', 'pandas') if m in sys.modules])",
    ).stdout
    assert loaded.strip() == "[]"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            [Path(sys.executable).parent / "listcon-eval", "tasks"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
        )
    assert (done.returncode, done.stderr) == (1, "")
