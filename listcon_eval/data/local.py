"""Local data as a task: under its own name, or as a checked copy of official data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, cast

from listcon_eval.data.official import find_official, resolve_official
from listcon_eval.data.original_layout import read_original
from listcon_eval.data.retrieval_layout import is_retrieval_folder, read_retrieval
from listcon_eval.data.rows import stem_of
from listcon_eval.data.statistics import differences
from listcon_eval.data.task import Source, Task, fill
from listcon_eval.errors import ListconError

if TYPE_CHECKING:
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    from listcon_eval.data.official import OfficialTask
    from listcon_eval.data.parts import Parts

_LOCAL_SPLIT = "test"
_NAME = re.compile(r"\w[\w.-]*")  # safe as a file name, as part of a dataset path, and in a table


def local_task(path: str | Path, *, name: str | None = None, claim: str | None = None) -> Task:
    """Read local data; the task comes back loaded.

    Args:
        path: a file in the original C-MTEB layout (`.jsonl`, `.json`, both also with `.gz`, or `.parquet`,
            with columns `query`, `positive`, `negative`), a folder of such files, or a folder in mteb's
            retrieval layout.
        name: the task's name; by default the name of the file or folder. An official task's name is a claim.
        claim: the official task that this data is said to be a copy of.

    Raises:
        ListconError: the data cannot be read (naming file and line), the name is not free, or
            the claim does not hold.
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
    return own_task(place, str(path), _free_name(given))


def own_task(place: Path, location: str, name: str, source: Source = "local") -> Task:
    """Read data that runs under a name of its own; the task comes back loaded.

    Raises:
        ListconError: the data cannot be read.
    """
    parts = _read(place, _LOCAL_SPLIT)
    revision = parts.content_hash()
    mteb_task = _own_mteb_task(name, revision, source)
    fill(mteb_task, _LOCAL_SPLIT, parts.split_data())
    task = Task(
        name=name,
        split=_LOCAL_SPLIT,
        revision=revision,
        source=source,
        location=location,
        is_official=False,
        mteb_task=mteb_task,
        content=revision,
    )
    task.candidate_lists()  # a candidate that is no document should be known before a model is loaded
    return task


def _claimed(place: Path, location: str, official: OfficialTask) -> Task:
    mteb_task = official.mteb_task()
    parts = _read(place, official.split)
    fill(mteb_task, official.split, parts.split_data())
    found = differences(mteb_task, official.split, official.statistics())
    if found:
        lines = [f"  {d.statistic}: official {d.official}, here {d.found}" for d in found]
        raise ListconError(
            f"{location} is not a copy of {official.name} ({official.split}, {official.dataset} @ "
            f"{official.revision}): {len(found)} of its statistics differ from those that mteb ships.\n"
            + "\n".join(lines)
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
        content=parts.content_hash(),
    )


def _read(place: Path, split: str) -> Parts:
    if place.is_dir() and is_retrieval_folder(place):
        return read_retrieval(place, split)
    return read_original(place, split)


def _local_name(place: Path) -> str:
    resolved = place.resolve()  # "." and ".." have names too
    stem = resolved.name if resolved.is_dir() else stem_of(resolved)
    return re.sub(r"[^\w.-]+", "-", stem).lstrip(".-") or "local"


def _free_name(name: str) -> str:
    # A public list of mteb's names would make every task; the registry has them all, private and superseded
    # ones too.
    from mteb.get_tasks import _TASK_RENAMES, _TASKS_REGISTRY

    if not _NAME.fullmatch(name):
        raise ListconError(f"The task name {name!r} is not usable; expected letters, digits, '_', '-' and '.'.")
    taken = {known.casefold(): known for known in (*_TASKS_REGISTRY, *_TASK_RENAMES)}
    if name.casefold() in taken:
        raise ListconError(
            f"{taken[name.casefold()]} is a task of mteb, which this data is not known to be; give another name."
        )
    return name


def _own_mteb_task(name: str, revision: str, source: Source) -> AbsTaskRetrieval:
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    metadata = TaskMetadata(
        name=name,
        description=f"Reranking data ({source}) that is no official task: {name}",
        dataset={"path": f"{source}/{name}", "revision": revision},
        type="Reranking",
        category="t2t",
        modalities=["text"],
        eval_splits=[_LOCAL_SPLIT],
        eval_langs=["cmn-Hans"],
        main_score="map_at_1000",
        is_public=False,
    )
    # mteb keeps a task's metadata on its class (unloading a task drops an instance's own): a class for each
    # data set
    local = type("LocalReranking", (AbsTaskRetrieval,), {"metadata": metadata})
    return cast("AbsTaskRetrieval", local())
