"""A training run: lists and a starting point go in; checkpoints and a trained model come out."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from huggingface_hub import constants
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from listcon_eval.data import local_task, read_lists
from listcon_eval.data.trec import read_trec_run
from listcon_eval.errors import ListconError
from listcon_eval.files import check_writable, write_json
from listcon_eval.inference.tokens import index_list
from listcon_eval.model import save_checkpoint
from listcon_eval.progress import Progress, no_progress
from listcon_eval.train.arguments import ENCODER_TEACHER, Arguments
from listcon_eval.train.data import (
    EpochItem,
    ListCollator,
    ListDataset,
    PooledCache,
    TextTable,
    TokenisedTexts,
    oversample,
    train_eval_split,
    training_lists,
)
from listcon_eval.train.start import calibrate, freeze, start_from
from listcon_eval.train.trainer import EvaluationSet, ListLossModel, ListTrainer, autocast_dtype

_SAMPLE_LISTS = 32
_TOLD_LISTS = 50_000


class TrainedModel(NamedTuple):
    """The checkpoint of the best MAP in layout 1, and that MAP; without evaluation that of the last step, and None."""

    folder: Path
    best_map: float | None


def train(
    arguments: Arguments, *, announce: Callable[[str], None] = lambda _: None, progress: Progress = no_progress
) -> TrainedModel:
    """Train a ListConRanker; `announce` is told in words what the data is, `progress` of texts encoded for the cache.

    Raises:
        ListconError: for data, a starting point or an output folder that cannot be used, or a loss that is not a
            finite number.
    """
    training, data, loss = arguments.training, arguments.data, arguments.loss
    output = Path(str(training.output_dir))
    checkpoint = _checkpoint_to_resume(arguments, output)
    check_writable(output)
    texts = TextTable()
    digest = hashlib.sha256()
    rows, indexed = [], []
    for row in filter(lambda row: row.passages, read_lists(data.data)):
        indexed.append(index_list(row.query_id, row.query, row.passages, texts.index))
        digest.update(json.dumps(row).encode())
        rows.append(row._replace(query="", passages=()))  # the texts are on disk
        if len(rows) % _TOLD_LISTS == 0:
            announce(f"{len(rows)} lists read")
    sets = []
    for given in data.eval_data:
        name, separator, path = given.partition("=")
        one = local_task(path, name=name) if separator and not Path(given).exists() else local_task(given)
        candidates = [row for row in one.candidate_lists() if row.passages]
        own = [index_list(row.query_id, row.query, row.passages, texts.index) for row in candidates]
        sets.append(EvaluationSet(one.name, candidates, own))
    texts.close()
    held_out = train_eval_split(indexed, data.eval_split or 0.0, training.seed)
    if held_out.any():
        chosen = np.flatnonzero(held_out)
        candidates = [rows[place]._replace(passages=tuple(texts[indexed[place].passages])) for place in chosen]
        sets.append(EvaluationSet("split", candidates, [indexed[place] for place in chosen]))
    kept = np.flatnonzero(~held_out)
    teacher = read_trec_run(Path(loss.teacher)) if loss.teacher not in (None, ENCODER_TEACHER) else None
    usable = training_lists([rows[place] for place in kept], [indexed[place] for place in kept], teacher)
    lists = oversample(usable, data.oversample)
    announce(
        f"{len(usable)} lists to train on ({len(lists)} per epoch), {len(kept) - len(usable)} of one class skipped, "
        f"{held_out.sum()} held out, {len(texts)} distinct texts"
    )

    start = start_from(arguments.start, max_length=data.max_length, seed=training.seed)
    tokens = TokenisedTexts(texts, start.tokenizer, data.max_length)
    dataset = ListDataset(
        lists, size=data.list_size, fill=data.fill_lists, seed=training.seed, own_negatives=data.own_negatives
    )
    if start.is_new:
        places = np.linspace(0, len(dataset) - 1, num=min(_SAMPLE_LISTS, len(dataset)), dtype=np.int64)
        batch = ListCollator(tokens, dataset)([dataset[EpochItem(0, int(place), True)] for place in places])
        start.model.eval()
        with torch.no_grad():
            sample = torch.cat([start.model.pool(**part) for part in batch["tokens"]])
        calibrate(start.model, sample, batch["rows"], batch["valid"], centre=not start.has_dense)
    is_frozen = arguments.start.freeze != "none"
    freeze(start.model, arguments.start)
    pooled = None
    if is_frozen or loss.teacher == ENCODER_TEACHER:
        start.model.to(training.device)
        folder = Path(data.pooled_cache or Path(constants.HF_HOME, "listcon-eval", "pooled"))
        pooled = PooledCache(folder, start.model, tokens, autocast_dtype(training))
        pooled.compute(training.process_index, training.world_size, progress)
        training.distributed_state.wait_for_everyone()
    frozen = pooled if is_frozen else None
    trainer = ListTrainer(
        model=ListLossModel(start.model, loss),
        args=training,
        train_dataset=dataset,
        eval_sets=sets,
        processing_class=start.tokenizer,
        data_collator=ListCollator(tokens, dataset, frozen, pooled if loss.teacher == ENCODER_TEACHER else None),
        texts=tokens,
        pooled=frozen,
        mode=data.eval_mode,
    )
    if trainer.is_world_process_zero():
        record = {name: dataclasses.asdict(getattr(arguments, name)) for name in ("start", "data", "loss")}
        write_json(output / "arguments.json", {**record, "data_sha256": digest.hexdigest()})
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    folder = output / "model"
    if trainer.is_world_process_zero():
        bad = [name for name, value in start.model.named_parameters() if not value.isfinite().all()]
        if bad:
            raise ListconError(f"the trained weights are not finite: {', '.join(bad[:5])}; lower --learning_rate")
        save_checkpoint(start.model, start.tokenizer, folder)
    return TrainedModel(folder, trainer.state.best_metric)


def _checkpoint_to_resume(arguments: Arguments, output: Path) -> Path | None:
    wanted = arguments.training.resume_from_checkpoint or "false"
    checkpoints = {
        int(number): path
        for path in output.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if (number := path.name.rpartition("-")[2]).isdecimal()
        and (path / "trainer_state.json").exists()  # it is written last
    }
    if wanted.casefold() == "false":
        if checkpoints or (output / "model").exists():
            raise ListconError(
                f"{output} holds a run: continue it with --resume_from_checkpoint true, or give another --output_dir"
            )
        return None
    if wanted.casefold() == "true":  # without a checkpoint, the run was interrupted before its first one
        return checkpoints[max(checkpoints)] if checkpoints else None
    if not (Path(wanted) / "trainer_state.json").exists():
        raise ListconError(f"--resume_from_checkpoint is {wanted}: expected true, or a folder checkpoint-N of a run")
    return Path(wanted)
