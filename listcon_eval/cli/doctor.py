"""`listcon-eval doctor`: is everything there for a run? Checks without running, and says what to do."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING

from listcon_eval.cli import options
from listcon_eval.cli.console import echo, handled_errors, set_up_logging
from listcon_eval.data import Task, chosen_tasks
from listcon_eval.errors import CheckFailedError, ListconError, count_of

if TYPE_CHECKING:
    from packaging.requirements import Requirement


@handled_errors()
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
    from packaging.requirements import Requirement

    from listcon_eval.hub import hub_state
    from listcon_eval.inference.devices import available_devices, choose_device
    from listcon_eval.results.environment import device_name
    from listcon_eval.systems.base import LoadOptions, load_system
    from listcon_eval.systems.resolve import resolve_model

    set_up_logging(quiet)
    failed = []

    def check(name: str, find: Callable[..., str], *arguments: object) -> None:
        """Print what a check finds, or the error that it raises."""
        try:
            found, ok = find(*arguments), True
        except ListconError as error:
            found, ok = str(error), False
            failed.append(name)
        if not (quiet and ok):
            echo(f"{'ok  ' if ok else 'FAIL'}  {name}: {found}")

    def find_device() -> str:
        return f"{device_name(str(choose_device(device)))}; available: {', '.join(available_devices())}"

    def find_model() -> str:
        system = load_system(resolve_model(model, kind, revision), LoadOptions(device=device, dtype=dtype))
        details = {"name": system.name, "revision": system.revision, "dtype": system.dtype, **system.provenance()}
        known = [f"{name} {value}" for name, value in details.items() if value not in (None, [])]
        return f"{system.kind}; {', '.join(known)}"

    for requirement in map(Requirement, requires("listcon-eval") or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            check(requirement.name, _version, requirement)
    check("device", find_device)
    check("hub", hub_state)  # one that does not answer is no fault: a run on local files needs none
    check(f"model {model}", find_model)
    chosen: list[Task] = []

    def choose() -> str:
        chosen.extend(chosen_tasks(tasks, data))
        return count_of(len(chosen), "task")

    check("data", choose)
    for task in chosen:
        check(f"data of {task.name}", _data, task)
    if failed:
        raise CheckFailedError(f"{len(failed)} of the checks failed: {', '.join(failed)}")


def _version(requirement: "Requirement") -> str:
    """The installed version, which has to fit one of this package's own requirements."""
    try:
        installed = version(requirement.name)
    except PackageNotFoundError as error:
        raise ListconError(f"not installed; pip install '{requirement}'") from error
    if not requirement.specifier.contains(installed, prereleases=True):
        raise ListconError(f"{installed}; pip install '{requirement}'")
    return installed


def _data(task: Task) -> str:
    task.load()
    sizes = [len(row.passages) for row in task.candidate_lists()]
    numbers = f"{count_of(len(sizes), 'query')}, {count_of(sum(sizes), 'candidate')}"
    return f"{numbers} ({min(sizes)} to {max(sizes)} per query), {task.source}"
