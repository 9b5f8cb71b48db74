"""The precision "bfloat16": an encoder in bfloat16, named as such, under a list stage and head in float32."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from listcon_eval import ListConRanker
from listcon_eval.inference import ranker as module
from listcon_eval.inference.devices import bfloat16_is_slow
from listcon_eval.speed import Settings, measure
from listcon_eval.speed.workload import Workload
from texts import random_list

LISTS = [random_list(size, seed=size) for size in (3, 40)]


@pytest.fixture(scope="module")
def coarse(checkpoint_folder: Path) -> ListConRanker:
    return ListConRanker.from_pretrained(checkpoint_folder, device="cpu", precision="bfloat16")


def test_the_encoder_alone_is_in_bfloat16(coarse: ListConRanker) -> None:
    formats = {name.partition(".")[0]: weight.dtype for name, weight in coarse.model.named_parameters()}
    assert formats.pop("encoder") == torch.bfloat16
    assert set(formats.values()) == {torch.float32}
    assert "bfloat16 on cpu" in coarse.encoder.describe()


def test_scores_are_near_the_precise_ones_and_rank_by_logits(coarse: ListConRanker, ranker: ListConRanker) -> None:
    for mine, exact in zip(coarse.compute_score(LISTS), ranker.compute_score(LISTS), strict=True):
        assert mine != exact
        np.testing.assert_allclose(mine, exact, rtol=0, atol=0.1)
        assert len(set(mine)) == len(mine)  # bfloat16 scores would tie


def test_a_measurement_holds_it_against_the_float32_procedure(coarse: ListConRanker) -> None:
    workload = Workload("lists", [row[0] for row in LISTS], [row[1:] for row in LISTS])
    settings = Settings("conventional", repeats=1, reference_queries=2, encoder_batches=1)
    found = measure(coarse, workload, settings, model_name="m")
    assert found.precision == "bfloat16"
    assert found.agreement is not None
    assert found.agreement.lists == 2
    assert 0 < found.agreement.largest_gap < 0.1


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
        ListConRanker.from_pretrained(checkpoint_folder, device="cpu", precision="bfloat16")
    assert any("only emulates bfloat16" in record.message for record in caplog.records) is slow
