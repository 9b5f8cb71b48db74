"""The comparison table: models and modes down, tasks across, published figures marked as such.

The tasks of the model card, the other tasks of mteb and other data never share a table, and only a row with a number
for every task has an average.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from listcon_eval.data import CARD_TASKS
from listcon_eval.errors import ListconError, count_of
from listcon_eval.metrics import CARD_MAP, MAIN, Measure
from listcon_eval.results import Result, Signature, load_results
from listcon_eval.results.store import run_folders

if TYPE_CHECKING:
    from listcon_eval.results.records import FirstStageRecord

AVERAGE = "Avg."
REPRODUCED_WITHIN = 0.1
"""The difference to a published number, in percent points, up to which it counts as reproduced."""
_UPPER_BOUND = "oracle"
_REVISION_CHARACTERS = 14  # of a revision in a table


@dataclass(frozen=True)
class PublishedRow:
    """The published figures of one model, revision and mode by one measure, in percent."""

    model: str
    hub: str
    """The model's id on the hub."""
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
    organisation, _, name = result.model.rpartition("/")
    for row in published_rows(measure):
        if result.model == row.hub:
            is_same = row.revision in (None, result.model_revision)
        else:
            names = {_plain(row.hub.rpartition("/")[2]), _plain(row.model)}
            is_same = organisation in ("", "local") and _plain(name) in names
        if is_same and row.mode == result.shown_mode:
            return row
    return None


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")


@dataclass(frozen=True)
class Row:
    """One system's numbers.

    Attributes:
        model: its name.
        mode: the inference mode, `-` where there is none.
        source: "published" or "measured", with dtype and revision.
        kind: the kind of system; None for published rows.
        values: task -> percent.
        average: an average that was published with the values; None where it has to be computed.
        published: the published figures of this row's model, revision and mode.
        signatures: task -> what the number depends on; empty for published rows.
    """

    model: str
    mode: str
    source: str
    kind: str | None
    values: Mapping[str, float]
    average: float | None = None
    published: PublishedRow | None = None
    signatures: Mapping[str, Signature] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What lines below the table call the row."""
        return ", ".join([self.model, *([] if self.mode == "-" else [self.mode]), self.source])


@dataclass(frozen=True)
class Table:
    """One table; its columns are tasks of mteb (`is_official`) or other data, never both."""

    title: str
    measure: Measure
    is_official: bool
    tasks: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The columns of numbers: the tasks and, where there are several, the average."""
        return [*self.tasks, *([AVERAGE] if len(self.tasks) > 1 else [])]

    @property
    def frame(self) -> pd.DataFrame:
        """Model, Mode, Source and the columns of numbers: percent, NaN where there is none."""
        frame = pd.DataFrame(
            [
                {"Model": row.model, "Mode": row.mode, "Source": row.source, **row.values, AVERAGE: row.average}
                for row in self.rows
            ],
            columns=["Model", "Mode", "Source", *self.tasks, AVERAGE],
        ).astype(dict.fromkeys((*self.tasks, AVERAGE), float))
        # A published average stays as it was published: it was taken before its terms were rounded.
        frame[AVERAGE] = frame[AVERAGE].fillna(frame[list(self.tasks)].mean(axis=1, skipna=False))
        return frame[["Model", "Mode", "Source", *self.columns]]

    @cached_property
    def printed(self) -> list[dict[str, float]]:
        """For each row, its numbers as they are printed, with two decimals; NaN where there is none."""
        # Python's round agrees with printing; numpy's multiplies first, and rounds 73.245 up
        rows = self.frame[self.columns].to_dict("records")
        return [{str(name): round(float(value), 2) for name, value in row.items()} for row in rows]

    @property
    def best(self) -> list[set[str]]:
        """For each row, the columns it is the best of as printed; a column with one number has no best.

        The oracle is an upper bound and never the best.
        """
        found: list[set[str]] = [set() for _ in self.rows]
        for name in self.columns:
            numbers = [
                row[name]
                for row, own in zip(self.printed, self.rows, strict=True)
                if own.kind != _UPPER_BOUND and row[name] == row[name]
            ]
            for place, row in enumerate(self.rows):
                if len(numbers) > 1 and row.kind != _UPPER_BOUND and self.printed[place][name] == max(numbers):
                    found[place].add(name)
        return found

    @property
    def differences(self) -> list[dict[str, float]]:
        """For each row, its numbers minus the published ones of the same model, revision and mode, as printed.

        Empty for rows without published ones.
        """
        found: list[dict[str, float]] = []
        for row, own in zip(self.rows, self.printed, strict=True):
            theirs: dict[str, float] = {}
            if row.published is not None:
                (theirs,) = Table("", self.measure, True, self.tasks, (_published(row.published),)).printed
            pairs = {name: own[name] - value for name, value in theirs.items()}
            # Adding 0.0 turns -0.0 into 0.0.
            found.append({name: round(value, 2) + 0.0 for name, value in pairs.items() if value == value})
        return found


def is_close(difference: float) -> bool:
    """Whether a difference to a published number, in percent points, counts as reproduced."""
    return abs(difference) <= REPRODUCED_WITHIN


def comparison_tables(
    results: Iterable[Result], *, measure: Measure = CARD_MAP, with_published: bool = False
) -> list[Table]:
    """Make the tables of results: of the card's tasks, of mteb's other tasks and of other data, where there are any.

    Args:
        results: the results; of several of one system and task the last counts. One without the measure is left out.
        measure: the measure to show.
        with_published: whether to put the published figures by this measure first.
    """
    results = [result for result in results if result.mean(measure.protocol, measure.name) is not None]
    names = tuple(task.name for task in CARD_TASKS)
    official = [result for result in results if result.is_official and result.task in names]
    first = [_published(row) for row in published_rows(measure)] if with_published else []
    tables = []
    if first or official:
        rows = (*first, *_measured(official, measure, {}))
        notes = tuple(_notes(official, measure))
        tables.append(Table(f"Official tasks, {measure}, percent", measure, True, names, rows, notes))
    others = [result for result in results if result.is_official and result.task not in names]
    own_data = [result for result in results if not result.is_official]
    for title, found in (("Other tasks of mteb", others), ("Other data (no official results)", own_data)):
        if found:
            columns = _columns(found)
            rows = tuple(_measured(found, measure, columns))
            tasks = tuple(sorted({*columns.values()}))
            shown = f"{title}, {measure}, percent"
            tables.append(Table(shown, measure, found is others, tasks, rows, tuple(_notes(found, measure))))
    return tables


def main_tables(results: Sequence[Result], *, with_published: bool = False) -> list[Table]:
    """The tables of the card's measure, and of each main score the tables of the tasks that have it."""
    tables = comparison_tables(results, with_published=with_published)
    for main in dict.fromkeys(result.main_score for result in results):
        own = [result for result in results if result.main_score == main]
        tables += comparison_tables(own, measure=Measure("mteb", main), with_published=with_published)
    return tables


def read_tables(folder: Path, measure: str, *, with_published: bool = False) -> list[Table]:
    """The tables of the results in an output folder, whose files are verified.

    Args:
        folder: the folder that a run was given as output.
        measure: the measure's name, such as `cmteb:map`.
        with_published: whether to put the published figures first; then results are not needed.

    Raises:
        ListconError: an unknown measure, one that nothing is published by, no results, or files that were changed.
    """
    wanted = Measure.parse(measure)
    if with_published and not published_rows(wanted):
        raise ListconError(f"nothing is published by {wanted}: leave --published out, or choose another --measure")
    is_empty = not folder.is_dir() or next(run_folders(folder), None) is None
    results = [] if with_published and is_empty else load_results(folder)
    tables = comparison_tables(results, measure=wanted, with_published=with_published)
    if not tables:
        raise ListconError(
            f"no run in {folder} has {wanted}: a TREC run file has mteb's measures alone, and those of ir_measures are "
            "there when `run --metrics` asked for them"
        )
    return tables


def _published(row: PublishedRow) -> Row:
    revision = [] if row.revision is None else [row.revision[:_REVISION_CHARACTERS]]
    return Row(row.model, row.mode, ", ".join(["published", *revision]), None, row.values, row.average)


def _columns(results: Sequence[Result]) -> dict[tuple[str, str], str]:
    """(task, data revision) -> column: the task's name, with the revision where the name has several."""
    revisions: dict[str, set[str]] = {}
    for result in results:
        revisions.setdefault(result.task, set()).add(result.data_revision)
    return {
        (task, revision): task if len(found) == 1 else f"{task}@{revision[:_REVISION_CHARACTERS]}"
        for task, found in revisions.items()
        for revision in found
    }


def _measured(results: Sequence[Result], measure: Measure, columns: Mapping[tuple[str, str], str]) -> Iterator[Row]:
    systems: dict[tuple[object, ...], list[Result]] = {}
    for result in results:
        systems.setdefault(result.system_key, []).append(result)
    models = {(own[0].system, own[0].model) for own in systems.values()}
    names = [system for system, _ in models]
    for own in systems.values():
        first = own[0]
        of_task = {columns.get((each.task, each.data_revision), each.task): each for each in own}
        yield Row(
            # Two models of one name keep the name of their organisation.
            model=first.system if names.count(first.system) == 1 else f"{first.system}, {first.model}",
            mode=first.shown_mode,
            source=", ".join(["measured", *filter(None, [first.dtype]), first.model_revision[:_REVISION_CHARACTERS]]),
            kind=first.kind,
            values={task: 100 * (each.mean(measure.protocol, measure.name) or 0.0) for task, each in of_task.items()},
            published=published_row(first, measure) if first.is_official else None,
            signatures={task: each.signature for task, each in of_task.items()},
        )


def _notes(results: Sequence[Result], measure: Measure) -> Iterator[str]:
    """What has to be known of the numbers.

    Of cmteb's: queries that do not count, graded judgements, and the range of an MRR under ties. Of mteb's main score:
    what a reranker gained on its first stage, and the most that it could.
    """
    if measure.protocol != "cmteb":
        yield from _gains([result for result in results if measure.name in (result.main_score, MAIN)])
        return
    for result in {result.task: result for result in results}.values():
        if result.max_relevance > 1:
            least = result.signature.relevance or 1
            yield f"{result.task}: judgements go up to {result.max_relevance}; {least} and above counts as relevant"
    for result in results:
        who = ", ".join([result.system, *([] if result.shown_mode == "-" else [result.mode]), result.task])
        if result.dropped:
            yield (
                f"{who}: not counted, for want of a relevant or another candidate: {result.dropped} of "
                f"{count_of(result.queries, 'query')}"
            )
        if measure.name in result.ranges:
            low, high = result.ranges[measure.name]
            yield (
                f"{who}: tied candidates keep their candidate order; any other order of them gives {100 * low:.2f} to "
                f"{100 * high:.2f}"
            )


def _gains(results: Sequence[Result]) -> Iterator[str]:
    """For each task with a first stage its recall, what each system gained on it, and the most that it could."""
    by_task: dict[tuple[str, FirstStageRecord], list[Result]] = {}
    for result in results:
        if result.first_stage is not None:
            by_task.setdefault((result.task, result.first_stage), []).append(result)
    for (task, stage), own in by_task.items():
        values = {result.kind: 100 * (result.mean("mteb", MAIN) or 0.0) for result in own}
        yield f"{task}: the first stage's recall at {stage.top_k} is {100 * stage.recall:.2f}"
        before, most = values.get("first-stage"), values.get(_UPPER_BOUND)
        if before is None or most is None:
            continue
        for result in own:
            if result.kind not in ("first-stage", _UPPER_BOUND):
                who = ", ".join([result.system, *([] if result.shown_mode == "-" else [result.mode])])
                gain = 100 * (result.mean("mteb", MAIN) or 0.0) - before
                yield f"{task}, {who}: {gain:+.2f} on the first stage, of {most - before:+.2f} that reordering can gain"
