"""What an unfinished run keeps: chunks with checksums, keys, budgets that follow the device's memory."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from listcon_eval import ListConRanker
from listcon_eval.errors import ListconError
from listcon_eval.results import Work, at_work, run_key
from texts import random_list


def test_a_chunk_comes_back_as_it_was(tmp_path: Path) -> None:
    work = Work(tmp_path)
    array = np.arange(12, dtype=np.float16).reshape(3, 4)
    work.save("a", array)
    kept = work.load("a")
    assert kept is not None
    np.testing.assert_array_equal(kept, array)
    assert kept.dtype == np.float16
    assert work.load("b") is None
    assert work.reused == 1


@pytest.mark.parametrize(
    "damage", [lambda body: body[:-7], lambda body: body[:50] + b"\xff" + body[51:], lambda body: body[:0]]
)
def test_a_damaged_chunk_is_named_and_counts_as_none(
    tmp_path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    work = Work(tmp_path)
    work.save("a", np.ones(40))
    (path,) = tmp_path.glob("*.chunk")
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert work.load("a") is None
    assert f"{path} is damaged" in caplog.text


def test_a_damaged_chunk_changes_no_score(ranker: ListConRanker, tmp_path: Path) -> None:
    lists = [random_list(size, seed=size) for size in (30, 25)]
    parts = [row[0] for row in lists], [row[1:] for row in lists]
    work = Work(tmp_path)
    encoded = ranker.encode(*parts, journal=work)
    scores = ranker.rank_encoded(encoded, "iterative", journal=work)
    assert len(list(tmp_path.glob("features-*.chunk"))) == len(list(tmp_path.glob("iterative-*.chunk"))) == 1
    again = Work(tmp_path)
    assert ranker.rank_encoded(ranker.encode(*parts, journal=again), "iterative", journal=again) == scores
    assert again.reused == 2
    for path in tmp_path.glob("*.chunk"):
        path.write_bytes(path.read_bytes()[:-1])
    assert ranker.rank_encoded(ranker.encode(*parts, journal=again), "iterative", journal=again) == scores
    assert again.reused == 2


def test_a_chunk_answers_only_for_its_own_texts_and_mode(ranker: ListConRanker, tmp_path: Path) -> None:
    work = Work(tmp_path)
    for seed in (1, 2):
        query, *passages = random_list(25, seed=seed)
        encoded = ranker.encode([query], [passages], journal=work)
        ranker.rank_encoded(encoded, "iterative", journal=work)
        ranker.rank_encoded(encoded, "conventional", journal=work)
    assert work.reused == 0


def test_every_part_changes_the_key() -> None:
    parts = {"weights": "a", "data": "b", "precision": "published", "max_length": 512}
    keys = {run_key(parts), *(run_key({**parts, name: "other"}) for name in parts)}
    assert len(keys) == len(parts) + 1


def test_fresh_forgets_and_an_error_keeps(tmp_path: Path) -> None:
    def attempt(*, fresh: bool) -> object:
        with at_work(tmp_path, "task", "k" * 64, fresh=fresh) as work:
            found = work.load("a")
            work.save("a", np.ones(3))
            raise KeyError(found is not None)

    for fresh, found in ((False, False), (False, True), (True, False)):
        with pytest.raises(KeyError, match=str(found)):
            attempt(fresh=fresh)
    with at_work(tmp_path, "task", "k" * 64, fresh=False) as work:
        assert work.load("a") is not None
    assert list(tmp_path.iterdir()) == []


def test_out_of_memory_halves_the_budget_and_says_so_once(
    ranker: ListConRanker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lists = [random_list(30, seed=3)]
    expected = ranker.rank(lists, "iterative")
    features = ranker.encoder.features

    def small(ids: list[list[int]]) -> torch.Tensor:
        if sum(map(len, ids)) > 800:
            raise torch.OutOfMemoryError
        return features(ids)

    monkeypatch.setattr(ranker.encoder, "features", small)
    with caplog.at_level(logging.WARNING):
        scores = ranker.rank(lists, "iterative")
    np.testing.assert_allclose(scores[0], expected[0], rtol=0, atol=1e-5)
    assert [record.message.split(": ")[1] for record in caplog.records] == [
        "going on with batches of 448 tokens or less"
    ]


def test_a_text_that_does_not_fit_alone_is_a_clear_error(
    ranker: ListConRanker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(ids: list[list[int]]) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(ranker.encoder, "features", never)
    with pytest.raises(ListconError, match="a single text of the longest kind does not fit into the memory of cpu"):
        ranker.rank([["问", "答"]])
