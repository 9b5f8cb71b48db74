"""Where a checkpoint comes from: a local folder, this package, or a hub id at a revision."""

import re
from pathlib import Path
from typing import NamedTuple

from listcon_eval.errors import ListconError
from listcon_eval.hub import snapshot

PUBLISHED_ID = "ByteDance/ListConRanker"
PUBLISHED_REVISION = "2852d459b0e3942733da8756b809f3659649d5a6"
"""The commit of the published weights that is used unless another is asked for."""
REGISTRY_REVISION = "95ae6a5f422a916bc36520f0f3e198e7d91520a0"
"""The commit that mteb's registry names; the leaderboard's results are of this one."""
PUBLISHED_REVISIONS = {"published": PUBLISHED_REVISION, "mteb": REGISTRY_REVISION}
"""Short names of revisions of `PUBLISHED_ID`."""
MINI = "mini"
"""The name of the small checkpoint that comes with this package."""

_MINI_FOLDER = (Path(__file__).parent / "mini").resolve()
_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
# Everything a checkpoint is made of, and no code.
_WANTED_FILES = ("*.json", "*.jinja", "*.txt", "*.safetensors", "*.safetensors.gz", "*.bin", "*.pt", "*.model")


class ModelSource(NamedTuple):
    """A checkpoint's folder on this machine and where it came from.

    Attributes:
        folder: the folder that holds its files.
        hub_id: the hub id, or None for a local folder.
        revision: the hub's commit hash, or None for a local folder.
        is_packaged: whether it came with this package.
    """

    folder: Path
    hub_id: str | None
    revision: str | None
    is_packaged: bool = False


def refuse_revision(revision: str | None, name: str) -> None:
    """Raise a ListconError for a revision of something that has none."""
    if revision is not None:
        raise ListconError(f"a revision ({revision}) was given for {name}, and only hub ids have one: leave it out")


def resolve_source(path_or_id: str | Path, revision: str | None = None) -> ModelSource:
    """Find a checkpoint: a folder when there is one by that name, else the packaged one, or one of the hub.

    Args:
        path_or_id: a folder, `MINI`, or a hub id such as "ByteDance/ListConRanker".
        revision: the hub revision; for `PUBLISHED_ID` also a name of `PUBLISHED_REVISIONS`, and `PUBLISHED_REVISION`
            when it is None.

    Raises:
        ListconError: when there is no such folder, the hub and its cache do not give the files, or an adapter is among
            them.
    """
    source = _found(path_or_id, revision)
    if (source.folder / "adapter_config.json").exists():
        raise ListconError(
            f"{source.folder} holds adapter_config.json, and no adapter is read here: the scores would be those of the "
            "model without it. Merge it into the weights (peft: merge_and_unload), or remove the file"
        )
    return source


def _found(path_or_id: str | Path, revision: str | None) -> ModelSource:
    folder = Path(path_or_id).expanduser()
    name = str(path_or_id)
    local = folder if folder.is_dir() else _MINI_FOLDER if name == MINI else None
    if local is not None:
        refuse_revision(revision, name)
        return ModelSource(local, None, None, is_packaged=local.resolve() == _MINI_FOLDER)
    if folder.exists():
        raise ListconError(f"{name} is a file: a checkpoint is the folder that holds config.json and the weights")
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise ListconError(
            f"no checkpoint folder at {name}: give an existing folder, {MINI} for the packaged one, or a hub id such "
            f"as {PUBLISHED_ID}"
        )
    if name == PUBLISHED_ID:
        revision = PUBLISHED_REVISIONS.get(revision or "published", revision)
    try:
        downloaded = snapshot(name, revision=revision, allow_patterns=_WANTED_FILES)
    except ListconError as error:
        raise ListconError(f"no folder has the name {name}, and as a hub id: {error}") from error
    return ModelSource(downloaded, name, downloaded.name)
