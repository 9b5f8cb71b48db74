"""Checks of the engine on a device, against its float32 self on the CPU: for the GPU command and for the tests."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from listcon_eval.inference.devices import cast_model
from listcon_eval.inference.encoder import TOLERANCES, FastEncoder, distance
from listcon_eval.inference.ranker import ListConRanker
from listcon_eval.model import ListConModel
from listcon_eval.records import DTYPES, DType
from listcon_eval.speed.random_model import VOCABULARY, Size, random_model
from listcon_eval.speed.workload import synthetic_workload

LENGTHS = {
    "mixed, unsorted": [7, 2, 40, 7, 3, 133, 2, 40],
    "longest first": [60, 31, 31, 8, 2],
    "equal": [19] * 6,
    "one text": [23],
    "one token": [1, 5, 1],
    "as long as there are positions": [512, 3, 512],
}
"""The tokens of each text of a batch."""
_SMALL = Size(layers=2, width=64, heads=4, list_width=96)


class Check(NamedTuple):
    """A figure that `run` measures on a device, with the folder of a checkpoint, and the most that it may be."""

    run: Callable[[torch.device, Path], float]
    limit: float
    unit: str
    cuda_only: bool = False


def token_ids(lengths: Sequence[int], *, vocabulary: int = VOCABULARY) -> list[NDArray[np.int32]]:
    """Random token ids of texts of these lengths; equal lengths give equal ids."""
    random = np.random.default_rng(0)
    return [random.integers(0, vocabulary, length, dtype=np.int32) for length in lengths]


def _small_model() -> ListConModel:
    model = random_model(_SMALL)
    with torch.no_grad():  # the biases of a fresh BERT are 0: leaving one out would not show
        for parameter in model.encoder.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def _features(device: torch.device, _: Path, *, dtype: DType) -> float:
    plain = FastEncoder(_small_model(), "plain", "to compare with")
    encoder = FastEncoder.for_model(cast_model(_small_model(), device, dtype))
    batches = [token_ids(lengths) for lengths in LENGTHS.values()]
    return max(distance(encoder.features(batch), plain.features(batch)) for batch in batches)


def _repeats(device: torch.device, _: Path, *, dtype: DType) -> float:
    encoder = FastEncoder.for_model(cast_model(_small_model(), device, dtype))
    batches = [token_ids(lengths) for lengths in LENGTHS.values()]
    return sum(not torch.equal(encoder.features(batch), encoder.features(batch)) for batch in batches)


def _scores(device: torch.device, folder: Path, *, dtype: DType) -> float:
    lists = _lists()
    exact = ListConRanker.from_pretrained(folder, device="cpu", dtype="float32").compute_score(lists)
    found = ListConRanker.from_pretrained(folder, device=str(device), dtype=dtype).compute_score(lists)
    return max(float(np.abs(np.subtract(*pair)).max()) for pair in zip(exact, found, strict=True))


def _no_halves(device: torch.device, folder: Path) -> float:
    ranker = ListConRanker.from_pretrained(folder, device=str(device), dtype="float16")
    scores = np.concatenate(ranker.compute_score(_lists()))
    return int((scores != scores.astype(np.float16)).sum())


def _waits_of_encoding(device: torch.device, _: Path) -> float:
    encoder = FastEncoder.for_model(cast_model(_small_model(), device, "float16"))
    ids = token_ids([5, 80, 12])
    encoder.features(ids)  # the first call makes handles and plans
    with _waits() as waits:
        encoder.features(ids)
    return len(waits)


def _waits_of_rounds(device: torch.device, folder: Path) -> float:
    ranker = ListConRanker.from_pretrained(folder, device=str(device))
    lists = _lists()
    encoded = ranker.encode([row[0] for row in lists], [row[1:] for row in lists])
    ranked = ranker.rank_encoded(encoded, "iterative")  # as above
    with _waits() as waits:
        ranker.rank_encoded(encoded, "iterative")
    return len(waits) / (1 + max(max(row.rounds) for row in ranked))


def _lists() -> list[list[str]]:
    workload = synthetic_workload("CMedQAv1-reranking", scale=0.002)
    rows = zip(workload.queries, workload.passages, (30, 24), strict=True)
    return [[query, *passages[:size]] for query, passages, size in rows]


@contextmanager
def _waits() -> Iterator[list[warnings.WarningMessage]]:
    """What waits for the device inside, as torch warns of it; to be read afterwards."""
    waits: list[warnings.WarningMessage] = []
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield waits
    finally:
        torch.cuda.set_sync_debug_mode("default")
    waits += [warning for warning in caught if "synchronizing" in str(warning.message)]


_SHARE, _BATCHES = "of a feature's length", "batches with other features"
CHECKS = {
    **{
        f"features in {dtype}": Check(partial(_features, dtype=dtype), TOLERANCES[getattr(torch, dtype)], _SHARE)
        for dtype in DTYPES
    },
    **{f"equal runs in {dtype}": Check(partial(_repeats, dtype=dtype), 0, _BATCHES) for dtype in DTYPES},
    "scores in float32": Check(partial(_scores, dtype="float32"), 1e-4, "from the CPU's"),
    "scores in float16": Check(partial(_scores, dtype="float16"), 2e-2, "from the CPU's in float32"),
    "scores of another format": Check(_no_halves, 0, "scores in float16 that are none"),
    "waits of encoding": Check(_waits_of_encoding, 0, "waits for the device", cuda_only=True),
    "waits of a round": Check(_waits_of_rounds, 1, "waits for the device", cuda_only=True),
}
"""By name, every check that a device has to pass."""
