"""What a training run is asked to do: every choice that decides its result, and where it goes."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from listcon_eval.errors import ListconError
from listcon_eval.records import MODES, Mode

Autocast = Literal["none", "bf16", "fp16"]

_DEFAULT_SPLIT = 0.02
_CONTRASTIVE_EPOCHS_FROM_SCRATCH = 5
# What may differ between a run and its continuation: where things are (the data's content is compared), and how often
# they are saved.
_NOT_OF_THE_RESULT = ("data", "output", "resume", "save_every")


class Schedule(NamedTuple):
    """How long and how fast a stage trains.

    Attributes:
        stage: 0 (contrastive warm-up), 1 (encoder frozen) or 2 (everything).
        epochs: passes over the training lists; 0 leaves the stage out.
        batch: lists an optimiser step.
        learning_rate: the highest one, reached at the end of the warm-up.
    """

    stage: int
    epochs: int
    batch: int
    learning_rate: float


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A training run.

    Attributes:
        data: the training lists, in any layout that local tasks are read from.
        output: the folder for checkpoints, log and plot.
        model: the ListConRanker checkpoint (folder or hub id) to start from, or None.
        encoder: the encoder (folder or hub id) to start from, or None.
        encoder_config: a file with the configuration of a new encoder, or None.
        revision: the hub revision of `model` or `encoder`.
        list_width: D; 7/4 of the encoder's width, as published, when None.
        list_layers: L, 2 as published when None.
        list_feedforward: the list transformer's inner width; twice the encoder's width, as published, when None.
        list_dropout: the list transformer's dropout.
        minimum_count: how often a character (with `vocabulary_size`: a pair of pieces) must occur in the training text
            to enter a new vocabulary.
        meaning_width: let a new encoder begin by matching words, beside a text's meaning of so many numbers; stage 0
            then trains what words mean and how much each counts (see `training.matching`). None: begin as TF-IDF, and
            train all of the encoder.
        vocabulary_size: tokens of a new vocabulary of pieces of up to four characters; None: single characters.
        repeat: how often lists come in an epoch, by what their query's id begins with; all others come once.
        eval_split: the share of queries set aside for evaluation; None: 0.02 without other evaluation data, else 0.
        eval_mode: the inference mode of the evaluation.
        list_size: passages a list, the query not counted.
        fill_lists: fill lists that are shorter with passages of other queries, taken to be irrelevant.
        margin: m of Circle Loss.
        scale: gamma of Circle Loss.
        contrastive_epochs: epochs of stage 0; None: 5 for a new encoder, else 0.
        contrastive_batch: (query, positive) pairs a step of stage 0.
        contrastive_learning_rate: the learning rate of stage 0.
        temperature: what stage 0 divides cosine similarities by.
        hard_negatives: negatives of a query's own list that join a batch of stage 0.
        pseudo_queries: pairs that join a batch of stage 0 for each of its own: a passage and a piece cut from it.
        token_dropout: the share of tokens that stage 0 leaves out of its texts at random.
        stage_1_epochs: epochs with the encoder frozen.
        stage_1_batch: lists a step of stage 1.
        stage_1_learning_rate: the learning rate of stage 1.
        stage_2_epochs: epochs with everything trained.
        stage_2_batch: lists a step of stage 2.
        stage_2_learning_rate: the learning rate of stage 2.
        micro_batch: lists (pairs in stage 0) that are in memory at once.
        weight_decay: AdamW's decay of matrices; biases and norms have none.
        warm_up: the share of a stage's steps in which the learning rate rises.
        max_grad_norm: what a step's gradient is clipped to.
        autocast: the number format of matrix products on an accelerator.
        gradient_checkpointing: keep fewer of the encoder's activations and compute them again.
        max_length: tokens a text is cut to.
        seed: what every random choice follows from.
        device: the device; the best there is when None.
        save_every: steps between two saved states; the end of an epoch is always saved.
        resume: go on from the state in `output`, if there is one.

    Raises:
        ListconError: for a value without a meaning.
    """

    data: Path
    output: Path
    model: str | None = None
    encoder: str | None = None
    encoder_config: Path | None = None
    revision: str | None = None
    list_width: int | None = None
    list_layers: int | None = None
    list_feedforward: int | None = None
    list_dropout: float = 0.1
    minimum_count: int = 2
    vocabulary_size: int | None = None
    meaning_width: int | None = None
    repeat: dict[str, int] = field(default_factory=dict)
    eval_split: float | None = None
    eval_mode: Mode = "iterative"
    list_size: int = 20
    fill_lists: bool = False
    margin: float = 0.25
    scale: float = 32.0
    contrastive_epochs: int | None = None
    contrastive_batch: int = 64
    contrastive_learning_rate: float = 5e-4
    temperature: float = 0.05
    hard_negatives: int = 0
    pseudo_queries: float = 0.0
    token_dropout: float = 0.0
    stage_1_epochs: int = 4
    stage_1_batch: int = 1024
    stage_1_learning_rate: float = 1e-4
    stage_2_epochs: int = 2
    stage_2_batch: int = 256
    stage_2_learning_rate: float = 1e-5
    micro_batch: int = 16
    weight_decay: float = 0.01
    warm_up: float = 0.1
    max_grad_norm: float = 1.0
    autocast: Autocast = "none"
    gradient_checkpointing: bool = False
    max_length: int = 512
    seed: int = 0
    device: str | None = None
    save_every: int = 500
    resume: bool = False

    def __post_init__(self) -> None:
        starts = [name for name in ("model", "encoder", "encoder_config") if getattr(self, name) is not None]
        if len(starts) != 1:
            raise ListconError(
                f"{len(starts)} starting points were given ({', '.join(starts) or 'none'}): give one of a "
                f"ListConRanker checkpoint (--model), an encoder (--encoder) and a new encoder's "
                f"configuration (--encoder-config)"
            )
        sizes = [name for name in ("list_width", "list_layers", "list_feedforward") if getattr(self, name) is not None]
        if self.model is not None and sizes:
            raise ListconError(
                f"{', '.join(sizes)} given with a checkpoint, which has its own: leave it out, or start from an encoder"
            )
        if self.vocabulary_size is not None and self.encoder_config is None:
            raise ListconError(
                f"vocabulary_size is {self.vocabulary_size}, but this starting point has its own vocabulary: leave it "
                f"out, or start from a new encoder's configuration"
            )
        if self.revision is not None and self.encoder_config is not None:
            raise ListconError(
                f"a revision ({self.revision}) was given for a new encoder: it belongs to a hub id; leave it out"
            )
        if self.meaning_width is not None and (
            self.encoder_config is None or self.list_width is not None or self.list_layers is not None
        ):
            raise ListconError(
                f"meaning_width is {self.meaning_width}: it is for a new encoder (--encoder-config), and decides the "
                f"list transformer's width and layers; leave it out, or the others"
            )
        self._check_least(0, "contrastive_epochs", "stage_1_epochs", "stage_2_epochs", "hard_negatives", "seed")
        self._check_least(1, "list_width", "list_layers", "list_feedforward", "minimum_count", "vocabulary_size")
        self._check_least(1, "meaning_width")
        self._check_least(1, "contrastive_batch", "stage_1_batch", "stage_2_batch", "micro_batch", "save_every")
        for start, times in self.repeat.items():
            if not start or times < 1:
                raise ListconError(
                    f"lists whose query ids begin with {start!r} are to come {times} times an epoch: "
                    f"give a beginning, and 1 or more"
                )
        self._check_least(2, "list_size")
        self._check_least(3, "max_length")  # the two special tokens and a text's first
        self._check_positive(
            "scale", "temperature", "max_grad_norm", "contrastive_learning_rate", "stage_1_learning_rate"
        )
        self._check_positive("stage_2_learning_rate")
        for name in ("margin", "list_dropout", "token_dropout", "warm_up", "eval_split"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ListconError(f"{name} is {value}: give a number from 0 to below 1")
        for name in ("weight_decay", "pseudo_queries"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ListconError(f"{name} is {getattr(self, name)}: give 0 or more")
        if self.autocast not in get_args(Autocast):
            raise ListconError(f"no autocast {self.autocast!r}: give one of {', '.join(get_args(Autocast))}")
        if self.eval_mode not in MODES:
            raise ListconError(f"no mode {self.eval_mode!r}: give one of {', '.join(MODES)}")
        if not any(schedule.epochs for schedule in self.schedules()):
            raise ListconError("every stage has 0 epochs: give at least one of them an epoch")

    def schedules(self) -> tuple[Schedule, ...]:
        """The three stages in their order, those without epochs too."""
        contrastive = self.contrastive_epochs
        if contrastive is None:
            contrastive = _CONTRASTIVE_EPOCHS_FROM_SCRATCH if self.encoder_config is not None else 0
        return (
            Schedule(0, contrastive, self.contrastive_batch, self.contrastive_learning_rate),
            Schedule(1, self.stage_1_epochs, self.stage_1_batch, self.stage_1_learning_rate),
            Schedule(2, self.stage_2_epochs, self.stage_2_batch, self.stage_2_learning_rate),
        )

    def share_set_aside(self, *, has_eval_data: bool) -> float:
        """The share of queries to set aside for evaluation."""
        if self.eval_split is not None:
            return self.eval_split
        return 0.0 if has_eval_data else _DEFAULT_SPLIT

    def of_the_result(self) -> dict[str, Any]:
        """Every setting that decides the trained weights, as JSON has it."""
        return {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(self).items()
            if name not in _NOT_OF_THE_RESULT
        }

    def _check_least(self, least: int, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and value < least:
                raise ListconError(f"{name} is {value}: give {least} or more")

    def _check_positive(self, *names: str) -> None:
        for name in names:
            if not 0 < getattr(self, name) < float("inf"):
                raise ListconError(f"{name} is {getattr(self, name)}: give a number above 0")
