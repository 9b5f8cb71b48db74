"""Figures as files and inside a page: fonts, names, colours, ids, and text that is no markup."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from numpy.typing import NDArray

from command import listcon_eval
from listcon_eval.cli import report as verb
from listcon_eval.comparison.systems import ComparedSystem
from listcon_eval.report import figures, page, run_data
from listcon_eval.report.figures import INK, PALETTE, drawing, file_names, inline_svg, write_plots
from listcon_eval.report.page import TaskPage, queries_of
from listcon_eval.report.run_data import TaskResults
from listcon_eval.report.sections import sections
from unit.test_report_facts import both_modes, results_for, system

HOSTILE = '</script><script>alert(1)</script> $x$ _a "#0b6fa4" url(#b)'


def figure_of(text: str) -> Figure:
    with drawing():
        figure = Figure(figsize=(2, 1))
        figure.text(0.1, 0.4, text, fontsize=30, color=INK)
        figure.text(0.1, 0.1, "c", color=PALETTE[0])
    return figure


def pixels(text: str, folder: Path) -> NDArray[np.float32]:
    paths = write_plots(folder, {"t": {"f": figure_of(text)}})
    return np.asarray(matplotlib.image.imread(paths[0]))


@pytest.fixture
def no_chinese_font(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without a Chinese font."""
    figures.chinese_font.cache_clear()
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    yield
    figures.chinese_font.cache_clear()


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What every run's provenance says of its time."""
    spent: dict[str, float] = {}
    monkeypatch.setattr(run_data, "read_provenance", lambda _: SimpleNamespace(seconds=spent, resumed_chunks=0))
    return spent


@pytest.mark.filterwarnings("ignore:Glyph")
def test_chinese_is_drawn_and_not_boxes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if figures.chinese_font() is None:
        pytest.skip("no Chinese font on this machine")
    assert figures.missing_characters(["医疗问答，重排序 T2"]) == []
    box = "\U0010fff0"  # a private code point, which no font has
    boxes, chinese, other = (pixels(text, tmp_path) for text in (box, "医", "疗"))
    assert "no font here has" in caplog.text
    assert box in caplog.text
    assert "医" not in caplog.text
    assert boxes.min() < 0.5  # the box is drawn
    assert not np.array_equal(chinese, boxes)
    assert not np.array_equal(chinese, other)


def test_a_font_is_found_by_its_glyphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_chinese_font: None) -> None:
    names = [".notdef", *(f"glyph{place}" for place in range(4))]
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(names)
    font.setupCharacterMap(dict(zip(map(ord, "医疗排序"), names[1:], strict=True)))
    font.setupGlyf(dict.fromkeys(names, TTGlyphPen(None).glyph()))
    font.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupNameTable({"familyName": "Four Characters", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "b.ttf")
    (tmp_path / "a.ttf").write_bytes(b"no font")
    paths = [str(tmp_path / "a.ttf"), font_manager.findfont("DejaVu Sans"), str(tmp_path / "b.ttf")]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: paths)
    assert figures.chinese_font() == "Four Characters"
    assert figures.missing_characters(["医疗 ab 好"]) == ["好"]


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.usefixtures("no_chinese_font")
def test_without_a_chinese_font_there_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert figures.chinese_font() is None
    with caplog.at_level(logging.WARNING):
        boxes = pixels("医", tmp_path)
    assert np.array_equal(boxes, pixels("疗", tmp_path))  # both are boxes: what the other test would see
    assert caplog.messages[0].startswith("no font here has the characters 医, ")
    assert "fonts-noto-cjk" in caplog.text
    caplog.clear()
    pixels("latin", tmp_path)
    assert not caplog.records


def test_a_figure_in_a_page_is_of_the_page() -> None:
    text = inline_svg(figure_of(HOSTILE), "p1")
    root = ElementTree.fromstring(text)
    assert HOSTILE in [element.text for element in root.iter()]  # as it is: no formula, no colour, no reference
    assert "<script" not in text
    assert text.count(INK) == 0
    assert "fill: var(--ink)" in text
    assert "fill: var(--c0)" in text
    assert "<style" not in text
    assert {"width", "height"} & root.attrib.keys() == set()
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert ids
    assert all(name.startswith("p1-") for name in ids)
    assert len(set(ids)) == len(ids)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "")
    assert inline_svg(figure_of(HOSTILE), "p1") == text


def test_every_section_has_a_figure_or_a_reason(seconds: dict[str, float]) -> None:
    seconds.update(load=9.0, encode=0.0, list=2.0, measure=3.0)
    full = sections(results_for(*both_modes()))
    assert [section.key for section in full] == ["ap", "modes", "length", "positions", "rounds", "time"]
    assert all(section.figure is not None and section.caption for section in full)
    time = full[-1]
    # loading is no work on queries, and measuring no ranking: 6 candidates and 2 queries in 2 s
    assert time.rows[0][1:] == ("0.00", "2.00", "3.00", "5.00", "3", "1")
    assert any("a, b encoded nothing" in note for note in time.notes)
    seconds.clear()
    single = sections(results_for(system("plain", {"q": ([0.1, 0.2], [0, 0], [0, 0])}, [0.0])))
    reasons = {section.key: section.absent for section in single if section.figure is None}
    assert sorted(reasons) == ["length", "modes", "positions", "rounds", "time"]
    assert "No run here used iterative inference" in (reasons["modes"] or "")
    assert "No candidate of this task is judged relevant" in (reasons["positions"] or "")
    assert "No run here says how long it took" in (reasons["time"] or "")
    lonely = sections(results_for(both_modes()[1]))
    assert "in both modes" in (next(s.absent for s in lonely if s.key == "modes") or "")


@pytest.mark.usefixtures("seconds")
def test_positions_say_what_the_order_of_the_data_is() -> None:
    def notes(*runs: ComparedSystem) -> str:
        own = results_for(*runs)
        return " ".join(next(section.notes for section in sections(own) if section.key == "positions"))

    first = {"q": ([0.1, 0.2], [0, 0], [1, 0])}
    assert "in 1 of 1 queries it lists the relevant ones first" in notes(system("plain", first, [0.5]))
    bm25 = system("BM25", first, [0.5], mode="pointwise", kind="bm25")
    assert "Before is the ranking of b: BM25" in notes(system("plain", first, [0.5]), bm25)
    mixed = {"q": ([0.1, 0.2], [0, 0], [0, 1])}
    assert "lists the relevant ones first" not in notes(system("plain", mixed, [0.5]))
    trec = system("other", mixed, [0.5], mode=None, measure="mteb:map_at_1000")
    assert "no curve for before" in notes(trec)


def test_file_names_are_plain_and_apart() -> None:
    names = file_names(["a/b", "a b", "医疗", "../..", "T2Reranking"])
    assert list(names.values()) == ["a-b", "a-b~2", "医疗", "task", "T2Reranking"]


def test_what_is_in_the_data_of_a_page_cannot_end_its_element(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TaskResults, "texts", lambda *_: ({}, None))
    own = results_for(system("other", {HOSTILE: ([0.1], [0], [1])}, [0.5], mode=None, measure="mteb:map_at_1000"))
    text = page.page([], [TaskPage(own, [], queries_of(own, max_queries=1, top=1))])
    (data,) = re.findall(r'<script type="application/json" class="data-of-task">(.*?)</script>', text)
    assert json.loads(data)["queries"][0]["id"] == HOSTILE
    assert not {"<", ">", "&"} & {*data}


def test_code_in_a_reason_is_code_and_the_rest_is_escaped() -> None:
    assert page._with_code("a <b> `run --x <y>` c") == "a &lt;b&gt; <code>run --x &lt;y&gt;</code> c"


def test_a_missing_extra_is_one_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(verb, "find_spec", lambda name: None if name == "matplotlib" else object())
    stderr = listcon_eval("report", tmp_path, code=2).stderr
    assert "needs matplotlib, which is not installed: `pip install 'listcon-eval[report]'`" in stderr
