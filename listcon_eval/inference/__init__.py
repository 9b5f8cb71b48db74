"""Texts to features to scores: both inference modes over many lists at once. Names are imported when asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from listcon_eval.inference.ranker import EncodedLists, ListConRanker

__all__ = ["EncodedLists", "ListConRanker"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the signature of a module's __getattr__
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.ranker"), name)
