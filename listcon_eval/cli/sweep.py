"""`listcon-eval sweep`: systems x tasks x modes x dtypes of one file."""

import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.table import Table

from listcon_eval.cli import options
from listcon_eval.cli.console import RESUMES, UNUSABLE_INPUT, handled_errors, note, set_up_logging, stderr
from listcon_eval.cli.report import missing_extra, report
from listcon_eval.cli.table import table
from listcon_eval.errors import CheckFailedError, ListconError, count_of, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from listcon_eval.sweep import Cell, State


@handled_errors(RESUMES)
def sweep(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A YAML or JSON file: see the example.")],
    workers: options.Workers = None,
    quiet: options.Quiet = False,
) -> None:
    """Evaluate systems x tasks x modes x dtypes, spread over devices; end with the table and the report.

    The file names `models`, each by its name or with kind, revision and max_length, and may say tasks, data, modes,
    dtypes, device, metrics, limit, output and workers, which are as the options of `run`. A cell (a system in one dtype
    on one task) that fails does not stop the others: exit code 1, or 2 when all failed. Without the extra `report`
    there is no report.html.

    Examples:
      listcon-eval sweep sweep.yaml

      listcon-eval sweep sweep.yaml --workers auto   # a worker on every GPU, a cell at a time on each

      sweep.yaml:

          models: [bm25, ./my-checkpoint, {model: TencentBAC/Conan-embedding-v1, max_length: 256}]

          tasks: [CMedQAv1-reranking, T2Reranking]

          modes: [iterative]

          dtypes: [float16, float32]

          output: my-sweep

    The same command resumes a sweep that was interrupted.
    """
    set_up_logging(quiet)
    without_page = missing_extra()
    if without_page and not quiet:
        note(f"no report.html will be written: {without_page}")
    from listcon_eval.results.store import results_folder
    from listcon_eval.sweep import cells_of, outcomes, read_sweep

    plan = read_sweep(file, options.read_mapping(file))
    if workers is not None:
        plan = plan.model_copy(update={"workers": options.workers_of(workers)})
    cells = cells_of(plan)
    failed: dict[int, Exception] = {}
    shown = _Shown(cells, quiet)
    with shown.live or nullcontext():
        for place, outcome in outcomes(plan, cells, shown.watch):
            if isinstance(outcome, Exception):
                failed[place] = outcome
            shown.end(place, outcome)
    told = [f"{_name(cells[place])}: {str(error) or type(error).__name__}" for place, error in sorted(failed.items())]
    what = f"{len(failed)} of {count_of(len(cells), 'cell')} failed"
    if len(failed) == len(cells):
        raise ListconError("\n".join([what, *told]))
    folder = results_folder(plan.output_folder)
    shows = {"table": partial(table, folder)}
    if not without_page:
        shows["report.html"] = partial(report, [folder], output=plan.output_folder / "report.html", quiet=True)
    for name, show in shows.items():
        try:
            show()
        except typer.Exit as ended:  # too many systems for a page, an older run in the folder: the cells have ended
            if ended.exit_code != UNUSABLE_INPUT:
                raise
            note(f"there is no {name} for this reason; the results of the cells are in {folder}")
    if failed:
        raise CheckFailedError("\n".join([what, *told]))


def _name(cell: "Cell") -> str:
    dtype = "" if cell.options.dtype == "auto" else f", {cell.options.dtype}"
    return f"{cell.spec.given}{dtype}, {cell.task}"


class _Shown:
    """The state of all cells on standard error: a table on a terminal, elsewhere a line when a cell begins or ends."""

    def __init__(self, cells: "Sequence[Cell]", quiet: bool) -> None:
        self._cells, self._quiet = cells, quiet
        self._states = ["waiting"] * len(cells)
        self._began: dict[int, float] = {}
        is_live = stderr.is_terminal and not quiet
        self.live = Live(self._table(), console=stderr, auto_refresh=False) if is_live else None

    def watch(self, states: "Mapping[int, State]") -> None:
        """Show what cells are at."""
        for place, (words, share) in states.items():
            if place not in self._began:
                self._began[place] = time.monotonic()
                self._line(place, "begins")
            self._states[place] = f"{share:4.0%} {words}"
        self._refresh()

    def end(self, place: int, outcome: str | Exception) -> None:
        """Show what became of a cell."""
        seconds = time.monotonic() - self._began.get(place, time.monotonic())
        self._states[place] = f"{outcome}, {seconds:.0f} s"
        if isinstance(outcome, Exception):
            self._states[place] = f"failed: {first_line(outcome)}"
        self._line(place, self._states[place])
        self._refresh()

    def _line(self, place: int, words: str) -> None:
        if self.live is None and not self._quiet:
            note(f"{_name(self._cells[place])}: {words}")

    def _refresh(self) -> None:
        if self.live is not None:
            self.live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        found = Table("System", "Dtype", "Task", "Modes", "State", box=None)
        for cell, state in zip(self._cells, self._states, strict=True):
            modes = "all" if cell.modes is None else ", ".join(cell.modes)
            found.add_row(cell.spec.given, cell.options.dtype, cell.task, modes, state)
        return found
