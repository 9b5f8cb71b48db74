"""Assembles the four mini task files and the card's table from the passages and queries in ``mini_source/``.

``python scripts/build_mini_benchmark.py`` rewrites them; the same sources give the same bytes anywhere.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

SOURCE = Path(__file__).resolve().parent / "mini_source"
HERE = SOURCE.parents[1] / "listcon_eval" / "data" / "mini"
CARD = "README.md"
TABLE_BEGIN = "<!-- shapes: written by build_mini_benchmark.py -->"
TABLE_END = "<!-- end of shapes -->"
SEED = "listcon-eval mini 1"
SAME_TOPIC_SHARE = 0.6


class Row(TypedDict):
    """One line of a task file, as in the original C-MTEB reranking files, with its query's id."""

    query_id: str
    query: str
    positive: list[str]
    negative: list[str]


@dataclass(frozen=True)
class Passage:
    """A passage of the sources.

    Attributes:
        passage_id: Its name, ``topic-number``.
        topic: What it is about; passages of one topic are each other's hard negatives.
        text: The passage itself.
        pool: The source file it stands in: medical, web or search.
    """

    passage_id: str
    topic: str
    text: str
    pool: str


@dataclass(frozen=True)
class Query:
    """A query of the sources.

    Attributes:
        query_id: Its name, unlike any other's even where two texts are equal.
        task: The task it belongs to.
        topic: The topic whose other passages are its hard negatives.
        text: The query itself.
        relevant: Ids of the passages that answer it; all of them are in its list.
        exclude: Ids of passages that answer it in part, or could be read so: never in its list.
        require: Ids of passages that are always among its negatives.
        repeat: Ids of passages that stand in its list twice.
        candidates: The length of its list, repeats not counted; None leaves it to the task.
    """

    query_id: str
    task: str
    topic: str
    text: str
    relevant: tuple[str, ...]
    exclude: frozenset[str]
    require: tuple[str, ...]
    repeat: tuple[str, ...]
    candidates: int | None


@dataclass(frozen=True)
class MiniTask:
    """How one mini task is assembled.

    Attributes:
        name: The task's name; its file is ``<name>.jsonl``.
        shape_of: The official task or tasks whose shape it imitates.
        pools: The source files its negatives come from.
        min_candidates: The length of the shortest list.
        typical_candidates: The most frequent length.
        max_candidates: The length of the longest list.
        max_passage_length: Passages of more characters are never drawn as negatives; None for no limit.
    """

    name: str
    shape_of: str
    pools: tuple[str, ...]
    min_candidates: int
    typical_candidates: int
    max_candidates: int
    max_passage_length: int | None = None


TASKS = (
    MiniTask("MiniMedicalA", "CMedQAv1-reranking", ("medical",), 50, 50, 50),
    MiniTask("MiniMedicalB", "CMedQAv2-reranking", ("medical",), 50, 50, 50),
    MiniTask("MiniWeb", "MMarcoReranking", ("web", "search"), 200, 200, 202, max_passage_length=300),
    MiniTask("MiniSearch", "T2Reranking", ("search", "web"), 4, 9, 40),
)


def read_passages(source: Path = SOURCE) -> dict[str, Passage]:
    """Reads every passage of the sources.

    Args:
        source: The folder of the source files.

    Returns:
        The passages by id, in the order of the files.

    Raises:
        ValueError: If two passages share an id.
    """
    passages: dict[str, Passage] = {}
    for pool in ("medical", "web", "search"):
        for line in (source / f"passages_{pool}.jsonl").read_text("utf-8").splitlines():
            fields = json.loads(line)
            passage = Passage(fields["passage_id"], fields["topic"], fields["text"], pool)
            if passage.passage_id in passages:
                raise ValueError(f"two passages are called {passage.passage_id}")
            passages[passage.passage_id] = passage
    return passages


def read_queries(source: Path = SOURCE) -> list[Query]:
    """Reads every query of the sources.

    Args:
        source: The folder of the source files.

    Returns:
        The queries, in the order of the file.
    """
    queries = []
    for line in (source / "queries.jsonl").read_text("utf-8").splitlines():
        fields = json.loads(line)
        queries.append(
            Query(
                query_id=fields["query_id"],
                task=fields["task"],
                topic=fields["topic"],
                text=fields["query"],
                relevant=tuple(fields["relevant"]),
                exclude=frozenset(fields["exclude"]),
                require=tuple(fields.get("require", ())),
                repeat=tuple(fields.get("repeat", ())),
                candidates=fields.get("candidates"),
            )
        )
    return queries


def build_row(query: Query, task: MiniTask, passages: dict[str, Passage]) -> Row:
    """Draws one query's list.

    Required negatives come first, then passages of the query's own topic up to a share of the list, then
    the rest of the task's pools at random. The draw depends on the seed and the query's id alone, so
    another query added to the sources leaves this one's list as it was unless the passages change.

    Args:
        query: The query.
        task: The task it belongs to.
        passages: Every passage, by id.

    Returns:
        The query's line.

    Raises:
        ValueError: If the pools hold too few passages for the list.
    """
    rng = random.Random(f"{SEED} {query.query_id}")
    size = query.candidates
    if size is None:
        size = round(rng.triangular(task.min_candidates, task.max_candidates, task.typical_candidates))
    forced = [*query.require, *(name for name in query.repeat if name not in query.relevant)]
    wanted = max(size - len(query.relevant), 1, len(forced))
    barred = {*query.relevant, *query.exclude, *forced}
    eligible = [
        passage
        for passage in passages.values()
        if passage.pool in task.pools
        and passage.passage_id not in barred
        and (task.max_passage_length is None or len(passage.text) <= task.max_passage_length)
    ]
    same_topic = [passage.passage_id for passage in eligible if passage.topic == query.topic]
    others = [passage.passage_id for passage in eligible if passage.topic != query.topic]
    rng.shuffle(same_topic)
    rng.shuffle(others)
    hard = same_topic[: max(1, round(SAME_TOPIC_SHARE * wanted))]
    negative = [*forced, *hard, *others][:wanted]
    if len(negative) < wanted:
        raise ValueError(f"{query.query_id}: {wanted} negatives wanted, {len(negative)} to be had")
    positive = list(query.relevant)
    for name in query.repeat:
        (positive if name in query.relevant else negative).append(name)
    rng.shuffle(negative)
    return Row(
        query_id=query.query_id,
        query=query.text,
        positive=[passages[name].text for name in positive],
        negative=[passages[name].text for name in negative],
    )


def build_task(name: str, source: Path = SOURCE) -> list[Row]:
    """Assembles one task.

    Args:
        name: The task's name.
        source: The folder of the source files.

    Returns:
        Its lines, in the order of the queries.

    Raises:
        KeyError: If no mini task has that name.
    """
    task = {known.name: known for known in TASKS}[name]
    passages = read_passages(source)
    return [build_row(query, task, passages) for query in read_queries(source) if query.task == name]


def shapes_table(rows_of: dict[str, list[Row]]) -> str:
    """Describes the tasks in a Markdown table.

    Args:
        rows_of: The lines of each task, by name.

    Returns:
        The table, one row a task.
    """
    lines = [
        "| task | in the shape of | queries | candidates a query (min, mean, max) | relevant a query (mean) "
        "| distinct passages | query length (mean) | passage length (min, mean, max) "
        "| passages over 512 characters |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for task in TASKS:
        rows = rows_of[task.name]
        sizes = [len(row["positive"]) + len(row["negative"]) for row in rows]
        relevant = sum(len(row["positive"]) for row in rows) / len(rows)
        texts = [text for row in rows for text in (*row["positive"], *row["negative"])]
        lengths = [len(text) for text in texts]
        distinct = set(texts)
        lines.append(
            f"| {task.name} | {task.shape_of} | {len(rows)} "
            f"| {min(sizes)}, {sum(sizes) / len(sizes):.1f}, {max(sizes)} | {relevant:.2f} "
            f"| {len(distinct)} | {sum(len(row['query']) for row in rows) / len(rows):.1f} "
            f"| {min(lengths)}, {sum(lengths) / len(lengths):.1f}, {max(lengths)} "
            f"| {sum(len(text) > 512 for text in distinct)} |"
        )
    everything = {text for rows in rows_of.values() for row in rows for text in (*row["positive"], *row["negative"])}
    lines += ["", f"All four together: {len(everything)} distinct passages. Lengths in characters."]
    return "\n".join(lines)


def render(source: Path = SOURCE) -> dict[str, str]:
    """Renders every file that the build writes.

    Args:
        source: The folder of the source files.

    Returns:
        The text of each file, by name: the four task files, and the card with its table renewed.
    """
    rows_of = {task.name: build_task(task.name, source) for task in TASKS}
    files = {
        f"{name}.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        for name, rows in rows_of.items()
    }
    card = (HERE / CARD).read_text("utf-8")
    before, rest = card.split(TABLE_BEGIN, 1)
    after = rest.split(TABLE_END, 1)[1]
    files[CARD] = f"{before}{TABLE_BEGIN}\n\n{shapes_table(rows_of)}\n\n{TABLE_END}{after}"
    return files


def main() -> None:
    """Rewrites the task files and the card's table in place."""
    for name, text in render().items():
        path = HERE / name
        path.write_bytes(text.encode("utf-8"))
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
