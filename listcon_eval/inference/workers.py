"""How batches share a CPU: side by side, one in each thread, instead of many threads in one small product."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, Self, TypeVar

import torch

A = TypeVar("A")
T = TypeVar("T")

_MOST = 16  # batches at a time; more processors than that work together on each
# torch's number of threads is the whole process's: who changes it has to be alone.
_ALONE = threading.Lock()


def workers_on(device: torch.device) -> int:
    """How many batches are computed at the same time on a device: one, but for a CPU's one a thread of torch's."""
    return min(_MOST, torch.get_num_threads()) if device.type == "cpu" else 1


class Workers:
    """Computes batches in threads of a CPU, each with its share of torch's threads; elsewhere in the calling thread.

    Threads that work together on one product wait for each other after each; a small model's products are too small
    for that, and one other busy process makes all of them late. A batch of one's own has nothing to wait for.

    Results do not depend on which thread computed them. One user at a time: a second one waits for the first.

    Args:
        device: where the batches are computed.
    """

    def __init__(self, device: torch.device) -> None:
        self.count = workers_on(device)
        self._threads = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        self._running: list[Future[Any]] = []

    def __enter__(self) -> Self:
        if self.count > 1:
            _ALONE.acquire()
            share = max(1, self._threads // self.count)
            self._pool = ThreadPoolExecutor(self.count, "listcon", torch.set_num_threads, (share,))
            torch.set_num_threads(share)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._threads)
            _ALONE.release()

    def start(self, work: Callable[[A], T], parts: Sequence[A]) -> list[Future[T]]:
        """Start work on every part, or do it now where there is one worker.

        A single part is done now too, with all threads to itself, when what was started before is done: never by who
        happens to be first, which would round its numbers by chance.
        """
        if self._pool is None:
            return [_done(work, part) for part in parts]
        if len(parts) == 1:
            wait(self._running)
            share = torch.get_num_threads()
            torch.set_num_threads(self._threads)
            try:
                return [_done(work, parts[0])]
            finally:
                torch.set_num_threads(share)
        started = [self._pool.submit(work, part) for part in parts]
        self._running = [future for future in self._running if not future.done()] + started
        return started

    def map(self, work: Callable[[A], T], parts: Sequence[A]) -> list[T]:
        """The results of work on every part, in their order."""
        return [future.result() for future in self.start(work, parts)]


def _done(work: Callable[[A], T], part: A) -> Future[T]:
    done: Future[T] = Future()
    try:
        done.set_result(work(part))
    except Exception as error:  # it is raised where the result is asked for, as in a pool
        done.set_exception(error)
    return done
