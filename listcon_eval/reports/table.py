"""The comparison table: models and modes down, tasks across, published figures marked as such.

Official tasks and other data never share a table, and an average stands only in a row that has a number for every
task of its table.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files

import pandas as pd
from tabulate import tabulate

from listcon_eval.measures import Measure
from listcon_eval.runs import RunRecord

MAP = Measure("cmteb", "map")
AVERAGE = "Avg."
_PUBLISHED_FILE = "published.json"


@dataclass(frozen=True)
class Table:
    """One table: a title and a frame with the columns Model, Mode, Source, a task each, and Avg.

    Attributes:
        title: what the numbers are, in one line.
        frame: numbers in percent; NaN where there is none.
    """

    title: str
    frame: pd.DataFrame

    def render(self, style: str = "simple") -> str:
        """The title and the table as text.

        Args:
            style: "simple" for a terminal, "github" for Markdown, or any other format of tabulate.
        """
        shown = self.frame.astype(object).where(self.frame.notna(), None)
        body = tabulate(
            shown.to_numpy().tolist(),
            headers=list(shown.columns),
            tablefmt=style,
            floatfmt=".2f",
            missingval="-",
            disable_numparse=[0, 1, 2],
        )
        title = f"**{self.title}**" if style == "github" else self.title
        return f"{title}\n\n{body}"


@dataclass(frozen=True)
class _Cell:
    model: str
    mode: str
    source: str
    task: str
    value: float


def comparison(
    runs: Iterable[RunRecord],
    *,
    measure: Measure = MAP,
    with_published: bool = False,
    official_order: Sequence[str],
) -> list[Table]:
    """Make the tables of runs: one of official tasks, one of all other data; those without rows are left out.

    Args:
        runs: the runs; of several of one model, mode, precision and task the last counts.
        measure: the measure to show.
        with_published: whether to put the model card's rows first (they exist for cmteb:map alone).
        official_order: the official tasks, in the order of their columns.
    """
    runs = list(runs)
    cells = _published() if with_published and measure == MAP else []
    official = [*cells, *(_measured(run, measure) for run in runs if run.is_official)]
    other = [_measured(run, measure) for run in runs if not run.is_official]
    tables = []
    if official:
        tables.append(Table(f"Official tasks, {measure}, percent", _frame(official, official_order)))
    if other:
        names = sorted({cell.task for cell in other})
        tables.append(Table(f"Other data (no official results), {measure}, percent", _frame(other, names)))
    return tables


def _published() -> list[_Cell]:
    published = json.loads(files("listcon_eval.reports").joinpath(_PUBLISHED_FILE).read_text(encoding="utf-8"))
    return [
        _Cell(row["model"], row["mode"] or "-", "published", task, value)
        for row in published["rows"]
        for task, value in zip([*published["tasks"], AVERAGE], [*row["values"], row["average"]], strict=True)
    ]


def _measured(run: RunRecord, measure: Measure) -> _Cell:
    values: dict[str, float] = getattr(run, measure.protocol)
    name = run.model.rpartition("/")[2]
    source = f"measured, {run.precision}, {run.model_revision[:14]}"
    return _Cell(name, run.mode, source, run.task, 100 * values[measure.name])


def _frame(cells: Sequence[_Cell], tasks: Sequence[str]) -> pd.DataFrame:
    rows: dict[tuple[str, str, str], dict[str, float]] = {}
    for cell in cells:
        rows.setdefault((cell.model, cell.mode, cell.source), {})[cell.task] = cell.value
    frame = pd.DataFrame(
        [{"Model": model, "Mode": mode, "Source": source, **values} for (model, mode, source), values in rows.items()],
        columns=["Model", "Mode", "Source", *tasks, AVERAGE],
    )
    if len(tasks) == 1:
        return frame.drop(columns=AVERAGE)
    # A published average stays as it was published: it was taken before its terms were rounded.
    frame[AVERAGE] = frame[AVERAGE].fillna(frame[list(tasks)].mean(axis=1, skipna=False))
    return frame
