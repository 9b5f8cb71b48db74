"""Where training starts: checkpoints, encoders, and first scores that follow the encoder's similarity."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from scipy.stats import spearmanr
from torch.nn import functional
from transformers import AlbertConfig, BertConfig, ModernBertConfig

from checkpoints import write_layout_1, write_layout_2
from listcon_eval.errors import ListconError
from listcon_eval.model import ListConConfig, ListConModel
from listcon_eval.train.arguments import LossArguments, StartArguments
from listcon_eval.train.start import calibrate, freeze, start_from, start_from_similarity
from listcon_eval.train.trainer import ListLossModel
from synthetic_lists import write_encoder

SIZES = {"hidden": 32, "layers": 1, "list_width": 24, "feedforward": 32}


@pytest.mark.parametrize("write", [write_layout_1, write_layout_2])
def test_a_checkpoint_is_taken_as_it_is(write: object, tmp_path: Path) -> None:
    folder = write(tmp_path / "start", **SIZES)  # type: ignore[operator]
    start = start_from(StartArguments(model=str(folder), list_dropout=0.3), max_length=32, seed=0)
    assert not start.is_new
    assert start.model.config.list_width == 24
    assert {m.p for m in start.model.list_transformer.modules() if isinstance(m, torch.nn.Dropout)} == {0.3}


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_the_encoders_dropout_can_be_set(rate: float, tmp_path: Path) -> None:
    encoder = str(write_encoder(tmp_path / "encoder", dropout=0.1))
    model = str(write_layout_2(tmp_path / "start", hidden=32, layers=1, list_width=24, feedforward=32))
    for arguments in (
        StartArguments(encoder=encoder, encoder_dropout=rate),
        StartArguments(model=model, encoder_dropout=rate),
    ):
        start = start_from(arguments, max_length=32, seed=0)
        assert {m.p for m in start.model.encoder.modules() if isinstance(m, torch.nn.Dropout)} == {rate}
        assert start.model.config.encoder.attention_probs_dropout_prob == rate


def test_an_encoder_keeps_its_weights_below_a_new_list_transformer(tmp_path: Path) -> None:
    from transformers import BertModel

    folder = write_encoder(tmp_path / "encoder")
    start = start_from(StartArguments(encoder=str(folder)), max_length=64, seed=0)
    assert start.is_new
    assert (start.model.config.list_width, start.model.config.feedforward_width) == (56, 64)
    weights = BertModel.from_pretrained(folder).state_dict()
    for name, value in start.model.encoder.state_dict().items():
        assert torch.equal(value, weights[name])
    with pytest.raises(ListconError, match="--max_length is 65: this encoder takes at most 64"):
        start_from(StartArguments(encoder=str(folder)), max_length=65, seed=0)
    with pytest.raises(ListconError, match="list_width"):
        start_from(StartArguments(encoder=str(folder), list_width=21), max_length=64, seed=0)


@pytest.mark.parametrize("bias", [True, False])
def test_a_dense_module_becomes_the_projection(bias: bool, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "encoder")
    dense = {"linear.weight": torch.randn(40, 32)} | ({"linear.bias": torch.randn(40)} if bias else {})
    config = {"in_features": 32, "out_features": 40, "activation_function": "torch.nn.modules.linear.Identity"}
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(dense, folder / "2_Dense" / "model.safetensors")
    linear = start_from(StartArguments(encoder=str(folder)), max_length=64, seed=0).model.linear_in_embedding
    assert torch.equal(linear.weight, dense["linear.weight"])
    assert torch.equal(linear.bias, dense.get("linear.bias", torch.zeros(40)))
    other = start_from(StartArguments(encoder=str(folder), list_width=48), max_length=64, seed=0)
    assert other.model.linear_in_embedding.weight.shape == (48, 32)


def test_an_encoder_that_cannot_be_read_is_one_message(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "encoder")
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ListconError, match="cannot read the encoder in"):
        start_from(StartArguments(encoder=str(folder)), max_length=64, seed=0)


@pytest.mark.parametrize(
    "fault", ["no weights", "damaged weights", "another shape", "other weights", "no JSON", "a list"]
)
def test_a_dense_module_that_cannot_be_read_is_one_message(fault: str, tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "encoder")
    place = folder / "2_Dense"
    place.mkdir()
    words = {"no JSON": "{", "a list": "[]"}.get(fault, '{"in_features": 32, "out_features": 40}')
    (place / "config.json").write_text(words, encoding="utf-8")
    if fault == "damaged weights":
        (place / "model.safetensors").write_bytes(b"x")
    elif fault != "no weights":
        name = "weight" if fault == "other weights" else "linear.weight"
        save_file({name: torch.zeros(30, 32)}, place / "model.safetensors")
    with pytest.raises(ListconError, match=r"cannot read \S+2_Dense, the encoder's projection: \w+: \S"):
        start_from(StartArguments(encoder=str(folder)), max_length=64, seed=0)


@pytest.mark.parametrize(("width", "expected"), [(96, 0.96), (128, 0.98), (224, 0.98)])
@pytest.mark.parametrize("dense", [False, True])
def test_the_first_scores_follow_cosine_similarity(width: int, expected: float, dense: bool) -> None:
    torch.manual_seed(0)
    hidden = 128
    encoder = BertConfig(
        vocab_size=8, hidden_size=hidden, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    model = ListConModel(ListConConfig(encoder, width, 2, 64)).eval()
    projection = {"weight": torch.randn(width, hidden) / hidden**0.5, "bias": torch.zeros(width)} if dense else None
    start_from_similarity(model, projection)
    common, query = torch.randn(hidden), torch.randn(hidden)
    share = torch.rand(200, 1)
    pooled = torch.cat([query[None], share * query + (1 - share) * torch.randn(200, hidden)]) + 2 * common
    rows, valid = torch.arange(201)[None], torch.ones(1, 201, dtype=torch.bool)
    calibrate(model, pooled, rows, valid, centre=not dense)
    model.eval()
    with torch.no_grad():
        features = model.linear_in_embedding(pooled)
        logits = model.logits(features[rows], valid)[0]
    assert logits.mean().item() == pytest.approx(0, abs=1e-4)
    assert logits.std().item() == pytest.approx(1.5, rel=1e-3)
    if not dense:
        assert features.mean(dim=0).abs().max() < 1e-5
    # The list transformer's layer norm centres each feature over its dimensions.
    centred = features - features.mean(dim=1, keepdim=True)
    cosine = functional.cosine_similarity(centred[:1], centred[1:])
    assert spearmanr(logits, cosine).statistic > expected


def test_lower_layers_can_be_left_as_they_are(tmp_path: Path) -> None:
    """Their dropout is off as well; what is above them is trained."""
    folder = write_layout_1(tmp_path / "start", **{**SIZES, "layers": 3})
    arguments = StartArguments(model=str(folder), freeze_layers=2)
    model = start_from(arguments, max_length=32, seed=0).model
    freeze(model, arguments)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    above = ("encoder.encoder.layer.2.", "linear_", "list_transformer.", "query_embedding.")
    assert trained == {name for name, _ in model.named_parameters() if name.startswith(above)}
    loss = ListLossModel(model, LossArguments()).train()
    on = {name for name, part in loss.model.named_modules() if isinstance(part, torch.nn.Dropout) and part.training}
    assert on == {
        name
        for name, part in loss.model.named_modules()
        if isinstance(part, torch.nn.Dropout) and name.startswith(above)
    }
    with pytest.raises(ListconError, match="--freeze_layers is 4: this encoder has 3 layers"):
        freeze(model, StartArguments(model=str(folder), freeze_layers=4))


def test_what_is_above_the_frozen_layers_is_trained() -> None:
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ModernBertConfig.from_dict({"vocab_size": 64, **sizes, **ids})
    model = ListConModel(ListConConfig(encoder=config, list_width=24, list_layers=1, feedforward_width=16))
    freeze(model, StartArguments(model="x", freeze_layers=1))
    trained = {name for name, parameter in model.encoder.named_parameters() if parameter.requires_grad}
    assert "final_norm.weight" in trained
    assert not any(name.startswith(("embeddings.", "layers.0.")) for name in trained)


def test_layers_that_share_their_weights_are_not_frozen_one_by_one() -> None:
    config = AlbertConfig(vocab_size=64, hidden_size=24, intermediate_size=32, num_attention_heads=2)
    model = ListConModel(ListConConfig(encoder=config, list_width=24, list_layers=1, feedforward_width=16))
    with pytest.raises(ListconError, match="the layers of this 'albert' encoder share their weights"):
        freeze(model, StartArguments(model="x", freeze_layers=1))
