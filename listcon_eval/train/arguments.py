"""The options of `listcon-eval train`: a few of our own, and every field of `transformers.TrainingArguments`."""
# ruff: noqa: RUF009 - the functions called in the dataclasses make their fields

import argparse
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from transformers.hf_argparser import HfArgumentParser

from listcon_eval.errors import ListconError
from listcon_eval.records import Mode

if TYPE_CHECKING:
    from transformers import TrainingArguments

Freeze = Literal["none", "encoder", "embedding"]
Fill = Literal["no", "pool", "batch"]
ENCODER_TEACHER = "encoder"

# (lists per device, accumulation): 1024 and 256 lists a step, as published, on one device.
_STAGE_1 = {"num_train_epochs": 4.0, "per_device_train_batch_size": 64, "gradient_accumulation_steps": 16}
_STAGE_2 = {"num_train_epochs": 2.0, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 32}
_RATES = {"none": 2e-5, "encoder": 5e-4, "embedding": 5e-4}

# The order of lists and the batches of the evaluation are our own.
_WITHOUT_EFFECT = (
    *("data_seed", "train_sampling_strategy", "per_device_eval_batch_size", "eval_accumulation_steps"),
    *("bf16_full_eval", "fp16_full_eval", "prediction_loss_only", "batch_eval_metrics", "eval_use_gather_object"),
)


def _option(default: object, text: str) -> Any:  # noqa: ANN401 - the type is the field's
    return field(default=default, metadata={"help": text})


def _words(text: str) -> Any:  # noqa: ANN401
    return field(default_factory=list, metadata={"help": text})


@dataclass
class StartArguments:
    """Where training starts, and what of it is trained."""

    _argument_group_name = "start (one of --model and --encoder)"

    model: str | None = _option(None, "A ListConRanker checkpoint: folder or hub id.")
    encoder: str | None = _option(None, "An encoder, below a new list transformer: folder or hub id.")
    revision: str | None = _option(None, "Hub revision of the model or encoder.")
    freeze: Freeze = _option(
        "none",
        "What is not trained: the encoder (stage 1; its outputs are computed once and kept), or the embedding model, "
        "which is the encoder and linear_in_embedding.",
    )
    freeze_layers: int = _option(
        0, "Without --freeze: this many lower layers of the encoder, and its token embeddings, are not trained."
    )
    list_width: int | None = _option(
        None, "Width of a new list transformer (default: that of the encoder's 2_Dense, else 7/4 of the encoder's)."
    )
    list_layers: int = _option(2, "Layers of a new list transformer.")
    feedforward_width: int | None = _option(
        None, "Inner width of a new list transformer (default: twice the encoder's width)."
    )
    list_dropout: float = _option(0.1, "Dropout of the list transformer.")
    encoder_dropout: float | None = _option(None, "Dropout of the encoder (default: that of its configuration).")


@dataclass
class DataArguments:
    """The training lists and the lists to evaluate on."""

    _argument_group_name = "data"

    data: str = field(metadata={"help": "Training lists: any local data that `listcon-eval run --data` reads."})
    eval_data: list[str] = _words("Held-out lists: paths or NAME=PATH.")
    eval_split: float | None = _option(
        None, "Share of the training queries to hold out (default: 0.02, or 0 with --eval_data)."
    )
    eval_mode: Mode = _option("iterative", "Inference mode of the evaluation.")
    list_size: int = _option(20, "Passages per list: all positives, and sampled negatives.")
    own_negatives: int | None = _option(None, "Sampled negatives of the list's own (default: as many as fit).")
    fill_lists: Fill = _option(
        "no",
        "Fill shorter lists with passages of other queries: from the whole pool of them, or with those of the same "
        "batch, which are encoded anyway.",
    )
    oversample: list[str] = _words("PREFIX=TIMES: use lists whose query id starts with PREFIX that often in an epoch.")
    block_size: int = _option(1, "How many lists that stand next to each other stay together when they are shuffled.")
    max_length: int = _option(512, "Tokens to which a text is cut.")
    pooled_cache: str | None = _option(
        None,
        "Folder for a frozen encoder's outputs, which later runs can use (default: listcon-eval/pooled in HF_HOME).",
    )


@dataclass
class LossArguments:
    """Circle Loss, and the distillation term."""

    _argument_group_name = "loss"

    margin: float = _option(0.25, "The margin m of Circle Loss.")
    scale: float = _option(32.0, "The scale gamma of Circle Loss.")
    teacher: str | None = _option(
        None,
        "Also learn a teacher's distribution over each list: a TREC run file with its scores on the training data "
        "(`listcon-eval run` writes one), or `encoder` for the cosine similarity of the starting encoder.",
    )
    teacher_weight: float = _option(1.0, "Weight of the teacher's term, which is added to Circle Loss.")
    teacher_temperature: float = _option(0.05, "The teacher's scores are divided by it before the softmax.")


class Arguments(NamedTuple):
    """All options of a training run."""

    start: StartArguments
    data: DataArguments
    loss: LossArguments
    training: "TrainingArguments"


class _Parser(HfArgumentParser):
    def __init__(self, classes: Sequence[Any], **options: Any) -> None:  # noqa: ANN401 - argparse's own
        super().__init__(list(classes), add_help=False, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise ListconError(f"{message}; see `listcon-eval train --help`")


def _own_parser() -> _Parser:
    return _Parser(
        [StartArguments, DataArguments, LossArguments],
        prog="listcon-eval train",
        usage="listcon-eval train --data PATH (--encoder E | --model M) --output_dir DIR [options]",
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=30, width=118),
    )


def help_text() -> str:
    """What `listcon-eval train --help` prints."""
    parser = _own_parser()
    for action in parser._actions:
        # One spelling each; both `--list_size` and `--list-size` are accepted.
        action.option_strings = action.option_strings[:1]
        action.metavar = action.metavar or (None if action.choices else action.dest.rsplit("_")[-1].upper())
        if action.nargs == "?":
            action.nargs, action.metavar = 0, None
        if action.help and action.default not in (None, [], False) and "(default" not in action.help:
            action.help += " Default: %(default)s."
    parser.description = (
        "Train a ListConRanker with Circle Loss. Every option of transformers.TrainingArguments is accepted as well:\n"
        "--output_dir (required), --learning_rate, --num_train_epochs, --per_device_train_batch_size (lists),\n"
        "--gradient_accumulation_steps, --bf16, --gradient_checkpointing, --report_to tensorboard and so on.\n"
        "--resume_from_checkpoint true continues from the last checkpoint. The trained model is OUTPUT_DIR/model."
    )
    parser.epilog = (
        "examples:\n"
        "  listcon-eval train --data lists.jsonl.gz --encoder ./encoder --freeze encoder --output_dir stage1\n"
        "  listcon-eval train --data lists.jsonl.gz --model stage1/model --output_dir stage2 --bf16\n"
        "  torchrun --nproc_per_node 8 -m listcon_eval train ...   (or: accelerate launch -m listcon_eval train ...)\n"
        "\n"
        "defaults: with --freeze 4 epochs, 1024 lists per step and device, learning rate 0.0005; without it 2 epochs, "
        "256 lists,\n2e-05. A linear schedule with 10 % warm-up; an evaluation and a checkpoint every epoch; the "
        "checkpoint of the best MAP\nbecomes the model."
    )
    return parser.format_help()


def parse_arguments(words: Sequence[str]) -> Arguments:
    """Parse a command line.

    Raises:
        ListconError: for an unknown option, one given twice, or a value or combination that has no meaning.
    """
    counts = Counter(word.partition("=")[0].replace("-", "_") for word in words if word.startswith("--"))
    for name, times in counts.items():  # argparse takes the last one
        if times > 1:
            raise ListconError(f"--{name[2:]} is given {times} times: give it once")
    start, data, loss, rest = _own_parser().parse_args_into_dataclasses(
        list(words), return_remaining_strings=True, look_for_args_file=False
    )
    if (start.model is None) == (start.encoder is None):
        raise ListconError("give --model or --encoder, one of them: where training starts")
    if data.eval_split is None:
        data.eval_split = 0.0 if data.eval_data else 0.02
    _check(start, data, loss)
    if not any(re.match("--output[_-]dir(=|$)", word) for word in rest):
        raise ListconError("--output_dir is missing: the folder for checkpoints and the trained model")
    from transformers import TrainingArguments

    parser = _Parser([TrainingArguments])
    evaluates = bool(data.eval_data or data.eval_split)
    defaults: dict[str, Any] = _STAGE_2 if start.freeze == "none" else _STAGE_1
    parser.set_defaults(
        **defaults,
        learning_rate=_RATES[start.freeze],
        warmup_steps=0.1,
        weight_decay=0.01,
        logging_steps=10,
        eval_strategy="epoch" if evaluates else "no",
        save_strategy="epoch",
        load_best_model_at_end=evaluates,
        metric_for_best_model="map" if evaluates else None,
        greater_is_better=True if evaluates else None,
        save_total_limit=2,
        ddp_find_unused_parameters=False,
    )
    try:
        (training,) = parser.parse_args_into_dataclasses(rest, look_for_args_file=False)
    except (ValueError, ImportError) as error:  # what TrainingArguments says of its own options
        named = "|".join(field.name for field in fields(TrainingArguments) if "_" in field.name)
        raise ListconError(re.sub(rf"(?<![-\w])({named})\b", r"--\1", str(error))) from error  # as they are given
    if not evaluates and (training.eval_strategy != "no" or training.load_best_model_at_end):
        raise ListconError("there are no held-out lists to evaluate on: give --eval_data, or --eval_split above 0")
    _check_training(training, evaluates)
    if training.per_device_train_batch_size % data.block_size:
        raise ListconError(
            f"--block_size is {data.block_size}: expected a number that divides --per_device_train_batch_size "
            f"({training.per_device_train_batch_size})"
        )
    training.remove_unused_columns = False  # the columns of our batches are not arguments of a model's forward
    return Arguments(start, data, loss, training)


def _check(start: StartArguments, data: DataArguments, loss: LossArguments) -> None:
    if start.freeze_layers and start.freeze != "none":
        raise ListconError(f"--freeze {start.freeze} freezes the whole encoder: give --freeze_layers without it")
    if data.own_negatives == 0 and data.fill_lists == "no":
        raise ListconError("--own_negatives 0 leaves no negatives: give --fill_lists pool or batch")
    if data.block_size > 1 and data.eval_split:
        raise ListconError(
            f"--block_size is {data.block_size}: holding lists out moves the blocks of the others; give --eval_split "
            f"0, or --eval_data"
        )
    _check_values(
        ("list_width", start.list_width, start.list_width is None or start.list_width >= 1, "1 or more"),
        ("feedforward_width", inner := start.feedforward_width, inner is None or inner >= 1, "1 or more"),
        ("list_layers", start.list_layers, start.list_layers >= 1, "1 or more"),
        ("list_dropout", start.list_dropout, 0 <= start.list_dropout < 1, "from 0 to below 1"),
        ("encoder_dropout", rate := start.encoder_dropout, 0 <= (rate or 0) < 1, "from 0 to below 1"),
        ("eval_split", data.eval_split, 0 <= (data.eval_split or 0) < 1, "from 0 to below 1"),
        ("list_size", data.list_size, data.list_size >= 2, "2 or more: a positive and a negative"),
        ("own_negatives", data.own_negatives, (data.own_negatives or 0) >= 0, "0 or more"),
        ("freeze_layers", start.freeze_layers, start.freeze_layers >= 0, "0 or more"),
        ("block_size", data.block_size, data.block_size >= 1, "1 or more"),
        ("max_length", data.max_length, data.max_length >= 3, "3 or more: two special tokens and one of the text"),
        ("margin", loss.margin, 0 <= loss.margin <= 1, "from 0 to 1"),
        ("scale", loss.scale, loss.scale > 0, "above 0"),
        ("teacher_weight", loss.teacher_weight, loss.teacher_weight >= 0, "0 or more"),
        ("teacher_temperature", loss.teacher_temperature, loss.teacher_temperature > 0, "above 0"),
    )
    caches = start.freeze != "none" or loss.teacher == ENCODER_TEACHER
    for part, names, has_effect, wanted in (
        (start, ("list_width", "list_layers", "feedforward_width"), start.encoder is not None, "--encoder"),
        (start, ("encoder_dropout",), start.freeze == "none", "--freeze none"),
        (data, ("pooled_cache",), caches, "--freeze or --teacher encoder"),
        (data, ("eval_mode",), bool(data.eval_data or data.eval_split), "--eval_data or --eval_split"),
        (loss, ("teacher_weight", "teacher_temperature"), loss.teacher is not None, "--teacher"),
    ):
        idle = [name for name in names if getattr(part, name) != getattr(type(part), name)]
        if idle and not has_effect:
            raise ListconError(f"--{idle[0]} is without effect without {wanted}: leave it out")


def _check_training(training: "TrainingArguments", evaluates: bool) -> None:
    """What transformers itself takes, and what ends in an error or in another model than asked for."""
    accumulation, metric = training.gradient_accumulation_steps, training.metric_for_best_model
    _check_values(
        ("per_device_train_batch_size", size := training.per_device_train_batch_size, size >= 1, "1 or more"),
        ("gradient_accumulation_steps", accumulation, accumulation >= 1, "1 or more"),
        ("num_train_epochs", training.num_train_epochs, training.num_train_epochs > 0, "above 0"),
        ("max_steps", training.max_steps, training.max_steps == -1 or training.max_steps >= 1, "1 or more, or -1"),
        ("learning_rate", training.learning_rate, training.learning_rate >= 0, "0 or more"),
        ("seed", training.seed, 0 <= training.seed < 2**32, "from 0 to below 2^32"),
        ("metric_for_best_model", metric, not evaluates or metric in ("map", "eval_map"), "map"),
        ("greater_is_better", training.greater_is_better, not evaluates or training.greater_is_better is True, "true"),
        *(
            (field.name, getattr(training, field.name), True, "")  # is finite, if it is a number
            for field in fields(training)
        ),
        *(
            (name, value := getattr(training, name), not value, "none: it cannot be used here")
            for name in ("label_smoothing_factor", "neftune_noise_alpha", "fsdp", "deepspeed")
        ),
        *(
            (
                field.name,
                value := getattr(training, field.name),
                value == field.default,
                f"{field.default}: it has no effect here",
            )
            for field in fields(training)
            if field.name in _WITHOUT_EFFECT
        ),
    )


def _check_values(*rules: tuple[str, object, bool, str]) -> None:
    """Check values by rules: an option's name, its value, whether that has a meaning, and what is expected."""
    for name, value, holds, wanted in rules:
        if isinstance(value, float) and not math.isfinite(value):
            raise ListconError(f"--{name} is {value}: expected a finite number")
        if not holds:
            raise ListconError(f"--{name} is {value}: expected {wanted}")
