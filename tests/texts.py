"""Random Chinese-looking texts, and hypothesis strategies for lists of them."""

import random

from hypothesis import strategies as st

from checkpoints import CHARACTERS

LETTERS = [character for character in CHARACTERS if not character.startswith("##")]


def random_text(rng: random.Random, shortest: int = 1, longest: int = 60) -> str:
    """A text of random characters that the test tokenizer knows."""
    return "".join(rng.choices(LETTERS, k=rng.randint(shortest, longest)))


def random_list(size: int, seed: int, longest: int = 60) -> list[str]:
    """[query, passage, ...] with `size` distinct passages."""
    rng = random.Random(seed)
    texts = dict.fromkeys(random_text(rng, 2, longest) for _ in range(3 * size + 10))
    return list(texts)[: size + 1]


texts = st.text(st.sampled_from(LETTERS[:400]), min_size=1, max_size=30)
lists = st.builds(lambda query, passages: [query, *passages], texts, st.lists(texts, min_size=1, max_size=45))
