import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from mteb.abstasks.text import reranking
from mteb.abstasks.text.reranking import AbsTaskReranking

from listcon_eval.data import local_task
from listcon_eval.errors import ListconError

ROWS: list[dict[str, Any]] = [
    {"query": "皮蛋是寒性的食物吗", "positive": [" 皮蛋性凉。", "是的"], "negative": ["月有阴晴圆缺"]},
    {"query": "月亮", "positive": [], "negative": ["", "月有阴晴圆缺"]},
    {"query": "月亮", "positive": ["月有阴晴圆缺"], "negative": []},
]
SHARED_DATA = Path(__file__).parents[2].parent / "shared" / "data"


def as_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(as_lines(rows).encode(), mtime=0))
    else:
        path.write_text(as_lines(rows), encoding="utf-8")
    return path


def row(**changes: object) -> dict[str, Any]:
    return {"query": "问", "positive": ["甲"], "negative": ["乙"], **changes}


def refused(path: Path) -> str:
    with pytest.raises(ListconError) as caught:
        local_task(path)
    return str(caught.value)


@pytest.mark.parametrize("name", ["mini.jsonl", "mini.json", "mini.jsonl.gz", "mini.json.gz", "mini.parquet"])
def test_every_kind_of_file_gives_the_same_task(tmp_path: Path, name: str) -> None:
    task = local_task(write(tmp_path / name, ROWS))
    first, second, third = task.candidate_lists()
    assert (task.name, task.split, task.source, task.is_official) == ("mini", "test", "local", False)
    assert first.query_id == "test_query0"
    assert first.query == "皮蛋是寒性的食物吗"
    assert first.doc_ids == (
        "apositive_test_query0_00000",
        "apositive_test_query0_00001",
        "negative_test_query0_00000",
    )
    assert first.passages == ("皮蛋性凉。", "是的", "月有阴晴圆缺")  # stripped, as mteb hands them to a model
    assert first.relevance == (1, 1, 0)
    assert (second.passages, second.relevance) == (("", "月有阴晴圆缺"), (0, 0))
    assert (third.query, third.passages, third.relevance) == ("月亮", ("月有阴晴圆缺",), (1,))
    assert task.qrels()["test_query1"] == {"negative_test_query1_00000": 0, "negative_test_query1_00001": 0}


@pytest.mark.filterwarnings("ignore:This class is deprecated")
def test_ids_and_parts_are_those_of_mtebs_own_conversion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(query=f"问{i}", positive=["甲"] * (i + 1), negative=["乙", "甲"]) for i in range(3)]
    ours = local_task(write(tmp_path / "mini.jsonl", rows)).mteb_task

    class Converted(AbsTaskReranking):
        metadata = ours.metadata

    monkeypatch.setattr(reranking, "OLD_FORMAT_RERANKING_TASKS", ["mini"])
    theirs = Converted()
    theirs.transform_old_dataset_format({"test": datasets.Dataset.from_list(rows)})
    own, other = (task.dataset["default"]["test"] for task in (ours, theirs))
    assert own["queries"].to_list() == other["queries"].to_list()
    columns = ["id", "title", "text"]
    assert own["corpus"].select_columns(columns).to_list() == other["corpus"].select_columns(columns).to_list()
    assert own["relevant_docs"] == other["relevant_docs"]
    assert own["top_ranked"] == other["top_ranked"]


def test_the_revision_is_of_the_content(tmp_path: Path) -> None:
    plain = local_task(write(tmp_path / "one.jsonl", ROWS)).revision
    assert plain.startswith("sha256-")
    assert len(plain) == len("sha256-") + 40
    assert local_task(write(tmp_path / "two.parquet", ROWS)).revision == plain
    changed = [{**ROWS[0], "negative": ["月有阴晴圆缺。"]}, *ROWS[1:]]
    moved = [{**ROWS[0], "positive": [" 皮蛋性凉。"], "negative": ["是的", "月有阴晴圆缺"]}, *ROWS[1:]]
    assert len({plain, *(local_task(write(tmp_path / "x.jsonl", r)).revision for r in (changed, moved))}) == 3


def test_ids_of_the_rows_are_used(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row(query_id="cmrc:7"), row(query_id=8)])
    first, second = local_task(path).candidate_lists()
    assert (first.query_id, second.query_id) == ("cmrc:7", "8")
    assert first.doc_ids == ("apositive_cmrc:7_00000", "negative_cmrc:7_00000")


def test_shards_of_a_folder_are_read_in_order(tmp_path: Path) -> None:
    for number, entry in enumerate(ROWS):
        write(tmp_path / "medical" / f"test-{number:05d}-of-00003.parquet", [row(query=entry["query"])])
    (tmp_path / "medical" / "README.md").write_text("# Data\n")
    task = local_task(tmp_path / "medical")
    assert task.name == "medical"
    assert [c.query for c in task.candidate_lists()] == [entry["query"] for entry in ROWS]


@pytest.mark.parametrize(
    "names",
    [
        ("a.jsonl", "a.jsonl.gz"),
        ("a.json", "a.jsonl"),
        ("test.jsonl", "data/test-00000-of-00001.parquet"),
        ("test.parquet", "test-00000-of-00001.parquet"),
        ("test-00000-of-00001.parquet", "test-00000-of-00002.parquet", "test-00001-of-00002.parquet"),
        ("test-00000-of-00001-abc.parquet", "test-00000-of-00001-def.parquet"),
        ("test-00000-of-00002.parquet",),
        ("test-00000-of-00003.parquet", "test-00002-of-00003.parquet"),
        ("test-00000-of-00002.parquet", "test-00001-of-00002.jsonl"),
        ("test-00000-of-00002.parquet", "train-00000-of-00001.parquet", "train-00001-of-00002.parquet"),
    ],
)
def test_a_folder_that_holds_data_twice_or_in_part_is_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write(tmp_path / "folder" / name, ROWS)
    said = refused(tmp_path / "folder")
    assert f"{tmp_path / 'folder'}: found " in said
    assert names[0] in said
    assert "expected one file, or all shards of one set" in said


def test_a_data_folder_and_its_test_split_are_found(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train-00000-of-00001-abc.parquet", [row(query="甲")])
    write(tmp_path / "data" / "test-00000-of-00001-abc.parquet", [row(query="乙")])
    assert [c.query for c in local_task(tmp_path).candidate_lists()] == ["乙"]


def test_a_folder_of_several_data_sets_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ROWS)
    write(tmp_path / "b.jsonl", ROWS)
    assert "found a, b, expected 'test' or a single one" in refused(tmp_path)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"query": "问", "positive": ["甲"]},
            "no 'negative'; expected query, positive, negative, the row has query",
        ),
        (row(positive="甲"), "positive is '甲' (str); expected a list of texts"),
        (row(positive=None), "positive is None (NoneType); expected a list of texts"),
        (row(negative=["甲", 7]), "negative[1] is 7 (int); expected a text"),
        (row(query=["问"]), "query is ['问'] (list); expected a text"),
        (row(query=" "), "the query is empty (' ')"),
        (row(query_id="first"), "query_id 'first' was used before"),
        (row(query_id=1.5), "query_id is 1.5 (float); expected an id: a text or a whole number"),
        (row(query_id="q9", positive=[], negative=[]), "query 'q9' has no passages"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, bad: Mapping[str, Any], message: str) -> None:
    path = write(tmp_path / "a.jsonl", [row(query_id="first"), dict(bad)])
    said = refused(path)
    assert said.startswith(f"{path}, line 2: ")
    assert message in said


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"query": "a"', "line 2: invalid JSON"),
        (b"[1, 2]", "line 2: [1, 2] (list); expected a JSON object"),
        (b"[" * 100_000, "line 2: JSON that is nested too deeply"),
        (b'{"query": "\xff"}', "line 2: not UTF-8 (byte 11: 0xff)"),
        (
            b'{"query": "\\ud800", "positive": ["a"], "negative": []}',
            "line 2: query holds half a surrogate pair",
        ),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(as_lines([row()]).encode() + line + b"\n")
    assert message in refused(path)


def test_a_bad_row_of_a_parquet_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [row(), row(query="")])
    assert refused(path).startswith(f"{path}, row 2: the query is empty")


def test_blank_lines_are_passed_over_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(as_lines([row()]) + "\n" + as_lines([row(query="")]), encoding="utf-8")
    assert f"{path}, line 3: the query is empty" in refused(path)


def test_files_that_are_no_data(tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(as_lines(ROWS * 200).encode(), mtime=0)[:-40])
    assert f"{cut}: broken gzip after line" in refused(cut)
    text = tmp_path / "text.parquet"
    text.write_text("no parquet at all")
    assert f"{text}: cannot be read as Parquet" in refused(text)
    empty = write(tmp_path / "empty.jsonl", [])
    assert f"{empty}: the file is empty" in refused(empty)
    other = tmp_path / "data.csv"
    other.write_text("query,positive,negative\n")
    assert f"{other}: unknown kind of file; expected one of .jsonl" in refused(other)
    assert "no such file or folder" in refused(tmp_path / "absent.jsonl")
    (tmp_path / "folder").mkdir()
    assert "no data in this folder" in refused(tmp_path / "folder")


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="the held-out data is not here")
def test_held_out_data() -> None:
    task = local_task(SHARED_DATA / "heldout_t2ranking_sample.jsonl.gz")
    lists = task.candidate_lists()
    assert len(lists) == 100
    assert {len(c.doc_ids) for c in lists} <= set(range(16, 26))
    assert sum(sum(c.relevance) for c in lists) == 505
    assert all(sorted(c.relevance, reverse=True) == list(c.relevance) for c in lists)
