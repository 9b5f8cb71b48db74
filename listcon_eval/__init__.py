"""Rank with ListConRanker, and evaluate it and other rerankers on the C-MTEB reranking tasks and on local data."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from listcon_eval.comparison import compare
    from listcon_eval.evaluation import evaluate
    from listcon_eval.inference.ranker import ListConRanker
    from listcon_eval.results import load_results

    __version__: str

__all__ = ["ListConRanker", "__version__", "compare", "evaluate", "load_results"]

_HOMES = {
    "ListConRanker": "listcon_eval.inference.ranker",
    "compare": "listcon_eval.comparison",
    "evaluate": "listcon_eval.evaluation",
    "load_results": "listcon_eval.results",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the signature of a module's __getattr__
    """Import a public name, and with it torch or mteb, when it is asked for: `listcon-eval --help` should be quick."""
    from importlib import import_module, metadata

    if name == "__version__":  # a checkout that is not installed, as on a borrowed GPU, has none
        return metadata.version("listcon-eval")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
