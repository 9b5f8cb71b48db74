"""A training run: lists and a starting point go in; checkpoints and a trained model come out."""

import dataclasses
import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import send_to_device
from huggingface_hub import constants
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from listcon_eval.data import local_task, read_lists
from listcon_eval.data.trec import read_trec_run
from listcon_eval.errors import ListconError, first_line
from listcon_eval.files import check_writable, sha256_of_file, write_json
from listcon_eval.inference.tokens import IndexedList, index_list
from listcon_eval.metrics import cmteb
from listcon_eval.model import save_checkpoint
from listcon_eval.model.checkpoint import names_of_weights
from listcon_eval.progress import Progress, no_progress
from listcon_eval.records import CandidateList, Mode
from listcon_eval.train.arguments import ENCODER_TEACHER, Arguments
from listcon_eval.train.data import (
    EpochItem,
    ListCollator,
    ListDataset,
    PooledCache,
    TextTable,
    TokenisedTexts,
    TrainingList,
    oversample,
    train_eval_split,
    training_lists,
)
from listcon_eval.train.start import Start, calibrate, freeze, start_from
from listcon_eval.train.trainer import EvaluationSet, ListLossModel, ListTrainer, autocast_dtype

_SAMPLE_LISTS = 32
_TOLD_LISTS = 50_000
_RECORD = "arguments.json"
_FREE_TO_CHANGE = ("data", "pooled_cache")  # when a run is continued: where files are; the lists are compared by a hash
# The options of transformers that the weights at the end follow from.
_DECIDING = (
    *("seed", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("dataloader_drop_last", "learning_rate", "warmup_steps", "lr_scheduler_type", "lr_scheduler_kwargs"),
    *("optim", "optim_args", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"),
    *("bf16", "fp16"),
)


class TrainedModel(NamedTuple):
    """The trained model in layout 1, with its MAP on the held-out lists.

    `best_map` is that of the best checkpoint, `last_map` that of the last step, where that is the model. Both are None
    when it was not evaluated.
    """

    folder: Path
    best_map: float | None
    last_map: float | None = None


class _Read(NamedTuple):
    """What a run reads: the training lists without their texts, the same by the numbers of their texts, and so on."""

    rows: list[CandidateList]
    indexed: list[IndexedList]
    held_out: list[EvaluationSet]
    texts: TextTable
    teacher: Mapping[str, Mapping[str, float]] | None  # its scores, if a file holds them
    sha256: str  # of all


def train(
    arguments: Arguments, *, announce: Callable[[str], None] = lambda _: None, progress: Progress = no_progress
) -> TrainedModel:
    """Train a ListConRanker; `announce` is told in words what the data is, `progress` of texts encoded for the cache.

    Raises:
        ListconError: for data, a starting point or an output folder that cannot be used, or a loss that is not a
            finite number.
    """
    training, data, loss = arguments.training, arguments.data, arguments.loss
    if training.n_gpu > 1:
        raise ListconError(
            f"one process sees {training.n_gpu} GPUs: start one process per GPU with torchrun, or set "
            f"CUDA_VISIBLE_DEVICES=0"
        )
    output = Path(str(training.output_dir))
    checkpoint = _checkpoint_to_resume(arguments, output)
    check_writable(output)
    record = {name: dataclasses.asdict(getattr(arguments, name)) for name in ("start", "data", "loss")}
    options = training.to_dict()  # type: ignore[no-untyped-call]
    record["training"] = {name: options[name] for name in _DECIDING} | {"nproc_per_node": training.world_size}
    resumed_data = None if checkpoint is None else _check_resumable(checkpoint, record)
    read = _read(arguments, announce)
    if resumed_data not in (None, read.sha256):
        raise ListconError(
            f"the files of --data, --eval_data or --teacher are not those of the run of {checkpoint}: give the same, "
            f"or another --output_dir"
        )
    lists, held_out = _training_lists(read, arguments, announce)
    start = start_from(arguments.start, max_length=data.max_length, seed=training.seed)
    tokens = TokenisedTexts(read.texts, start.tokenizer, data.max_length)
    dataset = ListDataset(
        lists, size=data.list_size, fill=data.fill_lists, seed=training.seed, own_negatives=data.own_negatives
    )
    start.model.to(training.device)
    if start.is_new and checkpoint is None:
        _calibrate(start, tokens, dataset, training.device)
    is_frozen, has_teacher = arguments.start.freeze != "none", loss.teacher == ENCODER_TEACHER
    freeze(start.model, arguments.start)
    pooled = None
    if is_frozen or has_teacher:
        folder = Path(data.pooled_cache or Path(constants.HF_HOME, "listcon-eval", "pooled"))
        pooled = PooledCache(folder, start.model, tokens, autocast_dtype(training))
        pooled.compute(training.process_index, training.world_size, progress)
        training.distributed_state.wait_for_everyone()
    frozen = pooled if is_frozen else None
    trainer = ListTrainer(
        model=ListLossModel(start.model, loss),
        args=training,
        train_dataset=dataset,
        eval_sets=held_out,
        processing_class=start.tokenizer,
        data_collator=ListCollator(tokens, dataset, frozen, pooled if has_teacher else None),
        texts=tokens,
        pooled=frozen,
        mode=data.eval_mode,
        block_size=data.block_size,
    )
    if trainer.is_world_process_zero():
        write_json(output / _RECORD, {**record, "data_sha256": read.sha256})
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    folder = output / "model"
    if trainer.is_world_process_zero():
        bad = [name for name, value in start.model.named_parameters() if not value.isfinite().all()]
        if bad:
            raise ListconError(f"the trained weights are not finite: {', '.join(bad[:5])}; lower --learning_rate")
        save_checkpoint(start.model, start.tokenizer, folder)
    state = trainer.state
    best = state.best_model_checkpoint if training.load_best_model_at_end else None
    if best is not None and Path(best).exists():  # otherwise transformers left the last one
        return TrainedModel(folder, state.best_metric)
    maps = [row["eval_map"] for row in state.log_history if "eval_map" in row and row["step"] == state.global_step]
    return TrainedModel(folder, None, maps[-1] if maps else None)


def _read(arguments: Arguments, announce: Callable[[str], None]) -> _Read:
    """Read all files of a run; the texts go to a table on disk."""
    texts = TextTable()
    digest = hashlib.sha256()
    rows, indexed, held_out = [], [], []
    for row in filter(lambda row: row.passages, read_lists(arguments.data.data)):
        indexed.append(index_list(row.query_id, row.query, row.passages, texts.index))
        digest.update(json.dumps(row).encode())
        rows.append(row._replace(query="", passages=()))
        if len(rows) % _TOLD_LISTS == 0:
            announce(f"{len(rows)} lists read")
    for given in arguments.data.eval_data:
        name, separator, path = given.partition("=")
        task = local_task(path, name=name) if separator and not Path(given).exists() else local_task(given)
        candidates = [row for row in task.candidate_lists() if row.passages]
        own = [index_list(row.query_id, row.query, row.passages, texts.index) for row in candidates]
        digest.update(json.dumps(candidates).encode())
        held_out.append(EvaluationSet(task.name, candidates, own))
    texts.close()
    teacher = None
    if arguments.loss.teacher not in (None, ENCODER_TEACHER):
        scores = Path(str(arguments.loss.teacher))
        teacher = read_trec_run(scores)
        digest.update(sha256_of_file(scores).encode())
    return _Read(rows, indexed, held_out, texts, teacher, digest.hexdigest())


def _training_lists(
    read: _Read, arguments: Arguments, announce: Callable[[str], None]
) -> tuple[list[TrainingList], list[EvaluationSet]]:
    """The lists of an epoch, and all held-out ones."""
    training, data = arguments.training, arguments.data
    is_held_out = train_eval_split(read.indexed, data.eval_split or 0.0, training.seed)
    sets = list(read.held_out)
    if is_held_out.any():
        own = [read.indexed[place] for place in np.flatnonzero(is_held_out)]
        candidates = [
            read.rows[place]._replace(passages=tuple(read.texts[row.passages]))
            for place, row in zip(np.flatnonzero(is_held_out), own, strict=True)
        ]
        sets.append(EvaluationSet("split", candidates, own))
    _check_held_out(sets, data.eval_mode)
    kept = np.flatnonzero(~is_held_out)
    usable = training_lists([read.rows[place] for place in kept], [read.indexed[place] for place in kept], read.teacher)
    lists = oversample(usable, data.oversample)
    announce(
        f"{len(usable)} lists to train on ({len(lists)} per epoch), {len(kept) - len(usable)} of one class skipped, "
        f"{is_held_out.sum()} held out, {len(read.texts)} distinct texts"
    )
    trained = {row.query for row in usable}
    for held in sets:
        if shared := sum(row.query in trained for row in held.indexed):
            announce(
                f"{shared} of {len(held.lists)} queries of {held.name} are trained on too, so its MAP is too favourable"
            )
    size = training.per_device_train_batch_size
    if training.dataloader_drop_last and training.world_size == 1 and len(lists) < size:
        raise ListconError(
            f"--dataloader_drop_last leaves out all {len(lists)} lists: --per_device_train_batch_size is {size}"
        )
    left = len(lists) % size if training.world_size == 1 and not training.dataloader_drop_last else 0
    if data.own_negatives == 0 and data.fill_lists == "batch" and 1 in (size, left):
        raise ListconError(
            f"with --own_negatives 0 a list that is alone in a batch has no negatives, as the last of {len(lists)} "
            f"lists in batches of {size}: give another --per_device_train_batch_size, or --dataloader_drop_last true"
        )
    return lists, sets


def _calibrate(start: Start, tokens: TokenisedTexts, dataset: ListDataset, device: torch.device) -> None:
    """Scale a new list transformer to the features of some lists."""
    places = np.linspace(0, len(dataset) - 1, num=min(_SAMPLE_LISTS, len(dataset)), dtype=np.int64)
    batch = ListCollator(tokens, dataset)([dataset[EpochItem(0, int(place), True)] for place in places])
    batch = send_to_device(batch, device)
    start.model.eval()
    with torch.no_grad():
        sample = torch.cat([start.model.pool(**part) for part in batch["tokens"]])
    calibrate(start.model, sample, batch["rows"], batch["valid"], centre=not start.has_dense)


def _check_held_out(sets: Sequence[EvaluationSet], mode: Mode) -> None:
    """Check that held-out lists have names of their own, and that their MAP can be measured."""
    for name, times in Counter(one.name for one in sets).items():
        if times > 1:
            raise ListconError(f"{times} sets of held-out lists are called {name!r}: name them, --eval_data NAME=PATH")
    for one in sets:
        if not any(len(set(cmteb.labels(row, mode))) == 2 for row in one.lists):
            raise ListconError(
                f"none of the {len(one.lists)} held-out lists of {one.name!r} has both a relevant and another passage, "
                f"so they have no MAP: give other --eval_data, or a larger --eval_split"
            )


def _checkpoint_to_resume(arguments: Arguments, output: Path) -> Path | None:
    wanted = arguments.training.resume_from_checkpoint or "false"
    word = wanted.casefold()
    checkpoints = {
        int(number): path
        for path in output.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if (number := path.name.rpartition("-")[2]).isdecimal()
        and (path / "trainer_state.json").exists()  # it is written last
    }
    is_other_run = word == "false" or (word != "true" and Path(wanted).resolve().parent != output.resolve())
    if is_other_run and (checkpoints or (output / "model").exists()):
        raise ListconError(
            f"{output} holds a run: continue it with --resume_from_checkpoint true, or give another --output_dir"
        )
    if word == "false":
        return None
    if word == "true":
        if not checkpoints and (output / "model").exists():
            raise ListconError(f"{output} holds a trained model and no checkpoint: give another --output_dir")
        return checkpoints[max(checkpoints)] if checkpoints else None  # it may have been cut short before the first one
    if not (Path(wanted) / "trainer_state.json").exists():
        raise ListconError(f"--resume_from_checkpoint is {wanted}: expected true, or a folder checkpoint-N of a run")
    return Path(wanted)


def _check_resumable(checkpoint: Path, record: Mapping[str, Mapping[str, Any]]) -> str:
    """Check that a checkpoint's files can be read and the options are those of its run; the hash of that run's data."""
    try:
        stored = json.loads((checkpoint.parent / _RECORD).read_text(encoding="utf-8"))
        earlier = {part: dict(stored.get(part, {})) for part in record}
        data = str(stored["data_sha256"])
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
        if not names_of_weights(checkpoint):
            raise ValueError("it holds no weights")
        for path in {checkpoint / "optimizer.pt", checkpoint / "scheduler.pt", *checkpoint.glob("*.pt*")}:
            if not zipfile.is_zipfile(path):
                raise ValueError(f"{path.name} is damaged, or missing (--save_only_model)")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ListconError) as error:
        raise ListconError(
            f"cannot continue from {checkpoint}: {first_line(error)}. Continue from an earlier one with "
            f"--resume_from_checkpoint, or start anew in another --output_dir"
        ) from error
    for part, options in record.items():
        for name, value in options.items():
            before = earlier[part].get(name, value)
            if before != value and name not in _FREE_TO_CHANGE:
                raise ListconError(
                    f"--{name} is {value}, and it was {before} in the run of {checkpoint}: give the same, or another "
                    f"--output_dir"
                )
    return data
