"""A checkpoint at a quarter of its size or less: matrices as 8-bit integers, one scale a row, compressed.

The file is of layout 2. A matrix `W` (R, C) is kept as `W` in int8 and `W.row_scale` (R,) in float32, so that
`W[i, j] ~ int8[i, j] * row_scale[i]`, the largest of each row at 127 (symmetric quantisation, as in "LLM.int8()",
arXiv 2208.07339, without its outliers). Vectors are float16. Loading multiplies; everything then runs in float32.
The safetensors file is compressed by gzip: rows whose largest number stands out use few of the 255 steps, and parts
that are still as they began are mostly zeros.
"""

import gzip
from collections.abc import Mapping

import torch
from safetensors.torch import load, save
from torch import Tensor

from listcon_eval.errors import ListconError

QUANTISED_FILE = "model.safetensors.gz"

_SCALE = ".row_scale"


def packed(tensors: Mapping[str, Tensor]) -> bytes:
    """The content of `QUANTISED_FILE`: the same bytes for the same tensors."""
    return gzip.compress(save(quantised(tensors), metadata={"format": "pt"}), mtime=0)


def unpacked(content: bytes) -> dict[str, Tensor]:
    """The tensors in the content of `QUANTISED_FILE`, still in int8.

    Raises:
        OSError, EOFError, zlib.error, SafetensorError: when it is damaged.
    """
    return dict(load(gzip.decompress(content)))


def quantised(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint with its matrices in int8; see the module's docstring."""
    small: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dim() != 2:
            small[name] = tensor.half()
            continue
        scale = (tensor.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)  # a row of zeros too
        small[name] = (tensor / scale[:, None]).round().to(torch.int8)
        small[name + _SCALE] = scale
    return small


def dequantised(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `quantised` was given, up to its rounding; others are left as they are.

    Raises:
        ListconError: when an int8 matrix and its scales do not fit each other.
    """
    full = {name: tensor for name, tensor in tensors.items() if not name.endswith(_SCALE)}
    for name in [name for name, tensor in full.items() if tensor.dtype == torch.int8]:
        scale = tensors.get(name + _SCALE)
        if scale is None or scale.shape != full[name].shape[:1]:
            found = "are missing" if scale is None else f"have the shape {tuple(scale.shape)}"
            raise ListconError(
                f"{name} is an int8 matrix of the shape {tuple(full[name].shape)}, and its scales ({name}{_SCALE}, one "
                f"a row) {found}: the checkpoint is damaged, or of a format that is not known here"
            )
        full[name] = full[name].float() * scale.float()[:, None]
    return full
