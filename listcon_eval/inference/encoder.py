"""Fast ways to run the encoder and the projection of a `ListConModel`: the same weights, the same features.

`ListConModel.features` is the definition. Each path here computes the same from token ids without padding and masks,
or with less of them; the tests, and `FastEncoder.check` at the start of a run, hold them against it.
"""

import os
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from listcon_eval.errors import ListconError
from listcon_eval.inference.layouts import FlashLayout, PackedLayout, PaddedLayout, TokenIds
from listcon_eval.inference.linears import Linear, OneDnnLinear, PlainLinear, onednn_is_faster, onednn_problem
from listcon_eval.model import ListConModel

EncoderPath = Literal["plain", "padded", "packed", "onednn", "varlen"]
ENCODER_PATHS: tuple[EncoderPath, ...] = get_args(EncoderPath)
ENCODER_VARIABLE = "LISTCON_ENCODER"

_IN_WORDS: dict[EncoderPath, str] = {
    "plain": "transformers' BertModel, padded",
    "padded": "fused projections, padded, masked only where lengths differ",
    "packed": "fused projections, no padding, no mask",
    "onednn": "fused projections, no padding, no mask, linears packed by oneDNN",
    "varlen": "fused projections, no padding, flash attention",
}
_LAYOUTS: dict[EncoderPath, type[PackedLayout | PaddedLayout | FlashLayout]] = {
    "padded": PaddedLayout,
    "varlen": FlashLayout,
}
# How far two ways of computing one feature may differ, in parts of its length: what rounding in each format explains
# through 24 layers. A path that mixes texts up, drops a bias or another token type is off by more.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}


class _Layer(NamedTuple):
    """One BERT layer's weights, ready to run, and how many heads attend."""

    heads: int
    query_key_value: Linear
    attended: Linear
    attended_norm: nn.LayerNorm
    inner: Linear
    outer: Linear
    outer_norm: nn.LayerNorm


class FastEncoder:
    """Encodes token ids with the weights of a `ListConModel` by one of several paths.

    Weights that a path has to join or pack are copied when it is made: after the model was changed or moved, make it
    again.

    Attributes:
        path: the path's name.
        chosen: why it is this one, in a few words.
        device: the device of the model.
        dtype: the number format of the encoder.
        features_dtype: the number format of the features.
        width: D, the width of the features.
    """

    def __init__(self, model: ListConModel, path: EncoderPath, chosen: str) -> None:
        self.path: EncoderPath = path
        self.chosen = chosen
        self._model = model
        weights = model.encoder.embeddings.word_embeddings.weight
        self.device: torch.device = weights.device
        self.dtype: torch.dtype = weights.dtype
        self.features_dtype: torch.dtype = model.linear_in_embedding.weight.dtype
        self.width: int = model.config.list_width
        self._left_out = 0
        self._layout = _LAYOUTS.get(path, PackedLayout)
        if path != "plain":
            with torch.inference_mode():
                self._join_weights(OneDnnLinear if path == "onednn" else PlainLinear)

    @classmethod
    def for_model(cls, model: ListConModel, *, path: EncoderPath | None = None) -> "FastEncoder":
        """The fastest path for a model, by what its device and number format can do.

        Args:
            model: the model, on its device and in its precision.
            path: the path to take; by default the environment variable LISTCON_ENCODER, and the fastest without it.

        Raises:
            ListconError: when the wanted path is unknown or cannot run here, saying which can.
        """
        wanted = path or os.environ.get(ENCODER_VARIABLE) or None
        problems = {name: _problem(model, name) for name in ENCODER_PATHS}
        possible = [name for name in ENCODER_PATHS if problems[name] is None]
        if wanted is None:
            return cls(model, *_fastest(model, possible))
        asked = "the argument" if path else ENCODER_VARIABLE
        for name in ENCODER_PATHS:
            if wanted == name:
                if problem := problems[name]:
                    raise ListconError(
                        f"{asked} asks for the encoder path {wanted!r}, which cannot run here: {problem}; "
                        f"possible here: {', '.join(possible)}"
                    )
                return cls(model, name, f"forced by {asked}")
        raise ListconError(
            f"{asked} asks for the encoder path {wanted!r}, which is none; possible here: {', '.join(possible)}"
        )

    def describe(self) -> str:
        """The path in one line, for people and for provenance."""
        numbers = str(self.dtype).removeprefix("torch.")
        silent = f", heads left out that nothing reads: {self._left_out}" if self._left_out else ""
        return f"{self.path}: {_IN_WORDS[self.path]}{silent}; {numbers} on {self.device} ({self.chosen})"

    @torch.inference_mode()
    def features(self, ids: TokenIds) -> Tensor:
        """The features of texts, as `ListConModel.features` computes them.

        Args:
            ids: token ids of N texts, special tokens included, in any order of length; each has one token at least
                and no more than the encoder has positions.

        Returns:
            One feature a text, in their order, (N, D), on the model's device, in the format of the projection.
        """
        projection = self._model.linear_in_embedding
        if not len(ids):
            return projection.weight.new_empty(0, projection.out_features)
        pooled = self._plainly_pooled(ids) if self.path == "plain" else self._pooled(ids)  # (N, H)
        # The encoder may be in a coarser format than the projection.
        features: Tensor = projection(pooled.to(projection.weight.dtype))
        return features

    def check(self, samples: TokenIds) -> float:
        """Compare with the plain model on a few texts; best of different lengths.

        Args:
            samples: token ids of the texts.

        Returns:
            The largest difference, in parts of the length of the plain feature.

        Raises:
            ListconError: when it is more than rounding explains: 1e-4 in float32, 1e-2 in float16, 6e-2 in bfloat16.
        """
        if self.path == "plain" or not len(samples):
            return 0.0
        numbers = str(self.dtype).removeprefix("torch.")
        ours = self.features(samples).double().cpu()  # (N, D)
        theirs = FastEncoder(self._model, "plain", "to compare with").features(samples).double().cpu()
        apart = float(((ours - theirs).norm(dim=1) / theirs.norm(dim=1)).max())
        tolerance = TOLERANCES[self.dtype]
        if not apart <= tolerance:
            raise ListconError(
                f"the encoder path {self.path!r} does not compute this model's features on {self.device}: they are "
                f"{apart:.1e} apart, and rounding in {numbers} explains {tolerance:.0e}; "
                f"set {ENCODER_VARIABLE}=plain, and report it with the versions that `listcon-eval doctor` prints"
            )
        return apart

    def _join_weights(self, linear: type[PlainLinear | OneDnnLinear]) -> None:
        encoder: Any = self._model.encoder  # whose attributes torch annotates as tensors or modules
        # Every token here is of type 0: its embedding is added to the positions' once.
        tables = encoder.embeddings
        self._words = tables.word_embeddings.weight.detach()
        self._places = (tables.position_embeddings.weight + tables.token_type_embeddings.weight[0]).detach()
        self._norm = tables.LayerNorm
        self._layers = []
        for layer in encoder.encoder.layer:
            attention, output = layer.attention.self, layer.attention.output
            every: int = attention.num_attention_heads
            heads = _heads_read(output.dense.weight, every)
            self._left_out += every - len(heads)
            parts = (attention.query, attention.key, attention.value)
            self._layers.append(
                _Layer(
                    len(heads),
                    linear(
                        torch.cat([_of_heads(part.weight, 0, every, heads) for part in parts]),
                        torch.cat([_of_heads(part.bias, 0, every, heads) for part in parts]),
                    ),
                    linear(_of_heads(output.dense.weight, 1, every, heads), output.dense.bias.detach()),
                    output.LayerNorm,
                    _as(linear, layer.intermediate.dense),
                    _as(linear, layer.output.dense),
                    layer.output.LayerNorm,
                )
            )

    def _pooled(self, ids: TokenIds) -> Tensor:
        layout = self._layout(ids, self.device)
        rows = functional.embedding(layout.ids, self._words) + functional.embedding(layout.positions, self._places)
        rows = self._norm(rows)  # (R, H)
        for layer in self._layers:
            attended = layout.attend(layer.query_key_value(rows), layer.heads)  # (R, H)
            rows = layer.attended_norm(layer.attended.plus(attended, rows))
            rows = layer.outer_norm(layer.outer.plus(layer.inner.gelu(rows), rows))
        return layout.mean(rows)

    def _plainly_pooled(self, ids: TokenIds) -> Tensor:
        longest = max(len(text) for text in ids)
        padded = torch.zeros(len(ids), longest, dtype=torch.long)  # any token will do as padding: it is masked
        mask = torch.zeros_like(padded)
        for row, text in enumerate(ids):
            padded[row, : len(text)] = torch.as_tensor(text)
            mask[row, : len(text)] = 1
        return self._model.pool(padded.to(self.device), mask.to(self.device))


def _heads_read(output: Tensor, heads: int) -> list[int]:
    """The heads whose numbers the attention's output projection, (H, H), does not multiply by 0; one at least.

    The others add exactly nothing to the encoder's numbers. Trained encoders have none; one that was given its tasks
    (`training.matching`), or whose heads were pruned by zeros, need not pay for them.
    """
    return [head for head, part in enumerate(output.detach().chunk(heads, dim=1)) if part.any()] or [0]


def _of_heads(weight: Tensor, dim: int, heads: int, wanted: list[int]) -> Tensor:
    """The part of a weight or bias that belongs to some of its heads, along the dimension that holds all of them."""
    if len(wanted) == heads:
        return weight.detach()
    parts = weight.detach().chunk(heads, dim)
    return torch.cat([parts[head] for head in wanted], dim)


def _as(linear: type[PlainLinear | OneDnnLinear], layer: nn.Linear) -> Linear:
    return linear(layer.weight.detach(), layer.bias.detach())


def _fastest(model: ListConModel, possible: list[EncoderPath]) -> tuple[EncoderPath, str]:
    """The path to take of those that can run, and why."""
    if "varlen" in possible:
        return "varlen", "the fastest on this device"
    if "onednn" in possible and (onednn_is_faster() or model.encoder.dtype == torch.bfloat16):
        return "onednn", "the fastest on this processor"
    # Where starting a kernel costs more than the padding of a batch, one attention for all texts is best.
    on_cpu = model.encoder.device.type == "cpu"
    preferred: EncoderPath = "packed" if on_cpu else "padded"
    return (preferred, "the fastest here") if preferred in possible else ("plain", "no other runs this model")


def _problem(model: ListConModel, path: EncoderPath) -> str | None:
    """Why a path cannot run a model on its device, in its precision; None when it can."""
    config, encoder = model.config.encoder, model.encoder
    if path == "plain":
        return None
    if config.hidden_act != "gelu":
        return f"the encoder's activation is {config.hidden_act!r}, and only 'plain' knows others than 'gelu'"
    if getattr(config, "is_decoder", False):
        return "the encoder is configured as a decoder, and only 'plain' knows its masks"
    if path == "onednn":
        if encoder.device.type != "cpu":
            return f"it is for the CPU, and the model is on {encoder.device}"
        return onednn_problem(encoder.dtype)
    if path == "varlen":
        return _flash_problem(encoder.device, encoder.dtype, config.hidden_size // config.num_attention_heads)
    return None


def _flash_problem(device: torch.device, dtype: torch.dtype, head_width: int) -> str | None:
    """Why flash attention over packed texts cannot run (its kernel's own limits); None when it can."""
    if device.type != "cuda":
        return f"it is for CUDA, and the model is on {device}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"flash attention takes float16 and bfloat16, and the encoder is {str(dtype).removeprefix('torch.')}"
    if head_width % 8 or head_width > 256:
        return f"flash attention takes heads of 8, 16, ... 256 numbers, and this encoder's have {head_width}"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f"flash attention needs compute capability 8.0, and {torch.cuda.get_device_name(device)} has less"
    try:
        from torch.nn.attention import varlen  # noqa: F401 - is it there? Some builds lack it
    except ImportError as error:
        return f"this torch has no varlen attention ({error})"
    return None
