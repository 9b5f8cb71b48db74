"""One HTML page of all that a report has, readable without a network: style, script, figures and data are in it.

The page asks nothing of the outside: its content security policy forbids it, and lets no other script run than its
own. All names and texts of users are escaped by Jinja; what the script shows it puts in as text.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

from listcon_eval import __version__
from listcon_eval.errors import ListconError
from listcon_eval.report.material import System, TaskMaterial
from listcon_eval.report.table import AVERAGE, Table, is_close

_NEEDED = ("jinja2", "matplotlib")
_TEMPLATES = files("listcon_eval.report").joinpath("templates")
_SHOWN = ("finished", "device", "encoder", "weights_dtype")


@dataclass(frozen=True)
class TaskPage:
    """What the page shows of a task.

    Attributes:
        material: the task.
        sections: its figures with captions (`reports.sections.Section`).
        queries: its queries, as `reports.queries.queries_of` gives them.
    """

    material: TaskMaterial
    sections: Sequence[Any]
    queries: Mapping[str, Any]


def check_installed() -> None:
    """Check that what draws and writes a report is installed.

    Raises:
        ListconError: it is not; says how to get it.
    """
    if absent := [name for name in _NEEDED if find_spec(name) is None]:
        raise ListconError(
            f"a report needs {' and '.join(absent)}, and it is not installed: `pip install 'listcon-eval[report]'`"
        )


def page(tables: Sequence[Table], tasks: Sequence[TaskPage], progress: Callable[[], None] = lambda: None) -> str:
    """The whole page.

    Args:
        tables: the comparison tables.
        tasks: the tasks.
        progress: called after each task.
    """
    import jinja2
    from markupsafe import Markup

    from listcon_eval.report.plots import inline_svg

    script = _template("report.js")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_template),
    )
    environment.filters["with_code"] = _with_code
    shown = []
    for number, task in enumerate(tasks):
        figures = {
            section.key: Markup(inline_svg(section.figure, f"t{number}-{section.key}"))
            for section in task.sections
            if section.figure is not None
        }
        shown.append(
            {
                "id": f"task-{number + 1}",
                "name": task.material.task,
                "measure": str(task.material.measure),
                "queries": task.queries,
                "candidates": _span(task.material),
                "sections": task.sections,
                "figures": figures,
                "json": Markup(embedded_json(task.queries)),
                "systems": [_system(system) for system in task.material.systems],
            }
        )
        progress()
    return environment.get_template("report.html").render(
        version=__version__,
        style=Markup(_template("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        tables=[_table(table) for table in tables],
        tasks=shown,
    )


def embedded_json(value: Mapping[str, Any]) -> str:
    r"""JSON to stand inside a `<script type="application/json">`: nothing in it can end that element.

    `<`, `>` and `&` are written as `\u003c` and so on, and so are the two line separators.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _with_code(text: str) -> str:
    """A text, escaped, with what stands between backticks as code."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )


def _template(name: str) -> str:
    return _TEMPLATES.joinpath(name).read_text(encoding="utf-8")


def _table(table: Table) -> dict[str, Any]:
    columns = [str(name) for name in table.printed.columns]
    rows = []
    parts = zip(table.rows, table.printed.to_dict("records"), table.best, table.differences, strict=True)
    for row, numbers, best, differences in parts:
        cells = [
            {
                "text": f"{numbers[name]:.2f}" if numbers[name] == numbers[name] else "–",
                "best": best[name],
                "difference": f"{differences[name]:+.2f}" if name in differences else None,
                "close": is_close(differences[name]) if name in differences else None,
            }
            for name in columns
        ]
        rows.append({"model": row.model, "mode": row.mode, "source": row.source, "cells": cells})
    return {
        "title": table.title,
        "columns": columns,
        "rows": rows,
        "average": AVERAGE in columns,
        "compared": any(table.differences),
    }


def _span(material: TaskMaterial) -> str:
    shortest, longest = int(material.lengths.min()), int(material.lengths.max())
    return str(shortest) if shortest == longest else f"{shortest} to {longest}"


def _system(system: System) -> dict[str, Any]:
    """A system's provenance, as rows of name and value."""
    rows: list[tuple[str, str]] = []
    provenance = system.provenance
    if provenance is None:
        rows.append(("Source", "a TREC run file of another tool; it says nothing of how it was made"))
    else:
        model, data = provenance.get("model") or {}, provenance.get("data") or {}
        rows += [("Model", f"{model.get('name', '?')} @ {model.get('revision', '?')}")]
        rows += [("Data", f"{data.get('revision', '?')}, {data.get('location', '?')}")]
        rows += [
            (name.replace("_", " ").capitalize(), str(provenance[name])) for name in _SHOWN if provenance.get(name)
        ]
        for name in ("settings", "ties", "versions"):
            if provenance.get(name):
                rows.append((name.capitalize(), "; ".join(f"{key} {value}" for key, value in provenance[name].items())))
        if git := provenance.get("git"):
            rows.append(("Code", f"{git['commit']}{', with uncommitted changes' if git['dirty'] else ''}"))
    return {
        "name": system.name,
        "letter": system.letter,
        "label": system.label,
        "signature": system.run.signature,
        "rows": rows,
    }
