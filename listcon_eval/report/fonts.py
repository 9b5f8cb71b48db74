"""A font for Chinese in figures: names of tasks and models may be Chinese, and matplotlib's own font is not."""

import logging
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.text import Text

LATIN = "DejaVu Sans"  # matplotlib brings it
# By system: Linux distributions, Windows, macOS, and what people install themselves.
CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Source Han Sans CN",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Microsoft YaHei",
    "SimHei",
    "SimSun",
    "PingFang SC",
    "Hiragino Sans GB",
    "Heiti SC",
    "Heiti TC",
    "STHeiti",
    "Songti SC",
    "Sarasa Gothic SC",
    "LXGW WenKai",
    "Noto Serif CJK SC",
    "Noto Sans CJK JP",  # of a collection of fonts matplotlib may know the first alone; it has all characters
    "Noto Serif CJK JP",
    "Arial Unicode MS",
)
_FILES = ("notosanscjk", "notosanssc", "sourcehansans", "wqy", "droidsansfallback", "msyh", "simhei", "pingfang")
_HOW_TO_INSTALL = (
    "install a Chinese font (Debian, Ubuntu: `apt install fonts-noto-cjk`; Fedora: `dnf install "
    "google-noto-sans-cjk-fonts`; elsewhere: Noto Sans CJK SC or Source Han Sans SC)"
)
_log = logging.getLogger(__name__)


@cache
def chinese_font() -> str | None:
    """The name of a font with Chinese glyphs that matplotlib can use, or None."""
    known = {*font_manager.get_font_names()}
    for name in CHINESE_FONTS:
        if name in known:
            return name
    # matplotlib keeps a list of fonts, which does not know those that were installed after it was made
    for path in sorted(font_manager.findSystemFonts()):
        if any(part in Path(path).name.lower().replace("-", "").replace("_", "") for part in _FILES):
            font_manager.fontManager.addfont(path)
            return str(font_manager.get_font(path).family_name)
    return None


def families() -> list[str]:
    """The fonts to draw with, the first that has a glyph being used for it."""
    found = chinese_font()
    return [LATIN] if found is None else [LATIN, found]


def missing_characters(texts: Iterable[str]) -> list[str]:
    """The characters that none of the fonts to draw with has a glyph for, in order of appearance."""
    fonts = [FT2Font(font_manager.findfont(name)) for name in families()]
    characters = dict.fromkeys(character for text in texts for character in text if not character.isspace())
    return [character for character in characters if not any(font.get_char_index(ord(character)) for font in fonts)]


def warn_of_missing(figures: Iterable[Figure]) -> None:
    """Say once which characters of figures will be boxes, and what to install."""
    texts = [str(text.get_text()) for figure in figures for text in figure.findobj(Text)]
    if missing := missing_characters(texts):
        shown = "".join(missing[:20]) + ("..." if len(missing) > 20 else "")
        _log.warning(
            "no font here has the characters %s, and the plots show boxes for them: %s", shown, _HOW_TO_INSTALL
        )
