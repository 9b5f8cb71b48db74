"""The two layouts of reranking data: the original C-MTEB files, and mteb's retrieval layout.

Original: a row per query, with its positive and negative passages. Retrieval: a folder with the parts corpus, queries,
qrels and top_ranked, found by the `configs:` block of README.md, as on the hub, or by the names of files and folders.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from listcon_eval.data.rows import (
    Row,
    choose_split,
    complete,
    extension_of,
    judgement,
    read_rows,
    shown,
    stem_of,
    unsharded_stem,
)
from listcon_eval.errors import ListconError
from listcon_eval.records import CandidateList

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

DEFAULT_SUBSET = "default"  # mteb's name of the only one
_ORIGINAL_COLUMNS = ("query", "positive", "negative")
# The names each part goes by; mteb calls the judgements' configuration "default" or "qrels".
_PART_NAMES = {
    "top_ranked": ("top_ranked",),  # first: without it nothing else is worth reading
    "qrels": ("default", "qrels"),
    "queries": ("queries", "query"),
    "corpus": ("corpus",),
    "instruction": ("instruction", "instructions"),
}
Query = str | list[Any]
"""A query's text, or the turns of a conversation: texts, or objects with `role` and `content`."""


def read_data(
    path: Path, split: str, subset: str = DEFAULT_SUBSET, *, needs_candidates: bool = True
) -> RetrievalSplitData:
    """Read a file or folder in either layout; one in mteb's may have no candidates unless they are needed.

    Raises:
        ListconError: naming file and line, what was seen and what is expected there.
    """
    if is_retrieval_folder(path, split, subset):
        names = _names_of_parts(path, subset)
        parts = {part: _part_files(path, split, part, names[part]) for part in _PART_NAMES}
        prefix = "" if "queries" in names["queries"] else f"{subset}-"
        return _read_retrieval(path, parts, prefix, needs_candidates)
    return data_of_lists(original_lists(original_rows(path, split), split))


def is_retrieval_folder(path: Path, split: str, subset: str = DEFAULT_SUBSET) -> bool:
    """Whether a path is a folder in mteb's layout."""
    return path.is_dir() and bool(_part_files(path, split, "corpus", _names_of_parts(path, subset)["corpus"]))


def has_subset(folder: Path, subset: str) -> bool:
    """Whether a folder has a corpus of a subset's name (`zh-corpus`, `corpus-zh`), or its queries and a corpus."""
    there = _names_there(folder)
    return not there.isdisjoint(_names_of_subset(subset, "corpus")) or not (
        there.isdisjoint(_names_of_subset(subset, "queries")) or there.isdisjoint(_PART_NAMES["corpus"])
    )


def _names_there(folder: Path) -> set[str]:
    """What the files, the folders with data, and the configurations of a folder are called."""
    return {
        *(stem_of(path) for path in _data_files(folder)),
        *(path.name for path in folder.iterdir() if path.is_dir() and _data_files(path)),
        *_configs(folder),
    }


def _names_of_subset(subset: str, part: str) -> list[str]:
    names = _PART_NAMES[part]
    return [f"{subset}-{name}" for name in names] + [f"{name}-{subset}" for name in names]


def _names_of_parts(folder: Path, subset: str) -> Mapping[str, Sequence[str]]:
    """The names that each part of a subset can have; a corpus can be that of several subsets."""
    own = {part: _names_of_subset(subset, part) for part in _PART_NAMES}
    if subset == DEFAULT_SUBSET:
        return {part: [*names, *_PART_NAMES[part]] for part, names in own.items()}
    if not has_subset(folder, subset):
        return _PART_NAMES
    return own if not _names_there(folder).isdisjoint(own["corpus"]) else {**own, "corpus": _PART_NAMES["corpus"]}


def original_rows(path: Path, split: str) -> Iterator[Row]:
    """The rows of a file or folder in the original layout; ListconError when it is none, as the rows are read."""
    return (row for file in _original_files(path, split) for row in read_rows(file))


def original_lists(rows: Iterable[Row], split: str) -> Iterator[CandidateList]:
    """The lists of rows with columns `query`, `positive`, `negative` and, optionally, `query_id`; texts as they stand.

    Ids are those of mteb's own conversion (`AbsTaskReranking._process_example`), one document an occurrence.
    Unlike that conversion, queries with only positives or only negatives stay.

    Raises:
        ListconError: as `read_data`, when the row is reached.
    """
    seen: set[str] = set()
    for row in rows:
        missing = [column for column in _ORIGINAL_COLUMNS if column not in row.values]
        if missing:
            raise ListconError(
                f"{row.location}: no {' and no '.join(map(repr, missing))}; expected {', '.join(_ORIGINAL_COLUMNS)}, "
                f"the row has {', '.join(map(str, row.values)) or 'nothing'}."
            )
        query = row.text("query")
        if not query.strip():
            raise ListconError(f"{row.location}: the query is empty ({query!r}).")
        has_id = row.values.get("query_id") is not None
        query_id = row.id("query_id") if has_id else f"{split}_query{len(seen)}"
        if query_id in seen:
            raise ListconError(f"{row.location}: query_id {query_id!r} was used before; expected one row a query.")
        seen.add(query_id)
        positive, negative = row.texts("positive"), row.texts("negative")
        if not positive and not negative:
            raise ListconError(f"{row.location}: query {query_id!r} has no passages, neither positive nor negative.")
        # The leading "a" sorts positives before negatives; mteb breaks ties by id, descending.
        doc_ids = [f"apositive_{query_id}_{number:05d}" for number in range(len(positive))]
        doc_ids += [f"negative_{query_id}_{number:05d}" for number in range(len(negative))]
        relevance = (1,) * len(positive) + (0,) * len(negative)
        yield CandidateList(query_id, query, tuple(doc_ids), (*positive, *negative), relevance)


def data_of_lists(lists: Iterable[CandidateList]) -> RetrievalSplitData:
    """Lists of which no two share a document, as mteb's retrieval tasks hold them."""
    corpus: list[dict[str, str]] = []
    queries: dict[str, Query] = {}
    relevant: dict[str, dict[str, int]] = {}
    for row in lists:
        corpus += (
            {"id": doc_id, "title": "", "text": text} for doc_id, text in zip(row.doc_ids, row.passages, strict=True)
        )
        queries[row.query_id] = row.query
        relevant[row.query_id] = dict(zip(row.doc_ids, row.relevance, strict=True))
    return _split_data(corpus, queries, relevant, {query_id: list(judged) for query_id, judged in relevant.items()})


def _split_data(
    corpus: Sequence[Mapping[str, str]],
    queries: Mapping[str, Query],
    relevant: dict[str, dict[str, int]],
    top_ranked: dict[str, list[str]],
    instructions: Mapping[str, str] | None = None,
) -> RetrievalSplitData:
    """The parts as mteb's retrieval tasks hold them; by query id, but for the corpus."""
    from datasets import Dataset
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

    columns = {"id": list(queries), "text": list(queries.values())}
    if instructions:
        columns["instruction"] = [instructions.get(query_id) for query_id in queries]
    return RetrievalSplitData(
        corpus=Dataset.from_list(corpus),
        queries=Dataset.from_dict(columns),
        relevant_docs=relevant,
        top_ranked=top_ranked,
    )


def content_hash(data: RetrievalSplitData) -> str:
    """`sha256-` and the first 40 hexadecimal digits of a hash of everything that can change a score.

    Two files of the same data have one hash, whatever their names, layout or compression.
    """
    documents = {row["id"]: (row["id"], row.get("title") or "", row["text"]) for row in data["corpus"].to_list()}
    digest = hashlib.sha256()
    for row in data["queries"].to_list():
        doc_ids = (data["top_ranked"] or {}).get(row["id"], ())
        judged = sorted(data["relevant_docs"].get(row["id"], {}).items())
        entry = [row["id"], row["text"], [documents.get(doc_id, (doc_id,)) for doc_id in doc_ids], judged]
        if row.get("instruction") is not None:
            entry.append(row["instruction"])
        digest.update(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
    return f"sha256-{digest.hexdigest()[:40]}"


def _original_files(path: Path, split: str) -> list[Path]:
    if path.is_file():
        return [path]
    # The hub keeps a dataset's Parquet files in `data/`.
    files = [p for folder in (path, path / "data") if folder.is_dir() for p in _data_files(folder)]
    if files:
        return choose_split(files, split, path)
    raise ListconError(
        f"{path}: no data in this folder; expected JSONL or Parquet files with {', '.join(_ORIGINAL_COLUMNS)}, "
        "or the parts corpus, queries, qrels and top_ranked of mteb's retrieval layout."
    )


def _data_files(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.iterdir()
        if path.is_file() and extension_of(path) is not None and not path.name.startswith(".")
    ]


def _read_retrieval(
    folder: Path, parts: Mapping[str, Sequence[Path]], prefix: str, needs_candidates: bool
) -> RetrievalSplitData:
    """Read the parts of a folder in mteb's retrieval layout; as in mteb, queries without judgements are left out."""
    for part in ("top_ranked", "qrels", "queries"):
        if not parts[part] and (part != "top_ranked" or needs_candidates):
            why = " Reranking needs candidate lists: columns query-id and corpus-ids." if part == "top_ranked" else ""
            raise ListconError(
                f"{folder}: no part {prefix + part!r}; expected {prefix}{part}.jsonl (or .jsonl.gz, .parquet), a "
                f"folder {prefix}{part}/, or a configuration of this name in README.md.{why}"
            )
    rows = {part: (row for path in files for row in read_rows(path)) for part, files in parts.items()}
    corpus: list[dict[str, str]] = []
    queries: dict[str, Query] = {}
    relevant: dict[str, dict[str, int]] = {}
    top_ranked: dict[str, list[str]] = {}
    for row in rows["top_ranked"]:
        query_id, doc_ids = row.id("query-id"), row.ids("corpus-ids")
        if top_ranked.setdefault(query_id, doc_ids) is not doc_ids:
            raise ListconError(f"{row.location}: a second candidate list for query {query_id!r}; expected one.")
    for row in rows["qrels"]:
        judged, doc_id = relevant.setdefault(row.id("query-id"), {}), row.id("corpus-id")
        score = judgement(row.location, "score", row.value("score"))
        if judged.setdefault(doc_id, score) != score:
            raise ListconError(f"{row.location}: {doc_id!r} is judged {score} here and {judged[doc_id]} before.")
    for query_id, row in _by_id(rows["queries"], "query"):
        text = _query_text(row, query_id)
        if query_id in relevant:
            first = next(iter(queries.values()), text)
            if _form(text) != _form(first):
                raise ListconError(
                    f"{row.location}: query {query_id!r} is {_form(text)}, those before are {_form(first)}; expected "
                    "one form for all queries."
                )
            queries[query_id] = text
    if not queries:
        raise ListconError(f"{folder}: none of the queries has a relevance judgement (qrels).")
    for doc_id, row in _by_id(rows["corpus"], "document"):
        title = "" if row.values.get("title") is None else row.text("title")
        corpus.append({"id": doc_id, "title": title, "text": row.text("text")})
    instructions: dict[str, str] = {}
    for row in rows["instruction"]:
        query_id, text = row.id("query-id"), row.text("instruction")
        if instructions.setdefault(query_id, text) != text:
            raise ListconError(f"{row.location}: a second instruction for query {query_id!r}; expected one.")
    bare = next((query_id for query_id in queries if query_id not in instructions), None)
    if instructions and bare is not None and not isinstance(queries[bare], str):
        raise ListconError(  # mteb would put the word None there
            f"{folder}: the conversation {bare!r} has no instruction, and others have; expected one for each, or none."
        )
    return _split_data(corpus, queries, relevant, top_ranked, instructions)


def _query_text(row: Row, query_id: str) -> Query:
    value = row.value("text")
    if not isinstance(value, list):
        text = row.text("text")
        if not text.strip():
            raise ListconError(f"{row.location}: the text of query {query_id!r} is empty.")
        return text
    if value and all(isinstance(turn, str) for turn in value):
        return row.texts("text")
    if value and all(isinstance(turn, dict) and {"role", "content"} <= turn.keys() for turn in value):
        return [
            {part: row.text(f"text[{place}].{part}", turn[part]) for part in ("role", "content")}  # as mteb reads it
            for place, turn in enumerate(value)
        ]
    raise ListconError(
        f"{row.location}: text is {shown(value)}; expected a text, or a conversation: a list of texts, or of objects "
        "with role and content."
    )


def _form(query: Query) -> str:
    """What a query is, in words: mteb reads all queries of a task as the first one is."""
    if isinstance(query, str):
        return "a text"
    return "a list of texts" if isinstance(query[0], str) else "a list of objects with role and content"


def _by_id(rows: Iterable[Row], kind: str) -> Iterator[tuple[str, Row]]:
    """Rows whose ids are in column `_id` or `id`, each id once."""
    seen: set[str] = set()
    for row in rows:
        identifier = row.id("id", row.value("_id", "id"))
        if identifier in seen:
            raise ListconError(f"{row.location}: {kind} id {identifier!r} was used before; expected one row per id.")
        seen.add(identifier)
        yield identifier, row


def _part_files(folder: Path, split: str, part: str, names: Sequence[str]) -> list[Path]:
    """The files of a part, by the names that it can have.

    Raises:
        ListconError: README.md does not fit the folder, or the part is there twice, or not whole.
    """
    configs = _configs(folder)
    if len(configured := [name for name in names if name in configs]) > 1:
        raise ListconError(
            f"{folder}: {' and '.join(configured)} in README.md are each a part {part!r}; keep one of them."
        )
    if configured:
        return _configured_files(folder, configured[0], configs[configured[0]], split)
    files = [path for path in _data_files(folder) if stem_of(path) in names]
    folders = [path for path in folder.iterdir() if path.name in names and path.is_dir() and _data_files(path)]
    if len(found := sorted(files + folders)) > 1:
        raise ListconError(
            f"{folder}: {' and '.join(path.name for path in found)} are each a part {part!r}; keep one of them."
        )
    return files or (choose_split(_data_files(found[0]), split, found[0]) if found else [])


def _configs(folder: Path) -> dict[str, Any]:
    """Configuration name -> its `data_files`, from README.md."""
    readme = folder / "README.md"
    if not readme.is_file():
        return {}
    try:
        return _configs_in(readme.read_text(encoding="utf-8"))
    except Exception as error:  # PyYAML's errors, or a block of another shape: neither has one type
        raise ListconError(f"{readme}: the block between the '---' lines cannot be read ({error}).") from error


@lru_cache(maxsize=1)  # every part asks again, and hundreds of configurations take a second
def _configs_in(readme: str) -> dict[str, Any]:
    from huggingface_hub import RepoCard

    card: Any = RepoCard(readme, ignore_metadata_errors=True)
    configs = card.data.to_dict().get("configs") or []
    return {config["config_name"]: config["data_files"] for config in configs if "data_files" in config}


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
    if None in by_split:
        return choose_split(files, split, folder)
    by_stem: dict[Path, list[Path]] = {}
    for path in files:
        by_stem.setdefault(path.with_name(unsharded_stem(path)), []).append(path)
    return [path for own in by_stem.values() for path in complete(own, folder)]
