"""The numbers behind the figures of a report."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from listcon_eval.report.material import System, TaskMaterial

_MOST_BINS = 8
_TIE = 1e-9  # as comparison.statistics counts ties
# Phases of a run that are no work on queries
_ONCE = ("load",)
_MEASURE = "measure"
NOT_RANKED = 10**9
"""The rank of a candidate that a system did not rank: beyond every depth."""


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

    @property
    def ranking(self) -> float:
        """Seconds of the phases that rank: all but the computing of metrics."""
        return sum(seconds for phase, seconds in self.seconds.items() if phase != _MEASURE)


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


def tied_ranks(scores: Sequence[float]) -> NDArray[np.int64]:
    """The first and the last rank, from 1, that each of P candidates can have, (P, 2): they differ where it is tied."""
    lower = -np.array(scores, dtype=np.float64)
    return np.stack([rankdata(lower, method="min"), rankdata(lower, method="max")], axis=1).astype(np.int64)


def ranks_of_relevant(material: TaskMaterial, system: System) -> NDArray[np.int64]:
    """The first and the last rank that each relevant candidate of all queries can have with a system, (R, 2).

    A candidate that a TREC run does not list has the rank `NOT_RANKED`.
    """
    ranks = []
    for query_id in material.query_ids:
        entry, listed = system.rankings[query_id], material.ordered.rankings[query_id]
        ranks.append(tied_ranks(entry.scores)[np.array(entry.relevance) > 0])
        relevant = {doc_id for doc_id, value in zip(listed.doc_ids, listed.relevance, strict=True) if value > 0}
        ranks.append(np.full((len(relevant.difference(entry.doc_ids)), 2), NOT_RANKED))
    return np.concatenate(ranks)


def candidate_places(material: TaskMaterial) -> NDArray[np.int64]:
    """The places, from 1, of all relevant candidates of all queries in the data's order, as first and last, (R, 2)."""
    rankings = material.ordered.rankings
    places = [
        place
        for query_id in material.query_ids
        for place, value in enumerate(rankings[query_id].relevance, start=1)
        if value > 0
    ]
    return np.array([(place, place) for place in places], dtype=np.int64).reshape(-1, 2)


def positives_first(material: TaskMaterial) -> tuple[int, int]:
    """How many of the queries with both classes list all relevant candidates first, and how many such queries."""
    first = both = 0
    for query_id in material.query_ids:
        relevant = [value > 0 for value in material.ordered.rankings[query_id].relevance]
        if 0 < sum(relevant) < len(relevant):
            both += 1
            first += all(relevant[: sum(relevant)])
    return first, both


def share_within(ranks: NDArray[np.int64], depths: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of candidates that are within each depth: first and last ranks (R, 2) and depths (K,) to (K,).

    A tied candidate counts in equal shares at each of its ranks, as ties broken at random would count it on average:
    any fixed rule would favour the order that the data lists candidates in.
    """
    if not len(ranks):
        return np.zeros(len(depths))
    first, last = ranks[:, :1], ranks[:, 1:]  # (R, 1)
    return np.asarray(np.clip((depths - first + 1) / (last - first + 1), 0, 1).mean(axis=0), dtype=np.float64)


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
