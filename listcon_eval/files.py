"""Files and folders are written whole or not at all: aside first, then renamed."""

import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from listcon_eval.errors import ListconError


def check_writable(folder: Path) -> None:
    """Make `folder` and write to it once, or raise a ListconError: hours of work should not end at a read-only disk."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ListconError(
            f"cannot write to {folder}: {error.strerror or error}; give another output folder"
        ) from error


def check_replaceable(path: Path, start: str, kind: str) -> None:
    """Refuse, before any work, a file that cannot be written, or that would take the place of something else.

    Args:
        path: the file to write.
        start: what every file of the kind begins with, up to white space; one that begins otherwise is not replaced.
        kind: the kind in words, as "a baseline".

    Raises:
        ListconError: `path` is a folder, in one that cannot be written to, or a file of another kind that is not empty.
    """
    if path.is_dir():
        raise ListconError(f"{path} is a folder; give the name of the file to write")
    if path.is_file():
        with path.open("rb") as file:
            found = b"".join(file.read(200).split())
        if found and not found.lower().startswith("".join(start.split()).lower().encode()):
            raise ListconError(f"{path} is there and is not {kind}: give another name, or remove it first")
    check_writable(path.parent)


def write_bytes(path: Path, content: bytes) -> Path:
    """Write `content` to `path`, whole or not at all, making its folder when needed, and return `path`."""
    with _named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            try:
                file.write(content)
                file.close()
                _finish_file(temporary)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    return path


def _finish_file(path: Path) -> None:
    """Let others read a file that was written aside, and have it on the disk before it takes its place."""
    path.chmod(0o644)  # safetensors and temporary files start as 0600
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Have an error of the system name what was to be written, also one that a library in Rust raises its own way."""
    try:
        yield
    except Exception as error:
        of_rust = re.search(r"\(os error (\d+)\)", str(error))
        number = error.errno if isinstance(error, OSError) else int(of_rust[1]) if of_rust else None
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def write_text(path: Path, text: str) -> Path:
    """Write `text` as UTF-8, as `write_bytes` does."""
    return write_bytes(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> Path:
    """Write strict, indented JSON (a NaN or infinity raises ValueError) and return `path`."""
    return write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


@contextmanager
def swapped_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder` to write into; it takes that one's place, whole, when the block ends well.

    A process that is killed leaves the old folder or the new one: between the two renames the old one is kept aside,
    and `restore_swapped` puts it back.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    staged = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.new-"))
    replaced = _replaced(folder)
    try:
        with _named(folder):
            staged.chmod(0o755)
            yield staged
            for path in staged.rglob("*"):
                if path.is_file():
                    _finish_file(path)
            _swap(staged, folder, replaced)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        restore_swapped(folder)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def _swap(staged: Path, folder: Path, replaced: Path) -> None:
    for last in (False, False, True):
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            folder.rename(replaced)
        try:
            staged.rename(folder)
        except OSError:  # a reader has put the old folder back in this very moment
            if last:
                raise
        else:
            return


def remove_leftovers(folder: Path) -> None:
    """Undo what a killed process left beside a folder. Only for whoever may write to it now."""
    restore_swapped(folder)
    for staged in folder.parent.glob(f".{glob.escape(folder.name)}.new-*"):
        shutil.rmtree(staged, ignore_errors=True)


def restore_swapped(folder: Path) -> None:
    """Put the old folder back after a process was killed in `swapped_folder`, if there is no new one."""
    replaced = _replaced(folder)
    if replaced.is_dir():
        if folder.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            replaced.rename(folder)


def _replaced(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.replaced")


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file's content: 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_folder(folder: Path, suffixes: Iterable[str]) -> str:
    """SHA-256 over the files with such suffixes in a folder and below, by their paths in it: 64 hexadecimal digits.

    What lies in a folder `results` in it is left out: runs are written there, and a run must not change a model's hash.
    """
    wanted = frozenset(suffixes)
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in wanted and path.is_file()):
        place = path.relative_to(folder)
        if "results" not in place.parts[:-1]:
            digest.update(place.as_posix().encode() + b"\0" + sha256_of_file(path).encode())
    return digest.hexdigest()


def sha256_of_texts(texts: Iterable[str]) -> str:
    """SHA-256 over texts in their order, each with its length: 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8) + encoded)
    return digest.hexdigest()
