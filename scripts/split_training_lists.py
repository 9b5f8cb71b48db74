"""Split a file of training lists into lists to train on and longer lists to choose by.

No passage of a held-out list is in a training list, not even as a negative, and queries that share a relevant passage
go to one side together. For that, one in ten of the passages that are relevant to no query is set aside as well. A
held-out list has 100 candidates: the relevant passages, then by turns the next best by BM25 and a random one.
Training lists that lose their last negative or positive are left out.

    python scripts/split_training_lists.py lists.jsonl.gz OUT --share 0.03 --share law:=0.15

writes OUT/train.jsonl.gz, and OUT/eval_NAME.jsonl.gz for each share (`eval_law`, and `eval_rest` for the plain one).
Candidates of a prefix's lists come from that prefix's passages, those of `rest` from all others.
"""

import argparse
import gzip
import hashlib
import json
import sys
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from listcon_eval.data import read_lists
from listcon_eval.errors import ListconError
from listcon_eval.systems.baselines import characters

LIST_SIZE = 100
SET_ASIDE = 0.1
Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """Training lists as rows with the texts of their relevant and other passages.

    Raises:
        ListconError: the file cannot be read, naming file and line.
    """
    return [
        {
            "query_id": row.query_id,
            "query": row.query,
            "positive": [text for text, given in zip(row.passages, row.relevance, strict=True) if given > 0],
            "negative": [text for text, given in zip(row.passages, row.relevance, strict=True) if given <= 0],
        }
        for row in read_lists(path)
    ]


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows in the original layout, gzipped; equal rows make equal bytes."""
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def share_of(text: str) -> tuple[str, float]:
    """A prefix, or none, and its share, of `SHARE` or `PREFIX=SHARE`."""
    prefix, _, share = text.rpartition("=")
    if not 0 < float(share) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a share above 0 and below 1")
    return prefix, float(share)


def place(text: str, salt: str) -> float:
    """A number from 0 to 1 that follows from the text."""
    return int(hashlib.sha256((salt + text).encode()).hexdigest()[:12], 16) / 16**12


def components(rows: Sequence[Row]) -> list[str]:
    """For each row the first in order of the relevant passages of its component: equal for rows that share one."""
    sets = DisjointSet(passage for row in rows for passage in row["positive"])
    for row in rows:
        for passage in row["positive"]:
            sets.merge(row["positive"][0], passage)
    first: dict[str, str] = {}
    for texts in sets.subsets():
        first |= dict.fromkeys(texts, min(texts))
    return [first[row["positive"][0]] for row in rows]


def long_lists(rows: list[Row], pool: list[str], most: int) -> list[Row]:
    """Lists of `LIST_SIZE` candidates from the pool for up to `most` of the rows whose query has words."""
    rows = [row for row in rows if characters(row["query"])]
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
    parser.add_argument(
        "--share", action="append", type=share_of, required=True, help="a share, or PREFIX=SHARE of query ids"
    )
    parser.add_argument(
        "--most", type=int, default=300, help="held-out lists of each share, at most; the others are in no file"
    )
    options = parser.parse_args()
    if options.most < 1:
        parser.error(f"--most is {options.most}: expected 1 or more")
    shares: dict[str, float] = dict(options.share)
    try:
        rows = [row for row in read_rows(options.lists) if row["positive"]]
    except ListconError as error:
        parser.error(str(error))
    for prefix in shares:
        if not any(row["query_id"].startswith(prefix) for row in rows):
            parser.error(f"--share: no query id starts with {prefix!r}")

    def prefix_of(row: Row) -> str:
        fitting = [prefix for prefix in shares if row["query_id"].startswith(prefix)]
        return max(fitting, key=len, default="")

    roots = components(rows)
    relevant = {text for row in rows for text in row["positive"]}
    share_of_root: dict[str, float] = {}  # a passage may be relevant to queries of several prefixes
    for row, root in zip(rows, roots, strict=True):
        share_of_root[root] = max(share_of_root.get(root, 0.0), shares.get(prefix_of(row), 0.0))
    held_out = [place(root, "rows") < share_of_root[root] for root in roots]
    kind = {text: prefix_of(row) for row in rows for text in (*row["positive"], *row["negative"])}
    aside = {text for row, out in zip(rows, held_out, strict=True) if out for text in row["positive"]}
    aside |= {text for text in kind if text not in relevant and place(text, "texts") < SET_ASIDE}

    files = {"train": [row for row, out in zip(rows, held_out, strict=True) if not out]}
    for row in files["train"]:
        row["negative"] = [text for text in row["negative"] if text not in aside]
    files["train"] = [row for row in files["train"] if row["negative"]]
    for prefix in shares:
        mine = [row for row, out in zip(rows, held_out, strict=True) if out and prefix_of(row) == prefix]
        if not mine:
            parser.error(f"--share: {shares[prefix]:g} holds out no list of {prefix!r}: give a larger share")
        pool = sorted(text for text in aside if kind[text] == prefix)
        files[f"eval_{prefix.strip(':') or 'rest'}"] = long_lists(mine, pool, options.most)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, lists in files.items():
        path = options.out / f"{name}.jsonl.gz"
        write_rows(path, lists)
        sys.stdout.write(f"{path}: {len(lists)} lists\n")


if __name__ == "__main__":
    main()
