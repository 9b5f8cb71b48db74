"""Where a number comes from: what was run, on what, with which versions."""

import platform
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

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
    "scikit-learn",
    "pytrec-eval-terrier",
)

TIE_RULES = {
    "cmteb": "AP: tied scores form one threshold (scikit-learn); MRR: ties in candidate order, positives listed first",
    "mteb": "ties by document id, descending; pytrec_eval compares scores as float32",
}


class GitState(NamedTuple):
    """The commit of this package's own checkout, and whether it had uncommitted changes."""

    commit: str
    dirty: bool


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
def git_state() -> GitState | None:
    """The state of the checkout this package runs from; None when it runs from an installed copy."""
    package = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(package), *arguments], capture_output=True, text=True, check=True, timeout=30
        )
        return done.stdout.strip()

    try:
        # A virtual environment may lie inside some other repository: that one's commit would say nothing of this code.
        git("ls-files", "--error-unmatch", "__init__.py")
        return GitState(git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--", ".")))
    except (OSError, subprocess.SubprocessError):
        return None


def device_name(device: str) -> str:
    """A device with the hardware behind it: "cuda (NVIDIA H100 80GB HBM3)", "cpu (x86_64, 16 threads)"."""
    import torch

    if device.startswith("cuda"):
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({platform.machine()}, {torch.get_num_threads()} threads)"


def signature(
    *,
    task: str,
    data_revision: str,
    model: str,
    model_revision: str,
    settings: Mapping[str, Any],
    packages: Iterable[str],
    device: str,
) -> str:
    """The signature of a number, in one line: everything that has to be equal for two numbers to be comparable.

    Args:
        task: the task's name.
        data_revision: the revision of its data.
        model: the model's name.
        model_revision: its revision.
        settings: what it was run with.
        packages: the packages that its scores come from.
        device: where they were computed.
    """
    versions = package_versions()
    named = dict.fromkeys(("listcon-eval", "mteb", *packages))
    fields = [
        f"{task}@{data_revision}",
        f"{model}@{model_revision}",
        *(f"{name}:{value}" for name, value in settings.items()),
        "ties:cmteb=candidate-order,mteb=doc-id",
        *(f"{name}:{versions[name]}" for name in named),
        f"device:{device}",
    ]
    return "|".join(fields)
