"""Give training lists harder negatives: the passages of other lists that BM25 ranks best for their query.

Only lists whose query id starts with one of the prefixes get some, each from the passages of the lists of its own
prefix. Leave out data in which most of what BM25 finds is relevant, though not judged so.

    python scripts/add_negatives.py lists.jsonl.gz OUT.jsonl.gz --prefix wiki --prefix news --count 10
"""

import argparse
import sys
from pathlib import Path

from listcon_eval.errors import ListconError
from listcon_eval.systems.baselines import Bm25
from split_training_lists import read_rows, write_rows


def main() -> None:
    """Read the options, and write the lists."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--prefix", action="append", required=True, help="of query ids; may be given more than once")
    parser.add_argument("--count", type=int, default=10, help="how many negatives to add to each list")
    options = parser.parse_args()
    if options.count < 1:
        parser.error(f"--count is {options.count}: expected 1 or more")
    if any(one != other and one.startswith(other) for one in options.prefix for other in options.prefix):
        parser.error(f"--prefix: {' and '.join(options.prefix)} overlap")
    try:
        rows = read_rows(options.lists)
    except ListconError as error:
        parser.error(str(error))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    changed = 0
    for prefix in dict.fromkeys(options.prefix):
        mine = [row for row in rows if row["query_id"].startswith(prefix)]
        if not mine:
            parser.error(f"--prefix: no query id starts with {prefix!r}")
        pool = sorted({text for row in mine for text in (*row["positive"], *row["negative"])})
        # A query that occurs twice has all positives of both lists.
        relevant: dict[str, set[str]] = {}
        for row in mine:
            relevant.setdefault(row["query"], set()).update(row["positive"])
        known = [relevant[row["query"]] | set(row["negative"]) for row in mine]
        queries = {str(place): row["query"] for place, row in enumerate(mine)}
        top_k = options.count + max(map(len, known))
        ranked = Bm25().retrieve(queries, {text: text for text in pool}, top_k)
        for row, own, best in zip(mine, known, ranked.values(), strict=True):
            row["negative"] += [text for text in best if text not in own][: options.count]
        changed += len(mine)
    write_rows(options.out, rows)
    sys.stdout.write(f"{options.out}: {len(rows)} lists, {changed} of them with up to {options.count} more negatives\n")


if __name__ == "__main__":
    main()
