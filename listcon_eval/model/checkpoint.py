"""Checkpoints on disk: both published layouts in, layout 1 out, every key placed or reported.

Layout 1: an ordinary encoder folder plus `linear_in_embedding.pt` and `list_transformer.pt`. Layout 2: one
checkpoint that holds everything, its parts behind prefixes. Pickles are loaded with `weights_only=True`; no code of a
checkpoint is run.
"""

import json
import logging
import pickle
import re
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, PreTrainedTokenizerFast
from transformers.initialization import no_init_weights

from listcon_eval.errors import ListconError
from listcon_eval.files import sha256_of
from listcon_eval.model.architecture import ListConConfig, ListConModel
from listcon_eval.model.folder import read_encoder_config, read_tokenizer
from listcon_eval.model.quantised import QUANTISED_FILE, dequantised, packed, unpacked
from listcon_eval.model.sources import Source, resolve

logger = logging.getLogger(__name__)

_LIST_FILE = "list_transformer.pt"
_LINEAR_FILE = "linear_in_embedding.pt"
_ENCODER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    QUANTISED_FILE,
)
_ALIGNMENT = 64  # bytes: what torch gives to every tensor of its own
# What a file of weights that is damaged, or none, raises by its format.
_UNREADABLE = (
    OSError,
    SafetensorError,
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    KeyError,
    ValueError,
    TypeError,
    zlib.error,
)
_DEAD_LAYER = "list_transformer_layer."
# Keys that carry nothing this model uses: the published code's unused template layer, BERT's pooler (features are
# means over tokens) and index buffers that older transformers saved.
_IGNORED_NAMES = (
    _DEAD_LAYER,
    "encoder.pooler.",
    "encoder.embeddings.position_ids",
    "encoder.embeddings.token_type_ids",
)


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint and where it came from.

    Attributes:
        model: the model, float32, on the CPU.
        tokenizer: its tokenizer.
        source: where it came from.
        layout: 1 or 2, as in the module's docstring.
        ignored: the keys that were left out because their names say that nothing uses them.
    """

    model: ListConModel
    tokenizer: PreTrainedTokenizerFast
    source: Source
    layout: int
    ignored: tuple[str, ...]

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 over the weights, the configuration and the tokenizer: what decides every score."""
        wanted = [
            path
            for path in self.source.folder.iterdir()
            if path.is_file() and path.suffix in {".safetensors", ".gz", ".bin", ".pt", ".json", ".txt"}
        ]
        return sha256_of(wanted)


def load_checkpoint(path_or_id: str | Path, revision: str | None = None) -> Checkpoint:
    """Load a checkpoint of either layout from a folder or the hub.

    Raises:
        ListconError: when it cannot be found or read, or when keys are missing, unexpected or of a wrong shape: one
            error that lists them all.
    """
    source = resolve(path_or_id, revision)
    layout = 1 if (source.folder / _LIST_FILE).exists() or (source.folder / _LINEAR_FILE).exists() else 2
    tensors = _read_layout_1(source.folder) if layout == 1 else dequantised(_read_tensors(_encoder_file(source.folder)))
    encoder_config = read_encoder_config(source.folder)
    placed, ignored, unexpected = _place(tensors, source.folder)
    config = _config_of(encoder_config, placed, source.folder)
    model = _build(config, placed, unexpected, source.folder)
    if ignored:
        names = sorted({next(name for name in _IGNORED_NAMES if key.startswith(name)) for key in ignored})
        logger.warning("%s: ignored %d keys that nothing uses (%s)", path_or_id, len(ignored), ", ".join(names))
    return Checkpoint(model, read_tokenizer(source.folder), source, layout, tuple(ignored))


def holds_listconranker(folder: Path) -> bool:
    """Whether a folder's files are those of a ListConRanker, of either layout and whole or not; reads no weights.

    Raises:
        ListconError: its weights cannot be read.
    """
    if (folder / _LIST_FILE).exists() or (folder / _LINEAR_FILE).exists():
        return True
    return any(name.endswith("linear_in_embedding.weight") for name in names_of_weights(folder))


def names_of_weights(folder: Path) -> list[str]:
    """The names of the weights in a model's folder, which are not read; none when it has no file of weights.

    Raises:
        ListconError: the file cannot be read.
    """
    path = next((folder / name for name in _ENCODER_FILES if (folder / name).exists()), None)
    if path is None:
        return []
    try:
        if path.name.endswith(".index.json"):
            return list(json.loads(path.read_text(encoding="utf-8"))["weight_map"])
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return list(file.keys())
        if path.name == QUANTISED_FILE:
            return list(unpacked(path.read_bytes()))
        return list(torch.load(path, map_location="meta", weights_only=True, mmap=True))
    except _UNREADABLE as error:
        raise ListconError(f"cannot read the weights {path}: {str(error).splitlines()[0]}") from error


def save_checkpoint(model: ListConModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write a checkpoint in layout 1, whole files only, and return its folder.

    The unused template layer is written too (a copy of the first layer, as at the published code's start): its
    loader is strict about it.
    """
    tensors = _tensors_of(model)
    encoder = {key.removeprefix("encoder."): value for key, value in tensors.items() if key.startswith("encoder.")}
    linear = {key.rpartition(".")[2]: value for key, value in tensors.items() if key.startswith("linear_in_embedding.")}
    lists = {key: value for key, value in tensors.items() if not key.startswith(("encoder.", "linear_in_embedding."))}
    first = "list_transformer.layers.0."
    lists |= {
        _DEAD_LAYER + key.removeprefix(first): value.clone() for key, value in lists.items() if key.startswith(first)
    }
    with _staged(model, tokenizer, folder) as staged:
        save_file(encoder, staged / "model.safetensors", metadata={"format": "pt"})
        torch.save(linear, staged / _LINEAR_FILE)
        torch.save(lists, staged / _LIST_FILE)
    return folder


def save_quantised(model: ListConModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    """Write a checkpoint with int8 matrices in layout 2, whole files only, and return its folder.

    It is a quarter of the size or less. This package loads it; the published code does not.
    """
    tensors = _tensors_of(model)
    with _staged(model, tokenizer, folder) as staged:
        (staged / QUANTISED_FILE).write_bytes(packed(tensors))
    return folder


def _tensors_of(model: ListConModel) -> dict[str, Tensor]:
    """The weights of a model by name, float32, on the CPU."""
    return {key: value.detach().float().cpu().contiguous() for key, value in model.state_dict().items()}


@contextmanager
def _staged(model: ListConModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Iterator[Path]:
    """A temporary folder with configuration and tokenizer; what is in it at the end moves to `folder`.

    Weights of another format that were there before go, so that the folder holds one model.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        staged = Path(temporary)
        model.config.encoder.save_pretrained(staged)
        tokenizer.save_pretrained(staged)
        yield staged
        folder.mkdir(exist_ok=True)
        for name in _ENCODER_FILES:
            if not (staged / name).exists():
                (folder / name).unlink(missing_ok=True)
        for path in staged.iterdir():
            path.chmod(0o644)  # safetensors writes 0600
            path.replace(folder / path.name)


def _encoder_file(folder: Path) -> Path:
    for name in _ENCODER_FILES:
        if (folder / name).exists():
            return folder / name
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise ListconError(f"no weights in {folder}: expected one of {', '.join(_ENCODER_FILES)}; found {found}")


def _read_layout_1(folder: Path) -> dict[str, Tensor]:
    """Read the three files of layout 1 under the names of layout 2, each part with its own prefix."""
    for name in (_LIST_FILE, _LINEAR_FILE):
        if not (folder / name).exists():
            raise ListconError(f"{folder} lacks {name}: a checkpoint of layout 1 has {_LIST_FILE} and {_LINEAR_FILE}")
    tensors = {f"encoder.{key}": value for key, value in _read_tensors(_encoder_file(folder)).items()}
    tensors |= {f"linear_in_embedding.{key}": value for key, value in _read_tensors(folder / _LINEAR_FILE).items()}
    return tensors | _read_tensors(folder / _LIST_FILE)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.name.endswith(".index.json"):
            shards = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
            return {key: value for shard in shards for key, value in _read_tensors(path.parent / shard).items()}
        if path.name == QUANTISED_FILE:
            return unpacked(path.read_bytes())
        loaded = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except _UNREADABLE as error:
        raise ListconError(f"cannot read the weights {path}: {str(error).splitlines()[0]}") from error
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ListconError(f"{path} holds a {type(loaded).__name__}: expected a dictionary of tensors")
    return dict(loaded)


def _prefix(keys: Iterable[str], ending: str, folder: Path) -> str:
    """What stands before `ending` in the one key that ends so: where a part of the checkpoint lives."""
    found = [key for key in keys if key == ending or key.endswith("." + ending)]
    if len(found) != 1:
        what = "no key ends" if not found else f"{len(found)} keys end ({', '.join(found)})"
        raise ListconError(f"{folder} is no ListConRanker checkpoint: {what} in {ending}")
    return found[0].removesuffix(ending)


def _place(tensors: Mapping[str, Tensor], folder: Path) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Give every tensor its name in `ListConModel`: (placed, ignored keys, keys without a place)."""
    ways = (
        (_prefix(tensors, "embeddings.word_embeddings.weight", folder), "encoder."),
        (_prefix(tensors, "linear_in_embedding.weight", folder), ""),
        (_prefix(tensors, "query_embedding.query_embedding.weight", folder), ""),
    )
    known = re.compile(
        r"encoder\.(embeddings|encoder)\.|linear_in_embedding\.|query_embedding\.|linear_score[123]\.|list_transformer\.layers\.\d+\."
    )
    placed: dict[str, Tensor] = {}
    ignored: list[str] = []
    unexpected: list[str] = []
    for key, tensor in tensors.items():
        names = [target + key.removeprefix(prefix) for prefix, target in ways if key.startswith(prefix)]
        if any(name.startswith(_IGNORED_NAMES) for name in names):
            ignored.append(next(name for name in names if name.startswith(_IGNORED_NAMES)))
        elif name := next((name for name in names if known.match(name)), None):
            placed[name] = tensor
        else:
            unexpected.append(key)
    return placed, ignored, unexpected


def _config_of(encoder: BertConfig, placed: Mapping[str, Tensor], folder: Path) -> ListConConfig:
    layers = {int(match[1]) for key in placed if (match := re.match(r"list_transformer\.layers\.(\d+)\.", key))}
    if not layers:
        raise ListconError(f"{folder} is no ListConRanker checkpoint: it has no list_transformer.layers")
    inner = next(
        (value for key, value in placed.items() if re.match(r"list_transformer\.layers\.\d+\.linear1\.weight", key)),
        None,
    )
    return ListConConfig(
        encoder=encoder,
        list_width=placed["linear_in_embedding.weight"].shape[0],
        list_layers=max(layers) + 1,
        feedforward_width=inner.shape[0] if inner is not None else ListConConfig.feedforward_width,
    )


def _build(config: ListConConfig, placed: Mapping[str, Tensor], unexpected: list[str], folder: Path) -> ListConModel:
    try:
        with no_init_weights():  # every weight is about to be replaced: drawing 400 M numbers takes seconds
            model = ListConModel(config)
    except ValueError as error:
        raise ListconError(f"{folder}: {error}") from error
    expected = {key: value.shape for key, value in model.state_dict().items()}
    missing = sorted(set(expected) - set(placed))
    unexpected = sorted([*unexpected, *(set(placed) - set(expected))])
    misshaped = [
        f"{key}: {tuple(value.shape)} here, {tuple(expected[key])} by the configuration and the other weights"
        for key, value in sorted(placed.items())
        if key in expected and value.shape != expected[key]
    ]
    problems = [("missing", missing), ("unexpected", unexpected), ("of a wrong shape", misshaped)]
    if any(keys for _, keys in problems):
        parts = [f"{len(keys)} {what}:\n  " + "\n  ".join(keys) for what, keys in problems if keys]
        raise ListconError(f"the weights in {folder} do not make a ListConRanker; keys " + "\nkeys ".join(parts))
    model.load_state_dict({key: _aligned(value.float()) for key, value in placed.items()}, assign=True)
    return model.eval()


def _aligned(tensor: Tensor) -> Tensor:
    """A tensor at the start of a vector register's width in memory; a copy, where a file has it elsewhere.

    Matrix products round by where their operands begin: one model would have other scores from another file.
    """
    return tensor if tensor.data_ptr() % _ALIGNMENT == 0 else tensor.clone()
