"""Run and qrels files: written as TREC files; read as TREC files, the JSON that ranx writes or, for qrels, mteb's TSV.

A TREC line is split at white space, so white space and percent signs in an id are percent-encoded.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote, unquote

import numpy as np

from listcon_eval.data.rows import Row, judgement, number_of, parse_json, shown, text_lines
from listcon_eval.errors import ListconError, count_of
from listcon_eval.files import sha256_of_file, write_text

if TYPE_CHECKING:
    import pandas as pd

    IdTable: TypeAlias = Mapping[str, Mapping[str, float]] | pd.DataFrame

KnownIds = Mapping[str, Collection[str]]
"""The ids of a task: query id -> document ids."""
T = TypeVar("T", int, float)
_LINES = {"score": "query Q0 document rank score tag", "relevance": "query 0 document relevance"}
_TSV_HEADER = "query-id corpus-id score"
# What would not come back from a file: white space splits a line, a byte-order mark at the start is skipped, and a
# NUL looks like UTF-16.
_ESCAPED = re.compile("[\\s%\ufeff\0]")


class _Entry(NamedTuple):
    """A line of a file, with its ids as written there; `is_escaped`: they may be percent-encoded."""

    location: str
    query_id: Any
    doc_id: Any
    value: Any
    rank: str = ""
    is_escaped: bool = False


def read_trec_run(
    path: "Path | IdTable", known: KnownIds | None = None, *, location: str = "scores in memory"
) -> dict[str, dict[str, float]]:
    """Read a run: query id -> document id -> score.

    Ranks are not read: trec_eval and pytrec_eval rank by score, and so does everything here. `note_of_ranks` tells
    whether that matters.

    Args:
        path: lines `query Q0 document rank score tag`, or a JSON object {query id: {document id: score}}; such an
            object in memory, or a DataFrame with columns `query_id`, `doc_id`, `score`.
        known: the ids of the task. An id of a TREC line is percent-decoded, unless only its raw form is known.
        location: what messages call an object in memory.

    Raises:
        ListconError: the file cannot be read, a line has another form, an id is neither a text nor a whole number, a
            score is not finite, or a document comes twice.
    """
    run: dict[str, dict[str, float]] = {}
    for entry in _entries(path, "score", location):
        _put(run, entry, known, _finite(entry))
    return run


def read_qrels(path: "Path | IdTable", known: KnownIds | None = None) -> dict[str, dict[str, int]]:
    """Read judgements: query id -> document id -> relevance (above 0 is relevant).

    Args:
        path: lines `query 0 document relevance`; a JSON object {query id: {document id: relevance}}; or a TSV file with
            the header `query-id corpus-id score`; such an object in memory, or a DataFrame with columns `query_id`,
            `doc_id`, `relevance`.
        known: as in `read_trec_run`.

    Raises:
        ListconError: the file cannot be read, a line has another form, an id is neither a text nor a whole number, or
            a document is judged twice.
    """
    qrels: dict[str, dict[str, int]] = {}
    for entry in _entries(path, "relevance", "judgements in memory"):
        _put(qrels, entry, known, judgement(entry.location, "the relevance", entry.value))
    return qrels


def note_of_ranks(path: Path) -> str | None:
    """What to say of a run file whose order is in its ranks alone: equal scores in every query, with different ranks.

    Such a file is one big tie for everything that reads scores, as this package does.
    """
    scores: dict[str, set[float]] = {}
    ranks: dict[str, set[str]] = {}
    for entry in _entries(path, "score"):
        scores.setdefault(entry.query_id, set()).add(_finite(entry))
        ranks.setdefault(entry.query_id, set()).add(entry.rank)
    if any(len(values) > 1 for values in scores.values()) or all(len(values) == 1 for values in ranks.values()):
        return None
    return (
        "all scores of a query are equal, so its documents are tied; only scores are read, as in trec_eval, and never "
        "the ranks"
    )


def short_hash(path: Path) -> str:
    """`sha256-` and the first 12 hexadecimal digits of a file's hash: its revision in a signature."""
    return f"sha256-{sha256_of_file(path)[:12]}"


def write_trec_run(path: Path, run: Mapping[str, Mapping[str, float]], tag: str) -> Path:
    """Write lines `query Q0 document rank score tag`, best first, ties in the order of the run.

    `read_trec_run` gives back the same ids and scores; a query without documents has no line.
    """
    lines = [
        f"{_encoded(query_id)} Q0 {_encoded(doc_id)} {rank} {float(score)!r} {tag}\n"
        for query_id, scores in run.items()
        for rank, (doc_id, score) in enumerate(sorted(scores.items(), key=lambda pair: -pair[1]), start=1)
    ]
    return write_text(path, "".join(lines))


def write_trec_qrels(path: Path, qrels: Mapping[str, Mapping[str, int]]) -> Path:
    """Write lines `query 0 document relevance`; `read_qrels` gives back the same ids and judgements."""
    lines = [
        f"{_encoded(query_id)} 0 {_encoded(doc_id)} {relevance}\n"
        for query_id, judged in qrels.items()
        for doc_id, relevance in judged.items()
    ]
    return write_text(path, "".join(lines))


def _entries(source: "Path | IdTable", column: str, location: str = "") -> Iterator[_Entry]:
    """The entries of a file or table whose values are "score" or "relevance"."""
    if not isinstance(source, Path):
        yield from _of_table(source, column, location)
        return
    lines = list(text_lines(source))
    if lines and lines[0][1].lstrip().startswith("{"):
        try:
            table = parse_json(str(source), "\n".join(line for _, line in lines))
        except ListconError:
            if ".json" in source.suffixes:
                raise  # elsewhere an id may start with a brace
        else:
            yield from _of_table(table, column, str(source))
            return
    shape, is_tsv = _LINES[column], False
    if column == "relevance" and lines and lines[0][1].lower().split() == _TSV_HEADER.split():
        shape, is_tsv, lines = _TSV_HEADER, True, lines[1:]
    names = shape.split()
    for where, line in lines:
        words = line.split("\t" if is_tsv else None)
        if len(words) != len(names):
            raise ListconError(f"{where} has {count_of(len(words), 'column')} ({line[:60]!r}); expected `{shape}`")
        if is_tsv:
            yield _Entry(where, words[0], words[1], words[2])
        else:
            own = dict(zip(names, words, strict=True))
            yield _Entry(where, own["query"], own["document"], own[column], own.get("rank", ""), is_escaped=True)


def _of_table(table: Any, column: str, location: str) -> Iterator[_Entry]:  # noqa: ANN401 - also what JSON holds
    for cells in _cells(table, ["query_id", "doc_id", column], location):
        query_id, doc_id, value = (cell.item() if isinstance(cell, np.generic) else cell for cell in cells)
        yield _Entry(f"{location}, query {query_id!r}", query_id, doc_id, value)


def _cells(table: Any, columns: list[str], location: str) -> Iterator[tuple[object, object, object]]:  # noqa: ANN401
    if hasattr(table, "itertuples"):
        names = list(table.columns)
        if wrong := next((name for name in columns if names.count(name) != 1), None):
            raise ListconError(
                f"{location}: the table has {'several columns' if wrong in names else 'no column'} {wrong}: "
                f"expected {', '.join(columns)}; it has {', '.join(map(str, names))}"
            )
        yield from table[columns].itertuples(index=False, name=None)
        return
    for query_id, row in table.items() if isinstance(table, Mapping) else [(location, table)]:
        if not isinstance(row, Mapping):
            raise ListconError(f"{location}, query {query_id!r}: {shown(row)}; expected {{document id: number}}")
        for doc_id, value in row.items():
            yield query_id, doc_id, value


def _finite(entry: _Entry) -> float:
    score = number_of(entry.value)
    if score is None or isinstance(entry.value, bool):
        raise ListconError(f"{entry.location}: the score is {shown(entry.value)}; expected a number")
    if not math.isfinite(score):
        raise ListconError(f"{entry.location}: the score is {entry.value}; expected a finite number")
    return score


def _put(table: dict[str, dict[str, T]], entry: _Entry, known: KnownIds | None, value: T) -> None:
    query_id, doc_id = entry.query_id, entry.doc_id
    if entry.is_escaped:
        query_id = _decoded(query_id, known)
        doc_id = _decoded(doc_id, None if known is None else known.get(query_id, ()))
    where = Row(entry.location, {})
    query_id, doc_id = where.id("the query's id", query_id), where.id("the document's id", doc_id)
    row = table.setdefault(query_id, {})
    if doc_id in row:
        raise ListconError(f"{entry.location}: document {doc_id} comes a second time for query {query_id}")
    row[doc_id] = value


def _encoded(identifier: str) -> str:
    """An id as one word that `_decoded` gives back."""
    return _ESCAPED.sub(lambda match: quote(match[0]), identifier)


def _decoded(word: str, known: Collection[str] | None) -> str:
    """The id that a word stands for; where ids are known, the raw word unless its decoded form is one of them."""
    try:
        decoded = unquote(word, errors="strict")
    except UnicodeDecodeError:
        return word
    return decoded if known is None or decoded in known else word
