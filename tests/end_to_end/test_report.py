"""The report as its reader sees it: a page in a real browser, and plots beside it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from browser import CHROMIUM, DRIVER, chromium, log, requests, set_width
from command import listcon_eval
from listcon_eval.data import local_task, mini_task
from listcon_eval.evaluation import evaluate
from listcon_eval.records import MODES
from listcon_eval.results import load_results
from listcon_eval.systems.base import LoadOptions
from texts import random_list

HOSTILE = (
    '</script><script>document.title="broken"</script><img src="http://example.org/x.png" onerror="document.title=1">'
)
pytestmark = pytest.mark.slow
PHONE, DESKTOP = (390, 844), (1280, 900)
SECTIONS = ("ap", "modes", "length", "positions", "rounds", "time")


def write_hostile_lists(path: Path) -> Path:
    """Lists of 4 to 45 candidates; ids, queries and passages of the first hold markup and scripts."""
    rows = []
    for number, (positives, negatives) in enumerate([(2, 40), (1, 3), (3, 27), (2, 20), (1, 30)]):
        query, *passages = random_list(positives + negatives, seed=number, longest=40)
        if number == 0:
            query, passages[0], passages[-1] = f"坏 {HOSTILE}", f"坏 & {HOSTILE}", "<b>坏</b> $x$ --> ]]>"
        row = {"query": query, "positive": passages[:positives], "negative": passages[positives:]}
        rows.append({"query_id": f"q{number}<i>" if number == 0 else f"q{number}", **row})
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def output(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both modes and BM25 on hostile lists and on a mini task."""
    folder = tmp_path_factory.mktemp("report")
    data = write_hostile_lists(folder / "hostile.jsonl")
    tasks = [local_task(data, name="坏例"), mini_task("MiniMedicalB")]
    options = LoadOptions(device="cpu", dtype="float32")
    evaluate(str(checkpoint_folder), tasks, output=folder, options=options)
    evaluate("bm25", tasks, output=folder)
    return folder


@pytest.fixture(scope="module")
def page(output: Path) -> Path:
    path = output / "report.html"
    done = listcon_eval("report", output / "results", "-o", path, "--quiet")
    assert done.stdout == f"{path}\n"
    assert done.stderr == ""
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no Chromium with its driver on this machine")
    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def opened(browser: webdriver.Chrome, page: Path) -> webdriver.Chrome:
    """The page, newly loaded on a desktop; what the browser said before is forgotten."""
    set_width(browser, *DESKTOP)
    browser.get("about:blank")
    log(browser, "browser")
    requests(browser)
    browser.get(page.as_uri())
    return browser


def queries(browser: webdriver.Chrome) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, "#list > li > details")


def choose(browser: webdriver.Chrome, **values: str) -> None:
    for name, text in values.items():
        Select(browser.find_element(By.ID, f"f-{name}")).select_by_visible_text(text)


def changes(browser: webdriver.Chrome) -> list[float]:
    found = [row.find_element(By.CSS_SELECTOR, ".values").text.split() for row in queries(browser)]
    return [float(words[-1].replace("−", "-").replace("±", "")) for words in found]


def values(browser: webdriver.Chrome) -> list[float]:
    return [float(row.find_element(By.CSS_SELECTOR, ".values b").text) for row in queries(browser)]


def show_passages(browser: webdriver.Chrome, query: WebElement, key: str = Keys.SPACE) -> list[WebElement]:
    """Open a query by keyboard and return its rankings, which come a moment later."""
    query.find_element(By.TAG_NAME, "summary").send_keys(key)
    return WebDriverWait(browser, 5).until(lambda _: query.find_elements(By.CSS_SELECTOR, ".ranking"))


def test_the_page_asks_nothing_of_the_network_and_has_no_error(opened: webdriver.Chrome, page: Path) -> None:
    for row in queries(opened):
        show_passages(opened, row)
    choose(opened, task="MiniMedicalB", order="best first")
    assert requests(opened) == [page.as_uri()]
    assert log(opened, "browser") == []
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'\b(?:src|href)="(?!#|data:)[^"]*"', text) == []


def test_every_section_is_filled(opened: webdriver.Chrome) -> None:
    for number in (1, 2):
        for key in SECTIONS:
            article = opened.find_element(By.ID, f"task-{number}-{key}")
            picture = article.find_element(By.CSS_SELECTOR, ".picture svg")
            assert picture.size["height"] > 60, key
            assert picture.size["width"] > 250, key
            assert article.find_element(By.TAG_NAME, "figcaption").text, key
    assert opened.find_elements(By.CSS_SELECTOR, "article .absent") == []
    for section in ("table", "queries", "provenance"):
        assert len(opened.find_element(By.ID, section).text.splitlines()) > 4, section
    positions = opened.find_element(By.ID, "task-1-positions").text
    assert "Before is the ranking of a: BM25 (characters)" in positions
    parts = [f"-{key}" for key in SECTIONS]
    assert {link.get_attribute("href") for link in opened.find_elements(By.CSS_SELECTOR, ".toc a")} == {
        f"{opened.current_url.partition('#')[0]}#{name}"
        for name in ("table", "queries", "provenance", *(f"task-{n}{part}" for n in (1, 2) for part in ("", *parts)))
    }


def test_the_tables_numbers_are_the_runs(opened: webdriver.Chrome, output: Path) -> None:
    table = opened.find_element(By.CSS_SELECTOR, "#table table").text
    for result in load_results(output):
        assert f"{100 * result.cmteb['map']:.2f}" in table
        assert str(result.signature) in (opened.find_element(By.ID, "provenance").get_attribute("textContent") or "")
    assert opened.find_elements(By.CSS_SELECTOR, "#table table strong")


def test_what_users_wrote_is_text(opened: webdriver.Chrome) -> None:
    assert opened.title.startswith("Reranking report: ")
    assert "坏例" in opened.title
    choose(opened, task="坏例", order="as in the data")
    first = queries(opened)[0]
    assert HOSTILE in first.find_element(By.TAG_NAME, "summary").text
    assert "q0<i>" in first.text
    show_passages(opened, first)
    body = opened.find_element(By.TAG_NAME, "body")
    opened.find_element(By.ID, "f-search").send_keys("]]>")
    assert len(queries(opened)) == 1
    show_passages(opened, queries(opened)[0])
    for tag in ("img", "i"):
        assert body.find_elements(By.TAG_NAME, tag) == []
    assert opened.title.startswith("Reranking report: ")
    assert len(opened.find_elements(By.CSS_SELECTOR, "script:not([type])")) == 1
    assert log(opened, "browser") == []


def test_the_filters_work(opened: webdriver.Chrome) -> None:
    choose(opened, task="MiniMedicalB")
    first = Select(opened.find_element(By.ID, "f-first")).first_selected_option.text
    second = Select(opened.find_element(By.ID, "f-second")).first_selected_option.text
    assert (first.split(", ")[-2:], second.split(", ")[-2:]) == (["iterative", "float32"], ["conventional", "float32"])
    assert values(opened) == sorted(values(opened))
    choose(opened, order="best first")
    assert values(opened) == sorted(values(opened), reverse=True)
    choose(opened, second="a: BM25 (characters)", order="most moved first")
    moved = changes(opened)
    assert len(moved) == 40
    assert [abs(value) for value in moved] == sorted((abs(value) for value in moved), reverse=True)
    choose(opened, show="worse in the first run")
    fell = changes(opened)
    choose(opened, show="better in the first run")
    rose = changes(opened)
    assert max(fell) < 0 < min(rose)
    assert len(fell) + len(rose) <= 40
    assert f"{len(rose)} of 40 queries" in opened.find_element(By.ID, "f-about").text
    choose(opened, show="all queries", order="as in the data")
    wanted = queries(opened)[6].find_element(By.CSS_SELECTOR, "summary .text").text
    search = opened.find_element(By.ID, "f-search")
    search.send_keys(wanted[:6])
    assert wanted in [row.find_element(By.CSS_SELECTOR, "summary .text").text for row in queries(opened)]
    assert len(queries(opened)) < 40
    search.send_keys(" 没有这个词")
    assert queries(opened) == []
    assert "0 of 40 queries" in opened.find_element(By.ID, "f-about").text
    search.send_keys(Keys.CONTROL, "a", Keys.DELETE)
    assert len(queries(opened)) == 40


def test_a_query_opens_by_keyboard_and_shows_the_passages_of_two_runs(opened: webdriver.Chrome) -> None:
    choose(opened, task="MiniMedicalB", order="as in the data")
    first = queries(opened)[0]
    rankings = show_passages(opened, first, Keys.ENTER)
    assert [ranking.find_element(By.TAG_NAME, "h4").text.split(", ")[1] for ranking in rankings] == [*MODES]
    texts = {text for row in mini_task("MiniMedicalB").candidate_lists()[:1] for text in row.passages}
    for ranking in rankings:
        shown = [item.text for item in ranking.find_elements(By.CSS_SELECTOR, "p.text")]
        assert len(shown) == 10
        assert {*shown} <= texts
        assert "Relevant passages at rank" in ranking.text
    assert "round" in rankings[1].find_element(By.TAG_NAME, "li").text
    assert "round" not in rankings[0].find_element(By.TAG_NAME, "li").text


def test_nothing_is_wider_than_a_phone(opened: webdriver.Chrome) -> None:
    set_width(opened, *PHONE)
    opened.refresh()
    for details in opened.find_elements(By.CSS_SELECTOR, "details.data"):
        opened.execute_script("arguments[0].open = true", details)
    show_passages(opened, queries(opened)[0])
    width = opened.execute_script("return document.documentElement.scrollWidth")
    assert width == PHONE[0]
    assert opened.find_element(By.ID, "task-1-ap").size["width"] <= PHONE[0]
    scores = opened.find_elements(By.CSS_SELECTOR, "#table td.n span")
    assert scores
    for score in scores:  # each is on the screen as it comes, without sideways scrolling
        assert score.rect["x"] >= 0
        assert score.rect["x"] + score.rect["width"] <= PHONE[0]
    for box in opened.find_elements(By.CSS_SELECTOR, "#table .scroll"):
        assert opened.execute_script("return arguments[0].scrollWidth <= arguments[0].clientWidth", box)


def test_both_schemes_can_be_read(opened: webdriver.Chrome) -> None:
    def lightness(name: str) -> float:
        """WCAG's relative luminance of a colour of the page."""
        value = opened.execute_script(
            f"return getComputedStyle(document.documentElement).getPropertyValue('--{name}')"
        ).strip()
        parts = [int(value[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        for ground in ("paper", "panel"):
            for name in ("ink", "muted", "accent", "good", "bad"):
                light, dark = sorted((lightness(name), lightness(ground)), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{name} on {ground}, {scheme}"


def test_plots_are_written_beside_it(output: Path, tmp_path: Path) -> None:
    runs = [result.folder for result in load_results(output) if result.task == "坏例" and result.kind != "bm25"]
    options = ("--plots", tmp_path / "plots", "--queries", "1", "--quiet")
    done = listcon_eval("report", *runs, "-o", tmp_path / "r.html", *options)
    assert done.stdout.splitlines() == [str(tmp_path / "plots"), str(tmp_path / "r.html")]
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert names == {f"坏例-{key}.{kind}" for key in SECTIONS for kind in ("png", "svg")}
    for path in (tmp_path / "plots").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG" if path.suffix == ".png" else b"<?xml")
    assert len(json_of(tmp_path / "r.html")["坏例"]["passages"]) == 1


def json_of(page: Path) -> dict[str, dict[str, Any]]:
    """The data in a page by task, read as a browser does."""
    found = re.findall(r'<script type="application/json" class="data-of-task">(.*?)</script>', page.read_text("utf-8"))
    return {content["task"]: content for content in map(json.loads, found)}


def test_the_same_runs_make_the_same_page(page: Path, output: Path, tmp_path: Path) -> None:
    listcon_eval("report", output / "results", "-o", tmp_path / "again.html", "--quiet")
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_a_page_of_ids_says_so(output: Path, tmp_path: Path) -> None:
    data = output / "hostile.jsonl"
    moved = data.rename(tmp_path / "moved.jsonl")
    try:
        listcon_eval("report", output / "results", "-o", tmp_path / "r.html", "--quiet")
        content = json_of(tmp_path / "r.html")
        assert "no such file or folder" in str(content["坏例"]["no_texts"])
        assert content["MiniMedicalB"]["no_texts"] is None
        options = ("--data", f"坏例={moved}", "--quiet")
        listcon_eval("report", output / "results", "-o", tmp_path / "r.html", *options)
        assert json_of(tmp_path / "r.html")["坏例"]["no_texts"] is None
    finally:
        moved.rename(data)


def test_a_single_run_and_a_trec_file_say_what_is_missing(output: Path, tmp_path: Path) -> None:
    found = next(result for result in load_results(output) if result.mode == "conventional")
    folder = found.folder
    listcon_eval("report", folder, "-o", tmp_path / "one.html", "--quiet")
    text = (tmp_path / "one.html").read_text(encoding="utf-8")
    assert text.count("No run here used iterative inference") == 3
    other = tmp_path / "other.trec"
    other.write_bytes(found.file("run.trec").read_bytes())
    listcon_eval("report", folder, other, "-o", tmp_path / "two.html", "--before", "other", "--quiet")
    text = (tmp_path / "two.html").read_text(encoding="utf-8")
    assert "Before is the ranking of b: other" in text
    assert "run file (other)" in text
    listcon_eval("report", other, "--qrels", found.file("qrels.trec"), "-o", tmp_path / "three.html", "--quiet")
    text = (tmp_path / "three.html").read_text(encoding="utf-8")
    assert "there is no curve for before" in text
    assert "a TREC run file of another tool" in text


def test_mistakes_are_one_message(output: Path, tmp_path: Path) -> None:
    results = output / "results"
    assert "no such folder" in listcon_eval("report", tmp_path / "nowhere", code=2).stderr
    assert "is a folder; give the name" in listcon_eval("report", results, "-o", tmp_path, code=2).stderr
    assert "names 0 of the systems" in listcon_eval("report", results, "--before", "nothing", code=2).stderr
    assert "the runs are of 2 tasks" in listcon_eval("report", results, "--data", "x.jsonl", code=2).stderr
    assert not (tmp_path / "report.html").exists()
    assert "Examples:" in listcon_eval("report", "--help").stdout


def test_the_table_in_every_format(output: Path, tmp_path: Path) -> None:
    content = json.loads(listcon_eval("table", output, "--json").stdout)
    rows = content["tables"][0]["rows"]
    assert [(row["mode"], row["kind"]) for row in rows] == [
        ("-", "bm25"),
        ("conventional", "listconranker"),
        ("iterative", "listconranker"),
    ]
    lines = listcon_eval("table", output, "--format", "csv").stdout.splitlines()
    assert lines[0].startswith("Data,Model,Mode,Source,Kind,MiniMedicalB,")
    assert len(lines) == 4
    assert r"\toprule" in listcon_eval("table", output, "--format", "latex").stdout
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- listcon-eval table -->\n<!-- end -->\nb\n")
    assert listcon_eval("table", output, "--readme", readme).stdout == f"{readme}\n"
    assert "| tiny-random" in readme.read_text()
    assert (
        "--readme leaves --format without effect"
        in listcon_eval("table", output, "--readme", readme, "--format", "csv", code=2).stderr
    )
