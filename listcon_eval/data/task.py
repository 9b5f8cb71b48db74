"""A task: named candidate lists, held as the mteb task that `mteb.evaluate` takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from listcon_eval.errors import ListconError
from listcon_eval.records import CandidateList

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

Source = Literal["hub", "local", "local copy of official data", "packaged"]


@dataclass
class Task:
    """One reranking task on one split.

    Attributes:
        name: the task's name; an official one only when the data is the official data.
        split: the evaluated split.
        revision: the dataset's hub revision, or `sha256-` and 40 hexadecimal digits of the content of local
            data.
        source: where the data comes from.
        location: the dataset's hub id, or the path as it was given.
        is_official: whether the data is that of an official task.
        mteb_task: the task as mteb runs it.
        content: the hash of the content of local data, as in `revision`; None for data from the hub.
    """

    name: str
    split: str
    revision: str
    source: Source
    location: str
    is_official: bool
    mteb_task: AbsTaskRetrieval
    content: str | None = None

    def load(self) -> None:
        """Get the data, from the hub or its cache; nothing happens when it is there already.

        Raises:
            ListconError: neither the hub nor the hub's cache has it; says what was tried and how to go on.
        """
        if not self.mteb_task.data_loaded:
            from listcon_eval.data.fetch import fetch_split

            fill(self.mteb_task, self.split, fetch_split(self.name, self.location, self.revision, self.split))

    def qrels(self) -> dict[str, dict[str, int]]:
        """The evaluated queries' judgements: query id -> document id -> relevance (above 0 is relevant)."""
        relevant = self._data()["relevant_docs"]
        return {query_id: dict(judged) for query_id, judged in relevant.items() if judged}

    def candidate_lists(self) -> list[CandidateList]:
        """The lists mteb evaluates: queries in the data's order, the relevant candidates before the others.

        Within the two groups candidates keep the data's order: the order of the original C-MTEB files. Texts
        are the ones mteb hands to a model: a document's title and text joined and stripped. Queries without
        judgements are left out, as mteb does; a query without candidates has an empty list.

        Raises:
            ListconError: no candidate lists in the data, a candidate that is no document or occurs twice in
                its list, or no query with judgements.
        """
        data = self._data()
        judged = self.qrels()
        lists = candidate_lists(self.name, data["corpus"], data["queries"], data["top_ranked"], judged)
        for row in lists:
            if len(set(row.doc_ids)) < len(row.doc_ids):
                twice = next(doc_id for i, doc_id in enumerate(row.doc_ids) if doc_id in row.doc_ids[:i])
                raise ListconError(
                    f"Query {row.query_id}: candidate {twice!r} is listed twice; expected each document once."
                )
        if not lists:
            raise ListconError(f"{self.name}: none of the {len(data['queries'])} queries has a relevance judgement.")
        return lists

    def _data(self) -> RetrievalSplitData:
        if not self.mteb_task.data_loaded:
            self.load()
        return self.mteb_task.dataset["default"][self.split]


def fill(mteb_task: AbsTaskRetrieval, split: str, data: RetrievalSplitData) -> None:
    """Give an mteb task its data; `mteb.evaluate` then neither loads nor unloads it."""
    mteb_task.dataset = {"default": {split: data}}
    mteb_task.data_loaded = True


def candidate_lists(
    task: str,
    corpus: Dataset,
    queries: Dataset,
    top_ranked: Mapping[str, Sequence[str]] | None,
    judged: Mapping[str, Mapping[str, int]] | None = None,
) -> list[CandidateList]:
    """Make candidate lists of the parts of a task as mteb holds them.

    Args:
        task: the task's name, for messages.
        corpus: the documents: `id`, `text` and perhaps `title`.
        queries: the queries: `id` and `text`.
        top_ranked: the candidates' ids by query id; a query that is absent has an empty list.
        judged: the judgements: only their queries are taken, and relevant candidates come first. None: every
            query, candidates in the order of `top_ranked`, nothing relevant.

    Raises:
        ListconError: no candidate lists, or a candidate that is no document.
    """
    from mteb._create_dataloaders import _corpus_to_dict, _retrieval_texts
    from mteb.types import PromptType

    if top_ranked is None:
        raise ListconError(f"{task}: the data has no candidate lists (top_ranked); reranking needs them.")
    passages = {row["id"]: _corpus_to_dict(row)["text"] for row in corpus}
    lists = []
    texts = _retrieval_texts(queries, PromptType.query)
    for query_id, query in zip(queries["id"], texts, strict=True):
        if judged is not None and query_id not in judged:
            continue
        relevance = judged[query_id] if judged is not None else {}
        doc_ids = sorted(  # stable: False, relevant, first
            top_ranked.get(query_id, ()), key=lambda doc_id: relevance.get(doc_id, 0) <= 0
        )
        absent = next((doc_id for doc_id in doc_ids if doc_id not in passages), None)
        if absent is not None:
            raise ListconError(f"Query {query_id}: candidate {absent!r} is not in the corpus.")
        lists.append(
            CandidateList(
                query_id=query_id,
                query=query,
                doc_ids=tuple(doc_ids),
                passages=tuple(passages[doc_id] for doc_id in doc_ids),
                relevance=tuple(int(relevance.get(doc_id, 0)) for doc_id in doc_ids),
            )
        )
    return lists
