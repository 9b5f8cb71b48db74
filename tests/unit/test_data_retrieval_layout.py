import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from mteb.abstasks.retrieval_dataset_loaders import RetrievalDatasetLoader

from listcon_eval.data import chosen_tasks, local_task
from listcon_eval.errors import ListconError

Part = list[dict[str, Any]]
PARTS: dict[str, Part] = {
    "corpus": [
        {"_id": "d1", "title": "月", "text": "月有阴晴圆缺 "},
        {"_id": "d2", "title": "", "text": " 皮蛋性凉"},
        {"_id": "d3", "title": "", "text": "无关"},
    ],
    "queries": [
        {"_id": "q1", "text": "月亮"},
        {"_id": "q2", "text": "皮蛋"},
        {"_id": "q3", "text": "没有判断"},
    ],
    "qrels": [
        {"query-id": "q2", "corpus-id": "d2", "score": 2},
        {"query-id": "q1", "corpus-id": "d1", "score": 1},
        {"query-id": "q1", "corpus-id": "d3", "score": 0},
    ],
    "top_ranked": [{"query-id": "q1", "corpus-ids": ["d2", "d3", "d1"]}],
}
README = """---
configs:
- config_name: corpus
  data_files:
  - split: dev
    path: corpus/dev-*
- config_name: queries
  data_files: questions.jsonl
- config_name: default
  data_files:
  - split: test
    path: [judged.jsonl]
  - split: dev
    path: nothing.jsonl
- config_name: top_ranked
  data_files:
  - split: test
    path: lists.jsonl
---
# Moonlight
"""


def write(path: Path, rows: Part) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parts(folder: Path, **changes: Part) -> Path:
    for part, rows in {**PARTS, **changes}.items():
        write(folder / f"{part}.jsonl", rows)
    return folder


def refused(path: Path) -> str:
    with pytest.raises(ListconError) as caught:
        local_task(path)
    return str(caught.value)


def check(folder: Path) -> None:
    task = local_task(folder)
    first, second = task.candidate_lists()  # q3 has no judgements: mteb does not evaluate it
    assert (first.query_id, first.query) == ("q1", "月亮")
    assert first.doc_ids == ("d1", "d2", "d3")  # the relevant one before the others, these in their order
    assert first.passages == ("月 月有阴晴圆缺", "皮蛋性凉", "无关")
    assert first.relevance == (1, 0, 0)
    assert (second.query_id, second.doc_ids) == ("q2", ())  # absent from top_ranked
    assert task.qrels() == {"q1": {"d1": 1, "d3": 0}, "q2": {"d2": 2}}
    assert (task.name, task.location) == (folder.name, str(folder))


def test_parts_as_files(tmp_path: Path) -> None:
    check(write_parts(tmp_path / "moon"))


def test_parts_as_folders(tmp_path: Path) -> None:
    folder = tmp_path / "moon"
    write(folder / "corpus" / "test-00000-of-00002.parquet", PARTS["corpus"][:2])
    write(folder / "corpus" / "test-00001-of-00002.parquet", PARTS["corpus"][2:])
    write(folder / "queries" / "test.jsonl", PARTS["queries"])
    write(folder / "queries" / "train.jsonl", [{"_id": "other", "text": "别的"}])
    write(folder / "top_ranked" / "dev.parquet", PARTS["top_ranked"])  # one split is taken whatever its name
    (folder / "qrels").mkdir()
    tsv = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row.values())) for row in PARTS["qrels"])]
    (folder / "qrels" / "test.tsv").write_text("\n".join(tsv) + "\n")
    check(folder)


def test_parts_as_the_readme_says_and_as_mteb_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "moon"
    write(folder / "corpus" / "dev-00000-of-00001.jsonl", PARTS["corpus"])
    write(folder / "questions.jsonl", PARTS["queries"])
    write(folder / "judged.jsonl", PARTS["qrels"])
    write(folder / "nothing.jsonl", PARTS["qrels"][:1])
    write(folder / "lists.jsonl", PARTS["top_ranked"])
    (folder / "README.md").write_text(README, encoding="utf-8")
    check(folder)
    ours = local_task(folder).mteb_task.dataset["default"]["test"]
    theirs = RetrievalDatasetLoader(str(folder), revision="local").load()
    assert ours["corpus"].to_list() == theirs["corpus"].to_list()
    assert ours["queries"].to_list() == theirs["queries"].to_list()
    assert ours["relevant_docs"] == theirs["relevant_docs"]
    assert ours["top_ranked"] == theirs["top_ranked"]


@pytest.mark.parametrize("plain_too", [False, True])
def test_a_subset_is_read_where_there_is_one_of_its_name_and_whole(tmp_path: Path, plain_too: bool) -> None:
    for part, rows in PARTS.items():
        write(tmp_path / "moon" / f"zh-{part}.jsonl", rows)
    if plain_too:
        write_parts(tmp_path / "moon", queries=[{"_id": "q1", "text": "太阳"}, {"_id": "q2", "text": "鸡蛋"}])
    assert local_task(tmp_path / "moon", subset="zh").candidate_lists()[0].query == "月亮"
    with pytest.raises(ListconError, match=r"moon\[ja\]: only a folder .* has no part 'ja-queries'"):
        local_task(tmp_path / "moon", subset="ja")
    with pytest.raises(ListconError, match="was given as a copy of T2Reranking, whose subset is default"):
        local_task(tmp_path / "moon", claim="T2Reranking", subset="zh")
    (tmp_path / "moon" / "zh-top_ranked.jsonl").unlink()
    with pytest.raises(ListconError, match=r"no part 'zh-top_ranked'; expected zh-top_ranked\.jsonl"):
        local_task(tmp_path / "moon", subset="zh")


def test_subsets_can_share_a_corpus_alone(tmp_path: Path) -> None:
    folder = tmp_path / "moon"
    for part, rows in PARTS.items():
        write(folder / f"{'' if part == 'corpus' else 'zh-'}{part}.jsonl", rows)
    assert local_task(folder, subset="zh").candidate_lists()[0].query == "月亮"
    with pytest.raises(ListconError, match=r"moon\[ja\]: only a folder .* has no part 'ja-queries' with a corpus"):
        local_task(folder, subset="ja")
    (folder / "zh-qrels.jsonl").rename(folder / "qrels.jsonl")
    with pytest.raises(ListconError, match="no part 'zh-qrels'"):
        local_task(folder, subset="zh")
    (folder / "corpus.jsonl").unlink()
    (folder / "corpus").mkdir()
    write(folder / "test.jsonl", [{"query": "问", "positive": ["甲"], "negative": ["乙"]}])
    with pytest.raises(ListconError, match=r"moon\[zh\]: only a folder .* has no part 'zh-queries' with a corpus"):
        local_task(folder, subset="zh")


def test_a_part_that_is_configured_twice_is_refused(tmp_path: Path) -> None:
    write_parts(tmp_path)
    names = ("queries", "queries-default")
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n" + "".join(f"- config_name: {name}\n  data_files: queries.jsonl\n" for name in names) + "---\n"
    )
    assert "queries-default and queries in README.md are each a part 'queries'; keep one" in refused(tmp_path)


@pytest.mark.parametrize(
    "second", ["corpus.parquet", "corpus/test.jsonl", "query.jsonl", "queries/a.jsonl", "queries-default.jsonl"]
)
def test_a_part_that_is_there_twice_is_refused(tmp_path: Path, second: str) -> None:
    write(write_parts(tmp_path) / second, PARTS["queries" if second.startswith("quer") else "corpus"])
    assert "keep one of them" in refused(tmp_path)


def test_a_part_of_which_a_shard_is_missing_is_refused(tmp_path: Path) -> None:
    (write_parts(tmp_path) / "corpus.jsonl").unlink()
    write(tmp_path / "corpus" / "test-00000-of-00002.parquet", PARTS["corpus"])
    assert "corpus: found test-00000-of-00002.parquet; expected one file" in refused(tmp_path)
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: corpus\n  data_files:\n  - split: test\n    path: corpus/*\n---\n"
    )
    assert "found corpus/test-00000-of-00002.parquet; expected one file" in refused(tmp_path)
    write(tmp_path / "corpus" / "test-00001-of-00002.parquet", [{"_id": "d4", "title": "", "text": "四"}])
    assert len(local_task(tmp_path).documents()) == 4


def test_without_candidate_lists_there_is_nothing_to_rerank(tmp_path: Path) -> None:
    (write_parts(tmp_path) / "top_ranked.jsonl").unlink()
    assert "no part 'top_ranked'" in refused(tmp_path)
    assert "Reranking needs candidate lists: columns query-id and corpus-ids" in refused(tmp_path)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    (write_parts(tmp_path) / "qrels.jsonl").unlink()
    assert "no part 'qrels'" in refused(tmp_path)


@pytest.mark.parametrize(
    ("part", "row", "message"),
    [
        ("corpus", {"_id": "d1", "text": "a"}, "document id 'd1' was used before"),
        ("corpus", {"text": "a"}, "no '_id' or 'id'; the row has text"),
        ("corpus", {"_id": "d9", "text": None}, "text is None (NoneType); expected a text"),
        ("queries", {"_id": "q1", "text": "a"}, "query id 'q1' was used before"),
        ("queries", {"_id": "q9", "text": ""}, "the text of query 'q9' is empty"),
        (
            "qrels",
            {"query-id": "q1", "corpus-id": "d2", "score": 0.5},
            "score is 0.5 (float); expected a whole number",
        ),
        ("qrels", {"query-id": "q1", "corpus-id": "d1", "score": 0}, "'d1' is judged 0 here and 1 before"),
        ("qrels", {"query-id": "", "corpus-id": "d1", "score": 0}, "query-id is empty; expected an id"),
        ("top_ranked", {"query-id": "q1", "corpus-ids": ["d1"]}, "a second candidate list for query 'q1'"),
        ("top_ranked", {"query-id": "q2", "corpus-ids": "d1"}, "corpus-ids is 'd1' (str); expected a list"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, part: str, row: dict[str, Any], message: str) -> None:
    write_parts(tmp_path, **{part: [*PARTS[part], row]})
    said = refused(tmp_path)
    assert said.startswith(f"{tmp_path / part}.jsonl, line {len(PARTS[part]) + 1}: ")
    assert message in said


def test_candidates_must_be_documents_and_each_only_once(tmp_path: Path) -> None:
    write_parts(tmp_path, top_ranked=[{"query-id": "q1", "corpus-ids": ["d1", "d7"]}])
    assert refused(tmp_path) == "Query q1: candidate 'd7' is not in the corpus."
    write_parts(tmp_path, top_ranked=[{"query-id": "q1", "corpus-ids": ["d1", "d2", "d1"]}])
    assert "Query q1: candidate 'd1' is listed twice" in refused(tmp_path)


def test_data_without_a_judged_query_is_refused(tmp_path: Path) -> None:
    write_parts(tmp_path, qrels=[{"query-id": "q7", "corpus-id": "d1", "score": 1}])
    assert "none of the queries has a relevance judgement" in refused(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "path: lists.jsonl",
            "path: absent.jsonl",
            "names ['absent.jsonl'], and there is no such file",
        ),
        ("path: lists.jsonl", "path: /lists.jsonl", "names ['/lists.jsonl']"),
        ("config_name: top_ranked", "config: [", "the block between the '---' lines cannot be read"),
        ("- split: test\n    path: [judged.jsonl]", "- split: train\n    path: x", "has splits train, dev"),
    ],
)
def test_a_readme_that_does_not_fit(tmp_path: Path, old: str, new: str, message: str) -> None:
    write(tmp_path / "corpus" / "dev-0.jsonl", PARTS["corpus"])
    write(tmp_path / "questions.jsonl", PARTS["queries"])
    write(tmp_path / "lists.jsonl", PARTS["top_ranked"])
    assert old in README
    (tmp_path / "README.md").write_text(README.replace(old, new), encoding="utf-8")
    assert message in refused(tmp_path)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (["你好", "月亮"], "你好; 月亮"),
        ([{"role": "user", "content": "你好"}, {"role": "system", "content": "月亮"}], "user: 你好; system: 月亮"),
    ],
)
def test_conversations_and_instructions_are_read_as_mteb_reads_them(tmp_path: Path, text: object, shown: str) -> None:
    parts = {**PARTS, "queries": [{"_id": "q1", "text": "月亮"}]}
    parts["instruction"] = [{"query-id": "q1", "instruction": "只要圆的"}]
    for subset, own in (("zh", parts), ("talk", {**PARTS, "queries": [{"_id": "q1", "text": text}]})):
        for name, rows in own.items():
            write(tmp_path / f"{subset}-{name}.jsonl", rows)
    (asked,) = local_task(tmp_path, subset="zh").candidate_lists()
    assert asked.query == "月亮 只要圆的"
    (task,) = chosen_tasks(None, [f"talk={tmp_path}[talk]"])
    assert task.candidate_lists()[0].query == shown
    assert not task.has_instructions
    assert local_task(tmp_path, subset="zh").has_instructions


ROLES = [{"role": "user", "content": "你好"}]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("你好", ["月亮"], "query 'q2' is a list of texts, those before are a text"),
        (["你好"], "月亮", "query 'q2' is a text, those before are a list of texts"),
        (["你好"], ROLES, "query 'q2' is a list of objects with role and content, those before are a list of texts"),
        (ROLES, [{"role": "user", "content": 7}], "text[0].content is 7 (int); expected a text"),
        (["你好"], ["\ud800"], "text[0] holds half a surrogate pair"),
    ],
)
def test_queries_of_several_forms_are_refused(tmp_path: Path, first: object, second: object, message: str) -> None:
    write_parts(tmp_path, queries=[{"_id": "q1", "text": first}, {"_id": "q2", "text": second}])
    assert f"queries.jsonl, line 2: {message}" in refused(tmp_path)


def test_conversations_with_further_keys_are_read_in_silence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    turns = [{**ROLES[0], "at": at} for at in (1, "noon")]
    write_parts(tmp_path, queries=[{"_id": f"q{number}", "text": [turn]} for number, turn in enumerate(turns, start=1)])
    assert [row.query for row in local_task(tmp_path).candidate_lists()] == ["user: 你好"] * 2
    write_parts(tmp_path, queries=[{"_id": "q1", "text": ["你好"]}])
    assert local_task(tmp_path).queries() == {"q1": "你好"}
    assert capfd.readouterr().err == ""
    assert not recwarn.list


@pytest.mark.parametrize(
    ("query", "others", "message"),
    [
        ("月亮", [("q1", "只要方的")], "instruction.jsonl, line 2: a second instruction for query 'q1'; expected one"),
        (["月亮"], [], "the conversation 'q2' has no instruction"),
    ],
)
def test_each_query_has_one_instruction(
    tmp_path: Path, query: object, others: list[tuple[str, str]], message: str
) -> None:
    given = [("q1", "只要圆的"), *others]
    write_parts(
        tmp_path,
        queries=[{"_id": name, "text": query} for name in ("q1", "q2")],
        instruction=[{"query-id": query_id, "instruction": text} for query_id, text in given],
    )
    assert message in refused(tmp_path)


@pytest.mark.parametrize("text", [[], [1], ["a", {"role": "user", "content": "b"}], [{"role": "user"}], {"a": "b"}])
def test_what_is_neither_a_text_nor_a_conversation_is_refused(tmp_path: Path, text: object) -> None:
    for name, rows in {**PARTS, "queries": [{"_id": "q1", "text": text}]}.items():
        write(tmp_path / f"{name}.jsonl", rows)
    with pytest.raises(ListconError, match=r"queries.jsonl, line 1: text is .* expected a text"):
        local_task(tmp_path)
