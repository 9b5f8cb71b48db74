"""TREC run and qrels files: how other tools hand over their scores and judgements."""

import hashlib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from listcon_eval.errors import ListconError

T = TypeVar("T", int, float)


def read_trec_run(path: Path) -> dict[str, dict[str, float]]:
    """Read lines `query Q0 document rank score tag`: query id -> document id -> score.

    Ranks are not read: trec_eval and pytrec_eval rank by score, and so does everything here.

    Raises:
        ListconError: the file cannot be read, a line is none, a score is not finite, or a document comes twice.
    """
    run: dict[str, dict[str, float]] = {}
    for where, words in _lines(path, 6, "query Q0 document rank score tag"):
        query_id, _, doc_id, _, text, _ = words
        score = _number(text, where)
        if not math.isfinite(score):
            raise ListconError(f"{where}: the score is {text}; expected a finite number")
        _put(run, query_id, doc_id, score, where)
    return run


def read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Read lines `query 0 document relevance`: query id -> document id -> relevance (above 0 is relevant).

    Raises:
        ListconError: the file cannot be read, a line is none, or a document is judged twice.
    """
    qrels: dict[str, dict[str, int]] = {}
    for where, words in _lines(path, 4, "query 0 document relevance"):
        query_id, _, doc_id, text = words
        relevance = _number(text, where)
        if not relevance.is_integer():
            raise ListconError(f"{where}: the relevance is {text}; expected a whole number")
        _put(qrels, query_id, doc_id, int(relevance), where)
    return qrels


def short_hash(path: Path) -> str:
    """`sha256-` and the first 12 hexadecimal digits of a file's hash: its revision in a signature."""
    return f"sha256-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def _lines(path: Path, width: int, shape: str) -> Iterator[tuple[str, list[str]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ListconError(f"{path} cannot be read as a TREC file: {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split()
        if not words:
            continue
        where = f"{path}, line {number}"
        if len(words) != width:
            raise ListconError(f"{where} has {len(words)} words ({line[:60]!r}); expected `{shape}`")
        yield where, [_plain(word) for word in words]


def _number(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ListconError(f"{where}: {text!r} is no number") from None


def _put(table: dict[str, dict[str, T]], query_id: str, doc_id: str, value: T, where: str) -> None:
    row = table.setdefault(query_id, {})
    if doc_id in row:
        raise ListconError(f"{where}: document {doc_id} comes a second time for query {query_id}")
    row[doc_id] = value


def _plain(word: str) -> str:
    """An id as it was before white space in it was percent-encoded; other percent signs stay."""

    def decoded(match: re.Match[str]) -> str:
        text = unquote(match[0])
        return text if text.isspace() else match[0]

    return re.sub(r"(?:%[0-9A-F]{2})+", decoded, word)
