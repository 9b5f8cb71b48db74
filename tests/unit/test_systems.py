"""What `--model` names, and the kinds that are no models: BM25, run files, random, the oracle."""

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from checkpoints import write_layout_2
from listcon_eval.data import local_task, mini_task
from listcon_eval.errors import ListconError
from listcon_eval.evaluation import evaluate
from listcon_eval.metrics import cmteb
from listcon_eval.model.source import ModelSource
from listcon_eval.mteb_adapter import SystemSearch
from listcon_eval.ordering import ranked_list
from listcon_eval.records import NOT_RETRIEVED, CandidateList, RankedList
from listcon_eval.results import Result
from listcon_eval.systems import resolve
from listcon_eval.systems.base import KINDS, LoadOptions, RankContext, Ranking, System, load_system, system_class
from listcon_eval.systems.baselines import Bm25, Oracle, Random, characters
from listcon_eval.systems.resolve import ModelSpec, resolve_model
from listcon_eval.systems.runs import RunFile, with_first_stage
from overlap import OverlapSystem
from systems import write_chat_classifier, write_cross_encoder, write_embedding
from texts import random_list

METADATA = mteb.get_task("T2Reranking").metadata
PINNED = {  # as published.json of the reference material has them
    "TencentBAC/Conan-embedding-v1": "bb9749a57d4f02fd71722386f8d0f5a9398d7eeb",
    "lier007/xiaobu-embedding-v2": "1912f2e59a5c2ef802a471d735a38702a5c9485e",
    "iampanda/zpoint_large_embedding_zh": "b1075144f440ab4409c05622c1179130ebd57d03",
}


def lists() -> list[CandidateList]:
    found = []
    for seed, size in enumerate((1, 5, 25)):
        query, *passages = random_list(size, seed=seed)
        ids = tuple(f"d{seed}-{place}" for place in range(size))
        found.append(CandidateList(f"q{seed}", query, ids, tuple(passages), (1,) + (0,) * (size - 1)))
    return found


def ranked(system: System, rows: Sequence[CandidateList]) -> list[tuple[float, ...]]:
    return [result.scores for result in system.rank(rows, "pointwise", RankContext(METADATA, "dev")).lists]


def test_a_text_is_work_once_or_once_a_list(tmp_path: Path) -> None:
    rows = [CandidateList(name, "问题", ("a", "b"), ("答案", "无关的"), (1, 0)) for name in ("q1", "q2")]
    folders = (write_embedding(tmp_path / "embedding"), write_cross_encoder(tmp_path / "cross"))
    embedding, cross_encoder = (load_system(resolve_model(path), LoadOptions(device="cpu")) for path in folders)
    assert embedding.work(rows) == 2 + 2 + 3
    assert cross_encoder.work(rows) == Bm25().work(rows) == 2 * (2 + 2 + 3)


# What --model names


def test_every_kind_has_its_class() -> None:
    assert {kind: system_class(kind).kind for kind in KINDS} == {kind: kind for kind in KINDS}


def test_folders_are_told_by_their_files(checkpoint_folder: Path, tmp_path: Path) -> None:
    folders = {
        "listconranker": [checkpoint_folder, write_layout_2(tmp_path / "layout-2")],
        "embedding": [write_embedding(tmp_path / "embedding")],
        "cross-encoder": [write_cross_encoder(tmp_path / "bert"), write_chat_classifier(tmp_path / "qwen2")],
    }
    for kind, of_kind in folders.items():
        for folder in of_kind:
            found = resolve_model(str(folder))
            assert (found.kind, found.source) == (kind, ModelSource(folder, None, None))


def test_a_listconranker_within_an_embedding_models_folder_is_one(checkpoint_folder: Path, tmp_path: Path) -> None:
    """Its encoder started from an embedding model, whose files may still lie there."""
    folder = Path(shutil.copytree(checkpoint_folder, tmp_path / "both"))
    (folder / "modules.json").write_text("[]")
    assert resolve_model(str(folder)).kind == "listconranker"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors.index.json"])
def test_a_listconranker_is_told_in_every_file_of_weights(name: str, tmp_path: Path) -> None:
    weights = {
        "hf_model.embeddings.word_embeddings.weight": torch.zeros(1),
        "linear_in_embedding.weight": torch.ones(1),
    }
    if name.endswith(".bin"):
        torch.save(weights, tmp_path / name)
    else:
        (tmp_path / name).write_text(json.dumps({"weight_map": dict.fromkeys(weights, "model-1.safetensors")}))
    assert resolve.kind_of_folder(tmp_path) == "listconranker"


def test_names_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bm25").mkdir()
    (tmp_path / "their.run").write_text("q0 Q0 d0-0 1 1.0 them\n")
    assert resolve_model("bm25")[:3] == ("bm25", "bm25", "")
    assert resolve_model("bm25:jieba")[:3] == ("bm25:jieba", "bm25", "jieba")
    assert resolve_model("random:7")[:3] == ("random:7", "random", "7")
    assert resolve_model("their.run").kind == "run-file"
    with pytest.raises(ListconError, match=r"cannot tell what bm25 holds: .* files nothing"):
        resolve_model("./bm25")


@pytest.mark.parametrize("hub_id", PINNED)
def test_models_of_mtebs_registry_are_known_and_pinned(hub_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def resolve_source(path_or_id: str, revision: str | None) -> ModelSource:
        asked.append((path_or_id, revision))
        return ModelSource(Path("nowhere"), path_or_id, revision)

    monkeypatch.setattr(resolve, "resolve_source", resolve_source)
    assert resolve_model(hub_id).kind == "embedding"
    resolve_model(hub_id, revision="another")
    assert asked == [(hub_id, PINNED[hub_id]), (hub_id, "another")]


def test_rerankers_and_other_models_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "resolve_source", lambda name, revision: ModelSource(Path("nowhere"), name, revision))
    assert resolve_model("BAAI/bge-reranker-v2-m3").kind == "cross-encoder"
    assert resolve_model("ByteDance/ListConRanker").kind == "listconranker"
    with pytest.raises(ListconError, match=r"late-interaction model\. Give a model's folder"):
        resolve_model("colbert-ir/colbertv2.0")
    assert resolve_model("colbert-ir/colbertv2.0", "embedding").kind == "embedding"


def test_what_is_not_recognised_is_one_message(tmp_path: Path) -> None:
    BertModel(BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)).save_pretrained(
        tmp_path
    )
    with pytest.raises(ListconError) as raised:
        resolve_model(str(tmp_path))
    for part in ("architectures BertModel", "config.json, model.safetensors", "--kind", "bm25, random, oracle"):
        assert part in str(raised.value)
    assert resolve_model(str(tmp_path), "embedding").kind == "embedding"
    for arguments, message in [
        ((str(tmp_path), "listwise"), "no kind 'listwise': give one of listconranker, embedding"),
        ((str(tmp_path), "bm25"), "give --model bm25"),
        ((str(tmp_path), "run-file"), "is no file: the kind run-file takes a TREC run"),
        (("nowhere/at/all", None), r"not one of bm25, random, oracle; no checkpoint folder at"),
    ]:
        with pytest.raises(ListconError, match=message):
            resolve_model(*arguments)


def test_a_registered_model_that_runs_its_own_code_is_refused() -> None:
    meta = next(
        meta for meta in mteb.get_model_metas(model_types=["dense"]) if meta.loader_kwargs.get("trust_remote_code")
    )
    found = ModelSpec(str(meta.name), "embedding", source=ModelSource(Path("nowhere"), meta.name, meta.revision))
    with pytest.raises(ListconError, match="this package runs no code of a checkpoint"):
        load_system(found, LoadOptions("cpu"))


@pytest.mark.parametrize("given", ["bm25:letters", "random:-1", "random:few", "oracle:good"])
def test_variants_that_there_are_not(given: str) -> None:
    with pytest.raises(ListconError, match=given.partition(":")[2]):
        load_system(resolve_model(given), LoadOptions())


# BM25


def by_the_formula(tokens: Callable[[str], list[str]], query: str, passages: Sequence[str]) -> list[float]:
    """BM25 as Robertson's formula with Lucene's idf, term by term."""
    documents = [tokens(passage) for passage in passages]
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        counts, score = Counter(document), 0.0
        for term in tokens(query):
            having = sum(term in other for other in documents)
            if having:
                idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
                score += idf * counts[term] / (counts[term] + 1.2 * (1 - 0.75 + 0.75 * len(document) / mean))
        scores.append(score)
    return scores


def test_bm25_is_the_formula() -> None:
    passages = ["皮蛋属于凉性的食物。", "皮蛋是中国传统食品。", "感冒了要多喝水", "", "皮蛋 VC, vc"]
    for query in ("皮蛋是寒性的食物吗", "VC vc？", "皮蛋皮蛋"):
        (found,) = ranked(Bm25(), [CandidateList("q", query, tuple("abcde"), tuple(passages), (0,) * 5)])
        expected = by_the_formula(characters, query, passages)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=0)  # a ranked list's scores are float32 values
        assert all(type(score) is float for score in found)
        assert np.array_equal(np.argsort(found, kind="stable"), np.argsort(expected, kind="stable"))


def test_bm25_of_words_is_the_formula() -> None:
    jieba = pytest.importorskip("jieba")
    jieba.setLogLevel("ERROR")
    passages = ["皮蛋属于凉性的食物。", "皮蛋是中国传统食品。", "感冒了要多喝水"]
    (found,) = ranked(
        Bm25("jieba"), [CandidateList("q", "皮蛋是凉性的食物吗？", tuple("abc"), tuple(passages), (0,) * 3)]
    )

    def words(text: str) -> list[str]:
        return [word for word in jieba.lcut(text) if word not in "。？"]

    np.testing.assert_allclose(found, by_the_formula(words, "皮蛋是凉性的食物吗？", passages), rtol=1e-6, atol=0)


def test_bm25_tokens() -> None:
    assert characters("A股，涨 了") == ["a", "股", "涨", "了", "a股", "股涨", "涨了"]


@pytest.mark.parametrize(("query", "passages"), [("？！", ["答"]), ("问", ["", "。"]), ("问", ["答", "回答"])])
def test_bm25_without_a_match_ties_all(query: str, passages: list[str]) -> None:
    ids = tuple(map(str, range(len(passages))))
    assert set(ranked(Bm25(), [CandidateList("q", query, ids, tuple(passages), (0,) * len(ids))])[0]) == {0.0}


def test_bm25_does_not_depend_on_order_and_ties_equal_texts() -> None:
    row = lists()[2]
    row = row._replace(passages=(*row.passages[:-1], row.passages[0]))
    turned = row._replace(doc_ids=row.doc_ids[::-1], passages=row.passages[::-1])
    (found,), (other,) = ranked(Bm25(), [row]), ranked(Bm25(), [turned])
    assert found == other[::-1]
    assert found[0] == found[-1]


@pytest.mark.parametrize(("name", "published"), [("heldout_t2ranking_sample", 0.918), ("heldout_100_statute", 0.477)])
def test_bm25_on_real_data(name: str, published: float, real_data: Callable[[str], Path]) -> None:
    """Near the figure in the data's own README: uni- and bigrams too, tokens and constants not said."""
    rows = local_task(real_data(f"{name}.jsonl.gz")).candidate_lists()
    scored = [ranked_list(scores) for scores in ranked(Bm25(), rows)]
    assert cmteb.evaluate(rows, scored, "conventional").means["map"] == pytest.approx(published, abs=0.02)


# Random and oracle


def test_random_follows_from_seed_query_and_document_alone() -> None:
    rows = lists()
    found = ranked(Random(3), rows)
    turned = [row._replace(doc_ids=row.doc_ids[::-1], query="另外") for row in rows[::-1]]
    assert [scores[::-1] for scores in ranked(Random(3), turned)][::-1] == found
    assert ranked(Random(4), rows) != found
    drawn = ranked(Random(), [row._replace(doc_ids=tuple(map(str, range(4000)))) for row in rows[:1]])[0]
    assert len(set(drawn)) == 4000
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.02)
    assert 0 <= min(drawn) < max(drawn) < 1


def test_the_oracle_ranks_by_judgements_which_mteb_does_not_hand_over() -> None:
    with pytest.raises(ListconError, match="ranks by the task's judgements"):
        SystemSearch(Oracle())
    task = mini_task("MiniWeb")
    rows = task.candidate_lists()
    ranking = Oracle().rank(rows, "pointwise", RankContext(METADATA, "dev"))
    assert cmteb.evaluate(rows, ranking.lists, "pointwise").means["map"] == 1.0


# Run files


def write_run(path: Path, rows: Sequence[CandidateList], *, leave_out: int = 0) -> Path:
    lines = [
        f"{row.query_id} Q0 {doc_id} {place + 1} {-place / 2} them\n"
        for row in rows
        for place, doc_id in enumerate(row.doc_ids[: len(row.doc_ids) - leave_out or None])
    ]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def test_a_run_file_gives_its_scores(tmp_path: Path) -> None:
    rows = lists()
    found = ranked(RunFile(write_run(tmp_path / "their.run", rows)), rows)
    assert found == [tuple(-place / 2 for place in range(len(row.doc_ids))) for row in rows]


def test_candidates_that_a_file_lacks_are_not_retrieved_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = lists()[1:]
    system = RunFile(write_run(tmp_path / "cut.run", rows, leave_out=2))
    ranking = system.rank(rows, "pointwise", RankContext(METADATA, "dev"))
    for found in ranking.lists:
        assert found.scores[-2:] == (NOT_RETRIEVED, NOT_RETRIEVED)
        assert np.isfinite(found.scores[:-2]).all()
    assert "does not list 4 candidates of 2 queries of T2Reranking" in caplog.text
    assert ranking.observed == {"not_retrieved": {"candidates": 4, "queries": 2}}
    assert "ranks" not in caplog.text


def test_a_trial_takes_its_queries_out_of_a_run_of_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = lists()
    path = write_run(tmp_path / "their.run", rows)
    assert ranked(RunFile(path), rows[:2]) == ranked(RunFile(path), rows)[:2]
    assert "their.run has 1 query that T2Reranking has no candidates for: left out" in caplog.text


def test_a_query_without_candidates_needs_no_line(tmp_path: Path) -> None:
    rows = lists()
    empty = CandidateList("empty", "问", (), (), ())
    found = ranked(RunFile(write_run(tmp_path / "their.run", rows)), [empty, *rows])
    assert found[0] == ()
    assert all(found[1:])


@pytest.mark.parametrize("score", ["1.0", "0", "-3e5"])
def test_equal_scores_with_ranks_are_ties_and_that_is_said(
    score: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = lists()
    path = tmp_path / "flat.run"
    path.write_text(
        "".join(
            f"{row.query_id} Q0 {doc_id} {rank} {score} them\n"
            for row in rows
            for rank, doc_id in enumerate(row.doc_ids, start=1)
        )
    )
    assert all(len(set(scores)) == 1 for scores in ranked(RunFile(path), rows))
    assert "all scores of a query are equal" in caplog.text
    assert "never the ranks" in caplog.text
    caplog.clear()
    task = mini_task("MiniWeb")
    ids = {row.query_id: row.doc_ids for row in task.candidate_lists()}
    path.write_text(
        "".join(f"{q} Q0 {own[place]} {place + 1} {score} x\n" for q, own in ids.items() for place in (0, 1))
    )
    with_first_stage(task, str(path), 2)  # whose order is what a reranker's gain is over
    assert f"{path}: all scores of a query are equal" in caplog.text


@pytest.mark.parametrize("documents", [{}, {"d": "?!", "e": " "}])
def test_bm25_finds_nothing_where_there_is_no_word(documents: dict[str, str]) -> None:
    assert Bm25().retrieve({"q": "问", "?": "?"}, documents, 3) == {"q": {}, "?": {}}


def test_an_empty_name_is_no_first_stage() -> None:
    with pytest.raises(ListconError, match="--rerank is '' "):
        with_first_stage(mini_task("MiniWeb"), "", 2)


def test_ids_that_do_not_fit_are_one_message(tmp_path: Path) -> None:
    rows = lists()
    path = write_run(tmp_path / "their.run", rows)
    with pytest.raises(ListconError, match=r"has 1 query that T2Reranking has no candidates for, such as 'q2'"):
        ranked(RunFile(path), [*rows[:2], rows[2]._replace(query_id="q9")])
    with pytest.raises(ListconError, match=r"lacks 1 query of T2Reranking \(of 3\), such as 'q1'"):
        ranked(RunFile(write_run(tmp_path / "less.run", [rows[0], rows[2]])), rows)
    other = rows[1]._replace(doc_ids=("x", *rows[1].doc_ids[1:]))
    with pytest.raises(ListconError, match="query q1: 1 document not among that query's candidates in T2Reranking"):
        ranked(RunFile(path), [rows[0], other, rows[2]])
    path.write_text("q0 Q0 d0-0 1 high them\n")
    with pytest.raises(ListconError, match=r"line 1: .*'high'"):
        RunFile(path)


# Options, and results


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("bm25", {"max_length": 100}, "leave out --max-length: a model of the kind bm25 "),
        ("random", {"dtype": "float32"}, "leave out --dtype: "),
        ("oracle", {"memory": 10**9, "device_memory": 10**9}, "leave out --device-memory and --memory: "),
        ("bm25", {"device": "cuda"}, "leave out --device: "),
    ],
)
def test_options_without_a_meaning_are_refused(model: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ListconError, match=message):
        load_system(resolve_model(model), LoadOptions(**options))


def test_memory_budgets_are_for_listconranker(tmp_path: Path) -> None:
    spec = resolve_model(str(write_cross_encoder(tmp_path / "model")))
    with pytest.raises(ListconError, match="leave out --memory: "):
        load_system(spec, LoadOptions("cpu", memory=10**9))


def test_both_modes_of_listconranker_share_an_encoding_and_each_counts_its_seconds(checkpoint_folder: Path) -> None:
    system = load_system(resolve_model(str(checkpoint_folder)), LoadOptions("cpu"))
    first, second = (RankContext(METADATA, "dev") for _ in range(2))
    rows = lists()
    conventional = system.rank(rows, "conventional", first)
    iterative = system.rank(rows, "iterative", second)
    assert (conventional.observed["reused_encoding"], iterative.observed["reused_encoding"]) == (False, True)
    assert second.phases.seconds["encode"] == first.phases.seconds["encode"] > 0
    assert system.rank(rows[:1], "iterative", second).observed["reused_encoding"] is False
    alone = load_system(resolve_model(str(checkpoint_folder)), LoadOptions("cpu"))
    assert alone.rank(rows, "iterative", RankContext(METADATA, "dev")).lists == iterative.lists


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Runs of every kind that is no model."""
    output = tmp_path_factory.mktemp("systems")
    task = mini_task("MiniWeb")
    found = {model: evaluate(model, [task], output=output).results[0] for model in ("bm25", "random", "oracle")}
    found["run-file"] = evaluate(str(found["random"].file("run.trec")), [task], output=output).results[0]
    return found


def test_a_run_file_of_a_run_has_that_runs_numbers(results: dict[str, Result]) -> None:
    assert results["run-file"].cmteb == results["random"].cmteb
    assert results["run-file"].mteb == results["random"].mteb
    assert results["oracle"].cmteb["map"] == 1.0
    assert {result.kind for result in results.values()} == {"bm25", "random", "oracle", "run-file"}
    assert all(result.settings["mode"] == "pointwise" and "dtype" not in result.settings for result in results.values())
    assert len({result.folder for result in results.values()}) == 4


def test_a_mode_is_for_those_that_have_modes(tmp_path: Path) -> None:
    with pytest.raises(ListconError, match=r"kind bm25, which scores each passage .* iterative was asked for"):
        evaluate("bm25", [mini_task("MiniWeb")], modes=("iterative",), output=tmp_path)


def test_texts_have_to_be_readable_where_they_are_read() -> None:
    rows = [CandidateList("q0", "问", ("d",), ("答",), (1,)), CandidateList("q1", " ", ("d",), ("答",), (1,))]
    assert len(ranked(Random(), rows)) == 2
    with pytest.raises(ListconError, match="T2Reranking, query q1: the query is empty"):
        ranked(Bm25(), rows)
    ranking = Bm25().rank(rows, "pointwise", RankContext(METADATA, "dev", keep_going=True))
    assert list(ranking.failures) == ["q1"]
    assert math.isfinite(ranking.lists[0].scores[0])
    assert math.isnan(ranking.lists[1].scores[0])


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_are_named(score: float, tmp_path: Path) -> None:
    system: Any = load_system(resolve_model(str(write_cross_encoder(tmp_path / "model"))), LoadOptions("cpu"))
    system.model.transformers_model.classifier.bias.data.fill_(score)
    with pytest.raises(ListconError, match=r"T2Reranking, query q0: \d+ of \d+ scores are not finite numbers"):
        ranked(system, lists())


@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (lambda: [ranked_list([0.5])] * 2, "local/own gave 2 rankings of 3 lists"),
        (list, "local/own gave 0 rankings of 3 lists"),
        (lambda: [ranked_list([0.5])] * 4, "local/own gave 4 rankings of 3 lists"),
        (lambda: [ranked_list([0.5] * 5)] * 3, "query q0: local/own gave 5 scores and 5 rounds for 1 passage"),
        (lambda: [RankedList((0.5,), ())] * 3, "query q0: local/own gave 1 score and 0 rounds for 1 passage"),
        (lambda: [ranked_list([[0.5]])] * 3, r"in the shape \(1, 1\): expected one number for each passage"),
    ],
)
@pytest.mark.parametrize("keep_going", [True, False])
def test_a_system_of_ones_own_that_gives_more_or_less_than_it_got_is_named(
    gives: Callable[[], list[RankedList]], message: str, keep_going: bool
) -> None:
    class Own(OverlapSystem):
        def _rank(self, lists: Sequence[CandidateList], mode: str, context: RankContext) -> Ranking:
            return Ranking(gives(), {}, {})

    with pytest.raises(ListconError, match=message):
        Own("local/own").rank(lists(), "pointwise", RankContext(METADATA, "dev", keep_going=keep_going))


def test_a_systems_settings_that_no_folder_can_be_named_after_are_refused_before_the_work(tmp_path: Path) -> None:
    class Own(OverlapSystem):
        def path_settings(self) -> Mapping[str, Any]:
            return {"prompt": "x" * 150}  # mteb shortens what has more than 200 bytes

        def _rank(self, lists: Sequence[CandidateList], mode: str, context: RankContext) -> Ranking:
            raise AssertionError

    with pytest.raises(ListconError, match=r"local/own: .* a name of 285 bytes .* file systems take 240"):
        evaluate(Own("local/own"), {"n" * 100: [{"query": "q", "positive": ["a"], "negative": ["b"]}]}, output=tmp_path)
