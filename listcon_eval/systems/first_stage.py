"""The first stage of a retrieval, whose best documents are reranked: where it comes from, and its order as a system."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from listcon_eval.data import FirstStage, Task, reranking_of
from listcon_eval.data.rows import parse_json, text_lines
from listcon_eval.data.trec import read_trec_run, short_hash
from listcon_eval.errors import ListconError
from listcon_eval.ordering import ranked_list
from listcon_eval.records import CandidateList
from listcon_eval.systems.base import RankContext, Ranking, System
from listcon_eval.systems.baselines import Bm25
from listcon_eval.systems.resolve import safe_name

_MTEB_META = "mteb_model_meta"  # the key of mteb's prediction files that names the model


class FirstStageSystem(System):
    """The order in which a first stage retrieved the candidates: what a reranker starts from.

    It belongs to a task (`with_first_stage`), and no model's name stands for it.
    """

    kind = "first-stage"
    reads_texts = False

    def __init__(self, first_stage: FirstStage) -> None:
        self._run = first_stage.run
        self.name = f"first-stage/{first_stage.name}"
        self.revision = first_stage.revision

    def _rank(self, lists: Sequence[CandidateList], mode: str, context: RankContext) -> Ranking:
        with context.phases.measured("score"):
            ranked = [ranked_list([self._run[row.query_id][doc_id] for doc_id in row.doc_ids]) for row in lists]
        return Ranking(ranked, {}, {})


def with_first_stage(task: Task, given: str, top_k: int) -> Task:
    """A retrieval task as the reranking of a first stage's best documents.

    Args:
        task: the task; its data is loaded.
        given: `bm25` or `bm25:jieba`, which searches the task's corpus; a folder or file of predictions as
            `mteb.evaluate` writes them; or a TREC run file.
        top_k: how many documents a query are reranked.

    Raises:
        ListconError: the data or the predictions cannot be had, or the predictions are not of this task.
    """
    if top_k < 1:
        raise ListconError(f"--top-k is {top_k}: give the number of documents a query to rerank, 1 or more")
    task.load()
    queries, documents = task.queries(), task.documents()
    kind, _, variant = given.partition(":")
    if kind == "bm25" and not Path(given).exists():
        bm25 = Bm25(variant or "characters")
        name, revision = bm25.name.rpartition("/")[2], bm25.revision
        found: Mapping[str, Mapping[str, float]] = bm25.retrieve(queries, documents, top_k)
    else:
        path = Path(given).expanduser()
        if path.is_dir():
            path /= task.mteb_task.prediction_file_name
        if not path.is_file():
            raise ListconError(f"{path}: no such file; give bm25, mteb's folder of predictions, or a TREC run file")
        found, name = _predictions(path, task, queries, documents)
        revision = short_hash(path)
    best = {
        query_id: dict(sorted(found.get(query_id, {}).items(), key=lambda pair: -pair[1])[:top_k])
        for query_id in queries
    }
    if not any(best.values()):
        raise ListconError(
            f"{given} has nothing for any of the {len(queries)} queries of {task.name}, such as "
            f"{next(iter(queries), 'none')!r}; its own are such as {next(iter(found), 'none')!r}"
        )
    for query_id, scores in best.items():
        if (unknown := next((doc_id for doc_id in scores if doc_id not in documents), None)) is not None:
            raise ListconError(f"{given}, query {query_id}: {task.name} has no document {unknown!r}")
    return reranking_of(task, FirstStage(name, revision, top_k, best), documents)


def _predictions(
    path: Path, task: Task, queries: Mapping[str, str], documents: Mapping[str, str]
) -> tuple[Mapping[str, Mapping[str, float]], str]:
    """The scores in a file of predictions, query id -> document id -> score, and the name of what made them."""
    is_json = path.suffix == ".json"
    content: Any = parse_json(str(path), "\n".join(line for _, line in text_lines(path))) if is_json else {}
    if _MTEB_META not in content:
        return read_trec_run(path, dict.fromkeys(queries, documents.keys())), safe_name(path.stem)
    try:
        table, model = content[task.subset][task.split], content[_MTEB_META]["model_name"]
    except (KeyError, TypeError) as error:
        raise ListconError(
            f"{path} has no predictions of {task.name} (subset {task.subset}, split {task.split}) as mteb writes them"
        ) from error
    return read_trec_run(table, location=str(path)), safe_name(str(model).rpartition("/")[2])
