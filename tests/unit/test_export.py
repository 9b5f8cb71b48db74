"""Files to publish, of runs that look official: loaded by mteb and the hub's client, refused when tampered with."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from mteb import ResultCache
from mteb.models.model_meta import ModelMeta
from mteb.results import BenchmarkResults, TaskResult

from command import listcon_eval
from listcon_eval.data import CARD_TASKS, official_task
from listcon_eval.errors import ListconError
from listcon_eval.model import load_checkpoint
from listcon_eval.publish.eligibility import choose_results
from listcon_eval.publish.leaderboard import export_leaderboard
from listcon_eval.publish.model_card import model_card_front_matter, update_model_card
from listcon_eval.results import Result
from listcon_eval.results.records import METRICS, PER_QUERY, PROVENANCE, RUN
from result_folders import COMMIT, change_json, evaluated, official_stand_in, sealed_again

TASKS = ("CMedQAv1-reranking", "MMarcoReranking")
EXPERIMENT = "dtype_float32__mode_conventional"
CARD_REVISION = "2852d459b0e3942733da8756b809f3659649d5a6"
REGISTRY_REVISION = "95ae6a5f422a916bc36520f0f3e198e7d91520a0"


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a model of the hub on official tasks, in both modes."""
    output = tmp_path_factory.mktemp("official")
    evaluated(output, [official_stand_in(name) for name in TASKS])
    return output / "results"


@pytest.fixture
def copied(official: Path, tmp_path: Path) -> Path:
    """A copy of them to tamper with."""
    return Path(shutil.copytree(official, tmp_path / "copy" / "results"))


def test_iterative_runs_are_the_results_and_conventional_ones_an_experiment(official: Path, tmp_path: Path) -> None:
    export = export_leaderboard([official], tmp_path, training_data=["T2Reranking"])
    assert export.folder == tmp_path / "results" / "org__ranker" / COMMIT
    names = sorted([*(f"{name}.json" for name in TASKS), "model_meta.json", "run_settings.jsonl"])
    for folder in (export.folder, export.folder / "experiments" / EXPERIMENT):
        assert sorted(path.name for path in folder.iterdir() if path.is_file()) == names
        meta = json.loads((folder / "model_meta.json").read_text())
        assert meta["training_datasets"] == ["T2Reranking"]
        assert (meta["similarity_fn_name"], meta["output_dtypes"]) == (None, "float32")
        ModelMeta.model_validate(meta)
    for mode, folder in (("iterative", export.folder), ("conventional", export.folder / "experiments" / EXPERIMENT)):
        rows = [json.loads(line) for line in (folder / "run_settings.jsonl").read_text().splitlines()]
        assert [(row["task"], row["encode_kwargs"]["mode"]) for row in rows] == [(name, mode) for name in TASKS]
        for result in choose_results([official], mode):
            name = f"{result.task}.json"
            assert (folder / name).read_bytes() == (result.folder / name).read_bytes()
    assert "not among the runs: CMedQAv2-reranking, T2Reranking" in export.remarks


def test_mteb_loads_what_was_exported_and_what_was_run(official: Path, tmp_path: Path) -> None:
    export_leaderboard([official], tmp_path, training_data=[])
    for cache in (tmp_path, official.parent):
        loaded = ResultCache(cache).load_results(require_model_meta=True, load_experiments="match_name")
        names = {model.experiment_name for model in loaded.model_results}
        assert EXPERIMENT in names
        path = cache / "benchmark_results.json"
        loaded.to_disk(path)
        assert len(BenchmarkResults.from_disk(path).model_results) == len(loaded.model_results)
    (main,) = ResultCache(tmp_path).load_results(require_model_meta=True).model_results
    assert (main.model_name, main.model_revision, main.experiment_name) == ("org/ranker", COMMIT, None)
    assert {result.task_name for result in main.task_results} == set(TASKS)


def test_one_mode_alone_is_the_main_result(official: Path, tmp_path: Path) -> None:
    export = export_leaderboard([official], tmp_path, mode="conventional", training_data=[])
    assert {result.mode for result in export.results} == {"conventional"}
    assert not (export.folder / "experiments").exists()
    assert json.loads((export.folder / "model_meta.json").read_text())["experiment_kwargs"] is None


def test_training_data_is_declared_and_overlap_said(official: Path, tmp_path: Path) -> None:
    def remarks(training_data: list[str] | None) -> Sequence[str]:
        run = chosen(official).folder
        return export_leaderboard([run], tmp_path, mode="iterative", training_data=training_data).remarks

    with pytest.raises(ListconError, match="does not declare the training data"):
        remarks(None)
    overlap = "trained on data of MMarcoReranking: the leaderboard shows these scores as not zero-shot"
    assert overlap in remarks(["MMarcoReranking"])
    assert "declared training data: of no mteb task" in remarks([])
    assert "declared training data: CMedQAv1-reranking, MSMARCO, SQuAD" in remarks(["msmarco", "squad", "cMedQA1.0"])
    with pytest.raises(ListconError, match=r"--trained-on MMarcoRerankin: .*did you mean MMarcoReranking\?"):
        remarks(["T2Reranking", "MMarcoRerankin"])


def test_results_of_other_tasks_are_not_orphaned(official: Path, tmp_path: Path) -> None:
    export_leaderboard([official], tmp_path, training_data=[])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json*")}
    with pytest.raises(ListconError, match="holds results of CMedQAv1-reranking, which are not among these runs"):
        export_leaderboard([chosen(official).folder], tmp_path, mode="iterative", training_data=[])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json*")} == before
    export_leaderboard([official], tmp_path, training_data=[])
    other = next(tmp_path.rglob("model_meta.json")).with_name("MMarcoReranking.json")
    own = json.loads(other.read_text())
    for content, name in (
        ([], r"MMarcoReranking\.json"),
        ({"scores": {}}, r"MMarcoReranking\.json"),
        ({"scores": {**own["scores"], "train": own["scores"]["dev"]}}, r"MMarcoReranking\[default\]\[train\]"),
    ):
        other.write_text(json.dumps(content))
        with pytest.raises(ListconError, match=rf"holds results of {name}, which are not among these runs"):
            export_leaderboard([official], tmp_path, training_data=[])
    other.unlink()
    other.mkdir()
    with pytest.raises(ListconError, match=r"holds results of MMarcoReranking\.json, which are not among these runs"):
        export_leaderboard([official], tmp_path, training_data=[])


def test_what_the_results_repository_checks_is_said(official: Path, tmp_path: Path) -> None:
    remarks = export_leaderboard([official], tmp_path, training_data=[]).remarks
    assert remarks[0].startswith("org/ranker is not in mteb's registry")
    for revision in (CARD_REVISION, REGISTRY_REVISION):
        tasks = [official_stand_in("MMarcoReranking")]
        evaluated(tmp_path / revision, tasks, name="ByteDance/ListConRanker", revision=revision)
        export = export_leaderboard([tmp_path / revision], tmp_path, training_data=[])
        said = "\n".join(export.remarks)
        assert (f"mteb's registry has revision {REGISTRY_REVISION}" in said) == (revision == CARD_REVISION)
        assert f"already has results of ByteDance/ListConRanker at {CARD_REVISION}, {REGISTRY_REVISION}" in said
        published = "0.43884" if revision == CARD_REVISION else "0.44303"
        assert f"published for this revision is {published} (" in said
        ModelMeta.model_validate(json.loads((export.folder / "model_meta.json").read_text()))


def chosen(results: Path) -> Result:
    return next(result for result in choose_results([results], "iterative") if result.task == "MMarcoReranking")


def task_json(**changes: object) -> Callable[[Result], None]:
    return lambda result: change_json(result.folder / f"{result.task}.json", **changes)


def own_json(name: str, **changes: object) -> Callable[[Result], None]:
    return lambda result: change_json(result.file(name), **changes)


def fewer_queries(result: Result) -> None:
    for name in (RUN, PER_QUERY):
        lines = result.file(name).read_text().splitlines(keepends=True)
        result.file(name).write_text("".join(lines[:-1]))
    change_json(result.file(METRICS), queries=99)


def better_scores(result: Result) -> None:
    """Every number raised consistently, but not the scores that they follow from."""
    rows = [json.loads(line) for line in result.file(PER_QUERY).read_text().splitlines()]
    for row in rows:
        row["cmteb"]["map"] = 1.0
    result.file(PER_QUERY).write_text("".join(json.dumps(row) + "\n" for row in rows))
    change_json(result.file(METRICS), **{"cmteb.map": 1.0})


TAMPERED: list[tuple[Callable[[Result], None], str]] = [
    (task_json(**{"scores.dev.0.main_score": 7.5}), "main_score is 7.5; expected a value from 0 to 1"),
    (task_json(**{"scores.dev.0.main_score": 0.5}), "main_score is 0.5, map_at_1000"),
    (task_json(**{"scores.dev.0.ndcg_at_3": float("nan")}), "ndcg_at_3 is nan; expected a value"),
    (task_json(**{"scores.dev.0.nauc_map_at_1_max": float("inf")}), "nauc_map_at_1_max is inf"),
    (task_json(**{"scores.dev.0.mrr_at_10": 0.123}), "mrr_at_10 is 0.123, the run's own files say"),
    (task_json(dataset_revision="main"), "it is of MMarcoReranking@main, not of the official task"),
    (task_json(**{"scores.test": []}), "splits dev, test; expected one entry of dev"),
    (own_json(METRICS, **{"mteb.map_at_1000": 0.99}), "metrics.json beside it says 0.99"),
    (own_json(METRICS, is_official=False), "was not run on the official data"),
    (own_json(PROVENANCE, **{"data.revision": "x"}), "data revision x in its provenance"),
    (fewer_queries, "99 queries; the official data has 100"),
    (better_scores, "by the scores in run.jsonl"),
]


@pytest.mark.parametrize(("tamper", "reason"), TAMPERED, ids=[reason for _, reason in TAMPERED])
def test_a_tampered_result_is_refused_with_the_reason(
    tamper: Callable[[Result], None], reason: str, copied: Path, tmp_path: Path
) -> None:
    result = chosen(copied)
    tamper(result)
    with pytest.raises(ListconError, match=r"was changed after the run"):
        export_leaderboard([result.folder], tmp_path / "out", mode="iterative", training_data=[])
    sealed_again(result)
    with pytest.raises(ListconError) as refused:
        export_leaderboard([result.folder], tmp_path / "out", mode="iterative", training_data=[])
    assert reason in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_every_reason_comes_in_one_error(copied: Path, tmp_path: Path) -> None:
    for result in choose_results([copied], "iterative"):
        change_json(result.file(METRICS), is_official=False)
        sealed_again(result)
    with pytest.raises(ListconError) as refused:
        export_leaderboard([copied], tmp_path, mode="iterative")
    for part in (*TASKS, "training data"):
        assert part in str(refused.value)
    with pytest.raises(ListconError, match="no model card results"):
        model_card_front_matter([copied], "iterative")


def test_only_a_hub_model_with_a_commit_is_exported(tmp_path: Path) -> None:
    evaluated(tmp_path, [official_stand_in("MMarcoReranking")], name="local/mine", revision="sha256-1")
    with pytest.raises(ListconError, match=r"local/mine is not a model of the hub[\s\S]*needs the hub's commit"):
        export_leaderboard([tmp_path], tmp_path / "out", training_data=[])


def test_subsets_of_a_task_go_into_one_json_and_missing_ones_are_named(tmp_path: Path) -> None:
    names = [f"XGlueWPRReranking[{subset}][test]" for subset in ("zh", "fr")]
    evaluated(tmp_path, [official_stand_in(name) for name in names])
    exported = export_leaderboard([tmp_path / "results"], tmp_path / "out", training_data=[])
    scores = TaskResult.from_disk(exported.folder / "XGlueWPRReranking.json").scores
    assert {split: sorted(str(entry["hf_subset"]) for entry in entries) for split, entries in scores.items()} == {
        "test": ["fr", "zh"]
    }
    with pytest.raises(ListconError, match=r"holds results of XGlueWPRReranking\[zh\]\[test\], which are not among"):
        export_leaderboard([*(tmp_path / "results").rglob("*[[]fr[]]*[0-9a-f]")], tmp_path / "out", training_data=[])
    (remark,) = [remark for remark in exported.remarks if remark.startswith("not among the runs")]
    assert "XGlueWPRReranking[de][test]" in remark
    assert "T2Reranking" not in remark
    with pytest.raises(ListconError, match=r"XGlueWPRReranking\[fr\]\[test\] has no place in a model card"):
        model_card_front_matter([tmp_path / "results"], "iterative")


def test_the_choice_of_runs_has_to_be_clear(official: Path, copied: Path, tmp_path: Path) -> None:
    with pytest.raises(ListconError, match="more than one run of CMedQAv1-reranking, MMarcoReranking"):
        choose_results([official, copied], "iterative")
    with pytest.raises(ListconError, match=r"no run in conventional inference .* there is iterative"):
        export_leaderboard([chosen(official).folder], tmp_path)
    evaluated(copied, [official_stand_in("MMarcoReranking")], name="org/other")
    with pytest.raises(ListconError, match="holds runs of 2 systems"):
        choose_results([copied], "iterative")


def expected(results: list[Result]) -> dict[tuple[str, str], float]:
    card_datasets = {card.name: card.card_dataset for card in CARD_TASKS}
    return {
        (card_datasets[result.task], metric): 100 * result.cmteb[metric]
        for result in results
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
    results = choose_results([official], "iterative")
    path = tmp_path / "README.md"
    path.write_bytes(CARD.encode())
    assert update_model_card(path, [official], "iterative") == [
        f"model-index: {', '.join(TASKS)}",
        "the comparison table",
    ]
    card = ModelCard.load(path)
    assert values(card) == expected(results)
    result = results_of(card)[0]
    assert (result.dataset_name, result.dataset_config, result.dataset_split) == ("MTEB CMedQAv1", "default", "test")
    assert result.dataset_revision == official_task("CMedQAv1").revision
    text = path.read_bytes().decode()
    head, _, body = text.partition("---\r\n# Title")
    assert head.startswith("---\r\n# mine\r\nlicense: mit   # kept\r\ntags:\r\n- mteb\r\n- 中文\r\nmodel-index:\r\n")
    assert body.endswith("<!-- end -->\r\ntail  \r\n")
    assert "old" not in body
    assert "| ListConRanker             | iterative    | published" in body
    assert "\n" not in text.replace("\r\n", "")
    for own in results:
        assert head.count(str(own.signature)) == body.count(str(own.signature)) == 1
    again = path.read_bytes()
    update_model_card(path, [official], "iterative")
    assert path.read_bytes() == again


def test_results_on_other_data_and_other_keys_stay(official: Path, tmp_path: Path) -> None:
    results = choose_results([official], "iterative")
    other = {
        "task": {"type": "STS"},
        "dataset": {"type": "C-MTEB/ATEC", "name": "MTEB ATEC", "config": "default", "split": "test"},
        "metrics": [{"type": "cos_sim_pearson", "value": 50.25}],
    }
    stale = yaml.safe_load(model_card_front_matter([official], "iterative").strip("-"))["model-index"]
    stale[0]["results"][0]["metrics"][0]["value"] = 1.0
    stale[0] = {"name": "published-name", "results": [*stale[0]["results"], other]}
    header = yaml.safe_dump({"model-index": stale}) + "# of the licence\nlicense: mit\n"
    path = tmp_path / "README.md"
    path.write_text(f"---\n{header}---\nBody\n---\n")
    update_model_card(path, [official], "iterative")
    content = ModelCard.load(path, ignore_metadata_errors=True)
    assert content.data.model_name == "published-name"
    assert values(content) == {**expected(results), ("C-MTEB/ATEC", "cos_sim_pearson"): 50.25}
    assert path.read_text().endswith("# of the licence\nlicense: mit\n---\nBody\n---\n")


def test_a_readme_without_front_matter_gets_one(official: Path, tmp_path: Path) -> None:
    results = choose_results([official], "iterative")
    path = tmp_path / "README.md"
    path.write_text("# Title\n")
    assert update_model_card(path, [official], "iterative") == [f"model-index: {', '.join(TASKS)}"]
    assert path.read_text().endswith("---\n# Title\n")
    assert values(ModelCard.load(path)) == expected(results)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("---\ntags: [a\n---\n", "its front matter is not YAML"),
        ("---\n- a\n---\n", "its front matter is a list"),
        ("{}\n<!-- listcon-eval table -->\n", "has no <!-- end --> after it"),
        ("---\n{license: mit, model-index: []}\n---\n", "not written as one key a line"),
        ("---\nmodel-index: []\ntags: [a]\nmodel-index: []\n---\n", "has 2 keys model-index"),
        ("---\nmodel-index:\n  name: x\n---\n", "its model-index is not as the hub reads it"),
        ("---\nmodel-index: [{name: x, results: text}]\n---\n", "its model-index is not as the hub reads it"),
        ("---\nmodel-index: [{name: x, results: [{task: null, dataset: t}]}]\n---\n", "not as the hub reads it"),
    ],
)
def test_a_card_that_cannot_be_edited_is_left_alone(text: str, reason: str, official: Path, tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(ListconError, match=reason):
        update_model_card(path, [official], "iterative")
    assert path.read_text() == text


def test_a_quantised_checkpoint_is_smaller_and_loads(checkpoint_folder: Path, tmp_path: Path) -> None:
    done = listcon_eval("export", "quantised", checkpoint_folder, "--output", tmp_path / "small")
    size, folder = done.stdout.splitlines()
    assert folder == str(tmp_path / "small")
    assert size.endswith(" MiB")
    (compressed,), (weights,) = Path(folder).glob("*.safetensors.gz"), checkpoint_folder.glob("*.safetensors")
    assert compressed.stat().st_size < weights.stat().st_size / 3
    small, whole = load_checkpoint(folder).model, load_checkpoint(checkpoint_folder).model
    assert small.state_dict().keys() == whole.state_dict().keys()
    assert (
        "no checkpoint"
        in listcon_eval("export", "quantised", tmp_path / "x", "--output", tmp_path / "y", code=2).stderr
    )
