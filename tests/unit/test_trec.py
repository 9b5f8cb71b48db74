"""Run and qrels files: what is written reads back as itself, and what other tools write is read."""

import gzip
import json
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from listcon_eval.data.trec import (
    note_of_ranks,
    read_qrels,
    read_trec_run,
    short_hash,
    write_trec_qrels,
    write_trec_run,
)
from listcon_eval.errors import ListconError

RUN = "q1 Q0 d1 1 2.0 x\nq1 Q0 d2 2 1.0 x\n"
ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=6)
runs = st.dictionaries(ids, st.dictionaries(ids, st.integers(-3, 9), min_size=1, max_size=4), min_size=1, max_size=4)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@given(runs)
@example({"a b": {"d": 1}, "a%20b": {"d": 2}, "a%2520b": {"d": 3}})
@example({"\ufeffq": {"\x85": 1, "\u3000": 2, "\1": 3}})
@example({"{q": {"}": 1, "%FF": 2, "%e4": 3, "%": 4}})
@example({"query-id": {"score": 1}, "version": {"https://git-lfs.github.com/spec/v1": 1}})
def test_any_ids_read_back_as_themselves(run: dict[str, dict[str, int]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.trec"
        for known in (None, run):
            assert read_trec_run(write_trec_run(path, run, "tag"), known) == run
            assert read_qrels(write_trec_qrels(path, run), known) == run


def test_ids_of_other_tools_keep_their_percent_signs_where_the_task_has_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.trec", "q%20 Q0 100%25 1 2.0 x\nq%20 Q0 a%20b 2 1.0 x\n")
    assert read_trec_run(path, {"q%20": ["100%25", "a b"]}) == {"q%20": {"100%25": 2.0, "a b": 1.0}}
    assert read_trec_run(path) == {"q ": {"100%": 2.0, "a b": 1.0}}


def test_scores_read_back_exactly_best_first_with_ties_in_their_order(tmp_path: Path) -> None:
    run = {"q": {"a": 0.1, "b": 1.0000000149011612, "c": 0.1, "d": 1e-300}}
    path = write_trec_run(tmp_path / "a.trec", run, "tag")
    assert [line.split()[2] for line in path.read_text().splitlines()] == ["b", "a", "c", "d"]
    assert read_trec_run(path) == run


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("plain.trec", RUN.encode()),
        ("bom.trec", RUN.encode("utf-8-sig")),
        ("packed.trec.gz", gzip.compress(RUN.encode(), mtime=0)),
        ("packed.trec", gzip.compress(RUN.encode(), mtime=0)),
        ("text.trec.gz", RUN.encode()),
        ("windows.trec", RUN.replace("\n", "\r\n").encode()),
        ("tabs.txt", RUN.replace(" ", "\t").encode()),
        ("ranx.json", b'{"q1": {"d1": 2.0, "d2": 1}}'),
        ("indented.json", json.dumps({"q1": {"d1": 2.0, "d2": 1.0}}, indent=1).encode()),
        ("ranx.json.gz", gzip.compress(b'{"q1": {"d1": 2.0, "d2": 1.0}}', mtime=0)),
    ],
)
def test_runs_in_the_forms_that_people_have(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert read_trec_run(tmp_path / name) == {"q1": {"d1": 2.0, "d2": 1.0}}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.qrels", "q1 0 d1 1\nq1 0 d2 0\n"),
        ("a.qrels", "\ufeffq1 0 d1 1.0\nq1 0 d2 0.0\n"),
        ("a.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n"),
        ("a.tsv", "\ufeffquery-id\tcorpus-id\tscore\r\nq1\td1\t1.0\r\nq1\td2\t0\r\n"),
        ("a.json", '{"q1": {"d1": 1, "d2": 0.0}}'),
    ],
)
def test_qrels_in_the_forms_that_people_have(tmp_path: Path, name: str, text: str) -> None:
    assert read_qrels(write(tmp_path / name, text)) == {"q1": {"d1": 1, "d2": 0}}


def test_ids_in_json_and_tsv_stand_as_they_are(tmp_path: Path) -> None:
    assert read_trec_run(write(tmp_path / "a.json", '{"a%20b": {"c d": 1}}')) == {"a%20b": {"c d": 1.0}}
    text = "query-id\tcorpus-id\tscore\na%20b\tc d\t1\n"
    assert read_qrels(write(tmp_path / "a.tsv", text)) == {"a%20b": {"c d": 1}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 d1 1\n", "line 1 has 3 columns ('q1 d1 1'); expected `query Q0 document rank score tag`"),
        ("q1 Q0 d1 1 high x\n", "line 1: the score is 'high' (str); expected a number"),
        ("q1 Q0 d1 1 1_0 x\n", "line 1: the score is '1_0' (str); expected a number"),
        ("q1 Q0 d1 1 nan x\n", "line 1: the score is nan; expected a finite number"),
        (RUN + "\nq1 Q0 d1 3 0 x\n", "line 4: document d1 comes a second time for query q1"),
        ('{"q1": [1]}', "query 'q1': [1] (list); expected {document id: number}"),
        ('{"q1": {"d1": null}}', "query 'q1': the score is None (NoneType); expected a number"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "is a Git LFS pointer"),
    ],
)
def test_a_run_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ListconError) as caught:
        read_trec_run(write(tmp_path / "a.trec", text))
    assert message in str(caught.value)


def test_other_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ListconError, match=r"line 1: the relevance is '0\.5' \(str\); expected a whole number"):
        read_qrels(write(tmp_path / "a.qrels", "q1 0 d1 0.5\n"))
    with pytest.raises(ListconError, match="line 2 has 2 columns"):
        read_qrels(write(tmp_path / "a.tsv", "query-id\tcorpus-id\tscore\nq1\td1\n"))
    with pytest.raises(ListconError, match="invalid JSON"):
        read_qrels(write(tmp_path / "a.json", '{"q1": {'))
    with pytest.raises(ListconError, match=r"absent\.trec cannot be read: No such file"):
        read_trec_run(tmp_path / "absent.trec")
    (tmp_path / "gbk.trec").write_bytes("问 Q0 答案 1 2.0 x\n".encode("gbk"))
    with pytest.raises(ListconError, match="it looks like GBK"):
        read_trec_run(tmp_path / "gbk.trec")


@pytest.mark.parametrize("odd", [1.0, None, True, pd.NA, b"1", ["1"], ""])
@pytest.mark.parametrize("column", ["query_id", "doc_id"])
def test_ids_of_a_table_are_texts_or_whole_numbers(odd: object, column: str) -> None:
    """A gap in a column of whole numbers makes them all floats, whose texts are no ids of the task."""
    rows = [{"query_id": "1", "doc_id": np.int64(7), "relevance": 1}, {"query_id": "2", "doc_id": "8", "relevance": 0}]
    assert read_qrels(pd.DataFrame(rows)) == {"1": {"7": 1}, "2": {"8": 0}}
    frame = pd.DataFrame([rows[0], {**rows[1], column: odd}], dtype=object)
    with pytest.raises(ListconError, match=r"the (query|document)'s id is .*; expected an id"):
        read_qrels(frame)


def test_a_table_with_a_column_twice_is_refused() -> None:
    frame = pd.DataFrame([["q", "d", 1, 2]], columns=["query_id", "doc_id", "relevance", "relevance"])
    with pytest.raises(ListconError, match="the table has several columns relevance"):
        read_qrels(frame)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("q Q0 a 1 0 x\nq Q0 b 2 0 x\n", True),
        ("q Q0 a 1 0 x\nq Q0 b 2 0 x\np Q0 a 1 0.5 x\n", True),
        ("q Q0 a 1 0 x\nq Q0 b 1 0 x\n", False),  # the ranks say nothing either
        ("q Q0 a 1 1 x\nq Q0 b 2 0 x\n", False),
        ("q Q0 a 1 1 x\np Q0 b 1 1 x\n", False),  # one document a query: no order to lose
        ('{"q": {"a": 1, "b": 1}}', False),
    ],
)
def test_a_file_whose_order_is_in_its_ranks_alone(tmp_path: Path, text: str, expected: bool) -> None:
    assert (note_of_ranks(write(tmp_path / "a.trec", text)) is not None) is expected


def test_a_short_hash_names_the_content(tmp_path: Path) -> None:
    first, same = write(tmp_path / "a", "x"), write(tmp_path / "b", "x")
    assert short_hash(first) == short_hash(same) == "sha256-2d711642b726"
    assert short_hash(write(same, "y")) != short_hash(first)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"q1": {"d1": 1}, "q1": {"d1": 0}}', "the key 'q1' (str) comes a second time"),
        ('{"q1": {"d\\u0000": 1}}', "expected an id without the character NUL"),
        ("q1 0 d%00 1\n", "expected an id without the character NUL"),
        ('{"q1": {"": 1}}', "the document's id is empty; expected an id"),
        ('{"q1": {"d1": 1' + "0" * 400 + "}}", "expected a whole number"),
        (
            "q1 0 d1 1000001\n",
            "line 1: the relevance is '1000001' (str); expected a whole number (0: not relevant) of at",
        ),
        ("q1 0 d1 -1e30\n", "line 1: the relevance is '-1e30' (str)"),
        ("q1 0 d1 1_0\n", "line 1: the relevance is '1_0' (str)"),
        ("query-id\tcorpus-id\tscore\nq1\td1\t4294967297\n", "line 2: the relevance is '4294967297' (str)"),
        ('{"q1": {"d1": 1' + "0" * 5000 + "}}", "invalid JSON"),
    ],
    ids=["repeated", "nul", "escaped-nul", "empty", "400-digits", "above", "below", "as-python", "tsv", "5000-digits"],
)
def test_judgements_that_cannot_be_taken_at_their_word_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ListconError, match=re.escape(message)):
        read_qrels(write(tmp_path / ("a.json" if text.startswith("{") else "a.qrels"), text))
