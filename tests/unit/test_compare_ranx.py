"""Two made-up runs compared here, held against what ranx 0.3.21 says of them.

ranx needs numba, too much for a test's sake: its answers are written down. They come from
`ranx.compare(qrels, runs, ["map", "mrr@10", "ndcg@10"], stat_test="fisher", n_permutations=9999, random_seed=1)`.
"""

import numpy as np
import pytest

from listcon_eval.comparison.statistics import count_wins, randomisation_test
from listcon_eval.metrics import mteb as mteb_protocol
from listcon_eval.records import Metrics

MEANS = {"map_at_1000": (0.52513, 0.49349), "mrr_at_10": (0.76311, 0.73290), "ndcg_at_10": (0.58239, 0.55340)}
P_VALUES = {"map_at_1000": 0.1695, "mrr_at_10": 0.4368, "ndcg_at_10": 0.2579}
WINS = {"map_at_1000": (67, 0, 53), "mrr_at_10": (38, 52, 30), "ndcg_at_10": (66, 1, 53)}


@pytest.fixture(scope="module")
def evaluations() -> list[Metrics]:
    """Two noisy rankings of 120 lists of 30 documents."""
    rng = np.random.default_rng(5)
    qrels: dict[str, dict[str, int]] = {}
    runs: list[dict[str, dict[str, float]]] = [{}, {}]
    for query in range(120):
        documents = [f"d{query}_{place}" for place in range(30)]
        relevant = rng.random(30) < 0.15
        relevant[0] = True
        qrels[f"q{query}"] = dict(zip(documents, map(int, relevant), strict=True))
        for run, noise in zip(runs, (1.0, 1.15), strict=True):
            scores = relevant * 1.0 + noise * rng.normal(size=30)
            run[f"q{query}"] = dict(zip(documents, map(float, scores), strict=True))
    return [mteb_protocol.evaluate(qrels, run) for run in runs]


@pytest.mark.parametrize("name", list(MEANS))
def test_means_p_values_and_wins_are_those_of_ranx(evaluations: list[Metrics], name: str) -> None:
    first, second = evaluations
    assert (first.means[name], second.means[name]) == pytest.approx(MEANS[name], abs=1e-5)
    differences = [first.per_query[query][name] - second.per_query[query][name] for query in first.per_query]
    # Both draw 9,999 sign assignments of their own: two such estimates differ by less than 4 standard errors.
    error = 4 * (2 * P_VALUES[name] * (1 - P_VALUES[name]) / 9999) ** 0.5
    assert randomisation_test([differences])[0] == pytest.approx(P_VALUES[name], abs=error)
    assert tuple(count_wins(differences)) == WINS[name]
