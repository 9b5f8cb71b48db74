import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from listcon_eval.data import CARD_TASKS, MINI, chosen_tasks, list_tasks, official_task, tasks_named
from listcon_eval.errors import ListconError
from stand_ins import write_snapshot

T2_REVISION = "a34fe6bc0dff185af1228e49a0f6fb1de1565627"


@pytest.mark.parametrize(
    ("name", "official"),
    [
        ("CMedQAv1-reranking", "CMedQAv1-reranking"),
        ("cmedqa1.0", "CMedQAv1-reranking"),
        ("CMedQAv1", "CMedQAv1-reranking"),
        (" cMedQA2.0 ", "CMedQAv2-reranking"),
        ("MTEB CMedQAv2", "CMedQAv2-reranking"),
        ("C-MTEB/Mmarco-reranking", "MMarcoReranking"),
        ("t2reranking", "T2Reranking"),
    ],
)
def test_every_name_in_use_is_known(name: str, official: str) -> None:
    assert official_task(name).name == official


def test_the_columns_are_those_of_the_model_card() -> None:
    assert [task.column for task in CARD_TASKS] == ["cMedQA1.0", "cMedQA2.0", "MMarcoReranking", "T2Reranking"]


def test_no_name_belongs_to_two_tasks() -> None:
    names = [name.casefold() for task in CARD_TASKS for name in (task.name, *task.aliases)]
    assert len(names) == len(set(names))


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ListconError) as caught:
        official_task("T2Rerank")
    said = str(caught.value)
    assert "unknown task 'T2Rerank' (did you mean T2Reranking?)" in said
    assert all(task.name in said for task in CARD_TASKS)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("MIRACLReranking[zh]", ["MIRACLReranking[zh]"]),
        ("miraclreranking[ja, zh], mini", [f"MIRACLReranking[{subset}]" for subset in ("ja", "zh")] + [*MINI]),
        ("XGlueWPRReranking[zh]", [f"XGlueWPRReranking[zh][{split}]" for split in ("validation", "test")]),
        ("XGlueWPRReranking[zh,fr][test]", [f"XGlueWPRReranking[{subset}][test]" for subset in ("fr", "zh")]),
        ("WebLINXCandidatesReranking[test_iid]", ["WebLINXCandidatesReranking[test_iid]"]),
        ("MTEB(cmn, v1)", ["T2Reranking", "MMarcoReranking", "CMedQAv1-reranking", "CMedQAv2-reranking"]),
        ("official", [task.name for task in CARD_TASKS]),
    ],
)
def test_names_stand_for_subsets_splits_and_sets(names: str, found: list[str]) -> None:
    assert [task.name for task in tasks_named(names)] == found


def test_all_reranking_tasks_of_a_language() -> None:
    chinese = {task.name: task for task in tasks_named("all-chinese-reranking")}
    assert [*chinese][:4] == [task.name for task in CARD_TASKS]
    wanted = {"MIRACLReranking[zh]", "MultiLongDocReranking[zh]", "XGlueWPRReranking[zh][test]", "mFollowIR[zho]"}
    assert wanted <= chinese.keys()
    assert all({"zho-Hans", "cmn-Hans", "cmn-Hant"} & {*task.languages} for task in chinese.values())
    assert [task.name for task in tasks_named("all-cmn-reranking")] == [*chinese]
    with pytest.raises(ListconError, match="no reranking task has the language 'klingon': give one of ara, "):
        tasks_named("all-klingon-reranking")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("MIRACLRerank", r"unknown task 'MIRACLRerank' \(did you mean MIRACLReranking\?"),
        ("MIRACLReranking[xx]", r"MIRACLReranking has the subsets ar, .* zh and the splits dev; give some of them as"),
        ("MIRACLReranking[zh][test]", "has the subsets ar"),
        ("Vidore3EnergyBM25sReranking.v2", "needs image, and this package ranks texts alone"),
        ("Banking77Classification", "is a Classification task of mteb: it has no queries and documents"),
        ("T2Retrieval", "T2Retrieval is a Retrieval task without candidate lists: give a first stage .* --rerank bm25"),
        ("CodeRAGOnlineTutorials", "is a Reranking task without candidate lists"),
        ("CQADupstackRetrieval", "is a group of tasks"),
        ("BEIR(NL)", "unknown task|no reranking task"),
    ],
)
def test_what_cannot_be_reranked_is_refused_with_a_reason(name: str, said: str) -> None:
    with pytest.raises(ListconError, match=said):
        chosen_tasks(name, None)


def test_an_official_task_is_mtebs() -> None:
    task = official_task("T2Reranking")
    assert (task.name, task.split, task.revision) == ("T2Reranking", "dev", T2_REVISION)
    assert (task.source, task.location, task.is_official) == ("hub", "mteb/T2Reranking", True)
    assert task.mteb_task.metadata.name == "T2Reranking"
    assert not task.mteb_task.data_loaded


def test_sizes_of_the_official_tasks() -> None:
    infos = {info.name: info for info in list_tasks()}
    assert list(infos)[:4] == [task.name for task in CARD_TASKS]
    marco = infos["MMarcoReranking"]
    assert (marco.main_score, marco.shipped_sizes()) == ("map_at_1000", (100, 100026))
    candidates = marco.statistics()["top_ranked_statistics"]
    assert [candidates[f"{which}_top_ranked_per_query"] for which in ("min", "average", "max")] == [1000, 1000.26, 1002]
    assert infos["T2Reranking"].revision == T2_REVISION
    follow = infos["mFollowIR[zho]"]  # whose statistics count queries and documents together
    assert (follow.main_score, follow.shipped_sizes()) == ("p-MRR", (86, 41120))
    chinese = list_tasks("zho")
    assert [info.name for info in chinese] == [info.name for info in list_tasks("Chinese")]
    assert {"T2Reranking", "MIRACLReranking[zh]"} <= {info.name for info in chinese} < infos.keys()


LOAD = """
import json, time
from listcon_eval.errors import ListconError
from listcon_eval.data import official_task
task = official_task("T2Reranking")
start = time.monotonic()
try:
    print(json.dumps([c._asdict() for c in task.candidate_lists()]))
except ListconError as error:
    print(json.dumps({"said": str(error), "seconds": time.monotonic() - start}))
"""


def test_importing_the_tasks_is_quick() -> None:
    code = "import sys, listcon_eval.data; print({'mteb', 'datasets', 'torch'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def load_t2(home: Path, **environment: str) -> Any:  # noqa: ANN401 - JSON
    """Load T2Reranking in a process of its own: the hub's client reads its environment when imported."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE_"))}
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        env={**inherited, "HF_HOME": str(home), **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("environment", "tried"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "offline mode is set (HF_HUB_OFFLINE)"),
        (
            {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"},
            "hub http://127.0.0.1:9: it does not answer",
        ),
    ],
)
def test_without_a_hub_one_message_says_how_to_go_on(tmp_path: Path, environment: dict[str, str], tried: str) -> None:
    answer = load_t2(tmp_path, **environment)
    said = answer["said"]
    assert f"mteb/T2Reranking @ {T2_REVISION}" in said
    assert tried in said
    assert str(tmp_path / "hub") in said
    assert all(way in said for way in ("--data PATH", "HF_HOME", "HF_HUB_OFFLINE=1", "HF_ENDPOINT="))
    assert answer["seconds"] < 12  # the hub's own client would try for 23


def fill_hub_cache(home: Path, revision: str) -> Path:
    """A snapshot as the hub's client leaves it: two queries of mteb/T2Reranking that never were."""
    parts: dict[str, list[dict[str, Any]]] = {
        "corpus": [{"_id": "d1", "title": "", "text": " 甲 "}, {"_id": "d2", "title": "题", "text": "乙"}],
        "queries": [{"_id": "q1", "text": "问"}, {"_id": "q2", "text": "又问"}],
        "qrels": [
            {"query-id": "q1", "corpus-id": "d2", "score": 1},
            {"query-id": "q2", "corpus-id": "d1", "score": 1},
        ],
        "top_ranked": [{"query-id": q, "corpus-ids": ["d1", "d2"]} for q in ("q1", "q2")],
    }
    configs = {part: ("dev", rows) for part, rows in parts.items()}
    return write_snapshot(home / "hub", "mteb/T2Reranking", revision, configs)


def test_the_hub_cache_is_enough(tmp_path: Path) -> None:
    fill_hub_cache(tmp_path, T2_REVISION)
    lists = load_t2(tmp_path, HF_HUB_OFFLINE="1")
    assert [(c["query_id"], c["doc_ids"], c["passages"], c["relevance"]) for c in lists] == [
        ("q1", ["d2", "d1"], ["题 乙", "甲"], [1, 0]),
        ("q2", ["d1", "d2"], ["甲", "题 乙"], [1, 0]),
    ]


def test_another_revision_in_the_cache_is_not_taken(tmp_path: Path) -> None:
    fill_hub_cache(tmp_path, "0" * 40)
    answer = load_t2(tmp_path, HF_HUB_OFFLINE="1")
    assert f"The cache has commit {'0' * 40}." in answer["said"]


def test_an_incomplete_snapshot_is_explained(tmp_path: Path) -> None:
    (fill_hub_cache(tmp_path, T2_REVISION) / "corpus" / "dev.jsonl").unlink()
    answer = load_t2(tmp_path, HF_HUB_OFFLINE="1")
    assert answer["said"].startswith(f"Could not read the data of T2Reranking: mteb/T2Reranking @ {T2_REVISION} in ")
    assert "No (supported) data files found in" in answer["said"]
