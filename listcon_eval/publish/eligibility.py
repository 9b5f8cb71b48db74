"""Which results can be published: a model's, on the whole official data, with numbers that follow from the scores."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from listcon_eval.data import CARD_TASKS, Task, official_task
from listcon_eval.data.trec import read_qrels
from listcon_eval.errors import ListconError
from listcon_eval.metrics import cmteb
from listcon_eval.metrics import mteb as mteb_protocol
from listcon_eval.records import POINTWISE
from listcon_eval.results import Result, load_results, read_per_query, read_provenance, read_rankings
from listcon_eval.results.records import METRICS, RUN, TREC_QRELS

MTEB_TOLERANCE = 1.1e-5
"""How far mteb's means may be from exact ones: it rounds to five digits."""
_NOT_MODELS = {
    "bm25": "a baseline, for comparison",
    "run-file": "scores of a file, which does not say how they were made",
    "first-stage": "what a reranker starts from",
    "random": "a baseline, for comparison",
    "oracle": "an upper bound, made of the judgements",
}


def choose_results(paths: Sequence[Path], mode: str) -> list[Result]:
    """The results of one system in one mode, one per task; a system without modes has its results for every mode.

    Raises:
        ListconError: there are no such results, or results of several systems, or several of one task.
    """
    every = {result.folder.resolve(): result for path in paths for result in load_results(path)}
    of_mode = [result for result in every.values() if result.mode == mode]
    results = of_mode or [result for result in every.values() if result.mode == POINTWISE]
    where = ", ".join(map(str, paths))
    if not results:
        modes = sorted({result.mode for result in every.values()})
        raise ListconError(f"no run in {mode} inference in {where}; there is {', '.join(modes)}: choose with --mode")
    systems = {result.system_key: f"{result.model}@{result.model_revision}, {result.settings}" for result in results}
    if len(systems) > 1:
        names = "; ".join(sorted(systems.values()))
        raise ListconError(f"{where} holds runs of {len(systems)} systems ({names}): give the folder of one")
    tasks = [result.task for result in results]
    if repeated := sorted({task for task in tasks if tasks.count(task) > 1}):
        folders = [str(result.folder) for result in results if result.task in repeated]
        raise ListconError(f"more than one run of {', '.join(repeated)}: {'; '.join(folders)}; give one of them")
    order = {task.name: place for place, task in enumerate(CARD_TASKS)}
    return sorted(results, key=lambda result: (order.get(result.task, len(order)), result.task))


def official_task_of(result: Result) -> Task | None:
    """The task of mteb that a result is of; None for one of other data, or of a first stage's results."""
    try:
        return official_task(result.task) if result.is_official else None
    except ListconError:
        return None


def publish_blockers(result: Result) -> Iterator[str]:
    """Every reason why a result may not be published."""
    if result.kind in _NOT_MODELS:
        yield f"{result.model} on {result.task} is not a model's result: {_NOT_MODELS[result.kind]}"
        return
    if result.signature.limit is not None:
        yield (
            f"{result.task} ({result.folder}) is a trial on the first {result.signature.limit} queries of a task: run "
            "it without --limit, and give that run's folder"
        )
        return
    task = official_task_of(result)
    if task is None:
        yield f"{result.task} ({result.folder}) was not run on the official data of an official task"
        return
    try:
        data = read_provenance(result).data
        if not data.is_official:
            yield f"{result.task}: its provenance says that the data is not official ({data.source})"
        for where, revision in (("metrics", result.data_revision), ("provenance", data.revision)):
            if revision != task.revision:
                yield f"{result.task}: data revision {revision} in its {where}; the official one is {task.revision}"
        if (data.subset, data.split) != (task.subset, task.split):
            yield (
                f"{result.task}: subset {data.subset} and split {data.split}; the official ones are {task.subset} and "
                f"{task.split}"
            )
        if result.queries != (queries := task.shipped_sizes()[0]):
            yield f"{result.task}: {result.queries} queries; the official data has {queries}"
        read_per_query(result)
        yield from _changed_means(result)
    except ListconError as error:
        yield f"{result.task}: {error}"


def _changed_means(result: Result) -> Iterator[str]:
    """Compute the means again from the stored scores and judgements, and name those that differ."""
    rankings = read_rankings(result)
    if len(rankings) != result.queries:
        yield f"{result.task}: {RUN} has {len(rankings)} queries, {METRICS} says {result.queries}"
        return
    labelled = [(row.query_id, (row.cmteb_relevant, row.final_scores)) for row in rankings.values()]
    run = {
        row.query_id: {
            doc_id: score for doc_id, score in zip(row.doc_ids, row.scores, strict=True) if score is not None
        }
        for row in rankings.values()
    }
    again = {
        "cmteb": cmteb.evaluate_labelled(labelled).means,
        "mteb": mteb_protocol.evaluate(read_qrels(result.file(TREC_QRELS)), run, result.main_score).means,
    }
    for protocol, means in again.items():
        for name, value in means.items():
            stated = result.means(protocol).get(name, math.nan)
            if not abs(stated - value) <= MTEB_TOLERANCE:
                yield (
                    f"{result.task}: {protocol}:{name} is {stated} in {METRICS}, but {value:.6f} by the scores in "
                    f"{RUN}: the files were changed after the run"
                )
