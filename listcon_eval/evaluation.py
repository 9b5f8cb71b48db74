"""The main job as one straight line: load the tasks, resolve the model, rank, measure, write."""

import datetime
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import InstanceOf

from listcon_eval import mteb_compat
from listcon_eval.arguments import checked
from listcon_eval.data import Task, as_tasks
from listcon_eval.data.tasks import hash_of_documents
from listcon_eval.data.trec import write_trec_qrels, write_trec_run
from listcon_eval.errors import ListconError, first_line_with_class
from listcon_eval.files import check_writable, write_json, write_text
from listcon_eval.metrics import cmteb
from listcon_eval.metrics import ir_measures as named
from listcon_eval.metrics import mteb as mteb_protocol
from listcon_eval.progress import PHASES, Phases, Progress, RunProgress, no_progress
from listcon_eval.records import NOT_RETRIEVED, POINTWISE, CandidateList, Metrics, RankedList
from listcon_eval.results import QueryRow, RankedQuery, Result, Results, Signature, results_folder
from listcon_eval.results import environment as env
from listcon_eval.results.chunk_cache import ChunkCache, run_lock
from listcon_eval.results.records import (
    METRICS,
    PER_QUERY,
    PROVENANCE,
    RUN,
    TREC_QRELS,
    TREC_RUN,
    DataRecord,
    FirstStageRecord,
    ModelRecord,
    Provenance,
    Record,
)
from listcon_eval.results.store import failures_folder, is_finished, key_of, load_result, run_written
from listcon_eval.systems.base import (
    LoadOptions,
    RankContext,
    Ranking,
    System,
    check_options,
    load_system,
    system_class,
)
from listcon_eval.systems.baselines import Oracle
from listcon_eval.systems.resolve import ModelSpec, resolve_model
from listcon_eval.systems.runs import FirstStageSystem
from listcon_eval.workers import RayWorkers, needs_workers

if TYPE_CHECKING:
    import torch

_KEY_DIGITS = 8  # of a run's key in the name of its folder
_LONGEST_NAME = 240  # bytes of the 255 that a file system gives a name: folders are written aside, under a longer one


@dataclass(frozen=True)
class Evaluation:
    """The outcome of an evaluation.

    Attributes:
        results: the numbers, one result per task and mode.
        failures: with `keep_going`: what was wrong with queries that could not be ranked, by the folder where it is
            written down. Their task and mode has no result.
    """

    results: Results
    failures: dict[Path, dict[str, str]]


class _Run(NamedTuple):
    """One task and mode of one system, and where its result goes."""

    task: Task
    system: System
    mode: str
    key: str
    folder: Path
    meta: Any
    metrics: tuple[str, ...]  # beside those of the two protocols

    def __str__(self) -> str:
        how = "each passage without the others" if self.mode == POINTWISE else f"{self.mode} inference"
        return f"{self.task.name}, {how}"


@checked
def evaluate(
    model: str | Path | InstanceOf[ModelSpec] | InstanceOf[System],
    tasks: Sequence[InstanceOf[Task] | str] | Mapping[str, Any] | Path | str = "official",
    *,
    modes: Sequence[str] | None = None,
    output: str | Path = "results",
    options: InstanceOf[LoadOptions] | None = None,
    metrics: str | Sequence[str] = (),
    relevance: int = 1,
    limit: int | None = None,
    fresh: bool = False,
    keep_going: bool = False,
    progress: RunProgress = no_progress,
    announce: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Evaluate a system on tasks in its modes, and write every result as soon as it is there.

    An interrupted evaluation resumes: finished runs are read, finished chunks are loaded. Where a task's candidates
    come from a first stage, its own order and the oracle's, the most that reordering can reach, are measured as well.

    Args:
        model: a model's folder or hub id, a TREC run file, the name of a baseline; what `resolve_model` made of one; or
            a loaded system, such as one of a class of your own.
        tasks: tasks and names of tasks, or names separated by commas; a file, or the `Path` of a folder, with local
            data; or name -> local data, which is a path, a DataFrame or rows with `query`, `positive`, `negative`
            (lists of texts) and, optionally, `query_id`.
        modes: the inference modes, which share one encoding of a task's texts; all that the system has when None.
        output: the folder for results: one named `results`, or the one to make it in.
        options: how the model is loaded; None for a loaded system.
        metrics: what to measure beside the two protocols, by names of ir_measures such as `nDCG@10`.
        relevance: the judgement from which on a document is relevant: under another name (`Task.variant`).
        limit: for a trial, how many of each task's first queries to take: under another name, too.
        fresh: whether to compute anew what was finished before.
        keep_going: whether a query that cannot be ranked is written down and passed over, instead of ending the run.
        progress: told what is done at the moment, and the share of the whole evaluation that is done.
        announce: told in words what starts.

    Raises:
        ListconError: when the model or a task's data cannot be found or loaded, the system does not have the modes,
            the output cannot be written to, another process works on the same run, a finished run's file was changed,
            or ranking fails.
    """
    output = Path(output).expanduser()
    check_writable(output)
    if isinstance(model, System) and options is not None:
        raise ListconError(f"{model.name} is loaded already, and options for loading it were given: leave one out")
    source = resolve_model(model) if isinstance(model, str | Path) else model
    load = options or LoadOptions()
    if isinstance(source, ModelSpec):
        check_options(source, load)  # before anything is loaded
    device = None if load.workers == 1 else worker_device(load.workers, load.device)
    chosen, wanted = _modes(source, modes), tuple(named.metric_names(metrics, relevance))
    loaded = as_tasks(tasks)
    measured = []
    for task in loaded:  # all of them before the long work: a missing one should not show at the end
        announce(f"loading {task.name} ({task.location})")
        task.load()
        measured.append(task.variant(limit=limit, relevance=relevance))
    lists = [task.candidate_lists() for task in measured]
    if isinstance(source, System):
        system = source
    else:
        announce(f"loading the model {source.given}")
        system = load_system(source, load)
    for task, own in zip(measured, lists, strict=True):
        if (failures := system.unrankable(own, task.name)) and not keep_going:
            raise ListconError(next(iter(failures.values())))
    work = [system.work(own) for own in lists]
    evaluation = Evaluation(Results(), {})
    with _workers_of(system, source, load, device) as workers:
        for number, (task, own) in enumerate(zip(measured, lists, strict=True)):
            runs = [_run_of(task, system, mode, output, wanted) for mode in chosen]
            cache_folder = runs[0].folder.parents[1]
            with run_lock(cache_folder, task.name, ranking_key(task, system), fresh=fresh) as cache:
                for place, run in enumerate(runs):
                    if not fresh and is_finished(run.folder, task.name, run.key):
                        announce(f"{run}: finished before, in {run.folder}")
                        evaluation.results.append(load_result(run.folder, task.name))
                        continue
                    where = f"on {system.device}" if system.device else None
                    announce(", ".join(filter(None, (str(run), system.dtype, where))))
                    phases = Phases()
                    context = RankContext(
                        task=task.mteb_task.metadata,
                        split=task.split,
                        subset=task.subset,
                        progress=_run_progress(progress, str(run), work, number, place, len(runs)),
                        phases=phases,
                        cache=cache,
                        workers=workers,
                        keep_going=keep_going,
                    )
                    ranking = system.rank(own, run.mode, context)
                    if workers is not None and workers.count:
                        ranking = ranking._replace(observed={**ranking.observed, "workers": workers.count})
                    if ranking.failures:
                        evaluation.failures[_write_failures(run, own, ranking)] = ranking.failures
                    else:
                        evaluation.results.append(_measure_and_write(run, own, ranking, phases, cache))
            if task.first_stage is not None and not isinstance(system, FirstStageSystem):
                # After the system the oracle, and after the oracle the first stage.
                bound = FirstStageSystem(task.first_stage) if isinstance(system, Oracle) else Oracle()
                also = ", and the oracle's" if isinstance(bound, Oracle) else ""
                announce(f"{task.name}: the first stage's own order{also}")
                reached = evaluate(bound, [task], metrics=wanted, output=output, fresh=fresh)
                evaluation.results.extend(reached.results)
    return evaluation


def _modes(source: ModelSpec | System, modes: Sequence[str] | None) -> Sequence[str]:
    """The modes that were asked for, of those that the kind has."""
    known = source.modes if isinstance(source, System) else system_class(source.kind).modes
    if modes is None or list(modes) == list(known):
        return known
    if POINTWISE in known:
        name = source.name if isinstance(source, System) else source.given
        raise ListconError(
            f"{name} is of the kind {source.kind}, which scores each passage without the others and has no "
            f"inference modes, and {' and '.join(modes)} was asked for: leave the mode out"
        )
    if not modes or set(modes) - set(known):
        raise ListconError(f"modes {modes!r}: expected a list of one or more of {', '.join(known)}")
    return modes


def _run_progress(report: RunProgress, name: str, work: Sequence[int], task: int, place: int, runs: int) -> Progress:
    """The progress of a run, the one at a place among the runs of a task, as the share of all tasks' work."""

    def progress(phase: str, done: int, total: int) -> None:
        # Ranking lists comes last, once per mode, and is quick beside encoding or scoring their texts.
        part = 0.9 + 0.1 * (place + done / total) / runs if phase == "list" else 0.9 * done / total
        report(f"{name}: {PHASES.get(phase, phase)}", (sum(work[:task]) + part * work[task]) / sum(work))

    return progress


def ranking_key(task: Task, system: System) -> str:
    """The key of everything that changes a score, but for the mode: both modes share their features."""
    return key_of(_ranking_parts(task, system))


def run_key(task: Task, system: System, mode: str, metrics: Sequence[str] = ()) -> str:
    """The key of everything that changes a number of a run: what changes a score, the mode, and what measures."""
    return key_of(
        {
            **_ranking_parts(task, system),
            "mode": mode,
            "metrics": sorted(metrics),
            "measuring": {name: env.package_versions()[name] for name in env.measuring_packages(metrics)},
        }
    )


def _ranking_parts(task: Task, system: System) -> dict[str, Any]:
    return {
        **_system_parts(system),
        "task": task.name,
        "limit": task.limit,  # other data may have the name that a trial has
        "relevance": task.relevance,
        "subset": task.subset,
        "split": task.split,
        "data": task.content or task.revision,
    }


def _system_parts(system: System) -> dict[str, Any]:
    versions = env.package_versions()
    return {
        "kind": system.kind,
        "model": f"{system.name}@{system.revision}",
        "system": dict(system.key()),
        "settings": dict(system.settings()),
        "dtype": system.dtype,
        "device": system.device and system.device.partition(":")[0],
        # A tokenizer's library decides what a model reads; a signature names what stands above it.
        "versions": {name: versions[name] for name in ("mteb", "tokenizers", *system.packages)},
        "code": env.code_hashes(),
    }


def _identity(system: System) -> dict[str, Any]:
    """What has to be the same for two processes to compute the same bytes."""
    return {**_system_parts(system), "hardware": _device_name(system)}


def worker_device(workers: int | str, name: str | None) -> "torch.device | None":
    """The device of whose kind each worker has one; None where this process computes.

    Raises:
        ListconError: as `needs_workers`, or the name is of one device where there are to be several.
    """
    from listcon_eval.inference.devices import choose_device, device_count  # it imports torch

    device = choose_device(name)
    if workers != 1 and str(device) != device.type:
        raise ListconError(f"--device {device} is one device, and each worker has one of its own: give {device.type}")
    return device if needs_workers(workers, device.type, device_count(device)) else None


def _workers_of(
    system: System, source: ModelSpec | System, options: LoadOptions, device: "torch.device | None"
) -> AbstractContextManager[RayWorkers | None]:
    """Workers that have the system loaded as this process has, each on a device of its own; None without a device."""
    if device is None or isinstance(source, System):
        return nullcontext()
    import torch

    from listcon_eval.inference.chunks import texts_of
    from listcon_eval.inference.devices import device_count

    own = replace(options, device=device.type, workers=1)
    make = partial(_loaded_as, _identity(system), source, own, torch.get_num_threads())
    return RayWorkers(options.workers, make, device=device.type, devices=device_count(device), texts_of=texts_of)


def _loaded_as(same: Mapping[str, Any], spec: ModelSpec, options: LoadOptions, threads: int) -> System:
    """Load a system in a worker's process.

    Raises:
        ListconError: it is not the same as that of the process which started the worker: its scores would be others.
    """
    import torch

    torch.set_num_threads(threads)  # a CPU's batches, and how their sums round, follow from their number
    system = load_system(spec, options)
    own = _identity(system)
    if other := [name for name in same if own[name] != same[name]]:
        first = other[0]
        raise ListconError(
            f"a worker on {platform.node()} has another {' and '.join(other)} than this process ({first}: "
            f"{own[first]}, here {same[first]}): give all machines the same hardware, files and versions"
        )
    return system


def _run_of(task: Task, system: System, mode: str, output: Path, metrics: tuple[str, ...]) -> _Run:
    meta = mteb_compat.model_meta(system.name, system.revision, system.run_settings(mode), system.model_metadata())
    key = run_key(task, system, mode, metrics)
    name = f"{mteb_compat.experiment_name(meta)}__{task.name}__{key[:_KEY_DIGITS]}"
    model_folder = results_folder(output) / mteb_compat.model_folder_name(system.name) / system.revision
    if too_long := [part for part in (*model_folder.parts[-2:], name) if len(part.encode()) > _LONGEST_NAME]:
        raise ListconError(
            f"{system.name}: the folder of its result would have a name of {len(too_long[0].encode())} bytes "
            f"({too_long[0][:60]}...), and file systems take {_LONGEST_NAME}: give a shorter name, revision or settings"
        )
    return _Run(task, system, mode, key, model_folder / "experiments" / name, meta, metrics)


def _measure_and_write(
    run: _Run, lists: Sequence[CandidateList], ranking: Ranking, phases: Phases, cache: ChunkCache
) -> Result:
    """Measure a ranking in both protocols and write the run's folder."""
    task, judged = run.task, run.task.qrels()
    ranked = _as_measured(task, lists, ranking.lists)
    seconds = sum(phases.seconds.values())
    with phases.measured("measure"):
        # The card's protocol is defined on given lists: where a first stage missed something, it says nothing.
        card = cmteb.evaluate(lists, ranked, run.mode) if task.first_stage is None else Metrics({}, {})
        scores = mteb_protocol.run_of(lists, ranked)
        leaderboard = mteb_protocol.evaluate(judged, scores, task.main_score, task.relevance)
        others = named.evaluate(run.metrics, judged, scores, task.relevance) if run.metrics else Metrics({}, {})
        name = task.mteb_task.metadata.name if task.whole is None else task.name
        try:
            task_result = mteb_compat.task_result(
                task.mteb_task,
                name,
                task.subset,
                task.split,
                scores,
                run.meta,
                seconds=seconds,
                relevance=task.relevance,
            )
        except (ValueError, KeyError) as error:
            if task.limit is None:
                raise
            raise ListconError(  # such as p-MRR, which needs both queries of a pair
                f"mteb's measures of {task.name} cannot be taken of its first {task.limit} queries "
                f"({first_line_with_class(error)}): give a larger --limit"
            ) from error
    (reported,) = task_result.scores[task.split]
    for name, mean in leaderboard.means.items():
        if abs(reported[name] - mean) > 1e-5:  # mteb rounds to five digits
            raise ListconError(
                f"{task.name}: mteb reports {name} {reported[name]}, its per-query values average to {mean}: a fault "
                "of this package or of mteb; report it"
            )
    result = _result_of(run, lists, card, leaderboard, others, float(reported["main_score"]))
    provenance = _provenance_of(run, lists, result, ranking, phases, cache)
    with run_written(run.folder, task.name, run.key) as folder:
        mteb_compat.write_task_result(folder, task_result, run.meta, result.settings)
        own = folder / task.name
        _write_rows(own / RUN, [_ranked_query(*row, run.mode) for row in zip(lists, ranked, strict=True)])
        _write_rows(own / PER_QUERY, [_query_row(row, card, leaderboard, others) for row in lists])
        tag = re.sub(r"\s", "-", f"{result.model}-{result.mode}")
        write_trec_run(own / TREC_RUN, scores, tag)
        write_trec_qrels(own / TREC_QRELS, judged)
        write_json(own / PROVENANCE, provenance.model_dump(mode="json"))
        write_json(own / METRICS, result.model_dump(mode="json"))
    return result


def _as_measured(task: Task, lists: Sequence[CandidateList], ranked: Sequence[RankedList]) -> Sequence[RankedList]:
    """Rankings without the documents that mteb leaves out of some tasks: those with the id of their query."""
    if not task.mteb_task.ignore_identical_ids:
        return ranked
    return [
        own._replace(
            scores=tuple(
                NOT_RETRIEVED if doc_id == row.query_id else score
                for doc_id, score in zip(row.doc_ids, own.scores, strict=True)
            )
        )
        for row, own in zip(lists, ranked, strict=True)
    ]


def _result_of(
    run: _Run, lists: Sequence[CandidateList], card: Metrics, leaderboard: Metrics, others: Metrics, main_score: float
) -> Result:
    task, system = run.task, run.system
    settings = {**system.run_settings(run.mode), **system.settings()}
    versions, measuring = env.package_versions(), env.measuring_packages(run.metrics)
    signature = Signature(
        task=task.name,
        data_revision=task.revision,
        limit=task.limit,
        relevance=None if task.relevance == 1 else task.relevance,
        model=system.name,
        model_revision=system.revision,
        settings=settings,
        ties=env.TIES,
        versions={name: versions[name] for name in dict.fromkeys((*measuring, *system.packages))},
        device=_device_name(system),
    )
    return Result(
        folder=run.folder,
        task=task.name,
        is_official=task.is_official,
        kind=system.kind,
        model=system.name,
        model_revision=system.revision,
        data_revision=task.revision,
        settings=settings,
        queries=len(lists),
        dropped=len(card.dropped),
        cmteb=card.means,
        mteb=leaderboard.means,
        main_score=task.main_score,
        task_scores={} if task.main_score in leaderboard.means else {task.main_score: main_score},
        max_relevance=max(value for judged in task.qrels().values() for value in judged.values()),
        first_stage=_first_stage_of(task),
        ir_measures=others.means,
        ranges=dict(card.ranges),
        signature=signature,
        finished=_now(),
    )


def _first_stage_of(task: Task) -> FirstStageRecord | None:
    if task.first_stage is None:
        return None
    name, revision, top_k, run = task.first_stage
    shares = []
    for query_id, judged in task.qrels().items():
        relevant = {doc_id for doc_id, value in judged.items() if value >= task.relevance}
        shares.append(len(relevant & run.get(query_id, {}).keys()) / max(1, len(relevant)))
    return FirstStageRecord(name=name, revision=revision, top_k=top_k, recall=sum(shares) / len(shares))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _device_name(system: System) -> str:
    return "none" if system.device is None else env.device_name(system.device)


def _provenance_of(
    run: _Run,
    lists: Sequence[CandidateList],
    result: Result,
    ranking: Ranking,
    phases: Phases,
    cache: ChunkCache,
) -> Provenance:
    task, system = run.task.whole or run.task, run.system
    texts = {doc_id: text for row in lists for doc_id, text in zip(row.doc_ids, row.passages, strict=True)}
    seconds = {"load": system.load_seconds, **phases.seconds}
    return Provenance(
        signature=result.signature,
        finished=result.finished,
        model=ModelRecord(kind=system.kind, name=system.name, revision=system.revision, **dict(system.provenance())),
        data=DataRecord(
            task=task.name,
            subset=task.subset,
            split=task.split,
            revision=task.revision,
            content=task.content,
            texts=None if task.first_stage is None else hash_of_documents(texts),
            source=task.source,
            location=task.location,
            is_official=task.is_official,
            license=task.mteb_task.metadata.license,
            citation=task.mteb_task.metadata.bibtex_citation,
        ),
        settings=result.settings,
        metrics=run.metrics,
        ties=env.TIE_RULES,
        observed={**ranking.observed, **_instructions(run)},
        versions=env.package_versions(),
        device=result.signature.device,
        git=env.git_state(),
        resumed_chunks=cache.reused,
        seconds={phase: round(spent, 3) for phase, spent in seconds.items()},
    )


def _instructions(run: _Run) -> dict[str, str]:
    """What became of the instructions that queries came with, if they did."""
    if not run.task.has_instructions:
        return {}
    read = "part of the query's text, as mteb hands it to a model"
    return {"instructions": read if run.system.reads_texts else "ignored: the system reads no texts"}


def _ranked_query(row: CandidateList, ranked: RankedList, mode: str) -> RankedQuery:
    return RankedQuery(
        query_id=row.query_id,
        query=row.query,
        doc_ids=row.doc_ids,
        scores=tuple(None if score == NOT_RETRIEVED else score for score in ranked.scores),
        rounds=ranked.rounds,
        relevance=row.relevance,
        cmteb_relevant=tuple(cmteb.labels(row, mode)),
    )


def _query_row(row: CandidateList, card: Metrics, leaderboard: Metrics, others: Metrics) -> QueryRow:
    return QueryRow(
        query_id=row.query_id,
        candidates=len(row.doc_ids),
        relevant=sum(value > 0 for value in row.relevance),
        cmteb=card.per_query.get(row.query_id),
        mteb=leaderboard.per_query[row.query_id],
        ir_measures=others.per_query.get(row.query_id, {}),
    )


def _write_rows(path: Path, rows: Sequence[Record]) -> None:
    write_text(path, "".join(f"{row.model_dump_json()}\n" for row in rows))


def _write_failures(run: _Run, lists: Sequence[CandidateList], ranking: Ranking) -> Path:
    """Write down which queries could not be ranked, and the scores of the others; there are no metrics."""
    folder = failures_folder(run.folder)
    write_json(folder / "failures.json", ranking.failures)
    ranked = [
        _ranked_query(row, own, run.mode)
        for row, own in zip(lists, ranking.lists, strict=True)
        if row.query_id not in ranking.failures
    ]
    _write_rows(folder / RUN, ranked)
    return folder
