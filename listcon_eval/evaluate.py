"""The main job, whole: a system and tasks go in; scores, result files and records for the tables come out.

Both reproduction scripts and `listcon-eval run` call `evaluate`.
"""

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from listcon_eval import results as runs
from listcon_eval.data import Task
from listcon_eval.errors import ListconError
from listcon_eval.files import check_writable
from listcon_eval.progress import Phases, Progress, no_progress
from listcon_eval.records import NO_PRECISION, POINTWISE, CandidateList, Mode, Precision, ScoredList
from listcon_eval.results import RunRecord

if TYPE_CHECKING:
    from listcon_eval.mteb_adapter import SystemSearch


@dataclass(frozen=True)
class Request:
    """What to evaluate.

    Attributes:
        model: a model's folder or hub id, a TREC run file, or the name of a kind that needs neither.
        tasks: the tasks, loaded or not.
        modes: the inference modes, several of which share one encoding of a task's texts; all that the system has
            when None, and nothing else for one that scores each passage without the others.
        output: the folder for results: one named `results`, or the one to make it in.
        kind: the kind of system; found out when None.
        revision: the hub revision of the model.
        device: the device; the best there is when None.
        precision: "published", "precise" or "bfloat16".
        max_length: tokens a text is cut to; 512 for ListConRanker and any other model's own when None.
        fresh: whether to compute anew what earlier starts have finished.
        keep_going: whether a query that cannot be ranked is written down and passed over, instead of ending the run.
        memory: bytes of host memory to stay within; no bound when None.
        device_memory: the same for an accelerator's own memory.
    """

    model: str
    tasks: Sequence[Task]
    modes: Sequence[Mode] | None
    output: Path
    kind: str | None = None
    revision: str | None = None
    device: str | None = None
    precision: Precision = "published"
    max_length: int | None = None
    fresh: bool = False
    keep_going: bool = False
    memory: int | None = None
    device_memory: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What an evaluation came to.

    Attributes:
        records: the numbers, one record a task and mode.
        failures: with `keep_going`: what was wrong with queries that could not be ranked, by the folder where it is
            written down. Their task and mode has no record.
    """

    records: list[RunRecord]
    failures: dict[Path, dict[str, str]]


def evaluate(
    request: Request,
    *,
    progress: Progress = no_progress,
    announce: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Evaluate a system on tasks in its modes, and write every result as soon as it is there.

    A start that was cut off is gone on with: finished tasks are read, finished chunks are loaded.

    Args:
        request: what to evaluate.
        progress: told of texts encoded, pairs scored and passages ranked.
        announce: told in words what starts.

    Raises:
        ListconError: when it is not clear what the model is, it or a task's data cannot be loaded, it does not have
            the modes, the output cannot be written to, another process is at work on the same run, a finished run's
            file is not as it was written, or scoring fails.
    """
    from listcon_eval.mteb_adapter import SystemSearch
    from listcon_eval.systems.detection import identify
    from listcon_eval.systems.registry import load_system, system_class
    from listcon_eval.systems.system import Options

    check_writable(request.output)
    found = identify(request.model, request.kind, request.revision)
    kind = system_class(found.kind)
    modes = _modes(request, found.kind, kind.modes)
    if not kind.keeps_budgets and (request.memory, request.device_memory) != (None, None):
        raise ListconError(
            f"{request.model} is of the kind {found.kind}, which keeps to no memory budget: leave the budget out"
        )
    for task in request.tasks:  # all of them before the long work: a missing one should not show at the end
        announce(f"loading {task.name} from {task.location}")
        task.load()
    announce(f"loading the model {request.model}")
    system = load_system(
        found,
        Options(request.device, request.precision, request.max_length, request.memory, request.device_memory),
    )
    search = SystemSearch(system, progress=progress)
    search.keep_going = request.keep_going
    outcome = Outcome([], {})
    for task in request.tasks:
        search.judgements = task.qrels()
        _evaluate_task(task, search, modes, request, outcome, announce)
    return outcome


def _modes(request: Request, kind: str, modes: Sequence[str]) -> Sequence[str]:
    """The modes that were asked for, of those that the kind has."""
    if request.modes is None:
        return modes
    if POINTWISE in modes:
        raise ListconError(
            f"{request.model} is of the kind {kind}, which scores each passage without the others and has no inference "
            f"modes, and {' and '.join(request.modes)} was asked for: leave --mode out"
        )
    return request.modes


def _evaluate_task(
    task: Task,
    search: "SystemSearch",
    modes: Sequence[str],
    request: Request,
    outcome: Outcome,
    announce: Callable[[str], None],
) -> None:
    """Run the modes of one task that are not finished yet, and add all of them to the outcome."""
    from listcon_eval.mteb_adapter import QueriesFailedError

    key = _key_of(task, search)
    folders = {}
    for mode in modes:
        search.mode = mode
        folders[mode] = runs.run_folder(request.output, search.mteb_model_meta, task.name)
    revision_folder = next(iter(folders.values())).parents[2]
    with runs.at_work(revision_folder, task.name, key, fresh=request.fresh) as work:
        search.journal = work
        for mode, folder in folders.items():
            if not request.fresh and runs.is_finished(folder, key):
                announce(f"{task.name}, {_in_words(mode)}: finished before, in {folder}")
                outcome.records.append(runs.read_run(folder))
                continue
            announce(", ".join([task.name, _in_words(mode), *_how(search)]))
            search.mode = mode
            runs.clear_leftovers(folder)
            try:
                outcome.records.append(_run(task, search, folder, request.output, key, work))
            except QueriesFailedError as error:
                failed = runs.write_failures(folder, error.failures, error.scored)
                outcome.failures[failed] = error.failures


def _in_words(mode: str) -> str:
    return "each passage without the others" if mode == POINTWISE else f"{mode} inference"


def _how(search: "SystemSearch") -> list[str]:
    system = search.system
    precision = [] if system.precision == NO_PRECISION else [f"precision {system.precision}"]
    return precision + ([] if system.device is None else [f"on {system.device}"])


def _key_of(task: Task, search: "SystemSearch") -> str:
    """The key of everything that changes the answer on a task, the mode apart: both modes share their features."""
    system = search.system
    versions = runs.package_versions()
    return runs.run_key(
        {
            "kind": system.kind,
            "model": f"{system.name}@{system.revision}",
            "system": system.key(),
            "task": task.name,
            "data": task.content or task.revision,
            "precision": system.precision,
            # A tokenizer's library decides what a model reads; a signature names what stands above it.
            "versions": {name: versions[name] for name in ("mteb", "tokenizers", *system.packages)},
        }
    )


def _run(task: Task, search: "SystemSearch", folder: Path, output: Path, key: str, work: runs.Work) -> RunRecord:
    """Run one task in one mode through mteb, measure it in both protocols, and write the files."""
    import mteb

    from listcon_eval.metrics import cmteb, mteb_protocol

    system = search.system
    phases: Phases = system.phases
    before = dict(phases.seconds)
    mode = search.mode
    labelled_as: Mode = "iterative" if mode == "iterative" else "conventional"
    meta = search.mteb_model_meta
    result = mteb.evaluate(
        search, task.mteb_task, cache=None, co2_tracker=False, show_progress_bar=False, encode_kwargs={}
    ).task_results[0]

    with phases.measured("measure"):
        lists = task.candidate_lists()
        scored = [_in_order_of(row, entry) for row, entry in zip(lists, search.scored, strict=True)]
        card = cmteb.evaluate(lists, scored, labelled_as)
        leaderboard = mteb_protocol.evaluate(task.qrels(), mteb_protocol.run_of(scored))
    reported = result.scores[task.split][0]["map_at_1000"]
    if abs(reported - leaderboard.means["map_at_1000"]) > 1e-5:  # mteb rounds to five digits
        raise ListconError(
            f"{task.name}: mteb reports map_at_1000 {reported}, its per-query values average to "
            f"{leaderboard.means['map_at_1000']}: a fault of this package or of mteb {mteb.__version__}; report it"
        )

    settings = {**dict(meta.experiment_kwargs or {}), **system.settings()}
    device = runs.device_name(system.device) if system.device is not None else "none"
    record = RunRecord(
        folder=folder,
        task=task.name,
        is_official=task.is_official,
        model=str(meta.name),
        model_revision=str(meta.revision),
        mode=mode,
        precision=system.precision,
        queries=len(lists),
        cmteb=card.means,
        mteb=leaderboard.means,
        signature=runs.signature(
            task=task.name,
            data_revision=task.revision,
            model=str(meta.name),
            model_revision=str(meta.revision),
            settings=settings,
            packages=system.packages,
            device=device,
        ),
        kind=system.kind,
    )
    measured = (*system.phase_names, "measure")
    seconds = {phase: phases.seconds.get(phase, 0.0) - before.get(phase, 0.0) for phase in measured}
    told = system.provenance()
    runs.write_mteb_result(output, result, meta, settings)
    runs.write_run(
        record,
        key=key,
        lists=lists,
        scored=scored,
        labels=[cmteb.labels(row, labelled_as) for row in lists],
        per_query={
            row.query_id: {"cmteb": card.per_query[row.query_id], "mteb": leaderboard.per_query[row.query_id]}
            for row in lists
        },
        qrels=task.qrels(),
        provenance={
            "signature": record.signature,
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            **told,
            "model": {"kind": system.kind, "name": meta.name, "revision": meta.revision, **told.get("model", {})},
            "data": {
                "task": task.name,
                "split": task.split,
                "revision": task.revision,
                "content": task.content,
                "source": task.source,
                "location": task.location,
                "is_official": task.is_official,
            },
            "settings": settings,
            "ties": runs.TIE_RULES,
            "versions": runs.package_versions(),
            "device": device,
            "git": git._asdict() if (git := runs.git_state()) else None,
            "chunks_of_an_earlier_start": work.reused,
            "seconds": {
                "load": round(phases.seconds.get("load", 0.0), 3),
                **{phase: round(spent, 3) for phase, spent in seconds.items()},
            },
        },
    )
    return record


def _in_order_of(candidates: CandidateList, entry: ScoredList) -> ScoredList:
    """The scores in the order of the candidate list: mteb hands candidates over in the data's order."""
    places = {doc_id: place for place, doc_id in enumerate(entry.doc_ids)}
    order = [places[doc_id] for doc_id in candidates.doc_ids]
    return ScoredList(
        entry.query_id,
        candidates.doc_ids,
        tuple(entry.scores[place] for place in order),
        tuple(entry.rounds[place] for place in order),
    )
