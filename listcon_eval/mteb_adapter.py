"""Any system as a model of mteb, for those who call `mteb.evaluate` themselves.

mteb takes a class with `predict` for a cross-encoder, which sees pairs and never a list, and one with `encode` for an
encoder, so there are none here: `SearchProtocol` hands over one candidate list a query.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from listcon_eval import mteb_compat
from listcon_eval.data import check_texts, make_candidate_lists
from listcon_eval.errors import ListconError
from listcon_eval.inference.ranker import ListConRanker
from listcon_eval.metrics import mteb as mteb_protocol
from listcon_eval.progress import Progress, no_progress
from listcon_eval.records import Mode
from listcon_eval.systems.base import RankContext, System
from listcon_eval.systems.listconranker import ListConRankerSystem

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models.model_meta import ModelMeta


class SystemSearch:
    """Reranks mteb's candidate lists with a system (mteb's `SearchProtocol`).

    `mteb.evaluate` keeps results in a cache, and finds them there by the task's name alone: for data of your own give
    `cache=None` or `overwrite_strategy="always"`, or it gives old numbers after the data has changed.

    Args:
        system: the loaded system.
        mode: one of its modes; its first when None.
        progress: told of units that are done.

    Raises:
        ListconError: the system ranks by judgements, which mteb does not hand over, or has no such mode.
    """

    def __init__(self, system: System, mode: str | None = None, *, progress: Progress = no_progress) -> None:
        if system.needs_judgements:
            raise ListconError(
                f"{system.name} ranks by the task's judgements, which mteb does not hand to a model: use "
                "`listcon_eval.evaluate` or `listcon-eval run -m oracle`"
            )
        if mode is not None and mode not in system.modes:
            raise ListconError(f"{system.name} has no mode {mode!r}: give one of {', '.join(system.modes)}, or None")
        self.system = system
        self.mode = system.modes[0] if mode is None else mode
        self._progress = progress
        self._corpus: Dataset | None = None

    @property
    def mteb_model_meta(self) -> "ModelMeta":
        """Who the model is, with mode and dtype as experiment, so that no two modes share a result's path."""
        settings = self.system.run_settings(self.mode)
        return mteb_compat.model_meta(self.system.name, self.system.revision, settings, self.system.model_metadata())

    def index(self, corpus: "Dataset", **_: object) -> None:
        """Take note of the corpus: passages are read when it is known which ones are candidates."""
        self._corpus = corpus

    def search(
        self,
        queries: "Dataset",
        *,
        task_metadata: "TaskMetadata",
        hf_split: str,
        hf_subset: str,
        top_ranked: Mapping[str, list[str]] | None = None,
        **_: object,
    ) -> dict[str, dict[str, float]]:
        """Score the candidates of every query: query id -> document id -> score, for those without candidates too.

        The arguments are mteb's; `queries` has the columns `id` and `text`, `top_ranked` the candidates by query id.

        Raises:
            ListconError: without candidate lists, for a task of other things than texts, for a candidate that the
                corpus lacks, or as `System.rank`.
        """
        check_texts(task_metadata)
        if self._corpus is None:
            raise ListconError("search was called before index: mteb calls index with the corpus first")
        lists = make_candidate_lists(task_metadata.name, self._corpus, queries, top_ranked)
        context = RankContext(task_metadata, hf_split, hf_subset, self._progress)
        return mteb_protocol.run_of(lists, self.system.rank(lists, self.mode, context).lists)


class ListConSearch(SystemSearch):
    """Reranks mteb's candidate lists with a `ListConRanker`.

    Args:
        ranker: the loaded ranker.
        mode: the inference mode.
        progress: told of texts encoded and passages ranked.
    """

    def __init__(self, ranker: ListConRanker, mode: Mode = "iterative", *, progress: Progress = no_progress) -> None:
        super().__init__(ListConRankerSystem(ranker), mode, progress=progress)
