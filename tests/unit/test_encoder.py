"""Every way of running the encoder computes the model's own features."""

import inspect
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn

from checkpoints import random_model
from listcon_eval.errors import ListconError
from listcon_eval.inference import encoder as module
from listcon_eval.inference.devices import cast_model
from listcon_eval.inference.encoder import (
    BACKEND_VARIABLE,
    BACKENDS,
    TOLERANCES,
    Backend,
    FastEncoder,
    OneDnnLinear,
    distance,
    onednn_is_faster,
    onednn_problem,
)
from listcon_eval.model import ListConModel
from listcon_eval.records import DTYPES, DType
from listcon_eval.speed.checks import LENGTHS, token_ids

VOCABULARY = 500
ON_CPU: tuple[Backend, ...] = ("plain", "onednn")
ids_of = partial(token_ids, vocabulary=VOCABULARY)


def features(model: ListConModel, ids: list[NDArray[np.int32]]) -> Tensor:
    """The definition: the model itself on a padded batch."""
    device = model.linear_in_embedding.weight.device
    padded = torch.full((len(ids), max(map(len, ids))), 17)  # padding is masked: any token will do
    mask = torch.zeros_like(padded)
    for row, text in enumerate(ids):
        padded[row, : len(text)] = torch.from_numpy(text)
        mask[row, : len(text)] = 1
    with torch.inference_mode():
        return model.features(padded.to(device), mask.to(device))


@pytest.fixture(scope="module")
def model() -> ListConModel:
    model = random_model(vocab_size=VOCABULARY)
    with torch.no_grad():  # biases and token types of a fresh BERT are 0 or alike: leaving one out would not show
        for parameter in model.encoder.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def needs(backend: Backend) -> None:
    if backend == "onednn" and (problem := onednn_problem(torch.float32)):
        pytest.skip(problem)


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_every_path_computes_the_models_features(model: ListConModel, backend: Backend, lengths: list[int]) -> None:
    needs(backend)
    encoder = FastEncoder.for_model(model, backend=backend)
    ids = ids_of(lengths)
    assert encoder.backend == backend
    torch.testing.assert_close(encoder.features(ids), features(model, ids), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ON_CPU)
def test_a_texts_features_do_not_depend_on_the_batch(model: ListConModel, backend: Backend) -> None:
    needs(backend)
    encoder = FastEncoder.for_model(model, backend=backend)
    ids = ids_of(LENGTHS["mixed, unsorted"])
    alone = torch.cat([encoder.features([text]) for text in ids])
    torch.testing.assert_close(encoder.features(ids), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ON_CPU)
def test_lists_of_ids_and_no_texts_at_all(model: ListConModel, backend: Backend) -> None:
    needs(backend)
    encoder = FastEncoder.for_model(model, backend=backend)
    ids = ids_of([4, 9])
    torch.testing.assert_close(encoder.features([text.tolist() for text in ids]), encoder.features(ids))
    assert encoder.features([]).shape == (0, model.config.list_width)


@pytest.mark.parametrize("backend", ON_CPU)
def test_a_bfloat16_encoder_under_a_float32_rest(backend: Backend) -> None:
    """Rounding to 8 bits at every step of 2 layers: 2 % of a feature's length here, and no more than 6 % anywhere."""
    if backend == "onednn" and (problem := onednn_problem(torch.bfloat16)):
        pytest.skip(problem)
    precise = random_model(vocab_size=VOCABULARY)
    model = random_model(vocab_size=VOCABULARY)
    torch.nn.Module.to(model.encoder, torch.bfloat16)
    ids = ids_of(LENGTHS["mixed, unsorted"])
    encoder = FastEncoder.for_model(model, backend=backend)
    found = encoder.features(ids)
    assert found.dtype == torch.float32
    expected = features(precise, ids)
    assert float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max()) < 0.04
    assert encoder.check(ids) < 0.06


def test_the_choice_on_a_cpu(model: ListConModel, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("onednn")
    monkeypatch.delenv(BACKEND_VARIABLE, raising=False)
    for faster, backend in ((True, "onednn"), (False, "plain")):
        monkeypatch.setattr(module, "onednn_is_faster", lambda faster=faster: faster)
        assert FastEncoder.for_model(model).backend == backend
    monkeypatch.setattr(module, "onednn_problem", lambda _: "not on this processor")
    assert FastEncoder.for_model(model).backend == "plain"


def test_the_variable_forces_a_backend_and_the_argument_goes_first(
    model: ListConModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("onednn")
    monkeypatch.setenv(BACKEND_VARIABLE, "plain")
    forced = FastEncoder.for_model(model)
    assert forced.backend == "plain"
    assert forced.describe() == ("plain: transformers' own model, padded; float32 on cpu (forced by LISTCON_ENCODER)")
    assert FastEncoder.for_model(model, backend="onednn").backend == "onednn"
    monkeypatch.setenv(BACKEND_VARIABLE, "")
    assert "forced" not in FastEncoder.for_model(model).describe()


def test_a_backend_that_is_unknown_or_impossible_is_an_error_that_says_what_is_possible(
    model: ListConModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BACKEND_VARIABLE, "fastest")
    with pytest.raises(ListconError, match=r"LISTCON_ENCODER asks for .*'fastest', which does not exist; .*plain"):
        FastEncoder.for_model(model)
    with pytest.raises(ListconError, match=r"the argument asks for .*'varlen'.* it is for CUDA.*possible here: plain"):
        FastEncoder.for_model(model, backend="varlen")
    monkeypatch.setattr(module, "onednn_problem", lambda _: "this torch is built without oneDNN")
    with pytest.raises(ListconError, match="'onednn', which cannot run here: this torch is built without oneDNN"):
        FastEncoder.for_model(model, backend="onednn")


@pytest.mark.parametrize(("name", "value"), [("hidden_act", "relu"), ("is_decoder", True)])
def test_an_encoder_of_another_kind_is_left_to_transformers(name: str, value: object) -> None:
    model = random_model(vocab_size=VOCABULARY)
    setattr(model.config.encoder, name, value)
    assert FastEncoder.for_model(model).backend == "plain"
    with pytest.raises(ListconError, match="only 'plain' has"):
        FastEncoder.for_model(model, backend="onednn")


@pytest.mark.parametrize("backend", ON_CPU)
def test_the_check_passes_and_says_how_far_apart_they_are(model: ListConModel, backend: Backend) -> None:
    needs(backend)
    assert FastEncoder.for_model(model, backend=backend).check(ids_of([3, 30, 12])) < 1e-5


@pytest.mark.parametrize("spoilt", ["position", "type", "bias", "norm"])
def test_the_check_refuses_to_go_on_when_the_features_differ(spoilt: str) -> None:
    """The plain model is changed after the fast one was made from it: as far apart as a mistake in a path would be."""
    model = random_model(vocab_size=VOCABULARY)
    encoder = FastEncoder.for_model(model, backend="onednn")
    encoded: Any = model.encoder  # whose attributes torch annotates as tensors or modules
    tables = encoded.embeddings
    with torch.no_grad():
        if spoilt == "position":
            tables.position_embeddings.weight.copy_(tables.position_embeddings.weight.roll(1, dims=0))
        elif spoilt == "type":
            tables.token_type_embeddings.weight[0] += torch.linspace(-0.1, 0.1, 64)
        elif spoilt == "bias":
            encoded.encoder.layer[0].attention.self.value.bias += 0.1
        else:
            encoder._bert._norm = torch.nn.LayerNorm(64, eps=1e-2)
    with pytest.raises(ListconError, match=r"'onednn' does not compute .* difference is .*LISTCON_ENCODER=plain"):
        encoder.check(ids_of([5, 20]))


def test_weights_that_are_no_numbers_are_not_blamed_on_the_backend() -> None:
    needs("onednn")
    model = random_model(vocab_size=VOCABULARY)
    encoded: Any = model.encoder
    with torch.no_grad():
        encoded.encoder.layer[0].attention.self.value.bias[3] = torch.nan
    with pytest.raises(ListconError, match=r"weights are not finite: encoder\.encoder\.layer\.0\.attention"):
        FastEncoder.for_model(model, backend="onednn").check(ids_of([5, 20]))


def test_onednn_is_tried_before_it_is_relied_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "float16" in (onednn_problem(torch.float16) or "")
    needs("onednn")

    class Other(OneDnnLinear):
        def gelu(self, rows: Tensor) -> Tensor:
            return functional.gelu(self(rows), approximate="tanh") * 1.01

    class Absent(OneDnnLinear):
        def __init__(self, weight: Tensor, bias: Tensor) -> None:
            raise AttributeError("no such operator")

    monkeypatch.setattr(module, "OneDnnLinear", Other)
    assert onednn_problem(torch.float32) == "this torch's oneDNN linears disagree with its plain ones"
    monkeypatch.setattr(module, "OneDnnLinear", Absent)
    assert "no such operator" in (onednn_problem(torch.float32) or "")


@pytest.mark.parametrize(("capability", "faster"), [("AVX512", True), ("AVX2", False), ("DEFAULT", False)])
def test_the_processor_decides_between_the_linears(
    capability: str, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert onednn_is_faster() is faster


def attention_text_by_text(*arguments: Any) -> Tensor:  # noqa: ANN401 - what the kernel is called with
    """What flash attention over packed texts computes, (R, A, H/A), text by text, and as strict as the kernel."""
    inspect.signature(varlen_attn).bind(*arguments)
    query, key, value, starts, same_starts, longest, same_longest = arguments
    assert type(longest) is type(same_longest) is int
    assert longest == same_longest == int(starts.diff().max())
    for offsets in (starts, same_starts):
        assert (offsets.dtype, offsets.dim(), offsets.is_contiguous()) == (torch.int32, 1, True)
        assert offsets.data_ptr() % 16 == 0
        assert (int(offsets[0]), int(offsets[-1])) == (0, len(query))
        assert int(offsets.diff().min()) > 0
    for rows in (query, key, value):
        assert (rows.dtype, rows.device, rows.shape) == (query.dtype, starts.device, query.shape)
        assert rows.stride(-1) == 1
    parts = [
        functional.scaled_dot_product_attention(
            query[start:end].transpose(0, 1), key[start:end].transpose(0, 1), value[start:end].transpose(0, 1)
        )
        for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    ]
    return torch.cat(parts, dim=1).transpose(0, 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_the_packing_around_flash_attention(
    model: ListConModel, lengths: list[int], dtype: DType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of the CUDA path but its kernel, which a CPU does not have; float32 shows small mistakes in the packing."""
    seen = []

    def kernel(*arguments: Any) -> Tensor:  # noqa: ANN401
        seen.append(arguments[0].dtype)
        return attention_text_by_text(*arguments)

    monkeypatch.setattr(module, "_flash", lambda: kernel)
    cast = cast_model(deepcopy(model), torch.device("cpu"), dtype)
    ids = ids_of(lengths)
    found = FastEncoder(cast, "varlen", "its kernel is a stand-in").features(ids)
    assert seen == 2 * [getattr(torch, dtype)]  # once a layer
    assert found.dtype == (torch.float16 if dtype == "float16" else torch.float32)
    assert distance(found, features(model, ids)) < (1e-5 if dtype == "float32" else TOLERANCES[getattr(torch, dtype)])


def test_every_path_is_covered_here() -> None:
    """A new path has to be added to these tests."""
    assert set(BACKENDS) == {*ON_CPU, "varlen"}
