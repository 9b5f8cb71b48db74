"""Tasks: named candidate lists, held as mteb tasks. The official ones, and the packaged mini benchmark."""

from __future__ import annotations

import copy
import difflib
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from listcon_eval import mteb_compat
from listcon_eval.data.layouts import read_data
from listcon_eval.errors import ListconError
from listcon_eval.records import CandidateList

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

    from listcon_eval.data.layouts import RetrievalData

Source = Literal["hub", "local", "local copy of official data", "packaged"]
LOCAL_SPLIT = "test"
MINI: tuple[str, ...] = ("MiniMedicalA", "MiniMedicalB", "MiniWeb", "MiniSearch")
_ALL_MINI, _ALL_OFFICIAL = "mini", "official"


@dataclass
class Task:
    """One reranking task on one split.

    Attributes:
        name: the task's name; an official one only when the data is the official data.
        revision: the dataset's hub revision, or the hash of the content of local data.
        location: the dataset's hub id, or the path as it was given.
        content: the hash of the content of local data (`RetrievalData.content_hash`); None for data from the hub.
        limit: of a trial, how many of the first queries it has; None for all.
        whole: what a trial is a trial of; None for a whole task.
    """

    name: str
    split: str
    revision: str
    source: Source
    location: str
    is_official: bool
    mteb_task: AbsTaskRetrieval
    content: str | None = None
    limit: int | None = None
    whole: Task | None = None

    def load(self) -> None:
        """Get the data from the hub or its cache, unless it is loaded already.

        Raises:
            ListconError: neither has it.
        """
        if not self.mteb_task.data_loaded:
            set_data(self.mteb_task, self.split, _fetch(self))

    def qrels(self) -> dict[str, dict[str, int]]:
        """The evaluated queries' judgements: query id -> document id -> relevance (above 0 is relevant)."""
        relevant = self._data()["relevant_docs"]
        return {query_id: dict(judged) for query_id, judged in relevant.items() if judged}

    def candidate_lists(self) -> list[CandidateList]:
        """The lists mteb evaluates: queries in the data's order, the relevant candidates before the others.

        Within the two groups candidates keep the data's order. Texts are the ones mteb hands to a model: a document's
        title and text joined and stripped. Queries without judgements are left out, as mteb does; a query without
        candidates has an empty list.

        Raises:
            ListconError: no candidate lists in the data, a candidate that is no document or occurs twice in its list,
                or no query with judgements.
        """
        data = self._data()
        lists = candidate_lists(self.name, data["corpus"], data["queries"], data["top_ranked"], self.qrels())
        for row in lists:
            if len(set(row.doc_ids)) < len(row.doc_ids):
                twice = next(doc_id for i, doc_id in enumerate(row.doc_ids) if doc_id in row.doc_ids[:i])
                raise ListconError(
                    f"Query {row.query_id}: candidate {twice!r} is listed twice; expected each document once."
                )
        if not lists:
            raise ListconError(f"{self.name}: none of the {len(data['queries'])} queries has a relevance judgement.")
        return lists

    def first_queries(self, limit: int) -> Task:
        """A trial: the first evaluated queries alone, under another name, since its numbers are no result of the task.

        Raises:
            ListconError: the limit is below 1, or as `load`.
        """
        if limit < 1:
            raise ListconError(f"limit is {limit}: give how many of the first queries to take, 1 or more")
        judged = self.qrels()
        first = [row.query_id for row in self.candidate_lists()[:limit]]
        data = {**self._data(), "relevant_docs": {query_id: judged[query_id] for query_id in first}}
        mteb_task = copy.copy(self.mteb_task)
        set_data(mteb_task, self.split, cast("RetrievalSplitData", data))
        name = f"{self.name}-first{limit}"
        return replace(self, name=name, is_official=False, mteb_task=mteb_task, limit=limit, whole=self)

    def _data(self) -> RetrievalSplitData:
        self.load()
        return self.mteb_task.dataset["default"][self.split]


def set_data(mteb_task: AbsTaskRetrieval, split: str, data: RetrievalSplitData) -> None:
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

    With judgements, only their queries are taken and relevant candidates come first; without, every query is taken, its
    candidates in the order of `top_ranked`.

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


def _fetch(task: Task) -> RetrievalSplitData:
    """Read a task's data from one snapshot at its revision.

    Asking `datasets` by hub id instead would fall back, without a hub, on whatever revision it used last.
    """
    from listcon_eval.hub import snapshot

    try:
        folder = snapshot(task.location, revision=task.revision, repo_type="dataset")
    except ListconError as error:
        raise ListconError(
            f"Could not get the data of {task.name}: {error}\n"
            f"Or use a local copy of the data: --data PATH with --tasks {task.name} (a file or a folder)."
        ) from error
    try:
        with no_progress_bars():
            return mteb_compat.load_split(str(folder), task.revision, task.split)
    except (OSError, ValueError) as error:  # what mteb and datasets say of a snapshot that lacks a part
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ListconError(
            f"Could not read the data of {task.name}: {task.location} @ {task.revision} in {folder}: {reason}. If the "
            "snapshot is incomplete, delete that folder and run again with a network."
        ) from error


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Switch the bars of `datasets` off, which would run through a command's output; on again only if they were on."""
    import datasets

    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()


class OfficialTask(NamedTuple):
    """One of the four tasks of C-MTEB reranking; `column` is its column in the model card's table."""

    name: str
    column: str
    other_names: tuple[str, ...]

    @property
    def aliases(self) -> tuple[str, ...]:
        """Every accepted name other than `name`; case does not matter."""
        return tuple(alias for alias in (self.column, *self.other_names) if alias != self.name)

    @property
    def card_name(self) -> str:
        """The data set's name in a model card's results, such as `MTEB CMedQAv1`."""
        return next(name for name in self.other_names if name.startswith("MTEB "))

    @property
    def card_dataset(self) -> str:
        """The data set's type in a model card's results, such as `C-MTEB/CMedQAv1-reranking`."""
        return next(name for name in self.other_names if name.startswith("C-MTEB/"))

    @property
    def split(self) -> str:
        """The one split mteb evaluates."""
        (split,) = self.mteb_task().metadata.eval_splits
        return split

    @property
    def dataset(self) -> str:
        """The dataset's hub id."""
        return self.mteb_task().metadata.dataset["path"]

    @property
    def revision(self) -> str:
        """The dataset's commit hash, as pinned by mteb."""
        return self.mteb_task().metadata.revision

    def mteb_task(self) -> AbsTaskRetrieval:
        """A fresh mteb task, without data."""
        import mteb

        return cast("AbsTaskRetrieval", mteb.get_task(self.name))

    def statistics(self) -> Mapping[str, Any]:
        """The descriptive statistics that mteb ships for the split."""
        shipped = self.mteb_task().metadata.descriptive_stats
        if shipped is None or self.split not in shipped:
            raise ListconError(f"this version of mteb has no statistics of {self.name}; install mteb>=2.26,<3")
        return cast("Mapping[str, Any]", shipped[self.split])


OFFICIAL: tuple[OfficialTask, ...] = (
    OfficialTask("CMedQAv1-reranking", "cMedQA1.0", ("CMedQAv1", "MTEB CMedQAv1", "C-MTEB/CMedQAv1-reranking")),
    OfficialTask("CMedQAv2-reranking", "cMedQA2.0", ("CMedQAv2", "MTEB CMedQAv2", "C-MTEB/CMedQAv2-reranking")),
    OfficialTask(
        "MMarcoReranking",
        "MMarcoReranking",
        ("Mmarco-reranking", "MTEB MMarcoReranking", "C-MTEB/Mmarco-reranking"),
    ),
    OfficialTask("T2Reranking", "T2Reranking", ("MTEB T2Reranking", "C-MTEB/T2Reranking")),
)


class TaskInfo(NamedTuple):
    """An official task and its size, from mteb's metadata and statistics; candidates are counted per query."""

    name: str
    aliases: tuple[str, ...]
    split: str
    dataset: str
    revision: str
    queries: int
    documents: int
    min_candidates: int
    mean_candidates: float
    max_candidates: int


def find_official(name: str) -> OfficialTask | None:
    """The official task of this name or alias, or None; case does not matter."""
    wanted = name.strip().casefold()
    return next((task for task in OFFICIAL if wanted in map(str.casefold, (task.name, *task.aliases))), None)


def resolve_official(name: str) -> OfficialTask:
    """As `find_official`.

    Raises:
        ListconError: there is no such task; the message names those that there are.
    """
    found = find_official(name)
    if found is not None:
        return found
    known = {alias.casefold(): alias for task in OFFICIAL for alias in (task.name, *task.aliases)}
    near = difflib.get_close_matches(name.strip().casefold(), known, n=1)
    hint = f" Did you mean {known[near[0]]}?" if near else ""
    tasks = "; ".join(f"{task.name} ({', '.join(task.aliases)})" for task in OFFICIAL)
    raise ListconError(
        f"Unknown task {name!r}.{hint} Known: {tasks}; mini for the mini benchmark. Give your own data by --data PATH."
    )


def official_task(name: str) -> Task:
    """The official task of this name or alias (`resolve_official`), with its data still to be loaded."""
    official = resolve_official(name)
    return Task(
        name=official.name,
        split=official.split,
        revision=official.revision,
        source="hub",
        location=official.dataset,
        is_official=True,
        mteb_task=official.mteb_task(),
    )


def list_tasks() -> list[TaskInfo]:
    """The official tasks and their sizes. Needs no data and no hub."""
    infos = []
    for task in OFFICIAL:
        statistics = task.statistics()
        candidates = statistics["top_ranked_statistics"]
        infos.append(
            TaskInfo(
                name=task.name,
                aliases=task.aliases,
                split=task.split,
                dataset=task.dataset,
                revision=task.revision,
                queries=statistics["num_queries"],
                documents=statistics["num_documents"],
                min_candidates=candidates["min_top_ranked_per_query"],
                mean_candidates=candidates["average_top_ranked_per_query"],
                max_candidates=candidates["max_top_ranked_per_query"],
            )
        )
    return infos


def mini_names(name: str) -> tuple[str, ...]:
    """The mini tasks that a name stands for: all of them for "mini", one, or none. Case does not matter."""
    if name.casefold() == _ALL_MINI:
        return MINI
    return tuple(task for task in MINI if task.casefold() == name.casefold())


def mini_task(name: str) -> Task:
    """One of `MINI`, the mini benchmark that comes with this package, as a task; it comes back loaded."""
    with as_file(files("listcon_eval.data").joinpath("mini", f"{name}.jsonl")) as path:
        return loaded_task(read_data(path, LOCAL_SPLIT), name, "packaged with listcon_eval", "packaged")


def split_names(names: str) -> list[str]:
    """The names in a text that separates them by commas; at least one, or a ListconError."""
    found = [name.strip() for name in names.split(",") if name.strip()]
    if not found:
        raise ListconError(f"{names!r} names no task: give names separated by commas, or official, or mini")
    return found


def tasks_named(names: str) -> list[Task]:
    """The tasks of names separated by commas, each once: official, packaged, or `mini` or `official` for all of a kind.

    Raises:
        ListconError: there is no task of a name, or no name.
    """
    tasks: list[Task] = []
    for name in split_names(names):
        if name.casefold() == _ALL_OFFICIAL:
            tasks += [official_task(task.name) for task in OFFICIAL]
        else:
            mini = mini_names(name)
            tasks += [mini_task(task) for task in mini] if mini else [official_task(name)]
    return list({task.name: task for task in tasks}.values())


def loaded_task(data: RetrievalData, name: str, location: str, source: Source = "local") -> Task:
    """A task of data that is no official data; `Task.candidate_lists` says what is refused."""
    revision = data.content_hash()
    task = Task(
        name=name,
        split=LOCAL_SPLIT,
        revision=revision,
        source=source,
        location=location,
        is_official=False,
        mteb_task=_own_mteb_task(name, revision, source),
        content=revision,
    )
    set_data(task.mteb_task, LOCAL_SPLIT, data.split_data())
    task.candidate_lists()  # a candidate that is no document should be known before a model is loaded
    return task


def _own_mteb_task(name: str, revision: str, source: Source) -> AbsTaskRetrieval:
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

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
    return cast("AbsTaskRetrieval", type("LocalReranking", (AbsTaskRetrieval,), {"metadata": metadata})())
