"""Small training lists that a small model can learn by heart, and a small encoder to start from."""

import json
import random
from pathlib import Path

import torch
from transformers import BertConfig, BertModel

from checkpoints import bert_tokenizer
from texts import random_text


def write_lists(path: Path, queries: int = 12, negatives: int = 5, seed: int = 0) -> Path:
    """Write lists whose positives repeat their query among other characters; negatives repeat other queries."""
    rng = random.Random(seed)
    keys = [random_text(rng, 4, 4) for _ in range(queries)]

    def passage(key: str) -> str:
        return random_text(rng, 1, 4) + key + random_text(rng, 1, 4)

    rows = [
        {
            "query_id": f"q{place}",
            "query": key,
            "positive": [passage(key) for _ in range(1 + place % 2)],
            "negative": [passage(other) for other in rng.sample([k for k in keys if k != key], negatives)],
        }
        for place, key in enumerate(keys)
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_encoder(folder: Path, *, hidden: int = 32, dropout: float = 0.1, seed: int = 0) -> Path:
    """Write a random BERT encoder of one layer; texts that share characters are similar to it."""
    torch.manual_seed(seed)
    tokenizer = bert_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
