"""Every kind of system through an evaluation: the same files and numbers, resume, and one message for a mistake."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mteb
import pytest

from conftest import DATA
from listcon_eval.data import local_task
from listcon_eval.errors import ListconError
from listcon_eval.evaluation import evaluate
from listcon_eval.results import Result, read_provenance, read_rankings
from listcon_eval.results.chunk_cache import ChunkCache
from listcon_eval.systems.base import LoadOptions
from listcon_eval.systems.resolve import resolve_model
from systems import write_chat_classifier, write_cross_encoder, write_embedding
from texts import random_list

CONAN = "TencentBAC/Conan-embedding-v1"
CPU = LoadOptions("cpu")
MODELS: dict[str, str | Callable[[Path], Path]] = {
    "bm25": "bm25",
    "bm25:jieba": "bm25:jieba",
    "random": "random",
    "oracle": "oracle",
    "embedding": write_embedding,
    "cross-encoder": write_cross_encoder,
    "chat classifier": write_chat_classifier,
}


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


def run(model: str, data: Path, output: Path) -> Result:
    (result,) = evaluate(model, [local_task(data)], output=output, options=CPU).results
    return result


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_is_evaluated_the_same_way(name: str, data: Path, tmp_path: Path) -> None:
    given = MODELS[name]
    model = given if isinstance(given, str) else str(given(tmp_path / "model"))
    result = run(model, data, tmp_path)
    provenance = read_provenance(result)
    kind = {"chat classifier": "cross-encoder"}.get(name, name.partition(":")[0])
    assert result.kind == provenance.model.kind == kind
    assert result.settings["mode"] == "pointwise"
    assert {"load", "measure"} < provenance.seconds.keys()
    if not isinstance(given, str):
        assert provenance.observed["unknown_tokens"] < 0.5
        assert "prompts" in provenance.observed
    assert all(set(row.rounds) == {0} for row in read_rankings(result).values())
    said: list[str] = []
    (again,) = evaluate(model, [local_task(data)], output=tmp_path, options=CPU, announce=said.append).results
    assert "finished before" in said[-1]
    assert (again.cmteb, again.mteb) == (result.cmteb, result.mteb)


def test_a_model_of_mtebs_registry_comes_from_the_cache_at_its_pinned_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    revision = str(mteb.get_model_meta(CONAN).revision)
    place = tmp_path / "hub" / f"models--{CONAN.replace('/', '--')}" / "snapshots" / revision
    write_embedding(place)
    (tmp_path / "own.jsonl").write_text(made_up(0), encoding="utf-8")
    result = run(CONAN, tmp_path / "own.jsonl", tmp_path)
    assert (result.model, result.model_revision, result.kind) == (CONAN, revision, "embedding")
    meta = json.loads((result.folder / "model_meta.json").read_text())
    assert meta["license"] == "cc-by-nc-4.0"
    shutil.rmtree(place)
    with pytest.raises(ListconError, match=f"cannot get {CONAN} @ {revision}"):
        resolve_model(CONAN)


def test_a_published_listconranker_can_be_measured_by_its_encoder_alone(
    checkpoint_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mteb has a loader for this name, which would load all of it."""
    name = "ByteDance/ListConRanker"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    revision = str(mteb.get_model_meta(name).revision)
    place = tmp_path / "hub" / f"models--{name.replace('/', '--')}" / "snapshots" / revision
    shutil.copytree(checkpoint_folder, place)
    (tmp_path / "own.jsonl").write_text(made_up(0), encoding="utf-8")
    spec = resolve_model(name, "embedding", revision)
    (result,) = evaluate(spec, [local_task(tmp_path / "own.jsonl")], output=tmp_path, options=CPU).results
    assert (result.kind, result.model) == ("embedding", f"{name}-encoder")


@pytest.mark.parametrize("writer", [write_embedding, write_cross_encoder, write_chat_classifier])
def test_a_run_that_was_cut_off_ends_with_the_bytes_of_a_whole_one(
    writer: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("listcon_eval.systems.network.chunk_tokens", lambda *_: 512)
    path = tmp_path / "own.jsonl"
    path.write_text("".join(made_up(seed) for seed in range(3)), encoding="utf-8")
    model = str(writer(tmp_path / "model"))
    whole = run(model, path, tmp_path / "whole")
    save, left = ChunkCache.save, 3

    def cut_off(cache: ChunkCache, name: str, array: object) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        save(cache, name, array)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(ChunkCache, "save", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run(model, path, tmp_path / "cut")
    assert not list((tmp_path / "cut").rglob("metrics.json"))
    again = run(model, path, tmp_path / "cut")
    for name in ("run.jsonl", "run.trec", "per_query.jsonl"):
        assert again.file(name).read_bytes() == whole.file(name).read_bytes()
    assert read_provenance(again).resumed_chunks == 3
    assert read_provenance(again).observed == read_provenance(whole).observed


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        ("oracel", None, r"\(did you mean oracle\?\); .*cannot get oracel @ main\.\nTried:"),
        ("no/where/at/all", None, "is no TREC run file and not one of bm25, random, oracle; no checkpoint folder"),
        ("bm25", "listwise", "no kind 'listwise'"),
        ("their.run", None, "has 1 query that lists has no candidates for, such as 'unknown'"),
        ("empty", None, "cannot tell what empty holds"),
        ("empty", "embedding", "cannot be loaded as an embedding model"),
        ("empty", "cross-encoder", "cannot be loaded as a cross-encoder"),
        ("empty", "listconranker", "no weights in empty"),
    ],
)
def test_a_mistake_is_one_message(
    model: str, kind: str | None, message: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "their.run").write_text("unknown Q0 d 1 1.0 them\n")
    with pytest.raises(ListconError, match=message):
        evaluate(resolve_model(model, kind), [local_task(data)], output=tmp_path, options=CPU)
