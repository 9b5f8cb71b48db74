"""The figures of a report, drawn by matplotlib, and how they become PNG, SVG and a part of the page."""

import io
import logging
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from listcon_eval.files import write_bytes
from listcon_eval.report import run_data
from listcon_eval.report.run_data import SystemRun, TaskResults

logger = logging.getLogger(__name__)

_LATIN = "DejaVu Sans"  # matplotlib brings it
CHINESE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN"),
    *("WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback"),  # Linux
    *("Microsoft YaHei", "SimHei", "SimSun"),  # Windows
    *("PingFang SC", "Hiragino Sans GB", "Heiti SC", "Heiti TC", "STHeiti", "Songti SC"),  # macOS
    *("Sarasa Gothic SC", "LXGW WenKai", "Noto Serif CJK SC"),
    # matplotlib may know only the first font of a collection, and this one has all characters too
    *("Noto Sans CJK JP", "Noto Serif CJK JP", "Arial Unicode MS"),
)
_FILES = ("notosanscjk", "notosanssc", "sourcehansans", "wqy", "droidsansfallback", "msyh", "simhei", "pingfang")
_HOW_TO_INSTALL = (
    "install a Chinese font (Debian, Ubuntu: `apt install fonts-noto-cjk`; Fedora: `dnf install "
    "google-noto-sans-cjk-fonts`; elsewhere: Noto Sans CJK SC or Source Han Sans SC)"
)
INK, MUTED, GRID = "#1c2733", "#5d6b79", "#d9dfe5"
# Colour-blind people can tell them apart, and neighbours differ in lightness. From the 9th system on the same colours
# are dashed. Every figure has letters too.
PALETTE = ("#0b6fa4", "#d1541f", "#2a8f5f", "#8a5fb0", "#b7791f", "#1b9aa8", "#c2488a", "#66707a")
MODES_EQUAL = 20
"""Up to this many candidates both modes give the same ranking."""
_WIDTH = 4.4  # inches: for a phone, and for a column of a paper
_BINS = np.linspace(0, 1, 21)
_MAX_POINTS = 1_500  # above it points are drawn as a picture: an SVG of ten thousand shapes is slow to show
_MAX_NAME = 42
_DPI = 300
# Colours by their names in the page's style sheet, which has other values for a dark background
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", **{code: f"c{place}" for place, code in enumerate(PALETTE)}}
_SVG = "http://www.w3.org/2000/svg"
ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
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
    """First and last ranks of R relevant passages, (R, 2), by a system; None: before reranking."""

    name: str
    ranks: NDArray[np.int64]
    system: SystemRun | None


@contextmanager
def drawing() -> Iterator[None]:
    """A context with the settings to draw and to save with."""
    with mpl.rc_context({**_SETTINGS, "font.family": _families()}):
        yield


def colour(system: SystemRun) -> str:
    """A system's colour, the same in every figure."""
    return PALETTE[system.place % len(PALETTE)]


def ap_distribution(results: TaskResults) -> Figure:
    """Histograms of per-query AP, one per system, with the mean marked."""
    systems = results.systems
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
    rows[-1].set_xlabel(f"AP of a query ({results.measure})")
    figure.supylabel("queries", fontsize=8.5)
    return figure


def mode_scatter(conventional: SystemRun, iterative: SystemRun) -> Figure:
    """Iterative against conventional AP: a point for each pair of values, its area the number of queries."""
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
            rasterized=len(points) > _MAX_POINTS,
        )
    axes.axline((0, 0), slope=1, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_xlabel(f"conventional ({conventional.letter}), AP")
    axes.set_ylabel(f"iterative ({iterative.letter}), AP")
    return figure


def gain_by_length(results: TaskResults, pairs: Sequence[tuple[SystemRun, SystemRun]]) -> Figure:
    """The gain of iterative inference by list length: each query, and the mean of queries of similar length."""
    figure = _figure(3.1)
    axes = figure.subplots()
    for conventional, iterative in pairs:
        gains = 100 * (iterative.ap - conventional.ap)
        axes.scatter(
            results.lengths,
            gains,
            s=11,
            color=colour(iterative),
            alpha=0.35,
            linewidths=0,
            rasterized=len(gains) > _MAX_POINTS,
        )
        bins = run_data.gain_by_length(results.lengths, gains)
        axes.plot(
            [(found.min_length + found.max_length) / 2 for found in bins],
            [found.gain for found in bins],
            color=colour(iterative),
            marker="o",
            markersize=4.5,
            label=_short(f"{iterative.letter} over {conventional.letter}: mean of similar lengths"),
        )
    axes.axhline(0, color=MUTED, linewidth=0.8)
    longest, shortest = int(results.lengths.max()), int(results.lengths.min())
    if shortest <= MODES_EQUAL < longest:
        axes.axvline(MODES_EQUAL + 0.5, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set(xlabel="candidates of a query", ylabel="gain in AP, points")
    if longest > 10 * max(shortest, 1):
        _whole_log(axes)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.legend(loc="outside lower left", ncols=1, handlelength=1.6)
    return figure


def relevant_positions(curves: Sequence[Curve], max_depth: int) -> Figure:
    """The share of relevant passages within the first k, up to `max_depth`, before reranking and after."""
    figure = _figure(2.8 + 0.18 * len(curves))
    axes = figure.subplots()
    depths = np.unique(np.geomspace(1, max(max_depth, 2), 200).round().astype(np.int64))
    for curve in curves:
        if curve.system is None:
            look: dict[str, Any] = {"color": INK, "linestyle": (0, (2, 2))}
        else:
            dashed = curve.system.place >= len(PALETTE)
            look = {"color": colour(curve.system), "linestyle": (0, (5, 2)) if dashed else "solid"}
        shares = 100 * run_data.share_within(curve.ranks, depths)
        name = curve.name if curve.system is not None else f"before: {curve.name}"
        axes.step(depths, shares, where="post", label=_short(name), **look)
    _whole_log(axes)
    axes.set(xlabel="rank k", ylabel="relevant passages within k, %", ylim=(0, 102))
    figure.legend(loc="outside lower left", ncols=1, handlelength=1.6)
    return figure


def rounds(found: Sequence[run_data.RoundCounts]) -> Figure:
    """Passages that leave in each round: all of them above, the relevant ones below."""
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


def phases(systems: Sequence[SystemRun], found: Sequence[run_data.PhaseTimes]) -> Figure:
    """Seconds by phase, one bar per system."""
    figure = _figure(1.2 + 0.38 * len(systems))
    axes = figure.subplots()
    start = np.zeros(len(systems))
    for number, phase in enumerate(run_data.phases_of(found)):
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


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 3]}..."


@cache
def chinese_font() -> str | None:
    """The name of a font with Chinese glyphs that matplotlib can use, or None."""
    known = {*font_manager.get_font_names()}
    for name in CHINESE_FONTS:
        if name in known:
            return name
    # matplotlib's list of fonts lacks those that were installed after it was made
    for path in sorted(font_manager.findSystemFonts()):
        if any(part in Path(path).name.lower().replace("-", "").replace("_", "") for part in _FILES):
            font_manager.fontManager.addfont(path)
            return str(font_manager.get_font(path).family_name)
    return None


def _families() -> list[str]:
    """The fonts to draw with; a character is drawn with the first that has it."""
    return [_LATIN, *filter(None, [chinese_font()])]


def missing_characters(texts: Iterable[str]) -> list[str]:
    """The characters that no font to draw with has a glyph for, in order of appearance."""
    fonts = [FT2Font(font_manager.findfont(name)) for name in _families()]
    characters = dict.fromkeys(character for text in texts for character in text if not character.isspace())
    return [character for character in characters if not any(font.get_char_index(ord(character)) for font in fonts)]


def write_plots(
    folder: Path,
    figures: Mapping[str, Sequence[tuple[str, Figure]]],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Path]:
    """Write figures as `{task}-{section}.png` (300 dpi) and `.svg` with outlined text, and return the paths.

    Warns when no font has a glyph for a character.

    Args:
        folder: where to write them.
        figures: task -> the key of a section, and its figure.
        progress: called with the number of figures written, and of all.
    """
    names = file_names(list(figures))
    chosen = [(names[task], key, figure) for task, own in figures.items() for key, figure in own]
    if missing := missing_characters(str(text.get_text()) for row in chosen for text in row[2].findobj(Text)):
        shown = "".join(missing[:20]) + ("..." if len(missing) > 20 else "")
        logger.warning(
            "no font here has the characters %s, and the plots show boxes for them: %s", shown, _HOW_TO_INSTALL
        )
    paths = []
    for done, (task, key, figure) in enumerate(chosen, start=1):
        paths.append(write_bytes(folder / f"{task}-{key}.png", _saved(figure, "png", "path")))
        paths.append(write_bytes(folder / f"{task}-{key}.svg", _saved(figure, "svg", "path")))
        progress(done, len(chosen))
    return paths


def inline_svg(figure: Figure, prefix: str) -> str:
    """A figure as an SVG element of a page, with its text, fonts and colours; ids begin with `prefix`."""
    root = ElementTree.fromstring(_saved(figure, "svg", "none"))
    for element in list(root.iter()):
        if element.tag == f"{{{_SVG}}}defs":  # its style sheet would apply to the whole page
            for style in element.findall(f"{{{_SVG}}}style"):
                element.remove(style)
        for name, value in element.attrib.items():
            element.set(name, _of_page(name.rpartition("}")[2], value, prefix))
    for name in ("width", "height"):
        del root.attrib[name]
    root.set("aria-hidden", "true")  # the caption and the numbers say it in words
    root.set("focusable", "false")
    return ElementTree.tostring(root, encoding="unicode")


def _of_page(name: str, value: str, prefix: str) -> str:
    """An attribute with the page's ids and colours."""
    if name == "id":
        return f"{prefix}-{value}"
    if name == "href":
        return value.replace("#", f"#{prefix}-", 1) if value.startswith("#") else value
    value = value.replace("url(#", f"url(#{prefix}-")
    return re.sub("|".join(_VARIABLES), lambda match: f"var(--{_VARIABLES[match[0]]})", value)


def file_names(tasks: Sequence[str]) -> dict[str, str]:
    """A unique file name for each task: letters of any script, digits, dots and dashes."""
    names: dict[str, str] = {}
    for task in tasks:
        name = re.sub(r"[^\w.]+", "-", unicodedata.normalize("NFC", task)).strip("-.") or "task"
        same = sum(other == name or other.startswith(f"{name}~") for other in names.values())
        names[task] = f"{name}~{same + 1}" if same else name
    return names


def _saved(figure: Figure, kind: str, text_as: str) -> bytes:
    buffer = io.BytesIO()
    options = {"metadata": _NO_METADATA, "transparent": text_as == "none"} if kind == "svg" else {}
    with drawing(), mpl.rc_context({"svg.fonttype": text_as, "svg.hashsalt": "listcon-eval"}):
        figure.savefig(buffer, format=kind, dpi=_DPI, **options)  # type: ignore[arg-type]
    return buffer.getvalue()
