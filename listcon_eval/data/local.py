"""Data of one's own as a task: under its own name, or as a checked copy of official data."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from listcon_eval import mteb_compat
from listcon_eval.data.layouts import original_data, read_data
from listcon_eval.data.rows import Row, stem_of
from listcon_eval.data.tasks import (
    LOCAL_SPLIT,
    Task,
    find_official,
    loaded_task,
    no_progress_bars,
    resolve_official,
    set_data,
    split_names,
    tasks_named,
)
from listcon_eval.errors import ListconError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from listcon_eval.data.tasks import OfficialTask

_NAME = re.compile(r"\w[\w.-]*")  # safe as a file name, as part of a dataset path, and in a table
# mteb's shipped statistics count judgements of 0 as relevant in these two; today's mteb does not.
_NOT_COMPARABLE = ("min_relevant_docs_per_query", "max_relevant_docs_per_query")


def local_task(
    path: str | Path, *, name: str | None = None, claim: str | None = None, for_training: bool = False
) -> Task:
    """Read local data; the task comes back loaded.

    Args:
        path: a file in the original C-MTEB layout (JSON lines or a JSON array, both also gzipped, Parquet or TSV,
            with columns `query`, `positive`, `negative`), a folder of such files, or a folder in mteb's
            retrieval layout.
        name: the task's name; by default the name of the file or folder. An official task's name is a claim.
        claim: the official task that this data is said to be a copy of.
        for_training: whether the data need not be fit to measure on.

    Raises:
        ListconError: the data cannot be read (naming file and line), the name is not free, the claim does not hold,
            or nothing can be measured on the data.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise ListconError(f"{path}: no such file or folder.")
    if claim is not None and name is not None:
        raise ListconError(f"Both a name ({name!r}) and a claim ({claim!r}) were given; a claim is the name.")
    given = _local_name(place) if name is None else name
    official = find_official(given) if claim is None else resolve_official(claim)
    if official is not None:
        return _claimed(place, str(path), official)
    free = _free_name(given)
    task = loaded_task(read_data(place, LOCAL_SPLIT), free, str(path))
    if not for_training:
        _check_measurable(task)
    return task


def task_of_rows(rows: Iterable[Mapping[Any, Any]], name: str) -> Task:
    """A task of rows in memory; it comes back loaded.

    Args:
        rows: mappings with `query`, `positive`, `negative` (lists of texts) and, optionally, `query_id`, such as
            `frame.to_dict("records")` of a pandas DataFrame.
        name: the task's name.

    Raises:
        ListconError: a row is not as it should be (naming its number), the name is not free, or nothing can be measured
            on the data.
    """
    free = _free_name(name)
    located = (
        Row(f"{name}, row {number}", {str(column): _as_list(value) for column, value in row.items()})
        for number, row in enumerate(rows, start=1)
    )
    data = original_data(located, LOCAL_SPLIT)
    if not data.queries:
        raise ListconError(f"{name}: there are no rows; expected at least one.")
    task = loaded_task(data, free, "rows in memory")
    _check_measurable(task)
    return task


def _as_list(value: Any) -> Any:  # noqa: ANN401 - a cell
    """A tuple or array as a list: a DataFrame that was read from Parquet holds arrays."""
    return value.tolist() if hasattr(value, "tolist") else list(value) if isinstance(value, tuple) else value


def chosen_tasks(names: str | None, data: Sequence[str] | None) -> list[Task]:
    """The tasks that the options `--tasks` and `--data` name.

    Args:
        names: task names separated by commas; with data, the official tasks that it is a copy of. None: the four
            official tasks, or the data under names of its own.
        data: local data, each as PATH or NAME=PATH.

    Raises:
        ListconError: for an unknown name, no name, unusable data, or as many names as do not fit the data.
    """
    if not data:
        return tasks_named("official" if names is None else names)
    claims = [] if names is None else split_names(names)
    if claims and len(claims) != len(data):
        raise ListconError(
            f"--tasks names {len(claims)} tasks ({', '.join(claims)}) and --data gives {len(data)}: with --data, "
            f"--tasks says of each data set, in order, which official task it is a copy of; leave it out for other data"
        )
    tasks = []
    for place, given in enumerate(data):
        name, separator, path = given.partition("=")
        if not separator or Path(given).exists():
            name, path = "", given
        tasks.append(local_task(path, name=name or None, claim=claims[place] if claims else None))
    repeated = {task.name for task in tasks if [other.name for other in tasks].count(task.name) > 1}
    if repeated:
        raise ListconError(
            f"two data sets have the name {', '.join(sorted(repeated))}: name them apart with --data NAME=PATH"
        )
    return tasks


def _check_measurable(task: Task) -> None:
    """Refuse data on which every order of the candidates gives the same numbers."""
    lists = task.candidate_lists()
    relevant = sum(any(value > 0 for value in row.relevance) for row in lists)
    irrelevant = sum(any(value <= 0 for value in row.relevance) for row in lists)
    if any(min(row.relevance, default=0) <= 0 < max(row.relevance, default=0) for row in lists):
        return
    raise ListconError(
        f"{task.location}: none of the {len(lists)} queries has both a positive and a negative candidate ({relevant} "
        f"have a positive, {irrelevant} have a negative): nothing can be measured. Give at least one query with both."
    )


def _claimed(place: Path, location: str, official: OfficialTask) -> Task:
    mteb_task = official.mteb_task()
    data = read_data(place, official.split)
    set_data(mteb_task, official.split, data.split_data())
    with no_progress_bars():
        own = dict(_flat(mteb_compat.descriptive_statistics(mteb_task, official.split)))
    differences = [
        f"  {statistic}: official {value}, here {own.get(statistic)}"
        for statistic, value in _flat(official.statistics())
        if statistic not in own or not math.isclose(value, own[statistic], rel_tol=1e-9)
    ]
    if differences:
        raise ListconError(
            f"{location} is not a copy of {official.name} ({official.split}, {official.dataset} @ "
            f"{official.revision}): {len(differences)} of its statistics differ from those that mteb ships.\n"
            + "\n".join(differences)
            + "\nRun it under a name of its own: results under an official name are for official data."
        )
    return Task(
        name=official.name,
        split=official.split,
        revision=official.revision,
        source="local copy of official data",
        location=location,
        is_official=True,
        mteb_task=mteb_task,
        content=data.content_hash(),
    )


def _local_name(place: Path) -> str:
    resolved = place.resolve()  # "." and ".." have names too
    stem = resolved.name if resolved.is_dir() else stem_of(resolved)
    return re.sub(r"[^\w.-]+", "-", stem).lstrip(".-") or "local"


def _free_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ListconError(f"The task name {name!r} is not usable; expected letters, digits, '_', '-' and '.'.")
    taken = mteb_compat.task_names().get(name.casefold())
    if taken is not None:
        raise ListconError(f"{taken} is a task of mteb, which this data is not known to be; give another name.")
    return name


def _flat(statistics: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in statistics.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None and name not in _NOT_COMPARABLE:
            yield f"{prefix}{name}", value
