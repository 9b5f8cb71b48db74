"""The comparison table: what is best, what is averaged, how far from the published numbers, and every format."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from listcon_eval.errors import ListconError
from listcon_eval.metrics import Measure
from listcon_eval.records import NO_PRECISION
from listcon_eval.report import Table, comparison
from listcon_eval.report.block import has_block, markdown_block, update_block, with_block
from listcon_eval.report.page import page
from listcon_eval.report.published import published_key
from listcon_eval.report.styles import as_csv, as_json, as_latex, as_text
from listcon_eval.results import RunRecord

TASKS = ("CMedQAv1-reranking", "CMedQAv2-reranking", "MMarcoReranking", "T2Reranking")
ITERATIVE = (90.55, 89.38, 43.88, 69.17)


def record(
    model: str,
    task: str = "own",
    percent: float = 50.0,
    *,
    official: bool = False,
    mode: str = "iterative",
    kind: str = "listconranker",
    revision: str = "rev",
    data: str = "r1",
    cmteb: Mapping[str, float] | None = None,
) -> RunRecord:
    return RunRecord(
        folder=Path(model) / task,
        task=task,
        is_official=official,
        model=model,
        model_revision=revision,
        mode=mode,
        precision="published" if kind == "listconranker" else NO_PRECISION,
        queries=1,
        cmteb=dict({"map": percent / 100} if cmteb is None else cmteb),
        mteb={"map_at_1000": percent / 100},
        signature=f"{task}@{data}|{model}",
        kind=kind,
    )


def official(model: str, values: tuple[float, ...] = ITERATIVE, **options: str) -> list[RunRecord]:
    return [record(model, task, value, official=True, **options) for task, value in zip(TASKS, values, strict=False)]  # type: ignore[arg-type]


def tables(*runs: RunRecord, published: bool = False, measure: str = "cmteb:map") -> list[Table]:
    return comparison(runs, measure=Measure.parse(measure), with_published=published, official_order=TASKS)


def test_a_measured_row_is_held_against_the_published_one_of_its_model_and_mode() -> None:
    near, far = (90.6549, 89.3, 43.88, 69.0), (91.0, 89.38, 43.88)
    (table,) = tables(
        *official("ByteDance/ListConRanker", near),
        *official("local/ListConRanker", far, revision="sha256-1"),
        *official("someone/ListConRanker", revision="other"),
        *official("ByteDance/ListConRanker", (90.2,), mode="conventional"),
    )
    first, second, third, fourth = table.differences
    # 90.6549 is printed as 90.65: the difference is that of what is printed
    assert first == {TASKS[0]: 0.1, TASKS[1]: -0.08, TASKS[2]: 0.0, TASKS[3]: -0.17, "Avg.": -0.04}
    assert second == {TASKS[0]: 0.45, TASKS[1]: 0.0, TASKS[2]: 0.0}  # no average without every task
    assert third == {}
    assert fourth == {TASKS[0]: 0.0}
    text = as_text(table)
    assert "Difference to the published number, percent points (✓ within 0.1)" in text
    line = next(line for line in text.split("Difference")[1].splitlines() if "rev" in line and "iterative" in line)
    assert line.split()[-10:] == ["+0.10", "✓", "-0.08", "✓", "+0.00", "✓", "-0.17", "✗", "-0.04", "✓"]


def test_other_data_and_other_measures_are_not_held_against_published_numbers() -> None:
    (table,) = tables(record("ByteDance/ListConRanker", TASKS[0]))
    assert table.differences == [{}]
    (table,) = tables(*official("ByteDance/ListConRanker"), measure="mteb:map_at_1000")
    assert table.differences == [{}]


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
    run = record(model, TASKS[0], official=True, mode="pointwise", kind="embedding")
    key = published_key(run)
    assert (key.model if key else None) == published
    (table,) = tables(run)
    assert table.rows[0].mode == "-"
    assert table.rows[0].source == "measured, rev"


def test_the_best_is_bold_and_the_oracle_never_is() -> None:
    runs = [
        record("local/oracle", "a", 100, kind="oracle", mode="pointwise"),
        record("local/bm25-char", "a", 60.001, kind="bm25", mode="pointwise"),
        record("local/bm25-char", "b", 10, kind="bm25", mode="pointwise"),
        record("org/model", "a", 60.004),
        record("local/random", "a", 20, kind="random", mode="pointwise"),
        record("org/model", "c", 30),
    ]
    (table,) = tables(*runs)
    names = [row.model for row in table.rows]
    assert names == ["oracle (upper bound)", "BM25 (char)", "model", "random order"]
    # equal as printed is equal; a column with one number has no best
    assert [row["a"] for row in table.best] == [False, True, True, False]
    assert [any((row["b"], row["c"], row["Avg."])) for row in table.best] == [False] * 4
    assert as_text(table, "markdown").count("**60.00**") == 2
    assert as_text(table).count("\x1b[1m60.00\x1b[0m") == 2
    assert as_latex(table).count(r"\textbf{60.00}") == 2


def test_two_models_of_one_name_are_two_rows() -> None:
    (table,) = tables(record("one/model", percent=1), record("two/model", percent=2))
    assert [row.model for row in table.rows] == ["model, one/model", "model, two/model"]
    assert table.frame["own"].tolist() == [1, 2]
    (table,) = tables(record("one/model"), record("one/model", mode="conventional"))
    assert [row.model for row in table.rows] == ["model", "model"]


def test_two_data_sets_of_one_name_share_no_column() -> None:
    (table,) = tables(record("one/model", percent=1, data="sha-a"), record("two/model", percent=2, data="sha-b"))
    assert table.tasks == ("own@sha-a", "own@sha-b")


def test_a_run_without_the_measure_is_left_out() -> None:
    assert tables(record("org/model", cmteb={})) == []
    assert len(tables(record("org/model", cmteb={}), measure="mteb:map_at_1000")) == 1


def test_programs_get_percent_with_two_decimals() -> None:
    (first, second) = found = tables(
        *official("ByteDance/ListConRanker"), record("org/a,b", percent=12.345), published=True
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
    assert row["signatures"]["T2Reranking"] == "T2Reranking@r1|ByteDance/ListConRanker"
    assert content["tables"][1]["rows"][0]["values"] == {"own": 12.35}
    assert (first.is_official, second.is_official) == (True, False)


def test_names_do_not_break_markdown_or_latex() -> None:
    (table,) = tables(record("org/a|b_c%", percent=1), record("org/d", percent=2))
    (row,) = [line for line in as_text(table, "markdown").splitlines() if "a\\|b" in line]
    assert row.count("|") == 6
    latex = as_latex(table)
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
    run = record("org/model")
    update_block(path, markdown_block(tables(run), [run]))
    text = path.read_bytes().decode()
    head, _, tail = text.partition("\r\nold\r\n" if "old" in text else "\r\n\r\n**Other data")
    assert head == BLOCK.partition("\r\nold")[0]
    assert tail.endswith("- `own@r1|org/model`\r\n\r\n<!-- end -->\r\ntail")
    assert "\n" not in text.replace("\r\n", "")
    update_block(path, markdown_block(tables(run), [run]))
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
        update_block(path, "new")
    assert path.read_text() == text
    with pytest.raises(ListconError, match="cannot be read"):
        update_block(tmp_path / "nowhere.md", "new")


def test_a_block_is_found_whatever_ends_the_lines() -> None:
    for end in ("\n", "\r\n", "\r"):
        text = end.join(["a", "<!-- listcon-eval table -->", "<!-- end -->", "b"])
        assert has_block(text)
        assert with_block(text, "new", Path("x")) == end.join(
            ["a", "<!-- listcon-eval table -->", "", "new", "", "<!-- end -->", "b"]
        )
