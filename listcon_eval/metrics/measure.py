"""The names of the measures: a small value whose text is option, JSON key and column header."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from listcon_eval.errors import ListconError
from listcon_eval.mteb_compat import USUAL_METRICS, is_query_metric
from listcon_eval.ordering import Protocol


class Metrics(NamedTuple):
    """The metrics of one run by one protocol, all of them from 0 to 1.

    Attributes:
        means: metric -> mean over the queries that count.
        per_query: query id -> metric -> value; a query that was dropped is absent.
        dropped: ids of the queries that the protocol leaves out.
        ranges: metric -> the lowest and highest mean that any order of tied candidates gives, where they differ.
    """

    means: dict[str, float]
    per_query: dict[str, dict[str, float]]
    dropped: tuple[str, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = {}


@dataclass(frozen=True, order=True)
class Measure:
    """What is measured, and by which protocol.

    Attributes:
        protocol: "cmteb" (the model card's numbers) or "mteb" (the leaderboard's).
        name: the metric's name inside its protocol: `map`, `mrr_10`; `map_at_1000`, `ndcg_at_10`, any other of mteb's
            that a task has as its main score, and `main_score` for whatever the main score of each task is.
    """

    protocol: Protocol
    name: str

    def __str__(self) -> str:
        return f"{self.protocol}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> "Measure":
        """Read a measure from its text, such as `cmteb:map` or `mteb:map_at_1000`.

        Raises:
            ListconError: no measure is written like this.
        """
        names = {str(measure): measure for measure in (*CMTEB_MEASURES, *MTEB_MEASURES)}
        if text in names:
            return names[text]
        protocol, _, name = text.partition(":")
        if protocol == "mteb" and (name == MAIN or is_query_metric(name)):
            return cls("mteb", name)
        near = difflib.get_close_matches(text, names, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ListconError(f"Unknown measure {text!r}.{hint} Known: {', '.join(names)}, mteb:{MAIN}.")


CMTEB_MEASURES = tuple(Measure("cmteb", name) for name in ("map", "mrr_1", "mrr_5", "mrr_10"))
MTEB_MEASURES = tuple(Measure("mteb", name) for name in USUAL_METRICS)
CARD_MAP, MAIN_SCORE = CMTEB_MEASURES[0], MTEB_MEASURES[0]
"""The model card's measure, and the main score of its four tasks on mteb's leaderboard."""
MAIN = "main_score"
"""The name that stands for the main score of each task."""
