"""Any system as a model of mteb: the only code here that speaks mteb's model protocol.

mteb takes a class with `predict` for a cross-encoder, which sees pairs and never a list, and one with `encode` for an
encoder, so there are none here: `SearchProtocol` hands over one candidate list a query, which is what every system of
this package takes.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mteb.models.model_meta import ModelMeta, ScoringFunction

from listcon_eval.data import candidate_lists
from listcon_eval.errors import ListconError
from listcon_eval.inference import Journal, ListConRanker, check_list
from listcon_eval.progress import Progress, no_progress
from listcon_eval.records import NO_PRECISION, CandidateList, Mode, ScoredList
from listcon_eval.systems.detection import registered
from listcon_eval.systems.listconranker import ListConRankerSystem
from listcon_eval.systems.system import Job, System

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata


class QueriesFailedError(ListconError):
    """Some queries of a search could not be ranked; the others were.

    Attributes:
        failures: what was wrong, by query id.
        scored: the lists that were ranked.
    """

    def __init__(self, failures: dict[str, str], scored: list[ScoredList]) -> None:
        super().__init__(f"{len(failures)} queries failed, first: {next(iter(failures.values()))}")
        self.failures = failures
        self.scored = scored


class SystemSearch:
    """Reranks mteb's candidate lists with a system (mteb's `SearchProtocol`).

    Args:
        system: the loaded system.
        mode: one of its modes; its first when None.
        progress: told of units that are done.
    """

    def __init__(self, system: System, mode: str | None = None, *, progress: Progress = no_progress) -> None:
        self.system = system
        self.mode = system.modes[0] if mode is None else mode
        self.progress = progress
        self.journal: Journal | None = None
        """Keeps what is finished, for a next start."""
        self.keep_going = False
        """Whether the other queries are ranked when one fails; the search then ends with `QueriesFailedError`."""
        self.judgements: Mapping[str, Mapping[str, int]] | None = None
        """The task's judgements, by query id: mteb hands over none, and the oracle needs them."""
        self.scored: list[ScoredList] = []
        """The lists of the last search, each passage with its score, in candidate order."""
        self._corpus: Dataset | None = None

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Who the model is, with mode and precision as experiment, so that no two modes share a result's path."""
        return model_meta(self.system, self.mode)

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
        """Score the candidates of every query.

        Args:
            queries: mteb's queries, columns `id` and `text`.
            task_metadata: the task's metadata, for messages and prompts.
            hf_split: the evaluated split.
            hf_subset: the evaluated subset.
            top_ranked: the candidates of each query, by id.

        Returns:
            For every query, whether it has candidates or not, its documents' scores as Python floats.

        Raises:
            ListconError: without candidate lists, for a candidate that the corpus lacks, or as the system.
            QueriesFailedError: with `keep_going`, after all other queries have been ranked.
        """
        if self._corpus is None:
            raise ListconError("search was called before index: mteb calls index with the corpus first")
        lists = self._with_judgements(candidate_lists(task_metadata.name, self._corpus, queries, top_ranked))
        job = Job(task_metadata, hf_split, hf_subset, self.progress, self.journal, self.keep_going)
        failures = self._unusable(lists, job)
        filled = [row for row in lists if row.passages and row.query_id not in failures]
        ranked = self.system.rank(filled, self.mode, job) if filled else []
        by_query = {
            row.query_id: ScoredList(row.query_id, row.doc_ids, result.scores, result.rounds)
            for row, result in zip(filled, ranked, strict=True)
        }
        self.scored = [by_query.get(row.query_id, ScoredList(row.query_id, (), (), ())) for row in lists]
        for row in self.scored:
            bad = sum(not math.isfinite(score) for score in row.scores)
            if bad:
                failures[row.query_id] = _not_numbers(f"{task_metadata.name}, query {row.query_id}", bad, row)
        if failures and not self.keep_going:
            raise ListconError(next(iter(failures.values())))
        if failures:
            raise QueriesFailedError(failures, [row for row in self.scored if row.query_id not in failures])
        return {row.query_id: dict(zip(row.doc_ids, row.scores, strict=True)) for row in self.scored}

    def _with_judgements(self, lists: list[CandidateList]) -> list[CandidateList]:
        if not self.system.needs_judgements:
            return lists
        if self.judgements is None:
            raise ListconError(
                f"{self.system.name} ranks by the task's judgements, which mteb does not hand over: set `judgements`"
            )
        known = self.judgements
        return [
            row._replace(relevance=tuple(known.get(row.query_id, {}).get(doc_id, 0) for doc_id in row.doc_ids))
            for row in lists
        ]

    def _unusable(self, lists: list[CandidateList], job: Job) -> dict[str, str]:
        """What is wrong with the lists that cannot be ranked, by query id; a query without candidates can.

        Raises:
            ListconError: there is one, and the search is not to keep going.
        """
        failures: dict[str, str] = {}
        for row in lists if self.system.reads_texts else ():
            try:
                if row.passages:
                    check_list(job.name_of(row), row.query, row.passages)
            except ListconError as error:
                if not self.keep_going:
                    raise
                failures[row.query_id] = str(error)
        return failures


class ListConSearch(SystemSearch):
    """Reranks mteb's candidate lists with a `ListConRanker`.

    Switching `mode` between evaluations of one task reuses the texts' encoding.

    Args:
        ranker: the loaded ranker.
        mode: the inference mode.
        progress: told of texts encoded and passages ranked.
    """

    def __init__(self, ranker: ListConRanker, mode: Mode = "iterative", *, progress: Progress = no_progress) -> None:
        super().__init__(ListConRankerSystem(ranker), mode, progress=progress)
        self.ranker = ranker


def _not_numbers(name: str, bad: int, row: ScoredList) -> str:
    return (
        f"{name}: {bad} of {len(row.scores)} scores are not finite numbers; if the weights are, a value overflowed on "
        "the way: try --precision precise"
    )


def model_meta(system: System, mode: str) -> ModelMeta:
    """Mteb's metadata of a system in one mode; for a model of mteb's registry on top of what that says of it."""
    settings: dict[str, Any] = {"mode": mode}
    if system.precision != NO_PRECISION:
        settings["precision"] = system.precision
    own: dict[str, Any] = {
        "loader": None,  # mteb's own loader did not make these numbers (that of ListConRanker does not run)
        "loader_kwargs": {},
        "experiment_kwargs": {**settings, **system.experiment()},
        "revision": system.revision,
    }
    known = registered(system.name)
    if known is not None:
        return known.model_copy(update=own)
    facts: dict[str, Any] = {
        "n_parameters": None,
        "memory_usage_mb": None,
        "max_tokens": None,
        "embed_dim": None,
        "framework": [],
        "model_type": ["cross-encoder"],  # of mteb's types the one that ranks candidates
        **system.facts(),
    }
    return ModelMeta(
        **own,
        **facts,
        name=system.name,
        release_date=None,
        languages=["zho-Hans"],
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        similarity_fn_name=ScoringFunction.CUSTOM,
        use_instructions=None,
        training_datasets=None,
    )
