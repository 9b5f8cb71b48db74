"""The two losses over batches: pieces add up to the whole, padding and order do not matter, formulas hold."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from checkpoints import bert_tokenizer, random_model
from lessons import write_lessons
from listcon_eval.data import local_task
from listcon_eval.model import ListConModel
from listcon_eval.progress import no_progress
from listcon_eval.train.lists import ListSampler, TrainingData, training_data
from listcon_eval.train.objectives import ListObjective
from listcon_eval.train.pairs import PairObjective, info_nce, normalised_features
from listcon_eval.train.pooling import Pooling
from listcon_eval.train.steps import learning_rate, set_mode, set_trained
from listcon_eval.train.tokens import TokenisedTexts, TokenRows


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    path = write_lessons(tmp_path_factory.mktemp("lessons") / "lessons.jsonl")
    return training_data(local_task(path).candidate_lists())


@pytest.fixture
def pooling() -> Pooling:
    model = random_model(vocab_size=len(bert_tokenizer()), hidden=32, layers=1, list_width=24, feedforward=32)
    return Pooling(model, torch.device("cpu"), "none")


def tokens_of(data: TrainingData) -> TokenisedTexts:
    return TokenisedTexts(data.texts, bert_tokenizer(), 512, no_progress)


def gradients(model: ListConModel) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-5)


def list_objective(pooling: Pooling, data: TrainingData, micro_batch: int, *, frozen: bool = False) -> ListObjective:
    texts = tokens_of(data)
    return ListObjective(
        pooling,
        texts,
        pooling.all(texts, no_progress) if frozen else None,
        ListSampler(data.lists, 5, fill=False),
        micro_batch=micro_batch,
        margin=0.25,
        scale=4,
    )


def test_texts_are_tokenised_as_the_tokenizer_does(data: TrainingData) -> None:
    tokenizer, texts = bert_tokenizer(), tokens_of(data)
    indices = np.arange(len(texts))[::-1].copy()
    seen = []
    for batch in texts.batches(indices, 40, torch.device("cpu")):
        assert batch.input_ids.numel() <= 40 or len(batch.places) == 1
        for place, ids, mask in zip(batch.places, batch.input_ids, batch.attention_mask, strict=True):
            assert ids[mask == 1].tolist() == tokenizer(data.texts[indices[place]])["input_ids"]
            seen.append(place)
    assert sorted(seen) == list(range(len(texts)))


def test_some_texts_pooled_are_all_texts_pooled(pooling: Pooling, data: TrainingData) -> None:
    texts = tokens_of(data)
    indices = np.array([5, 0, 17, 3])
    with torch.no_grad():
        some = pooling.some(texts, indices)
    torch.testing.assert_close(some, pooling.all(texts, no_progress).get(indices))


@pytest.mark.parametrize("frozen", [False, True])
def test_micro_batches_of_lists_add_up(pooling: Pooling, data: TrainingData, *, frozen: bool) -> None:
    set_trained(pooling.model, 1 if frozen else 2)
    results = []
    for micro_batch in (100, 5, 1):
        pooling.model.zero_grad()
        objective = list_objective(pooling, data, micro_batch, frozen=frozen)
        losses = objective.accumulate(data.lists, np.random.default_rng(0), torch.autograd.backward)
        results.append((dict(zip(losses.names, losses.losses.tolist(), strict=True)), gradients(pooling.model)))
    for by_list, gradient in results[1:]:
        assert by_list == pytest.approx(results[0][0], rel=1e-5)
        assert_close(results[0][1], gradient)
    assert any(name.startswith("encoder.") for name in results[0][1]) is not frozen
    assert "linear_in_embedding.weight" in results[0][1]


def pair_objective(
    pooling: Pooling, data: TrainingData, micro_batch: int, *, pseudo_queries: float = 0.5, token_dropout: float = 0.2
) -> PairObjective:
    return PairObjective(
        normalised_features(pooling),
        tokens_of(data),
        data.lists,
        micro_batch=micro_batch,
        temperature=0.1,
        hard_negatives=2,
        pseudo_queries=pseudo_queries,
        token_dropout=token_dropout,
    )


@pytest.mark.parametrize("dropout", [False, True])
def test_micro_batches_of_pairs_are_compared_whole(data: TrainingData, pooling: Pooling, *, dropout: bool) -> None:
    """Each text's embedding, and with it the loss and the gradient, is that of one pass over the batch.

    With dropout the pieces draw other numbers than the whole; what must agree then is the two passes over a piece.
    """
    set_trained(pooling.model, 0)
    if not dropout:
        results = []
        for micro_batch in (100, 3, 1):
            pooling.model.zero_grad()
            losses = pair_objective(pooling, data, micro_batch).accumulate(
                data.lists, np.random.default_rng(0), torch.autograd.backward
            )
            results.append((losses.losses.tolist(), gradients(pooling.model)))
        for by_pair, gradient in results[1:]:
            assert by_pair == pytest.approx(results[0][0], rel=1e-4)
            assert_close(results[0][1], gradient)
        assert all(name.startswith(("encoder.", "linear_in_embedding.")) for name in results[0][1])
        return
    set_mode(pooling.model, 0)
    objective = pair_objective(pooling, data, 9)
    passes: dict[bytes, list[Tensor]] = {}
    embed = objective._embed

    def recorded(rows: TokenRows, indices: np.ndarray[tuple[int], np.dtype[np.int64]], seed: int) -> Tensor:
        embedded = embed(rows, indices, seed)
        passes.setdefault(indices.tobytes(), []).append(embedded.detach())
        return embedded

    objective._embed = recorded  # type: ignore[method-assign]
    objective.accumulate(data.lists, np.random.default_rng(0), torch.autograd.backward)
    assert len(passes) == 2
    for first, second in passes.values():
        assert torch.equal(first, second)


def test_info_nce_is_its_formula() -> None:
    torch.manual_seed(0)
    queries, passages = torch.randn(3, 8), torch.randn(5, 8)
    targets = [4, 0, 2]
    left_out = torch.zeros(3, 5, dtype=torch.bool)
    left_out[0, 1] = True
    losses = info_nce(queries, passages, torch.tensor(targets), left_out, 0.2)
    for row, target in enumerate(targets):
        exponentials = [
            math.exp(float(queries[row] @ passages[column]) / 0.2) for column in range(5) if not left_out[row, column]
        ]
        own = math.exp(float(queries[row] @ passages[target]) / 0.2)
        assert losses[row].item() == pytest.approx(-math.log(own / sum(exponentials)), rel=1e-4)


def test_another_positive_of_a_query_is_no_negative(pooling: Pooling, data: TrainingData) -> None:
    two = next(row for row in data.lists if len(row.positives) == 2)
    objective = pair_objective(pooling, data, 100)
    candidates = np.sort(np.concatenate([two.positives, two.negatives]))
    mask = objective._also_relevant([two], two.positives[:1], candidates)
    assert candidates[mask[0].numpy()].tolist() == [two.positives[1]]


def test_pseudo_queries_are_pieces_of_their_passages(pooling: Pooling, data: TrainingData) -> None:
    objective = pair_objective(pooling, data, 100, pseudo_queries=1.0, token_dropout=0.0)
    seen: list[TokenRows] = []
    embed = objective._embed

    def recorded(rows: TokenRows, indices: np.ndarray[tuple[int], np.dtype[np.int64]], seed: int) -> Tensor:
        seen.append(rows)
        return embed(rows, indices, seed)

    objective._embed = recorded  # type: ignore[method-assign]
    losses = objective.accumulate(data.lists, np.random.default_rng(0), torch.autograd.backward)
    assert len(losses.losses) == 2 * len(data.lists)
    cut = [int(name.rpartition(" ")[2]) for name in losses.names[len(data.lists) :]]
    texts = tokens_of(data)
    for place, index in enumerate(cut):
        piece = seen[0].row(len(seen[0]) - len(cut) + place)
        whole = texts.row(index)
        assert (piece[0], piece[-1]) == (whole[0], whole[-1])
        inner, size = whole[1:-1].tolist(), len(piece) - 2
        assert 4 <= size <= max(4, len(inner) // 2)
        assert any(inner[start : start + size] == piece[1:-1].tolist() for start in range(len(inner)))


def test_left_out_tokens_are_few_and_never_special(pooling: Pooling, data: TrainingData) -> None:
    objective = pair_objective(pooling, data, 100, token_dropout=0.3)
    row = np.arange(1000, dtype=np.int32)
    thinned = objective._thinned(row, np.random.default_rng(0))
    assert 650 < len(thinned) < 750
    assert (thinned[0], thinned[-1]) == (0, 999)
    assert (np.diff(thinned) > 0).all()
    short = np.arange(5, dtype=np.int32)
    assert objective._thinned(short, np.random.default_rng(0)) is short


def rates(steps: int, warm_up: float) -> Sequence[float]:
    return [learning_rate(step, steps, highest=1.0, warm_up=warm_up) for step in range(steps)]


def test_the_learning_rate_rises_and_falls() -> None:
    assert rates(10, 0.2) == pytest.approx([0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    assert rates(4, 0) == pytest.approx([1, 0.75, 0.5, 0.25])
    assert rates(1, 0.1) == [1]


def test_features_are_the_projected_pool(pooling: Pooling, tmp_path: Path) -> None:
    ids = torch.randint(5, 100, (3, 7))
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        pooled = pooling.model.pool(ids, mask)
        assert torch.equal(pooling.model.features(ids, mask), pooling.model.linear_in_embedding(pooled))
