"""A comparison as text: for the terminal, Markdown, LaTeX and programs.

Significance marks follow ranx: every run has a letter, and a number carries the superscript letters of the runs that
it is significantly better than.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal

from tabulate import tabulate

from listcon_eval.compare.compare import Comparison, Moved, Pair, TaskComparison
from listcon_eval.compare.statistics import Interval
from listcon_eval.metrics import Measure

Style = Literal["terminal", "markdown"]
LETTERS = "abcdefghijklmnop"
SUPERSCRIPTS = "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖ"
_TABULATE = {"terminal": "simple", "markdown": "github"}
_MOST_RANKS = 6
_LONGEST_QUERY = 40


def as_text(comparison: Comparison, style: Style = "terminal") -> str:
    """The comparison for people, in percent.

    The first table of each task looks like this, `a` being significantly better than `b` by both measures:

    ```text
    Mini, 40 queries

    #    Run    cmteb:map              mteb:map_at_1000
    ---  -----  ---------------------  ---------------------
    a    new    64.50ᵇ [62.68, 66.30]  64.50ᵇ [62.68, 66.30]
    b    old    54.50 [52.68, 56.30]   54.50 [52.68, 56.30]
    ```

    After it come the paired differences, the queries that moved most and the runs' signatures.
    """
    parts = []
    for task in comparison.tasks:
        parts.append(_title(f"{task.task}, {task.queries} queries", style))
        parts.append(means_table(comparison, task, style))
        parts.append(_title(_about_tests(comparison), style))
        parts.append(_pairs_table(comparison, task, style))
        if task.moved:
            parts.append(_title(f"Queries that moved most, by {comparison.measures[0]}", style))
            parts.append(_moved_table(task.moved, style))
        parts.append(_title("Signatures", style))
        parts.append("\n".join(_signature_line(*pair, style) for pair in zip(LETTERS, task.signatures, strict=False)))
    parts += [
        f"Not compared: {name}, which only {'; '.join(labels)} has" for name, labels in comparison.skipped.items()
    ]
    return "\n\n".join(parts)


def means_table(comparison: Comparison, task: TaskComparison, style: Style = "terminal") -> str:
    """The table of means with intervals and significance marks, as `as_text` shows it."""
    rows = [
        [
            letter,
            label,
            *(
                f"{_percent(task.intervals[place][measure].mean)}"
                f"{''.join(SUPERSCRIPTS[worse] for worse in beaten_by(task, place, measure, comparison.level))}"
                f" {_range(task.intervals[place][measure])}"
                for measure in comparison.measures
            ),
        ]
        for place, (letter, label) in enumerate(zip(LETTERS, comparison.labels, strict=False))
    ]
    return _table(["#", "Run", *map(str, comparison.measures)], rows, style)


def beaten_by(task: TaskComparison, place: int, measure: Measure, level: float) -> list[int]:
    """The places of the contestants that the one at `place` is significantly better than."""
    beaten = []
    for pair in task.pairs:
        if pair.measure != measure or pair.corrected > level:
            continue
        winner, loser = (pair.other, pair.base) if pair.difference.mean > 0 else (pair.base, pair.other)
        if winner == place and pair.difference.mean != 0:
            beaten.append(loser)
    return sorted(beaten)


def as_latex(comparison: Comparison) -> str:
    r"""The tables of means as LaTeX (booktabs), marked as in `as_text`: `65.00$^{b}$`."""
    return "\n\n".join(_latex_table(comparison, task) for task in comparison.tasks) + "\n"


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything of the comparison for programs: numbers from 0 to 1, runs by letter."""
    return {
        "runs": dict(zip(LETTERS, comparison.labels, strict=False)),
        "measures": [str(measure) for measure in comparison.measures],
        "test": {
            "name": "paired randomisation, two-sided",
            "resamples": comparison.resamples,
            "seed": comparison.seed,
            "level": comparison.level,
            "holm_over": comparison.tests,
        },
        "tasks": {task.task: _task_json(comparison, task) for task in comparison.tasks},
        "not_compared": {name: list(labels) for name, labels in comparison.skipped.items()},
    }


def _task_json(comparison: Comparison, task: TaskComparison) -> dict[str, Any]:
    return {
        "queries": task.queries,
        "signatures": dict(zip(LETTERS, task.signatures, strict=False)),
        "means": {
            LETTERS[place]: {str(measure): interval._asdict() for measure, interval in of_run.items()}
            for place, of_run in enumerate(task.intervals)
        },
        "significantly_better_than": {
            LETTERS[place]: {
                str(measure): [LETTERS[worse] for worse in beaten_by(task, place, measure, comparison.level)]
                for measure in comparison.measures
            }
            for place in range(len(comparison.labels))
        },
        "pairs": [
            {
                "base": LETTERS[pair.base],
                "other": LETTERS[pair.other],
                "measure": str(pair.measure),
                "difference": pair.difference._asdict(),
                "p": pair.p,
                "p_holm": pair.corrected,
                **pair.count._asdict(),
            }
            for pair in task.pairs
        ],
        "moved": [{**move.__dict__, "base": LETTERS[move.base], "other": LETTERS[move.other]} for move in task.moved],
    }


def _about_tests(comparison: Comparison) -> str:
    return (
        f"Paired differences (randomisation test, {comparison.resamples} draws, seed {comparison.seed}; Holm over "
        f"{comparison.tests} tests; marked up to p = {comparison.level:g})"
    )


def _pairs_table(comparison: Comparison, task: TaskComparison, style: Style) -> str:
    def row(pair: Pair) -> list[str]:
        mark = " *" if pair.corrected <= comparison.level else ""
        return [
            f"{LETTERS[pair.other]} - {LETTERS[pair.base]}",
            str(pair.measure),
            f"{100 * pair.difference.mean:+.2f} {_range(pair.difference)}",
            f"{pair.p:.4f}",
            f"{pair.corrected:.4f}{mark}",
            f"{pair.count.wins}/{pair.count.ties}/{pair.count.losses}",
        ]

    headers = ["Pair", "Measure", "Difference", "p", "p (Holm)", "Wins/ties/losses"]
    return _table(headers, [row(pair) for pair in task.pairs], style)


def _moved_table(moved: Sequence[Moved], style: Style) -> str:
    rows = [
        [
            f"{LETTERS[move.base]} to {LETTERS[move.other]}",
            move.query_id,
            shortened(move.query, _LONGEST_QUERY) if move.query is not None else "(text not in these files)",
            f"{_percent(move.before)} to {_percent(move.after)}",
            f"{_ranks(move.ranks_before)} to {_ranks(move.ranks_after)}",
        ]
        for move in moved
    ]
    return _table(["Runs", "Query", "Text", "Value", "Ranks of the relevant"], rows, style)


def _latex_table(comparison: Comparison, task: TaskComparison) -> str:
    def cell(place: int, measure: Measure) -> str:
        marks = "".join(LETTERS[worse] for worse in beaten_by(task, place, measure, comparison.level))
        return _percent(task.intervals[place][measure].mean) + (f"$^{{{marks}}}$" if marks else "")

    lines = [f"% {signature}" for signature in task.signatures]
    lines += [r"\begin{table}", r"\centering"]
    caption = (
        f"{task.task}, {task.queries} queries, percent. Superscripts: runs that a run is significantly better than "
        f"(paired randomisation test, Holm, p <= {comparison.level:g})."
    )
    lines += [
        rf"\caption{{{latex_escaped(caption)}}}",
        rf"\begin{{tabular}}{{ll{'r' * len(comparison.measures)}}}",
        r"\toprule",
    ]
    lines += [" & ".join(["\\#", "Run", *(latex_escaped(str(measure)) for measure in comparison.measures)]) + r" \\"]
    lines += [r"\midrule"]
    lines += [
        " & ".join([letter, latex_escaped(label), *(cell(place, measure) for measure in comparison.measures)]) + r" \\"
        for place, (letter, label) in enumerate(zip(LETTERS, comparison.labels, strict=False))
    ]
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines)


def latex_escaped(text: str) -> str:
    r"""Text with LaTeX's special characters escaped: `map_at_1000` becomes `map\_at\_1000`."""
    text = re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", "/"))
    return text.replace("<=", r"$\leq$").replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")


def _signature_line(letter: str, signature: str, style: Style) -> str:
    return f"- {letter}: `{signature}`" if style == "markdown" else f"{letter}  {signature}"


def _title(text: str, style: Style) -> str:
    return f"**{text}**" if style == "markdown" else text


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]], style: Style) -> str:
    if style == "markdown":  # a bar would end the cell
        rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(rows, headers=headers, tablefmt=_TABULATE[style], disable_numparse=True)


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _range(interval: Interval) -> str:
    return f"[{_percent(interval.low)}, {_percent(interval.high)}]"


def _ranks(ranks: Sequence[int]) -> str:
    shown = ", ".join(map(str, ranks[:_MOST_RANKS])) or "none"
    return f"{shown}, ..." if len(ranks) > _MOST_RANKS else shown


def shortened(text: str, longest: int) -> str:
    """A text on one line, cut to `longest` characters."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 3]}..."
