"""One query of a run, passage by passage.

A run's files hold ids and scores but no passages (they would be as large as the data). Texts are read again from
where the run had its data, and only taken if that data still is the run's: by the hash of its content, or by its
revision when it came from the hub.
"""

import difflib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

from listcon_eval.compare.ranking import ranked_places
from listcon_eval.compare.render import Style, shortened
from listcon_eval.data import MINI, Task, local_task, mini_task, official_task
from listcon_eval.errors import ListconError
from listcon_eval.results import RunRecord, read_per_query, read_provenance, read_rankings

_SHORT = 60


class Passage(NamedTuple):
    """A ranked passage.

    Attributes:
        rank: its rank, from 1; tied passages keep their candidate order.
        score: its final score.
        round: the round it left in, from 0.
        relevance: its judgement; above 0 is relevant.
        label: its label in the cmteb protocol.
        doc_id: its document's id.
        text: its text; None when that cannot be had.
    """

    rank: int
    score: float
    round: int
    relevance: int
    label: bool
    doc_id: str
    text: str | None


@dataclass(frozen=True)
class ShownQuery:
    """One query of a run.

    Attributes:
        query_id: its id.
        query: its text.
        mode: the run's inference mode.
        signature: the run's signature.
        metrics: its own metrics, 0 to 1.
        candidates: how many passages were ranked.
        passages: the best of them, best first.
        missing_texts: why there are no texts; None when there are.
    """

    query_id: str
    query: str
    mode: str
    signature: str
    metrics: Mapping[str, float]
    candidates: int
    passages: tuple[Passage, ...]
    missing_texts: str | None


def shown_query(record: RunRecord, query_id: str, *, data: Path | None = None, top: int | None = None) -> ShownQuery:
    """Read one query of a run.

    Args:
        record: the run.
        query_id: the query's id.
        data: the data to read texts from; by default where the run had its data from.
        top: how many passages to show; all by default.

    Raises:
        ListconError: the run has no such query, or `data` is not the run's data.
    """
    rankings = read_rankings(record)
    if query_id not in rankings:
        near = difflib.get_close_matches(query_id, rankings, n=3) or list(rankings)[:3]
        raise ListconError(f"{record.folder} has no query {query_id!r}; it has {len(rankings)}, such as {_list(near)}")
    entry = rankings[query_id]
    found, missing = read_texts(record, {query_id}, data)
    texts = found.get(query_id, {})
    passages = (
        Passage(
            rank,
            entry.scores[place],
            entry.rounds[place],
            entry.relevance[place],
            entry.labels[place],
            entry.doc_ids[place],
            texts.get(entry.doc_ids[place]),
        )
        for rank, place in enumerate(ranked_places(entry)[:top], start=1)
    )
    return ShownQuery(
        query_id,
        entry.query or "",
        record.mode,
        record.signature,
        {measure: values[query_id] for measure, values in read_per_query(record).items()},
        len(entry.doc_ids),
        tuple(passages),
        missing,
    )


def _list(names: list[str]) -> str:
    return ", ".join(map(repr, names))


def read_texts(
    record: RunRecord, query_ids: Collection[str], data: Path | None = None
) -> tuple[dict[str, dict[str, str]], str | None]:
    """The candidates' texts of some of a run's queries, or why they cannot be had.

    Args:
        record: the run.
        query_ids: the queries.
        data: the data to read from; by default where the run had its data from.

    Returns:
        Query id -> document id -> text, and None; or nothing, and the reason.

    Raises:
        ListconError: `data` is not the run's data.
    """
    source = read_provenance(record)["data"]
    try:
        task = _task(record, source) if data is None else _given(record, data)
        task.load()
        _check_same(task, record, source)
    except ListconError as error:
        if data is not None:
            raise
        return {}, f"{error} (or give the run's data with --data PATH)"
    rows = (row for row in task.candidate_lists() if row.query_id in query_ids)
    return {row.query_id: dict(zip(row.doc_ids, row.passages, strict=True)) for row in rows}, None


def _task(record: RunRecord, source: Mapping[str, Any]) -> Task:
    if source["source"] == "hub":
        return official_task(record.task)
    if source["source"] == "packaged" and record.task in MINI:
        return mini_task(record.task)
    return _given(record, Path(source["location"]))


def _given(record: RunRecord, data: Path) -> Task:
    return local_task(data, claim=record.task) if record.is_official else local_task(data, name=record.task)


def _check_same(task: Task, record: RunRecord, source: Mapping[str, Any]) -> None:
    wanted = source["content"] if task.content and source["content"] else record.data_revision
    found = task.content if task.content and source["content"] else task.revision
    if found != wanted:
        raise ListconError(f"{task.location} is not the run's data: its revision is {found}, the run's is {wanted}")


def as_json(shown: ShownQuery) -> dict[str, Any]:
    """The query for programs."""
    return {**asdict(shown), "passages": [passage._asdict() for passage in shown.passages]}


def as_text(shown: ShownQuery, style: Style = "terminal", *, full: bool = False) -> str:
    """The query for people: its text and metrics, a table of passages, and the run's signature.

    Args:
        shown: the query.
        style: for the terminal, or Markdown.
        full: whether to show texts in full length.
    """
    iterative = shown.mode == "iterative"
    rows = [_row(passage, iterative, full, style) for passage in shown.passages]
    headers = ["Rank", "Score", *(["Round"] if iterative else []), "Relevance", "cmteb label", "Document", "Text"]
    metrics = ", ".join(f"{measure} {100 * value:.2f}" for measure, value in shown.metrics.items())
    parts = [
        f"Query {shown.query_id}: {shown.query}",
        f"{len(shown.passages)} of {shown.candidates} candidates, {shown.mode} inference; {metrics}",
        tabulate(rows, headers=headers, tablefmt="github" if style == "markdown" else "simple", disable_numparse=True),
    ]
    if shown.missing_texts:
        parts.append(f"No texts: {shown.missing_texts}")
    parts.append(f"`{shown.signature}`" if style == "markdown" else shown.signature)
    return "\n\n".join(parts)


def _row(passage: Passage, iterative: bool, full: bool, style: Style) -> list[str]:
    text = "-" if passage.text is None else passage.text
    text = " ".join(text.split()) if full else shortened(text, _SHORT)
    return [
        str(passage.rank),
        f"{passage.score:.6f}",
        *([str(passage.round)] if iterative else []),
        str(passage.relevance),
        "relevant" if passage.label else "-",
        passage.doc_id,
        text.replace("|", "\\|") if style == "markdown" else text,
    ]
