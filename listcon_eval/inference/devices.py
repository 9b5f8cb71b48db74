"""Which device runs the model, and in which number format."""

import torch

from listcon_eval.errors import ListconError
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


def weights_dtype(device: torch.device, precision: Precision) -> torch.dtype:
    """The number format of the weights: float16 as published on an accelerator, float32 otherwise."""
    return torch.float16 if precision == "published" and device.type != "cpu" else torch.float32
