"""Hub ids without a hub: from a cache in the hub's layout, or one message that says how to go on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from listcon_eval.model import PUBLISHED_ID, PUBLISHED_REVISION

SCORE = """
from listcon_eval import ListConRanker
ranker = ListConRanker()
print(ranker.checkpoint.source.revision, ranker.compute_score([["问", "答"]]))
"""


def run(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)


def test_the_published_model_comes_from_the_cache_at_its_pinned_revision(
    checkpoint_folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "hub" / f"models--{PUBLISHED_ID.replace('/', '--')}"
    shutil.copytree(checkpoint_folder, place / "snapshots" / PUBLISHED_REVISION)
    done = run(SCORE, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{PUBLISHED_REVISION} [[0.")


def test_an_empty_cache_says_what_was_tried_and_how_to_go_on(tmp_path: Path) -> None:
    done = run(SCORE, tmp_path)
    message = done.stderr.strip().splitlines()[-1]
    for part in (
        PUBLISHED_ID,
        PUBLISHED_REVISION,
        "offline mode is set",
        str(tmp_path),
        "HF_HOME",
        "HF_ENDPOINT",
    ):
        assert part in message
