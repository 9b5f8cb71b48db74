"""Tables as text: for the terminal, Markdown, LaTeX, and as CSV and JSON for programs.

Numbers are percent with two decimals everywhere. The best of a column is bold; below a table stand the differences
to the published numbers, where it has rows that reproduce one.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pandas as pd
from tabulate import tabulate

from listcon_eval.compare.render import latex_escaped
from listcon_eval.report.table import AVERAGE, CLOSE, Table, is_close

Style = Literal["terminal", "markdown"]
_TABULATE = {"terminal": "simple", "markdown": "github"}
_BOLD = {"terminal": "\x1b[1m{}\x1b[0m", "markdown": "**{}**"}
_NAMES = ("Model", "Mode", "Source")


def as_text(table: Table, style: Style = "terminal") -> str:
    """A table for people, with its title.

    The bold of a terminal are escape codes, which `say` takes out where the output is no terminal.
    """
    parts = [_title(table.title, style), _body(table, style)]
    if any(table.differences):
        parts += [_title(_about_differences(), style), _differences(table, style)]
    return "\n\n".join(parts)


def as_latex(table: Table) -> str:
    r"""A table as LaTeX (booktabs); differences to published numbers are comments above it."""
    title = latex_escaped(table.title)
    body = _tabulated(table, "latex_raw", latex_escaped, r"\textbf{{{}}}".format)
    for rule in ("toprule", "midrule", "bottomrule"):  # tabulate's raw LaTeX has plain lines
        body = body.replace(r"\hline", rf"\{rule}", 1)
    comments = []
    for row, found in zip(table.rows, table.differences, strict=True):
        comments += [f"% {row.model}, {row.mode}, {row.source}: {name} {_signed(x)}" for name, x in found.items()]
    if comments:
        comments.insert(0, f"% {_about_differences()}")
    signatures = [f"% {line}" for row in table.rows for line in (row.signatures or {}).values()]
    return "\n".join(
        [*signatures, *comments, r"\begin{table}", r"\centering", rf"\caption{{{title}}}", body, r"\end{table}"]
    )


def as_csv(tables: Sequence[Table]) -> str:
    """All tables as one: the columns of every one of them, and which table a row is of."""
    frames = []
    for table in tables:
        frame = table.frame
        frame.insert(0, "Data", "official" if table.is_official else "other")
        frame.insert(4, "Kind", [row.kind or "" for row in table.rows])
        for name in (*table.tasks, AVERAGE):
            found = [row.get(name) for row in table.differences]
            if any(value is not None for value in found):
                frame[f"{name} difference"] = pd.Series(found, dtype=float)
                frame[f"{name} within {CLOSE}"] = ["" if x is None else str(is_close(x)).lower() for x in found]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True).to_csv(index=False, float_format="%.2f", lineterminator="\n")


def as_json(tables: Sequence[Table]) -> dict[str, Any]:
    """All tables for programs; numbers that there are not are left out."""
    return {"tables": [_table_json(table) for table in tables]}


def _table_json(table: Table) -> dict[str, Any]:
    numbers = table.printed.to_dict("records")
    rows = []
    for row, found, best, differences in zip(table.rows, numbers, table.best, table.differences, strict=True):
        rows.append(
            {
                "model": row.model,
                "mode": row.mode,
                "source": row.source,
                "kind": row.kind,
                "values": {str(name): value for name, value in found.items() if value == value},
                "best_of": [name for name, is_best in best.items() if is_best],
                "difference_to_published": {
                    name: {"difference": x, f"within_{CLOSE}": is_close(x)} for name, x in differences.items()
                },
                "signatures": dict(row.signatures or {}),
            }
        )
    return {
        "title": table.title,
        "measure": str(table.measure),
        "unit": "percent",
        "official": table.is_official,
        "columns": [*table.tasks, *([AVERAGE] if len(table.tasks) > 1 else [])],
        "rows": rows,
    }


def _body(table: Table, style: Style) -> str:
    return _tabulated(table, _TABULATE[style], _escape(style), _BOLD[style].format)


def _tabulated(table: Table, name: str, escape: Callable[[str], str], bold: Callable[[str], str]) -> str:
    frame = table.frame
    columns = [str(column) for column in frame.columns]
    rows = []
    for numbers, best in zip(frame.to_dict("records"), table.best, strict=True):
        cells = [escape(str(numbers[column])) for column in _NAMES]
        for column in columns[len(_NAMES) :]:
            value = numbers[column]
            cell = f"{value:.2f}" if value == value else "-"
            cells.append(bold(cell) if best[column] else cell)
        rows.append(cells)
    return _aligned([escape(column) for column in columns], rows, name)


def _differences(table: Table, style: Style) -> str:
    columns = [*table.tasks, *([AVERAGE] if len(table.tasks) > 1 else [])]
    rows = []
    for row, found in zip(table.rows, table.differences, strict=True):
        if found:
            cells = [f"{_signed(found[name])} {_mark(found[name])}" if name in found else "-" for name in columns]
            rows.append([*map(_escape(style), (row.model, row.mode, row.source)), *cells])
    return _aligned([*_NAMES, *columns], rows, _TABULATE[style])


def _aligned(headers: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> str:
    align = ("left",) * len(_NAMES) + ("right",) * (len(headers) - len(_NAMES))
    return tabulate(rows, headers=headers, tablefmt=name, disable_numparse=True, colalign=align if rows else None)


def _about_differences() -> str:
    return f"Difference to the published number, percent points (✓ within {CLOSE})"


def _signed(difference: float) -> str:
    return f"{difference:+.2f}"


def _mark(difference: float) -> str:
    return "✓" if is_close(difference) else "✗"


def _title(text: str, style: Style) -> str:
    return f"**{text}**" if style == "markdown" else text


def _escape(style: Style) -> Callable[[str], str]:
    """What keeps a name from ending its cell."""
    return (lambda text: text.replace("|", "\\|")) if style == "markdown" else str
