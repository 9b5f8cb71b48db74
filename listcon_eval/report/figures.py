"""The figures of a report, drawn by matplotlib: narrow enough for a phone and for a column of a paper."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from listcon_eval.report import facts
from listcon_eval.report.fonts import families
from listcon_eval.report.material import System, TaskMaterial

INK, MUTED, GRID = "#1c2733", "#5d6b79", "#d9dfe5"
# Told apart by people with colour deficiencies too, and no two neighbours have the same lightness; from the 9th
# system on the same colours are drawn dashed. Letters stand beside them everywhere.
PALETTE = ("#0b6fa4", "#d1541f", "#2a8f5f", "#8a5fb0", "#b7791f", "#1b9aa8", "#c2488a", "#66707a")
MODES_EQUAL = 20
"""Up to so many candidates both modes are the same by construction."""
_WIDTH = 4.4  # inches
_BINS = np.linspace(0, 1, 21)
_MOST_POINTS = 1_500  # above it points are drawn as a picture: an SVG of ten thousand shapes is slow to show
_LONGEST_NAME = 42
_SETTINGS: dict[Any, Any] = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
    "text.color": INK,
    "text.parse_math": False,  # a name with dollar signs is a name
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


class Curve(NamedTuple):
    """The first and last ranks of R relevant passages, (R, 2), in a system's order; without one, before reranking."""

    name: str
    ranks: NDArray[np.int64]
    system: System | None


@contextmanager
def drawing() -> Iterator[None]:
    """The settings to draw and to save with; matplotlib's own are left as they were."""
    with mpl.rc_context({**_SETTINGS, "font.family": families()}):
        yield


def colour(system: System) -> str:
    """A system's colour, the same in every figure."""
    return PALETTE[system.place % len(PALETTE)]


def ap_distribution(material: TaskMaterial) -> Figure:
    """How per-query AP is distributed: a histogram a system, one below the other, with the mean marked."""
    systems = material.systems
    figure = _figure(0.7 + 0.62 * len(systems))
    rows = figure.subplots(len(systems), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, system in zip(rows, systems, strict=True):
        counts, _ = np.histogram(system.ap, bins=_BINS)
        axes.bar(_BINS[:-1], counts, width=np.diff(_BINS), align="edge", color=colour(system), alpha=0.75, linewidth=0)
        mean = float(system.ap.mean())
        axes.axvline(mean, color=INK, linewidth=1.2)
        axes.set_title(_short(system.name), loc="left", fontsize=8.5, pad=3)
        axes.set_title(f"mean {100 * mean:.2f}", loc="right", fontsize=8.5, pad=3)
        axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        axes.set_xlim(0, 1)
    rows[-1].set_xlabel(f"AP of a query ({material.measure})")
    figure.supylabel("queries", fontsize=8.5)
    return figure


def mode_scatter(conventional: System, iterative: System) -> Figure:
    """Iterative against conventional inference, a point a pair of values, its area the number of queries."""
    figure = _figure(4.2)
    axes = figure.subplots()
    points, sizes = np.unique(np.stack([conventional.ap, iterative.ap], axis=1).round(4), axis=0, return_counts=True)
    change = points[:, 1] - points[:, 0]
    for sign, code in ((1, PALETTE[2]), (0, MUTED), (-1, PALETTE[1])):
        own = np.sign(np.where(abs(change) < 1e-4, 0, change)) == sign
        axes.scatter(
            points[own, 0],
            points[own, 1],
            s=14 * np.sqrt(sizes[own]),
            color=code,
            alpha=0.55,
            linewidths=0,
            rasterized=len(points) > _MOST_POINTS,
        )
    axes.axline((0, 0), slope=1, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_xlabel(f"conventional ({conventional.letter}), AP")
    axes.set_ylabel(f"iterative ({iterative.letter}), AP")
    return figure


def gain_by_length(material: TaskMaterial, pairs: Sequence[tuple[System, System]]) -> Figure:
    """The gain of iterative inference by list length: each query, and the mean of queries of similar length."""
    figure = _figure(3.1)
    axes = figure.subplots()
    for conventional, iterative in pairs:
        gains = 100 * (iterative.ap - conventional.ap)
        axes.scatter(
            material.lengths,
            gains,
            s=11,
            color=colour(iterative),
            alpha=0.35,
            linewidths=0,
            rasterized=len(gains) > _MOST_POINTS,
        )
        bins = facts.gain_by_length(material.lengths, gains)
        axes.plot(
            [(found.shortest + found.longest) / 2 for found in bins],
            [found.gain for found in bins],
            color=colour(iterative),
            marker="o",
            markersize=4.5,
            label=_short(f"{iterative.letter} over {conventional.letter}: mean of similar lengths"),
        )
    axes.axhline(0, color=MUTED, linewidth=0.8)
    longest, shortest = int(material.lengths.max()), int(material.lengths.min())
    if shortest <= MODES_EQUAL < longest:
        axes.axvline(MODES_EQUAL + 0.5, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set(xlabel="candidates of a query", ylabel="gain in AP, points")
    if longest > 10 * max(shortest, 1):
        _whole_log(axes)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _legend(figure)
    return figure


def relevant_positions(curves: Sequence[Curve], deepest: int) -> Figure:
    """Which share of relevant passages stands within the first k, before reranking (dashed ink) and after.

    Args:
        curves: the ranks, before reranking (without a system) and after.
        deepest: the length of the longest list.
    """
    figure = _figure(2.8 + 0.18 * len(curves))
    axes = figure.subplots()
    depths = np.unique(np.geomspace(1, max(deepest, 2), 200).round().astype(np.int64))
    for curve in curves:
        if curve.system is None:
            look: dict[str, Any] = {"color": INK, "linestyle": (0, (2, 2))}
        else:
            dashed = curve.system.place >= len(PALETTE)
            look = {"color": colour(curve.system), "linestyle": (0, (5, 2)) if dashed else "solid"}
        shares = 100 * facts.share_within(curve.ranks, depths)
        name = curve.name if curve.system is not None else f"before: {curve.name}"
        axes.step(depths, shares, where="post", label=_short(name), **look)
    _whole_log(axes)
    axes.set(xlabel="rank k", ylabel="relevant passages within k, %", ylim=(0, 102))
    _legend(figure)
    return figure


def rounds(found: Sequence[facts.Round]) -> Figure:
    """Passages leaving in each round, above all of them and below the relevant ones."""
    figure = _figure(3.4)
    above, below = figure.subplots(2, 1, sharex=True)
    numbers = [row.number for row in found]
    parts = (
        (above, [row.dropped for row in found], [row.kept for row in found], "passages"),
        (below, [row.dropped_relevant for row in found], [row.kept_relevant for row in found], "relevant passages"),
    )
    for axes, dropped, kept, name in parts:
        first = axes.bar(numbers, dropped, color=PALETTE[1], alpha=0.8, width=0.7)
        last = axes.bar(numbers, kept, bottom=dropped, color=PALETTE[0], alpha=0.8, width=0.7)
        axes.set_ylabel(name)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    below.set_xlabel("round (0 is the first)")
    below.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    figure.legend(
        [last, first], ["ranked in the last round of their list", "dropped from the tail"], loc="outside lower center"
    )
    return figure


def phases(systems: Sequence[System], found: Sequence[facts.Times]) -> Figure:
    """Seconds by phase, one bar a system."""
    figure = _figure(1.2 + 0.38 * len(systems))
    axes = figure.subplots()
    start = np.zeros(len(systems))
    for number, phase in enumerate(facts.phases_of(found)):
        seconds = np.array([own.seconds.get(phase, 0.0) for own in found])
        axes.barh(
            range(len(systems)),
            seconds,
            left=start,
            height=0.62,
            color=PALETTE[number % len(PALETTE)],
            alpha=0.85,
            label=phase,
        )
        start += seconds
    axes.set_yticks(range(len(systems)), [system.letter for system in systems])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("seconds")
    figure.legend(loc="outside lower center", ncols=4, handlelength=1.2, columnspacing=1.2)
    return figure


def _figure(height: float) -> Figure:
    return Figure(figsize=(_WIDTH, height), layout="constrained")


def _whole_log(axes: Axes) -> None:
    """A logarithmic axis with plain numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _place: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda _value, _place: "")


def _legend(figure: Figure) -> None:
    figure.legend(loc="outside lower left", ncols=1, handlelength=1.6)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."
