"""Checkpoints: both layouts in, layout 1 out, every key placed or reported in one error."""

import gzip
import json
import pickle
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from checkpoints import write_layout_1, write_layout_2
from listcon_eval.errors import ListconError
from listcon_eval.model import Checkpoint, load_checkpoint, save_checkpoint, save_quantised
from listcon_eval.model.checkpoint import holds_listconranker
from listcon_eval.model.quantised import QUANTISED_FILE, quantised


def assert_same_weights(one: Checkpoint, other: Checkpoint) -> None:
    first, second = one.model.state_dict(), other.model.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("encoder_prefix", ["hf_model.", "bert.", "model.", ""])
@pytest.mark.parametrize("list_prefix", ["", "list_transformer."])
def test_both_layouts_hold_the_same_model(tmp_path: Path, encoder_prefix: str, list_prefix: str) -> None:
    one = load_checkpoint(write_layout_1(tmp_path / "one"))
    two = load_checkpoint(write_layout_2(tmp_path / "two", encoder_prefix=encoder_prefix, list_prefix=list_prefix))
    assert (one.layout, two.layout) == (1, 2)
    assert_same_weights(one, two)
    # Where a weight begins in memory decides how products round: it must not follow from the file.
    assert {value.data_ptr() % 64 for made in (one, two) for value in made.model.state_dict().values()} == {0}


def test_no_width_is_a_constant(tmp_path: Path) -> None:
    folder = write_layout_1(
        tmp_path / "odd", hidden=40, layers=1, heads=5, list_width=60, list_layers=3, feedforward=77
    )
    config = load_checkpoint(folder).model.config
    assert (config.encoder.hidden_size, config.list_width, config.list_layers, config.feedforward_width) == (
        40,
        60,
        3,
        77,
    )


def test_saving_writes_what_the_published_loader_expects(tmp_path: Path) -> None:
    """Layout 1 with its template layer: `load_state_dict` of the published code is strict."""
    loaded = load_checkpoint(write_layout_1(tmp_path / "one"))
    folder = save_checkpoint(loaded.model, loaded.tokenizer, tmp_path / "again")
    assert_same_weights(loaded, load_checkpoint(folder))
    assert set(torch.load(folder / "linear_in_embedding.pt", weights_only=True)) == {"weight", "bias"}
    lists = torch.load(folder / "list_transformer.pt", weights_only=True)
    layer = torch.nn.TransformerEncoderLayer(96, 4, 128, activation="gelu", batch_first=True)
    stack = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    stack.load_state_dict(
        {k.removeprefix("list_transformer."): v for k, v in lists.items() if k.startswith("list_transformer.")}
    )
    layer.load_state_dict(
        {
            k.removeprefix("list_transformer_layer."): v
            for k, v in lists.items()
            if k.startswith("list_transformer_layer.")
        }
    )
    assert "embeddings.word_embeddings.weight" in load_file(folder / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_unused_keys_are_ignored_by_name_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_layout_1(tmp_path / "one")
    encoder = load_file(folder / "model.safetensors")
    encoder["pooler.dense.weight"] = torch.zeros(64, 64)
    encoder["embeddings.position_ids"] = torch.arange(512)
    save_file(encoder, folder / "model.safetensors")
    loaded = load_checkpoint(folder)
    assert {"encoder.pooler.dense.weight", "encoder.embeddings.position_ids"} <= set(loaded.ignored)
    assert any(key.startswith("list_transformer_layer.") for key in loaded.ignored)
    assert "ignored 14 keys that nothing uses" in caplog.text


def test_all_misplaced_keys_come_in_one_error(tmp_path: Path) -> None:
    folder = write_layout_1(tmp_path / "one")
    lists = torch.load(folder / "list_transformer.pt", weights_only=True)
    lists["linear_score9.weight"] = lists.pop("linear_score3.weight")
    lists["linear_score1.bias"] = torch.zeros(2)
    torch.save(lists, folder / "list_transformer.pt")
    encoder = load_file(folder / "model.safetensors")
    del encoder["encoder.layer.1.output.dense.bias"]
    encoder["cls.predictions.bias"] = torch.zeros(3)
    save_file(encoder, folder / "model.safetensors")
    with pytest.raises(ListconError) as raised:
        load_checkpoint(folder)
    message = str(raised.value)
    assert "2 missing:\n  encoder.encoder.layer.1.output.dense.bias\n  linear_score3.weight" in message
    assert "2 unexpected:\n  encoder.cls.predictions.bias\n  linear_score9.weight" in message
    assert "1 of a wrong shape:\n  linear_score1.bias: (2,) here, (1,) by" in message


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    folder = write_layout_1(tmp_path / "one")
    marker = tmp_path / "ran"

    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (marker,)  # type: ignore[return-value]

    (folder / "list_transformer.pt").write_bytes(pickle.dumps(Attack()))
    with pytest.raises(ListconError, match=r"cannot read the weights .*list_transformer\.pt"):
        load_checkpoint(folder)
    assert not marker.exists()


def test_sharded_and_pickled_encoders_are_read(tmp_path: Path) -> None:
    whole = load_checkpoint(write_layout_1(tmp_path / "whole"))
    for name in ("sharded", "pickled"):
        folder = write_layout_1(tmp_path / name)
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        if name == "pickled":
            torch.save(tensors, folder / "pytorch_model.bin")
        else:
            keys = sorted(tensors)
            parts = {"a.safetensors": keys[::2], "b.safetensors": keys[1::2]}
            for part, its in parts.items():
                save_file({key: tensors[key] for key in its}, folder / part)
            index = {"weight_map": {key: part for part, its in parts.items() for key in its}}
            (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        assert_same_weights(whole, load_checkpoint(folder))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "linear_in_embedding.pt").unlink(), "lacks linear_in_embedding.pt"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json in"),
        (lambda folder: (folder / "config.json").write_text("{"), "is not JSON"),
        (
            lambda folder: (folder / "config.json").write_text('{"hidden_size": 64}'),
            "it lacks num_hidden_layers",
        ),
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer in"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "cannot read the tokenizer in"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights in"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"cut"), "cannot read the weights"),
        (
            lambda folder: (folder / "config.json").write_text(
                (folder / "config.json").read_text().replace('"num_attention_heads": 4', '"num_attention_heads": 64')
            ),
            "the list width 96 is not a multiple of the encoder's 64 attention heads",
        ),
    ],
)
def test_a_broken_folder_is_one_clear_error(tmp_path: Path, break_it: object, message: str) -> None:
    folder = write_layout_1(tmp_path / "broken")
    break_it(folder)  # type: ignore[operator]
    with pytest.raises(ListconError, match=re.escape(message)):
        load_checkpoint(folder)


def test_an_encoder_alone_is_no_checkpoint(tmp_path: Path) -> None:
    folder = write_layout_1(tmp_path / "encoder")
    (folder / "linear_in_embedding.pt").unlink()
    (folder / "list_transformer.pt").unlink()
    with pytest.raises(ListconError, match=r"no key ends in linear_in_embedding\.weight"):
        load_checkpoint(folder)


@pytest.mark.parametrize("given", ["./nowhere", "/nowhere/at/all", "a/b/c", "bad name"])
def test_no_such_folder_is_a_clear_error(given: str) -> None:
    with pytest.raises(ListconError, match="no checkpoint folder at"):
        load_checkpoint(given)


def test_a_file_or_a_revision_of_a_folder_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ListconError, match="is a file: a checkpoint is the folder"):
        load_checkpoint(tmp_path / "file")
    with pytest.raises(ListconError, match="revisions belong to hub ids"):
        load_checkpoint(tmp_path, revision="main")


def test_the_hash_follows_the_weights(tmp_path: Path) -> None:
    one, two, other = (
        load_checkpoint(write_layout_1(tmp_path / name, seed=seed)) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert one.weights_sha256 == two.weights_sha256 != other.weights_sha256


def test_a_vocabulary_file_is_a_tokenizer(tmp_path: Path) -> None:
    """The published checkpoint has `vocab.txt`; the tokens are those of the same vocabulary in `tokenizer.json`."""
    folder = write_layout_1(tmp_path / "one")
    whole = load_checkpoint(folder).tokenizer
    vocabulary = sorted(whole.get_vocab(), key=whole.get_vocab().__getitem__)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    text = "一万个ABC，为什么 ok？"
    assert load_checkpoint(folder).tokenizer(text)["input_ids"] == whole(text)["input_ids"]


def test_a_quantised_checkpoint_is_the_model_up_to_its_rounding(tmp_path: Path) -> None:
    whole = load_checkpoint(write_layout_1(tmp_path / "whole"))
    with torch.no_grad():
        whole.model.linear_score3.weight[3] = 0  # a row without a largest number
    small = load_checkpoint(save_quantised(whole.model, whole.tokenizer, tmp_path / "small"))
    assert small.layout == 2
    for name, value in whole.model.state_dict().items():
        found = small.model.state_dict()[name]
        if value.dim() == 2:
            step = value.abs().amax(dim=1, keepdim=True) / 127
            assert ((found - value).abs() <= step / 2 + 1e-6).all(), name
        else:
            torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-6)
    weights = small.source.folder / QUANTISED_FILE
    assert weights.stat().st_size < sum(p.numel() for p in whole.model.parameters()) * 1.15
    tensors = quantised(whole.model.state_dict())
    for name, message in (("missing", "are missing"), ("shape", r"have the shape \(2,\)")):
        changed = dict(tensors)
        del changed["linear_score1.weight.row_scale"]
        if name == "shape":
            changed["linear_score1.weight.row_scale"] = torch.ones(2)
        weights.write_bytes(gzip.compress(save(changed)))
        with pytest.raises(ListconError, match=f"linear_score1.weight is an int8 matrix .* {message}"):
            load_checkpoint(small.source.folder)


@pytest.mark.parametrize("damage", ["not compressed", "cut", "changed", "empty"])
def test_a_damaged_quantised_file_is_one_message(tmp_path: Path, damage: str) -> None:
    whole = load_checkpoint(write_layout_1(tmp_path / "whole"))
    path = save_quantised(whole.model, whole.tokenizer, tmp_path / "small") / QUANTISED_FILE
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {
            "not compressed": b"nothing of the kind",
            "cut": content[:middle],
            "changed": content[:middle] + bytes(100) + content[middle + 100 :],
            "empty": b"",
        }[damage]
    )
    with pytest.raises(ListconError, match=r"cannot read the weights .*model\.safetensors\.gz"):
        load_checkpoint(path.parent)
    with pytest.raises(ListconError, match="cannot read the weights"):
        holds_listconranker(path.parent)


def test_a_folder_holds_the_weights_that_were_saved_last(tmp_path: Path) -> None:
    whole = load_checkpoint(write_layout_1(tmp_path / "whole"))
    for save_it in (save_checkpoint, save_quantised, save_checkpoint):
        folder = save_it(whole.model, whole.tokenizer, tmp_path / "one")
        names = {path.name for path in folder.iterdir()}
        assert len(names & {"model.safetensors", QUANTISED_FILE}) == 1
        assert (QUANTISED_FILE in names) is (save_it is save_quantised)
        assert holds_listconranker(folder)
