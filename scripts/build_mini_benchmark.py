"""Assembles the four mini task files and the card's table from the passages and queries in `mini_source/`.

`python scripts/build_mini_benchmark.py` rewrites them; the same sources give the same bytes anywhere.
"""

import json
import random
import sys
from pathlib import Path
from typing import NamedTuple, TypedDict

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


class Passage(NamedTuple):
    """A passage of the sources.

    Attributes:
        passage_id: its name, `topic-number`.
        topic: what it is about; passages of one topic are each other's hard negatives.
        text: the passage itself.
        pool: the source file it stands in: medical, web or search.
    """

    passage_id: str
    topic: str
    text: str
    pool: str


class Query(NamedTuple):
    """A query of the sources.

    Attributes:
        query_id: its name, unlike any other's even where two texts are equal.
        task: the task it belongs to.
        topic: the topic whose other passages are its hard negatives.
        text: the query itself.
        relevant: ids of the passages that answer it; all of them are in its list.
        exclude: ids of passages that answer it in part, or could be read so: never in its list.
        require: ids of passages that are always among its negatives.
        repeat: ids of passages that stand in its list twice.
        candidates: the length of its list, repeats not counted; None leaves it to the task.
    """

    query_id: str
    task: str
    topic: str
    text: str
    relevant: list[str]
    exclude: frozenset[str]
    require: list[str]
    repeat: list[str]
    candidates: int | None


class MiniTask(NamedTuple):
    """How one mini task is assembled.

    Attributes:
        name: the task's name; its file is `<name>.jsonl`.
        shape_of: the official task whose shape it imitates.
        pools: the source files its negatives come from.
        candidates: the length of the shortest list, the most frequent one, and that of the longest.
        max_passage_length: passages of more characters are never drawn as negatives; None for no limit.
    """

    name: str
    shape_of: str
    pools: tuple[str, ...]
    candidates: tuple[int, int, int]
    max_passage_length: int | None = None


TASKS = (
    MiniTask("MiniMedicalA", "CMedQAv1-reranking", ("medical",), (50, 50, 50)),
    MiniTask("MiniMedicalB", "CMedQAv2-reranking", ("medical",), (50, 50, 50)),
    MiniTask("MiniWeb", "MMarcoReranking", ("web", "search"), (200, 200, 202), max_passage_length=300),
    MiniTask("MiniSearch", "T2Reranking", ("search", "web"), (4, 9, 40)),
)


def read_passages() -> dict[str, Passage]:
    """Every passage of the sources by its id, in the order of the files.

    Raises:
        ValueError: two passages share an id.
    """
    passages: dict[str, Passage] = {}
    for pool in ("medical", "web", "search"):
        for line in (SOURCE / f"passages_{pool}.jsonl").read_text("utf-8").splitlines():
            passage = Passage(**json.loads(line), pool=pool)
            if passage.passage_id in passages:
                raise ValueError(f"two passages are called {passage.passage_id}")
            passages[passage.passage_id] = passage
    return passages


def read_queries() -> list[Query]:
    """Every query of the sources, in the order of the file."""
    queries = []
    for line in (SOURCE / "queries.jsonl").read_text("utf-8").splitlines():
        fields = {"require": [], "repeat": [], "candidates": None, **json.loads(line)}
        queries.append(Query(text=fields.pop("query"), exclude=frozenset(fields.pop("exclude")), **fields))
    return queries


def build_row(query: Query, task: MiniTask, passages: dict[str, Passage]) -> Row:
    """Draws one query's list from all passages, by id.

    Required negatives come first, then passages of the query's own topic up to a share of the list, then
    the rest of the task's pools at random. The draw depends on the seed and the query's id alone, so
    another query added to the sources leaves this one's list as it was unless the passages change.

    Raises:
        ValueError: the pools hold too few passages for the list.
    """
    rng = random.Random(f"{SEED} {query.query_id}")
    size = query.candidates
    if size is None:
        shortest, typical, longest = task.candidates
        size = round(rng.triangular(shortest, longest, typical))
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


def shapes_table(rows_of: dict[str, list[Row]]) -> str:
    """A Markdown table of the tasks, one row a task, from the lines of each."""
    lines = [
        "| task | in the shape of | queries | candidates a query (min, mean, max) | relevant a query (mean) "
        "| distinct passages | query length (mean) | passage length (min, mean, max) "
        "| passages over 512 characters |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    everything: set[str] = set()
    for task in TASKS:
        rows = rows_of[task.name]
        sizes = [len(row["positive"]) + len(row["negative"]) for row in rows]
        relevant = sum(len(row["positive"]) for row in rows) / len(rows)
        texts = [text for row in rows for text in (*row["positive"], *row["negative"])]
        lengths = [len(text) for text in texts]
        distinct = set(texts)
        everything |= distinct
        lines.append(
            f"| {task.name} | {task.shape_of} | {len(rows)} "
            f"| {min(sizes)}, {sum(sizes) / len(sizes):.1f}, {max(sizes)} | {relevant:.2f} "
            f"| {len(distinct)} | {sum(len(row['query']) for row in rows) / len(rows):.1f} "
            f"| {min(lengths)}, {sum(lengths) / len(lengths):.1f}, {max(lengths)} "
            f"| {sum(len(text) > 512 for text in distinct)} |"
        )
    lines += ["", f"All four together: {len(everything)} distinct passages. Lengths in characters."]
    return "\n".join(lines)


def render() -> dict[str, str]:
    """The text of every file that the build writes, by name: the task files, and the card with its table renewed."""
    passages, queries = read_passages(), read_queries()
    rows_of = {
        task.name: [build_row(query, task, passages) for query in queries if query.task == task.name] for task in TASKS
    }
    files = {
        f"{name}.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        for name, rows in rows_of.items()
    }
    before, rest = (HERE / CARD).read_text("utf-8").split(TABLE_BEGIN, 1)
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
