"""What an unfinished run keeps: chunks with checksums, for one process at a time."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from listcon_eval.errors import ListconError
from listcon_eval.results.chunk_cache import ChunkCache, is_locked, run_lock
from listcon_eval.results.store import key_of


def test_a_chunk_comes_back_as_it_was(tmp_path: Path) -> None:
    cache = ChunkCache(tmp_path)
    array = np.arange(12, dtype=np.float16).reshape(3, 4)
    cache.save("a", array)
    kept = cache.load("a")
    assert kept is not None
    np.testing.assert_array_equal(kept, array)
    assert kept.dtype == np.float16
    assert cache.load("b") is None
    assert cache.reused == 1


@pytest.mark.parametrize(
    "damage", [lambda body: body[:-7], lambda body: body[:50] + b"\xff" + body[51:], lambda body: body[:0]]
)
def test_a_damaged_chunk_is_named_and_not_used(
    tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    cache = ChunkCache(tmp_path)
    cache.save("a", np.ones(40))
    (path,) = tmp_path.glob("*.chunk")
    path.write_bytes(damage(path.read_bytes()))
    assert cache.load("a") is None
    assert cache.reused == 0
    assert f"{path} is damaged" in caplog.text


def test_every_part_changes_the_key() -> None:
    parts = {"weights": "a", "data": "b", "dtype": "float16", "versions": {"mteb": "2.26"}}
    keys = {key_of(parts), *(key_of({**parts, name: "other"}) for name in parts)}
    assert len(keys) == len(parts) + 1


def test_fresh_forgets_and_an_error_keeps(tmp_path: Path) -> None:
    def attempt(*, fresh: bool) -> None:
        with run_lock(tmp_path, "task", "k" * 64, fresh=fresh) as cache:
            found = cache.load("a")
            cache.save("a", np.ones(3))
            raise KeyError(found is not None)

    for fresh, found in ((False, False), (False, True), (True, False)):
        with pytest.raises(KeyError, match=str(found)):
            attempt(fresh=fresh)
    with run_lock(tmp_path, "task", "k" * 64, fresh=False) as cache:
        assert cache.load("a") is not None
    assert list(tmp_path.iterdir()) == []


def test_a_computation_is_for_one_process_and_another_key_is_another_computation(tmp_path: Path) -> None:
    with run_lock(tmp_path, "task", "k" * 64, fresh=False) as cache:
        assert is_locked(cache.folder)
        with pytest.raises(ListconError, match=r"another process is working on this run \(pid \d+ on host"):
            with run_lock(tmp_path, "task", "k" * 64, fresh=False):
                pass
        with run_lock(tmp_path, "task", "other" * 13, fresh=False) as other:
            assert other.folder != cache.folder
        assert cache.folder.is_dir()


def test_runs_that_end_side_by_side_do_not_disturb_each_other(tmp_path: Path) -> None:
    """They share the folder above, which the last one removes."""

    def work(task: int) -> None:
        for _ in range(150):
            with run_lock(tmp_path, f"task {task}", "key", fresh=False):
                pass

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, range(4)))
    assert list(tmp_path.iterdir()) == []
