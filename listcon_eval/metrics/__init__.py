"""From scores to numbers, in the two protocols that every run is reported in; here the names of the measures."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from listcon_eval.errors import ListconError, did_you_mean
from listcon_eval.mteb_compat import USUAL_METRICS, is_query_metric
from listcon_eval.ordering import Protocol


@dataclass(frozen=True)
class Measure:
    """What is measured, and by which protocol; its text is option, JSON key and column header.

    Attributes:
        protocol: "cmteb" (the model card's numbers), "mteb" (the leaderboard's) or "ir_measures" (what was asked for).
        name: the metric's name inside its protocol: `map`, `mrr_10`; `map_at_1000`, `ndcg_at_10`, any other of mteb's
            that a task has as its main score, and `main_score` for whatever the main score of each task is; `nDCG@10`.
    """

    protocol: Protocol
    name: str

    def __str__(self) -> str:
        return f"{self.protocol}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> "Measure":
        """Read a measure from its text, such as `cmteb:map`, `mteb:map_at_1000`, `ir_measures:nDCG@10` or `nDCG@10`.

        Raises:
            ListconError: no measure is written like this.
        """
        names = {str(measure): measure for measure in (*CMTEB_MEASURES, *MTEB_MEASURES)}
        if text in names:
            return names[text]
        protocol, _, name = text.partition(":")
        if protocol == "mteb" and (name == MAIN or is_query_metric(name)):
            return cls("mteb", name)
        from listcon_eval.metrics.ir_measures import metric_names  # the library is not needed for names of protocols

        with suppress(ListconError):
            (name,) = metric_names([text.removeprefix("ir_measures:")])
            return cls("ir_measures", name)
        raise ListconError(
            f"unknown measure {text!r}{did_you_mean(text, names)}: known are {', '.join(names)}, mteb:{MAIN}; AP, "
            "nDCG@10, ..."
        )


def metrics_of(measures: Iterable[Measure]) -> list[str]:
    """The metrics among measures that a run has only when it was asked for them, by ir_measures' names."""
    return [measure.name for measure in measures if measure.protocol == "ir_measures"]


CMTEB_MEASURES = tuple(Measure("cmteb", name) for name in ("map", "mrr_1", "mrr_5", "mrr_10"))
MTEB_MEASURES = tuple(Measure("mteb", name) for name in USUAL_METRICS)
CARD_MAP, MAIN_SCORE = CMTEB_MEASURES[0], MTEB_MEASURES[0]
"""The model card's measure, and the main score of its four tasks on mteb's leaderboard."""
MAIN = "main_score"
"""The name that stands for the main score of each task."""
