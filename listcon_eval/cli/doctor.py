"""`listcon-eval doctor`: is everything there for a run? Checks without running, and says what to do."""

from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import NamedTuple

from listcon_eval.cli import options
from listcon_eval.cli.console import echo, handle_errors, set_up_logging
from listcon_eval.data import Task, chosen_tasks
from listcon_eval.errors import CheckFailedError, ListconError, count_of
from listcon_eval.records import DTypeOption


class Finding(NamedTuple):
    """What one check found: a name, whether all is well, and details or what to do."""

    check: str
    ok: bool
    detail: str


@handle_errors
def doctor(
    model: options.Model = "ByteDance/ListConRanker",
    kind: options.Kind = None,
    tasks: options.Tasks = None,
    data: options.Data = None,
    revision: options.Revision = None,
    device: options.Device = None,
    dtype: options.DType = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Check versions, device, hub, model and data without running anything. Exits with 1 if a check fails.

    Examples:
      listcon-eval doctor

      listcon-eval doctor -m ./my-checkpoint --data my_lists.jsonl.gz
    """
    set_up_logging(quiet)
    failed = []
    for finding in _findings(model, kind, tasks, data, revision, device, dtype):
        if not finding.ok:
            failed.append(finding.check)
        if not (quiet and finding.ok):
            echo(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.check}: {finding.detail}")
    if failed:
        raise CheckFailedError(f"{len(failed)} of the checks failed: {', '.join(failed)}")


def _findings(
    model: str,
    kind: str | None,
    tasks: str | None,
    data: list[str] | None,
    revision: str | None,
    device: str | None,
    dtype: DTypeOption,
) -> Iterator[Finding]:
    yield from _versions()
    yield _checked("device", lambda: _device(device))
    yield _hub()
    yield _checked(f"model {model}", lambda: _model(model, kind, revision, device, dtype))
    try:
        chosen = chosen_tasks(tasks, data)
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
    from listcon_eval.results.environment import device_name

    return f"{device_name(str(choose_device(name)))}; available: {', '.join(available_devices())}"


def _hub() -> Finding:
    """A hub that does not answer is no fault: a run on local files needs none."""
    from listcon_eval.hub import hub_state

    return Finding("hub", True, hub_state())


def _model(model: str, kind: str | None, revision: str | None, device: str | None, dtype: DTypeOption) -> str:
    from listcon_eval.systems.base import LoadOptions, load_system
    from listcon_eval.systems.resolve import resolve_model

    system = load_system(resolve_model(model, kind, revision), LoadOptions(device=device, dtype=dtype))
    details = {"name": system.name, "revision": system.revision, "dtype": system.dtype, **system.provenance()}
    return f"{system.kind}; " + ", ".join(
        f"{name} {value}" for name, value in details.items() if value not in (None, [])
    )


def _data(task: Task) -> str:
    task.load()
    lists = task.candidate_lists()
    sizes = [len(row.passages) for row in lists]
    numbers = f"{count_of(len(lists), 'query')}, {count_of(sum(sizes), 'candidate')}"
    return f"{numbers} ({min(sizes)} to {max(sizes)} per query), {task.source}"
