"""`listcon-eval run`, and the two reproduction scripts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from listcon_eval.cli import options
from listcon_eval.cli.console import ends_well, notes, progress_shown, say, set_up_logging
from listcon_eval.evaluation import Request, evaluate
from listcon_eval.records import MODES, Mode
from listcon_eval.runs import RunRecord

RESULTS = Path("results")


@ends_well
def run(
    model: Annotated[
        str, typer.Option("--model", "-m", help="Checkpoint folder or hub id.")
    ] = "ByteDance/ListConRanker",
    mode: Annotated[
        Literal["conventional", "iterative", "both"], typer.Option("--mode", help="The inference mode.")
    ] = "both",
    tasks: options.Tasks = None,
    data: options.Data = None,
    output: options.Output = RESULTS,
    revision: options.Revision = None,
    device: options.Device = None,
    precision: options.PrecisionOption = "published",
    max_length: options.MaxLength = 512,
    quiet: options.Quiet = False,
) -> None:
    """Evaluate a ListConRanker checkpoint and write scores, metrics and mteb's result JSON.

    Examples:
      listcon-eval run                                  # the published model, four official tasks, both modes

      listcon-eval run -m ./my-checkpoint --mode iterative --tasks T2Reranking

      listcon-eval run -m ./my-checkpoint --data my_lists.jsonl.gz --precision precise

      listcon-eval run --tasks CMedQAv1-reranking --data ./copy-of-cmedqa1 --device cuda
    """
    request = Request(
        model=model,
        tasks=options.chosen_tasks(tasks, data),
        modes=MODES if mode == "both" else (mode,),
        output=output,
        revision=revision,
        device=device,
        precision=precision,
        max_length=max_length,
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
        quiet: options.Quiet = False,
    ) -> None:
        chosen = options.chosen_tasks(tasks, data)
        _evaluate_and_print(
            Request(model_name_or_path, chosen, (mode,), output, device=device, precision=precision), quiet
        )

    reproduce.__doc__ = f"Evaluate a ListConRanker checkpoint with {mode} inference, as published."
    typer.run(reproduce)


def _evaluate_and_print(request: Request, quiet: bool) -> None:
    set_up_logging(quiet)
    with progress_shown(quiet) as progress:
        records = evaluate(request, progress=progress, announce=(lambda _: None) if quiet else notes.print)
    _print_summary(records)


def _print_summary(records: Sequence[RunRecord]) -> None:
    from listcon_eval.measures import Measure
    from listcon_eval.reports import comparison
    from listcon_eval.reports.table import MAP
    from listcon_eval.tasks import OFFICIAL

    for measure in (MAP, Measure("mteb", "map_at_1000")):
        for table in comparison(records, measure=measure, official_order=[task.name for task in OFFICIAL]):
            say(f"{table.render()}\n")
    for record in records:
        say(record.signature)
    say()
    for folder in dict.fromkeys(record.folder.parent for record in records):
        say(str(folder))
