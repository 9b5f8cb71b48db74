"""Training as its users start it, and as they lose it: killed at any moment, and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lessons import write_lessons, write_tiny_encoder
from listcon_eval.model import load_checkpoint

COMMAND = str(Path(sys.executable).parent / "listcon-eval")
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def arguments(folder: Path, output: str, *more: str) -> list[str]:
    """A run through all three stages: 6 + 6 + 24 steps."""
    data = write_lessons(folder / "lessons.jsonl")
    config = write_tiny_encoder(folder / "tiny.json")
    return [
        *(COMMAND, "train", "--data", str(data), "--encoder-config", str(config), "--output", str(folder / output)),
        *("--minimum-count", "1", "--max-length", "32", "--eval-split", "0.2", "--device", "cpu"),
        *("--contrastive-epochs", "3", "--contrastive-batch", "5", "--hard-negatives", "1", "--micro-batch", "2"),
        *("--stage-1-epochs", "3", "--stage-1-batch", "5", "--stage-1-lr", "0.001", "--save-every", "3"),
        *("--stage-2-epochs", "6", "--stage-2-batch", "3", "--stage-2-lr", "0.001", "--list-size", "4"),
        *more,
    ]


def finish(command: list[str], code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def read(log: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        line.pop("lists_per_second", None)
    return lines


def kill_after(command: list[str], log: Path, steps: int) -> None:
    """Start a command and kill it, with no chance to clean up, as soon as its log has that many steps."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    end = time.monotonic() + 120
    try:
        while not log.exists() or log.read_bytes().count(b'"event": "step"') < steps:
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < end
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_run_killed_in_every_stage_ends_as_one_left_alone(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    printed = finish(arguments(tmp_path, "whole", "--repeat", "q1=2")).stdout.splitlines()
    assert printed[0].startswith("best MAP ")
    assert printed[1:] == [str(whole / name) for name in ("log.jsonl", "curves.png", "last", "best")]

    torn = tmp_path / "torn"
    command = arguments(tmp_path, "torn", "--repeat", "q1=2", "--resume")  # nothing is there to go on with at first
    for steps in (3, 9, 22):
        kill_after(command, torn / "log.jsonl", steps)
        assert not (torn / "last").exists()
    finish(command)
    for name in ("best", "last"):
        one, other = (load_checkpoint(folder / name).model.state_dict() for folder in (whole, torn))
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert read(torn / "log.jsonl") == read(whole / "log.jsonl")


def test_the_checkpoint_is_one_that_run_takes(tmp_path: Path) -> None:
    data = tmp_path / "lessons.jsonl"
    finish([*arguments(tmp_path, "out"), "--eval-data", f"lessons={data}", "--quiet"])
    evaluated = [line for line in read(tmp_path / "out" / "log.jsonl") if line["event"] == "evaluation"]
    assert all(line["map"].keys() == {"lessons", "set aside"} for line in evaluated)
    options = (
        "--data",
        f"lessons={data}",
        "--mode",
        "iterative",
        "--precision",
        "precise",
        "--output",
        str(tmp_path),
        "--max-length",
        "32",
    )
    finish([COMMAND, "run", "-m", str(tmp_path / "out" / "last"), *options, "--device", "cpu", "-q"])
    (metrics,) = tmp_path.rglob("metrics.json")
    value = json.loads(metrics.read_text(encoding="utf-8"))["cmteb"]["map"]
    assert value == pytest.approx(evaluated[-1]["map"]["lessons"], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--model", "./nowhere"], "2 starting points were given"),
        (["--repeat", "law"], "--repeat is 'law'"),
        (["--repeat", "q=2", "--repeat", "q=3"], "--repeat is given twice for 'q'"),
        (["--repeat", "q=0"], "are to come 0 times an epoch"),
        (["--repeat", "law:=2"], "no training list has a query id that begins with 'law:'"),
        (["--autocast", "bf16"], "autocast bf16 was asked for on the CPU"),
        (["--stage-1-lr", "1e37", "--warm-up", "0", "--contrastive-epochs", "0"], "is not a number at stage 1"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(options: list[str], message: str, tmp_path: Path) -> None:
    done = finish([*arguments(tmp_path, "out"), *options], code=2)
    assert message in " ".join(done.stderr.split())
    assert done.stderr.count("error:") == 1
    assert done.stdout == ""
