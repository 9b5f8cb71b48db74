"""What every kind of system has in common. A new kind is a subclass of `System`, and a line in `resolve.KINDS`."""

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from pydantic import PositiveInt

from listcon_eval.arguments import check_arguments
from listcon_eval.errors import ListconError, count_of
from listcon_eval.inference.tokens import check_list
from listcon_eval.progress import Phases, Progress, no_progress
from listcon_eval.records import NOT_RETRIEVED, POINTWISE, CandidateList, DTypeOption, RankedList
from listcon_eval.systems.resolve import KINDS, ModelSpec

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

    from listcon_eval.inference.chunks import ChunkStore
    from listcon_eval.workers import RayWorkers

__all__ = ["KINDS", "LoadOptions", "RankContext", "Ranking", "System", "load_system", "system_class"]


logger = logging.getLogger(__name__)

_UNKNOWN_WARNED, _CUT_WARNED = 0.03, 0.05


@dataclass(frozen=True)
class LoadOptions:
    """How a system is loaded.

    Attributes:
        device: the best there is when None.
        dtype: "auto" is float16 on an accelerator and float32 on a CPU.
        max_length: tokens a text, or a pair of texts, is cut to; the system's own when None.
        memory: bytes of host memory to stay within; no bound when None.
        device_memory: the same for an accelerator's own memory.
        workers: how many processes of Ray compute, each with the system loaded on a device of its own: a number, "auto"
            for all devices of this machine, or the address of a cluster, `ray://HOST:PORT`, for all of its devices.
            With 1 it is this process.

    Raises:
        ListconError: an option is of another type.
    """

    device: str | None = None
    dtype: DTypeOption = "auto"
    max_length: int | None = None
    memory: PositiveInt | None = None
    device_memory: PositiveInt | None = None
    workers: PositiveInt | str = 1

    def __post_init__(self) -> None:
        check_arguments(type(self), vars(self))


@dataclass(frozen=True)
class RankContext:
    """What lists are ranked for, and how the work is done."""

    task: "TaskMetadata"  # mteb's metadata of the task; prompts follow from it
    split: str
    subset: str = "default"
    progress: Progress = no_progress
    phases: Phases = field(default_factory=Phases)  # seconds by phase are added here
    cache: "ChunkStore | None" = None  # keeps finished chunks, and gives back those that it has
    workers: "RayWorkers | None" = None  # compute the other chunks; this process when None
    keep_going: bool = False  # whether a list that cannot be ranked is one of `Ranking.failures`, or ends the run


def list_name(task: str, row: CandidateList) -> str:
    """What messages call a list."""
    return f"{task}, query {row.query_id}"


def observed_texts(context: RankContext, name: str, unknown: float, units: int, cut: int) -> dict[str, Any]:
    """The shares of unknown tokens, and of units (texts or pairs) that were cut, for `Ranking.observed`.

    High ones are logged as warnings.
    """
    if unknown > _UNKNOWN_WARNED:
        logger.warning(
            "%s: %.1f %% of all tokens are unknown to the tokenizer of %s", context.task.name, 100 * unknown, name
        )
    if cut > _CUT_WARNED * units:
        logger.warning("%s: %s cuts %.1f %% of the texts it reads", context.task.name, name, 100 * cut / units)
    return {"unknown_tokens": round(unknown, 6), "read": units, "truncated": round(cut / max(1, units), 6)}


class Ranking(NamedTuple):
    """What a system made of lists."""

    lists: list[RankedList]  # one a candidate list, in their order; one of a list that failed has NaN for scores
    failures: dict[str, str]  # query id -> why its list could not be ranked
    observed: Mapping[str, Any]  # what was seen on the way, for the provenance: texts that were cut, for instance


class System(ABC):
    """A system that scores candidate lists."""

    kind: ClassVar[str]
    modes: ClassVar[tuple[str, ...]] = (POINTWISE,)  # this one alone: each passage is scored without the others
    reads_texts: ClassVar[bool] = True  # whether texts have to be such that a model can read them
    scores_all: ClassVar[bool] = True  # otherwise `NOT_RETRIEVED` stands for a candidate without a score
    reads_every_list: ClassVar[bool] = False  # whether a text is work again in every list it is in
    needs_judgements: ClassVar[bool] = False  # whether it ranks by the relevance judgements
    load_options: ClassVar[frozenset[str]] = frozenset()  # of `LoadOptions`; another one that is set is refused

    name: str  # `org/name`
    # The hub's commit, a hash of local files, a library's version, a seed. A finished run is read again as long as
    # this, the settings and `key()` are the same: a class outside this package changes it with its code.
    revision: str
    packages: tuple[str, ...] = ()  # those whose versions change its scores, beside those of every number
    dtype: str | None = None  # None where there is no choice of number format
    device: str | None = None  # None where nothing is computed here
    load_seconds: float = 0.0

    @classmethod
    def load(cls, spec: ModelSpec, options: LoadOptions) -> Self:
        """Make the system that a spec names; ListconError when it cannot be loaded. Every kind of `KINDS` has one."""
        raise NotImplementedError

    def unrankable(self, lists: Sequence[CandidateList], task: str) -> dict[str, str]:
        """The lists that cannot be ranked, as far as that is known before the work: query id -> the reason."""
        failures: dict[str, str] = {}
        for row in lists if self.reads_texts else ():
            try:
                if row.passages:
                    check_list(list_name(task, row), row.query, row.passages)
            except ListconError as error:
                failures[row.query_id] = str(error)
        return failures

    def work(self, lists: Sequence[CandidateList]) -> int:
        """About how much work lists are, in characters, for the progress that is shown."""
        texts = (text for row in lists for text in (row.query, *row.passages))
        return sum(map(len, texts if self.reads_every_list else set(texts))) or 1

    def rank(self, lists: Sequence[CandidateList], mode: str, context: RankContext) -> Ranking:
        """Score candidate lists in one of the system's modes; a list without candidates has no scores.

        Raises:
            ListconError: a list cannot be ranked, naming task and query, unless the context says to keep going.
        """
        failures = self.unrankable(lists, context.task.name)
        if failures and not context.keep_going:
            raise ListconError(next(iter(failures.values())))
        filled = [row for row in lists if row.doc_ids and row.query_id not in failures]
        found = self._rank(filled, mode, context) if filled else Ranking([], {}, {})
        failures |= found.failures
        if len(found.lists) != len(filled):
            raise ListconError(
                f"{self.name} gave {count_of(len(found.lists), 'ranking')} of {count_of(len(filled), 'list')}: a "
                "system gives one for each list that it gets, in their order"
            )
        by_query = dict(zip((row.query_id for row in filled), found.lists, strict=True))
        ranked = []
        for row in lists:
            own = by_query.get(row.query_id)
            if own is None:
                own = RankedList((math.nan,) * len(row.doc_ids), (0,) * len(row.doc_ids))
            elif row.query_id not in failures:
                if not len(own.scores) == len(own.rounds) == len(row.doc_ids):
                    raise ListconError(
                        f"{list_name(context.task.name, row)}: {self.name} gave {count_of(len(own.scores), 'score')} "
                        f"and {count_of(len(own.rounds), 'round')} for {count_of(len(row.doc_ids), 'passage')}: a "
                        "system gives one of each for each passage"
                    )
                allowed = () if self.scores_all else (NOT_RETRIEVED,)
                bad = sum(not math.isfinite(score) and score not in allowed for score in own.scores)
                if bad:
                    failures[row.query_id] = (
                        f"{list_name(context.task.name, row)}: {bad} of {len(own.scores)} scores are not finite "
                        "numbers; the weights are damaged, or a value overflowed: try --dtype float32"
                    )
            ranked.append(own)
        if failures and not context.keep_going:
            raise ListconError(next(iter(failures.values())))
        return Ranking(ranked, failures, found.observed)

    @abstractmethod
    def _rank(self, lists: Sequence[CandidateList], mode: str, context: RankContext) -> Ranking:
        """Score lists that have a passage or more, and texts that can be read."""

    def run_settings(self, mode: str) -> dict[str, Any]:
        """Mode, dtype and what else tells this system's runs of one task apart: they are part of a result's path."""
        dtype = {} if self.dtype is None else {"dtype": self.dtype}
        return {"mode": mode, **dtype, **self.path_settings()}

    def path_settings(self) -> Mapping[str, Any]:
        """Settings that are not the usual ones, and so part of a result's path."""
        return {}

    def settings(self) -> Mapping[str, Any]:
        """Settings that a signature names, beside mode and dtype."""
        return {}

    def key(self) -> Mapping[str, Any]:
        """What changes its scores, beside `name`, `revision` and `settings()`."""
        return {}

    def provenance(self) -> Mapping[str, Any]:
        """What a provenance says of the model."""
        return {}

    def model_metadata(self) -> Mapping[str, Any]:
        """What is known of the fields of mteb's `ModelMeta`."""
        return {}


def system_class(kind: str) -> type[System]:
    """The class of a kind."""
    found: type[System] = resolve_name(f"listcon_eval.systems.{KINDS[kind]}")
    return found


def check_options(spec: ModelSpec, options: LoadOptions) -> type[System]:
    """The class of a spec's kind; ListconError when one of the options has no meaning for it."""
    kind = system_class(spec.kind)
    asked = {field.name for field in fields(options) if getattr(options, field.name) != field.default}
    if options.device == "cpu":
        asked.discard("device")  # where a kind without a choice of device computes anyway
    if meaningless := asked - kind.load_options:
        given = " and ".join(f"--{name.replace('_', '-')}" for name in sorted(meaningless))
        raise ListconError(
            f"leave out {given}: a model of the kind {spec.kind} (here {spec.given}) takes no such option"
        )
    return kind


def load_system(spec: ModelSpec, options: LoadOptions) -> System:
    """Make the system that a spec names; ListconError when it cannot be loaded, or as `check_options`."""
    kind = check_options(spec, options)
    start = time.perf_counter()
    system = kind.load(spec, options)
    system.load_seconds = time.perf_counter() - start
    return system
