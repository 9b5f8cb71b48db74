"""The benchmark's parts: made-up workloads, random models, the reference procedure, and what is made of the times."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import torch

from listcon_eval import ListConRanker
from listcon_eval.errors import ListconError
from listcon_eval.inference.memory import forget_peaks, host_peak
from listcon_eval.speed import (
    SIZES,
    Measurement,
    Settings,
    Shape,
    as_text,
    markdown_with,
    measure,
    read_workload,
    shape_named,
    shapes,
    synthetic_workload,
    write_random_checkpoint,
)
from listcon_eval.speed.agreement import compare_rankings, reversed_gap
from listcon_eval.speed.machine import matrix_product_ceiling
from listcon_eval.speed.models import character_tokenizer
from listcon_eval.speed.profiling import covered_share
from listcon_eval.speed.published import PublishedProcedure
from listcon_eval.speed.records import Agreement, EncoderSpeed, Timing
from listcon_eval.speed.workload import Workload
from reference.oracle import Oracle
from texts import random_list


@pytest.mark.parametrize("shape", shapes().values(), ids=shapes())
def test_workloads_have_the_stated_shape(shape: Shape) -> None:
    workload = synthetic_workload(shape, scale=3000 / shape.documents, seed=1)
    sizes = [len(passages) for passages in workload.passages]
    documents = [text for passages in workload.passages for text in passages]
    assert len(sizes) == max(1, round(shape.queries * 3000 / shape.documents))
    assert shape.candidates.least <= min(sizes)
    assert max(sizes) <= shape.candidates.most
    assert mean(sizes) == pytest.approx(shape.candidates.mean, rel=0.02)
    assert mean(map(len, documents)) == pytest.approx(shape.document_length.mean, rel=0.05)
    assert shape.document_length.least <= min(map(len, documents))
    assert max(map(len, documents)) <= shape.document_length.most
    assert len(set(documents)) / len(documents) == pytest.approx(shape.distinct_documents / shape.documents, abs=0.01)
    assert all(shape.query_length.least <= len(query) <= shape.query_length.most for query in workload.queries)


def test_equal_seeds_make_equal_texts() -> None:
    shape = shape_named("T2Reranking")
    first, again, other = (synthetic_workload(shape, scale=0.001, seed=seed) for seed in (4, 4, 5))
    assert first == again
    assert first != other


def test_made_up_texts_are_one_token_a_character() -> None:
    tokenizer = character_tokenizer()
    text = synthetic_workload(shape_named("MMarcoReranking"), scale=0.01).passages[0][0]
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text) + 2
    assert tokenizer.unk_token_id not in ids
    assert len(tokenizer) == 21_128


def test_what_cannot_be_made_is_an_error() -> None:
    with pytest.raises(ListconError, match="no shape 'CMedQA': give one of CMedQAv1-reranking"):
        shape_named("CMedQA")
    with pytest.raises(ListconError, match=r"the scale is 0\.0"):
        synthetic_workload(shape_named("T2Reranking"), scale=0.0)
    with pytest.raises(ListconError, match="no random model 'huge': give one of tiny, base, large"):
        write_random_checkpoint("huge", Path())


def test_data_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "lists.jsonl"
    path.write_text(json.dumps({"query": "问", "positive": ["甲"], "negative": ["乙", "甲"]}), encoding="utf-8")
    workload = read_workload(path)
    assert workload == Workload("lists.jsonl", ["问"], [["甲", "乙", "甲"]])
    assert workload.documents == 3
    assert workload.distinct_texts() == ["问", "甲", "乙"]
    with pytest.raises(ListconError, match="no data at"):
        read_workload(tmp_path / "none.jsonl")


def test_a_subset_stands_for_all_sizes() -> None:
    sizes = [9, 1, 8, 2, 7, 3, 6, 4, 5]
    workload = Workload("w", [str(size) for size in sizes], [["p"] * size for size in sizes])
    assert sorted(sizes[place] for place in workload.subset(3)) == [2, 5, 8]
    assert workload.subset(1) == [8]
    assert workload.subset(100) == list(range(9))
    assert workload.some([8]).queries == ["5"]


@pytest.mark.parametrize("size", ["tiny", "base"])
def test_random_checkpoints_have_the_named_size(size: str, tmp_path: Path) -> None:
    folder = write_random_checkpoint(size, tmp_path / size)
    model = ListConRanker.from_pretrained(folder, device="cpu").model
    config = model.config
    assert (config.encoder.num_hidden_layers, config.encoder.hidden_size) == SIZES[size][:2]
    assert (config.encoder.num_attention_heads, config.list_width, config.list_layers) == SIZES[size][2:]
    assert config.encoder.vocab_size == 21_128


@pytest.mark.parametrize("keep_features", [False, True])
@pytest.mark.parametrize("size", [1, 20, 47])
def test_the_reference_procedure_against_the_oracle(ranker: ListConRanker, size: int, keep_features: bool) -> None:
    query, *passages = random_list(size, seed=size)
    tokenizer = ranker.checkpoint.tokenizer
    oracle = Oracle(ranker.model, tokenizer, torch.float64)
    procedure = PublishedProcedure(
        ranker.model, tokenizer, precision="precise", max_length=512, keep_features=keep_features
    )
    for mode, expected in (
        ("conventional", oracle.score(query, passages)),
        ("iterative", oracle.iterative(query, passages)),
    ):
        found = procedure.rank(query, passages, mode)  # type: ignore[arg-type]
        assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_reversed_gaps_by_hand() -> None:
    expected = np.array([0.9, 0.5, 0.5, 0.1])
    assert reversed_gap(expected, np.array([4.0, 3.0, 2.0, 1.0])) == 0
    assert reversed_gap(expected, np.array([4.0, 2.0, 3.0, 1.0])) == 0  # the reference ties these two
    assert reversed_gap(expected, np.array([4.0, 3.0, 1.0, 2.0])) == pytest.approx(0.4)
    assert reversed_gap(expected, np.array([4.0, 3.0, 3.0, 3.0])) == pytest.approx(0.4)  # a new tie is no order
    assert reversed_gap(expected, np.array([1.0, 3.0, 2.0, 4.0])) == pytest.approx(0.8)


def test_of_equal_texts_the_first_one_counts() -> None:
    texts = [["a", "b", "a"], ["a", "b"]]
    reference = [np.array([0.3, 0.2, 0.1]), np.array([0.3, 0.2])]
    found = [np.array([0.3, 0.2, 0.3]), np.array([0.1, 0.2])]
    agreement = compare_rankings(reference, found, texts)
    assert (agreement.lists, agreement.identical) == (2, 1)
    assert agreement.largest_gap == pytest.approx(0.1)
    assert compare_rankings([], [], []) == Agreement(0, 0, 0.0)


def test_ratios_are_of_times_a_passage_repeat_by_repeat() -> None:
    engine, published = Timing(10, 1000, (2.0, 1.0, 4.0)), Timing(1, 100, (10.0, 10.0, 10.0))
    assert engine.times_faster_than(published) == (50.0, 25.0, 100.0)
    assert engine.milliseconds_a_query == 200.0


def test_covered_share_by_hand() -> None:
    spans = [(6.0, 8.0), (0.0, 1.0), (0.5, 2.0), (7.0, 20.0)]
    assert covered_share(spans, 0.0, 10.0) == pytest.approx(0.6)
    assert covered_share([], 0.0, 10.0) == 0.0
    assert covered_share([(-5.0, 15.0)], 0.0, 10.0) == 1.0


def test_the_machine_has_a_ceiling_and_a_peak() -> None:
    assert matrix_product_ceiling(torch.device("cpu"), torch.float32) > 0
    held = np.ones(40_000_000)
    assert host_peak() > held.nbytes
    del held
    forget_peaks(torch.device("cpu"))
    assert host_peak() > 0


@pytest.fixture
def measurement(ranker: ListConRanker) -> Measurement:
    lists = [random_list(size, seed=size, longest=20) for size in (3, 24, 31)]
    workload = Workload("three lists", [row[0] for row in lists], [row[1:] for row in lists])
    settings = Settings(repeats=2, reference_queries=2, encoder_batches=3)
    return measure(ranker, workload, settings, model_name="random test")


def test_a_measurement_end_to_end(measurement: Measurement, ranker: ListConRanker) -> None:
    assert measurement.agreement == Agreement(2, 2, 0.0)
    assert (measurement.engine.queries, measurement.engine.passages) == (3, 58)
    assert measurement.published is not None
    assert measurement.kept is not None
    assert measurement.published.passages == measurement.kept.passages == 34
    assert len(measurement.published.seconds) == 2
    assert measurement.distinct_texts == 61
    config = ranker.model.config.encoder
    linears = 2 * config.num_hidden_layers * 12 * config.hidden_size**2 * measurement.tokens  # inner width 4H
    assert linears < measurement.encoder_flop < 1.2 * linears
    assert {"tokenise", "encode", "list"} <= measurement.phases.keys()
    assert measurement.device_bytes is None
    flop_a_passage = measurement.encoder_flop / 58
    seconds_a_passage = sum(measurement.published.seconds) / 2 / 34
    assert measurement.most_times_faster == pytest.approx(measurement.ceiling * seconds_a_passage / flop_a_passage)
    json.dumps(measurement.as_json(), allow_nan=False)


def test_what_a_measurement_says(measurement: Measurement) -> None:
    text = as_text(measurement)
    for part in (
        "three lists, 3 queries, 58 passages",
        "published procedure",
        "features kept",
        "GFLOP/s",
        "2 of 2 lists",
    ):
        assert part in text


def test_the_markdown_file_keeps_one_section_a_machine_and_model(measurement: Measurement) -> None:
    from dataclasses import replace

    other = replace(measurement, machine="Another CPU")
    file = markdown_with(None, [measurement], "listcon-eval bench")
    file = markdown_with(file, [other], "listcon-eval bench --shape T2Reranking")
    again = markdown_with(file, [replace(measurement, workload="four lists")], "listcon-eval bench --seed 1")
    assert again.startswith("# Benchmarks\n")
    assert again.count("\n## random test") == 2
    # A workload is written anew in the section of its machine, beside the others.
    assert again.count("### three lists") == 2
    assert again.count("### four lists") == 1
    assert again.index("### four lists") < again.index("Another CPU")
    assert again.count("listcon-eval bench --seed 1") == 1
    assert markdown_with(again, [other], "listcon-eval bench --shape T2Reranking") == again
    anew = markdown_with(again, [measurement], "listcon-eval bench --seed 2")
    assert anew.count("### three lists") == 2
    assert anew.count("listcon-eval bench --seed 2") == 1


def test_a_run_without_the_reference_and_with_a_device(measurement: Measurement) -> None:
    from dataclasses import replace

    speed = EncoderSpeed("varlen", 1, 100, 1e9, (1.0,), (3.0,))
    alone = replace(
        measurement,
        kept=None,
        published=None,
        agreement=None,
        device_bytes=3 * 10**9,
        device_budget=2 * 10**9,
        busy=0.97,
        encoder=speed,
    )
    text = as_text(alone)
    assert "published procedure" not in text.split("engine:")[0]
    assert "device 3.00 GB of 2.00 GB, OVER the budget" in text
    assert "at work in 97%" in text
    assert alone.as_json()["encoder_times_faster"] == (3.0, 3.0, 3.0)
    assert alone.as_json()["times_faster_than_published"] is None


@pytest.mark.parametrize("settings", [Settings(repeats=0), Settings(reference_queries=-1), Settings(encoder_batches=0)])
def test_settings_without_meaning(ranker: ListConRanker, settings: Settings) -> None:
    with pytest.raises(ListconError, match="start at 1"):
        measure(ranker, Workload("w", ["q"], [["p"]]), settings, model_name="m")


def test_real_data(real_data: Callable[[str], Path]) -> None:
    workload = read_workload(real_data("heldout_t2ranking_sample.jsonl.gz"))
    assert workload.documents > 1000
    assert min(map(len, workload.passages)) > 0
