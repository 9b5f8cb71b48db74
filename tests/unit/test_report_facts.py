"""The numbers behind a report's figures, by hand, and what stands in the list of queries."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from listcon_eval.comparison.systems import ComparedSystem, TaskRun
from listcon_eval.errors import ListconError
from listcon_eval.report import run_data
from listcon_eval.report.page import MAX_TEXT, queries_of
from listcon_eval.report.run_data import TaskResults, results_of, task_results
from listcon_eval.report.sections import sections
from listcon_eval.results import RankedQuery, Signature
from unit.test_table import result

Row = tuple[Sequence[float], Sequence[int], Sequence[int]]
"""One query: scores, rounds and judgements of its candidates."""


def system(
    label: str,
    rows: Mapping[str, Row],
    ap: Sequence[float],
    *,
    mode: str | None = "conventional",
    kind: str = "listconranker",
    measure: str = "cmteb:map",
) -> ComparedSystem:
    """A system without files; without a mode it is a TREC run."""
    rankings = {
        query_id: RankedQuery(
            query_id=query_id,
            query=None if mode is None else f"text of {query_id}",
            doc_ids=tuple(f"{query_id}-{place}" for place in range(len(scores))),
            scores=tuple(scores),
            rounds=tuple(rounds),
            relevance=tuple(relevance),
            cmteb_relevant=tuple(value > 0 for value in relevance),
        )
        for query_id, (scores, rounds, relevance) in rows.items()
    }
    values = {measure: dict(zip(rows, ap, strict=True))}
    if measure != "mteb:map_at_1000":
        values["mteb:map_at_1000"] = dict(values[measure])
    own = None if mode is None else result("org/model", "Own", data="d", mode=mode, kind=kind)
    trec = Signature(
        task="Own", data_revision="qrels-1", model=f"TREC run {label}", model_revision="sha256-1", settings={},
        ties="", versions={}, device="none",
    )  # fmt: skip
    run = TaskRun("Own", "d" if own else None, own.signature if own else trec, values, lambda: rankings, own)
    return ComparedSystem(label, {"Own": run})


LONG: Row = ([0.9, 0.8, 2.5, 2.4], [0, 0, 1, 1], [1, 0, 1, 0])
SHORT: Row = ([0.3, 0.3], [0, 0], [0, 1])
ROWS = {"q1": LONG, "q2": SHORT}


def results_for(
    *systems: ComparedSystem, before: str | None = None, data: Mapping[str | None, Path] | None = None
) -> TaskResults:
    (found,) = task_results(systems, before=before, data=data or {})
    return found


def both_modes() -> list[ComparedSystem]:
    return [system("plain", ROWS, [0.5, 0.25]), system("rounds", ROWS, [0.75, 0.25], mode="iterative")]


def test_gain_by_length_bins_few_lengths_one_by_one_and_many_by_queries() -> None:
    lengths, gains = np.array([10, 10, 30]), np.array([1.0, 2.0, -3.0])
    assert run_data.gain_by_length(lengths, gains).to_numpy().tolist() == [[10, 10, 2, 1.5], [30, 30, 1, -3.0]]
    lengths = np.arange(1, 101)
    found = run_data.gain_by_length(lengths, lengths.astype(float))
    assert len(found) == 8
    assert found["queries"].sum() == 100
    assert found["queries"].max() <= 14
    assert (found["shortest"].min(), found["longest"].max()) == (1, 100)
    assert found["gain"].tolist() == pytest.approx(((found["shortest"] + found["longest"]) / 2).tolist())


def test_ranks_before_and_after() -> None:
    own = results_for(system("plain", ROWS, [0.5, 0.25]))
    # q1: 2.5 is first and 0.9 third; q2: either of two tied candidates can be first
    assert run_data.ranks_of_relevant(own, own.systems[0]).tolist() == [[3, 3], [1, 1], [1, 2]]
    assert run_data.candidate_places(own).tolist() == [[1, 1], [3, 3], [2, 2]]
    assert run_data.positives_first(own) == (0, 2)
    listed = {"q1": ([1.0, 0.5, 0.2], [0] * 3, [1, 2, 0]), "q2": ([1.0], [0], [1])}
    assert run_data.positives_first(results_for(system("plain", listed, [1, 1]))) == (1, 1)


def test_what_a_trec_run_does_not_list_is_not_ranked() -> None:
    short = {"q1": ([2.0], [0], [1]), "q2": SHORT}  # of q1's candidates the first alone
    trec = system("other", short, [0.5, 0.7], mode=None, measure="mteb:map_at_1000")
    own = results_for(trec, system("plain", ROWS, [0.5, 0.25]))
    assert own.lengths.tolist() == [4, 2]
    ranks = run_data.ranks_of_relevant(own, own.systems[0])
    assert ranks.tolist() == [[1, 1], [run_data.NOT_RANKED] * 2, [1, 2]]
    assert run_data.share_within(ranks, np.array([4])).tolist() == pytest.approx([2 / 3])


def test_all_curves_are_of_the_same_relevant_documents() -> None:
    """A TREC run lists a relevant document, the fifth, that is not among the data's candidates."""
    more = {"q1": ([2.0, 1.9, 1.8, 1.7, 1.6], [0] * 5, [1, 0, 1, 0, 1]), "q2": SHORT}
    trec = system("other", more, [0.5, 0.7], mode=None, measure="mteb:map_at_1000")
    plain = system("plain", ROWS, [0.5, 0.25])
    for systems in ((trec, plain), (plain, trec)):
        own = results_for(*systems)
        lacking = [run_data.NOT_RANKED] * 2
        by_label = {one.label: run_data.ranks_of_relevant(own, one).tolist() for one in own.systems}
        assert by_label == {"other": [[1, 1], [3, 3], [5, 5], [1, 2]], "plain": [[3, 3], [1, 1], lacking, [1, 2]]}
        assert run_data.candidate_places(own).tolist() == [[1, 1], [3, 3], lacking, [2, 2]]


def test_a_tied_passage_counts_as_ties_broken_at_random() -> None:
    depths = np.array([1, 2, 3, 4])
    assert run_data.share_within(np.array([[3, 3], [1, 1]]), depths).tolist() == [0.5, 0.5, 1, 1]
    assert run_data.share_within(np.array([[1, 2], [1, 2]]), depths).tolist() == [0.5, 1, 1, 1]  # an oracle's two
    assert run_data.share_within(np.zeros((0, 2), dtype=np.int64), depths).tolist() == [0] * 4
    scores = [0.5, 0.5, 0.5, 0.9, 0.1]
    relevant = np.array([True, False, True, False, True])
    generator = np.random.default_rng(0)
    found = np.zeros(4)
    for _ in range(4000):
        order = np.lexsort((generator.random(5), -np.array(scores)))
        found += [relevant[order[:depth]].sum() / 3 for depth in depths]
    expected = run_data.share_within(run_data.tied_ranks(scores)[relevant], depths)
    assert expected == pytest.approx(found / 4000, abs=0.02)


def test_rounds_tell_the_dropped_from_the_last_round_of_a_list() -> None:
    own = results_for(*both_modes())
    # q1 drops two in round 0 and keeps two for round 1; q2 has one round, its last
    counts = run_data.round_counts(own, own.systems[1])
    assert list(counts.itertuples(name=None)) == [(0, 2, 1, 2, 1), (1, 0, 0, 2, 1)]
    assert own.mode_pairs == [(own.systems[0], own.systems[1])]


def test_what_stood_before_is_chosen_by_name_or_is_bm25() -> None:
    runs = [*both_modes(), system("BM25 (pairs)", ROWS, [0.1, 0.2], mode="pointwise", kind="bm25")]
    found = results_for(*runs)
    assert found.before is found.systems[2]
    staged = results_for(*runs, system("stage", ROWS, [0.1, 0.2], mode="pointwise", kind="first-stage"))
    assert staged.before is staged.systems[3]
    assert results_for(*runs, before="data").before is None
    chosen = results_for(*runs, before="plain")
    assert chosen.before is chosen.systems[0]
    assert results_for(*both_modes()).before is None
    with pytest.raises(ListconError, match=r"'n' names 2 of the systems .*plain; rounds"):
        results_for(*runs, before="n")
    with pytest.raises(ListconError, match="names 0 of the systems"):
        results_for(*runs, before="nowhere")


def test_a_trec_run_makes_ap_mtebs_and_has_a_row_in_its_table() -> None:
    trec = system("other", ROWS, [0.5, 0.7], mode=None, measure="mteb:map_at_1000")
    found = results_for(trec, system("plain", ROWS, [0.5, 0.25]))
    assert str(found.measure) == "mteb:map_at_1000"
    row, _ = results_of([found])
    labelled = system("bm25 (x/bm25.trec)", ROWS, [0.5, 0.7], mode=None, measure="mteb:map_at_1000")
    (other,) = results_of([results_for(labelled)])
    assert other.system == "run file (bm25 (x_bm25.trec))"
    assert (row.kind, row.cmteb) == ("run-file", {})
    assert row.mteb == pytest.approx({"map_at_1000": 0.6})
    assert row.data_revision == "d"
    assert found.query_text("q1") == "text of q1"
    alone = results_for(trec)
    (positions,) = (section for section in sections(alone) if section.key == "positions")
    assert positions.notes[0].startswith("TREC run files do not hold the order of the candidates")
    assert "only ids" in (alone.texts(["q1"])[1] or "")


def test_passages_are_given_for_the_worst_and_the_most_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: dict[str, Row] = {f"q{place}": LONG for place in range(6)}
    first = system("plain", rows, [0.0, 0.2, 0.9, 0.8, 0.7, 0.6])
    second = system("rounds", rows, [0.0, 0.2, 0.9, 0.8, 0.1, 0.6], mode="iterative")
    own = results_for(first, second)
    texts = {query_id: {f"{query_id}-{place}": "字" * 600 for place in range(3)} for query_id in rows}
    monkeypatch.setattr(TaskResults, "texts", lambda _self, ids: ({name: texts[name] for name in ids}, None))
    found = queries_of(own, max_queries=2, top=3)
    assert sorted(found["passages"]) == ["0", "4"]
    assert [len(query["ap"]) for query in found["queries"]] == [2] * 6
    passages = found["passages"]["4"]
    # best first: scores 2.5, 2.4, 0.9; the fourth is beyond --top
    assert [passages["documents"][number]["id"] for number, _, _ in passages["ranked"][1]] == ["q4-2", "q4-3", "q4-0"]
    assert passages["ranks"][1] == [[1, 1], [3, 3]]
    assert [document["text"] and len(document["text"]) for document in passages["documents"]] == [
        MAX_TEXT + 1,
        None,
        MAX_TEXT + 1,
    ]
    assert found["cut"] == 4
    assert found["start"] == [1, 0]
    tied = queries_of(results_for(system("plain", ROWS, [0.1, 0.2])), max_queries=2, top=1)
    assert tied["passages"]["1"]["ranks"] == [[[1, 2]]]
    assert queries_of(own, max_queries=0, top=3)["passages"] == {}


def test_data_is_given_for_a_task_that_is_there() -> None:
    with pytest.raises(ListconError, match="no run is of a task Other; there are Own"):
        results_for(*both_modes(), data={"Other": Path("x")})
    assert results_for(*both_modes(), data={None: Path("x")}).data == Path("x")


def test_queries_that_cmteb_drops_are_left_out_and_counted() -> None:
    own = system("plain", ROWS, [0.5, 0.25])
    run = own.tasks["Own"]
    run.values["cmteb:map"].pop("q2")  # type: ignore[attr-defined]
    run.values["mteb:map_at_1000"]["q2"] = 0.25  # type: ignore[index]
    found = results_for(own)
    assert (found.query_ids, found.queries_left_out) == (("q1",), 1)
    assert queries_of(found, max_queries=0, top=1)["left_out"] == 1


def test_a_candidate_that_was_not_retrieved_has_no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TaskResults, "texts", lambda *_: ({}, None))
    rows: dict[str, Row] = {"q1": ([0.5, None, 0.7], [0] * 3, [1, 1, 0])}  # type: ignore[list-item]
    own = results_for(system("plain", rows, [0.5]))
    assert run_data.ranks_of_relevant(own, own.systems[0]).tolist() == [[2, 2], [run_data.NOT_RANKED] * 2]
    passages = queries_of(own, max_queries=1, top=9)["passages"]["0"]
    assert passages["ranks"] == [[[2, 2], None]]
    assert [number for number, _, _ in passages["ranked"][0]] == [0, 1]  # and it is not among the ranked
