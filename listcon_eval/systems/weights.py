"""Loading networks by the libraries: without their own talk, and without weights that are missing being made up."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers.utils import logging as transformers_logging

from listcon_eval.errors import ListconError
from listcon_eval.model.checkpoint import names_of_weights

logger = logging.getLogger(__name__)

# Embeddings are pooled by other modules, so this one is often not saved.
_UNUSED = ("pooler.",)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep the progress bars and reports of transformers away while a model is loaded."""
    library: Any = transformers_logging
    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity(logging.ERROR)
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()


@contextmanager
def loading(given: str, folder: Path, what: str) -> Iterator[None]:
    """Turn whatever a library raises while it loads a model into one message.

    Args:
        given: the model as it was asked for.
        folder: the folder of its files.
        what: what it is loaded as, with its article.

    Raises:
        ListconError: the model cannot be loaded.
    """
    try:
        yield
    except ListconError:
        raise
    except Exception as error:  # what a file that is not as it should be raises differs by file and library
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ListconError(
            f"{given} cannot be loaded as {what} (from {folder}): {first}; check its files, or say with "
            "--kind what it is"
        ) from error


def check_weights(folder: Path, network: nn.Module) -> None:
    """Make sure that a network of transformers got its weights from a folder: it fills in what is missing at random.

    Raises:
        ListconError: the head, which makes the score, has no weights there. What else is missing is said in a warning:
            some architectures have other names in their files.
    """
    found = {_plain(name) for name in names_of_weights(folder)}
    ends = {ending for name in found for ending in _endings(name)}
    names = [name for name, _ in network.named_parameters() if not name.startswith(_UNUSED)]
    missing = [name for name in names if ends.isdisjoint(_endings(name))]
    base = f"{getattr(network, 'base_model_prefix', '')}."
    has_head = any(name.startswith(base) for name in names)
    head = [name for name in names if has_head and not name.startswith(base) and name not in found]
    if head:
        raise ListconError(
            f"the weights in {folder} lack {', '.join(head)}: without its head this is no classifier, and its scores "
            "would be random; give a model that was trained as a reranker"
        )
    if missing:
        logger.warning(
            "%s: %d weights of the network are not in its files by name, such as %s; if they are missing, its scores "
            "mean nothing",
            folder,
            len(missing),
            missing[0],
        )


def _plain(name: str) -> str:
    """A name as PyTorch has it; BERT's first checkpoints named the weights of LayerNorm as TensorFlow does."""
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _endings(name: str) -> list[str]:
    """A name without its first parts: files have it with and without the prefix of the model around it."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(min(3, len(parts) - 1))]
