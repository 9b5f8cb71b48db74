"""Data of one's own as a task: under its own name, or as a checked copy of official data."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import redirect_stderr
from dataclasses import replace
from io import StringIO
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from listcon_eval import mteb_compat
from listcon_eval.data.layouts import (
    DEFAULT_SUBSET,
    content_hash,
    data_of_lists,
    has_subset,
    is_retrieval_folder,
    original_lists,
    original_rows,
    read_data,
)
from listcon_eval.data.mteb_tasks import card_task, official_task, split_names, tasks_named
from listcon_eval.data.rows import Row, stem_of
from listcon_eval.data.tasks import (
    LOCAL_SPLIT,
    MINI,
    Task,
    check_name_length,
    loaded_task,
    mini_names,
    set_data,
)
from listcon_eval.errors import ListconError, count_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from listcon_eval.records import CandidateList

    Lists: TypeAlias = str | Path | pd.DataFrame | Iterable[Mapping[Any, Any]]

_CLAIMS = (
    "with --data, --tasks says of each data set, in order, which task of mteb it is a copy of; leave it out for other "
    "data"
)
_NAME = re.compile(r"\w[\w.-]*")  # safe as a file name, as part of a dataset path, and in a table
# mteb's shipped statistics count judgements of 0 as relevant in these two; today's mteb does not.
_NOT_COMPARABLE = ("min_relevant_docs_per_query", "max_relevant_docs_per_query")


def local_task(
    path: str | Path,
    *,
    name: str | None = None,
    claim: str | None = None,
    subset: str | None = None,
    for_first_stage: bool = False,
) -> Task:
    """Read local data; the task comes back loaded.

    Args:
        path: a file in the original C-MTEB layout (JSON lines or a JSON array, both also gzipped, or Parquet,
            with columns `query`, `positive`, `negative`), a folder of such files, or a folder in mteb's
            retrieval layout.
        name: the task's name; by default the name of the file or folder. A name of the model card is a claim.
        claim: the task of mteb that this data is said to be a copy of, such as `MIRACLReranking[zh]`.
        subset: which subset of a folder with several to read.
        for_first_stage: whether the candidates will come from a first stage, and the data need not have them.

    Raises:
        ListconError: the data cannot be read (naming file and line), the name is not free, the claim does not hold,
            or nothing can be measured on the data.
    """
    place = _place(path)
    if claim is not None and name is not None:
        raise ListconError(f"Both a name ({name!r}) and a claim ({claim!r}) were given; a claim is the name.")
    given = _local_name(place, subset) if name is None else name
    claim = claim or (card.name if (card := card_task(given)) else None)
    if claim is not None:
        task = official_task(claim)
        if subset not in (None, task.subset):
            raise ListconError(
                f"{path}[{subset}] was given as a copy of {task.name}, whose subset is {task.subset}: leave "
                f"[{subset}] out, or name the task with its subset"
            )
        return _claimed(place, str(path), task, for_first_stage)
    free = _free_name(given)
    if subset is not None and not (place.is_dir() and has_subset(place, subset)):
        raise ListconError(
            f"{path}[{subset}]: only a folder in mteb's retrieval layout has subsets, and this one has no part "
            f"'{subset}-queries' with a corpus: give the file or folder itself"
        )
    data = read_data(place, LOCAL_SPLIT, subset or DEFAULT_SUBSET, needs_candidates=not for_first_stage)
    task = loaded_task(data, free, str(path) + (f"[{subset}]" if subset else ""))
    if not for_first_stage:
        task.check_measurable()
    return task


def read_lists(path: str | Path) -> Iterator[CandidateList]:
    """The candidate lists of local data, one at a time: data in the original layout may be larger than memory.

    A row that cannot be read is a ListconError that names file and line.
    """
    place = _place(path)
    if is_retrieval_folder(place, LOCAL_SPLIT):
        yield from local_task(path, name="local").candidate_lists()
        return
    for row in original_lists(original_rows(place, LOCAL_SPLIT), LOCAL_SPLIT):
        yield row._replace(passages=tuple(map(str.strip, row.passages)))  # as mteb hands them to a model


def as_tasks(tasks: Sequence[Task | str] | Mapping[str, Lists] | Path | str) -> list[Task]:
    """The tasks that the argument of `evaluate` stands for.

    Args:
        tasks: tasks and names of tasks, or names separated by commas; a file, or the `Path` of a folder, with local
            data; or name -> local data, which is a path or what `task_of_rows` takes.

    Raises:
        ListconError: there is nothing to measure on, no task of a name, the data cannot be used, or two tasks of one
            name have other data.
    """
    if isinstance(tasks, Path) or (isinstance(tasks, str) and _is_file(tasks)):
        return [local_task(tasks)]
    if not tasks:
        raise ListconError(f"tasks is {tasks!r}: give tasks, or names such as official or mini")
    if isinstance(tasks, Mapping):
        found = [
            local_task(lists, name=name) if isinstance(lists, (str, Path)) else task_of_rows(lists, name)
            for name, lists in tasks.items()
        ]
    else:
        given = [tasks] if isinstance(tasks, str) else tasks
        found = [one for task in given for one in (tasks_named(task) if isinstance(task, str) else [task])]
    by_name: dict[str, Task] = {}
    for task in found:
        same = by_name.setdefault(task.name, task)
        if (same.revision, same.content) != (task.revision, task.content):
            raise _same_name(task.name)
    return list(by_name.values())


def task_of_rows(rows: Iterable[Mapping[Any, Any]] | pd.DataFrame, name: str) -> Task:
    """A task of rows in memory; it comes back loaded.

    Args:
        rows: mappings with `query`, `positive`, `negative` (lists of texts) and, optionally, `query_id`; or a
            DataFrame with these columns.
        name: the task's name.

    Raises:
        ListconError: a row is not as it should be (naming its number), the name is not free, or nothing can be measured
            on the data.
    """
    free = _free_name(name)
    if not isinstance(rows, Iterable):
        raise ListconError(f"{name} is {rows!r:.60}; expected a path, a DataFrame or a list of rows")
    if hasattr(rows, "itertuples"):
        table: Any = rows
        if not table.columns.is_unique:
            raise ListconError(f"{name}: the table has a column twice; it has {', '.join(map(str, table.columns))}")
        rows = table.to_dict("records")
    located = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise ListconError(f"{name}, row {number} is {row!r:.60}; expected a list of rows, each a mapping")
        values = {}
        for column, value in row.items():  # a DataFrame that was read from Parquet holds arrays
            is_tuple = isinstance(value, tuple)
            values[str(column)] = value.tolist() if hasattr(value, "tolist") else list(value) if is_tuple else value
        located.append(Row(f"{name}, row {number}", values))
    if not located:
        raise ListconError(f"{name}: there are no rows; expected at least one.")
    task = loaded_task(data_of_lists(original_lists(located, LOCAL_SPLIT)), free, "rows in memory")
    task.check_measurable()
    return task


def chosen_tasks(names: str | None, data: Sequence[str] | None, *, for_first_stage: bool = False) -> list[Task]:
    """The tasks that the options `--tasks` and `--data` name.

    Args:
        names: task names separated by commas; with data, the tasks of mteb that it is a copy of. None: the four
            tasks of the model card, or the data under names of its own.
        data: local data, each as PATH or NAME=PATH, with [SUBSET] after the path of a folder with several.
        for_first_stage: whether the candidates will come from a first stage, and the data need not have them.

    Raises:
        ListconError: for an unknown name, no name, unusable data, or as many names as do not fit the data.
    """
    if not data:
        return tasks_named("official" if names is None else names, for_first_stage=for_first_stage)
    claims = [] if names is None else split_names(names)
    if claims and len(claims) != len(data):
        raise ListconError(
            f"--tasks names {count_of(len(claims), 'task')} ({', '.join(claims)}), --data gives {len(data)}: {_CLAIMS}"
        )
    if odd := [claim for claim in claims if mini_names(claim)]:
        raise ListconError(f"--tasks {odd[0]} is the packaged data, and --data gives other data: {_CLAIMS}")
    tasks = []
    for given, claim in zip_longest(data, claims):
        name, separator, path = given.partition("=")
        if not separator or Path(given).exists():
            name, path = "", given
        path, part = path_and_subset(path)
        tasks.append(local_task(path, name=name or None, claim=claim, subset=part, for_first_stage=for_first_stage))
    by_name = {task.name: task for task in tasks}
    if repeated := next((task for task in tasks if by_name[task.name] is not task), None):
        raise _same_name(repeated.name)
    return tasks


def path_and_subset(given: str) -> tuple[str, str | None]:
    """The path in PATH or PATH[SUBSET], and the subset."""
    matched = None if Path(given).exists() else re.fullmatch(r"(.+)\[([^\[\]]+)\]", given)
    return (given, None) if matched is None else (matched[1], matched[2])


def _same_name(name: str) -> ListconError:
    return ListconError(f"two data sets have the name {name}: name them apart, --data NAME=PATH or {{NAME: PATH}}")


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # many names of tasks are longer than a file's name may be
        return False


def _place(path: str | Path) -> Path:
    if not str(path):  # for `Path`, the current folder
        raise ListconError("the path of the data is '' (empty): give a file or folder.")
    place = Path(path).expanduser()
    if not place.exists():
        raise ListconError(f"{path}: no such file or folder.")
    return place


def _claimed(place: Path, location: str, task: Task, for_first_stage: bool) -> Task:
    """A task with the data of a local copy, if that has the statistics that mteb ships of the task."""
    if mteb_compat.reads_own_files(task.mteb_task):
        try:
            with mteb_compat.no_progress_bars():
                mteb_compat.load_task(task.mteb_task, str(place), task.subset, task.split)
        except Exception as error:  # whatever the task's own code says
            raise ListconError(
                f"{location} cannot be read by mteb's code of {task.name} ({error}): give a copy of the whole data set"
            ) from error
    else:
        data = read_data(place, task.split, task.subset, needs_candidates=not for_first_stage)
        set_data(task.mteb_task, task.split, data, task.subset)
    with mteb_compat.no_progress_bars(), redirect_stderr(StringIO()):  # mteb shows bars of its own
        own = dict(_flat(mteb_compat.descriptive_statistics(task.mteb_task, task.subset, task.split)))
    official = dict(_flat(task.statistics()))
    differences = [
        f"  {statistic}: official {value}, here {own.get(statistic)}"
        for statistic, value in official.items()
        if statistic not in own or not math.isclose(value, own[statistic], rel_tol=1e-9)
    ]
    if differences or not official:
        raise ListconError(
            f"{location} is not a copy of {task.name} ({task.split}, {task.location} @ {task.revision}): "
            f"{len(differences)} of its statistics differ from the {len(official)} that mteb ships.\n"
            + "\n".join(differences)
            + "\nRun it under a name of its own: results under an official name are for official data."
        )
    content = content_hash(task.mteb_task.dataset[task.subset][task.split])
    return replace(task, source="local copy of official data", location=location, content=content)


def _local_name(place: Path, subset: str | None) -> str:
    resolved = place.resolve()  # "." and ".." have names too
    stem = resolved.name if resolved.is_dir() else stem_of(resolved)
    return re.sub(r"[^\w.-]+", "-", f"{stem}-{subset}" if subset else stem).lstrip(".-") or "local"


def _free_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ListconError(f"The task name {name!r} is not usable; expected letters, digits, '_', '-' and '.'.")
    check_name_length(name)
    if card_task(name) or name.casefold() in map(str.casefold, MINI):
        raise ListconError(f"{name} is a name of other data: give this data another one, as in --data NAME=PATH")
    taken = mteb_compat.task_names().get(name.casefold())
    if taken is not None:
        raise ListconError(
            f"{taken} is a task of mteb, which this data is not known to be; give another name, or, if it is a copy, "
            f"--tasks {taken}."
        )
    return name


def _flat(statistics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in statistics.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None and name not in _NOT_COMPARABLE:
            yield f"{prefix}{name}", value
