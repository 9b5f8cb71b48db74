"""Comparing and showing runs, as their users start it."""

import json
import shutil
from importlib import resources
from pathlib import Path

import pytest

from checkpoints import write_layout_1
from command import listcon_eval
from listcon_eval import compare
from listcon_eval.comparison import Comparison
from listcon_eval.comparison.show import show_query
from listcon_eval.data import local_task, mini_task
from listcon_eval.errors import ListconError
from listcon_eval.evaluation import evaluate
from listcon_eval.records import MODES
from listcon_eval.results import Result as Measured
from listcon_eval.results import load_results, read_rankings
from listcon_eval.systems.base import LoadOptions
from overlap import OverlapSystem, write_overlap_run


def write_awkward(path: Path) -> Path:
    """Lists with a tie, equal texts, one-sided lists, and one of 60 candidates."""
    rows = [
        (["甲一"], ["乙二", "丙三"]),
        (["甲一", "甲一"], ["甲一", "丁"]),
        (["甲"], []),
        ([], ["乙"]),
        (["答案|<b>\n换行"], ["别的`x`"]),
        (["第一", "第二"], [f"候选{number}" for number in range(58)]),
    ]
    lines = [{"query": f"问题{place}", "positive": p, "negative": n} for place, (p, n) in enumerate(rows)]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both modes of a random ListConRanker on awkward local lists and on a mini task, and two other systems."""
    folder = tmp_path_factory.mktemp("runs")
    model = write_layout_1(folder / "tiny-random")
    tasks = [local_task(write_awkward(folder / "awkward.jsonl")), mini_task("MiniMedicalB")]
    evaluate(str(model), tasks, modes=MODES, output=folder, options=LoadOptions(device="cpu", dtype="float32"))
    write_overlap_run(folder, mini_task("MiniMedicalB"))
    write_overlap_run(folder, mini_task("MiniMedicalB"), OverlapSystem("local/random", kind="random", sign=-1))
    return folder


def one(output: Path, mode: str, task: str) -> Measured:
    (found,) = [own for own in load_results(output / "results") if (own.mode, own.task) == (mode, task)]
    return found


def test_a_results_folder_is_compared_system_by_system_and_task_by_task(output: Path) -> None:
    content = json.loads(listcon_eval("compare", output / "results", "--json").stdout)
    assert set(content["tasks"]) == {"awkward", "MiniMedicalB"}
    by_label = {label: letter for letter, label in content["systems"].items()}
    assert len(by_label) == 4
    for mode in MODES:
        for name, task in content["tasks"].items():
            letter = by_label[f"tiny-random, {mode}, float32"]
            result = one(output, mode, name)
            assert task["signatures"][letter] == str(result.signature)
            assert task["means"][letter]["cmteb:map"]["mean"] == pytest.approx(result.cmteb["map"])
            assert task["means"][letter]["mteb:map_at_1000"]["mean"] == pytest.approx(
                result.mteb["map_at_1000"], abs=6e-6
            )
    pairs = {name: {(p["base"], p["other"]) for p in task["pairs"]} for name, task in content["tasks"].items()}
    assert (len(pairs["awkward"]), len(pairs["MiniMedicalB"])) == (1, 3)  # the random order is in no pair
    for name in ("bm25", one(output, "iterative", "MiniMedicalB").folder):
        found = json.loads(listcon_eval("compare", output, "--against", name, "--json").stdout)
        pairs_against = found["tasks"]["MiniMedicalB"]["pairs"]
        assert len(pairs_against) == 2 * len(found["tasks"]["MiniMedicalB"]["measures"])
        assert len({pair["base"] for pair in pairs_against}) == 1


def test_the_function_reads_paths_and_prints_as_the_command_does(output: Path) -> None:
    conventional, iterative = (one(output, mode, "awkward").folder for mode in MODES)
    found = compare([conventional, str(iterative)], ["cmteb:map"], against=str(conventional))
    assert [(pair.base, pair.other) for pair in found.tasks[0].pairs] == [("a", "b")]
    assert isinstance(found, Comparison)
    printed = listcon_eval("compare", conventional, iterative, "--against", conventional, "--measure", "cmteb:map")
    assert str(found) == found.as_text() == printed.stdout.rstrip("\n")
    with pytest.raises(ListconError, match="no such folder"):
        compare([output / "nowhere", iterative])


def test_a_run_and_its_own_trec_file_give_the_same_numbers(output: Path, tmp_path: Path) -> None:
    result = one(output, "iterative", "awkward")
    other = tmp_path / "other.trec"
    other.write_bytes(result.file("run.trec").read_bytes())
    content = json.loads(listcon_eval("compare", result.folder, other, "--json").stdout)["tasks"]["awkward"]
    assert content["means"]["a"] == content["means"]["b"]
    assert all(pair["p"] == 1 for pair in content["pairs"])
    qrels = tmp_path / "judged.qrels"
    qrels.write_text(result.file("qrels.trec").read_text().replace(" 0\n", " 1\n", 1))
    done = listcon_eval("compare", result.folder, other, "--qrels", qrels, code=2)
    assert "differ in what is relevant" in done.stderr
    done = listcon_eval("compare", result.folder, other, "--measure", "cmteb:map", code=2)
    assert "other has no cmteb:map" in " ".join(done.stderr.split())


def test_a_cut_trec_file_gives_one_number_by_run_and_by_compare(output: Path, tmp_path: Path) -> None:
    result = one(output, "conventional", "MiniMedicalB")
    rows = [line.split() for line in result.file("run.trec").read_text().splitlines()]
    cut = tmp_path / "cut.trec"
    cut.write_text("".join(" ".join(row) + "\n" for row in rows if int(row[3]) <= 5))
    (ranked,) = evaluate(str(cut), [mini_task("MiniMedicalB")], output=tmp_path).results
    content = json.loads(listcon_eval("compare", result.folder, cut, "--json").stdout)["tasks"]["MiniMedicalB"]
    for name in ("map_at_1000", "mrr_at_10"):
        assert content["means"]["b"][f"mteb:{name}"]["mean"] == pytest.approx(ranked.mteb[name], abs=6e-6)


def test_the_formats_for_people(output: Path) -> None:
    runs = [one(output, mode, "awkward").folder for mode in MODES]
    markdown = listcon_eval("compare", *runs, "--format", "markdown", "--measure", "cmteb:map").stdout
    assert "**awkward, " in markdown
    assert "| b - a" in markdown
    assert "- a: `mode:conventional`" in markdown
    assert "cmteb counts the queries with a relevant and another candidate" in markdown
    latex = listcon_eval("compare", *runs, "--format", "latex").stdout
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1


def test_a_run_that_was_edited_is_not_compared(output: Path, tmp_path: Path) -> None:
    folder = one(output, "iterative", "MiniMedicalB").folder
    copy = shutil.copytree(folder, tmp_path / "edited")
    (path,) = copy.rglob("per_query.jsonl")
    path.write_text(path.read_text().replace("0.", "0.9", 1))
    for verb in (
        ("compare", folder, copy),
        ("show", copy, "--query", "mb-001"),
        ("check", "--baseline", copy, "--current", folder),
    ):
        assert "was changed after the run" in " ".join(listcon_eval(*verb, code=2).stderr.split())


def test_show_has_texts_scores_labels_and_rounds(output: Path) -> None:
    result = one(output, "iterative", "awkward")
    query_id, entry = list(read_rankings(result).items())[-1]
    content = json.loads(listcon_eval("show", result.folder, "--query", query_id, "--json").stdout)
    lists = local_task(output / "awkward.jsonl").candidate_lists()
    texts = {row.query_id: dict(zip(row.doc_ids, row.passages, strict=True)) for row in lists}
    assert content["candidates"] == len(content["passages"]) == 60
    scores = dict(zip(entry.doc_ids, entry.scores, strict=True))
    rounds = dict(zip(entry.doc_ids, entry.rounds, strict=True))
    for rank, passage in enumerate(content["passages"], start=1):
        assert passage["rank"] == rank
        assert passage["text"] == texts[query_id][passage["doc_id"]]
        assert (passage["score"], passage["round"]) == (scores[passage["doc_id"]], rounds[passage["doc_id"]])
    assert [p["score"] for p in content["passages"]] == sorted(entry.final_scores, reverse=True)
    assert sum(p["cmteb_relevant"] for p in content["passages"]) == 2
    printed = listcon_eval("show", result.folder, "--query", query_id, "--top", "3").stdout
    assert "3 of 60 candidates, iterative inference" in printed
    assert "Round" in printed
    assert str(result.signature) in printed
    printed = listcon_eval("show", one(output, "conventional", "awkward").folder, "--query", query_id).stdout
    assert "Round" not in printed


def test_show_reads_packaged_texts_again(output: Path) -> None:
    row = mini_task("MiniMedicalB").candidate_lists()[0]
    for data in (None, Path(str(resources.files("listcon_eval.data"))) / "mini" / "MiniMedicalB.jsonl"):
        shown = show_query(one(output, "iterative", "MiniMedicalB"), row.query_id, data=data)
        assert {passage.text for passage in shown.passages} == set(row.passages)


def test_show_says_why_there_are_no_texts(output: Path, tmp_path: Path) -> None:
    data = output / "awkward.jsonl"
    result = one(output, "iterative", "awkward")
    query_id = next(iter(read_rankings(result)))
    moved = data.rename(tmp_path / "awkward.jsonl")
    try:
        shown = show_query(result, query_id)
        assert shown.passages[0].text is None
        assert "no such file or folder" in (shown.missing_texts or "")
        assert show_query(result, query_id, data=moved).passages[0].text is not None
    finally:
        moved.rename(data)
    other = tmp_path / "other.jsonl"
    other.write_text('{"query": "问", "positive": ["甲"], "negative": ["乙"]}\n', encoding="utf-8")
    with pytest.raises(ListconError, match="is not the run's data: its revision is sha256-"):
        show_query(result, query_id, data=other)


def test_show_needs_one_run_and_a_query_that_it_has(output: Path) -> None:
    assert "holds 6 runs; give one of them" in listcon_eval("show", output, "--query", "0", code=2).stderr
    done = listcon_eval("show", one(output, "iterative", "awkward").folder, "--query", "nowhere", code=2)
    assert "has no query 'nowhere'; it has" in " ".join(done.stderr.split())
    assert "no such folder" in listcon_eval("show", output / "nowhere", "--query", "0", code=2).stderr


@pytest.mark.parametrize("verb", ["compare", "show", "check"])
def test_help_has_examples(verb: str) -> None:
    assert "Examples:" in listcon_eval(verb, "--help").stdout
