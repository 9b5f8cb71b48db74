"""mteb's retrieval layout in a local folder: the parts corpus, queries, qrels and top_ranked.

The parts are found as the hub finds them, by the `configs:` block of README.md, or by the names of files and
folders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from listcon_eval.data.parts import Document, Parts
from listcon_eval.data.rows import (
    choose_split,
    column_value,
    extension_of,
    id_value,
    read_rows,
    shown,
    stem_of,
    text_value,
)
from listcon_eval.errors import ListconError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from listcon_eval.data.rows import Row

# The names each part goes by; mteb calls the judgements' configuration "default" or "qrels".
_NAMES = {
    "corpus": ("corpus",),
    "queries": ("queries", "query"),
    "qrels": ("default", "qrels"),
    "top_ranked": ("top_ranked",),
}


def is_retrieval_folder(folder: Path) -> bool:
    """Whether the folder has a corpus, by its README or by name."""
    return "corpus" in _configs(folder) or bool(_entries(folder, "corpus"))


def read_retrieval(folder: Path, split: str) -> Parts:
    """Read a folder in mteb's retrieval layout.

    Queries without judgements are left out, as mteb's loader does.

    Raises:
        ListconError: a part is missing, or a row is not as it should be (naming file and line).
    """
    # top_ranked first: without it nothing else is worth reading
    top_ranked = _read_top_ranked(folder, split)
    relevant = _read_qrels(folder, split)
    queries = {query_id: text for query_id, text in _read_queries(folder, split).items() if query_id in relevant}
    if not queries:
        raise ListconError(f"{folder}: none of the queries has a relevance judgement (qrels).")
    return Parts(queries, _read_corpus(folder, split), relevant, top_ranked)


def _read_top_ranked(folder: Path, split: str) -> dict[str, list[str]]:
    top_ranked: dict[str, list[str]] = {}
    for row in _rows(folder, "top_ranked", split):
        query_id = id_value(row, "query-id", column_value(row, "query-id"))
        doc_ids = column_value(row, "corpus-ids")
        if not isinstance(doc_ids, list):
            raise ListconError(f"{row.where}: corpus-ids is {shown(doc_ids)}; expected a list of document ids.")
        if query_id in top_ranked:
            raise ListconError(f"{row.where}: a second candidate list for query {query_id!r}; expected one.")
        top_ranked[query_id] = [id_value(row, f"corpus-ids[{i}]", doc_id) for i, doc_id in enumerate(doc_ids)]
    return top_ranked


def _read_qrels(folder: Path, split: str) -> dict[str, dict[str, int]]:
    relevant: dict[str, dict[str, int]] = {}
    for row in _rows(folder, "qrels", split):
        judged = relevant.setdefault(id_value(row, "query-id", column_value(row, "query-id")), {})
        doc_id = id_value(row, "corpus-id", column_value(row, "corpus-id"))
        score = _score(row)
        if judged.setdefault(doc_id, score) != score:
            raise ListconError(f"{row.where}: {doc_id!r} is judged {score} here and {judged[doc_id]} before.")
    return relevant


def _score(row: Row) -> int:
    value: Any = column_value(row, "score")
    try:
        score = int(value)  # also "1", from a TSV file
        whole = not isinstance(value, float) or value == score
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise ListconError(f"{row.where}: score is {shown(value)}; expected a whole number, above 0 for relevant.")
    return score


def _read_queries(folder: Path, split: str) -> dict[str, str]:
    queries: dict[str, str] = {}
    for row in _rows(folder, "queries", split):
        query_id = id_value(row, "id", column_value(row, "_id", "id"))
        if query_id in queries:
            raise ListconError(f"{row.where}: query id {query_id!r} was used before; expected one row a query.")
        queries[query_id] = text_value(row, "text", column_value(row, "text"))
        if not queries[query_id].strip():
            raise ListconError(f"{row.where}: the text of query {query_id!r} is empty.")
    return queries


def _read_corpus(folder: Path, split: str) -> dict[str, Document]:
    documents: dict[str, Document] = {}
    for row in _rows(folder, "corpus", split):
        doc_id = id_value(row, "id", column_value(row, "_id", "id"))
        if doc_id in documents:
            raise ListconError(f"{row.where}: document id {doc_id!r} was used before; expected one row a document.")
        title = row.values.get("title")
        documents[doc_id] = Document(
            "" if title is None else text_value(row, "title", title),
            text_value(row, "text", column_value(row, "text")),
        )
    return documents


def _rows(folder: Path, part: str, split: str) -> Iterator[Row]:
    for path in _part_files(folder, part, split):
        yield from read_rows(path)


def _part_files(folder: Path, part: str, split: str) -> list[Path]:
    configs = _configs(folder)
    for name in _NAMES[part]:
        if name in configs:
            return _configured_files(folder, name, configs[name], split)
    for entry in _entries(folder, *_NAMES[part]):
        if entry.is_file():
            return [entry]
        files = [path for path in entry.iterdir() if path.is_file() and extension_of(path)]
        if files:
            return choose_split(files, split, entry)
    why = " Reranking needs candidate lists: columns query-id and corpus-ids." if part == "top_ranked" else ""
    raise ListconError(
        f"{folder}: no part {part!r}; expected {part}.jsonl (or .jsonl.gz, .parquet), a folder {part}/, or a "
        f"configuration of this name in README.md.{why}"
    )


def _entries(folder: Path, *names: str) -> list[Path]:
    """Folders of these names, and data files of these names, in the order of the names."""
    return [
        path
        for name in names
        for path in sorted(folder.iterdir())
        if (path.name == name if path.is_dir() else extension_of(path) and stem_of(path) == name)
    ]


def _configs(folder: Path) -> dict[str, Any]:
    """Configuration name -> its `data_files`, from README.md."""
    from huggingface_hub import RepoCard

    readme = folder / "README.md"
    if not readme.is_file():
        return {}
    try:
        configs = RepoCard.load(readme, ignore_metadata_errors=True).data.to_dict().get("configs") or []
        return {config["config_name"]: config["data_files"] for config in configs if "data_files" in config}
    except Exception as error:  # PyYAML's errors, or a block of another shape: neither has one type
        raise ListconError(f"{readme}: the block between the '---' lines cannot be read ({error}).") from error


def _configured_files(folder: Path, name: str, data_files: Any, split: str) -> list[Path]:  # noqa: ANN401 - YAML
    entries = data_files if isinstance(data_files, list) else [data_files]
    by_split: dict[str | None, list[str]] = {}
    for entry in entries:
        own, patterns = (entry.get("split"), entry.get("path")) if isinstance(entry, dict) else (None, entry)
        by_split.setdefault(own, []).extend(map(str, patterns if isinstance(patterns, list) else [patterns]))
    if split not in by_split and len(by_split) > 1:
        found = ", ".join(str(own) for own in by_split)
        raise ListconError(f"{folder}: configuration {name!r} has splits {found}; expected {split!r} or a single one.")
    patterns = by_split.get(split) or next(iter(by_split.values()), [])
    try:
        files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    except (ValueError, NotImplementedError) as error:  # an empty pattern, an absolute one
        raise ListconError(f"{folder}: configuration {name!r} in README.md names {patterns}: {error}.") from error
    if not files:
        raise ListconError(
            f"{folder}: configuration {name!r} in README.md names {patterns}, and there is no such file."
        )
    return files if None not in by_split else choose_split(files, split, folder)
