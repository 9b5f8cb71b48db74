"""Where candidate lists come from: the tasks of mteb, local copies of them, local data, the mini benchmark."""

from listcon_eval.data.local import as_tasks, chosen_tasks, local_task, read_lists, task_of_rows
from listcon_eval.data.mteb_tasks import (
    CARD_TASKS,
    card_task,
    check_texts,
    list_tasks,
    official_task,
    official_tasks,
    tasks_named,
)
from listcon_eval.data.tasks import MINI, FirstStage, Task, make_candidate_lists, mini_names, mini_task, reranking_of

__all__ = [
    "CARD_TASKS",
    "MINI",
    "FirstStage",
    "Task",
    "as_tasks",
    "card_task",
    "check_texts",
    "chosen_tasks",
    "list_tasks",
    "local_task",
    "make_candidate_lists",
    "mini_names",
    "mini_task",
    "official_task",
    "official_tasks",
    "read_lists",
    "reranking_of",
    "task_of_rows",
    "tasks_named",
]
