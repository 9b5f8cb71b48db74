"""Memory as it was used: what this process and its device have held at most."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")


def forget_peaks(device: torch.device) -> None:
    """Let the peaks of memory start anew from what is held now: the device's, and on Linux the process's."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError):  # other systems, and containers without the file, keep the peak of the whole process
        Path("/proc/self/clear_refs").write_text("5")


def host_peak() -> int:
    """The most memory that this process has held, or has held since `forget_peaks`, in bytes."""
    with suppress(OSError):  # Linux's own figure is of this program alone; getrusage's may be of what started it
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def device_peak(device: torch.device) -> int | None:
    """The most memory that tensors have held on the device since then, in bytes; None where there is none to ask."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def in_words(size: int, budget: int | None) -> str:
    """A peak beside the budget it was given: "0.61 GiB", "0.61 of 0.93 GiB (within the budget)"."""
    shown = f"{size / 2**30:.2f}"
    if budget is None:
        return f"{shown} GiB"
    verdict = "within the budget" if size <= budget else "OVER the budget"
    return f"{shown} of {budget / 2**30:.2f} GiB ({verdict})"
