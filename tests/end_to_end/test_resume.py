"""Runs that survive: kills, damaged chunks, edited files, a full disk, a second process, failing queries."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from checkpoints import bert_tokenizer, write_layout_1
from end_to_end.test_run import folders, listcon_eval, read_json, read_jsonl, run, write_lists
from texts import random_list

HERE = Path(__file__).resolve().parent
FILES = ("run.jsonl", "per_query.jsonl", "metrics.json")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_lists(tmp_path / "lists.jsonl.gz")


def test_twenty_kills_end_with_the_bytes_of_an_uninterrupted_run(checkpoint_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "few.jsonl"
    with data.open("w", encoding="utf-8") as file:
        for seed in range(4):
            query, *passages = random_list(25, seed=seed)
            file.write(json.dumps({"query": query, "positive": passages[:2], "negative": passages[2:]}) + "\n")
    done = run(
        sys.executable, HERE / "interrupted.py", checkpoint_folder, data, tmp_path, "20", TOKENIZERS_PARALLELISM="false"
    )
    told = json.loads(done.stdout)
    assert told["kills"] == 20
    assert told["reused"] > 0


def test_a_finished_run_is_read_not_computed(checkpoint_folder: Path, data: Path, tmp_path: Path) -> None:
    command = ("run", "-m", checkpoint_folder, "--data", data, "--output", tmp_path)
    first = listcon_eval(*command)
    before = {mode: (folder / "provenance.json").read_bytes() for mode, folder in folders(tmp_path).items()}
    second = listcon_eval(*command)
    assert second.stderr.count("finished before") == 2
    assert second.stdout == first.stdout
    after = {mode: (folder / "provenance.json").read_bytes() for mode, folder in folders(tmp_path).items()}
    assert after == before
    assert "finished before" not in listcon_eval(*command, "--fresh").stderr
    assert "finished before" not in listcon_eval(*command, "--max-length", "64").stderr


def test_other_data_of_the_same_name_is_not_answered_from_the_first(checkpoint_folder: Path, tmp_path: Path) -> None:
    scores = []
    for seed in (1, 2):
        query, *passages = random_list(3, seed=seed)
        row = {"query": query, "positive": passages[:1], "negative": passages[1:]}
        (tmp_path / "own.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
        listcon_eval("run", "-m", checkpoint_folder, "--data", tmp_path / "own.jsonl", "--output", tmp_path)
        scores.append(read_jsonl(folders(tmp_path)["iterative"] / "run.jsonl")[0]["scores"])
    assert scores[0] != scores[1]


@pytest.mark.parametrize("name", ["metrics.json", "run.trec", "per_query.jsonl", "../lists.json"])
def test_an_edited_or_missing_file_is_named(name: str, checkpoint_folder: Path, data: Path, tmp_path: Path) -> None:
    command = ("run", "-m", checkpoint_folder, "--data", data, "--output", tmp_path, "--mode", "conventional")
    listcon_eval(*command)
    (folder,) = (path.parent for path in tmp_path.glob("results/*/*/experiments/*/*/metrics.json"))
    path = folder / name
    path.write_text(path.read_text(encoding="utf-8").replace("1", "2", 1), encoding="utf-8")
    told = listcon_eval(*command, code=2).stderr
    assert f"{Path(name).name} is not as it was written" in told
    assert "--fresh" in told
    path.unlink()
    assert f"{Path(name).name} is gone" in listcon_eval(*command, code=2).stderr
    listcon_eval(*command, "--fresh")
    listcon_eval(*command)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs privileges")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_named_and_what_was_there_stays(checkpoint_folder: Path, data: Path, small_disk: Path) -> None:
    (small_disk / "results").mkdir()
    command = ("run", "-m", checkpoint_folder, "--data", data, "--output", small_disk)
    told = listcon_eval(*command, code=2).stderr
    assert "No space left on device" in told
    assert "start the same command again" in told
    assert list(small_disk.rglob("metrics.json")) == []
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    listcon_eval(*command)
    assert len(folders(small_disk)) == 2


def test_a_second_process_is_refused_and_a_dead_one_is_no_hindrance(
    checkpoint_folder: Path, data: Path, tmp_path: Path
) -> None:
    holder = (
        "import sys, time; from pathlib import Path; from listcon_eval.results import at_work\n"
        "with at_work(Path(sys.argv[1]), 'task', 'k' * 64, fresh=False):\n"
        "    print('here', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", holder, tmp_path], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "here\n"
        second = subprocess.run(
            [sys.executable, "-c", holder, tmp_path], capture_output=True, text=True, timeout=60, check=False
        )
        message = second.stderr.strip().splitlines()[-1]
        assert f"another process is at work on this run (pid {first.pid} on host {os.uname().nodename}" in message
        os.kill(first.pid, signal.SIGKILL)
    with subprocess.Popen([sys.executable, "-c", holder, tmp_path], stdout=subprocess.PIPE, text=True) as third:
        assert third.stdout is not None
        assert third.stdout.readline() == "here\n"
        third.kill()


def test_a_failing_query_with_keep_going(tmp_path: Path) -> None:
    """A character whose embedding is no number spoils the one list it stands in."""
    checkpoint = write_layout_1(tmp_path / "spoilt")
    index = bert_tokenizer().convert_tokens_to_ids("一")
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][index] = float("nan")
    save_file(tensors, checkpoint / "model.safetensors")
    rows = []
    for seed in range(3):
        query, *passages = (text.replace("一", "") for text in random_list(25, seed=seed))
        rows.append({"query_id": f"q{seed}", "query": query, "positive": passages[:1], "negative": passages[1:]})
    rows[1]["negative"] = ["第一", *rows[1]["negative"][1:]]
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ("run", "-m", checkpoint, "--data", path, "--output", tmp_path, "--mode", "iterative")
    assert "own, query q1: 25 of 25 scores are not a number" in " ".join(listcon_eval(*command, code=2).stderr.split())
    done = listcon_eval(*command, "--keep-going", code=1)
    assert "1 queries failed, so these runs have no metrics" in done.stderr
    assert list(tmp_path.rglob("metrics.json")) == []
    (failed,) = tmp_path.rglob("*.failed")
    assert list(read_json(failed / "failures.json")) == ["q1"]
    assert [row["query_id"] for row in read_jsonl(failed / "run.jsonl")] == ["q0", "q2"]


def test_an_interrupt_says_that_the_same_command_goes_on(checkpoint_folder: Path, data: Path, tmp_path: Path) -> None:
    command: list[str | Path] = [
        Path(sys.executable).parent / "listcon-eval",
        "run",
        "-m",
        checkpoint_folder,
        "--data",
        data,
        "--output",
        tmp_path,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        while "loading the model" not in line:
            line = process.stderr.readline()
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait() == 130
    assert "the same command goes on with it" in rest
