"""A system without a model: it scores the character pairs that query and passage share.

Its runs are ranked, measured and written by the code of `evaluate`, as those of every other system.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from listcon_eval import evaluate
from listcon_eval.data import Task
from listcon_eval.ordering import ranked_list
from listcon_eval.records import CandidateList
from listcon_eval.results import Result
from listcon_eval.systems.base import LoadOptions, RankContext, Ranking, System
from listcon_eval.systems.resolve import ModelSpec


class OverlapSystem(System):
    """Scores by shared character pairs, times `sign`; rounded to `step` if it is above 0, which makes ties."""

    kind = "bm25"

    def __init__(self, name: str = "local/char-pairs", *, kind: str = "bm25", sign: int = 1, step: float = 0.0) -> None:
        self.name, self.revision = name, f"sign{sign}-step{step}"
        self.kind = kind  # type: ignore[misc]
        self.sign, self.step = sign, step

    @classmethod
    def load(cls, spec: ModelSpec, options: LoadOptions) -> Self:  # noqa: ARG003
        return cls(spec.given)

    def _rank(self, lists: Sequence[CandidateList], mode: str, context: RankContext) -> Ranking:
        with context.phases.measured("score"):
            return Ranking([ranked_list([self._score(row.query, p) for p in row.passages]) for row in lists], {}, {})

    def _score(self, query: str, passage: str) -> float:
        pairs = {query[place : place + 2] for place in range(len(query) - 1)}
        shared = sum(passage[place : place + 2] in pairs for place in range(len(passage) - 1))
        score = shared / math.sqrt(len(passage) + 20)
        return self.sign * (round(score / self.step) * self.step if self.step else score)


def write_overlap_run(output: Path, task: Task, system: System | None = None, *, fresh: bool = False) -> Result:
    """Rank a task with a system (by default an `OverlapSystem`), write the run, and return its result."""
    return evaluate(system or OverlapSystem(), [task], output=output, fresh=fresh).results[0]
