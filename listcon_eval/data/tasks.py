"""Tasks: named candidate lists, held as mteb tasks: how their data is loaded, and what a system gets to rank."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from listcon_eval import mteb_compat
from listcon_eval.data.layouts import DEFAULT_SUBSET, content_hash, read_data
from listcon_eval.errors import ListconError, first_line
from listcon_eval.files import sha256_of_texts
from listcon_eval.records import CandidateList

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

logger = logging.getLogger(__name__)

Source = Literal["hub", "local", "local copy of official data", "packaged", "first stage"]
LOCAL_SPLIT = "test"
# Of the 255 bytes that a file system gives a name, a run's folder needs some 100 for settings, key and `variant`.
_LONGEST_NAME = 150
MINI: tuple[str, ...] = ("MiniMedicalA", "MiniMedicalB", "MiniWeb", "MiniSearch")


class FirstStage(NamedTuple):
    """What a first stage retrieved, of which the best documents of each query are reranked."""

    name: str  # such as "bm25-characters"
    revision: str  # a hash of its file, or the version of what computed it
    top_k: int  # how many documents a query are reranked
    run: dict[str, dict[str, float]]  # query id -> document id -> score, best first, at most `top_k` of them


@dataclass
class Task:
    """One subset and split of a reranking task."""

    # With subset and split in brackets where there are several: `T2Reranking`, `MIRACLReranking[zh]`,
    # `XGlueWPRReranking[zh][test]`; an official one only when the data is the official data.
    name: str
    split: str
    revision: str  # the dataset's hub revision, or the hash of the content of local data
    source: Source
    location: str  # the dataset's hub id, or the path as it was given
    is_official: bool
    mteb_task: AbsTaskRetrieval
    content: str | None = None  # the hash of the content of local data (`content_hash`); None for data from the hub
    limit: int | None = None  # of a trial, how many of the first queries it has; None for all
    relevance: int = 1  # the judgement from which on a document is relevant
    whole: Task | None = None  # what it is a `variant` of; None for the task itself
    subset: str = DEFAULT_SUBSET
    first_stage: FirstStage | None = None  # where the candidates come from, if they are not part of the data

    @property
    def main_score(self) -> str:
        """Mteb's name of the task's main score, such as `ndcg_at_10`."""
        return self.mteb_task.metadata.main_score

    @property
    def languages(self) -> list[str]:
        """The subset's languages and scripts by mteb's metadata, such as `zho-Hans`; local data counts as Chinese."""
        return list(self.mteb_task.metadata.hf_subsets_to_langscripts[self.subset])

    @property
    def has_instructions(self) -> bool:
        """Whether queries come with instructions; they are part of a query's text, as mteb hands it to a model."""
        return "instruction" in self._data()["queries"].column_names

    def statistics(self) -> Mapping[str, Any]:
        """The descriptive statistics that mteb ships for the subset and split; empty when it has none."""
        shipped: Mapping[str, Any] = (self.mteb_task.metadata.descriptive_stats or {}).get(self.split) or {}
        of_subsets: Mapping[str, Mapping[str, Any]] = shipped.get("hf_subset_descriptive_stats", {})
        return of_subsets.get(self.subset, shipped)

    def shipped_sizes(self) -> tuple[int, int]:
        """How many queries and documents there are by mteb's statistics; ListconError when it ships none."""
        statistics = self.statistics()
        candidates = statistics.get("top_ranked_statistics")
        if not candidates:
            raise ListconError(f"this version of mteb has no statistics of {self.name}; install mteb>=2.26,<3")
        # Some of mteb's files count queries and documents only together.
        queries = round(candidates["num_top_ranked"] / candidates["average_top_ranked_per_query"])
        queries = statistics.get("num_queries", queries)
        return queries, statistics.get("num_documents", statistics["num_samples"] - queries)

    def load(self) -> None:
        """Get the data from the hub or its cache, unless it is loaded; ListconError when it cannot be had or read."""
        if self.mteb_task.data_loaded:
            return
        from listcon_eval.hub import snapshot

        # One snapshot, which the task's own code reads: asked by hub id, `datasets` would fall back, without a hub, on
        # whatever revision it used last.
        try:
            folder = snapshot(self.location, revision=self.revision, repo_type="dataset")
        except ListconError as error:
            raise ListconError(
                f"Could not get the data of {self.name}: {error}\n"
                f"Or use a local copy of the data: --data PATH with --tasks {self.name} (a file or a folder)."
            ) from error
        try:
            with mteb_compat.no_progress_bars():
                mteb_compat.load_task(self.mteb_task, str(folder), self.subset, self.split)
        except Exception as error:  # what mteb, datasets and a task's own code say of a snapshot that lacks a part
            raise ListconError(
                f"Could not read the data of {self.name}: {self.location} @ {self.revision} in {folder}: "
                f"{first_line(error)}. If the snapshot is incomplete, delete that folder and run again with a network."
            ) from error

    def qrels(self) -> dict[str, dict[str, int]]:
        """The evaluated queries' judgements: query id -> document id -> relevance (`relevance` or more is relevant)."""
        data = self._data()
        known = {*data["queries"]["id"]}
        return {
            query_id: {doc_id: int(value) for doc_id, value in judged.items()}
            for query_id, judged in data["relevant_docs"].items()
            if judged and query_id in known
        }

    def queries(self) -> dict[str, str]:
        """The evaluated queries: id -> text, as mteb hands it to a model."""
        judged = self.qrels()
        texts = mteb_compat.query_texts(self._data()["queries"])
        return {query_id: text for query_id, text in texts.items() if query_id in judged}

    def documents(self) -> dict[str, str]:
        """All documents: id -> text, as mteb hands it to a model."""
        return mteb_compat.document_texts(self._data()["corpus"])

    def candidate_lists(self) -> list[CandidateList]:
        """The lists mteb evaluates: queries in the data's order, the relevant candidates before the others.

        Within the two groups candidates keep the data's order; those of a first stage keep its order throughout.
        Texts are the ones mteb hands to a model: a document's title and text joined and stripped, a query with its
        instruction. Queries without judgements are left out, as mteb does; a query without candidates has an empty
        list.

        Raises:
            ListconError: no candidate lists in the data, a candidate that is no document or occurs twice in its list,
                or no query with judgements.
        """
        data, judged = self._data(), self.qrels()
        candidates = data["top_ranked"] if self.first_stage is None else self.first_stage.run
        lists = make_candidate_lists(
            self.name,
            data["corpus"],
            data["queries"],
            candidates,
            mteb_compat.relevant_from(judged, self.relevance),
            relevant_first=self.first_stage is None,
        )
        for row in lists:
            doc_id, times = Counter(row.doc_ids).most_common(1)[0] if row.doc_ids else ("", 0)
            if times > 1:
                raise ListconError(
                    f"Query {row.query_id}: candidate {doc_id!r} is listed twice; expected each document once."
                )
        if not lists:
            raise ListconError(f"{self.name}: none of the {len(data['queries'])} queries has a relevance judgement.")
        if self.relevance > 1:
            lists = [
                row._replace(grades=tuple(judged[row.query_id].get(doc_id, 0) for doc_id in row.doc_ids))
                for row in lists
            ]
        return lists

    def check_measurable(self) -> None:
        """Refuse data on which every order of the candidates gives the same numbers; warn where nDCG alone differs."""
        lists = self.candidate_lists()
        if any(min(row.relevance, default=0) <= 0 < max(row.relevance, default=0) for row in lists):
            return
        # Measures that know grades tell two relevant candidates apart, and take a judgement below 0 for one of 0.
        if any(len({max(value, 0) for value in row.grades or row.relevance}) > 1 for row in lists):
            logger.warning(
                "%s: no query (of %s) has both a positive and a negative candidate: every order has the same MAP and "
                "MRR. nDCG knows grades: choose --measure mteb:ndcg_at_10 where results are compared",
                self.name,
                len(lists),
            )
            return
        where, remedy = self.location, "Give at least one query with both"
        if self.whole is not None:
            remedies = ["a larger --limit"] * (self.limit is not None) + ["a lower --relevance"] * (self.relevance > 1)
            where, remedy = self.name, f"Give {' or '.join(remedies)}"
        relevant = sum(any(value > 0 for value in row.relevance) for row in lists)
        irrelevant = sum(any(value <= 0 for value in row.relevance) for row in lists)
        raise ListconError(
            f"{where}: no query (of {len(lists)}) has both a positive and a negative candidate (with a positive: "
            f"{relevant}, with a negative: {irrelevant}): nothing can be measured. {remedy}."
        )

    def variant(self, *, limit: int | None = None, relevance: int = 1) -> Task:
        """The task measured otherwise, under another name: its numbers are no result of the task.

        Args:
            limit: how many of the first evaluated queries to take, for a trial; None for all.
            relevance: the judgement from which on a document is relevant. Measures that know grades keep all of them.

        Raises:
            ListconError: one of them is below 1, no judgement is as high as `relevance`, or nothing can be measured.
        """
        if limit is None and relevance == 1:
            return self
        for name, value in (("limit", limit), ("relevance", relevance)):
            if value is not None and value < 1:
                raise ListconError(f"{name} is {value}: give a whole number from 1 up")
        judged = self.qrels()
        judged = {query_id: judged[query_id] for query_id in [*self.queries()][:limit]}
        highest = max((value for row in judged.values() for value in row.values()), default=0)
        if relevance > max(1, highest):
            raise ListconError(
                f"relevance is {relevance}, and no judgement of {self.name} is above {highest}: give less"
            )
        mteb_task = copy.copy(self.mteb_task)
        data = {**self._data(), "relevant_docs": judged}
        set_data(mteb_task, self.split, cast("RetrievalSplitData", data), self.subset)
        name = self.name
        name += "" if limit is None else f"-first{limit}"
        name += "" if relevance == 1 else f"-relevance{relevance}"
        own = replace(
            self, name=name, is_official=False, mteb_task=mteb_task, limit=limit, relevance=relevance, whole=self
        )
        if self.first_stage is None:
            own.check_measurable()
        return own

    def _data(self) -> RetrievalSplitData:
        self.load()
        return self.mteb_task.dataset[self.subset][self.split]


def set_data(mteb_task: AbsTaskRetrieval, split: str, data: RetrievalSplitData, subset: str = DEFAULT_SUBSET) -> None:
    """Give an mteb task its data; `mteb.evaluate` then neither loads nor unloads it."""
    mteb_task.dataset = {subset: {split: data}}
    mteb_task.data_loaded = True


def reranking_of(task: Task, first_stage: FirstStage, documents: Mapping[str, str]) -> Task:
    """A loaded task whose candidates are what a first stage retrieved. It is another task than the whole retrieval.

    Its revision is a hash of the data's revision, the candidates and their texts, of which a revision of local data
    covers only those that its own lists hold. `documents` are the task's (`Task.documents`).

    Raises:
        ListconError: the names of task and first stage are too long together.
    """
    name, revision, top_k, run = first_stage
    candidates = {query_id: list(scores) for query_id, scores in run.items()}
    texts = {doc_id: documents[doc_id] for doc_ids in candidates.values() for doc_id in doc_ids}
    digest = hashlib.sha256(json.dumps([task.revision, task.name, top_k, run, texts]).encode()).hexdigest()
    content = f"sha256-{digest[:40]}"
    own_name = f"{task.name}[{name}-top-{top_k}]"
    check_name_length(own_name)
    return replace(
        task,
        name=own_name,
        revision=content,
        source="first stage",
        is_official=False,
        content=content,
        mteb_task=mteb_compat.reranking_task(task.mteb_task, task.subset, task.split, candidates, name, revision),
        first_stage=first_stage,
    )


def hash_of_documents(texts: Mapping[str, str]) -> str:
    """A hash of documents, given as id -> text, in whatever order."""
    return f"sha256-{sha256_of_texts([part for pair in sorted(texts.items()) for part in pair])}"


def check_name_length(name: str) -> None:
    """Refuse a task name from which no folder's name can be made: that would show when all work is done."""
    if (length := len(name.encode())) > _LONGEST_NAME:
        raise ListconError(
            f"The task name {name!r} has {length} bytes; expected at most {_LONGEST_NAME}: folders are named after it. "
            "Give shorter names: --data NAME=PATH, and another file name to a first stage."
        )


def make_candidate_lists(
    task: str,
    corpus: Dataset,
    queries: Dataset,
    top_ranked: Mapping[str, Iterable[str]] | None,
    judged: Mapping[str, Mapping[str, int]] | None = None,
    *,
    relevant_first: bool = True,
) -> list[CandidateList]:
    """Make candidate lists of the parts of a task as mteb holds them.

    With judgements, only their queries are taken and, unless `relevant_first` is False, relevant candidates come first;
    without, every query is taken, its candidates in the order of `top_ranked`.

    Raises:
        ListconError: no candidate lists, or a candidate that is no document.
    """
    if top_ranked is None:
        raise ListconError(f"{task}: the data has no candidate lists (top_ranked); reranking needs them.")
    passages = mteb_compat.document_texts(corpus)
    lists = []
    for query_id, query in mteb_compat.query_texts(queries).items():
        if judged is not None and query_id not in judged:
            continue
        relevance = judged[query_id] if judged is not None else {}
        doc_ids = list(top_ranked.get(query_id, ()))
        if relevant_first:
            doc_ids.sort(key=lambda doc_id: relevance.get(doc_id, 0) <= 0)  # stable: False, relevant, first
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


def mini_names(name: str) -> tuple[str, ...]:
    """The mini tasks that a name stands for: all of them for "mini", one, or none. Case does not matter."""
    return tuple(task for task in MINI if name.casefold() in ("mini", task.casefold()))


def mini_task(name: str) -> Task:
    """One of `MINI`, the mini benchmark that comes with this package, as a task; it comes back loaded."""
    path = Path(__file__).parent / "mini" / f"{name}.jsonl"
    return loaded_task(read_data(path, LOCAL_SPLIT), name, "packaged with listcon_eval", "packaged")


def loaded_task(data: RetrievalSplitData, name: str, location: str, source: Source = "local") -> Task:
    """A task of data that is no official data; `Task.candidate_lists` says what is refused."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    revision = content_hash(data)
    metadata = TaskMetadata(
        name=name,
        description=f"Reranking data ({source}) that is no official task: {name}",
        dataset={"path": f"{source}/{name}", "revision": revision},
        type="Reranking",
        category="t2t",
        modalities=["text"],
        eval_splits=[LOCAL_SPLIT],
        eval_langs=["cmn-Hans"],
        main_score="map_at_1000",
        is_public=False,
    )
    # mteb keeps a task's metadata on its class (unloading a task drops an instance's own): a class for each data set
    mteb_task = cast("AbsTaskRetrieval", type("LocalReranking", (AbsTaskRetrieval,), {"metadata": metadata})())
    set_data(mteb_task, LOCAL_SPLIT, data)
    task = Task(
        name=name,
        split=LOCAL_SPLIT,
        revision=revision,
        source=source,
        location=location,
        is_official=False,
        mteb_task=mteb_task,
        content=revision,
    )
    task.candidate_lists()  # a candidate that is no document should be known before a model is loaded
    return task
