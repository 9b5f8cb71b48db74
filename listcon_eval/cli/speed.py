"""`listcon-eval speed`: how fast the engine is on this machine, beside its peers, and whether it ranks as published."""

import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from listcon_eval.cli import options
from listcon_eval.cli.console import echo, handled_errors, note, progress_shown, set_up_logging
from listcon_eval.errors import ListconError
from listcon_eval.files import check_replaceable, write_json, write_text
from listcon_eval.records import Mode

_WRITES = ("--json", "--profile", "--output")


@handled_errors()
def speed(
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="A ListConRanker checkpoint: folder or hub id.", show_default="see --random"
        ),
    ] = None,
    random: Annotated[
        str | None, typer.Option(help="A random model instead: tiny, base or large.", show_default="tiny")
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            help="Synthetic lists in the shape of an official task's; repeatable.", show_default="all four tasks"
        ),
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="The share of a task's queries to make.", show_default="0.01")
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Lists of any local data that `run --data` reads instead; repeatable."),
    ] = None,
    mode: Annotated[Mode, typer.Option(help="The inference mode.")] = "iterative",
    dtype: options.DType = "auto",
    device: options.Device = None,
    memory: options.Memory = None,
    device_memory: options.DeviceMemory = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads on a CPU.", show_default="torch's choice")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="How often everything is measured.")] = 3,
    reference_queries: Annotated[
        int,
        typer.Option(
            min=0, help="Lists that the published procedure ranks (minutes per list on a CPU); 0 leaves it out."
        ),
    ] = 2,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help="Measure sentence-transformers (torch, ONNX Runtime, OpenVINO), transformers, the published procedure "
            "and mteb's loop too; needs the extra `peers`.",
        ),
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    profile: Annotated[Path | None, typer.Option(help="Write a torch profiler trace of encoding a few lists.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="Add the tables to this Markdown file, or replace those of the same run.")
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Measure the engine. Needs neither mteb nor pandas, but for --peers.

    Examples:
      listcon-eval speed                                      # a tiny random model, the four tasks' shapes

      listcon-eval speed -m ./my-checkpoint --data my_lists.jsonl.gz

      listcon-eval speed -m mini --shape CMedQAv1-reranking --scale 0.003 --peers --reference-queries 1

      listcon-eval speed --random large --scale 1 --reference-queries 1 --device cuda
    """
    set_up_logging(quiet or model is None)  # a random checkpoint needs no warnings
    if data:
        options.refuse_with("--data", shape=shape, scale=scale is not None)
    if model is not None:
        options.refuse_with("--model", random=random)
    if profile is not None and len(data or shape or ()) != 1:
        raise ListconError("--profile traces one workload: give a single --shape or --data")
    for path, start, kind in (
        (json_file, '{"measurements":', "a file of measurements"),
        (profile, '{"schemaVersion":', "a profiler trace"),
        (output, "# Speed Written by `listcon-eval speed", "a page of measurements"),
    ):
        if path is not None:
            check_replaceable(path, start, kind)
    host_bytes = options.size_of(memory, "--memory")
    device_bytes = options.size_of(device_memory, "--device-memory")
    import torch

    from listcon_eval.inference.ranker import ListConRanker
    from listcon_eval.speed.measure import as_text, measure, updated_markdown
    from listcon_eval.speed.peers import check_peers
    from listcon_eval.speed.workload import SHAPES, read_workload, synthetic_workload

    workloads = (
        [read_workload(path) for path in data]
        if data
        else [synthetic_workload(name, scale=0.01 if scale is None else scale) for name in shape or SHAPES]
    )
    measurements = []
    with _checkpoint(model, random or "tiny") as (folder, name):
        if threads is not None:
            torch.set_num_threads(threads)
        ranker = ListConRanker.from_pretrained(
            folder, device=device, dtype=dtype, memory=host_bytes, device_memory=device_bytes
        )
        if peers:
            check_peers(ranker)
        for workload in workloads:
            if not quiet:
                note(f"{workload.name}: {workload.in_words}")
            with progress_shown(quiet) as progress:
                measured = measure(
                    ranker,
                    workload,
                    model_name=name,
                    mode=mode,
                    repeats=repeats,
                    reference_queries=reference_queries,
                    with_peers=peers,
                    trace=profile,
                    progress=progress,
                )
            measurements.append(measured)
            echo(f"{as_text(measured)}\n")
    echo(f"{measurements[0].model} on {measurements[0].machine}")
    if json_file is not None:
        write_json(json_file, {"measurements": [measured.to_json() for measured in measurements]})
    if output is not None:
        existing = output.read_text(encoding="utf-8") if output.exists() else None
        write_text(output, updated_markdown(existing, measurements, _command(sys.argv[1:])))
    for written in (json_file, output, profile):
        if written is not None:
            echo(str(written))


def _command(arguments: Sequence[str]) -> str:
    """The command line without the options that only say where files go."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        name, separator, _ = argument.partition("=")
        if not skip and name not in _WRITES:
            kept.append(argument)
        skip = not skip and name in _WRITES and not separator
    return shlex.join(["listcon-eval", *kept])


@contextmanager
def _checkpoint(model: str | None, size: str) -> Iterator[tuple[Path, str]]:
    """A checkpoint's folder and what to call it: the one given, or a temporary random one."""
    if model is not None:
        from listcon_eval.model.checkpoint import holds_listconranker
        from listcon_eval.model.source import resolve_source

        folder = resolve_source(model).folder
        if not holds_listconranker(folder):
            raise ListconError(
                f"{model} is not a ListConRanker checkpoint: `speed` measures ListConRanker's engine only; "
                f"`listcon-eval run` reports the time of other kinds of model"
            )
        yield folder, Path(model).name
        return
    from listcon_eval.speed.random_model import SIZES, write_random_checkpoint

    with tempfile.TemporaryDirectory(prefix="listcon-speed-") as temporary:
        folder = write_random_checkpoint(size, Path(temporary) / "model")
        sizes = SIZES[size]
        yield folder, f"random {size} ({sizes.layers} layers x {sizes.width}, list width {sizes.list_width})"
