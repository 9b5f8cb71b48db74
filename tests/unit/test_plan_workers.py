"""The simulation of a run on several GPUs, on chunks whose times can be added up by hand."""

import pytest

from plan_workers import Chunk, simulate


@pytest.mark.parametrize(("workers", "seconds"), [(1, 8), (2, 4), (3, 3), (8, 1), (16, 1)])
def test_equal_chunks_are_shared_out(workers: int, seconds: float) -> None:
    plan = simulate([Chunk(send=0, receive=0, work=1)] * 8, workers)
    assert plan.seconds == seconds
    assert plan.workers == pytest.approx(8 / (workers * seconds))


def test_the_first_process_can_be_what_is_waited_for() -> None:
    plan = simulate([Chunk(send=0, receive=1, work=1)] * 8, 8)
    assert plan.seconds == 9  # the first chunk, then one after the other
    assert plan.first == pytest.approx(8 / 9)
