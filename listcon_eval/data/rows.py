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
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from listcon_eval.errors import ListconError, count_of

EXTENSIONS = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet", ".tsv", ".tsv.gz")
_SHARD = re.compile(r"-(\d{5})-of-(\d{5}).*$")  # "test-00000-of-00001", with a hash behind it in older datasets
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_OF_COLUMN = object()
_LARGEST_JUDGEMENT = 10**6


class Row(NamedTuple):
    """One row: its file and line (1-based), for messages, and its values by column."""

    location: str
    values: dict[str, Any]

    def value(self, *names: str) -> object:
        """The value of the first of these columns that the row has; it must have one."""
        for name in names:
            if name in self.values:
                return self.values[name]
        raise ListconError(
            f"{self.location}: no {' or '.join(map(repr, names))}; the row has {', '.join(self.values) or 'nothing'}."
        )

    def texts(self, column: str) -> list[str]:
        """The list of texts in a column."""
        return [self.text(f"{column}[{i}]", value) for i, value in enumerate(self._list(column, "texts"))]

    def ids(self, column: str) -> list[str]:
        """The list of ids in a column."""
        return [self.id(f"{column}[{i}]", value) for i, value in enumerate(self._list(column, "document ids"))]

    def _list(self, column: str, of: str) -> list[object]:
        value = self.value(column)
        if not isinstance(value, list):
            raise ListconError(f"{self.location}: {column} is {shown(value)}; expected a list of {of}.")
        return value

    def text(self, column: str, value: object = _OF_COLUMN) -> str:
        """The value of a column, or another one named so, as a text that can be written as UTF-8."""
        value = self.value(column) if value is _OF_COLUMN else value
        if not isinstance(value, str):
            raise ListconError(f"{self.location}: {column} is {shown(value)}; expected a text.")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ListconError(
                f"{self.location}: {column} holds half a surrogate pair at character {error.start}."
            ) from error
        return value

    def id(self, column: str, value: object = _OF_COLUMN) -> str:
        """The value of a column, or another one named so, as an id: a whole number or a text that is not empty."""
        value = self.value(column) if value is _OF_COLUMN else value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise ListconError(
                f"{self.location}: {column} is {shown(value)}; expected an id: a text or a whole number."
            )
        text = self.text(column, value)
        if not text:
            raise ListconError(f"{self.location}: {column} is empty; expected an id.")
        if "\0" in text:  # trec_eval's code ends an id there, and takes two ids for one
            raise ListconError(f"{self.location}: {column} is {shown(text)}; expected an id without the character NUL.")
        return text


def extension_of(path: Path) -> str | None:
    """The extension by which the file can be read, or None."""
    return next((extension for extension in EXTENSIONS if path.name.lower().endswith(extension)), None)


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
    first = next(rows, None)
    if first is None:
        raise ListconError(f"{path}: the file is empty; expected at least one row.")
    yield first
    yield from rows


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
                    if encoding := _wide_encoding(line):
                        raise _not_utf8(f"{path}: not UTF-8", path, encoding, is_gzip=is_gzip)
                    line = line.removeprefix(codecs.BOM_UTF8)
                try:
                    text = line.decode()
                except UnicodeDecodeError as error:
                    problem = f"{path}, line {number}: not UTF-8 (byte {error.start}: 0x{line[error.start]:02x})"
                    raise _not_utf8(problem, path, _narrow_encoding(line), is_gzip=is_gzip) from error
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


def _wide_encoding(first: bytes) -> str | None:
    """The encoding of two or four bytes a character that the first line of a file is in, if it is."""
    signs = {  # in this order: the mark of UTF-32LE starts like that of UTF-16LE
        "UTF-32": first.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
        "UTF-16": first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
        "UTF-16LE": first[1:2] == b"\0",
        "UTF-16BE": first[:1] == b"\0",
    }
    return next((encoding for encoding, is_it in signs.items() if is_it), None)


def _narrow_encoding(line: bytes) -> str | None:
    # GB 2312 is the part of GBK that most Chinese texts keep to; Big5 seldom decodes as it.
    for codec, name in (("gb2312", "GBK"), ("big5", "BIG5"), ("gb18030", "GB18030")):
        with suppress(UnicodeDecodeError):
            line.decode(codec)
            return name
    return None


def _not_utf8(problem: str, path: Path, encoding: str | None, *, is_gzip: bool) -> ListconError:
    if encoding is None:
        return ListconError(f"{problem}.")
    target = path.with_name(f"utf8-{path.name.removesuffix('.gz')}")
    command = f"iconv -f {encoding} -t utf-8"
    command = f"gzip -dc '{path}' | {command}" if is_gzip else f"{command} '{path}'"
    return ListconError(f"{problem}; it looks like {encoding}. Convert it: {command} > '{target}'")


def choose_split(files: Sequence[Path], split: str, folder: Path) -> list[Path]:
    """The files of one split, from files named `SPLIT` or `SPLIT-00000-of-00001` and the like, in order.

    As mteb does, a single split is taken whatever its name.

    Raises:
        ListconError: several splits, none of them the wanted one, or not each part of the split once.
    """
    by_split: dict[str, list[Path]] = {}
    for path in sorted(files):
        by_split.setdefault(unsharded_stem(path), []).append(path)
    if split in by_split:
        return complete(by_split[split], folder)
    if len(by_split) == 1:
        return complete(next(iter(by_split.values())), folder)
    raise ListconError(
        f"{folder}: cannot tell which files to read: found {', '.join(sorted(by_split)) or 'none'}, "
        f"expected {split!r} or a single one. Give the path of the file itself."
    )


def unsharded_stem(path: Path) -> str:
    """A file's stem without the number of its shard."""
    return _SHARD.sub("", stem_of(path))


def complete(files: list[Path], folder: Path) -> list[Path]:
    """Files of one unsharded stem, which have to be one file or every shard of one set, once.

    Raises:
        ListconError: they hold the same data twice, or a shard is missing or of another set.
    """
    shards = [_SHARD.search(stem_of(path)) for path in files]
    places = sorted((int(shard[1]), int(shard[2])) if shard else (0, 1) for shard in shards)
    expected = [(place, len(files)) for place in range(len(files))]
    if places != expected or len({extension_of(path) for path in files}) > 1:
        raise ListconError(
            f"{folder}: found {', '.join(str(path.relative_to(folder)) for path in files)}; expected one file, or all "
            "shards of one set in one format. Fetch what is missing, remove what is there twice or is older, or give "
            "the path of the file itself."
        )
    return files


def shown(value: object) -> str:
    """A value as messages show it: short, with its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"


def number_of(value: object) -> float | None:
    """`value` as a number, also from a text such as "1" or "1e-3"; None when it is not one."""
    if not isinstance(value, (int, float, str)) or (isinstance(value, str) and "_" in value):  # "1_0" is Python's alone
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def judgement(location: str, column: str, value: object) -> int:
    """A relevance judgement: a whole number, also as a text such as "1" or "1.0".

    Raises:
        ListconError: it is none, or as large as ids are: what computes metrics takes memory by the largest one.
    """
    number = number_of(value)
    if number is None or not number.is_integer() or abs(number) > _LARGEST_JUDGEMENT:
        raise ListconError(
            f"{location}: {column} is {shown(value)}; expected a whole number (0: not relevant) of at most "
            f"{_LARGEST_JUDGEMENT}."
        )
    return int(number)


def _json(path: Path) -> Iterator[Row]:
    """The objects of a file: one a line, or all in one JSON array."""
    lines = text_lines(path)
    first = next(lines, None)
    if first is None:
        return
    if first[1].lstrip().startswith("["):
        array = parse_json(str(path), "\n".join([first[1], *(text for _, text in lines)]))
        values = ((f"{path}, element {number}", value) for number, value in enumerate(array, start=1))
    else:
        values = ((location, parse_json(location, line)) for location, line in chain([first], lines))
    for location, value in values:
        if not isinstance(value, dict):
            raise ListconError(f"{location}: {shown(value)}; expected a JSON object.")
        yield Row(location, value)


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
            _columns(str(path), file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=256):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}, row {number}", values)
    except (pyarrow.ArrowException, ValueError, OSError) as error:  # also a text that is not UTF-8
        raise ListconError(f"{path}: cannot be read as Parquet after row {number} ({error}).") from error


def _tsv(path: Path) -> Iterator[Row]:
    """The rows below a header line. Cells are never quoted, and of any length (the csv module stops at 131,072)."""
    lines = text_lines(path)
    where, first = next(lines, (str(path), ""))
    header = _columns(where, first.split("\t"))
    for location, line in lines:
        cells = line.split("\t")
        if len(cells) != len(header):
            raise ListconError(
                f"{location} has {count_of(len(cells), 'cell')} ({line[:60]!r}); expected one for each column: "
                f"{', '.join(header)}."
            )
        yield Row(location, dict(zip(header, cells, strict=True)))


def _columns(location: str, names: Sequence[str]) -> Sequence[str]:
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ListconError(f"{location}: the column {shown(repeated)} comes a second time; expected each column once.")
    return names
