"""Lists with awkward cases, and how tests read what a run wrote."""

import gzip
import json
from pathlib import Path
from typing import Any

from texts import random_list

MODES = ("conventional", "iterative")
NUMBERS = ("run.jsonl", "run.trec", "qrels.trec", "per_query.jsonl")  # a run's files without times and origins


def write_lists(path: Path) -> Path:
    """Lists of 1 to 1002 candidates with the awkward cases: equal queries, equal texts, one class only."""
    rows: list[dict[str, Any]] = []
    for seed, (positives, negatives) in enumerate([(1, 0), (1, 1), (2, 18), (3, 22), (0, 5), (4, 0), (2, 1000)]):
        query, *passages = random_list(positives + negatives, seed=seed, longest=30)
        rows.append({"query": query, "positive": passages[:positives], "negative": passages[positives:]})
    rows.append({"query": rows[3]["query"], "positive": rows[3]["positive"], "negative": rows[2]["negative"]})
    repeated = random_list(26, seed=99, longest=30)
    # Equal documents among the negatives, a text that is positive and negative at once, and an empty passage.
    rows.append(
        {
            "query": repeated[0],
            "positive": [repeated[1], repeated[2]],
            "negative": [*repeated[3:], repeated[5], repeated[2], ""],
        }
    )
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path


def write_few_lists(path: Path, queries: int = 3, size: int = 25) -> Path:
    """A few lists of random texts."""
    rows = []
    for seed in range(queries):
        query, *passages = random_list(size, seed=seed)
        rows.append({"query_id": f"q{seed}", "query": query, "positive": passages[:2], "negative": passages[2:]})
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def run_folders(output: Path) -> list[Path]:
    """The folders of this package's files of every run under an output folder, in the order of their paths."""
    return sorted(path.parent for path in output.glob("results/*/*/experiments/*/*/metrics.json"))


def by_mode(output: Path) -> dict[str, Path]:
    """The folder of each mode's files, where there is one run of each."""
    found = {read_json(folder / "metrics.json")["settings"]["mode"]: folder for folder in run_folders(output)}
    assert len(found) == len(run_folders(output))
    return found


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Strict JSON lines."""
    return [json.loads(line, parse_constant=_refuse) for line in path.read_text(encoding="utf-8").splitlines()]


def read_json(path: Path) -> dict[str, Any]:
    """Strict JSON."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    return content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def contents(output: Path) -> dict[str, bytes]:
    """The bytes of everything a run says of its numbers, by file."""
    folders = run_folders(output)
    return {f"{folder.parent.name}/{name}": (folder / name).read_bytes() for folder in folders for name in NUMBERS}
