"""The typed records of a result: what is written is what is read, and what is read is validated.

A file that was written by hand or by another version is one error that names the file and the field. A signature is a
record; its text is printed from it and never parsed back.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from listcon_eval.errors import ListconError
from listcon_eval.records import NOT_RETRIEVED, POINTWISE

METRICS, PER_QUERY, RUN = "metrics.json", "per_query.jsonl", "run.jsonl"
PROVENANCE, MANIFEST = "provenance.json", "manifest.json"
TREC_RUN, TREC_QRELS = "run.trec", "qrels.trec"
Setting = str | int | float | bool | None

# What is measured by a name of its own; other systems go by the model's name.
_SHOWN_KINDS = {
    "bm25": "BM25",
    "random": "random order",
    "oracle": "oracle (upper bound)",
    "run-file": "run file",
    "first-stage": "first stage",
}
R = TypeVar("R", bound="Record")
_REMEDY = "run the evaluation again"


class Record(BaseModel):
    """A record of a file: immutable, without unknown fields, of strict types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Signature(Record):
    """Everything that has to be equal for two numbers to be comparable."""

    task: str
    """The task's name."""
    data_revision: str
    """The revision of its data."""
    limit: int | None = None
    """Of a trial, how many of the first queries it has."""
    relevance: int | None = None
    """The judgement from which on a document is relevant; null for any above 0."""
    model: str
    """The model's name, `org/name`."""
    model_revision: str
    """The hub's commit, a hash of local files, a library's version or a seed."""
    settings: dict[str, Setting]
    """What it was run with, such as mode, dtype and max_length."""
    ties: str
    """How each protocol breaks ties."""
    versions: dict[str, str]
    """The versions of the packages that compute or measure, by name."""
    device: str
    """Where the scores were computed."""

    def __str__(self) -> str:
        fields = (
            f"{self.task}@{self.data_revision}",
            *([] if self.limit is None else [f"limit:{self.limit}"]),
            *([] if self.relevance is None else [f"relevance:{self.relevance}"]),
            f"{self.model}@{self.model_revision}",
            *(f"{name}:{value}" for name, value in self.settings.items()),
            f"ties:{self.ties}",
            *(f"{name}:{version}" for name, version in self.versions.items()),
            f"device:{self.device}",
        )
        return "|".join(fields)

    def differences(self, other: "Signature") -> dict[str, tuple[str, str]]:
        """What differs from another signature: field or setting -> its value here and there."""
        own, theirs = self.fields(), other.fields()
        pairs = {name: (own.get(name, "none"), theirs.get(name, "none")) for name in own | theirs}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def fields(self) -> dict[str, str]:
        """Every field, setting and version by its name, as text."""
        content = self.model_dump()
        nested = content.pop("settings") | content.pop("versions")
        return {name: str(value) for name, value in (content | nested).items() if value is not None}


class FirstStageRecord(Record):
    """The first stage whose best documents were reranked."""

    name: str
    """What it is called, such as `bm25-characters`."""
    revision: str
    """A hash of its file, or the version of what computed it."""
    top_k: int = Field(ge=1)
    """How many documents a query were reranked, at most."""
    recall: float
    """The mean share of a query's relevant documents that are among them."""


class Result(Record):
    """The numbers of one system on one task: the content of `metrics.json`."""

    folder: Path = Field(default=Path(), exclude=True)
    """The run's folder; not part of the file."""
    task: str
    """The task's name."""
    is_official: bool
    """Whether the data is the official data of the task of that name."""
    kind: str
    """The kind of system that was measured."""
    model: str
    """The model's name, `org/name`."""
    model_revision: str
    """The hub's commit, a hash of local files, a library's version or a seed."""
    data_revision: str
    """The revision of the data."""
    settings: dict[str, Setting]
    """What it was run with, such as mode, dtype and max_length."""
    queries: int = Field(ge=1)
    """How many queries the task has."""
    dropped: int = Field(ge=0)
    """How many of them `cmteb` leaves out, because they have no positive or no negative candidate."""
    cmteb: dict[str, float]
    """The means by metric, 0 to 1; empty where the protocol is not defined: for scores that came without candidate
    order and texts, for the reranking of a first stage, and where no query has a relevant and another candidate."""
    mteb: dict[str, float]
    """The means by metric, 0 to 1."""
    ir_measures: dict[str, float] = {}
    """The means of metrics that were asked for, by the library's names, 0 to 1."""
    main_score: str
    """The task's main score: a metric of `mteb` or of `task_scores`."""
    task_scores: dict[str, float] = {}
    """The main score of a task that has one of its own, such as p-MRR, -1 to 1."""
    max_relevance: int = 1
    """The highest judgement."""
    first_stage: FirstStageRecord | None = None
    """Where the candidates come from, if they are not part of the data."""
    ranges: dict[str, tuple[float, float]]
    """Metric of `cmteb` -> the lowest and highest mean that any order of tied candidates gives."""
    signature: Signature
    """What the numbers depend on."""
    finished: datetime
    """When the run was finished."""

    @field_validator("settings")
    @classmethod
    def _check_mode(cls, settings: dict[str, Setting]) -> dict[str, Setting]:
        if not isinstance(settings.get("mode"), str):
            raise ValueError("a mode is missing")
        return settings

    @property
    def mode(self) -> str:
        """The inference mode, or "pointwise"."""
        return str(self.settings["mode"])

    @property
    def dtype(self) -> str | None:
        """The number format; None for systems that have no such choice."""
        dtype = self.settings.get("dtype")
        return None if dtype is None else str(dtype)

    @property
    def shown_mode(self) -> str:
        """The inference mode; `-` for systems that have only one way to rank."""
        return "-" if self.mode == POINTWISE else self.mode

    @property
    def system(self) -> str:
        """The short name of what was measured: the model's, or what a baseline is."""
        name = self.model.rpartition("/")[2]
        if self.kind not in _SHOWN_KINDS:
            return name
        what, variant = _SHOWN_KINDS[self.kind], name.removeprefix(self.kind).lstrip("-")
        return f"{what} ({variant})" if variant else what

    @property
    def system_key(self) -> tuple[Setting, ...]:
        """What tells systems apart; equal for one system's runs of several tasks."""
        return (self.model, self.model_revision, self.kind, json.dumps(self.settings, sort_keys=True))

    @property
    def mteb_task(self) -> str:
        """The name of mteb's task, without subset and split; of a whole task, mteb's own file is `{mteb_task}.json`."""
        return self.task.partition("[")[0]

    def means(self, protocol: str) -> dict[str, float]:
        """The means of one of `PROTOCOLS`."""
        return {"cmteb": self.cmteb, "mteb": self.mteb, "ir_measures": self.ir_measures}[protocol]

    def mean(self, protocol: str, name: str) -> float | None:
        """The mean of a metric of one of `PROTOCOLS`, "mteb"'s `main_score` the task's; None where there is none."""
        if protocol != "mteb":
            return self.means(protocol).get(name)
        return (self.mteb | self.task_scores).get(self.main_score if name == "main_score" else name)

    def file(self, name: str) -> Path:
        """The path of one of the run's files, such as `RUN`."""
        return self.folder / self.task / name


class QueryRow(Record):
    """The metrics of one query: a line of `per_query.jsonl`."""

    query_id: str
    """The query's id."""
    candidates: int
    """How many candidates it has."""
    relevant: int
    """How many of them are relevant."""
    cmteb: dict[str, float] | None
    """Metric -> value; null for a query that the protocol drops."""
    mteb: dict[str, float]
    """Metric -> value."""
    ir_measures: dict[str, float] = {}
    """Metric -> value."""


class RankedQuery(Record):
    """One query with its ranked candidates: a line of `run.jsonl`. P candidates in candidate order."""

    query_id: str
    """The query's id."""
    query: str | None
    """Its text; null where only ids are known."""
    doc_ids: tuple[str, ...]
    """The P candidates' document ids, in candidate order."""
    scores: tuple[float | None, ...]
    """P final scores; higher ranks first, null for a candidate that was not retrieved."""
    rounds: tuple[int, ...]
    """P numbers of the rounds that the candidates left in; 0 but in iterative inference."""
    relevance: tuple[int, ...]
    """P judgements, 0 for those below the run's threshold; above 0 is relevant."""
    cmteb_relevant: tuple[bool, ...]
    """P labels of the cmteb protocol."""

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        columns = (self.doc_ids, self.scores, self.rounds, self.relevance, self.cmteb_relevant)
        if len({len(column) for column in columns}) > 1:
            raise ValueError(f"query {self.query_id} has columns of different lengths")
        return self

    @property
    def final_scores(self) -> tuple[float, ...]:
        """The scores as a `RankedList` has them: `NOT_RETRIEVED` where there is none."""
        return tuple(NOT_RETRIEVED if score is None else score for score in self.scores)


class ModelRecord(Record, extra="allow"):
    """The measured system, in a provenance; a kind may say more of it."""

    kind: str
    """The kind of system."""
    name: str
    """Its name, `org/name`."""
    revision: str
    """The hub's commit, a hash of local files, a library's version or a seed."""


class DataRecord(Record):
    """The data, in a provenance; the attributes are those of `data.Task`: of the whole task, where a trial was run."""

    task: str
    """The task's name; an official one only when the data is the official data."""
    subset: str
    """The subset, by mteb's name."""
    split: str
    """The evaluated split."""
    revision: str
    """The dataset's hub revision, or the hash of the content of local data."""
    content: str | None
    """The hash of the content of local data; null for data from the hub."""
    texts: str | None = None
    """The hash of the candidates' texts where a first stage retrieved them, else null."""
    source: str
    """`hub`, `local`, `local copy of official data`, `packaged`, or `first stage` for what one retrieved."""
    location: str
    """The dataset's hub id, or the path as it was given."""
    is_official: bool
    """Whether it is the official data of the task of that name."""
    license: str | None
    """The data's licence, as mteb has it."""
    citation: str | None
    """What to cite for it, in BibTeX, as mteb has it."""


class Provenance(Record):
    """Where a result comes from: the content of `provenance.json`."""

    signature: Signature
    """What the numbers depend on."""
    finished: datetime
    """When the run was finished."""
    model: ModelRecord
    """What was measured."""
    data: DataRecord
    """What it was measured on."""
    settings: dict[str, Setting]
    """What it was run with."""
    metrics: tuple[str, ...] = ()
    """Those that were asked for, by ir_measures' names."""
    ties: dict[str, str]
    """Protocol -> how it breaks ties, in words."""
    observed: dict[str, Any]
    """What was seen while ranking, such as the share of truncated texts."""
    versions: dict[str, str]
    """The versions of Python and of all packages that matter."""
    device: str
    """Where the scores were computed."""
    git: dict[str, Any] | None
    """Commit and state of the checkout that this package ran from; null for an installed copy."""
    resumed_chunks: int
    """How many chunks of an interrupted run were reused."""
    seconds: dict[str, float]
    """Phase -> seconds."""


class Manifest(Record):
    """The run's key and the SHA-256 of each of its files, by their path in the run's folder."""

    key: str
    """The hash of everything that changes a number."""
    sha256: dict[str, str]
    """The SHA-256 of each file, by its path in the run's folder."""


def read_record(record: type[R], path: Path, *, remedy: str = _REMEDY) -> R:
    """Read a JSON file as a record; `remedy` is what to do about an unusable one.

    Raises:
        ListconError: the file cannot be read, or a field is missing, unknown or of a wrong type; names it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ListconError(f"{path} cannot be read: {error}; {remedy}") from error
    return _validated(record, text, str(path), remedy)


def read_rows(record: type[R], path: Path) -> Iterator[R]:
    """Read a file with one JSON object a line as records; an error is as in `read_record`, and names the line."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield _validated(record, line, f"{path}, line {number}")
    except (OSError, ValueError) as error:
        raise ListconError(f"{path} cannot be read: {error}; {_REMEDY}") from error


def _validated(record: type[R], text: str, where: str, remedy: str = _REMEDY) -> R:
    try:
        return record.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the object"
        raise ListconError(
            f"{where}: {field}: {first['msg']} (seen: {first['input']!r:.80}); the file was changed, or written by "
            f"another version of this package: {remedy}"
        ) from error
