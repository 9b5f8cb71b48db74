"""The options that several commands share, and what they stand for."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import typer
from pydantic import ByteSize, Field, TypeAdapter, ValidationError

from listcon_eval.cli.console import handled_errors
from listcon_eval.data.rows import parse_json
from listcon_eval.errors import ListconError, did_you_mean
from listcon_eval.records import DTypeOption
from listcon_eval.systems.base import KINDS

Style = Annotated[
    Literal["terminal", "markdown"], typer.Option("--format", help="A table for the terminal, or Markdown.")
]
Tasks = Annotated[
    str | None,
    typer.Option(
        help="Tasks by name, separated by commas: mteb's names or the card's, with subsets or splits as in "
        "MIRACLReranking[zh]; mini, for the packaged mini benchmark; all-chinese-reranking, or another language; a "
        "benchmark of mteb. With --data: the tasks that the data is a copy of, which is checked.",
        show_default="the four of the model card",
    ),
]
Data = Annotated[
    list[str] | None,
    typer.Option(
        help="Local data, as PATH or NAME=PATH; repeatable. JSONL, gzipped JSONL, a JSON array or Parquet with "
        "query, positive, negative; or a folder in mteb's retrieval layout, with [SUBSET] after it if it has several."
    ),
]
Rerank = Annotated[
    str | None,
    typer.Option(
        metavar="PREDICTIONS",
        help="Rerank what a first stage retrieved for a retrieval task of mteb: mteb's folder of predictions, a TREC "
        "run file, or bm25 or bm25:jieba over the task's corpus.",
    ),
]
TopK = Annotated[
    int | None,
    typer.Option(min=1, help="With --rerank: how many of the first documents of each query.", show_default="100"),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A model's folder or hub id (ListConRanker, an embedding model, a cross-encoder), a TREC run file, or "
        "mini (the packaged ListConRanker), bm25, bm25:jieba, random, random:SEED or oracle.",
    ),
]
Output = Annotated[Path, typer.Option(help="Folder for results: one named `results`, or the one to make it in.")]
Device = Annotated[str | None, typer.Option(help="cuda, cuda:1, mps or cpu.", show_default="the best there is")]
DType = Annotated[
    DTypeOption,
    typer.Option(
        help="float16: weights and scores as the published code has them, with its ties; float32; bfloat16: a "
        "bfloat16 encoder (1.5 to 3 percent rounding); auto: float16 on an accelerator, float32 on a CPU."
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        help="Host memory to stay within, such as 1GB or 800MB: batches become smaller, and features beyond an eighth "
        "of it go to a temporary file.",
        show_default="no bound",
    ),
]
DeviceMemory = Annotated[
    str | None, typer.Option(help="The same for an accelerator's own memory, such as 20GB.", show_default="no bound")
]
Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="N|auto|ray://HOST:PORT",
        help="Compute in processes of Ray (the extra `ray`), each with the model on a device of its own: so many, "
        "one for each device of this machine, or all devices of a cluster. The results are the same.",
        show_default="this process",
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(
        help="Hub revision of the model; of ListConRanker also `published` or `mteb` (the leaderboard's).",
        show_default="published for ListConRanker, that of mteb's registry for its models",
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option(
        help="Tokens a text is cut to (a pair, for a cross-encoder).",
        show_default="512 for ListConRanker, any other model's own",
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        help="What the model is, if its files or name do not say.", metavar="|".join(KINDS), show_default="found out"
    ),
]
Metrics = Annotated[
    str | None,
    typer.Option(
        help='Metrics to measure as well, by ir_measures\' names: "AP nDCG@10 RR@10 R@50".',
        show_default="those of the two protocols",
    ),
]
Relevance = Annotated[
    int,
    typer.Option(
        min=1,
        help="The judgement from which on a document is relevant, under another task name; nDCG keeps all grades.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="A trial on the first queries of each task: under another name, refused by exports and baselines.",
        show_default="all queries",
    ),
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Compute anew what was finished before.")]
KeepGoing = Annotated[
    bool,
    typer.Option(
        "--keep-going",
        help="Write down a query that cannot be ranked and go on: no metrics for its task, and exit code 1.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes; results and errors only.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


_SEPARATORS = {"tasks": ",", "metrics": " "}
"""What separates the names of an option that is several in one text; in a file of options they may be a list."""


@handled_errors()
def _take_options(context: typer.Context, path: Path | None) -> Path | None:
    """Make the options of a file the defaults of a command.

    Raises:
        ListconError: the file cannot be read or is no mapping, or one of its keys is no option or has no value of the
            option's type; names file and key.
    """
    if path is None:
        return None
    function: Any = context.command.callback
    hints = get_type_hints(function, include_extras=True)
    known = {name.replace("_", "-"): name for name in hints if name not in ("return", "options_file")}
    given = {}
    for key, value in read_mapping(path).items():
        name = str(key).replace("_", "-")
        if name not in known:
            hint = did_you_mean(name, known)
            raise ListconError(f"{path}: {key!r} is no option of this command{hint}; known: {', '.join(known)}")
        if value == "":
            raise ListconError(f"{path}: {key} is '' (empty): give a value, or leave it out")
        if name == "workers" and type(value) is int:
            value = str(value)  # a number, or words
        if name in _SEPARATORS and isinstance(value, list) and all(isinstance(item, str) for item in value):
            value = _SEPARATORS[name].join(value)
        kind, option = get_args(hints[known[name]])
        bounded: Any = Annotated[kind, Field(ge=option.min)]
        try:
            # As JSON, in which a path is a text.
            TypeAdapter(bounded).validate_json(json.dumps(value, default=str), strict=True)
        except ValidationError as error:
            raise ListconError(f"{path}: {key} is {value!r}: {error.errors()[0]['msg']}") from error
        if known[name] in given:
            raise ListconError(f"{path}: {key} is given twice, with - and with _: give it once")
        given[known[name]] = value
    context.default_map = given
    return path


def read_mapping(path: Path) -> dict[Any, Any]:
    """The keys and values of a YAML or JSON file.

    Raises:
        ListconError: it cannot be read, holds something else, or has a key twice.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            found = parse_json(str(path), text)
        else:
            node = yaml.compose(text, yaml.SafeLoader)
            keys = [key.value for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
            if repeated := next((key for key in keys if keys.count(key) > 1), None):  # YAML's reader takes the last
                raise ListconError(f"{path}: {repeated!r} comes a second time; give each option once")
            found = yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ListconError(f"{path} cannot be read as YAML or JSON: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ListconError(f"{path} holds {found!r:.60}: expected keys with their values, such as `output: my-results`")
    return found


OptionsFile = Annotated[
    Path | None,
    typer.Option(
        "--options",
        is_eager=True,
        callback=_take_options,
        help="A YAML or JSON file of options by their names, such as `max-length: 256`; the command line wins over it.",
    ),
]


def refuse_with(option: str, **others: object) -> None:
    """Refuse options, given by their names and whether they were set, that are without effect beside another one."""
    if idle := [f"--{name.replace('_', '-')}" for name, is_set in others.items() if is_set]:
        raise ListconError(f"{option} leaves {' and '.join(idle)} without effect: leave out the one or the other")


def workers_of(given: str | None) -> int | str:
    """What `--workers` says, as `LoadOptions` takes it."""
    return 1 if given is None else int(given) if given.isdecimal() and int(given) else given


def size_of(stated: str | None, option: str) -> int | None:
    """The bytes that "1GB", "800 MB" or "1.5GiB" stand for; None for nothing.

    Raises:
        ListconError: for any other text.
    """
    if stated is None:
        return None
    try:
        size = TypeAdapter(ByteSize).validate_python(stated)
    except ValidationError:
        size = ByteSize(0)
    if not size or stated.strip()[-1].isdigit():
        raise ListconError(f"{option} is {stated!r}: give a size with its unit, such as 1GB, 800MB or 1.5GiB")
    return size
