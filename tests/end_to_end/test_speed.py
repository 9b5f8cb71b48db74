"""`listcon-eval speed` as users start it, on a machine that has torch, transformers and numpy alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from command import cold, listcon_eval, one_line

# As if these were not installed: an entry of None makes an import fail, and a look whether it could be done say no.
BLOCKED = ("mteb", "pandas", "datasets", "sklearn", "pyarrow", "pytrec_eval", "matplotlib", "scipy")
START = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED})); from listcon_eval.cli import main; main()"


def speed(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return cold(sys.executable, "-c", START, "speed", *arguments)


@pytest.mark.slow
def test_a_random_model_on_synthetic_lists(tmp_path: Path) -> None:
    files = ("--json", tmp_path / "speed.json", "--profile", tmp_path / "trace.json", "--output", tmp_path / "speed.md")
    done = speed(
        *("--random", "tiny", "--shape", "T2Reranking", "--scale", "0.0005", "--repeats", "2"),
        *("--reference-queries", "1", "--threads", "1", "--device", "cpu", "--memory", "3GB"),
        *files,
    )
    for part in ("published procedure", "engine", "GB of 3.00 GB, within the budget", "1 of 1 lists", "random tiny"):
        assert part in done.stdout
    [measured] = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))["measurements"]
    assert measured["workload"].startswith("T2Reranking, 3 queries")
    assert measured["agreement"]["identical"] == 1
    assert len(measured["seconds"]) == 2
    assert json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    markdown = (tmp_path / "speed.md").read_text(encoding="utf-8")
    assert "## T2Reranking, 3 queries" in markdown
    assert "--threads 1 --device cpu --memory 3GB\n" in markdown  # the files that were written are left out
    assert str(tmp_path) not in markdown
    again = listcon_eval("speed", "--random", "huge", "--shape", "T2Reranking", "--scale", "0.0005", *files, code=2)
    assert "no random model 'huge'" in again.stderr  # and not: these files are there


def test_a_checkpoint_on_a_file_of_lists(checkpoint_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "lists.jsonl"
    row = {"query": "发烧怎么办", "positive": ["多喝水"], "negative": ["今天下雨", "明天晴"]}
    data.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    done = speed(
        *("-m", checkpoint_folder, "--data", data, "--mode", "conventional"),
        *("--repeats", "1", "--reference-queries", "0", "--quiet"),
    )
    assert "lists.jsonl, 1 query, 3 passages; conventional inference" in done.stdout
    assert "published procedure" not in done.stdout
    assert not done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shape", "CMedQA"), "no shape 'CMedQA': give one of CMedQAv1-reranking"),
        (("--random", "huge", "--shape", "T2Reranking", "--scale", "0.0002"), "no random model 'huge'"),
        (("--random", "tiny", "--model", "./x"), "leave out the one or the other"),
        (("--data", "x.jsonl", "--shape", "T2Reranking"), "leave out the one or the other"),
        (("--data", "x.jsonl"), "no data at x.jsonl"),
        (("--profile", "trace.json"), "a single --shape"),
        (("--scale", "0"), "the scale is 0.0"),
        (("--memory", "1"), "--memory is '1'"),
        (("--scale", "0.0002", "--device", "cpu", "--device-memory", "1GB"), "a CPU has no memory of its own"),
    ],
)
def test_mistakes_are_explained(arguments: tuple[str, ...], message: str) -> None:
    assert message in one_line(listcon_eval("speed", *arguments, code=2).stderr)


@pytest.mark.parametrize("option", ["--json", "--profile", "--output"])
def test_a_file_of_another_kind_is_not_overwritten(option: str, tmp_path: Path) -> None:
    mine = tmp_path / "lists.jsonl"
    mine.write_text('{"query": "q", "positive": ["a"], "negative": ["b"]}\n', encoding="utf-8")
    done = listcon_eval("speed", "--data", mine, option, mine, code=2)
    assert "lists.jsonl is there and is not a" in one_line(done.stderr)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    save_file({"classifier.weight": torch.zeros(1, 4)}, tmp_path / "model.safetensors")
    done = listcon_eval("speed", "-m", tmp_path, "--shape", "T2Reranking", "--scale", "0.0002", code=2)
    assert "is not a ListConRanker checkpoint: `speed` measures ListConRanker's engine only" in done.stderr
