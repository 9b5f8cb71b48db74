"""Many systems on many tasks in several dtypes: cells, each an evaluation of its own, spread over devices."""

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError

from listcon_eval.data import Task, chosen_tasks
from listcon_eval.errors import ListconError
from listcon_eval.evaluation import evaluate, worker_device
from listcon_eval.files import check_writable
from listcon_eval.inference.devices import choose_device, device_count, resolve_dtype
from listcon_eval.metrics.ir_measures import metric_names
from listcon_eval.records import DTypeOption, Mode
from listcon_eval.speed.workload import SHAPES
from listcon_eval.systems.base import LoadOptions, System, check_options, load_system
from listcon_eval.systems.resolve import ModelSpec, resolve_model
from listcon_eval.systems.runs import RunFile
from listcon_eval.workers import RayWorkers

State = tuple[str, float]
"""What a cell is at, in words, and the share of it that is done, 0 to 1."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, str_min_length=1)


class SweepModel(_Part):
    """A model, and what `run` would be told of it."""

    model: str
    kind: str | None = None
    revision: str | None = None
    max_length: PositiveInt | None = None


def _named(given: object) -> object:
    """A model that is given by its name alone, as one with nothing else said."""
    return {"model": given} if isinstance(given, str) else given


class Sweep(_Part):
    """What a sweep's file says; what is left out is as for `run`."""

    models: list[Annotated[SweepModel, BeforeValidator(_named)]] = Field(min_length=1)
    tasks: list[str] | None = None
    data: list[str] = []
    modes: list[Mode] | None = Field(default=None, min_length=1)
    dtypes: list[DTypeOption] = Field(default=["auto"], min_length=1)
    device: str | None = None
    metrics: list[str] = []
    limit: PositiveInt | None = None
    output: str = "results"
    workers: int | str = 1

    @property
    def output_folder(self) -> Path:
        """The folder for results."""
        return Path(self.output).expanduser()

    @property
    def task_names(self) -> str | None:
        """The names of the tasks, separated by commas."""
        return None if self.tasks is None else ",".join(self.tasks)


class Cell(NamedTuple):
    """One system in one dtype on one task, in its modes, which share the encoding of the texts.

    Attributes:
        spec: the model.
        options: how it is loaded.
        modes: the inference modes; None where the kind has none, or all are wanted.
        task: the task's name.
        place: its place among the sweep's tasks.
    """

    spec: ModelSpec
    options: LoadOptions
    modes: tuple[Mode, ...] | None
    task: str
    place: int


def read_sweep(path: Path, content: Mapping[Any, Any]) -> Sweep:
    """The sweep that a file's content describes.

    Raises:
        ListconError: a key is missing, unknown, or has a value of another type; names file and key.
    """
    try:
        return Sweep.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        parts = [str(part) for part in first["loc"]]
        key, value = ".".join(parts), f"{first['input']!r:.80}"
        if parts[0] == "workers":
            told = f"workers is {value}: give a number, auto, or a cluster's address, ray://HOST:PORT"
        elif first["type"] == "missing":
            told = f"{key} is missing: give it, such as `models: [bm25, ./my-checkpoint]`"
        elif first["type"] == "extra_forbidden":
            known = Sweep.model_fields if len(parts) == 1 else SweepModel.model_fields
            told = f"{key!r} is no key of a sweep: known are {', '.join(known)}"
        else:
            told = f"{key} is {value}: {first['msg']}"
        raise ListconError(f"{path}: {told}") from error


def cells_of(sweep: Sweep) -> list[Cell]:
    """The cells of a sweep; for several workers those of long tasks come first, so that none is left alone at the end.

    Raises:
        ListconError: a model, a task or a metric cannot be found, a model takes no max_length, two cells have the
            same model, dtype and max_length, or the output folder cannot be written to.
    """
    metric_names(sweep.metrics)
    tasks = chosen_tasks(sweep.task_names, sweep.data)
    cells: list[Cell] = []
    known = set()
    for model in sweep.models:
        spec = resolve_model(model.model, model.kind, model.revision)
        kind = check_options(spec, LoadOptions(max_length=model.max_length))
        dtypes: list[DTypeOption] = sweep.dtypes if "dtype" in kind.load_options else ["auto"]
        for dtype in dtypes:
            device = sweep.device if "device" in kind.load_options else None
            options = LoadOptions(device=device, dtype=dtype, max_length=model.max_length)
            modes = tuple(sweep.modes) if sweep.modes is not None and len(kind.modes) > 1 else None
            same = replace(options, dtype=resolve_dtype(dtype, choose_device(device)))
            key = (_system_of(spec), same)
            if key in known:
                raise ListconError(
                    f"the sweep has {spec.given} in {dtype} twice, which may be written in two ways: give each "
                    "model and dtype once"
                )
            known.add(key)
            cells += [Cell(spec, options, modes, task.name, place) for place, task in enumerate(tasks)]
    check_writable(sweep.output_folder)
    # In one process the cells of a model stay together: it is loaded once.
    return cells if sweep.workers == 1 else sorted(cells, key=lambda cell: -_characters(cell.task))


def _system_of(spec: ModelSpec) -> tuple[object, ...]:
    """What a model is, however it is written: a folder, a file, or the name and revision of a baseline."""
    if spec.source is not None:
        return spec.kind, spec.variant, spec.source.folder.resolve()
    if spec.kind == RunFile.kind:
        return spec.kind, Path(spec.given).expanduser().resolve()
    baseline = load_system(spec, LoadOptions())
    return spec.kind, baseline.name, baseline.revision


def _characters(task: str) -> float:
    shape = SHAPES.get(task)
    return shape.distinct_documents * shape.document_length.mean if shape else 0.0


def outcomes(
    sweep: Sweep, cells: Sequence[Cell], watch: Callable[[Mapping[int, State]], None]
) -> Iterator[tuple[int, str | Exception]]:
    """Evaluate cells, and yield the place of each when it ended, and what became of it: in words, or the error.

    Cells that are finished are read, as by `run`. `watch` is told what those that are under way are at, by their place.

    Raises:
        ListconError: the workers cannot be had.
    """
    device = worker_device(sweep.workers, sweep.device)
    if device is not None:
        import torch

        make = partial(_Runner, sweep, threads=torch.get_num_threads())
        devices = device_count(device)
        with RayWorkers(
            sweep.workers,
            make,
            device=device.type,
            devices=devices,
            texts_of=lambda cells: [f"{cell.spec.given} on {cell.task}" for cell in cells],
            in_flight=1,
        ) as workers:
            yield from workers.outcomes("evaluate", ((cell,) for cell in cells), watch)
        return
    runner = _Runner(sweep)
    for place, cell in enumerate(cells):

        def changed(state: State, place: int = place) -> None:
            watch({place: state})

        runner.changed = changed
        try:
            yield place, runner.evaluate(cell)
        except Exception as error:  # whatever it is, the other cells go on
            yield place, error


class _Runner:
    """Evaluates cells one after the other, in this process or a worker's. `state` says how far the present one is."""

    def __init__(self, sweep: Sweep, threads: int | None = None) -> None:
        self._sweep = sweep
        self._loaded: tuple[ModelSpec, LoadOptions, System] | None = None
        self.changed: Callable[[State], None] = lambda _: None
        self.state: State = ("", 0.0)
        if threads is not None:
            import torch

            torch.set_num_threads(threads)  # a CPU's sums round by their number

    def evaluate(self, cell: Cell) -> str:
        """Evaluate a cell; "finished before" when there was nothing left to do."""
        started = datetime.datetime.now(datetime.UTC)
        self._progress("loading", 0.0)
        system = self._system(cell)
        evaluation = evaluate(
            system,
            [self._tasks[cell.place]],
            modes=cell.modes,
            output=self._sweep.output_folder,
            metrics=self._sweep.metrics,
            limit=self._sweep.limit,
            progress=self._progress,
        )
        is_new = any(result.finished >= started for result in evaluation.results)
        return "done" if is_new else "finished before"

    @cached_property
    def _tasks(self) -> list[Task]:
        """The sweep's tasks, read once for all cells."""
        return chosen_tasks(self._sweep.task_names, self._sweep.data)

    def _progress(self, words: str, share: float) -> None:
        self.state = (words, share)
        self.changed(self.state)

    def _system(self, cell: Cell) -> System:
        """The cell's system; the last one where it is the same."""
        if self._loaded is None or self._loaded[:2] != (cell.spec, cell.options):
            self._loaded = None  # its memory is free before the next one is loaded
            self._loaded = (cell.spec, cell.options, load_system(cell.spec, cell.options))
        return self._loaded[2]
