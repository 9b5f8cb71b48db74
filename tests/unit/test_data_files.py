"""Files in the forms that people have them: encodings, compression, containers, pointers."""

import codecs
import gzip
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from listcon_eval.data import as_tasks, chosen_tasks, local_task, task_of_rows
from listcon_eval.errors import ListconError

ROWS: list[dict[str, Any]] = [
    {"query_id": "1", "query": "苹果是什么", "positive": ["苹果是一种水果。"], "negative": ["香蕉是黄色的。", "天空"]},
    {"query_id": "2", "query": "中国的首都", "positive": ["北京是首都。"], "negative": ["上海是大城市。"]},
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
PLAIN = task_of_rows(ROWS, "plain").revision


def refused(path: Path) -> str:
    with pytest.raises(ListconError) as caught:
        local_task(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.jsonl", codecs.BOM_UTF8 + LINES.encode()),
        ("gzip_inside.jsonl", gzip.compress(LINES.encode(), mtime=0)),
        ("text_inside.jsonl.gz", LINES.encode()),
        ("bom.jsonl.gz", gzip.compress(codecs.BOM_UTF8 + LINES.encode(), mtime=0)),
        ("windows.jsonl", LINES.replace("\n", "\r\n").encode()),
        ("array.json", json.dumps(ROWS).encode()),
        ("indented.json", b"\n" + json.dumps(ROWS, indent=2, ensure_ascii=False).encode()),
        ("array.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
    ],
)
def test_these_files_hold_the_same_data(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert local_task(tmp_path / name).revision == PLAIN


def test_a_parquet_file_by_another_name(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.jsonl")
    assert local_task(tmp_path / "a.jsonl").revision == PLAIN


def test_parquet_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path, texts = tmp_path / "a.parquet", pyarrow.array([b"\xff\xfe"]).view(pyarrow.utf8())
    lists = pyarrow.array([["a"]])
    pyarrow.parquet.write_table(pyarrow.table({"query": texts, "positive": lists, "negative": lists}), path)
    assert f"{path}: cannot be read as Parquet after row 0 ('utf-8' codec can't decode" in refused(path)
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays([lists, lists], ["positive", "positive"]), path)
    assert "the column 'positive' (str) comes a second time" in refused(path)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 13):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with suppress(ListconError):  # any other error is a traceback
            local_task(path)


@pytest.mark.parametrize(
    ("codec", "shown"),
    [
        ("gbk", "GBK"),
        ("gb18030", "GBK"),
        ("big5", "BIG5"),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
        ("utf-32", "UTF-32"),
    ],
)
def test_another_encoding_is_named_with_the_command_that_converts_it(tmp_path: Path, codec: str, shown: str) -> None:
    path = tmp_path / "a.jsonl"
    text = '{"query": "臺灣的首都是哪裡", "positive": ["臺北"], "negative": ["高雄"]}\n' if codec == "big5" else LINES
    path.write_bytes(text.encode(codec))
    said = refused(path)
    assert f"it looks like {shown}. Convert it: iconv -f {shown} -t utf-8 '{path}' > '{tmp_path}/utf8-a.jsonl'" in said
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(text.encode(codec), mtime=0))
    assert f"gzip -dc '{packed}' | iconv -f {shown} -t utf-8 > '{tmp_path}/utf8-a.jsonl'" in refused(packed)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet", "a.json"])
def test_a_pointer_of_git_lfs_is_called_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    assert f"{path} is a Git LFS pointer" in refused(path)
    assert "git lfs pull" in refused(path)


def test_what_an_array_may_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"query": "问", "positive": ["甲"], "negative": ["乙"]}, 7]', encoding="utf-8")
    assert f"{path}, element 2: 7 (int); expected a JSON object" in refused(path)
    path.write_text('[{"query": "问"', encoding="utf-8")
    assert "invalid JSON" in refused(path)
    path.write_text("[]")
    assert "the file is empty" in refused(path)


def test_texts_and_ids_of_any_kind_are_read(tmp_path: Path) -> None:
    """Emoji, a control character, a line break, markup, percent signs, and two queries of one text."""
    ids = ["q\x01", "a\nb", "a b", "a%20b", "👩‍👩‍👧"]
    rows = [
        {"query_id": query_id, "query": "<b>和</b>👍🏽", "positive": ["天气\u2028好"], "negative": ["🏳️‍🌈"]}
        for query_id in ids
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    lists = local_task(path).candidate_lists()
    assert [row.query_id for row in lists] == ids
    assert lists[0].passages == ("天气\u2028好", "🏳️‍🌈")


def folder_in_retrieval_layout(folder: Path, *, score: str = "1", text: str = "甲", last: str = "d2") -> Path:
    folder.mkdir()
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "甲"}\n', encoding="utf-8")
    (folder / "corpus.tsv").write_text(f"_id\ttitle\ttext\nd1\t\t{text}\nd2\t\t乙\n", encoding="utf-8-sig")
    (folder / "top_ranked.jsonl").write_text(json.dumps({"query-id": "q1", "corpus-ids": ["d1", last]}) + "\n")
    (folder / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\nq1\td1\t{score}\n", encoding="utf-8-sig")
    return folder


def test_tsv_with_a_long_field_and_a_score_with_a_point(tmp_path: Path) -> None:
    folder = folder_in_retrieval_layout(tmp_path / "a", score="1.0", text="甲" * 140_000)
    task = local_task(folder)
    assert task.qrels() == {"q1": {"d1": 1}}
    assert task.candidate_lists()[0].passages == ("甲" * 140_000, "乙")


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("query-id\tcorpus-id\tscore", "q1\td1\t1\t5", "line 2 has 4 cells ('q1\\td1\\t1\\t5'); expected one for each"),
        ("query-id\tcorpus-id\tscore", "q1\td1\t1\t", "line 2 has 4 cells"),
        ("query-id\tcorpus-id\tscore\tnote", "q1\td1\t1", "line 2 has 3 cells"),
        ("query-id\tcorpus-id\tscore\tscore", "q1\td1\t1\t0", "line 1: the column 'score' (str) comes a second time"),
    ],
)
def test_tsv_rows_that_do_not_fit_their_header_are_refused(tmp_path: Path, header: str, row: str, message: str) -> None:
    folder = folder_in_retrieval_layout(tmp_path / "a")
    (folder / "qrels.tsv").write_text(f"{header}\n{row}\n")
    assert f"qrels.tsv, {message}" in refused(folder)


@pytest.mark.parametrize("score", ["0.5", "yes", "", "nan", "inf", "1_0", "2147483648"])
def test_a_score_that_is_no_whole_number_is_refused(tmp_path: Path, score: str) -> None:
    said = refused(folder_in_retrieval_layout(tmp_path / "a", score=score))
    assert f"qrels.tsv, line 2: score is {score!r} (str); expected a whole number" in said


def test_a_query_without_candidates_is_kept(tmp_path: Path) -> None:
    folder = folder_in_retrieval_layout(tmp_path / "nocand")
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "天气"}\n{"_id": "q2", "text": "吃饭"}\n')
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\n")
    assert [len(row.doc_ids) for row in local_task(folder).candidate_lists()] == [2, 0]


@pytest.mark.parametrize(
    ("emptied", "counts"),
    [("positive", "a positive: 0, with a negative: 2"), ("negative", "a positive: 2, with a negative: 0")],
)
def test_data_on_which_nothing_can_be_measured_is_refused(tmp_path: Path, emptied: str, counts: str) -> None:
    rows = [{**row, emptied: []} for row in ROWS]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "no query (of 2) has both a positive and a negative candidate" in refused(path)
    assert counts in refused(path)
    with pytest.raises(ListconError, match="nothing can be measured"):
        task_of_rows(rows, "mine")
    path.write_text(json.dumps(ROWS[0]) + "\n" + json.dumps({**ROWS[1], emptied: []}) + "\n")
    assert len(local_task(path).candidate_lists()) == 2  # one-sided queries beside others are kept


def test_rows_of_a_data_frame(tmp_path: Path) -> None:
    import pandas as pd

    path = tmp_path / "a.parquet"
    pd.DataFrame(ROWS).to_parquet(path)
    task = task_of_rows(pd.read_parquet(path).to_dict("records"), "frame")  # its cells are arrays
    assert (task.name, task.revision, task.is_official) == ("frame", PLAIN, False)
    with pytest.raises(ListconError, match="frame, row 2: no 'positive'"):
        task_of_rows([ROWS[0], {"query": "问", "negative": ["甲"]}], "frame")
    with pytest.raises(ListconError, match="there are no rows"):
        task_of_rows([], "frame")


@pytest.mark.parametrize("names", ["", " ", ",", " , "])
@pytest.mark.parametrize("data", [None, ["a.jsonl"]])
def test_no_name_does_not_stand_for_all_tasks(names: str, data: list[str] | None) -> None:
    with pytest.raises(ListconError, match="names no task"):
        chosen_tasks(names, data)


def test_tasks_are_chosen_by_name_or_data(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(LINES, encoding="utf-8")
    official = ["CMedQAv1-reranking", "CMedQAv2-reranking", "MMarcoReranking", "T2Reranking"]
    assert [task.name for task in chosen_tasks(None, None)] == official
    assert [task.name for task in chosen_tasks("t2reranking, MiniMedicalA,T2Reranking", None)] == [
        "T2Reranking",
        "MiniMedicalA",
    ]
    assert [task.name for task in chosen_tasks(None, [str(path), f"other={path}"])] == ["a", "other"]
    with pytest.raises(ListconError, match="--tasks names 2 tasks"):
        chosen_tasks("T2Reranking,MMarcoReranking", [str(path)])
    with pytest.raises(ListconError, match="two data sets have the name a"):
        chosen_tasks(None, [str(path), str(path)])
    with pytest.raises(ListconError, match=r"a\.jsonl\[zh\]: only a folder in mteb's retrieval layout has subsets"):
        chosen_tasks(None, [f"{path}[zh]"])


def test_two_tasks_of_one_name_are_one_only_if_their_data_is() -> None:
    one, same, other = (task_of_rows(rows, "mine") for rows in (ROWS, ROWS, ROWS[:1]))
    assert as_tasks([one, same]) == [one]
    assert [task.name for task in as_tasks(["MiniWeb", "mini"])].count("MiniWeb") == 1
    assert [task.name for task in as_tasks(",".join(["MiniWeb"] * 60))] == ["MiniWeb"]  # no file has so long a name
    with pytest.raises(ListconError, match="two data sets have the name mine"):
        as_tasks([one, other])
    for name in ("MiniWeb", "miniweb", "CMedQAv1", "cMedQA1.0"):
        with pytest.raises(ListconError, match=f"{name} is a name of other data"):
            task_of_rows(ROWS, name)
    assert [task.name for task in as_tasks([one.variant(limit=1), one])] == ["mine-first1", "mine"]


def test_a_trial_on_which_every_order_is_equal_is_refused() -> None:
    rows = [{"query": "问", "positive": ["甲", "乙"], "negative": []}, *ROWS]
    task = task_of_rows(rows, "mine")
    message = r"mine-first1: no query \(of 1\) has both .*nothing can be measured. Give a larger --limit"
    with pytest.raises(ListconError, match=message):
        task.variant(limit=1)


def test_grades_alone_can_tell_candidates_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    judged = {"equal": (2, 2), "graded": (3, 1), "below": (-1, 0)}
    parts: dict[str, list[dict[str, Any]]] = {
        "corpus": [{"_id": name, "text": name} for name in ("d0", "d1")],
        "queries": [{"_id": name, "text": name} for name in judged],
        "qrels": [
            {"query-id": query_id, "corpus-id": f"d{place}", "score": grade}
            for query_id, grades in judged.items()
            for place, grade in enumerate(grades)
        ],
        "top_ranked": [{"query-id": query_id, "corpus-ids": ["d0", "d1"]} for query_id in judged],
    }
    for part, rows in parts.items():
        (tmp_path / f"{part}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    task = local_task(tmp_path, name="mine")
    assert "mine: no query (of 3) has both a positive and a negative candidate: every order has the same" in caplog.text
    assert task.variant(limit=2).candidate_lists()[1].relevance == (3, 1)
    assert task.variant(limit=2, relevance=2).candidate_lists()[1].grades == (3, 1)
    for relevance, remedy in ((1, "a larger --limit"), (2, "a larger --limit or a lower --relevance")):
        with pytest.raises(ListconError, match=rf"nothing can be measured\. Give {remedy}\.$"):
            task.variant(limit=1, relevance=relevance)
    (tmp_path / "top_ranked.jsonl").write_text('{"query-id": "below", "corpus-ids": ["d0", "d1"]}\n')
    assert "nothing can be measured" in refused(tmp_path)
