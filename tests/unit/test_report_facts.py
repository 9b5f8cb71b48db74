"""The numbers behind a report's figures, by hand, and what stands in the list of queries."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from listcon_eval.compare import Contestant, TaskRun
from listcon_eval.errors import ListconError
from listcon_eval.report import facts
from listcon_eval.report.material import TaskMaterial, gather, records_of
from listcon_eval.report.queries import LONGEST_TEXT, queries_of
from listcon_eval.results import RankedQuery, RunRecord

Row = tuple[Sequence[float], Sequence[int], Sequence[int]]
"""One query: scores, rounds and judgements of its candidates."""


def contestant(
    label: str,
    rows: Mapping[str, Row],
    ap: Sequence[float],
    *,
    mode: str | None = "conventional",
    kind: str = "listconranker",
    measure: str = "cmteb:map",
) -> Contestant:
    """A run without files; without a mode it is a TREC run."""
    rankings = {
        query_id: RankedQuery(
            query_id,
            None if mode is None else f"text of {query_id}",
            tuple(f"{query_id}-{place}" for place in range(len(scores))),
            tuple(scores),
            tuple(rounds),
            tuple(relevance),
            tuple(value > 0 for value in relevance),
        )
        for query_id, (scores, rounds, relevance) in rows.items()
    }
    values = {measure: dict(zip(rows, ap, strict=True))}
    if measure != "mteb:map_at_1000":
        values["mteb:map_at_1000"] = values[measure]
    record = None
    if mode is not None:
        record = RunRecord(
            Path(label), "Own", False, "org/model", "r", mode, "precise", len(rows), {"map": 0.5},
            {"map_at_1000": 0.5}, "Own@d|org/model@r", kind,
        )  # fmt: skip
    signature = f"Own@d|{label}@r" if mode else f"qrels@qrels-1|TREC run {label}@sha256-1|ties"
    run = TaskRun("Own", "d" if mode else None, signature, values, lambda: rankings, record)
    return Contestant(label, {"Own": run})


LONG: Row = ([0.9, 0.8, 2.5, 2.4], [0, 0, 1, 1], [1, 0, 1, 0])
SHORT: Row = ([0.3, 0.3], [0, 0], [0, 1])
ROWS = {"q1": LONG, "q2": SHORT}


def material(
    *contestants: Contestant, before: str | None = None, data: Mapping[str | None, Path] | None = None
) -> TaskMaterial:
    (found,) = gather(contestants, before=before, data=data)
    return found


def both_modes() -> list[Contestant]:
    return [contestant("plain", ROWS, [0.5, 0.25]), contestant("rounds", ROWS, [0.75, 0.25], mode="iterative")]


def test_changes_are_counted_up_to_rounding() -> None:
    before, after = np.array([0.5, 0.5, 0.5]), np.array([0.6, 0.5 + 1e-12, 0.1])
    assert facts.count_changes(before, after) == (1, 1, 1)


def test_gain_by_length_bins_few_lengths_one_by_one_and_many_by_queries() -> None:
    lengths, gains = np.array([10, 10, 30]), np.array([1.0, 2.0, -3.0])
    assert facts.gain_by_length(lengths, gains) == [(10, 10, 2, 1.5), (30, 30, 1, -3.0)]
    lengths = np.arange(1, 101)
    found = facts.gain_by_length(lengths, lengths.astype(float))
    assert len(found) == 8
    assert sum(row.queries for row in found) == 100
    assert max(row.queries for row in found) <= 14
    assert (found[0].shortest, found[-1].longest) == (1, 100)
    assert all(row.gain == pytest.approx((row.shortest + row.longest) / 2) for row in found)


def test_ranks_before_and_after() -> None:
    own = material(contestant("plain", ROWS, [0.5, 0.25]))
    # q1: 2.5 is first and 0.9 third; q2: either of two tied candidates can be first
    assert facts.ranks_of_relevant(own, own.systems[0]).tolist() == [[3, 3], [1, 1], [1, 2]]
    assert facts.candidate_places(own).tolist() == [[1, 1], [3, 3], [2, 2]]
    assert facts.positives_first(own) == (0, 2)
    listed = {"q1": ([1.0, 0.5, 0.2], [0] * 3, [1, 2, 0]), "q2": ([1.0], [0], [1])}
    assert facts.positives_first(material(contestant("plain", listed, [1, 1]))) == (1, 1)


def test_what_a_trec_run_does_not_list_is_not_ranked() -> None:
    short = {"q1": ([2.0], [0], [1]), "q2": SHORT}  # of q1's candidates the first alone
    trec = contestant("other", short, [0.5, 0.7], mode=None, measure="mteb:map_at_1000")
    own = material(trec, contestant("plain", ROWS, [0.5, 0.25]))
    assert own.lengths.tolist() == [4, 2]
    ranks = facts.ranks_of_relevant(own, own.systems[0])
    assert ranks.tolist() == [[1, 1], [facts.NOT_RANKED] * 2, [1, 2]]
    assert facts.share_within(ranks, np.array([4])).tolist() == pytest.approx([2 / 3])


def test_a_tied_passage_counts_as_ties_broken_at_random() -> None:
    depths = np.array([1, 2, 3, 4])
    assert facts.share_within(np.array([[3, 3], [1, 1]]), depths).tolist() == [0.5, 0.5, 1, 1]
    assert facts.share_within(np.array([[1, 2], [1, 2]]), depths).tolist() == [0.5, 1, 1, 1]  # an oracle's two
    assert facts.share_within(np.zeros((0, 2), dtype=np.int64), depths).tolist() == [0] * 4
    scores = [0.5, 0.5, 0.5, 0.9, 0.1]
    relevant = np.array([True, False, True, False, True])
    generator = np.random.default_rng(0)
    found = np.zeros(4)
    for _ in range(4000):
        order = np.lexsort((generator.random(5), -np.array(scores)))
        found += [relevant[order[:depth]].sum() / 3 for depth in depths]
    expected = facts.share_within(facts.tied_ranks(scores)[relevant], depths)
    assert expected == pytest.approx(found / 4000, abs=0.02)


def test_rounds_tell_the_dropped_from_the_last_round_of_a_list() -> None:
    own = material(*both_modes())
    # q1 drops two in round 0 and keeps two for round 1; q2 has one round, its last
    assert facts.rounds(own, own.systems[1]) == [(0, 2, 1, 2, 1), (1, 0, 0, 2, 1)]
    assert own.mode_pairs == [(own.systems[0], own.systems[1])]


def test_what_stood_before_is_chosen_by_name_or_is_bm25() -> None:
    runs = [*both_modes(), contestant("BM25 (pairs)", ROWS, [0.1, 0.2], mode="pointwise", kind="bm25")]
    found = material(*runs)
    assert found.before is found.systems[2]
    assert material(*runs, before="data").before is None
    chosen = material(*runs, before="plain")
    assert chosen.before is chosen.systems[0]
    assert material(*both_modes()).before is None
    with pytest.raises(ListconError, match=r"--before 'n' names 2 of the runs; .*plain; rounds"):
        material(*runs, before="n")
    with pytest.raises(ListconError, match="names 0 of the runs"):
        material(*runs, before="nowhere")


def test_a_trec_run_makes_ap_mtebs_and_has_a_row_in_its_table() -> None:
    trec = contestant("other", ROWS, [0.5, 0.7], mode=None, measure="mteb:map_at_1000")
    found = material(trec, contestant("plain", ROWS, [0.5, 0.25]))
    assert str(found.measure) == "mteb:map_at_1000"
    row, _ = records_of([found])
    assert (row.kind, row.cmteb) == ("run-file", {})
    assert row.mteb == pytest.approx({"map_at_1000": 0.6})
    assert row.data_revision == "d"
    assert found.query_text("q1") == "text of q1"
    alone = material(trec)
    assert not alone.is_in_candidate_order
    assert "ids alone" in (alone.texts(["q1"])[1] or "")


def test_passages_are_given_for_the_worst_and_the_most_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: dict[str, Row] = {f"q{place}": LONG for place in range(6)}
    first = contestant("plain", rows, [0.0, 0.2, 0.9, 0.8, 0.7, 0.6])
    second = contestant("rounds", rows, [0.0, 0.2, 0.9, 0.8, 0.1, 0.6], mode="iterative")
    own = material(first, second)
    texts = {query_id: {f"{query_id}-{place}": "字" * 600 for place in range(3)} for query_id in rows}
    monkeypatch.setattr(TaskMaterial, "texts", lambda _self, ids: ({name: texts[name] for name in ids}, None))
    found = queries_of(own, most=2, top=3)
    assert sorted(found["passages"]) == ["0", "4"]
    assert [len(query["ap"]) for query in found["queries"]] == [2] * 6
    passages = found["passages"]["4"]
    # best first: scores 2.5, 2.4, 0.9; the fourth is beyond --top
    assert [passages["documents"][number]["id"] for number, _, _ in passages["ranked"][1]] == ["q4-2", "q4-3", "q4-0"]
    assert passages["ranks"][1] == [[1, 1], [3, 3]]
    assert [document["text"] and len(document["text"]) for document in passages["documents"]] == [
        LONGEST_TEXT + 1,
        None,
        LONGEST_TEXT + 1,
    ]
    assert found["cut"] == 4
    assert found["start"] == [1, 0]
    tied = queries_of(material(contestant("plain", ROWS, [0.1, 0.2])), most=2, top=1)
    assert tied["passages"]["1"]["ranks"] == [[[1, 2]]]
    assert queries_of(own, most=0, top=3)["passages"] == {}


def test_data_is_given_for_a_task_that_is_there() -> None:
    with pytest.raises(ListconError, match="no run is of a task Other; there are Own"):
        material(*both_modes(), data={"Other": Path("x")})
    assert material(*both_modes(), data={None: Path("x")}).data == Path("x")
