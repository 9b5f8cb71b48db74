"""`listcon-eval bench` as its users start it, on a machine that has torch, transformers and numpy alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# As if these were not installed: an entry of None makes an import fail, and a look whether it could be done say no.
BLOCKED = ("mteb", "pandas", "datasets", "sklearn", "pyarrow", "pytrec_eval", "matplotlib", "scipy")
START = f"import sys; sys.modules.update(dict.fromkeys({BLOCKED})); from listcon_eval.cli import main; main()"


def bench(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", START, "bench", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_the_blocker_blocks() -> None:
    done = subprocess.run(
        [sys.executable, "-c", START.replace("main()", "import mteb")], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


def test_a_random_model_on_made_up_lists(tmp_path: Path) -> None:
    done = bench(
        *("--random", "tiny", "--shape", "T2Reranking", "--scale", "0.0005", "--repeats", "2"),
        *("--reference-queries", "1", "--encoder-batches", "1", "--threads", "1", "--device", "cpu", "--memory", "3GB"),
        *("--json", tmp_path / "bench.json", "--profile", tmp_path / "trace.json"),
        *("--output", tmp_path / "benchmarks" / "README.md"),
    )
    for line in (
        "published procedure",
        "features kept",
        "engine",
        "GB of 3.00 GB, within the budget",
        "1 of 1 lists",
        "random tiny",
    ):
        assert line in done.stdout
    [measured] = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))["measurements"]
    assert measured["workload"].startswith("T2Reranking, 3 queries")
    assert measured["agreement"]["identical"] == 1
    assert len(measured["engine"]["seconds"]) == 2
    assert measured["share_of_ceiling"] > 0
    assert json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))["traceEvents"]
    markdown = (tmp_path / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert "### T2Reranking, 3 queries" in markdown
    assert "--encoder-batches 1 --threads 1 --device cpu --memory 3GB\n" in markdown  # and no places of this machine
    assert str(tmp_path) not in markdown


def test_a_checkpoint_on_a_file_of_lists(checkpoint_folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "lists.jsonl"
    row = {"query": "发烧怎么办", "positive": ["多喝水"], "negative": ["今天下雨", "明天晴"]}
    data.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    done = bench(
        *("-m", checkpoint_folder, "--data", data, "--mode", "conventional"),
        *("--repeats", "1", "--reference-queries", "0", "--encoder-batches", "1", "--quiet"),
    )
    assert "lists.jsonl, 1 queries, 3 passages; conventional inference" in done.stdout
    assert "published procedure" not in done.stdout
    assert not done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shape", "CMedQA"), "no shape 'CMedQA'"),
        (("--random", "huge", "--shape", "T2Reranking", "--scale", "0.0002"), "no random model 'huge'"),
        (("--random", "tiny", "--model", "./x"), "leave one of them out"),
        (("--data", "x.jsonl", "--shape", "T2Reranking"), "leave one of them out"),
        (("--data", "x.jsonl"), "no data at x.jsonl"),
        (("--profile", "trace.json"), "a single --shape"),
        (("--scale", "0"), "the scale is 0.0"),
        (("--memory", "1"), "--memory is '1'"),
        (("--scale", "0.0002", "--device", "cpu", "--device-memory", "1GB"), "a CPU has no memory of its own"),
    ],
)
def test_mistakes_are_told(arguments: tuple[str, ...], message: str) -> None:
    assert message in bench(*arguments, code=2).stderr
