"""Comparing and showing runs, as their users start it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from end_to_end.test_run import folders, write_lists
from listcon_eval.cli.app import app
from listcon_eval.compare.passages import shown_query
from listcon_eval.data import local_task, mini_task
from listcon_eval.errors import ListconError
from listcon_eval.evaluate import Request, evaluate
from listcon_eval.records import MODES
from listcon_eval.results import read_rankings, read_run


@pytest.fixture(scope="module")
def output(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both modes on local lists of up to 1002 candidates, and on a mini task."""
    folder = tmp_path_factory.mktemp("runs")
    data = write_lists(folder / "awkward.jsonl.gz")
    tasks = [local_task(data), mini_task("MiniMedicalB")]
    evaluate(Request(str(checkpoint_folder), tasks, MODES, folder, device="cpu", precision="precise"))
    return folder


def listcon_eval(*arguments: str | Path, code: int = 0) -> Result:
    """Start a command in this process, which spares starting Python, and check how it ends."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, f"{done.stdout}\n{done.stderr}\n{done.exception!r}"
    return done


def run_folder(output: Path, mode: str, task: str) -> Path:
    return folders(output)[mode].with_name(task)


def test_a_results_folder_is_compared_mode_by_mode(output: Path) -> None:
    printed = listcon_eval("compare", output / "results", "--format", "json", "--resamples", "199").stdout
    content = json.loads(printed)
    assert content["runs"] == {"a": "tiny-random, conventional, precise", "b": "tiny-random, iterative, precise"}
    assert set(content["tasks"]) == {"awkward", "MiniMedicalB"}
    for name, task in content["tasks"].items():
        for letter, mode in zip("ab", MODES, strict=True):
            record = read_run(run_folder(output, mode, name))
            assert task["signatures"][letter] == record.signature
            assert task["means"][letter]["cmteb:map"]["mean"] == pytest.approx(record.cmteb["map"])
            assert task["means"][letter]["mteb:map_at_1000"]["mean"] == pytest.approx(
                record.mteb["map_at_1000"], abs=6e-6
            )
        for pair in task["pairs"]:
            assert pair["wins"] + pair["ties"] + pair["losses"] == task["queries"]


def test_the_formats_for_people(output: Path) -> None:
    runs = [run_folder(output, mode, "awkward") for mode in MODES]
    markdown = listcon_eval(
        "compare", *runs, "--format", "markdown", "--measure", "cmteb:map", "--resamples", "99"
    ).stdout
    assert "**awkward, 9 queries**" in markdown
    assert "| b - a  | cmteb:map |" in markdown
    assert f"- a: `{read_run(runs[0]).signature}`" in markdown
    latex = listcon_eval("compare", *runs, "--format", "latex", "--resamples", "99").stdout
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1
    assert f"% {read_run(runs[0]).signature}" in latex


def test_a_run_and_its_own_trec_file_give_the_same_numbers(output: Path, tmp_path: Path) -> None:
    folder = run_folder(output, "iterative", "awkward")
    other = tmp_path / "other.trec"
    other.write_bytes((folder / "run.trec").read_bytes())
    options = ("--format", "json", "--resamples", "99")
    content = json.loads(listcon_eval("compare", folder, other, *options).stdout)["tasks"]["awkward"]
    assert content["means"]["a"] == content["means"]["b"]
    assert all(pair["p"] == 1 for pair in content["pairs"])
    qrels = tmp_path / "judged.qrels"
    qrels.write_text((folder / "qrels.trec").read_text().replace(" 0\n", " 1\n", 1))
    done = listcon_eval("compare", folder, other, "--qrels", qrels, code=2)
    assert "differ in what is relevant" in done.stderr
    done = listcon_eval("compare", folder, other, "--measure", "cmteb:map", code=2)
    assert "other has no cmteb:map" in done.stderr


def test_a_run_that_was_edited_is_not_compared(output: Path, tmp_path: Path) -> None:
    copy = tmp_path / "edited"
    copy.mkdir()
    folder = run_folder(output, "iterative", "MiniMedicalB")
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    lines = (copy / "per_query.jsonl").read_text().splitlines(keepends=True)
    row = json.loads(lines[0])
    row["cmteb"]["map"] = 0.99
    (copy / "per_query.jsonl").write_text("".join([json.dumps(row) + "\n", *lines[1:]]))
    done = listcon_eval("compare", folder, copy, code=2)
    assert "cmteb:map averages to" in " ".join(done.stderr.split())


def test_show_has_texts_scores_labels_and_rounds(output: Path) -> None:
    folder = run_folder(output, "iterative", "awkward")
    query_id, entry = list(read_rankings(read_run(folder)).items())[6]
    content = json.loads(listcon_eval("show", folder, "--query", query_id, "--format", "json").stdout)
    texts = {row.query_id: dict(zip(row.doc_ids, row.passages, strict=True)) for row in
             local_task(output / "awkward.jsonl.gz").candidate_lists()}  # fmt: skip
    assert content["candidates"] == len(content["passages"]) == 1002
    scores = dict(zip(entry.doc_ids, entry.scores, strict=True))
    rounds = dict(zip(entry.doc_ids, entry.rounds, strict=True))
    for passage in content["passages"]:
        assert passage["text"] == texts[query_id][passage["doc_id"]]
        assert (passage["score"], passage["round"]) == (scores[passage["doc_id"]], rounds[passage["doc_id"]])
    assert [p["score"] for p in content["passages"]] == sorted(entry.scores, reverse=True)
    assert sum(p["label"] for p in content["passages"]) == 2
    printed = listcon_eval("show", folder, "--query", query_id, "--top", "3").stdout
    assert "3 of 1002 candidates, iterative inference" in printed
    assert "Round" in printed
    assert read_run(folder).signature in printed
    printed = listcon_eval("show", run_folder(output, "conventional", "awkward"), "--query", query_id).stdout
    assert "Round" not in printed


def test_show_reads_packaged_texts_again(output: Path) -> None:
    record = read_run(run_folder(output, "iterative", "MiniMedicalB"))
    row = mini_task("MiniMedicalB").candidate_lists()[0]
    shown = shown_query(record, row.query_id)
    assert {passage.text for passage in shown.passages} == set(row.passages)


def test_show_says_why_there_are_no_texts(output: Path, tmp_path: Path) -> None:
    data = output / "awkward.jsonl.gz"
    record = read_run(run_folder(output, "iterative", "awkward"))
    query_id = next(iter(read_rankings(record)))
    moved = data.rename(tmp_path / "awkward.jsonl.gz")
    try:
        shown = shown_query(record, query_id)
        assert shown.passages[0].text is None
        assert "no such file or folder" in (shown.missing_texts or "")
        assert shown_query(record, query_id, data=moved).passages[0].text is not None
    finally:
        moved.rename(data)
    other = tmp_path / "other.jsonl"
    other.write_text('{"query": "问", "positive": ["甲"], "negative": ["乙"]}\n', encoding="utf-8")
    with pytest.raises(ListconError, match="is not the run's data: its revision is sha256-"):
        shown_query(record, query_id, data=other)


def test_show_needs_one_run_and_a_query_that_it_has(output: Path) -> None:
    done = listcon_eval("show", output, "--query", "0", code=2)
    assert "holds 4 runs; give one of them" in done.stderr
    done = listcon_eval("show", run_folder(output, "iterative", "awkward"), "--query", "nowhere", code=2)
    assert "has no query 'nowhere'; it has 9, such as" in " ".join(done.stderr.split())
    assert "no such folder" in listcon_eval("show", output / "nowhere", "--query", "0", code=2).stderr


def test_what_is_no_official_run_is_not_exported(output: Path, tmp_path: Path) -> None:
    done = listcon_eval("export", "leaderboard", output, "--output", tmp_path, code=2)
    for part in ("no model of the hub", "the hub's commit", "awkward", "MiniMedicalB", "training data"):
        assert part in done.stderr
    assert not list(tmp_path.iterdir())
    done = listcon_eval("export", "model-card", output, code=2)
    assert "was not run on the official data" in done.stderr


@pytest.mark.parametrize(
    "verb", [("compare",), ("show",), ("check",), ("export", "leaderboard"), ("export", "model-card")]
)
def test_help_has_examples(verb: tuple[str, ...]) -> None:
    assert "Examples:" in listcon_eval(*verb, "--help").stdout
