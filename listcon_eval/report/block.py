"""The block of a Markdown file that holds the comparison table, between two comments on lines of their own."""

import re
from collections.abc import Sequence
from pathlib import Path

from listcon_eval.errors import ListconError
from listcon_eval.files import write_text
from listcon_eval.report.table import Table
from listcon_eval.results import RunRecord

TABLE_START, TABLE_END = "<!-- listcon-eval table -->", "<!-- end -->"


def _line(marker: str) -> re.Pattern[str]:
    """A marker on a line of its own; one inside a sentence speaks of the block and is none."""
    return re.compile(rf"(?:\A|(?<=[\r\n])){re.escape(marker)}[ \t]*(?=[\r\n]|\Z)")


def markdown_block(tables: Sequence[Table], records: Sequence[RunRecord]) -> str:
    """What stands between the markers: the tables, and the signature of every run in them."""
    signatures = "\n".join(f"- `{record.signature}`" for record in records)
    return "\n\n".join([*(table.render("github") for table in tables), *([signatures] if signatures else [])])


def has_block(text: str) -> bool:
    """Whether a text has the block's first marker on a line of its own."""
    return _line(TABLE_START).search(text) is not None


def with_block(text: str, content: str, path: Path) -> str:
    """A text with the block's content replaced; every other character stays as it is, line breaks included.

    Args:
        text: the whole text.
        content: what is to stand between the markers.
        path: where the text is from, for messages.

    Raises:
        ListconError: the block is missing, has no end, or is there more than once.
    """
    starts = list(_line(TABLE_START).finditer(text))
    if not starts:
        raise ListconError(
            f"{path} has no place for the table: put the lines {TABLE_START} and {TABLE_END} where it shall stand"
        )
    if len(starts) > 1:
        raise ListconError(f"{path} has {len(starts)} lines {TABLE_START}: leave the one that the table belongs to")
    start = starts[0].end()
    end = _line(TABLE_END).search(text, start)
    if end is None:
        raise ListconError(f"{path}: {TABLE_START} has no {TABLE_END} after it; add one, on a line of its own")
    found = re.search(r"\r\n|\n|\r", text)
    line_break = found[0] if found else "\n"
    return text[:start] + f"\n\n{content}\n\n".replace("\n", line_break) + text[end.start() :]


def update_block(path: Path, content: str) -> None:
    """Replace the block of a file, the whole file or nothing.

    Raises:
        ListconError: as `with_block`, or the file cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        raise ListconError(f"{path} cannot be read as a Markdown file: {error}") from error
    write_text(path, with_block(text, content, path))
