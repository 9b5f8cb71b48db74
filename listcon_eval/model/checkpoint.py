"""Checkpoints on disk: both published layouts are read, layout 1 is written, every key is placed or reported.

Layout 1: an ordinary encoder folder plus `linear_in_embedding.pt` and `list_transformer.pt`. Layout 2: one
checkpoint that holds everything, its parts behind prefixes. The encoder is any that transformers' AutoModel knows.
Pickles are loaded with `weights_only=True`; no code of a checkpoint is run.

A quantised checkpoint has layout 2. A matrix `W` (R, C) is kept as int8 and `W.row_scale` (R,) in float32, so that
`W[i, j] ~ int8[i, j] * row_scale[i]`, the largest of each row at 127 (symmetric quantisation, as in "LLM.int8()",
arXiv 2208.07339, without its outliers). Vectors are float16, and the file is compressed by gzip. Loading multiplies;
everything then runs in float32.
"""

import gzip
import json
import pickle
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.initialization import no_init_weights

from listcon_eval.errors import ListconError, first_line, first_line_with_class
from listcon_eval.files import check_writable, sha256_of_file, sha256_of_texts, swapped_folder
from listcon_eval.model.architecture import ListConConfig, ListConModel, new_encoder
from listcon_eval.model.source import ModelSource, resolve_source

QUANTISED_FILE = "model.safetensors.gz"
DECISIVE_SUFFIXES = {".safetensors", ".gz", ".bin", ".pt", ".json", ".txt", ".model", ".jinja"}
"""Suffixes of the files that decide a model's scores: weights, configuration, tokenizer, prompts."""

_LIST_FILE, _LINEAR_FILE = "list_transformer.pt", "linear_in_embedding.pt"
_ENCODER_FILES = (
    *("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"),
    QUANTISED_FILE,
)
_TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.txt", "vocab.json"),
    *("sentencepiece.bpe.model", "spiece.model", "tokenizer.model"),
)
_LFS_POINTER = b"version https://git-lfs"
_SCALE = ".row_scale"
# A gzip file of megabytes can unpack to terabytes. A quantised model of the published size takes 0.4 GiB.
_MAX_HEADER_BYTES, _MAX_BYTES = 16 * 2**20, 2 * 2**30
_ALIGNMENT = 64  # bytes: what torch gives to every tensor it allocates
# What a damaged file of weights raises, by its format.
_UNREADABLE = (OSError, SafetensorError, RuntimeError, EOFError, KeyError, ValueError, TypeError, zlib.error)
# Every part of the model but the encoder, whose names follow from its configuration.
_LIST_NAMES = re.compile(
    r"(linear_in_embedding|query_embedding|linear_score[123]|list_transformer\.layers\.\d+)\.", flags=re.ASCII
)
# Weights that no score depends on: the published code's unused template layer, poolers (features are means over
# tokens), heads of pre-training, and index buffers that older versions of transformers saved.
_UNUSED = re.compile(
    r"(^|\.)(list_transformer_layer\.|pooler\.|cls\.(predictions|seq_relationship)\.|lm_head\."
    r"|discriminator_predictions\.|generator_(predictions|lm_head)\.|(position_ids|token_type_ids|inv_freq)$)"
)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint and where it came from.

    Attributes:
        model: the model, float32, on the CPU.
        tokenizer: its tokenizer.
        source: where it came from.
        layout: 1 or 2, as in the module's docstring.
        ignored: the keys in its files that no score depends on.
    """

    model: ListConModel
    tokenizer: PreTrainedTokenizerFast
    source: ModelSource
    layout: int
    ignored: tuple[str, ...]

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 over the files of weights, configuration and tokenizer: what decides every score."""
        paths = (path for path in self.source.folder.iterdir() if path.is_file() and path.suffix in DECISIVE_SUFFIXES)
        return sha256_of_texts(text for path in sorted(paths) for text in (path.name, sha256_of_file(path)))


def load_checkpoint(model: str | Path | ModelSource, revision: str | None = None) -> Checkpoint:
    """Load a checkpoint of either layout.

    Args:
        model: a folder, a hub id, or the result of `resolve_source`.
        revision: the hub revision.

    Raises:
        ListconError: it cannot be found or read, or keys are missing, unexpected or of a wrong shape: one error that
            lists them all.
    """
    source = model if isinstance(model, ModelSource) else resolve_source(model, revision)
    folder = source.folder
    layout = 1 if _has_list_files(folder) else 2
    tensors = _read_layout_1(folder) if layout == 1 else _read_tensors(_encoder_file(folder))
    encoder = _read_encoder_config(folder)
    placed, ignored, unexpected = _place(tensors, encoder, folder)
    network = _build(_config_of(encoder, placed, folder), placed, unexpected, folder)
    tokenizer = load_tokenizer(folder)
    check_token_ids(tokenizer, encoder, folder)
    return Checkpoint(network, tokenizer, source, layout, tuple(ignored))


def holds_listconranker(folder: Path) -> bool:
    """Whether a folder's files are those of a ListConRanker, complete or not. No weights are read.

    Raises:
        ListconError: its weights cannot be read.
    """
    return _has_list_files(folder) or any(
        name.endswith("linear_in_embedding.weight") for name in names_of_weights(folder)
    )


def names_of_weights(folder: Path) -> list[str]:
    """The names of the weights in a model's folder; empty when it has no file of weights. No weights are read.

    Raises:
        ListconError: the file cannot be read.
    """
    path = next((folder / name for name in _ENCODER_FILES if (folder / name).exists()), None)
    if path is None:
        return []
    with _reading(path):
        if path.suffix == ".json":
            return list(_shards(path))
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return list(file.keys())
        if path.suffix == ".gz":
            with gzip.open(path) as compressed:
                return list(_read_header(compressed)[1])
        # Files of before torch 1.6 are no zip files and cannot be mapped.
        return list(torch.load(path, map_location="meta", weights_only=True, mmap=zipfile.is_zipfile(path)))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Read the tokenizer in a model's folder.

    Raises:
        ListconError: its files are missing or cannot be read, it is not a fast one, or it has only special tokens.
    """
    found = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    if not found:  # transformers would make one up
        raise ListconError(f"no tokenizer in {folder}: expected one of {', '.join(_TOKENIZER_FILES)}")
    for path in found:
        check_no_lfs_pointer(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # what a malformed file raises differs by file, library and version
        raise ListconError(f"cannot read the tokenizer in {folder}: {first_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        kind = type(tokenizer).__name__
        raise ListconError(f"the tokenizer in {folder} is a {kind}: a fast tokenizer (tokenizer.json) is needed")
    check_tokenizer(tokenizer, folder)
    return tokenizer


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Refuse a tokenizer that has only special tokens: transformers makes one up where files are missing.

    Raises:
        ListconError: it has no others.
    """
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    if not set(tokenizer.get_vocab()) - special:
        raise ListconError(
            f"the tokenizer in {folder} has {len(special)} special tokens and no others, so every text would be "
            f"unknown to it: its files are missing or empty; expected one of {', '.join(_TOKENIZER_FILES)}"
        )


def check_token_ids(tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, folder: Path) -> None:
    """Refuse a tokenizer with more tokens than a network has embeddings for, as far as its configuration says.

    Raises:
        ListconError: a token's id is beyond the embeddings.
    """
    largest = max(tokenizer.get_vocab().values())
    known = getattr(config.get_text_config(), "vocab_size", None)
    if known is not None and largest >= known:
        raise ListconError(
            f"the tokenizer in {folder} has token ids up to {largest}, and the network has embeddings for {known}: "
            "they do not belong together"
        )


def check_no_lfs_pointer(path: Path) -> None:
    """Refuse the text that Git LFS leaves where a large file was not fetched.

    Raises:
        ListconError: the file is such a text.
    """
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise ListconError(f"{path} is a Git LFS pointer and not the file itself: fetch it with `git lfs pull`")


def save_checkpoint(model: ListConModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write a checkpoint in layout 1 and return its folder, which is replaced whole or not at all.

    The unused template layer is written too (a copy of the first layer, as at the published code's start): its
    loader is strict about it.

    Raises:
        ListconError: the folder exists and holds something else than a checkpoint.
    """
    tensors = _tensors_of(model)
    encoder = {key.removeprefix("encoder."): tensors.pop(key) for key in list(tensors) if key.startswith("encoder.")}
    linear = {name: tensors.pop(f"linear_in_embedding.{name}") for name in ("weight", "bias")}
    first = "list_transformer.layers.0."
    template = {
        f"list_transformer_layer.{key.removeprefix(first)}": value.clone()
        for key, value in tensors.items()
        if key.startswith(first)
    }
    with _replaced(model, tokenizer, folder) as staged:
        save_file(encoder, staged / "model.safetensors", metadata={"format": "pt"})
        torch.save(linear, staged / _LINEAR_FILE)
        torch.save(tensors | template, staged / _LIST_FILE)
    return folder


def save_quantised(model: ListConModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write a checkpoint with int8 matrices in layout 2 and return its folder, replaced whole or not at all.

    It is a quarter of the size or less. This package loads it; the published code does not.

    Raises:
        ListconError: the folder exists and holds something else than a checkpoint.
    """
    content = gzip.compress(save(quantised(_tensors_of(model)), metadata={"format": "pt"}), mtime=0)
    with _replaced(model, tokenizer, folder) as staged:
        (staged / QUANTISED_FILE).write_bytes(content)
    return folder


def quantised(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint with its matrices in int8, as the module's docstring says."""
    small: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dim() != 2:
            small[name] = tensor.half()
            continue
        scale = (tensor.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)  # a row of zeros too
        small[name] = (tensor / scale[:, None]).round().to(torch.int8)
        small[name + _SCALE] = scale
    return small


def _dequantised(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Multiply int8 matrices by their scales; other tensors are left as they are."""
    full = {name: tensor for name, tensor in tensors.items() if not name.endswith(_SCALE)}
    for name in [name for name, tensor in full.items() if tensor.dtype == torch.int8]:
        scale = tensors.get(name + _SCALE)
        if scale is None or scale.shape != full[name].shape[:1]:
            found = "are missing" if scale is None else f"have the shape {tuple(scale.shape)}"
            shape = tuple(full[name].shape)
            raise ValueError(f"{name} is an int8 matrix of the shape {shape}, and its scales ({name}{_SCALE}) {found}")
        full[name] = full[name].float() * scale.float()[:, None]
    return full


def _tensors_of(model: ListConModel) -> dict[str, Tensor]:
    """The weights of a model by name, float32, on the CPU."""
    return {key: value.detach().float().cpu().contiguous() for key, value in model.state_dict().items()}


@contextmanager
def _replaced(model: ListConModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Iterator[Path]:
    """A new folder with configuration, tokenizer and the card of `folder`, whose place it takes at the end."""
    if folder.exists() and not folder.is_dir():
        raise ListconError(f"{folder} is a file: a checkpoint is a folder, give another name")
    check_writable(folder.parent)
    for path in folder.iterdir() if folder.exists() else ():
        if path.is_dir() or path.suffix not in DECISIVE_SUFFIXES | {".md"}:
            raise ListconError(
                f"{folder} holds {path.name}, which is no part of a checkpoint, and saving replaces the whole folder: "
                "give another one"
            )
    with swapped_folder(folder) as staged:
        model.config.encoder.save_pretrained(staged)
        tokenizer.save_pretrained(staged)
        for card in folder.glob("*.md"):
            shutil.copy2(card, staged)
        yield staged


def _read_encoder_config(folder: Path) -> PreTrainedConfig:
    path = folder / "config.json"
    if not path.is_file():
        raise ListconError(f"no config.json in {folder}: a checkpoint folder holds its encoder's configuration")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        model_type = values.pop("model_type", "bert")
    except (ValueError, TypeError, AttributeError) as error:
        raise ListconError(f"{path} is not a JSON object: {error}") from error
    # A checkpoint of layout 2 may name a class of its own here, whose code is not run: its encoder is a BERT.
    if "listcon" in str(model_type).lower().replace("_", "").replace("-", ""):
        model_type = "bert"
    if model_type not in CONFIG_MAPPING:
        raise ListconError(f"{path} names the model type {model_type!r}, which this version of transformers lacks")
    for name in ("auto_map", "architectures"):
        values.pop(name, None)
    if model_type == "bert":  # whose sizes have defaults that are BERT-base's
        needed = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
        if missing := [name for name in needed if not isinstance(values.get(name), int)]:
            raise ListconError(f"{path} is no BERT configuration: it lacks {', '.join(missing)}")
    try:
        config: PreTrainedConfig = CONFIG_MAPPING[model_type](**values)
    except Exception as error:  # each configuration class checks its fields in its own way
        raise ListconError(f"{path} is no configuration of a {model_type}: {first_line(error)}") from error
    if getattr(config, "is_encoder_decoder", False):
        raise ListconError(f"{path} is the configuration of a {model_type}, which has a decoder: an encoder is needed")
    return config


def _has_list_files(folder: Path) -> bool:
    return (folder / _LIST_FILE).exists() or (folder / _LINEAR_FILE).exists()


def _encoder_file(folder: Path) -> Path:
    for name in _ENCODER_FILES:
        if (folder / name).exists():
            return folder / name
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise ListconError(f"no weights in {folder}: expected one of {', '.join(_ENCODER_FILES)}; found {found}")


def _read_layout_1(folder: Path) -> dict[str, Tensor]:
    for name in (_LIST_FILE, _LINEAR_FILE):
        if not (folder / name).exists():
            raise ListconError(f"{folder} lacks {name}: a checkpoint of layout 1 has {_LIST_FILE} and {_LINEAR_FILE}")
    linear = _read_tensors(folder / _LINEAR_FILE)
    tensors = {f"encoder.{key}": value for key, value in _read_tensors(_encoder_file(folder)).items()}
    tensors |= {f"linear_in_embedding.{re.sub(r'^(module|_orig_mod)[.]', '', key)}": linear[key] for key in linear}
    return tensors | _read_tensors(folder / _LIST_FILE)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file of weights of any format, dequantised."""
    with _reading(path):
        if path.suffix == ".json":
            shards = sorted(set(_shards(path).values()))
            return {key: value for shard in shards for key, value in _read_tensors(path.parent / shard).items()}
        loaded: Any
        if path.suffix == ".gz":
            loaded = _read_compressed(path)
        elif path.suffix == ".safetensors":
            loaded = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
            raise ValueError(f"it holds a {type(loaded).__name__}, and a dictionary of tensors is needed")
        return _dequantised(loaded)


def _shards(index: Path) -> dict[str, str]:
    """Which file of a sharded checkpoint holds each tensor."""
    return dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])


def _read_compressed(path: Path) -> dict[str, Tensor]:
    with gzip.open(path) as file:
        start, header = _read_header(file)
        size = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if size > _MAX_BYTES:
            raise ValueError(f"its header says {size} bytes, and files over {_MAX_BYTES} are not unpacked")
        content = file.read(size)
        if file.read(1):
            raise ValueError(f"it unpacks to more than the {size} bytes that its header says")
    return load(start + content)


def _read_header(file: gzip.GzipFile) -> tuple[bytes, dict[str, Any]]:
    """The header of a safetensors file (8 bytes of length, then JSON): its bytes, and its entries by tensor."""
    length = file.read(8)
    size = int.from_bytes(length, "little")
    if len(length) < 8 or not 2 <= size <= _MAX_HEADER_BYTES:
        raise ValueError("it is not a compressed safetensors file")
    header = file.read(size)
    entries: dict[str, Any] = dict(json.loads(header))
    entries.pop("__metadata__", None)
    return length + header, entries


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what a damaged file of weights raises into one message."""
    try:
        check_no_lfs_pointer(path)
        yield
    except pickle.UnpicklingError as error:  # torch's own message advises to run the file's code
        raise ListconError(
            f"cannot read the weights {path}: the file is damaged, or its pickle holds more than tensors"
        ) from error
    except _UNREADABLE as error:
        raise ListconError(f"cannot read the weights {path}: {first_line(error)}") from error


def _prefix(keys: Iterable[str], ending: str, folder: Path) -> str:
    """What stands before `ending` in the one key that ends so: where a part of the checkpoint lives."""
    found = [key for key in keys if key == ending or key.endswith("." + ending)]
    if len(found) != 1:
        what = "no key ends" if not found else f"{len(found)} keys end ({', '.join(found)})"
        raise ListconError(f"{folder} is no ListConRanker checkpoint: {what} in {ending}")
    return found[0].removesuffix(ending)


def _place(
    tensors: Mapping[str, Tensor], encoder: PreTrainedConfig, folder: Path
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Give every tensor its name in `ListConModel`, whatever prefix it has in the file.

    Returns:
        The tensors by name, the keys that no score depends on, and the keys without a place.
    """
    try:
        with torch.device("meta"):
            network = new_encoder(encoder)
    except Exception as error:  # each architecture refuses its values in its own way
        reason = first_line_with_class(error)
        raise ListconError(
            f"{folder / 'config.json'} describes no {encoder.model_type} that can be built: {reason}"
        ) from error
    names = {f"encoder.{name}" for name in network.state_dict()}
    table = network.get_input_embeddings().weight
    table_name = next(name for name, parameter in network.named_parameters() if parameter is table)
    # The first BERT checkpoints have TensorFlow's names for the weights of layer norms.
    old_names = re.compile(r"LayerNorm\.(gamma|beta)$")
    new_names = {"gamma": "LayerNorm.weight", "beta": "LayerNorm.bias"}
    tensors = {old_names.sub(lambda match: new_names[match[1]], key): value for key, value in tensors.items()}
    prefixes = (
        (_prefix(tensors, table_name, folder), "encoder."),
        (_prefix(tensors, "linear_in_embedding.weight", folder), ""),
        (_prefix(tensors, "query_embedding.query_embedding.weight", folder), ""),
    )
    placed: dict[str, Tensor] = {}
    ignored: list[str] = []
    unexpected: list[str] = []
    for key, tensor in tensors.items():
        candidates = [target + key.removeprefix(prefix) for prefix, target in prefixes if key.startswith(prefix)]
        found = next((name for name in candidates if name in names or _LIST_NAMES.match(name)), None)
        if found is not None and found not in placed:
            placed[found] = tensor
        else:
            (ignored if _UNUSED.search(key) else unexpected).append(key)
    return placed, ignored, unexpected


def _config_of(encoder: PreTrainedConfig, placed: Mapping[str, Tensor], folder: Path) -> ListConConfig:
    layers = {int(match[1]) for key in placed if (match := re.match(r"list_transformer\.layers\.(\d+)\.", key))}
    if not layers:
        raise ListconError(f"{folder} is no ListConRanker checkpoint: it has no list_transformer.layers")
    inner = placed.get(f"list_transformer.layers.{min(layers)}.linear1.bias")
    return ListConConfig(
        encoder=encoder,
        list_width=len(placed["query_embedding.query_embedding.weight"].T),
        list_layers=max(layers) + 1,
        feedforward_width=ListConConfig.feedforward_width if inner is None else inner.numel(),
    )


def _build(config: ListConConfig, placed: Mapping[str, Tensor], unexpected: list[str], folder: Path) -> ListConModel:
    try:
        with no_init_weights():  # every weight is about to be replaced: drawing 400 M numbers takes seconds
            model = ListConModel(config)
    except ValueError as error:
        raise ListconError(f"{folder}: {error}") from error
    expected = {key: value.shape for key, value in model.state_dict().items()}
    misshaped = [
        f"{key}: {tuple(value.shape)} here, {tuple(expected[key])} by the configuration and the other weights"
        for key, value in sorted(placed.items())
        if key in expected and value.shape != expected[key]
    ]
    problems = {
        "missing": sorted(set(expected) - set(placed)),
        "unexpected": sorted([*unexpected, *(set(placed) - set(expected))]),
        "of a wrong shape": misshaped,
        "of whole numbers": sorted(key for key, value in placed.items() if not value.is_floating_point()),
    }
    if any(problems.values()):
        parts = [f"{len(keys)} {what}:\n  " + "\n  ".join(keys) for what, keys in problems.items() if keys]
        raise ListconError(f"the weights in {folder} do not make a ListConRanker; keys " + "\nkeys ".join(parts))
    model.load_state_dict({key: _aligned(value.float()) for key, value in placed.items()}, assign=True)
    return model.eval()


def _aligned(tensor: Tensor) -> Tensor:
    """A tensor whose memory starts at a multiple of 64 bytes: a copy where the file has it elsewhere.

    How a matrix product rounds depends on it, so one model would have other scores from another file.
    """
    return tensor if tensor.data_ptr() % _ALIGNMENT == 0 else tensor.clone()
