"""The names of the measures: one small value whose text is option, JSON key and column header."""

import difflib
from dataclasses import dataclass
from typing import Literal

from listcon_eval.errors import ListconError

Protocol = Literal["cmteb", "mteb"]


@dataclass(frozen=True, order=True)
class Measure:
    """What is measured, and by which protocol.

    Attributes:
        protocol: "cmteb" (the model card's numbers) or "mteb" (the leaderboard's).
        name: the measure's name inside its protocol: `map`, `mrr_10`; `map_at_1000`, `ndcg_at_10`.
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
        known = {str(measure): measure for measure in (*CMTEB_MEASURES, *MTEB_MEASURES)}
        if text in known:
            return known[text]
        near = difflib.get_close_matches(text, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ListconError(f"Unknown measure {text!r}.{hint} Known: {', '.join(known)}.")


CMTEB_MEASURES: tuple[Measure, ...] = tuple(Measure("cmteb", name) for name in ("map", "mrr_1", "mrr_5", "mrr_10"))
MTEB_MEASURES: tuple[Measure, ...] = tuple(
    Measure("mteb", name) for name in ("map_at_1000", "ndcg_at_10", "mrr_at_10", "recall_at_10")
)
