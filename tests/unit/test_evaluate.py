"""The main job's own promises: what a run's key covers, what counts as finished, what order does to numbers."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from listcon_eval import ListConRanker, evaluate
from listcon_eval.data import Task, local_task
from listcon_eval.errors import ListconError
from listcon_eval.evaluation import ranking_key, run_key
from listcon_eval.records import Mode
from listcon_eval.results import environment as env
from listcon_eval.results import load_results, read_rankings
from listcon_eval.systems.base import LoadOptions
from listcon_eval.systems.listconranker import ListConRankerSystem
from run_files import write_few_lists, write_lists

FLOAT32 = LoadOptions(device="cpu", dtype="float32")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return local_task(write_few_lists(tmp_path / "few.jsonl"))


@pytest.fixture
def system(ranker: ListConRanker) -> ListConRankerSystem:
    return ListConRankerSystem(ranker)


def _version(package: str) -> Callable[[pytest.MonkeyPatch, Any, Task], None]:
    def change(patch: pytest.MonkeyPatch, _system: object, _task: Task) -> None:
        versions = {**env.package_versions(), package: "0.0.0"}
        patch.setattr(env, "package_versions", lambda: versions)

    return change


def _code(part: str) -> Callable[[pytest.MonkeyPatch, Any, Task], None]:
    def change(patch: pytest.MonkeyPatch, _system: object, _task: Task) -> None:
        hashes = {**env.code_hashes(), part: "0" * 64}
        patch.setattr(env, "code_hashes", lambda: hashes)

    return change


def _attribute(name: str, value: object) -> Callable[[pytest.MonkeyPatch, Any, Task], None]:
    return lambda patch, system, _task: patch.setattr(system, name, value, raising=False)


def _method(name: str, value: Mapping[str, Any]) -> Callable[[pytest.MonkeyPatch, Any, Task], None]:
    return lambda patch, system, _task: patch.setattr(system, name, lambda: value)


CHANGES: dict[str, Callable[[pytest.MonkeyPatch, Any, Task], None]] = {
    **{package: _version(package) for package in ("torch", "transformers", "tokenizers", "mteb")},
    **{package: _version(package) for package in ("listcon-eval", "numpy", "scikit-learn", "pytrec-eval-terrier")},
    **{part: _code(part) for part in env.code_hashes()},
    "weights": _method("key", {"weights": "other"}),
    "settings": _method("settings", {"max_length": 3}),
    "dtype": _attribute("dtype", "bfloat16"),
    "device": _attribute("device", "cuda:0"),
    "name": _attribute("name", "other/name"),
    "revision": _attribute("revision", "other"),
}


@pytest.mark.parametrize("part", CHANGES)
def test_the_key_covers_everything_that_changes_a_number(
    part: str, system: ListConRankerSystem, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run_key(task, system, "iterative")
    assert before == run_key(task, system, "iterative")
    CHANGES[part](monkeypatch, system, task)
    assert run_key(task, system, "iterative") != before


@pytest.mark.parametrize(
    ("field", "value"), [("name", "other"), ("split", "other"), ("content", "other"), ("limit", 2), ("relevance", 2)]
)
def test_the_key_covers_the_data(field: str, value: object, system: ListConRankerSystem, task: Task) -> None:
    changed: dict[str, Any] = {field: value}
    other = replace(task, **changed)
    assert run_key(other, system, "iterative") != run_key(task, system, "iterative")


def test_measuring_code_does_not_throw_scores_away(
    system: ListConRankerSystem, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new scikit-learn measures anew; the scores of an interrupted run are still good."""
    kept, measured = ranking_key(task, system), run_key(task, system, "iterative")
    _version("scikit-learn")(monkeypatch, system, task)
    assert ranking_key(task, system) == kept
    assert run_key(task, system, "iterative") != measured


def test_modes_metrics_and_variants_have_keys_of_their_own(
    system: ListConRankerSystem, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [run_key(task, system, "iterative"), run_key(task, system, "conventional")]
    keys += [run_key(task, system, "iterative", metrics) for metrics in (["AP"], ["AP@5"])]
    keys.append(run_key(task.variant(limit=1), system, "iterative"))
    _version("ir-measures")(monkeypatch, system, task)
    assert run_key(task, system, "iterative") == keys[0]
    keys.append(run_key(task, system, "iterative", ["AP"]))
    assert len({*keys}) == len(keys)


@pytest.mark.parametrize("modes", [(), "iterative", ("iterative", "i")])
def test_modes_that_are_none_are_refused(
    system: ListConRankerSystem, task: Task, modes: Sequence[Mode], tmp_path: Path
) -> None:
    with pytest.raises(ListconError, match="expected a list"):
        evaluate(system, [task], modes=modes, output=tmp_path)


def test_options_for_a_loaded_system_are_refused(system: ListConRankerSystem, task: Task, tmp_path: Path) -> None:
    with pytest.raises(ListconError, match="is loaded already"):
        evaluate(system, [task], output=tmp_path, options=FLOAT32)


def test_a_run_of_another_key_is_another_folder_and_the_newest_counts(
    checkpoint_folder: Path,
    task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def run() -> Path:
        evaluation = evaluate(
            str(checkpoint_folder), [task], modes=("conventional",), output=tmp_path / "out", options=FLOAT32
        )
        return evaluation.results[0].folder

    first = run()
    assert run() == first
    _version("scikit-learn")(monkeypatch, None, task)
    monkeypatch.setattr("listcon_eval.evaluation._now", lambda: load_results(first)[0].finished.replace(year=2099))
    second = run()
    assert second != first
    assert first.is_dir()
    (result,) = load_results(tmp_path / "out")
    assert result.folder == second
    assert "1 older run of" in caplog.text


def test_a_shift_of_every_logit_changes_no_number(checkpoint_folder: Path, tmp_path: Path) -> None:
    """40 added to the bias of the last layer: a sigmoid of 1.0 everywhere, and the same order."""
    task = local_task(write_lists(tmp_path / "lists.jsonl.gz"))
    numbers: list[Any] = []
    for shift in (0.0, 40.0, -40.0):
        ranker = ListConRanker.from_pretrained(checkpoint_folder, device="cpu", dtype="float32")
        ranker.model.linear_score1.bias.data += shift
        folder = ranker.save_pretrained(tmp_path / f"shifted{shift}")
        found = evaluate(str(folder), [task], output=tmp_path / f"out{shift}", options=FLOAT32).results
        numbers.append([(result.cmteb, result.mteb, result.ranges) for result in found])
        if shift == 40.0:
            scores = [row.final_scores for row in read_rankings(found[0]).values()]
            assert all(0 <= score <= 1 for own in scores for score in own)
    for shifted in numbers[1:]:
        assert json.dumps(shifted) == json.dumps(numbers[0])


def test_progress_rises_to_the_end(checkpoint_folder: Path, task: Task, tmp_path: Path) -> None:
    told: list[float] = []
    evaluate(
        str(checkpoint_folder), [task], output=tmp_path, options=FLOAT32, progress=lambda _, share: told.append(share)
    )
    assert told == sorted(told)
    assert told[-1] == 1.0
