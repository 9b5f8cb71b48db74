"""The dtypes: float32 ranks by logits of any size, float16 as published, bfloat16 is for the encoder alone."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from listcon_eval import ListConRanker
from listcon_eval.inference import ranker as module
from listcon_eval.inference.devices import bfloat16_is_slow
from listcon_eval.inference.iterative import ListState
from listcon_eval.inference.tokens import IndexedList
from listcon_eval.model import load_checkpoint, save_checkpoint
from listcon_eval.ordering import levels_of
from listcon_eval.records import MODES, Mode, RankedList
from texts import random_list

LISTS = [random_list(size, seed=size) for size in (7, 60, 200)]
SHORT_LISTS = [random_list(size, seed=size) for size in (3, 40)]


def ranked(ranker: ListConRanker, mode: Mode) -> list[RankedList]:
    encoded = ranker.encode([row[0] for row in LISTS], [row[1:] for row in LISTS])
    return ranker.rank_encoded(encoded, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shift", [40.0, -40.0])
def test_a_constant_added_to_all_logits_changes_no_order(
    checkpoint_folder: Path, ranker: ListConRanker, tmp_path: Path, mode: Mode, shift: float
) -> None:
    checkpoint = load_checkpoint(checkpoint_folder)
    with torch.no_grad():
        checkpoint.model.linear_score1.bias.add_(shift)
    folder = save_checkpoint(checkpoint.model, checkpoint.tokenizer, tmp_path / "shifted")
    shifted = ListConRanker.from_pretrained(folder, device="cpu", dtype="float32")
    for before, after in zip(ranked(ranker, mode), ranked(shifted, mode), strict=True):
        assert before.rounds == after.rounds
        for dtype in (np.float64, np.float32):  # pytrec_eval compares float32
            levels = [levels_of(np.array(row.scores, dtype=dtype)) for row in (before, after)]
            np.testing.assert_array_equal(levels[0], levels[1])
            assert levels[0].max() == len(before.scores) - 1  # no ties in either
        if mode == "conventional":
            assert all(0 <= score <= 1 for score in after.scores)


def test_twenty_five_rounds_of_saturated_logits() -> None:
    """Logits around 40, a tenth apart in the last round's float32 sigmoid and its score + round: all are ties there."""
    logits = np.repeat(np.linspace(38, 42, 400), 2)  # pairs of equal ones
    state = ListState(IndexedList("q", 0, np.arange(1, 801), None), 0)
    number = 0
    while len(state.remaining):
        keys = logits[state.remaining]
        state.finish_round(number, keys, 1 / (1 + np.exp(-keys)), "iterative")
        number += 1
    assert number > 15
    result = state.result("float32")
    np.testing.assert_array_equal(levels_of(np.array(result.scores, dtype=np.float32)), levels_of(logits))


def test_the_scores_of_one_list_ranked_in_25_rounds_keep_its_levels() -> None:
    state = ListState(IndexedList("q", 0, np.arange(1, 251), None), 0)
    random = np.random.default_rng(0)
    state.rounds[:] = np.repeat(np.arange(25), 10)
    state.keys[:] = random.choice([-40.0, -39.5, 0.0, 40.0, 40.00001], 250)
    state.scores[:] = 1 / (1 + np.exp(-state.keys))
    found = np.array(state.result("float32").scores, dtype=np.float32)
    np.testing.assert_array_equal(levels_of(found), levels_of(state.rounds, state.keys))


def test_float16_on_a_cpu_is_said_once(checkpoint_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ranker = ListConRanker.from_pretrained(checkpoint_folder, device="cpu", dtype="float16")
        ranker.compute_score(LISTS[:1])
    assert ranker.dtype == "float16"
    assert {parameter.dtype for parameter in ranker.model.parameters()} == {torch.float16}
    assert [record.message for record in caplog.records].count(
        "float16 is slow on a CPU: it is for comparing with the published procedure"
    ) == 1


def test_float16_ties_are_those_of_the_float16_sigmoid(checkpoint_folder: Path) -> None:
    """With a large bias the float16 sigmoids of many passages are 1: they are ties, and leave together."""
    ranker = ListConRanker.from_pretrained(checkpoint_folder, device="cpu", dtype="float16")
    with torch.no_grad():
        ranker.model.linear_score1.bias.add_(12)
    for mode in MODES:
        for row in ranked(ranker, mode):
            fractions = np.array(row.scores) - np.array(row.rounds)
            np.testing.assert_array_equal(fractions, fractions.astype(np.float16))
            assert len(set(row.scores)) < len(row.scores) / 2


@pytest.fixture(scope="module")
def coarse(checkpoint_folder: Path) -> ListConRanker:
    return ListConRanker.from_pretrained(checkpoint_folder, device="cpu", dtype="bfloat16")


def test_the_encoder_alone_is_in_bfloat16(coarse: ListConRanker) -> None:
    formats = {name.partition(".")[0]: weight.dtype for name, weight in coarse.model.named_parameters()}
    assert formats.pop("encoder") == torch.bfloat16
    assert set(formats.values()) == {torch.float32}
    assert "bfloat16 on cpu" in coarse.encoder.describe()


def test_scores_are_near_the_float32_ones_and_rank_by_logits(coarse: ListConRanker, ranker: ListConRanker) -> None:
    for mine, exact in zip(coarse.compute_score(SHORT_LISTS), ranker.compute_score(SHORT_LISTS), strict=True):
        assert mine != exact
        np.testing.assert_allclose(mine, exact, rtol=0, atol=0.1)
        assert len(set(mine)) == len(mine)  # bfloat16 scores would tie


@pytest.mark.parametrize(
    ("facts", "slow"),
    [
        ("flags\t\t: fpu avx2 avx512f\n", True),
        ("flags\t\t: fpu avx512f avx512_bf16\n", False),
        ("flags\t\t: fpu amx_tile amx_bf16 avx512f\n", False),
        ("Features\t: fp asimd bf16\n", False),
        ("something else\n", False),
    ],
)
def test_which_processors_only_emulate_it(facts: str, slow: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(facts)
    assert bfloat16_is_slow(torch.device("cpu"), tmp_path / "cpuinfo") is slow
    assert not bfloat16_is_slow(torch.device("cuda"), tmp_path / "cpuinfo")
    assert not bfloat16_is_slow(torch.device("cpu"), tmp_path / "nothing")


@pytest.mark.parametrize("slow", [True, False])
def test_a_warning_where_it_is_emulated(
    slow: bool, checkpoint_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "bfloat16_is_slow", lambda _: slow)
    with caplog.at_level(logging.WARNING):
        ListConRanker.from_pretrained(checkpoint_folder, device="cpu", dtype="bfloat16")
    assert any("only emulates bfloat16" in record.message for record in caplog.records) is slow
