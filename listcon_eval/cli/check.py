"""`listcon-eval check`: the regression gate."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from listcon_eval.cli.console import ends_well, notes, say
from listcon_eval.errors import CheckFailedError, ListconError
from listcon_eval.files import check_writable, write_text


@ends_well
def check(
    baseline: Annotated[
        Path, typer.Option("--baseline", help="A baseline file (see --update), or a folder with runs in it.")
    ],
    current: Annotated[Path, typer.Option("--current", help="The runs to judge: a folder with runs in it.")] = Path(
        "results"
    ),
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            "--tolerance",
            help="How far a metric may fall, as a fraction: 0.001 for all, cmteb:map=0.002 for one; repeatable.",
            show_default="0.001",
        ),
    ] = None,
    significant: Annotated[
        bool,
        typer.Option(
            "--significant",
            help="A fall counts only if a paired randomisation test finds it too (0.05, Holm-corrected).",
        ),
    ] = False,
    update: Annotated[bool, typer.Option("--update", help="Write the current runs to the baseline file.")] = False,
    style: Annotated[Literal["terminal", "markdown"], typer.Option("--format")] = "terminal",
    junit: Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML to this file as well.")] = None,
) -> None:
    """Hold runs against a baseline. Exits with 0 if every metric holds, 1 if one fell, 2 if it cannot be judged.

    It cannot be judged when a task is missing, or its data, queries, mode or precision are others. Another model,
    device or version is judged and said. A rise beyond the tolerance is reported too.

    Examples:
      listcon-eval check --baseline results/baseline.json --update        # once

      listcon-eval check --baseline results/baseline.json --junit gate.xml

      listcon-eval check --baseline yesterday/results --current today/results --significant --format markdown
    """
    from listcon_eval import regression as gates
    from listcon_eval.regression.render import as_junit, as_text

    tolerances = gates.Tolerances.parse(tolerance or ())
    runs = gates.baseline_of(current)
    if update:
        gates.write_baseline(runs, baseline)
        for entry in runs.entries:
            say(entry.signature)
        notes.print(f"{len(runs.entries)} runs written to the baseline:", soft_wrap=True)
        say(str(baseline))
        return
    verdict = gates.check(gates.read_baseline(baseline), runs, tolerances, significant=significant)
    if junit is not None:
        check_writable(junit.parent)
        write_text(junit, as_junit(verdict))
    say(as_text(verdict, style))
    if verdict.unjudged:
        key, reason = next(iter(verdict.unjudged.items()))
        raise ListconError(
            f"{len(verdict.unjudged)} runs of {baseline} could not be judged; the first is {key}: {reason}"
        )
    if verdict.failed:
        raise CheckFailedError(f"{len(verdict.failed)} of {len(verdict.findings)} metrics fell below {baseline}")
