"""Order training lists so that those with the same passages stand together, in blocks of a size.

    python scripts/order_training_lists.py lists.jsonl.gz OUT.jsonl.gz --block_size 16

`listcon-eval train --block_size 16` then keeps each block in one batch: shared passages are encoded once, and are hard
negatives of the others. A block grows from a list by the list that has most of its passages in the block already, by
characters; when no list shares any, by a random one. Lists without a positive or a negative, which training skips, are
left out. To hold lists out, split the file first (`split_training_lists.py`).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from listcon_eval.errors import ListconError
from split_training_lists import Row, read_rows, write_rows


def blocks(rows: Sequence[Row], size: int) -> list[int]:
    """The places of the rows in their new order."""
    passages = [set(row["positive"]) | set(row["negative"]) for row in rows]
    characters = [sum(map(len, texts)) or 1 for texts in passages]
    lists_of: dict[str, list[int]] = {}
    for place, texts in enumerate(passages):
        for text in texts:
            lists_of.setdefault(text, []).append(place)
    left = set(range(len(rows)))
    order: list[int] = []
    starts = iter(np.random.default_rng(0).permutation(len(rows)).tolist())
    shared: dict[int, int] = {}  # characters that a list has in common with the block
    seen: set[str] = set()
    while left:
        if len(order) % size == 0:
            shared, seen = {}, set()
        chosen = max(shared, key=lambda place: (shared[place] / characters[place], -place), default=None)
        if chosen is None:
            chosen = next(place for place in starts if place in left)
        left.remove(chosen)
        order.append(chosen)
        shared.pop(chosen, None)
        for text in passages[chosen] - seen:
            for place in lists_of[text]:
                if place in left:
                    shared[place] = shared.get(place, 0) + len(text)
        seen |= passages[chosen]
    return order


def main() -> None:
    """Read the options, and write the lists."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--block_size", type=int, default=16, help="lists in a block")
    options = parser.parse_args()
    if options.block_size < 1:
        parser.error(f"--block_size is {options.block_size}: expected 1 or more")
    try:
        rows = [row for row in read_rows(options.lists) if row["positive"] and {*row["negative"]} - {*row["positive"]}]
    except ListconError as error:
        parser.error(str(error))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_rows(options.out, [rows[place] for place in blocks(rows, options.block_size)])
    sys.stdout.write(f"{options.out}: {len(rows)} lists in blocks of {options.block_size}\n")


if __name__ == "__main__":
    main()
