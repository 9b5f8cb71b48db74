"""Write what one evaluation gave: mteb's files through mteb's own cache, and this package's beside them."""

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from listcon_eval.files import write_json, write_jsonl, write_text
from listcon_eval.records import CandidateList, ScoredList
from listcon_eval.results.layout import (
    METRICS,
    PER_QUERY,
    PROVENANCE,
    RUN,
    TREC_QRELS,
    TREC_RUN,
    RunRecord,
    results_folder,
)
from listcon_eval.results.manifest import write_manifest

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta
    from mteb.results import TaskResult


def run_folder(output: Path, meta: "ModelMeta", task: str) -> Path:
    """The folder of this package's files of a run: beside mteb's JSON, and named as it."""
    from mteb import ResultCache

    path: Path = ResultCache(results_folder(output).parent).get_task_result_path(task, meta)
    return path.with_name(path.name.removesuffix(".json"))


def clear_leftovers(folder: Path) -> None:
    """Remove what a killed process was writing when it died: the temporary files of a run's folder."""
    for path in folder.glob(".*"):
        path.unlink()
    for path in folder.parent.glob(f".{folder.name}.writing-*"):
        shutil.rmtree(path)


def write_mteb_result(output: Path, result: "TaskResult", meta: "ModelMeta", settings: Mapping[str, Any]) -> Path:
    """Write mteb's files of a result in its cache's layout and return the path of its JSON.

    mteb writes in place; here it writes to a folder aside, from which whole files are moved.
    """
    from mteb import ResultCache

    folder = run_folder(output, meta, result.task_name)
    target = folder.with_name(f"{folder.name}.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{folder.name}.writing-") as temporary:
        cache = ResultCache(Path(temporary))
        staged = cache.get_task_result_path(result.task_name, meta).parent
        staged.mkdir(parents=True)
        known = target.parent / "run_settings.jsonl"
        if known.exists():
            shutil.copy(known, staged)  # mteb adds its rows to those of the other tasks
        cache.save_to_cache(result, meta, encode_kwargs=settings)
        for path in staged.iterdir():
            path.replace(target.parent / path.name)
    return target


def write_run(
    record: RunRecord,
    *,
    lists: Sequence[CandidateList],
    scored: Sequence[ScoredList],
    labels: Sequence[Sequence[bool]],
    per_query: Mapping[str, Mapping[str, Mapping[str, float]]],
    qrels: Mapping[str, Mapping[str, int]],
    provenance: Mapping[str, Any],
    key: str,
) -> Path:
    """Write this package's files of a run and return their folder; the manifest, which seals them, comes last.

    Args:
        record: the means, with the folder to write to.
        lists: the candidate lists, one a query.
        scored: their scores, in the same order.
        labels: the labels of the cmteb protocol, one a candidate.
        per_query: query id -> protocol -> metric -> value.
        qrels: the task's judgements, of candidates and of other documents.
        provenance: what `provenance.json` holds.
        key: the key of everything that the run depends on.
    """
    folder = record.folder
    tag = re.sub(r"\s", "-", f"{record.model}-{record.mode}")
    write_jsonl(folder / RUN, map(_run_row, lists, scored, labels))
    write_text(folder / TREC_RUN, "".join(_trec_run(scored, tag)))
    write_text(folder / TREC_QRELS, "".join(_trec_qrels(qrels)))
    write_jsonl(
        folder / PER_QUERY,
        (
            {
                "query_id": row.query_id,
                "candidates": len(row.doc_ids),
                "relevant": sum(value > 0 for value in row.relevance),
                **per_query[row.query_id],
            }
            for row in lists
        ),
    )
    write_json(folder / PROVENANCE, provenance)
    write_json(folder / METRICS, record.to_json())
    write_manifest(folder, key)
    shutil.rmtree(_failed(folder), ignore_errors=True)  # of an earlier start
    return folder


def write_failures(folder: Path, failures: Mapping[str, str], scored: Sequence[ScoredList]) -> Path:
    """Write down which queries of a run could not be ranked, and the scores of the others; there are no metrics.

    Args:
        folder: the run's folder; the files go beside it, to the same name with `.failed`.
        failures: what was wrong, by query id.
        scored: the lists that were ranked.

    Returns:
        The folder of the files.
    """
    failed = _failed(folder)
    write_json(failed / "failures.json", failures)
    write_jsonl(failed / RUN, (row._asdict() for row in scored))
    return failed


def _failed(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.failed")


def _run_row(row: CandidateList, scored: ScoredList, labels: Sequence[bool]) -> dict[str, Any]:
    return {
        "query_id": row.query_id,
        "query": row.query,
        "doc_ids": row.doc_ids,
        "scores": scored.scores,
        "rounds": scored.rounds,
        "relevance": row.relevance,
        "cmteb_relevant": [int(label) for label in labels],
    }


def _trec_run(scored: Iterable[ScoredList], tag: str) -> Iterator[str]:
    """Lines `query Q0 document rank score tag`, best first, ties in candidate order."""
    for row in scored:
        pairs = dict(zip(row.doc_ids, row.scores, strict=True))  # a document that is listed twice has one line
        ranked = sorted(pairs.items(), key=lambda pair: -pair[1])
        for rank, (doc_id, score) in enumerate(ranked, start=1):
            yield f"{_word(row.query_id)} Q0 {_word(doc_id)} {rank} {score!r} {tag}\n"


def _trec_qrels(qrels: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Lines `query 0 document relevance`."""
    for query_id, judged in qrels.items():
        for doc_id, relevance in judged.items():
            yield f"{_word(query_id)} 0 {_word(doc_id)} {relevance}\n"


def _word(identifier: str) -> str:
    """An id as one word: TREC files are cut at white space, so that is percent-encoded."""
    return re.sub(r"\s", lambda match: quote(match[0]), identifier)
