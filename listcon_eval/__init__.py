"""Rank with ListConRanker, and evaluate it on the C-MTEB reranking tasks."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from listcon_eval.inference import ListConRanker

__all__ = ["ListConRanker", "__version__"]
__version__ = version("listcon-eval")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the signature of a module's __getattr__
    """Import the ranker, and with it torch, only when it is asked for: `listcon-eval --help` should be quick."""
    if name == "ListConRanker":
        from listcon_eval.inference import ListConRanker

        return ListConRanker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
