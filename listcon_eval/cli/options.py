"""The options that several commands and both scripts share, and what they stand for."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from listcon_eval.data import OFFICIAL, Task, local_task, mini_names, mini_task, official_task
from listcon_eval.errors import ListconError
from listcon_eval.records import Precision
from listcon_eval.systems.registry import KINDS

Tasks = Annotated[
    str | None,
    typer.Option(
        "--tasks",
        help="Tasks by name, separated by commas: the card's names or mteb's, or mini for the packaged mini benchmark. "
        "With --data: the official tasks that the data is a copy of, which is checked.",
        show_default="the four official ones",
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        help="Local data, as PATH or NAME=PATH; repeatable. JSONL, gzipped JSONL or Parquet with query, positive, "
        "negative; or a folder in mteb's retrieval layout.",
    ),
]
Output = Annotated[
    Path, typer.Option("--output", help="Folder for results: one named `results`, or the one to make it in.")
]
Device = Annotated[
    str | None, typer.Option("--device", help="cuda, cuda:1, mps or cpu.", show_default="the best there is")
]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="published: float16 weights and scores on an accelerator, as the published code; precise: float32, "
        "ranking by logits; bfloat16: as precise, but for an encoder in bfloat16 (1.5 to 3 percent rounding).",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        help="Host memory to stay within, such as 1GB or 800MB: batches become smaller, and features beyond an eighth "
        "of it go to a temporary file.",
        show_default="no bound",
    ),
]
DeviceMemory = Annotated[
    str | None,
    typer.Option(
        "--device-memory", help="The same for an accelerator's own memory, such as 20GB.", show_default="no bound"
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(
        "--revision",
        help="Hub revision of the model.",
        show_default="the published one of ListConRanker, that of mteb's registry for its models",
    ),
]
MaxLength = Annotated[int, typer.Option("--max-length", help="Tokens a text is cut to.")]
ModelsMaxLength = Annotated[
    int | None,
    typer.Option(
        "--max-length",
        help="Tokens a text is cut to (a pair, for a cross-encoder).",
        show_default="512 for ListConRanker, any other model's own",
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        "--kind",
        help="What the model is, if its files or name do not say.",
        metavar="|".join(KINDS),
        show_default="found out",
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Compute anew what earlier starts have finished.")]
KeepGoing = Annotated[
    bool,
    typer.Option(
        "--keep-going",
        help="Write down a query that cannot be ranked and go on: no metrics for its task, and exit code 1.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes; results and errors only.")]


_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def size_of(stated: str | None, option: str) -> int | None:
    """The bytes that "1GB", "800 MB" or "1.5GiB" stand for; None for nothing.

    Raises:
        ListconError: for any other text.
    """
    if stated is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", stated)
    unit = _UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or not float(found[1]):
        raise ListconError(f"{option} is {stated!r}: give a size with its unit, such as 1GB, 800MB or 1.5GiB")
    return int(float(found[1]) * unit)


def chosen_tasks(names: str | None, data: Sequence[str] | None) -> list[Task]:
    """The tasks that `--tasks` and `--data` name.

    Raises:
        ListconError: for an unknown name, unusable data, or as many names as do not fit the data.
    """
    wanted = [name.strip() for name in (names or "").split(",") if name.strip()]
    if not data:
        return [task for name in (wanted or [task.name for task in OFFICIAL]) for task in _named(name)]
    if wanted and len(wanted) != len(data):
        raise ListconError(
            f"--tasks names {len(wanted)} tasks ({', '.join(wanted)}) and --data gives {len(data)}: with --data, "
            f"--tasks says of each data set, in order, which official task it is a copy of; leave it out for other data"
        )
    tasks = []
    for place, given in enumerate(data):
        name, separator, path = given.partition("=")
        if not separator or Path(given).exists():
            name, path = "", given
        tasks.append(local_task(path, name=name or None, claim=wanted[place] if wanted else None))
    repeated = {task.name for task in tasks if [other.name for other in tasks].count(task.name) > 1}
    if repeated:
        raise ListconError(
            f"two data sets have the name {', '.join(sorted(repeated))}, and one would overwrite the other's results: "
            f"name them with --data NAME=PATH"
        )
    return tasks


def _named(name: str) -> list[Task]:
    mini = mini_names(name)
    return [mini_task(task) for task in mini] if mini else [official_task(name)]
