"""Comparisons: the statistics against scipy and by hand, what is refused, and the output to the letter."""

import inspect
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import bootstrap, permutation_test

from listcon_eval.comparison import ComparedSystem, TaskRun, compare, find_system, read_systems
from listcon_eval.comparison.render import Comparison, as_json, split_signatures
from listcon_eval.comparison.statistics import count_wins, holm, mean_intervals, randomisation_test, resamples_for
from listcon_eval.comparison.systems import ranks_of_relevant
from listcon_eval.data import mini_task, task_of_rows
from listcon_eval.data.trec import read_qrels, read_trec_run
from listcon_eval.errors import ListconError
from listcon_eval.evaluation import evaluate
from listcon_eval.metrics import Measure
from listcon_eval.results import RankedQuery, Signature

MAP, MAP_1000 = Measure("cmteb", "map"), Measure("mteb", "map_at_1000")
RNG = np.random.default_rng


def signature(label: str, task: str = "Mini", revision: str | None = "r1") -> Signature:
    return Signature(
        task=task,
        data_revision=str(revision),
        model=label,
        model_revision="1",
        settings={"mode": "iterative"},
        ties="t",
        versions={"mteb": "2"},
        device="cpu",
    )


def system(
    label: str,
    values: Mapping[str, Sequence[float | None]],
    *,
    revision: str | None = "r1",
    task: str = "Mini",
    first: int = 0,
    is_bound: bool = False,
) -> ComparedSystem:
    """A run without files: values by measure, queries q0, q1, ...; None: a query that the measure drops."""
    ids = [f"q{place + first}" for place in range(len(next(iter(values.values()))))]
    rankings = {
        query_id: RankedQuery(
            query_id=query_id,
            query=f"text of {query_id}",
            doc_ids=("d1", "d2"),
            scores=(0.5, 0.4),
            rounds=(0, 0),
            relevance=(0, 1),
            cmteb_relevant=(False, True),
        )
        for query_id in ids
    }
    named = {
        measure: {query_id: value for query_id, value in zip(ids, row, strict=True) if value is not None}
        for measure, row in values.items()
    }
    run = TaskRun(task, revision, signature(label, task, revision), named, lambda: rankings)
    return ComparedSystem(label, {task: run}, is_bound)


def two_runs() -> list[ComparedSystem]:
    """The example of the docstrings: one run better than the other by 10 points on every query, by both measures."""
    old = [0.45 + 0.01 * (place % 20) for place in range(40)]
    new = [value + 0.1 for value in old]
    return [
        system("new", {"cmteb:map": new, "mteb:map_at_1000": new}),
        system("old", {"cmteb:map": old, "mteb:map_at_1000": old}),
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
        assert ours == pytest.approx(exact, abs=1e-12)
    wide = RNG(seed).normal(0.2, 1, size=(3, 60))
    theirs = permutation_test(
        (wide.T, np.zeros_like(wide.T)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9_999,
        rng=seed,
    ).pvalue
    np.testing.assert_allclose(randomisation_test(wide), theirs, atol=0.025)


def test_a_p_value_is_never_0_and_counts_as_stated() -> None:
    assert randomisation_test([np.ones(60)], resamples=999)[0] == 1 / 1000
    assert randomisation_test([np.zeros(60)], resamples=999)[0] == 1.0
    np.testing.assert_array_equal(
        randomisation_test([RNG(1).normal(size=30)]), randomisation_test([RNG(1).normal(size=30)])
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
    (found,) = mean_intervals([values], resamples=9_999)
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=9_999, rng=5).confidence_interval
    generator = RNG(11)
    means = [generator.choice(values, len(values)).mean() for _ in range(9_999)]
    assert found.mean == pytest.approx(values.mean())
    for low, high in ((theirs.low, theirs.high), np.quantile(means, [0.025, 0.975])):
        assert (found.low, found.high) == pytest.approx((low, high), abs=0.003)
    assert mean_intervals([[0.3]]) == [(0.3, 0.3, 0.3)]


def test_intervals_of_rows_are_those_of_each_alone_and_nan_is_no_query() -> None:
    values = RNG(8).uniform(size=(3, 40))
    together = mean_intervals(values, resamples=999)
    for row, found in zip(values, together, strict=True):
        assert found == pytest.approx(mean_intervals([row], resamples=999)[0], abs=1e-12)
    holes = values[0].copy()
    holes[:30] = np.nan
    (with_holes,) = mean_intervals([holes], resamples=9_999)
    (alone,) = mean_intervals([values[0][30:]], resamples=9_999)
    assert with_holes.mean == pytest.approx(alone.mean)
    assert (with_holes.low, with_holes.high) == pytest.approx((alone.low, alone.high), abs=0.03)


def test_intervals_cover_the_mean_as_often_as_they_say() -> None:
    generator = RNG(4)
    inside = 0
    for _ in range(200):
        values = [generator.beta(2, 5, size=60)]
        (interval,) = mean_intervals(values, resamples=499, seed=int(generator.integers(1000)))
        inside += interval.low <= 2 / 7 <= interval.high
    assert 0.88 <= inside / 200 <= 0.99


def test_wins_ties_and_losses() -> None:
    assert count_wins([0.5, 0.0, -0.1, 0.2, 1e-12, np.nan]) == (2, 2, 1)


def test_the_table_is_that_of_the_docstring_to_the_letter() -> None:
    compared = compare(two_runs(), [MAP, MAP_1000])
    example = inspect.cleandoc(Comparison.as_text.__doc__ or "").split("```text\n")[1].split("\n```")[0]
    assert compared.as_text().startswith(f"{example}\n\n")


def test_the_marks_in_latex_and_json() -> None:
    compared = compare(two_runs())
    latex = compared.as_text("latex")
    assert "a & new & 64.50$^{b}$ & 64.50$^{b}$" in " ".join(latex.split())
    assert r"\textbf" not in compared.as_text("latex")
    assert r"mteb:map\_at\_1000" in latex
    assert f"% a: {signature('new')}" in latex
    task = as_json(compared)["tasks"]["Mini"]
    assert task["significantly_better_than"] == {
        "a": {"cmteb:map": ["b"], "mteb:map_at_1000": ["b"]},
        "b": {"cmteb:map": [], "mteb:map_at_1000": []},
    }
    assert task["pairs"][0]["difference"]["mean"] == pytest.approx(-0.1)
    assert (task["pairs"][0]["wins"], task["pairs"][0]["losses"]) == (0, 40)
    assert task["signatures"]["a"] == str(signature("new"))


def test_holm_is_over_the_pairs_within_a_task_and_measure() -> None:
    values = {"cmteb:map": RNG(5).uniform(size=30), "mteb:map_at_1000": RNG(6).uniform(size=30)}
    runs = [
        system(name, {measure: (row + shift).tolist() for measure, row in values.items()})
        for name, shift in (("a", 0.0), ("b", 0.001), ("c", 0.2))
    ]
    compared = compare(runs)
    pairs = compared.tasks[0].pairs
    assert len(pairs) == 6
    for measure in (MAP, MAP_1000):
        own = [pair for pair in pairs if pair.measure == measure]
        assert [pair.corrected for pair in own] == holm([pair.p for pair in own])
        alone = compare(runs, [measure]).tasks[0].pairs
        assert [pair.corrected for pair in alone] == [pair.corrected for pair in own]
    assert "Holm over 3 pairs within each measure" in compared.as_text()


def test_a_real_difference_among_sixteen_systems_is_significant() -> None:
    noise = RNG(9).uniform(0, 0.5, size=(16, 80))
    noise[15] = noise[0] + 0.3
    compared = compare([system(f"s{place:02}", {"cmteb:map": row.tolist()}) for place, row in enumerate(noise)])
    task = compared.tasks[0]
    assert len(task.pairs) == 120
    assert 120 / (task.resamples + 1) <= compared.level / 10
    assert "a" in task.beaten_by("p", MAP, compared.level)


def test_too_few_draws_for_the_pairs_are_refused() -> None:
    runs = [system(name, {"cmteb:map": RNG(place).uniform(size=20).tolist()}) for place, name in enumerate("abcd")]
    with pytest.raises(ListconError, match=r"with 6 pairs no corrected p-value can be as low as 0\.05; give 9999"):
        compare(runs, resamples=99)
    assert resamples_for(120) == 23_999
    shown = compare(runs[:2], resamples=99).as_text()
    assert "0.0000" not in shown
    p_value = compare(runs[:2], resamples=99).tasks[0].pairs[0].p
    assert f"  {p_value:.2f} " in shown


def test_a_query_that_cmteb_drops_is_left_out_of_its_means_and_pairs() -> None:
    one = system("a", {"cmteb:map": [None, 0.5, 0.7], "mteb:map_at_1000": [1.0, 0.5, 0.7]})
    two = system("b", {"cmteb:map": [None, 0.6, None], "mteb:map_at_1000": [1.0, 0.6, 0.2]})
    (task,) = compare([one, two]).tasks
    assert task.queries == 3
    assert [task.means[letter][MAP].mean for letter in "ab"] == pytest.approx([0.6, 0.6])
    pairs = {pair.measure: pair for pair in task.pairs}
    assert tuple(pairs[MAP].wins) == (1, 0, 0)
    assert pairs[MAP].difference.mean == pytest.approx(0.1)
    assert tuple(pairs[MAP_1000].wins) == (1, 1, 1)
    assert "a: 2 of 3 queries; b: 1 of 3 queries" in compare([one, two]).as_text()


def test_one_system_can_be_the_base_of_all_pairs() -> None:
    runs = [system(name, {"cmteb:map": RNG(place).uniform(size=20).tolist()}) for place, name in enumerate("abc")]
    (task,) = compare(runs, against=find_system(runs, "b")).tasks
    assert [(pair.base, pair.other) for pair in task.pairs] == [("b", "a"), ("b", "c")]
    assert {query.base for query in task.changed} == {"b"}
    with pytest.raises(ListconError, match=r"'x' names 0 of the systems \(a; b; c\)"):
        find_system(runs, "x")


def test_random_and_oracle_are_tested_when_asked_for() -> None:
    values = {"cmteb:map": [0.1, 0.2, 0.3]}
    runs = [system("random order", values, is_bound=True), system("a", values), system("b", values)]
    (task,) = compare(runs).tasks
    assert [(pair.base, pair.other) for pair in task.pairs] == [("b", "c")]
    assert len(task.means) == 3
    assert len(compare(runs, with_bounds=True).tasks[0].pairs) == 3
    against = compare(runs, against=runs[0]).tasks[0]
    assert [(pair.base, pair.other) for pair in against.pairs] == [("a", "b"), ("a", "c")]


def test_signatures_are_shown_as_what_differs() -> None:
    shared, own = split_signatures([signature("new"), signature("old")])
    assert shared == "task:Mini|data_revision:r1|model_revision:1|ties:t|device:cpu|mode:iterative|mteb:2"
    assert own == ["model:new", "model:old"]


def test_queries_that_changed_come_with_text_and_ranks() -> None:
    before, after = [0.5, 0.5, 0.5], [0.5, 0.1, 0.7]
    compared = compare([system("a", {"cmteb:map": before}), system("b", {"cmteb:map": after})], max_changed=2)
    assert [(m.query_id, m.query, m.before, m.after) for m in compared.tasks[0].changed] == [
        ("q1", "text of q1", 0.5, 0.1),
        ("q2", "text of q2", 0.5, 0.7),
    ]
    assert compared.tasks[0].changed[0].ranks_before == (2,)
    assert "2 to 2" in compared.as_text()


def test_other_queries_other_data_and_other_measures_are_refused() -> None:
    values = {"cmteb:map": [0.1, 0.2, 0.3]}
    with pytest.raises(ListconError, match=r"only in the first: 1 \(q0\); only in the second: 1 \(q3\)"):
        compare([system("a", values), system("b", values, first=1)])
    with pytest.raises(ListconError, match=r"different revisions of the data \(a: r1; b: r2\)"):
        compare([system("a", values), system("b", values, revision="r2")])
    with pytest.raises(ListconError, match="no two systems have a task in common"):
        compare([system("a", values), system("b", values, task="Other")])
    with pytest.raises(ListconError, match="b has no mteb:map_at_1000"):
        compare([system("a", {"mteb:map_at_1000": [0.1]}), system("b", {"cmteb:map": [0.1]})], [MAP_1000])
    with pytest.raises(ListconError, match="systems to compare: 1 "):
        compare([system("a", values)])


@pytest.mark.parametrize(
    ("order", "compared", "warned"),
    [
        ("bm25-A random-A", "A", False),
        ("bm25-A bm25-B bm25-A random-A", "A", False),  # changed, and changed back
        ("bm25-A bm25-B random-A random:1-B random:1-A", "A", False),
        ("bm25-A random-A random-B bm25-B bm25-A random-A", "B", True),
        ("bm25-A bm25-B random-C", None, False),
    ],
)
def test_the_newest_revision_that_all_systems_share_is_compared(
    order: str, compared: str | None, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    revisions = {}
    data = tmp_path / "own.jsonl"
    for step in order.split():
        model, _, content = step.partition("-")
        rows = [{"query": f"q{n}", "positive": [content], "negative": ["other"]} for n in range(3)]
        data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        (result,) = evaluate(model, data, output=tmp_path / model).results
        revisions[content] = result.data_revision
    folders = {model: tmp_path / model for model in ("bm25", "random")}
    runs: Any
    for runs in ([tmp_path], [*folders.values()], folders):
        if compared is None:
            with pytest.raises(ListconError, match=r"different revisions .* run all of these systems on one"):
                compare(runs, with_bounds=True)
            continue
        (task,) = compare(runs, with_bounds=True).tasks
        assert {signature.data_revision for signature in task.signatures.values()} == {revisions[compared]}
    assert ("have runs on 2 revisions of its data" in caplog.text) is warned


def test_each_task_is_compared_among_the_systems_that_have_it() -> None:
    values = {"cmteb:map": [0.1, 0.2]}
    runs = [
        ComparedSystem(name, {task: system(name, values, task=task).tasks[task] for task in tasks})
        for name, tasks in (("a", ["One", "Two", "Three"]), ("b", ["Two"]), ("c", ["One", "Two"]))
    ]
    compared = compare(runs)
    assert {task.task: list(task.means) for task in compared.tasks} == {"One": ["a", "c"], "Two": ["a", "b", "c"]}
    assert "Not compared: Three, which a alone has" in compared.as_text()


QRELS = "q1 0 d1 1\nq1 0 d2 0\nq2 0 d%203 2\nq2 0 50%25 0\n"


def trec(folder: Path, name: str, rows: str) -> Path:
    path = folder / name
    path.write_text(rows, encoding="utf-8")
    return path


def test_trec_runs_of_other_tools(tmp_path: Path) -> None:
    qrels = trec(tmp_path, "judged.qrels", QRELS)
    good = trec(tmp_path, "good.trec", "q1 Q0 d1 1 2.5 x\nq1 Q0 d2 2 1 x\nq2 Q0 d%203 1 1e1 x\nq2 Q0 50%25 2 -1 x\n")
    bad = trec(tmp_path, "bad.trec", "q1 Q0 d1 2 0.5 x\nq1 Q0 d2 1 1 x\nq2 Q0 d%203 1 1 x\nq2 Q0 50%25 2 -1 x\n")
    runs = read_systems([good, bad], qrels)
    assert [run.label for run in runs] == ["good", "bad"]
    assert runs[1].tasks["judged"].values["mteb:map_at_1000"] == {"q1": 0.5, "q2": 1.0}
    assert runs[0].tasks["judged"].load_rankings()["q2"].doc_ids == ("d 3", "50%")
    text = compare(runs).as_text()
    assert "model:TREC run good.trec|model_revision:sha256-" in text
    assert "(text not in these files)" in text
    (tmp_path / "qrels.trec").write_text(QRELS)
    assert read_systems([good, bad])[0].tasks["qrels"].values == runs[0].tasks["judged"].values


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("q1 Q0 d1 1 2.5\n", "line 1 has 5 columns"),
        ("q1 Q0 d1 1 nan x\n", "line 1: the score is nan"),
        ("q1 Q0 d1 1 high x\n", "the score is 'high'"),
        ("q1 Q0 d1 1 1 x\nq1 Q0 d1 2 1 x\n", "line 2: document d1 comes a second time for query q1"),
        ("q1 Q0 d1 1 1 x\nq9 Q0 d1 1 1 x\n", "no judgements for 1 query of the run, the first is 'q9'"),
        ("x1 Q0 d1 1 1 x\n", r"has no query that .*judged\.qrels judges, such as 'q1'"),
    ],
)
def test_unusable_trec_files_are_named(rows: str, message: str, tmp_path: Path) -> None:
    qrels, run = trec(tmp_path, "judged.qrels", QRELS), trec(tmp_path, "run.trec", rows)
    with pytest.raises(ListconError, match=message):
        read_systems([run, run], qrels)


def test_a_trec_run_whose_order_is_in_its_ranks_is_told_of(tmp_path: Path) -> None:
    qrels = trec(tmp_path, "judged.qrels", QRELS)
    tied = trec(tmp_path, "tied.trec", "q1 Q0 d1 1 1 x\nq1 Q0 d2 2 1 x\n")
    other = trec(tmp_path, "other.trec", "q1 Q0 d1 1 2 x\nq1 Q0 d2 2 1 x\n")
    assert "tied.trec: all scores of a query are equal" in compare([tied, other], qrels=qrels).as_text()


def test_what_a_trec_run_lacks_is_not_retrieved_and_said(tmp_path: Path) -> None:
    qrels = trec(tmp_path, "judged.qrels", "q1 0 d1 1\nq1 0 d2 1\nq2 0 d1 1\n")
    cut = trec(tmp_path, "cut.trec", "q1 Q0 d1 1 3 x\nq1 Q0 d9 2 2 x\n")
    whole = trec(tmp_path, "whole.trec", "q1 Q0 d1 1 3 x\nq1 Q0 d2 1 2 x\nq2 Q0 d1 1 1 x\n")
    runs = read_systems([cut, whole], qrels)
    assert runs[0].tasks["judged"].values["mteb:map_at_1000"] == {"q1": 0.5, "q2": 0.0}
    assert "cut.trec lacks 1 judged query (of 2): each counts 0" in compare(runs).as_text()
    (query, other) = compare(runs).tasks[0].changed
    assert (query.query_id, query.ranks_before, query.ranks_after) == ("q2", (), (1,))
    assert (other.ranks_before, other.ranks_after) == ((1,), (1, 2))


def test_trec_scores_below_float32_keep_their_order(tmp_path: Path) -> None:
    qrels = trec(tmp_path, "judged.qrels", "q1 0 d1 1\nq1 0 d2 0\n")
    fine = trec(tmp_path, "fine.trec", "q1 Q0 d1 1 1.0000000001 x\nq1 Q0 d2 2 1.0 x\n")
    run = read_systems([fine], qrels)[0].tasks["judged"]
    assert run.values["mteb:map_at_1000"] == {"q1": 1.0}
    assert ranks_of_relevant(run.load_rankings()["q1"], "mteb") == (1,)


def test_one_run_twice_is_no_comparison(tmp_path: Path) -> None:
    qrels = trec(tmp_path, "judged.qrels", "q1 0 d1 1\n")
    run = trec(tmp_path, "run.trec", "q1 Q0 d1 1 1 x\n")
    with pytest.raises(ListconError, match="systems to compare: 1 "):
        compare(read_systems([run, run], qrels))


def test_trec_runs_with_other_judgements_are_not_compared(tmp_path: Path) -> None:
    runs = []
    for name, rows in (
        ("a", "q1 0 d1 1\nq1 0 d2 0\n"),
        ("b", "q1 0 d1 0\nq1 0 d2 1\n"),
        ("c", "q1 0 d2 0\nq1 0 d1 1\n"),
    ):
        (tmp_path / name).mkdir()
        trec(tmp_path / name, "qrels.trec", rows)
        runs.append(trec(tmp_path / name, f"{name}.trec", "q1 Q0 d1 1 2 x\nq1 Q0 d2 2 1 x\n"))
    with pytest.raises(ListconError, match="different revisions of the data"):
        compare(runs[:2])
    assert compare([runs[0], runs[2]]).tasks[0].queries == 1  # in another order they are the same judgements
    with pytest.raises(ListconError, match="has no judgements"):
        compare(runs[:2], qrels=trec(tmp_path, "empty.qrels", ""))
    with pytest.raises(ListconError, match="judges no document of any query 1 or more"):
        compare(runs[:2], qrels=trec(tmp_path, "zero.qrels", "q1 0 d1 0\nq1 0 d2 -1\n"))


def test_what_to_test_against_is_one_system(tmp_path: Path) -> None:
    task = mini_task("MiniWeb")
    for model in ("bm25", "random"):
        evaluate(model, [task], output=tmp_path)
    with pytest.raises(ListconError, match=r"holds 2 systems .*: give the folder of one of them"):
        compare([tmp_path], against=tmp_path)
    with pytest.raises(ListconError, match="against is ''; expected"):
        compare([tmp_path], against="")
    assert compare([tmp_path], against="bm25").tasks


def test_a_name_that_is_also_a_folder_is_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, model in (("old", "bm25"), ("new", "random")):
        evaluate(model, "MiniWeb", output=tmp_path / name)
    found = compare({"new": "new", "old": "old"}, against="old")
    assert sorted(found.labels) == ["new", "old"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of BM25 (`old`) and a random order (`new`) on two tasks, and a TREC run file of one of the latter."""
    folder = tmp_path_factory.mktemp("runs")
    for name, model in (("old", "bm25"), ("new", "random:1")):
        results = evaluate(model, "MiniWeb,MiniSearch", output=folder / name).results
        shutil.copy(results[0].file("run.trec"), folder / f"{name}.trec")
        shutil.copy(results[0].file("qrels.trec"), folder / "judged.qrels")
    return folder


def one_task(folder: Path, task: str = "MiniWeb") -> Path:
    (found,) = (run for run in folder.rglob(f"*{task}__*") if run.is_dir())
    return found


def pairs_of(
    runs: object, against: object, qrels: object = None, *, with_bounds: bool = False
) -> dict[str, list[tuple[str, str]]]:
    options: dict[str, Any] = {"runs": runs, "against": against, "qrels": qrels, "with_bounds": with_bounds}
    found = compare(measures=["mteb:map_at_1000"], **options)
    labels = dict(zip("abcdefgh", found.labels, strict=False))
    assert all(pair.p == pair.corrected for task in found.tasks for pair in task.pairs if len(task.pairs) == 1)
    return {task.task: [(labels[pair.base], labels[pair.other]) for pair in task.pairs] for task in found.tasks}


@pytest.mark.parametrize("read", ["named", "paths", "systems"])
def test_what_is_tested_against_is_compared_once(runs: Path, read: str) -> None:
    old, new = runs / "old", runs / "new"
    given: Any = {
        "named": {"new": new, "old": old},
        "paths": [new, old],
        "systems": read_systems([new, old]),
    }[read]
    labels = ("old", "new") if read == "named" else ("BM25 (characters)", "random order")
    for against in (old, str(old), one_task(old), next(old.rglob("MiniSearch")), read_systems([old])[0]):
        assert pairs_of(given, against, with_bounds=True) == {"MiniWeb": [labels], "MiniSearch": [labels]}
    first = dict([*given.items()][:1]) if read == "named" else given[:1]
    assert pairs_of(first, old, with_bounds=True) == {
        task: [("BM25 (characters)", labels[1])] for task in ("MiniWeb", "MiniSearch")
    }  # it is none of them


def test_scores_are_of_the_task_of_what_they_are_compared_with(runs: Path) -> None:
    file, judged, old, new = runs / "new.trec", runs / "judged.qrels", one_task(runs / "old"), runs / "new"
    scores = read_trec_run(file)
    for given, against, qrels, base in (
        ({"theirs": old}, file, judged, "new"),
        ({"theirs": file}, old, judged, "BM25 (characters)"),
        ({"theirs": file}, old, None, "BM25 (characters)"),
        ({"theirs": scores}, old, judged, "BM25 (characters)"),
        ({"theirs": scores}, old, None, "BM25 (characters)"),
        ({"theirs": scores}, read_systems([old])[0], None, "BM25 (characters)"),
    ):
        assert pairs_of(given, against, qrels) == {"MiniWeb": [(base, "theirs")]}
    # The folders, and not systems of several tasks that were read before, say what task it is; or the judgements do.
    found = pairs_of([*read_systems([new]), file], old, with_bounds=True)
    assert found == {"MiniWeb": [("BM25 (characters)", "random order"), ("BM25 (characters)", "new")]}
    assert pairs_of([*read_systems([new]), file, runs / "old.trec"], "old", judged) == {"judged": [("old", "new")]}
    with pytest.raises(ListconError, match=r"new\.trec is a TREC run of one task, and the folders beside it hold 2"):
        compare([new, file])


def test_a_run_file_inside_the_folder_to_test_against_is_another_system(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "old", tmp_path / "old")
    file = Path(shutil.copy(runs / "new.trec", tmp_path / "old" / "their.trec"))
    for against in (one_task(tmp_path / "old"), read_systems([one_task(tmp_path / "old")])[0]):
        found = pairs_of({"theirs": file}, against, runs / "judged.qrels")
        assert found == {"MiniWeb": [("BM25 (characters)", "theirs")]}


def test_parts_of_a_system_before_the_folder_that_holds_them_are_that_system(runs: Path) -> None:
    old, new = runs / "old", runs / "new"
    parts = [one_task(old), one_task(old, "MiniSearch")]
    expected = {task: [("BM25 (characters)", "random order")] for task in ("MiniWeb", "MiniSearch")}
    assert pairs_of([*parts, new], old, with_bounds=True) == expected
    for given in ([*parts, old, new], [*read_systems(parts[:1]), *read_systems(parts[1:]), old, new]):
        for against in (old, "BM25"):
            assert pairs_of(given, against, with_bounds=True) == expected
    with pytest.raises(ListconError, match="web and search both have runs of the system to test against"):
        compare({"web": parts[0], "search": parts[1], "new": new}, against=old)


def test_what_was_read_before_has_a_part_in_the_choice_of_a_revision(tmp_path: Path) -> None:
    for revision, models in (("A", ("bm25", "random")), ("B", ("bm25",))):
        task = task_of_rows([{"query": "问", "positive": [revision], "negative": ["乙"]}], "mine")
        for model in models:
            evaluate(model, [task], output=tmp_path / model)
    old, new = tmp_path / "bm25", tmp_path / "random"
    systems = read_systems([old, new])
    for given, against in ((systems, old), ([old], systems[1]), ([systems[1], old], None), ({"o": old, "n": new}, old)):
        assert sum(map(len, pairs_of(given, against, with_bounds=True).values())) == 1
    older = systems[0].tasks["mine"].path
    assert older is not None
    assert sum(map(len, pairs_of([old, older.parent, new], None, with_bounds=True).values())) == 1


def test_no_two_systems_have_one_label(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "old", tmp_path / "again")
    twice = [*read_systems([runs / "old"]), *read_systems([tmp_path / "again"])]
    assert len({*compare(twice, with_bounds=False).labels}) == 2
    found = compare({"BM25 (characters)": runs / "old"}, against=tmp_path / "again")
    assert len({*found.labels}) == 2
    assert "BM25 (characters)" in found.labels
    (scores,) = read_systems([trec(tmp_path, "a.trec", "q1 Q0 d1 1 1 x\n")], qrels={"q1": {"d1": 1, "d2": 0}})
    in_memory = replace(scores, tasks={task: replace(run, path=None) for task, run in scores.tasks.items()})
    other = replace(in_memory, tasks={task: replace(run) for task, run in in_memory.tasks.items()})
    with pytest.raises(ListconError, match="two of the systems are called a: give each a name of its own"):
        compare([in_memory, other])
    with pytest.raises(ListconError, match="the runs were made on different revisions of the data"):
        compare([twice[0], of_other_data(twice[1])])


def of_other_data(system: ComparedSystem) -> ComparedSystem:
    tasks = {task: replace(run, data_revision="other", path=Path("elsewhere")) for task, run in system.tasks.items()}
    return replace(system, tasks=tasks)


def test_judgements_without_anything_to_judge_are_refused(runs: Path) -> None:
    paths = {name: runs / name for name in ("new", "old")}
    file = runs / "new.trec"
    systems = read_systems([file, runs / "old.trec"], runs / "judged.qrels")
    for given, against in ((paths, None), (read_systems(list(paths.values())), None), (systems, file)):
        with pytest.raises(
            ListconError, match="qrels are for TREC run files and scores in memory, and none is to be read"
        ):
            compare(given, against=against, qrels={"nonsense": {"x": 1}})
    with pytest.raises(ListconError, match="systems to compare: 0"):
        compare([], qrels={"nonsense": {"x": 1}})


def test_judgements_far_below_zero_are_measured_as_not_relevant(tmp_path: Path) -> None:
    qrels = trec(tmp_path, "judged.qrels", "q1 0 d1 -2\nq1 0 d2 -2\nq2 0 d1 1\nq2 0 d2 -2\n")
    run = trec(tmp_path, "run.trec", "q1 Q0 d1 1 2 x\nq1 Q0 d2 2 1 x\nq2 Q0 d1 1 1 x\nq2 Q0 d2 1 2 x\n")
    (found,) = read_systems([run], qrels)
    assert found.tasks["judged"].values["mteb:map_at_1000"] == {"q1": 0.0, "q2": 0.5}


def graded_data(folder: Path) -> Path:
    """Two queries whose candidates, but for the last, are judged 3, 1, 0 and 2."""
    parts: dict[str, list[dict[str, Any]]] = {
        "corpus": [{"_id": f"d{place}", "text": f"text {place}"} for place in range(5)],
        "queries": [{"_id": name, "text": name} for name in ("q1", "q2")],
        "qrels": [
            {"query-id": name, "corpus-id": f"d{place}", "score": grade}
            for name in ("q1", "q2")
            for place, grade in enumerate((3, 1, 0, 2))
        ],
        "top_ranked": [{"query-id": name, "corpus-ids": [f"d{n}" for n in range(5)]} for name in ("q1", "q2")],
    }
    folder.mkdir()
    for name, rows in parts.items():
        trec(folder, f"{name}.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


@pytest.mark.parametrize("relevance", [1, 2])
def test_judgements_beside_a_run_are_held_against_those_of_the_results_grade_by_grade(
    relevance: int, tmp_path: Path
) -> None:
    data = graded_data(tmp_path / "graded")
    (result,) = evaluate("bm25", data, output=tmp_path, relevance=relevance).results
    run = Path(shutil.copy(result.file("run.trec"), tmp_path / "same.trec"))
    own = result.file("qrels.trec").read_text(encoding="utf-8")
    trec(tmp_path, "qrels.trec", own.replace(" 0\n", " -1\n"))  # as good as none
    (task,) = compare([result.folder, run]).tasks
    assert all(pair.wins == (0, 2, 0) for pair in task.pairs)
    for before, now in ((3, 1), (1, 0), (2, 3), (0, 1)):
        trec(tmp_path, "qrels.trec", own.replace(f" {before}\n", f" {now}\n"))
        with pytest.raises(ListconError, match=rf"differ in what is relevant: .* is judged {now} and {before}"):
            compare([result.folder, run])


@pytest.mark.parametrize("beside", [True, False])
def test_a_run_of_other_documents_is_refused(beside: bool, tmp_path: Path) -> None:
    (result,) = evaluate("bm25", graded_data(tmp_path / "graded"), output=tmp_path).results
    judgements = read_qrels(result.file("qrels.trec"))
    others = {name: {f"other-{place}": 1.0 for place in range(3)} for name in judgements}
    options: dict[str, Any] = {} if beside else {"qrels": judgements}
    known: Any = result.folder if beside else {"q1": {"d0": 1.0}}
    place = " or a run beside it ranks" if beside else ""
    with pytest.raises(ListconError, match=f"has no document that .* judges{place}, for any query: .*'other-0'"):
        compare({"others": others, "known": known}, **options)
    few = {**others, "q1": {"other-0": 2.0, "d4" if beside else "d0": 1.0}}  # d4 is a candidate without a judgement
    assert compare({"few": few, "known": known}, **options).tasks
