"""Official data from the hub or its cache, at its pinned revision and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from listcon_eval.data.quiet import no_progress_bars
from listcon_eval.errors import ListconError

if TYPE_CHECKING:
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData


def fetch_split(task: str, dataset: str, revision: str, split: str) -> RetrievalSplitData:
    """Read one split of a dataset in mteb's retrieval layout.

    The files are fetched as one snapshot at `revision` and read from there with mteb's loader. Asking
    `datasets` by hub id instead would fall back, without a hub, on whatever revision of the dataset it used
    last, and would wait for half a minute at each of its nine requests.

    Args:
        task: the task's name, for messages.
        dataset: the dataset's hub id.
        revision: its commit hash.
        split: the split to read.

    Raises:
        ListconError: neither the hub nor its cache has the data; says what was tried and how to go on.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    from listcon_eval.hub import hub_answers

    try:
        folder = snapshot_download(dataset, repo_type="dataset", revision=revision, local_files_only=not hub_answers())
        with no_progress_bars():
            from mteb.abstasks.retrieval_dataset_loaders import RetrievalDatasetLoader

            return RetrievalDatasetLoader(hf_repo=folder, revision=revision, split=split).load()
    # ValueError: what mteb and datasets say of a snapshot that lacks a part
    except (HfHubHTTPError, FileNotFoundError, ConnectionError, TimeoutError, ValueError) as error:
        raise ListconError(_message(task, dataset, revision, error)) from error


def _message(task: str, dataset: str, revision: str, error: Exception) -> str:
    from huggingface_hub.errors import LocalEntryNotFoundError

    from listcon_eval.hub import hub_state

    if isinstance(error, LocalEntryNotFoundError):
        reason = "the cache has no snapshot of this revision"
    else:
        reason = f"{type(error).__name__}: {(str(error).strip() or 'no further message').splitlines()[0]}"
    return "\n".join(
        [
            f"Could not get the data of {task}: {dataset} @ {revision}.",
            f"Tried: {hub_state()}; {reason}.",
            "Ways to go on:",
            f"  - a local copy of the data: --data PATH with --tasks {task} (a file or a folder);",
            "  - the hub's cache, filled on a machine with a network by",
            f"      hf download {dataset} --repo-type dataset --revision {revision}",
            "    then copied here, with HF_HOME naming the copy and HF_HUB_OFFLINE=1;",
            "  - a mirror of the hub: HF_ENDPOINT=<its address>.",
        ]
    )
