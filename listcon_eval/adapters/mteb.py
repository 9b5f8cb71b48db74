"""ListConRanker as a model of mteb: the only code here that speaks mteb's model protocol.

mteb takes a class with `predict` for a cross-encoder, which sees pairs and never a list, so there is none here:
`SearchProtocol` hands over one candidate list a query, which is what a listwise ranker needs.
"""

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mteb
from mteb.models.model_meta import ModelMeta, ScoringFunction

from listcon_eval.errors import ListconError
from listcon_eval.inference import EncodedLists, Journal, ListConRanker, check_list
from listcon_eval.model import PUBLISHED_ID
from listcon_eval.progress import Progress, no_progress
from listcon_eval.records import CandidateList, Mode, ScoredList
from listcon_eval.tasks import candidate_lists

if TYPE_CHECKING:
    from datasets import Dataset
    from mteb.abstasks.task_metadata import TaskMetadata

DEFAULT_MAX_LENGTH = 512


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


class ListConSearch:
    """Reranks mteb's candidate lists with a `ListConRanker` (mteb's `SearchProtocol`).

    Switching `mode` between evaluations of one task reuses the texts' encoding.

    Args:
        ranker: the loaded ranker.
        mode: the inference mode.
        progress: told of texts encoded and passages ranked.
    """

    def __init__(self, ranker: ListConRanker, mode: Mode = "iterative", *, progress: Progress = no_progress) -> None:
        self.ranker = ranker
        self.mode = mode
        self.progress = progress
        self.journal: Journal | None = None
        """Keeps what is finished, for a next start."""
        self.keep_going = False
        """Whether the other queries are ranked when one fails; the search then ends with `QueriesFailedError`."""
        self.scored: list[ScoredList] = []
        """The lists of the last search, each passage with its score, in candidate order."""
        self._corpus: Dataset | None = None
        self._encoded: tuple[list[CandidateList], EncodedLists] | None = None

    @property
    def mteb_model_meta(self) -> ModelMeta:
        """Who the model is, with mode and precision as experiment, so that no two modes share a result's path."""
        return model_meta(self.ranker, self.mode)

    def index(self, corpus: "Dataset", **_: object) -> None:
        """Take note of the corpus: passages are encoded when it is known which ones are candidates."""
        self._corpus = corpus

    def search(
        self,
        queries: "Dataset",
        *,
        task_metadata: "TaskMetadata",
        top_ranked: Mapping[str, list[str]] | None = None,
        **_: object,
    ) -> dict[str, dict[str, float]]:
        """Score the candidates of every query.

        Args:
            queries: mteb's queries, columns `id` and `text`.
            task_metadata: the task's metadata, for messages.
            top_ranked: the candidates of each query, by id.

        Returns:
            For every query, whether it has candidates or not, its documents' scores as Python floats.

        Raises:
            ListconError: without candidate lists, for a candidate that the corpus lacks, or as `ListConRanker`.
            QueriesFailedError: with `keep_going`, after all other queries have been ranked.
        """
        if self._corpus is None:
            raise ListconError("search was called before index: mteb calls index with the corpus first")
        lists = candidate_lists(task_metadata.name, self._corpus, queries, top_ranked)
        failures = self._unusable(lists, task_metadata.name) if self.keep_going else {}
        filled = [row for row in lists if row.passages and row.query_id not in failures]
        encoded = self._encode(filled, task_metadata.name)
        ranked = self.ranker.rank_encoded(
            encoded, self.mode, progress=self.progress, journal=self.journal, keep_going=self.keep_going
        )
        by_query = {
            row.query_id: ScoredList(row.query_id, row.doc_ids, result.scores, result.rounds)
            for row, result in zip(filled, ranked, strict=True)
        }
        self.scored = [by_query.get(row.query_id, ScoredList(row.query_id, (), (), ())) for row in lists]
        for row in self.scored:
            if any(map(math.isnan, row.scores)):
                failures[row.query_id] = f"{task_metadata.name}, query {row.query_id}: its scores are not numbers"
        if failures:
            raise QueriesFailedError(failures, [row for row in self.scored if row.query_id not in failures])
        return {row.query_id: dict(zip(row.doc_ids, row.scores, strict=True)) for row in self.scored}

    def _encode(self, lists: list[CandidateList], task: str) -> EncodedLists:
        """Encode lists, unless they are those of the last search."""
        if self._encoded is None or self._encoded[0] != lists:
            self._encoded = None  # let the last task's features go before the next ones are made
            encoded = self.ranker.encode(
                [row.query for row in lists],
                [row.passages for row in lists],
                names=[f"{task}, query {row.query_id}" for row in lists],
                progress=self.progress,
                journal=self.journal,
            )
            self._encoded = lists, encoded
        return self._encoded[1]

    @staticmethod
    def _unusable(lists: list[CandidateList], task: str) -> dict[str, str]:
        """What is wrong with the lists that cannot be ranked, by query id; a query without candidates can."""
        failures = {}
        for row in lists:
            try:
                if row.passages:
                    check_list(f"{task}, query {row.query_id}", row.query, row.passages)
            except ListconError as error:
                failures[row.query_id] = str(error)
        return failures


def model_meta(ranker: ListConRanker, mode: Mode) -> ModelMeta:
    """Mteb's metadata of a ranker in one mode; for the published model on top of what mteb's registry says of it."""
    source = ranker.checkpoint.source
    settings: dict[str, Any] = {"mode": mode, "precision": ranker.precision}
    if ranker.max_length != DEFAULT_MAX_LENGTH:
        settings["max_length"] = ranker.max_length
    own: dict[str, Any] = {
        "loader": None,  # mteb's own loader of this model does not run, and did not make these numbers
        "loader_kwargs": {},
        "experiment_kwargs": settings,
        "revision": source.revision or f"sha256-{ranker.checkpoint.weights_sha256[:40]}",
    }
    if source.hub_id == PUBLISHED_ID:
        return mteb.get_model_meta(PUBLISHED_ID, fetch_from_hf=False).model_copy(update=own)
    parameters = sum(parameter.numel() for parameter in ranker.model.parameters())
    encoder = ranker.model.config.encoder
    return ModelMeta(
        **own,
        name=source.hub_id or f"local/{safe_name(source.folder.resolve().name)}",
        release_date=None,
        languages=["zho-Hans"],
        n_parameters=parameters,
        n_embedding_parameters=encoder.vocab_size * encoder.hidden_size,
        memory_usage_mb=round(parameters * 4 / 2**20, 1),
        max_tokens=ranker.max_length,
        embed_dim=ranker.model.config.list_width,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=["PyTorch", "Transformers"],
        similarity_fn_name=ScoringFunction.CUSTOM,
        use_instructions=False,
        training_datasets=None,
        model_type=["cross-encoder"],
    )


def safe_name(name: str) -> str:
    """A name that is one folder on every file system and one half of an `org/model` name."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
