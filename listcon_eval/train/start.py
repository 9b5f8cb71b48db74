"""Where a training run starts: a ListConRanker checkpoint, an encoder, or a new encoder and vocabulary."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

from listcon_eval.errors import ListconError
from listcon_eval.model import ListConConfig, ListConModel, load_checkpoint
from listcon_eval.model.sources import resolve
from listcon_eval.progress import no_progress
from listcon_eval.train.lexical import start_encoder, start_lists
from listcon_eval.train.matching import start_matching
from listcon_eval.train.settings import Settings
from listcon_eval.train.tokens import TokenisedTexts
from listcon_eval.train.vocabulary import build_piece_tokenizer, build_tokenizer
from listcon_eval.train.words import Places

_LIST_LAYERS = 2  # as published
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


class Start(NamedTuple):
    """The model as training begins, float32 on the CPU, and its tokenizer."""

    model: ListConModel
    tokenizer: PreTrainedTokenizerFast


def start_from(settings: Settings, texts: Sequence[str]) -> Start:
    """Make the model that training starts from; the same settings and texts make the same weights.

    Args:
        settings: the run's settings.
        texts: the training text, which a new vocabulary is built from.

    Raises:
        ListconError: when the checkpoint, encoder or configuration cannot be read or used.
    """
    torch.manual_seed(settings.seed)
    if settings.model is not None:
        checkpoint = load_checkpoint(settings.model, settings.revision)
        model = ListConModel(replace(checkpoint.model.config, list_dropout=settings.list_dropout))
        model.load_state_dict(checkpoint.model.state_dict())
        start = Start(model, checkpoint.tokenizer)
    elif settings.encoder is not None:
        start = _from_encoder(settings, settings.encoder)
    else:
        assert settings.encoder_config is not None
        start = _from_nothing(settings, settings.encoder_config, texts)
    longest = start.model.config.encoder.max_position_embeddings
    if settings.max_length > longest:
        raise ListconError(f"max_length is {settings.max_length}: this encoder takes at most {longest}")
    return start


def _from_encoder(settings: Settings, path_or_id: str) -> Start:
    folder = resolve(path_or_id, settings.revision).folder
    values = _read_config(folder / "config.json")
    kind = values.get("model_type", "bert")
    if kind != "bert":
        raise ListconError(f"the encoder in {folder} is a {kind!r} model: ListConRanker's encoder is a BERT")
    try:
        loaded: Any = BertModel.from_pretrained(
            folder, add_pooling_layer=False, output_loading_info=True, dtype=torch.float32
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # what a malformed file raises differs by file, library and version
        raise ListconError(f"cannot read the encoder in {folder}: {str(error).splitlines()[0]}") from error
    encoder, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        raise ListconError(f"the encoder in {folder} lacks {len(missing)} weights: {', '.join(missing[:5])}")
    if not isinstance(tokenizer, PreTrainedTokenizerFast) or len(tokenizer) > encoder.config.vocab_size:
        raise ListconError(
            f"the tokenizer in {folder} is a {type(tokenizer).__name__} of {len(tokenizer)} tokens: a fast BERT "
            f"tokenizer of at most {encoder.config.vocab_size}, the encoder's, is needed"
        )
    model = _new_model(settings, encoder.config)
    start_lists(model)
    model.encoder.load_state_dict(encoder.state_dict())
    return Start(model, tokenizer)


def _from_nothing(settings: Settings, path: Path, texts: Sequence[str]) -> Start:
    values = _read_config(path)
    values.pop("vocab_size", None)  # the vocabulary is built here, whatever a copied configuration says
    positions = values.get("max_position_embeddings", BertConfig().max_position_embeddings)
    least = settings.minimum_count
    if settings.vocabulary_size is None:
        tokenizer = build_tokenizer(texts, minimum_count=least, max_length=positions)
    else:
        size = settings.vocabulary_size
        tokenizer = build_piece_tokenizer(texts, size=size, minimum_count=least, max_length=positions)
    config = BertConfig(**values, vocab_size=len(tokenizer), pad_token_id=0)
    documents = _document_counts(tokenizer, texts)
    meaning = settings.meaning_width
    if meaning is None:
        model = _new_model(settings, config)
        start_encoder(model, documents, len(texts))
        start_lists(model)
        return Start(model, tokenizer)
    places = Places.of(config.hidden_size, config.num_attention_heads, meaning)
    model = _new_model(replace(settings, meaning_width=None, list_width=places.list_width), config)
    rows = TokenisedTexts(texts, tokenizer, min(settings.max_length, positions), no_progress)
    start_matching(model, tokenizer, meaning, documents, rows)
    return Start(model, tokenizer)


def _document_counts(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> NDArray[np.int64]:
    """In how many texts each token occurs, (V,); the special tokens count as in all of them."""
    counts = np.zeros(len(tokenizer), dtype=np.int64)
    for encoding in tokenizer.backend_tokenizer.encode_batch_fast(list(texts), add_special_tokens=False):
        counts[np.unique(np.array(encoding.ids, dtype=np.int64))] += 1
    counts[tokenizer.all_special_ids] = len(texts)
    return counts


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ListconError(f"cannot read {path}: {error.strerror}; an encoder's config.json is needed") from error
    except ValueError as error:
        raise ListconError(f"{path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ListconError(f"{path} holds a {type(values).__name__}: an encoder's configuration is a JSON object")
    wrong = [name for name in _SIZES if not isinstance(values.get(name), int) or values[name] < 1]
    if wrong:
        raise ListconError(f"{path} is no BERT configuration: it has no whole number above 0 for {', '.join(wrong)}")
    if values["hidden_size"] % values["num_attention_heads"]:
        raise ListconError(
            f"{path}: hidden_size {values['hidden_size']} is not a multiple of the {values['num_attention_heads']} "
            f"attention heads"
        )
    for name in ("pad_token_id", "architectures", "auto_map"):
        values.pop(name, None)
    return values


def _new_model(settings: Settings, encoder: BertConfig) -> ListConModel:
    heads = encoder.num_attention_heads
    # Published: H = 1024, D = 1792 and a feed-forward width of 2048; a fresh model of another width keeps the ratios.
    width = settings.list_width or -(-7 * encoder.hidden_size // (4 * heads)) * heads
    config = ListConConfig(
        encoder=encoder,
        list_width=width,
        list_layers=settings.list_layers or _LIST_LAYERS,
        feedforward_width=settings.list_feedforward or 2 * encoder.hidden_size,
        list_dropout=settings.list_dropout,
    )
    try:
        model = ListConModel(config)
    except ValueError as error:
        raise ListconError(f"list_width: {error}") from error
    return model
