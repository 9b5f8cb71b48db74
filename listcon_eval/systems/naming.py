"""Names of systems: an `org/name`, whose halves are folders on every file system, and a revision."""

import re
from pathlib import Path

from listcon_eval.model.sources import Source


def name_of_model(source: Source) -> str:
    """The hub id of a model, or `local/` (`packaged/` if it came with this package) and its folder's name."""
    if source.is_packaged:
        return f"packaged/{source.folder.name}"
    return source.hub_id or f"local/{safe_name(source.folder.resolve().name)}"


def revision_of_model(source: Source, weights_sha256: str) -> str:
    """The hub's commit of a model, or a hash of its files."""
    return source.revision or f"sha256-{weights_sha256[:40]}"


def name_of_file(path: Path) -> str:
    """`run-file/` and the file's name."""
    return f"run-file/{safe_name(path.name)}"


def safe_name(name: str) -> str:
    """A name that is one folder on every file system and one half of an `org/model` name."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
