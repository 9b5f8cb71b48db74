"""Embedding models and cross-encoders: the scores of the model libraries alone, each text and pair by itself."""

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
import torch
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    BertModel,
    Qwen2ForSequenceClassification,
)

from checkpoints import write_layout_1
from listcon_eval.data import Task, local_task
from listcon_eval.errors import ListconError
from listcon_eval.model import load_checkpoint
from listcon_eval.mteb_adapter import SystemSearch
from listcon_eval.records import CandidateList
from listcon_eval.results.chunk_cache import ChunkCache
from listcon_eval.systems.base import LoadOptions, RankContext, System, load_system
from listcon_eval.systems.resolve import resolve_model
from result_folders import change_json
from systems import write_chat_classifier, write_cross_encoder, write_embedding
from texts import random_list

Writer = Callable[..., Path]
METADATA = mteb.get_task("T2Reranking").metadata


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embedding(tmp_path_factory.mktemp("systems") / "tiny-conan")


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cross_encoder(tmp_path_factory.mktemp("systems") / "tiny-cross-encoder")


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_classifier(tmp_path_factory.mktemp("systems") / "tiny-ldir")


def candidates() -> list[CandidateList]:
    """Lists of 1 to 30 candidates, one longer than any model here takes, with equal texts in and between lists."""
    lists = []
    for seed, size in enumerate((1, 7, 30)):
        query, *passages = random_list(size, seed=seed)
        lists.append(row(f"q{seed}", query, passages))
    lists.append(row("copy", lists[1].query, [lists[2].passages[3], lists[1].passages[0], lists[2].passages[3], ""]))
    lists.append(row("long", "长", ["".join(lists[2].passages) * 3, "短"]))
    return lists


def row(query_id: str, query: str, passages: Sequence[str]) -> CandidateList:
    ids = tuple(f"{query_id}-{place}" for place in range(len(passages)))
    return CandidateList(query_id, query, ids, tuple(passages), (0,) * len(passages))


def load(folder: Path, *, max_length: int | None = None, kind: str | None = None) -> System:
    return load_system(resolve_model(str(folder), kind), LoadOptions("cpu", max_length=max_length))


def context(cache: ChunkCache | None = None) -> RankContext:
    return RankContext(METADATA, "dev", cache=cache)


def scores(system: System, lists: Sequence[CandidateList]) -> list[tuple[float, ...]]:
    ranked = system.rank(lists, "pointwise", context()).lists
    assert all(set(result.rounds) == {0} for result in ranked)
    return [result.scores for result in ranked]


def check(system: System, expected: Callable[[str, str], Any]) -> None:
    """Hold a system's scores against a function of query and passage, one pair at a time."""
    lists = candidates()
    for found, wanted in zip(scores(system, lists), lists, strict=True):
        alone = [float(expected(wanted.query, passage)) for passage in wanted.passages]
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-5)
    for wanted in lists:  # in a call of its own, in another order
        turned = wanted._replace(doc_ids=wanted.doc_ids[::-1], passages=wanted.passages[::-1])
        (found,) = scores(system, [turned])
        alone = [float(expected(wanted.query, passage)) for passage in turned.passages]
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-5)
    copied = scores(system, lists)[3]
    assert copied[0] == copied[2]


@torch.inference_mode()
def test_an_embedding_model_says_what_transformers_alone_does(embedding: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(embedding)
    encoder: Any = BertModel.from_pretrained(embedding)  # in evaluation mode
    dense = load_file(embedding / "2_Dense" / "model.safetensors")

    def embed(text: str) -> torch.Tensor:
        tokens = tokenizer(text, truncation=True, max_length=128, return_tensors="pt")
        mean = encoder(**tokens).last_hidden_state[0].mean(dim=0)
        return torch.nn.functional.normalize(dense["linear.weight"] @ mean + dense["linear.bias"], dim=0)

    system = load(embedding)
    assert system.kind == "embedding"
    check(system, lambda query, passage: embed(query) @ embed(passage))


def test_an_embedding_model_says_what_sentence_transformers_alone_does(embedding: Path) -> None:
    model = SentenceTransformer(str(embedding), device="cpu")
    check(
        load(embedding),
        lambda query, passage: model.similarity(model.encode_query(query), model.encode_document(passage))[0, 0],
    )


@torch.inference_mode()
def test_of_a_listconranker_the_encoder_alone_can_be_asked(tmp_path: Path) -> None:
    folder = write_layout_1(tmp_path / "tiny")
    checkpoint = load_checkpoint(folder)

    def embed(text: str) -> torch.Tensor:
        tokens = checkpoint.tokenizer(text, truncation=True, max_length=512, return_tensors="pt")
        pooled = checkpoint.model.pool(tokens["input_ids"], tokens["attention_mask"])[0]
        return torch.nn.functional.normalize(pooled, dim=0)

    system = load(folder, kind="embedding")
    assert system.name == "local/tiny-encoder"
    check(system, lambda query, passage: embed(query) @ embed(passage))


def test_prompts_and_similarity_are_the_models_own(tmp_path: Path) -> None:
    prompts = {"query": "为这个句子生成表示：", "document": "文："}
    folder = write_embedding(tmp_path / "with-prompts", prompts=prompts, similarity="dot")
    shutil.rmtree(folder / "3_Normalize", ignore_errors=True)
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:3]))  # dot products of vectors of different lengths
    model = SentenceTransformer(str(folder), device="cpu")
    check(
        load(folder),
        lambda query, passage: model.encode(prompts["query"] + query) @ model.encode(prompts["document"] + passage),
    )


@pytest.fixture
def task(tmp_path: Path) -> Task:
    path = tmp_path / "own.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for seed in range(6):
            query, *passages = random_list(12, seed=seed)
            file.write(json.dumps({"query": query, "positive": passages[:2], "negative": passages[2:]}) + "\n")
    return local_task(path)


def test_mteb_alone_measures_the_same(tmp_path: Path, task: Task) -> None:
    """Prompts of a task type, which mteb chooses by the task, included."""
    folder = write_embedding(tmp_path / "with-prompts", prompts={"Reranking-query": "问：", "document": "文："})
    common: Any = {"cache": None, "co2_tracker": False, "show_progress_bar": False}
    system = SystemSearch(load(folder))
    own = mteb.evaluate(system, task.mteb_task, **common).task_results[0]
    model = SentenceTransformerEncoderWrapper(SentenceTransformer(str(folder), device="cpu"))
    assert model.model_prompts
    theirs = mteb.evaluate(model, task.mteb_task, **common).task_results[0]
    assert own.scores["test"][0]["ndcg_at_10"] == theirs.scores["test"][0]["ndcg_at_10"]
    assert own.get_score() == theirs.get_score()


def test_every_distinct_text_is_encoded_once(embedding: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system: Any = load(embedding)
    seen: list[str] = []
    encode = system.encoder.encode

    def counted(inputs: Iterable[dict[str, list[str]]], **rest: object) -> object:
        batches = list(inputs)
        if "encode" not in vars(system.model):  # then it only looks for the prompt
            seen.extend(text for batch in batches for text in batch["text"])
        encoded: object = encode(inputs, **rest)
        return encoded

    monkeypatch.setattr(system.encoder, "encode", counted)
    lists = candidates()
    scores(system, lists)
    queries, passages = {row.query for row in lists}, {text for row in lists for text in row.passages}
    assert sorted(seen) == sorted([*queries, *passages])


@torch.inference_mode()
def test_a_cross_encoder_says_what_transformers_alone_does(cross_encoder: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(cross_encoder)
    model: Any = BertForSequenceClassification.from_pretrained(cross_encoder)
    system = load(cross_encoder)
    assert system.kind == "cross-encoder"
    check(
        system,
        lambda query, passage: model(
            **tokenizer(
                [(query, passage)], truncation=True, max_length=512, return_token_type_ids=True, return_tensors="pt"
            )
        ).logits[0, 0],
    )


def test_a_cross_encoder_that_sentence_transformers_saved(cross_encoder: Path, tmp_path: Path) -> None:
    model = CrossEncoder(str(cross_encoder), device="cpu")
    model.save_pretrained(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "modules.json").exists()
    system = load(tmp_path / "saved")
    assert system.kind == "cross-encoder"
    identity = torch.nn.Identity()
    model.tokenizer.model_input_names = ["input_ids", "attention_mask", "token_type_ids"]
    check(system, lambda query, passage: model.predict([(query, passage)], activation_fn=identity)[0])


@torch.inference_mode()
def test_a_chat_classifier_says_what_transformers_alone_does(chat: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(chat)
    model: Any = Qwen2ForSequenceClassification.from_pretrained(chat)
    tail = tokenizer("<|im_end|>\n<|im_start|>assistant\n")["input_ids"]

    def logit(query: str, passage: str) -> float:
        chat = [{"role": "user", "content": f"{query}\n\n{passage}"}]
        ids = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))["input_ids"]
        assert ids[-len(tail) :] == tail
        if len(ids) > 1024:
            ids = ids[: 1024 - len(tail)] + tail
        return float(model(torch.tensor([ids])).logits[0, 0])

    system = load(chat)
    assert system.settings() == {"max_length": 1024}
    check(system, logit)


def test_a_padding_token_within_a_text_changes_nothing(chat: Path) -> None:
    """The score is read from the last token, even where that is the padding token and the texts are of many lengths."""
    pad = "<|endoftext|>"
    lists = [row("q", f"问{pad}", [f"答{pad * place}" for place in range(5)])]
    together = scores(load(chat), lists)[0]
    apart = [scores(load(chat), [row("q", lists[0].query, [text])])[0][0] for text in lists[0].passages]
    np.testing.assert_allclose(together, apart, rtol=0, atol=1e-5)
    assert len({round(score, 4) for score in together}) == 5


@pytest.mark.parametrize("writer", [write_embedding, write_cross_encoder, write_chat_classifier])
def test_chunks_of_an_earlier_start_are_taken(writer: Writer, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    folder, work = writer(tmp_path / "model"), ChunkCache(tmp_path / "work")
    lists = candidates()

    def ranked(cache: ChunkCache) -> list[tuple[float, ...]]:
        system: Any = load(folder)
        system.budget.size, system.chunk_tokens = 256, 512
        return [result.scores for result in system.rank(lists, "pointwise", context(cache)).lists]

    whole = ranked(work)
    kept = sorted((tmp_path / "work").glob("*.chunk"))
    assert work.reused == 0
    assert len(kept) > 3
    for path in kept[::2]:
        path.unlink()
    again = ChunkCache(tmp_path / "work")
    assert ranked(again) == whole
    assert again.reused == len(kept) - len(kept[::2])


@pytest.mark.parametrize("writer", [write_embedding, write_cross_encoder, write_chat_classifier])
def test_out_of_memory_means_smaller_batches(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = writer(tmp_path / "model")
    lists = candidates()[:3]
    expected = scores(load(folder), lists)
    system: Any = load(folder)
    # sentence-transformers wraps a network, of either kind, in its first module.
    network: Any = system.model if writer is write_chat_classifier else system.model[0].model
    forward = network.base_model.forward
    limit = 4

    def small(*arguments: Any, **rest: Any) -> object:  # noqa: ANN401 - a network's arguments
        if len(rest.get("input_ids", arguments[0] if arguments else ())) > limit:
            raise torch.OutOfMemoryError
        hidden: object = forward(*arguments, **rest)
        return hidden

    monkeypatch.setattr(network.base_model, "forward", small)
    with caplog.at_level(logging.WARNING):
        found = scores(system, lists)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)
    assert "continuing with batches of" in caplog.text
    limit = 0
    with pytest.raises(ListconError, match="does not fit into the memory of cpu"):
        scores(system, lists)


def test_a_length_is_kept_to_and_part_of_the_path(embedding: Path, cross_encoder: Path, chat: Path) -> None:
    head, long = "同一个开头" * 40, "不同的结尾"
    lists = [row("q", "问", [head, head + long])]
    for folder in (embedding, cross_encoder, chat):
        whole, cut = load(folder), load(folder, max_length=100)
        assert whole.path_settings() == {}
        assert cut.path_settings() == cut.settings() == {"max_length": 100}
        assert np.ptp(scores(cut, lists)[0]) < 1e-5
    for folder in (cross_encoder, chat):
        assert np.ptp(scores(load(folder), lists)[0]) > 1e-3


@pytest.mark.parametrize(
    ("writer", "length", "message"),
    [
        (write_embedding, 129, "takes 3 to 128"),
        (write_cross_encoder, 513, "takes 4 to 512"),
        (write_chat_classifier, 5, r"takes \d+ to 2048 tokens"),
        (write_chat_classifier, 4096, r"takes \d+ to 2048 tokens"),
    ],
)
def test_a_length_that_is_none(writer: Writer, length: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ListconError, match=message):
        load(writer(tmp_path / "model"), max_length=length)


@pytest.mark.parametrize("writer", [write_cross_encoder, write_chat_classifier])
def test_a_classifier_of_several_labels_is_no_reranker(writer: Writer, tmp_path: Path) -> None:
    with pytest.raises(ListconError, match="has 3 labels: a reranker has one"):
        load(writer(tmp_path / "model", labels=3))


@pytest.mark.parametrize(
    ("writer", "head"), [(write_cross_encoder, "classifier.weight"), (write_chat_classifier, "score.weight")]
)
def test_a_missing_head_is_not_made_up(writer: Writer, head: str, tmp_path: Path) -> None:
    folder = writer(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights[head]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ListconError, match=f"lack 1 weight of a .*: {head}"):
        load(folder)


def test_damaged_files_are_one_message(tmp_path: Path) -> None:
    folder = write_embedding(tmp_path / "model")
    (folder / "2_Dense" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ListconError, match="cannot be loaded as an embedding model"):
        load(folder)
    folder = write_cross_encoder(tmp_path / "other")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ListconError, match="cannot be loaded as a cross-encoder"):
        load(folder)


def more_tokens(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<more-{number}>" for number in range(20)])
    tokenizer.save_pretrained(folder)


def narrow_dense(folder: Path) -> None:
    dense = torch.nn.Linear(32, 96).state_dict()
    save_file({f"linear.{name}": value for name, value in dense.items()}, folder / "2_Dense" / "model.safetensors")
    change_json(folder / "2_Dense" / "config.json", in_features=32)


def setting(file: str, **values: object) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / file, **values)


@pytest.mark.parametrize(
    ("writer", "break_it", "message"),
    [
        (write_embedding, more_tokens, "they do not belong together"),
        (write_cross_encoder, more_tokens, "they do not belong together"),
        (write_chat_classifier, more_tokens, "they do not belong together"),
        (write_embedding, narrow_dense, "was loaded, but reads no text: .* shapes cannot be multiplied"),
        (write_embedding, setting("2_Dense/config.json", in_features=32), "for Dense: size mismatch for linear.weight"),
        (write_embedding, setting("sentence_bert_config.json", max_seq_length=0), "cut to 0 tokens .* give 3 or more"),
        (write_embedding, setting("sentence_bert_config.json", max_seq_length="x"), "cut to 'x' tokens"),
        (write_cross_encoder, setting("tokenizer_config.json", model_max_length=-1), "-1 tokens .* give 4 or more"),
        (write_cross_encoder, setting("tokenizer_config.json", model_max_length=3), "3 tokens .* give 4 or more"),
        (
            write_embedding,
            setting("config.json", max_position_embeddings=100),
            r"\(512, 64\) in the files, \(100, 64\)",
        ),
        (write_cross_encoder, setting("config.json", max_position_embeddings=100), "lack 1 weight of a BertForS"),
        (
            lambda folder: write_embedding(folder, similarity="nonsense"),
            lambda _: None,
            "names the similarity 'nonsense', which sentence-transformers does not have .* would take cosine",
        ),
        (write_embedding, lambda folder: (folder / "adapter_config.json").write_text("{}"), "no adapter is read here"),
    ],
)
def test_a_model_that_could_not_read_is_refused_when_it_is_loaded(
    writer: Writer, break_it: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    folder = writer(tmp_path / "model")
    break_it(folder)
    with pytest.raises(ListconError, match=message):
        load(folder)


def test_the_metadata_and_the_key_follow_the_weights(embedding: Path, tmp_path: Path) -> None:
    system = load(embedding)
    meta = SystemSearch(system).mteb_model_meta
    assert (meta.name, meta.experiment_name) == ("local/tiny-conan", "dtype_float32__mode_pointwise")
    other = Path(shutil.copytree(embedding, tmp_path / "tiny-conan"))
    assert load(other).revision == system.revision
    dense = load_file(other / "2_Dense" / "model.safetensors")
    save_file({name: 2 * value for name, value in dense.items()}, other / "2_Dense" / "model.safetensors")
    assert load(other).revision != system.revision
    assert load(other).key() != system.key()
