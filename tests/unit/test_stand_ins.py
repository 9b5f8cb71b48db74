"""Tasks of mteb beside the card's, on stand-ins in the hub cache: all outputs, and mteb's own numbers."""

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import mteb
import pytest
from huggingface_hub import constants
from mteb.mocks import mock_tasks

from command import listcon_eval, one_line
from listcon_eval import ListConRanker, compare, evaluate, load_results
from listcon_eval.data import local_task, official_task
from listcon_eval.data.mteb_tasks import part_of
from listcon_eval.errors import ListconError
from listcon_eval.mteb_adapter import SystemSearch
from listcon_eval.results import Result, read_per_query, read_provenance
from listcon_eval.systems.base import System
from listcon_eval.systems.baselines import Bm25, Oracle, Random
from listcon_eval.systems.listconranker import ListConRankerSystem
from listcon_eval.systems.runs import with_first_stage
from stand_ins import fill


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache; there is no network. What commands make of the log is undone."""
    monkeypatch.setattr(logging.getLogger("listcon_eval"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("listcon_eval"), "handlers", [])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    return tmp_path / "hub"


def by_mteb(system: System, mode: str, snapshot: Path, name: str, subset: str) -> dict[str, Any]:
    """The scores of mteb's own evaluation, on data that mteb loads."""
    task = mteb.get_task(name, hf_subsets=[subset])
    metadata = task.metadata
    update: dict[str, Any] = {"dataset": {**metadata.dataset, "path": str(snapshot)}}
    if isinstance(metadata.eval_langs, dict):
        update["eval_langs"] = {subset: metadata.eval_langs[subset]}
    task.metadata = metadata.model_copy(update=update)
    task.load_data()
    found = mteb.evaluate(SystemSearch(system, mode), task, cache=None, show_progress_bar=False)[0]
    return dict(found.scores[task.eval_splits[0]][0])


def numbers(scores: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Every number among mteb's scores, but the time-dependent and undefined ones."""
    found: dict[str, float] = {}
    for name, value in scores.items():
        if isinstance(value, dict):
            found |= numbers(value, f"{prefix}{name}.")
        elif isinstance(value, int | float) and value == value:
            found[prefix + name] = value
    return found


def check_as_mteb(result: Result, expected: Mapping[str, Any]) -> None:
    content = json.loads((result.folder / f"{result.mteb_task}.json").read_text(encoding="utf-8"))
    ((own,),) = content["scores"].values()
    assert numbers(own) == pytest.approx(numbers(expected), abs=1e-5)
    assert result.mean("mteb", "main_score") == pytest.approx(expected["main_score"], abs=1e-5)
    for name in ("map_at_1000", "ndcg_at_10", "mrr_at_10", "recall_at_10"):
        assert f"{result.mteb[name]:.4f}" == f"{expected[name]:.4f}"


def test_a_subset_of_a_multilingual_task_in_both_modes(hub: Path, tmp_path: Path, ranker: ListConRanker) -> None:
    snapshot = fill(hub, "MIRACLReranking")
    system = ListConRankerSystem(ranker)
    results = evaluate(system, "miraclreranking[zh]", output=tmp_path).results
    assert [(result.task, result.mode) for result in results] == [
        ("MIRACLReranking[zh]", "conventional"),
        ("MIRACLReranking[zh]", "iterative"),
    ]
    for result in results:
        assert (result.is_official, result.main_score, result.max_relevance) == (True, "ndcg_at_10", 1)
        assert read_per_query(result)["cmteb:map"]
        data = read_provenance(result).data
        assert (data.subset, data.split, data.source, data.license) == ("zh", "dev", "hub", "cc-by-sa-4.0")
        check_as_mteb(result, by_mteb(system, result.mode, snapshot, "MIRACLReranking", "zh"))
    assert [r.folder for r in evaluate(system, "MIRACLReranking[zh]", output=tmp_path).results] == [
        result.folder for result in results
    ]
    listcon_eval("check", "--baseline", tmp_path / "base.json", "--current", tmp_path / "results", "--update")
    listcon_eval("check", "--baseline", tmp_path / "base.json", "--current", tmp_path / "results")
    assert "mteb:ndcg_at_10" in compare([tmp_path / "results"], resamples=99).as_text()
    shown = listcon_eval("show", results[0].folder, "--query", "q1", "--full").stdout
    assert "MIRACLReranking[zh]" in shown
    assert "题" in shown


def test_graded_judgements_and_another_main_score(hub: Path, tmp_path: Path) -> None:
    snapshot = fill(hub, "ERESSReranking")
    (result,) = evaluate(Bm25(), "ERESSReranking", output=tmp_path).results
    assert (result.main_score, result.max_relevance) == ("ndcg_at_5", 3)
    assert result.mteb["ndcg_at_5"] != result.mteb["ndcg_at_10"]
    check_as_mteb(result, by_mteb(Bm25(), "pointwise", snapshot, "ERESSReranking", "default"))
    shown = listcon_eval("table", tmp_path / "results").stdout
    assert "Other tasks of mteb, cmteb:map" in shown
    assert "judgements go up to 3; 1 and above counts as relevant" in one_line(shown)
    main = listcon_eval("table", tmp_path / "results", "--measure", "mteb:main_score").stdout
    assert f"{100 * result.mteb['ndcg_at_5']:.2f}" in main


def test_instructions_reach_systems_that_read(hub: Path, tmp_path: Path) -> None:
    snapshot = fill(hub, "mFollowIR")
    results = evaluate(Bm25(), "mFollowIR[zho]", output=tmp_path).results
    (result,) = results
    expected = by_mteb(Bm25(), "pointwise", snapshot, "mFollowIR", "zho")
    assert result.task_scores == {"p-MRR": pytest.approx(expected["p-MRR"])}
    assert result.task_scores["p-MRR"] != 0  # the same queries with other instructions are ranked otherwise
    assert results.frame()["mteb:p-MRR"].tolist() == [result.task_scores["p-MRR"]]
    check_as_mteb(result, expected)
    assert "part of the query" in read_provenance(result).observed["instructions"]
    (ignoring,) = evaluate(Random(), "mFollowIR[zho]", output=tmp_path).results
    assert read_provenance(ignoring).observed["instructions"] == "ignored: the system reads no texts"
    assert read_per_query(result).keys() >= {"mteb:ndcg_at_10"}
    with pytest.raises(ListconError, match=r"cannot be taken of its first 1 queries .*: give a larger --limit"):
        evaluate(Bm25(), [official_task("mFollowIR[zho]").variant(limit=1)], output=tmp_path / "trial")


def test_a_copy_of_a_subset_is_checked_and_one_that_differs_refused(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mteb.abstasks.task_metadata import TaskMetadata

    from listcon_eval import mteb_compat

    for name, subset, split in (("MIRACLReranking", "zh", "dev"), ("mFollowIR", "zho", "test")):
        snapshot = fill(hub, name)
        with pytest.raises(
            ListconError, match=rf"(?s)is not a copy of {name}\[{subset}\] \({split}, .* num_samples: off"
        ):
            local_task(snapshot, claim=f"{name}[{subset}]")
        task = official_task(f"{name}[{subset}]")
        task.load()
        own = dict(mteb_compat.descriptive_statistics(task.mteb_task, subset, split))
        shipped = {split: {"hf_subset_descriptive_stats": {subset: own}}}
        with monkeypatch.context() as patched:
            patched.setattr(TaskMetadata, "descriptive_stats", shipped)
            copy = local_task(snapshot, claim=f"{name}[{subset}]")
        assert (copy.name, copy.is_official, copy.source) == (task.name, True, "local copy of official data")
        assert copy.candidate_lists() == task.candidate_lists()
        (result,) = evaluate(Bm25(), [copy], output=tmp_path / name).results
        assert result.task == f"{name}[{subset}]"
    snapshot = fill(tmp_path / "other", "MIRACLReranking")
    zh = local_task(snapshot, name="mine", subset="zh")
    assert zh.candidate_lists()[0].query == official_task("MIRACLReranking[zh]").candidate_lists()[0].query
    given = f"{snapshot}[zh]"
    listcon_eval("run", "-m", "bm25", "--data", f"mine={given}", "--output", tmp_path / "mine")
    for more in ((), ("--data", given)):
        shown = listcon_eval("show", tmp_path / "mine", "--query", zh.candidate_lists()[0].query_id, *more).stdout
        assert "No texts" not in shown


def test_without_the_data_there_is_one_message(hub: Path, tmp_path: Path) -> None:
    for name in ("MIRACLReranking[zh]", "T2Reranking"):
        said = one_line(listcon_eval("run", "-m", "bm25", "--tasks", name, "--output", tmp_path, code=2).stderr)
        assert f"Could not get the data of {name}: cannot get mteb/{name.partition('[')[0]} @" in said
        assert f"--data PATH with --tasks {name}" in said


@pytest.fixture
def retrieval(hub: Path) -> Path:
    """The stand-in for T2Retrieval, which leaves documents with the id of their query out."""
    return fill(hub, "T2Retrieval")


def test_the_second_stage(retrieval: Path, tmp_path: Path) -> None:
    predictions = tmp_path / "predictions"
    task = official_task("T2Retrieval")
    run = Bm25().retrieve(task.queries(), task.documents(), top_k=1000)
    predictions.mkdir()
    content = {"mteb_model_meta": {"model_name": "org/first", "revision": "1"}, "default": {"dev": run}}
    (predictions / "T2Retrieval_predictions.json").write_text(json.dumps(content), encoding="utf-8")
    done = listcon_eval(
        *("run", "-m", "random", "--tasks", "T2Retrieval", "--output", tmp_path, "--json"),
        *("--rerank", predictions, "--top-k", "5"),
    )
    assert len(json.loads(done.stdout)["results"]) == 3
    results = {result.kind: result for result in load_results(tmp_path / "results")}
    assert results.keys() == {"random", "first-stage", "oracle"}

    expected: Any = mteb.get_task("T2Retrieval")
    dataset = {**expected.metadata.dataset, "path": str(retrieval)}
    expected.metadata = expected.metadata.model_copy(update={"dataset": dataset})
    expected.convert_to_reranking(predictions, top_k=5)
    own = mteb.evaluate(SystemSearch(Random()), expected, cache=None, show_progress_bar=False)[0].scores["dev"][0]
    reranked = results["random"]
    assert reranked.mteb["ndcg_at_10"] == pytest.approx(own["ndcg_at_10"], abs=1e-5)
    assert (reranked.task, reranked.is_official, reranked.cmteb) == ("T2Retrieval[first-top-5]", False, {})

    stage = reranked.first_stage
    assert stage is not None
    kept = {query_id: list(scores)[:5] for query_id, scores in run.items()}
    for query_id, entry in json_lines(results["first-stage"]).items():
        assert entry["doc_ids"] == kept[query_id]  # the first stage's order
    full = results["first-stage"].mteb
    assert stage.recall == pytest.approx(results["oracle"].mteb["recall_at_10"], abs=1e-5)
    assert 0 < stage.recall < 1
    assert full["ndcg_at_10"] < results["oracle"].mteb["ndcg_at_10"] < 1  # documents that it missed count
    shown = one_line(listcon_eval("table", tmp_path / "results", "--measure", "mteb:ndcg_at_10").stdout)
    assert f"the first stage's recall at 5 is {100 * stage.recall:.2f}" in shown
    gain = 100 * (reranked.mteb["ndcg_at_10"] - full["ndcg_at_10"])
    most = 100 * (results["oracle"].mteb["ndcg_at_10"] - full["ndcg_at_10"])
    assert f"{gain:+.2f} on the first stage, of {most:+.2f} that reordering can gain" in shown
    assert listcon_eval("show", reranked.folder, "--query", "q1").stdout.count("山") > 0


def test_other_tools_runs_are_compared_without_the_documents_that_mteb_leaves_out(
    retrieval: Path, tmp_path: Path
) -> None:
    task = with_first_stage(official_task("T2Retrieval"), "bm25", 5)
    (ours,) = [own for own in evaluate(Bm25(), [task], output=tmp_path).results if own.kind == "bm25"]
    lines = (ours.folder / ours.task / "run.trec").read_text(encoding="utf-8").splitlines()
    queries = dict.fromkeys(line.split()[0] for line in lines)
    other = tmp_path / "other.trec"
    other.write_text(
        "\n".join([*lines, *(f"{query_id} Q0 {query_id} 0 1e6 x" for query_id in queries)]), encoding="utf-8"
    )
    compared = compare([ours.folder, other], measures=["mteb:ndcg_at_10"])
    assert len(compared.means()) == 2
    assert len(set(compared.means()["mean"])) == 1
    other.write_text("\n".join(f"{query_id} Q0 {query_id} 0 1 x" for query_id in queries), encoding="utf-8")
    with pytest.raises(ListconError, match="lists no documents but those with the id of their query"):
        compare([ours.folder, other])
    said = f"other.trec: documents with the id of their query are left out ({len(queries)} queries), as mteb does for "
    assert f"{said}{ours.task}" in " ".join(compared.as_text().split())


def json_lines(result: Result) -> dict[str, Any]:
    rows = (json.loads(line) for line in (result.folder / result.task / "run.jsonl").read_text().splitlines())
    return {row["query_id"]: row for row in rows}


def test_a_copy_of_a_retrieval_task_needs_no_candidates_for_a_second_stage(retrieval: Path) -> None:
    with pytest.raises(ListconError, match="no part 'top_ranked'"):
        local_task(retrieval, claim="T2Retrieval")
    with pytest.raises(ListconError, match="is not a copy of T2Retrieval"):  # it is a stand-in
        local_task(retrieval, claim="T2Retrieval", for_first_stage=True)


def test_a_trec_run_and_bm25_are_first_stages_too(retrieval: Path, tmp_path: Path) -> None:
    task = official_task("T2Retrieval")
    bm25 = with_first_stage(task, "bm25", 7)
    assert bm25.name == "T2Retrieval[bm25-characters-top-7]"
    stage = bm25.first_stage
    assert stage is not None
    lines = [
        f"{query_id} Q0 {doc_id} {rank} {score!r} tag\n"
        for query_id, scores in stage.run.items()
        for rank, (doc_id, score) in enumerate(scores.items(), start=1)
    ]
    (tmp_path / "own.trec").write_text("".join(lines), encoding="utf-8")
    trec = with_first_stage(official_task("T2Retrieval"), str(tmp_path / "own.trec"), 7)
    assert trec.candidate_lists() == bm25.candidate_lists()
    assert trec.revision == with_first_stage(official_task("T2Retrieval"), str(tmp_path / "own.trec"), 7).revision
    assert trec.revision != with_first_stage(official_task("T2Retrieval"), str(tmp_path / "own.trec"), 6).revision
    assert [result.kind for result in evaluate(Oracle(), [trec], output=tmp_path).results] == ["oracle", "first-stage"]
    (tmp_path / "other.trec").write_text("nobody Q0 d1 1 2.0 tag\n", encoding="utf-8")
    with pytest.raises(ListconError, match="has nothing for any of the 8 queries of T2Retrieval"):
        with_first_stage(official_task("T2Retrieval"), str(tmp_path / "other.trec"), 7)
    (tmp_path / "other.trec").write_text("q1 Q0 d999 1 2.0 tag\n", encoding="utf-8")
    with pytest.raises(ListconError, match="query q1: T2Retrieval has no document 'd999'"):
        with_first_stage(official_task("T2Retrieval"), str(tmp_path / "other.trec"), 7)
    with pytest.raises(ListconError, match="no such file"):
        with_first_stage(official_task("T2Retrieval"), str(tmp_path / "absent"), 7)


def write_local(folder: Path, text: str, other: str = "别的") -> Path:
    """Local data without candidates: one query, two documents (grades 2 and 1), of which the text of one is given."""
    parts: dict[str, list[dict[str, Any]]] = {
        "corpus": [{"_id": "a", "text": text}, {"_id": "b", "text": other}, {"_id": "c", "text": "无关"}],
        "queries": [{"_id": "q", "text": "皮蛋是寒性的吗"}],
        "qrels": [
            {"query-id": "q", "corpus-id": "a", "score": 2},
            {"query-id": "q", "corpus-id": "b", "score": 1},
        ],
    }
    folder.mkdir(exist_ok=True)
    for part, rows in parts.items():
        (folder / f"{part}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return folder


def test_a_query_whose_judgements_are_all_far_below_zero_is_measured(tmp_path: Path) -> None:
    folder = write_local(tmp_path / "local", "皮蛋属于凉性")
    with (folder / "queries.jsonl").open("a", encoding="utf-8") as queries:
        queries.write('{"_id": "junk", "text": "垃圾"}\n')
    with (folder / "qrels.jsonl").open("a", encoding="utf-8") as qrels:
        qrels.write('{"query-id": "junk", "corpus-id": "c", "score": -2}\n')
    lists = '{"query-id": "q", "corpus-ids": ["c", "a", "b"]}\n{"query-id": "junk", "corpus-ids": ["c", "a"]}\n'
    (folder / "top_ranked.jsonl").write_text(lists, encoding="utf-8")
    (result,) = evaluate(Bm25(), [local_task(folder)], output=tmp_path, metrics="AP").results
    values = read_per_query(result)
    assert values["mteb:map_at_1000"]["junk"] == values["ir_measures:AP"]["junk"] == 0
    assert values["mteb:map_at_1000"]["q"] == values["ir_measures:AP"]["q"] > 0


def test_local_data_needs_no_candidates_of_its_own_for_a_second_stage(tmp_path: Path) -> None:
    """A retrieved text that changed is other data; metrics and threshold hold for the first stage's rows as well."""
    (tmp_path / "first.trec").write_text("q Q0 c 1 3.0 x\nq Q0 b 2 2.0 x\n", encoding="utf-8")
    command = ("run", "-m", "bm25", "--rerank", tmp_path / "first.trec", "--output", tmp_path / "out")
    more = ("--metrics", "nDCG@5", "--relevance", "2", "--data", tmp_path / "local")
    write_local(tmp_path / "local", "皮蛋属于凉性")
    assert "no part 'top_ranked'" in listcon_eval("run", "-m", "bm25", "--data", tmp_path / "local", code=2).stderr
    listcon_eval(*command, *more)
    results = load_results(tmp_path / "out")
    assert {result.kind for result in results} == {"bm25", "first-stage", "oracle"}
    assert all("nDCG@5" in result.ir_measures for result in results)
    assert all(result.first_stage is not None and result.first_stage.recall == 0 for result in results)  # a was missed
    gain = {result.kind: result.ir_measures["nDCG@5"] for result in results}
    assert (
        gain["oracle"] > gain["first-stage"] > 0
    )  # grades below the threshold count in nDCG, and the oracle knows them
    shown = ("show", results[0].folder, "--query", "q")
    assert "别的" in listcon_eval(*shown).stdout
    assert "别的" in listcon_eval(*shown, "--data", tmp_path / "local").stdout
    other = write_local(tmp_path / "other", "皮蛋属于凉性", other="改了")
    assert "is not the run's data" in one_line(listcon_eval(*shown, "--data", other, code=2).stderr)
    write_local(tmp_path / "local", "皮蛋属于凉性", other="改了")
    without_texts = listcon_eval(*shown).stdout
    assert "改了" not in without_texts
    assert "No texts: " in without_texts
    write_local(tmp_path / "local", "皮蛋属于凉性")
    (tmp_path / "first.trec").write_text("q Q0 a 1 3.0 x\nq Q0 b 2 2.0 x\n", encoding="utf-8")
    task = local_task(tmp_path / "local", for_first_stage=True)
    before = with_first_stage(task, str(tmp_path / "first.trec"), 5)
    assert task.documents()["a"] == "皮蛋属于凉性"
    assert task.mteb_task is not before.mteb_task
    changed = local_task(write_local(tmp_path / "local", "换了"), for_first_stage=True)
    after = with_first_stage(changed, str(tmp_path / "first.trec"), 5)
    assert before.revision != after.revision


RANKING_MOCKS = sorted(
    name
    for name in dir(mock_tasks)
    if name.startswith("Mock") and any(word in name for word in ("Reranking", "Retrieval", "MultiChoice"))
)


@pytest.mark.parametrize("name", RANKING_MOCKS)
def test_mocks_of_mteb_are_ranked_or_refused_with_a_reason(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mock = getattr(mock_tasks, name)()
        metadata = mock.metadata
        if "text" not in metadata.modalities or len(metadata.modalities) > 1:
            with pytest.raises(ListconError, match=rf"{metadata.name} needs .*, and this package ranks texts alone"):
                SystemSearch(Random()).search(None, task_metadata=metadata, hf_split="test", hf_subset="default")
            return
        mock.load_data()
        mock.convert_v1_dataset_format_to_v2(None)
        subsets = list(mock.dataset)
        if mock.dataset[subsets[0]]["test"]["top_ranked"] is None:
            with pytest.raises(ListconError, match="no candidate lists"):
                part_of(mock, subsets[0], "test").candidate_lists()
            return
        for subset in subsets:
            task = part_of(mock, subset, "test")
            for system in (Random(), Bm25()):
                (result,) = evaluate(system, [task], output=tmp_path).results
                mock.hf_subsets = [subset]
                found = mteb.evaluate(SystemSearch(system), mock, cache=None, show_progress_bar=False)[0]
                check_as_mteb(result, found.scores["test"][0])
