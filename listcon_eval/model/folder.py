"""What a checkpoint's folder holds beside its weights: the encoder's configuration and the tokenizer."""

import json
from pathlib import Path

from transformers import AutoTokenizer, BertConfig, PreTrainedTokenizerFast

from listcon_eval.errors import ListconError


def read_encoder_config(folder: Path) -> BertConfig:
    """The encoder's configuration in a checkpoint's folder.

    Raises:
        ListconError: it is missing, or no BERT's.
    """
    path = folder / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ListconError(
            f"no config.json in {folder}: a checkpoint folder holds its encoder's configuration"
        ) from error
    except ValueError as error:
        raise ListconError(f"{path} is not JSON: {error}") from error
    needed = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    missing = [name for name in needed if not isinstance(values.get(name), int)]
    if missing:
        raise ListconError(f"{path} is no BERT configuration: it lacks {', '.join(missing)}")
    # A checkpoint of layout 2 names its own class and code here; the encoder is BERT all the same.
    for name in ("model_type", "auto_map", "architectures"):
        values.pop(name, None)
    return BertConfig(**values)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer in a checkpoint's folder.

    Raises:
        ListconError: it is missing, cannot be read, or is no fast one.
    """
    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.txt")):
        raise ListconError(f"no tokenizer in {folder}: expected tokenizer.json or vocab.txt")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # what a malformed file raises differs by file, library and version
        raise ListconError(f"cannot read the tokenizer in {folder}: {str(error).splitlines()[0]}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ListconError(
            f"the tokenizer in {folder} is a {type(tokenizer).__name__}: a fast BERT tokenizer is needed"
        )
    return tokenizer
