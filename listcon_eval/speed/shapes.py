"""The shapes of the four tasks' data: how many queries, candidates and repeated documents, and how long texts are."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from listcon_eval.errors import ListconError


@dataclass(frozen=True)
class Numbers:
    """How whole numbers (lengths, list sizes) are distributed: log-normal within bounds.

    Attributes:
        least: the smallest.
        mean: their mean.
        most: the largest.
        spread: the standard deviation of their logarithm; 0 for all but equal numbers.
    """

    least: int
    mean: float
    most: int
    spread: float

    def draw(self, count: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Draw so many, (count,); their mean is the stated one up to rounding as long as the bounds allow it."""
        drawn = np.exp(random.normal(0.0, self.spread, count))
        for _ in range(20):  # cutting off at the bounds moves the mean: correct and cut again
            drawn = np.clip(drawn * (self.mean / drawn.mean()), self.least, self.most)
        return np.rint(drawn).astype(np.int64)


@dataclass(frozen=True)
class Shape:
    """The shape of one task's data.

    Attributes:
        name: the task's name.
        queries: queries, each with one candidate list.
        documents: documents in all lists together.
        distinct_documents: documents that differ.
        candidates: how many candidates a list has.
        document_length: characters of a document.
        query_length: characters of a query.
    """

    name: str
    queries: int
    documents: int
    distinct_documents: int
    candidates: Numbers
    document_length: Numbers
    query_length: Numbers


@cache
def shapes() -> dict[str, Shape]:
    """The packaged shapes, by the task's name."""
    content: dict[str, Any] = json.loads(files("listcon_eval.speed").joinpath("shapes.json").read_text("utf-8"))
    del content["comment"]
    return {name: _shape(name, values) for name, values in content.items()}


def shape_named(name: str) -> Shape:
    """The packaged shape of a task.

    Raises:
        ListconError: when there is none of that name.
    """
    if name not in shapes():
        raise ListconError(f"no shape {name!r}: give one of {', '.join(shapes())}")
    return shapes()[name]


def _shape(name: str, values: dict[str, Any]) -> Shape:
    fields: dict[str, Any] = {
        key: Numbers(**value) if isinstance(value, dict) else value for key, value in values.items()
    }
    return Shape(name, **fields)
