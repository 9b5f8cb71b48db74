"""Every private or version-bound name of mteb that this package uses. `tests/unit/test_mteb_compat.py` tries each.

Nothing else in the package imports a name of mteb that starts with an underscore. mteb is imported when a function is
called: it takes seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.models.model_meta import ModelMeta
    from mteb.results import TaskResult
    from mteb.types.statistics import RetrievalDescriptiveStatistics

# mteb's names in a TaskResult -> pytrec_eval's names in mteb's per-query scores
_PYTREC_NAMES = {"map_at_1000": "map_cut_1000", "ndcg_at_10": "ndcg_cut_10", "recall_at_10": "recall_10"}


class RetrievalMetrics(NamedTuple):
    """mteb's metrics of a run.

    Attributes:
        means: metric -> the value that mteb puts in its `TaskResult` (rounded to 5 digits, but for MRR).
        per_query: query id -> metric -> value, unrounded.
    """

    means: dict[str, float]
    per_query: dict[str, dict[str, float]]


def retrieval_metrics(
    qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]]
) -> RetrievalMetrics:
    """map_at_1000, ndcg_at_10, recall_at_10 and mrr_at_10 by mteb's own functions, in the order of the run."""
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores, mrr
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    judged = {query_id: dict(row) for query_id, row in qrels.items()}
    # pytrec_eval takes Python numbers alone
    results = {query_id: {doc_id: float(score) for doc_id, score in row.items()} for query_id, row in run.items()}
    found = calculate_retrieval_scores(results, judged, list(AbsTaskRetrieval.k_values))
    reciprocal = dict(zip(results, mrr(judged, results, [10])["MRR@10"], strict=True))
    per_query = {}
    for query_id in results:
        own = found.all_scores[query_id]
        per_query[query_id] = {name: own[key] for name, key in _PYTREC_NAMES.items()}
        per_query[query_id]["mrr_at_10"] = reciprocal[query_id]
    means = {
        "map_at_1000": found.map["MAP@1000"],
        "ndcg_at_10": found.ndcg["NDCG@10"],
        "recall_at_10": found.recall["Recall@10"],
        "mrr_at_10": found.mrr["MRR@10"],
    }
    return RetrievalMetrics(means, per_query)


def document_texts(corpus: Dataset) -> dict[str, str]:
    """Document id -> the text that mteb hands to a model: title and text joined and stripped."""
    from mteb._create_dataloaders import _corpus_to_dict

    return {row["id"]: _corpus_to_dict(row)["text"] for row in corpus}


def query_texts(queries: Dataset) -> dict[str, str]:
    """Query id -> the text that mteb hands to a model."""
    from mteb._create_dataloaders import _retrieval_texts
    from mteb.types import PromptType

    return dict(zip(queries["id"], _retrieval_texts(queries, PromptType.query), strict=True))


def task_names() -> dict[str, str]:
    """Every name of a task that mteb has or had, by its case-folded form.

    A public list of the names would make every task, and would leave out private and superseded ones.
    """
    from mteb.get_tasks import _TASK_RENAMES, _TASKS_REGISTRY

    return {name.casefold(): name for name in (*_TASKS_REGISTRY, *_TASK_RENAMES)}


def descriptive_statistics(task: AbsTaskRetrieval, split: str) -> RetrievalDescriptiveStatistics:
    """The statistics of a loaded task's own data.

    The public `calculate_descriptive_statistics` answers from the file that mteb ships, or overwrites it.
    """
    return task._calculate_descriptive_statistics_from_split(split)


def load_split(folder: str, revision: str, split: str) -> RetrievalSplitData:
    """Read one split of data in mteb's retrieval layout from a local snapshot."""
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalDatasetLoader

    return RetrievalDatasetLoader(hf_repo=folder, revision=revision, split=split).load()


def registered_model(hub_id: str | None) -> ModelMeta | None:
    """The entry of a model in mteb's registry; None when it has none."""
    if hub_id is None:
        return None
    import mteb

    try:
        return mteb.get_model_meta(hub_id, fetch_from_hf=False)
    except KeyError:
        return None


def model_meta(name: str, revision: str, settings: Mapping[str, Any], metadata: Mapping[str, Any]) -> ModelMeta:
    """Mteb's metadata of a measured system; for a model of mteb's registry on top of what that says of it.

    Args:
        name: the system's name.
        revision: its revision.
        settings: what tells its runs apart (mteb's `experiment_kwargs`); a `dtype` is also the output format.
        metadata: fields of `ModelMeta` that are known of it.
    """
    from mteb.models.model_meta import ModelMeta
    from mteb.types import OutputDType

    formats = {"float16": OutputDType.FLOAT16, "bfloat16": OutputDType.BF16, "float32": OutputDType.FLOAT32}
    own: dict[str, Any] = {
        "loader": None,  # mteb's own loader did not make these numbers (that of ListConRanker does not run)
        "loader_kwargs": {},
        "experiment_kwargs": dict(settings),
        "revision": revision,
        "output_dtypes": formats.get(str(settings.get("dtype"))),
    }
    known = registered_model(name)
    if known is not None:
        return known.model_copy(update=own)
    unknown: dict[str, Any] = dict.fromkeys(
        (
            "n_parameters",
            "memory_usage_mb",
            "max_tokens",
            "embed_dim",
            "release_date",
            "license",
            "open_weights",
            "public_training_code",
            "public_training_data",
            "use_instructions",
            "training_datasets",
            # "custom", which is true of a reranker, is refused by mteb's own `ModelMeta.model_validate`
            "similarity_fn_name",
        )
    )
    # Of mteb's types "cross-encoder" is the one that ranks candidates.
    usual = {"name": name, "languages": ["zho-Hans"], "framework": [], "model_type": ["cross-encoder"]}
    return ModelMeta(**{**unknown, **usual, **own, **metadata})


class _FinishedScores:
    """Answers mteb's search with scores that were computed before (mteb's `SearchProtocol`)."""

    def __init__(self, scores: dict[str, dict[str, float]], meta: ModelMeta) -> None:
        self._scores = scores
        self.mteb_model_meta = meta

    def index(self, corpus: Dataset, **_: object) -> None:
        """Nothing is left to do with the corpus."""

    def search(self, queries: Dataset, **_: object) -> dict[str, dict[str, float]]:
        """The scores of every query."""
        return {query_id: self._scores[query_id] for query_id in queries["id"]}


def task_result(
    task: AbsTaskRetrieval, name: str, scores: dict[str, dict[str, float]], meta: ModelMeta, *, seconds: float
) -> TaskResult:
    """Mteb's result of finished scores.

    Args:
        task: the task, with its data.
        name: the result's name of it.
        scores: query id -> document id -> score, for every query that mteb evaluates.
        meta: who the model is.
        seconds: how long the scores took; mteb would measure how long it took to look them up.
    """
    import mteb

    result = mteb.evaluate(
        _FinishedScores(scores, meta), task, cache=None, co2_tracker=False, show_progress_bar=False, encode_kwargs={}
    ).task_results[0]
    result.task_name = name
    result.evaluation_time = seconds
    return result


def write_task_result(folder: Path, result: TaskResult, meta: ModelMeta, settings: Mapping[str, Any]) -> None:
    """Write `{Task}.json`, `model_meta.json` and `run_settings.jsonl` into a folder, as mteb's cache writes them."""
    from tempfile import TemporaryDirectory

    from mteb import ResultCache

    with TemporaryDirectory(dir=folder) as temporary:
        cache = ResultCache(Path(temporary))
        cache.save_to_cache(result, meta, encode_kwargs=settings)
        for path in cache.get_task_result_path(result.task_name, meta).parent.iterdir():
            path.replace(folder / path.name)


def experiment_name(meta: ModelMeta) -> str:
    """The name of the folder that mteb's cache keeps this experiment in."""
    return meta.experiment_name or "default"


def model_folder_name(model: str) -> str:
    """The name of the folder that mteb's cache keeps a model in."""
    return model.replace("/", "__").replace(" ", "_")
