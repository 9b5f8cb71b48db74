"""Files are written whole or not at all: to a temporary name in the same folder, then renamed."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import Any

from listcon_eval.errors import ListconError


def check_writable(folder: Path) -> None:
    """Make `folder` when needed and write to it once, so that hours of work do not end at a read-only disk.

    Raises:
        ListconError: when it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ListconError(
            f"cannot write to {folder}: {error.strerror or error}; give another output folder"
        ) from error


def write_bytes(path: Path, content: bytes) -> Path:
    """Write `content` to `path`, whole or not at all, making its folder when needed, and return `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            file.close()
            temporary.chmod(0o644)  # a temporary file starts as 0600: results are for others to read
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return path


def write_text(path: Path, text: str) -> Path:
    """Write `text` as UTF-8, as `write_bytes` does."""
    return write_bytes(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> Path:
    """Write strict, indented JSON (a NaN or infinity raises ValueError) and return `path`."""
    return write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write one strict JSON object a line and return `path`."""
    return write_text(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def sha256_of_folder(folder: Path, suffixes: Iterable[str]) -> str:
    """SHA-256 over the files with such suffixes in a folder and below, by their paths in it: 64 hexadecimal digits."""
    wanted = frozenset(suffixes)
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in wanted and path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def sha256_of(paths: Iterable[Path]) -> str:
    """SHA-256 over names and contents of files, in the order of their names: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(paths, key=lambda p: p.name):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
