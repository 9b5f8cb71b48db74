"""Linear layers as the encoder's fast paths run them: plain, or over weights that oneDNN has packed beforehand."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

_PACKED_FOR = 2048  # rows that oneDNN is told to expect of a batch; others work as well


class Linear(Protocol):
    """A linear layer (I inputs, O outputs) with what an encoder layer does next to it."""

    def __call__(self, rows: Tensor) -> Tensor:
        """(R, I) -> (R, O)."""

    def gelu(self, rows: Tensor) -> Tensor:
        """The layer, then the exact (erf) GELU: (R, I) -> (R, O)."""

    def plus(self, rows: Tensor, residual: Tensor) -> Tensor:
        """The layer, then `residual` (R, O) added: (R, I) -> (R, O)."""


class PlainLinear:
    """A linear layer as torch runs it. The weight and bias are shared with the model where they are its own."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight, self._bias = weight, bias

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


class OneDnnLinear:
    """A linear layer whose weight oneDNN has packed once, with GELU or the addition fused into it. CPU only.

    Source: the operators that torch.compile lowers frozen CPU models to (torch/_inductor/fx_passes/mkldnn_fusion.py);
    they are no public interface, so `onednn_problem` tries them before anything relies on them.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _PACKED_FOR)
        self._bias = bias

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
    """Why `OneDnnLinear` cannot run numbers of this format here; None when it can, and agrees with `PlainLinear`."""
    if dtype not in (torch.float32, torch.bfloat16):
        return f"oneDNN's linears take float32 and bfloat16, and the encoder is {str(dtype).removeprefix('torch.')}"
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call, unused-ignore]
        return "this torch is built without oneDNN"
    generator = torch.Generator().manual_seed(0)
    weight, bias, rows, residual = (
        torch.randn(*shape, generator=generator).to(dtype) for shape in ((24, 40), (24,), (5, 40), (5, 24))
    )
    plain, packed = PlainLinear(weight, bias), None
    try:
        packed = OneDnnLinear(weight, bias)
        pairs = [
            (packed(rows), plain(rows)),
            (packed.gelu(rows), plain.gelu(rows)),
            (packed.plus(rows, residual), plain.plus(rows, residual)),
        ]
    except (AttributeError, RuntimeError, TypeError) as error:  # absent, not for this processor, another signature
        return f"this torch's oneDNN linears do not run here ({str(error).splitlines()[0]})"
    tolerance = 1e-4 if dtype == torch.float32 else 0.1  # of sums around 6: 24 bits and 8 bits of precision
    if not all(torch.allclose(ours, theirs, rtol=0, atol=tolerance) for ours, theirs in pairs):
        return "this torch's oneDNN linears disagree with its plain ones"
    return None


def onednn_is_faster() -> bool:
    """Whether the processor is one on which oneDNN's packed linears are faster than torch's plain ones.

    torch's plain float32 linears are Intel's MKL, which takes AVX-512 on Intel's processors alone: on an AMD one that
    has it oneDNN is about twice as fast, on Intel's still by 5 to 12 % of a thread's time. Without AVX-512 (measured on
    AMD's Zen 3) MKL reaches 94 GFLOP/s a thread where oneDNN reaches 90, and oneDNN's fused GELU costs more than
    torch's own. The answer follows from the processor and not from a timing: two starts of one run have to compute the
    same numbers.
    """
    return torch.backends.cpu.get_cpu_capability() == "AVX512"
