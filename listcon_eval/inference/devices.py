"""Devices: which one runs the model, in which number format, and how batches share a CPU."""

import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from listcon_eval.errors import ListconError
from listcon_eval.model import ListConModel
from listcon_eval.records import DType, DTypeOption

A = TypeVar("A")
T = TypeVar("T")

_MAX_WORKERS = 16  # with more processors, several work together on each batch
# torch's number of threads is the whole process's, so only one `Workers` may change it at a time.
_THREADS_LOCK = threading.Lock()


def available_devices() -> list[str]:
    """The kinds of device this machine has, the preferred one first."""
    found = [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()), ("cpu", True)]
    return [name for name, present in found if present]


def choose_device(name: str | torch.device | None = None) -> torch.device:
    """The named device, or the best there is.

    Raises:
        ListconError: the name is no device, or one that this machine does not have.
    """
    available = available_devices()
    if name is None:
        return torch.device(available[0])
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ListconError(f"no device {name!r}: give one of {', '.join(available)}") from error
    if device.type not in available:
        raise ListconError(f"the device {name!r} is not available here: give one of {', '.join(available)}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ListconError(f"there is no {name}: this machine has {torch.cuda.device_count()} CUDA device(s)")
    return device


def device_count(device: torch.device) -> int:
    """How many devices of its kind this machine has; its processors are one."""
    return torch.cuda.device_count() if device.type == "cuda" else 1


def resolve_dtype(option: DTypeOption, device: torch.device) -> DType:
    """The dtype that an option means on a device: "auto" is float16 on an accelerator and float32 on a CPU."""
    if option == "auto":
        return "float32" if device.type == "cpu" else "float16"
    return option


def cast_model(model: ListConModel, device: torch.device, dtype: DType) -> ListConModel:
    """Move a model to a device and its weights to a dtype; "bfloat16" is for the encoder alone, the rest is float32."""
    model.to(device)
    _cast(model, torch.float16 if dtype == "float16" else torch.float32)
    if dtype == "bfloat16":
        _cast(model.encoder, torch.bfloat16)
    return model


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    # Buffers keep their format: the rotary tables of some encoders lose too much in another one.
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)


def bfloat16_is_slow(device: torch.device, cpu_facts: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether a device only emulates bfloat16: a CPU without AVX512-BF16, AMX or Arm's own, where Linux tells."""
    if device.type != "cpu" or not cpu_facts.exists():
        return False
    described = cpu_facts.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", described, flags=re.MULTILINE)
    return found is not None and not {"avx512_bf16", "amx_bf16", "bf16"} & set(found[1].split())


def to_device(values: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """An array or tensor on the device; to a GPU from pinned memory, without waiting for the copy."""
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def workers_on(device: torch.device) -> int:
    """How many batches are computed at the same time on a device: on a CPU one per thread of torch, elsewhere one."""
    return min(_MAX_WORKERS, torch.get_num_threads()) if device.type == "cpu" else 1


class Workers:
    """Computes batches in threads of a CPU, each with its share of torch's threads; elsewhere in the calling thread.

    Threads that share one product wait for each other after each, and a small model's products are too small for
    that. With a batch of its own, no thread waits. Results do not depend on which thread computed them. Of two users
    at the same time the second waits for the first.
    """

    def __init__(self, device: torch.device) -> None:
        self.count = workers_on(device)
        self._threads = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        self._running: list[Future[Any]] = []

    def __enter__(self) -> Self:
        if self.count > 1:
            _THREADS_LOCK.acquire()
            share = max(1, self._threads // self.count)
            self._pool = ThreadPoolExecutor(self.count, "listcon", torch.set_num_threads, (share,))
            torch.set_num_threads(share)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._threads)
            _THREADS_LOCK.release()

    def start(self, work: Callable[[A], T], parts: Sequence[A]) -> list[Future[T]]:
        """Start work on every part; where there is one worker, or one part, do it now.

        A single part runs alone, with all threads, once earlier work is done. How many threads it has, and so how its
        numbers round, must not depend on timing.
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


def _done(work: Callable[[A], T], part: A) -> Future[T]:
    done: Future[T] = Future()
    try:
        done.set_result(work(part))
    except Exception as error:  # it is raised where the result is asked for, as in a pool
        done.set_exception(error)
    return done
