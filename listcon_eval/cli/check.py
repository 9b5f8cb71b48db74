"""`listcon-eval check`: the regression gate."""

from pathlib import Path
from typing import Annotated

import typer

from listcon_eval.cli import options
from listcon_eval.cli.console import echo, echo_json, handled_errors, note
from listcon_eval.errors import CheckFailedError, ListconError, count_of
from listcon_eval.files import check_replaceable, write_text


@handled_errors()
def check(
    baseline: Annotated[Path, typer.Option(help="A baseline file (see --update), or a folder with runs in it.")],
    current: Annotated[Path, typer.Option(help="The runs to check: a folder of one system's runs.")] = Path("results"),
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            help="How far a metric may fall, as a fraction: 0.001 for all, cmteb:map=0.002 for one; repeatable.",
            show_default="0.001",
        ),
    ] = None,
    significant: Annotated[
        bool,
        typer.Option(
            "--significant", help="A fall counts only if a paired randomisation test finds it too (0.05 by Holm)."
        ),
    ] = False,
    update: Annotated[bool, typer.Option("--update", help="Write the current runs to the baseline file.")] = False,
    style: options.Style = "terminal",
    as_json: options.Json = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file as well.")] = None,
) -> None:
    """Compare runs with a baseline. Exits with 0 if every metric holds, 1 if one fell, 2 if a run is not comparable.

    A run is not comparable when its task is missing, or its data, queries, mode or dtype are others. Another model,
    device or version is compared and named. A rise beyond the tolerance is reported too.

    Examples:
      listcon-eval check --baseline baseline.json --current gate --update        # once

      listcon-eval check --baseline baseline.json --current gate --junit gate.xml

      listcon-eval check --baseline yesterday/results --current today/results --significant --format markdown
    """
    from listcon_eval.regression import check as gate
    from listcon_eval.regression.baseline import baseline_of, read_baseline, write_baseline
    from listcon_eval.tables import terminal_width

    if update:
        options.refuse_with(
            "--update", junit=junit, tolerance=tolerance, significant=significant, format=style != "terminal"
        )
    if as_json:
        options.refuse_with("--json", format=style != "terminal")
    if junit is not None:
        check_replaceable(junit, "<?xml", "a JUnit report")
    tolerances = gate.parse_tolerances(tolerance or ())
    if update:
        today = baseline_of(current)
        write_baseline(today, baseline)
        note(f"{count_of(len(today.runs), 'run')} written to the baseline:")
        if as_json:
            echo_json({"baseline": str(baseline), "runs": len(today.runs)})
        else:
            echo(str(baseline))
        return
    before = read_baseline(baseline)
    verdict = gate.check(before, baseline_of(current, before.measures), tolerances, significant=significant)
    if junit is not None:
        write_text(junit, gate.as_junit(verdict))
    if as_json:
        echo_json(gate.as_json(verdict))
    else:
        echo(gate.as_text(verdict, style, width=terminal_width() if style == "terminal" else None))
    if verdict.not_comparable:
        key, reason = next(iter(verdict.not_comparable.items()))
        raise ListconError(
            f"not comparable: {count_of(len(verdict.not_comparable), 'run')} of {baseline}, the first {key}: {reason}"
        )
    if verdict.failed:
        raise CheckFailedError(f"{len(verdict.failed)} of {len(verdict.changes)} metrics fell below {baseline}")
