"""The parts of `speed`: workloads, random models, the published procedure, and the figures made of times."""

import gc
import json
import mmap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from listcon_eval import ListConRanker
from listcon_eval.errors import ListconError
from listcon_eval.inference.features import encode_texts
from listcon_eval.inference.iterative import groups_of, rank_features
from listcon_eval.inference.memory import BatchBudget, Budgets, host_peak, reset_peak
from listcon_eval.inference.tokens import IndexedList, TokenCounts
from listcon_eval.progress import Phases, no_progress
from listcon_eval.records import RankedList
from listcon_eval.speed.measure import (
    Measurement,
    as_text,
    covered,
    matrix_product_ceiling,
    measure,
    updated_markdown,
)
from listcon_eval.speed.peers import PeerComparison, PeerTiming, check_peers, compare_peers
from listcon_eval.speed.procedure import Agreement, PublishedProcedure, compare_rankings, reversed_gap
from listcon_eval.speed.random_model import SIZES, character_tokenizer, write_random_checkpoint
from listcon_eval.speed.workload import SHAPES, Workload, read_workload, synthetic_workload
from reference.oracle import Oracle
from texts import random_list


@pytest.mark.parametrize("name", SHAPES)
def test_workloads_have_the_stated_shape(name: str) -> None:
    shape = SHAPES[name]
    workload = synthetic_workload(name, scale=3000 / shape.documents)
    sizes = [len(passages) for passages in workload.passages]
    documents = [text for passages in workload.passages for text in passages]
    lengths = list(map(len, documents))
    assert len(sizes) == max(1, round(shape.queries * 3000 / shape.documents))
    assert shape.candidates.min <= min(sizes)
    assert max(sizes) <= shape.candidates.max
    assert mean(sizes) == pytest.approx(shape.candidates.mean, rel=0.02)
    assert mean(lengths) == pytest.approx(shape.document_length.mean, rel=0.05)
    assert shape.document_length.min <= min(lengths)
    assert max(lengths) <= shape.document_length.max
    assert len(set(documents)) / len(documents) == pytest.approx(shape.distinct_documents / shape.documents, abs=0.01)
    assert all(shape.query_length.min <= len(query) <= shape.query_length.max for query in workload.queries)


def test_texts_are_the_same_every_time() -> None:
    assert synthetic_workload("T2Reranking", scale=0.001) == synthetic_workload("T2Reranking", scale=0.001)


def test_synthetic_texts_are_one_token_per_character() -> None:
    tokenizer = character_tokenizer()
    text = synthetic_workload("MMarcoReranking", scale=0.01).passages[0][0]
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text) + 2
    assert tokenizer.unk_token_id not in ids
    assert len(tokenizer) == 21_128


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_unusable_scales(scale: float) -> None:
    with pytest.raises(ListconError, match=f"the scale is {scale}"):
        synthetic_workload("T2Reranking", scale=scale)


def test_data_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "lists.jsonl"
    path.write_text(json.dumps({"query": "问", "positive": ["甲"], "negative": ["乙", "甲"]}), encoding="utf-8")
    workload = read_workload(path)
    assert workload == Workload("lists.jsonl", ["问"], [["甲", "乙", "甲"]])
    assert workload.size == 3
    assert workload.distinct_texts() == ["问", "甲", "乙"]


def test_a_sample_is_spread_over_the_sizes() -> None:
    sizes = [9, 1, 8, 2, 7, 3, 6, 4, 5]
    workload = Workload("w", [str(size) for size in sizes], [["p"] * size for size in sizes])
    assert sorted(sizes[place] for place in workload.sample(3)) == [2, 5, 8]
    assert workload.sample(1) == [8]
    assert workload.sample(100) == list(range(9))
    assert workload.sample(0) == []
    assert workload.subset([8]).queries == ["5"]


@pytest.mark.parametrize("size", ["tiny", pytest.param("base", marks=pytest.mark.slow)])
def test_random_checkpoints_have_the_named_size(size: str, tmp_path: Path) -> None:
    folder = write_random_checkpoint(size, tmp_path / size)
    config = ListConRanker.from_pretrained(folder, device="cpu", dtype="float32").model.config
    encoder = config.encoder
    found = (encoder.num_hidden_layers, encoder.hidden_size, encoder.num_attention_heads)
    assert (*found, config.list_width, config.list_layers) == SIZES[size]
    assert encoder.vocab_size == 21_128


@pytest.mark.parametrize("size", [1, 20, 47])
def test_the_procedure_against_the_oracle(ranker: ListConRanker, size: int) -> None:
    query, *passages = random_list(size, seed=size)
    tokenizer = ranker.checkpoint.tokenizer
    oracle = Oracle(ranker.model, tokenizer, torch.float64)
    procedure = PublishedProcedure(ranker.model, tokenizer, dtype="float32", max_length=512)
    conventional = procedure.rank(query, passages, "conventional")
    assert conventional.scores == pytest.approx(oracle.score(query, passages), abs=1e-5)
    iterative = procedure.rank(query, passages, "iterative")
    assert iterative.scores == pytest.approx(oracle.iterative(query, passages), abs=1e-5)


def test_in_float16_the_procedure_ranks_by_the_rounded_score(checkpoint_folder: Path) -> None:
    model = ListConRanker.from_pretrained(checkpoint_folder, device="cpu", dtype="float32")
    model.model.linear_score1.weight.data.mul_(1e-4)  # bunches the scores: most tie in float16
    query, *passages = random_list(40, seed=3)
    tokenizer = model.checkpoint.tokenizer
    coarse = PublishedProcedure(model.model.half(), tokenizer, dtype="float16", max_length=512)
    scores = coarse.rank(query, passages, "conventional").scores
    assert len(set(scores)) < 10
    assert all(score == float(np.float16(score)) for score in scores)
    model.model.float()
    fine = PublishedProcedure(model.model, tokenizer, dtype="float32", max_length=512)
    assert len(set(fine.rank(query, passages, "conventional").scores)) > 30


def test_reversed_gaps_by_hand() -> None:
    expected = np.array([0.9, 0.5, 0.5, 0.1])
    assert reversed_gap(expected, np.array([4.0, 3.0, 2.0, 1.0])) == 0
    assert reversed_gap(expected, np.array([4.0, 2.0, 3.0, 1.0])) == 0  # these two are tied in `expected`
    assert reversed_gap(expected, np.array([4.0, 3.0, 1.0, 2.0])) == pytest.approx(0.4)
    assert reversed_gap(expected, np.array([4.0, 3.0, 3.0, 3.0])) == pytest.approx(0.4)  # a new tie loses the order
    assert reversed_gap(expected, np.array([1.0, 3.0, 2.0, 4.0])) == pytest.approx(0.8)


def test_of_equal_texts_the_first_counts() -> None:
    expected = [RankedList((0.3, 0.2, 0.1), (0, 0, 0)), RankedList((0.3, 0.2), (0, 0))]
    found = [RankedList((0.3, 0.2, 0.3), (0, 0, 0)), RankedList((0.1, 0.2), (0, 0))]
    agreement = compare_rankings(expected, found, [["a", "b", "a"], ["a", "b"]])
    assert (agreement.lists, agreement.identical) == (2, 1)
    assert agreement.max_gap == pytest.approx(0.1)


def test_covered_by_hand() -> None:
    assert covered([(6.0, 8.0), (0.0, 1.0), (0.5, 2.0), (7.0, 20.0), (7.0, 7.5)]) == 16.0
    assert covered([]) == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_has_a_ceiling(dtype: torch.dtype) -> None:
    assert matrix_product_ceiling(torch.device("cpu"), dtype, seconds=0) > 0


def test_the_peak_is_of_memory_held_since_the_reset() -> None:
    gc.collect()  # what earlier tests left behind would else be freed in between, and hide what is held
    reset_peak(torch.device("cpu"))
    before = host_peak()
    held = mmap.mmap(-1, 320_000_000)  # of its own: an array may get memory that earlier tests left in the process
    np.frombuffer(held, dtype=np.uint8)[:] = 1
    assert host_peak() - before > 0.9 * len(held)


@pytest.fixture(scope="module")
def measurement(ranker: ListConRanker) -> Measurement:
    lists = [random_list(size, seed=size, longest=20) for size in (3, 24, 31)]
    workload = Workload("three lists", [row[0] for row in lists], [row[1:] for row in lists])
    return measure(ranker, workload, model_name="random test", repeats=2, reference_queries=2)


def test_a_measurement_end_to_end(measurement: Measurement, ranker: ListConRanker) -> None:
    assert measurement.agreement == Agreement(2, 2, 0.0)
    assert (measurement.queries, measurement.passages) == (3, 58)
    assert len(measurement.seconds) == len(measurement.encoder.padded_seconds) == 2
    assert measurement.distinct_texts == 61
    tokenizer = ranker.checkpoint.tokenizer
    texts = {text for size in (3, 24, 31) for text in random_list(size, seed=size, longest=20)}
    assert measurement.tokens == sum(len(tokenizer(text)["input_ids"]) for text in texts)
    config = ranker.model.config.encoder
    linears = 2 * config.num_hidden_layers * 12 * config.hidden_size**2 * measurement.tokens  # inner width 4H
    assert linears < measurement.flop < 1.2 * linears
    assert {"tokenise", "encode", "list"} <= measurement.phases.keys()
    found = json.loads(json.dumps(measurement.to_json(), allow_nan=False))
    assert found["agreement"] == {"lists": 2, "identical": 2, "max_gap": 0.0}
    assert found["share_of_ceiling"] == pytest.approx(measurement.flop_per_second / measurement.ceiling)


def test_a_disagreement_is_shown(measurement: Measurement) -> None:
    shown = as_text(replace(measurement, agreement=Agreement(2, 1, 0.25)))
    assert "1 of 2 lists; largest score difference ordered the other way: 2.5e-01" in shown


def test_what_a_terminal_shows(measurement: Measurement) -> None:
    text = as_text(measurement)
    for part in ("three lists, 3 queries, 58 passages", "published procedure", "of the ceiling", "2 of 2 lists"):
        assert part in text
    alone = replace(measurement, agreement=None, device_peak=3 * 10**9, device_budget=2 * 10**9, busy=0.97)
    text = as_text(alone)
    assert "published procedure" not in text
    assert "device 3.00 GB of 2.00 GB, OVER the budget" in text
    assert "a kernel was running in 97%" in text
    assert alone.to_json()["agreement"] is None


def test_how_peers_are_shown(measurement: Measurement) -> None:
    agreement = Agreement(3, 2, 0.25)
    encoders = (
        PeerTiming("ours", (1.0, 2.0, 4.0), 5 * 10**8, Agreement(3, 3, 0.0), 1e-6),
        PeerTiming("theirs", (2.0, 8.0, 2.0), 2 * 10**9, agreement, 3e-7),
    )
    rankers = (PeerTiming("ours", (3.0,) * 3, 5 * 10**8, agreement),)
    compared = replace(measurement, tokens=1000, peers=PeerComparison(encoders, rankers, 1))
    text = as_text(compared)
    theirs = next(line for line in text.splitlines() if line.startswith("theirs"))
    shown = ["2.00 (2.00 to 8.00)", "2.00 (0.50 to 4.00)", "2 of 3 (gap 2e-01)", "2.00 GB", "3.0e-07", "500"]
    assert [part for part in shown if part not in theirs] == []
    assert "From 61 texts to features:" in text
    assert "From 1 list to scores:" in text
    assert "to scores" not in as_text(replace(compared, peers=PeerComparison(encoders, (), 0)))
    assert "| theirs " in updated_markdown(None, [compared], "listcon-eval speed --peers")
    peers = json.loads(json.dumps(compared.to_json()))["peers"]
    assert peers["encoders"][1]["agreement"] == {"lists": 3, "identical": 2, "max_gap": 0.25}
    assert peers["queries"] == 1


def test_peers_are_compared_in_float32(checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("listcon_eval.speed.peers._NEEDED", ())
    half = ListConRanker.from_pretrained(checkpoint_folder, device="cpu", dtype="bfloat16")
    with pytest.raises(ListconError, match="the model is on cpu in bfloat16"):
        check_peers(half)
    monkeypatch.setattr("listcon_eval.speed.peers._NEEDED", ("torch", "no_such_module"))
    with pytest.raises(ListconError, match=r"--peers needs no_such_module: pip install 'listcon-eval\[peers\]'"):
        check_peers(half)


@pytest.mark.slow
def test_every_peer_computes_the_same(ranker: ListConRanker) -> None:
    pytest.importorskip("onnxruntime", reason="the extra `peers` is not installed")
    lists = [random_list(size, seed=size, longest=20) for size in (3, 24)]
    workload = Workload("two lists", [row[0] for row in lists], [row[1:] for row in lists])
    found = compare_peers(ranker, workload, repeats=1, reference_queries=1)
    assert [len(peer.seconds) for peer in (*found.encoders, *found.rankers)] == [1] * 8
    for peer in found.encoders:
        assert peer.difference is not None
        assert peer.difference < 1e-4
        assert peer.agreement == Agreement(2, 2, 0.0)
    assert found.queries == 1
    assert {peer.agreement for peer in found.rankers} == {Agreement(1, 1, 0.0)}


def test_the_work_on_t2_grows_no_faster_than_its_queries() -> None:
    small, large = (_work_of(scale) for scale in (0.01, 1.0))
    share = large["passages"] / small["passages"]
    assert share == pytest.approx(100, rel=0.02)
    for count in ("tokens", "scored rows"):
        assert large[count] / small[count] == pytest.approx(share, rel=0.1), count
    for count in ("encoder batches", "list calls"):
        assert large[count] <= 1.1 * share * small[count], count
    assert large["rounds"] < 20


def _work_of(scale: float) -> dict[str, int]:
    """What is done for lists in the shape of T2Reranking: real batches and rounds, over networks that only count."""
    random = np.random.default_rng(0)
    shape = SHAPES["T2Reranking"]
    sizes = shape.candidates.draw(round(shape.queries * scale), random)
    count = int(sizes.sum())
    texts = ["x" * length for length in shape.document_length.draw(count, random).tolist()]
    texts += ["x" * length for length in shape.query_length.draw(len(sizes), random).tolist()]
    encoder: Any = CountingEncoder()
    model: Any = CountingModel()
    tokenizer: Any = CharacterTokenizer()
    budgets = Budgets.for_device(encoder.device)
    budget = BatchBudget(encoder.device, budgets.tokens)
    store, _ = encode_texts(
        encoder, tokenizer, texts, budgets=budgets, budget=budget, phases=Phases(), progress=no_progress
    )
    lists = [
        IndexedList(str(place), count + place, np.arange(end - size, end), None)
        for place, (end, size) in enumerate(zip(np.cumsum(sizes).tolist(), sizes.tolist(), strict=True))
    ]
    budget = BatchBudget(encoder.device, budgets.rows)
    rounds = 0
    for group in groups_of(lists, budgets.group_passages):
        ranked = rank_features(model, store, group, mode="iterative", dtype="float32", budget=budget)
        rounds = max(rounds, *(max(row.rounds) for row in ranked))
    return {
        "passages": count,
        "tokens": sum(encoder.batches),
        "encoder batches": len(encoder.batches),
        "list calls": len(model.batches),
        "scored rows": sum(model.batches),
        "rounds": rounds,
    }


class CountingEncoder:
    """Gives every text a random feature of one number, and counts."""

    device = torch.device("cpu")
    features_dtype = torch.float32
    network = torch.nn.Linear(1000, 1000)
    width = 1
    checked = True

    def __init__(self) -> None:
        self.batches: list[int] = []  # the tokens of each; threads may append at once

    def features(self, ids: list[NDArray[np.int32]]) -> torch.Tensor:
        self.batches.append(sum(map(len, ids)))
        return torch.rand(len(ids), 1)


class CountingModel:
    """Takes a passage's feature for its logit, and counts."""

    linear_score1 = torch.nn.Linear(1, 1)

    def __init__(self) -> None:
        self.batches: list[int] = []  # the rows of each

    def pointwise_logits(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, 1:, 0]

    def listwise_logits(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        self.batches.append(int(valid.sum()))
        return features[:, 1:, 0]


class CharacterTokenizer:
    """A token a character, and two special ones."""

    max_length = 512

    def __call__(self, texts: list[str]) -> tuple[list[NDArray[np.int32]], TokenCounts]:
        rows = [np.zeros(min(len(text) + 2, self.max_length), dtype=np.int32) for text in texts]
        return rows, TokenCounts()


def test_the_markdown_file_keeps_one_section_per_workload_model_and_machine(measurement: Measurement) -> None:
    other = replace(measurement, machine="Another CPU")
    file = updated_markdown(None, [measurement], "listcon-eval speed")
    file = updated_markdown(file, [other], "listcon-eval speed --repeats 2")
    assert file.startswith("# Speed\n")
    assert file.count("\n## three lists") == 2
    assert updated_markdown(file, [other], "listcon-eval speed --repeats 2") == file
    replaced = updated_markdown(file, [measurement], "listcon-eval speed --repeats 4")
    assert replaced.count("\n## three lists") == 2
    assert replaced.count("--repeats 4") == replaced.count("--repeats 2") == 1
    assert replaced.index("--repeats 4") < replaced.index("Another CPU")


def test_real_data(real_data: Callable[[str], Path]) -> None:
    workload = read_workload(real_data("heldout_t2ranking_sample.jsonl.gz"))
    assert workload.size > 1000
    assert min(map(len, workload.passages)) > 0
