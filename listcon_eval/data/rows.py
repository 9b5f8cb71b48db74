"""Rows of data files (JSON lines, gzip, Parquet, TSV), one after another, each with its place in the file."""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from listcon_eval.errors import ListconError

EXTENSIONS = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet", ".tsv")
_SHARD = re.compile(r"-\d{5}-of-\d{5}.*$")  # "test-00000-of-00001", with a hash behind it in older datasets


class Row(NamedTuple):
    """One row.

    Attributes:
        where: file and line (1-based), for messages.
        values: column -> value.
    """

    where: str
    values: dict[str, Any]


def extension_of(path: Path) -> str | None:
    """The extension by which the file can be read, or None."""
    return next((e for e in sorted(EXTENSIONS, key=len, reverse=True) if path.name.lower().endswith(e)), None)


def stem_of(path: Path) -> str:
    """The file's name without its extension, `.jsonl.gz` being one."""
    extension = extension_of(path)
    return path.name[: -len(extension)] if extension else path.name


def read_rows(path: Path) -> Iterator[Row]:
    """Read a file row by row.

    Raises:
        ListconError: an unknown extension, a row that cannot be read, a broken file, or no rows at all.
    """
    extension = extension_of(path)
    if extension is None:
        raise ListconError(f"{path}: unknown kind of file; expected one of {', '.join(EXTENSIONS)}.")
    if extension == ".parquet":
        rows = _parquet(path)
    elif extension == ".tsv":
        rows = _tsv(path)
    else:
        rows = _json_lines(path, compressed=extension.endswith(".gz"))
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise ListconError(f"{path}: the file is empty; expected at least one row.")


def choose_split(files: Sequence[Path], split: str, where: Path) -> list[Path]:
    """The files of one split, from files named `SPLIT` or `SPLIT-00000-of-00001` and the like, in order.

    As mteb does, a single split is taken whatever its name.

    Raises:
        ListconError: several splits, none of them the wanted one.
    """
    by_split: dict[str, list[Path]] = {}
    for path in sorted(files):
        by_split.setdefault(_SHARD.sub("", stem_of(path)), []).append(path)
    if split in by_split:
        return by_split[split]
    if len(by_split) == 1:
        return next(iter(by_split.values()))
    raise ListconError(
        f"{where}: cannot tell which files to read: found {', '.join(sorted(by_split)) or 'none'}, "
        f"expected {split!r} or a single one. Give the path of the file itself."
    )


def text_value(row: Row, column: str, value: object) -> str:
    """`value` as a text that can be written as UTF-8.

    Raises:
        ListconError: it is none.
    """
    if not isinstance(value, str):
        raise ListconError(f"{row.where}: {column} is {shown(value)}; expected a text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ListconError(f"{row.where}: {column} holds half a surrogate pair at character {error.start}.") from error
    return value


def id_value(row: Row, column: str, value: object) -> str:
    """`value` as an id: a text that is not empty, or a whole number.

    Raises:
        ListconError: it is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = text_value(row, column, value)
    if not text:
        raise ListconError(f"{row.where}: {column} is empty; expected an id.")
    return text


def column_value(row: Row, *names: str) -> object:
    """The value of the first of the columns that the row has.

    Raises:
        ListconError: it has none of them.
    """
    for name in names:
        if name in row.values:
            return row.values[name]
    raise ListconError(
        f"{row.where}: no {' or '.join(map(repr, names))}; the row has {', '.join(row.values) or 'nothing'}."
    )


def shown(value: object) -> str:
    """A value as messages show it: short, with its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def _json_lines(path: Path, *, compressed: bool) -> Iterator[Row]:
    number = 0
    try:
        with gzip.open(path, "rb") if compressed else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield Row(f"{path}, line {number}", _json_object(f"{path}, line {number}", line))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ListconError(
            f"{path}: broken gzip after line {number} ({error}); fetch or copy the file again."
        ) from error


def _json_object(where: str, line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ListconError(f"{where}: not UTF-8 (byte {error.start}: 0x{line[error.start]:02x}).") from error
    except json.JSONDecodeError as error:
        raise ListconError(f"{where}: invalid JSON ({error}); expected one object a line.") from error
    if not isinstance(value, dict):
        raise ListconError(f"{where}: {shown(value)}; expected one JSON object a line.")
    return value


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}, row {number}", values)
    except pyarrow.ArrowInvalid as error:
        raise ListconError(f"{path}: cannot be read as Parquet after row {number} ({error}).") from error


def _tsv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        try:
            for values in reader:
                # cells beyond the header's stand under None, missing ones are None
                yield Row(f"{path}, line {reader.line_num}", {k: v for k, v in values.items() if k is not None})
        except UnicodeDecodeError as error:
            raise ListconError(f"{path}: not UTF-8 after line {reader.line_num} ({error}).") from error
