"""The comparison table: models and modes down, tasks across, published figures marked as such.

Official tasks and other data never share a table, and an average stands only in a row that has a number for every
task of its table.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan

import pandas as pd

from listcon_eval.metrics import Measure
from listcon_eval.records import NO_PRECISION
from listcon_eval.report.published import MAP, Key, published_key, published_rows
from listcon_eval.results import RunRecord

__all__ = ["AVERAGE", "CLOSE", "MAP", "Row", "Table", "comparison", "is_close"]

AVERAGE = "Avg."
CLOSE = 0.1
"""The difference to a published number, in percent points, up to which it counts as reproduced."""
_BOUND = "oracle"


@dataclass(frozen=True)
class Row:
    """One system's numbers.

    Attributes:
        model: its name; bounds and baselines by what they are.
        mode: the inference mode, `-` where there is none.
        source: "published", or "measured" with precision and revision.
        kind: the kind of system; None of published rows, which do not say.
        values: task -> percent.
        average: an average that was published with the values; None where it has to be taken.
        published: which published row this one reproduces, if any.
        signatures: task -> what the number depends on; empty for published rows.
    """

    model: str
    mode: str
    source: str
    kind: str | None
    values: Mapping[str, float]
    average: float | None = None
    published: Key | None = None
    signatures: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        title: what the numbers are, in one line.
        measure: their measure.
        is_official: whether its columns are official tasks.
        tasks: the columns, in order.
        rows: the rows, in order.
    """

    title: str
    measure: Measure
    is_official: bool
    tasks: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def frame(self) -> pd.DataFrame:
        """The columns Model, Mode, Source, a task each, and Avg.: percent, NaN where there is none.

        A table of one task has no Avg.
        """
        frame = pd.DataFrame(
            [
                {"Model": row.model, "Mode": row.mode, "Source": row.source, **row.values, AVERAGE: row.average}
                for row in self.rows
            ],
            columns=["Model", "Mode", "Source", *self.tasks, AVERAGE],
        ).astype(dict.fromkeys((*self.tasks, AVERAGE), float))
        if len(self.tasks) == 1:
            return frame.drop(columns=AVERAGE)
        # A published average stays as it was published: it was taken before its terms were rounded.
        frame[AVERAGE] = frame[AVERAGE].fillna(frame[list(self.tasks)].mean(axis=1, skipna=False))
        return frame

    @property
    def printed(self) -> pd.DataFrame:
        """The numbers of `frame` as they are printed, with two decimals."""
        # numpy rounds 73.245 to another side than printing does: it multiplies first
        return self.frame.drop(columns=["Model", "Mode", "Source"]).map(lambda value: round(value, 2))

    @property
    def best(self) -> list[dict[str, bool]]:
        """For each row, whether it is the best of a column as printed; the oracle is a bound and never best.

        Nothing is best in a column with one number.
        """
        numbers = self.printed
        ranked = numbers[[row.kind != _BOUND for row in self.rows]]
        highest = ranked.max().where(ranked.count() > 1)
        best = numbers.eq(highest)
        best.loc[[row.kind == _BOUND for row in self.rows]] = False
        return [{str(name): bool(value) for name, value in row.items()} for row in best.to_dict("records")]

    @property
    def differences(self) -> list[dict[str, float]]:
        """For each row, its numbers minus the published ones of the same model, mode and task, as printed.

        Empty for rows that reproduce no published one.
        """
        published = published_rows()
        found: list[dict[str, float]] = []
        for row, numbers in zip(self.rows, self.frame.to_dict("records"), strict=True):
            theirs = published.get(row.published) if row.published else None
            stated = {**theirs.values, AVERAGE: theirs.average} if theirs else {}
            pairs = {name: (float(numbers.get(name, nan)), value) for name, value in stated.items()}
            # Both are taken as they are printed, with two decimals, so that the reader can check the sum; adding 0.0
            # turns -0.0 into 0.0.
            found.append({name: round(round(own, 2) - x, 2) + 0.0 for name, (own, x) in pairs.items() if own == own})
        return found

    def render(self, style: str = "simple") -> str:
        """The title and the table as text: "simple" for a terminal, "github" for Markdown."""
        from listcon_eval.report.styles import as_text

        return as_text(self, "markdown" if style == "github" else "terminal")


def is_close(difference: float) -> bool:
    """Whether a difference to a published number, in percent points, is small enough to count as reproduced."""
    return abs(difference) <= CLOSE


def comparison(
    runs: Iterable[RunRecord],
    *,
    measure: Measure = MAP,
    with_published: bool = False,
    official_order: Sequence[str],
) -> list[Table]:
    """Make the tables of runs: one of official tasks, one of all other data; those without rows are left out.

    Args:
        runs: the runs; of several of one model, mode, precision and task the last counts. A run without the measure
            (a TREC file has no cmteb measures) is left out.
        measure: the measure to show.
        with_published: whether to put the model card's rows first (they exist for cmteb:map alone).
        official_order: the official tasks, in the order of their columns.
    """
    runs = [run for run in runs if measure.name in _values(run, measure)]
    official = [run for run in runs if run.is_official]
    other = [run for run in runs if not run.is_official]
    first = _published() if with_published and measure == MAP else []
    tables = []
    if first or official:
        rows = (*first, *_measured(official, measure, {}))
        tables.append(Table(f"Official tasks, {measure}, percent", measure, True, tuple(official_order), rows))
    if other:
        columns = _columns(other)
        rows = tuple(_measured(other, measure, columns))
        title = f"Other data (no official results), {measure}, percent"
        tables.append(Table(title, measure, False, tuple(sorted({*columns.values()})), rows))
    return tables


def _values(run: RunRecord, measure: Measure) -> dict[str, float]:
    values: dict[str, float] = getattr(run, measure.protocol)
    return values


def _published() -> list[Row]:
    return [
        Row(key.model, key.mode, "published", None, found.values, found.average)
        for key, found in published_rows().items()
    ]


def _columns(runs: Sequence[RunRecord]) -> dict[tuple[str, str], str]:
    """The column of each task and data revision: the task's name, with the revision where one name has several."""
    revisions: dict[str, set[str]] = {}
    for run in runs:
        revisions.setdefault(run.task, set()).add(run.data_revision)
    return {
        (task, revision): task if len(found) == 1 else f"{task}@{revision[:14]}"
        for task, found in revisions.items()
        for revision in found
    }


def _measured(runs: Sequence[RunRecord], measure: Measure, columns: Mapping[tuple[str, str], str]) -> Iterable[Row]:
    systems: dict[tuple[str, ...], list[RunRecord]] = {}
    for run in runs:
        systems.setdefault((run.model, run.model_revision, run.mode, run.precision, run.kind), []).append(run)
    shown = [own[0].system for own in {(own[0].system, own[0].model): own for own in systems.values()}.values()]
    for own in systems.values():
        run = own[0]
        # Two models of one name keep the name of their organisation
        name = run.system if shown.count(run.system) == 1 else f"{run.system}, {run.model}"
        of_task = {columns.get((each.task, each.data_revision), each.task): each for each in own}
        yield Row(
            model=name,
            mode=run.shown_mode,
            source=", ".join(["measured", *_precision(run), run.model_revision[:14]]),
            kind=run.kind,
            values={task: 100 * _values(each, measure)[measure.name] for task, each in of_task.items()},
            published=published_key(run) if measure == MAP and run.is_official else None,
            signatures={task: each.signature for task, each in of_task.items()},
        )


def _precision(run: RunRecord) -> list[str]:
    """The precision in words; a source that reads "measured, published" would say two things at once."""
    return [] if run.precision == NO_PRECISION else [f"{run.precision} precision"]
