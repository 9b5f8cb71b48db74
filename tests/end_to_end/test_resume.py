"""Runs that survive: kills, edited files, a full disk, a second process, failing queries."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from checkpoints import bert_tokenizer, write_layout_1
from command import COMMAND, ROOT, cold, listcon_eval, one_line
from run_files import by_mode, read_json, read_jsonl, run_folders, write_few_lists
from texts import random_list

HERE = Path(__file__).resolve().parent


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_few_lists(tmp_path / "lists.jsonl")


def test_kills_end_with_the_bytes_of_an_uninterrupted_run(checkpoint_folder: Path, data: Path, tmp_path: Path) -> None:
    arguments = (checkpoint_folder, data, tmp_path)
    environment = {"TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = cold(sys.executable, HERE / "interrupted.py", *arguments, environment=environment)
    assert json.loads(done.stdout.splitlines()[-1])["reused"] > 0


def test_a_finished_run_is_read_not_computed(checkpoint_folder: Path, data: Path, tmp_path: Path) -> None:
    command = ("run", "-m", checkpoint_folder, "--data", data, "--output", tmp_path)
    first = listcon_eval(*command)
    before = {folder: (folder / "provenance.json").read_bytes() for folder in run_folders(tmp_path)}
    second = listcon_eval(*command)
    assert second.stderr.count("finished before") == 2
    assert second.stdout == first.stdout
    assert {folder: (folder / "provenance.json").read_bytes() for folder in run_folders(tmp_path)} == before
    assert "finished before" not in listcon_eval(*command, "--fresh").stderr
    assert run_folders(tmp_path) == list(before)
    assert "finished before" not in listcon_eval(*command, "--max-length", "64").stderr
    assert len(run_folders(tmp_path)) == 4


def test_other_data_of_the_same_name_is_another_result(checkpoint_folder: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        query, *passages = random_list(3, seed=seed)
        row = {"query": query, "positive": passages[:1], "negative": passages[1:]}
        (tmp_path / "own.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
        options = ("--mode", "iterative", "--output", tmp_path)
        listcon_eval("run", "-m", checkpoint_folder, "--data", tmp_path / "own.jsonl", *options)
    first, second = (read_jsonl(folder / "run.jsonl")[0]["scores"] for folder in run_folders(tmp_path))
    assert first != second
    header = next(
        line for line in listcon_eval("table", tmp_path, "--format", "markdown").stdout.splitlines() if "Model" in line
    )
    assert header.count("own@sha256-") == 2


@pytest.mark.parametrize("name", ["metrics.json", "run.trec", "per_query.jsonl", "../lists.json"])
def test_an_edited_or_missing_file_is_named(name: str, checkpoint_folder: Path, data: Path, tmp_path: Path) -> None:
    command = ("run", "-m", checkpoint_folder, "--data", data, "--output", tmp_path, "--mode", "conventional")
    listcon_eval(*command)
    (folder,) = run_folders(tmp_path)
    path = folder / name
    path.write_text(path.read_text(encoding="utf-8").replace("1", "2", 1), encoding="utf-8")
    for reading in (
        command,
        ("table", tmp_path),
        ("compare", tmp_path, tmp_path),
        ("check", "--baseline", tmp_path, "--current", tmp_path),
    ):
        told = one_line(listcon_eval(*reading, code=2).stderr)
        assert f"{Path(name).name} was changed after the run" in told, reading
        assert "--fresh" in told
    path.unlink()
    assert f"{Path(name).name} is gone" in one_line(listcon_eval(*command, code=2).stderr)
    listcon_eval(*command, "--fresh")
    assert "finished before" in listcon_eval(*command).stderr


def test_files_of_other_programs_do_not_matter(checkpoint_folder: Path, data: Path, tmp_path: Path) -> None:
    command = ("run", "-m", checkpoint_folder, "--data", data, "--output", tmp_path, "--mode", "conventional")
    listcon_eval(*command)
    (folder,) = run_folders(tmp_path)
    for place in (folder, folder.parent, folder.parents[1]):
        (place / ".ipynb_checkpoints").mkdir()
        (place / ".DS_Store").write_bytes(b"\0")
        (place / "notes.txt").write_text("mine")
    assert "finished before" in listcon_eval(*command).stderr
    listcon_eval(*command, "--fresh")
    listcon_eval("table", tmp_path)


def test_clean_removes_what_no_result_needs(checkpoint_folder: Path, data: Path, tmp_path: Path) -> None:
    command = ("run", "-m", checkpoint_folder, "--data", data, "--output", tmp_path, "--mode", "conventional")
    listcon_eval(*command)
    (folder,) = run_folders(tmp_path)
    left = folder.parents[2] / ".work" / "lists-0123456789abcdef"
    left.mkdir(parents=True)
    (left / "features.chunk").write_bytes(b"x")
    other = folder.parents[2] / ".work" / "of another program"
    other.mkdir()
    assert str(left) in listcon_eval("clean", tmp_path).stdout
    assert left.exists()
    assert "removed: 1" in listcon_eval("clean", tmp_path, "--yes").stdout
    assert not left.exists()
    assert other.exists()
    assert run_folders(tmp_path) == [folder]
    (tmp_path / "results").rename(tmp_path / "renamed")
    assert "removed: 0" in listcon_eval("clean", tmp_path / "renamed", "--yes").stdout
    # A folder above several is none: what one of them repeats of another is no older run.
    assert f"{tmp_path.name} has no folder results: give the folder that `run --output` named" in one_line(
        listcon_eval("clean", tmp_path, code=2).stderr
    )
    assert "nowhere is not there; give" in one_line(listcon_eval("clean", tmp_path / "nowhere", code=2).stderr)


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
    assert f"error: {small_disk}/results/" in told
    assert "No space left on device" in told
    assert "the same command resumes it" in one_line(told)
    assert list(small_disk.rglob("metrics.json")) == []
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    listcon_eval(*command)
    assert len(run_folders(small_disk)) == 2


def test_a_second_process_is_refused_and_a_dead_one_does_not_block(tmp_path: Path) -> None:
    holder = (
        "import sys, time; from pathlib import Path; from listcon_eval.results.chunk_cache import run_lock\n"
        "with run_lock(Path(sys.argv[1]), 'task', 'k' * 64, fresh=False):\n"
        "    print('here', flush=True); time.sleep(600)"
    )
    folder = tmp_path / "results" / "org__model" / "revision"
    command = [sys.executable, "-c", holder, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first, ExitStack() as at_end:
        at_end.callback(first.kill)  # also when an assertion fails
        assert first.stdout is not None
        assert first.stdout.readline() == "here\n"
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        message = second.stderr.strip().splitlines()[-1]
        assert f"another process is working on this run (pid {first.pid} on host {os.uname().nodename}" in message
        assert listcon_eval("clean", tmp_path).stdout.startswith("to remove, with --yes: 0")
        assert listcon_eval("clean", tmp_path, "--yes").stdout.startswith("removed: 0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as third, ExitStack() as at_end:
        at_end.callback(third.kill)
        assert third.stdout is not None
        assert third.stdout.readline() == "here\n"


def test_a_failing_query_with_keep_going(tmp_path: Path) -> None:
    """A character whose embedding is NaN spoils the one list it stands in."""
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
    told = one_line(listcon_eval(*command, code=2).stderr)
    assert "own, query q1: 25 of 25 scores" in told
    assert "embeddings.word_embeddings.weight" in told
    done = listcon_eval(*command, "--keep-going", code=1)
    assert "1 query failed, so these runs have no metrics" in done.stderr
    assert list(tmp_path.rglob("metrics.json")) == []
    (failed,) = tmp_path.rglob("*.failed")
    assert list(read_json(failed / "failures.json")) == ["q1"]
    assert [row["query_id"] for row in read_jsonl(failed / "run.jsonl")] == ["q0", "q2"]


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_an_interrupt_says_that_the_same_command_resumes(
    sent: signal.Signals, code: int, checkpoint_folder: Path, data: Path, tmp_path: Path
) -> None:
    command: list[str | Path] = [COMMAND, "run", "-m", checkpoint_folder, "--data", data, "--output", tmp_path]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        while "loading the model" not in line:
            line = process.stderr.readline()
        time.sleep(0.05)
        process.send_signal(sent)
        rest = process.stderr.read()
        assert process.wait() == code
    assert "the same command resumes it" in one_line(rest)
    assert not [path for path in tmp_path.rglob(".*") if path.name != ".work"]


def test_both_modes_are_found(checkpoint_folder: Path, data: Path, tmp_path: Path) -> None:
    listcon_eval("run", "-m", checkpoint_folder, "--data", data, "--output", tmp_path)
    assert set(by_mode(tmp_path)) == {"conventional", "iterative"}
