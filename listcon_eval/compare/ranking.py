"""The order of a query's candidates, as each protocol breaks ties."""

import numpy as np

from listcon_eval.metrics import Protocol
from listcon_eval.results import RankedQuery


def ranked_places(entry: RankedQuery, protocol: Protocol = "cmteb") -> list[int]:
    """The places of the candidates, best first.

    Args:
        entry: the candidates with their scores.
        protocol: "cmteb" keeps tied candidates in candidate order; "mteb" compares scores as float32 and puts the
            higher document id first.
    """
    if protocol == "cmteb":
        return sorted(range(len(entry.scores)), key=lambda place: -entry.scores[place])
    return sorted(
        range(len(entry.scores)),
        key=lambda place: (np.float32(entry.scores[place]), entry.doc_ids[place]),
        reverse=True,
    )


def ranks_of_relevant(entry: RankedQuery, protocol: Protocol) -> tuple[int, ...]:
    """The ranks, from 1, of the candidates that are relevant by the protocol's labels."""
    relevant = entry.labels if protocol == "cmteb" else [value > 0 for value in entry.relevance]
    return tuple(rank for rank, place in enumerate(ranked_places(entry, protocol), start=1) if relevant[place])
