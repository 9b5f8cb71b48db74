"""Embedding models: a similarity between the embeddings of query and passage, each made without the other.

Loading, prompts and similarity are mteb's: by its registry for the models it has, as a sentence-transformers model for
every other folder or hub id.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from mteb.types import PromptType
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from listcon_eval.errors import ListconError
from listcon_eval.model.checkpoint import check_token_ids, check_tokenizer, holds_listconranker, load_checkpoint
from listcon_eval.mteb_compat import registered_model
from listcon_eval.ordering import ranked_list
from listcon_eval.records import CandidateList
from listcon_eval.systems.base import LoadOptions, RankContext, Ranking
from listcon_eval.systems.network import (
    NetworkSystem,
    TokenCounts,
    check_length,
    check_weights,
    count_tokens,
    in_batches,
    loading,
    observed_tokens,
    own_length,
)
from listcon_eval.systems.resolve import ModelSpec, read_json

if TYPE_CHECKING:
    from mteb.models import EncoderProtocol, ModelMeta

logger = logging.getLogger(__name__)

_SETTINGS = "config_sentence_transformers.json"


class Embedding(NetworkSystem):
    """An embedding model. Every distinct query and every distinct passage is encoded once.

    Of a ListConRanker it is the encoder alone, with the mean of the tokens and cosine similarity: what the list
    transformer starts from.

    Raises:
        ListconError: the model cannot be loaded, would run code of its own, or is not on this machine.
    """

    kind = "embedding"
    frameworks = ("Sentence Transformers", "PyTorch")

    encoder: "EncoderProtocol"

    def _network(self, spec: ModelSpec, options: LoadOptions, device: torch.device, dtype: torch.dtype) -> nn.Module:
        # What mteb has for a ListConRanker loads all of it, and not the encoder alone.
        meta = None if holds_listconranker(self._source.folder) else registered_model(self._source.hub_id)
        if meta is not None and meta.loader_kwargs.get("trust_remote_code"):
            raise ListconError(
                f"mteb loads {meta.name} by code of its repository (trust_remote_code), and this package runs no code "
                "of a checkpoint: score it elsewhere and give the TREC run file"
            )
        with loading(spec, "an embedding model", dtype) as self._loaded, self._encoder_folder() as folder:
            if meta is None or meta.loader is SentenceTransformerEncoderWrapper:
                self.encoder = _sentence_transformers(str(folder), device, meta)
            else:
                loaded: Any = meta.model_copy(update={"revision": self._source.revision}).load_model(device=str(device))
                self.encoder = loaded
            model = _network_of(self.encoder, spec)
            # Embeddings are pooled over tokens by a module of their own, so BERT's pooler takes no part.
            check_weights(self._source.folder, self._loaded, () if _uses_pooler(model) else ("pooler.",))
            tokenizer = getattr(model, "tokenizer", None)
            self._tokenizer = tokenizer if isinstance(tokenizer, PreTrainedTokenizerBase) else None
            if self._tokenizer is not None:
                check_tokenizer(self._tokenizer, self._source.folder)
                for loaded_network in self._loaded:
                    check_token_ids(self._tokenizer, loaded_network.network.config, self._source.folder)
            unused = _unused_prompts(model)
        if unused:
            logger.warning(
                "%s: its prompts %s are not used: only those named query, document (passage, corpus), or after a task "
                "or task type are. If queries or passages need one, name it so in config_sentence_transformers.json",
                self._source.folder,
                ", ".join(map(repr, unused)),
            )
        network = self._loaded[0].network if self._loaded else None
        shortest = 1 + (self._tokenizer.num_special_tokens_to_add() if self._tokenizer is not None else 0)
        own = own_length(getattr(model, "max_seq_length", None), network, self._source.folder, shortest)
        self._usual_length = self.max_length = own
        if options.max_length is not None:
            longest = own if hasattr(model, "max_seq_length") else 0  # a model that cannot be told takes none
            self.max_length = check_length(options.max_length, shortest, longest, self._source.folder)
        if self._tokenizer is not None:
            changed: Any = model  # a property of sentence-transformers' models
            changed.max_seq_length = self.max_length
        return model

    def _try(self) -> None:
        model: Any = self.model
        if hasattr(model, "default_prompt_name"):  # one of sentence-transformers; mteb loads others whole
            model.encode(["0"], show_progress_bar=False)

    @contextmanager
    def _encoder_folder(self) -> Iterator[Path]:
        """The model's folder; of a ListConRanker, one that holds its encoder and tokenizer alone."""
        if not holds_listconranker(self._source.folder):
            yield self._source.folder
            return
        checkpoint = load_checkpoint(self._source)
        self.name += "-encoder"
        with TemporaryDirectory() as folder:
            checkpoint.model.encoder.save_pretrained(folder)
            checkpoint.tokenizer.save_pretrained(folder)
            yield Path(folder)

    def _rank(self, lists: Sequence[CandidateList], mode: str, context: RankContext) -> Ranking:
        """Encode what the lists hold, and compare."""
        texts = {
            PromptType.query: list(dict.fromkeys(row.query for row in lists)),
            PromptType.document: list(dict.fromkeys(text for row in lists for text in row.passages)),
        }
        prompts = {side: self._prompt(side, context) for side in texts}
        with context.phases.measured("tokenise"):
            counts = {side: count_tokens(self._tokenizer, texts[side]) for side in texts}
        observed = {"prompts": {side.value: prompts[side] for side in texts}, **self._count(counts, prompts, context)}
        # Side -> text -> its embedding, (D,).
        embedded: dict[PromptType, dict[str, NDArray[np.float32]]] = {side: {} for side in texts}
        tokens = {side: np.minimum(counts[side].lengths, self.max_length) for side in texts}
        done, total = 0, sum(int(lengths.sum()) for lengths in tokens.values()) or 1
        for side, own in texts.items():
            lengths = tokens[side]
            units = [(text,) for text in own]
            name, part = f"embeddings-{side.value}", _part(side, context)
            for chunk, found in self._in_chunks("encode", name, units, lengths, self.embed, context, part):
                # A copy: what a worker sends lies in memory that is to be given back.
                embedded[side] |= zip((own[place] for place in chunk), np.array(found), strict=True)
                done += int(lengths[chunk].sum())
                context.progress("encode", done, total)
        ranked = []
        for row in lists:
            with context.phases.measured("compare"):
                # A product's last bits may depend on a row's place: equal texts get one score by being compared once.
                distinct = {text: place for place, text in enumerate(dict.fromkeys(row.passages))}
                similarities = self.encoder.similarity(
                    embedded[PromptType.query][row.query][np.newaxis],  # (1, D)
                    np.stack([embedded[PromptType.document][text] for text in distinct]),  # (P, D)
                )
                scores = torch.as_tensor(similarities)[0].double().tolist()
                ranked.append(ranked_list([scores[distinct[text]] for text in row.passages]))
        return Ranking(ranked, {}, observed)

    def _count(
        self, counts: Mapping[PromptType, TokenCounts], prompts: Mapping[PromptType, str | None], context: RankContext
    ) -> dict[str, Any]:
        """The shares of unknown tokens and of texts that are cut."""
        whole = TokenCounts(*(np.concatenate(of_sides) for of_sides in zip(*counts.values(), strict=True)))
        cut = 0
        if self._tokenizer is not None:
            special = self._tokenizer.num_special_tokens_to_add()
            for side, of_side in counts.items():
                added = special + int(count_tokens(self._tokenizer, [prompts[side] or ""]).lengths[0])
                cut += int((of_side.lengths + added > self.max_length).sum())
        return observed_tokens(context, self.name, whole, len(whole.lengths), cut)

    def embed(self, units: Sequence[tuple[str, ...]], longest: int, part: Mapping[str, Any]) -> NDArray[np.float32]:
        """The embeddings of a chunk of queries or documents, (N, D); `longest` is the tokens of the longest."""
        texts = [text for (text,) in units]
        encoded = in_batches(self.budget, longest, lambda size: self._call_encoder(texts, size, part))
        return torch.as_tensor(encoded).detach().cpu().float().numpy()

    def _call_encoder(self, texts: Sequence[str], size: int, part: Mapping[str, Any]) -> Any:  # noqa: ANN401 - an array
        from datasets import Dataset
        from torch.utils.data import DataLoader

        return self.encoder.encode(
            DataLoader(Dataset.from_dict({"text": list(texts)}), batch_size=size),
            **part,
            batch_size=size,
            show_progress_bar=False,
        )

    def _prompt(self, side: PromptType, context: RankContext) -> str | None:
        """The text that the model's loader puts before queries or documents; None where it does so by itself.

        The loader is called with sentence-transformers' `encode` replaced by a note of its arguments: each loader of
        mteb finds its prompts in its own way.
        """
        model: Any = self.model
        found: list[str | None] = []

        def encode(
            inputs: Sequence[str], *, prompt: str | None = None, prompt_name: str | None = None, **_: object
        ) -> object:
            name = prompt_name or model.default_prompt_name
            found.append(prompt if prompt is not None else model.prompts.get(name, "") if name else "")
            return np.zeros((len(inputs), 1), dtype=np.float32)

        if not hasattr(model, "default_prompt_name"):
            return None
        model.encode = encode
        try:
            self._call_encoder([""], 1, _part(side, context))
        finally:
            del model.encode
        return found[0] if found else None

    def provenance(self) -> Mapping[str, Any]:
        """The model's files, similarity and prompts."""
        return {
            **super().provenance(),
            "loader": type(self.encoder).__name__,
            "similarity": str(getattr(self.model, "similarity_fn_name", None) or "the model's own"),
            "prompts": {name: text for name, text in (getattr(self.model, "prompts", None) or {}).items() if text},
        }


def _part(side: PromptType, context: RankContext) -> dict[str, Any]:
    """What mteb's models are told of the texts that they encode."""
    return {
        "task_metadata": context.task,
        "hf_split": context.split,
        "hf_subset": context.subset,
        "prompt_type": side,
    }


def _sentence_transformers(folder: str, device: torch.device, meta: "ModelMeta | None") -> "EncoderProtocol":
    from sentence_transformers import SentenceTransformer

    arguments = dict(meta.loader_kwargs) if meta else {}
    prompts = arguments.pop("model_prompts", None)
    model = SentenceTransformer(folder, device=str(device), local_files_only=True, **arguments)
    stated = read_json(Path(folder) / _SETTINGS).get("similarity_fn_name")
    if stated not in (None, model.similarity_fn_name) and "similarity_fn_name" not in arguments:
        raise ListconError(
            f"{folder}/{_SETTINGS} names the similarity {stated!r}, which sentence-transformers does not have for "
            f"embeddings of texts: it would take {model.similarity_fn_name}"
        )
    if not model.prompts.get("document"):
        # sentence-transformers' other names for it: an empty "document", which it adds by itself, hides them
        model.prompts["document"] = next(filter(None, map(model.prompts.get, ("passage", "corpus"))), "")
    return SentenceTransformerEncoderWrapper(model, model_prompts=prompts)


def _network_of(encoder: "EncoderProtocol", spec: ModelSpec) -> nn.Module:
    """The network behind a model of mteb: without one there is no dtype, device or hash to speak of."""
    network = getattr(encoder, "model", None)
    if not isinstance(network, nn.Module) or not callable(getattr(encoder, "encode", None)):
        raise ListconError(
            f"{spec.given}: mteb loads it as a {type(encoder).__name__}, which is no network on this machine: score "
            "it elsewhere and give the TREC run file"
        )
    return network


def _unused_prompts(model: nn.Module) -> list[str]:
    """Names of prompts that neither mteb nor sentence-transformers gives to queries or documents: a default, too."""
    named: Any = getattr(model, "prompts", None) or {}
    given = {name: prompt for name, prompt in named.items() if prompt}
    known, _ = AbsEncoder.validate_task_to_prompt_name(given, raise_for_invalid_keys=False)
    return sorted(given.keys() - {*(known or ()), "passage", "corpus"})


def _uses_pooler(model: nn.Module) -> bool:
    """Whether a module of sentence-transformers takes what BERT's pooler gives instead of the tokens."""
    for module in model.modules():
        for modality in getattr(module, "modality_config", {}).values():
            if "pooler" in str(modality.get("method_output_name")):
                return True
    return False
