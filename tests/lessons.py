"""Small training lists that a small model can learn by heart, and the configuration of such a model."""

import json
import random
from pathlib import Path

from texts import random_text

TINY_ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def write_lessons(path: Path, queries: int = 12, negatives: int = 5, seed: int = 0) -> Path:
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


def write_tiny_encoder(path: Path) -> Path:
    """Write the configuration of an encoder of a few thousand weights."""
    path.write_text(json.dumps(TINY_ENCODER), encoding="utf-8")
    return path
