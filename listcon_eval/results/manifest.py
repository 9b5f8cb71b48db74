"""Is a finished run still what was written? Its manifest has the run's key and a checksum of every file."""

import hashlib
import json
from pathlib import Path

from listcon_eval.errors import ListconError
from listcon_eval.files import write_json
from listcon_eval.results.layout import METRICS, PER_QUERY, PROVENANCE, RUN, TREC_QRELS, TREC_RUN

MANIFEST = "manifest.json"
_FILES = (METRICS, PER_QUERY, RUN, TREC_RUN, TREC_QRELS, PROVENANCE)


def write_manifest(folder: Path, key: str) -> Path:
    """Write the manifest of a run whose files are all there; it is the last of them."""
    return write_json(folder / MANIFEST, {"key": key, "sha256": {name: _sha256(path) for name, path in _files(folder)}})


def is_finished(folder: Path, key: str) -> bool:
    """Whether a folder holds the finished run of a key, every file as it was written.

    Raises:
        ListconError: when it does, but a file is gone or not as it was written; names the file.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        kept_key, checksums = manifest["key"], manifest["sha256"]
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ListconError(_damaged(folder / MANIFEST, "cannot be read")) from error
    if kept_key != key:
        return False
    for name, path in _files(folder):
        if not path.exists():
            raise ListconError(_damaged(path, "is gone"))
        if checksums.get(name) != _sha256(path):
            raise ListconError(_damaged(path, "is not as it was written (its checksum does not fit)"))
    return True


def _files(folder: Path) -> list[tuple[str, Path]]:
    result = folder.with_name(f"{folder.name}.json")
    return [(name, folder / name) for name in _FILES] + [(f"../{result.name}", result)]


def _damaged(path: Path, how: str) -> str:
    return f"{path} {how}: start again with --fresh to compute the run anew, or put the file back"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
