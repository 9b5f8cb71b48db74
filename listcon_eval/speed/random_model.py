"""Random checkpoints of named sizes: as slow as real ones, with scores that differ, and without meaning."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from transformers import BertConfig, BertTokenizer, PreTrainedTokenizerFast

from listcon_eval.errors import ListconError
from listcon_eval.model import ListConConfig, ListConModel, save_checkpoint

VOCABULARY = 21_128  # as many tokens as BERT-Chinese has
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SAMPLES = 32
_MARKS = ",。?!、:;“”()《》"


class Size(NamedTuple):
    """A model's sizes: encoder layers and width (H), attention heads, list width (D) and list layers (L)."""

    layers: int
    width: int
    heads: int
    list_width: int
    list_layers: int = 2


# `large` has the published model's sizes; the others keep its ratio of list width to encoder width.
SIZES: dict[str, Size] = {
    "tiny": Size(4, 128, 4, 224),
    "base": Size(12, 768, 12, 1344),
    "large": Size(24, 1024, 16, 1792),
}


def write_random_checkpoint(size: str, folder: Path) -> Path:
    """Write a random checkpoint of a named size in layout 1 and return its folder.

    Raises:
        ListconError: when there is no size of that name.
    """
    if size not in SIZES:
        raise ListconError(f"no random model {size!r}: give one of {', '.join(SIZES)}")
    return save_checkpoint(random_model(SIZES[size]), character_tokenizer(), folder)


def random_model(size: Size) -> ListConModel:
    """A random model of a size. Its weights are scaled so that different texts get clearly different scores."""
    torch.manual_seed(0)
    encoder = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        max_position_embeddings=512,
        initializer_range=1.0 / size.width**0.5,
    )
    model = ListConModel(ListConConfig(encoder, size.list_width, size.list_layers))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("encoder."):
                continue
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
            elif parameter.dim() > 1:
                parameter.normal_(0, 1.5 / parameter.shape[1] ** 0.5)
    _spread_features(model.eval())
    return model


@torch.inference_mode()
def _spread_features(model: ListConModel) -> None:
    """Scale and shift the projection so that the features of random texts have mean 0 and standard deviation 1.

    A random encoder gives nearly the same output for every text, and rounding would decide the order of the scores.
    """
    topics = torch.randint(VOCABULARY, (_SAMPLES, 20))
    ids = topics.gather(1, torch.randint(20, (_SAMPLES, 64)))  # a text repeats few tokens
    features = model.features(ids, torch.ones_like(ids))  # (_SAMPLES, D)
    projection, scale = model.linear_in_embedding, 1 / features.std(dim=0).mean()
    projection.weight.mul_(scale)
    projection.bias.sub_(features.mean(dim=0)).mul_(scale)


def character_tokenizer() -> PreTrainedTokenizerFast:
    """A BERT WordPiece tokenizer over single characters, with as many tokens as BERT-Chinese has."""
    letters = [chr(code) for code in range(0x21, 0x7F) if not chr(code).isupper()]
    pieces = [f"##{letter}" for letter in letters if letter.isalnum()]
    tokens = list(dict.fromkeys([*_SPECIAL, *letters, *pieces, *_MARKS]))
    ideographs = [chr(code) for code in (*range(0x4E00, 0xA000), *range(0x3400, 0x4DC0))]
    tokens += ideographs[: VOCABULARY - len(tokens)]
    return wordpiece_tokenizer(tokens)


def wordpiece_tokenizer(tokens: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer like BERT-Chinese's (a token per Chinese character) over distinct tokens, special ones included."""
    bert = BertTokenizer({token: index for index, token in enumerate(tokens)})
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=bert.backend_tokenizer, model_max_length=512, **bert.special_tokens_map
    )
