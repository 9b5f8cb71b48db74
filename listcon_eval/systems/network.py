"""What systems that run a network share: how weights are loaded and checked, chunks and batches, counts of tokens."""

import logging
import pickle
import re
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from listcon_eval.errors import ListconError, count_of, first_line
from listcon_eval.files import sha256_of_folder, sha256_of_texts
from listcon_eval.inference.chunks import chunk_results
from listcon_eval.inference.devices import choose_device, resolve_dtype
from listcon_eval.inference.memory import BatchBudget, Budgets, chunk_tokens
from listcon_eval.model.architecture import max_tokens
from listcon_eval.model.checkpoint import DECISIVE_SUFFIXES
from listcon_eval.systems.base import LoadOptions, RankContext, System, observed_texts
from listcon_eval.systems.resolve import ModelSpec, model_name, model_revision

logger = logging.getLogger(__name__)

_UNKNOWN_REFUSED = 0.5

T = TypeVar("T")

_USUAL_LENGTH = 512  # of a model that states none


class LoadedNetwork(NamedTuple):
    """A network that transformers has loaded, by its own report."""

    network: PreTrainedModel
    missing: list[str]  # names of its weights that the files lack or have in another shape: they are drawn at random
    unused: list[str]  # names of weights in the files that the network has no place for


@contextmanager
def loading(spec: ModelSpec, what: str, dtype: torch.dtype) -> Iterator[list[LoadedNetwork]]:
    """Load a model (`what`, in messages) by any library, and yield a list that fills with transformers' networks.

    The libraries above transformers do not pass on its report of missing weights, so its `from_pretrained` is wrapped
    meanwhile. It also gets the dtype: casting a loaded network would round its rotary tables, which otherwise stay
    float32. Weights whose names in the files have a prefix more (`module.`, `_orig_mod.`) are read under it.

    Raises:
        ListconError: the model cannot be loaded; whatever a library raises becomes one message.
    """
    folder = spec.model_source().folder
    library: Any = PreTrainedModel
    original = library.__dict__["from_pretrained"]
    loaded: list[LoadedNetwork] = []

    def from_pretrained(cls: type, *args: Any, **kwargs: Any) -> object:  # noqa: ANN401 - those of transformers
        kwargs.pop("torch_dtype", None)
        load = original.__get__(None, cls)
        kwargs |= {"dtype": dtype, "output_loading_info": True, "ignore_mismatched_sizes": True}
        network, info = load(*args, **kwargs)
        if info["missing_keys"] and (renaming := _renaming(network, info["missing_keys"], info["unexpected_keys"])):
            logger.info("%s: reading weights under the prefix %s", folder, ", ".join(renaming))
            network, info = load(*args, **kwargs, key_mapping=renaming)
        misshaped = {
            f"{name} ({tuple(stored)} in the files, {tuple(own)} by config.json)"
            for name, stored, own in info["mismatched_keys"]
        }
        missing = {*info["missing_keys"], *misshaped}
        loaded.append(LoadedNetwork(network, sorted(missing), sorted(info["unexpected_keys"])))
        return network

    library.from_pretrained = classmethod(from_pretrained)
    try:
        with _quiet():
            yield loaded
    except ListconError:
        raise
    except Exception as error:  # what a damaged file raises differs by file and library
        first = first_line(error)
        if isinstance(error, pickle.UnpicklingError):  # torch's own message advises to run the file's code
            first = "its weights are no pickle of tensors alone, and no other kind is read"
        raise ListconError(
            f"{spec.given} cannot be loaded as {what} (from {folder}): {first}; check its files, or say with "
            "--kind what it is"
        ) from error
    finally:
        library.from_pretrained = original


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress bars, reports and warnings of the libraries."""
    library: Any = transformers_logging
    bars = library.is_progress_bar_enabled()
    levels = {name: logging.getLogger(name).level for name in ("transformers", "mteb", "sentence_transformers")}
    library.disable_progress_bar()
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if bars:
            library.enable_progress_bar()


def _renaming(network: PreTrainedModel, missing: set[str], unused: set[str]) -> dict[str, str]:
    """The prefix under which the files have the missing weights, as transformers' `key_mapping`.

    It is empty when no prefix gives the missing weights, or more than one does.
    """
    base = f"{network.base_model_prefix}."
    covered: dict[tuple[str, str], set[str]] = {}
    for name in missing:
        # Files of a classifier may hold its base network without the name that it has in the classifier.
        targets = ("", base) if name.startswith(base) else ("",)
        for target in targets:
            ending = name.removeprefix(target)
            for stored in unused:
                if stored.endswith(f".{ending}"):
                    covered.setdefault((stored.removesuffix(ending), target), set()).add(stored)
    if not covered:
        return {}
    most = max(map(len, covered.values()))
    best = [renaming for renaming, stored in covered.items() if len(stored) == most]
    if len({frozenset(covered[renaming]) for renaming in best}) > 1:
        return {}  # two networks of one shape in one file
    prefix, target = min(best, key=lambda renaming: len(renaming[0]))
    return {f"^{re.escape(prefix)}": target}


def check_weights(folder: Path, loaded: Sequence[LoadedNetwork], optional: tuple[str, ...] = ()) -> None:
    """Refuse networks that lack weights, beside those under `optional` prefixes, or have some that are not finite."""
    for network, missing, unused in loaded:
        needed = [name for name in missing if not name.startswith(optional or "\0")]
        if needed:
            found = f" The files have others that do not fit, such as {unused[0]}." if unused else ""
            shown = ", ".join(needed[:4]) + (", ..." if len(needed) > 4 else "")
            raise ListconError(
                f"the files in {folder} lack {count_of(len(needed), 'weight')} of a {type(network).__name__}: {shown}. "
                f"They would be random numbers, and so would the scores.{found} Give a model whose weights are complete"
            )
        for name, weight in network.named_parameters():
            if weight.is_floating_point() and not torch.isfinite(weight).all():
                raise ListconError(
                    f"the weight {name} in {folder} holds NaN or infinity as {_dtype_name(weight)}: the file is "
                    "damaged, or its values are too large for this format (then --dtype float32 helps)"
                )


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def own_length(stated: float | None, network: nn.Module | None, folder: Path, shortest: int) -> int:
    """The tokens that a model reads: what its files state, cut to what the network has positions for.

    Raises:
        ListconError: they state no number, or one with which nothing is read.
    """
    if stated is not None and not (isinstance(stated, int | float) and stated >= shortest):
        raise ListconError(
            f"the files in {folder} say that texts are cut to {stated!r} tokens (max_seq_length or model_max_length): "
            f"give {shortest} or more, with which a text is read"
        )
    usable = max_tokens(network) if network is not None else None
    if stated is None or stated > 2**31:  # transformers' way to say that a tokenizer states none
        return usable or _USUAL_LENGTH
    if usable is not None and stated > usable:
        logger.warning("%s: texts are cut to the %d tokens that it has positions for, not %d", folder, usable, stated)
        return usable
    return int(stated)


def check_length(length: int, shortest: int, longest: int, folder: Path) -> int:
    """Return a length that was asked for, if the model takes it."""
    if not shortest <= length <= longest:
        raise ListconError(f"max_length is {length}: the model in {folder} takes {shortest} to {longest} tokens")
    return length


def in_batches(budget: BatchBudget, longest: int, work: Callable[[int], T]) -> T:
    """Call `work` with how many units of `longest` tokens fit a batch; with fewer while the device is out of memory."""
    longest = max(1, longest)
    while True:
        size = max(1, budget.size // longest)
        try:
            return work(size)
        except torch.OutOfMemoryError as error:
            budget.halve(size * longest, size, error)


class TokenCounts(NamedTuple):
    """The tokens of N texts, without special ones and before they are cut, and those that are unknown: (N,) each."""

    lengths: NDArray[np.int64]
    unknown: NDArray[np.int64]


def count_tokens(tokenizer: PreTrainedTokenizerBase | None, texts: Sequence[str]) -> TokenCounts:
    """Count the tokens of texts; characters where there is no tokenizer."""
    if tokenizer is None:
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        return TokenCounts(lengths, np.zeros_like(lengths))
    counts = np.zeros((2, len(texts)), dtype=np.int64)
    for start in range(0, len(texts), 256):
        part = list(texts[start : start + 256])
        rows: Any = tokenizer(part, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        counts[:, start : start + 256] = [list(map(len, rows)), [row.count(tokenizer.unk_token_id) for row in rows]]
    return TokenCounts(*counts)


def observed_tokens(context: RankContext, name: str, counts: TokenCounts, units: int, cut: int) -> dict[str, Any]:
    """As `observed_texts`, of counted tokens.

    Raises:
        ListconError: most of the tokens are unknown to the tokenizer.
    """
    unknown = int(counts.unknown.sum()) / max(1, int(counts.lengths.sum()))
    if unknown > _UNKNOWN_REFUSED:
        raise ListconError(
            f"{context.task.name}: {100 * unknown:.1f} % of all tokens are unknown to the tokenizer of {name}: it is "
            f"not this model's, or not for this language; check the tokenizer's files"
        )
    return observed_texts(context, name, unknown, units, cut)


class NetworkSystem(System):
    """A network loaded from a model's files.

    Raises:
        ListconError: it cannot be loaded, lacks weights, reads no text, or does not take the length that was asked for.
    """

    packages = ("torch", "transformers", "sentence-transformers")
    load_options = frozenset({"device", "dtype", "max_length", "workers"})
    frameworks: ClassVar[tuple[str, ...]]

    model: nn.Module  # on its device and in its number format
    max_length: int  # tokens a text, or a pair of them, is cut to
    _usual_length: int | None  # the same unless another length was asked for

    def __init__(self, spec: ModelSpec, options: LoadOptions) -> None:
        device = choose_device(options.device)
        self.dtype = resolve_dtype(options.dtype, device)
        if self.dtype == "float16" and device.type == "cpu":
            logger.warning("float16 is slow on a CPU: --dtype float32 is faster here")
        self.device = str(device)
        self._source = spec.model_source()
        self._weights_sha256 = sha256_of_folder(self._source.folder, DECISIVE_SUFFIXES)
        self.name = model_name(self._source)
        self.revision = model_revision(self._source, self._weights_sha256)
        self.budget = BatchBudget(device, Budgets.for_device(device).tokens)
        dtype = getattr(torch, self.dtype)
        self._loaded: list[LoadedNetwork] = []
        self.model = self._network(spec, options, device, dtype)
        # Dense layers around the networks of transformers, which have their dtype already.
        cast = {id(parameter) for loaded in self._loaded for parameter in loaded.network.parameters()}
        for parameter in self.model.parameters():
            if id(parameter) not in cast:
                parameter.data = parameter.data.to(dtype)
        self.model.to(device).eval()
        self.chunk_tokens = chunk_tokens(self.budget.size, self.model, device)
        try:
            self._try()
        except Exception as error:  # what parts that do not fit each other raise differs by library
            raise ListconError(
                f"{spec.given} was loaded, but reads no text: {first_line(error)}; check that the files in "
                f"{self._source.folder} belong together"
            ) from error

    @classmethod
    def load(cls, spec: ModelSpec, options: LoadOptions) -> Self:
        """Load the model."""
        return cls(spec, options)

    @abstractmethod
    def _network(self, spec: ModelSpec, options: LoadOptions, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """Load the network, set `max_length`, `_usual_length` and `_loaded`, and return it."""

    @abstractmethod
    def _try(self) -> None:
        """Read a short text: parts that do not fit each other should show before the long work."""

    def _in_chunks(
        self,
        phase: str,
        name: str,
        units: Sequence[tuple[str, ...]],
        lengths: NDArray[np.int64],
        work: Callable[..., NDArray[np.float32]],
        context: RankContext,
        *arguments: object,
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """The places of a chunk's units, and what `work`, a worker or the cache gives for them, chunk by chunk.

        The longest units come first: what does not fit into memory shows at the start, and a batch has little padding.
        A unit is a text, or a pair of texts, of `lengths` tokens, (N,). `work` is a method of this system; it takes
        units, the tokens of the longest, and `arguments`. The cache keeps its results by `name` and texts.
        """
        order = np.argsort(-lengths, kind="stable")
        numbers = np.cumsum(lengths[order]) // self.chunk_tokens
        chunks = np.split(order, np.flatnonzero(np.diff(numbers)) + 1) if len(order) else []

        def units_of(place: int) -> list[tuple[str, ...]]:
            return [units[unit] for unit in chunks[place]]

        def name_of(place: int) -> str:
            return f"{name}-{sha256_of_texts(text for unit in units_of(place) for text in unit)[:32]}"

        for place, found in chunk_results(
            [name_of(place) if context.cache is not None else "" for place in range(len(chunks))],
            lambda place: (units_of(place), int(lengths[chunks[place][0]]), *arguments),
            work,
            phase=phase,
            phases=context.phases,
            cache=context.cache,
            workers=context.workers,
        ):
            yield chunks[place], found

    def path_settings(self) -> Mapping[str, Any]:
        """A length other than the usual one."""
        return {} if self.max_length == self._usual_length else self.settings()

    def settings(self) -> Mapping[str, Any]:
        """Tokens a text is cut to."""
        return {"max_length": self.max_length}

    def key(self) -> Mapping[str, Any]:
        """Weights; prompts are files of the model, too."""
        return {"weights": self._weights_sha256}

    def provenance(self) -> Mapping[str, Any]:
        """The model's files."""
        return {
            "location": str(self._source.folder),
            "weights_sha256": self._weights_sha256,
            "weights_dtype": _dtype_name(next(self.model.parameters())),
            "unused_weights": [name for loaded in self._loaded for name in loaded.unused],
        }

    def model_metadata(self) -> Mapping[str, Any]:
        """Its size."""
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        return {
            "n_parameters": parameters,
            "memory_usage_mb": round(parameters * 4 / 2**20, 1),
            "max_tokens": self.max_length,
            "framework": list(self.frameworks),
            "model_type": ["dense" if self.kind == "embedding" else self.kind],
        }
