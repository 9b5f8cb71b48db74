"""Stated memory: what follows from it, features in a file, and a process that stays within it."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from checkpoints import random_model
from listcon_eval import ListConRanker
from listcon_eval.errors import ListconError
from listcon_eval.inference.features import FeatureStore
from listcon_eval.inference.memory import BatchBudget, Budgets, chunk_tokens, host_peak, in_words, rss_bytes
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
    config = random_model(vocab_size=50, hidden=1024, layers=1, heads=16, list_width=1792, feedforward=2048).config
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
    from listcon_eval.cli.options import size_of

    assert size_of(text, "--memory") == size


@pytest.mark.parametrize("text", ["1", "GB", "one GB", "-1GB", "0GB", "1 TBs", ""])
def test_what_is_no_size(text: str) -> None:
    from listcon_eval.cli.options import size_of

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
    store.release_memory()
    asked = np.array([[3, 3, 499], [0, 7, 250]])
    assert torch.equal(store.get(asked), features[torch.from_numpy(asked)])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's own count of a process's memory")
def test_features_in_a_file_are_not_this_processs_memory() -> None:
    texts, width = 40_000, 512
    store = FeatureStore(texts, width, torch.float32, CPU, budget=0)
    before = rss_bytes()
    for start in range(0, texts, 1000):
        store.put(np.arange(start, start + 1000), torch.ones(1000, width))
    after = rss_bytes()
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
    texts = {text for row in lists for text in row}
    work = sum(min(len(text), ranker.max_length) + 1 for text in texts)
    assert told[-1] == ("encode", work, work)
    for one, other in zip(wide, narrow, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_a_chunk_of_a_large_network_is_smaller() -> None:
    """On a CPU an unfinished chunk is what an interrupted run loses: half a minute of BERT-large's work at most."""
    embeddings = nn.Embedding(10**6, 1000, device="meta")  # looking up takes no time
    base, large = (nn.Sequential(embeddings, nn.Linear(size, 1, device="meta")) for size in (50 * 10**6, 300 * 10**6))
    threads = torch.get_num_threads()
    assert chunk_tokens(100, MODEL, CPU) == 1600
    assert chunk_tokens(100, base, CPU) == min(1600, int(1e11 * threads / (50 * 10**6 + 1)))
    assert chunk_tokens(2048, large, CPU) == max(2048, int(1e11 * threads / (300 * 10**6 + 1)))
    assert chunk_tokens(2048, large, CUDA) == 16 * 2048


PROGRAM = """
import json, random, sys
from listcon_eval.inference.ranker import ListConRanker
from listcon_eval.inference.memory import host_peak
ranker = ListConRanker.from_pretrained(sys.argv[1], device="cpu", dtype="float32", memory=int(sys.argv[2]))
rng = random.Random(0)
text = lambda longest: "".join(chr(rng.randint(0x4E00, 0x9FA5)) for _ in range(rng.randint(1, longest)))
lists = [[text(200) for _ in range(50)] for _ in range(12)]
encoded = ranker.encode([text(20) for _ in lists], lists)
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


def test_the_peak_of_this_process_is_at_least_what_it_holds() -> None:
    assert host_peak() >= rss_bytes() // 2 > 10_000_000


@pytest.mark.parametrize("limit", [5, 40])
def test_batches_are_halved_until_they_fit(limit: int, caplog: pytest.LogCaptureFixture) -> None:
    sizes: list[int] = []

    def work(batch: Sequence[int]) -> torch.Tensor:
        sizes.append(len(batch))
        if len(batch) * 2 > limit:
            raise torch.OutOfMemoryError
        return torch.tensor(batch)

    budget = BatchBudget(CPU, 64)
    assert budget.run(work, list(range(32)), lambda _: 2).tolist() == list(range(32))
    assert sizes[0] == 32
    assert budget.size <= limit * 2
    assert caplog.text.count("out of memory: continuing with batches of 32 tokens") == 1
    with pytest.raises(ListconError, match="a single text of 99 tokens does not fit into the memory of cpu"):
        budget.run(work if limit < 2 else _fails, [1], lambda _: 99)


def _fails(_: Sequence[int]) -> torch.Tensor:
    raise torch.OutOfMemoryError


@pytest.fixture
def own_ranker(checkpoint_folder: Path) -> ListConRanker:
    """One for a test alone: a smaller budget stays."""
    return ListConRanker.from_pretrained(checkpoint_folder, device="cpu", dtype="float32")


@pytest.mark.parametrize("stage", ["features", "listwise_logits"])
def test_both_stages_go_on_with_smaller_batches(
    own_ranker: ListConRanker, stage: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A device that is out of memory for more than two texts, or two lists, at a time."""
    lists = [random_list(size, seed=size) for size in (25, 25, 30, 4, 31)]
    expected = own_ranker.rank(lists, "iterative")
    owner = own_ranker.encoder if stage == "features" else own_ranker.model
    whole = getattr(owner, stage)

    def small(batch: Sequence[object], *rest: object) -> torch.Tensor:
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        found: torch.Tensor = whole(batch, *rest)
        return found

    monkeypatch.setattr(owner, stage, small)
    for one, other in zip(expected, own_ranker.rank(lists, "iterative"), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    assert "cpu is out of memory: continuing with batches of" in caplog.text


def test_a_later_chunk_begins_with_the_smaller_batches(
    own_ranker: ListConRanker, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, refused = own_ranker.encoder.features, []

    def small(ids: Sequence[NDArray[np.int32]]) -> torch.Tensor:
        if len(ids) * max(map(len, ids)) > 100 and len(ids) > 1:
            refused.append(len(ids))
            raise torch.OutOfMemoryError
        return whole(ids)

    monkeypatch.setattr(own_ranker.encoder, "features", small)
    own_ranker.encode_chunk(["一" * 9] * 50)
    assert refused
    refused.clear()
    own_ranker.encode_chunk(["一" * 9] * 50)
    assert not refused


def test_what_was_seen_of_the_texts(ranker: ListConRanker) -> None:
    """Two texts of three are longer than 512 tokens; 4 of 512 - 2 + 512 - 2 + 6 tokens are unknown."""
    unknown = "\U0001f600"
    passages = ["一" * 6, "丂" * 511, f"{unknown} " * 4 + "丂" * 700]
    encoded = ranker.encode([passages[0]], [passages])
    assert (len(encoded.texts), encoded.truncated) == (3, 2)
    assert encoded.unknown_share == pytest.approx(4 / (510 + 510 + 6))


def test_what_was_seen_is_kept_with_the_features(ranker: ListConRanker) -> None:
    class Store(dict[str, NDArray[np.generic]]):
        load, save = dict.get, dict.__setitem__

    cache: Any = Store()
    lists = [random_list(30, seed=1), ["问", "长" * 600, "\U0001f600"]]
    first, second = (
        ranker.encode([row[0] for row in lists], [row[1:] for row in lists], cache=cache) for _ in range(2)
    )
    assert first.truncated == second.truncated == 1
    assert first.unknown_share == second.unknown_share > 0
    places = np.arange(len(first.texts))
    assert torch.equal(first.store.get(places), second.store.get(places))
