"""Batches side by side on a CPU: the same results in the same order, and torch's threads as they were."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import pytest
import torch

from listcon_eval import ListConRanker
from listcon_eval.inference.devices import Workers, workers_on
from listcon_eval.records import MODES, Mode
from texts import random_list

CPU = torch.device("cpu")
T = TypeVar("T")


def results(workers: Workers, work: Callable[[int], T], parts: Sequence[int]) -> list[T]:
    return [future.result() for future in workers.start(work, parts)]


@pytest.fixture(params=[2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_the_order_of_the_parts(threads: int) -> None:
    with Workers(CPU) as workers:
        assert workers.count == threads
        found = results(workers, lambda part: (part, threading.get_ident(), torch.get_num_threads()), range(50))
    assert [part for part, _, _ in found] == list(range(50))
    assert {number for _, _, number in found} == {1}
    assert threading.get_ident() not in {thread for _, thread, _ in found}
    assert torch.get_num_threads() == threads


def test_a_single_part_has_all_threads(threads: int) -> None:
    with Workers(CPU) as workers:
        assert results(workers, lambda _: (threading.get_ident(), torch.get_num_threads()), [0]) == [
            (threading.get_ident(), threads)
        ]
        assert torch.get_num_threads() == 1


def test_a_single_part_waits_for_what_was_started_before(threads: int) -> None:
    done = []

    def slow(part: int) -> None:
        time.sleep(0.05)
        done.append(part)

    with Workers(CPU) as workers:
        workers.start(slow, [0, 1, 2])
        workers.start(done.append, [3])
        assert sorted(done[:3]) == [0, 1, 2]
        assert done[3:] == [3]


def test_an_error_is_raised_and_leaves_torch_as_it_was(threads: int) -> None:
    def fail(part: int) -> None:
        raise KeyError(part)

    for parts in ([7], [7, 8]):
        with pytest.raises(KeyError, match="7"), Workers(CPU) as workers:
            results(workers, fail, parts)
        assert torch.get_num_threads() == threads


def test_a_second_user_waits_for_the_first(threads: int) -> None:
    order = []
    first, waiting = Workers(CPU), Workers(CPU)

    def second() -> None:
        with waiting:
            order.append("second")

    with first:
        other = threading.Thread(target=second)
        other.start()
        other.join(timeout=0.1)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_one_worker_works_in_the_calling_thread() -> None:
    assert workers_on(CPU) == torch.get_num_threads() == 1  # as the tests are set up
    assert workers_on(torch.device("cuda")) == 1
    with Workers(CPU) as workers:
        assert results(workers, lambda _: threading.get_ident(), [1, 2]) == [threading.get_ident()] * 2
        [failed] = workers.start(lambda part: 1 // part, [0])
    with pytest.raises(ZeroDivisionError):
        failed.result()


@pytest.mark.parametrize("mode", MODES)
def test_scores_do_not_depend_on_the_workers(ranker: ListConRanker, mode: Mode) -> None:
    lists = [random_list(size, seed=size) for size in (1, 30, 64, 45, 2)]
    alone = ranker.rank(lists, mode)
    torch.set_num_threads(2)
    try:
        together = ranker.rank(lists, mode)
        again = ranker.rank(lists, mode)
    finally:
        torch.set_num_threads(1)
    assert together == again  # to the last bit: which thread computed a batch does not matter
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
        assert np.argsort(one, kind="stable").tolist() == np.argsort(other, kind="stable").tolist()
