"""How the figures of a report look, and how they become PNG, SVG and a part of the page."""

import io
import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text
from matplotlib.ticker import LogLocator

from listcon_eval.files import write_bytes

logger = logging.getLogger(__name__)

_HOW_TO_INSTALL = (
    "install a Chinese font (Debian, Ubuntu: `apt install fonts-noto-cjk`; Fedora: `dnf install "
    "google-noto-sans-cjk-fonts`; elsewhere: Noto Sans CJK SC or Source Han Sans SC)"
)
INK, MUTED, GRID = "#1c2733", "#5d6b79", "#d9dfe5"
# Colour-blind people can tell them apart, and neighbours differ in lightness. From the 9th system on the same colours
# are dashed. Every figure has letters too.
PALETTE = ("#0b6fa4", "#d1541f", "#2a8f5f", "#8a5fb0", "#b7791f", "#1b9aa8", "#c2488a", "#66707a")
_WIDTH = 4.4  # inches: for a phone, and for a column of a paper
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
    "axes.titlesize": 8.5,
    "axes.titlepad": 3,
    "axes.labelsize": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.labelsize": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.6,
    "text.color": INK,
    "text.parse_math": False,  # a name with dollar signs is a name
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


def drawing() -> AbstractContextManager[None]:
    """A context with the settings to draw and to save with."""
    return mpl.rc_context({**_SETTINGS, "font.family": _families()})


def new_figure(height: float) -> Figure:
    """An empty figure of a height in inches."""
    return Figure(figsize=(_WIDTH, height), layout="constrained")


def whole_log(axes: Axes) -> None:
    """Make the horizontal axis logarithmic, with plain numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _place: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda _value, _place: "")


def short(name: str) -> str:
    """A name, cut to fit into a figure."""
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 3]}..."


@cache
def chinese_font() -> str | None:
    """The family of a font of this machine with Chinese glyphs, or None.

    The files are looked into: matplotlib's list of fonts lacks those that were installed after it was made.
    """
    for path in sorted(font_manager.findSystemFonts()):
        with suppress(OSError, RuntimeError):  # a font that matplotlib cannot read
            font = FT2Font(path)
            if all(font.get_char_index(ord(character)) for character in "医疗排序"):
                font_manager.fontManager.addfont(path)
                return font.family_name
    return None


def _families() -> list[str]:
    """The fonts to draw with; a character is drawn with the first that has it."""
    return ["DejaVu Sans", *filter(None, [chinese_font()])]  # matplotlib brings the first


def missing_characters(texts: Iterable[str]) -> list[str]:
    """The characters that no font to draw with has a glyph for, in order of appearance."""
    fonts = [FT2Font(font_manager.findfont(name)) for name in _families()]
    characters = dict.fromkeys(character for text in texts for character in text if not character.isspace())
    return [character for character in characters if not any(font.get_char_index(ord(character)) for font in fonts)]


def write_plots(folder: Path, figures: Mapping[str, Mapping[str, Figure]]) -> list[Path]:
    """Write figures as `{task}-{section}.png` (300 dpi) and `.svg` with outlined text, and return the paths.

    `figures` are by task and by the key of a section. Warns when no font has a glyph for a character.
    """
    names = file_names(list(figures))
    chosen = {f"{names[task]}-{key}": figure for task, own in figures.items() for key, figure in own.items()}
    if missing := missing_characters(str(text.get_text()) for own in chosen.values() for text in own.findobj(Text)):
        shown = "".join(missing[:20]) + ("..." if len(missing) > 20 else "")
        logger.warning(
            "no font here has the characters %s, and the plots show boxes for them: %s", shown, _HOW_TO_INSTALL
        )
    return [
        write_bytes(folder / f"{name}.{kind}", _saved(figure, kind, "path"))
        for name, figure in chosen.items()
        for kind in ("png", "svg")
    ]


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
