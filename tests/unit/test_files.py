"""Files are whole or absent, and JSON is strict."""

import stat
from pathlib import Path

import pytest

from listcon_eval.errors import ListconError
from listcon_eval.files import check_writable, sha256_of, write_json, write_jsonl, write_text
from listcon_eval.results.layout import find_runs, read_run, results_folder


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_text(tmp_path / "new" / "file.txt", "一")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "坏\ud800")
    assert path.read_text(encoding="utf-8") == "一"
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_number_that_is_none_is_no_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file.json", {"a": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        write_jsonl(tmp_path / "file.jsonl", [{"a": float("inf")}])
    assert list(tmp_path.iterdir()) == []


def test_the_hash_follows_names_and_contents(tmp_path: Path) -> None:
    one, two = write_text(tmp_path / "a", "x"), write_text(tmp_path / "b", "y")
    assert sha256_of([one, two]) == sha256_of([two, one])
    before = sha256_of([one, two])
    write_text(two, "z")
    assert sha256_of([one, two]) != before
    assert sha256_of([one]) != sha256_of([one.rename(tmp_path / "c")])


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ListconError, match=r"cannot write to .*file.*; give another output folder"):
        check_writable(tmp_path / "file" / "folder")


def test_results_is_the_folder_itself_or_the_one_inside(tmp_path: Path) -> None:
    assert results_folder(tmp_path / "results") == tmp_path / "results"
    assert results_folder(tmp_path) == tmp_path / "results"


def test_a_broken_run_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results" / "m" / "r" / "experiments" / "e" / "task" / "metrics.json"
    write_text(path, '{"task": 1}')
    with pytest.raises(ListconError, match=r"metrics\.json cannot be read as a run's metrics"):
        read_run(path.parent)
    with pytest.raises(ListconError, match="run the evaluation again"):
        list(find_runs(tmp_path))
