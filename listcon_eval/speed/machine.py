"""The machine a speed was measured on: its name, its matrix-product ceiling, its clock and its memory."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch

_CEILING_SECONDS = 0.3


def machine_name(device: torch.device) -> str:
    """The device's hardware in words: "NVIDIA H100 80GB HBM3", "AMD EPYC 9R14, 2 cores, 2 threads"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = f"{_processor()}, {_cores()} cores, {torch.get_num_threads()} threads"
    return f"{device.type} of {name}" if device.type != "cpu" else name


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a speed depends on."""
    names = ("listcon-eval", "torch", "transformers", "tokenizers", "numpy")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@torch.inference_mode()
def matrix_product_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Floating point operations a second of a large matrix product: the quickest of a third of a second's."""
    size = 1024 if device.type == "cpu" else 8192
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    end = time.perf_counter() + _CEILING_SECONDS
    while best == float("inf") or time.perf_counter() < end:
        synchronise(device)
        start = time.perf_counter()
        left @ right
        synchronise(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
