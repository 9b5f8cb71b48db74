"""Comparison tables as text for people, as CSV and JSON for programs, and as a block of a Markdown file."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from listcon_eval.errors import ListconError
from listcon_eval.files import write_text
from listcon_eval.report.table import REPRODUCED_WITHIN, Table, is_close
from listcon_eval.results import Signature
from listcon_eval.tables import Style, code, escaped, heading, one_line, table

TABLE_START, TABLE_END = "<!-- listcon-eval table -->", "<!-- end -->"
_NAMES = ("Model", "Mode", "Source")
_ABOUT_DIFFERENCES = f"Difference to the published number, percent points (✓ within {REPRODUCED_WITHIN})"


def as_text(shown: Table, style: Style = "terminal", *, width: int | None = None) -> str:
    """A table for people, with its title, the differences to published numbers, and notes.

    Markdown lists the signature of every number; a terminal shows only what differs between the rows' signatures.
    `width` is that of the terminal in cells, None for no limit.
    """
    numbers = len(shown.columns)
    rows, best = [], set()
    for place, (row, values, own_best) in enumerate(zip(shown.rows, shown.printed, shown.best, strict=True)):
        rows.append([row.model, row.mode, row.source, *(_number(values[name]) for name in shown.columns)])
        best |= {(place, len(_NAMES) + shown.columns.index(name)) for name in own_best}
    body = table([*_NAMES, *shown.columns], rows, style, width=width, numbers=numbers, best=best)
    if style == "latex":
        return _latex(shown, body)
    parts = [heading(shown.title, style), body]
    if any(shown.differences):
        lines = [
            [row.name, *(_difference(found.get(name)) for name in shown.columns)]
            for row, found in zip(shown.rows, shown.differences, strict=True)
            if found
        ]
        parts.append(heading(_ABOUT_DIFFERENCES, style))
        parts.append(table(["System", *shown.columns], lines, style, width=width, numbers=numbers))
    notes = [*(["*: the best of its column"] if best and style == "terminal" else []), *shown.notes]
    below = [one_line(note) if style == "terminal" else f"- {escaped(note, style)}" for note in notes]
    if style == "markdown":
        below += [f"- {code(str(signature), style)}" for row in shown.rows for signature in row.signatures.values()]
    elif any(row.signatures for row in shown.rows):
        below += _signature_lines(shown)
    return "\n\n".join([*parts, *(["\n".join(below)] if below else [])])


def _signature_lines(shown: Table) -> Iterator[str]:
    """What differs between the rows' signatures and the table does not show."""
    fields = [
        (f"{row.name}, {task}" if len(row.signatures) > 1 else row.name, _comparable_fields(signature))
        for row in shown.rows
        for task, signature in row.signatures.items()
    ]
    every = dict.fromkeys(name for _, own in fields for name in own)
    differing = [name for name in every if len({own[name] for _, own in fields if name in own}) > 1]
    if differing:
        yield f"The signatures differ in {', '.join(differing)}:"
        for who, own in fields:
            yield one_line(f"  {who}: {', '.join(f'{name} {own[name]}' for name in differing if name in own)}")
    yield "Full signatures: --format markdown or --json, and metrics.json of each run."


def _comparable_fields(signature: Signature) -> dict[str, str]:
    """The fields of a signature that the table's columns do not show and that the system has."""
    in_table = ("task", "data_revision", "model", "model_revision", "mode", "dtype")
    return {name: value for name, value in signature.fields().items() if name not in in_table and value != "none"}


def _latex(shown: Table, body: str) -> str:
    r"""A `table` environment; signatures, notes and differences are comments above it."""
    comments = [str(signature) for row in shown.rows for signature in row.signatures.values()]
    comments += shown.notes
    if any(shown.differences):
        comments.append(_ABOUT_DIFFERENCES)
        for row, found in zip(shown.rows, shown.differences, strict=True):
            comments += [f"{row.name}: {name} {value:+.2f}" for name, value in found.items()]
    return "\n".join(
        [
            *(f"% {one_line(comment)}" for comment in comments),
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(shown.title, 'latex')}}}",
            body,
            r"\end{table}",
        ]
    )


def _number(value: float, absent: str = "-") -> str:
    return f"{value:.2f}" if value == value else absent


def _difference(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f} {'✓' if is_close(value) else '✗'}"


def as_csv(tables: Sequence[Table]) -> str:
    """All tables as one, with the columns of all of them; `Data` tells official tasks from other data."""
    records = []
    for shown in tables:
        compared = [name for name in shown.columns if any(name in found for found in shown.differences)]
        for row, numbers, differences in zip(shown.rows, shown.printed, shown.differences, strict=True):
            data = "official" if shown.is_official else "other"
            record = {"Data": data, "Model": row.model, "Mode": row.mode, "Source": row.source, "Kind": row.kind}
            record |= {name: _number(value, "") for name, value in numbers.items()}
            for name in compared:
                value = differences.get(name)
                record[f"{name} difference"] = "" if value is None else f"{value:.2f}"
                record[f"{name} within {REPRODUCED_WITHIN}"] = "" if value is None else str(is_close(value)).lower()
            records.append(record)
    return pd.DataFrame(records).to_csv(index=False, lineterminator="\n")


def as_json(tables: Sequence[Table]) -> dict[str, Any]:
    """All tables for programs; a number that does not exist is left out."""
    return {
        "tables": [
            {
                "title": shown.title,
                "measure": str(shown.measure),
                "unit": "percent",
                "official": shown.is_official,
                "columns": shown.columns,
                "notes": list(shown.notes),
                "rows": [
                    {
                        "model": row.model,
                        "mode": row.mode,
                        "source": row.source,
                        "kind": row.kind,
                        "values": {name: value for name, value in numbers.items() if value == value},
                        "best_of": [name for name in shown.columns if name in best],
                        "difference_to_published": {
                            name: {"difference": value, f"within_{REPRODUCED_WITHIN}": is_close(value)}
                            for name, value in differences.items()
                        },
                        "signatures": {task: str(signature) for task, signature in row.signatures.items()},
                    }
                    for row, numbers, best, differences in zip(
                        shown.rows, shown.printed, shown.best, shown.differences, strict=True
                    )
                ],
            }
            for shown in tables
        ]
    }


def _marker_line(marker: str) -> re.Pattern[str]:
    """Matches a marker on a line of its own, not one inside a sentence."""
    return re.compile(rf"(?:\A|(?<=[\r\n])){re.escape(marker)}[ \t]*(?=[\r\n]|\Z)")


def has_block(text: str) -> bool:
    """Whether a text has the line that starts the table's block."""
    return _marker_line(TABLE_START).search(text) is not None


def with_block(text: str, tables: Sequence[Table], path: Path) -> str:
    """A Markdown text with the tables between its two marker lines; every other character stays.

    Raises:
        ListconError: the block is missing, has no end, or is there more than once.
    """
    starts = list(_marker_line(TABLE_START).finditer(text))
    if not starts:
        raise ListconError(
            f"{path} has no place for the table: put the lines {TABLE_START} and {TABLE_END} where it belongs"
        )
    if len(starts) > 1:
        raise ListconError(f"{path} has {len(starts)} lines {TABLE_START}: keep one")
    start = starts[0].end()
    end = _marker_line(TABLE_END).search(text, start)
    if end is None:
        raise ListconError(f"{path}: {TABLE_START} has no {TABLE_END} after it; add one, on a line of its own")
    content = "\n\n".join(as_text(shown, "markdown") for shown in tables)
    return text[:start] + f"\n\n{content}\n\n".replace("\n", line_break_of(text)) + text[end.start() :]


def line_break_of(text: str) -> str:
    """The first line break of a text: CRLF, LF or CR."""
    found = re.search(r"\r\n|\n|\r", text)
    return found[0] if found else "\n"


def update_block(path: Path, tables: Sequence[Table]) -> None:
    """Put the tables between the marker lines of a Markdown file.

    Raises:
        ListconError: as `with_block`, or the file cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        raise ListconError(f"{path} cannot be read as a Markdown file: {error}") from error
    write_text(path, with_block(text, tables, path))
