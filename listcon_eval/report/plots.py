"""Figures as files: PNG and SVG for a paper, SVG text to put into a page."""

import io
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.figure import Figure

from listcon_eval.files import write_bytes
from listcon_eval.report.figures import GRID, INK, MUTED, PALETTE, drawing
from listcon_eval.report.fonts import warn_of_missing
from listcon_eval.report.sections import Section, figures_of

_DPI = 300
# What each colour is called in the page's style sheet, which gives it another value on a dark ground
_NAMES = {INK: "ink", MUTED: "muted", GRID: "grid", **{code: f"c{place}" for place, code in enumerate(PALETTE)}}
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", _XLINK)
_NO_METADATA: Mapping[str, None] = {"Date": None, "Creator": None, "Format": None, "Type": None}


def write_plots(
    folder: Path,
    found: Mapping[str, Sequence[Section]],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[Path]:
    """Write every figure as PNG (300 dpi) and as SVG with outlined text, and return the paths.

    Args:
        folder: where to write them: `{task}-{section}.png` and `.svg`.
        found: task -> its sections.
        progress: told of figures written, and of all.
    """
    names = file_names(list(found))
    chosen = [(names[task], key, figure) for task, own in found.items() for key, figure in figures_of(own)]
    warn_of_missing(figure for _, _, figure in chosen)
    paths = []
    for done, (task, key, figure) in enumerate(chosen, start=1):
        paths.append(write_bytes(folder / f"{task}-{key}.png", _saved(figure, "png", "path")))
        paths.append(write_bytes(folder / f"{task}-{key}.svg", _saved(figure, "svg", "path")))
        progress(done, len(chosen))
    return paths


def inline_svg(figure: Figure, prefix: str) -> str:
    """A figure as an SVG element for a page: text stays text, colours are the page's, ids begin with `prefix`.

    Names in it are escaped by matplotlib. The page's own fonts draw it, so that it needs no Chinese font here.
    """
    root = ElementTree.fromstring(_saved(figure, "svg", "none"))
    for element in list(root.iter()):
        if element.tag == f"{{{_SVG}}}defs":  # a style sheet in it would be that of the whole page
            for style in element.findall(f"{{{_SVG}}}style"):
                element.remove(style)
        for name, value in element.attrib.items():
            element.set(name, _of_page(name.rpartition("}")[2], value, prefix))
    for name in ("width", "height"):
        del root.attrib[name]
    root.set("aria-hidden", "true")  # the caption and the numbers below say it in words
    root.set("focusable", "false")
    return ElementTree.tostring(root, encoding="unicode")


def _of_page(name: str, value: str, prefix: str) -> str:
    """An attribute with its references to ids and its colours made the page's."""
    if name == "id":
        return f"{prefix}-{value}"
    if name == "href":
        return value.replace("#", f"#{prefix}-", 1) if value.startswith("#") else value
    value = value.replace("url(#", f"url(#{prefix}-")
    return re.sub("|".join(_NAMES), lambda match: f"var(--{_NAMES[match[0]]})", value)


def file_names(tasks: Sequence[str]) -> dict[str, str]:
    """A file name for each task: letters of any script, digits, dots and dashes, and no two the same."""
    names: dict[str, str] = {}
    for task in tasks:
        name = re.sub(r"[^\w.]+", "-", unicodedata.normalize("NFC", task)).strip("-.") or "task"
        same = sum(other == name or other.startswith(f"{name}~") for other in names.values())
        names[task] = f"{name}~{same + 1}" if same else name
    return names


def _saved(figure: Figure, kind: str, text_as: str) -> bytes:
    buffer = io.BytesIO()
    with drawing(), mpl.rc_context({"svg.fonttype": text_as, "svg.hashsalt": "listcon-eval"}):
        if kind == "svg":
            figure.savefig(buffer, format=kind, metadata=dict(_NO_METADATA), transparent=text_as == "none", dpi=_DPI)
        else:
            figure.savefig(buffer, format=kind, dpi=_DPI)
    return buffer.getvalue()
