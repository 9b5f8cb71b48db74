"""`listcon-eval bench`: how fast the engine is here, as a ratio to the published procedure."""

import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from listcon_eval.cli import options
from listcon_eval.cli.console import ends_well, notes, progress_shown, say, set_up_logging
from listcon_eval.errors import ListconError
from listcon_eval.files import write_json, write_text
from listcon_eval.records import Mode

_PLACES = ("--json", "--profile", "--output")


@ends_well
def bench(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Checkpoint folder or hub id.", show_default="see --random")
    ] = None,
    random: Annotated[
        str | None,
        typer.Option("--random", help="A random model instead: tiny, base or large.", show_default="tiny"),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape",
            help="Made-up lists in the shape of an official task's; repeatable.",
            show_default="all four tasks",
        ),
    ] = None,
    scale: Annotated[float, typer.Option("--scale", help="The share of a task's queries to make.")] = 0.01,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The seed of made-up texts and models.")] = 0,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data", help="Lists from a file instead: JSONL, or gzipped, of query, positive, negative; repeatable."
        ),
    ] = None,
    mode: Annotated[Mode, typer.Option("--mode", help="The inference mode.")] = "iterative",
    precision: options.PrecisionOption = "precise",
    device: options.Device = None,
    memory: options.Memory = None,
    device_memory: options.DeviceMemory = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads on a CPU.", show_default="torch's choice")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="How often each way is measured, in turns.")] = 3,
    reference_queries: Annotated[
        int,
        typer.Option(
            "--reference-queries",
            min=0,
            help="Lists that the published procedure ranks (it may take minutes a list); 0 leaves it out.",
        ),
    ] = 2,
    encoder_batches: Annotated[
        int, typer.Option("--encoder-batches", min=1, help="Batches that the encoder alone is measured on.")
    ] = 4,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    profile: Annotated[
        Path | None, typer.Option("--profile", help="Write a torch profiler trace of one more run to this file.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Put the tables into this Markdown file, beside those of other machines."),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure the engine beside the published procedure, in one run, taking turns. Needs no mteb and no pandas.

    Examples:
      listcon-eval bench                                      # a tiny random model, the four tasks' shapes

      listcon-eval bench -m ./my-checkpoint --data my_lists.jsonl.gz

      listcon-eval bench --random large --scale 1 --reference-queries 1 --device cuda --precision published
    """
    set_up_logging(quiet or model is None)  # of a made-up checkpoint nothing needs to be said
    if data and shape:
        raise ListconError("--data and --shape both say what to rank: leave one of them out")
    if model is not None and random is not None:
        raise ListconError("--model and --random both name a model: leave one of them out")
    if profile is not None and len(data or shape or ()) != 1:
        raise ListconError("--profile traces one workload: give a single --shape or --data")
    from listcon_eval.speed import (
        Settings,
        as_text,
        markdown_with,
        measure,
        read_workload,
        shape_named,
        shapes,
        synthetic_workload,
    )

    host_bytes = options.size_of(memory, "--memory")
    device_bytes = options.size_of(device_memory, "--device-memory")
    workloads = (
        [read_workload(path) for path in data]
        if data
        else [synthetic_workload(shape_named(name), scale=scale, seed=seed) for name in shape or shapes()]
    )
    settings = Settings(mode, repeats, reference_queries, encoder_batches, profile)
    measurements = []
    with _checkpoint(model, random or "tiny", seed) as (folder, name):
        import torch

        from listcon_eval.inference import ListConRanker

        if threads is not None:
            torch.set_num_threads(threads)
        ranker = ListConRanker.from_pretrained(
            folder, device=device, precision=precision, memory=host_bytes, device_memory=device_bytes
        )
        for workload in workloads:
            if not quiet:
                notes.print(f"{workload.name}: {len(workload.queries)} queries, {workload.documents} passages")
            with progress_shown(quiet) as progress:
                measured = measure(ranker, workload, settings, model_name=name, progress=progress)
            measurements.append(measured)
            say(f"{as_text(measured)}\n")
    say(f"{measurements[0].model} on {measurements[0].machine}")
    if json_file is not None:
        write_json(json_file, {"measurements": [measured.as_json() for measured in measurements]})
        say(str(json_file))
    if output is not None:
        existing = output.read_text(encoding="utf-8") if output.exists() else None
        write_text(output, markdown_with(existing, measurements, _command(sys.argv[1:])))
        say(str(output))
    if profile is not None:
        say(str(profile))


def _command(arguments: Sequence[str]) -> str:
    """The command that these arguments make, without those that only say where files go."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        name, separator, _ = argument.partition("=")
        if not skip and name not in _PLACES:
            kept.append(argument)
        skip = name in _PLACES and not separator
    return shlex.join(["listcon-eval", *kept])


@contextmanager
def _checkpoint(model: str | None, size: str, seed: int) -> Iterator[tuple[str, str]]:
    """A checkpoint's place, and what to call it: the one given, or a random one for as long as it is needed."""
    if model is not None:
        yield model, Path(model).name
        return
    from listcon_eval.speed import SIZES, write_random_checkpoint

    with tempfile.TemporaryDirectory(prefix="listcon-bench-") as folder:
        place = write_random_checkpoint(size, Path(folder) / size, seed=seed)
        sizes = SIZES[size]
        yield str(place), f"random {size} ({sizes.layers} layers x {sizes.width}, list width {sizes.list_width})"
