"""Rankings that were made before: a TREC run file, and the first stage of a retrieval, whose best are reranked."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from listcon_eval.data import FirstStage, Task, reranking_of
from listcon_eval.data.rows import parse_json, text_lines
from listcon_eval.data.trec import note_of_ranks, read_trec_run, short_hash
from listcon_eval.errors import ListconError, count_of
from listcon_eval.ordering import ranked_list
from listcon_eval.records import NOT_RETRIEVED, CandidateList
from listcon_eval.systems.base import LoadOptions, RankContext, Ranking, System
from listcon_eval.systems.baselines import Bm25
from listcon_eval.systems.resolve import ModelSpec, safe_name

logger = logging.getLogger(__name__)

_FIRST_STAGES = "give bm25, mteb's folder of predictions, or a TREC run file"
_MTEB_META = "mteb_model_meta"  # the key of mteb's prediction files that names the model


def _warn_of_ranks(path: Path) -> None:
    if note := note_of_ranks(path):
        logger.warning("%s: %s", path, note)


class RunFile(System):
    """The scores of a TREC run file.

    Query and document ids have to be those of the task, and every query that has candidates has to be in the file. A
    query that has no candidates in the task is left out, with a warning.

    A candidate that the file does not list counts as not retrieved, as in trec_eval: it has no rank. Tools cut their
    runs at some rank, so this is common; a warning and `Ranking.observed` say how many there are.

    Raises:
        ListconError: the file is no TREC run; names the line.
    """

    kind = "run-file"
    reads_texts = False
    scores_all = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"run-file/{safe_name(path.name)}"
        self.revision = short_hash(path)
        _warn_of_ranks(path)

    @classmethod
    def load(cls, spec: ModelSpec, options: LoadOptions) -> Self:
        """Read the file."""
        return cls(Path(spec.given).expanduser())

    def _rank(self, lists: Sequence[CandidateList], mode: str, context: RankContext) -> Ranking:
        with context.phases.measured("score"):
            run = self._read(lists)
            if more := len(run.keys() - {row.query_id for row in lists}):
                logger.warning(
                    "%s has %s that %s has no candidates for: left out",
                    self.path,
                    count_of(more, "query"),
                    context.task.name,
                )
            ranked = [
                ranked_list([run[row.query_id].get(doc_id, NOT_RETRIEVED) for doc_id in row.doc_ids]) for row in lists
            ]
        absent = [row.scores.count(NOT_RETRIEVED) for row in ranked]
        observed = {"not_retrieved": {"candidates": sum(absent), "queries": sum(count > 0 for count in absent)}}
        if any(absent):
            logger.warning(
                "%s does not list %s of %s of %s: not retrieved, and without a rank, as in trec_eval",
                self.path,
                count_of(observed["not_retrieved"]["candidates"], "candidate"),
                count_of(observed["not_retrieved"]["queries"], "query"),
                context.task.name,
            )
        return Ranking(ranked, {}, observed)

    def _read(self, lists: Sequence[CandidateList]) -> dict[str, dict[str, float]]:
        return read_trec_run(self.path, {row.query_id: row.doc_ids for row in lists})

    def unrankable(self, lists: Sequence[CandidateList], task: str) -> dict[str, str]:
        """Nothing: a file that is not of the task is refused as a whole, by a ListconError."""
        lists = [row for row in lists if row.doc_ids]
        run = self._read(lists)
        wanted = {row.query_id for row in lists}
        missing = wanted - run.keys()
        if missing and (unknown := [query_id for query_id in run if query_id not in wanted]):
            raise ListconError(
                f"{self.path} has {count_of(len(unknown), 'query')} that {task} has no candidates for, such as "
                f"{unknown[0]!r}; those of the task are such as {lists[0].query_id!r}. A run file is of one task: name "
                "it with --tasks or --data"
            )
        if missing:
            raise ListconError(
                f"{self.path} lacks {count_of(len(missing), 'query')} of {task} (of {len(wanted)}), such as "
                f"{min(missing)!r}: a mean over the others would not be the task's; make the run for all of them"
            )
        for row in lists:
            if others := run[row.query_id].keys() - set(row.doc_ids):
                raise ListconError(
                    f"{self.path}, query {row.query_id}: {count_of(len(others), 'document')} not among that "
                    f"query's candidates in {task}, such as {min(others)!r}; these are such as {row.doc_ids[0]!r}"
                )
        return {}

    def provenance(self) -> Mapping[str, Any]:
        """The file."""
        return {"location": str(self.path)}


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
    if not given:
        raise ListconError(f"--rerank is '' (empty): {_FIRST_STAGES}")
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
            raise ListconError(f"{path}: no such file; {_FIRST_STAGES}")
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
        _warn_of_ranks(path)
        return read_trec_run(path, dict.fromkeys(queries, documents.keys())), safe_name(path.stem)
    try:
        table, model = content[task.subset][task.split], content[_MTEB_META]["model_name"]
    except (KeyError, TypeError) as error:
        raise ListconError(
            f"{path} has no predictions of {task.name} (subset {task.subset}, split {task.split}) as mteb writes them"
        ) from error
    return read_trec_run(table, location=str(path)), safe_name(str(model).rpartition("/")[2])
