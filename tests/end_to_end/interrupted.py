"""Kill runs with SIGKILL at chosen moments: `python interrupted.py CHECKPOINT DATA FOLDER`.

Every run is a process forked from this one, which has the libraries loaded: a start takes no time. It is killed when it
has kept a given number of chunks or is about to rename a given folder, then started again. What the last start leaves
is compared with an uninterrupted run, byte by byte.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import torch

from listcon_eval.data import local_task
from listcon_eval.evaluation import evaluate
from listcon_eval.inference import memory
from listcon_eval.results.chunk_cache import ChunkCache
from listcon_eval.systems.base import LoadOptions
from run_files import NUMBERS, contents


def work(checkpoint: str, data: str, output: Path, fresh: bool = False) -> None:
    """Do a whole run."""
    evaluate(
        checkpoint, [local_task(data)], output=output, options=LoadOptions(device="cpu", dtype="float32"), fresh=fresh
    )


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(moment: tuple[str, int], checkpoint: str, data: str, output: Path, fresh: bool) -> None:
    """Start a run in a process of its own that is killed after its n-th chunk, or before its n-th rename."""
    what, number = moment
    pid = os.fork()
    if pid == 0:
        count = 0
        save, rename = ChunkCache.save, Path.rename

        def counted_save(self: ChunkCache, *arguments: object) -> None:
            nonlocal count
            save(self, *arguments)  # type: ignore[arg-type]
            count += what == "chunk"
            if what == "chunk" and count == number:
                die()

        def counted_rename(self: Path, target: Path) -> Path:
            nonlocal count
            count += what == "rename"
            if what == "rename" and count == number:
                die()
            return rename(self, target)

        ChunkCache.save, Path.rename = counted_save, counted_rename  # type: ignore[method-assign, assignment]
        try:
            work(checkpoint, data, output, fresh)
        except Exception:
            traceback.print_exc()
        os._exit(7)  # the moment did not come
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), f"{moment}: exit code {os.waitstatus_to_exitcode(status)}"


def main(checkpoint: str, data: str, folder: Path) -> dict[str, int]:
    """Kill at every moment; return how many chunks the runs took from earlier starts."""
    torch.set_num_threads(1)
    work(checkpoint, data, folder / "whole")  # in this process: it imports what is imported late
    expected = contents(folder / "whole")
    assert len(expected) == 2 * len(NUMBERS)
    output = folder / "killed"
    for moment in [("chunk", 1), ("chunk", 2), ("chunk", 3), ("rename", 1)]:
        killed(moment, checkpoint, data, output, fresh=False)
    work(checkpoint, data, output)
    assert contents(output) == expected
    reused = sum(json.loads(path.read_text())["resumed_chunks"] for path in output.rglob("provenance.json"))
    # A run that replaces a finished one leaves the old one or the new one, and never nothing.
    for moment in [("rename", 1), ("rename", 2), ("rename", 3), ("chunk", 2)]:
        killed(moment, checkpoint, data, output, fresh=True)
        work(checkpoint, data, output)
        assert contents(output) == expected, moment
    assert [path for path in output.rglob(".*") if path.name != ".work"] == []
    return {"reused": reused}


if __name__ == "__main__":
    memory.Budgets.for_device = classmethod(  # type: ignore[method-assign,assignment]
        lambda cls, _: cls(tokens=256, rows=512, feature_bytes=2**30, chunk_texts=12, group_passages=30)
    )
    print(json.dumps(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))))  # noqa: T201
