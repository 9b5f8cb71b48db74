"""Every kind of system through the command line: the same files and tables, resume, and one message for a mistake."""

import gzip
import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import mteb
import pytest
from conftest import DATA
from typer.testing import CliRunner, Result

from end_to_end.test_run import check_every_number, listcon_eval, read_json, read_jsonl
from listcon_eval.cli.app import app
from listcon_eval.data import local_task
from listcon_eval.evaluate import Request, evaluate
from listcon_eval.inference.budgets import Budgets
from listcon_eval.results import Work
from systems import write_chat_classifier, write_cross_encoder, write_embedding
from texts import random_list

CONAN = "TencentBAC/Conan-embedding-v1"
MODELS: dict[str, str | Callable[[Path], Path]] = {
    "bm25": "bm25",
    "bm25:jieba": "bm25:jieba",
    "random": "random",
    "oracle": "oracle",
    "embedding": write_embedding,
    "cross-encoder": write_cross_encoder,
    "chat classifier": write_chat_classifier,
}


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The command line sends this package's warnings elsewhere; in a test it is a guest."""
    package = logging.getLogger("listcon_eval")
    handlers, level, propagate = list(package.handlers), package.level, package.propagate
    yield
    package.handlers, package.propagate = handlers, propagate
    package.setLevel(level)


@pytest.fixture(scope="module", params=["heldout_t2ranking_sample", "heldout_100_statute"])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slice of real data; made-up lists where there is none."""
    path = tmp_path_factory.mktemp("data") / "lists.jsonl"
    real = DATA / f"{request.param}.jsonl.gz"
    if real.exists():
        with gzip.open(real, "rt", encoding="utf-8") as file:
            rows = [next(file) for _ in range(3)]
    else:
        rows = [made_up(seed) for seed in range(3)]
    path.write_text("".join(rows), encoding="utf-8")
    return path


def made_up(seed: int) -> str:
    query, *passages = random_list(20, seed=seed)
    return json.dumps({"query": query, "positive": passages[:2], "negative": passages[2:]}) + "\n"


def invoke(*arguments: str | Path, code: int = 0) -> Result:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done


def folder_of(output: Path) -> Path:
    (path,) = output.glob("results/*/*/experiments/*/*/metrics.json")
    return path.parent


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_runs_from_the_command_line(name: str, data: Path, tmp_path: Path) -> None:
    given = MODELS[name]
    model = given if isinstance(given, str) else str(given(tmp_path / "model"))
    command = ("run", "-m", model, "--data", data, "--output", tmp_path, "--device", "cpu", "--precision", "precise")
    done = invoke(*command)
    folder = folder_of(tmp_path)
    check_every_number(folder)
    metrics, provenance = read_json(folder / "metrics.json"), read_json(folder / "provenance.json")
    assert (
        metrics["kind"]
        == provenance["model"]["kind"]
        == {"chat classifier": "cross-encoder"}.get(name, name.partition(":")[0])
    )
    assert metrics["mode"] == provenance["settings"]["mode"] == "pointwise"
    assert metrics["signature"] in done.stdout
    assert "measure" in provenance["seconds"]
    assert all(set(row["rounds"]) == {0} for row in read_jsonl(folder / "run.jsonl"))
    again = invoke(*command)
    assert "finished before" in again.stderr
    assert again.stdout == done.stdout
    shown = invoke("show", folder, "--query", read_jsonl(folder / "run.jsonl")[0]["query_id"], "--top", "2")
    assert "2 of" in shown.stdout
    table = invoke("table", tmp_path, "--format", "markdown")
    assert f"{100 * metrics['cmteb']['map']:.2f}" in table.stdout


def test_kinds_are_compared_and_gated_like_modes(data: Path, tmp_path: Path) -> None:
    for model in ("bm25", "random", "oracle"):
        invoke("run", "-m", model, "--data", data, "--output", tmp_path)
    compared = invoke("compare", tmp_path).stdout
    for label in ("BM25 (characters)", "random order", "oracle (upper bound)"):
        assert label in compared
    (run,) = tmp_path.glob("results/baseline__bm25-characters/*/experiments/*/lists/run.trec")
    invoke("run", "-m", run, "--data", data, "--output", tmp_path / "again")
    bm25, again = (read_json(path.parent / "metrics.json") for path in (run, folder_of(tmp_path / "again") / "x"))
    assert again["cmteb"] == bm25["cmteb"]
    assert (again["kind"], again["model"]) == ("run-file", "run-file/run.trec")
    baseline = tmp_path / "baseline.json"
    invoke("check", "--baseline", baseline, "--current", run.parent, "--update")
    invoke("check", "--baseline", baseline, "--current", run.parent)
    (worse,) = tmp_path.glob("results/baseline__random/*/experiments/*/lists")
    invoke("check", "--baseline", baseline, "--current", worse, code=1)


def test_a_model_of_mtebs_registry_comes_from_the_cache_at_its_pinned_revision(tmp_path: Path) -> None:
    revision = str(mteb.get_model_meta(CONAN).revision)
    place = tmp_path / "home" / "hub" / f"models--{CONAN.replace('/', '--')}" / "snapshots" / revision
    write_embedding(place)
    (tmp_path / "own.jsonl").write_text(made_up(0), encoding="utf-8")
    home = str(tmp_path / "home")
    listcon_eval("run", "-m", CONAN, "--data", tmp_path / "own.jsonl", "--output", tmp_path, HF_HOME=home)
    metrics = read_json(folder_of(tmp_path) / "metrics.json")
    assert (metrics["model"], metrics["model_revision"], metrics["kind"]) == (CONAN, revision, "embedding")
    meta = read_json(folder_of(tmp_path).with_name("model_meta.json"))
    assert meta["license"] == "cc-by-nc-4.0"
    shutil.rmtree(place)
    done = listcon_eval(
        "run", "-m", CONAN, "--data", tmp_path / "own.jsonl", "--output", tmp_path, code=2, HF_HOME=home
    )
    assert done.stderr.count("error:") == 1
    assert f"cannot get {CONAN} at revision {revision}" in " ".join(done.stderr.split())


@pytest.mark.parametrize("writer", [write_embedding, write_cross_encoder, write_chat_classifier])
def test_a_run_that_was_cut_off_ends_with_the_bytes_of_a_whole_one(
    writer: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Budgets, "for_device", lambda _: Budgets(tokens=256, rows=512, feature_bytes=2**30, chunk_texts=8)
    )
    path = tmp_path / "own.jsonl"
    path.write_text("".join(made_up(seed) for seed in range(3)), encoding="utf-8")
    model = str(writer(tmp_path / "model"))

    def run(output: Path) -> Path:
        evaluate(Request(model, [local_task(path)], None, output, device="cpu"))
        return folder_of(output)

    whole = run(tmp_path / "whole")
    save, left = Work.save, 3

    def cut_off(work: Work, name: str, array: object) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        save(work, name, array)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Work, "save", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "cut")
    assert not list((tmp_path / "cut").rglob("metrics.json"))
    again = run(tmp_path / "cut")
    for name in ("run.jsonl", "run.trec", "per_query.jsonl", "metrics.json"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()
    assert read_json(again / "provenance.json")["chunks_of_an_earlier_start"] == 3
    assert list((tmp_path / "cut").rglob(".work")) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-m", "oracel"), "cannot get oracel at revision main"),
        (("-m", "no/where/at/all"), "a TREC run file can be given, or one of bm25, random, oracle"),
        (("-m", "bm25", "--mode", "iterative"), "leave --mode out"),
        (("-m", "bm25", "--memory", "1GB"), "keeps to no memory budget"),
        (("-m", "bm25", "--kind", "listwise"), "no kind 'listwise'"),
        (("-m", "their.run"), "has 1 of 1 queries that lists has no candidates for, such as 'unknown'"),
        (("-m", "empty"), "cannot tell what empty holds"),
        (("-m", "empty", "--kind", "embedding"), "cannot be loaded as an embedding model"),
        (("-m", "empty", "--kind", "cross-encoder"), "cannot be loaded as a cross-encoder"),
        (("-m", "empty", "--kind", "listconranker"), "no weights in empty"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    arguments: tuple[str, ...], message: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "their.run").write_text("unknown Q0 d 1 1.0 them\n")
    done = invoke("run", *arguments, "--data", data, "--output", tmp_path, code=2)
    assert message in " ".join(done.stderr.split())
    assert done.stderr.count("error:") == 1
    assert done.stdout == ""
