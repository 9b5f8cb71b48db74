"""The main job as its users start it: a checkpoint and data in, files and a table out."""

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

from command import COMMAND, ROOT, cold, listcon_eval, one_line
from run_files import MODES, by_mode, read_json, read_jsonl, run_folders, write_few_lists, write_lists


@pytest.fixture(scope="module")
def finished(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """One run of both modes on awkward lists: its output folder, and what it printed and noted."""
    folder = tmp_path_factory.mktemp("run")
    data = write_lists(folder / "awkward.jsonl.gz")
    options = ("--output", folder, "--dtype", "float32", "--memory", "4GB")
    done = cold(COMMAND, "run", "--model", checkpoint_folder, "--data", data, "--mode", "both", *options)
    return folder, done.stdout, done.stderr


def check_every_number(folder: Path) -> None:
    """Compute every number of a run again from its files, with scikit-learn and pytrec_eval alone."""
    metrics = read_json(folder / "metrics.json")
    per_query = {row["query_id"]: row for row in read_jsonl(folder / "per_query.jsonl")}
    rows = read_jsonl(folder / "run.jsonl")
    assert len(rows) == len(per_query) == metrics["queries"]

    values: dict[str, list[float]] = {"map": [], "mrr_1": [], "mrr_5": [], "mrr_10": []}
    dropped = 0
    for row in rows:
        labels, scores = np.array(row["cmteb_relevant"]), np.array(row["scores"])
        own = per_query[row["query_id"]]["cmteb"]
        if labels.all() or not labels.any():
            assert own is None
            dropped += 1
            continue
        values["map"].append(average_precision_score(labels, scores))
        ranked = [label for _, label in sorted(zip(-scores, labels, strict=True), key=lambda pair: float(pair[0]))]
        first = ranked.index(True) + 1
        for k in (1, 5, 10):
            values[f"mrr_{k}"].append(1 / first if first <= k else 0.0)
        for name, series in values.items():
            assert own[name] == pytest.approx(series[-1])
    assert dropped == metrics["dropped"]
    for name, series in values.items():
        assert metrics["cmteb"][name] == pytest.approx(np.mean(series))
    for name, (low, high) in metrics["ranges"].items():
        assert low <= metrics["cmteb"][name] <= high

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


def test_every_number_can_be_computed_again(finished: tuple[Path, str, str]) -> None:
    assert len(run_folders(finished[0])) == 2
    for folder in run_folders(finished[0]):
        check_every_number(folder)
        assert read_json(folder / "metrics.json")["dropped"] == 3


@pytest.mark.parametrize("name", ["heldout_t2ranking_sample", "heldout_100_statute", "heldout_1000_statute"])
@pytest.mark.slow
def test_real_data_in_both_modes(
    name: str, checkpoint_folder: Path, real_data: Callable[[str], Path], tmp_path: Path
) -> None:
    listcon_eval("run", "-m", checkpoint_folder, "--data", real_data(f"{name}.jsonl.gz"), "--output", tmp_path)
    for folder in run_folders(tmp_path):
        assert folder.name == name
        check_every_number(folder)


def test_equal_texts_share_a_score_and_in_iterative_mode_a_label(finished: tuple[Path, str, str]) -> None:
    for mode, folder in by_mode(finished[0]).items():
        row = read_jsonl(folder / "run.jsonl")[-1]
        twice_judged = (1, 27)  # the second positive, and its copy among the negatives
        assert row["scores"][twice_judged[0]] == row["scores"][twice_judged[1]]
        expected = [True, False] if mode == "conventional" else [False, False]
        assert [row["cmteb_relevant"][i] for i in twice_judged] == expected


def test_mteb_loads_both_modes_side_by_side(finished: tuple[Path, str, str]) -> None:
    results = ResultCache(finished[0]).load_results(load_experiments="match_name", require_model_meta=True)
    loaded = {model.experiment_name: [task.task_name for task in model.task_results] for model in results.model_results}
    assert loaded == {f"dtype_float32__mode_{mode}": ["awkward"] for mode in MODES}


def test_provenance_says_where_the_numbers_come_from(finished: tuple[Path, str, str]) -> None:
    for mode, folder in by_mode(finished[0]).items():
        provenance = read_json(folder / "provenance.json")
        assert provenance["settings"] == {"mode": mode, "dtype": "float32", "max_length": 512}
        assert {"load", "encode", "list", "measure"} <= set(provenance["seconds"])
        assert provenance["data"]["is_official"] is False
        assert len(provenance["model"]["weights_sha256"]) == 64
        assert provenance["signature"] == read_json(folder / "metrics.json")["signature"]
        assert provenance["versions"]["mteb"].startswith("2.")
        if provenance["git"] is not None:
            assert set(provenance["git"]) == {"commit", "dirty"}


def test_both_modes_count_the_encoding_that_they_share(finished: tuple[Path, str, str]) -> None:
    seconds = [read_json(folder / "provenance.json")["seconds"]["encode"] for folder in run_folders(finished[0])]
    assert seconds[0] == seconds[1] > 0
    for folder in run_folders(finished[0]):
        assert TaskResult.from_disk(folder.with_name(f"{folder.name}.json")).evaluation_time >= seconds[0]


def test_the_paths_of_what_was_written_are_printed_last(finished: tuple[Path, str, str]) -> None:
    last = finished[1].strip().splitlines()[-2:]
    assert {Path(line) for line in last} == {folder.parent for folder in run_folders(finished[0])}


def test_no_temporary_file_is_left(finished: tuple[Path, str, str]) -> None:
    assert list(finished[0].rglob(".*")) == []


def test_the_peak_stands_beside_the_budget(finished: tuple[Path, str, str]) -> None:
    assert re.search(r"^peak memory: host \d\.\d\d GB of 4\.00 GB, within the budget$", finished[2], flags=re.MULTILINE)


def test_the_table_shows_both_modes_and_no_official_name(finished: tuple[Path, str, str]) -> None:
    printed = listcon_eval("table", finished[0], "--format", "markdown").stdout
    assert "Other data (no official results)" in printed
    rows = [line for line in printed.splitlines() if line.startswith("| tiny-random")]
    assert [row.split("|")[2].strip() for row in rows] == list(MODES)
    maps = [read_json(folder / "metrics.json")["cmteb"]["map"] for folder in by_mode(finished[0]).values()]
    assert [row.split("|")[4].strip(" *") for row in rows] == [f"{100 * value:.2f}" for value in maps]


@pytest.mark.parametrize(
    ("script", "mode"),
    [("eval_listconranker.py", "conventional"), ("eval_listconranker_iterative_inference.py", "iterative")],
)
def test_the_reproduction_scripts(script: str, mode: str, checkpoint_folder: Path, tmp_path: Path) -> None:
    data = write_few_lists(tmp_path / "lists.jsonl")
    options = ("--model_name_or_path", checkpoint_folder, "--data", f"mine={data}", "--output", tmp_path / "results")
    printed = cold(sys.executable, ROOT / script, *options, "--device", "cpu").stdout
    folder = Path(printed.strip().splitlines()[-1])
    assert folder.name.startswith(f"dtype_float32__mode_{mode}__mine__")
    assert folder.is_relative_to(tmp_path / "results" / "local__tiny-random")
    check_every_number(folder / "mine")


def test_a_reproduction_script_explains_itself_as_the_command_does() -> None:
    told = one_line(cold(sys.executable, ROOT / "eval_listconranker.py", "-h").stdout)
    assert "subsets or splits as in MIRACLReranking[zh]; mini" in told
    wrong = cold(sys.executable, ROOT / "eval_listconranker.py", "--mode", "both", code=2).stderr
    empty = cold(sys.executable, ROOT / "eval_listconranker.py", "--output", "", code=2).stderr
    assert "the value after --output is '' (empty)" in empty
    assert wrong.splitlines()[-1].startswith("Error: No such option: --mode")


def test_json_is_one_object_on_standard_output(checkpoint_folder: Path, tmp_path: Path) -> None:
    import json

    data = write_few_lists(tmp_path / "few.jsonl")
    done = listcon_eval("run", "-m", checkpoint_folder, "--data", data, "--output", tmp_path, "--json", "-q")
    results = json.loads(done.stdout)["results"]
    assert [result["settings"]["mode"] for result in results] == list(MODES)
    assert [Path(result["folder"]) / "few" for result in results] == [by_mode(tmp_path)[mode] for mode in MODES]


def test_without_hub_and_data_there_is_one_message(checkpoint_folder: Path, tmp_path: Path) -> None:
    home = {"HF_HOME": str(tmp_path)}
    done = cold(COMMAND, "run", "-m", checkpoint_folder, "--output", tmp_path, code=2, environment=home)
    assert done.stderr.count("error:") == 1
    for part in ("CMedQAv1-reranking", "HF_HUB_OFFLINE", "--data", "HF_HOME", "HF_ENDPOINT"):
        assert part in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "./nowhere"], "no checkpoint folder at ./nowhere"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--tasks", "T3Reranking"], "T2Reranking"),
        (["--tasks", " "], "' ' names no task"),
        (["--dtype", "exact"], "exact"),
        (["--device", "abacus"], "no device 'abacus'"),
        (["--memory", "much"], "--memory is 'much': give a size with its unit"),
        (["--memory", "50MB"], "the host budget is 0.05 GB"),
        (["--output", "/proc/nowhere"], "cannot write to /proc/nowhere"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    options: list[str], message: str, checkpoint_folder: Path, tmp_path: Path
) -> None:
    data = write_few_lists(tmp_path / "lists.jsonl")
    given = {"--model": str(checkpoint_folder), "--data": str(data), "--output": str(tmp_path)}
    if options[0] == "--tasks":
        del given["--data"]
    given |= dict([options])
    done = listcon_eval("run", *(word for pair in given.items() for word in pair), code=2)
    assert message in one_line(done.stderr)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run -m bm25 --tasks MiniWeb --revision main", "a revision (main) was given for bm25"),
        ("run -m web.trec --tasks MiniWeb --revision main", "a revision (main) was given for web.trec"),
        ("run -m bm25 --tasks mini --data own.jsonl", "--tasks mini is the packaged data, and --data gives other data"),
        ("check --baseline b.json --update --junit j.xml --significant", "--update leaves --junit and --significant"),
        ("check --baseline b.json --json --format markdown", "--json leaves --format without effect"),
        ("compare results --json --format latex", "--json leaves --format without effect"),
        ("show results --query 1 --json --full", "--json leaves --full without effect"),
        ("table --json --format csv", "--json leaves --format without effect"),
        ("speed --data own.jsonl --scale 0.5", "--data leaves --scale without effect"),
        ("export leaderboard results --output there --trained-on ,", "',' names no task"),
        (
            "train --data d --model m --list_layers 3 --output_dir o",
            "--list_layers is without effect without --encoder",
        ),
        (
            "train --data d --model m --pooled_cache c --output_dir o",
            "--pooled_cache is without effect without --freeze or --teacher encoder",
        ),
        ("compare /dev/null", "no such folder: /dev/null is neither file nor folder"),
        ("table web.trec", "no such folder: web.trec is a file"),
        ("report web.trec -o /proc/report.html", "cannot write to /proc"),
        ("speed --profile /proc/trace.json --shape T2Reranking", "cannot write to /proc"),
    ],
)
def test_an_option_without_effect_and_a_path_of_no_use_are_refused_before_any_work(
    command: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "web.trec").write_text("q Q0 d 1 1.0 them\n")
    assert message in one_line(listcon_eval(*command.split(), code=2).stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["web.trec"]


def test_doctor_says_what_is_missing_and_what_is_there(checkpoint_folder: Path, tmp_path: Path) -> None:
    data = write_lists(tmp_path / "lists.jsonl.gz")
    done = listcon_eval("doctor", "-m", checkpoint_folder, "--data", data)
    assert "FAIL" not in done.stdout
    assert "9 queries" in done.stdout
    assert "listconranker" in done.stdout
    assert "FAIL" not in listcon_eval("doctor", "-m", "bm25", "--data", data).stdout
    assert "FAIL  model ./nowhere" in listcon_eval("doctor", "-m", "./nowhere", "--data", data, code=1).stdout
    home = {"HF_HOME": str(tmp_path)}
    absent = cold(COMMAND, "doctor", "-m", checkpoint_folder, "--tasks", "T2Reranking", code=1, environment=home)
    assert "FAIL  data of T2Reranking" in absent.stdout


def test_the_published_table_needs_no_results(tmp_path: Path) -> None:
    printed = listcon_eval("table", tmp_path, "--published", "--format", "markdown").stdout
    row = next(line for line in printed.splitlines() if "ListConRanker" in line and "iterative" in line)
    cells = [cell.strip() for cell in row.split("|")[3:-1]]
    assert cells == ["published, 2852d459b0e394", "90.55", "89.38", "**43.88**", "69.17", "**73.25**"]


@pytest.mark.parametrize(
    "verb",
    ["run", "table", "tasks", "doctor", "clean", "compare", "show", "check", "report"]
    + [f"export {verb}" for verb in ("leaderboard", "model-card", "quantised")],
)
def test_help_has_examples(verb: str) -> None:
    assert "  Examples:\n    listcon-eval " in listcon_eval(*verb.split(), "--help").stdout


def test_help_is_quick() -> None:
    code = "import sys, listcon_eval.cli.app; print([m for m in ('torch', 'mteb', 'pandas') if m in sys.modules])"
    assert cold(sys.executable, "-c", code).stdout.strip() == "[]"
    assert "Usage" in cold(sys.executable, "-m", "listcon_eval", "--help").stdout


@pytest.mark.parametrize(
    "encoding", ["gbk", *(pytest.param(name, marks=pytest.mark.slow) for name in ("latin-1", "cp1252", "ascii"))]
)
def test_output_that_a_terminal_cannot_show_is_no_error(encoding: str, tmp_path: Path) -> None:
    data = write_few_lists(tmp_path / "列表ä.jsonl")
    environment = {"PYTHONIOENCODING": encoding}
    done = subprocess.run(
        [COMMAND, "run", "-m", "bm25", "--data", f"列表ä={data}", "--output", tmp_path],
        capture_output=True,
        env={**os.environ, **environment},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert [folder.name for folder in run_folders(tmp_path)] == ["列表ä"]


@pytest.mark.parametrize(
    ("closed", "other"), [("stdout", "stderr"), pytest.param("stderr", "stdout", marks=pytest.mark.slow)]
)
def test_a_reader_that_has_seen_enough_ends_a_command_as_sigpipe_does(closed: str, other: str, tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    command: list[str | Path] = [COMMAND, "run", "-m", "random", "--tasks", "MiniWeb", "--output", tmp_path]
    with os.fdopen(write, "wb") as pipe:
        streams: dict[str, Any] = {closed: pipe, other: subprocess.PIPE}
        done = subprocess.run(command, **streams, text=True, timeout=300)
    assert done.returncode == 141
    assert "rror" not in (done.stderr or "") + (done.stdout or "")


@pytest.mark.parametrize("stream", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_closed_stream_is_no_error(stream: str, tmp_path: Path) -> None:
    command = f"{COMMAND} run -m random --tasks MiniWeb --output {tmp_path} {stream}>&-"
    cold("bash", "-c", command)
    assert len(run_folders(tmp_path)) == 1
