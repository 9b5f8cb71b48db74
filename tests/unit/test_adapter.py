"""The ranker as a model of mteb: picked up by `mteb.evaluate`, every query returned, modes kept apart."""

from pathlib import Path
from typing import Any

import mteb
import pytest
import torch
from datasets import Dataset
from mteb.models import CrossEncoderProtocol, ModelMeta, SearchProtocol
from mteb.results import TaskResult
from mteb.types import OutputDType

from listcon_eval import ListConRanker, evaluate
from listcon_eval.data import local_task
from listcon_eval.errors import ListconError
from listcon_eval.mteb_adapter import ListConSearch, SystemSearch
from listcon_eval.records import DTYPES
from listcon_eval.systems.base import LoadOptions
from listcon_eval.systems.baselines import Oracle
from listcon_eval.systems.listconranker import ListConRankerSystem
from run_files import write_few_lists
from texts import random_list

SIZES = {"one": 1, "two": 2, "long": 1002, "short": 25}


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """Lists of 1 to 1002 candidates; two queries of one text; equal documents; a query without candidates."""
    corpus, queries, top_ranked = [], [], {}
    for seed, (query_id, size) in enumerate(SIZES.items()):
        query, *passages = random_list(size, seed=seed, longest=12)
        queries.append({"id": query_id, "text": query})
        top_ranked[query_id] = [f"{query_id}-{place}" for place in range(size)]
        corpus += [
            {"id": doc_id, "text": text, "title": ""}
            for doc_id, text in zip(top_ranked[query_id], passages, strict=True)
        ]
    corpus.append({"id": "copy", "text": corpus[3]["text"], "title": ""})
    queries.append({"id": "again", "text": queries[2]["text"]})
    top_ranked["again"] = ["long-0", "copy", "long-0", "short-3"]
    queries.append({"id": "absent", "text": "没有候选"})
    return {"corpus": Dataset.from_list(corpus), "queries": Dataset.from_list(queries), "top_ranked": top_ranked}


def search(ranker: ListConRanker, parts: dict[str, Any], mode: str = "iterative") -> dict[str, dict[str, float]]:
    model = ListConSearch(ranker, mode)  # type: ignore[arg-type]
    metadata = mteb.get_task("T2Reranking").metadata
    common: dict[str, Any] = {
        "task_metadata": metadata,
        "hf_split": "dev",
        "hf_subset": "default",
        "encode_kwargs": {},
        "num_proc": None,
    }
    model.index(parts["corpus"], **common)
    return model.search(parts["queries"], top_k=1000, top_ranked=parts["top_ranked"], **common)


def test_mteb_takes_it_for_a_search_model_and_for_nothing_else(ranker: ListConRanker) -> None:
    model = ListConSearch(ranker)
    assert isinstance(model, SearchProtocol)
    assert not isinstance(model, CrossEncoderProtocol)
    assert not hasattr(model, "predict")


@pytest.mark.parametrize("mode", ["conventional", "iterative"])
def test_every_query_comes_back_with_all_its_candidates(
    ranker: ListConRanker, parts: dict[str, Any], mode: str
) -> None:
    found = search(ranker, parts, mode)
    assert {query_id: len(scores) for query_id, scores in found.items()} == {**SIZES, "again": 3, "absent": 0}
    assert all(type(score) is float for scores in found.values() for score in scores.values())


def test_queries_of_one_text_keep_their_own_lists(ranker: ListConRanker, parts: dict[str, Any]) -> None:
    found = search(ranker, parts, "conventional")
    texts = dict(zip(parts["corpus"]["id"], parts["corpus"]["text"], strict=True))
    query = parts["queries"][2]["text"]
    passages = [texts[doc_id] for doc_id in parts["top_ranked"]["again"]]
    alone = dict(zip(parts["top_ranked"]["again"], ranker.compute_score([[query, *passages]])[0], strict=True))
    assert found["again"] == pytest.approx(alone, abs=1e-5)
    assert found["again"]["copy"] == found["again"]["long-0"]


def test_a_score_that_is_no_number_names_task_and_query(ranker: ListConRanker, parts: dict[str, Any]) -> None:
    bias = ranker.model.linear_score1.bias
    kept = bias.detach().clone()
    try:
        with torch.no_grad():
            bias.fill_(float("nan"))
        with pytest.raises(ListconError, match="T2Reranking, query one: 1 of 1 scores are not"):
            search(ranker, parts)
    finally:
        with torch.no_grad():
            bias.copy_(kept)


def test_a_task_without_candidate_lists_is_refused(ranker: ListConRanker, parts: dict[str, Any]) -> None:
    with pytest.raises(ListconError, match="no candidate lists"):
        search(ranker, {**parts, "top_ranked": None})


def test_the_second_mode_encodes_nothing_again(ranker: ListConRanker, tmp_path: Path) -> None:
    query, *passages = random_list(30, seed=8)
    (tmp_path / "own.jsonl").write_text(
        f'{{"query": "{query}", "positive": ["{passages[0]}"], "negative": ["{passages[1]}", "{passages[2]}"]}}\n',
        encoding="utf-8",
    )
    task = local_task(tmp_path / "own.jsonl")
    told: list[tuple[str, int, int]] = []
    system = ListConRankerSystem(ranker)
    for mode in ("conventional", "iterative", "conventional"):
        model = SystemSearch(system, mode, progress=lambda *row: told.append(row))
        mteb.evaluate(model, task.mteb_task, cache=None, show_progress_bar=False)
    work = sum(len(text) + 1 for text in (query, *passages[:3]))
    assert [row for row in told if row[0] == "encode"] == [("encode", work, work)]
    assert [row for row in told if row[0] == "list"] == [("list", 3, 3)] * 3


def test_mteb_and_the_harness_give_the_same_numbers(
    checkpoint_folder: Path, ranker: ListConRanker, tmp_path: Path
) -> None:
    task = local_task(write_few_lists(tmp_path / "few.jsonl"))
    options = LoadOptions(device="cpu", dtype="float32")
    for result in evaluate(str(checkpoint_folder), [task], output=tmp_path, options=options).results:
        model = ListConSearch(ranker, result.mode)  # type: ignore[arg-type]
        found = mteb.evaluate(model, task.mteb_task, cache=None, show_progress_bar=False)[0]
        own = TaskResult.from_disk(result.folder / "few.json")
        assert found.scores["test"][0]["map_at_1000"] == result.mteb["map_at_1000"]
        (here,), (there,) = own.scores["test"], found.scores["test"]
        for name in [name for name in here if "nauc" not in name and name not in ("hf_subset", "languages")]:
            assert here[name] == pytest.approx(there[name], abs=1e-6), name


def test_the_oracle_is_refused_since_mteb_hands_over_no_judgements() -> None:
    with pytest.raises(ListconError, match="judgements"):
        SystemSearch(Oracle())


@pytest.mark.parametrize("mode", ["iterativ", "pointwise", ""])
def test_a_mode_that_the_system_lacks_is_refused(ranker: ListConRanker, mode: str) -> None:
    with pytest.raises(ListconError, match=f"has no mode {mode!r}: give one of conventional, iterative"):
        ListConSearch(ranker, mode)  # type: ignore[arg-type]


def test_modes_and_dtypes_have_experiment_names_of_their_own(checkpoint_folder: Path) -> None:
    names = set()
    for dtype in DTYPES:
        ranker = ListConRanker.from_pretrained(checkpoint_folder, device="cpu", dtype=dtype)
        names |= {ListConSearch(ranker, mode).mteb_model_meta.experiment_name for mode in ("conventional", "iterative")}
    assert len(names) == 6
    assert "dtype_float32__mode_iterative" in names


def test_mteb_validates_the_metadata(ranker: ListConRanker) -> None:
    meta = ListConSearch(ranker).mteb_model_meta
    again = ModelMeta.model_validate(meta.to_dict())
    assert (again.name, again.similarity_fn_name) == (meta.name, None)
    assert meta.output_dtypes == OutputDType.FLOAT32


def test_a_short_max_length_is_part_of_the_name(checkpoint_folder: Path) -> None:
    ranker = ListConRanker.from_pretrained(checkpoint_folder, max_length=64)
    assert "max_length_64" in str(ListConSearch(ranker).mteb_model_meta.experiment_name)


def test_the_metadata_says_which_weights_they_are(checkpoint_folder: Path) -> None:
    ranker = ListConRanker.from_pretrained(checkpoint_folder)
    meta = ListConSearch(ranker).mteb_model_meta
    assert meta.name == "local/tiny-random"
    assert meta.revision == f"sha256-{ranker.checkpoint.weights_sha256[:40]}"
    assert meta.n_parameters == sum(parameter.numel() for parameter in ranker.model.parameters())


def test_the_published_model_keeps_what_mteb_knows_of_it(checkpoint_folder: Path) -> None:
    ranker = ListConRanker.from_pretrained(checkpoint_folder)
    source = ranker.checkpoint.source._replace(hub_id="ByteDance/ListConRanker", revision="2852d459")
    object.__setattr__(ranker.checkpoint, "source", source)
    meta = ListConSearch(ranker).mteb_model_meta
    assert (meta.name, meta.revision) == ("ByteDance/ListConRanker", "2852d459")
    assert meta.training_datasets is not None
    assert "T2Reranking" in meta.training_datasets
