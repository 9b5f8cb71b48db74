"""Where training starts: a ListConRanker checkpoint, or an encoder below a new list transformer.

A new list transformer starts close to the encoder's own cosine similarity, so that training does not have to recover
what the encoder already knows:

- `linear_in_embedding` is the encoder's `2_Dense` module, or else a random orthogonal map, which keeps cosines and
  spreads what two texts differ in evenly over the dimensions.
- The list layers start as the identity: the projections at the end of their two blocks are zero, and the query and
  passage tags are. A layer norm then gives every feature mean 0 and the same length.
- `linear_score3` gives relu(q - p) per dimension. As the rows have mean 0, the sum over the dimensions is half the sum
  of |q - p|, which is close to a constant times the distance of q and p, and so falls as their cosine rises.
- `linear_score1` weighs these alike, and the units of `linear_score2` by 0, so that they start to learn from there.
- `calibrate` takes a sample of the training lists. Without a `2_Dense` module it subtracts their mean feature (by the
  bias of `linear_in_embedding`): encoders give all texts a large common part, and similarity ranks better without it.
  It then scales `linear_score1` such that the first logits have mean 0 and standard deviation 1.5.
"""

import copy
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedConfig, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from listcon_eval.errors import ListconError, count_of, first_line, first_line_with_class
from listcon_eval.model import ListConConfig, ListConModel, load_checkpoint
from listcon_eval.model.architecture import max_tokens
from listcon_eval.model.checkpoint import check_token_ids, load_tokenizer
from listcon_eval.model.source import resolve_source
from listcon_eval.train.arguments import StartArguments

_FIRST_DEVIATION = 1.5


class Start(NamedTuple):
    """The model as training begins, float32, on the CPU.

    `is_new` is for a new list transformer, which has to be calibrated; `has_dense` for an encoder with `2_Dense`.
    """

    model: ListConModel
    tokenizer: PreTrainedTokenizerFast
    is_new: bool
    has_dense: bool


def start_from(arguments: StartArguments, *, max_length: int, seed: int) -> Start:
    """Make the model that training starts from; equal arguments make equal weights.

    Raises:
        ListconError: when the checkpoint or encoder cannot be read or used.
    """
    torch.manual_seed(seed)
    if arguments.model is not None:
        checkpoint = load_checkpoint(arguments.model, arguments.revision)
        config = checkpoint.model.config
        encoder_config = _with_dropout(config.encoder, arguments.encoder_dropout)
        model = ListConModel(replace(config, encoder=encoder_config, list_dropout=arguments.list_dropout))
        model.load_state_dict(checkpoint.model.state_dict())
        start = Start(model, checkpoint.tokenizer, is_new=False, has_dense=False)
    else:
        start = _from_encoder(arguments)
    longest = max_tokens(start.model.encoder)
    if longest is not None and max_length > longest:
        raise ListconError(f"--max_length is {max_length}: this encoder takes at most {longest}")
    return start


def _from_encoder(arguments: StartArguments) -> Start:
    assert arguments.encoder is not None
    folder = resolve_source(arguments.encoder, arguments.revision).folder
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)  # it reports a pooler that is missing, which is not used
    try:
        loaded: Any = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    except Exception as error:  # what a malformed file raises differs by file, library and version
        raise ListconError(f"cannot read the encoder in {folder}: {first_line(error)}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    encoder, info = loaded
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if missing:
        found = f"{count_of(len(missing), 'weight')}: {', '.join(missing[:5])}"
        raise ListconError(f"the encoder in {folder} lacks {found}")
    tokenizer = load_tokenizer(folder)
    check_token_ids(tokenizer, encoder.config, folder)
    hidden, heads = encoder.config.hidden_size, encoder.config.num_attention_heads
    dense = _read_dense(folder, hidden, arguments.list_width)
    # Published: 1024 -> 1792, with 2048 in the feed-forward blocks.
    width = dense["weight"].shape[0] if dense else arguments.list_width or -(-7 * hidden // (4 * heads)) * heads
    config = ListConConfig(
        encoder=_with_dropout(encoder.config, arguments.encoder_dropout),
        list_width=width,
        list_layers=arguments.list_layers,
        feedforward_width=arguments.feedforward_width or 2 * hidden,
        list_dropout=arguments.list_dropout,
    )
    try:
        model = ListConModel(config)
    except ValueError as error:
        raise ListconError(f"--list_width: {error}") from error
    weights = {name: value for name, value in encoder.state_dict().items() if not name.startswith("pooler.")}
    try:
        model.encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise ListconError(f"the {encoder.config.model_type!r} encoder in {folder} cannot be used: {error}") from error
    start_from_similarity(model, dense)
    return Start(model, tokenizer, is_new=True, has_dense=dense is not None)


def _with_dropout(config: PreTrainedConfig, dropout: float | None) -> PreTrainedConfig:
    """An encoder's configuration with all its rates of dropout set; every architecture has its own names for them."""
    changed = copy.deepcopy(config)
    if dropout is not None:
        rates = {name for name, value in config.to_dict().items() if "dropout" in name and isinstance(value, float)}
        changed.update(dict.fromkeys(rates, dropout))
    return changed


def freeze(model: ListConModel, arguments: StartArguments) -> None:
    """Exclude from training what `--freeze` and `--freeze_layers` name.

    Raises:
        ListconError: when the encoder has fewer layers.
    """
    if arguments.freeze != "none":
        model.encoder.requires_grad_(False)
    if arguments.freeze == "embedding":
        model.linear_in_embedding.requires_grad_(False)
    if not arguments.freeze_layers:
        return
    count = model.config.encoder.num_hidden_layers
    if arguments.freeze_layers > count:
        raise ListconError(f"--freeze_layers is {arguments.freeze_layers}: this encoder has {count} layers")
    lists = (part for part in model.encoder.modules() if isinstance(part, nn.ModuleList) and len(part) == count)
    layers = next(lists, None)
    if layers is None:
        raise ListconError(
            f"--freeze_layers is {arguments.freeze_layers}: the layers of this {model.config.encoder.model_type!r} "
            f"encoder share their weights, or are built in another way; leave the option out"
        )
    model.encoder.get_input_embeddings().requires_grad_(False)
    for part in model.encoder.children():  # in the order of the forward pass
        if any(isinstance(inner, nn.ModuleList) for inner in part.modules()):
            break
        part.requires_grad_(False)  # positions, token types and their norm
    for layer in list(layers)[: arguments.freeze_layers]:
        layer.requires_grad_(False)


def _read_dense(folder: Path, hidden: int, width: int | None) -> dict[str, Tensor] | None:
    """The `2_Dense` module of a sentence-transformers folder, where it is linear and of the right shape."""
    place = folder / "2_Dense"
    if not (place / "config.json").exists():
        return None
    try:
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        if config.get("in_features") != hidden or width not in (None, config.get("out_features")):
            return None
        if not config.get("activation_function", "Identity").endswith("Identity"):
            return None
        if (place / "model.safetensors").exists():
            tensors = load_file(place / "model.safetensors")
        else:
            tensors = torch.load(place / "pytorch_model.bin", map_location="cpu", weights_only=True)
        weight = tensors["linear.weight"].float()
        bias = tensors.get("linear.bias", torch.zeros(len(weight))).float()
        if weight.shape != (config["out_features"], hidden) or bias.shape != weight.shape[:1]:
            raise ValueError(f"the shape of its weights is {tuple(weight.shape)}, which is not that of its config.json")
    except Exception as error:  # as above
        raise ListconError(f"cannot read {place}, the encoder's projection: {first_line_with_class(error)}") from error
    return {"weight": weight, "bias": bias}


@torch.no_grad()
def start_from_similarity(model: ListConModel, dense: dict[str, Tensor] | None = None) -> None:
    """Initialise all that is above the encoder, as the module's docstring says; `dense` is a `linear_in_embedding`."""
    linear = model.linear_in_embedding
    if dense is not None:
        linear.load_state_dict(dense)
    else:
        nn.init.orthogonal_(linear.weight)
        nn.init.zeros_(linear.bias)
    nn.init.zeros_(model.query_embedding.query_embedding.weight)
    for name, parameter in model.list_transformer.named_parameters():
        if name.split(".", 2)[2].startswith(("self_attn.out_proj.", "linear2.")):
            nn.init.zeros_(parameter)
    width = model.config.list_width
    identity = torch.eye(width)
    model.linear_score3.weight.copy_(torch.cat([identity, -identity], dim=1))
    model.linear_score3.bias.zero_()
    model.linear_score1.weight.zero_()
    model.linear_score1.weight[0, width:] = -1 / width
    model.linear_score1.bias.zero_()


@torch.no_grad()
def calibrate(model: ListConModel, pooled: Tensor, rows: Tensor, valid: Tensor, *, centre: bool) -> None:
    """Centre features, and scale logits to a mean of 0 and a standard deviation of 1.5, on sample lists.

    Args:
        model: the model, on the CPU; it is in training mode afterwards.
        pooled: the encoder's pooled outputs of n texts, (n, H).
        rows: their index at each place of B lists, query first, (B, 1 + P).
        valid: False where a place is padding, (B, 1 + P).
        centre: whether to subtract the mean feature of the texts.

    Raises:
        ListconError: when all logits are the same or not finite.
    """
    model.eval()
    if centre:
        model.linear_in_embedding.bias.sub_(model.linear_in_embedding(pooled).mean(dim=0))
    logits = model.logits(model.linear_in_embedding(pooled)[rows], valid)[valid[:, 1:]]
    model.train()
    deviation = logits.std()
    if not torch.isfinite(deviation) or deviation == 0:
        raise ListconError("the starting encoder gives all texts of the first lists the same output: is it trained?")
    factor = _FIRST_DEVIATION / deviation
    model.linear_score1.weight.mul_(factor)
    model.linear_score1.bias.sub_(logits.mean()).mul_(factor)
