"""What an unfinished run keeps: finished chunks on disk, for one process at a time.

Chunks lie in `results/{org__model}/{revision}/.work/{task}-{key}/` while a task is worked on. The key follows from
everything that changes the answer, so nothing is reused for another. A chunk carries its checksum; a damaged one is
computed again.
"""

import hashlib
import io
import json
import logging
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from listcon_eval.errors import ListconError
from listcon_eval.files import write_bytes, write_json

logger = logging.getLogger(__name__)

_WORK = ".work"
_OWNER = "owner.json"
_DIGEST_BYTES = hashlib.sha256().digest_size


@cache
def model_code_sha256() -> str:
    """A hash of the code that decides a score: the rooms `model`, `inference` and `kinds`."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for room in ("model", "inference", "kinds"):
        for path in sorted((package / room).glob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def run_key(parts: Mapping[str, Any]) -> str:
    """A key of what a run depends on: a hash over its parts and the model code."""
    text = json.dumps({**parts, "code": model_code_sha256()}, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Work:
    """The finished chunks of one run (an `inference` journal)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reused = 0
        """How many chunks were loaded instead of computed."""

    def load(self, name: str) -> NDArray[np.generic] | None:
        """The chunk of a name; None when there is none. A damaged one is named, and counts as none."""
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

    def clear(self) -> None:
        """Forget all chunks."""
        for path in self.folder.glob("*.chunk"):
            path.unlink()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.chunk"


@contextmanager
def at_work(revision_folder: Path, task: str, key: str, *, fresh: bool) -> Iterator[Work]:
    """Take the work folder of a run, alone, and remove it when the run ends well.

    Args:
        revision_folder: `results/{org__model}/{revision}`.
        task: the task's name.
        key: the run's key.
        fresh: whether to forget what an earlier start has kept.

    Raises:
        ListconError: when another process is at work on the same run, naming its host and pid.
    """
    folder = revision_folder / _WORK / f"{task}-{key[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    # The system lets go of the lock when its process dies, however that happens: no lock is left behind.
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ListconError(
            f"another process is at work on this run ({_owner(folder)}): wait for it, or stop it and start again; what "
            f"it has finished is kept in {folder}"
        ) from error
    try:
        mine = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(folder / _OWNER, mine)
        work = Work(folder)
        if fresh:
            work.clear()
        yield work
        shutil.rmtree(folder)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()
    finally:
        lock.release()


def _owner(folder: Path) -> str:
    try:
        owner = json.loads((folder / _OWNER).read_text(encoding="utf-8"))
        return f"pid {owner['pid']} on host {owner['host']}, since {owner['since']}"
    except (OSError, ValueError, KeyError):
        return "it has not said which"
