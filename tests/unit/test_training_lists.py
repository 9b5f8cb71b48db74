"""Which passages a training list holds, what is set aside and skipped."""

import numpy as np
import pytest

from listcon_eval.errors import ListconError
from listcon_eval.records import CandidateList
from listcon_eval.train.lists import ListSampler, epoch_batches, repeated, set_aside, training_data


def candidates(name: str, positives: int, negatives: int, query: str | None = None) -> CandidateList:
    passages = [f"{name} p{i}" for i in range(positives)] + [f"{name} n{i}" for i in range(negatives)]
    return CandidateList(
        name,
        query or f"query {name}",
        tuple(f"{name}-{i}" for i in range(len(passages))),
        tuple(passages),
        (1,) * positives + (0,) * negatives,
    )


def test_lists_of_one_class_are_skipped_and_counted() -> None:
    data = training_data([candidates("a", 1, 2), candidates("b", 3, 0), candidates("c", 0, 3), candidates("d", 2, 1)])
    assert [row.name for row in data.lists] == ["a", "d"]
    assert data.skipped == 2
    with pytest.raises(ListconError, match="none of the 1 training lists has both"):
        training_data([candidates("b", 3, 0)])


def test_a_text_judged_both_ways_is_a_positive_once() -> None:
    row = CandidateList("q", "query", ("1", "2", "3", "4"), ("same", "same", "other", "other"), (1, 0, 0, 0))
    (kept,) = training_data([row]).lists
    assert (len(kept.positives), len(kept.negatives)) == (1, 1)


def test_lists_come_as_often_as_the_longest_beginning_of_their_names_says() -> None:
    lists = training_data([candidates(name, 1, 2) for name in ("a:1", "law:1", "law:civil:1", "b:1")]).lists
    names = [row.name for row in repeated(lists, {"law:": 2, "law:civil:": 3})]
    assert names == ["a:1", "law:1", "law:1", "law:civil:1", "law:civil:1", "law:civil:1", "b:1"]
    assert repeated(lists, {}) == lists
    with pytest.raises(ListconError, match=r"begins with 'tax:'; theirs are such as 'a:1'"):
        repeated(lists, {"law:": 2, "tax:": 2})


@pytest.mark.parametrize(("positives", "negatives", "size"), [(3, 40, 20), (3, 5, 8), (25, 40, 26), (19, 40, 20)])
def test_all_positives_and_a_sample_of_negatives(positives: int, negatives: int, size: int) -> None:
    data = training_data([candidates("a", positives, negatives)])
    sampler = ListSampler(data.lists, 20, fill=False)
    sampled = sampler.sample(data.lists[0], np.random.default_rng(0))
    assert sampled.positives == positives
    assert set(sampled.passages[:positives]) == set(data.lists[0].positives)
    assert set(sampled.passages[positives:]) <= set(data.lists[0].negatives)
    assert len(sampled.passages) == len(set(sampled.passages.tolist())) == size
    assert sampler.oversize == (1 if positives >= 20 else 0)


def test_samples_differ_by_generator_and_repeat_by_seed() -> None:
    data = training_data([candidates("a", 1, 200)])
    sampler = ListSampler(data.lists, 20, fill=False)
    one, again, other = (sampler.sample(data.lists[0], np.random.default_rng(s)).passages.tolist() for s in (1, 1, 2))
    assert one == again != other


def test_short_lists_are_filled_with_other_queries_passages() -> None:
    rows = [candidates(name, 2, 3) for name in "abcdefghij"] + [candidates("z", 4, 3, query="query a")]
    data = training_data(rows)
    sampler = ListSampler(data.lists, 20, fill=True)
    relevant_to_a = set(data.lists[0].positives) | set(data.lists[-1].positives)
    for seed in range(30):
        sampled = sampler.sample(data.lists[0], np.random.default_rng(seed))
        assert len(set(sampled.passages.tolist())) == len(sampled.passages) == 20
        assert set(data.lists[0].negatives) <= set(sampled.passages)
        assert not relevant_to_a & set(sampled.passages[sampled.positives :])


def test_what_is_set_aside_is_seeded_and_keeps_equal_queries_together() -> None:
    rows = [candidates(f"{i}", 1, 1, query=f"query {i // 2}") for i in range(200)]
    kept, held = set_aside(rows, 0.1, seed=3)
    assert (len(kept), len(held)) == (180, 20)
    assert not {row.query for row in kept} & {row.query for row in held}
    assert set_aside(rows, 0.1, seed=3) == (kept, held) != set_aside(rows, 0.1, seed=4)
    assert set_aside(rows, 0, seed=3) == (rows, [])
    with pytest.raises(ListconError, match="leaves none to train on"):
        set_aside(rows[:2], 0.5, seed=3)


def test_an_epoch_holds_every_list_once_in_even_batches() -> None:
    batches = epoch_batches(1030, 1024, np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [515, 515]
    assert sorted(np.concatenate(batches).tolist()) == list(range(1030))
