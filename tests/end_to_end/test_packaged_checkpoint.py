"""The packaged checkpoint: its size, what it ranks, and that its card tells of it and of no other."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from listcon_eval import ListConRanker
from listcon_eval.data import Task, local_task, mini_names, mini_task
from listcon_eval.metrics import cmteb
from listcon_eval.model.source import MINI
from listcon_eval.ordering import ranked_list
from listcon_eval.records import MODES, Mode

CARD = Path(__file__).resolve().parents[2] / "listcon_eval" / "model" / "mini" / "README.md"


@pytest.fixture(scope="module")
def mini() -> ListConRanker:
    return ListConRanker.from_pretrained(MINI, device="cpu", dtype="float32")


def means_of_ap(ranker: ListConRanker, task: Task) -> dict[Mode, float]:
    """MAP in both modes; the texts are encoded once."""
    lists = task.candidate_lists()
    encoded = ranker.encode([row.query for row in lists], [row.passages for row in lists])
    means: dict[Mode, float] = {}
    for mode in MODES:
        scored = ranker.rank_encoded(encoded, mode)
        means[mode] = cmteb.evaluate(lists, scored, mode).means["map"]
    return means


def random_ap(task: Task) -> float:
    rng = np.random.default_rng(0)
    lists = task.candidate_lists()
    scored = [ranked_list(rng.random(len(row.doc_ids))) for row in lists]
    return cmteb.evaluate(lists, scored, "conventional").means["map"]


def test_it_is_small_and_its_card_names_its_weights(mini: ListConRanker) -> None:
    folder = mini.checkpoint.source.folder
    assert folder == CARD.parent
    assert sum(path.stat().st_size for path in folder.iterdir()) < 40_000_000
    assert f"sha256-{mini.checkpoint.weights_sha256[:40]}" in CARD.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", mini_names("mini"))
def test_it_is_far_above_a_random_order(mini: ListConRanker, name: str) -> None:
    task = mini_task(name)
    assert min(means_of_ap(mini, task).values()) > random_ap(task) + 0.25


def of_card(row: str, column: str) -> float:
    """A number of the card's first table of models: percent, by the start of its row and its column."""
    lines = [line for line in CARD.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    header = next([cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| Model"))
    found = next(line for line in lines if re.sub(r"[*\s]", "", line).startswith(row))
    return float(found.strip("|").split("|")[header.index(column)].strip(" *"))


@pytest.mark.slow
def test_its_card_tells_its_scores(mini: ListConRanker, real_data: Callable[[str], Path]) -> None:
    """On the file that is ranked fastest, which the card has in float32 as well."""
    name = "heldout_t2ranking_sample"
    for mode, found in means_of_ap(mini, local_task(real_data(f"{name}.jsonl.gz"))).items():
        assert 100 * found == pytest.approx(of_card(f"|mini,float32|{mode}|", name), abs=0.02)
