"""ListConRanker, in both inference modes."""

from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

from listcon_eval.inference import EncodedLists, ListConRanker
from listcon_eval.records import MODES, CandidateList, Mode, RankedList
from listcon_eval.systems.detection import Found
from listcon_eval.systems.naming import name_of_model, revision_of_model
from listcon_eval.systems.system import Job, Options, System

DEFAULT_MAX_LENGTH = 512


class ListConRankerSystem(System):
    """A loaded ranker. Ranking the same lists in another mode reuses the texts' encoding.

    Args:
        ranker: the ranker.
    """

    kind = "listconranker"
    modes = MODES
    packages = ("torch", "transformers")
    phase_names = ("tokenise", "encode", "list")
    keeps_budgets = True

    def __init__(self, ranker: ListConRanker) -> None:
        super().__init__()
        self.ranker = ranker
        self.phases = ranker.phases
        self.name = name_of_model(ranker.checkpoint.source)
        self.revision = revision_of_model(ranker.checkpoint.source, ranker.checkpoint.weights_sha256)
        self.precision = ranker.precision
        self.device = str(ranker.device)
        self._encoded: tuple[list[CandidateList], EncodedLists] | None = None

    @classmethod
    def load(cls, found: Found, options: Options) -> Self:
        """Load a checkpoint of either published layout."""
        source = found.folder_of_model()
        return cls(
            ListConRanker.from_pretrained(
                source.hub_id or source.folder,
                revision=source.revision,
                device=options.device,
                precision=options.precision,
                max_length=DEFAULT_MAX_LENGTH if options.max_length is None else options.max_length,
                memory=options.memory,
                device_memory=options.device_memory,
            )
        )

    def rank(self, lists: Sequence[CandidateList], mode: str, job: Job) -> list[RankedList]:
        """Rank lists in one inference mode."""
        encoded = self._encode(list(lists), job)
        return self.ranker.rank_encoded(
            encoded, cast("Mode", mode), progress=job.progress, journal=job.journal, keep_going=job.keep_going
        )

    def _encode(self, lists: list[CandidateList], job: Job) -> EncodedLists:
        """Encode lists, unless they are those of the last time."""
        if self._encoded is None or self._encoded[0] != lists:
            self._encoded = None  # let the last task's features go before the next ones are made
            encoded = self.ranker.encode(
                [row.query for row in lists],
                [row.passages for row in lists],
                names=[job.name_of(row) for row in lists],
                progress=job.progress,
                journal=job.journal,
            )
            self._encoded = lists, encoded
        return self._encoded[1]

    def experiment(self) -> Mapping[str, Any]:
        """A length other than the published one."""
        return {} if self.ranker.max_length == DEFAULT_MAX_LENGTH else self.settings()

    def settings(self) -> Mapping[str, Any]:
        """Tokens a text is cut to."""
        return {"max_length": self.ranker.max_length}

    def key(self) -> Mapping[str, Any]:
        """Weights, device and the encoder's path on it."""
        return {
            "weights": self.ranker.checkpoint.weights_sha256,
            "max_length": self.ranker.max_length,
            "device": self.ranker.device.type,
            "encoder": self.ranker.encoder.path,
        }

    def provenance(self) -> Mapping[str, Any]:
        """The checkpoint, and how its texts are encoded."""
        checkpoint = self.ranker.checkpoint
        return {
            "model": {
                "location": str(checkpoint.source.folder),
                "weights_sha256": checkpoint.weights_sha256,
                "layout": checkpoint.layout,
                "ignored_keys": list(checkpoint.ignored),
            },
            "weights_dtype": str(self.ranker.model.linear_in_embedding.weight.dtype).removeprefix("torch."),
            "encoder": self.ranker.encoder.describe(),
        }

    def facts(self) -> Mapping[str, Any]:
        """Its size."""
        parameters = sum(parameter.numel() for parameter in self.ranker.model.parameters())
        encoder = self.ranker.model.config.encoder
        return {
            "n_parameters": parameters,
            "n_embedding_parameters": encoder.vocab_size * encoder.hidden_size,
            "memory_usage_mb": round(parameters * 4 / 2**20, 1),
            "max_tokens": self.ranker.max_length,
            "embed_dim": self.ranker.model.config.list_width,
            "framework": ["PyTorch", "Transformers"],
            "model_type": ["cross-encoder"],
        }
