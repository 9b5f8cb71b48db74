"""Rows of data files, each with its place in the file.

Where a file's name and content disagree, the content decides: gzip, Parquet, a JSON array, another encoding than UTF-8,
a Git LFS pointer.
"""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from listcon_eval.errors import ListconError

EXTENSIONS = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet", ".tsv", ".tsv.gz")
_SHARD = re.compile(r"-\d{5}-of-\d{5}.*$")  # "test-00000-of-00001", with a hash behind it in older datasets
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


class Row(NamedTuple):
    """One row: its file and line (1-based), for messages, and its values by column."""

    location: str
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
    if extension == ".parquet" or _head(path).startswith(_PARQUET):
        rows = _parquet(path)
    elif extension.startswith(".tsv"):
        rows = _tsv(path)
    else:
        rows = _json(path)
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise ListconError(f"{path}: the file is empty; expected at least one row.")


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file, plain or gzip, that are not blank: location and text, without line break or BOM.

    Raises:
        ListconError: the file cannot be read, is broken, or is not UTF-8; says which encoding it looks like.
    """
    number = 0
    head = _head(path)
    is_gzip = head.startswith(_GZIP)
    try:
        with gzip.open(path, "rb") if is_gzip else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    _check_not_utf16(path, line, is_gzip=is_gzip)
                    line = line.removeprefix(codecs.BOM_UTF8)
                text = _decoded(path, number, line, is_gzip=is_gzip)
                if text.strip():
                    yield f"{path}, line {number}", text.rstrip("\r\n")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ListconError(
            f"{path}: broken gzip after line {number} ({error}); fetch or copy the file again."
        ) from error
    except OSError as error:
        raise ListconError(f"{path} cannot be read: {error.strerror or error}.") from error


def _head(path: Path) -> bytes:
    """The first bytes of a file, which must not be a Git LFS pointer."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ListconError(f"{path} cannot be read: {error.strerror or error}.") from error
    if head.startswith(_LFS_POINTER):
        raise ListconError(
            f"{path} is a Git LFS pointer: the file itself was not downloaded. Run `git lfs pull` in its repository, "
            "or fetch it with `hf download`."
        )
    return head


def _check_not_utf16(path: Path, first: bytes, *, is_gzip: bool) -> None:
    signs = {  # in this order: the mark of UTF-32LE starts like that of UTF-16LE
        "UTF-32": first.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
        "UTF-16": first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
        "UTF-16LE": first[1:2] == b"\0",
        "UTF-16BE": first[:1] == b"\0",
    }
    found = next((encoding for encoding, is_it in signs.items() if is_it), None)
    if found is not None:
        raise ListconError(f"{path}: not UTF-8; {_conversion(path, found, is_gzip=is_gzip)}")


def _decoded(path: Path, number: int, line: bytes, *, is_gzip: bool) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        problem = f"{path}, line {number}: not UTF-8 (byte {error.start}: 0x{line[error.start]:02x})"
        # GB 2312 is the part of GBK that most Chinese texts keep to; Big5 seldom decodes as it.
        for codec, name in (("gb2312", "GBK"), ("big5", "BIG5"), ("gb18030", "GB18030")):
            try:
                line.decode(codec)
            except UnicodeDecodeError:
                continue
            raise ListconError(f"{problem}; {_conversion(path, name, is_gzip=is_gzip)}") from error
        raise ListconError(f"{problem}.") from error


def _conversion(path: Path, encoding: str, *, is_gzip: bool) -> str:
    target = path.with_name(f"utf8-{path.name.removesuffix('.gz')}")
    command = f"iconv -f {encoding} -t utf-8"
    command = f"gzip -dc '{path}' | {command}" if is_gzip else f"{command} '{path}'"
    return f"it looks like {encoding}. Convert it: {command} > '{target}'"


def choose_split(files: Sequence[Path], split: str, folder: Path) -> list[Path]:
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
        f"{folder}: cannot tell which files to read: found {', '.join(sorted(by_split)) or 'none'}, "
        f"expected {split!r} or a single one. Give the path of the file itself."
    )


def require_text(row: Row, column: str, value: object) -> str:
    """`value`, if it is a text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise ListconError(f"{row.location}: {column} is {shown(value)}; expected a text.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ListconError(
            f"{row.location}: {column} holds half a surrogate pair at character {error.start}."
        ) from error
    return value


def require_id(row: Row, column: str, value: object) -> str:
    """`value` as an id, if it is a whole number or a text that is not empty."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    text = require_text(row, column, value)
    if not text:
        raise ListconError(f"{row.location}: {column} is empty; expected an id.")
    if "\0" in text:  # trec_eval's code ends an id there, and takes two ids for one
        raise ListconError(f"{row.location}: {column} is {shown(text)}; expected an id without the character NUL.")
    return text


def require_column(row: Row, *names: str) -> object:
    """The value of the first of these columns that the row has; it must have one."""
    for name in names:
        if name in row.values:
            return row.values[name]
    raise ListconError(
        f"{row.location}: no {' or '.join(map(repr, names))}; the row has {', '.join(row.values) or 'nothing'}."
    )


def shown(value: object) -> str:
    """A value as messages show it: short, with its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def whole_number(value: object) -> int | None:
    """`value` as a whole number, also from a text such as "1" or "1.0"; None when it is not one."""
    if not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() else None


def _json(path: Path) -> Iterator[Row]:
    """The objects of a file: one a line, or all in one JSON array."""
    lines = text_lines(path)
    for place, (location, line) in enumerate(lines):
        if place == 0 and line.lstrip().startswith("["):
            array = parse_json(str(path), "\n".join([line, *(text for _, text in lines)]))
            for number, value in enumerate(array, start=1):
                yield _json_row(f"{path}, element {number}", value)
            return
        yield _json_row(location, parse_json(location, line))


def _json_row(location: str, value: object) -> Row:
    if not isinstance(value, dict):
        raise ListconError(f"{location}: {shown(value)}; expected a JSON object.")
    return Row(location, value)


def parse_json(location: str, text: str) -> Any:  # noqa: ANN401 - JSON
    """The value of a JSON text; a ListconError names the location if it is none."""
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _object(location, pairs))
    except ValueError as error:  # also a number of more digits than Python reads
        raise ListconError(f"{location}: invalid JSON ({error}); expected one object a line, or one array.") from error
    except RecursionError as error:
        raise ListconError(f"{location}: JSON that is nested too deeply.") from error


def _object(location: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in found if keys.count(key) > 1)
        raise ListconError(f"{location}: the key {shown(repeated)} comes a second time; expected each key once.")
    return found


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    _head(path)
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}, row {number}", values)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ListconError(f"{path}: cannot be read as Parquet after row {number} ({error}).") from error


def _tsv(path: Path) -> Iterator[Row]:
    """The rows below a header line. Cells are never quoted, and of any length (the csv module stops at 131,072)."""
    lines = text_lines(path)
    header = next(lines, (str(path), ""))[1].split("\t")
    for location, line in lines:
        yield Row(location, dict(zip(header, line.split("\t"), strict=False)))
