"""What every kind of system is to the rest of this package: something with a name that scores candidate lists."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from listcon_eval.inference.journal import Journal
from listcon_eval.progress import Phases, Progress, no_progress
from listcon_eval.records import NO_PRECISION, POINTWISE, CandidateList, Precision, RankedList

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

    from listcon_eval.systems.detection import Found


class Options(NamedTuple):
    """How a system is to be loaded; a kind leaves alone what means nothing to it.

    Attributes:
        device: the device; the best there is when None.
        precision: "published" (float16 weights on an accelerator), "precise" (float32) or "bfloat16".
        max_length: tokens a text, or a pair of them, is cut to; the system's own when None.
        memory: bytes of host memory to stay within; None for no statement.
        device_memory: the same for an accelerator's own memory.
    """

    device: str | None = None
    precision: Precision = "published"
    max_length: int | None = None
    memory: int | None = None
    device_memory: int | None = None


class Job(NamedTuple):
    """What lists are ranked for, and how the work is to be done.

    Attributes:
        task: mteb's metadata of the task; prompts follow from it.
        split: the evaluated split.
        subset: the evaluated subset.
        progress: told of units that are done.
        journal: keeps finished chunks, and gives back those that it has.
        keep_going: whether scores that are not numbers are handed back as they are, instead of ending the run.
    """

    task: "TaskMetadata"
    split: str
    subset: str = "default"
    progress: Progress = no_progress
    journal: Journal | None = None
    keep_going: bool = False

    def name_of(self, row: CandidateList) -> str:
        """What messages call a list."""
        return f"{self.task.name}, query {row.query_id}"


class System(ABC):
    """A system that scores candidate lists. A kind is one subclass, and one line in `registry.KINDS`.

    Attributes:
        kind: the kind's name.
        modes: the modes it has: those of inference, or `POINTWISE` alone for one that scores each passage without
            the others.
        packages: the packages whose versions change its scores, beside this one and mteb.
        phase_names: the phases whose seconds it measures, in their order.
        reads_texts: whether texts have to be such that a model can read them.
        needs_judgements: whether its lists have to carry their relevance judgements.
        keeps_budgets: whether it stays within stated memory.
        name: its name, `org/name`.
        revision: the hub's commit, a hash of local files, a library's version, a seed.
        precision: a precision, or `NO_PRECISION` where there is no such choice.
        device: the device it computes on; None where nothing is computed here.
        phases: seconds by phase.
    """

    kind: ClassVar[str]
    modes: ClassVar[tuple[str, ...]] = (POINTWISE,)
    phase_names: ClassVar[tuple[str, ...]] = ("score",)
    reads_texts: ClassVar[bool] = True
    needs_judgements: ClassVar[bool] = False
    keeps_budgets: ClassVar[bool] = False

    name: str
    revision: str
    packages: tuple[str, ...] = ()
    precision: str = NO_PRECISION
    device: str | None = None

    def __init__(self) -> None:
        self.phases = Phases()

    @classmethod
    @abstractmethod
    def load(cls, found: "Found", options: Options) -> Self:
        """Make the system that `--model` names.

        Raises:
            ListconError: when it cannot be loaded, or an option has no meaning for it.
        """

    @abstractmethod
    def rank(self, lists: Sequence[CandidateList], mode: str, job: Job) -> list[RankedList]:
        """Score lists that have a passage or more: one `RankedList` a list, in their order.

        Raises:
            ListconError: when a list cannot be scored, naming task and query.
        """

    def experiment(self) -> Mapping[str, Any]:
        """Settings that are not the usual ones, and so part of a result's path."""
        return {}

    def settings(self) -> Mapping[str, Any]:
        """Settings that a number's signature names, beside mode and precision."""
        return {}

    def key(self) -> Mapping[str, Any]:
        """What changes its scores: `name` and `revision` do, and this."""
        return {}

    def provenance(self) -> Mapping[str, Any]:
        """What a run writes down of it; the entry `model` is added to what is said of every system."""
        return {}

    def facts(self) -> Mapping[str, Any]:
        """What is known of it of the fields of mteb's `ModelMeta`."""
        return {}
