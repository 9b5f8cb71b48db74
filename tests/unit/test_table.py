"""The comparison table: what is best, what is averaged, how far from the published numbers, and every format."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from listcon_eval.data import Task, local_task
from listcon_eval.errors import ListconError
from listcon_eval.metrics import Measure
from listcon_eval.records import POINTWISE
from listcon_eval.report.page import page
from listcon_eval.report.table import (
    Table,
    as_csv,
    as_json,
    as_text,
    comparison_tables,
    has_block,
    published_row,
    published_rows,
    read_tables,
    update_block,
    with_block,
)
from listcon_eval.results import Result, Signature
from listcon_eval.results.environment import TIES
from listcon_eval.results.records import METRICS, FirstStageRecord, Setting
from result_folders import change_json, evaluated, sealed_again, task_of

TASKS = ("CMedQAv1-reranking", "CMedQAv2-reranking", "MMarcoReranking", "T2Reranking")
ITERATIVE = (90.55, 89.38, 43.88, 69.17)
CARD_REVISION = "2852d459b0e3942733da8756b809f3659649d5a6"
REGISTRY_REVISION = "95ae6a5f422a916bc36520f0f3e198e7d91520a0"


def result(
    model: str,
    task: str = "own",
    percent: float = 50.0,
    *,
    official: bool = False,
    mode: str = "iterative",
    kind: str = "listconranker",
    revision: str = CARD_REVISION,
    data: str = "r1",
    cmteb: Mapping[str, float] | None = None,
    versions: Mapping[str, str] | None = None,
    dropped: int = 0,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    more: Mapping[str, Setting] | None = None,
) -> Result:
    dtype: dict[str, Setting] = {"dtype": "float16"} if kind == "listconranker" else {}
    settings: dict[str, Setting] = {"mode": mode, **dtype, **(more or {})}
    return Result(
        folder=Path(model) / task,
        task=task,
        is_official=official,
        kind=kind,
        model=model,
        model_revision=revision,
        data_revision=data,
        settings=settings,
        queries=10,
        dropped=dropped,
        cmteb=dict({"map": percent / 100} if cmteb is None else cmteb),
        mteb={"map_at_1000": percent / 100, "ndcg_at_10": percent / 100},
        main_score="map_at_1000",
        ranges=dict(ranges or {}),
        signature=Signature(
            task=task,
            data_revision=data,
            model=model,
            model_revision=revision,
            settings=settings,
            ties=TIES,
            versions=dict(versions or {"mteb": "2.26.24"}),
            device="cpu",
        ),
        finished=datetime(2026, 1, 1, tzinfo=UTC),
    )


def official(model: str, values: Sequence[float] = ITERATIVE, **options: str) -> list[Result]:
    return [result(model, task, value, official=True, **options) for task, value in zip(TASKS, values, strict=False)]  # type: ignore[arg-type]


def tables(*runs: Result, published: bool = False, measure: str = "cmteb:map") -> list[Table]:
    return comparison_tables(runs, measure=Measure.parse(measure), with_published=published)


def test_a_measured_row_is_held_against_the_published_one_of_its_model_revision_and_mode() -> None:
    near, far = (90.6549, 89.3, 43.88, 69.0), (91.0, 89.38, 43.88)
    (table,) = tables(
        *official("ByteDance/ListConRanker", near),
        *official("local/ListConRanker", far, revision="sha256-1"),
        *official("someone/ListConRanker"),
        *official("ByteDance/ListConRanker", (90.2,), mode="conventional"),
    )
    first, second, third, fourth = (row.differences for row in table.rows)
    # 90.6549 is printed as 90.65: the difference is that of what is printed
    assert first == {TASKS[0]: 0.1, TASKS[1]: -0.08, TASKS[2]: 0.0, TASKS[3]: -0.17, "Avg.": -0.04}
    assert second == {TASKS[0]: 0.45, TASKS[1]: 0.0, TASKS[2]: 0.0}  # no average without every task
    assert third == {}
    assert fourth == {TASKS[0]: 0.0}
    text = as_text(table)
    assert "Difference to the published number, percent points (✓ within 0.1)" in text
    line = next(
        line for line in text.split("Difference")[1].splitlines() if "ByteDance/" in line and "iterative" in line
    )
    assert line.split()[-10:] == ["+0.10", "✓", "-0.08", "✓", "+0.00", "✓", "-0.17", "✗", "-0.04", "✓"]


def test_each_revision_is_held_against_its_own_published_figures() -> None:
    for revision, mmarco in ((CARD_REVISION, 43.884), (REGISTRY_REVISION, 44.303)):
        values = (90.554, 89.376, mmarco, 69.149)
        runs = official("ByteDance/ListConRanker", values, revision=revision)
        (table,) = tables(*runs, measure="mteb:map_at_1000", published=True)
        assert [row.source for row in table.rows[:2]] == ["published, 2852d459b0e394", "published, 95ae6a5f422a91"]
        assert table.rows[2].differences == dict.fromkeys((*TASKS, "Avg."), 0.0)
    # The card's cmteb figures are of its own revision
    (table,) = tables(*official("ByteDance/ListConRanker", revision=REGISTRY_REVISION))
    assert [row.differences for row in table.rows] == [{}]


def test_figures_are_published_by_more_measures_than_map() -> None:
    by_measure = {name: published_rows(Measure.parse(name)) for name in ("cmteb:mrr_10", "mteb:ndcg_at_10")}
    assert [row.values["T2Reranking"] for row in by_measure["cmteb:mrr_10"]] == [80.0691489076]
    assert [row.values["MMarcoReranking"] for row in by_measure["mteb:ndcg_at_10"]] == [50.565, 50.864]
    (table,) = tables(published=True, measure="mteb:ndcg_at_10")
    assert [row.revision for row in by_measure["mteb:ndcg_at_10"]] == [CARD_REVISION, REGISTRY_REVISION]
    assert [row.values["Avg."] for row in table.rows] == [77.66, 77.73]


def test_other_data_is_not_held_against_published_numbers() -> None:
    (table,) = tables(result("ByteDance/ListConRanker", TASKS[0]))
    assert [row.differences for row in table.rows] == [{}]


def test_dropped_queries_and_open_ranges_are_said_below_cmtebs_table() -> None:
    runs = [result("org/model", dropped=4, cmteb={"map": 0.5, "mrr_10": 0.6}, ranges={"mrr_10": (0.55, 0.7)})]
    (table,) = tables(*runs)
    assert table.notes == [
        "model, iterative, own: not counted, for want of a relevant or another candidate: 4 of 10 queries"
    ]
    (table,) = tables(*runs, measure="cmteb:mrr_10")
    assert "any other order of them gives 55.00 to 70.00" in as_text(table)
    assert tables(*runs, measure="mteb:map_at_1000")[0].notes == []


def test_a_terminal_shows_what_differs_between_signatures_and_nothing_else() -> None:
    runs = [result("org/a", versions={"mteb": "2.26.0"}), result("org/b", versions={"mteb": "2.26.1", "torch": "2"})]
    text = as_text(tables(*runs)[0])
    assert "The signatures differ in mteb:" in text
    assert "  b, iterative, measured, float16, 2852d459b0e394: mteb 2.26.1" in text
    assert "ties" not in text
    assert "torch" not in text
    assert "differ" not in as_text(tables(result("org/a"), result("org/b"))[0])
    assert as_text(tables(*runs)[0], "markdown").count("|ties:") == 2


def test_a_table_keeps_to_the_terminal_and_cuts_no_number() -> None:
    (table,) = tables(*official("ByteDance/ListConRanker"), published=True)
    text = as_text(table, width=80).split("\n\n*:")[0]
    assert max(map(len, text.splitlines())) <= 80
    for value in (*ITERATIVE, "73.25*", "91.39*"):
        assert str(value) in text
    assert as_text(table, width=40) == as_text(table)


@pytest.mark.parametrize("sealed", [False, True])
def test_a_table_never_shows_a_number_that_was_edited(sealed: bool, tmp_path: Path) -> None:
    lists = {"one": [("a", 1), ("b", 0)], "two": [("a", 0), ("c", 1), ("d", 0)]}
    first, _ = evaluated(tmp_path, [task_of(lists, local(tmp_path))])
    (table,) = read_tables(tmp_path, "cmteb:map")
    assert table.rows[0].values == {"own": round(100 * first.cmteb["map"], 2)}
    change_json(first.file(METRICS), **{"cmteb.map": "high" if sealed else 0.99})
    if sealed:  # then its content is still checked
        sealed_again(first)
    with pytest.raises(ListconError, match="cmteb.map" if sealed else "was changed after the run"):
        read_tables(tmp_path, "cmteb:map")


def local(folder: Path) -> Task:
    path = folder / "own.jsonl"
    path.write_text(json.dumps({"query": "q", "positive": ["a"], "negative": ["b"]}) + "\n", encoding="utf-8")
    return local_task(path, name="own")


@pytest.mark.parametrize(
    ("model", "published"),
    [
        ("TencentBAC/Conan-embedding-v1", "Conan-embedding-v1"),
        ("iampanda/zpoint_large_embedding_zh", "zpoint-large-embedding-zh"),
        ("local/zpoint_large_embedding_zh", "zpoint-large-embedding-zh"),
        ("neofung/LdIR-Qwen2-reranker-1.5B", "LdIR-Qwen2-reranker-1.5B"),
        ("someone/Conan-embedding-v1", None),
        ("local/ListConRanker", None),  # its mode is none of the published ones
    ],
)
def test_other_systems_have_no_mode_and_their_published_rows(model: str, published: str | None) -> None:
    run = result(model, TASKS[0], official=True, mode=POINTWISE, kind="embedding", revision="rev")
    row = published_row(run, Measure.parse("cmteb:map"))
    assert (row.model if row else None) == published
    (table,) = tables(run)
    assert table.rows[0].mode == "-"
    assert table.rows[0].source == "measured, rev"


def test_the_best_is_bold_and_the_oracle_never_is() -> None:
    runs = [
        result("local/oracle", "a", 100, kind="oracle", mode=POINTWISE),
        result("local/bm25-char", "a", 60.001, kind="bm25", mode=POINTWISE),
        result("local/bm25-char", "b", 10, kind="bm25", mode=POINTWISE),
        result("org/model", "a", 60.004),
        result("local/random", "a", 20, kind="random", mode=POINTWISE),
        result("org/model", "c", 30),
    ]
    (table,) = tables(*runs)
    names = [row.model for row in table.rows]
    assert names == ["oracle (upper bound)", "BM25 (char)", "model", "random order"]
    # equal as printed is equal; a column with one number has no best
    assert [row.best_of for row in table.rows] == [[], ["a"], ["a"], []]
    assert as_text(table, "markdown").count("**60.00**") == 2
    assert as_text(table).count("60.00*") == 2
    assert as_text(table, "latex").count(r"\textbf{60.00}") == 2


def test_two_models_of_one_name_are_two_rows() -> None:
    (table,) = tables(result("one/model", percent=1), result("two/model", percent=2))
    assert [row.model for row in table.rows] == ["model, one/model", "model, two/model"]
    assert [row.values["own"] for row in table.rows] == [1, 2]
    (table,) = tables(result("one/model"), result("one/model", mode="conventional"))
    assert [row.model for row in table.rows] == ["model", "model"]


def test_runs_that_differ_in_another_setting_are_told_apart() -> None:
    runs = [result("org/a", percent=50 + length / 100, more={"max_length": length}) for length in (128, 512)]
    (table,) = comparison_tables([*runs, result("org/b")])
    shown = f"measured, float16, {CARD_REVISION[:14]}"
    assert [row.source for row in table.rows] == [f"{shown}, max_length 128", f"{shown}, max_length 512", shown]
    assert len({row.name for row in table.rows}) == 3
    kinds = [result("org/a", kind=kind, mode=POINTWISE) for kind in ("embedding", "cross-encoder")]
    (table,) = comparison_tables(kinds)
    assert [row.source.rpartition(", ")[2] for row in table.rows] == ["kind embedding", "kind cross-encoder"]
    (table,) = comparison_tables([result("org/a", revision=f"finetuned-step-{step}") for step in (1000, 2000)])
    assert [row.source.rpartition(", ")[2] for row in table.rows] == [
        "revision finetuned-step-1000",
        "revision finetuned-step-2000",
    ]


def test_a_note_names_the_row_that_it_is_of() -> None:
    lengths = {128: (0.7, 0.9), 512: (0.8, 0.81)}
    runs = [
        result("org/a", more={"max_length": length}, cmteb={"mrr_1": 0.8}, ranges={"mrr_1": ranges})
        for length, ranges in lengths.items()
    ]
    (table,) = tables(*runs, result("org/b", cmteb={"mrr_1": 1}, ranges={"mrr_1": (0, 1)}), measure="cmteb:mrr_1")
    names = [note.partition(", own:")[0] for note in table.notes]
    assert names == [table.rows[0].name, table.rows[1].name, "b, iterative"]


def test_a_task_that_is_called_like_a_column_keeps_its_own() -> None:
    (row,) = csv.DictReader(io.StringIO(as_csv(tables(result("org/a", task="Model", percent=12)))))
    assert (row["Model"], row["Model (task)"]) == ("a", "12.00")


def test_two_data_sets_of_one_name_share_no_column() -> None:
    (table,) = tables(result("one/model", percent=1, data="sha-a"), result("two/model", percent=2, data="sha-b"))
    assert table.columns == ["own@sha-a", "own@sha-b"]


def staged(task: str, percent: float, kind: str, data: str, top_k: int = 5) -> Result:
    stage = FirstStageRecord(name="s", revision="1", top_k=top_k, recall=0.5)
    made = result(f"org/{kind}", task, percent, kind=kind, mode=POINTWISE, data=data)
    return made.model_copy(update={"first_stage": stage})


def test_the_gain_on_a_first_stage_is_that_on_the_same_revision_of_the_data() -> None:
    runs = [
        staged("own[s-top-5]", percent, kind, data)
        for data, values in (("sha-a", (40, 90, 50)), ("sha-b", (60, 80, 50)))
        for kind, percent in zip(("first-stage", "oracle", "embedding"), values, strict=True)
    ]
    (table,) = tables(*runs, measure="mteb:main_score")
    assert [note for note in table.notes if "embedding" in note] == [
        "own[s-top-5]@sha-a, embedding: +10.00 on the first stage, of +50.00 that reordering can gain",
        "own[s-top-5]@sha-b, embedding: -10.00 on the first stage, of +20.00 that reordering can gain",
    ]


def variant(task: str, **signature: int) -> Result:
    made = result("org/model", task)
    return made.model_copy(update={"signature": made.signature.model_copy(update=signature)})


@pytest.mark.parametrize(
    ("runs", "averaged"),
    [
        ([variant("one"), variant("two")], True),
        ([variant("one"), variant("two-first3", limit=3)], True),
        ([variant("one"), variant("one-first3")], True),  # the name of other data
        ([variant("one"), variant("one-first3", limit=3)], False),
        ([variant("one-relevance2", relevance=2), variant("one-first3-relevance2", limit=3, relevance=2)], False),
        ([staged("one[s-top-5]", 1, "x", "a"), staged("one[s-top-9]", 1, "x", "b", 9)], False),
        ([staged("one[s-top-5]", 1, "x", "a"), staged("two[s-top-5]", 1, "x", "b")], True),
        ([variant("Avg.")], False),
    ],
)
def test_several_measurements_of_one_data_set_have_no_average(runs: list[Result], averaged: bool) -> None:
    (table,) = tables(*runs)
    assert (table.columns[-1] == "Avg." and len(table.columns) > len(runs)) is averaged
    assert len(table.columns) == len(runs) + averaged
    assert len(table.rows[0].values) == len(table.columns)


def test_a_run_without_the_measure_is_left_out() -> None:
    assert tables(result("org/model", cmteb={})) == []
    assert len(tables(result("org/model", cmteb={}), measure="mteb:map_at_1000")) == 1


def test_programs_get_percent_with_two_decimals() -> None:
    (first, second) = found = tables(
        *official("ByteDance/ListConRanker"), result("org/a,b", percent=12.345), published=True
    )
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert len(rows) == 8
    assert rows[6]["T2Reranking"] == "69.17"
    assert (rows[6]["T2Reranking difference"], rows[6]["T2Reranking within 0.1"]) == ("0.00", "true")
    assert (rows[0]["T2Reranking difference"], rows[0]["T2Reranking within 0.1"]) == ("", "")
    assert (rows[7]["Data"], rows[7]["Model"], rows[7]["own"], rows[7]["T2Reranking"]) == ("other", "a,b", "12.35", "")
    content = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert [table["official"] for table in content["tables"]] == [True, False]
    row = content["tables"][0]["rows"][6]
    assert row["values"] == dict(zip((*TASKS, "Avg."), (*ITERATIVE, 73.25), strict=True))
    assert row["difference_to_published"]["Avg."] == {"difference": 0.0, "within_0.1": True}
    assert row["best_of"] == ["MMarcoReranking", "Avg."]
    assert row["signatures"]["T2Reranking"] == str(official("ByteDance/ListConRanker")[3].signature)
    assert content["tables"][1]["rows"][0]["values"] == {"own": 12.35}
    assert (first.official, second.official) == (True, False)


def test_names_do_not_break_markdown_or_latex() -> None:
    (table,) = tables(result("org/a|b_c%", percent=1), result("org/d", percent=2))
    (row,) = [line for line in as_text(table, "markdown").splitlines() if "a\\|b" in line]
    assert row.count("|") == 6
    latex = as_text(table, "latex")
    assert r"a|b\_c\%" in latex
    for rule in ("toprule", "midrule", "bottomrule"):
        assert latex.count(rf"\{rule}") == 1
    assert r"\hline" not in latex


def test_the_page_shows_differences_and_escapes_names() -> None:
    runs = [*official("ByteDance/ListConRanker", (90.6, 88.0)), *official("org/<script>alert(1)", (1.0,))]
    text = page(tables(*runs, published=True), [])
    assert text.count("<script>alert") == 0
    assert "&lt;script&gt;alert(1)" in text
    assert '90.60<br><small class="close">+0.05 ✓</small>' in text
    assert '88.00<br><small class="far">-1.38 ✗</small>' in text
    assert "<strong>91.39</strong>" in text


BLOCK = "head\r\nwrite `<!-- listcon-eval table -->` here\r\n<!-- listcon-eval table -->\r\nold\r\n<!-- end -->\r\ntail"


def test_the_readme_block_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_bytes(BLOCK.encode())
    run = result("org/model")
    update_block(path, tables(run))
    text = path.read_bytes().decode()
    head, _, tail = text.partition("\r\nold\r\n" if "old" in text else "\r\n\r\n**Other data")
    assert head == BLOCK.partition("\r\nold")[0]
    assert tail.endswith(f"- `{run.signature}`\r\n\r\n<!-- end -->\r\ntail")
    assert "\n" not in text.replace("\r\n", "")
    update_block(path, tables(run))
    assert path.read_bytes().decode() == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nothing\n", "has no place for the table: put the lines"),
        ("say `<!-- listcon-eval table -->`\n", "has no place for the table"),
        ("<!-- listcon-eval table -->\n", "has no <!-- end --> after it"),
        ("<!-- end -->\n<!-- listcon-eval table -->\n", "has no <!-- end --> after it"),
        ("<!-- listcon-eval table -->\n<!-- end -->\n" * 2, "has 2 lines"),
    ],
)
def test_a_readme_that_cannot_be_changed_is_left_alone(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(ListconError, match=reason):
        update_block(path, [])
    assert path.read_text() == text
    with pytest.raises(ListconError, match="cannot be read"):
        update_block(tmp_path / "nowhere.md", [])


def test_a_block_is_found_whatever_ends_the_lines() -> None:
    for end in ("\n", "\r\n", "\r"):
        text = end.join(["a", "<!-- listcon-eval table -->", "<!-- end -->", "b"])
        assert has_block(text)
        assert with_block(text, [], Path("x")) == end.join(
            ["a", "<!-- listcon-eval table -->", "", "", "", "<!-- end -->", "b"]
        )
