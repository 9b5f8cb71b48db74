"""Memory as it was used: what this process and its device have held at most."""

import ctypes
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_SHORT = 0.7  # of a budget: from here on memory is given back
_M_MMAP_THRESHOLD, _LARGE = -3, 2**20  # malloc.h's name for it; blocks from this size on are given back when freed


def forget_peaks(device: torch.device) -> None:
    """Let the peaks of memory start anew from what is held now: the device's, and on Linux the process's."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # other systems, and containers without the file, keep the peak of the whole process
        Path("/proc/self/clear_refs").write_text("5")


def host_now() -> int | None:
    """The memory that this process holds, in bytes; None where the system does not tell."""
    return _status("VmRSS")


def stay_within(budget: int | None) -> None:
    """Give what was freed back to the system when most of a host budget is held, and from then on at once.

    glibc keeps freed blocks for later ones, and blocks of changing sizes leave holes: the process holds several times
    what it uses. Giving them back costs page faults, so it is left until memory is short. No other C library is asked.
    """
    held = host_now()
    if budget is None or held is None or held < _SHORT * budget:
        return
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _LARGE)
        library.malloc_trim(0)


def host_peak() -> int:
    """The most memory that this process has held, or has held since `forget_peaks`, in bytes."""
    # Linux's own figure is of this program alone; getrusage's may be of the one that started it.
    peak = _status("VmHWM")
    if peak is None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak


def device_peak(device: torch.device) -> int | None:
    """The most memory that tensors have held on the device since then, in bytes; None where there is none to ask."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def in_words(host: int, device: int | None, *, memory: int | None = None, device_memory: int | None = None) -> str:
    """Peaks beside their budgets: "host 0.61 GB of 1.00 GB, within the budget; device 9.71 GB"."""
    parts = [("host", host, memory), *([("device", device, device_memory)] if device is not None else [])]
    return "; ".join(_beside(name, size, budget) for name, size, budget in parts)


def _beside(name: str, size: int, budget: int | None) -> str:
    shown = f"{name} {size / 1e9:.2f} GB"
    if budget is None:
        return shown
    return f"{shown} of {budget / 1e9:.2f} GB, {'within' if size <= budget else 'OVER'} the budget"


def _status(name: str) -> int | None:
    with suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return None
