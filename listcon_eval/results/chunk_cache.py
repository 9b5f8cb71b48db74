"""What an unfinished run keeps: finished chunks on disk, for one process at a time.

Chunks lie in `results/{org__model}/{revision}/.work/{task}-{key}/` while a task is worked on. The key follows from
everything that changes a score, so no chunk is reused for another computation. A chunk carries its checksum; a damaged
one is computed again.
"""

import hashlib
import io
import json
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from listcon_eval.errors import ListconError
from listcon_eval.files import write_bytes, write_json

logger = logging.getLogger(__name__)

WORK = ".work"
_OWNER, _LOCK = "owner.json", "lock"
_DIGEST_BYTES = hashlib.sha256().digest_size


class ChunkCache:
    """The finished chunks of one computation, by name. A name says what was computed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reused = 0  # how many chunks were loaded instead of computed

    def load(self, name: str) -> NDArray[np.generic] | None:
        """The chunk of a name; None when there is none. A damaged one is named in a warning, and counts as none."""
        path = self._path(name)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            logger.warning("%s is damaged (its checksum does not fit): computing it again", path)
            return None
        self.reused += 1
        array: NDArray[np.generic] = np.load(io.BytesIO(body), allow_pickle=False)
        return array

    def save(self, name: str, array: NDArray[np.generic]) -> None:
        """Keep a chunk, whole or not at all."""
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        body = buffer.getvalue()
        write_bytes(self._path(name), hashlib.sha256(body).digest() + body)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.chunk"


@contextmanager
def run_lock(revision_folder: Path, task: str, key: str, *, fresh: bool) -> Iterator[ChunkCache]:
    """Work on one computation, alone, with the chunks that an interrupted run of it has kept, unless it is `fresh`.

    `revision_folder` is `results/{org__model}/{revision}`, the key that of everything that changes a score. The folder
    of the chunks is removed when the work ends well.

    Raises:
        ListconError: another process works on the same computation; names its host and pid.
    """
    folder = revision_folder / WORK / f"{task}-{key[:16]}"
    while not folder.is_dir():
        with suppress(FileNotFoundError):  # another process that ends removes the folder above when it finds it empty
            folder.mkdir(parents=True, exist_ok=True)
    # The system releases the lock when its process dies, however that happens: no lock is left behind.
    try:
        held = FileLock(folder / _LOCK).acquire(timeout=0)
    except Timeout as error:
        raise ListconError(
            f"another process is working on this run ({_owner(folder)}): wait for it, or stop it and start again; what "
            f"it has finished is kept in {folder}"
        ) from error
    with held:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(folder / _OWNER, {"host": socket.gethostname(), "pid": os.getpid(), "since": since})
        if fresh:
            for path in folder.glob("*.chunk"):
                path.unlink()
        yield ChunkCache(folder)
        remove(folder)


def remove(folder: Path) -> None:
    """Remove the chunks of a computation, or a run, and the folder above when nothing else is in it."""
    shutil.rmtree(folder)
    with suppress(OSError):  # something is in it, or another process has removed it
        folder.parent.rmdir()


def chunk_folders(root: Path) -> list[Path]:
    """The folders of chunks anywhere in a folder; what another program has in a folder of that name is none."""
    found = [path for work in root.rglob(WORK) if work.is_dir() for path in work.iterdir()]
    return sorted(path for path in found if (path / _OWNER).is_file() or any(path.glob("*.chunk")))


def is_locked(folder: Path) -> bool:
    """Whether a process works on the computation whose chunks are in a folder."""
    try:
        with FileLock(folder / _LOCK).acquire(timeout=0):
            return False
    except Timeout:
        return True


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / _OWNER).read_text(encoding="utf-8"))
        return f"pid {owner['pid']} on host {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError):
        return "it has not said which"
