"""`listcon-eval run`, and the two reproduction scripts."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from listcon_eval.cli import options
from listcon_eval.cli.console import (
    RESUMES,
    echo,
    echo_json,
    handled_errors,
    note,
    plain_app,
    progress_shown,
    refuse_empty,
    set_up_logging,
)
from listcon_eval.data import chosen_tasks
from listcon_eval.errors import CheckFailedError, ListconError, count_of
from listcon_eval.records import Mode
from listcon_eval.results import Result
from listcon_eval.systems.base import LoadOptions
from listcon_eval.tables import terminal_width

RESULTS = Path("results")


@handled_errors(RESUMES)
def run(
    model: options.Model = "ByteDance/ListConRanker",
    kind: options.Kind = None,
    mode: Annotated[
        Literal["conventional", "iterative", "both"],
        typer.Option("--mode", help="ListConRanker's inference mode; other systems have none."),
    ] = "both",
    tasks: options.Tasks = None,
    data: options.Data = None,
    rerank: options.Rerank = None,
    top_k: options.TopK = None,
    output: options.Output = RESULTS,
    revision: options.Revision = None,
    device: options.Device = None,
    dtype: options.DType = "auto",
    max_length: options.MaxLength = None,
    metrics: options.Metrics = None,
    relevance: options.Relevance = 1,
    limit: options.Limit = None,
    fresh: options.Fresh = False,
    keep_going: options.KeepGoing = False,
    memory: options.Memory = None,
    device_memory: options.DeviceMemory = None,
    workers: options.Workers = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    options_file: options.OptionsFile = None,
) -> None:
    """Evaluate ListConRanker or another system and write scores, metrics and mteb's result JSON.

    Examples:
      listcon-eval run                                  # the published model, four official tasks, both modes

      listcon-eval run -m ./my-checkpoint --mode iterative --tasks T2Reranking

      listcon-eval run -m ./my-checkpoint --data my_lists.jsonl.gz --dtype float32

      listcon-eval run --tasks CMedQAv1-reranking --data ./copy-of-cmedqa1 --device cuda

      listcon-eval run -m mini --tasks mini             # what comes with the package, without a network

      listcon-eval run -m TencentBAC/Conan-embedding-v1

      listcon-eval run -m bm25 --data my_lists.jsonl.gz

      listcon-eval run -m ./my-checkpoint --limit 10    # a trial on the first queries

      listcon-eval run -m ./my-checkpoint --workers auto   # on every GPU of this machine

      listcon-eval run --options run.yaml --device cpu  # a file's options, but for the device

      listcon-eval run --tasks "MIRACLReranking[zh],XGlueWPRReranking[zh][test]"

      listcon-eval run --tasks T2Retrieval --rerank bm25 --top-k 100

    The same command resumes a run that was interrupted.
    """
    from listcon_eval.evaluation import evaluate
    from listcon_eval.inference.devices import choose_device
    from listcon_eval.inference.memory import device_peak, host_peak, in_words
    from listcon_eval.systems.resolve import resolve_model
    from listcon_eval.systems.runs import with_first_stage

    del options_file  # its callback has read it
    load = LoadOptions(
        device=device,
        dtype=dtype,
        max_length=max_length,
        memory=options.size_of(memory, "--memory"),
        device_memory=options.size_of(device_memory, "--device-memory"),
        workers=options.workers_of(workers),
    )
    announce: Callable[[str], None] = (lambda _: None) if quiet else note
    set_up_logging(quiet)
    spec = resolve_model(model, kind, revision)
    chosen = chosen_tasks(tasks, data, for_first_stage=rerank is not None)
    if rerank is None and top_k is not None:
        raise ListconError(f"--top-k {top_k} is for a first stage: give --rerank, or leave it out")
    if rerank is not None:
        for place, task in enumerate(chosen):
            announce(f"{task.name}: reading the first stage {rerank}")
            chosen[place] = with_first_stage(task, rerank, 100 if top_k is None else top_k)
    with progress_shown(quiet) as progress:
        evaluation = evaluate(
            spec,
            chosen,
            modes=None if mode == "both" else (mode,),
            output=output,
            options=load,
            metrics=() if metrics is None else metrics,
            relevance=relevance,
            limit=limit,
            fresh=fresh,
            keep_going=keep_going,
            progress=progress,
            announce=announce,
        )
    on_device = device_peak(choose_device(device))
    peaks = in_words(host_peak(), on_device, memory=load.memory, device_memory=load.device_memory)
    announce(f"peak memory: {peaks}")
    if json:
        results = [{**result.model_dump(mode="json"), "folder": str(result.folder)} for result in evaluation.results]
        echo_json({"results": results})
    else:
        _print_tables(evaluation.results)
    if evaluation.failures:
        failed = sum(map(len, evaluation.failures.values()))
        first = "\n".join(f"{folder}: {next(iter(found.values()))}" for folder, found in evaluation.failures.items())
        raise CheckFailedError(
            f"{count_of(failed, 'query')} failed, so these runs have no metrics (first failure of each):\n{first}"
        )


def script(mode: Mode) -> None:
    """Run a reproduction script: one mode, with the published scripts' own option name for the model."""

    def reproduce(
        model_name_or_path: Annotated[
            str, typer.Option("--model_name_or_path", help="Checkpoint folder or hub id.")
        ] = "./",
        tasks: options.Tasks = None,
        data: options.Data = None,
        output: options.Output = RESULTS,
        device: options.Device = None,
        dtype: options.DType = "auto",
        fresh: options.Fresh = False,
        quiet: options.Quiet = False,
    ) -> None:
        refuse_empty(sys.argv[1:])
        run(
            model_name_or_path,
            "listconranker",
            mode,
            tasks,
            data,
            output=output,
            device=device,
            dtype=dtype,
            fresh=fresh,
            quiet=quiet,
        )

    reproduce.__doc__ = f"Evaluate a ListConRanker checkpoint with {mode} inference, as published."
    app = plain_app(add_completion=False)
    app.command()(reproduce)
    app()


def _print_tables(results: Sequence[Result]) -> None:
    from listcon_eval.metrics import Measure
    from listcon_eval.report.table import as_text, comparison_tables, main_tables

    others = dict.fromkeys(name for result in results for name in result.ir_measures)
    named = [comparison_tables(results, measure=Measure("ir_measures", name)) for name in others]
    for table in (*main_tables(results), *(table for tables in named for table in tables)):
        echo(f"{as_text(table, width=terminal_width())}\n")
    for folder in dict.fromkeys(result.folder for result in results):
        echo(str(folder))
