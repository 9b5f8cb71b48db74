"""The public class: the published interface and the modern one."""

import re
from pathlib import Path

import pytest
import torch

from listcon_eval import ListConRanker
from listcon_eval.errors import ListconError
from texts import random_list

LISTS = [random_list(3, seed=1), random_list(30, seed=2)]


def test_the_published_interface(checkpoint_folder: Path) -> None:
    ranker = ListConRanker(checkpoint_folder, use_fp16=True, list_transformer_layer=2)
    assert ranker.dtype == "float32"  # "auto" on a CPU
    scores = ranker.compute_score(LISTS)
    assert [len(row) for row in scores] == [3, 30]
    assert all(type(score) is float and 0 < score < 1 for row in scores for score in row)
    assert ranker.iterative_inference(LISTS[0]) == pytest.approx(scores[0], abs=1e-6)
    assert max(ranker.iterative_inference(LISTS[1])) > 1


def test_both_interfaces_agree(checkpoint_folder: Path) -> None:
    old = ListConRanker(str(checkpoint_folder), use_fp16=False)
    new = ListConRanker.from_pretrained(checkpoint_folder, dtype="float32")
    assert old.dtype == new.dtype == "float32"
    assert old.rank(LISTS, "iterative") == new.rank(LISTS, "iterative")


def test_a_wrong_number_of_layers_is_an_error(checkpoint_folder: Path) -> None:
    with pytest.raises(ListconError, match=r"list_transformer_layer is 3, but .* has 2 list transformer layers"):
        ListConRanker(checkpoint_folder, list_transformer_layer=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "exact"}, "dtype is 'exact'; expected 'auto', 'float16', 'bfloat16' or 'float32'"),
        ({"device": "gpu"}, "no device 'gpu'"),
        ({"max_length": 513}, "max_length is 513: this encoder takes 3"),
        ({"max_length": 2}, "max_length is 2"),
    ],
)
def test_an_option_without_meaning_is_an_error(
    checkpoint_folder: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ListconError, match=re.escape(message)):
        ListConRanker.from_pretrained(checkpoint_folder, **options)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there_is_an_error(checkpoint_folder: Path) -> None:
    with pytest.raises(ListconError, match="the device 'cuda' is not available here: give one of"):
        ListConRanker.from_pretrained(checkpoint_folder, device="cuda")


def test_max_length_cuts_texts(checkpoint_folder: Path) -> None:
    short = ListConRanker.from_pretrained(checkpoint_folder, max_length=5)
    query, passage = LISTS[0][0], "甲乙丙丁"
    assert short.compute_score([[query, passage]]) == short.compute_score([[query, passage[:3]]])
    assert short.compute_score([[query, passage]]) != short.compute_score([[query, passage[:2]]])


def test_save_pretrained_keeps_every_score(ranker: ListConRanker, tmp_path: Path) -> None:
    folder = ranker.save_pretrained(tmp_path / "saved")
    again = ListConRanker.from_pretrained(folder, device="cpu", dtype="float32")
    assert again.rank(LISTS, "iterative") == ranker.rank(LISTS, "iterative")


def test_float32_ranks_by_logits_where_float16_ties(checkpoint_folder: Path) -> None:
    """Saturated scores: float32 sigmoids tie at 1, logits do not."""
    query, *passages = random_list(40, seed=3)
    distinct = {}
    for dtype in ("float16", "float32"):
        ranker = ListConRanker.from_pretrained(checkpoint_folder, device="cpu", dtype=dtype)
        with torch.no_grad():
            ranker.model.linear_score1.bias.add_(20)
        distinct[dtype] = len(set(ranker.compute_score([[query, *passages]])[0]))
    assert distinct["float16"] < 5
    assert distinct["float32"] == 40


def test_every_distinct_text_is_encoded_once(ranker: ListConRanker) -> None:
    query, *passages = random_list(5, seed=4)
    told: list[tuple[str, int, int]] = []
    ranker.encode([query, query], [passages, [*passages, *passages, query]], progress=lambda *row: told.append(row))
    work = sum(len(text) + 1 for text in (query, *passages))  # all are shorter than the longest that is read
    assert told[-1] == ("encode", work, work)


def test_the_tokenizer_of_the_checkpoint_keeps_its_settings(ranker: ListConRanker) -> None:
    before = ranker.checkpoint.tokenizer.backend_tokenizer.to_str()
    ranker.compute_score([["问", "答" * 600]])
    assert ranker.checkpoint.tokenizer.backend_tokenizer.to_str() == before
