"""Takes a model through the stages of a run: steps, evaluations, saved states."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerFast

from listcon_eval.model import ListConModel, save_checkpoint
from listcon_eval.progress import Progress
from listcon_eval.train import plot
from listcon_eval.train.evaluator import Evaluator
from listcon_eval.train.lists import ListSampler, TrainingList, epoch_batches
from listcon_eval.train.log import Log
from listcon_eval.train.objectives import ListObjective, Objective
from listcon_eval.train.pairs import PairObjective, normalised_features
from listcon_eval.train.pooling import Pooling
from listcon_eval.train.settings import Schedule, Settings
from listcon_eval.train.state import State
from listcon_eval.train.steps import Stepper, set_mode, set_trained
from listcon_eval.train.tokens import TokenisedTexts
from listcon_eval.train.words import LEARNING_WEIGHT, WordBags

BEST, LAST = "best", "last"


class StepReport(NamedTuple):
    """One optimiser step, as log and progress show it.

    Attributes:
        step: its number in the run, from 1.
        stage: 0, 1 or 2.
        epoch: the stage's epoch, from 1.
        stage_step: its number in the stage, from 1.
        stage_steps: the stage's steps.
        learning_rate: the learning rate.
        loss: the mean loss of the batch's lists.
        grad_norm: the gradient's norm before clipping; None where it was infinite and float16 left the step out.
        lists_per_second: the batch's lists by the step's time.
    """

    step: int
    stage: int
    epoch: int
    stage_step: int
    stage_steps: int
    learning_rate: float
    loss: float
    grad_norm: float | None
    lists_per_second: float


class Trainer:
    """Takes a model through its stages; `run.train` builds it and says what its parts are."""

    def __init__(
        self,
        *,
        settings: Settings,
        run: dict[str, Any],
        lists: Sequence[TrainingList],
        texts: TokenisedTexts,
        sampler: ListSampler,
        pooling: Pooling,
        tokenizer: PreTrainedTokenizerFast,
        evaluators: Sequence[Evaluator],
        log: Log,
        progress: Progress,
        on_step: Callable[[StepReport], None],
        announce: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._run = run
        self._lists = lists
        self._texts = texts
        self._sampler = sampler
        self._pooling = pooling
        self._tokenizer = tokenizer
        self._evaluators = evaluators
        self._log = log
        self._progress = progress
        self._on_step = on_step
        self._announce = announce
        self._best_map: float | None = None

    @property
    def _model(self) -> ListConModel:
        return self._pooling.model

    def train(self, state: State | None) -> float | None:
        """Train from the start or from a saved state to the end, and return the best MAP."""
        self._best_map = state.best_map if state is not None else None
        before = 0  # steps of earlier stages
        for schedule in self._settings.schedules():
            steps = schedule.epochs * math.ceil(len(self._lists) / schedule.batch)
            here = state if state is not None and state.stage == schedule.stage else None
            passed = state is not None and schedule.stage < state.stage
            if steps and not passed and (here is None or here.step < steps):
                self._train_stage(schedule, steps, before, here)
            before += steps
        save_checkpoint(self._model, self._tokenizer, self._settings.output / LAST)
        self._draw()
        self._save(schedule.stage, steps, None)
        return self._best_map

    def _train_stage(self, schedule: Schedule, steps: int, before: int, state: State | None) -> None:
        """Train one stage of `steps` steps, of which those that `state` says are done are left out."""
        stage = schedule.stage
        width = self._settings.meaning_width if stage == 0 else None
        bags = WordBags(self._model, width, LEARNING_WEIGHT) if width is not None else None
        set_trained(self._model, stage, words_alone=bags is not None)
        objective = self._objective(stage, bags)
        trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        stepper = Stepper(trained if bags is None else [*trained, bags.gains], schedule, self._settings, steps)
        done = 0
        if state is not None:
            done = state.step
            stepper.load_state(state.optimiser, state.scaler)
        set_mode(self._model, stage)
        per_epoch = steps // schedule.epochs
        for epoch in range(done // per_epoch, schedule.epochs):
            order = np.random.default_rng([self._settings.seed, stage, epoch, 1])
            batches = epoch_batches(len(self._lists), schedule.batch, order)
            for batch in batches[done - epoch * per_epoch :]:
                start = time.perf_counter()
                losses, rate, norm = stepper.step(done, objective, [self._lists[index] for index in batch])
                if bags is not None:
                    bags.absorb()
                done += 1
                report = StepReport(
                    step=before + done,
                    stage=stage,
                    epoch=epoch + 1,
                    stage_step=done,
                    stage_steps=steps,
                    learning_rate=rate,
                    loss=losses.mean,
                    grad_norm=norm if math.isfinite(norm) else None,
                    lists_per_second=round(len(batch) / (time.perf_counter() - start), 2),
                )
                self._log.write("step", report._asdict())
                self._on_step(report)
                if done % self._settings.save_every == 0 and done % per_epoch:
                    self._save(stage, done, stepper)
            self._announce(
                f"stage {stage}, epoch {epoch + 1} of {schedule.epochs}: loss {report.loss:.4f}{self._evaluate(report)}"
            )
            set_mode(self._model, stage)
            self._save(stage, done, stepper)

    def _objective(self, stage: int, bags: WordBags | None) -> Objective:
        settings = self._settings
        if stage == 0:
            return PairObjective(
                normalised_features(self._pooling) if bags is None else bags,
                self._texts,
                self._lists,
                micro_batch=settings.micro_batch,
                temperature=settings.temperature,
                hard_negatives=settings.hard_negatives,
                pseudo_queries=settings.pseudo_queries,
                token_dropout=settings.token_dropout,
            )
        return ListObjective(
            self._pooling,
            self._texts,
            self._pooling.all(self._texts, self._progress) if stage == 1 else None,
            self._sampler,
            micro_batch=settings.micro_batch,
            margin=settings.margin,
            scale=settings.scale,
        )

    def _evaluate(self, report: StepReport) -> str:
        """Evaluate after an epoch, keep the best checkpoint, and say the MAPs in words."""
        if not self._evaluators:
            return ""
        stage = report.stage
        # Before stage 1 a new model's scores say nothing, unless it begins by matching words.
        by_embeddings = stage == 0 and self._settings.meaning_width is None
        if by_embeddings:
            maps = {one.name: one.map_of_embeddings(self._pooling) for one in self._evaluators}
        else:
            mode = self._settings.eval_mode
            maps = {one.name: one.map_of_lists(self._pooling, mode, frozen=stage == 1) for one in self._evaluators}
        mean = math.fsum(maps.values()) / len(maps)
        if not by_embeddings and (self._best_map is None or mean > self._best_map):
            self._best_map = mean
            save_checkpoint(self._model, self._tokenizer, self._settings.output / BEST)
        self._log.write(
            "evaluation",
            {
                "step": report.step,
                "stage": stage,
                "epoch": report.epoch,
                "ranked_by": "embeddings" if by_embeddings else "lists",
                "map": maps,
                "mean_map": mean,
            },
        )
        self._draw()
        return "".join(f", MAP {value:.4f} ({name})" for name, value in maps.items())

    def _draw(self) -> None:
        if plot.can_plot():
            plot.draw(self._log.path, self._settings.output / plot.PLOT_FILE)

    def _save(self, stage: int, step: int, stepper: Stepper | None) -> None:
        """Save where the run is; without a stepper it is at its end, and the weights are in its checkpoints."""
        optimiser, scaler = stepper.state() if stepper is not None else ({}, {})
        State(
            run=self._run,
            stage=stage,
            step=step,
            done=stepper is None,
            best_map=self._best_map,
            log_bytes=self._log.size,
            model=self._model.state_dict() if stepper is not None else {},
            optimiser=optimiser,
            scaler=scaler,
        ).save(self._settings.output)
