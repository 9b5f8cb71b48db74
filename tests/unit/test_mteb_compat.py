"""Every private or version-bound name of mteb: a test that fails here says what a new mteb has moved."""

import importlib
import inspect
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from datasets import Dataset

from listcon_eval import mteb_compat
from listcon_eval.data import mini_task

NAMES = (
    "mteb._evaluators.retrieval_metrics:calculate_retrieval_scores",
    "mteb._evaluators.retrieval_metrics:mrr",
    "mteb.abstasks.retrieval:AbsTaskRetrieval.k_values",
    "mteb.abstasks.retrieval:AbsTaskRetrieval._calculate_descriptive_statistics_from_split",
    "mteb._create_dataloaders:_corpus_to_dict",
    "mteb._create_dataloaders:_retrieval_texts",
    "mteb.get_tasks:_TASK_RENAMES",
    "mteb.get_tasks:_TASKS_REGISTRY",
    "mteb.abstasks.retrieval_dataset_loaders:RetrievalDatasetLoader",
    "mteb.models.model_meta:ModelMeta",
    "mteb.types:OutputDType.BF16",
    "mteb.types:PromptType.query",
    "mteb:ResultCache.save_to_cache",
    "mteb:ResultCache.get_task_result_path",
    "mteb:get_model_meta",
    "mteb:get_model_metas",
    "mteb:evaluate",
    "mteb.models:SearchCrossEncoderWrapper",
    "mteb.models.model_implementations.listconranker:ListConRanker.predict",
)


@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_there(name: str) -> None:
    module, _, path = name.partition(":")
    found = importlib.import_module(module)
    for part in path.split("."):
        assert hasattr(found, part), f"mteb has moved {name}: adapt listcon_eval/mteb_compat.py"
        found = getattr(found, part)


def test_no_other_file_uses_a_private_name_of_mteb() -> None:
    package = Path(inspect.getfile(mteb_compat)).parent
    for path in package.rglob("*.py"):
        if path.name != "mteb_compat.py":
            text = path.read_text(encoding="utf-8")
            assert "from mteb._" not in text, path
            assert "mteb.get_tasks import _" not in text, path


def test_metrics_belong_to_their_query() -> None:
    qrels = {"a": {"x": 1}, "b": {"x": 1, "y": 0}}
    found = mteb_compat.retrieval_metrics(qrels, {"b": {"x": 1.0, "y": 2.0}, "a": {"x": 1.0}})
    assert {query_id: row["mrr_at_10"] for query_id, row in found.per_query.items()} == {"b": 0.5, "a": 1.0}
    assert {query_id: row["map_at_1000"] for query_id, row in found.per_query.items()} == {"b": 0.5, "a": 1.0}
    assert found.means["map_at_1000"] == 0.75


def test_texts_are_those_that_mteb_hands_to_a_model() -> None:
    corpus = Dataset.from_list([{"id": "d", "title": "题", "text": "文 "}, {"id": "e", "title": "", "text": " 文"}])
    assert mteb_compat.document_texts(corpus) == {"d": "题 文", "e": "文"}
    assert mteb_compat.query_texts(Dataset.from_list([{"id": "q", "text": "问"}])) == {"q": "问"}


def test_names_of_tasks() -> None:
    names = mteb_compat.task_names()
    assert names["t2reranking"] == "T2Reranking"
    assert {"cmedqav1-reranking", "cmedqav2-reranking", "mmarcoreranking"} <= names.keys()


def test_a_registered_model_and_one_that_is_not() -> None:
    assert mteb_compat.registered_model("nobody/nothing") is None
    assert mteb_compat.registered_model(None) is None
    known = mteb_compat.registered_model("ByteDance/ListConRanker")
    assert known is not None
    assert known.name == "ByteDance/ListConRanker"


@pytest.mark.parametrize("name", ["ByteDance/ListConRanker", "local/mine"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", None])
def test_a_finished_run_is_written_as_mteb_reads_it(
    name: str, dtype: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mteb.models.model_meta import ModelMeta
    from mteb.results import TaskResult

    task = mini_task("MiniMedicalB")
    task.load()
    lists = task.candidate_lists()
    scores = {row.query_id: {doc: float(p) for p, doc in enumerate(row.doc_ids)} for row in lists}
    settings = {"mode": "iterative"} | ({"dtype": dtype} if dtype else {})
    meta = mteb_compat.model_meta(name, "rev", settings, {})
    result = mteb_compat.task_result(task.mteb_task, task.name, "default", task.split, scores, meta, seconds=1.5)
    monkeypatch.chdir(tmp_path.parent)  # people give relative folders
    mteb_compat.write_task_result(Path(tmp_path.name), result, meta, settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "MiniMedicalB.json",
        "model_meta.json",
        "run_settings.jsonl",
    ]
    read = TaskResult.from_disk(tmp_path / "MiniMedicalB.json")
    assert read.evaluation_time == 1.5
    expected = mteb_compat.retrieval_metrics(task.qrels(), scores).means
    for metric, value in expected.items():
        assert read.scores[task.split][0][metric] == pytest.approx(value, abs=1e-5)
    content = json.loads((tmp_path / "model_meta.json").read_text())
    assert content["revision"] == "rev"
    assert content["output_dtypes"] == dtype
    ModelMeta.model_validate(content | {"loader": None})
    assert "iterative" in mteb_compat.experiment_name(meta)


def test_the_mended_loop_hands_each_list_to_the_model() -> None:
    seen = []

    def rank(row: Sequence[str]) -> list[float]:
        seen.append(list(row))
        return [float(len(text)) for text in row[1:]]

    passages = [["a", "bb"], ["ccc", "dd", "ccc"]]
    scores = mteb_compat.listconranker_loop(rank, ["q", "r"], passages)
    assert scores == [[1.0, 2.0], [3.0, 2.0, 3.0]]
    assert seen == [["q", "a", "bb"], ["r", "ccc", "dd", "ccc"]]
