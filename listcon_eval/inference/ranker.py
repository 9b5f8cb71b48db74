"""The public class: texts in, scores out."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

from listcon_eval.errors import ListconError
from listcon_eval.inference.budgets import Budgets
from listcon_eval.inference.devices import bfloat16_is_slow, choose_device, placed
from listcon_eval.inference.encoder import FastEncoder
from listcon_eval.inference.features import FeatureStore, encode_texts
from listcon_eval.inference.groups import group_name, groups_of, packed, unpacked
from listcon_eval.inference.journal import Journal
from listcon_eval.inference.memory import host_now, stay_within
from listcon_eval.inference.rounds import rank_features
from listcon_eval.inference.texts import IndexedList, index_texts
from listcon_eval.inference.tokens import TextCutter
from listcon_eval.inference.workers import workers_on
from listcon_eval.model import PUBLISHED_ID, Checkpoint, load_checkpoint, save_checkpoint
from listcon_eval.progress import Phases, Progress, no_progress
from listcon_eval.records import MODES, PRECISIONS, Mode, Precision, RankedList

logger = logging.getLogger(__name__)


class EncodedLists(NamedTuple):
    """Lists whose texts have been encoded: both inference modes can rank them without encoding again.

    Attributes:
        texts: the distinct texts.
        lists: the lists over their indices.
        store: their features.
    """

    texts: list[str]
    lists: list[IndexedList]
    store: FeatureStore


class ListConRanker:
    """ListConRanker: scores the passages of a query by comparing all of them at once.

    The constructor is the published interface (model card of ByteDance/ListConRanker); `from_pretrained` is the
    modern one. Scores do not depend on what else is ranked in the same call, nor on the order of passages.

    Args:
        model_name_or_path: a checkpoint folder or hub id.
        use_fp16: as published, float16 weights and scores on an accelerator (precision "published"; a CPU stays in
            float32); False is precision "precise".
        list_transformer_layer: the number of list transformer layers the checkpoint is expected to have; the
            checkpoint decides, and a difference is an error. None expects nothing.

    Raises:
        ListconError: when the checkpoint cannot be loaded.
    """

    def __init__(
        self,
        model_name_or_path: str | Path = PUBLISHED_ID,
        use_fp16: bool = True,
        list_transformer_layer: int | None = None,
    ) -> None:
        self._set_up(model_name_or_path, precision="published" if use_fp16 else "precise")
        layers = self.model.config.list_layers
        if list_transformer_layer not in (None, layers):
            raise ListconError(
                f"list_transformer_layer is {list_transformer_layer}, but {model_name_or_path} has {layers} list "
                f"transformer layers: give {layers}, or leave it out"
            )

    @classmethod
    def from_pretrained(
        cls,
        path_or_id: str | Path = PUBLISHED_ID,
        *,
        revision: str | None = None,
        device: str | None = None,
        precision: Precision = "published",
        max_length: int = 512,
        memory: int | None = None,
        device_memory: int | None = None,
    ) -> Self:
        """Load a checkpoint of either published layout.

        Args:
            path_or_id: a checkpoint folder or hub id.
            revision: the hub revision; the published model's is pinned when not given.
            device: "cuda", "cuda:1", "mps" or "cpu"; the best there is when not given.
            precision: "published" (float16 weights and scores on an accelerator, as the published code) or
                "precise" (float32 throughout, ranking by logits) or "bfloat16" (as "precise", but for an encoder in
                bfloat16, whose features are off by 1.5 to 3 percent).
            max_length: tokens a text is cut to, the special ones counted.
            memory: bytes of host memory that the process is to stay within; batches and what is kept follow from it.
            device_memory: the same for an accelerator's own memory.

        Raises:
            ListconError: when the checkpoint cannot be loaded or an argument has no meaning.
        """
        ranker = cls.__new__(cls)
        ranker._set_up(
            path_or_id,
            revision=revision,
            device=device,
            precision=precision,
            max_length=max_length,
            memory=memory,
            device_memory=device_memory,
        )
        return ranker

    def _set_up(
        self,
        path_or_id: str | Path,
        *,
        revision: str | None = None,
        device: str | None = None,
        precision: Precision,
        max_length: int = 512,
        memory: int | None = None,
        device_memory: int | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ListconError(f"no precision {precision!r}: give one of {', '.join(PRECISIONS)}")
        self.precision = precision
        self.device = choose_device(device)
        self.phases = Phases()
        with self.phases.measured("load"):
            self.checkpoint: Checkpoint = load_checkpoint(path_or_id, revision)
            self.model = placed(self.checkpoint.model, self.device, precision)
        longest = self.model.config.encoder.max_position_embeddings
        if not 3 <= max_length <= longest:
            raise ListconError(
                f"max_length is {max_length}: this encoder takes 3 (two special tokens and a text's first) to {longest}"
            )
        self.max_length = max_length
        self.encoder = FastEncoder.for_model(self.model)
        self._checked = False
        self._cutter = TextCutter(self.checkpoint.tokenizer, max_length)
        self.memory, self.device_memory = memory, device_memory
        self.budgets = Budgets.for_device(self.device).within(
            self.model.config,
            self.device,
            host_bytes=memory,
            device_bytes=device_memory,
            item_bytes=self.encoder.dtype.itemsize,
            batches=workers_on(self.device),
        )
        if precision == "bfloat16" and bfloat16_is_slow(self.device):
            logger.warning("this processor only emulates bfloat16: the precision 'precise' is faster here, and exact")
        _check_room(memory)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the checkpoint in layout 1 (what the published code reads), in float32, and return its folder."""
        return save_checkpoint(self.model, self.checkpoint.tokenizer, Path(folder))

    def compute_score(self, lists: Sequence[Sequence[str]]) -> list[list[float]]:
        """Score lists by conventional inference.

        Args:
            lists: one `[query, passage_1, ..., passage_n]` a list.

        Returns:
            One list of n scores a query, between 0 and 1.

        Raises:
            ListconError: for an empty query, a list without passages, a text that is not a string, or scores that
                are not numbers; the message names the query.
        """
        return self.rank(lists, mode="conventional")

    def iterative_inference(self, query_and_passages: Sequence[str]) -> list[float]:
        """Rank one list `[query, passage_1, ..., passage_n]` by iterative inference.

        Returns:
            n scores; they rank, and are no similarities (each is a score plus the round the passage left in).

        Raises:
            ListconError: as `compute_score`.
        """
        return self.rank([query_and_passages], mode="iterative")[0]

    def rank(self, lists: Sequence[Sequence[str]], mode: Mode = "iterative") -> list[list[float]]:
        """Rank many lists `[query, passage_1, ..., passage_n]` together, encoding every distinct text once.

        Returns:
            One list of n final scores a query, higher first; up to 20 passages both modes give the same.

        Raises:
            ListconError: as `compute_score`.
        """
        for place, row in enumerate(lists):
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
        journal: Journal | None = None,
    ) -> EncodedLists:
        """Tokenise and encode every distinct text of lists a single time.

        Args:
            queries: one query a list.
            passages: the passages of each list.
            names: what messages call each query; by default its place and text.
            progress: told of texts encoded.
            journal: keeps finished chunks, and gives back those that it has.

        Raises:
            ListconError: as `compute_score`.
        """
        texts, lists = index_texts(queries, passages, names)
        store = encode_texts(
            self.encoder,
            self._cutter,
            texts,
            budgets=self.budgets,
            phases=self.phases,
            progress=progress,
            journal=journal,
            check=not self._checked,
        )
        self._checked = True
        return EncodedLists(texts, lists, store)

    def rank_encoded(
        self,
        encoded: EncodedLists,
        mode: Mode,
        *,
        progress: Progress = no_progress,
        journal: Journal | None = None,
        keep_going: bool = False,
    ) -> list[RankedList]:
        """Rank encoded lists in one mode, in groups of lists that go through the rounds together.

        Args:
            encoded: what `encode` made of the lists.
            mode: the inference mode.
            progress: told of passages that have their final score.
            journal: keeps finished groups, and gives back those that it has.
            keep_going: whether a list whose scores are not numbers is passed over: its scores are NaN then.

        Raises:
            ListconError: for an unknown mode, or scores that are not numbers.
        """
        if mode not in MODES:
            raise ListconError(f"no mode {mode!r}: give one of {', '.join(MODES)}")
        ranked: list[RankedList] = []
        done, total = 0, sum(len(row.passages) for row in encoded.lists)
        for group in groups_of(encoded.lists, self.budgets.group_passages):
            name = group_name(mode, encoded.texts, group) if journal else ""
            kept = journal.load(name) if journal else None
            if kept is None:
                with self.phases.measured("list"):
                    results = rank_features(
                        self.model,
                        encoded.store,
                        group,
                        mode=mode,
                        precision=self.precision,
                        budgets=self.budgets,
                        keep_going=keep_going,
                    )
                if journal and not any(math.isnan(result.scores[0]) for result in results):
                    journal.save(name, packed(results))
            else:
                results = unpacked(kept, group)
            ranked += results
            stay_within(self.budgets.host_bytes)
            done += sum(len(row.passages) for row in group)
            progress("list", done, total)
        return ranked


def _check_room(memory: int | None) -> None:
    """Raise ListconError when a host budget is used up before the first text."""
    held = host_now()
    if memory is not None and held is not None and held >= memory:
        raise ListconError(
            f"the host budget is {memory / 1e9:.2f} GB, and {held / 1e9:.2f} GB are in use with the model loaded and "
            f"no text encoded yet: give more"
        )
