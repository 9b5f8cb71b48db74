"""Where candidate lists come from: the four official tasks, local copies of them, local data."""

from listcon_eval.data.local import chosen_tasks, local_task, task_of_rows
from listcon_eval.data.tasks import (
    MINI,
    OFFICIAL,
    OfficialTask,
    Task,
    candidate_lists,
    list_tasks,
    mini_names,
    mini_task,
    official_task,
    resolve_official,
    tasks_named,
)

__all__ = [
    "MINI",
    "OFFICIAL",
    "OfficialTask",
    "Task",
    "candidate_lists",
    "chosen_tasks",
    "list_tasks",
    "local_task",
    "mini_names",
    "mini_task",
    "official_task",
    "resolve_official",
    "task_of_rows",
    "tasks_named",
]
