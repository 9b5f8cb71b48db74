"""The four tasks of C-MTEB reranking, under the names they go by."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, NamedTuple, cast

from listcon_eval.data.task import Task
from listcon_eval.errors import ListconError

if TYPE_CHECKING:
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.types.statistics import RetrievalDescriptiveStatistics


class OfficialTask(NamedTuple):
    """One official task. Split, dataset and revision are read from mteb when asked for.

    Attributes:
        name: mteb's name of the task.
        column: the task's column in the model card's table.
        other_names: further names it is known by.
    """

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

    def statistics(self) -> RetrievalDescriptiveStatistics:
        """The statistics that mteb ships for the split.

        Raises:
            ListconError: this version of mteb ships none.
        """
        shipped = self.mteb_task().metadata.descriptive_stats
        if shipped is None or self.split not in shipped:
            raise ListconError(
                f"This version of mteb ships no descriptive statistics of {self.name} ({self.split}), so "
                "a copy of its data cannot be checked; install mteb>=2.26,<3."
            )
        return cast("RetrievalDescriptiveStatistics", shipped[self.split])


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
    """What a run of an official task is made of, from mteb's metadata and shipped statistics.

    Attributes:
        name: mteb's name.
        aliases: further names it can be asked for by.
        split: the evaluated split.
        dataset: hub id of the dataset.
        revision: its commit hash.
        queries: number of queries.
        documents: number of documents.
        fewest_candidates: candidates of the shortest list.
        mean_candidates: candidates a query, on average.
        most_candidates: candidates of the longest list.
    """

    name: str
    aliases: tuple[str, ...]
    split: str
    dataset: str
    revision: str
    queries: int
    documents: int
    fewest_candidates: int
    mean_candidates: float
    most_candidates: int


def find_official(name: str) -> OfficialTask | None:
    """The official task of this name or alias, or None; case does not matter."""
    return _by_name().get(name.strip().casefold())


def resolve_official(name: str) -> OfficialTask:
    """The official task of this name or alias; case does not matter.

    Raises:
        ListconError: there is none; names those that there are.
    """
    found = find_official(name)
    if found is not None:
        return found
    known = {alias.casefold(): alias for task in OFFICIAL for alias in (task.name, *task.aliases)}
    near = difflib.get_close_matches(name.strip().casefold(), known, n=1)
    hint = f" Did you mean {known[near[0]]}?" if near else ""
    tasks = "; ".join(f"{task.name} ({', '.join(task.aliases)})" for task in OFFICIAL)
    raise ListconError(
        f"Unknown task {name!r}.{hint} Known: {tasks}. The mini benchmark: mini. Data of your own is given "
        "by --data PATH."
    )


def official_task(name: str) -> Task:
    """The official task of this name or alias, with its data still to be loaded (`Task.load`).

    Raises:
        ListconError: there is no such task.
    """
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
    """The official tasks and their sizes. Needs no data and no hub.

    Raises:
        ListconError: the installed mteb ships no statistics of a task.
    """
    infos = []
    for task in OFFICIAL:
        statistics = task.statistics()
        candidates = statistics["top_ranked_statistics"]
        if candidates is None:
            raise ListconError(
                f"mteb's statistics of {task.name} say nothing of candidate lists; install mteb>=2.26,<3."
            )
        infos.append(
            TaskInfo(
                name=task.name,
                aliases=task.aliases,
                split=task.split,
                dataset=task.dataset,
                revision=task.revision,
                queries=statistics["num_queries"],
                documents=statistics["num_documents"],
                fewest_candidates=candidates["min_top_ranked_per_query"],
                mean_candidates=candidates["average_top_ranked_per_query"],
                most_candidates=candidates["max_top_ranked_per_query"],
            )
        )
    return infos


def _by_name() -> dict[str, OfficialTask]:
    return {alias.casefold(): task for task in OFFICIAL for alias in (task.name, *task.aliases)}
