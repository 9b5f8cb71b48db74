"""`listcon-eval doctor`: is everything there for a run? Checks without running, and says what to do."""

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Annotated, NamedTuple

import typer

from listcon_eval.cli import options
from listcon_eval.cli.console import ends_well, say, set_up_logging
from listcon_eval.data import Task
from listcon_eval.errors import CheckFailedError, ListconError


class Finding(NamedTuple):
    """What one check found: a name, whether it is well, and the particulars or what to do."""

    check: str
    ok: bool
    detail: str


@ends_well
def doctor(
    model: Annotated[
        str, typer.Option("--model", "-m", help="Checkpoint folder or hub id.")
    ] = "ByteDance/ListConRanker",
    tasks: options.Tasks = None,
    data: options.Data = None,
    revision: options.Revision = None,
    device: options.Device = None,
    quiet: options.Quiet = False,
) -> None:
    """Check versions, device, hub, checkpoint and data without running anything. Exits with 1 if a check fails.

    Examples:
      listcon-eval doctor

      listcon-eval doctor -m ./my-checkpoint --data my_lists.jsonl.gz
    """
    set_up_logging(quiet)
    failed = []
    for finding in _findings(model, tasks, data, revision, device):
        if not finding.ok:
            failed.append(finding.check)
        if not (quiet and finding.ok):
            say(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.check}: {finding.detail}")
    if failed:
        raise CheckFailedError(f"{len(failed)} of the checks failed: {', '.join(failed)}")


def _findings(
    model: str, tasks: str | None, data: list[str] | None, revision: str | None, device: str | None
) -> Iterator[Finding]:
    yield from _versions()
    yield _checked("device", lambda: _device(device))
    yield _hub()
    yield _checked(f"checkpoint {model}", lambda: _checkpoint(model, revision, device))
    try:
        chosen = options.chosen_tasks(tasks, data)
    except ListconError as error:
        yield Finding("data", False, str(error))
        return
    for task in chosen:
        yield _checked(f"data of {task.name}", lambda task=task: _data(task))  # type: ignore[misc]


def _checked(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except ListconError as error:
        return Finding(name, False, str(error))


def _versions() -> Iterator[Finding]:
    """Compare the installed packages with this package's own requirements."""
    from packaging.requirements import Requirement

    for line in requires("listcon-eval") or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            yield Finding(requirement.name, False, f"not installed; pip install '{requirement}'")
            continue
        fits = requirement.specifier.contains(installed, prereleases=True)
        yield Finding(requirement.name, fits, installed if fits else f"{installed}; pip install '{requirement}'")


def _device(name: str | None) -> str:
    from listcon_eval.inference.devices import available_devices, choose_device
    from listcon_eval.results import device_name

    return f"{device_name(str(choose_device(name)))}; available: {', '.join(available_devices())}"


def _hub() -> Finding:
    """A hub that does not answer is no fault: a run on local files needs none."""
    from listcon_eval.hub import hub_answers, hub_state

    advice = "" if hub_answers() else "; local checkpoints, local data and the cache can be used"
    return Finding("hub", True, hub_state() + advice)


def _checkpoint(model: str, revision: str | None, device: str | None) -> str:
    from listcon_eval.inference.devices import choose_device, placed
    from listcon_eval.inference.encoder import FastEncoder
    from listcon_eval.model import load_checkpoint

    checkpoint = load_checkpoint(model, revision)
    config = checkpoint.model.config
    ignored = f"; {len(checkpoint.ignored)} keys that nothing uses are ignored" if checkpoint.ignored else ""
    return (
        f"layout {checkpoint.layout}, "
        f"encoder {config.encoder.num_hidden_layers} layers x {config.encoder.hidden_size}, "
        f"list transformer {config.list_layers} layers x {config.list_width}, "
        f"sha256 {checkpoint.weights_sha256[:12]}{ignored}; "
        f"encoded by {FastEncoder.for_model(placed(checkpoint.model, choose_device(device), 'published')).describe()}"
    )


def _data(task: Task) -> str:
    task.load()
    lists = task.candidate_lists()
    sizes = [len(row.passages) for row in lists]
    return f"{len(lists)} queries, {sum(sizes)} candidates ({min(sizes)} to {max(sizes)} a query), {task.source}"
