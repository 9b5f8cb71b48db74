"""Optimiser steps: which weights a stage trains, how fast, and what stops a run that has gone wrong."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from listcon_eval.errors import ListconError
from listcon_eval.model import ListConModel
from listcon_eval.train.lists import TrainingList
from listcon_eval.train.objectives import BatchLosses, Objective
from listcon_eval.train.settings import Schedule, Settings


def learning_rate(step: int, steps: int, *, highest: float, warm_up: float) -> float:
    """The learning rate of one step: linearly up to `highest`, then linearly down towards 0.

    Args:
        step: the step, from 0.
        steps: the stage's steps.
        highest: the highest learning rate.
        warm_up: the share of steps, rounded up, in which it rises.
    """
    rising = math.ceil(warm_up * steps)
    if step < rising:
        return highest * (step + 1) / rising
    return highest * (steps - step) / (steps - rising)


def set_trained(model: ListConModel, stage: int, *, words_alone: bool = False) -> None:
    """Let gradients reach what a stage trains: 0 encoder and projection, 1 all but the encoder, 2 everything.

    Args:
        model: the model.
        stage: the stage.
        words_alone: whether stage 0 trains nothing but the word embeddings.
    """
    first = ("encoder.embeddings.word_embeddings.",) if words_alone else ("encoder.", "linear_in_embedding.")
    for name, parameter in model.named_parameters():
        trained = {
            0: name.startswith(first),
            1: not name.startswith("encoder."),
            2: True,
        }
        parameter.requires_grad_(trained[stage])


def set_mode(model: ListConModel, stage: int) -> None:
    """Switch dropout on where a stage trains; a frozen encoder stays in evaluation mode."""
    model.train()
    if stage == 1:
        model.encoder.train(False)


class Stepper:
    """The optimiser of one stage.

    Args:
        trained: what the stage trains, on one device.
        schedule: the stage.
        settings: the run's settings.
        steps: the stage's steps.
    """

    def __init__(self, trained: Sequence[nn.Parameter], schedule: Schedule, settings: Settings, steps: int) -> None:
        self.schedule = schedule
        self.settings = settings
        self.steps = steps
        self._trained = trained
        matrices = [parameter for parameter in self._trained if parameter.dim() > 1]
        vectors = [parameter for parameter in self._trained if parameter.dim() <= 1]
        self._optimiser = AdamW(
            [
                {"params": matrices, "weight_decay": settings.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=schedule.learning_rate,
        )
        device = self._trained[0].device.type
        self._scaler = torch.amp.GradScaler(device, enabled=settings.autocast == "fp16")

    def step(
        self, number: int, objective: Objective, batch: Sequence[TrainingList]
    ) -> tuple[BatchLosses, float, float]:
        """Train on one batch.

        Args:
            number: the step in its stage, from 0; it decides, with seed and stage, every random choice.
            objective: the stage's loss.
            batch: the lists.

        Returns:
            The lists' losses, the learning rate and the gradient's norm before clipping. With float16 the norm may be
            infinite: the step is left out then, and the scale lowered.

        Raises:
            ListconError: when a loss or the gradient is not a number, naming the step, the rate and the lists. The
                weights are still those before the step.
        """
        rate = learning_rate(number, self.steps, highest=self.schedule.learning_rate, warm_up=self.settings.warm_up)
        choices = np.random.SeedSequence([self.settings.seed, self.schedule.stage, number])
        torch.manual_seed(int(choices.generate_state(1)[0]))  # dropout
        self._optimiser.zero_grad(set_to_none=True)
        losses = objective.accumulate(batch, np.random.default_rng(choices), self._backward)
        where = f"stage {self.schedule.stage}, step {number + 1} of {self.steps}, learning rate {rate:.3g}"
        if losses.not_finite:
            bad = losses.not_finite
            raise ListconError(
                f"the loss is not a number at {where}, in {len(bad)} of {len(batch)} lists: {', '.join(bad[:5])}"
                f"{', ...' if len(bad) > 5 else ''}. Lower the learning rate or the scale, or train without autocast; "
                f"--resume goes on from the last saved step, but only with the same options"
            )
        self._scaler.unscale_(self._optimiser)
        norm = float(torch.nn.utils.clip_grad_norm_(self._trained, self.settings.max_grad_norm))
        if not math.isfinite(norm) and not self._scaler.is_enabled():
            raise ListconError(
                f"the gradient is not a number at {where}, though every loss is: lists {', '.join(losses.names[:5])}"
                f"{', ...' if len(losses.names) > 5 else ''}. Lower the learning rate or the scale"
            )
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._scaler.step(self._optimiser)
        self._scaler.update()
        return losses, rate, norm

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the optimiser and the gradient scaler know of earlier steps."""
        return self._optimiser.state_dict(), self._scaler.state_dict()

    def load_state(self, optimiser: dict[str, Any], scaler: dict[str, Any]) -> None:
        """Go on from `state`."""
        self._optimiser.load_state_dict(optimiser)
        self._scaler.load_state_dict(scaler)

    def _backward(self, loss: Tensor) -> None:
        torch.autograd.backward(self._scaler.scale(loss))
