"""Where candidate lists come from: the four official tasks, local copies of them, local data."""

from listcon_eval.data.local import local_task
from listcon_eval.data.official import (
    OFFICIAL,
    OfficialTask,
    TaskInfo,
    list_tasks,
    official_task,
    resolve_official,
)
from listcon_eval.data.packaged import MINI, mini_names, mini_task
from listcon_eval.data.task import Task, candidate_lists

__all__ = [
    "MINI",
    "OFFICIAL",
    "OfficialTask",
    "Task",
    "TaskInfo",
    "candidate_lists",
    "list_tasks",
    "local_task",
    "mini_names",
    "mini_task",
    "official_task",
    "resolve_official",
]
