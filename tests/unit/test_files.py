"""Files and folders are whole or absent, whenever a process is killed, and JSON is strict."""

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest

from listcon_eval.errors import ListconError
from listcon_eval.files import (
    check_replaceable,
    check_writable,
    restore_swapped,
    sha256_of_folder,
    sha256_of_texts,
    swapped_folder,
    write_json,
    write_text,
)
from listcon_eval.results import results_folder

P = ParamSpec("P")
R = TypeVar("R")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_text(tmp_path / "new" / "file.txt", "一")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "坏\ud800")
    assert path.read_text(encoding="utf-8") == "一"
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_nan_is_not_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file.json", {"a": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_the_hash_of_a_folder_follows_names_and_contents(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "x")
    write_text(tmp_path / "sub" / "b.txt", "y")
    write_text(tmp_path / ".DS_Store", "of no interest")
    before = sha256_of_folder(tmp_path, [".txt"])
    write_text(tmp_path / ".DS_Store", "changed")
    write_text(tmp_path / "out" / "results" / "run.txt", "runs of a model, written into its folder")
    assert sha256_of_folder(tmp_path, [".txt"]) == before
    write_text(tmp_path / "sub" / "b.txt", "z")
    changed = sha256_of_folder(tmp_path, [".txt"])
    (tmp_path / "a.txt").rename(tmp_path / "c.txt")
    assert len({before, changed, sha256_of_folder(tmp_path, [".txt"])}) == 3


def test_the_hash_of_texts_knows_where_they_end() -> None:
    assert sha256_of_texts(["ab", "c"]) != sha256_of_texts(["a", "bc"]) != sha256_of_texts(["abc"])


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ListconError, match=r"cannot write to .*file.*; give another output folder"):
        check_writable(tmp_path / "file" / "folder")


def test_results_is_the_folder_itself_or_the_one_inside(tmp_path: Path) -> None:
    assert results_folder(tmp_path / "results") == tmp_path / "results"
    assert results_folder(tmp_path) == tmp_path / "results"


def swap(folder: Path, content: str) -> None:
    with swapped_folder(folder) as staged:
        write_text(staged / "a.txt", content)
        write_text(staged / "sub" / "b.txt", content)


def contents(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.rglob("*.txt")}


def test_an_error_of_the_system_names_what_was_to_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path / 'model'}'"):
        with swapped_folder(tmp_path / "model"):
            raise Exception("No space left on device (os error 28)")  # as tokenizers says it
    assert list(tmp_path.iterdir()) == []


def test_a_folder_takes_the_place_of_the_old_one_whole(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    swap(folder, "old")
    write_text(folder / "only-old.txt", "old")
    swap(folder, "new")
    assert contents(folder) == {"new"}
    assert sorted(path.name for path in folder.rglob("*")) == ["a.txt", "b.txt", "sub"]
    assert list(folder.parent.iterdir()) == [folder]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755


def test_an_error_while_writing_leaves_the_old_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    swap(folder, "old")
    with pytest.raises(KeyError), swapped_folder(folder) as staged:
        write_text(staged / "a.txt", "new")
        raise KeyError
    assert contents(folder) == {"old"}
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("had_old", [True, False])
@pytest.mark.parametrize("moment", range(4))
def test_a_kill_at_any_moment_of_the_swap_leaves_the_old_or_the_new(
    moment: int, had_old: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fork, and end the child without any cleaning up before its n-th rename or removal."""
    folder = tmp_path / "run"
    if had_old:
        swap(folder, "old")
    child = os.fork()
    if not child:
        left = [moment]

        def counted(call: Callable[P, R]) -> Callable[P, R]:
            def run(*args: P.args, **kwargs: P.kwargs) -> R:
                if not left[0]:
                    os._exit(9)
                left[0] -= 1
                return call(*args, **kwargs)

            return run

        shutil.rmtree = counted(shutil.rmtree)  # type: ignore[assignment]
        Path.rename = counted(Path.rename)  # type: ignore[method-assign]
        swap(folder, "new")
        os._exit(0)
    os.waitpid(child, 0)
    restore_swapped(folder)
    assert contents(folder) in ([{"old"}, {"new"}] if had_old else [set(), {"new"}])
    swap(folder, "rerun")
    assert contents(folder) == {"rerun"}
    assert list(tmp_path.iterdir()) == [folder]


def test_a_file_of_another_kind_is_not_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    check_replaceable(mine, "<?xml", "a JUnit report")
    mine.write_text('{"query": "q"}\n')
    with pytest.raises(ListconError, match="is not a JUnit report: give another name"):
        check_replaceable(mine, "<?xml", "a JUnit report")
    with pytest.raises(ListconError, match="is a folder"):
        check_replaceable(tmp_path, "<?xml", "a JUnit report")
    mine.write_text("\n<?XML version='1.0'?>")
    check_replaceable(mine, "<?xml", "a JUnit report")
