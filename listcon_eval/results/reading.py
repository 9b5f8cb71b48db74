"""Read a run back: the metrics of every query, its ranked candidates, where its data came from.

What is read is held against what the run says of itself, so that a file edited by hand is noticed and named.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from listcon_eval.errors import ListconError
from listcon_eval.results.layout import METRICS, PER_QUERY, PROVENANCE, RUN, RunRecord, read_run

# mteb rounds its means to five digits; half a unit of the fifth, and room for the sum's own rounding
_MEAN_TOLERANCE = 6e-6


class RankedQuery(NamedTuple):
    """One query of a run, as in `run.jsonl`; P candidates in candidate order.

    Attributes:
        query_id: the query's id.
        query: its text; None where only ids are known.
        doc_ids: P document ids.
        scores: P final scores; higher ranks first.
        rounds: P numbers of the rounds the candidates left in.
        relevance: P judgements; above 0 is relevant.
        labels: P labels of the cmteb protocol.
    """

    query_id: str
    query: str | None
    doc_ids: tuple[str, ...]
    scores: tuple[float, ...]
    rounds: tuple[int, ...]
    relevance: tuple[int, ...]
    labels: tuple[bool, ...]


def runs_at(path: Path) -> list[RunRecord]:
    """The runs that a folder names: itself when it is one, else all in it (an experiment, a results folder).

    Raises:
        ListconError: there is no such folder or no run in it.
    """
    if not path.is_dir():
        raise ListconError(f"{path}: no such folder; give a run's folder, or one with runs in it")
    if (path / METRICS).is_file():
        return [read_run(path)]
    inside = sorted(found.parent for found in path.rglob(METRICS) if not _is_hidden(found.relative_to(path)))
    if not inside:
        raise ListconError(f"no runs in {path}: `listcon-eval run --output {path}` writes them")
    return [read_run(folder) for folder in inside]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)  # such as a folder that is still being written to


def read_per_query(record: RunRecord) -> dict[str, dict[str, float]]:
    """The metrics of every query of a run: measure (as `cmteb:map`) -> query id -> value, 0 to 1.

    Raises:
        ListconError: the file cannot be read, or does not give the means that `metrics.json` holds.
    """
    path = record.folder / PER_QUERY
    values: dict[str, dict[str, float]] = {}
    queries = 0
    for number, row in _rows(path):
        queries += 1
        try:
            for protocol in ("cmteb", "mteb"):
                for name, value in row[protocol].items():
                    values.setdefault(f"{protocol}:{name}", {})[row["query_id"]] = float(value)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ListconError(f"{path}, line {number}: {error!r} where a query's metrics were expected") from error
    if queries != record.queries:
        raise ListconError(
            f"{path} has {queries} queries, {METRICS} beside it says {record.queries}: run the evaluation again"
        )
    _check_means(record, values, path)
    return values


def _check_means(record: RunRecord, values: dict[str, dict[str, float]], path: Path) -> None:
    stated = {f"{protocol}:{name}": mean for protocol in ("cmteb", "mteb") for name, mean in _means(record, protocol)}
    for measure, mean in stated.items():
        own = list(values.get(measure, {}).values())
        if len(own) != record.queries:
            raise ListconError(f"{path}: {len(own)} of {record.queries} queries have a {measure}")
        outside = next((value for value in own if not 0 <= value <= 1), None)
        if outside is not None:
            raise ListconError(f"{path}: a {measure} of {outside}; expected a value from 0 to 1")
        found = math.fsum(own) / len(own)
        if not abs(found - mean) <= _MEAN_TOLERANCE:
            raise ListconError(
                f"{path}: {measure} averages to {found:.6f}, but {METRICS} beside it says {mean:.6f}: one of the two "
                "was changed after the run; run the evaluation again"
            )


def _means(record: RunRecord, protocol: str) -> list[tuple[str, float]]:
    means: dict[str, float] = getattr(record, protocol)
    return list(means.items())


def read_rankings(record: RunRecord) -> dict[str, RankedQuery]:
    """Every query's candidates with their scores, by query id, in the order of the run.

    Raises:
        ListconError: the file cannot be read.
    """
    path = record.folder / RUN
    rankings = {}
    for number, row in _rows(path):
        try:
            entry = RankedQuery(
                query_id=row["query_id"],
                query=row["query"],
                doc_ids=tuple(row["doc_ids"]),
                scores=tuple(float(score) for score in row["scores"]),
                rounds=tuple(row["rounds"]),
                relevance=tuple(row["relevance"]),
                labels=tuple(bool(label) for label in row["cmteb_relevant"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ListconError(f"{path}, line {number}: {error!r} where a query's candidates were expected") from error
        if len({len(entry.doc_ids), len(entry.scores), len(entry.rounds), len(entry.relevance), len(entry.labels)}) > 1:
            raise ListconError(f"{path}, line {number}: query {entry.query_id} has lists of different lengths")
        rankings[entry.query_id] = entry
    return rankings


def read_provenance(record: RunRecord) -> dict[str, Any]:
    """The content of `provenance.json`.

    Raises:
        ListconError: it cannot be read.
    """
    path = record.folder / PROVENANCE
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ListconError(f"{path} cannot be read: {error}; run the evaluation again") from error
    return content


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The JSON objects of a file with their line numbers, from 1."""
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                yield number, json.loads(line)
    except (OSError, ValueError) as error:
        raise ListconError(f"{path} cannot be read: {error}; run the evaluation again") from error
