"""The mini benchmark's shipped files: their shapes, their awkward cases, and that they are what is built."""

from __future__ import annotations

import json
from collections import Counter

import pytest

import build_mini_benchmark as build
from build_mini_benchmark import HERE, TASKS, Row, read_passages, read_queries, render

NAMES = [task.name for task in TASKS]


def shipped(name: str) -> list[Row]:
    return [json.loads(line) for line in (HERE / f"{name}.jsonl").read_text("utf-8").splitlines()]


def documents(row: Row) -> list[str]:
    return [*row["positive"], *row["negative"]]


@pytest.fixture(scope="module")
def rows_of() -> dict[str, list[Row]]:
    return {name: shipped(name) for name in NAMES}


def test_shipped_files_are_what_is_built() -> None:
    rendered = render()
    assert set(rendered) == {*(f"{name}.jsonl" for name in NAMES), "README.md"}
    for name, text in rendered.items():
        assert (HERE / name).read_bytes() == text.encode("utf-8"), name
    assert sum(len(text.encode("utf-8")) for text in rendered.values()) < 3_000_000


def test_building_twice_gives_the_same_text() -> None:
    assert render() == render()


@pytest.mark.parametrize(
    ("name", "min_queries", "min_size", "max_size"),
    [
        ("MiniMedicalA", 40, 50, 51),
        ("MiniMedicalB", 40, 50, 51),
        ("MiniWeb", 10, 200, 202),
        ("MiniSearch", 60, 2, 40),
    ],
)
def test_shapes(rows_of: dict[str, list[Row]], name: str, min_queries: int, min_size: int, max_size: int) -> None:
    rows = rows_of[name]
    assert len(rows) >= min_queries
    sizes = [len(documents(row)) for row in rows]
    assert min(sizes) >= min_size
    assert max(sizes) <= max_size
    for row in rows:
        assert list(row) == ["query_id", "query", "positive", "negative"]
        assert row["positive"]
        assert row["negative"]
        assert all(text.strip() == text and text for text in (row["query"], *documents(row)))
    assert len({row["query_id"] for row in rows}) == len(rows)


def test_search_lists_vary_and_have_several_relevant(rows_of: dict[str, list[Row]]) -> None:
    rows = rows_of["MiniSearch"]
    assert len(rows) == 60
    assert len({len(documents(row)) for row in rows}) > 15
    assert sum(len(row["positive"]) > 1 for row in rows) > len(rows) / 2
    long_passages = {text for row in rows for text in documents(row) if len(text) > 600}
    assert len(long_passages) >= 8


def test_distinct_passages(rows_of: dict[str, list[Row]]) -> None:
    used = {text for rows in rows_of.values() for row in rows for text in documents(row)}
    assert len(used) >= 300
    passages = read_passages()
    texts = [passage.text for passage in passages.values()]
    assert len(set(texts)) == len(texts)
    assert used <= set(texts)


def test_awkward_cases(rows_of: dict[str, list[Row]]) -> None:
    texts = Counter(row["query"] for row in rows_of["MiniMedicalA"])
    assert max(texts.values()) == 2
    search = rows_of["MiniSearch"]
    assert any(len(documents(row)) == 2 for row in search)
    assert any(len(text) == 1 for row in search for text in row["positive"])
    assert any(len(text) == 1 for row in search for text in row["negative"])
    assert any(max(Counter(row["positive"]).values()) == 2 for row in search)
    assert any(max(Counter(row["negative"]).values()) == 2 for row in rows_of["MiniMedicalB"])


def test_no_answer_among_the_negatives(rows_of: dict[str, list[Row]]) -> None:
    passages = read_passages()
    queries = {query.query_id: query for query in read_queries()}
    relevant_to_text: dict[str, set[str]] = {}
    for query in queries.values():
        relevant_to_text.setdefault(query.text, set()).update(query.relevant)
    for row in (row for rows in rows_of.values() for row in rows):
        query = queries[row["query_id"]]
        assert row["query"] == query.text
        assert not set(row["positive"]) & set(row["negative"])
        barred = {passages[name].text for name in query.exclude | relevant_to_text[query.text]}
        assert not barred & set(row["negative"]), query.query_id
        assert set(row["positive"]) == {passages[name].text for name in query.relevant}


def test_negatives_of_the_same_topic_are_in_every_list(rows_of: dict[str, list[Row]]) -> None:
    topic_of = {passage.text: passage.topic for passage in read_passages().values()}
    queries = {query.query_id: query for query in read_queries()}
    for row in (row for rows in rows_of.values() for row in rows):
        topic = queries[row["query_id"]].topic
        assert any(topic_of[text] == topic for text in row["negative"]), row["query_id"]


def test_repeats_only_where_intended(rows_of: dict[str, list[Row]]) -> None:
    queries = {query.query_id: query for query in read_queries()}
    for row in (row for rows in rows_of.values() for row in rows):
        listed = documents(row)
        assert len(listed) - len(set(listed)) == len(queries[row["query_id"]].repeat)


def test_sources_name_only_what_exists() -> None:
    passages = read_passages()
    topics = {passage.topic for passage in passages.values()}
    for query in read_queries():
        assert query.task in NAMES
        assert query.topic in topics
        assert {*query.relevant, *query.exclude, *query.require, *query.repeat} <= set(passages)
        assert not set(query.relevant) & query.exclude


def test_too_few_passages_is_an_error() -> None:
    query = read_queries()[0]
    passages = dict(list(read_passages().items())[:10])
    with pytest.raises(ValueError, match=query.query_id):
        build.build_row(query, TASKS[0], passages)
