"""The comparison table: models and modes down, tasks across, published figures marked as such; in every format.

The tasks of the model card, the other tasks of mteb and other data never share a table, and only a row with a number
for every task has an average.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import Field, PlainSerializer

from listcon_eval.data import CARD_TASKS
from listcon_eval.errors import ListconError, count_of
from listcon_eval.files import write_text
from listcon_eval.metrics import CARD_MAP, MAIN, Measure, metrics_of
from listcon_eval.results import Result, Signature, load_results
from listcon_eval.results.records import FirstStageRecord, Record
from listcon_eval.results.store import run_folders
from listcon_eval.tables import Style, code, escaped, heading, latex_float, one_line, percent, table

AVERAGE = "Avg."
REPRODUCED_WITHIN = 0.1
"""The difference to a published number, in percent points, up to which it counts as reproduced."""
TABLE_START, TABLE_END = "<!-- listcon-eval table -->", "<!-- end -->"
_ABOUT_DIFFERENCES = f"Difference to the published number, percent points (✓ within {REPRODUCED_WITHIN})"
_CARD, _MTEB, _OTHER_DATA = "Official tasks", "Other tasks of mteb", "Other data (no official results)"
_UPPER_BOUND = "oracle"
_REVISION_CHARACTERS = 14  # of a revision in a table


@dataclass(frozen=True)
class PublishedRow:
    """The published figures of one model, revision and mode by one measure, in percent."""

    model: str
    hub: str  # the model's id on the hub
    revision: str | None
    mode: str
    values: Mapping[str, float]
    average: float | None


@cache
def published_rows(measure: Measure) -> tuple[PublishedRow, ...]:
    """What is published by a measure: nothing for most measures."""
    content = json.loads(files("listcon_eval.report").joinpath("published.json").read_text(encoding="utf-8"))
    return tuple(
        PublishedRow(
            model=row["model"],
            hub=row["hub"],
            revision=row["revision"],
            mode=row["mode"],
            values={task: round(row["scale"] * values[measure.name], 10) for task, values in row["tasks"].items()},
            average=row["average"],
        )
        for row in content["rows"]
        if row["protocol"] == measure.protocol and all(measure.name in values for values in row["tasks"].values())
    )


def published_row(result: Result, measure: Measure) -> PublishedRow | None:
    """The published figures of a run's own model, revision and mode, or None.

    A model of the hub matches by id and revision. A local folder has neither: it matches by its name, and is compared
    with the first published revision, which is that of the model card.
    """

    def plain(name: str) -> str:
        return name.lower().replace("_", "-")

    organisation, _, name = result.model.rpartition("/")
    for row in published_rows(measure):
        if result.model == row.hub:
            is_same = row.revision in (None, result.model_revision)
        else:
            names = {plain(row.hub.rpartition("/")[2]), plain(row.model)}
            is_same = organisation in ("", "local") and plain(name) in names
        if is_same and row.mode == result.shown_mode:
            return row
    return None


def is_close(difference: float) -> bool:
    """Whether a difference to a published number, in percent points, counts as reproduced."""
    return abs(difference) <= REPRODUCED_WITHIN


def _judged(differences: Mapping[str, float]) -> dict[str, dict[str, float | bool]]:
    return {
        name: {"difference": value, f"within_{REPRODUCED_WITHIN}": is_close(value)}
        for name, value in differences.items()
    }


class Row(Record):
    """One system's numbers, in percent and as they are printed, with two decimals."""

    model: str
    mode: str  # the inference mode, `-` where there is none
    source: str  # "published" or "measured", with dtype and revision
    kind: str | None  # the kind of system; null for published rows
    values: dict[str, float]  # column -> number; without the columns that it has none for
    # the columns it is the best of as printed; the oracle is an upper bound and never the best
    best_of: list[str] = Field(default_factory=list)
    # column -> its number minus the published one of the same model, revision and mode, where there is one
    differences: Annotated[dict[str, float], PlainSerializer(_judged)] = Field(
        default_factory=dict, serialization_alias="difference_to_published"
    )
    # task -> what the number depends on; empty for published rows
    signatures: dict[str, Annotated[Signature, PlainSerializer(str)]] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """What lines below the table call the row."""
        return ", ".join([self.model, *([] if self.mode == "-" else [self.mode]), self.source])


class Table(Record):
    """One table; its columns are tasks of mteb (`official`) or other data, never both, and the average of several."""

    title: str
    measure: str
    unit: str = "percent"
    official: bool
    columns: list[str]
    notes: list[str]
    rows: list[Row]


def comparison_tables(
    results: Iterable[Result], *, measure: Measure = CARD_MAP, with_published: bool = False
) -> list[Table]:
    """Make the tables of results: of the card's tasks, of mteb's other tasks and of other data, where there are any.

    Of several results of one system and task the last counts; one without the measure is left out. `with_published`
    puts the published figures by this measure first.
    """
    groups: dict[str, list[Result]] = {_CARD: [], _MTEB: [], _OTHER_DATA: []}
    card = [task.name for task in CARD_TASKS]
    for result in results:
        if result.mean(measure.protocol, measure.name) is not None:
            official = _CARD if result.task in card else _MTEB
            groups[official if result.is_official else _OTHER_DATA].append(result)
    tables = []
    for title, found in groups.items():
        published = published_rows(measure) if with_published and title == _CARD else ()
        if found or published:
            columns = {} if title == _CARD else _columns(found)
            tasks = card if title == _CARD else sorted({*columns.values()})
            is_averaged = title == _CARD or len({*map(_data_name, found)}) == len(tasks) > 1
            shown = [*tasks, *([AVERAGE] if is_averaged else [])]
            rows = [
                Row(
                    model=row.model,
                    mode=row.mode,
                    source=_source("published", row.revision),
                    kind=None,
                    values=_values(row.values, shown, row.average),
                )
                for row in published
            ]
            rows += _measured(found, measure, shown, columns)
            best = _best(rows, shown)
            tables.append(
                Table(
                    title=f"{title}, {measure}, percent",
                    measure=str(measure),
                    official=title != _OTHER_DATA,
                    columns=shown,
                    notes=list(_notes(found, measure, columns, _names(found, rows[len(published) :]))),
                    rows=[row.model_copy(update={"best_of": own}) for row, own in zip(rows, best, strict=True)],
                )
            )
    return tables


def main_tables(results: Sequence[Result], *, with_published: bool = False) -> list[Table]:
    """The tables of the card's measure, and of each main score the tables of the tasks that have it."""
    tables = comparison_tables(results, with_published=with_published)
    for main in dict.fromkeys(result.main_score for result in results):
        own = [result for result in results if result.main_score == main]
        tables += comparison_tables(own, measure=Measure("mteb", main), with_published=with_published)
    return tables


def read_tables(folder: Path, measure: str, *, with_published: bool = False) -> list[Table]:
    """The tables of the results in an output folder, whose files are verified; none is needed `with_published`.

    Raises:
        ListconError: an unknown measure, one that nothing is published by, no results, or files that were changed.
    """
    wanted = Measure.parse(measure)
    if with_published and not published_rows(wanted):
        raise ListconError(f"nothing is published by {wanted}: leave --published out, or choose another --measure")
    is_empty = not folder.is_dir() or next(run_folders(folder), None) is None
    results = [] if with_published and is_empty else load_results(folder, metrics_of([wanted]))
    tables = comparison_tables(results, measure=wanted, with_published=with_published)
    if not tables:
        raise ListconError(
            f"no run in {folder} has {wanted}: what a first stage retrieved, and data on which no query has both a "
            "relevant and another candidate, have mteb's measures alone (--measure mteb:main_score); those of "
            "ir_measures are there when `run --metrics` asked for them"
        )
    return tables


def _values(values: Mapping[str, float], columns: Sequence[str], average: float | None = None) -> dict[str, float]:
    """Column -> percent as printed, and the average if there is a column for it and a number for each of the others.

    A published average stays as it was published: it was taken before its terms were rounded.
    """
    found = {name: values[name] for name in columns if name in values}
    if columns[-1] == AVERAGE and len(found) == len(columns) - 1 > 0:
        found[AVERAGE] = float(np.mean([*found.values()])) if average is None else average
    # Python's round agrees with printing; numpy's multiplies first, and rounds 73.245 up
    return {name: round(value, 2) for name, value in found.items()}


def _best(rows: Sequence[Row], columns: list[str]) -> list[list[str]]:
    """For each row, the columns it is the best of; a column with one number has no best."""
    every = pd.DataFrame([row.values if row.kind != _UPPER_BOUND else {} for row in rows], columns=columns)
    is_best = (every == every.max()) & (every.count() > 1)
    return [[name for name in columns if own[name]] for _, own in is_best.iterrows()]


def _source(origin: str, *parts: str | None) -> str:
    """Where numbers come from, with a revision cut to what tells it apart."""
    return ", ".join([origin, *(part[:_REVISION_CHARACTERS] for part in parts if part)])


def _columns(results: Sequence[Result]) -> dict[tuple[str, str], str]:
    """(task, data revision) -> column: the task's name, with the revision where the name has several."""
    pairs = {(result.task, result.data_revision) for result in results}
    names = [task for task, _ in pairs]
    return {
        (task, revision): task if names.count(task) == 1 else f"{task}@{revision[:_REVISION_CHARACTERS]}"
        for task, revision in pairs
    }


def _data_name(result: Result) -> str:
    """The name of the data that a task is of: the same for a trial, a threshold or a first stage of it."""
    name, stage = result.task, result.first_stage
    name = name.removesuffix(f"-relevance{result.signature.relevance}").removesuffix(f"-first{result.signature.limit}")
    return name if stage is None else name.removesuffix(f"[{stage.name}-top-{stage.top_k}]")


def _column(result: Result, columns: Mapping[tuple[str, str], str]) -> str:
    return columns.get((result.task, result.data_revision), result.task)


def _measured(
    results: Sequence[Result], measure: Measure, shown: Sequence[str], columns: Mapping[tuple[str, str], str]
) -> Iterator[Row]:
    systems: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        systems.setdefault(result.system_key, []).append(result)
    names = [system for system, _ in {(own[0].system, own[0].model) for own in systems.values()}]
    alike: dict[tuple[object, ...], list[Result]] = {}  # what a row shows of a system -> the systems' first results
    for first, *_ in systems.values():
        alike.setdefault(_looks(first), []).append(first)
    for own in systems.values():
        first = own[0]
        by_column = {_column(each, columns): each for each in own}
        means = {name: each.mean(measure.protocol, measure.name) or 0.0 for name, each in by_column.items()}
        values = _values({name: 100 * mean for name, mean in means.items()}, shown)
        published = published_row(first, measure) if first.is_official and not columns else None
        theirs = {} if published is None else _values(published.values, shown, published.average)
        yield Row(
            # Two models of one name keep the name of their organisation.
            model=first.system if names.count(first.system) == 1 else f"{first.system}, {first.model}",
            mode=first.shown_mode,
            source=", ".join([_source("measured", *_looks(first)[-2:]), *_differing(first, alike[_looks(first)])]),
            kind=first.kind,
            values=values,
            # Adding 0.0 turns -0.0 into 0.0.
            differences={
                name: round(values[name] - value, 2) + 0.0 for name, value in theirs.items() if name in values
            },
            signatures={name: each.signature for name, each in by_column.items()},
        )


def _looks(result: Result) -> tuple[str, str, str, str | None, str]:
    """What a row shows of a system; systems of other settings can look alike."""
    revision = result.model_revision[:_REVISION_CHARACTERS]
    return result.system, result.model, result.shown_mode, result.dtype, revision


def _differing(result: Result, alike: Sequence[Result]) -> list[str]:
    """What tells a system from those that look alike: its kind, its whole revision, and settings."""
    own, *every = ({"kind": each.kind, "revision": each.model_revision, **each.settings} for each in (result, *alike))
    names = dict.fromkeys(name for each in every for name in each)
    return [f"{name} {own.get(name)}" for name in names if len({str(each.get(name)) for each in every}) > 1]


def _names(results: Sequence[Result], rows: Sequence[Row]) -> dict[tuple[object, ...], str]:
    """What notes call each system: its name and mode, or where others have these too, all that its row shows."""
    systems = {result.system_key: result for result in results}
    short = {key: _name(result) for key, result in systems.items()}
    uses = Counter(short.values())
    return {key: short[key] if uses[short[key]] == 1 else row.name for key, row in zip(systems, rows, strict=True)}


def _notes(
    results: Sequence[Result],
    measure: Measure,
    columns: Mapping[tuple[str, str], str],
    names: Mapping[tuple[object, ...], str],
) -> Iterator[str]:
    """What has to be known of the numbers.

    Of cmteb's: queries that do not count, graded judgements, and the range of an MRR under ties. Of mteb's main score:
    what a reranker gained on its first stage, and the most that it could.
    """
    if measure.protocol != "cmteb":
        yield from _gains([result for result in results if measure.name in (result.main_score, MAIN)], columns, names)
        return
    for task, result in {_column(result, columns): result for result in results}.items():
        if result.max_relevance > 1:
            least = result.signature.relevance or 1
            yield f"{task}: judgements go up to {result.max_relevance}; {least} and above counts as relevant"
    for result in results:
        who = f"{names[result.system_key]}, {_column(result, columns)}"
        if result.dropped:
            yield (
                f"{who}: not counted, for want of a relevant or another candidate: {result.dropped} of "
                f"{count_of(result.queries, 'query')}"
            )
        if measure.name in result.ranges:
            low, high = result.ranges[measure.name]
            yield (
                f"{who}: tied candidates keep their candidate order; any other order of them gives {percent(low)} to "
                f"{percent(high)}"
            )


def _gains(
    results: Sequence[Result], columns: Mapping[tuple[str, str], str], names: Mapping[tuple[object, ...], str]
) -> Iterator[str]:
    """For each column with a first stage its recall, what each system gained on it, and the most that it could."""
    by_column: dict[tuple[str, FirstStageRecord], list[Result]] = {}
    for result in results:
        if result.first_stage is not None:
            by_column.setdefault((_column(result, columns), result.first_stage), []).append(result)
    for (task, stage), own in by_column.items():
        yield f"{task}: the first stage's recall at {stage.top_k} is {percent(stage.recall)}"
        values = {result.kind: 100 * (result.mean("mteb", MAIN) or 0.0) for result in own}
        if {"first-stage", _UPPER_BOUND} <= values.keys():
            before, most = values["first-stage"], values[_UPPER_BOUND]
            for result in own:
                if result.kind not in ("first-stage", _UPPER_BOUND):
                    gain = 100 * (result.mean("mteb", MAIN) or 0.0) - before
                    can = f"{most - before:+.2f} that reordering can gain"
                    yield f"{task}, {names[result.system_key]}: {gain:+.2f} on the first stage, of {can}"


def _name(result: Result) -> str:
    return result.system if result.shown_mode == "-" else f"{result.system}, {result.mode}"


def as_text(shown: Table, style: Style = "terminal", *, width: int | None = None) -> str:
    """A table for people, with its title, the differences to published numbers, and notes.

    Markdown lists the signature of every number; a terminal shows only what differs between the rows' signatures.
    `width` is that of the terminal in cells, None for no limit.
    """
    numbers = len(shown.columns)
    rows = []
    for row in shown.rows:
        cells = [f"{row.values[name]:.2f}" if name in row.values else "-" for name in shown.columns]
        rows.append([row.model, row.mode, row.source, *cells])
    best = {(place, 3 + shown.columns.index(name)) for place, row in enumerate(shown.rows) for name in row.best_of}
    body = table(["Model", "Mode", "Source", *shown.columns], rows, style, width=width, numbers=numbers, best=best)
    signatures = [str(signature) for row in shown.rows for signature in row.signatures.values()]
    compared = [row for row in shown.rows if row.differences]
    if style == "latex":
        said = [f"{row.name}: {name} {value:+.2f}" for row in compared for name, value in row.differences.items()]
        comments = [*signatures, *shown.notes, *([_ABOUT_DIFFERENCES] if said else []), *said]
        return latex_float(body, shown.title, comments)
    parts = [heading(shown.title, style), body]
    if compared:
        lines = []
        for row in compared:
            texts = {name: f"{value:+.2f} {'✓' if is_close(value) else '✗'}" for name, value in row.differences.items()}
            lines.append([row.name, *(texts.get(name, "-") for name in shown.columns)])
        parts.append(heading(_ABOUT_DIFFERENCES, style))
        parts.append(table(["System", *shown.columns], lines, style, width=width, numbers=numbers))
    if style == "markdown":
        below = [*(f"- {escaped(note, style)}" for note in shown.notes), *(f"- {code(s, style)}" for s in signatures)]
    else:
        notes = [*(["*: the best of its column"] if best else []), *shown.notes]
        below = [*map(one_line, notes), *(_signature_lines(shown) if signatures else [])]
    return "\n\n".join([*parts, *(["\n".join(below)] if below else [])])


def _signature_lines(shown: Table) -> Iterator[str]:
    """What differs between the signatures of rows that have it and the table does not show."""
    in_table = ("task", "data_revision", "model", "model_revision", "mode", "dtype")
    fields = {
        f"{row.name}, {task}" if len(row.signatures) > 1 else row.name: {
            name: value for name, value in signature.fields().items() if name not in in_table and value != "none"
        }
        for row in shown.rows
        for task, signature in row.signatures.items()
    }
    every = dict.fromkeys(name for own in fields.values() for name in own)
    differing = [name for name in every if len({own[name] for own in fields.values() if name in own}) > 1]
    if differing:
        yield f"The signatures differ in {', '.join(differing)}:"
        for who, own in fields.items():
            yield one_line(f"  {who}: {', '.join(f'{name} {own[name]}' for name in differing if name in own)}")
    yield "Full signatures: `listcon-eval table` with --format markdown or --json, and metrics.json of each run."


def as_csv(tables: Sequence[Table]) -> str:
    """All tables as one, with the columns of all of them; `Data` tells official tasks from other data."""
    records = []
    for shown in tables:
        compared = [name for name in shown.columns if any(name in row.differences for row in shown.rows)]
        for row in shown.rows:
            data = "official" if shown.official else "other"
            record: dict[str, Any] = {"Data": data, "Model": row.model, "Mode": row.mode, "Source": row.source}
            record |= {"Kind": row.kind}
            record |= {f"{name} (task)" if name in record else name: row.values.get(name) for name in shown.columns}
            for name in compared:
                value = row.differences.get(name)
                record[f"{name} difference"] = value
                record[f"{name} within {REPRODUCED_WITHIN}"] = None if value is None else str(is_close(value)).lower()
            records.append(record)
    return pd.DataFrame(records).to_csv(index=False, lineterminator="\n", float_format="%.2f")


def as_json(tables: Sequence[Table]) -> dict[str, Any]:
    """All tables for programs; a number that does not exist is left out."""
    return {"tables": [shown.model_dump(by_alias=True) for shown in tables]}


def has_block(text: str) -> bool:
    """Whether a text has the line that starts the table's block; inside a sentence it does not count."""
    return any(line.rstrip() == TABLE_START for line in text.splitlines())


def with_block(text: str, tables: Sequence[Table], path: Path) -> str:
    """A Markdown text with the tables between its two marker lines; every other character stays.

    Raises:
        ListconError: the block is missing, has no end, or is there more than once.
    """
    lines = text.splitlines(keepends=True)
    starts = [place for place, line in enumerate(lines) if line.rstrip() == TABLE_START]
    if not starts:
        raise ListconError(
            f"{path} has no place for the table: put the lines {TABLE_START} and {TABLE_END} where it belongs"
        )
    if len(starts) > 1:
        raise ListconError(f"{path} has {len(starts)} lines {TABLE_START}: keep one")
    end = next((place for place in range(starts[0], len(lines)) if lines[place].rstrip() == TABLE_END), None)
    if end is None:
        raise ListconError(f"{path}: {TABLE_START} has no {TABLE_END} after it; add one, on a line of its own")
    content = "\n\n".join(as_text(shown, "markdown") for shown in tables)
    block = f"\n{content}\n\n".replace("\n", line_break_of(text))
    return "".join([*lines[: starts[0] + 1], block, *lines[end:]])


def line_break_of(text: str) -> str:
    """The first line break of a text: CRLF, LF or CR."""
    found = re.search(r"\r\n|\n|\r", text)
    return found[0] if found else "\n"


def read_markdown(path: Path) -> str:
    """The text of a Markdown file, with its line breaks as they are; a ListconError when it cannot be read."""
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        raise ListconError(f"{path} cannot be read as a Markdown file: {error}") from error


def update_block(path: Path, tables: Sequence[Table]) -> None:
    """Put the tables between the marker lines of a Markdown file; errors are those of `with_block`."""
    write_text(path, with_block(read_markdown(path), tables, path))
