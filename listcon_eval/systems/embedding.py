"""Embedding models: a similarity between the embeddings of query and passage, each made without the other.

Loading, prompts and similarity are mteb's: by its registry for the models it has, as a sentence-transformers model for
every other folder or hub id.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from mteb.types import PromptType
from torch import nn

from listcon_eval.errors import ListconError
from listcon_eval.inference.features import FeatureStore
from listcon_eval.records import CandidateList, RankedList
from listcon_eval.systems.batches import chunk_name, chunks
from listcon_eval.systems.detection import Found, registered
from listcon_eval.systems.network import NetworkSystem
from listcon_eval.systems.system import Job, Options
from listcon_eval.systems.weights import check_weights, loading, quiet_loading

if TYPE_CHECKING:
    from mteb.models import EncoderProtocol, ModelMeta

_SPECIAL_TOKENS = 8  # and a short prompt: what a text may have beside its characters


class Embedding(NetworkSystem):
    """An embedding model. Every distinct query and every distinct passage is encoded once.

    Args:
        found: the model.
        options: device, precision, and perhaps a length below the model's own.

    Raises:
        ListconError: the model cannot be loaded, would run code of its own, or is not on this machine.
    """

    kind = "embedding"
    phase_names = ("encode", "compare")
    model_type = "dense"
    frameworks = ("Sentence Transformers", "PyTorch")

    def _network(self, found: Found, options: Options) -> nn.Module:
        self.encoder: EncoderProtocol = _load(found, self._device)
        model = _network_of(self.encoder, found)
        self._own_length: int | None = getattr(model, "max_seq_length", None)
        self.max_length = self._own_length
        if options.max_length is not None:
            self.max_length = _cut(model, options.max_length, self._own_length, found)
        return model

    def rank(self, lists: Sequence[CandidateList], mode: str, job: Job) -> list[RankedList]:
        """Encode what the lists hold, and compare."""
        del mode
        queries = {text: place for place, text in enumerate(dict.fromkeys(row.query for row in lists))}
        passages = {text: place for place, text in enumerate(dict.fromkeys(t for row in lists for t in row.passages))}
        total = len(queries) + len(passages)
        of_queries = self._encode(list(queries), PromptType.query, job, 0, total)
        of_passages = self._encode(list(passages), PromptType.document, job, len(queries), total)
        ranked = []
        for done, row in enumerate(lists, start=1):
            with self.phases.measured("compare"):
                # A product's last bits may depend on a row's place: equal texts get one score by being compared once.
                distinct = {text: place for place, text in enumerate(dict.fromkeys(row.passages))}
                similarities = self.encoder.similarity(
                    of_queries.get(np.array([queries[row.query]])),
                    of_passages.get(np.array([passages[text] for text in distinct])),
                )
                scores = torch.as_tensor(similarities)[0].double().tolist()
            ranked.append(RankedList(tuple(scores[distinct[text]] for text in row.passages), (0,) * len(row.passages)))
            job.progress("list", done, len(lists))
        return ranked

    def _encode(self, texts: list[str], side: PromptType, job: Job, before: int, total: int) -> FeatureStore:
        """Embeddings of distinct texts, in their order: (N, D), float32, on the CPU.

        Args:
            texts: N texts.
            side: whether they are queries or documents, which prompts may differ for.
            job: the job.
            before: texts that were encoded before these, for the progress.
            total: all texts to encode.
        """
        store: FeatureStore | None = None
        done = before
        for chunk in chunks([len(text) for text in texts], self._budgets):
            of_chunk = [texts[place] for place in chunk]
            name = chunk_name(f"embeddings-{side.value}", of_chunk)
            embeddings = job.journal.load(name) if job.journal else None
            if embeddings is None:
                with self.phases.measured("encode"):
                    embeddings = self._embeddings(of_chunk, side, job)
                if job.journal:
                    job.journal.save(name, embeddings)
            if store is None:
                width = embeddings.shape[1]
                budget = self._budgets.feature_bytes
                store = FeatureStore(len(texts), width, torch.float32, torch.device("cpu"), budget)
            store.put(chunk, torch.from_numpy(embeddings))
            done += len(chunk)
            job.progress("encode", done, total)
        if store is None:
            raise ListconError(f"{job.task.name}: there is no text to encode; give data with queries and candidates")
        return store

    def _embeddings(self, texts: list[str], side: PromptType, job: Job) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
        from datasets import Dataset
        from torch.utils.data import DataLoader

        longest = max(map(len, texts)) + _SPECIAL_TOKENS
        if self.max_length is not None:
            longest = min(longest, self.max_length)

        def work(size: int) -> Any:  # noqa: ANN401 - an array or a tensor: a model of mteb may give either
            return self.encoder.encode(
                DataLoader(Dataset.from_dict({"text": texts}), batch_size=size),
                task_metadata=job.task,
                hf_split=job.split,
                hf_subset=job.subset,
                prompt_type=side,
                batch_size=size,
                show_progress_bar=False,
            )

        embeddings = self._batches.run(longest, work)
        return torch.as_tensor(embeddings).detach().cpu().float().numpy()

    def experiment(self) -> Mapping[str, Any]:
        """A length other than the model's own."""
        return {} if self.max_length == self._own_length else self.settings()

    def _told(self) -> Mapping[str, Any]:
        return {"loader": type(self.encoder).__name__, "similarity": self._similarity()}

    def _similarity(self) -> str:
        return str(getattr(self.model, "similarity_fn_name", None) or "the model's own")


def _load(found: Found, device: torch.device) -> "EncoderProtocol":
    source = found.folder_of_model()
    meta = registered(source.hub_id)
    if meta is not None and meta.loader_kwargs.get("trust_remote_code"):
        raise ListconError(
            f"mteb loads {meta.name} by code of its repository (trust_remote_code), and this package runs no code of a "
            "checkpoint: score it elsewhere and give the TREC run file"
        )
    with loading(found.given, source.folder, "an embedding model"), quiet_loading(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mteb's, of its own deprecations
        if meta is None or meta.loader is SentenceTransformerEncoderWrapper:
            return _sentence_transformers(str(source.folder), device, meta)
        loaded: Any = meta.model_copy(update={"revision": source.revision}).load_model(device=str(device))
        encoder: EncoderProtocol = loaded  # `_network_of` makes sure
        return encoder


def _sentence_transformers(folder: str, device: torch.device, meta: "ModelMeta | None") -> "EncoderProtocol":
    from sentence_transformers import SentenceTransformer

    arguments = dict(meta.loader_kwargs) if meta else {}
    prompts = arguments.pop("model_prompts", None)
    model = SentenceTransformer(folder, device=str(device), local_files_only=True, **arguments)
    if model.transformers_model is not None:
        check_weights(Path(folder), model.transformers_model)
    return SentenceTransformerEncoderWrapper(model, model_prompts=prompts)


def _network_of(encoder: "EncoderProtocol", found: Found) -> nn.Module:
    """The network behind a model of mteb: without one there is no precision, device or hash to speak of."""
    network = getattr(encoder, "model", None)
    if not isinstance(network, nn.Module) or not callable(getattr(encoder, "encode", None)):
        raise ListconError(
            f"{found.given}: mteb loads it as a {type(encoder).__name__}, which is no network on this machine: score "
            "it elsewhere and give the TREC run file"
        )
    return network


def _cut(model: nn.Module, wanted: int, own: int | None, found: Found) -> int:
    if own is None or not 3 <= wanted <= own:
        raise ListconError(
            f"max_length is {wanted}: {found.given} takes {'no such setting' if own is None else f'3 to {own}'}"
        )
    cut: Any = model  # a property of sentence-transformers' models
    cut.max_seq_length = wanted
    return wanted
