"""The report: one HTML page that holds its style, script, figures and data, and needs no network.

Its content security policy allows no request and no script but its own. Jinja escapes all names and texts of users; the
script inserts them as text.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from listcon_eval.report.table import Table, as_json, main_tables
from listcon_eval.results import Provenance

MAX_TEXT = 500
"""Characters of a passage that the page shows."""


class TaskPage(NamedTuple):
    """What the page shows of a task; `queries` are from `queries_of`."""

    results: TaskResults
    sections: Sequence[Section]
    queries: Mapping[str, Any]


def write_report(
    paths: Sequence[Path],
    output: Path,
    *,
    plots: Path | None,
    before: str | None,
    data: Mapping[str | None, Path],
    qrels: Path | None,
    queries: int,
    top: int,
    progress: Callable[[str, float], None],
) -> None:
    """Write the page of runs: comparison tables, figures by task, queries with their passages, provenance.

    `paths` and `qrels` are as `read_systems` takes them, `before` and `data` as `task_results`, `queries` and `top` as
    `queries_of`. With `plots` every figure goes into that folder too, as PNG and SVG. `progress` is told the step in
    words and the share of it that is done.

    Raises:
        ListconError: `output` is a folder or a file that is no page, or one that cannot be written to, as may be
            `plots`; or runs cannot be read or compared.
    """
    check_replaceable(output, "<!doctype html>", "a page")
    if plots is not None:
        check_writable(plots)
    progress("reading runs", 0)
    tasks = task_results(read_systems(paths, qrels), before=before, data=data)
    results = results_of(tasks)
    has_card_tasks = any(result.is_official and card_task(result.task) for result in results)
    tables = main_tables(results, with_published=has_card_tasks)
    pages = []
    for done, task in enumerate(tasks, start=1):
        pages.append(TaskPage(task, sections(task), queries_of(task, max_queries=queries, top=top)))
        progress("drawing figures", done / len(tasks))
    write_text(output, page(tables, pages))
    if plots is not None:
        progress("writing plots", 0)
        figures = {
            shown.results.task: {section.key: section.figure for section in shown.sections if section.figure}
            for shown in pages
        }
        write_plots(plots, figures)


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
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    environment.filters["with_code"] = _with_code
    return environment.get_template("report.html").render(
        version=__version__,
        style=Markup(_template("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        tables=as_json(tables)["tables"],
        tasks=tasks,
        span=span,
        svg=lambda figure, prefix: Markup(inline_svg(figure, prefix)),
        provenance_rows=_provenance_rows,
    )


def _with_code(text: str) -> str:
    """A text, escaped, with the parts between backticks as code."""
    return Markup(re.sub("`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _template(name: str) -> str:
    return files("listcon_eval.report").joinpath("templates", name).read_text(encoding="utf-8")


def _provenance_rows(provenance: Provenance | None) -> Iterator[tuple[str, str]]:
    if provenance is None:
        yield "Source", "a TREC run file of another tool, which does not say how it was made"
        return
    model, data = provenance.model, provenance.data
    yield "Model", f"{model.name} @ {model.revision}"
    yield "Data", f"{data.revision}, {data.location}"
    yield "Model details", _in_words(model.model_extra or {})
    for name in ("finished", "device", "observed", "settings", "ties", "versions", "git"):
        yield name.capitalize(), _in_words(getattr(provenance, name))


def _in_words(value: object) -> str:
    """A value as text; of several with names, those that there are."""
    if not isinstance(value, Mapping):
        return str(value)
    return "; ".join(f"{name} {part}" for name, part in value.items() if part is not None)


def queries_of(results: TaskResults, *, max_queries: int, top: int) -> dict[str, Any]:
    """A task's queries for the page's script: all of them with their values, some with passages.

    Passages are given for `max_queries`: in turns the worst of each system, and the one whose AP differs most between
    two systems; of each system its `top` best.

    Returns:
        `systems`; `queries`: id, text, number of candidates and of relevant ones, AP by system in percent; `passages`
        by index of the query: documents, for each system indices of them with score and round, and ranks of the
        relevant ones; `no_texts`: why there are no texts; `cut`: how many texts were cut; `start`: the indices of the
        run to show first and of the one to compare it with.
    """
    systems, query_ids = results.systems, results.query_ids
    ap = np.array([system.ap for system in systems])  # (S, Q)
    orders = [*np.argsort(ap, axis=1, kind="stable"), np.argsort(ap.min(axis=0) - ap.max(axis=0), kind="stable")]
    turns = dict.fromkeys(int(place) for turn in zip(*orders, strict=True) for place in turn)
    chosen = sorted(list(turns)[:max_queries])
    texts, missing = results.texts([query_ids[place] for place in chosen]) if chosen else ({}, None)
    passages = {str(place): _passages(results, query_ids[place], texts, top) for place in chosen}
    documents = [document for found in passages.values() for document in found["documents"]]
    long = [document for document in documents if len(document["text"] or "") > MAX_TEXT]
    for document in long:
        document["text"] = f"{document['text'][:MAX_TEXT]}…"
    pairs = [[systems.index(iterative), systems.index(conventional)] for conventional, iterative in results.mode_pairs]
    relevance = [results.candidates[query_id].relevance for query_id in query_ids]
    return {
        "task": results.task,
        "measure": str(results.measure),
        "left_out": results.queries_left_out,
        "systems": [
            {"letter": system.letter, "name": system.label, "iterative": system.mode == "iterative"}
            for system in systems
        ],
        "queries": [
            {
                "id": query_id,
                "text": results.query_text(query_id),
                "candidates": len(judged),
                "relevant": sum(value > 0 for value in judged),
                "ap": [round(100 * value, 2) for value in own.tolist()],
            }
            for query_id, judged, own in zip(query_ids, relevance, ap.T, strict=True)
        ],
        "passages": passages,
        "top": top,
        # Iterative against conventional inference if both are there, else the second system against the first
        "start": pairs[0] if pairs else [1, 0][-len(systems) :],
        "no_texts": missing,
        "cut": len(long),
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
        relevant = sorted(tied_ranks(entry.final_scores)[np.array(entry.relevance) > 0].tolist())
        ranks.append([None if last == NOT_RANKED else [first, last] for first, last in relevant])
    own = texts.get(query_id, {})
    return {
        "documents": [{"id": name, "text": own.get(name), "relevance": relevance[name]} for name in documents],
        "ranked": ranked,
        "ranks": ranks,
    }
