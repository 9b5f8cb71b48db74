"""The losses, and a thin `transformers.Trainer`: losses are means over lists, evaluation is MAP on held-out lists.

Circle Loss: "Circle Loss: A Unified Perspective of Pair Similarity Optimization" (arXiv 2002.10857), equations 6 to 8,
with the scores of one list as the similarities.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments

from listcon_eval.errors import ListconError, first_line
from listcon_eval.inference.features import FeatureStore
from listcon_eval.inference.iterative import rank_features
from listcon_eval.inference.memory import BatchBudget, Budgets
from listcon_eval.inference.tokens import IndexedList, over_own_texts
from listcon_eval.metrics import cmteb
from listcon_eval.model import ListConModel
from listcon_eval.records import CandidateList, Mode
from listcon_eval.train.arguments import LossArguments
from listcon_eval.train.data import EpochItem, EpochSampler, ListDataset, PooledCache, TokenisedTexts, encode_texts


def circle_loss(scores: Tensor, positive: Tensor, negative: Tensor, *, margin: float, scale: float) -> Tensor:
    """Circle Loss of each list, in float32.

    Args:
        scores: similarities between 0 and 1, (B, P).
        positive: True at relevant passages, (B, P); at least one in each list.
        negative: True at the others, (B, P); at least one in each list. What is neither is padding.
        margin: m; positives are pulled above 1 - m, negatives pushed below m.
        scale: gamma, the factor on similarities.

    Returns:
        One loss per list, (B,). The weights of the similarities have no gradient, as in the paper.
    """
    scores = scores.float()
    constant = scores.detach()
    negative_terms = scale * functional.relu(constant + margin) * (scores - margin)  # (B, P)
    positive_terms = -scale * functional.relu(1 + margin - constant) * (scores - (1 - margin))  # (B, P)
    total = torch.logsumexp(negative_terms.masked_fill(~negative, -torch.inf), dim=1)  # (B,)
    total = total + torch.logsumexp(positive_terms.masked_fill(~positive, -torch.inf), dim=1)
    return functional.softplus(total)


def distillation_loss(logits: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """The Kullback-Leibler divergence of the softmax of the logits from that of the teacher's scores, per list.

    Args:
        logits: (B, P).
        teacher: the teacher's scores, (B, P); passages for which it is NaN are left out.
        temperature: the teacher's scores are divided by it.

    Returns:
        One loss per list, (B,), 0 or more; 0 for a list with fewer than two scores of the teacher.
    """
    known = ~teacher.isnan()
    usable = known.sum(dim=1, keepdim=True) >= 2  # (B, 1)
    # A finite number instead of -inf: exp gives 0 all the same, and 0 * log 0 does not become NaN.
    lowest = torch.finfo(torch.float32).min / 4
    target = (teacher.float() / temperature).masked_fill(~known, lowest).log_softmax(dim=1)
    found = logits.float().masked_fill(~known, lowest).log_softmax(dim=1)
    divergence = functional.kl_div(found, target, reduction="none", log_target=True)  # (B, P)
    return divergence.masked_fill(~(known & usable), 0.0).sum(dim=1)


class ListLossModel(nn.Module):
    """A ListConRanker whose forward pass is the loss of each list: what the Trainer trains.

    Its saved weights, with the encoder's configuration and the tokenizer, are a checkpoint of layout 2.
    """

    def __init__(self, model: ListConModel, loss: LossArguments) -> None:
        super().__init__()
        self.model, self._loss = model, loss

    def forward(self, batch: dict[str, Any]) -> Tensor:
        """The loss of each list of a batch of `ListCollator`, (B,), in float32."""
        model, options = self.model, self._loss
        pooled = batch["pooled"] if "pooled" in batch else torch.cat([model.pool(**part) for part in batch["tokens"]])
        features = model.linear_in_embedding(pooled)[batch["rows"]]  # (B, 1 + P, D)
        logits = model.logits(features, batch["valid"]).float()  # (B, P)
        negative = batch["valid"][:, 1:] & ~batch["positive"]
        losses = circle_loss(
            torch.sigmoid(logits), batch["positive"], negative, margin=options.margin, scale=options.scale
        )
        if options.teacher is not None:
            teacher = distillation_loss(logits, batch["teacher"], temperature=options.teacher_temperature)
            losses = losses + options.teacher_weight * teacher
        return losses

    def train(self, mode: bool = True) -> "ListLossModel":
        """Switch dropout on, except in modules of which nothing is trained."""
        super().train(mode)
        for module in self.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.train(False)
        return self

    def activation_checkpointing_enable(self, **options: Any) -> None:  # noqa: ANN401 - the encoder's own
        """Recompute the encoder's activations in the backward pass (`--gradient_checkpointing`)."""
        self.model.encoder.activation_checkpointing_enable(**options)

    def gradient_checkpointing_enable(self, **options: Any) -> None:  # noqa: ANN401
        """The same, by the name that older versions of transformers call."""
        encoder: Any = self.model.encoder
        encoder.gradient_checkpointing_enable(**options)


def autocast_dtype(arguments: TrainingArguments) -> torch.dtype | None:
    """The number format that `--bf16` or `--fp16` asks for; None for float32."""
    return torch.bfloat16 if arguments.bf16 else torch.float16 if arguments.fp16 else None


class EvaluationSet(NamedTuple):
    """Held-out lists: their name in metrics, the lists, and the same over the indices of the run's texts."""

    name: str
    lists: Sequence[CandidateList]
    indexed: Sequence[IndexedList]


@contextmanager
def _refused_options() -> Iterator[None]:
    """Turn what transformers says of options that it cannot use, or not on this machine, into one message."""
    try:
        yield
    except (ValueError, ImportError, RuntimeError, TypeError) as error:
        raise ListconError(f"training cannot start with these options: {first_line(error)}") from error


class ListTrainer(Trainer):
    """Trains a `ListLossModel`, and evaluates on `eval_sets` in an inference mode.

    Args:
        texts: the tokens of all texts.
        pooled: the pooled outputs of a frozen encoder, for the evaluation.
        mode: the inference mode of the evaluation.
        block_size: how many neighbouring lists stay together when they are shuffled.
        train_dataset: the training lists.
        eval_sets: the held-out lists.
        arguments: other arguments of `transformers.Trainer`.
    """

    def __init__(
        self,
        *,
        texts: TokenisedTexts,
        pooled: PooledCache | None,
        mode: Mode,
        block_size: int,
        train_dataset: ListDataset,
        eval_sets: Sequence[EvaluationSet],
        **arguments: Any,  # noqa: ANN401 - Trainer's own
    ) -> None:
        with _refused_options():
            super().__init__(train_dataset=train_dataset, eval_dataset=list(eval_sets) or None, **arguments)
        self.model_accepts_loss_kwargs = True  # compute_loss divides by the number of lists of the whole step
        self._lists, self._sets = train_dataset, eval_sets
        self._texts, self._mode, self._pooled = texts, mode, pooled
        self._block_size = block_size

    def create_optimizer(self, *given: Any, **named: Any) -> Any:  # noqa: ANN401 - Trainer's own
        """As Trainer's, but a ListconError for options that cannot be used."""
        with _refused_options():
            return super().create_optimizer(*given, **named)

    def create_scheduler(self, *given: Any, **named: Any) -> Any:  # noqa: ANN401
        """As Trainer's, but a ListconError for options that cannot be used."""
        with _refused_options():
            return super().create_scheduler(*given, **named)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[EpochItem]:  # noqa: ANN401, ARG002 - as Trainer's
        processes = self.args.world_size
        return EpochSampler(
            len(self._lists),
            seed=self.args.seed,
            epoch=lambda: int(self.state.epoch or 0),
            multiple=self.args.per_device_train_batch_size * processes if processes > 1 else 1,
            block_size=self._block_size,
        )

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Tensor:
        count = torch.stack([batch["counts"].sum() for batch in batch_samples]).sum().to(device)
        gathered: Tensor = self.accelerator.gather(count.unsqueeze(0))
        return gathered.sum()

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401 - as Trainer's
        """The loss of a micro-batch: its share of the mean over all lists of the optimiser step.

        Raises:
            ListconError: when the loss of a list is not a finite number.
        """
        losses = model(inputs)  # (B,)
        finite = losses.detach().isfinite()
        if not finite.all():
            bad = [name for name, is_finite in zip(inputs["query_ids"], finite.tolist(), strict=True) if not is_finite]
            raise ListconError(
                f"the loss is not a finite number at step {self.state.global_step + 1} with learning rate "
                f"{self._get_learning_rate():g}, for {len(bad)} of {len(losses)} lists: {', '.join(bad[:5])}. Lower "
                f"--learning_rate, or use --bf16 instead of --fp16"
            )
        total = (losses * inputs["counts"]).sum()
        # Gradients are averaged over the processes; num_items_in_batch counts the lists of all of them.
        loss = total * self.accelerator.num_processes / (num_items_in_batch or inputs["counts"].sum())
        return (loss, losses) if return_outputs else loss

    def evaluate(
        self,
        eval_dataset: Any = None,  # noqa: ANN401, ARG002 - as Trainer's
        ignore_keys: list[str] | None = None,  # noqa: ARG002
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """MAP (`cmteb`) on the held-out lists: each set's, and their mean as `eval_map`. One process computes it."""
        found: dict[str, float] = {}
        if self.is_world_process_zero():
            values = {one.name: self._map(one) for one in self._sets}
            found[f"{metric_key_prefix}_map"] = math.fsum(values.values()) / len(values)
            if len(values) > 1:
                found |= {f"{metric_key_prefix}_{name}_map": value for name, value in values.items()}
        found = broadcast_object_list([found])[0]
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def _map(self, held_out: EvaluationSet) -> float:
        model: ListConModel = self.accelerator.unwrap_model(self.model).model
        model.eval()
        device = self.args.device
        budgets = Budgets.for_device(device)
        used, lists = over_own_texts(held_out.indexed)
        store = FeatureStore(len(used), model.config.list_width, torch.float32, device, budgets.feature_bytes)
        with torch.inference_mode():
            for start in range(0, len(used), 8192):
                part = used[start : start + 8192]
                if self._pooled is not None:
                    pooled = self._pooled(part)
                else:
                    pooled = encode_texts(model, self._texts, part, autocast_dtype(self.args))
                features = model.linear_in_embedding(torch.from_numpy(pooled).to(device))
                store.put(np.arange(start, start + len(part)), features)
        rows = BatchBudget(device, budgets.rows, unit="rows", item="list")
        ranked = rank_features(model, store, lists, mode=self._mode, dtype="float32", budget=rows)
        return cmteb.evaluate(held_out.lists, ranked, self._mode).means["map"]

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            model: ListConModel = self.accelerator.unwrap_model(self.model).model
            model.config.encoder.save_pretrained(str(output_dir or self.args.output_dir))
