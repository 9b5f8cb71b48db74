"""What a comparison holds, and the same as text: for the terminal, Markdown, LaTeX and programs.

Systems go by a letter. Significance marks follow ranx: a number carries the superscript letters of the systems that it
is significantly better than.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from listcon_eval.comparison.statistics import Interval, WinCount
from listcon_eval.errors import count_of
from listcon_eval.metrics import Measure
from listcon_eval.results import Signature
from listcon_eval.tables import Style, code, escaped, heading, latex_float, percent, shortened, table

LETTERS = "abcdefghijklmnop"
_SUPERSCRIPTS = "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖ"
_MAX_RANKS = 6
_QUERY_CELLS = 40


@dataclass(frozen=True)
class Pair:
    """Two systems on one task by one measure; differences are `other` minus `base`, query by query."""

    base: str  # the letter of the one
    other: str  # the letter of the other
    measure: Measure
    difference: Interval  # the mean difference, with its bootstrap interval
    p: float  # the p-value of the paired randomisation test
    corrected: float  # the same after Holm's correction over the pairs of this task and measure
    wins: WinCount  # queries on which `other` wins, ties and loses


@dataclass(frozen=True)
class ChangedQuery:
    """A query on which two systems differ."""

    base: str
    other: str
    query_id: str
    query: str | None  # its text; None when no run of the task has it
    before: float  # its value by `base`
    after: float  # its value by `other`
    ranks_before: tuple[int, ...]  # the ranks of its relevant passages by `base`, from 1
    ranks_after: tuple[int, ...]  # the same by `other`


@dataclass(frozen=True)
class TaskComparison:
    """One task's part of a comparison."""

    task: str
    queries: int  # how many queries it has
    # the measures that every run of it has, in order; the first decides which queries changed
    measures: Sequence[Measure]
    means: Mapping[str, Mapping[Measure, Interval]]  # letter of each system that ran the task -> measure -> its mean
    signatures: Mapping[str, Signature]  # the same letters -> what the numbers depend on
    pairs: Sequence[Pair]  # the pairs that were tested
    changed: Sequence[ChangedQuery]  # the queries that changed most
    resamples: int  # the draws of its intervals and tests
    exact: bool  # whether all sign assignments were counted instead
    notes: Sequence[str]  # what has to be known of the numbers

    def beaten_by(self, letter: str, measure: Measure, level: float) -> list[str]:
        """The letters of the systems that one is significantly better than."""
        pairs = [pair for pair in self.pairs if pair.measure == measure and pair.corrected <= level]
        beaten = [pair.base for pair in pairs if pair.other == letter and pair.difference.mean > 0]
        return sorted(beaten + [pair.other for pair in pairs if pair.base == letter and pair.difference.mean < 0])


@dataclass(frozen=True)
class Comparison:
    """Systems, compared."""

    labels: Sequence[str]  # the systems' names, in the order of their letters
    tasks: Sequence[TaskComparison]  # the tasks that two systems or more have
    not_compared: Mapping[str, str]  # tasks that one system alone has, with its name
    level: float  # the corrected p-value up to which a difference is called significant
    seed: int  # the seed of all draws

    def as_text(self, style: Style = "terminal", *, width: int | None = None) -> str:
        """The comparison for people, in percent, as `listcon-eval compare` prints it.

        The first table of each task looks like this, `a` being significantly better than `b` by both measures:

        ```text
        Mini, 40 queries

        #   Run   cmteb:map               mteb:map_at_1000
        -------------------------------------------------------
        a   new   64.50ᵇ [62.68, 66.30]   64.50ᵇ [62.68, 66.30]
        b   old   54.50 [52.68, 56.30]    54.50 [52.68, 56.30]
        ```

        After it come the paired differences, the queries that changed most, and what the numbers depend on. LaTeX has
        the first tables alone, marked as `64.50$^{b}$`. `width` is that of the terminal in cells; None: no limit.
        """
        if style == "latex":
            return "\n\n".join(_latex_table(self, task) for task in self.tasks)
        parts = [part for task in self.tasks for part in _task_parts(self, task, style, width)]
        for name, label in self.not_compared.items():
            parts.append(escaped(f"Not compared: {name}, which {label} alone has", style))
        return "\n\n".join(parts)

    def __str__(self) -> str:
        return self.as_text()

    def label(self, letter: str) -> str:
        """The name of a system."""
        return self.labels[LETTERS.index(letter)]

    def means(self) -> pd.DataFrame:
        """A row a task, run and measure: the mean and its 95 % interval, from 0 to 1."""
        return pd.DataFrame(
            [
                {"task": task.task, "run": self.label(letter), "measure": str(measure), **interval._asdict()}
                for task in self.tasks
                for letter, of_run in task.means.items()
                for measure, interval in of_run.items()
            ]
        )

    def differences(self) -> pd.DataFrame:
        """A row a task, measure and tested pair: the mean of `other` minus `base`, its interval, p-values, wins."""
        return pd.DataFrame(
            [
                {
                    "task": task.task,
                    "measure": str(pair.measure),
                    "base": self.label(pair.base),
                    "other": self.label(pair.other),
                    **pair.difference._asdict(),
                    "p": pair.p,
                    "p_holm": pair.corrected,
                    **pair.wins._asdict(),
                }
                for task in self.tasks
                for pair in task.pairs
            ]
        )


def _task_parts(comparison: Comparison, task: TaskComparison, style: Style, width: int | None) -> Iterator[str]:
    yield heading(f"{task.task}, {count_of(task.queries, 'query')}", style)
    yield _means_table(comparison, task, style, width)
    yield from (escaped(note, style) for note in task.notes)
    if task.pairs:
        yield heading(_about_tests(comparison, task), style)
        yield _pairs_table(comparison, task, style, width)
    if task.changed:
        yield heading(f"Queries that changed most, by {task.measures[0]}", style)
        yield _changed_table(task.changed, style, width)
    yield heading("What the numbers depend on", style)
    shared, own = split_signatures(list(task.signatures.values()))
    lines = {"all": shared, **dict(zip(task.signatures, own, strict=True))}
    bullet = "- " if style == "markdown" else ""
    yield "\n".join(f"{bullet}{name}: {code(text, style)}" for name, text in lines.items() if text)


def _means_table(comparison: Comparison, task: TaskComparison, style: Style, width: int | None = None) -> str:
    def cell(letter: str, measure: Measure) -> str:
        interval = task.means[letter][measure]
        beaten = "".join(task.beaten_by(letter, measure, comparison.level))
        marks = beaten.translate(str.maketrans(LETTERS, _SUPERSCRIPTS))
        return f"{percent(interval.mean)}{marks}" + ("" if style == "latex" else f" {_range(interval)}")

    rows = [
        [letter, comparison.label(letter), *(cell(letter, measure) for measure in task.measures)]
        for letter in task.means
    ]
    return table(["#", "Run", *map(str, task.measures)], rows, style, width=width)


def _latex_table(comparison: Comparison, task: TaskComparison) -> str:
    caption = (
        f"{task.task}, {count_of(task.queries, 'query')}, percent. Superscripts: systems that a system is "
        f"significantly better than ({_about_tests(comparison, task)})."
    )
    body = re.sub(f"([{_SUPERSCRIPTS}]+)", r"$^{\1}$", _means_table(comparison, task, "latex"))
    signatures = [f"{letter}: {signature}" for letter, signature in task.signatures.items()]
    return latex_float(body.translate(str.maketrans(_SUPERSCRIPTS, LETTERS)), caption, signatures)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Everything of the comparison for programs: numbers from 0 to 1, systems by letter."""
    return {
        "systems": dict(zip(LETTERS, comparison.labels, strict=False)),
        "test": {
            "name": "paired randomisation, two-sided; Holm over the pairs within a task and measure",
            "level": comparison.level,
            "seed": comparison.seed,
        },
        "tasks": {
            task.task: {
                "queries": task.queries,
                "measures": [str(measure) for measure in task.measures],
                "resamples": task.resamples,
                "exact": task.exact,
                "signatures": {letter: str(signature) for letter, signature in task.signatures.items()},
                "means": {
                    letter: {str(measure): interval._asdict() for measure, interval in of_run.items()}
                    for letter, of_run in task.means.items()
                },
                "significantly_better_than": {
                    letter: {str(measure): task.beaten_by(letter, measure, comparison.level) for measure in of_run}
                    for letter, of_run in task.means.items()
                },
                "pairs": [
                    {
                        "base": pair.base,
                        "other": pair.other,
                        "measure": str(pair.measure),
                        "difference": pair.difference._asdict(),
                        "p": pair.p,
                        "p_holm": pair.corrected,
                        **pair.wins._asdict(),
                    }
                    for pair in task.pairs
                ],
                "changed": [asdict(query) for query in task.changed],
                "notes": list(task.notes),
            }
            for task in comparison.tasks
        },
        "not_compared": dict(comparison.not_compared),
    }


def _about_tests(comparison: Comparison, task: TaskComparison) -> str:
    pairs = count_of(len(task.pairs) // len(task.measures), "pair")
    how = "all sign assignments" if task.exact else f"{task.resamples} draws, seed {comparison.seed}"
    return (
        f"Paired differences (randomisation test, {how}; Holm over {pairs} within each measure; marked up to "
        f"p = {comparison.level:g})"
    )


def _pairs_table(comparison: Comparison, task: TaskComparison, style: Style, width: int | None) -> str:
    # 9,999 draws tell p-values apart by 0.0001
    digits = 4 if task.exact else math.floor(math.log10(task.resamples + 1))

    def row(pair: Pair) -> list[str]:
        mark = " *" if pair.corrected <= comparison.level else ""
        return [
            f"{pair.other} - {pair.base}",
            str(pair.measure),
            f"{100 * pair.difference.mean:+.2f} {_range(pair.difference)}",
            f"{pair.p:.{digits}f}",
            f"{pair.corrected:.{digits}f}{mark}",
            f"{pair.wins.wins}/{pair.wins.ties}/{pair.wins.losses}",
        ]

    headers = ["Pair", "Measure", "Difference", "p", "p (Holm)", "Wins/ties/losses"]
    return table(headers, [row(pair) for pair in task.pairs], style, width=width)


def _changed_table(changed: Sequence[ChangedQuery], style: Style, width: int | None) -> str:
    rows = [
        [
            f"{query.base} to {query.other}",
            query.query_id,
            shortened(query.query, _QUERY_CELLS) if query.query is not None else "(text not in these files)",
            f"{percent(query.before)} to {percent(query.after)}",
            f"{_ranks(query.ranks_before)} to {_ranks(query.ranks_after)}",
        ]
        for query in changed
    ]
    return table(["Runs", "Query", "Text", "Value", "Ranks of the relevant"], rows, style, width=width)


def split_signatures(signatures: Sequence[Signature]) -> tuple[str, list[str]]:
    """What signatures have in common, and what each of them has of its own, as `name:value|name:value`."""
    fields = [signature.fields() for signature in signatures]
    common = {name: value for name, value in fields[0].items() if all(own.get(name) == value for own in fields[1:])}

    def text(content: dict[str, str]) -> str:
        return "|".join(f"{name}:{value}" for name, value in content.items())

    return text(common), [text({name: own[name] for name in own if name not in common}) for own in fields]


def _range(interval: Interval) -> str:
    return f"[{percent(interval.low)}, {percent(interval.high)}]"


def _ranks(ranks: Sequence[int]) -> str:
    shown = ", ".join(map(str, ranks[:_MAX_RANKS])) or "none"
    return f"{shown}, ..." if len(ranks) > _MAX_RANKS else shown
