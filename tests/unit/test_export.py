"""Files to publish, of runs that look official: loaded by mteb and the hub's client, refused when tampered with."""

import dataclasses
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from mteb import ResultCache

from listcon_eval.data import Task, resolve_official
from listcon_eval.data.parts import Document, Parts
from listcon_eval.data.task import fill
from listcon_eval.errors import ListconError
from listcon_eval.evaluate import Request, evaluate
from listcon_eval.inference import ranker as ranker_module
from listcon_eval.model import load_checkpoint
from listcon_eval.model.sources import Source
from listcon_eval.publish import chosen_runs, export_leaderboard, model_index, update_readme
from listcon_eval.records import MODES
from listcon_eval.results import RunRecord
from listcon_eval.systems import detection
from texts import random_text

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TASKS = ("CMedQAv1-reranking", "MMarcoReranking")


def stand_in(name: str) -> Task:
    """A task that says it is official and has as many queries, over random texts."""
    official = resolve_official(name)
    rng = random.Random(name)
    queries = {f"q{place}": random_text(rng, 4, 12) for place in range(official.statistics()["num_queries"])}
    documents = {f"d{place}": Document("", random_text(rng, 4, 20)) for place in range(60)}
    top = {query_id: rng.sample(sorted(documents), 4) for query_id in queries}
    relevant = {query_id: {doc_ids[0]: 1, doc_ids[1]: 0} for query_id, doc_ids in top.items()}
    task = official.mteb_task()
    fill(task, official.split, Parts(queries, documents, relevant, top).split_data())
    return Task(official.name, official.split, official.revision, "hub", official.dataset, True, task)


@pytest.fixture(scope="module")
def official(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a model of the hub on those tasks, in both modes."""
    output = tmp_path_factory.mktemp("official")
    loaded = load_checkpoint(checkpoint_folder)
    on_hub = dataclasses.replace(loaded, source=Source(checkpoint_folder, "org/ranker", COMMIT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranker_module, "load_checkpoint", lambda *_: on_hub)
        patch.setattr(detection, "resolve", lambda *_: on_hub.source)
        tasks = [stand_in(name) for name in TASKS]
        evaluate(Request("org/ranker", tasks, MODES, output, device="cpu", precision="precise"))
    return output / "results"


@pytest.fixture
def copied(official: Path, tmp_path: Path) -> Path:
    """A copy of them to tamper with."""
    return Path(shutil.copytree(official, tmp_path / "copy" / "results"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def experiment(results: Path) -> Path:
    return next(results.glob("*/*/experiments/mode_iterative*"))


def test_the_tree_is_mtebs_and_loads(official: Path, tmp_path: Path) -> None:
    exported = export_leaderboard(chosen_runs([official], "iterative"), tmp_path, training_data=["T2Reranking"])
    assert exported.folder == tmp_path / "results" / "org__ranker" / COMMIT
    assert sorted(path.name for path in exported.folder.iterdir()) == sorted(
        [*(f"{name}.json" for name in TASKS), "model_meta.json", "run_settings.jsonl"]
    )
    loaded = ResultCache(tmp_path).load_results(tasks=list(TASKS), require_model_meta=True)
    (model,) = loaded.model_results
    assert (model.model_name, model.model_revision, model.experiment_name) == ("org/ranker", COMMIT, None)
    assert {result.task_name for result in model.task_results} == set(TASKS)
    for record in chosen_runs([official], "iterative"):
        name = f"{record.task}.json"
        assert (exported.folder / name).read_bytes() == record.folder.with_name(name).read_bytes()
    meta = json.loads((exported.folder / "model_meta.json").read_text())
    assert (meta["training_datasets"], meta["experiment_kwargs"]) == (["T2Reranking"], None)
    rows = [json.loads(line) for line in (exported.folder / "run_settings.jsonl").read_text().splitlines()]
    assert [(row["task"], row["encode_kwargs"]["mode"]) for row in rows] == [(name, "iterative") for name in TASKS]
    assert "not among the runs: CMedQAv2-reranking, T2Reranking" in exported.remarks


def test_training_data_is_declared_and_overlap_said(official: Path, tmp_path: Path) -> None:
    records = chosen_runs([official], "conventional")
    with pytest.raises(ListconError, match="does not declare the training data"):
        export_leaderboard(records, tmp_path)
    remarks = export_leaderboard(records, tmp_path, training_data=["MMarcoReranking"]).remarks
    assert "trained on data of MMarcoReranking: the leaderboard shows these scores as not zero-shot" in remarks
    assert "declared training data: of no mteb task" in export_leaderboard(records, tmp_path, training_data=[]).remarks


def test_a_difference_from_what_is_published_is_said(official: Path, tmp_path: Path) -> None:
    from listcon_eval.publish.leaderboard import _remarks

    records = chosen_runs([official], "iterative")
    published = [dataclasses.replace(record, model="ByteDance/ListConRanker") for record in records]
    said = [remark for remark in _remarks(published) if "the leaderboard shows" in remark]
    assert len(said) == 2
    assert "the leaderboard shows 0.90554 (" in said[0]
    close = dataclasses.replace(published[0], mteb={**published[0].mteb, "map_at_1000": 0.9054})
    assert not [remark for remark in _remarks([close]) if "the leaderboard shows" in remark]


def of(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A change of one file of the iterative experiment."""
    return lambda results: edit(experiment(results) / name, change)


def score(metric: str, value: float) -> Callable[[Path], None]:
    return of("MMarcoReranking.json", lambda content: content["scores"]["dev"][0].__setitem__(metric, value))


def no_settings(results: Path) -> None:
    (experiment(results) / "run_settings.jsonl").write_text("")


def fewer_queries(results: Path) -> None:
    folder = experiment(results) / "MMarcoReranking"
    for name in ("run.jsonl", "per_query.jsonl"):
        lines = (folder / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:-1]))
    edit(folder / "metrics.json", lambda content: content.__setitem__("queries", 99))


def better_scores(results: Path) -> None:
    """Every number raised consistently, but not the scores that they follow from."""
    folder = experiment(results) / "MMarcoReranking"
    rows = [json.loads(line) for line in (folder / "per_query.jsonl").read_text().splitlines()]
    for row in rows:
        row["cmteb"]["map"] = 1.0
    (folder / "per_query.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    edit(folder / "metrics.json", lambda content: content["cmteb"].__setitem__("map", 1.0))


TAMPERED: list[tuple[Callable[[Path], None], str]] = [
    (score("main_score", 7.5), "main_score is 7.5; expected a value from 0 to 1"),
    (score("main_score", 0.5), "they are one"),
    (score("ndcg_at_3", float("nan")), "ndcg_at_3 is nan; expected a finite number"),
    (score("nauc_map_at_1_max", float("inf")), "nauc_map_at_1_max is inf"),
    (score("mrr_at_10", 0.123), "mrr_at_10 is 0.123, the run's own files say"),
    (of("MMarcoReranking.json", lambda c: c.update(dataset_revision="main")), "data revision main; the official one"),
    (of("MMarcoReranking.json", lambda c: c.update(mteb_version="1.38.4")), "made by mteb 1.38.4"),
    (of("MMarcoReranking.json", lambda c: c.update(task_name="T2Reranking")), "it is a result of T2Reranking"),
    (of("MMarcoReranking.json", lambda c: c["scores"].update(test=[])), "splits dev, test; expected one entry of dev"),
    (of("MMarcoReranking/metrics.json", lambda c: c["mteb"].update(map_at_1000=0.99)), "but metrics.json beside it"),
    (of("MMarcoReranking/metrics.json", lambda c: c.update(is_official=False)), "was not run on the official data"),
    (
        of("MMarcoReranking/provenance.json", lambda c: c["data"].update(revision="x")),
        "data revision x in its provenance",
    ),
    (no_settings, "has no row for"),
    (lambda results: (experiment(results) / "MMarcoReranking.json").unlink(), "cannot be read as mteb's result"),
    (fewer_queries, "99 queries; the official data has 100"),
    (better_scores, "by the scores in run.jsonl"),
]


@pytest.mark.parametrize(("tamper", "reason"), TAMPERED, ids=[reason for _, reason in TAMPERED])
def test_a_tampered_result_is_refused_with_the_reason(
    tamper: Callable[[Path], None], reason: str, copied: Path, tmp_path: Path
) -> None:
    tamper(copied)
    records = chosen_runs([experiment(copied) / "MMarcoReranking"], "iterative")
    with pytest.raises(ListconError) as refused:
        export_leaderboard(records, tmp_path / "out", training_data=[])
    assert reason in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_every_reason_comes_in_one_error(official: Path, tmp_path: Path) -> None:
    def as_local(record: RunRecord) -> RunRecord:
        return dataclasses.replace(record, is_official=False)

    records = [as_local(record) for record in chosen_runs([official], "iterative")]
    with pytest.raises(ListconError) as refused:
        export_leaderboard(records, tmp_path)
    for part in (*TASKS, "training data"):
        assert part in str(refused.value)
    with pytest.raises(ListconError, match="no model card results"):
        model_index(records)


def test_only_a_hub_model_with_a_commit_is_exported(copied: Path, tmp_path: Path) -> None:
    folder = experiment(copied)
    for path in (folder / "model_meta.json", *(folder / name / "metrics.json" for name in TASKS)):
        key = ("name", "revision") if path.name == "model_meta.json" else ("model", "model_revision")
        edit(path, lambda content, key=key: content.update(dict(zip(key, ("local/mine", "sha256-1"), strict=True))))  # type: ignore[misc]
    with pytest.raises(ListconError, match=r"local/mine is no model of the hub[\s\S]*needs the hub's commit"):
        export_leaderboard(chosen_runs([folder], "iterative"), tmp_path, training_data=[])


def test_the_choice_of_runs_has_to_be_clear(official: Path, copied: Path) -> None:
    with pytest.raises(ListconError, match="more than one run of CMedQAv1-reranking, MMarcoReranking"):
        chosen_runs([official, copied], "iterative")
    with pytest.raises(ListconError, match=r"no run in conventional inference .* there is iterative"):
        chosen_runs([experiment(official)], "conventional")
    for name in TASKS:
        edit(experiment(copied) / name / "metrics.json", lambda content: content.update(precision="published"))
    with pytest.raises(ListconError, match="holds runs of 2 systems"):
        chosen_runs([official, experiment(copied)], "iterative")


def expected(records: list[RunRecord]) -> dict[tuple[str, str], float]:
    return {
        (resolve_official(record.task).card_dataset, metric): 100 * record.cmteb[metric]
        for record in records
        for metric in ("map", "mrr_1", "mrr_5", "mrr_10")
    }


def values(card: ModelCard) -> dict[tuple[str, str], float]:
    return {(result.dataset_type, result.metric_type): result.metric_value for result in results_of(card)}


def results_of(card: ModelCard) -> list[EvalResult]:
    assert isinstance(card.data, ModelCardData)
    return card.data.eval_results or []


CARD = (
    "---\r\n# mine\r\nlicense: mit   # kept\r\ntags:\r\n- mteb\r\n- 中文\r\n---\r\n# Title\r\n\r\n"
    "<!-- listcon-eval table -->\r\nold\r\n<!-- end -->\r\ntail  \r\n"
)


def test_a_card_gets_its_results_and_keeps_the_rest(official: Path, tmp_path: Path) -> None:
    records = chosen_runs([official], "iterative")
    path = tmp_path / "README.md"
    path.write_bytes(CARD.encode())
    assert update_readme(path, records) == [f"model-index: {', '.join(TASKS)}", "the comparison table"]
    card = ModelCard.load(path)
    assert values(card) == expected(records)
    result = results_of(card)[0]
    assert (result.dataset_name, result.dataset_config, result.dataset_split) == ("MTEB CMedQAv1", "default", "test")
    assert result.dataset_revision == resolve_official("CMedQAv1").revision
    text = path.read_bytes().decode()
    head, _, body = text.partition("---\r\n# Title")
    assert head.startswith("---\r\n# mine\r\nlicense: mit   # kept\r\ntags:\r\n- mteb\r\n- 中文\r\nmodel-index:\r\n")
    assert body.endswith("<!-- end -->\r\ntail  \r\n")
    assert "old" not in body
    assert "| ListConRanker             | iterative    | published" in body
    assert "\n" not in text.replace("\r\n", "")
    for record in records:
        assert head.count(record.signature) == body.count(record.signature) == 1
    again = path.read_bytes()
    update_readme(path, records)
    assert path.read_bytes() == again


def test_results_on_other_data_and_other_keys_stay(official: Path, tmp_path: Path) -> None:
    records = chosen_runs([official], "iterative")
    other = {
        "task": {"type": "STS"},
        "dataset": {"type": "C-MTEB/ATEC", "name": "MTEB ATEC", "config": "default", "split": "test"},
        "metrics": [{"type": "cos_sim_pearson", "value": 50.25}],
    }
    stale = model_index(records)
    stale[0]["results"][0]["metrics"][0]["value"] = 1.0
    stale[0] = {"name": "published-name", "results": [*stale[0]["results"], other]}
    header = yaml.safe_dump({"model-index": stale}) + "# of the licence\nlicense: mit\n"
    path = tmp_path / "README.md"
    path.write_text(f"---\n{header}---\nBody\n---\n")
    update_readme(path, records)
    content = ModelCard.load(path, ignore_metadata_errors=True)
    assert content.data.model_name == "published-name"
    assert values(content) == {**expected(records), ("C-MTEB/ATEC", "cos_sim_pearson"): 50.25}
    assert path.read_text().endswith("# of the licence\nlicense: mit\n---\nBody\n---\n")


def test_a_readme_without_front_matter_gets_one(official: Path, tmp_path: Path) -> None:
    records = chosen_runs([official], "iterative")
    path = tmp_path / "README.md"
    path.write_text("# Title\n")
    assert update_readme(path, records) == [f"model-index: {', '.join(TASKS)}"]
    assert path.read_text().endswith("---\n# Title\n")
    assert values(ModelCard.load(path)) == expected(records)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("---\ntags: [a\n---\n", "its front matter is no YAML"),
        ("---\n- a\n---\n", "its front matter is a list"),
        ("{}\n<!-- listcon-eval table -->\n", "has no <!-- end --> after it"),
        ("---\n{license: mit, model-index: []}\n---\n", "not written as one key a line"),
    ],
)
def test_a_card_that_cannot_be_edited_is_left_alone(text: str, reason: str, official: Path, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(ListconError, match=reason):
        update_readme(path, chosen_runs([official], "iterative"))
    assert path.read_text() == text
