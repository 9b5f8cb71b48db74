"""`listcon-eval train` as users start it: over two processes, killed and resumed, and with mistakes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from command import cold, listcon_eval, one_line
from listcon_eval.model import load_checkpoint
from listcon_eval.train.arguments import parse_arguments
from listcon_eval.train.run import train
from synthetic_lists import write_encoder, write_lists

ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
ONE = (sys.executable, "-m", "listcon_eval")
TWO = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "listcon_eval")


def arguments(folder: Path, output: str, *more: str) -> list[str]:
    return [
        *("train", "--data", str(folder / "lists.jsonl"), "--encoder", str(folder / "encoder")),
        *("--output_dir", str(folder / output)),
        *("--max_length", "32", "--eval_split", "0.1", "--list_size", "4", "--use_cpu", "--disable_tqdm", "true"),
        *(["--pooled_cache", str(folder / f"{output}-cache")] if "encoder" in more else []),
        *more,
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_lists(tmp_path / "lists.jsonl", queries=14)
    write_encoder(tmp_path / "encoder", dropout=0.0)
    return tmp_path


@pytest.mark.parametrize("freeze", ["none", pytest.param("encoder", marks=pytest.mark.slow)])
def test_two_processes_train_the_weights_of_one(freeze: str, folder: Path) -> None:
    """13 lists in steps of 8: with two processes, three copies fill up the last step, and do not count."""
    options = ["--freeze", freeze, "--list_dropout", "0", "--num_train_epochs", "2"]
    options += ["--optim", "sgd", "--max_grad_norm", "0"]
    micro = ("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2")
    done = cold(*TWO, *arguments(folder, "two", *options, *micro, "--learning_rate", "0.1"))
    assert done.stdout.splitlines()[-1] == str(folder / "two" / "model")
    assert done.stdout.count("best MAP") == 1
    models = {"two": load_checkpoint(folder / "two" / "model").model.state_dict()}
    one = ("--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "1")
    for name, rate in (("one", "0.1"), ("none", "0")):
        words = arguments(folder, name, *options, *one, "--learning_rate", rate)
        trained = train(parse_arguments(words[1:]))
        models[name] = load_checkpoint(trained.folder).model.state_dict()
    difference, change = (
        max((models["one"][key] - models[other][key]).abs().max().item() for key in models["one"])
        for other in ("two", "none")
    )
    assert change > 0.05
    assert difference < 1e-4 * change


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(folder: Path) -> None:
    write_encoder(folder / "encoder", dropout=0.1)
    options = ["--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2", "--num_train_epochs", "6"]
    options += ["--save_strategy", "steps", "--save_steps", "3", "--eval_strategy", "steps", "--eval_steps", "3"]
    cold(*ONE, *arguments(folder, "whole", *options))
    command = [*ONE, *arguments(folder, "killed", *options, "--resume_from_checkpoint", "true")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT) as process:
        end = time.monotonic() + 120
        while not list((folder / "killed").glob("checkpoint-*/trainer_state.json")):
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < end
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert not (folder / "killed" / "model").exists()
    cold(*command)
    whole, killed = (load_checkpoint(folder / name / "model").model.state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(whole[key], killed[key]) for key in whole)


def test_help_fits_two_screens_and_needs_no_data() -> None:
    done = listcon_eval("train", "--help")
    assert len(done.stdout.splitlines()) <= 80
    assert "Every option of transformers.TrainingArguments is accepted" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--eval_data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--learning_rate", "1e30", "--warmup_steps", "0", "--max_grad_norm", "0"], "is not a finite number at step"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(options: list[str], message: str, folder: Path) -> None:
    small = ("--per_device_train_batch_size", "2", "--gradient_accumulation_steps", "2")
    done = listcon_eval(*arguments(folder, "out", *small), *options, code=2)
    assert message in one_line(done.stderr)
    assert done.stderr.count("error:") == 1
