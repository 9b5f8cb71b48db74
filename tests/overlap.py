"""A run folder of a system that is no ListConRanker: it scores the character pairs of query and passage.

It is written as every kind of system is, with the mode "pointwise" and its kind in the metrics.
"""

import math
from pathlib import Path

from listcon_eval.data import Task
from listcon_eval.metrics import cmteb, mteb_protocol
from listcon_eval.records import NO_PRECISION, POINTWISE, ScoredList
from listcon_eval.results import RunRecord, write_run


def write_overlap_run(output: Path, task: Task, *, model: str = "local/char-pairs", kind: str = "bm25") -> RunRecord:
    """Write the run of a task, and return its record."""
    task.load()
    lists = task.candidate_lists()
    scored = [
        ScoredList(
            row.query_id,
            row.doc_ids,
            tuple(_shared(row.query, passage) for passage in row.passages),
            (0,) * len(row.doc_ids),
        )
        for row in lists
    ]
    card = cmteb.evaluate(lists, scored, "conventional")
    leaderboard = mteb_protocol.evaluate(task.qrels(), mteb_protocol.run_of(scored))
    folder = output / "results" / model.replace("/", "__") / "1" / "experiments" / kind / task.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.with_name(f"{task.name}.json").write_text("{}")  # mteb's file, which the manifest covers too
    record = RunRecord(
        folder=folder,
        task=task.name,
        is_official=task.is_official,
        model=model,
        model_revision="1",
        mode=POINTWISE,
        precision=NO_PRECISION,
        queries=len(lists),
        cmteb=card.means,
        mteb=leaderboard.means,
        signature=f"{task.name}@{task.revision}|{model}@1|kind:{kind}",
        kind=kind,
    )
    write_run(
        record,
        lists=lists,
        scored=scored,
        labels=[cmteb.labels(row, "conventional") for row in lists],
        per_query={
            row.query_id: {"cmteb": card.per_query[row.query_id], "mteb": leaderboard.per_query[row.query_id]}
            for row in lists
        },
        qrels=task.qrels(),
        provenance={
            "signature": record.signature,
            "model": {"name": model, "revision": "1"},
            "data": {
                "task": task.name,
                "revision": task.revision,
                "content": task.content,
                "source": task.source,
                "location": task.location,
            },
            "seconds": {"score": 0.25},
        },
        key="key",
    )
    return record


def _shared(query: str, passage: str) -> float:
    pairs = {query[place : place + 2] for place in range(len(query) - 1)}
    return sum(passage[place : place + 2] in pairs for place in range(len(passage) - 1)) / math.sqrt(len(passage) + 20)
