"""What a measurement found: plain numbers, and what follows from them."""

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from listcon_eval.records import Mode, Precision


@dataclass(frozen=True)
class Timing:
    """One way of ranking: what it was given and how long that took.

    Attributes:
        queries: lists that were ranked.
        passages: passages in them.
        seconds: the time of each repeat.
    """

    queries: int
    passages: int
    seconds: tuple[float, ...]

    @property
    def milliseconds_a_query(self) -> float:
        """The median time of a query."""
        return 1000 * median(self.seconds) / self.queries

    def times_faster_than(self, other: "Timing") -> tuple[float, float, float]:
        """How many times faster a passage is ranked than by `other`, repeat by repeat: median, least, most."""
        ratios = [
            (theirs / other.passages) / (ours / self.passages)
            for ours, theirs in zip(self.seconds, other.seconds, strict=True)
        ]
        return median(ratios), min(ratios), max(ratios)


@dataclass(frozen=True)
class Agreement:
    """Whether the engine ranks as the published procedure does, in float32 or whatever both ran in.

    Attributes:
        lists: lists that were compared.
        identical: lists whose order is the same, up to exact ties of the procedure's scores.
        largest_gap: the largest difference between two scores of the procedure whose order was reversed; 0 without any.
    """

    lists: int
    identical: int
    largest_gap: float


@dataclass(frozen=True)
class EncoderSpeed:
    """The encoder alone, on the same batches of texts sorted by length.

    Attributes:
        path: the fast path that was measured, in words.
        batches: batches that were encoded.
        tokens: tokens in them, padding not counted.
        flop: floating point operations that encoding them takes, padding not counted.
        seconds: the fast path's time of each repeat.
        plain_seconds: that of transformers' BertModel, padded.
    """

    path: str
    batches: int
    tokens: int
    flop: float
    seconds: tuple[float, ...]
    plain_seconds: tuple[float, ...]

    @property
    def times_faster(self) -> tuple[float, float, float]:
        """How many times faster the fast path is, repeat by repeat: median, least, most."""
        ratios = [plain / fast for fast, plain in zip(self.seconds, self.plain_seconds, strict=True)]
        return median(ratios), min(ratios), max(ratios)


@dataclass(frozen=True)
class Measurement:
    """Everything one measurement found on one workload.

    Attributes:
        workload: what was ranked, in words.
        model: the model, in words.
        machine: the machine, in words.
        versions: the versions of what the speed depends on.
        mode: the inference mode.
        precision: the precision.
        distinct_texts: texts that were encoded.
        tokens: tokens in them.
        encoder_flop: floating point operations that encoding them takes, padding not counted; the list stage's are
            under 1 % of them in full-size models and are not counted.
        ceiling: floating point operations a second of a large matrix product on this device, in the encoder's format.
        engine: the engine's times, from texts to scores.
        kept: those of the published procedure with its features kept; None when it was not measured.
        published: those of the published procedure; None when it was not measured.
        agreement: how the engine's rankings compare with that; None when it was not measured.
        phases: seconds of the engine by phase, over all repeats; they overlap.
        encoder: the encoder alone.
        host_bytes: the process's peak memory in the engine's first repeat, the model included.
        device_bytes: the device's peak memory in the engine's first repeat; None where there is none to ask.
        host_budget: the bytes it was told to stay within; None when it was told nothing.
        device_budget: the same for the device's memory.
        busy: the share of encoding that the device was at work in, of a profiled run; None without a profile on CUDA.
    """

    workload: str
    model: str
    machine: str
    versions: dict[str, str]
    mode: Mode
    precision: Precision
    distinct_texts: int
    tokens: int
    encoder_flop: float
    ceiling: float
    engine: Timing
    kept: Timing | None
    published: Timing | None
    agreement: Agreement | None
    phases: dict[str, float]
    encoder: EncoderSpeed
    host_bytes: int
    device_bytes: int | None
    host_budget: int | None
    device_budget: int | None
    busy: float | None

    @property
    def seconds(self) -> float:
        """The engine's median time."""
        return median(self.engine.seconds)

    @property
    def flop_a_second(self) -> float:
        """The encoder's floating point operations over the whole of the engine's time."""
        return self.encoder_flop / self.seconds

    @property
    def most_times_faster(self) -> float | None:
        """The ratio to the published procedure of encoding alone at all of the ceiling; None without the procedure."""
        if self.published is None:
            return None
        least_seconds = self.encoder_flop / self.ceiling / self.engine.passages
        return median(self.published.seconds) / self.published.passages / least_seconds

    def as_json(self) -> dict[str, Any]:
        """All fields, and the figures that follow from them."""
        ratio = self.engine.times_faster_than(self.published) if self.published else None
        return asdict(self) | {
            "median_seconds": self.seconds,
            "texts_a_second": self.distinct_texts / self.seconds,
            "tokens_a_second": self.tokens / self.seconds,
            "flop_a_second": self.flop_a_second,
            "share_of_ceiling": self.flop_a_second / self.ceiling,
            "times_faster_than_published": ratio,
            "times_faster_at_the_ceiling": self.most_times_faster,
            "encoder_times_faster": self.encoder.times_faster,
        }
