"""The log of a training run, a JSON object a line: every step and every evaluation."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LOG_FILE = "log.jsonl"


class Log:
    """Appends lines, each on disk before the next step.

    Args:
        folder: the run's output folder.
        size: bytes to keep of a log that is there already.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.path = folder / LOG_FILE
        self._file = self.path.open("ab")
        self._file.truncate(size)
        self._file.seek(0, 2)

    def write(self, event: str, values: Mapping[str, Any]) -> None:
        """Append one line."""
        line = json.dumps({"event": event, **values}, ensure_ascii=False, allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """All lines of a log."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
