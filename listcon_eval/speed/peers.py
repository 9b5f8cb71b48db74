"""The engine beside what people would use instead, on a CPU in float32: the same texts, weights and threads, in turns.

Each has a process of its own, so that its peak memory is its own. Needs the extra `peers`.

sentence-transformers loads models for ONNX Runtime and OpenVINO through optimum, and no release of optimum for either
supports the transformers that this package needs. So the encoder is exported here, by the exporters of torch and of
OpenVINO, and takes the place of the torch model within sentence-transformers, which does all else: it tokenises, sorts
by length, pads batches of 32 and pools.
"""

import logging
import multiprocessing
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import logging as transformers_logging

from listcon_eval.errors import ListconError
from listcon_eval.inference.encoder import distance
from listcon_eval.inference.features import FeatureStore
from listcon_eval.inference.memory import host_peak, reset_peak
from listcon_eval.inference.ranker import EncodedLists, ListConRanker
from listcon_eval.inference.tokens import index_texts
from listcon_eval.model import load_checkpoint
from listcon_eval.mteb_compat import listconranker_loop
from listcon_eval.ordering import ranked_list
from listcon_eval.progress import RunProgress, no_progress
from listcon_eval.records import Mode, RankedList
from listcon_eval.speed.procedure import Agreement, PublishedProcedure, compare_rankings
from listcon_eval.speed.workload import Workload

_NEEDED = ("onnxruntime", "onnxscript", "openvino")
_BATCH = 32  # texts, as sentence-transformers takes them
_INPUTS = ("input_ids", "attention_mask")
_ONNX, _OPENVINO = "encoder.onnx", "encoder.xml"

Features = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class PeerTiming:
    """One peer's figures.

    Attributes:
        name: what it is.
        seconds: its time in each repeat.
        peak: the most host memory of its process while it worked, in bytes, the model included.
        agreement: how its rankings agree with the reference's.
        difference: the largest distance of a feature from the one in float64, as a share of its length; None for what
            gives scores.
    """

    name: str
    seconds: tuple[float, ...]
    peak: int
    agreement: Agreement
    difference: float | None = None


@dataclass(frozen=True)
class PeerComparison:
    """Peers on one workload, the engine first in both.

    Attributes:
        encoders: from texts to features, on the whole workload. The reference is transformers' model in float64;
            rankings are those that the list transformer makes of the features.
        rankers: from texts to scores, on `queries` lists of it. The reference is the published procedure.
        queries: the number of those lists.
    """

    encoders: tuple[PeerTiming, ...]
    rankers: tuple[PeerTiming, ...]
    queries: int


class _Job(NamedTuple):
    """What a peer is made of (the checkpoint, the folder of exported encoders), and how it works."""

    checkpoint: Path
    exported: Path
    mode: Mode
    threads: int
    max_length: int


class _Turn(NamedTuple):
    """What a peer made of its texts or lists, the seconds it took, and its process's peak memory in bytes."""

    output: Any
    seconds: float
    peak: int


Peer = Callable[[_Job], Callable[[Any], Any]]


def check_peers(ranker: ListConRanker) -> None:
    """Raise a ListconError unless the extra `peers` is installed and the ranker is on a CPU in float32."""
    if absent := [name for name in _NEEDED if find_spec(name) is None]:
        raise ListconError(f"--peers needs {', '.join(absent)}: pip install 'listcon-eval[peers]'")
    if ranker.device.type != "cpu" or ranker.dtype != "float32":
        raise ListconError(
            f"--peers compares on a CPU in float32, and the model is on {ranker.device} in {ranker.dtype}: give "
            "--device cpu --dtype float32"
        )


def compare_peers(
    ranker: ListConRanker,
    workload: Workload,
    *,
    mode: Mode = "iterative",
    repeats: int = 3,
    reference_queries: int = 1,
    progress: RunProgress = no_progress,
) -> PeerComparison:
    """Measure the engine and its peers in turns. A first round, in which they load and warm up, is not counted.

    All take the checkpoint and `max_length` of a ranker that `check_peers` lets through. `reference_queries` lists,
    spread over the workload by size, are ranked from texts to scores.
    """
    texts, lists = index_texts(workload.queries, workload.passages)
    subset = workload.subset(workload.sample(reference_queries))
    rankers = _RANKERS if subset.queries else {}
    work: list[tuple[Peer, Any]] = [(peer, texts) for peer in _ENCODERS.values()]
    work += [(peer, subset) for peer in rankers.values()]
    with TemporaryDirectory(prefix="listcon-peers-") as exported, ExitStack() as stack:
        job = _Job(ranker.checkpoint.source.folder, Path(exported), mode, torch.get_num_threads(), ranker.max_length)
        with _process() as exporter:
            exporter.submit(_export, job).result()
            precise: Features = exporter.submit(_turn, _in_float64, job, texts).result().output
        processes = [stack.enter_context(_process()) for _ in work]
        turns: list[list[_Turn]] = [[] for _ in work]
        for number in range(repeats + 1):
            for process, (peer, given), own in zip(processes, work, turns, strict=True):
                own.append(process.submit(_turn, peer, job, given).result())
            progress("measuring the peers", (number + 1) / (repeats + 1))

    def ranked(features: Features) -> list[RankedList]:
        store = FeatureStore(len(texts), features.shape[1], torch.float32, ranker.device, features.nbytes)
        store.put(np.arange(len(texts)), torch.from_numpy(features).float())
        return ranker.rank_encoded(EncodedLists(texts, lists, store, 0, 0.0), mode)

    def timing(name: str, own: list[_Turn], agreement: Agreement, difference: float | None = None) -> PeerTiming:
        seconds = tuple(turn.seconds for turn in own[1:])
        return PeerTiming(name, seconds, max(turn.peak for turn in own), agreement, difference)

    expected, encoders = ranked(precise), []
    for name, own in zip(_ENCODERS, turns, strict=False):
        features: Features = own[0].output
        apart = distance(torch.from_numpy(features), torch.from_numpy(precise))
        agreement = compare_rankings(expected, ranked(features), workload.passages)
        encoders.append(timing(name, own, agreement, apart))
    of_rankers = dict(zip(rankers, turns[len(encoders) :], strict=True))
    return PeerComparison(
        tuple(encoders),
        tuple(
            timing(name, own, compare_rankings(of_rankers[_PROCEDURE][0].output, own[0].output, subset.passages))
            for name, own in of_rankers.items()
        ),
        len(subset.queries),
    )


def _process() -> ProcessPoolExecutor:
    """A process that starts with nothing loaded."""
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def _turn(peer: Peer, job: _Job, given: Any) -> _Turn:  # noqa: ANN401 - texts or lists
    """Let a peer work once in this process, where its first turn makes it."""
    work = _made(peer, job)
    start = time.perf_counter()
    output = work(given)
    return _Turn(output, time.perf_counter() - start, host_peak())


@cache
def _made(peer: Peer, job: _Job) -> Callable[[Any], Any]:
    _be_quiet()
    torch.set_num_threads(job.threads)
    work = peer(job)
    reset_peak(torch.device("cpu"))
    return work


def _be_quiet() -> None:
    logs: Any = transformers_logging
    logs.disable_progress_bar()
    logs.set_verbosity_error()  # a model's absent pooler takes no part


def _export(job: _Job) -> None:
    """Write the encoder with its projection as a sentence-transformers model, and its graph for the other backends."""
    import openvino
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling, Transformer

    _be_quiet()
    checkpoint = load_checkpoint(job.checkpoint)
    encoder, projection = checkpoint.model.encoder, checkpoint.model.linear_in_embedding
    with TemporaryDirectory() as plain:
        encoder.save_pretrained(plain)
        checkpoint.tokenizer.save_pretrained(plain)
        transformer = Transformer(plain, max_seq_length=job.max_length)
    dense = Dense(
        projection.in_features, projection.out_features, True, nn.Identity(), projection.weight, projection.bias
    )
    SentenceTransformer(modules=[transformer, Pooling(projection.in_features), dense]).save(str(job.exported))
    encoder.set_attn_implementation("eager")  # exported sdpa looks for NaN after each softmax: ONNX Runtime is slower
    ids = torch.full((2, 8), encoder.config.pad_token_id or 0)
    inputs = ids, torch.ones_like(ids).tril(4)  # padding in the example, so that the exporters keep the mask
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"):
        network = _HiddenStates(encoder).eval()
        torch.onnx.export(
            network,
            inputs,
            job.exported / _ONNX,
            input_names=_INPUTS,
            dynamic_shapes=({0: batch, 1: tokens},) * 2,
            verbose=False,
        )
        graph = openvino.convert_model(network, example_input=inputs, input=[openvino.PartialShape([-1, -1])] * 2)
        openvino.save_model(graph, job.exported / _OPENVINO, compress_to_fp16=False)


class _HiddenStates(nn.Module):
    """An encoder as a function of tensors alone, for the exporters."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self._encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden: Tensor = self._encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden


class _Exported(nn.Module):
    """An exported encoder in the place of a torch model, as optimum's classes are."""

    def __init__(self, run: Callable[[dict[str, NDArray[np.int64]]], NDArray[np.float32]]) -> None:
        super().__init__()
        self._run = run

    def forward(self, **inputs: Tensor) -> BaseModelOutput:
        hidden = self._run({name: inputs[name].numpy() for name in _INPUTS})
        return BaseModelOutput(last_hidden_state=torch.from_numpy(hidden))


def _onnxruntime(job: _Job) -> nn.Module:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    session = onnxruntime.InferenceSession(job.exported / _ONNX, options, providers=["CPUExecutionProvider"])
    return _Exported(lambda inputs: session.run(None, inputs)[0])


def _openvino(job: _Job) -> nn.Module:
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",  # as optimum sets it
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": job.threads,
    }
    compiled = openvino.Core().compile_model(job.exported / _OPENVINO, "CPU", settings)
    return _Exported(lambda inputs: compiled(list(inputs.values()))[0])


@dataclass(frozen=True)
class _SentenceTransformers:
    """The exported model in sentence-transformers. Equal when pickled, unlike a partial: a process makes it once."""

    backend: Callable[[_Job], nn.Module] | None

    def __call__(self, job: _Job) -> Callable[[list[str]], Features]:
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(job.exported), device="cpu")
        if self.backend is not None:
            transformer: Any = model[0]
            exported: Any = self.backend(job)
            exported.config = transformer.model.config
            transformer.model = exported
        return partial(model.encode, batch_size=_BATCH, show_progress_bar=False)


def _engine_features(job: _Job) -> Callable[[list[str]], Features]:
    ranker = _ranker(job)

    def encode(texts: list[str]) -> Features:
        encoded = ranker.encode([max(texts, key=len)], [texts])  # a query must not be empty
        features: Features = encoded.store.get(encoded.lists[0].passages).numpy()
        return features

    return encode


def _transformers(job: _Job, dtype: torch.dtype = torch.float32) -> Callable[[list[str]], Features]:
    """The model as transformers has it, on batches that are sorted by length and padded."""
    procedure = _procedure(job, dtype)

    def encode(texts: list[str]) -> Features:
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
        found = torch.cat([procedure.features([texts[place] for place in batch]) for batch in batches])
        features: Features = found[np.argsort(order)].numpy()
        return features

    return encode


_in_float64 = partial(_transformers, dtype=torch.float64)


def _engine_scores(job: _Job) -> Callable[[Workload], list[RankedList]]:
    ranker = _ranker(job)
    return lambda lists: ranker.rank_encoded(ranker.encode(lists.queries, lists.passages), job.mode)


def _published(job: _Job) -> Callable[[Workload], list[RankedList]]:
    procedure = _procedure(job)
    return lambda lists: procedure.rank_lists(lists, job.mode)


def _mteb(job: _Job) -> Callable[[Workload], list[RankedList]]:
    from datasets import disable_progress_bars

    disable_progress_bars()
    procedure = _procedure(job)

    def rank(query_and_passages: Sequence[str]) -> Sequence[float]:
        query, *passages = query_and_passages
        return procedure.rank(query, passages, job.mode).scores

    return lambda lists: list(map(ranked_list, listconranker_loop(rank, lists.queries, lists.passages)))


def _ranker(job: _Job) -> ListConRanker:
    return ListConRanker.from_pretrained(job.checkpoint, device="cpu", dtype="float32", max_length=job.max_length)


def _procedure(job: _Job, dtype: torch.dtype = torch.float32) -> PublishedProcedure:
    checkpoint = load_checkpoint(job.checkpoint)
    return PublishedProcedure(
        checkpoint.model.to(dtype), checkpoint.tokenizer, dtype="float32", max_length=job.max_length
    )


_ENCODERS: dict[str, Peer] = {
    "this engine": _engine_features,
    "sentence-transformers, torch": _SentenceTransformers(None),
    "sentence-transformers, ONNX Runtime": _SentenceTransformers(_onnxruntime),
    "sentence-transformers, OpenVINO": _SentenceTransformers(_openvino),
    "transformers, sorted and padded": _transformers,
}
_PROCEDURE = "published procedure"
_RANKERS: dict[str, Peer] = {
    "this engine": _engine_scores,
    _PROCEDURE: _published,
    "mteb's loop": _mteb,
}
