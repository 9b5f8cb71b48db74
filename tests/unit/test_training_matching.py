"""New weights that match words: every part does what its docstring says, seen from the whole model's outputs."""

import copy
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BertConfig

from checkpoints import bert_tokenizer
from listcon_eval.errors import ListconError
from listcon_eval.model import ListConConfig, ListConModel
from listcon_eval.train.matching import start_matching
from listcon_eval.train.tokens import TokenRows
from listcon_eval.train.words import Places, WordBags

HIDDEN, HEADS, MEANING = 1024, 4, 32
PLACES = Places.of(HIDDEN, HEADS, MEANING)
RARE, OTHER = 100, 101


class Started(NamedTuple):
    """A model that begins by matching words, and the texts it took its scales from."""

    model: ListConModel
    rows: TokenRows

    def features(self, rows: TokenRows) -> Tensor:
        with torch.no_grad():
            found = torch.zeros(len(rows), PLACES.list_width)
            for batch in rows.batches(np.arange(len(rows)), 4096, torch.device("cpu")):
                features = self.model.features(batch.input_ids, batch.attention_mask)
                found[torch.from_numpy(batch.places)] = features
        return found

    def logits(self, rows: TokenRows) -> Tensor:
        """The logits of all rows but the first, which is the query."""
        with torch.no_grad():
            features = self.features(rows)[None]
            return self.model.logits(features, torch.ones(features.shape[:2], dtype=torch.bool))[0]


def texts(*inner: list[int]) -> TokenRows:
    tokenizer = bert_tokenizer()
    first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
    return TokenRows([np.array([first, *row, last], dtype=np.int32) for row in inner], 0)


@pytest.fixture(scope="module")
def started() -> Started:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    tokenizer = bert_tokenizer()
    vocabulary = len(tokenizer)
    usual = np.arange(10, vocabulary)
    weights = 1 / (1 + np.arange(len(usual)))  # Zipf
    drawn = [rng.choice(usual, int(rng.integers(3, 120)), p=weights / weights.sum()).tolist() for _ in range(300)]
    rows = texts(*drawn)
    documents = np.zeros(vocabulary, dtype=np.int64)
    for row in drawn:
        documents[np.unique(row)] += 1
    documents[tokenizer.all_special_ids] = len(drawn)
    encoder = BertConfig(
        vocab_size=vocabulary,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        intermediate_size=16,
    )
    model = ListConModel(ListConConfig(encoder, PLACES.list_width, 2, 16)).eval()
    start_matching(model, tokenizer, MEANING, documents, rows)
    return Started(model, rows)


def test_the_length_of_a_text_is_known_exactly(started: Started) -> None:
    marks = started.features(started.rows)[:, PLACES.length]
    torch.testing.assert_close(marks[:, 0], -marks[:, 1])
    by_length = marks[:, 0] * torch.from_numpy(started.rows.lengths)
    torch.testing.assert_close(by_length, by_length[:1].expand(len(by_length)), rtol=1e-5, atol=0)


def test_the_encoder_sums_words_and_meaning_as_the_bags_do(started: Started) -> None:
    features = started.features(started.rows)
    bags = WordBags(started.model, MEANING)(started.rows, np.arange(len(started.rows))).detach()
    words = torch.cosine_similarity(features[:, PLACES.words], bags[:, PLACES.words], dim=1)
    assert words.min() > 0.9
    assert words.median() > 0.99
    meanings = torch.cosine_similarity(features[:, PLACES.meaning], bags[:, PLACES.meaning], dim=1)
    assert meanings.min() > 0.9999
    # In units of the length's mark, a meaning has one length, however long the text.
    lengths = features[:, PLACES.meaning].norm(dim=1) / features[:, PLACES.length.start]
    assert lengths.max() / lengths.min() < 1.15


def test_a_repeated_word_counts_more_but_less_than_its_number(started: Started) -> None:
    """As BM25 has it: the gain of one more occurrence falls."""
    fill = list(range(30, 60))
    rows = texts([RARE], *([*([RARE] * count), *fill[count:]] for count in range(5)))
    features = started.features(rows)
    sums = features[:, PLACES.words] / features[:, PLACES.length.start, None]
    along = [float(row @ sums[0]) for row in sums[1:]]
    gains = np.diff(along)
    assert gains[0] > 0
    assert gains[1] < 0.5 * gains[0]
    assert abs(gains[3]) < 0.3 * gains[0]


def test_a_longer_text_is_hardly_worse(started: Started) -> None:
    """A cosine halves when a text is four times as long; an inner product does not."""
    rows = texts([RARE, 20], *([RARE, *list(range(110, 110 + length))] for length in (10, 40, 160)))
    features = started.features(rows)
    sums = features[:, : PLACES.meaning.start] / features[:, PLACES.length.start, None]
    short, middle, long = (float(row @ sums[0]) for row in sums[1:])
    assert middle == pytest.approx(short, rel=0.3)
    assert long == pytest.approx(short, rel=0.5)


def test_scores_are_in_the_order_of_inner_products(started: Started) -> None:
    bags = WordBags(started.model, MEANING)(started.rows, np.arange(len(started.rows))).detach()
    short = np.argsort(started.rows.lengths)[:40]
    for query in short[::10]:
        others = [int(index) for index in np.argsort(started.rows.lengths)[::5] if index != query]
        logits = started.logits(TokenRows([started.rows.row(index) for index in [query, *others]], 0))
        products = bags[others] @ bags[query]
        assert np.corrcoef(logits.numpy(), products.numpy())[0, 1] > 0.98
        assert int(logits.argmax()) == int(products.argmax())


def test_logits_hardly_depend_on_the_number_of_passages(started: Started) -> None:
    query, passages = [RARE, OTHER], [[RARE, *range(120, 130)], [OTHER, *range(130, 150)], list(range(60, 90))]
    others = [started.rows.row(index)[1:-1].tolist() for index in range(300)]
    few = started.logits(texts(query, *passages, *others[:17]))[:3]
    many = started.logits(texts(query, *passages, *others))[:3]
    assert few[:2].min() > few[2] + 0.25
    torch.testing.assert_close(few - few[2], many - many[2], rtol=0.2, atol=0.03)


def test_a_passage_in_the_list_does_not_move_the_others(started: Started) -> None:
    """What passages have in common with each other does not count, nor does how often one is there."""
    query, passages = [RARE, OTHER], [[RARE, *range(120, 130)], [OTHER, *range(130, 150)]]
    alone = started.logits(texts(query, *passages, list(range(60, 90))))
    beside = started.logits(texts(query, *passages, [*([RARE] * 20), *range(120, 130)]))
    assert float(alone[0] - alone[1]) == pytest.approx(float(beside[0] - beside[1]), abs=0.03)


def test_the_gradient_of_a_bag_reaches_meaning_and_gains_alone(started: Started) -> None:
    embeddings: Any = started.model.encoder.embeddings
    table = embeddings.word_embeddings.weight
    table.grad = None
    bags = WordBags(started.model, MEANING)
    torch.autograd.backward(bags(started.rows, np.arange(20))[:, ::2].sum())
    assert isinstance(table.grad, Tensor)
    columns = table.grad.abs().sum(dim=0).nonzero().flatten()
    assert columns.tolist() == torch.arange(HIDDEN)[PLACES.word_meaning].tolist()
    assert table.grad[10:].abs().sum() > 0
    assert isinstance(bags.gains.grad, Tensor)
    there = np.unique(np.concatenate([started.rows.row(index)[1:-1] for index in range(20)]))
    assert bags.gains.grad.nonzero().flatten().tolist() == there.tolist()
    table.grad = None


def test_absorbed_gains_make_the_encoder_count_words_as_the_bags_did(started: Started) -> None:
    model = copy.deepcopy(started.model)
    bags = WordBags(model, MEANING)
    rng = np.random.default_rng(1)
    with torch.no_grad():
        bags.gains.copy_(torch.from_numpy(rng.uniform(-0.2, 0.05, len(bags.gains))))
    wanted = bags(started.rows, np.arange(len(started.rows))).detach()
    bags.absorb()
    assert not bags.gains.any()
    torch.testing.assert_close(bags(started.rows, np.arange(len(started.rows))), wanted)
    features = Started(model, started.rows).features(started.rows)
    words = torch.cosine_similarity(features[:, PLACES.words], wanted[:, PLACES.words], dim=1)
    assert words.median() > 0.99
    unlearnt = torch.cosine_similarity(started.features(started.rows)[:, PLACES.words], wanted[:, PLACES.words], dim=1)
    assert words.median() > unlearnt.median() + 0.002


def test_a_word_cannot_grow_out_of_its_embedding(started: Started) -> None:
    model = copy.deepcopy(started.model)
    embeddings: Any = model.encoder.embeddings
    table = embeddings.word_embeddings.weight
    before = table.detach().clone()
    bags = WordBags(model, MEANING)
    with torch.no_grad():
        bags.gains.fill_(3.0)
    bags.absorb()
    torch.testing.assert_close(table.norm(dim=1), before.norm(dim=1))
    assert (table[RARE, PLACES.words].norm() / before[RARE, PLACES.words].norm()) > 1
    others = (PLACES.meaning, PLACES.word_meaning, PLACES.code, PLACES.cls, PLACES.sep)
    assert all(torch.equal(table[:, part], before[:, part]) for part in others)


def test_parts_without_a_task_can_still_learn(started: Started) -> None:
    """No two factors of one product are zero, which no gradient would leave."""
    model = started.model
    for parameter in model.parameters():
        parameter.grad = None
    rows = TokenRows([started.rows.row(index) for index in range(12)], 0)
    batch = next(rows.batches(np.arange(12), 4096, torch.device("cpu")))
    features = model.features(batch.input_ids, batch.attention_mask)[None]
    logits = model.logits(features, torch.ones(features.shape[:2], dtype=torch.bool))
    torch.autograd.backward(logits.square().sum())
    for name in (
        "encoder.encoder.layer.1.attention.output.dense.weight",
        "encoder.encoder.layer.1.output.dense.weight",
        "list_transformer.layers.0.self_attn.out_proj.weight",
        "list_transformer.layers.1.linear2.weight",
        "linear_score1.weight",
    ):
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        assert gradient.abs().max() > 0, name
    for parameter in model.parameters():
        parameter.grad = None


@pytest.mark.parametrize(("width", "heads", "meaning"), [(128, 2, 16), (256, 1, 16), (256, 8, 16), (512, 4, 200)])
def test_an_encoder_that_is_too_small_is_said_to_be(width: int, heads: int, meaning: int) -> None:
    with pytest.raises(ListconError, match=f"an encoder of {width} numbers in {heads} heads is too small"):
        Places.of(width, heads, meaning)


def test_the_places_of_a_vector_do_not_overlap() -> None:
    parts = (PLACES.words, PLACES.meaning, PLACES.word_meaning, PLACES.code, PLACES.cls, PLACES.sep, PLACES.fill)
    taken = [index for part in parts for index in range(HIDDEN)[part]]
    assert sorted(taken) == list(range(HIDDEN))
    marks = (PLACES.words, PLACES.meaning, PLACES.length, PLACES.query, PLACES.attention, PLACES.reference)
    taken = [index for part in marks for index in range(PLACES.list_width)[part]]
    assert len(taken) == len(set(taken)) <= PLACES.list_width
    assert PLACES.list_width % HEADS == 0
    assert PLACES.meaning.stop <= PLACES.list_width // HEADS * (HEADS - 1)
