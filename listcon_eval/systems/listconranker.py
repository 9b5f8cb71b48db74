"""ListConRanker, in both inference modes."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray

from listcon_eval.inference.ranker import EncodedLists, ListConRanker
from listcon_eval.progress import Phases
from listcon_eval.records import MODES, CandidateList, Mode
from listcon_eval.systems.base import LoadOptions, RankContext, Ranking, System, list_name, observed_texts
from listcon_eval.systems.resolve import ModelSpec, model_name, model_revision

DEFAULT_MAX_LENGTH = 512


class _Encoding(NamedTuple):
    """The encoding of the last lists, and the seconds by phase that it took."""

    lists: list[CandidateList]
    encoded: EncodedLists
    observed: dict[str, Any]
    seconds: dict[str, float]


class ListConRankerSystem(System):
    """A loaded ranker. Ranking the same lists in another mode reuses the texts' encoding."""

    kind = "listconranker"
    modes = MODES
    packages = ("torch", "transformers")
    load_options = frozenset({"device", "dtype", "max_length", "memory", "device_memory", "workers"})

    def __init__(self, ranker: ListConRanker) -> None:
        self.ranker = ranker
        checkpoint = ranker.checkpoint
        self.name = model_name(checkpoint.source)
        self.revision = model_revision(checkpoint.source, checkpoint.weights_sha256)
        self.dtype = ranker.dtype
        self.device = str(ranker.device)
        self.load_seconds = ranker.load_seconds
        self._last: _Encoding | None = None

    @classmethod
    def load(cls, spec: ModelSpec, options: LoadOptions) -> Self:
        """Load a checkpoint of either published layout."""
        return cls(
            ListConRanker.from_pretrained(
                spec.model_source(),
                device=options.device,
                dtype=options.dtype,
                max_length=DEFAULT_MAX_LENGTH if options.max_length is None else options.max_length,
                memory=options.memory,
                device_memory=options.device_memory,
            )
        )

    def _rank(self, lists: Sequence[CandidateList], mode: str, context: RankContext) -> Ranking:
        reused = self._last if self._last is not None and self._last.lists == list(lists) else None
        encoding = reused or self._encode(list(lists), context)
        # A mode's seconds are those that it takes alone, whether or not another one was ranked before.
        for phase, seconds in encoding.seconds.items():
            context.phases.seconds[phase] = context.phases.seconds.get(phase, 0.0) + seconds
        ranked = self.ranker.rank_encoded(
            encoding.encoded,
            cast("Mode", mode),
            progress=context.progress,
            cache=context.cache,
            workers=context.workers,
            phases=context.phases,
            keep_going=context.keep_going,
        )
        return Ranking(ranked, {}, {**encoding.observed, "reused_encoding": reused is not None})

    def encode_chunk(self, texts: Sequence[str]) -> NDArray[np.uint8]:
        """For a worker: as `ListConRanker.encode_chunk`."""
        return self.ranker.encode_chunk(texts)

    def rank_chunk(self, *arguments: Any) -> NDArray[np.float64]:  # noqa: ANN401
        """For a worker: as `ListConRanker.rank_chunk`."""
        return self.ranker.rank_chunk(*arguments)

    def _encode(self, lists: list[CandidateList], context: RankContext) -> _Encoding:
        self._last = None  # free the last task's features before the next ones are made
        phases = Phases()
        encoded = self.ranker.encode(
            [row.query for row in lists],
            [row.passages for row in lists],
            names=[list_name(context.task.name, row) for row in lists],
            progress=context.progress,
            cache=context.cache,
            workers=context.workers,
            phases=phases,
        )
        texts = len(encoded.texts)
        observed = observed_texts(context, self.name, encoded.unknown_share, texts, encoded.truncated)
        self._last = _Encoding(lists, encoded, observed, phases.seconds)
        return self._last

    def path_settings(self) -> Mapping[str, Any]:
        """A length other than the published one."""
        return {} if self.ranker.max_length == DEFAULT_MAX_LENGTH else self.settings()

    def settings(self) -> Mapping[str, Any]:
        """Tokens a text is cut to."""
        return {"max_length": self.ranker.max_length}

    def key(self) -> Mapping[str, Any]:
        """Weights, and the encoder's backend."""
        return {"weights": self.ranker.checkpoint.weights_sha256, "encoder": self.ranker.encoder.backend}

    def provenance(self) -> Mapping[str, Any]:
        """The checkpoint, and how its texts are encoded."""
        checkpoint = self.ranker.checkpoint
        return {
            "location": str(checkpoint.source.folder),
            "weights_sha256": checkpoint.weights_sha256,
            "weights_dtype": str(self.ranker.model.linear_in_embedding.weight.dtype).removeprefix("torch."),
            "layout": checkpoint.layout,
            "ignored_keys": list(checkpoint.ignored),
            "encoder": self.ranker.encoder.describe(),
        }

    def model_metadata(self) -> Mapping[str, Any]:
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
