"""A baseline: the numbers that later runs are compared with, in one small JSON file.

Beside the means it keeps every query's values, so that a check can say which queries changed, and the signatures. One
line a run, so that a change of the file can be read.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self

from pydantic import Field, model_validator

from listcon_eval.errors import ListconError
from listcon_eval.files import check_replaceable, write_text
from listcon_eval.metrics import Measure, metrics_of
from listcon_eval.results import Result, Signature, load_results, read_per_query
from listcon_eval.results.records import Record, read_record

# Values are stored to six digits: far below any tolerance, and the file stays small.
_DIGITS = 6


class RunKey(NamedTuple):
    """What has to be equal for two runs to be compared."""

    task: str
    mode: str
    dtype: str

    def __str__(self) -> str:
        return ", ".join(part for part in self if part != "-")


class BaselineRun(Record):
    """One run in a baseline."""

    signature: Signature  # what the numbers depend on; says task, data, mode and dtype
    query_ids: tuple[str, ...] = Field(min_length=1)  # Q ids
    means: dict[str, float]  # measure (as `cmteb:map`) -> mean, 0 to 1
    values: dict[str, tuple[float | None, ...]]  # measure -> Q values, 0 to 1; None for a query that `cmteb` drops

    @property
    def key(self) -> RunKey:
        """Task, mode and dtype."""
        mode, dtype = (self.signature.settings.get(name) for name in ("mode", "dtype"))
        return RunKey(self.signature.task, str(mode), "-" if dtype is None else str(dtype))

    def by_query(self, measure: str) -> dict[str, float]:
        """Query id -> value, of the queries that the measure counts."""
        pairs = zip(self.query_ids, self.values[measure], strict=True)
        return {query_id: value for query_id, value in pairs if value is not None}

    @model_validator(mode="after")
    def _check_means(self) -> Self:
        """Refuse a file that was edited by hand: its means follow from its values."""
        if self.means.keys() != self.values.keys():
            raise ValueError(f"{self.key}: means of {', '.join(self.means)}, values of {', '.join(self.values)}")
        for measure, row in self.values.items():
            if len(row) != len(self.query_ids):
                raise ValueError(f"{self.key}: {len(row)} values of {measure}, {len(self.query_ids)} queries")
            found = _mean(self.by_query(measure).values())
            if not abs(found - self.means[measure]) <= 10**-_DIGITS:
                raise ValueError(
                    f"{self.key}: {measure} is said to be {self.means[measure]}, its queries average to {found:.6f}"
                )
        return self


class _BaselineFile(Record):
    """The content of a baseline file."""

    format: Literal[2] = 2
    runs: tuple[BaselineRun, ...]


@dataclass(frozen=True)
class Baseline:
    """Runs to compare others with."""

    path: Path  # where they were read from
    runs: tuple[BaselineRun, ...]

    @property
    def measures(self) -> list[str]:
        """The measures that a run or more of them has."""
        return list(dict.fromkeys(measure for run in self.runs for measure in run.values))


def baseline_of(folder: Path, measures: Iterable[str] = ()) -> Baseline:
    """The runs in a folder as a baseline; which of several is said by the measures that are wanted (`load_results`)."""
    metrics = metrics_of(map(Measure.parse, measures))
    return Baseline(folder, tuple(_run_of(result) for result in load_results(folder, metrics)))


def _run_of(result: Result) -> BaselineRun:
    values = read_per_query(result)
    query_ids = tuple(next(own for measure, own in values.items() if measure.startswith("mteb:")))
    rounded = {
        measure: tuple(None if (value := own.get(q)) is None else round(value, _DIGITS) for q in query_ids)
        for measure, own in sorted(values.items())
    }
    means = {
        measure: round(_mean(value for value in row if value is not None), _DIGITS) for measure, row in rounded.items()
    }
    return BaselineRun(signature=result.signature, query_ids=query_ids, means=means, values=rounded)


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / max(1, len(numbers))


def read_baseline(path: Path) -> Baseline:
    """Read a baseline file, or take the runs in a folder; a file whose means are not those of its values is refused."""
    if path.is_dir():
        return _usable(baseline_of(path))
    if not path.exists():
        raise ListconError(f"{path}: no such baseline; the same command with --update writes it")
    file = read_record(_BaselineFile, path, remedy="write the baseline again with --update")
    if not file.runs:
        raise ListconError(f"{path} holds no run: write it again with --update")
    return Baseline(path, file.runs)


def _usable(baseline: Baseline) -> Baseline:
    """The baseline; a ListconError where one of its runs is a trial, or two of them have one key."""
    if trials := [str(run.key) for run in baseline.runs if run.signature.limit is not None]:
        raise ListconError(
            f"{baseline.path} holds trials on the first queries of a task ({'; '.join(trials)}), which make no "
            "baseline: run without --limit, and give the folder of that run"
        )
    times = Counter(run.key for run in baseline.runs)
    if repeated := sorted(str(key) for key in times if times[key] > 1):
        raise ListconError(
            f"{baseline.path} holds more than one run of {'; '.join(repeated)}, and a baseline has one run per task, "
            "mode and dtype: give the folder of one system"
        )
    return baseline


def write_baseline(baseline: Baseline, path: Path) -> Path:
    """Write a baseline as one file, whole or not at all; trials, and two runs of one key, are refused."""
    check_replaceable(path, '{"format":', "a baseline")
    _usable(baseline)
    rows = ",\n".join(run.model_dump_json() for run in baseline.runs)
    return write_text(path, f'{{"format":2,"runs":[\n{rows}\n]}}\n')
