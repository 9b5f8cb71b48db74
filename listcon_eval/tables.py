"""Tables as text for a terminal, Markdown and LaTeX, from plain texts that are escaped here."""

import io
import re
import shutil
import sys
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from rich.box import Box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tabulate import LATEX_ESCAPE_RULES, tabulate

Style = Literal["terminal", "markdown", "latex"]

_BEST: dict[Style, str] = {"terminal": "{}*", "markdown": "**{}**", "latex": r"\textbf{{{}}}"}
_UNLIMITED = 100_000  # cells: wider than any table
_MIN_TEXT, _BETWEEN_COLUMNS = 9, 3  # cells
_RULE_BELOW_HEADER = Box("    \n    \n----\n    \n    \n    \n    \n    \n", ascii=True)
_NOT_SHOWN = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, lone surrogates, line and paragraph separators
_MARKDOWN_MARKUP = re.compile(r"[\\`*<>|~&$]|(?<!\w)_|_(?!\w)|\](?=\()")  # an underscore inside a word means nothing


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    style: Style = "terminal",
    *,
    width: int | None = None,
    numbers: int = 0,
    best: Collection[tuple[int, int]] = (),
) -> str:
    """A table of plain texts.

    Args:
        headers: one header a column.
        rows: one text a column.
        style: terminal: aligned by cells, of which a Chinese character takes two; markdown: a GitHub table;
            latex: a `tabular` with booktabs rules.
        width: the cells of the terminal, None for no limit. A wider table breaks texts over lines.
        numbers: how many of the last columns hold numbers, which are aligned to the right.
        best: (row, column) of the cells to show in bold, or with a star on a terminal.
    """
    # On a terminal the other numbers of a column with a star keep their place.
    starred = {column for _, column in best} if style == "terminal" else set()

    def shown(place: int, column: int, cell: str) -> str:
        text = escaped(cell, style)
        if (place, column) in best:
            return _BEST[style].format(text)
        return f"{text} " if column in starred else text

    headers = [escaped(header, style) for header in headers]
    cells = [[shown(place, column, cell) for column, cell in enumerate(row)] for place, row in enumerate(rows)]
    if style == "terminal":
        return _terminal_table(headers, cells, width, numbers)
    align = ["left"] * (len(headers) - numbers) + ["right"] * numbers
    text = tabulate(
        cells,
        headers=headers,
        tablefmt="github" if style == "markdown" else "latex_raw",
        disable_numparse=True,
        colalign=align if rows else None,
    )
    if style == "latex":  # tabulate's raw LaTeX has plain lines
        for rule in ("toprule", "midrule", "bottomrule"):
            text = text.replace(r"\hline", rf"\{rule}", 1)
    return text


def latex_float(body: str, caption: str, comments: Iterable[str]) -> str:
    r"""A `table` environment around a LaTeX table, below comments."""
    return "\n".join(
        [
            *(f"% {one_line(comment)}" for comment in comments),
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(caption, 'latex')}}}",
            body,
            r"\end{table}",
        ]
    )


def terminal_width() -> int | None:
    """The width of the terminal that standard output goes to, in cells; None when it goes to a file or a program."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def heading(text: str, style: Style = "terminal") -> str:
    """A line above a table."""
    return f"**{escaped(text, style)}**" if style == "markdown" else one_line(text)


def code(text: str, style: Style = "terminal") -> str:
    """Text such as a signature, as inline code in Markdown."""
    shown = one_line(text)
    if style != "markdown":
        return escaped(text, style)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    space = " " if "`" in shown else ""
    return f"{fence}{space}{shown}{space}{fence}"


def escaped(text: str, style: Style = "terminal") -> str:
    """Text on one line, with the markup characters of the style escaped."""
    shown = one_line(text)
    if style == "markdown":
        return _MARKDOWN_MARKUP.sub(r"\\\g<0>", shown)
    if style == "latex":
        return "".join(LATEX_ESCAPE_RULES.get(character, character) for character in shown)
    return shown


def one_line(text: str) -> str:
    r"""Text with line breaks and control characters written as Python does, such as `\n` or `\x1b`."""
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _NOT_SHOWN else character
        for character in text
    )


def percent(share: float) -> str:
    """A number from 0 to 1 in percent, as tables have it."""
    return f"{100 * share:.2f}"


def shortened(text: str, cells: int) -> str:
    """Text on one line, with white space collapsed, cut to as many cells."""
    line = one_line(" ".join(text.split()))
    return line if cell_len(line) <= cells else f"{set_cell_size(line, cells - 3).rstrip()}..."


def _terminal_table(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, numbers: int) -> str:
    shown = Table(box=_RULE_BELOW_HEADER, show_edge=False, pad_edge=False, header_style="")
    for place, (header, cells) in enumerate(zip(headers, _column_widths(headers, rows, width, numbers), strict=True)):
        justify: Literal["left", "right"] = "right" if place >= len(headers) - numbers else "left"
        shown.add_column(Text(header), overflow="fold", width=cells, justify=justify)
    for row in rows:
        shown.add_row(*map(Text, row))
    target = io.StringIO()
    Console(file=target, width=_UNLIMITED, color_system=None, legacy_windows=False).print(shown)
    return "\n".join(line.rstrip() for line in target.getvalue().rstrip("\n").split("\n"))


def _column_widths(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, numbers: int) -> list[int]:
    """The cells of each column: the widest text columns are narrowed until the table fits, numbers never.

    A table that does not fit even so keeps its widths, and the terminal breaks its lines.
    """
    columns = list(zip(headers, *rows, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    if width is None:
        return widths
    least = [
        min(widths[place], _MIN_TEXT if place < len(columns) - numbers else max([1, *map(cell_len, column[1:])]))
        for place, column in enumerate(columns)
    ]
    narrowed = list(widths)
    while sum(narrowed) + _BETWEEN_COLUMNS * (len(narrowed) - 1) > width:
        place = max(range(len(narrowed)), key=lambda at: (narrowed[at] > least[at], narrowed[at]))
        if narrowed[place] <= least[place]:
            return widths
        narrowed[place] -= 1
    return narrowed
