"""Split a file of training lists into lists to train on and longer lists to choose by.

What is held out was never seen in training: queries that share a relevant passage go to one side together, and no
passage of a held-out list is in a training list, not even as a negative. For that, one in ten of the passages that are
relevant to no query is set aside as well. A held-out list has 100 candidates: the relevant passages, then by turns the
next best by BM25 and a random one. Training lists that lose their last negative or positive are left out.

    python scripts/split_training_lists.py lists.jsonl.gz OUT --share 0.03 --share law:=0.15

writes OUT/train.jsonl.gz, and OUT/eval_NAME.jsonl.gz for each share (`eval_law`, and `eval_rest` for the plain one).
Candidates of a prefix's lists come from that prefix's passages, those of `rest` from all others.
"""

import argparse
import gzip
import hashlib
import json
import sys
from collections.abc import Iterable
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import bm25s
import numpy as np

from listcon_eval.systems.baselines import characters

LIST_SIZE = 100
SET_ASIDE = 0.1
Row = dict[str, Any]


def place(text: str, salt: str) -> float:
    """A number from 0 to 1 that follows from the text."""
    return int(hashlib.sha256((salt + text).encode()).hexdigest()[:12], 16) / 16**12


def components(rows: Iterable[Row]) -> list[str]:
    """For each row one of the relevant passages that its component of rows has: equal for rows that share one."""
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        while (above := parent.setdefault(text, text)) != text:
            parent[text] = parent[above]
            text = above
        return text

    rows = list(rows)
    for row in rows:
        for passage in row["positive"]:
            first, second = sorted((root(passage), root(row["positive"][0])))
            parent[second] = first
    return [root(row["positive"][0]) for row in rows]


def long_lists(rows: list[Row], pool: list[str], most: int) -> list[Row]:
    """Lists of `LIST_SIZE` candidates from the pool for up to `most` of the rows."""
    index = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    index.index([characters(text) for text in pool], show_progress=False)
    found = []
    for row in sorted(rows, key=lambda row: place(row["query_id"], "which"))[:most]:
        scores = index.get_scores(characters(row["query"]))
        relevant = set(row["positive"])
        best = [pool[index] for index in np.argsort(-scores, kind="stable") if pool[index] not in relevant]
        chance = sorted(best, key=lambda text: place(text, row["query_id"]))
        turns = dict.fromkeys(text for text in chain.from_iterable(zip_longest(best, chance)) if text is not None)
        found.append({**row, "negative": list(turns)[: max(1, LIST_SIZE - len(row["positive"]))]})
    return found


def main() -> None:
    """Read the options, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", action="append", default=[], help="a share, or PREFIX=SHARE of query ids")
    parser.add_argument("--most", type=int, default=300, help="held-out lists of each share, at most")
    options = parser.parse_args()
    shares = {prefix: float(share) for prefix, _, share in (text.rpartition("=") for text in options.share)}
    with gzip.open(options.lists, "rt", encoding="utf-8") as lines:
        rows: list[Row] = [json.loads(line) for line in lines]
    rows = [row for row in rows if row["positive"]]

    def prefix_of(row: Row) -> str:
        fitting = [prefix for prefix in shares if row["query_id"].startswith(prefix)]
        return max(fitting, key=len, default="")

    roots = components(rows)
    relevant = {text for row in rows for text in row["positive"]}
    held_out = [place(root, "rows") < shares.get(prefix_of(row), 0.0) for row, root in zip(rows, roots, strict=True)]
    kind = {text: prefix_of(row) for row in rows for text in (*row["positive"], *row["negative"])}
    aside = {text for row, out in zip(rows, held_out, strict=True) if out for text in row["positive"]}
    aside |= {text for text in kind if text not in relevant and place(text, "texts") < SET_ASIDE}

    files = {"train": [row for row, out in zip(rows, held_out, strict=True) if not out]}
    for row in files["train"]:
        row["negative"] = [text for text in row["negative"] if text not in aside]
    files["train"] = [row for row in files["train"] if row["negative"]]
    for prefix in shares:
        mine = [row for row, out in zip(rows, held_out, strict=True) if out and prefix_of(row) == prefix]
        pool = sorted(text for text in aside if kind[text] == prefix)
        files[f"eval_{prefix.strip(':') or 'rest'}"] = long_lists(mine, pool, options.most)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, lists in files.items():
        path = options.out / f"{name}.jsonl.gz"
        with gzip.GzipFile(path, "wb", mtime=0) as file:
            file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in lists)
        sys.stdout.write(f"{path}: {len(lists)} lists\n")


if __name__ == "__main__":
    main()
