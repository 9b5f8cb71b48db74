"""Which device runs the model, and in which number format."""

import re
from pathlib import Path

import torch
from torch import nn

from listcon_eval.errors import ListconError
from listcon_eval.model import ListConModel
from listcon_eval.records import Precision


def available_devices() -> list[str]:
    """The kinds of device this machine has, the preferred one first."""
    found = [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()), ("cpu", True)]
    return [name for name, present in found if present]


def choose_device(name: str | None = None) -> torch.device:
    """The named device, or the best there is.

    Raises:
        ListconError: when the name is no device, or one that this machine does not have.
    """
    available = available_devices()
    if name is None:
        return torch.device(available[0])
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ListconError(f"no device {name!r}: give one of {', '.join(available)}") from error
    if device.type not in available:
        raise ListconError(f"the device {name!r} is not available here: give one of {', '.join(available)}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ListconError(f"there is no {name}: this machine has {torch.cuda.device_count()} CUDA device(s)")
    return device


def placed(model: ListConModel, device: torch.device, precision: Precision) -> ListConModel:
    """Move a model to a device, in the number formats of a precision.

    "published" has float16 weights on an accelerator, "precise" float32 everywhere, "bfloat16" an encoder in bfloat16
    under a projection, list stage and head in float32.
    """
    model.to(device, torch.float16 if precision == "published" and device.type != "cpu" else torch.float32)
    if precision == "bfloat16":
        nn.Module.to(model.encoder, torch.bfloat16)
    return model


def bfloat16_is_slow(device: torch.device, cpu_facts: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether a device only emulates bfloat16: a CPU without AVX512-BF16, AMX or Arm's own, as far as Linux tells.

    Args:
        device: the device.
        cpu_facts: where Linux describes the processors; without it nothing is known, and the answer is no.
    """
    if device.type != "cpu" or not cpu_facts.exists():
        return False
    described = cpu_facts.read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", described, flags=re.MULTILINE)
    return found is not None and not {"avx512_bf16", "amx_bf16", "bf16"} & set(found[1].split())
