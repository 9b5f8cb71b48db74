"""The public functions: wrong arguments are one message that names them, and what can only mean one thing works."""

from collections.abc import Callable
from pathlib import Path

import pytest

from listcon_eval import ListConRanker, compare, evaluate, load_results
from listcon_eval.data import mini_task
from listcon_eval.errors import ListconError
from listcon_eval.systems.base import LoadOptions


@pytest.mark.parametrize(
    ("function", "given", "message"),
    [
        (compare, {"runs": ["a"], "level": 0}, "compare: level is 0; expected greater than or equal to 0.001"),
        (compare, {"runs": ["a"], "level": float("nan")}, "compare: level is nan; expected"),
        (compare, {"runs": ["a"], "level": 2}, "compare: level is 2; expected less than or equal to 1"),
        (compare, {"runs": ["a"], "resamples": -1}, "compare: resamples is -1; expected greater than or equal to 99"),
        (compare, {"runs": ["a"], "seed": -1}, "compare: seed is -1; expected greater than or equal to 0"),
        (compare, {"runs": ["a"], "max_changed": -1}, "compare: max_changed is -1; expected"),
        (compare, {"runs": ["a"], "qrels": 5}, "compare: qrels is 5; expected a valid string or an instance of Path"),
        (compare, {"runs": ["a"], "against": 5}, "compare: against is 5; expected an instance of ComparedSystem or"),
        (compare, {"runs": ["a", 5]}, r"compare: runs\[1\] is 5; expected"),
        (compare, {"runs": ["a"], "measures": "cmteb:map"}, "compare: measures is 'cmteb:map'; expected a list"),
        (evaluate, {"model": ""}, "evaluate: model is ''; expected a text that is not empty or"),
        (evaluate, {"model": "bm25", "output": ""}, "evaluate: output is ''; expected a text that is not empty"),
        (compare, {"runs": ["a", ""]}, r"compare: runs\[1\] is ''; expected .* or a text that is not empty"),
        (compare, {"runs": {"a": ""}}, r"a: the path is '' \(empty\)"),
        (compare, {"runs": ["a"], "qrels": ""}, "compare: qrels is ''; expected a text that is not empty"),
        (load_results, {"path": ""}, "load_results: path is ''; expected a text that is not empty"),
        (ListConRanker, {"model_name_or_path": ""}, "model_name_or_path is ''; expected a text that is not empty"),
        (evaluate, {"model": None}, "evaluate: model is None; expected a valid string or"),
        (
            evaluate,
            {"model": "bm25", "tasks": [5]},
            r"evaluate: tasks\[0\] is 5; expected an instance of Task or a valid string",
        ),
        (evaluate, {"model": "bm25", "tasks": []}, r"tasks is \[\]: give tasks, or names"),
        (evaluate, {"model": "bm25", "options": {}}, "evaluate: options is {}; expected an instance of LoadOptions"),
        (load_results, {"path": None}, "load_results: path is None; expected"),
        (LoadOptions, {"max_length": 3.5}, "LoadOptions: max_length is 3.5; expected a valid integer"),
        (LoadOptions, {"max_length": "512"}, "LoadOptions: max_length is '512'; expected a valid integer"),
        (LoadOptions, {"dtype": "exact"}, "LoadOptions: dtype is 'exact'; expected 'auto', 'float16'"),
        (LoadOptions, {"memory": -5}, "LoadOptions: memory is -5; expected greater than 0"),
        (
            ListConRanker,
            {"model_name_or_path": "mini", "max_length": "512"},
            "ListConRanker: max_length is '512'; expected a valid integer",
        ),
        (ListConRanker.from_pretrained, {"model": None}, "ListConRanker: model_name_or_path is None; expected"),
    ],
)
def test_a_wrong_argument_is_named_with_its_value(
    function: Callable[..., object], given: dict[str, object], message: str
) -> None:
    with pytest.raises(ListconError, match=message):
        function(**given)


def test_names_tasks_and_paths_are_taken_as_what_they_are(tmp_path: Path) -> None:
    first = evaluate("bm25", ["MiniWeb", mini_task("MiniSearch")], output=tmp_path)
    assert {result.task for result in first.results} == {"MiniWeb", "MiniSearch"}
    run_file = next(result for result in first.results if result.task == "MiniWeb").file("run.trec")
    (read,) = evaluate(run_file, "MiniWeb", output=str(tmp_path)).results
    assert (read.kind, read.mteb) == ("run-file", next(r for r in first.results if r.task == "MiniWeb").mteb)
    assert len(compare(tmp_path).labels) == len(compare(str(tmp_path)).labels) == 2
    with pytest.raises(ListconError, match=r"no checkpoint folder at .*bm25"):
        evaluate(Path("bm25"), "MiniWeb", output=tmp_path)


def test_a_run_file_of_one_task_is_refused_for_two_before_anything_is_ranked(tmp_path: Path) -> None:
    (result,) = evaluate("random", "MiniWeb", output=tmp_path / "made").results
    with pytest.raises(ListconError, match="14 queries that MiniSearch has no candidates for"):
        evaluate(result.file("run.trec"), ["MiniWeb", "MiniSearch"], output=tmp_path / "read")
    assert list((tmp_path / "read").iterdir()) == []
