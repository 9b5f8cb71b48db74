"""Processes of Ray, one a device, that do what they are sent. Nothing else in this package imports Ray."""

import logging
import math
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self

from listcon_eval.errors import ListconError, count_of, first_line

logger = logging.getLogger(__name__)

_MAX_KILLS = 3  # workers that died over the same job
_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_TO_START = 60  # after which it is said that no worker is ready
# Ray reads these when it is imported or started: it sends nothing home, and prints nothing between the results. Its
# workers would give way to every other process (niceness 15), and beside a busy one hardly load their model.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",
}


def _ray() -> Any:  # noqa: ANN401 - a module
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise ListconError(
            "--workers needs Ray, which is not installed: `pip install 'listcon-eval[ray]'`, or leave the option out"
        ) from error
    return ray


def needs_workers(given: int | str, device: str, devices: int) -> bool:
    """Whether workers in processes of their own are asked for, and Ray is there; False where this process does.

    Args:
        given: how many, "auto" for one on each device of this machine, or a cluster's address, `ray://HOST:PORT`.
        device: the kind of device, such as "cuda" or "cpu".
        devices: how many of it this machine has.

    Raises:
        ListconError: Ray is needed and not installed, `given` is none of these, or the machine has fewer accelerators.
    """
    text = str(given)
    is_address = re.fullmatch(r"ray://[^/:]+:\d+", text) is not None
    if not is_address and text != "auto" and not re.fullmatch(r"[1-9]\d*", text):
        raise ListconError(f"--workers is {given!r}: give a number, auto, or a cluster's address, ray://HOST:PORT")
    if text.isdigit() and device != "cpu" and int(text) > devices:
        raise ListconError(
            f"--workers is {text}, and this machine has {count_of(devices, f'{device} device')}: give auto"
        )
    needed = is_address or (devices if text == "auto" else int(text)) > 1
    if needed:
        _ray()
    return needed


class _Worker:
    """What runs in a worker's process: an object that is made once, and its methods."""

    def __init__(self, make: Callable[[], object], folder: Path) -> None:
        self._make, self._folder = make, folder

    def load(self) -> None:
        """Make the object, in the folder that relative paths of the first process start from."""
        os.chdir(self._folder)
        self._made: Any = self._make()

    def call(self, method: str, arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401
        """What a method of the object returns."""
        return getattr(self._made, method)(*arguments)

    def state(self) -> Any:  # noqa: ANN401
        """How far the object is, by its own attribute."""
        return self._made.state


@dataclass(eq=False)
class _Job:
    """A call of a method; without one, the making of a worker's object, which is the first job of every worker."""

    number: int = -1
    method: str | None = None
    arguments: tuple[Any, ...] = ()
    kills: int = 0
    killed: "_Slot | None" = None  # the last slot whose worker died of it


@dataclass(eq=False)
class _Slot:
    """The place of a worker: its present process, and the jobs that this has, in order, by Ray's references."""

    actor: Any = None
    sent: dict[Any, _Job] = field(default_factory=dict)


class RayWorkers:
    """Processes of Ray, one a device, each with an object of its own whose methods are called.

    They are started when they are first needed. If this process has started or joined a Ray before, that one is used,
    and left running. A call during which a worker dies is made again, by another worker.

    Args:
        given: as for `needs_workers`.
        make: makes a worker's object, in its process.
        device: the kind of device that each worker has.
        devices: how many of it this machine has.
        texts_of: the texts that a call with these arguments is about, for messages.
        in_flight: how many calls a worker has at once. It makes one after the other, so with 2 it never waits for the
            next. With 1 it can be watched.

    Attributes:
        count: how many there are; 0 before they are needed.
    """

    def __init__(
        self,
        given: int | str,
        make: Callable[[], object],
        *,
        device: str,
        devices: int,
        texts_of: Callable[[tuple[Any, ...]], Iterable[str]],
        in_flight: int = 2,
    ) -> None:
        self._given, self._make = str(given), make
        self._on_gpu, self._devices = device == "cuda", devices
        self._resource = "GPU" if self._on_gpu else "CPU"
        self._texts_of, self._in_flight = texts_of, in_flight
        self._slots: list[_Slot] = []
        self._started_ray = False

    @property
    def count(self) -> int:  # noqa: D102 - an attribute of the class
        return len(self._slots)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        slots, self._slots = self._slots, []
        try:
            for slot in slots:
                if slot.actor is not None:  # None where the start was interrupted
                    _ray().kill(slot.actor)
        finally:
            if self._started_ray:
                _ray().shutdown()
            self._started_ray = False

    def run(self, method: str, chunks: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """Number and result of every call of a method, as they get done.

        `chunks` are the arguments of each call, and are read when a worker is free.

        Raises:
            ListconError: a worker's object cannot be made, or three workers died of a call; names its texts.
            Exception: what a call raised.
        """
        for number, result in self.outcomes(method, chunks):
            if isinstance(result, Exception):
                raise result
            yield number, result

    def outcomes(
        self,
        method: str,
        calls: Iterable[tuple[Any, ...]],
        watch: Callable[[Mapping[int, Any]], None] | None = None,
    ) -> Iterator[tuple[int, Any]]:
        """As `run`, but the error of a call is its result, and the others go on.

        `watch` is told every second how far the calls are: number -> the attribute `state` of the worker's object.
        """
        ray = _ray()
        new = (_Job(number, method, arguments) for number, arguments in enumerate(calls))
        again = list(islice(new, 1))
        if again and not self._slots:
            self._start()
        patient_until = time.monotonic() + _SECONDS_TO_START
        while True:
            self._send(again, new)
            has_calls = any(job.method for slot in self._slots for job in slot.sent.values())
            if not has_calls and not again and (not self._slots or not all(slot.sent for slot in self._slots)):
                return  # all is done, though workers may still be loading: they are there for the next calls
            # A worker does its jobs in order, so what it is at, and what it died of, is the first of them.
            heads = {next(iter(slot.sent)): slot for slot in self._slots if slot.sent}
            ready, _ = ray.wait(list(heads), timeout=_SECONDS_BETWEEN_LOOKS)
            if watch is not None:
                watch(self._states())
            if not has_calls and not ready and time.monotonic() > patient_until:
                patient_until = math.inf
                logger.warning(
                    "no worker is ready after %d s: Ray has %s free; waiting", _SECONDS_TO_START, self._free()
                )
            for reference in ready:
                slot = heads[reference]
                job = slot.sent[reference]
                try:
                    result = ray.get(reference)
                    del slot.sent[reference]
                except ray.exceptions.RayTaskError as error:
                    result = error.cause
                    del slot.sent[reference]
                except ray.exceptions.RayError as error:  # the process is gone, or its machine
                    if getattr(error, "actor_init_failed", False):
                        raise ListconError(
                            f"a worker cannot start: {str(error).strip().splitlines()[-1]}; all machines need the same "
                            "versions of the same packages"
                        ) from error
                    result = self._after_death(slot, job, again)
                    if result is None:
                        continue
                if job.method is not None:
                    yield job.number, result
                elif result is not None:
                    raise result

    def _send(self, again: list[_Job], new: Iterator[_Job]) -> None:
        """Fill the workers up, the emptiest first. A job that a worker died of goes to another one that is ready."""
        while True:
            loaded = [slot for slot in self._slots if all(job.method for job in slot.sent.values())]
            for slot in sorted(loaded, key=lambda slot: len(slot.sent)):
                if len(slot.sent) >= self._in_flight:
                    continue
                place = next((n for n, job in enumerate(again) if job.killed is not slot or len(loaded) == 1), None)
                job = next(new, None) if place is None else again.pop(place)
                if job is not None:
                    slot.sent[slot.actor.call.remote(job.method, job.arguments)] = job
                    break
            else:
                return

    def _free(self) -> str:
        resource = self._resource
        has, free = (found.get(resource, 0.0) for found in (_ray().cluster_resources(), _ray().available_resources()))
        return f"{free:g} of {count_of(int(has), resource)}"

    def _states(self) -> dict[int, Any]:
        ray = _ray()
        asked = {
            slot.actor.state.remote(): job.number
            for slot in self._slots
            for job in islice(slot.sent.values(), 1)
            if job.method is not None
        }
        states = {}
        for reference in ray.wait(list(asked), num_returns=len(asked), timeout=1.0)[0] if asked else ():
            try:
                states[asked[reference]] = ray.get(reference)
            except ray.exceptions.RayError:  # it died: that is seen where its job is waited for
                continue
        return states

    def _after_death(self, slot: _Slot, job: _Job, again: list[_Job]) -> ListconError | None:
        """Start a dead worker anew, and let its jobs be done again; the error of one that killed too many."""
        job.kills, job.killed = job.kills + 1, slot
        others = [other for other in slot.sent.values() if other is not job]
        slot.sent.clear()
        _ray().kill(slot.actor)
        is_load, is_fatal = job.method is None, job.kills >= _MAX_KILLS
        again[:0] = others if is_load or is_fatal else [job, *others]
        if is_load and is_fatal:
            return ListconError(
                f"{_MAX_KILLS} workers died while they loaded the model: see whether there is memory for one of each. "
                "Ray stops workers when the machine's memory is 95 % full, whatever fills it; with "
                "RAY_memory_monitor_refresh_ms=0 in the environment it does not"
            )
        self._fill(slot, job if is_load else _Job())
        return self._killed_by(job) if is_fatal else None

    def _killed_by(self, job: _Job) -> ListconError:
        texts = list(self._texts_of(job.arguments))
        shown = ", ".join(repr(text if len(text) <= 40 else f"{text[:37]}...") for text in texts[:3])
        more = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
        return ListconError(
            f"{_MAX_KILLS} workers died one after the other over {shown}{more}. They may have been killed for the "
            "memory they took (then a smaller --max-length or --memory helps), or a library crashed: leave --workers "
            "out to see"
        )

    def _start(self) -> None:
        ray = _ray()
        address = self._given if self._given.startswith("ray://") else None
        count = self._devices if self._given == "auto" else 0 if address else int(self._given)
        if not ray.is_initialized():
            # "local": without it a Ray that runs on this machine would be joined, whatever its size.
            own = {"address": "local", "num_cpus": count, "include_dashboard": False}
            where: dict[str, Any] = {"address": address} if address else own
            answer = signal.getsignal(signal.SIGTERM)
            self._started_ray = True  # also when it is interrupted
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # what it says of an address is said below
                    ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
            except Exception as error:  # it raises errors of many classes, and a plain Exception
                reason = first_line(error)
                raise ListconError(
                    f"Ray does not start or answer (--workers {self._given}): {reason}; check the address, or leave "
                    "it out"
                ) from error
            finally:
                if threading.current_thread() is threading.main_thread():
                    signal.signal(signal.SIGTERM, answer)  # Ray has put its own in its place
        has = int(ray.cluster_resources().get(self._resource, 0))
        if address:  # a machine without an accelerator is one device, whose processors work together
            count = has if self._on_gpu else sum(node["Alive"] for node in ray.nodes())
        if not 0 < count <= has:
            raise ListconError(
                f"--workers {self._given}: Ray has {count_of(has, self._resource)} there, {max(1, count)} are needed"
            )
        self._slots = [_Slot() for _ in range(count)]
        for slot in self._slots:
            self._fill(slot, _Job())

    def _fill(self, slot: _Slot, load: _Job) -> None:
        """Start a worker's process, and let it make its object."""
        actor = _ray().remote(_Worker)
        slot.actor = actor.options(
            num_cpus=0 if self._on_gpu else 1,
            num_gpus=1 if self._on_gpu else 0,
            max_restarts=0,
            max_concurrency=2 if self._in_flight == 1 else 1,  # a second thread says how far the first is
            scheduling_strategy="SPREAD",
        ).remote(self._make, Path.cwd())
        slot.sent[slot.actor.load.remote()] = load
