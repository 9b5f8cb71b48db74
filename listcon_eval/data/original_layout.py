"""The layout of the original C-MTEB reranking files: a query a row, with positive and negative passages."""

from collections.abc import Sequence
from pathlib import Path

from listcon_eval.data.parts import Document, Parts
from listcon_eval.data.rows import (
    Row,
    choose_split,
    column_value,
    extension_of,
    id_value,
    read_rows,
    shown,
    text_value,
)
from listcon_eval.errors import ListconError

_COLUMNS = ("query", "positive", "negative")


def read_original(path: Path, split: str) -> Parts:
    """Read a file or folder with columns `query`, `positive`, `negative` and, optionally, `query_id`.

    Ids are those of mteb's own conversion (`AbsTaskReranking._process_example`), one document an occurrence.
    Unlike that conversion, queries with only positives or only negatives stay: the published scripts scored
    them too.

    Raises:
        ListconError: naming file and line, what was seen and what is expected there.
    """
    parts = Parts({}, {}, {}, {})
    for file in _files(path, split):
        for row in read_rows(file):
            _add(parts, row, split)
    return parts


def _files(path: Path, split: str) -> list[Path]:
    if path.is_file():
        return [path]
    # The hub keeps a dataset's Parquet files in `data/`.
    for folder in (path, path / "data"):
        files = [p for p in folder.iterdir() if p.is_file() and extension_of(p)] if folder.is_dir() else []
        if files:
            return choose_split(files, split, folder)
    raise ListconError(
        f"{path}: no data in this folder; expected JSONL or Parquet files with {', '.join(_COLUMNS)}, "
        "or the parts corpus, queries, qrels and top_ranked of mteb's retrieval layout."
    )


def _add(parts: Parts, row: Row, split: str) -> None:
    missing = [column for column in _COLUMNS if column not in row.values]
    if missing:
        raise ListconError(
            f"{row.where}: no {' and no '.join(map(repr, missing))}; expected {', '.join(_COLUMNS)}, "
            f"the row has {', '.join(row.values) or 'nothing'}."
        )
    query = text_value(row, "query", row.values["query"])
    if not query.strip():
        raise ListconError(f"{row.where}: the query is empty ({query!r}).")
    given = row.values.get("query_id")
    query_id = f"{split}_query{len(parts.queries)}" if given is None else id_value(row, "query_id", given)
    if query_id in parts.queries:
        raise ListconError(f"{row.where}: query_id {query_id!r} was used before; expected one row a query.")
    positive, negative = (_passages(row, column) for column in ("positive", "negative"))
    if not positive and not negative:
        raise ListconError(f"{row.where}: query {query_id!r} has no passages, neither positive nor negative.")
    parts.queries[query_id] = query
    # The leading "a" sorts positives before negatives; mteb breaks ties by id, descending.
    _add_documents(parts, query_id, f"apositive_{query_id}", positive, relevance=1)
    _add_documents(parts, query_id, f"negative_{query_id}", negative, relevance=0)


def _add_documents(parts: Parts, query_id: str, prefix: str, texts: Sequence[str], *, relevance: int) -> None:
    for number, text in enumerate(texts):
        doc_id = f"{prefix}_{number:05d}"
        parts.documents[doc_id] = Document("", text)
        parts.relevant.setdefault(query_id, {})[doc_id] = relevance
        parts.top_ranked.setdefault(query_id, []).append(doc_id)


def _passages(row: Row, column: str) -> list[str]:
    value = column_value(row, column)
    if not isinstance(value, list):
        raise ListconError(f"{row.where}: {column} is {shown(value)}; expected a list of texts.")
    return [text_value(row, f"{column}[{number}]", passage) for number, passage in enumerate(value)]
