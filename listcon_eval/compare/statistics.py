"""Is one run better than another, or is it the draw of the queries? Intervals, a paired test, and its correction."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import bootstrap

RESAMPLES = 9_999
SEED = 20_241_211
LEVEL = 0.05
_CELLS = 2_000_000  # numbers drawn at once: what bounds the memory of a test, not what it gives
# A resample counts as being as far out as what was seen when it is so up to rounding (scipy's permutation_test does so)
_ROUNDING = 1e-12


class Interval(NamedTuple):
    """A mean and its bootstrap interval."""

    mean: float
    low: float
    high: float


class Count(NamedTuple):
    """Queries on which the first of two runs is better, equal and worse."""

    wins: int
    ties: int
    losses: int


def mean_interval(values: ArrayLike, *, resamples: int = RESAMPLES, seed: int = SEED) -> Interval:
    """The mean of one value a query with its 95 % percentile bootstrap interval over queries.

    Args:
        values: one value a query, (Q,).
        resamples: how many resamples to draw.
        seed: the generator's seed.

    Returns:
        The interval; both ends are the mean itself for a single query, which says nothing of a spread.
    """
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) < 2:
        return Interval(mean, mean, mean)
    found = bootstrap(
        (sample,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _CELLS // len(sample)),
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def randomisation_test(differences: ArrayLike, *, resamples: int = RESAMPLES, seed: int = SEED) -> NDArray[np.float64]:
    """Paired, two-sided randomisation test: the p-values of differences whose signs are a matter of chance.

    Under the null hypothesis the two runs of a pair are exchangeable query by query, so that the sign of each
    query's difference is a coin toss. p = (c + 1) / (n + 1), c of n random sign assignments being at least as far
    from 0 as what was seen: never 0, and valid for any n (Phipson and Smyth, "Permutation P-values should never be
    zero", 2010; the test in retrieval: Smucker, Allan and Carterette, CIKM 2007; sacrebleu reports the same).

    Args:
        differences: one difference a query for each of T tests, (T, Q), or (Q,) for one.
        resamples: n.
        seed: the generator's seed; all T tests see the same assignments.

    Returns:
        T p-values, (T,).
    """
    rows = np.atleast_2d(np.asarray(differences, dtype=np.float64))  # (T, Q)
    observed = np.abs(rows.sum(axis=1))  # (T,)
    reached = observed - _ROUNDING * np.abs(rows).sum(axis=1)
    generator = np.random.default_rng(seed)
    count = np.zeros(len(rows), dtype=np.int64)
    at_once = max(1, _CELLS // rows.shape[1])
    for start in range(0, resamples, at_once):
        drawn = min(at_once, resamples - start)
        signs = 2.0 * generator.integers(0, 2, size=(drawn, rows.shape[1]), dtype=np.int8) - 1.0  # (drawn, Q)
        count += (np.abs(signs @ rows.T) >= reached).sum(axis=0)  # (drawn, T) -> (T,)
    return np.asarray((count + 1.0) / (resamples + 1.0), dtype=np.float64)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p-values for their number (Scandinavian Journal of Statistics 6, 1979).

    The i-th smallest of m (from 0) is multiplied by m - i, and is never below the one before it nor above 1.

    Args:
        p_values: the p-values of a family of m tests.

    Returns:
        The corrected ones, in the same order.
    """
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - place)))
        corrected[index] = highest
    return corrected


def count_wins(differences: ArrayLike) -> Count:
    """Count the queries whose difference is above, at and below 0 (up to 1e-9)."""
    row = np.asarray(differences, dtype=np.float64)
    return Count(int((row > 1e-9).sum()), int((np.abs(row) <= 1e-9).sum()), int((row < -1e-9).sum()))
