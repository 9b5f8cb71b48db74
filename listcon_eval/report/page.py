"""The report: one HTML page that holds its style, script, figures and data, and needs no network.

Its content security policy allows no request and no script but its own. Jinja escapes all names and texts of users; the
script inserts them as text.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup, escape

from listcon_eval import __version__
from listcon_eval.comparison.systems import read_systems
from listcon_eval.data import card_task
from listcon_eval.files import check_replaceable, check_writable, write_text
from listcon_eval.ordering import ranked_places
from listcon_eval.report.figures import inline_svg, write_plots
from listcon_eval.report.run_data import NOT_RANKED, TaskResults, results_of, task_results, tied_ranks
from listcon_eval.report.sections import Section, sections, span
from listcon_eval.report.table import Table, is_close, main_tables
from listcon_eval.results import Provenance, RankedQuery

MAX_TEXT = 500
"""Characters of a passage that the page shows."""
_TEMPLATES = files("listcon_eval.report").joinpath("templates")


class TaskPage(NamedTuple):
    """What the page shows of a task; `queries` are from `queries_of`."""

    results: TaskResults
    sections: Sequence[Section]
    queries: Mapping[str, Any]


def write_report(
    paths: Sequence[Path],
    output: Path,
    *,
    plots: Path | None = None,
    before: str | None = None,
    data: Mapping[str | None, Path] | None = None,
    qrels: Path | None = None,
    queries: int = 200,
    top: int = 10,
    progress: Callable[[str, float], None] = lambda _step, _share: None,
) -> None:
    """Write the page of runs: comparison tables, figures by task, queries with their passages, provenance.

    Args:
        paths: folders of runs, or with runs in them; TREC run files.
        output: the page to write.
        plots: a folder to write every figure into, as PNG and SVG.
        before: the first stage, as `task_results` takes it.
        data: task -> data to read passages from; the key None is for a report of one task.
        qrels: the judgements for TREC run files.
        queries: for how many queries of a task to put passages into the page.
        top: how many of a system's best passages to show.
        progress: called with the step in words and the share of it that is done.

    Raises:
        ListconError: `output` is a folder or a file that is no page, or one that cannot be written to, as may be
            `plots`; or runs cannot be read or compared.
    """
    check_replaceable(output, "<!doctypehtml>", "a page")
    if plots is not None:
        check_writable(plots)
    tasks = task_results(
        read_systems(paths, qrels),
        before=before,
        data=data,
        progress=lambda done, total: progress("reading runs", done / total),
    )
    results = results_of(tasks)
    has_card_tasks = any(result.is_official and card_task(result.task) for result in results)
    tables = main_tables(results, with_published=has_card_tasks)
    pages = []
    for done, task in enumerate(tasks, start=1):
        pages.append(TaskPage(task, sections(task), queries_of(task, max_queries=queries, top=top)))
        progress("drawing figures", done / len(tasks))
    write_text(output, page(tables, pages))
    if plots is not None:
        figures = {
            shown.results.task: [(section.key, section.figure) for section in shown.sections if section.figure]
            for shown in pages
        }
        write_plots(plots, figures, lambda done, total: progress("writing plots", done / total))


def page(tables: Sequence[Table], tasks: Sequence[TaskPage]) -> str:
    """The whole page: comparison tables, then the tasks."""
    script = _template("report.js")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_template),
    )
    environment.filters["with_code"] = _with_code
    return environment.get_template("report.html").render(
        version=__version__,
        style=Markup(_template("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        tables=[_table(table) for table in tables],
        tasks=[
            {
                "id": f"task-{number + 1}",
                "name": task.results.task,
                "measure": str(task.results.measure),
                "queries": task.queries,
                "candidates": span(int(task.results.lengths.min()), int(task.results.lengths.max())),
                "sections": task.sections,
                "figures": {
                    section.key: Markup(inline_svg(section.figure, f"t{number}-{section.key}"))
                    for section in task.sections
                    if section.figure is not None
                },
                "json": Markup(embedded_json(task.queries)),
                "systems": [
                    {
                        "name": system.name,
                        "letter": system.letter,
                        "label": system.label,
                        "signature": str(system.run.signature),
                        "rows": _provenance_rows(system.provenance),
                    }
                    for system in task.results.systems
                ],
            }
            for number, task in enumerate(tasks)
        ],
    )


def embedded_json(value: Mapping[str, Any]) -> str:
    r"""JSON for a `<script type="application/json">`: `<`, `>`, `&` and line separators are written as `\u003c` etc."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _with_code(text: str) -> str:
    """A text, escaped, with the parts between backticks as code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _template(name: str) -> str:
    return _TEMPLATES.joinpath(name).read_text(encoding="utf-8")


def _table(shown: Table) -> dict[str, Any]:
    return {
        "title": shown.title,
        "columns": shown.columns,
        "rows": [
            {
                "model": row.model,
                "mode": row.mode,
                "source": row.source,
                "cells": [
                    {
                        "column": name,
                        "text": f"{numbers[name]:.2f}" if numbers[name] == numbers[name] else "–",
                        "best": name in best,
                        "difference": f"{differences[name]:+.2f}" if name in differences else None,
                        "close": name in differences and is_close(differences[name]),
                    }
                    for name in shown.columns
                ],
            }
            for row, numbers, best, differences in zip(
                shown.rows, shown.printed, shown.best, shown.differences, strict=True
            )
        ],
        "notes": shown.notes,
        "has_average": len(shown.tasks) > 1,
        "is_compared": any(shown.differences),
    }


def _provenance_rows(provenance: Provenance | None) -> list[tuple[str, str]]:
    if provenance is None:
        return [("Source", "a TREC run file of another tool, which does not say how it was made")]
    model, data = provenance.model, provenance.data
    rows = [
        ("Model", f"{model.name} @ {model.revision}"),
        ("Data", f"{data.revision}, {data.location}"),
        ("Finished", str(provenance.finished)),
        ("Device", provenance.device),
    ]
    more = {"Model details": model.model_extra or {}, "Observed": provenance.observed, "Settings": provenance.settings}
    more |= {"Ties": provenance.ties, "Versions": provenance.versions}
    rows += [
        (name, "; ".join(f"{key} {value}" for key, value in values.items() if value is not None))
        for name, values in more.items()
        if values
    ]
    if provenance.git:
        changed = ", with uncommitted changes" if provenance.git["dirty"] else ""
        rows.append(("Code", f"{provenance.git['commit']}{changed}"))
    return rows


def queries_of(results: TaskResults, *, max_queries: int, top: int) -> dict[str, Any]:
    """A task's queries for the page's script: all of them with their values, some with passages.

    Args:
        results: the task.
        max_queries: for how many queries to give passages: in turns the worst of each system, and the one whose AP
            differs most between two systems.
        top: how many of the best passages of each system to give.

    Returns:
        `systems`; `queries`: id, text, number of candidates and of relevant ones, AP by system in percent; `passages`
        by index of the query: documents, for each system indices of them with score and round, and ranks of the
        relevant ones; `no_texts`: why there are no texts; `cut`: how many texts were cut; `start`: the indices of the
        run to show first and of the one to compare it with.
    """
    chosen = _chosen(results, max_queries)
    texts, missing = results.texts([results.query_ids[place] for place in chosen]) if chosen else ({}, None)
    passages = {str(place): _passages(results, results.query_ids[place], texts, top) for place in chosen}
    cut = 0
    for found in passages.values():
        for document in found["documents"]:
            if document["text"] is not None and len(document["text"]) > MAX_TEXT:
                document["text"] = f"{document['text'][:MAX_TEXT]}…"
                cut += 1
    return {
        "task": results.task,
        "measure": str(results.measure),
        "left_out": results.queries_left_out,
        "systems": [
            {"letter": system.letter, "name": system.label, "iterative": system.is_iterative}
            for system in results.systems
        ],
        "queries": [_query(results, place, query_id) for place, query_id in enumerate(results.query_ids)],
        "passages": passages,
        "top": top,
        "start": _start(results),
        "no_texts": missing,
        "cut": cut,
    }


def _start(results: TaskResults) -> list[int]:
    """Iterative against conventional inference if both are there, else the second system against the first."""
    for conventional, iterative in results.mode_pairs:
        return [results.systems.index(iterative), results.systems.index(conventional)]
    return [1, 0] if len(results.systems) > 1 else [0]


def _chosen(results: TaskResults, max_queries: int) -> list[int]:
    ap = np.array([system.ap for system in results.systems])  # (S, Q)
    orders = [*np.argsort(ap, axis=1, kind="stable"), np.argsort(ap.min(axis=0) - ap.max(axis=0), kind="stable")]
    turns = dict.fromkeys(int(place) for turn in zip(*orders, strict=True) for place in turn)
    return sorted(list(turns)[:max_queries])


def _query(results: TaskResults, place: int, query_id: str) -> dict[str, Any]:
    relevance = results.in_candidate_order.rankings[query_id].relevance
    return {
        "id": query_id,
        "text": results.query_text(query_id),
        "candidates": len(relevance),
        "relevant": sum(value > 0 for value in relevance),
        "ap": [round(100 * float(system.ap[place]), 2) for system in results.systems],
    }


def _passages(results: TaskResults, query_id: str, texts: Mapping[str, Mapping[str, str]], top: int) -> dict[str, Any]:
    documents: dict[str, int] = {}
    relevance: dict[str, int] = {}
    ranked, ranks = [], []
    for system in results.systems:
        entry = system.rankings[query_id]
        relevance.update(zip(entry.doc_ids, entry.relevance, strict=True))
        order = ranked_places(entry.final_scores, entry.doc_ids, results.measure.protocol)
        ranked.append(
            [
                [documents.setdefault(entry.doc_ids[at], len(documents)), entry.final_scores[at], entry.rounds[at]]
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


def _ranks(entry: RankedQuery) -> list[list[int] | None]:
    """`tied_ranks` of the relevant candidates, sorted; None for one that was not retrieved."""
    ranks = tied_ranks(entry.final_scores)
    found = sorted([int(ranks[at, 0]), int(ranks[at, 1])] for at, value in enumerate(entry.relevance) if value > 0)
    return [None if last == NOT_RANKED else [first, last] for first, last in found]
