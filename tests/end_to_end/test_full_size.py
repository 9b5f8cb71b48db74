"""A random checkpoint of the published size: 24 layers x 1024, list transformer 2 x 1792, through both layouts."""

from pathlib import Path

import numpy as np
import pytest

from checkpoints import write_layout_1, write_layout_2
from listcon_eval import ListConRanker
from texts import random_list

SIZES = {"hidden": 1024, "layers": 24, "heads": 16, "list_width": 1792, "list_layers": 2, "feedforward": 2048}
LISTS = [random_list(size, seed=size) for size in (1, 4, 25)]


@pytest.mark.slow
def test_the_published_size_loads_and_scores(tmp_path: Path) -> None:
    scores = []
    for layout, write in enumerate((write_layout_1, write_layout_2), start=1):
        folder = write(tmp_path / f"layout-{layout}", **SIZES)  # type: ignore[operator]
        ranker = ListConRanker.from_pretrained(folder, device="cpu", dtype="float32")
        assert ranker.checkpoint.layout == layout
        assert 300e6 < sum(parameter.numel() for parameter in ranker.model.parameters()) < 420e6
        scores.append(np.concatenate(ranker.rank(LISTS, "iterative")))
        assert [len(row) for row in ranker.compute_score(LISTS)] == [1, 4, 25]
        for path in folder.iterdir():
            path.unlink()  # two of them would be 3 GB
    np.testing.assert_array_equal(scores[0], scores[1])
