"""Local tasks inside `mteb.evaluate`, and this package's numbers beside those in mteb's `TaskResult`."""

import json
from pathlib import Path
from random import Random

import mteb
import pytest
from mteb.models import ModelMeta
from mteb.results import TaskResult
from mteb.types import CorpusDatasetType, QueryDatasetType, TopRankedDocumentsType

from listcon_eval.data import Task, local_task
from listcon_eval.metrics import MTEB_MEASURES, mteb_protocol


class Playback:
    """A model in mteb's search protocol that answers with scores made beforehand."""

    def __init__(self, run: dict[str, dict[str, float]]) -> None:
        self.run = run
        self.mteb_model_meta = ModelMeta.create_empty(overwrites={"name": "test/playback", "revision": "1"})
        self.candidates: TopRankedDocumentsType = {}

    def index(self, corpus: CorpusDatasetType, **kwargs: object) -> None:
        pass

    def search(
        self, queries: QueryDatasetType, *, top_ranked: TopRankedDocumentsType | None = None, **kwargs: object
    ) -> dict[str, dict[str, float]]:
        assert top_ranked is not None
        self.candidates = top_ranked
        return {query_id: self.run[query_id] for query_id in queries["id"]}


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """Thirty queries: some with positives only, some with negatives only, two with equal texts."""
    rows = [
        {
            "query": f"问题{max(i, 1)}",
            "positive": [f"好{i}-{j}" for j in range(i % 4)],
            "negative": [f"坏{i}-{j}" for j in range(i % 13 + (i % 4 == 0))],
        }
        for i in range(30)
    ]
    path = tmp_path / "thirty.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return local_task(path)


@pytest.fixture
def run(task: Task) -> dict[str, dict[str, float]]:
    """Scores with many ties."""
    random = Random(7)
    return {c.query_id: {doc_id: random.randrange(5) / 4 for doc_id in c.doc_ids} for c in task.candidate_lists()}


def test_mteb_evaluates_a_local_task_and_its_data_stays(
    task: Task, run: dict[str, dict[str, float]], tmp_path: Path
) -> None:
    before = task.candidate_lists()
    model = Playback(run)
    result = mteb.evaluate(model, task.mteb_task, cache=None, co2_tracker=False)[0]
    assert {q: sorted(ids) for q, ids in model.candidates.items()} == {c.query_id: sorted(c.doc_ids) for c in before}
    assert task.mteb_task.data_loaded
    assert task.candidate_lists() == before
    result.to_disk(tmp_path / "result.json")
    again = TaskResult.from_disk(tmp_path / "result.json")
    assert (again.task_name, again.dataset_revision) == ("thirty", task.revision)
    assert again.get_score() == pytest.approx(result.scores["test"][0]["map_at_1000"], abs=1e-6)


def test_means_are_those_of_mtebs_result(task: Task, run: dict[str, dict[str, float]]) -> None:
    result = mteb.evaluate(Playback(run), task.mteb_task, cache=None, co2_tracker=False)[0]
    means, per_query = mteb_protocol.evaluate(task.qrels(), run)
    assert 0.1 < means["map_at_1000"] < 0.9
    for measure in MTEB_MEASURES:
        assert means[measure.name] == result.scores["test"][0][measure.name]
        own = sum(values[measure.name] for values in per_query.values()) / len(per_query)
        assert own == pytest.approx(means[measure.name], abs=5e-6)
