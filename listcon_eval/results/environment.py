"""What a number depends on besides model and data: versions, device, the code of this package."""

import platform
import subprocess
from collections.abc import Collection
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from listcon_eval.files import sha256_of_file, sha256_of_folder

_PACKAGES = (
    "listcon-eval",
    "mteb",
    "torch",
    "transformers",
    "tokenizers",
    "sentence-transformers",
    "bm25s",
    "jieba",
    "numpy",
    "scipy",
    "scikit-learn",
    "pytrec-eval-terrier",
    "ir-measures",
)

TIES = "cmteb=candidate-order,mteb=doc-id"
"""The tie rules in a signature, and in words in a provenance."""
TIE_RULES = {
    "cmteb": "AP: tied scores form one threshold (scikit-learn); MRR: ties in candidate order, positives listed first",
    "mteb": "ties by document id, descending",
    "ir_measures": "ties by document id, descending",
}


@cache
def package_versions() -> dict[str, str]:
    """The versions of Python and of the packages that a number depends on."""
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


@cache
def git_state() -> dict[str, Any] | None:
    """Commit of the checkout this package runs from, and whether it is dirty; None for an installed copy."""
    package = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(package), *arguments], capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout.strip()

    try:
        # A virtual environment may lie inside some other repository: that one's commit would say nothing of this code.
        git("ls-files", "--error-unmatch", "__init__.py")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


def device_name(device: str) -> str:
    """A device with the hardware behind it: "cuda (NVIDIA H100 80GB HBM3)", "cpu (x86_64, 16 threads)"."""
    import torch

    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({platform.machine()}, {torch.get_num_threads()} threads)"


# The packages of this one whose code changes a number, from the data that is read to the metric that is written.
_CODE = (
    "data",
    "model",
    "inference",
    "systems",
    "metrics",
    "evaluation.py",
    "mteb_compat.py",
    "ordering.py",
    "records.py",
)
_MEASURING = ("listcon-eval", "mteb", "numpy", "scikit-learn", "pytrec-eval-terrier")


def measuring_packages(metrics: Collection[str] = ()) -> tuple[str, ...]:
    """The packages that every number depends on, or with metrics of ir_measures; a system adds its own."""
    return (*_MEASURING, *(["ir-measures"] if metrics else []))


def code_hashes() -> dict[str, str]:
    """Part of this package -> a hash of its code."""
    package = Path(__file__).resolve().parents[1]
    return {
        part: sha256_of_file(package / part) if part.endswith(".py") else sha256_of_folder(package / part, {".py"})
        for part in _CODE
    }
