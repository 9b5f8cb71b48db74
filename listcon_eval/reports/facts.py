"""The numbers behind the figures of a report."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from listcon_eval.reports.material import System, TaskMaterial

_MOST_BINS = 8
_TIE = 1e-9  # as comparison.statistics counts ties
# Phases of a run that are no work on queries
_ONCE = ("load",)


class Count(NamedTuple):
    """Queries that rose, stayed and fell."""

    rose: int
    stayed: int
    fell: int


class LengthBin(NamedTuple):
    """Queries of similar list length: the shortest and longest list, how many queries, and their mean gain."""

    shortest: int
    longest: int
    queries: int
    gain: float


class Round(NamedTuple):
    """One round of iterative inference, over all queries.

    Attributes:
        number: the round, from 0.
        dropped: passages that were dropped in it.
        dropped_relevant: the relevant ones among them.
        kept: passages that it ranked as the last round of their list.
        kept_relevant: the relevant ones among them.
    """

    number: int
    dropped: int
    dropped_relevant: int
    kept: int
    kept_relevant: int


class Times(NamedTuple):
    """Where a run's time went.

    Attributes:
        seconds: phase -> seconds; loading the model is left out.
        passages: passages that were ranked.
        queries: queries that were ranked.
    """

    seconds: Mapping[str, float]
    passages: int
    queries: int

    @property
    def total(self) -> float:
        """Seconds of all phases; phases may overlap, so it may be more than the wall time."""
        return sum(self.seconds.values())


def count_changes(before: NDArray[np.float64], after: NDArray[np.float64]) -> Count:
    """How many queries rose, stayed and fell, (Q,) each."""
    change = after - before
    return Count(int((change > _TIE).sum()), int((abs(change) <= _TIE).sum()), int((change < -_TIE).sum()))


def gain_by_length(lengths: NDArray[np.int64], gains: NDArray[np.float64]) -> list[LengthBin]:
    """Mean gain by list length, in at most 8 bins of about as many queries; lists of one length share a bin.

    Args:
        lengths: candidates a query, (Q,).
        gains: the gain of each query, (Q,).
    """
    distinct = np.unique(lengths)
    if len(distinct) <= _MOST_BINS:
        edges = distinct
    else:
        edges = np.unique(np.quantile(lengths, np.linspace(0, 1, _MOST_BINS + 1)[:-1], method="lower"))
    place = np.searchsorted(edges, lengths, side="right") - 1  # (Q,)
    return [
        LengthBin(int(lengths[own].min()), int(lengths[own].max()), int(own.sum()), float(gains[own].mean()))
        for own in (place == number for number in range(len(edges)))
    ]


def ranks_of_relevant(material: TaskMaterial, system: System) -> NDArray[np.float64]:
    """The ranks, from 1, of all relevant candidates of all queries in a system's ranking, (R,).

    Tied candidates share the mean of their ranks: any other rule would favour the order that the data lists them in.
    """
    ranks = []
    for query_id in material.query_ids:
        entry = system.rankings[query_id]
        own = rankdata(-np.array(entry.scores, dtype=np.float64), method="average")
        ranks += [own[place] for place, value in enumerate(entry.relevance) if value > 0]
    return np.array(ranks)


def candidate_places(material: TaskMaterial) -> NDArray[np.float64]:
    """The places, from 1, of all relevant candidates of all queries in the data's order, (R,)."""
    rankings = material.ordered.rankings
    return np.array(
        [
            place
            for query_id in material.query_ids
            for place, value in enumerate(rankings[query_id].relevance, start=1)
            if value > 0
        ],
        dtype=np.float64,
    )


def positives_first(material: TaskMaterial) -> tuple[int, int]:
    """How many of the queries with both classes list all relevant candidates first, and how many such queries."""
    first = both = 0
    for query_id in material.query_ids:
        relevant = [value > 0 for value in material.ordered.rankings[query_id].relevance]
        if 0 < sum(relevant) < len(relevant):
            both += 1
            first += all(relevant[: sum(relevant)])
    return first, both


def share_within(ranks: NDArray[np.float64], depths: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of ranks that are at most each depth: (R,) and (K,) to (K,); 0 without ranks."""
    found = np.searchsorted(np.sort(ranks), depths, side="right")  # (K,)
    return np.asarray(found / max(len(ranks), 1), dtype=np.float64)


def rounds(material: TaskMaterial, system: System) -> list[Round]:
    """The rounds of an iterative run: how many passages, and how many relevant ones, leave in each."""
    count: dict[int, list[int]] = {}
    for query_id in material.query_ids:
        entry = system.rankings[query_id]
        last = max(entry.rounds, default=0)
        for number, relevance in zip(entry.rounds, entry.relevance, strict=True):
            row = count.setdefault(number, [0, 0, 0, 0])
            column = 2 if number == last else 0
            row[column] += 1
            row[column + 1] += relevance > 0
    return [Round(number, *count[number]) for number in sorted(count)]


def times(system: System) -> Times | None:
    """Where a run's time went; None when it does not say."""
    provenance = system.provenance
    if provenance is None or not provenance.get("seconds"):
        return None
    seconds = {phase: float(value) for phase, value in provenance["seconds"].items() if phase not in _ONCE}
    return Times(seconds, sum(len(entry.doc_ids) for entry in system.rankings.values()), len(system.rankings))


def phases_of(all_times: Sequence[Times]) -> list[str]:
    """The phases of several runs, in the order in which they first come."""
    return list(dict.fromkeys(phase for found in all_times for phase in found.seconds))
