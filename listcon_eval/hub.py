"""The Hugging Face hub and its cache: a revision that was asked for is used, or the run ends."""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from huggingface_hub import HfApi, constants, get_session, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import REGEX_COMMIT_HASH, repo_folder_name

from listcon_eval.errors import ListconError, first_line_with_class

_TIMEOUT_SECONDS = 10  # for the one question whether the hub answers; its client would retry for half a minute
_OFFLINE, _SILENT = "offline mode is set (HF_HUB_OFFLINE)", "it does not answer"


def snapshot(
    repo_id: str, *, revision: str | None = None, repo_type: str = "model", allow_patterns: Sequence[str] | None = None
) -> Path:
    """The folder of a repository's files at one revision. Its name is the commit hash.

    A commit hash whose files are all in the cache needs no network. Any other revision is asked of the hub, because a
    cached branch may be an old one. In offline mode (HF_HUB_OFFLINE=1) everything is taken from the cache.

    Args:
        repo_id: the repository, such as "ByteDance/ListConRanker".
        revision: a commit hash, branch or tag; the main branch when None.
        repo_type: "model" or "dataset".
        allow_patterns: which files are wanted, such as "*.json"; all when None.

    Raises:
        ListconError: the hub does not have the repository or the revision, or does not answer and the cache cannot
            take its place.
    """
    wanted = revision or constants.DEFAULT_REVISION
    shown = f"{repo_id} @ {wanted}"
    # By the name that was asked for: the cache then knows the branch, for offline mode.
    patterns = None if allow_patterns is None else list(allow_patterns)
    download = partial(snapshot_download, repo_id, repo_type=repo_type, revision=wanted, allow_patterns=patterns)
    is_commit = REGEX_COMMIT_HASH.fullmatch(wanted) is not None
    # Without the list of the repository's files, which newer clients keep, a cached snapshot may be half of one.
    listing = _cache_folder(repo_id, repo_type) / "trees" / f"{wanted}.json"
    if constants.HF_HUB_OFFLINE or (is_commit and listing.is_file()):
        try:
            return Path(download(local_files_only=True))
        except LocalEntryNotFoundError as error:
            if constants.HF_HUB_OFFLINE:
                raise ListconError(_not_available(repo_id, repo_type, wanted, first_line_with_class(error))) from error
    try:
        commit = HfApi().repo_info(repo_id, repo_type=repo_type, revision=wanted, timeout=_TIMEOUT_SECONDS).sha
    except RevisionNotFoundError as error:
        raise ListconError(f"the hub has no {shown}: check the revision (a commit hash, branch or tag)") from error
    except GatedRepoError as error:
        raise ListconError(
            f"{repo_id} is gated: accept its terms at {constants.ENDPOINT}/{repo_id} and log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ListconError(
            f"the hub at {constants.ENDPOINT} has no {repo_type} {repo_id}, or it is private: check the name, or log "
            "in with `hf auth login`"
        ) from error
    except Exception as error:  # the HTTP library behind the client, and so its errors, differ between hub versions
        if is_commit:
            with suppress(LocalEntryNotFoundError):
                return Path(download(local_files_only=True))
        raise ListconError(_not_available(repo_id, repo_type, wanted, first_line_with_class(error))) from error
    try:
        folder = Path(download())
    except Exception as error:  # as above; also a full disk
        raise ListconError(
            f"could not fetch {shown} from {constants.ENDPOINT}: {first_line_with_class(error)}"
        ) from error
    if folder.name != commit:  # the client falls back on the cache
        raise ListconError(
            f"{shown} is commit {commit} at {constants.ENDPOINT}, and commit {folder.name} came: the hub stopped "
            "answering, or the branch moved just now; run it again"
        )
    return folder


def is_cached(repo_id: str, revision: str) -> bool:
    """Whether the cache has a snapshot of a dataset at a commit."""
    return (_cache_folder(repo_id, "dataset") / "snapshots" / revision).is_dir()


def hub_state() -> str:
    """The hub's endpoint, whether it answers, and where its cache is: for messages."""
    answer = _OFFLINE
    if not constants.HF_HUB_OFFLINE:
        try:
            get_session().head(constants.ENDPOINT, timeout=_TIMEOUT_SECONDS)
            answer = "it answers"
        except Exception:  # see `snapshot`
            answer = _SILENT
    return _state(answer)


def _state(answer: str) -> str:
    return f"hub {constants.ENDPOINT}: {answer}; hub cache {constants.HF_HUB_CACHE}"


def _not_available(repo_id: str, repo_type: str, wanted: str, reason: str) -> str:
    """The message for a hub that does not answer."""
    offline = bool(constants.HF_HUB_OFFLINE)
    kind = "" if repo_type == "model" else f" --repo-type {repo_type}"
    cache = _cache_folder(repo_id, repo_type)
    commits = [f"commit {path.name}" for path in sorted(cache.glob("snapshots/*"))]
    branches = [
        f"{path.relative_to(cache / 'refs').as_posix()} at {path.read_text(encoding='utf-8').strip()}"
        for path in sorted(cache.glob("refs/**/*"))
        if path.is_file()
    ]
    lines = [
        f"cannot get {repo_id} @ {wanted}.",
        f"Tried: {_state(f'{_OFFLINE if offline else _SILENT} ({reason})')}.",
        f"The cache has {', '.join([*branches, *commits]) or 'no snapshot of it'}.",
        "Ways to go on:",
    ]
    if commits and not offline:
        lines.append(
            "  - use what the cache has: --revision COMMIT for a model, or HF_HUB_OFFLINE=1 to take branches from it;"
        )
    lines += [
        "  - fill the cache on a machine with a network, by",
        f"      hf download {repo_id}{kind} --revision {wanted}",
        "    and copy it here, with HF_HOME naming the copy and HF_HUB_OFFLINE=1;",
        "  - use a mirror of the hub: HF_ENDPOINT=<its address>.",
    ]
    return "\n".join(lines)


def _cache_folder(repo_id: str, repo_type: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type=repo_type)
