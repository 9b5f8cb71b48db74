"""Tiny random models of the real architectures in the real layouts: an embedding model, two kinds of cross-encoder.

`python tests/systems.py KIND FOLDER` writes one, KIND being embedding, cross-encoder or chat.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    Qwen2Config,
    Qwen2ForSequenceClassification,
    Qwen2Tokenizer,
)

from checkpoints import bert_tokenizer

HIDDEN, WIDTH = 64, 96
# Qwen2's, in short: a system message unless there is one, then the messages, then the beginning of an answer.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def _bert_config(vocab_size: int) -> BertConfig:
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=4 * HIDDEN,
        max_position_embeddings=512,
        initializer_range=0.2,
    )


def write_embedding(folder: Path, *, prompts: dict[str, str] | None = None, similarity: str | None = None) -> Path:
    """Write BERT, mean pooling, a dense layer and normalisation, as Conan-embedding-v1's folder holds them."""
    torch.manual_seed(5)
    tokenizer = bert_tokenizer()
    BertModel(_bert_config(len(tokenizer)), add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize")]
    rows = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{name}"}
        for place, (path, name) in enumerate(modules)
    ]
    _write(folder / "modules.json", rows)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": 128, "do_lower_case": False})
    _write(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True},
    )
    _write(
        folder / "2_Dense" / "config.json",
        {
            "in_features": HIDDEN,
            "out_features": WIDTH,
            "bias": True,
            "activation_function": "torch.nn.modules.linear.Identity",
        },
    )
    dense = nn.Linear(HIDDEN, WIDTH)
    save_file(
        {f"linear.{name}": tensor for name, tensor in dense.state_dict().items()}, folder / "2_Dense/model.safetensors"
    )
    if prompts is not None or similarity is not None:
        _write(
            folder / "config_sentence_transformers.json",
            {"prompts": prompts or {}, "default_prompt_name": None, "similarity_fn_name": similarity},
        )
    return folder


def write_cross_encoder(folder: Path, *, labels: int = 1) -> Path:
    """Write a BERT classifier."""
    torch.manual_seed(6)
    tokenizer = bert_tokenizer()
    config = _bert_config(len(tokenizer))
    config.num_labels = labels
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def qwen2_tokenizer() -> Qwen2Tokenizer:
    """Qwen2's byte-level tokenizer over single bytes and a few merges, with its special tokens and chat template."""
    symbols = sorted(ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*symbols, "as", "is"])}
    merges: Any = [("a", "s"), ("i", "s")]
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def write_chat_classifier(folder: Path, *, labels: int = 1) -> Path:
    """Write a Qwen2 sequence classifier, as LdIR-Qwen2-reranker-1.5B is one."""
    torch.manual_seed(7)
    tokenizer = qwen2_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer) + 8,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=2 * HIDDEN,
        max_position_embeddings=2048,
        initializer_range=0.2,
        pad_token_id=tokenizer.pad_token_id,
    )
    config.num_labels = labels
    network: Any = Qwen2ForSequenceClassification
    network(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


WRITERS: dict[str, Callable[[Path], Path]] = {
    "embedding": write_embedding,
    "cross-encoder": write_cross_encoder,
    "chat": write_chat_classifier,
}

if __name__ == "__main__":
    sys.stdout.write(f"{WRITERS[sys.argv[1]](Path(sys.argv[2]))}\n")
