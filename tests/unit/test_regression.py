"""The gate: what falls, what holds, what is not comparable, and how it is said."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from listcon_eval.comparison.statistics import randomisation_test
from listcon_eval.errors import ListconError
from listcon_eval.evaluation import evaluate
from listcon_eval.regression.baseline import Baseline, BaselineRun, RunKey, read_baseline, write_baseline
from listcon_eval.regression.check import as_json, as_junit, as_text, check, parse_tolerances
from listcon_eval.results import Signature

GOOD = (0.5, 0.6, 0.7, 0.8)
MEASURES = ("cmteb:map", "mteb:map_at_1000")


def run_of(
    values: Sequence[float | None] = GOOD,
    *,
    task: str = "Mini",
    mode: str = "iterative",
    dtype: str = "float32",
    revision: str = "r1",
    model: str = "org/model",
    measures: Sequence[str] = MEASURES,
    query_ids: Sequence[str] = (),
    **settings: str,
) -> BaselineRun:
    counted = [value for value in values if value is not None]
    return BaselineRun(
        signature=Signature(
            task=task,
            data_revision=revision,
            model=model,
            model_revision="m1",
            settings={"mode": mode, "dtype": dtype, **settings},
            ties="t",
            versions={"mteb": "2"},
            device="cpu",
        ),
        query_ids=tuple(query_ids or (f"q{place}" for place in range(len(values)))),
        means=dict.fromkeys(measures, math.fsum(counted) / len(counted)),
        values=dict.fromkeys(measures, tuple(values)),
    )


def runs(*found: BaselineRun) -> Baseline:
    return Baseline(Path("somewhere"), found)


def test_equal_numbers_hold() -> None:
    verdict = check(runs(run_of()), runs(run_of()))
    assert (len(verdict.changes), verdict.failed, verdict.risen, dict(verdict.not_comparable)) == (2, [], [], {})
    assert as_text(verdict) == "2 of 2 metrics hold"  # nothing differs, so no signature is printed
    assert "**Signatures**\n\n- `Mini@r1|org/model@m1|" in as_text(verdict, "markdown")


@pytest.mark.parametrize(
    ("drop", "given", "fell"),
    [
        (0.0039, [], False),  # 0.000975 in the mean
        (0.0041, [], True),
        (0.0041, ["0.002"], False),
        (0.0041, ["0.5", "cmteb:map=0.001", "mteb:map_at_1000=0.001"], True),
        (0.0041, ["cmteb:map=0.1", "mteb:map_at_1000=0.1"], False),
        (0.0001, ["0"], True),
    ],
)
def test_a_mean_may_fall_by_its_tolerance(drop: float, given: list[str], fell: bool) -> None:
    verdict = check(runs(run_of()), runs(run_of((0.5 - drop, *GOOD[1:]))), parse_tolerances(given))
    assert bool(verdict.failed) is fell


def test_what_fell_is_named_with_its_queries_each_once() -> None:
    verdict = check(runs(run_of()), runs(run_of((0.5, 0.2, 0.75, 0.7))))
    assert len(verdict.failed) == 2
    assert [(query.query_id, query.measure, query.after) for query in verdict.changed] == [
        ("q1", "cmteb:map", 0.2),
        ("q3", "cmteb:map", 0.7),
    ]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in as_text(verdict, "markdown").splitlines()]
    assert ["Mini", "iterative", "float32", "cmteb:map", "65.00", "53.75", "-11.25", "0.10"] in rows
    assert ["Mini", "iterative", "float32", "q1", "cmteb:map", "60.00", "20.00"] in rows
    assert "**0 of 2 metrics hold**" in as_text(verdict, "markdown")


def test_the_ten_worst_queries_are_named() -> None:
    many = tuple(0.5 + 0.01 * place for place in range(40))
    verdict = check(runs(run_of(many)), runs(run_of(tuple(value - value**2 / 2 for value in many))))
    assert [query.query_id for query in verdict.changed] == [f"q{place}" for place in range(39, 29, -1)]


def test_a_query_that_cmteb_drops_is_no_change() -> None:
    verdict = check(runs(run_of((None, *GOOD))), runs(run_of((None, *GOOD))))
    assert not verdict.failed
    assert check(runs(run_of((None, *GOOD))), runs(run_of((0.65, *GOOD)))).not_comparable


def test_a_rise_is_reported_and_no_failure() -> None:
    verdict = check(runs(run_of()), runs(run_of((0.9, *GOOD[1:]))))
    assert not verdict.failed
    assert [change.measure for change in verdict.risen] == list(MEASURES)
    assert "Rose" in as_text(verdict)
    assert "went from 65.00 to 75.00 percent" in as_junit(verdict)


@pytest.mark.parametrize(
    ("current", "reason"),
    [
        (run_of(task="Other"), "has no run of the task"),
        (run_of(mode="conventional"), r"another mode or dtype \(conventional, float32\)"),
        (run_of(dtype="float16"), r"another mode or dtype \(iterative, float16\)"),
        (run_of(revision="r2"), "other data: revision r2, the baseline's is r1"),
        (run_of(GOOD[:3]), "other queries: 3, the baseline has 4; q3 is in one alone"),
        (run_of(measures=MEASURES[:1]), "no mteb:map_at_1000 in the current run"),
    ],
)
def test_what_is_not_comparable_is_said(current: BaselineRun, reason: str) -> None:
    verdict = check(runs(run_of()), runs(current))
    assert not verdict.changes
    (said,) = verdict.not_comparable.values()
    with pytest.raises(ListconError, match=reason):
        raise ListconError(said)
    assert "Not comparable" in as_text(verdict)


def test_of_several_candidates_for_one_key_the_one_of_the_baselines_model_is_compared() -> None:
    verdict = check(runs(run_of()), runs(run_of(model="org/other"), run_of()))
    assert not verdict.not_comparable
    assert not verdict.notes


def test_two_candidates_for_one_key_are_not_guessed_between() -> None:
    verdict = check(runs(run_of()), runs(run_of(model="org/another"), run_of(model="org/other")))
    assert "2 runs of it" in verdict.not_comparable[RunKey("Mini", "iterative", "float32")]


def test_another_model_is_compared_and_named() -> None:
    verdict = check(runs(run_of()), runs(run_of(model="org/other"), run_of(task="New")))
    assert not verdict.not_comparable
    assert verdict.notes == [
        "model: org/other (baseline: org/model)",
        "New, iterative, float32: not in the baseline, not compared",
    ]


def test_signatures_are_compared_field_by_field() -> None:
    verdict = check(runs(run_of(max_length="512")), runs(run_of(b="0.75")))
    assert verdict.notes == ["max_length: none (baseline: 512)", "b: 0.75 (baseline: none)"]


def test_a_fall_that_is_no_more_than_noise_is_tolerated_when_asked() -> None:
    noisy = (0.9, 0.2, 0.9, 0.56)  # a lower mean, no pattern
    assert check(runs(run_of()), runs(run_of(noisy))).failed
    verdict = check(runs(run_of()), runs(run_of(noisy)), significant=True)
    assert not verdict.failed
    assert len(verdict.tolerated) == 2
    assert "Fell, but not significantly" in as_text(verdict)
    many = tuple(0.5 + 0.001 * place for place in range(50))
    lower = tuple(value - 0.01 for value in many)
    verdict = check(runs(run_of(many)), runs(run_of(lower)), significant=True)
    p_value = float(randomisation_test([[-0.01] * 50])[0])
    assert [change.p for change in verdict.failed] == [p_value] * 2


def test_a_baseline_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write_baseline(runs(run_of(), run_of(mode="conventional")), tmp_path / "results" / "baseline.json")
    assert read_baseline(path).runs == (run_of(), run_of(mode="conventional"))
    content = json.loads(path.read_text())
    assert content["runs"][0]["means"] == {"cmteb:map": 0.65, "mteb:map_at_1000": 0.65}
    assert len(path.read_text().splitlines()) == 4
    assert not list(path.parent.glob(".*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": {"cmteb:map": 0.66, "mteb:map_at_1000": 0.65}}, "is said to be 0.66, its queries average to 0.65"),
        ({"query_ids": ["q0"]}, "4 values of cmteb:map, 1 queries"),
        ({"values": {"cmteb:map": "high"}}, r"runs\.0\.values\.cmteb:map: Input should be a valid (tuple|array)"),
        ({"values": {}}, "means of cmteb:map, mteb:map_at_1000, values of "),
        ({"model": "x"}, r"runs\.0\.model: Extra inputs are not permitted .*write the baseline again with --update"),
    ],
)
def test_a_baseline_that_was_edited_is_refused(change: Mapping[str, object], message: str, tmp_path: Path) -> None:
    path = write_baseline(runs(run_of()), tmp_path / "baseline.json")
    content = json.loads(path.read_text())
    content["runs"][0] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(ListconError, match=message):
        read_baseline(path)


def test_unusable_baselines_are_named(tmp_path: Path) -> None:
    with pytest.raises(ListconError, match=r"no such baseline; .* --update"):
        read_baseline(tmp_path / "nowhere.json")
    (tmp_path / "other.json").write_text('{"format": 9, "runs": []}')
    with pytest.raises(ListconError, match=r"other\.json: format: Input should be 2 \(seen: 9\).*--update"):
        read_baseline(tmp_path / "other.json")
    with pytest.raises(ListconError, match="is a folder"):
        write_baseline(runs(run_of()), tmp_path)
    with pytest.raises(ListconError, match="more than one run of Mini, iterative, float32"):
        write_baseline(runs(run_of(), run_of(model="org/other")), tmp_path / "baseline.json")
    for system in ("random", "bm25"):
        evaluate(system, "MiniWeb", output=tmp_path / "two")
    with pytest.raises(ListconError, match=r"holds more than one run of MiniWeb, .*: give the folder of one"):
        read_baseline(tmp_path / "two")
    (tmp_path / "empty.json").write_text('{"format": 2, "runs": []}')
    with pytest.raises(ListconError, match="holds no run"):
        read_baseline(tmp_path / "empty.json")


@pytest.mark.parametrize("given", ["little", "-0.1", "2", "cmteb:map=", "nan"])
def test_a_tolerance_is_a_fraction(given: str) -> None:
    with pytest.raises(ListconError, match="give a fraction from 0 to 1"):
        parse_tolerances([given])


def test_a_tolerance_is_given_once_and_has_an_effect() -> None:
    for given in (["0.1", "0.2"], ["cmteb:map=0.1", "0.2", "cmteb:map=0.1"]):
        with pytest.raises(ListconError, match=f"--tolerance {given[-1]}: there is another one for"):
            parse_tolerances(given)
    with pytest.raises(ListconError, match=r"--tolerance mteb:recall_at_10: .* has cmteb:map, .* alone"):
        check(runs(run_of()), runs(run_of()), parse_tolerances(["mteb:recall_at_10=0.1"]))


def test_a_tolerance_is_of_a_measure_that_exists() -> None:
    with pytest.raises(ListconError, match="did you mean cmteb:map"):
        parse_tolerances(["cmteb:mapp=0.1"])


def test_junit_has_a_case_a_metric() -> None:
    current = runs(run_of((0.1, *GOOD[1:])), run_of(task="Other", revision="r2"))
    suite = ElementTree.fromstring(as_junit(check(runs(run_of(), run_of(task="Other")), current)))
    assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "2",
        "errors": "1",
    }
    failures = suite.findall("testcase/failure")
    assert (failures[0].get("message") or "").startswith("Mini, iterative, float32: cmteb:map went from 65.00 to 55.00")
    assert "q0" in (failures[0].text or "")
    assert {case.get("classname") for case in suite.findall("testcase")} == {
        "Mini.iterative.float32",
        "Other.iterative.float32",
    }
    assert len(suite.findall("properties/property")) == 2


def test_ids_with_control_characters_and_markup_make_valid_files() -> None:
    ids = ["a\x00b\x1b", "line\nbreak|<b>", "q2", "q3"]
    odd, worse = (run_of(values, query_ids=ids) for values in (GOOD, (0.1, 0.1, 0.1, 0.1)))
    verdict = check(runs(odd), runs(worse))
    suite = ElementTree.fromstring(as_junit(verdict))
    assert "line\\nbreak|<b>" in (suite.findall("testcase/failure")[0].text or "")
    broken = run_of(task="bad\x01\ud800name")
    ElementTree.fromstring(as_junit(check(runs(broken), runs(broken))))
    ElementTree.fromstring(as_junit(check(runs(broken), runs(odd))))
    rows = [line for line in as_text(verdict, "markdown").splitlines() if "break" in line]
    assert len(rows) == 1
    assert r"line\\nbreak\|\<b\>" in rows[0]


def test_json_for_programs() -> None:
    content = json.loads(json.dumps(as_json(check(runs(run_of()), runs(run_of((0.1, *GOOD[1:])))))))
    assert content["holds"] is False
    assert content["metrics"][0]["measure"] == "cmteb:map"
    assert content["metrics"][0]["failed"] is True
    assert [query["query_id"] for query in content["changed"]] == ["q0"]
