"""Stated memory: what follows from it, features in a file, and a process that stays within it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpoints import random_model
from listcon_eval import ListConRanker
from listcon_eval.cli.options import size_of
from listcon_eval.errors import ListconError
from listcon_eval.inference.budgets import Budgets
from listcon_eval.inference.features import FeatureStore
from listcon_eval.inference.memory import host_now, host_peak, in_words
from listcon_eval.speed import SIZES
from listcon_eval.speed.models import random_model as named_model
from texts import random_list

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MODEL = random_model(vocab_size=50)


def within(device: torch.device, host: int | None, own: int | None = None, batches: int = 2) -> Budgets:
    return Budgets.for_device(device).within(
        MODEL.config, device, host_bytes=host, device_bytes=own, item_bytes=4, batches=batches
    )


def test_without_a_statement_the_device_decides() -> None:
    for device in (CPU, CUDA):
        assert within(device, None) == Budgets.for_device(device)


def test_a_host_budget_makes_everything_smaller() -> None:
    wide, narrow = within(CPU, 10**9), within(CPU, 10**7)
    assert wide.feature_bytes == 10**9 // 8
    assert narrow.feature_bytes == 10**7 // 8
    # 10 MB / 8 for two batches; a token's rows are 8 x 64 and 2 x 256 numbers, a list's 8 x 96 and 2 x 128.
    assert narrow.tokens == 512  # the least: one text of the longest kind
    assert within(CPU, 10**8, batches=4).tokens == 10**8 // 8 // 4 // (4 * (8 * 64 + 2 * 256))
    assert narrow.rows == 10**7 // 8 // 2 // (4 * (8 * 96 + 2 * 128))
    assert narrow.chunk_texts == 10**7 // 32 // (4 * 96)
    assert narrow.group_passages == 10**7 // 16 // (4 * 96)
    assert within(CPU, 10**7, batches=1000).rows == 128


def test_a_device_budget_is_of_the_device_alone() -> None:
    found = within(CUDA, 10**9, 10**8, batches=1)
    assert found.feature_bytes == int(0.4 * 10**8)
    assert found.tokens == 10**8 // 2 // (4 * (8 * 64 + 2 * 256))
    assert within(CUDA, 10**9).tokens == Budgets.for_device(CUDA).tokens
    with pytest.raises(ListconError, match="a CPU has no memory of its own"):
        within(CPU, None, 10**9)


def test_large_models_have_smaller_batches() -> None:
    """The published sizes, in 8 GB on 16 workers."""
    large = SIZES["large"]
    config = random_model(
        vocab_size=50, hidden=large.width, layers=1, heads=large.heads, list_width=large.list_width, feedforward=2048
    ).config
    found = Budgets.for_device(CPU).within(
        config, CPU, host_bytes=8 * 10**9, device_bytes=None, item_bytes=4, batches=16
    )
    assert found.tokens == 953
    assert found.feature_bytes == 10**9


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GB", 10**9), ("800 MB", 8 * 10**8), ("1.5GiB", 3 * 2**29), ("2gb", 2 * 10**9), ("7B", 7), (None, None)],
)
def test_sizes(text: str | None, size: int | None) -> None:
    assert size_of(text, "--memory") == size


@pytest.mark.parametrize("text", ["1", "GB", "one GB", "-1GB", "0GB", "1 TBs", ""])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ListconError, match=rf"--memory is '{re.escape(text)}': give a size with its unit"):
        size_of(text, "--memory")


def test_peaks_in_words() -> None:
    assert in_words(610_000_000, None) == "host 0.61 GB"
    assert in_words(610_000_000, None, memory=10**9) == "host 0.61 GB of 1.00 GB, within the budget"
    assert in_words(10**9, 3 * 10**9, device_memory=2 * 10**9) == (
        "host 1.00 GB; device 3.00 GB of 2.00 GB, OVER the budget"
    )


def test_a_budget_that_is_used_up_is_an_error(checkpoint_folder: Path) -> None:
    with pytest.raises(ListconError, match=r"the host budget is 0\.10 GB, and .* GB are in use .*: give more"):
        ListConRanker.from_pretrained(checkpoint_folder, device="cpu", memory=10**8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_features_in_a_file_are_the_features_that_were_put_there(dtype: torch.dtype) -> None:
    features = torch.randn(500, 33).to(dtype)
    store = FeatureStore(500, 33, dtype, CPU, budget=500 * 33 * dtype.itemsize - 1)
    assert store.spilled
    order = np.random.default_rng(0).permutation(500)
    for part in np.array_split(order, 7):
        store.put(part, features[torch.from_numpy(part)])
    store.forget()
    asked = np.array([[3, 3, 499], [0, 7, 250]])
    assert torch.equal(store.get(asked), features[torch.from_numpy(asked)])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's own count of a process's memory")
def test_features_in_a_file_are_not_this_processs_memory() -> None:
    texts, width = 40_000, 512
    store = FeatureStore(texts, width, torch.float32, CPU, budget=0)
    before = host_now()
    for start in range(0, texts, 1000):
        store.put(np.arange(start, start + 1000), torch.ones(1000, width))
    after = host_now()
    assert before is not None
    assert after is not None
    assert after - before < texts * width * 4 / 4
    assert float(store.get(np.arange(0, texts, 777)).min()) == 1


def test_lists_over_many_chunks_and_groups(ranker: ListConRanker) -> None:
    """Chunks of three texts, groups of a list: every list is split over chunks, and the scores are the same."""
    lists = [random_list(size, seed=size) for size in (25, 4, 31)]
    lists.append([lists[0][0], *lists[2][5:9], "长" * 600])  # texts of other lists, and one of 512 tokens
    wide = ranker.rank(lists, "iterative")
    kept, told = ranker.budgets, []
    try:
        ranker.budgets = Budgets(tokens=40, rows=30, feature_bytes=0, chunk_texts=3, group_passages=10)
        encoded = ranker.encode(
            [row[0] for row in lists], [row[1:] for row in lists], progress=lambda *row: told.append(row)
        )
        narrow = [list(row.scores) for row in ranker.rank_encoded(encoded, "iterative")]
    finally:
        ranker.budgets = kept
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1] == ("encode", 64, 64)
    for one, other in zip(wide, narrow, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


PROGRAM = """
import json, sys
from listcon_eval.speed import shape_named, synthetic_workload
from listcon_eval.inference import ListConRanker
from listcon_eval.inference.memory import host_peak
ranker = ListConRanker.from_pretrained(sys.argv[1], device="cpu", precision="precise", memory=int(sys.argv[2]))
workload = synthetic_workload(shape_named("T2Reranking"), scale=0.002)
encoded = ranker.encode(workload.queries, workload.passages)
ranked = ranker.rank_encoded(encoded, "iterative")
print(json.dumps([host_peak(), encoded.store.spilled, len(ranked)]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of another system's process counts what started it too")
def test_a_process_stays_within_its_budget(checkpoint_folder: Path) -> None:
    budget = 700_000_000
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(checkpoint_folder), str(budget)], capture_output=True, text=True, check=True
    )
    peak, spilled, lists = json.loads(done.stdout)
    assert peak <= budget
    assert not spilled
    assert lists == 12


HELD = """
import json
import torch
from listcon_eval.inference.memory import host_now, stay_within
blocks = [torch.ones(200_000) for _ in range(400)]  # below the size that malloc gives back by itself
kept = blocks[::40]
del blocks
before = host_now()
stay_within(10 * before)
wide = host_now()
stay_within(before)
print(json.dumps([before, wide, host_now()]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux and glibc")
def test_what_was_freed_is_given_back_when_memory_is_short() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELD],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)},
    )
    before, wide, after = json.loads(done.stdout)
    assert wide > before - 50_000_000
    assert after < before - 200_000_000


def test_the_peak_of_this_process_is_at_least_what_it_holds() -> None:
    assert host_peak() >= (host_now() or 0)


def test_a_named_model_is_counted_as_it_is() -> None:
    """A tiny model's batch is as large as ever in 1 GB: the budget binds larger models and smaller machines."""
    config = named_model(SIZES["tiny"]).config
    found = Budgets.for_device(CPU).within(config, CPU, host_bytes=10**9, device_bytes=None, item_bytes=4, batches=2)
    usual = Budgets.for_device(CPU)
    assert (found.tokens, found.rows, found.chunk_texts) == (usual.tokens, usual.rows, usual.chunk_texts)
