"""Where a checkpoint comes from: a local folder, this package, or a hub id at a pinned revision."""

import re
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from listcon_eval.errors import ListconError
from listcon_eval.hub import hub_answers, hub_state

PUBLISHED_ID = "ByteDance/ListConRanker"
PUBLISHED_REVISION = "2852d459b0e3942733da8756b809f3659649d5a6"
MINI = "mini"
"""The name of the small checkpoint that comes with this package."""

_MINI_FOLDER = (Path(__file__).parent / "mini").resolve()

_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?")
# Everything a checkpoint is made of, and no code.
_WANTED_FILES = ("*.json", "*.jinja", "*.txt", "*.safetensors", "*.safetensors.gz", "*.bin", "*.pt", "*.model")


class Source(NamedTuple):
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


def resolve(path_or_id: str | Path, revision: str | None = None) -> Source:
    """Find a checkpoint: a folder when there is one by that name, else the packaged one, or one of the hub.

    Args:
        path_or_id: a folder, `MINI`, or a hub id such as "ByteDance/ListConRanker".
        revision: the hub revision; `PUBLISHED_REVISION` when not given for `PUBLISHED_ID`.

    Raises:
        ListconError: when there is no such folder, or the hub and its cache do not give the files.
    """
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ListconError(
                f"a revision ({revision}) was given for the folder {folder}: revisions belong to hub ids; leave it out"
            )
        return Source(folder, None, None, is_packaged=folder.resolve() == _MINI_FOLDER)
    name = str(path_or_id)
    if name == MINI:
        if revision is not None:
            raise ListconError(f"a revision ({revision}) was given for the packaged checkpoint: leave it out")
        return Source(_MINI_FOLDER, None, None, is_packaged=True)
    if folder.exists():
        raise ListconError(f"{name} is a file: a checkpoint is the folder that holds config.json and the weights")
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise ListconError(
            f"no checkpoint folder at {name}: give an existing folder, {MINI} for the packaged one, or a hub id such "
            f"as {PUBLISHED_ID}"
        )
    if revision is None and name == PUBLISHED_ID:
        revision = PUBLISHED_REVISION
    snapshot = _download(name, revision)
    return Source(snapshot, name, snapshot.name)


def _download(hub_id: str, revision: str | None) -> Path:
    at = f"{hub_id} at revision {revision or 'main'}"
    try:
        return Path(
            snapshot_download(
                hub_id,
                revision=revision,
                allow_patterns=list(_WANTED_FILES),
                local_files_only=not hub_answers(),
            )
        )
    except RevisionNotFoundError as error:
        raise ListconError(f"the hub has no {at}: check the revision (a commit hash, branch or tag)") from error
    except LocalEntryNotFoundError as error:
        raise ListconError(
            f"cannot get {at}: there is no folder of that name here, and neither the hub nor its cache gives it "
            f"({hub_state()}). Ways on: give a local checkpoint folder; fetch it where there is a network and copy "
            f"the cache here (HF_HOME names its place); or set HF_ENDPOINT to a mirror"
        ) from error
    except RepositoryNotFoundError as error:
        raise ListconError(
            f"the hub at {constants.ENDPOINT} has no {hub_id}, or it needs a token; no folder has that name either"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise ListconError(f"could not fetch {at} from {constants.ENDPOINT}: {error}") from error
