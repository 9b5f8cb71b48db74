"""What `run` can be told beside a model and data: metrics, a trial on the first queries, a file."""

import json
from pathlib import Path

import ir_measures
import pytest
from mteb import TaskResult

from command import listcon_eval, one_line
from listcon_eval import evaluate
from listcon_eval.data import local_task
from listcon_eval.errors import ListconError
from result_folders import ScoresByText, official_stand_in
from run_files import read_json, read_jsonl, run_folders, write_few_lists
from texts import random_list


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_few_lists(tmp_path / "few.jsonl", queries=4)


def test_a_trial_has_the_first_queries_and_a_name_of_its_own(data: Path, tmp_path: Path) -> None:
    command = ("run", "-m", "bm25", "--data", data, "--output", tmp_path)
    listcon_eval(*command)
    done = listcon_eval(*command, "--limit", "2")
    trial, whole = sorted(run_folders(tmp_path), key=lambda folder: folder.name, reverse=True)
    assert (trial.name, whole.name) == ("few-first2", "few")
    for name in ("run.jsonl", "per_query.jsonl"):
        assert read_jsonl(trial / name) == read_jsonl(whole / name)[:2]
    assert TaskResult.from_disk(trial.with_suffix(".json")).task_name == "few-first2"
    metrics, provenance = (read_json(trial / name) for name in ("metrics.json", "provenance.json"))
    assert (metrics["queries"], metrics["signature"]["limit"], metrics["is_official"]) == (2, 2, False)
    assert provenance["data"]["task"] == "few"
    listcon_eval("run", "-m", "random", "--data", data, "--output", tmp_path, "--limit", "2")
    compared = listcon_eval("compare", tmp_path, "--with-bounds")
    checked = listcon_eval("check", "--baseline", whole, "--current", tmp_path)
    for shown in (done, listcon_eval("table", tmp_path), compared, checked):
        assert "few-first2" in shown.stdout
    assert "finished before" in listcon_eval(*command, "--limit", "2").stderr
    assert "finished before" not in listcon_eval(*command, "--limit", "3").stderr
    query = read_jsonl(trial / "run.jsonl")[1]["query_id"]
    assert "No texts" not in listcon_eval("show", trial, "--query", query).stdout


def test_a_trial_is_nothing_to_publish_or_to_check_against(tmp_path: Path) -> None:
    system = ScoresByText("org/name", "0" * 40, {})
    evaluate(system, [official_stand_in("CMedQAv1-reranking")], output=tmp_path, limit=3)
    baseline = tmp_path / "baseline.json"
    for refused in (
        ("export", "leaderboard", tmp_path, "--output", tmp_path / "out", "--trained-on", "none"),
        ("export", "model-card", tmp_path),
        ("check", "--baseline", baseline, "--current", tmp_path, "--update"),
        ("check", "--baseline", tmp_path, "--current", tmp_path),
    ):
        told = one_line(listcon_eval(*refused, code=2).stderr)
        assert "CMedQAv1-reranking-first3" in told
        assert "without --limit" in told
    assert not baseline.exists()
    assert not (tmp_path / "out").exists()


def test_a_limit_below_1_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ListconError, match="limit is 0"):
        evaluate("random", [local_task(data)], output=tmp_path, limit=0)
    assert "'--limit'" in listcon_eval("run", "--limit", "0", code=2).stderr


def test_a_file_of_options(data: Path, tmp_path: Path) -> None:
    """A file and the same options on the command line are one run; the command line wins."""
    (tmp_path / "run.yaml").write_text(f"model: bm25\ndata: [{data}]\nlimit: 2\nquiet: true\n", encoding="utf-8")
    (tmp_path / "run.json").write_text(json.dumps({"data": [str(data)], "keep-going": True, "max_length": 9}))
    done = listcon_eval("run", "--options", tmp_path / "run.yaml", "--output", tmp_path)
    assert done.stderr == ""
    assert [folder.name for folder in run_folders(tmp_path)] == ["few-first2"]
    listcon_eval("run", "--output", tmp_path, "--limit", "3", "--options", tmp_path / "run.yaml")
    assert [folder.name for folder in run_folders(tmp_path)] == ["few-first2", "few-first3"]
    refused = listcon_eval("run", "--options", tmp_path / "run.json", "-m", "bm25", "--output", tmp_path, code=2)
    assert "leave out --max-length" in one_line(refused.stderr)


def test_several_names_in_a_file_may_be_a_list(tmp_path: Path) -> None:
    for content in ("tasks: [MiniWeb, MiniSearch]\nmetrics: [AP, R@5]", "tasks: MiniWeb,MiniSearch\nmetrics: AP R@5"):
        (tmp_path / "run.yaml").write_text(f"model: random\n{content}\n", encoding="utf-8")
        listcon_eval("run", "--options", tmp_path / "run.yaml", "--output", tmp_path)
    folders = run_folders(tmp_path)
    assert [folder.name for folder in folders] == ["MiniSearch", "MiniWeb"]  # the second run found them finished
    assert all({*read_json(folder / "metrics.json")["ir_measures"]} == {"AP", "R@5"} for folder in folders)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("metrics: [AP, 3]", "metrics is ['AP', 3]: Input should be a valid string"),
        ("max-lenght: 3", "'max-lenght' is no option of this command (did you mean max-length?); known: model, kind"),
        ("options: other.yaml", "'options' is no option"),
        ("limit: many", "limit is 'many': Input should be a valid integer"),
        ("limit: true", "limit is True: Input should be a valid integer"),
        ("limit: 0", "limit is 0: Input should be greater than or equal to 1"),
        ("fresh: 1", "fresh is 1: Input should be a valid boolean"),
        ("revision: 20250101", "revision is 20250101: Input should be a valid string"),
        ("data: [a.jsonl, 3]", "data is ['a.jsonl', 3]: Input should be a valid string"),
        ("data: a.jsonl", "data is 'a.jsonl': Input should be a valid array"),
        ("dtype: float64", "dtype is 'float64': Input should be 'auto', 'float16'"),
        ('output: ""', "output is '' (empty): give a value, or leave it out"),
        ("model:", "model is None: Input should be a valid string"),
        ("- model", "holds ['model']: expected keys with their values"),
        ("{", "cannot be read as YAML or JSON"),
    ],
)
def test_a_mistake_in_a_file_of_options_names_file_and_key(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(content, encoding="utf-8")
    done = listcon_eval("run", "--options", path, "--output", tmp_path, code=2)
    assert f"error: {path}" in one_line(done.stderr)
    assert message in one_line(done.stderr)
    assert done.stdout == ""
    assert "cannot be read" in listcon_eval("run", "--options", tmp_path / "none.yaml", code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--data", ""), "the value after --data is '' (empty)"),
        (("run", "--output="), "the value after --output= is '' (empty)"),
        (("clean", ""), "the value after clean is '' (empty)"),
        (("run", "-m", "random", "--data", "mine="), "the path of the data is '' (empty)"),
        (("run", "-m", "random", "--data", "mine=", "--rerank", "bm25"), "the path of the data is '' (empty)"),
        (("report", ".", "--data", "T="), "--data T=: the path is '' (empty)"),
    ],
)
def test_an_empty_path_is_not_the_current_folder(arguments: tuple[str, ...], message: str) -> None:
    assert message in one_line(listcon_eval(*arguments, code=2).stderr)


def write_graded(folder: Path) -> Path:
    """Four queries of five candidates with judgements from 0 to 3, in mteb's retrieval layout."""
    texts = [random_list(5, seed=seed) for seed in range(4)]
    ids = [[f"d{query}-{place}" for place in range(5)] for query in range(4)]
    parts: dict[str, list[dict[str, object]]] = {
        "corpus": [
            {"_id": name, "title": "", "text": text}
            for own, row in zip(ids, texts, strict=True)
            for name, text in zip(own, row[1:], strict=True)
        ],
        "queries": [{"_id": f"q{query}", "text": row[0]} for query, row in enumerate(texts)],
        "qrels": [
            {"query-id": f"q{query}", "corpus-id": name, "score": (place + query) % 4}
            for query, own in enumerate(ids)
            for place, name in enumerate(own)
        ],
        "top_ranked": [{"query-id": f"q{query}", "corpus-ids": own} for query, own in enumerate(ids)],
    }
    folder.mkdir()
    for part, rows in parts.items():
        (folder / f"{part}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return folder


def test_metrics_of_free_choice_and_a_threshold_of_relevance(tmp_path: Path) -> None:
    """The library itself computes the same from the run's TREC files, and every reader knows the metrics by name."""
    data, wanted = write_graded(tmp_path / "graded"), ["AP", "nDCG@3", "RR@10", "P(rel=3)@1"]
    command = ("run", "--data", data, "--output", tmp_path, "--metrics", " ".join(wanted))
    plain = listcon_eval(*command, "-m", "random")
    done = listcon_eval(*command, "-m", "random", "--relevance", "2")
    listcon_eval(*command, "-m", "random:1", "--relevance", "2")
    assert "Other data (no official results), ir_measures:nDCG@3, percent" in plain.stdout
    folders = {folder.name: folder for folder in run_folders(tmp_path) if "seed-0" in str(folder)}
    assert sorted(folders) == ["graded", "graded-relevance2"]
    for name, rel in (("graded", 1), ("graded-relevance2", 2)):
        folder = folders[name]
        metrics, rows = read_json(folder / "metrics.json"), read_jsonl(folder / "per_query.jsonl")
        assert metrics["signature"]["relevance"] == (None if rel == 1 else rel)
        assert metrics["signature"]["versions"]["ir-measures"]
        assert read_json(folder / "provenance.json")["metrics"] == wanted
        of_trec = {
            metric: list(
                ir_measures.iter_calc(
                    [ir_measures.parse_measure(metric)],
                    list(ir_measures.read_trec_qrels(str(folder / "qrels.trec"))),
                    list(ir_measures.read_trec_run(str(folder / "run.trec"))),
                )
            )
            for metric in (f"AP(rel={rel})", "nDCG@3", f"RR(rel={rel})@10", "P(rel=3)@1")
        }
        for metric, values in zip(wanted, of_trec.values(), strict=True):
            found = {row["query_id"]: row["ir_measures"][metric] for row in rows}
            assert found == pytest.approx({row.query_id: row.value for row in values})
            assert metrics["ir_measures"][metric] == pytest.approx(sum(found.values()) / 4)
        assert metrics["mteb"]["map_at_1000"] == pytest.approx(metrics["ir_measures"]["AP"], abs=1e-5)
        (reported,) = TaskResult.from_disk(folder.with_name(f"{folder.name}.json")).scores["test"]
        assert reported["ndcg_at_3"] == pytest.approx(metrics["ir_measures"]["nDCG@3"], abs=1e-5)
        assert reported["main_score"] == reported["map_at_1000"] == metrics["mteb"]["map_at_1000"]
        assert reported["ndcg_at_10"] == metrics["mteb"]["ndcg_at_10"]
    relevance = [row["relevance"] for row in read_jsonl(folders["graded-relevance2"] / "run.jsonl")]
    assert sorted(value for row in relevance for value in row) == [0] * 10 + [2] * 5 + [3] * 5
    assert "finished before" in listcon_eval(*command, "-m", "random", "--relevance", "2").stderr
    assert "graded-relevance2" in done.stdout
    assert "nDCG@3" in listcon_eval("table", tmp_path, "--measure", "nDCG@3").stdout
    compared = listcon_eval("compare", tmp_path, "--with-bounds", "--measure", "AP", "--measure", "cmteb:map").stdout
    assert "ir_measures:AP" in compared
    trec = folders["graded-relevance2"] / "run.trec"
    pair = json.loads(listcon_eval("compare", trec.parent, trec, "--measure", "mteb:ndcg_at_10", "--json").stdout)
    assert pair["tasks"]["graded-relevance2"]["changed"] == []
    (one,) = (tmp_path / "results").glob("*/seed-0")
    checked = listcon_eval("check", "--baseline", one, "--current", one, "--tolerance", "RR@10=0.1", "--json")
    assert {"ir_measures:AP", "ir_measures:RR@10"} <= {row["measure"] for row in json.loads(checked.stdout)["metrics"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--metrics", "map@10"), "no metric 'map@10'"),
        (("--relevance", "2"), "relevance is 2, and no judgement of few is above 1: give less"),
        (("--relevance", "0"), "'--relevance'"),
    ],
)
def test_mistakes_show_before_the_work(options: tuple[str, str], message: str, data: Path, tmp_path: Path) -> None:
    told = listcon_eval("run", "-m", "random", "--data", data, "--output", tmp_path, *options, code=2).stderr
    assert message in one_line(told)
    assert run_folders(tmp_path) == []
    listcon_eval("run", "-m", "random", "--data", data, "--output", tmp_path)
    assert listcon_eval("table", tmp_path, "--measure", "AP", code=2).stderr.count("run --metrics") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--top-k", "5"), "--top-k 5 is for a first stage: give --rerank"),
        (("--metrics", " "), "names no metric"),
        (("--metrics", "NumQ"), "the metric NumQ counts"),
        (("--metrics", "P@9999999"), "give 1 to 1000000"),
        (("--tasks", "MIRACLReranking[zh"), "unknown task 'MIRACLReranking[zh'"),
        (("-m", ""), "the value after -m is '' (empty)"),
    ],
)
def test_what_would_have_no_effect_or_another_one_is_refused(words: tuple[str, ...], message: str) -> None:
    assert message in one_line(listcon_eval("run", "-m", "random", "--tasks", "MiniWeb", *words, code=2).stderr)


@pytest.mark.parametrize(("name", "text"), [("a.yaml", "limit: 1\nlimit: 2\n"), ("a.json", '{"limit":1,"limit":2}')])
def test_an_option_that_comes_twice_in_a_file_is_refused(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert "a second time" in one_line(listcon_eval("run", "--options", tmp_path / name, code=2).stderr)
    (tmp_path / name).write_text('{"top-k": 1, "top_k": 2}')
    said = one_line(listcon_eval("run", "--options", tmp_path / name, code=2).stderr)
    assert "top_k is given twice, with - and with _" in said


def test_results_go_to_the_home_folder_that_a_file_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "run.yaml").write_text('output: "~/mine"\nlimit: 2', encoding="utf-8")
    done = listcon_eval("run", "--options", tmp_path / "run.yaml", "-m", "bm25", "--tasks", "MiniSearch")
    assert (tmp_path / "home" / "mine" / "results").is_dir()
    assert str(tmp_path / "home" / "mine") in done.stdout
    assert not (tmp_path / "~").exists()


def test_a_number_of_workers_may_be_a_number_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("workers: 1\nlimit: 2", encoding="utf-8")
    listcon_eval("run", "--options", tmp_path / "run.yaml", "-m", "bm25", "--tasks", "MiniSearch", "--output", tmp_path)
