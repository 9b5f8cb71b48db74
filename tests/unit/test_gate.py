"""The gate: what falls, what holds, what cannot be judged, and how it is said."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest

from listcon_eval.compare.statistics import holm, randomisation_test
from listcon_eval.errors import ListconError
from listcon_eval.regression import Baseline, Tolerances, check, read_baseline, write_baseline
from listcon_eval.regression.baseline import Entry, Key
from listcon_eval.regression.render import as_junit, as_text

GOOD = (0.5, 0.6, 0.7, 0.8)
MEASURES = ("cmteb:map", "mteb:map_at_1000")


def entry(
    values: Sequence[float] = GOOD,
    *,
    task: str = "Mini",
    mode: str = "iterative",
    precision: str = "precise",
    revision: str = "r1",
    model: str = "org/model@m1",
    measures: Sequence[str] = MEASURES,
) -> Entry:
    ids = tuple(f"q{place}" for place in range(len(values)))
    signature = f"{task}@{revision}|{model}|mode:{mode}|precision:{precision}|device:cpu"
    return Entry(Key(task, mode, precision), revision, signature, ids, {name: tuple(values) for name in measures})


def runs(*entries: Entry) -> Baseline:
    return Baseline(Path("somewhere"), entries)


def test_equal_numbers_hold() -> None:
    verdict = check(runs(entry()), runs(entry()))
    assert (len(verdict.findings), verdict.failed, verdict.risen, dict(verdict.unjudged)) == (2, [], [], {})
    assert as_text(verdict).startswith("2 of 2 metrics hold\n\nSignatures")


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
    verdict = check(runs(entry()), runs(entry((0.5 - drop, *GOOD[1:]))), Tolerances.parse(given))
    assert bool(verdict.failed) is fell


def test_what_fell_is_named_with_its_queries() -> None:
    verdict = check(runs(entry()), runs(entry((0.5, 0.2, 0.75, 0.7))))
    (first, _) = verdict.failed
    assert [(query.query_id, query.after) for query in first.queries] == [("q1", 0.2), ("q3", 0.7)]
    text = as_text(verdict, "markdown")
    assert "**0 of 2 metrics hold**" in text
    assert (
        "| Mini   | iterative | precise     | cmteb:map        | 65.00      | 53.75 | -11.25   | 0.10        |" in text
    )
    assert "| Mini   | iterative | precise     | cmteb:map        | q1      | 60.00      | 20.00 |" in text
    assert "`Mini@r1|org/model@m1|mode:iterative|precision:precise|device:cpu`" in text


def test_a_rise_is_reported_and_no_failure() -> None:
    verdict = check(runs(entry()), runs(entry((0.9, *GOOD[1:]))))
    assert not verdict.failed
    assert [finding.measure for finding in verdict.risen] == list(MEASURES)
    assert "Rose" in as_text(verdict)
    assert "went from 65.00 to 75.00 percent" in as_junit(verdict)


@pytest.mark.parametrize(
    ("current", "reason"),
    [
        (entry(task="Other"), "has no run of the task"),
        (entry(mode="conventional"), r"another mode or precision \(conventional, precise\)"),
        (entry(precision="published"), r"another mode or precision \(iterative, published\)"),
        (entry(revision="r2"), "other data: revision r2, the baseline's is r1"),
        (entry(GOOD[:3]), "other queries: 3, the baseline has 4; q3 is in one alone"),
        (entry(measures=MEASURES[:1]), "no mteb:map_at_1000 in the current run"),
    ],
)
def test_what_cannot_be_judged_is_said(current: Entry, reason: str) -> None:
    verdict = check(runs(entry()), runs(current))
    assert not verdict.findings
    (said,) = verdict.unjudged.values()
    with pytest.raises(ListconError, match=reason):
        raise ListconError(said)
    assert "Could not be judged" in as_text(verdict)


def test_two_candidates_for_one_key_are_not_guessed_between() -> None:
    verdict = check(runs(entry()), runs(entry(), entry(model="org/other@m2")))
    assert "2 runs of it" in verdict.unjudged[Key("Mini", "iterative", "precise")]


def test_another_model_is_judged_and_said() -> None:
    verdict = check(runs(entry()), runs(entry(model="org/other@m2"), entry(task="New")))
    assert not verdict.unjudged
    assert verdict.notes == [
        "other than in the baseline: org/other@m2 (baseline: org/model@m1)",
        "New, iterative, precise: not in the baseline, not judged",
    ]


def test_a_fall_that_is_no_more_than_noise_is_tolerated_when_asked() -> None:
    noisy = (0.9, 0.2, 0.9, 0.56)  # a lower mean, no pattern
    assert check(runs(entry()), runs(entry(noisy))).failed
    verdict = check(runs(entry()), runs(entry(noisy)), significant=True)
    assert not verdict.failed
    assert len(verdict.tolerated) == 2
    assert "Fell, but not significantly" in as_text(verdict)
    many = tuple(0.5 + 0.001 * place for place in range(50))
    lower = tuple(value - 0.01 for value in many)
    verdict = check(runs(entry(many)), runs(entry(lower)), significant=True)
    p_value = float(randomisation_test([-0.01] * 50)[0])
    assert [finding.p for finding in verdict.failed] == pytest.approx(holm([p_value] * 2))


def test_a_baseline_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write_baseline(runs(entry(), entry(mode="conventional")), tmp_path / "results" / "baseline.json")
    assert read_baseline(path).entries == [entry(), entry(mode="conventional")]
    content = json.loads(path.read_text())
    assert content["runs"][0]["means"] == {"cmteb:map": 0.65, "mteb:map_at_1000": 0.65}
    assert len(path.read_text().splitlines()) == 4
    assert not list(path.parent.glob(".*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": {"cmteb:map": 0.66, "mteb:map_at_1000": 0.65}}, "is said to be 0.66, its queries average to 0.65"),
        ({"query_ids": ["q0"]}, "4 values of cmteb:map, 1 queries"),
        ({"values": {"cmteb:map": "high"}}, "cannot be read as a baseline"),
    ],
)
def test_a_baseline_that_was_edited_is_refused(change: Mapping[str, object], message: str, tmp_path: Path) -> None:
    path = write_baseline(runs(entry()), tmp_path / "baseline.json")
    content = json.loads(path.read_text())
    content["runs"][0] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(ListconError, match=message):
        read_baseline(path)


def test_unusable_baselines_are_named(tmp_path: Path) -> None:
    with pytest.raises(ListconError, match=r"no such baseline; .* --update"):
        read_baseline(tmp_path / "nowhere.json")
    (tmp_path / "other.json").write_text('{"format": 9, "runs": []}')
    with pytest.raises(ListconError, match="format 9, this version reads format 1"):
        read_baseline(tmp_path / "other.json")
    with pytest.raises(ListconError, match="is a folder"):
        write_baseline(runs(entry()), tmp_path)
    with pytest.raises(ListconError, match="more than one run of Mini, iterative, precise"):
        write_baseline(runs(entry(), entry(model="org/other@m2")), tmp_path / "baseline.json")
    with pytest.raises(ListconError, match="holds no run"):
        check(runs(), runs(entry()))


@pytest.mark.parametrize("given", ["little", "-0.1", "2", "cmteb:map=", "nan"])
def test_a_tolerance_is_a_fraction(given: str) -> None:
    with pytest.raises(ListconError, match="give a fraction from 0 to 1"):
        Tolerances.parse([given])


def test_a_tolerance_is_of_a_measure_that_exists() -> None:
    with pytest.raises(ListconError, match="Did you mean cmteb:map"):
        Tolerances.parse(["cmteb:mapp=0.1"])


def test_junit_has_a_case_a_metric() -> None:
    current = runs(entry((0.1, *GOOD[1:])), entry(task="Other", revision="r2"))
    suite = ElementTree.fromstring(as_junit(check(runs(entry(), entry(task="Other")), current)))
    assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "2",
        "errors": "1",
    }
    failures = suite.findall("testcase/failure")
    assert (failures[0].get("message") or "").startswith("Mini, iterative, precise: cmteb:map went from 65.00 to 55.00")
    assert "q0" in (failures[0].text or "")
    assert {case.get("classname") for case in suite.findall("testcase")} == {
        "Mini.iterative.precise",
        "Other.iterative.precise",
    }
    assert len(suite.findall("properties/property")) == 2
