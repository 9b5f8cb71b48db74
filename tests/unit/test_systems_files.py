"""Models in the states that people have them in: each is read right, or refused with the reason."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    DebertaV2Config,
    ElectraConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from checkpoints import bert_tokenizer
from listcon_eval.errors import ListconError
from listcon_eval.records import CandidateList
from listcon_eval.systems.base import LoadOptions, RankContext, Ranking, System, load_system
from listcon_eval.systems.resolve import resolve_model
from systems import HIDDEN, qwen2_tokenizer, write_chat_classifier, write_cross_encoder, write_embedding
from texts import random_list

METADATA = mteb.get_task("T2Reranking").metadata


def lists() -> list[CandidateList]:
    found = []
    for seed, size in enumerate((3, 6)):
        query, *passages = random_list(size, seed=seed)
        found.append(CandidateList(f"q{seed}", query, tuple(map(str, range(size))), tuple(passages), (0,) * size))
    return found


def load(folder: Path, **options: Any) -> System:  # noqa: ANN401 - fields of LoadOptions
    return load_system(resolve_model(str(folder)), LoadOptions("cpu", **options))


def rank(system: System, rows: list[CandidateList] | None = None) -> Ranking:
    return system.rank(rows or lists(), "pointwise", RankContext(METADATA, "dev"))


def scores(folder: Path, **options: Any) -> np.ndarray[Any, Any]:  # noqa: ANN401 - fields of LoadOptions
    return np.concatenate([found.scores for found in rank(load(folder, **options)).lists])


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "model.safetensors"
    changed = {name: weight.contiguous().clone() for name, weight in change(load_file(path)).items()}
    save_file(changed, path, metadata={"format": "pt"})


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def copy(folder: Path, name: str) -> Path:
    return Path(shutil.copytree(folder, folder.parent / name))


@pytest.fixture
def embedding(tmp_path: Path) -> Path:
    return write_embedding(tmp_path / "embedding")


@pytest.fixture
def reranker(tmp_path: Path) -> Path:
    return write_cross_encoder(tmp_path / "reranker")


def write_classifier(folder: Path, config: Any, tokenizer: Any = None) -> Path:  # noqa: ANN401 - any architecture
    """Write a random classifier with one label."""
    torch.manual_seed(3)
    tokenizer = tokenizer or bert_tokenizer()
    config.num_labels, config.vocab_size = 1, len(tokenizer) + 8
    config.initializer_range = 0.2
    network: Any = AutoModelForSequenceClassification
    network.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def small(**more: object) -> dict[str, Any]:
    return {
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 2 * HIDDEN,
        **more,
    }


def deberta() -> DebertaV2Config:
    return DebertaV2Config(
        **small(relative_attention=True, pos_att_type=["p2c", "c2p"], type_vocab_size=0, pooler_hidden_size=HIDDEN)
    )


def roberta() -> XLMRobertaConfig:
    return XLMRobertaConfig(
        **small(max_position_embeddings=514, type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2)
    )


def roberta_tokenizer(**more: Any) -> PreTrainedTokenizerFast:  # noqa: ANN401 - a tokenizer's arguments
    """One token a character, special tokens where RoBERTa has them."""
    characters = [token for token in bert_tokenizer().get_vocab() if len(token) == 1]
    names = ["<s>", "<pad>", "</s>", "<unk>", *sorted(characters)]
    tokenizer = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    special = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    found: Any = PreTrainedTokenizerFast
    result: PreTrainedTokenizerFast = found(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", **special, **more
    )
    return result


# Weights


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "hf_model.", "model.bert.", "backbone.0.auto_model."])
def test_an_embedding_models_weights_are_found_under_a_prefix(prefix: str, embedding: Path) -> None:
    expected = scores(embedding)
    rewrite(embedding, lambda weights: {prefix + name: weight for name, weight in weights.items()})
    assert np.array_equal(scores(embedding), expected)


@pytest.mark.parametrize(
    ("old", "new"),
    [("", "module."), ("", "_orig_mod.model."), ("bert.", "backbone.bert."), ("bert.", "encoder_model.")],
)
def test_a_classifiers_weights_are_found_under_a_prefix(old: str, new: str, reranker: Path) -> None:
    expected = scores(reranker)
    rewrite(
        reranker,
        lambda weights: {
            new + name.removeprefix(old) if name.startswith(old) else name: weight for name, weight in weights.items()
        },
    )
    assert np.array_equal(scores(reranker), expected)


def test_weights_that_could_be_either_of_two_networks_are_refused(embedding: Path) -> None:
    rewrite(
        embedding,
        lambda weights: {
            side + name: weight for side in ("query_model.", "passage_model.") for name, weight in weights.items()
        },
    )
    with pytest.raises(ListconError, match=r"lack 37 weights of a BertModel: embeddings\..* such as passage_model"):
        load(embedding)


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (deberta, "pooler.dense"),
        (lambda: ElectraConfig(**small(embedding_size=HIDDEN)), "classifier.dense"),
        (roberta, "classifier.dense"),
        (deberta, "encoder.layer.1"),
    ],
)
def test_a_classifier_without_a_part_is_refused(config: Callable[[], Any], part: str, tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "model", config())
    assert np.array_equal(scores(folder), scores(folder))
    rewrite(folder, lambda weights: {name: weight for name, weight in weights.items() if part not in name})
    with pytest.raises(ListconError, match=rf"lack \d+ weights of a .*ForSequenceClassification: .*{part}"):
        load(folder)


def test_berts_pooler_is_needed_by_a_classifier_and_not_by_an_embedding_model(embedding: Path, reranker: Path) -> None:
    rewrite(reranker, lambda weights: {name: weight for name, weight in weights.items() if "pooler" not in name})
    with pytest.raises(ListconError, match=r"lack 2 weights of a BertForSequenceClassification: bert\.pooler"):
        load(reranker)
    assert not any("pooler" in name for name in load_file(embedding / "model.safetensors"))
    assert np.array_equal(scores(embedding), scores(embedding))
    rewrite(embedding, lambda weights: {name: weight for name, weight in weights.items() if "layer.1" not in name})
    with pytest.raises(ListconError, match="lack 16 weights of a BertModel"):
        load(embedding)


def test_damaged_weights_are_what_is_blamed(embedding: Path, reranker: Path) -> None:
    for folder, value in ((embedding, torch.nan), (reranker, torch.inf)):
        rewrite(
            folder,
            lambda weights, value=value: {  # type: ignore[misc]
                name: torch.full_like(weight, value) if name.endswith("layer.1.output.dense.bias") else weight
                for name, weight in weights.items()
            },
        )
        with pytest.raises(ListconError, match=r"the weight .*layer\.1\.output\.dense\.bias in .* holds NaN or inf"):
            load(folder)


def test_weights_in_a_modules_folder_are_read_without_a_warning(
    embedding: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = scores(embedding)
    (embedding / "0_BERT").mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        shutil.move(embedding / name, embedding / "0_BERT" / name)
    modules = json.loads((embedding / "modules.json").read_text())
    modules[0]["path"] = "0_BERT"
    (embedding / "modules.json").write_text(json.dumps(modules))
    shutil.move(embedding / "sentence_bert_config.json", embedding / "0_BERT")
    assert np.array_equal(scores(embedding), expected)
    assert not [record for record in caplog.records if record.name.startswith("listcon_eval")]


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_of_any_age_is_read(legacy: bool, embedding: Path, reranker: Path) -> None:
    for folder in (embedding, reranker):
        expected = scores(folder)
        path = folder / "model.safetensors"
        weights = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): weight
            for name, weight in load_file(path).items()
        }
        path.unlink()
        weights["cls.predictions.bias"] = torch.zeros(7)
        torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
        np.testing.assert_allclose(scores(folder), expected, rtol=0, atol=1e-6)  # sums round by a tensor's address


def test_a_pickle_with_code_is_refused_without_advice_to_run_it(reranker: Path) -> None:
    (reranker / "model.safetensors").unlink()
    torch.save({"model": BertForSequenceClassification}, reranker / "pytorch_model.bin")
    with pytest.raises(ListconError) as raised:
        load_system(resolve_model(str(reranker), "cross-encoder"), LoadOptions("cpu"))
    assert "no pickle of tensors alone" in str(raised.value)
    assert "weights_only" not in str(raised.value)


# Number formats


@pytest.mark.parametrize(("dtype", "torch_dtype"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)])
@pytest.mark.parametrize("writer", [write_embedding, write_cross_encoder, write_chat_classifier])
def test_a_network_is_loaded_in_its_dtype(
    writer: Callable[[Path], Path], dtype: str, torch_dtype: torch.dtype, tmp_path: Path
) -> None:
    folder = writer(tmp_path / "model")
    system: Any = load(folder, dtype=dtype)
    assert {parameter.dtype for parameter in system.model.parameters()} == {torch_dtype}
    # A cast would round the angles of rotary embeddings, which transformers keeps in float32.
    assert all(buffer.dtype != torch_dtype for _, buffer in system.model.named_buffers())
    assert (system.dtype, load(folder).dtype) == (dtype, "float32")
    np.testing.assert_allclose(np.concatenate([r.scores for r in rank(system).lists]), scores(folder), atol=0.2)


# Tokenizers


@pytest.mark.parametrize("left", [(), ("tokenizer_config.json",), ("vocab.txt",)])
def test_a_model_without_its_tokenizers_files_is_refused(
    left: tuple[str, ...], embedding: Path, reranker: Path
) -> None:
    for folder in (embedding, reranker):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()
        if "tokenizer_config.json" in left:
            (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
        if "vocab.txt" in left:
            (folder / "vocab.txt").write_text("")
        with pytest.raises(ListconError, match=r"the tokenizer in .* special tokens and no others|cannot be loaded"):
            load(folder)


def test_a_tokenizer_that_knows_almost_nothing_is_refused(embedding: Path, reranker: Path) -> None:
    for folder in (embedding, reranker):
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()
        special = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n"
        (folder / "vocab.txt").write_text(f"{special}version https://git-lfs.github.com/spec/v1\nsize 12345\n")
        with pytest.raises(ListconError, match=r"T2Reranking: \d+\.\d % of all tokens are unknown to the tokenizer of"):
            rank(load(folder))


def test_the_shares_of_unknown_tokens_and_of_cut_texts_are_observed(
    embedding: Path, reranker: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [CandidateList("q", "一上", ("a", "b", "c"), ("一" * 6, "上" * 8, "😀" * 1 + "一"), (0, 0, 0))]
    known = bert_tokenizer().get_vocab()
    assert {"一", "上"} <= known.keys()
    found = rank(load(embedding, max_length=8), rows).observed
    assert (found["unknown_tokens"], found["read"], found["truncated"]) == (round(1 / 18, 6), 4, 0.25)
    assert "5.6 % of all tokens are unknown" in caplog.text
    assert "cuts 25.0 % of the texts" in caplog.text
    found = rank(load(reranker, max_length=12), rows).observed
    assert (found["read"], found["truncated"]) == (3, round(1 / 3, 6))  # 2 + 8 + 3 special ones


# Segments, padding, lengths


@torch.inference_mode()
def test_a_bert_reranker_gets_its_segments(reranker: Path) -> None:
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **special}
    (reranker / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer: Any = AutoTokenizer.from_pretrained(reranker)
    network: Any = BertForSequenceClassification.from_pretrained(reranker)

    def reference(segments: bool) -> list[float]:
        return [
            float(network(**tokenizer([(row.query, text)], return_token_type_ids=segments, return_tensors="pt")).logits)
            for row in lists()
            for text in row.passages
        ]

    np.testing.assert_allclose(scores(reranker), reference(True), atol=1e-5)
    change_json(reranker / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    np.testing.assert_allclose(scores(reranker), reference(False), atol=1e-5)  # its files say so
    assert not np.allclose(reference(True), reference(False), atol=1e-2)


def test_a_network_with_one_segment_gets_none(tmp_path: Path) -> None:
    folder = write_classifier(tmp_path / "model", roberta(), roberta_tokenizer())
    system: Any = load(folder)
    assert "token_type_ids" not in system.scorer.tokenizer.model_input_names
    assert np.isfinite(scores(folder)).all()


def test_a_decoder_that_classifies_needs_no_padding_token_in_its_settings(tmp_path: Path) -> None:
    config = Qwen3Config(**small(num_key_value_heads=2, head_dim=16, pad_token_id=qwen2_tokenizer().pad_token_id))
    folder = write_classifier(tmp_path / "model", config, qwen2_tokenizer())
    expected = scores(folder)
    settings = json.loads((folder / "config.json").read_text())
    del settings["pad_token_id"]
    (folder / "config.json").write_text(json.dumps(settings))
    np.testing.assert_allclose(scores(folder), expected, rtol=0, atol=1e-6)


def long_lists() -> list[CandidateList]:
    passages = tuple("".join(random_list(30, seed=seed)) for seed in range(3))
    return [CandidateList("long", "问", ("a", "b", "c"), passages, (0, 0, 0))]


def test_a_reranker_takes_as_many_tokens_as_it_has_positions_for(tmp_path: Path) -> None:
    silent = write_classifier(tmp_path / "silent", roberta(), roberta_tokenizer())
    stated = write_classifier(tmp_path / "stated", roberta(), roberta_tokenizer(model_max_length=512))
    wrong = write_classifier(tmp_path / "wrong", roberta(), roberta_tokenizer(model_max_length=1024))
    found = [rank(load(folder), long_lists()) for folder in (silent, stated, wrong)]
    assert found[0].lists == found[1].lists == found[2].lists
    assert found[0].observed["truncated"] == 1.0
    assert load(silent).settings() == {"max_length": 512}
    with pytest.raises(ListconError, match="takes 5 to 512"):  # RoBERTa has four special tokens a pair
        load(silent, max_length=514)


@pytest.mark.parametrize("length", [1024, 514, None])
def test_an_embedding_model_takes_as_many_tokens_as_it_has_positions_for(
    length: int | None, embedding: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change_json(embedding / "sentence_bert_config.json", max_seq_length=length)
    system = load(embedding)
    assert (system.settings(), system.path_settings()) == ({"max_length": 512}, {})
    assert np.isfinite(rank(system, long_lists()).lists[0].scores).all()
    assert ("texts are cut to the 512 tokens" in caplog.text) is (length is not None)


def test_roberta_as_an_embedding_model(tmp_path: Path, embedding: Path) -> None:
    folder = copy(embedding, "roberta")
    tokenizer = roberta_tokenizer()
    config = roberta()
    config.vocab_size = len(tokenizer)
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    change_json(folder / "sentence_bert_config.json", max_seq_length=514)
    assert load(folder).settings() == {"max_length": 512}
    assert np.isfinite(rank(load(folder), long_lists()).lists[0].scores).all()


# Prompts


def with_prompts(folder: Path, prompts: dict[str, str], default: str | None = None) -> Path:
    settings = {"prompts": prompts, "default_prompt_name": default}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


@pytest.mark.parametrize(
    ("prompts", "query", "document"),
    [
        ({"query": "问：", "document": "文："}, "问：", "文："),
        ({"query": "问：", "passage": "文："}, "问：", "文："),
        ({"corpus": "文："}, "", "文："),
        ({"Reranking-query": "问：", "query": "另："}, "问：", ""),
        ({"T2Reranking": "全："}, "全：", "全："),
        ({}, "", ""),
    ],
)
def test_prompts_are_applied_and_written_down(
    prompts: dict[str, str], query: str, document: str, embedding: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = rank(load(with_prompts(copy(embedding, "with-prompts"), prompts)))
    assert found.observed["prompts"] == {"query": query, "document": document}
    written = [
        row._replace(query=query + row.query, passages=tuple(document + text for text in row.passages))
        for row in lists()
    ]
    for own, expected in zip(found.lists, rank(load(embedding), written).lists, strict=True):
        np.testing.assert_allclose(own.scores, expected.scores, rtol=0, atol=1e-5)
    assert "are not used" not in caplog.text


@pytest.mark.parametrize(
    ("prompts", "default"),
    [({"web_search_query": "问：", "s2p_query": "问："}, None), ({"retrieval": "问："}, "retrieval")],
)
def test_prompts_that_are_not_used_are_named(
    prompts: dict[str, str], default: str | None, embedding: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = scores(embedding)
    with caplog.at_level(logging.WARNING):
        found = rank(load(with_prompts(embedding, prompts, default)))
    assert found.observed["prompts"] == {"query": "", "document": ""}
    assert np.array_equal(np.concatenate([own.scores for own in found.lists]), expected)
    assert f"its prompts {', '.join(map(repr, sorted(prompts)))} are not used" in caplog.text


def test_a_cross_encoders_prompts(reranker: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain: Any = load(reranker)
    plain.model.save_pretrained(str(reranker.parent / "saved"))
    saved = reranker.parent / "saved"
    change_json(saved / "config_sentence_transformers.json", prompts={"web": "问："}, default_prompt_name=None)
    assert np.array_equal(scores(saved), scores(reranker))
    assert "its prompts 'web' are not used" in caplog.text
    change_json(saved / "config_sentence_transformers.json", default_prompt_name="web")
    assert rank(load(saved)).observed["prompts"] == {"pair": "问："}
    assert not np.array_equal(scores(saved), scores(reranker))
