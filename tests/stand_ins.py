"""Small stand-ins for data sets of mteb in the hub cache's own layout: the real loading code runs without a network."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mteb

Rows = list[dict[str, Any]]
RELEVANT = {"甲": 3, "乙": 2, "丙": 1}  # the grades that a document's first character earns


def write_snapshot(hub: Path, dataset: str, revision: str, configs: Mapping[str, tuple[str, Rows]]) -> Path:
    """A snapshot as the hub's client leaves it: configuration -> its one split and its rows."""
    snapshot = hub / f"datasets--{dataset.replace('/', '--')}" / "snapshots" / revision
    readme = ["---", "configs:"]
    for name, (split, rows) in configs.items():
        (snapshot / name).mkdir(parents=True)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (snapshot / name / f"{split}.jsonl").write_text(text, encoding="utf-8")
        readme += [f"- config_name: {name}", "  data_files:", f"  - split: {split}", f"    path: {name}/{split}*"]
    (snapshot / "README.md").write_text("\n".join([*readme, "---", ""]), encoding="utf-8")
    return snapshot


def parts(queries: int, *, graded: bool = False, seed: int = 0) -> dict[str, Rows]:
    """Corpus, queries, qrels and top_ranked of made-up lists of 6 to 12 of 40 documents, some with titles."""
    rng = random.Random(seed)
    words = ["甲", "乙", "丙", "丁", "戊", "己"]
    corpus = [
        {
            "_id": f"d{place}",
            "title": "题" if place % 3 == 0 else "",
            "text": rng.choice(words) + "".join(rng.choices("山水火木金土", k=rng.randint(2, 9))),
        }
        for place in range(40)
    ]
    rows: dict[str, Rows] = {"corpus": corpus, "queries": [], "qrels": [], "top_ranked": []}
    for place in range(queries):
        chosen = rng.sample(corpus, rng.randint(6, 12))
        chosen[0] = corpus[place % 40]
        query_id = f"q{place}"
        rows["queries"].append({"_id": query_id, "text": "".join(rng.choices("山水火木金土", k=4))})
        grades = {row["_id"]: RELEVANT.get(row["text"][0], 0) for row in chosen} | {chosen[0]["_id"]: 3}
        rows["qrels"] += [
            {"query-id": query_id, "corpus-id": doc_id, "score": grade if graded else min(grade, 1)}
            for doc_id, grade in grades.items()
        ]
        rows["top_ranked"].append({"query-id": query_id, "corpus-ids": list(grades)})
    return rows


def fill(hub: Path, task: str) -> Path:
    """A stand-in for the data of one of a few tasks: MIRACLReranking[zh], graded, with instructions, a retrieval."""
    metadata = mteb.get_task(task).metadata
    split = metadata.eval_splits[0]
    rows = parts(8, graded=task == "ERESSReranking", seed=len(task))
    if task == "MIRACLReranking":
        configs = {f"zh-{name}": (split, own) for name, own in rows.items()}
    elif task == "mFollowIR":
        pairs = [
            {"query-id": f"{row['query-id']}-{kind}", **{name: row[name] for name in row if name != "query-id"}}
            for row in rows["qrels"]
            for kind in ("og", "changed")
        ]
        twice = [(row, kind) for row in rows["queries"] for kind in ("og", "changed")]
        configs = {
            "corpus-zho": ("corpus", rows["corpus"]),
            "queries-zho": ("queries", [{**row, "_id": f"{row['_id']}-{kind}"} for row, kind in twice]),
            "instruction-zho": (
                "instruction",
                [
                    {"query-id": f"{row['_id']}-{kind}", "instruction": "只要山" if kind == "og" else "不要水,只要火木"}
                    for row, kind in twice
                ],
            ),
            "default-zho": ("test", pairs),
            "top_ranked-zho": (
                "top_ranked",
                [
                    {"query-id": f"{row['query-id']}-{kind}", "corpus-ids": row["corpus-ids"]}
                    for row in rows["top_ranked"]
                    for kind in ("og", "changed")
                ],
            ),
            "qrel_diff-zho": (
                "qrel_diff",
                [{"query-id": row["query-id"], "corpus-ids": row["corpus-ids"][:2]} for row in rows["top_ranked"]],
            ),
        }
    elif task == "T2Retrieval":
        rows["corpus"].append({"_id": "q0", "title": "", "text": rows["queries"][0]["text"]})  # the query itself
        configs = {name: (split, rows[name]) for name in ("corpus", "queries")} | {"default": (split, rows["qrels"])}
    else:
        configs = {name: (split, own) for name, own in rows.items()}
    return write_snapshot(hub, metadata.dataset["path"], metadata.revision, configs)
