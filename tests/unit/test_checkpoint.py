"""Checkpoints: both layouts in, layout 1 out, every key placed or reported in one error."""

import gzip
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file
from transformers import (
    AutoModel,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PreTrainedConfig,
    XLMRobertaConfig,
)

from checkpoints import bert_tokenizer, write_layout_1, write_layout_2
from listcon_eval import ListConRanker
from listcon_eval.errors import ListconError
from listcon_eval.model import Checkpoint, ListConConfig, ListConModel, load_checkpoint, save_checkpoint, save_quantised
from listcon_eval.model.checkpoint import QUANTISED_FILE, holds_listconranker, names_of_weights, quantised
from listcon_eval.train.arguments import StartArguments
from listcon_eval.train.start import start_from
from result_folders import change_json
from texts import random_list

HUGE = b'{"x":{"dtype":"F32","shape":[2000000000000],"data_offsets":[0,8000000000000]}}'


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
    sizes = (config.encoder.hidden_size, config.list_width, config.list_layers, config.feedforward_width)
    assert sizes == (40, 60, 3, 77)


def test_saving_writes_what_the_published_loader_expects(tmp_path: Path) -> None:
    """Layout 1 with its template layer: `load_state_dict` of the published code is strict."""
    loaded = load_checkpoint(write_layout_1(tmp_path / "one"))
    folder = save_checkpoint(loaded.model, loaded.tokenizer, tmp_path / "again")
    assert_same_weights(loaded, load_checkpoint(folder))
    assert set(torch.load(folder / "linear_in_embedding.pt", weights_only=True)) == {"weight", "bias"}
    lists = torch.load(folder / "list_transformer.pt", weights_only=True)
    layer = torch.nn.TransformerEncoderLayer(96, 4, 128, activation="gelu", batch_first=True)
    stack = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    for module, prefix in ((stack, "list_transformer."), (layer, "list_transformer_layer.")):
        module.load_state_dict({k.removeprefix(prefix): v for k, v in lists.items() if k.startswith(prefix)})
    assert "embeddings.word_embeddings.weight" in load_file(folder / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_unused_keys_are_ignored_by_name_without_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_layout_1(tmp_path / "one")
    encoder = load_file(folder / "model.safetensors")
    encoder["pooler.dense.weight"] = torch.zeros(64, 64)
    encoder["embeddings.position_ids"] = torch.arange(512)
    save_file(encoder, folder / "model.safetensors")
    loaded = load_checkpoint(folder)
    assert {"encoder.pooler.dense.weight", "encoder.embeddings.position_ids"} <= set(loaded.ignored)
    assert any(key.startswith("list_transformer_layer.") for key in loaded.ignored)
    assert caplog.text == ""


def test_all_misplaced_keys_come_in_one_error(tmp_path: Path) -> None:
    folder = write_layout_1(tmp_path / "one")
    lists = torch.load(folder / "list_transformer.pt", weights_only=True)
    lists["linear_score9.weight"] = lists.pop("linear_score3.weight")
    lists["linear_score1.bias"] = torch.zeros(2)
    lists["linear_score1.weight"] = lists["linear_score1.weight"].to(torch.uint8)
    torch.save(lists, folder / "list_transformer.pt")
    encoder = load_file(folder / "model.safetensors")
    del encoder["encoder.layer.1.output.dense.bias"]
    encoder["adapter.bias"] = torch.zeros(3)
    save_file(encoder, folder / "model.safetensors")
    with pytest.raises(ListconError) as raised:
        load_checkpoint(folder)
    message = str(raised.value)
    assert "2 missing:\n  encoder.encoder.layer.1.output.dense.bias\n  linear_score3.weight" in message
    assert "2 unexpected:\n  encoder.adapter.bias\n  linear_score9.weight" in message
    assert "1 of a wrong shape:\n  linear_score1.bias: (2,) here, (1,) by" in message
    assert "1 of whole numbers:\n  linear_score1.weight" in message  # as other quantised formats have them


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
        (lambda folder: (folder / "config.json").write_text("{"), "is not a JSON object"),
        (lambda folder: (folder / "config.json").write_text("[]"), "is not a JSON object"),
        (lambda folder: (folder / "config.json").write_text('{"hidden_size": 64}'), "it lacks num_hidden_layers"),
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
        (lambda folder: change_json(folder / "config.json", num_attention_heads=3), "describes no bert that can be"),
        (lambda folder: change_json(folder / "config.json", hidden_act="nonsense"), "config.json describes no bert"),
        (lambda folder: change_json(folder / "config.json", pad_token_id=99999), "config.json describes no bert"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "holds adapter_config.json, and no adapter"),
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
    with pytest.raises(
        ListconError, match=r"a revision \(main\) was given for .*, and only hub ids have one: leave it out"
    ):
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
    if damage in ("not compressed", "empty"):  # to find out the kind, no more than the header is read
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


def rewrite(folder: Path, rename: Callable[[str], str], extra: dict[str, torch.Tensor] | None = None) -> None:
    """Give the weights in a folder's `model.safetensors` other names, and add some."""
    tensors = load_file(folder / "model.safetensors")
    save_file({rename(key): value for key, value in tensors.items()} | (extra or {}), folder / "model.safetensors")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "hf_model.", "model.bert.", "backbone.", "bert."])
@pytest.mark.parametrize("layout", [1, 2])
def test_prefixes_of_wrappers_are_taken_off(tmp_path: Path, prefix: str, layout: int) -> None:
    write = write_layout_1 if layout == 1 else write_layout_2
    plain = load_checkpoint(write(tmp_path / "plain"))
    folder = write(tmp_path / "wrapped")
    rewrite(folder, lambda key: prefix + key)
    if layout == 1:
        for name in ("linear_in_embedding.pt", "list_transformer.pt"):
            tensors = torch.load(folder / name, weights_only=True)
            torch.save({f"module.{key}": value for key, value in tensors.items()}, folder / name)
    assert_same_weights(plain, load_checkpoint(folder))


def test_the_names_of_old_checkpoints_are_read(tmp_path: Path) -> None:
    plain = load_checkpoint(write_layout_1(tmp_path / "plain"))
    folder = write_layout_1(tmp_path / "old")
    rewrite(
        folder,
        lambda key: (
            "bert." + key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        ),
        {"cls.predictions.bias": torch.zeros(9), "cls.seq_relationship.weight": torch.zeros(2, 64)},
    )
    loaded = load_checkpoint(folder)
    assert_same_weights(plain, loaded)
    assert {"encoder.cls.predictions.bias", "encoder.cls.seq_relationship.weight"} <= set(loaded.ignored)


@pytest.mark.parametrize("layout", [1, 2])
def test_pickles_of_before_torch_1_6_are_read(tmp_path: Path, layout: int) -> None:
    write = write_layout_1 if layout == 1 else write_layout_2
    plain = load_checkpoint(write(tmp_path / "plain"))
    folder = write(tmp_path / "legacy")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert holds_listconranker(folder)
    assert set(names_of_weights(folder)) == set(tensors)
    assert_same_weights(plain, load_checkpoint(folder))


def test_two_encoders_in_one_file_are_refused(tmp_path: Path) -> None:
    folder = write_layout_2(tmp_path / "two")
    tensors = load_file(folder / "model.safetensors")
    rewrite(folder, str, {f"teacher.{key}": value.clone() for key, value in tensors.items()})
    with pytest.raises(ListconError, match=r"2 keys end \(.*teacher.* in embeddings\.word_embeddings\.weight"):
        load_checkpoint(folder)


def encoder_checkpoint(folder: Path, config: PreTrainedConfig) -> Path:
    """A random checkpoint over another encoder, with a tokenizer whose padding token is the configuration's."""
    torch.manual_seed(1)
    model = ListConModel(ListConConfig(config, 48, 1, 64)).eval()
    return save_checkpoint(model, bert_tokenizer(), folder)


SIZES: dict[str, Any] = {"vocab_size": 11000, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ENCODERS = {
    "xlm-roberta": XLMRobertaConfig(
        **SIZES, intermediate_size=64, max_position_embeddings=130, pad_token_id=1, type_vocab_size=1
    ),
    "electra": ElectraConfig(**SIZES, embedding_size=16, intermediate_size=64, max_position_embeddings=128),
    "distilbert": DistilBertConfig(
        vocab_size=11000, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=128
    ),
    "modernbert": ModernBertConfig(
        **SIZES, intermediate_size=64, max_position_embeddings=128, pad_token_id=0, cls_token_id=2, sep_token_id=3
    ),
}


@pytest.mark.parametrize("config", ENCODERS.values(), ids=ENCODERS)
def test_any_encoder_is_computed_as_what_it_is(tmp_path: Path, config: PreTrainedConfig) -> None:
    """Transformers' own class over one text at a time, without padding, gives the features of every text."""
    folder = encoder_checkpoint(tmp_path / "model", config)
    ranker = ListConRanker.from_pretrained(folder, device="cpu", dtype="float32", max_length=128)
    assert ranker.encoder.backend == "plain"
    network = AutoModel.from_pretrained(folder).eval()
    texts = random_list(6, seed=1, longest=150)
    encoded = ranker.encode(texts[:1], [texts[1:]])
    with torch.inference_mode():
        for place, text in enumerate(encoded.texts):
            ids = torch.tensor([ranker.checkpoint.tokenizer(text, truncation=True, max_length=128)["input_ids"]])
            expected = ranker.model.linear_in_embedding(network(input_ids=ids).last_hidden_state[0].mean(dim=0))
            torch.testing.assert_close(encoded.store.get(np.array(place)), expected, rtol=1e-4, atol=1e-5)


def test_the_length_of_an_encoder_is_what_its_positions_allow(tmp_path: Path) -> None:
    folder = encoder_checkpoint(tmp_path / "model", ENCODERS["xlm-roberta"])
    with pytest.raises(ListconError, match=r"max_length is 129: this encoder takes 3 .* to 128"):
        ListConRanker.from_pretrained(folder, device="cpu", max_length=129)
    with pytest.raises(ListconError, match="--max_length is 129: this encoder takes at most 128"):
        start_from(StartArguments(model=str(folder)), max_length=129, seed=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(bytes(50_000_000)), "it is not a compressed safetensors file"),
        (
            gzip.compress(b"\x02" + bytes(7) + b"{}" + bytes(10_000_000)),
            "unpacks to more than the 0 bytes that its header says",
        ),
        (
            gzip.compress(
                len(HUGE).to_bytes(8, "little") + HUGE + bytes(1000)  # what its header says is 8 TB
            ),
            "files over 2147483648 are not unpacked",
        ),
    ],
    ids=["zeros", "more than its header", "huge"],
)
def test_a_compressed_bomb_is_one_error(tmp_path: Path, content: bytes, message: str) -> None:
    whole = load_checkpoint(write_layout_1(tmp_path / "whole"))
    path = save_quantised(whole.model, whole.tokenizer, tmp_path / "small") / QUANTISED_FILE
    path.write_bytes(content)
    with pytest.raises(ListconError, match=message):
        load_checkpoint(path.parent)


def test_a_models_kind_is_found_without_unpacking_it(tmp_path: Path) -> None:
    """A file that is cut behind its header still says what it holds."""
    whole = load_checkpoint(write_layout_1(tmp_path / "whole"))
    path = save_quantised(whole.model, whole.tokenizer, tmp_path / "small") / QUANTISED_FILE
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert holds_listconranker(path.parent)


@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json", "model.safetensors", "list_transformer.pt"])
def test_a_git_lfs_pointer_is_named(tmp_path: Path, name: str) -> None:
    folder = write_layout_1(tmp_path / "lfs")
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(ListconError, match=rf"{re.escape(name)} is a Git LFS pointer .* `git lfs pull`"):
        load_checkpoint(folder)


def test_a_tokenizer_without_tokens_is_refused(tmp_path: Path) -> None:
    """What transformers makes of an empty vocabulary: every character would be unknown."""
    folder = write_layout_1(tmp_path / "empty")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    with pytest.raises(ListconError, match="no tokenizer in"):
        load_checkpoint(folder)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    with pytest.raises(ListconError, match="has 5 special tokens and no others"):
        load_checkpoint(folder)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = write_layout_1(tmp_path / "one")
    tokenizer = bert_tokenizer()
    tokenizer.add_tokens(["一个词"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ListconError, match="they do not belong together"):
        load_checkpoint(folder)


def test_saving_replaces_checkpoints_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (load_checkpoint(write_layout_1(tmp_path / name, seed=seed)) for name, seed in (("a", 1), ("b", 2)))
    folder = save_checkpoint(one.model, one.tokenizer, tmp_path / "model")
    with monkeypatch.context() as patch:  # a disk that is full when the last file is written
        patch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("no space left on device")))
        with pytest.raises(OSError, match="no space left"):
            save_checkpoint(other.model, other.tokenizer, folder)
    assert_same_weights(one, load_checkpoint(folder))
    (folder / "README.md").write_text("card", encoding="utf-8")
    save_checkpoint(other.model, other.tokenizer, folder)
    assert_same_weights(other, load_checkpoint(folder))
    assert (folder / "README.md").read_text(encoding="utf-8") == "card"
    with pytest.raises(ListconError, match=r"README\.md is a file: a checkpoint is a folder"):
        save_checkpoint(other.model, other.tokenizer, folder / "README.md")
    with pytest.raises(ListconError, match=r"cannot write to .*README\.md"):
        save_checkpoint(other.model, other.tokenizer, folder / "README.md" / "model")
    (folder / "thesis.docx").touch()
    with pytest.raises(ListconError, match=r"holds thesis\.docx, which is no part of a checkpoint"):
        save_checkpoint(other.model, other.tokenizer, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "model"]
