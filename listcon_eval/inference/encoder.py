"""Ways to run the encoder and the projection of a `ListConModel`: the same weights, the same features.

`ListConModel.features` is the definition, and the backend "plain" runs it, with transformers' own model. The others
are for a BERT on hardware where they are much faster; the tests, and `FastEncoder.check` at the start of a run, compare
them with the definition. Shapes: N texts, R rows (one per token), H the encoder's width, A its heads; a linear layer
has I inputs and O outputs.
"""

import os
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertModel

from listcon_eval.errors import ListconError, first_line
from listcon_eval.inference.devices import to_device
from listcon_eval.inference.tokens import pad
from listcon_eval.model import ListConModel

Backend = Literal["plain", "onednn", "varlen"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
BACKEND_VARIABLE = "LISTCON_ENCODER"
TokenIds = Sequence[NDArray[np.int32] | list[int]]
"""Token ids of N texts, special tokens included, in any order of length; each has one token or more."""

_IN_WORDS: dict[Backend, str] = {
    "plain": "transformers' own model, padded",
    "onednn": "no padding, linear layers packed by oneDNN",
    "varlen": "no padding, flash attention",
}
# How far two ways of computing one feature may differ, as a share of its length: what rounding in each format explains
# through 24 layers. A mistake (texts mixed up, a bias left out, another token type) makes more.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
_PACKED_FOR = 2048  # rows that oneDNN is told to expect of a batch; others work as well


class FastEncoder:
    """Encodes token ids with the weights of a `ListConModel` by one of several backends.

    A backend copies the weights that it joins or packs: after the model was changed or moved, make it again.

    Attributes:
        backend: the backend's name.
        reason: why it was chosen, in a few words.
        dtype, features_dtype: the number formats of the encoder and of the features.
        network: the encoder whose weights these are.
        checked: whether there is nothing left to `check`.
    """

    def __init__(self, model: ListConModel, backend: Backend, reason: str) -> None:
        self.backend: Backend = backend
        self.reason = reason
        self.checked = backend == "plain"
        self._model = model
        self.network = model.encoder
        weights = next(model.encoder.parameters())
        self.device: torch.device = weights.device
        self.dtype: torch.dtype = weights.dtype
        self.features_dtype: torch.dtype = model.linear_in_embedding.weight.dtype
        self.width: int = model.config.list_width
        if backend != "plain":
            with torch.inference_mode():
                self._bert = _FastBert(model.encoder, backend)

    @classmethod
    def for_model(cls, model: ListConModel, *, backend: Backend | None = None) -> "FastEncoder":
        """The fastest backend for a model on its device; or the one asked for, here or by LISTCON_ENCODER.

        Raises:
            ListconError: the wanted backend is unknown or cannot run here; the message says which can.
        """
        wanted = backend or os.environ.get(BACKEND_VARIABLE) or None
        problems = {name: backend_problem(model, name) for name in BACKENDS}
        possible = [name for name in BACKENDS if problems[name] is None]
        if wanted is None:
            if "varlen" in possible:
                return cls(model, "varlen", "the fastest on this device")
            if "onednn" in possible and (onednn_is_faster() or model.encoder.dtype == torch.bfloat16):
                return cls(model, "onednn", "the fastest on this processor")
            return cls(model, "plain", "no other is faster here")
        asked = "the argument" if backend else BACKEND_VARIABLE
        if wanted not in possible:
            problem = f"cannot run here: {problems[wanted]}" if wanted in problems else "does not exist"
            raise ListconError(
                f"{asked} asks for the encoder backend {wanted!r}, which {problem}; possible here: "
                f"{', '.join(possible)}"
            )
        return cls(model, wanted, f"forced by {asked}")

    def describe(self) -> str:
        """The backend in one line, for people and for provenance."""
        return f"{self.backend}: {_IN_WORDS[self.backend]}; {_name(self.dtype)} on {self.device} ({self.reason})"

    @torch.inference_mode()
    def features(self, ids: TokenIds) -> Tensor:
        """The features of texts, as `ListConModel.features` computes them: (N, D), in the format of the projection."""
        projection = self._model.linear_in_embedding
        if not len(ids):
            return projection.weight.new_empty(0, projection.out_features)
        if self.backend != "plain":
            features: Tensor = projection(self._bert.pool(ids, self.device).to(projection.weight.dtype))
            return features
        # RoBERTa counts positions by what is not the padding token.
        padded, own = pad(ids, self._model.config.encoder.pad_token_id or 0)
        return self._model.features(to_device(padded, self.device), to_device(own.astype(np.int64), self.device))

    def check(self, samples: TokenIds) -> float:
        """Compare with the plain model on a few texts, best of different lengths.

        Returns:
            The largest difference, as a share of the length of the plain feature.

        Raises:
            ListconError: it is more than rounding explains (1e-4 in float32, 1e-2 in float16, 6e-2 in bfloat16), or
                the model's weights are not finite.
        """
        if self.backend == "plain" or not len(samples):
            return 0.0
        theirs = FastEncoder(self._model, "plain", "to compare with").features(samples)  # (N, D)
        if not theirs.isfinite().all() and (bad := nonfinite_weights(self._model)):
            raise ListconError(bad)
        apart = distance(self.features(samples), theirs)
        tolerance = TOLERANCES[self.dtype]
        if not apart <= tolerance:
            raise ListconError(
                f"the encoder backend {self.backend!r} does not compute this model's features on {self.device}: the "
                f"difference is {apart:.1e}, and rounding in {_name(self.dtype)} explains {tolerance:.0e}; "
                f"set {BACKEND_VARIABLE}=plain, and report it with the versions that `listcon-eval doctor` prints"
            )
        self.checked = True
        return apart


def distance(found: Tensor, expected: Tensor) -> float:
    """The largest difference of two times N features, (N, D), as a share of the length of the expected one."""
    found, expected = found.double().cpu(), expected.double().cpu()
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())


def nonfinite_weights(model: ListConModel) -> str | None:
    """Which weights hold NaN or infinity, as a sentence; None when all are finite."""
    bad = [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
    more = " and more" if len(bad) > 5 else ""
    return f"the model's weights are not finite: {', '.join(bad[:5])}{more}" if bad else None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def backend_problem(model: ListConModel, backend: Backend) -> str | None:
    """Why a backend cannot run a model on its device, in its dtype; None when it can."""
    config, encoder = model.config.encoder, model.encoder
    if backend == "plain":
        return None
    if not isinstance(encoder, BertModel):
        return f"the encoder is a {type(encoder).__name__}, and only 'plain' runs others than BERT"
    if config.hidden_act != "gelu":
        return f"the encoder's activation is {config.hidden_act!r}, and only 'plain' has others than 'gelu'"
    if getattr(config, "is_decoder", False):
        return "the encoder is configured as a decoder, and only 'plain' has its masks"
    device, dtype = encoder.device, encoder.dtype
    if backend == "onednn":
        return onednn_problem(dtype) if device.type == "cpu" else f"it is for the CPU, and the model is on {device}"
    # Flash attention over packed texts has its kernel's own limits.
    head_width = config.hidden_size // config.num_attention_heads
    if device.type != "cuda":
        return f"it is for CUDA, and the model is on {device}"
    if dtype not in (torch.float16, torch.bfloat16):
        return f"flash attention takes float16 and bfloat16, and the encoder is {_name(dtype)}"
    if head_width % 8 or head_width > 256:
        return f"flash attention takes heads of 8, 16, ... 256 numbers, and this encoder's have {head_width}"
    if torch.cuda.get_device_capability(device) < (8, 0):
        return f"flash attention needs compute capability 8.0, and {torch.cuda.get_device_name(device)} has less"
    try:
        _flash()
    except ImportError as error:
        return f"this torch has no varlen attention ({error})"
    return None


class _Layer(NamedTuple):
    """One BERT layer's weights, ready to run."""

    query_key_value: "PlainLinear"
    attended: "PlainLinear"
    attended_norm: nn.LayerNorm
    inner: "PlainLinear"
    outer: "PlainLinear"
    outer_norm: nn.LayerNorm


class _FastBert:
    """A BERT over the tokens of a batch in one row each, without padding."""

    def __init__(self, encoder: Any, backend: Backend) -> None:  # noqa: ANN401 - torch types its attributes poorly
        make = OneDnnLinear if backend == "onednn" else PlainLinear
        self._layout: type[EqualLengths | FlashLayout] = EqualLengths if backend == "onednn" else FlashLayout
        self._heads = encoder.config.num_attention_heads
        # Every token here is of type 0, so its embedding is added to those of the positions once.
        tables = encoder.embeddings
        self._words = tables.word_embeddings.weight.detach()
        self._places = (tables.position_embeddings.weight + tables.token_type_embeddings.weight[0]).detach()
        self._norm = tables.LayerNorm
        self._layers = []
        for layer in encoder.encoder.layer:
            attention, output = layer.attention.self, layer.attention.output
            parts = (attention.query, attention.key, attention.value)
            self._layers.append(
                _Layer(
                    make(torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])),
                    make(output.dense.weight, output.dense.bias),
                    output.LayerNorm,
                    make(layer.intermediate.dense.weight, layer.intermediate.dense.bias),
                    make(layer.output.dense.weight, layer.output.dense.bias),
                    layer.output.LayerNorm,
                )
            )

    def pool(self, ids: TokenIds, device: torch.device) -> Tensor:
        """The mean of each text's last hidden states: (N, H) in float32."""
        layout = self._layout(ids, device)
        rows = functional.embedding(layout.ids, self._words) + functional.embedding(layout.positions, self._places)
        rows = self._norm(rows)  # (R, H)
        for layer in self._layers:
            attended = layout.attend(layer.query_key_value(rows), self._heads)  # (R, H)
            rows = layer.attended_norm(layer.attended.plus(attended, rows))
            rows = layer.outer_norm(layer.outer.plus(layer.inner.gelu(rows), rows))
        return layout.mean(rows)


class EqualLengths:
    """Texts of equal length attend together, without padding or masks. Holds `ids` and `positions` of rows, (R,)."""

    def __init__(self, texts: TokenIds, device: torch.device) -> None:
        order = sorted(range(len(texts)), key=lambda text: len(texts[text]))
        counts = [len(texts[text]) for text in order]
        self._order = to_device(np.array(order), device)
        self._runs = [(len(list(equal)), count) for count, equal in groupby(counts)]  # (texts, tokens of each)
        self._rows = [texts * tokens for texts, tokens in self._runs]
        self.ids = to_device(np.concatenate([np.asarray(texts[text], dtype=np.int32) for text in order]), device)
        self.positions = to_device(_positions(np.array(counts, dtype=np.int32)), device)

    def attend(self, query_key_value: Tensor, heads: int) -> Tensor:
        """Attend within each text: (R, 3H) -> (R, H)."""
        attended = []
        for part, (texts, tokens) in zip(torch.split(query_key_value, self._rows), self._runs, strict=True):
            query, key, value = part.view(texts, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4)  # (texts, A, T, H/A)
            mixed = functional.scaled_dot_product_attention(query, key, value)
            attended.append(mixed.transpose(1, 2).reshape(texts * tokens, -1))
        return torch.cat(attended)

    def mean(self, hidden: Tensor) -> Tensor:
        """The mean over the tokens of each text, in the order they were given in: (R, H) -> (N, H) in float32."""
        parts = torch.split(hidden, self._rows)
        means = torch.empty(len(self._order), hidden.shape[-1], device=hidden.device)
        means[self._order] = torch.cat(
            [part.float().view(*run, -1).mean(dim=1) for part, run in zip(parts, self._runs, strict=True)]
        )
        return means


class FlashLayout:
    """Texts one after another; flash attention is told where each begins. CUDA, float16 and bfloat16.

    Holds `ids` and `positions` of rows, (R,).
    """

    def __init__(self, texts: TokenIds, device: torch.device) -> None:
        counts = np.fromiter((len(text) for text in texts), dtype=np.int32, count=len(texts))
        starts = np.zeros(len(texts) + 1, dtype=np.int32)
        np.cumsum(counts, out=starts[1:])
        self._longest = int(counts.max())
        # All in one array, so that there is one copy to the device.
        numbers = [*(np.asarray(text, dtype=np.int32) for text in texts), _positions(counts), counts, starts]
        on_device = to_device(np.concatenate(numbers), device)
        rows = int(starts[-1])
        self.ids, self.positions, self._counts, self._starts = torch.split(
            on_device, [rows, rows, len(counts), len(starts)]
        )
        # The kernel wants the starts at an aligned address of their own.
        self._starts = self._starts.clone()

    def attend(self, query_key_value: Tensor, heads: int) -> Tensor:
        """Attend within each text: (R, 3H) -> (R, H)."""
        query, key, value = query_key_value.view(len(self.ids), 3, heads, -1).unbind(dim=1)  # (R, A, H/A) each
        # The seven positional arguments are those that every torch since 2.10 has.
        attended: Tensor = _flash()(query, key, value, self._starts, self._starts, self._longest, self._longest)
        return attended.reshape(len(self.ids), -1)

    def mean(self, hidden: Tensor) -> Tensor:
        """The mean over the tokens of each text: (R, H) -> (N, H) in float32."""
        # One thread sums one column of a text in order: no atomics, so equal runs give equal features. `unsafe` leaves
        # out a check of the lengths that would wait for the device.
        sums: Tensor = torch.segment_reduce(hidden.float(), "sum", lengths=self._counts.long(), axis=0, unsafe=True)
        return sums / self._counts.unsqueeze(-1)


def _positions(counts: NDArray[np.int32]) -> NDArray[np.int32]:
    """0, 1, ... for each text of so many tokens, one text after another."""
    ends = np.cumsum(counts, dtype=np.int32)
    return np.arange(ends[-1], dtype=np.int32) - np.repeat(ends - counts, counts)


def _flash() -> Callable[..., Tensor]:
    """Flash attention over packed texts; imported here because some builds lack it."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn  # type: ignore[return-value, unused-ignore]


class PlainLinear:
    """A linear layer as torch runs it, with the operations that follow it in an encoder layer."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight, self._bias = weight.detach(), bias.detach()

    def __call__(self, rows: Tensor) -> Tensor:
        """(R, I) -> (R, O)."""
        return functional.linear(rows, self._weight, self._bias)

    def gelu(self, rows: Tensor) -> Tensor:
        """The layer, then the exact (erf) GELU: (R, I) -> (R, O)."""
        # The fused product-and-GELU of CUDA libraries is the tanh approximation: another model.
        # In place: the inner rows are an encoder's largest, and fresh memory for them costs more than the function.
        activated: Tensor = torch.ops.aten.gelu_(functional.linear(rows, self._weight, self._bias))
        return activated

    def plus(self, rows: Tensor, residual: Tensor) -> Tensor:
        """The layer, then `residual` (R, O) added: (R, I) -> (R, O)."""
        return functional.linear(rows, self._weight, self._bias).add_(residual)


class OneDnnLinear(PlainLinear):
    """The same with a weight that oneDNN has packed once, and GELU or the addition fused into the product. CPU only.

    Source: the operators that torch.compile lowers frozen CPU models to (torch/_inductor/fx_passes/mkldnn_fusion.py).
    They are not public, so `onednn_problem` tries them first.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__(weight, bias)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight.contiguous(), _PACKED_FOR)

    def __call__(self, rows: Tensor) -> Tensor:
        """(R, I) -> (R, O)."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, "none", [], "")
        return product

    def gelu(self, rows: Tensor) -> Tensor:
        """The layer, then the exact (erf) GELU: (R, I) -> (R, O)."""
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._weight, self._bias, "gelu", [], "none")
        return product

    def plus(self, rows: Tensor, residual: Tensor) -> Tensor:
        """The layer, then `residual` (R, O) added: (R, I) -> (R, O)."""
        added: Tensor = torch.ops.mkldnn._linear_pointwise.binary(rows, residual, self._weight, self._bias, "add")
        return added


def onednn_problem(dtype: torch.dtype) -> str | None:
    """Why `OneDnnLinear` cannot run this dtype here; None when it can, and agrees with `PlainLinear`."""
    if dtype not in (torch.float32, torch.bfloat16):
        return f"oneDNN's linears take float32 and bfloat16, and the encoder is {_name(dtype)}"
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call, unused-ignore]
        return "this torch is built without oneDNN"
    generator = torch.Generator().manual_seed(0)
    weight, bias, rows, residual = (
        torch.randn(*shape, generator=generator).to(dtype) for shape in ((24, 40), (24,), (5, 40), (5, 24))
    )
    plain = PlainLinear(weight, bias)
    try:
        packed = OneDnnLinear(weight, bias)
        ours = [packed(rows), packed.gelu(rows), packed.plus(rows, residual)]
    except (AttributeError, RuntimeError, TypeError) as error:  # absent, not for this processor, another signature
        return f"this torch's oneDNN linears do not run here ({first_line(error)})"
    tolerance = 1e-4 if dtype == torch.float32 else 0.1  # of sums around 6: 24 bits and 8 bits of precision
    theirs = [plain(rows), plain.gelu(rows), plain.plus(rows, residual)]
    if not all(torch.allclose(*pair, rtol=0, atol=tolerance) for pair in zip(ours, theirs, strict=True)):
        return "this torch's oneDNN linears disagree with its plain ones"
    return None


def onednn_is_faster() -> bool:
    """Whether the backend "onednn" is much faster here than the plain model in float32.

    torch's plain float32 linears are Intel's MKL, which uses AVX-512 on Intel's processors alone: on an AMD one that
    has it, oneDNN is about twice as fast. Without AVX-512 the two are equally fast. A timing would be no good answer:
    two starts of one run have to compute the same numbers.
    """
    return torch.backends.cpu.get_cpu_capability() == "AVX512"
