"""Run and qrels files: written as TREC files; read as TREC files, the JSON that ranx writes or, for qrels, mteb's TSV.

A TREC line is split at white space, so white space and percent signs in an id are percent-encoded.
"""

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote, unquote

from listcon_eval.data.rows import parse_json, shown, text_lines, whole_number
from listcon_eval.errors import ListconError, count_of
from listcon_eval.files import sha256_of_file, write_text

if TYPE_CHECKING:
    import pandas as pd

    IdTable: TypeAlias = Mapping[str, Mapping[str, float]] | pd.DataFrame

KnownIds = Mapping[str, Collection[str]]
"""The ids of a task: query id -> document ids."""
T = TypeVar("T", int, float)
_RUN_LINE = "query Q0 document rank score tag"
_QRELS_LINE = "query 0 document relevance"
_QRELS_HEADER = "query-id corpus-id score"
# What would not come back from a file: white space splits a line, a byte-order mark at the start is skipped, and a
# NUL looks like UTF-16.
_ESCAPED = re.compile("[\\s%\ufeff\0]")


class _Entry(NamedTuple):
    """A line of a file, with its ids as written there; `is_escaped`: they may be percent-encoded."""

    location: str
    query_id: str
    doc_id: str
    value: object
    rank: str | None
    is_escaped: bool


def read_trec_run(path: "Path | IdTable", known: KnownIds | None = None) -> dict[str, dict[str, float]]:
    """Read a run: query id -> document id -> score.

    Ranks are not read: trec_eval and pytrec_eval rank by score, and so does everything here. `has_only_ranks` tells
    whether that matters.

    Args:
        path: lines `query Q0 document rank score tag`, or a JSON object {query id: {document id: score}}; such an
            object in memory, or a DataFrame with columns `query_id`, `doc_id`, `score`.
        known: the ids of the task. An id of a TREC line is percent-decoded, unless only its raw form is known.

    Raises:
        ListconError: the file cannot be read, a line has another form, a score is not finite, or a document comes
            twice.
    """
    run: dict[str, dict[str, float]] = {}
    for entry in _run_entries(path):
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
        ListconError: the file cannot be read, a line has another form, or a document is judged twice.
    """
    qrels: dict[str, dict[str, int]] = {}
    for entry in _qrels_entries(path):
        relevance = whole_number(entry.value)
        if relevance is None:
            raise ListconError(f"{entry.location}: the relevance is {shown(entry.value)}; expected a whole number")
        _put(qrels, entry, known, relevance)
    return qrels


def run_of_table(location: str, table: object) -> dict[str, dict[str, float]]:
    """The run in an object {query id: {document id: score}} that JSON was read into; errors as in `read_trec_run`."""
    run: dict[str, dict[str, float]] = {}
    for entry in _nested_entries(location, table):
        _put(run, entry, None, _finite(entry))
    return run


def has_only_ranks(path: Path) -> bool:
    """Whether the order of a run file is in its ranks alone: equal scores in every query, with different ranks.

    Such a file is one big tie for everything that reads scores, as this package does.
    """
    scores: dict[str, set[float]] = {}
    ranks: dict[str, set[str | None]] = {}
    for entry in _run_entries(path):
        scores.setdefault(entry.query_id, set()).add(_finite(entry))
        ranks.setdefault(entry.query_id, set()).add(entry.rank)
    all_tied = all(len(values) == 1 for values in scores.values())
    return all_tied and any(len(values) > 1 for values in ranks.values())


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


def _run_entries(path: "Path | IdTable") -> list[_Entry]:
    if not isinstance(path, Path):
        return _memory_entries(path, "score")
    lines = list(text_lines(path))
    found = _json_entries(path, lines)
    if found is not None:
        return found
    return [
        _Entry(location, query_id, doc_id, score, rank, is_escaped=True)
        for location, (query_id, _, doc_id, rank, score, _) in _words(lines, _RUN_LINE)
    ]


def _qrels_entries(path: "Path | IdTable") -> list[_Entry]:
    if not isinstance(path, Path):
        return _memory_entries(path, "relevance")
    lines = list(text_lines(path))
    found = _json_entries(path, lines)
    if found is not None:
        return found
    if lines and lines[0][1].lower().split() == _QRELS_HEADER.split():
        return [
            _Entry(location, query_id, doc_id, relevance, None, is_escaped=False)
            for location, (query_id, doc_id, relevance) in _words(lines[1:], _QRELS_HEADER, separator="\t")
        ]
    return [
        _Entry(location, query_id, doc_id, relevance, None, is_escaped=True)
        for location, (query_id, _, doc_id, relevance) in _words(lines, _QRELS_LINE)
    ]


def _memory_entries(table: "IdTable", column: str) -> list[_Entry]:
    if isinstance(table, Mapping):
        return _nested_entries(f"{column}s in memory", table)
    columns = ["query_id", "doc_id", column]
    if missing := [name for name in columns if name not in table]:
        raise ListconError(
            f"a table of {column}s has no column {missing[0]}: expected {', '.join(columns)}; it has "
            f"{', '.join(map(str, table.columns))}"
        )
    return [
        _entry(f"{column}s of query {query_id}", query_id, doc_id, value)
        for query_id, doc_id, value in table[columns].itertuples(index=False)
    ]


def _entry(location: str, query_id: object, doc_id: object, value: Any) -> _Entry:  # noqa: ANN401 - a number, if right
    number = value.item() if hasattr(value, "item") else value  # numpy's numbers
    return _Entry(location, str(query_id), str(doc_id), number, None, is_escaped=False)


def _words(
    lines: Iterable[tuple[str, str]], shape: str, separator: str | None = None
) -> Iterator[tuple[str, list[str]]]:
    for location, line in lines:
        words = line.split(separator)
        if len(words) != len(shape.split()):
            raise ListconError(f"{location} has {count_of(len(words), 'column')} ({line[:60]!r}); expected `{shape}`")
        yield location, words


def _json_entries(path: Path, lines: list[tuple[str, str]]) -> list[_Entry] | None:
    """The entries of a JSON file; None when it is not JSON."""
    if not lines or not lines[0][1].lstrip().startswith("{"):
        return None
    try:
        table = parse_json(str(path), "\n".join(line for _, line in lines))
    except ListconError:
        if ".json" in path.suffixes:
            raise
        return None  # an id may start with a brace
    return _nested_entries(str(path), table)


def _nested_entries(location: str, table: object) -> list[_Entry]:
    entries = []
    for query_id, row in (table if isinstance(table, Mapping) else {location: table}).items():
        where = f"{location}, query {query_id!r}"
        if not isinstance(row, Mapping):
            raise ListconError(f"{where}: {shown(row)}; expected {{document id: number}}")
        entries += [_entry(where, query_id, doc_id, value) for doc_id, value in row.items()]
    return entries


def _finite(entry: _Entry) -> float:
    value = entry.value
    try:
        score = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None
    except (ValueError, OverflowError):
        score = None
    if score is None:
        raise ListconError(f"{entry.location}: the score is {shown(value)}; expected a number")
    if not math.isfinite(score):
        raise ListconError(f"{entry.location}: the score is {value}; expected a finite number")
    return score


def _put(table: dict[str, dict[str, T]], entry: _Entry, known: KnownIds | None, value: T) -> None:
    query_id, doc_id = entry.query_id, entry.doc_id
    if entry.is_escaped:
        query_id = _decoded(query_id, known)
        doc_id = _decoded(doc_id, None if known is None else known.get(query_id, ()))
    for text in (query_id, doc_id):
        if "\0" in text:
            raise ListconError(f"{entry.location}: the id is {shown(text)}; expected one without the character NUL")
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
