"""Is one run better than another, or is it the draw of the queries? Intervals, a paired test, and its correction."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

MIN_RESAMPLES = 9_999
SEED = 20_241_211
LEVEL = 0.05
_LEVEL_RATIO = 10  # how far the smallest corrected p-value that the draws allow stays below the level
_EXACT_QUERIES = 13  # up to here all sign assignments are counted: at most 8,192
_CELLS = 2_000_000  # numbers drawn at once: what bounds the memory, not what changes a result
_ROUNDING = 1e-12  # a sum is as far out as the observed one if it is so up to rounding, as in scipy's permutation_test
_EQUAL = 1e-9  # two values of a query are equal up to this


class Interval(NamedTuple):
    """A mean and its bootstrap interval."""

    mean: float
    low: float
    high: float


class WinCount(NamedTuple):
    """On how many queries the first of two runs is better, equal and worse."""

    wins: int
    ties: int
    losses: int


def resamples_for(tests: int, level: float = LEVEL) -> int:
    """How many sign assignments a family of tests needs.

    The smallest p-value of n assignments is 1 / (n + 1), and Holm multiplies it by the number of tests. With these it
    is a tenth of the level at most.
    """
    return max(MIN_RESAMPLES, math.ceil(_LEVEL_RATIO * tests / level) - 1)


def mean_intervals(values: ArrayLike, *, resamples: int = MIN_RESAMPLES, seed: int = SEED) -> list[Interval]:
    """Means of per-query values with their 95 % percentile bootstrap intervals over queries.

    Args:
        values: T rows of one value a query, (T, Q); NaN where a row does not have the query.
        resamples: how many resamples of the queries to draw; all rows see the same.
        seed: the generator's seed.

    Returns:
        T intervals. Both ends are the mean where there is one value, which tells nothing of a spread.
    """
    rows = np.asarray(values, dtype=np.float64)
    present = ~np.isnan(rows)
    filled = np.where(present, rows, 0.0)
    queries = rows.shape[1]
    generator = np.random.default_rng(seed)
    means = []
    for drawn in _batches(resamples, queries):
        picks = generator.integers(0, queries, size=(drawn, queries))
        picks += queries * np.arange(drawn)[:, None]
        times = np.bincount(picks.ravel(), minlength=drawn * queries).reshape(drawn, queries)  # how often each is drawn
        with np.errstate(invalid="ignore"):  # a resample without any query of a row
            means.append((times @ filled.T) / (times @ present.T.astype(np.float64)))  # (drawn, T)
    low, high = np.nanquantile(np.concatenate(means), [0.025, 0.975], axis=0)
    return [
        Interval(mean, mean, mean) if own.sum() == 1 else Interval(mean, float(start), float(end))
        for own, row, start, end in zip(present, filled, low, high, strict=True)
        for mean in (math.fsum(row) / int(own.sum()),)
    ]


def randomisation_test(
    differences: ArrayLike, *, resamples: int = MIN_RESAMPLES, seed: int = SEED
) -> NDArray[np.float64]:
    """Paired, two-sided randomisation test: the p-values of differences whose signs are a matter of chance.

    Under the null hypothesis the two runs of a pair are exchangeable query by query, so the sign of each query's
    difference is a coin toss. p = (c + 1) / (n + 1), where c of n random sign assignments are at least as far from 0
    as what was seen: never 0, and valid for any n (Phipson and Smyth, "Permutation P-values should never be zero",
    2010; the test in retrieval: Smucker, Allan and Carterette, CIKM 2007; sacrebleu reports the same). For up to
    13 queries all assignments are counted, and p is their share.

    Args:
        differences: one difference a query for each of T tests, (T, Q); NaN where a pair does not have the query.
        resamples: n.
        seed: the generator's seed; all T tests see the same assignments.

    Returns:
        T p-values, (T,).
    """
    rows = np.nan_to_num(np.asarray(differences, dtype=np.float64))  # (T, Q); a sign of 0 does not matter
    queries = rows.shape[1]
    reached = np.abs(rows.sum(axis=1)) - _ROUNDING * np.abs(rows).sum(axis=1)  # (T,)
    count = np.zeros(len(rows), dtype=np.int64)
    for signs in _signs(resamples, queries, seed):  # (drawn, Q), -1 or 1
        count += (np.abs(signs.astype(np.float64) @ rows.T) >= reached).sum(axis=0)  # (drawn, T) -> (T,)
    p_values = count / 2.0**queries if is_exact(queries) else (count + 1.0) / (resamples + 1.0)
    return np.asarray(p_values, dtype=np.float64)


def is_exact(queries: int) -> bool:
    """Whether `randomisation_test` counts all sign assignments of so many queries."""
    return queries <= _EXACT_QUERIES


def _signs(resamples: int, queries: int, seed: int) -> Iterator[NDArray[np.int64]]:
    if is_exact(queries):
        yield 1 - 2 * (np.arange(2**queries)[:, None] >> np.arange(queries) & 1)
        return
    generator = np.random.default_rng(seed)
    for drawn in _batches(resamples, queries):
        yield 2 * generator.integers(0, 2, size=(drawn, queries), dtype=np.int8).astype(np.int64) - 1


def _batches(resamples: int, queries: int) -> Iterator[int]:
    at_once = max(1, _CELLS // queries)
    for start in range(0, resamples, at_once):
        yield min(at_once, resamples - start)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of a family of m p-values (Scandinavian Journal of Statistics 6, 1979).

    The i-th smallest of m (from 0) is multiplied by m - i, and is never below the one before it nor above 1.
    """
    order = np.argsort(p_values, kind="stable")
    steps = np.asarray(p_values, dtype=np.float64)[order] * (len(order) - np.arange(len(order)))
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(p_value) for p_value in corrected]


def count_wins(differences: ArrayLike) -> WinCount:
    """Count the queries whose difference is above, at and below 0 (up to 1e-9); a NaN is not counted."""
    row = np.asarray(differences, dtype=np.float64)
    return WinCount(int((row > _EQUAL).sum()), int((np.abs(row) <= _EQUAL).sum()), int((row < -_EQUAL).sum()))
