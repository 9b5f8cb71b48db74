"""New weights begin as a search by words: rare words in common bring texts together, and no layer is in the way."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import BertConfig

from checkpoints import bert_tokenizer
from lessons import write_lessons
from listcon_eval.data import local_task
from listcon_eval.model import ListConConfig, ListConModel
from listcon_eval.model.architecture import mean_over_tokens
from listcon_eval.train.lexical import start_encoder, start_lists
from listcon_eval.train.pooling import Pooling
from listcon_eval.train.tokens import TokenRows

WIDTH, COMMON, RARE = 512, 6, 7


@pytest.fixture
def model() -> ListConModel:
    torch.manual_seed(0)
    encoder = BertConfig(
        vocab_size=200, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    made = ListConModel(ListConConfig(encoder, WIDTH, 2, 64)).eval()
    documents = np.full(200, 10)
    documents[: COMMON + 1] = 1000
    start_encoder(made, documents, 1000)
    start_lists(made)
    return made


def features(model: ListConModel, *texts: list[int]) -> torch.Tensor:
    rows = TokenRows([np.array(text, dtype=np.int32) for text in texts], 0)
    pooling = Pooling(model, torch.device("cpu"), "none")
    with torch.no_grad():
        projected: torch.Tensor = model.linear_in_embedding(pooling.some(rows, np.arange(len(texts))))
    return projected


def test_features_are_close_by_the_rare_words_in_common(model: ListConModel) -> None:
    query, rare, common, none = features(model, [1, COMMON, RARE, 20], [2, RARE, 30], [3, COMMON, 40, 41], [50, 51])
    similar = [float(functional.cosine_similarity(query, other, dim=0)) for other in (rare, common, none)]
    assert similar[0] > 0.3
    # TF-IDF vectors without a rare word in common are orthogonal; random projections keep that up to 1 / sqrt(width).
    assert max(map(abs, similar[1:])) < 4 / math.sqrt(WIDTH)


def test_both_transformers_begin_as_the_identity(model: ListConModel) -> None:
    ids = torch.randint(5, 200, (3, 9))
    mask = torch.ones_like(ids)
    with torch.no_grad():
        without = mean_over_tokens(model.encoder.embeddings(input_ids=ids), mask)
        torch.testing.assert_close(model.pool(ids, mask), without, rtol=1e-4, atol=1e-4)
        x = functional.layer_norm(torch.randn(2, 5, WIDTH), (WIDTH,))
        torch.testing.assert_close(
            model.list_transformer(x, torch.ones(2, 5, dtype=torch.bool)), x, rtol=1e-3, atol=1e-3
        )


def test_the_score_is_the_distance(model: ListConModel) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(1, 4, WIDTH, generator=generator)
    rows[0, 1] = rows[0, 0]
    rows[0, 2] = (rows[0, 0] + rows[0, 2]) / 2
    with torch.no_grad():
        logits = model.logits(rows, torch.ones(1, 4, dtype=torch.bool))[0]
    normal = functional.layer_norm(rows[0], (WIDTH,))
    expected = [
        40 * (math.sqrt(0.75 / math.pi) - float(functional.relu(normal[0] - other).mean())) for other in normal[1:]
    ]
    assert logits.tolist() == pytest.approx(expected, abs=0.01)
    assert logits[0] > logits[1] > 0 > logits[2]


def test_an_untrained_model_already_ranks_by_words(tmp_path: Path) -> None:
    """Positives of the lessons repeat their query: the start alone puts nearly all of them first."""
    tokenizer = bert_tokenizer()
    lists = local_task(write_lessons(tmp_path / "lessons.jsonl")).candidate_lists()
    torch.manual_seed(0)
    encoder = BertConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64
    )
    model = ListConModel(ListConConfig(encoder, WIDTH, 1, 64)).eval()
    documents = np.full(len(tokenizer), 2)
    documents[tokenizer.all_special_ids] = 100
    start_encoder(model, documents, 100)
    start_lists(model)
    first = 0
    for row in lists:
        batch = tokenizer([row.query, *row.passages], padding=True, return_tensors="pt")
        with torch.no_grad():
            found = model.features(batch["input_ids"], batch["attention_mask"])[None]
            logits = model.logits(found, torch.ones(found.shape[:2], dtype=torch.bool))[0]
        first += row.relevance[int(logits.argmax())]
    assert first >= len(lists) - 1
