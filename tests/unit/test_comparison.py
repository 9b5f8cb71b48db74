"""Comparisons: the statistics against scipy and by hand, what is refused, and the output to the letter."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import bootstrap, permutation_test

from listcon_eval.compare import Contestant, TaskRun, compare, contestants
from listcon_eval.compare.render import as_json, as_latex, as_text, means_table
from listcon_eval.compare.statistics import count_wins, holm, mean_interval, randomisation_test
from listcon_eval.errors import ListconError
from listcon_eval.metrics import Measure
from listcon_eval.results import RankedQuery

MAP, MAP_1000 = Measure("cmteb", "map"), Measure("mteb", "map_at_1000")
RNG = np.random.default_rng


def contestant(
    label: str,
    values: Mapping[str, Sequence[float]],
    *,
    revision: str | None = "r1",
    task: str = "Mini",
    first: int = 0,
) -> Contestant:
    """A run without files: values by measure, queries q0, q1, ..."""
    ids = [f"q{place + first}" for place in range(len(next(iter(values.values()))))]
    rankings = {
        query_id: RankedQuery(query_id, f"text of {query_id}", ("d1", "d2"), (0.5, 0.4), (0, 0), (0, 1), (False, True))
        for query_id in ids
    }
    named = {measure: dict(zip(ids, row, strict=True)) for measure, row in values.items()}
    return Contestant(label, {task: TaskRun(task, revision, f"{task}@{revision}|{label}", named, lambda: rankings)})


def two_runs() -> list[Contestant]:
    """The example of the docstrings: one run better than the other by 10 points on every query, by both measures."""
    old = [0.45 + 0.01 * (place % 20) for place in range(40)]
    new = [value + 0.1 for value in old]
    return [
        contestant("new", {"cmteb:map": new, "mteb:map_at_1000": new}),
        contestant("old", {"cmteb:map": old, "mteb:map_at_1000": old}),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_p_values_agree_with_scipy_where_all_assignments_can_be_counted(seed: int) -> None:
    differences = RNG(seed).normal(0.2, 1, size=(3, 11))
    for row, ours in zip(differences, randomisation_test(differences, resamples=40_000), strict=True):
        exact = permutation_test(
            (row, np.zeros_like(row)),
            lambda x, y, axis: np.mean(x - y, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=np.inf,
        ).pvalue
        assert ours == pytest.approx(exact, abs=0.01)


def test_a_p_value_is_never_0_and_counts_as_stated() -> None:
    assert randomisation_test(np.ones(60), resamples=999)[0] == 1 / 1000
    assert randomisation_test(np.zeros(60), resamples=999)[0] == 1.0
    np.testing.assert_array_equal(
        randomisation_test(RNG(1).normal(size=30)), randomisation_test(RNG(1).normal(size=30))
    )


def test_false_positives_are_near_the_level_over_1000_null_draws() -> None:
    scores = RNG(7).beta(2, 3, size=(2, 1000, 50))
    p_values = randomisation_test(scores[0] - scores[1], resamples=999)
    for level in (0.01, 0.05, 0.1):
        # three standard errors of a share over 1,000 draws
        assert abs((p_values <= level).mean() - level) < 3 * (level * (1 - level) / 1000) ** 0.5


def test_holm_by_hand() -> None:
    # sorted: .005 * 4, .01 * 3, .03 * 2, .04 * 1 -> .02, .03, .06, and .04 raised to .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_family_wise_error_at_its_level() -> None:
    p_values = RNG(3).uniform(size=(1000, 6))
    assert np.mean([min(holm(list(row))) <= 0.05 for row in p_values]) < 0.07


def test_intervals_agree_with_scipy_and_with_a_plain_loop() -> None:
    values = RNG(2).beta(2, 5, size=80)
    found = mean_interval(values, resamples=9_999)
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=9_999, rng=5).confidence_interval
    generator = RNG(11)
    means = [generator.choice(values, len(values)).mean() for _ in range(9_999)]
    assert found.mean == pytest.approx(values.mean())
    for low, high in ((theirs.low, theirs.high), np.quantile(means, [0.025, 0.975])):
        assert (found.low, found.high) == pytest.approx((low, high), abs=0.003)
    assert mean_interval([0.3]) == (0.3, 0.3, 0.3)


def test_intervals_cover_the_mean_as_often_as_they_say() -> None:
    generator = RNG(4)
    inside = 0
    for _ in range(200):
        interval = mean_interval(generator.beta(2, 5, size=60), resamples=499, seed=int(generator.integers(1000)))
        inside += interval.low <= 2 / 7 <= interval.high
    assert 0.88 <= inside / 200 <= 0.99


def test_wins_ties_and_losses() -> None:
    assert count_wins([0.5, 0.0, -0.1, 0.2, 1e-12]) == (2, 2, 1)


def test_the_table_is_that_of_the_docstring_to_the_letter() -> None:
    compared = compare(two_runs(), [MAP, MAP_1000])
    shown = f"Mini, 40 queries\n\n{means_table(compared, compared.tasks[0])}"
    example = inspect.cleandoc(as_text.__doc__ or "").split("```text\n")[1].split("\n```")[0]
    assert shown == example
    assert as_text(compared).startswith(f"{example}\n\n")


def test_the_marks_in_latex_and_json() -> None:
    compared = compare(two_runs())
    assert r"a & new & 64.50$^{b}$ & 64.50$^{b}$ \\" in as_latex(compared)
    assert r"\textbf" not in as_latex(compared)
    assert r"mteb:map\_at\_1000" in as_latex(compared)
    task = as_json(compared)["tasks"]["Mini"]
    assert task["significantly_better_than"] == {
        "a": {"cmteb:map": ["b"], "mteb:map_at_1000": ["b"]},
        "b": {"cmteb:map": [], "mteb:map_at_1000": []},
    }
    assert task["pairs"][0]["difference"]["mean"] == pytest.approx(-0.1)
    assert (task["pairs"][0]["wins"], task["pairs"][0]["losses"]) == (0, 40)
    assert task["signatures"] == {"a": "Mini@r1|new", "b": "Mini@r1|old"}


def test_holm_is_over_all_pairs_tasks_and_measures() -> None:
    values = {"cmteb:map": RNG(5).uniform(size=30), "mteb:map_at_1000": RNG(6).uniform(size=30)}
    runs = [
        contestant(name, {measure: (row + shift).tolist() for measure, row in values.items()})
        for name, shift in (("a", 0.0), ("b", 0.001), ("c", 0.2))
    ]
    compared = compare(runs)
    pairs = compared.tasks[0].pairs
    assert compared.tests == len(pairs) == 6
    assert [pair.corrected for pair in pairs] == holm([pair.p for pair in pairs])


def test_queries_that_moved_come_with_text_and_ranks() -> None:
    before, after = [0.5, 0.5, 0.5], [0.5, 0.1, 0.7]
    compared = compare([contestant("a", {"cmteb:map": before}), contestant("b", {"cmteb:map": after})], most_moved=2)
    assert [(m.query_id, m.query, m.before, m.after) for m in compared.tasks[0].moved] == [
        ("q1", "text of q1", 0.5, 0.1),
        ("q2", "text of q2", 0.5, 0.7),
    ]
    assert compared.tasks[0].moved[0].ranks_before == (2,)
    assert "2 to 2" in as_text(compared)


def test_other_queries_other_data_and_other_measures_are_refused() -> None:
    values = {"cmteb:map": [0.1, 0.2, 0.3]}
    with pytest.raises(ListconError, match=r"only in the first: 1 \(q0\); only in the second: 1 \(q3\)"):
        compare([contestant("a", values), contestant("b", values, first=1)])
    with pytest.raises(ListconError, match=r"different revisions of the data \(a: r1; b: r2\)"):
        compare([contestant("a", values), contestant("b", values, revision="r2")])
    with pytest.raises(ListconError, match="no task in common"):
        compare([contestant("a", values), contestant("b", values, task="Other")])
    with pytest.raises(ListconError, match="b has no mteb:map_at_1000"):
        compare([contestant("a", {"mteb:map_at_1000": [0.1]}), contestant("b", {"cmteb:map": [0.1]})], [MAP_1000])
    with pytest.raises(ListconError, match="1 runs to compare"):
        compare([contestant("a", values)])


def test_tasks_that_only_some_have_are_named() -> None:
    both, other = contestant("a", {"cmteb:map": [0.1, 0.2]}), contestant("b", {"cmteb:map": [0.3, 0.1]})
    wide = Contestant("a", {**both.tasks, **contestant("a", {"cmteb:map": [0.5]}, task="Extra").tasks})
    assert "Not compared: Extra, which only a has" in as_text(compare([wide, other]))


QRELS = "q1 0 d1 1\nq1 0 d2 0\nq2 0 d%203 2\nq2 0 50%25 0\n"


def trec(folder: Path, name: str, rows: str) -> Path:
    path = folder / name
    path.write_text(rows, encoding="utf-8")
    return path


def test_trec_runs_of_other_tools(tmp_path: Path) -> None:
    qrels = trec(tmp_path, "judged.qrels", QRELS)
    good = trec(tmp_path, "good.trec", "q1 Q0 d1 1 2.5 x\nq1 Q0 d2 2 1 x\nq2 Q0 d%203 1 1e1 x\nq2 Q0 50%25 2 -1 x\n")
    bad = trec(tmp_path, "bad.trec", "q1 Q0 d1 2 0.5 x\nq1 Q0 d2 1 1 x\nq2 Q0 d%203 1 1 x\nq2 Q0 50%25 2 -1 x\n")
    runs = contestants([good, bad], qrels)
    assert [run.label for run in runs] == ["good", "bad"]
    assert runs[1].tasks["judged"].values["mteb:map_at_1000"] == {"q1": 0.5, "q2": 1.0}
    assert runs[0].tasks["judged"].load_rankings()["q2"].doc_ids == ("d 3", "50%25")
    text = as_text(compare(runs))
    assert "TREC run good.trec@sha256-" in text
    assert "(text not in these files)" in text
    (tmp_path / "qrels.trec").write_text(QRELS)
    assert contestants([good, bad])[0].tasks["qrels"].values == runs[0].tasks["judged"].values


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("q1 Q0 d1 1 2.5\n", "line 1 has 5 words"),
        ("q1 Q0 d1 1 nan x\n", "line 1: the score is nan"),
        ("q1 Q0 d1 1 high x\n", "'high' is no number"),
        ("q1 Q0 d1 1 1 x\nq1 Q0 d1 2 1 x\n", "line 2: document d1 comes a second time for query q1"),
        ("q1 Q0 d1 1 1 x\n", "1 judged queries are missing from the run, the first is 'q2'"),
    ],
)
def test_unusable_trec_files_are_named(rows: str, message: str, tmp_path: Path) -> None:
    qrels, run = trec(tmp_path, "judged.qrels", QRELS), trec(tmp_path, "run.trec", rows)
    with pytest.raises(ListconError, match=message):
        contestants([run, run], qrels)


def test_one_run_twice_is_no_comparison(tmp_path: Path) -> None:
    qrels = trec(tmp_path, "judged.qrels", "q1 0 d1 1\n")
    run = trec(tmp_path, "run.trec", "q1 Q0 d1 1 1 x\n")
    with pytest.raises(ListconError, match="was given twice"):
        contestants([run, run], qrels)
