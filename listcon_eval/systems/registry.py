"""The kinds there are, by name; the code of one, and the libraries behind it, are loaded when it is asked for."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from listcon_eval.systems.detection import Found
    from listcon_eval.systems.system import Options, System

KINDS = {
    "listconranker": "listconranker:ListConRankerSystem",
    "embedding": "embedding:Embedding",
    "cross-encoder": "cross_encoder:CrossEncoder",
    "bm25": "bm25:Bm25",
    "run-file": "run_file:RunFile",
    "random": "bounds:Random",
    "oracle": "bounds:Oracle",
}
"""Kind -> where its class is: `module:class` in this room."""


def system_class(kind: str) -> "type[System]":
    """The class of a kind."""
    module, _, name = KINDS[kind].partition(":")
    found: type[System] = getattr(import_module(f"listcon_eval.systems.{module}"), name)
    return found


def load_system(found: "Found", options: "Options") -> "System":
    """Make the system that was found, as its kind's `load` does."""
    return system_class(found.kind).load(found, options)
