"""Which passages a training list holds, what is held out and skipped, and in which order lists are used."""

import json
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from listcon_eval.data import local_task, read_lists
from listcon_eval.errors import ListconError
from listcon_eval.inference.tokens import index_list, index_texts
from listcon_eval.records import CandidateList
from listcon_eval.train.arguments import Fill
from listcon_eval.train.data import (
    EpochItem,
    EpochSampler,
    ListDataset,
    TextTable,
    TrainingList,
    oversample,
    train_eval_split,
    training_lists,
)


def candidates(name: str, positives: int, negatives: int, query: str | None = None) -> CandidateList:
    passages = [f"{name} p{i}" for i in range(positives)] + [f"{name} n{i}" for i in range(negatives)]
    return CandidateList(
        name,
        query or f"query {name}",
        tuple(f"{name}-{i}" for i in range(len(passages))),
        tuple(passages),
        (1,) * positives + (0,) * negatives,
    )


def lists_of(
    rows: Sequence[CandidateList], teacher: Mapping[str, Mapping[str, float]] | None = None
) -> list[TrainingList]:
    _, indexed = index_texts([row.query for row in rows], [row.passages for row in rows])
    return training_lists(rows, indexed, teacher)


def sample(dataset: ListDataset, index: int, epoch: int = 0) -> TrainingList:
    row, counts = dataset[EpochItem(epoch, index, True)]
    assert counts
    return row


def test_lists_of_one_class_are_skipped() -> None:
    rows = [candidates("a", 1, 2), candidates("b", 3, 0), candidates("c", 0, 3), candidates("d", 2, 1)]
    assert [row.query_id for row in lists_of(rows)] == ["a", "d"]
    with pytest.raises(ListconError, match="none of the 1 training lists has both"):
        lists_of([candidates("b", 3, 0)])


def test_a_text_judged_both_ways_is_a_positive_once() -> None:
    row = CandidateList("q", "query", ("1", "2", "3", "4"), ("same", "same", "other", "other"), (1, 0, 0, 0))
    (kept,) = lists_of([row])
    assert (len(kept.passages), kept.positives) == (2, 1)


def test_a_teachers_scores_are_found_by_query_and_document() -> None:
    rows = [candidates("a", 1, 2), candidates("b", 1, 2)]
    first, second = lists_of(rows, {"a": {"a-0": 0.5, "a-2": 0.25}, "other": {"x": 1.0}})
    assert first.teacher.tolist() == pytest.approx([0.5, np.nan, 0.25], nan_ok=True)
    assert np.isnan(second.teacher).all()
    with pytest.raises(ListconError, match="its queries are such as 'x', theirs such as 'a'"):
        lists_of(rows, {"x": {"a-0": 0.5}})


def test_lists_are_used_as_often_as_the_longest_prefix_of_their_ids_says() -> None:
    lists = lists_of([candidates(name, 1, 2) for name in ("a:1", "law:1", "law:civil:1", "b:1")])
    names = [row.query_id for row in oversample(lists, ["law:=2", "law:civil:=3"])]
    assert names == ["a:1", "law:1", "law:civil:1", "b:1", "law:1", "law:civil:1", "law:civil:1"]
    assert oversample(lists, []) == lists
    with pytest.raises(ListconError, match=r"starts with 'tax:'; theirs are such as 'a:1'"):
        oversample(lists, ["law:=2", "tax:=2"])
    with pytest.raises(ListconError, match="--oversample is given twice for 'law:'"):
        oversample(lists, ["law:=2", "law:=3"])
    for word in ("law", "=2", "law:=0", "law:=x"):
        with pytest.raises(ListconError, match=f"--oversample is '{word}'"):
            oversample(lists, [word])


@pytest.mark.parametrize(("positives", "negatives", "size"), [(3, 40, 20), (3, 5, 8), (25, 40, 26), (19, 40, 20)])
def test_all_positives_and_a_sample_of_negatives(positives: int, negatives: int, size: int) -> None:
    (row,) = lists_of([candidates("a", positives, negatives)])
    sampled = sample(ListDataset([row], size=20, fill="no", seed=0), 0)
    assert sampled.positives == positives
    assert set(sampled.passages[:positives]) == set(row.passages[:positives])
    assert set(sampled.passages[positives:]) <= set(row.passages[positives:])
    assert len(sampled.passages) == len(set(sampled.passages.tolist())) == len(sampled.teacher) == size


def test_a_teachers_scores_stay_with_their_passages() -> None:
    rows = [candidates("a", 2, 60), candidates("b", 2, 60)]
    lists = lists_of(rows, {row.query_id: {doc: float(i) for i, doc in enumerate(row.doc_ids)} for row in rows})
    known = dict(zip(lists[0].passages.tolist(), lists[0].teacher.tolist(), strict=True))
    sampled = sample(ListDataset(lists, size=80, fill="pool", seed=0), 0)
    assert len(sampled.passages) == 80
    for passage, score in zip(sampled.passages.tolist(), sampled.teacher.tolist(), strict=True):
        assert score == known[passage] if passage in known else np.isnan(score)


def test_samples_depend_on_seed_epoch_and_list() -> None:
    lists = lists_of([candidates("a", 1, 200)]) * 2
    one, again = (ListDataset(lists, size=20, fill="no", seed=1) for _ in range(2))
    other = ListDataset(lists, size=20, fill="no", seed=2)
    reference = sample(one, 0).passages.tolist()
    assert sample(again, 0).passages.tolist() == reference
    for different in (sample(one, 1), sample(one, 0, epoch=1), sample(other, 0)):
        assert different.passages.tolist() != reference


def test_short_lists_are_filled_with_other_queries_passages() -> None:
    rows = [candidates(name, 2, 3) for name in "abcdefghij"] + [candidates("z", 4, 3, query="query a")]
    lists = lists_of(rows)
    dataset = ListDataset(lists, size=20, fill="pool", seed=0)
    relevant = set(lists[0].passages[:2]) | set(lists[-1].passages[:4])
    for epoch in range(30):
        sampled = sample(dataset, 0, epoch)
        assert len(set(sampled.passages.tolist())) == len(sampled.passages) == 20
        assert set(lists[0].passages[2:]) <= set(sampled.passages)
        assert not relevant & set(sampled.passages[sampled.positives :])


def test_lists_are_filled_with_what_their_batch_encodes_anyway() -> None:
    rows = [candidates(name, 1, 5) for name in "abcd"] + [candidates("z", 1, 5, query="query a")]
    lists = lists_of(rows)
    dataset = ListDataset(lists, size=6, fill="batch", seed=0, own_negatives=1)
    sampled = [sample(dataset, index) for index in range(5)]
    assert [len(row.passages) for row in sampled] == [2] * 5
    filled = dataset.fill_from_batch(sampled)
    texts = set(np.concatenate([row.passages for row in sampled]))
    for before, after in zip(sampled, filled, strict=True):
        assert after.passages[:2].tolist() == before.passages.tolist()
        assert len(set(after.passages.tolist())) == len(after.passages) == len(after.teacher) == 6
        assert set(after.passages) <= texts
    assert filled[1].passages[2:].tolist() == [*sampled[2].passages, *sampled[3].passages]  # those that follow
    assert lists[4].passages[0] not in filled[0].passages  # relevant to the same query
    assert dataset.fill_from_batch(sampled[:1])[0].passages.tolist() == sampled[0].passages.tolist()
    alone = ListDataset(lists, size=6, fill="batch", seed=0, own_negatives=0)
    with pytest.raises(ListconError, match="list 'b' finds no negatives in a batch of 1"):
        alone.fill_from_batch([sample(alone, 1)])


def test_own_negatives_are_limited_and_the_rest_is_filled() -> None:
    lists = lists_of([candidates(name, 1, 9) for name in "abcdef"])
    sampled = sample(ListDataset(lists, size=20, fill="pool", seed=0, own_negatives=3), 0)
    assert len(sampled.passages) == 20
    assert np.isin(sampled.passages, lists[0].passages).sum() == 4


@pytest.mark.parametrize("fill", ["pool", "batch"])
def test_a_list_of_more_positives_than_fit_has_a_negative_of_other_lists(fill: Fill) -> None:
    lists = lists_of([candidates("a", 4, 3), candidates("b", 1, 3)])
    dataset = ListDataset(lists, size=3, fill=fill, seed=0, own_negatives=0)
    first, _ = dataset.fill_from_batch([sample(dataset, place) for place in range(2)])
    assert first.passages[:4].tolist() == lists[0].passages[:4].tolist()
    assert len(first.passages) == 5
    assert first.passages[4] in lists[1].passages


def test_what_is_held_out_is_seeded_and_keeps_equal_queries_together() -> None:
    rows = [candidates(f"{i}", 1, 1, query=f"query {i // 2}") for i in range(200)]
    _, indexed = index_texts([row.query for row in rows], [row.passages for row in rows])
    held_out = train_eval_split(indexed, 0.1, seed=3)
    assert held_out.sum() == 20
    assert (held_out[::2] == held_out[1::2]).all()
    assert (train_eval_split(indexed, 0.1, seed=3) == held_out).all()
    assert (train_eval_split(indexed, 0.1, seed=4) != held_out).any()
    assert not train_eval_split(indexed, 0, seed=3).any()
    with pytest.raises(ListconError, match="leaves none to train on"):
        train_eval_split(indexed[:2], 0.5, seed=3)


def test_texts_on_disk_are_those_that_were_added() -> None:
    table = TextTable()
    texts = [f"text {number % 3000}" for number in range(5000)]
    assert [table.index(text) for text in texts] == [number % 3000 for number in range(5000)]
    table.close()
    assert len(table) == len(table.digests) == 3000
    assert table[np.array([2999, 0, 0])] == ["text 2999", "text 0", "text 0"]
    assert table.lengths[[0, 2999]].tolist() == [6, 9]


def test_lists_that_are_streamed_are_those_of_the_task(tmp_path: Path) -> None:
    rows = [
        {"query": " spaces ", "positive": [" a ", ""], "negative": ["b", "b"], "query_id": "7"},
        {"query": "another", "positive": [], "negative": ["only"]},
    ]
    (tmp_path / "lists.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert list(read_lists(tmp_path / "lists.jsonl")) == local_task(tmp_path / "lists.jsonl").candidate_lists()
    (tmp_path / "lists.jsonl").write_text("\n".join(map(json.dumps, [rows[0], rows[0]])), encoding="utf-8")
    with pytest.raises(ListconError, match="line 2: query_id '7' was used before"):
        list(read_lists(tmp_path / "lists.jsonl"))
    with pytest.raises(ListconError, match="no such file or folder"):
        list(read_lists(tmp_path / "missing.jsonl"))


def test_training_data_is_read_a_list_at_a_time(tmp_path: Path) -> None:
    """The memory does not grow with the file: a quarter of the file's size is enough."""
    path = tmp_path / "lists.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(400):
            negative = [f"{number} {place} " + "text " * 500 for place in range(20)]
            file.write(json.dumps({"query": f"query {number}", "positive": [f"{number}"], "negative": negative}) + "\n")
    table = TextTable()
    tracemalloc.start()
    try:
        for row in read_lists(path):
            index_list(row.query_id, row.query, row.passages, table.index)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 4


def test_an_epoch_has_every_list_once_and_copies_do_not_count() -> None:
    epoch = 0
    sampler = EpochSampler(10, seed=0, epoch=lambda: epoch, multiple=8)
    items = list(sampler)
    assert len(items) == len(sampler) == 16
    assert sorted(item.place for item in items if item.counts) == list(range(10))
    assert {item.epoch for item in items} == {0}
    epoch = 1
    assert [item.place for item in sampler] != [item.place for item in items]


@given(count=st.integers(1, 40), block_size=st.integers(1, 12), multiple=st.integers(1, 9))
def test_neighbours_stay_together_when_lists_are_shuffled(count: int, block_size: int, multiple: int) -> None:
    sampler = EpochSampler(count, seed=0, epoch=lambda: 0, multiple=multiple, block_size=block_size)
    places = [item.place for item in sampler if item.counts]
    assert sorted(places) == list(range(count))
    starts = [place for place in places if place % block_size == 0]
    assert places == [place for start in starts for place in range(start, min(start + block_size, count))]
    whole = count // block_size * block_size
    assert places[whole:] == list(range(whole, count))  # so that no later block lies across two batches
