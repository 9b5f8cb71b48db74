"""The queries of a report with their ranked passages, as plain values for the page's script."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from listcon_eval.compare.ranking import ranked_places
from listcon_eval.report.facts import tied_ranks
from listcon_eval.report.material import TaskMaterial
from listcon_eval.results import RankedQuery

LONGEST_TEXT = 500
"""Characters of a passage that a page shows."""


def queries_of(material: TaskMaterial, *, most: int, top: int) -> dict[str, Any]:
    """A task's queries for the page: all of them with their values, some with passages.

    Passages are given for the queries that look worst and those that moved most between two systems, in turns.

    Args:
        material: the task.
        most: for how many queries to give passages.
        top: how many of the best passages of each system to give.

    Returns:
        `systems`; `queries`: id, text, number of candidates and of relevant ones, AP by system in percent; `passages`
        by place of the query: documents, for each system places in them with score and round, and ranks of the
        relevant ones; `no_texts`: why there are none; `cut`: how many texts were cut; `start`: the places of the run
        to show first and of the one to compare it with.
    """
    chosen = _chosen(material, most)
    texts, missing = material.texts([material.query_ids[place] for place in chosen]) if chosen else ({}, None)
    passages = {str(place): _passages(material, material.query_ids[place], texts, top) for place in chosen}
    cut = 0
    for found in passages.values():
        for document in found["documents"]:
            if document["text"] is not None and len(document["text"]) > LONGEST_TEXT:
                document["text"] = f"{document['text'][:LONGEST_TEXT]}…"
                cut += 1
    return {
        "task": material.task,
        "measure": str(material.measure),
        "systems": [
            {"letter": system.letter, "name": system.label, "iterative": system.is_iterative}
            for system in material.systems
        ],
        "queries": [_query(material, place, query_id) for place, query_id in enumerate(material.query_ids)],
        "passages": passages,
        "top": top,
        "start": _start(material),
        "no_texts": missing,
        "cut": cut,
    }


def _start(material: TaskMaterial) -> list[int]:
    """Iterative beside conventional inference where there is a pair, else the second system beside the first."""
    for conventional, iterative in material.mode_pairs:
        return [material.systems.index(iterative), material.systems.index(conventional)]
    return [1, 0] if len(material.systems) > 1 else [0]


def _chosen(material: TaskMaterial, most: int) -> list[int]:
    """The places of the queries to give passages for, in the order of the task.

    In turns: the worst of each system, and the one that moved most between any two.
    """
    ap = np.array([system.ap for system in material.systems])  # (S, Q)
    orders = [*np.argsort(ap, axis=1, kind="stable"), np.argsort(ap.min(axis=0) - ap.max(axis=0), kind="stable")]
    turns = dict.fromkeys(int(place) for turn in zip(*orders, strict=True) for place in turn)
    return sorted(list(turns)[:most])


def _query(material: TaskMaterial, place: int, query_id: str) -> dict[str, Any]:
    relevance = material.ordered.rankings[query_id].relevance
    return {
        "id": query_id,
        "text": material.query_text(query_id),
        "candidates": len(relevance),
        "relevant": sum(value > 0 for value in relevance),
        "ap": [round(100 * float(system.ap[place]), 2) for system in material.systems],
    }


def _passages(
    material: TaskMaterial, query_id: str, texts: Mapping[str, Mapping[str, str]], top: int
) -> dict[str, Any]:
    documents: dict[str, int] = {}
    relevance: dict[str, int] = {}
    ranked, ranks = [], []
    for system in material.systems:
        entry = system.rankings[query_id]
        relevance.update(zip(entry.doc_ids, entry.relevance, strict=True))
        order = ranked_places(entry)
        ranked.append(
            [
                [documents.setdefault(entry.doc_ids[at], len(documents)), float(entry.scores[at]), entry.rounds[at]]
                for at in order[:top]
            ]
        )
        ranks.append(_ranks(entry))
    own = texts.get(query_id, {})
    return {
        "documents": [{"id": name, "text": own.get(name), "relevance": relevance[name]} for name in documents],
        "ranked": ranked,
        "ranks": ranks,
    }


def _ranks(entry: RankedQuery) -> list[list[int]]:
    """The first and the last rank that each relevant candidate can have: they differ where scores are tied."""
    ranks = tied_ranks(entry.scores)
    return sorted([int(ranks[at, 0]), int(ranks[at, 1])] for at, value in enumerate(entry.relevance) if value > 0)
