"""The mini benchmark as tasks: data that comes with this package and needs no network."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import TYPE_CHECKING

from listcon_eval.data.local import own_task

if TYPE_CHECKING:
    from listcon_eval.data.task import Task

MINI: tuple[str, ...] = ("MiniMedicalA", "MiniMedicalB", "MiniWeb", "MiniSearch")
ALL_MINI = "mini"


def mini_names(name: str) -> tuple[str, ...]:
    """The mini tasks that a name stands for: all of them for "mini", one, or none. Case does not matter."""
    if name.casefold() == ALL_MINI:
        return MINI
    return tuple(task for task in MINI if task.casefold() == name.casefold())


def mini_task(name: str) -> Task:
    """One of `MINI` as a task; it comes back loaded."""
    with as_file(files("listcon_eval.data").joinpath("mini", f"{name}.jsonl")) as path:
        return own_task(path, "packaged with listcon_eval", name, source="packaged")
