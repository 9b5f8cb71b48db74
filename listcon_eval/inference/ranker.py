"""The public class: texts in, scores out."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray

from listcon_eval.arguments import checked
from listcon_eval.errors import ListconError
from listcon_eval.inference.chunks import ChunkStore, chunk_results
from listcon_eval.inference.devices import bfloat16_is_slow, cast_model, choose_device, resolve_dtype, workers_on
from listcon_eval.inference.encoder import FastEncoder
from listcon_eval.inference.features import FeatureStore, chunk_of, encode_texts
from listcon_eval.inference.iterative import from_array, group_name, groups_of, rank_features, to_array
from listcon_eval.inference.memory import BatchBudget, Budgets, rss_bytes
from listcon_eval.inference.tokens import IndexedList, TextTokenizer, TokenCounts, index_texts, over_own_texts
from listcon_eval.model import Checkpoint, load_checkpoint, save_checkpoint
from listcon_eval.model.architecture import max_tokens
from listcon_eval.model.source import PUBLISHED_ID, ModelSource
from listcon_eval.progress import Phases, Progress, no_progress
from listcon_eval.records import MODES, DTypeOption, Mode, RankedList
from listcon_eval.workers import RayWorkers

logger = logging.getLogger(__name__)


class EncodedLists(NamedTuple):
    """Lists whose texts have been encoded: both inference modes can rank them without encoding again.

    Attributes:
        texts: the distinct texts.
        lists: the lists over their indices.
        store: their features.
        truncated: how many of the texts have more tokens than `max_length`.
        unknown_share: the share of their tokens that are the tokenizer's unknown token.
    """

    texts: list[str]
    lists: list[IndexedList]
    store: FeatureStore
    truncated: int
    unknown_share: float


class ListConRanker:
    """ListConRanker: scores the passages of a query by comparing all of them at once.

    The constructor's first three arguments are the published interface (model card of ByteDance/ListConRanker);
    `from_pretrained` takes the others. Scores do not depend on what else is ranked in the same call, nor on the order
    of passages.

    Args:
        model_name_or_path: a checkpoint folder, a hub id, or the result of `resolve_source`.
        use_fp16: as published, float16 on an accelerator and float32 on a CPU (dtype "auto"); False is dtype
            "float32".
        list_transformer_layer: the number of list transformer layers that the checkpoint is expected to have; another
            one is an error, None expects nothing.
        revision: the hub revision; the published model's is pinned when not given.
        device: "cuda", "cuda:1", "mps" or "cpu"; the best there is when not given.
        dtype: "float16" (the published procedure: weights and scores in float16, with its exact ties), "float32"
            (float32 throughout, ranking by logits), "bfloat16" (as "float32", but with the encoder in bfloat16,
            whose features are off by 1.5 to 3 percent), or "auto": float16 on an accelerator, float32 on a CPU. When
            not given, `use_fp16` decides.
        max_length: tokens a text is cut to, the special ones counted.
        memory: bytes of host memory that the process is to stay within; batches and what is kept follow from it.
        device_memory: the same for an accelerator's own memory.

    Attributes:
        model: the model, on its device and in its dtype.
        checkpoint: the checkpoint it came from.
        encoder: what encodes texts.
        dtype: the number format, never "auto".
        load_seconds: how long it took to load.

    Raises:
        ListconError: the checkpoint cannot be loaded, or an argument has no meaning.
    """

    @checked
    def __init__(
        self,
        model_name_or_path: str | Path | ModelSource = PUBLISHED_ID,
        use_fp16: bool = True,
        list_transformer_layer: int | None = None,
        *,
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: DTypeOption | None = None,
        max_length: int = 512,
        memory: int | None = None,
        device_memory: int | None = None,
    ) -> None:
        start = time.perf_counter()
        self.device = choose_device(device)
        self.dtype = resolve_dtype(dtype or ("auto" if use_fp16 else "float32"), self.device)
        self.checkpoint: Checkpoint = load_checkpoint(model_name_or_path, revision)
        self.model = cast_model(self.checkpoint.model, self.device, self.dtype)
        layers = self.model.config.list_layers
        if list_transformer_layer not in (None, layers):
            raise ListconError(
                f"list_transformer_layer is {list_transformer_layer}, but {model_name_or_path} has {layers} list "
                f"transformer layers: give {layers}, or leave it out"
            )
        longest = max_tokens(self.model.encoder)
        if max_length < 3 or (longest is not None and max_length > longest):
            raise ListconError(
                f"max_length is {max_length}: this encoder takes 3 (two special tokens and a text's first) to {longest}"
            )
        self.max_length = max_length
        self.encoder = FastEncoder.for_model(self.model)
        self._tokenizer = TextTokenizer(self.checkpoint.tokenizer, max_length)
        self.memory, self.device_memory = memory, device_memory
        self.budgets = Budgets.for_device(self.device).within(
            self.model.config,
            self.device,
            host_bytes=memory,
            device_bytes=device_memory,
            item_bytes=self.encoder.dtype.itemsize,
            batches=workers_on(self.device),
        )
        self._tokens = BatchBudget(self.device, self.budgets.tokens)
        self._rows = BatchBudget(self.device, self.budgets.rows, unit="rows", item="list")
        if self.dtype == "bfloat16" and bfloat16_is_slow(self.device):
            logger.warning("this processor only emulates bfloat16: the dtype float32 is faster here, and exact")
        if self.dtype == "float16" and self.device.type == "cpu":
            logger.warning("float16 is slow on a CPU: it is for comparing with the published procedure")
        if memory is not None and (held := rss_bytes()) >= memory:
            raise ListconError(
                f"the host budget is {memory / 1e9:.2f} GB, and {held / 1e9:.2f} GB are in use with the model loaded "
                "and no text encoded yet: give more"
            )
        self.load_seconds = time.perf_counter() - start

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | ModelSource = PUBLISHED_ID,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: DTypeOption = "auto",
        max_length: int = 512,
        memory: int | None = None,
        device_memory: int | None = None,
    ) -> Self:
        """Load a checkpoint of either published layout; the arguments and errors are those of the class."""
        return cls(
            model,
            revision=revision,
            device=device,
            dtype=dtype,
            max_length=max_length,
            memory=memory,
            device_memory=device_memory,
        )

    @checked
    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the checkpoint in layout 1 (what the published code reads), in float32, and return its folder.

        Raises:
            ListconError: the folder cannot be written to, or holds something else than a checkpoint.
        """
        return save_checkpoint(self.model, self.checkpoint.tokenizer, Path(folder))

    def compute_score(self, lists: Sequence[Sequence[str]]) -> list[list[float]]:
        """Score lists `[query, passage_1, ..., passage_n]` by conventional inference: n scores per list, 0 to 1.

        Raises:
            ListconError: for an empty query, a list without passages, a text that is not a string, or scores that
                are not numbers; the message names the query.
        """
        return self.rank(lists, mode="conventional")

    def iterative_inference(self, query_and_passages: Sequence[str]) -> list[float]:
        """Rank one list `[query, passage_1, ..., passage_n]` by iterative inference.

        The n scores are only for ranking: each is a probability plus the number of the round the passage left in.
        Raises as `compute_score`.
        """
        return self.rank([query_and_passages], mode="iterative")[0]

    def rank(self, lists: Sequence[Sequence[str]], mode: Mode = "iterative") -> list[list[float]]:
        """Rank many lists `[query, passage_1, ..., passage_n]` together, encoding every distinct text once.

        The higher score ranks first; up to 20 passages both modes give the same. Raises as `compute_score`.
        """
        for place, row in enumerate(lists if isinstance(lists, Sequence) else [lists]):
            if isinstance(row, str) or not isinstance(row, Sequence) or not row:
                raise ListconError(
                    f"list {place} is {row!r:.60}: a list is [query, passage_1, ..., passage_n], with a passage or more"
                )
        encoded = self.encode([row[0] for row in lists], [row[1:] for row in lists])
        return [list(ranked.scores) for ranked in self.rank_encoded(encoded, mode)]

    def encode(
        self,
        queries: Sequence[str],
        passages: Sequence[Sequence[str]],
        *,
        names: Sequence[str] | None = None,
        progress: Progress = no_progress,
        cache: ChunkStore | None = None,
        workers: RayWorkers | None = None,
        phases: Phases | None = None,
    ) -> EncodedLists:
        """Tokenise and encode every distinct text of lists a single time. Raises as `compute_score`.

        Args:
            queries: one query a list.
            passages: the passages of each list.
            names: what messages call each query; by default its place and text.
            progress: told how much is encoded, about in characters.
            cache: keeps finished chunks, and gives back those that it has.
            workers: compute the others, by `encode_chunk`; this process when None.
            phases: seconds of "tokenise" and "encode" are added here.
        """
        texts, lists = index_texts(queries, passages, names)
        store, counts = self._encode_texts(
            texts, phases=phases or Phases(), progress=progress, cache=cache, workers=workers
        )
        return EncodedLists(texts, lists, store, counts.truncated, counts.unknown / max(1, counts.tokens))

    def encode_chunk(self, texts: Sequence[str]) -> NDArray[np.uint8]:
        """The features and counts of a chunk that `encode` made, as a cache keeps them: what a worker computes."""
        store, counts = self._encode_texts(texts, phases=Phases())
        return chunk_of(counts, store.get(np.arange(len(texts))))

    def _encode_texts(self, texts: Sequence[str], **options: Any) -> tuple[FeatureStore, TokenCounts]:  # noqa: ANN401
        return encode_texts(self.encoder, self._tokenizer, texts, budgets=self.budgets, budget=self._tokens, **options)

    def rank_encoded(
        self,
        encoded: EncodedLists,
        mode: Mode,
        *,
        progress: Progress = no_progress,
        cache: ChunkStore | None = None,
        workers: RayWorkers | None = None,
        phases: Phases | None = None,
        keep_going: bool = False,
    ) -> list[RankedList]:
        """Rank encoded lists in one mode, in groups of lists that go through the rounds together.

        `progress` is told of passages that have their final score, and seconds of "list" are added to `phases`; the
        cache keeps finished groups, and the workers compute the others by `rank_chunk`. With `keep_going` a list whose
        scores are not numbers gets NaN for them.

        Raises:
            ListconError: for an unknown mode, or scores that are not numbers.
        """
        if mode not in MODES:
            raise ListconError(f"no mode {mode!r}: give one of {', '.join(MODES)}")
        groups = groups_of(encoded.lists, self.budgets.group_passages)

        def arguments(place: int) -> tuple[Any, ...]:
            if workers is None:
                return groups[place], encoded.store, mode, keep_going
            # Other processes get the features of a group's own texts.
            own, lists = over_own_texts(groups[place])
            return lists, encoded.store.get(own).cpu().numpy(), mode, keep_going

        ranked: dict[int, list[RankedList]] = {}
        done, total = 0, sum(len(row.passages) for row in encoded.lists)
        for place, found in chunk_results(
            [group_name(mode, encoded.texts, group) if cache else "" for group in groups],
            arguments,
            self.rank_chunk,
            phase="list",
            phases=phases or Phases(),
            cache=cache,
            workers=workers,
        ):
            ranked[place] = from_array(found, groups[place])
            done += sum(len(row.passages) for row in groups[place])
            progress("list", done, total)
        return [row for place in range(len(groups)) for row in ranked[place]]

    def rank_chunk(
        self, group: Sequence[IndexedList], features: FeatureStore | NDArray[Any], mode: Mode, keep_going: bool
    ) -> NDArray[np.float64]:
        """Scores and rounds of a group of lists that `rank_encoded` made, (2, passages): what a worker computes."""
        if not isinstance(features, FeatureStore):
            rows = torch.tensor(features)  # (N, D)
            features = FeatureStore(len(rows), self.encoder.width, rows.dtype, self.device, self.budgets.feature_bytes)
            features.put(np.arange(len(rows)), rows)
        ranked = rank_features(
            self.model, features, group, mode=mode, dtype=self.dtype, budget=self._rows, keep_going=keep_going
        )
        return to_array(ranked)
