"""Every private or version-bound name of mteb that this package uses. `tests/unit/test_mteb_compat.py` tries each.

Nothing else in the package imports a name of mteb that starts with an underscore. mteb is imported when a function is
called: it takes seconds.
"""

from __future__ import annotations

import copy
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from listcon_eval.records import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from datasets import Dataset
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.models.model_meta import ModelMeta
    from mteb.results import TaskResult
    from mteb.types.statistics import RetrievalDescriptiveStatistics

# A metric of mteb that is a mean over queries -> the name of its values in pytrec_eval's scores; MRR is mteb's own.
_PYTREC_NAMES = {
    "map": "map_cut_{}",
    "ndcg": "ndcg_cut_{}",
    "recall": "recall_{}",
    "precision": "P_{}",
    "hit_rate": "success_{}",
}
_QUERY_METRIC = re.compile(r"(map|ndcg|recall|precision|hit_rate|mrr)_at_(1|3|5|10|20|100|1000)")  # mteb's `k_values`
USUAL_METRICS = ("map_at_1000", "ndcg_at_10", "mrr_at_10", "recall_at_10")
"""The metrics that every run reports, beside its task's main score."""


def is_query_metric(name: str) -> bool:
    """Whether one of mteb's metrics is a mean over queries, as `ndcg_at_5` is and `p-MRR` is not."""
    return name == "accuracy" or _QUERY_METRIC.fullmatch(name) is not None


def retrieval_metrics(
    qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]], names: Sequence[str] = USUAL_METRICS
) -> Metrics:
    """Metrics of a run by mteb's own functions: means as in a `TaskResult` (5 digits, but for MRR), values unrounded.

    `qrels` are query id -> document id -> relevance, `run` is query id -> document id -> score.
    """
    from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores, make_score_dict, mrr
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    judged = judgements_as_taken(qrels)
    # pytrec_eval takes Python numbers alone
    results = {query_id: {doc_id: float(score) for doc_id, score in row.items()} for query_id, row in run.items()}
    found = calculate_retrieval_scores(results, judged, list(AbsTaskRetrieval.k_values))
    table = make_score_dict(
        ndcg=found.ndcg,
        _map=found.map,
        recall=found.recall,
        precision=found.precision,
        mrr=found.mrr,
        naucs={},
        naucs_mrr={},
        hit_rate=found.hit_rate,
        task_scores={},
    )
    columns = []
    for name in names:
        kind, _, depth = ("recall_at_1" if name == "accuracy" else name).partition("_at_")
        if kind == "mrr":
            columns.append(mrr(judged, results, [int(depth)])[f"MRR@{depth}"])
        else:
            columns.append([found.all_scores[query_id][_PYTREC_NAMES[kind].format(depth)] for query_id in results])
    rows = zip(*columns, strict=True)
    per_query = {query_id: dict(zip(names, row, strict=True)) for query_id, row in zip(results, rows, strict=True)}
    return Metrics({name: table[name] for name in names}, per_query)


def judgements_as_taken(qrels: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """Judgements with -1 for what is lower: pytrec_eval ends the process at a query that has only such ones."""
    return {query_id: {doc_id: max(int(value), -1) for doc_id, value in row.items()} for query_id, row in qrels.items()}


def relevant_from(qrels: Mapping[str, Mapping[str, int]], relevance: int) -> dict[str, dict[str, int]]:
    """Judgements (query id -> document id -> relevance) with 0 for what is below a threshold; with 1 as they are."""
    return {
        query_id: {doc_id: value if relevance == 1 or value >= relevance else 0 for doc_id, value in row.items()}
        for query_id, row in qrels.items()
    }


def document_texts(corpus: Dataset) -> dict[str, str]:
    """Document id -> the text that mteb hands to a model: title and text joined and stripped."""
    from mteb._create_dataloaders import _corpus_to_dict

    return {row["id"]: _corpus_to_dict(row)["text"] for row in corpus}


def query_texts(queries: Dataset) -> dict[str, str]:
    """Query id -> the text that mteb hands to a model."""
    from mteb._create_dataloaders import _retrieval_texts
    from mteb.types import PromptType

    with no_progress_bars(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the turns of a conversation, as texts, are all the user's
        return dict(zip(queries["id"], _retrieval_texts(queries, PromptType.query), strict=True))


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Switch the bars of `datasets` off, which would run through a command's output; on again only if they were on."""
    import datasets

    were_on = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if were_on:
            datasets.enable_progress_bars()


def task_names() -> dict[str, str]:
    """Every name of a task that mteb has or had, by its case-folded form.

    A public list of the names would make every task, and would leave out private and superseded ones. A name that a
    task had is that of the task it became.
    """
    from mteb.get_tasks import _TASK_RENAMES, _TASKS_REGISTRY

    return {old.casefold(): new for old, new in _TASK_RENAMES.items()} | {
        name.casefold(): name for name in _TASKS_REGISTRY
    }


def training_data_names() -> dict[str, str]:
    """Every name that mteb has for what a model was trained on, by its case-folded form: tasks, other data sets."""
    import mteb

    others = {name for meta in mteb.get_model_metas() for name in meta.training_datasets or ()}
    return {name.casefold(): name for name in sorted(others)} | task_names()


def descriptive_statistics(task: AbsTaskRetrieval, subset: str, split: str) -> RetrievalDescriptiveStatistics:
    """The statistics of a loaded task's own data.

    The public `calculate_descriptive_statistics` answers from the file that mteb ships, or overwrites it.
    """
    return task._calculate_descriptive_statistics_from_split(split, hf_subset=subset)


def reads_own_files(task: AbsTaskRetrieval) -> bool:
    """Whether a task has code of its own that reads its data set: to load it, or for a score such as p-MRR."""
    from mteb.abstasks.retrieval import AbsTaskRetrieval

    own = type(task)
    return (own.load_data, own.task_specific_scores) != (
        AbsTaskRetrieval.load_data,
        AbsTaskRetrieval.task_specific_scores,
    )


def load_task(task: AbsTaskRetrieval, folder: str, subset: str, split: str) -> None:
    """Let a task read one subset and split of its data, by its own code, from a local snapshot.

    Its metadata then names the snapshot: some scores read it again.
    """
    metadata = task.metadata
    languages = metadata.eval_langs
    task.metadata = metadata.model_copy(
        update={
            "dataset": {**metadata.dataset, "path": folder},
            "eval_langs": {subset: languages[subset]} if isinstance(languages, dict) else languages,
            "eval_splits": [split],
        }
    )
    choose_part(task, subset, split)
    task.load_data()
    task.convert_v1_dataset_format_to_v2(None)  # what a task's own loading code leaves may be mteb 1's


def choose_part(task: AbsTaskRetrieval, subset: str, split: str) -> None:
    """Let a task load and evaluate one subset and split alone."""
    task.hf_subsets = [subset]
    task.filter_eval_splits([split])


def reranking_task(
    task: AbsTaskRetrieval, subset: str, split: str, candidates: dict[str, list[str]], name: str, revision: str
) -> AbsTaskRetrieval:
    """A loaded retrieval task as the reranking of a first stage, as mteb's `convert_to_reranking` makes it.

    `candidates` are query id -> document ids, best first; mteb puts the first stage's name and revision in its result.
    """
    reranking = copy.copy(task)
    reranking.dataset = {subset: {split: {**task.dataset[subset][split], "top_ranked": candidates}}}
    reranking._previous_results_model_meta = {"model_name": name, "revision": revision}
    return reranking


def registered_model(hub_id: str | None) -> ModelMeta | None:
    """The entry of a model in mteb's registry; None when it has none."""
    if hub_id is None:
        return None
    import mteb

    try:
        return mteb.get_model_meta(hub_id, fetch_from_hf=False)
    except KeyError:
        return None


def listconranker_loop(
    rank: Callable[[Sequence[str]], Sequence[float]], queries: Sequence[str], passages: Sequence[Sequence[str]]
) -> list[list[float]]:
    """Scores of lists by mteb's search over its own wrapper of ListConRanker, with that one's faulty line mended.

    The wrapper reads `batch["text"]["text"]`, and mteb's batches of passages hold a list of texts at `batch["text"]`.
    Its model is `rank`: [query, passage_1, ..., passage_n] -> n scores. It tells lists apart by their queries, so
    neighbours differ.
    """
    import mteb
    from datasets import Dataset
    from mteb.models import SearchCrossEncoderWrapper
    from mteb.models.model_implementations.listconranker import ListConRanker

    class Mended(ListConRanker):
        mteb_model_meta = mteb.get_model_meta("ByteDance/ListConRanker", fetch_from_hf=False)

        def __init__(self) -> None:
            self.model = SimpleNamespace(multi_passage_in_iterative_inference=rank)

        def predict(self, inputs1: Any, inputs2: Any, **kwargs: Any) -> list[float]:  # noqa: ANN401 - as mteb has it
            mended: Any = ({"text": batch} for batch in inputs2)
            return super().predict(inputs1, mended, **kwargs)

    ids = [[f"{query}-{place}" for place in range(len(row))] for query, row in enumerate(passages)]
    texts = {"id": [name for row in ids for name in row], "text": [text for row in passages for text in row]}
    part: dict[str, Any] = {
        "task_metadata": mteb.get_task("CMedQAv1-reranking").metadata,
        "hf_split": "test",
        "hf_subset": "default",
    }
    wrapper: Any = Mended()
    search = SearchCrossEncoderWrapper(wrapper)
    search.index(Dataset.from_dict(texts), **part, encode_kwargs={})
    found = search.search(
        Dataset.from_dict({"id": list(map(str, range(len(queries)))), "text": list(queries)}),
        **part,
        top_k=len(texts["id"]),
        encode_kwargs={},
        top_ranked={str(query): row for query, row in enumerate(ids)},
    )
    return [[found[str(query)][name] for name in row] for query, row in enumerate(ids)]


def model_meta(name: str, revision: str, settings: Mapping[str, Any], metadata: Mapping[str, Any]) -> ModelMeta:
    """Mteb's metadata of a measured system; for a model of mteb's registry on top of what that says of it.

    `settings` tell its runs apart (mteb's `experiment_kwargs`), `metadata` are further fields of `ModelMeta`.
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
    if (known := registered_model(name)) is not None:
        return known.model_copy(update=own)
    # Of mteb's types "cross-encoder" is the one that ranks candidates.
    usual = {"name": name, "languages": ["zho-Hans"], "model_type": ["cross-encoder"]}
    return ModelMeta.create_empty({**usual, **own, **metadata})


@dataclass
class _FinishedScores:
    """Answers mteb's search with scores that were computed before (mteb's `SearchProtocol`)."""

    scores: dict[str, dict[str, float]]
    mteb_model_meta: ModelMeta

    def index(self, corpus: Dataset, **_: object) -> None:
        """Nothing is left to do with the corpus."""

    def search(self, queries: Dataset, **_: object) -> dict[str, dict[str, float]]:
        """The scores of every query."""
        return {query_id: dict(self.scores[query_id]) for query_id in queries["id"]}  # mteb may change them


def task_result(
    task: AbsTaskRetrieval,
    name: str,
    subset: str,
    split: str,
    scores: dict[str, dict[str, float]],
    meta: ModelMeta,
    *,
    seconds: float,
    relevance: int = 1,
) -> TaskResult:
    """Mteb's result of finished scores, under a task's name: query id -> document id -> score, for every judged query.

    The result has the seconds that the scores took; mteb would measure how long it took to look them up. With a
    threshold of relevance it is put together of two: mteb takes any judgement above 0 for relevant, and only its nDCG
    is to know the others.
    """
    import mteb

    choose_part(task, subset, split)
    data = task.dataset[subset][split]

    def evaluated(judged: Mapping[str, Mapping[str, int]]) -> TaskResult:
        part, model = copy.copy(task), _FinishedScores(scores, meta)
        part.dataset = {subset: {split: {**data, "relevant_docs": judgements_as_taken(judged)}}}
        return mteb.evaluate(
            model, part, cache=None, co2_tracker=False, show_progress_bar=False, encode_kwargs={}
        ).task_results[0]

    result = evaluated(data["relevant_docs"])
    if relevance > 1:
        ndcg = {metric: value for metric, value in result.scores[split][0].items() if "ndcg" in metric}
        result = evaluated(relevant_from(data["relevant_docs"], relevance))
        row: Any = result.scores[split][0]
        row.update(ndcg)
        row["main_score"] = row[task.metadata.main_score]
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
