"""One query of a run, passage by passage.

A run's files hold ids and scores but no passages (they would be as large as the data). Texts are read again from
where the run had its data, and only taken if that data still is the run's: by the hash of its content, or by its
revision when it came from the hub.
"""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from listcon_eval.data import MINI, Task, local_task, mini_task, official_task
from listcon_eval.data.local import path_and_subset
from listcon_eval.data.mteb_tasks import mteb_name
from listcon_eval.data.tasks import hash_of_documents
from listcon_eval.errors import ListconError, count_of
from listcon_eval.ordering import ranked_places
from listcon_eval.records import POINTWISE
from listcon_eval.results import RankedQuery, Result, Signature, read_per_query, read_provenance, read_rankings
from listcon_eval.results.records import DataRecord
from listcon_eval.tables import Style, code, escaped, percent, shortened, table

_TEXT_CELLS = 60


@dataclass(frozen=True)
class Passage:
    """A candidate of a query."""

    rank: int | None  # its rank, from 1; tied passages keep their candidate order. None when it was not retrieved
    score: float | None  # its final score; None when it was not retrieved
    round: int  # the round it left in, from 0
    relevance: int  # its judgement; above 0 is relevant
    cmteb_relevant: bool  # its label in the cmteb protocol
    doc_id: str  # its document's id
    text: str | None  # its text; None when that cannot be had


@dataclass(frozen=True)
class ShownQuery:
    """One query of a run."""

    query_id: str
    query: str
    mode: str  # the run's inference mode, or "pointwise"
    signature: Signature
    metrics: Mapping[str, float]  # its own metrics, 0 to 1; a query that `cmteb` drops has those of `mteb` alone
    candidates: int  # how many candidates it has
    passages: Sequence[Passage]  # the best of them, best first; those that were not retrieved are last
    missing_texts: str | None  # why there are no texts; None when there are


def show_query(result: Result, query_id: str, *, data: Path | None = None, top: int | None = None) -> ShownQuery:
    """Read one query of a run, with its `top` passages (default: all).

    Texts are read from `data`, by default from where the run had its data; other data than the run's is refused.
    """
    rankings = read_rankings(result)
    if query_id not in rankings:
        near = difflib.get_close_matches(query_id, rankings, n=3) or list(rankings)[:3]
        raise ListconError(
            f"{result.folder} has no query {query_id!r}; it has {len(rankings)}, such as {', '.join(map(repr, near))}"
        )
    entry = rankings[query_id]
    found, missing = read_texts(result, rankings, {query_id}, data)
    texts = found.get(query_id, {})
    order = ranked_places(entry.final_scores, entry.doc_ids, "cmteb")
    unranked = [place for place, score in enumerate(entry.scores) if score is None]
    passages = [
        Passage(
            rank=None if entry.scores[place] is None else rank,
            score=entry.scores[place],
            round=entry.rounds[place],
            relevance=entry.relevance[place],
            cmteb_relevant=entry.cmteb_relevant[place],
            doc_id=entry.doc_ids[place],
            text=texts.get(entry.doc_ids[place]),
        )
        for rank, place in enumerate([*order, *unranked][:top], start=1)
    ]
    return ShownQuery(
        query_id=query_id,
        query=entry.query or "",
        mode=result.mode,
        signature=result.signature,
        metrics={measure: own[query_id] for measure, own in read_per_query(result).items() if query_id in own},
        candidates=len(entry.doc_ids),
        passages=passages,
        missing_texts=missing,
    )


def read_texts(
    result: Result, rankings: Mapping[str, RankedQuery], query_ids: Collection[str], data: Path | None = None
) -> tuple[dict[str, dict[str, str]], str | None]:
    """The candidates' texts of some of a run's queries, or why they cannot be had; `rankings` are the run's.

    Returns:
        Query id -> document id -> text, and None; or nothing, and the reason. `data` that is not the run's is an error.
    """
    source = read_provenance(result).data
    try:
        task = _task(source) if data is None else _local(source, str(data))
        documents = task.documents()
        if source.source == "first stage":
            ranked = {doc_id for entry in rankings.values() for doc_id in entry.doc_ids}
            if hash_of_documents({doc_id: documents.get(doc_id, "") for doc_id in ranked}) != source.texts:
                raise ListconError(
                    f"{task.location} is not the run's data: the texts of the ranked documents are not the same"
                )
        else:
            by_content = task.content and source.content
            wanted, now = (source.content, task.content) if by_content else (result.data_revision, task.revision)
            if now != wanted:
                raise ListconError(f"{task.location} is not the run's data: its revision is {now}, not {wanted}")
    except ListconError as error:
        if data is not None:
            raise
        return {}, f"{error} (or give the run's data with --data PATH)"
    return {
        query_id: {doc_id: documents[doc_id] for doc_id in entry.doc_ids if doc_id in documents}
        for query_id, entry in rankings.items()
        if query_id in query_ids
    }, None


def _task(source: DataRecord) -> Task:
    """The task that a run's data is of: for what a first stage retrieved, the whole one."""
    name = _name(source)
    if source.source == "hub" or (source.source == "first stage" and mteb_name(name) and not _exists(source.location)):
        return official_task(name)
    is_packaged = source.source == "packaged" or (source.source == "first stage" and not _exists(source.location))
    return mini_task(name) if name in MINI and is_packaged else _local(source, source.location)


def _local(source: DataRecord, data: str) -> Task:
    """The task with data of a path, which can have a subset in brackets."""
    name, is_stage = _name(source), source.source == "first stage"
    path, subset = path_and_subset(data)
    if source.is_official or (is_stage and mteb_name(name)):
        return local_task(path, claim=name, for_first_stage=is_stage)
    free = "local" if name in MINI else name  # a copy of the packaged data, whose names no other data has
    return local_task(path, name=free, subset=subset, for_first_stage=is_stage)


def _name(source: DataRecord) -> str:
    return source.task.rpartition("[")[0] if source.source == "first stage" else source.task


def _exists(location: str) -> bool:
    return Path(path_and_subset(location)[0]).exists()


def as_json(shown: ShownQuery) -> dict[str, Any]:
    """The query for programs."""
    return {**asdict(shown), "signature": str(shown.signature)}


def as_text(shown: ShownQuery, style: Style = "terminal", *, full: bool = False, width: int | None = None) -> str:
    """The query for people: its text and metrics, a table of passages (`full`: whole texts), the signature."""

    def row(passage: Passage) -> list[str]:
        text = "-" if passage.text is None else passage.text
        return [
            "-" if passage.rank is None else str(passage.rank),
            "not retrieved" if passage.score is None else f"{passage.score:.6g}",
            *([str(passage.round)] if shown.mode == "iterative" else []),
            str(passage.relevance),
            "relevant" if passage.cmteb_relevant else "-",
            passage.doc_id,
            " ".join(text.split()) if full else shortened(text, _TEXT_CELLS),
        ]

    rounds = ["Round"] if shown.mode == "iterative" else []
    headers = ["Rank", "Score", *rounds, "Relevance", "cmteb label", "Document", "Text"]
    metrics = ", ".join(f"{measure} {percent(value)}" for measure, value in shown.metrics.items())
    mode = "" if shown.mode == POINTWISE else f", {shown.mode} inference"
    counted = f"{len(shown.passages)} of {count_of(shown.candidates, 'candidate')}{mode}; {metrics}"
    return "\n\n".join(
        [
            escaped(f"Query {shown.query_id}: {shown.query}", style),
            escaped(counted, style),
            table(headers, [row(passage) for passage in shown.passages], style, width=width),
            *([escaped(f"No texts: {shown.missing_texts}", style)] if shown.missing_texts else []),
            code(str(shown.signature), style),
        ]
    )
