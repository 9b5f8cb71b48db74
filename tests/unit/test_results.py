"""Results on disk: typed reading, what is verified, which of several runs counts, what is removed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from listcon_eval import compare, evaluate
from listcon_eval.data import local_task, mini_task
from listcon_eval.errors import ListconError
from listcon_eval.regression.baseline import baseline_of
from listcon_eval.report.table import read_tables
from listcon_eval.results import environment, load_results, read_per_query, read_provenance, read_rankings
from listcon_eval.results.chunk_cache import remove, run_lock
from listcon_eval.results.records import METRICS, PER_QUERY, PROVENANCE, Result, Signature, read_record
from listcon_eval.results.store import is_finished, superseded
from overlap import OverlapSystem, write_overlap_run


@pytest.fixture
def output(tmp_path: Path) -> Path:
    write_overlap_run(tmp_path, mini_task("MiniMedicalB"))
    return tmp_path


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    written = write_overlap_run(tmp_path, mini_task("MiniMedicalB"))
    (read,) = load_results(tmp_path)
    assert read == written
    assert load_results(written.folder) == load_results(written.folder / written.task) == [written]
    assert read_provenance(read).signature == read.signature
    rows = mini_task("MiniMedicalB").candidate_lists()
    assert [(q, r.doc_ids, r.relevance) for q, r in read_rankings(read).items()] == [
        (row.query_id, row.doc_ids, row.relevance) for row in rows
    ]
    values = read_per_query(read)
    assert set(values) == {f"{p}:{name}" for p in ("cmteb", "mteb") for name in read.means(p)}
    assert sum(values["cmteb:map"].values()) / len(values["cmteb:map"]) == pytest.approx(read.cmteb["map"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("queries"), r"metrics\.json: queries: Field required"),
        (lambda c: c.update(queries="40"), r"metrics\.json: queries: Input should be a valid integer \(seen: '40'\)"),
        (lambda c: c.update(queries=True), r"metrics\.json: queries: Input should be a valid integer"),
        (lambda c: c.update(score=1), r"metrics\.json: score: Extra inputs are not permitted"),
        (lambda c: c["cmteb"].update(map="high"), r"metrics\.json: cmteb\.map: Input should be a valid number"),
        (lambda c: c["signature"].pop("ties"), r"metrics\.json: signature\.ties: Field required"),
        (lambda c: c["settings"].update(mode=[1]), r"metrics\.json: settings\.mode"),
        (lambda c: c["settings"].pop("mode"), r"metrics\.json: settings: .*a mode is missing"),
    ],
)
def test_a_field_of_a_wrong_kind_is_named(
    change: Callable[[dict[str, Any]], object], message: str, output: Path
) -> None:
    (result,) = load_results(output)
    edit(result.file(METRICS), change)
    with pytest.raises(ListconError, match=message):
        read_record(Result, result.file(METRICS))


@pytest.mark.parametrize("content", ["", "[]", "{", "null", '{"queries": NaN}', "\udcff"])
def test_what_is_no_record_is_one_error(content: str, tmp_path: Path) -> None:
    path = tmp_path / METRICS
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ListconError, match=r"metrics\.json.*run the evaluation again"):
        read_record(Result, path)


@pytest.mark.parametrize("name", [METRICS, PER_QUERY, PROVENANCE, "run.jsonl", "run.trec", "qrels.trec"])
def test_an_edited_or_missing_file_is_noticed(name: str, output: Path) -> None:
    (result,) = load_results(output)
    path = result.file(name)
    content = path.read_text()
    path.write_text(content.replace("0", "1", 1))
    with pytest.raises(ListconError, match=rf"{name} was changed after the run"):
        load_results(output)
    path.unlink()
    with pytest.raises(ListconError, match=rf"{name} is gone"):
        load_results(output)
    path.write_text(content)
    assert load_results(output) == [result]


def test_numbers_that_were_edited_together_are_noticed(output: Path) -> None:
    (result,) = load_results(output)
    edit(result.file(METRICS), lambda content: content["cmteb"].update(map=1.0))
    with pytest.raises(ListconError, match=r"metrics\.json was changed"):
        load_results(output)


def test_files_of_other_programs_do_not_matter(output: Path) -> None:
    (result,) = load_results(output)
    for folder in (output, result.folder, result.folder / result.task, result.folder.parent):
        (folder / ".DS_Store").write_bytes(b"\0")
        (folder / ".ipynb_checkpoints").mkdir()
        (folder / ".ipynb_checkpoints" / METRICS).write_text("{}")
        (folder / "notes.txt").write_text("mine")
    assert load_results(output) == [result]
    again = write_overlap_run(output, mini_task("MiniMedicalB"))
    assert again == result  # finished before
    write_overlap_run(output, mini_task("MiniMedicalB"), fresh=True)
    assert len(load_results(output)) == 1
    assert superseded(output) == []


def test_of_several_keys_the_newest_counts_and_the_others_can_be_removed(
    output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (old,) = load_results(output)
    versions = dict(environment.package_versions())
    monkeypatch.setattr(environment, "package_versions", lambda: versions | {"scikit-learn": "99"})
    new = write_overlap_run(output, mini_task("MiniMedicalB"))
    assert new.folder != old.folder
    monkeypatch.setattr(
        "listcon_eval.results.store.load_result",
        lambda folder, _task: (
            old if folder == old.folder else new.model_copy(update={"finished": new.finished.replace(year=2999)})
        ),
    )
    assert [result.folder for result in load_results(output)] == [new.folder]
    assert "left out 1 older run of the same system on the same data" in caplog.text
    assert superseded(output) == [old.folder]
    remove(old.folder)
    assert superseded(output) == []
    assert not old.folder.exists()


def test_a_run_is_replaced_by_one_with_all_its_metrics_and_what_is_asked_for_decides(tmp_path: Path) -> None:
    def run(*metrics: str) -> Path:
        return evaluate("bm25", "MiniMedicalB", metrics=metrics, output=tmp_path).results[0].folder

    with_ndcg, plain = run("nDCG@5"), run()
    assert run("nDCG@5") == with_ndcg  # finished before
    assert superseded(tmp_path) == []
    for metrics, taken in (((), plain), (["nDCG@5"], with_ndcg), (["AP@5", "nDCG@5"], with_ndcg), (["AP@5"], plain)):
        assert [result.folder for result in load_results(tmp_path, metrics)] == [taken]
    evaluate("random", "MiniMedicalB", metrics=["nDCG@5"], output=tmp_path)
    (shown,) = read_tables(tmp_path, "nDCG@5")
    assert [row.model for row in shown.rows] == ["BM25 (characters)", "random order"]
    assert compare(tmp_path, ["cmteb:map", "nDCG@5"], with_bounds=True).tasks[0].pairs
    measures = ["ir_measures:nDCG@5"]
    assert all({*measures} <= baseline.values.keys() for baseline in baseline_of(tmp_path, measures).runs)
    run("AP@5", "nDCG@5")
    assert superseded(tmp_path) == sorted([with_ndcg, plain])


def test_chunks_of_an_interrupted_run_are_superseded_unless_it_runs(output: Path) -> None:
    revision = load_results(output)[0].folder.parents[1]
    with pytest.raises(KeyboardInterrupt), run_lock(revision, "task", "k" * 64, fresh=False) as cache:
        assert superseded(output) == []
        raise KeyboardInterrupt
    assert superseded(output) == [cache.folder]
    (revision / ".work" / ".DS_Store").touch()
    remove(cache.folder)
    assert superseded(output) == []
    assert len(load_results(output)) == 1


def test_other_content_under_one_name_is_another_result(tmp_path: Path) -> None:
    line = '{{"query": "问题", "positive": ["{}"], "negative": ["别的"]}}\n'
    for name, text in (("a", "问题一"), ("b", "问题二")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lists.jsonl").write_text(line.format(text), encoding="utf-8")
        write_overlap_run(tmp_path, local_task(tmp_path / name / "lists.jsonl"))
    found = load_results(tmp_path)
    assert len({result.data_revision for result in found}) == len({result.folder for result in found}) == 2


def test_queries_that_cmteb_drops_are_counted_and_have_no_value(tmp_path: Path) -> None:
    rows = [(["甲"], ["乙"]), (["甲"], []), (["甲", "乙"], ["丙"]), ([], ["乙"])]
    lines = [{"query": f"问{n}", "positive": p, "negative": n_} for n, (p, n_) in enumerate(rows)]
    path = tmp_path / "lists.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    result = write_overlap_run(tmp_path, local_task(path))
    values = read_per_query(result)
    assert (result.queries, result.dropped) == (4, 2)
    assert (len(values["cmteb:map"]), len(values["mteb:map_at_1000"])) == (2, 4)


def test_a_broken_or_foreign_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ListconError, match="no such folder"):
        load_results(tmp_path / "nowhere")
    with pytest.raises(ListconError, match="no runs in"):
        load_results(tmp_path)
    folder = tmp_path / "run" / "Task"
    folder.mkdir(parents=True)
    (folder / METRICS).write_text("{}")
    with pytest.raises(ListconError, match=r"manifest\.json cannot be read"):
        load_results(tmp_path)
    with pytest.raises(ListconError, match=r"manifest\.json cannot be read"):
        is_finished(tmp_path / "run", "Task", "key")
    assert not is_finished(tmp_path / "other", "Task", "key")


def test_a_signature_prints_its_fields_and_names_what_differs() -> None:
    one = Signature(
        task="T", data_revision="r", model="m", model_revision="1", settings={"mode": "iterative", "dtype": "float32"},
        ties="t", versions={"mteb": "2"}, device="cpu",
    )  # fmt: skip
    assert str(one) == "T@r|m@1|mode:iterative|dtype:float32|ties:t|mteb:2|device:cpu"
    other = one.model_copy(update={"settings": {"mode": "iterative", "k1": 1.5}, "device": "cuda"})
    assert one.differences(other) == {"dtype": ("float32", "none"), "device": ("cpu", "cuda"), "k1": ("none", "1.5")}
    assert one.differences(one) == {}


def test_a_tied_run_reports_the_range_of_its_mrr(tmp_path: Path) -> None:
    result = write_overlap_run(tmp_path, mini_task("MiniMedicalB"), OverlapSystem(step=0.5))
    for name, (low, high) in result.ranges.items():
        assert low <= result.cmteb[name] <= high
    assert result.ranges
