"""A baseline: the numbers that later runs are held against, in one small JSON file.

Beside the means it keeps every query's values, so that a check can say which queries moved, and the signatures. One
line a run, so that a change of the file can be read.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from listcon_eval.errors import ListconError
from listcon_eval.files import check_writable, write_text
from listcon_eval.results import RunRecord, read_per_query, runs_at

FORMAT = 1
# Values are stored to six digits: far below any tolerance, and the file stays small.
_DIGITS = 6


class Key(NamedTuple):
    """What has to be equal for two numbers to be held against each other."""

    task: str
    mode: str
    precision: str

    def __str__(self) -> str:
        return f"{self.task}, {self.mode}, {self.precision}"


@dataclass(frozen=True)
class Entry:
    """One run in a baseline.

    Attributes:
        key: task, mode and precision.
        data_revision: the revision of the data.
        signature: what the numbers depend on.
        query_ids: Q ids.
        values: measure (as `cmteb:map`) -> Q values, 0 to 1.
    """

    key: Key
    data_revision: str
    signature: str
    query_ids: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]

    def mean(self, measure: str) -> float:
        """The mean of a measure over queries."""
        return math.fsum(self.values[measure]) / len(self.query_ids)

    def to_json(self) -> dict[str, Any]:
        """The entry as a baseline file holds it."""
        return {
            **self.key._asdict(),
            "data_revision": self.data_revision,
            "signature": self.signature,
            "means": {measure: round(self.mean(measure), _DIGITS) for measure in self.values},
            "query_ids": list(self.query_ids),
            "values": {measure: list(row) for measure, row in self.values.items()},
        }


@dataclass(frozen=True)
class Baseline:
    """Runs to hold others against.

    Attributes:
        place: where it was read from.
        entries: one a run.
    """

    place: Path
    entries: Sequence[Entry]


def baseline_of(folder: Path) -> Baseline:
    """The runs in a folder as a baseline.

    Raises:
        ListconError: there is no run, or one cannot be read.
    """
    return Baseline(folder, [_entry(record) for record in runs_at(folder)])


def _entry(record: RunRecord) -> Entry:
    values = read_per_query(record)
    query_ids = tuple(next(iter(values.values())))
    return Entry(
        Key(record.task, record.mode, record.precision),
        record.data_revision,
        record.signature,
        query_ids,
        {
            measure: tuple(round(row[query_id], _DIGITS) for query_id in query_ids)
            for measure, row in sorted(values.items())
        },
    )


def read_baseline(place: Path) -> Baseline:
    """Read a baseline file, or take the runs in a folder.

    Raises:
        ListconError: it is absent, no baseline, or its means are not those of its queries.
    """
    if place.is_dir():
        return baseline_of(place)
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ListconError(
                f"{place} is a baseline in format {content['format']}, this version reads format {FORMAT}: write it "
                "again with --update"
            )
        entries = [_read_entry(row) for row in content["runs"]]
    except FileNotFoundError as error:
        raise ListconError(
            f"{place}: no such baseline; `listcon-eval check --baseline {place} --update` writes it"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ListconError(f"{place} cannot be read as a baseline: {error!r}; write it again with --update") from error
    for entry, row in zip(entries, content["runs"], strict=True):
        _check(place, entry, row["means"])
    return Baseline(place, entries)


def _read_entry(row: Mapping[str, Any]) -> Entry:
    return Entry(
        Key(row["task"], row["mode"], row["precision"]),
        row["data_revision"],
        row["signature"],
        tuple(row["query_ids"]),
        {measure: tuple(map(float, values)) for measure, values in row["values"].items()},
    )


def _check(place: Path, entry: Entry, means: Mapping[str, float]) -> None:
    """Refuse a file that was edited by hand: its means follow from its values."""
    for measure, values in entry.values.items():
        if len(values) != len(entry.query_ids) or not values:
            raise ListconError(
                f"{place}, {entry.key}: {len(values)} values of {measure}, {len(entry.query_ids)} queries"
            )
        if not abs(entry.mean(measure) - means.get(measure, math.nan)) <= 10**-_DIGITS:
            raise ListconError(
                f"{place}, {entry.key}: {measure} is said to be {means.get(measure)}, its queries average to "
                f"{entry.mean(measure):.6f}; the file was changed: write it again with --update"
            )


def write_baseline(baseline: Baseline, place: Path) -> Path:
    """Write a baseline as one file, whole or not at all, and return its path.

    Raises:
        ListconError: `place` is a folder, or two runs have one key.
    """
    if place.is_dir():
        raise ListconError(f"{place} is a folder: a baseline that is written is one file; name it")
    repeated = {str(e.key) for e in baseline.entries if [other.key for other in baseline.entries].count(e.key) > 1}
    if repeated:
        raise ListconError(
            f"{baseline.place} holds more than one run of {'; '.join(sorted(repeated))}: give the folder of one model"
        )
    rows = [
        json.dumps(entry.to_json(), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        for entry in baseline.entries
    ]
    check_writable(place.parent)
    return write_text(place, f'{{"format":{FORMAT},"runs":[\n' + ",\n".join(rows) + "\n]}\n")
