"""`listcon-eval run`, and the two reproduction scripts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from listcon_eval.cli import options
from listcon_eval.cli.console import ends_well, notes, progress_shown, say, set_up_logging
from listcon_eval.errors import CheckFailedError
from listcon_eval.evaluate import Request, evaluate
from listcon_eval.records import Mode
from listcon_eval.results import RunRecord

RESULTS = Path("results")


@ends_well
def run(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="A model's folder or hub id (ListConRanker, an embedding model, a cross-encoder), a TREC run file, or "
            "mini (the packaged ListConRanker), bm25, bm25:jieba, random, random:SEED or oracle.",
        ),
    ] = "ByteDance/ListConRanker",
    kind: options.Kind = None,
    mode: Annotated[
        Literal["conventional", "iterative", "both"],
        typer.Option("--mode", help="ListConRanker's inference mode; other systems have none."),
    ] = "both",
    tasks: options.Tasks = None,
    data: options.Data = None,
    output: options.Output = RESULTS,
    revision: options.Revision = None,
    device: options.Device = None,
    precision: options.PrecisionOption = "published",
    max_length: options.ModelsMaxLength = None,
    fresh: options.Fresh = False,
    keep_going: options.KeepGoing = False,
    memory: options.Memory = None,
    device_memory: options.DeviceMemory = None,
    quiet: options.Quiet = False,
) -> None:
    """Evaluate ListConRanker or another system and write scores, metrics and mteb's result JSON.

    Examples:
      listcon-eval run                                  # the published model, four official tasks, both modes

      listcon-eval run -m ./my-checkpoint --mode iterative --tasks T2Reranking

      listcon-eval run -m ./my-checkpoint --data my_lists.jsonl.gz --precision precise

      listcon-eval run --tasks CMedQAv1-reranking --data ./copy-of-cmedqa1 --device cuda

      listcon-eval run -m mini --tasks mini             # what comes with the package, without a network

      listcon-eval run -m TencentBAC/Conan-embedding-v1

      listcon-eval run -m bm25 --data my_lists.jsonl.gz

    The same command goes on with a run that was cut off.
    """
    request = Request(
        model=model,
        tasks=options.chosen_tasks(tasks, data),
        modes=None if mode == "both" else (mode,),
        output=output,
        kind=kind,
        revision=revision,
        device=device,
        precision=precision,
        max_length=max_length,
        fresh=fresh,
        keep_going=keep_going,
        memory=options.size_of(memory, "--memory"),
        device_memory=options.size_of(device_memory, "--device-memory"),
    )
    _evaluate_and_print(request, quiet)


def script(mode: Mode) -> None:
    """Run a reproduction script: one mode, with the published scripts' own option name for the model."""

    @ends_well
    def reproduce(
        model_name_or_path: Annotated[
            str, typer.Option("--model_name_or_path", help="Checkpoint folder or hub id.")
        ] = "./",
        tasks: options.Tasks = None,
        data: options.Data = None,
        output: options.Output = RESULTS,
        device: options.Device = None,
        precision: options.PrecisionOption = "published",
        fresh: options.Fresh = False,
        quiet: options.Quiet = False,
    ) -> None:
        chosen = options.chosen_tasks(tasks, data)
        request = Request(
            model_name_or_path,
            chosen,
            (mode,),
            output,
            kind="listconranker",
            device=device,
            precision=precision,
            fresh=fresh,
        )
        _evaluate_and_print(request, quiet)

    reproduce.__doc__ = f"Evaluate a ListConRanker checkpoint with {mode} inference, as published."
    typer.run(reproduce)


def _evaluate_and_print(request: Request, quiet: bool) -> None:
    set_up_logging(quiet)
    with progress_shown(quiet) as progress:
        outcome = evaluate(request, progress=progress, announce=(lambda _: None) if quiet else _note)
    _print_summary(outcome.records)
    if not quiet:
        _note(f"peak memory: {_peak(request)}")
    if outcome.failures:
        failed = sum(map(len, outcome.failures.values()))
        first = [f"{folder}: {next(iter(found.values()))}" for folder, found in outcome.failures.items()]
        raise CheckFailedError(
            f"{failed} queries failed, so these runs have no metrics (first failure of each):\n" + "\n".join(first)
        )


def _peak(request: Request) -> str:
    from listcon_eval.inference.devices import choose_device
    from listcon_eval.inference.memory import device_peak, host_peak, in_words

    device = device_peak(choose_device(request.device))
    return in_words(host_peak(), device, memory=request.memory, device_memory=request.device_memory)


def _note(text: str) -> None:
    notes.print(text, soft_wrap=True, markup=False)


def _print_summary(records: Sequence[RunRecord]) -> None:
    from listcon_eval.data import OFFICIAL
    from listcon_eval.metrics import Measure
    from listcon_eval.report import comparison
    from listcon_eval.report.table import MAP

    for measure in (MAP, Measure("mteb", "map_at_1000")):
        for table in comparison(records, measure=measure, official_order=[task.name for task in OFFICIAL]):
            say(f"{table.render()}\n")
    for record in records:
        say(record.signature)
    say()
    for folder in dict.fromkeys(record.folder.parent for record in records):
        say(str(folder))
