"""The torch core: the architecture, written once, and its checkpoints. Names are imported when they are asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from listcon_eval.model.architecture import ListConConfig, ListConModel
    from listcon_eval.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint, save_quantised

__all__ = ["Checkpoint", "ListConConfig", "ListConModel", "load_checkpoint", "save_checkpoint", "save_quantised"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the signature of a module's __getattr__
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "architecture" if name.startswith("ListCon") else "checkpoint"
    return getattr(import_module(f"{__name__}.{home}"), name)
