"""Compare runs with a baseline: what fell, what rose, what is not comparable, and which queries changed.

A verdict is written as text for people, as JSON for programs, and as JUnit XML for build servers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from xml.etree import ElementTree

from listcon_eval.comparison.statistics import LEVEL, holm, randomisation_test, resamples_for
from listcon_eval.errors import ListconError, count_of
from listcon_eval.metrics import Measure
from listcon_eval.regression.baseline import Baseline, BaselineRun, RunKey
from listcon_eval.results import Signature
from listcon_eval.tables import Style, code, escaped, heading, percent, table

DEFAULT_TOLERANCE = 0.001
_MAX_CHANGED = 10
_ROUNDING = 1e-6  # of the values in a baseline file
# XML 1.0 has no way to write these characters, not even escaped: they become U+FFFD.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_RUN = ("Task", "Mode", "Dtype")


def parse_tolerances(given: Sequence[str]) -> dict[str, float]:
    """Read how far a mean may fall, as `0.001` (a tenth of a percent point) for all measures and `cmteb:map=0.002`.

    Returns:
        Measure -> its tolerance; "" stands for every measure that has none of its own.

    Raises:
        ListconError: something else was given, an unknown measure, or two of one measure.
    """
    found: dict[str, float] = {}
    for text in given:
        name, separator, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 <= number <= 1:
            raise ListconError(f"--tolerance {text}: give a fraction from 0 to 1, such as 0.001 or cmteb:map=0.002")
        measure = str(Measure.parse(name)) if separator else ""
        if measure in found:
            raise ListconError(f"--tolerance {text}: there is another one for {measure or 'all metrics'}; keep one")
        found[measure] = number
    return {"": DEFAULT_TOLERANCE, **found}


@dataclass(frozen=True)
class MetricChange:
    """One measure of one run beside its baseline."""

    key: RunKey
    measure: str  # as `cmteb:map`
    before: float  # the baseline's mean, 0 to 1
    after: float  # today's
    tolerance: float  # how far it may fall
    by_query: Mapping[str, tuple[float, float]]  # query id -> the baseline's value and today's
    # the p-value of the fall, corrected for the falls of this measure; None when it was not tested
    p: float | None = None

    @property
    def change(self) -> float:
        """Today's mean less the baseline's."""
        return self.after - self.before

    @property
    def fell(self) -> bool:
        """Whether it fell by more than its tolerance."""
        return self.change < -(self.tolerance + _ROUNDING)

    @property
    def rose(self) -> bool:
        """Whether it rose by more than its tolerance."""
        return self.change > self.tolerance + _ROUNDING

    @property
    def failed(self) -> bool:
        """Whether it fell by more than its tolerance and, where that was tested, significantly so."""
        return self.fell and (self.p is None or self.p <= LEVEL)


@dataclass(frozen=True)
class ChangedQuery:
    """A query of a failed metric, with the failed measure that fell most on it."""

    key: RunKey
    query_id: str
    measure: str
    before: float
    after: float


@dataclass(frozen=True)
class Verdict:
    """What a check found."""

    changes: Sequence[MetricChange]  # every measure of every run that could be compared
    not_comparable: Mapping[RunKey, str]  # run -> why it could not be compared
    notes: Sequence[str]  # differences that do not stand in the way, such as another model
    # the queries of failed metrics that fell most, the worst first; ten at most, each of them once a run
    changed: Sequence[ChangedQuery]
    signatures: Mapping[RunKey, tuple[Signature, Signature]]  # the signatures of baseline and current run, by key

    @property
    def failed(self) -> list[MetricChange]:
        """The measures that fell."""
        return [change for change in self.changes if change.failed]

    @property
    def tolerated(self) -> list[MetricChange]:
        """The measures that fell by more than the tolerance, but not significantly."""
        return [change for change in self.changes if change.fell and not change.failed]

    @property
    def risen(self) -> list[MetricChange]:
        """The measures that rose by more than the tolerance."""
        return [change for change in self.changes if change.rose]


def check(
    baseline: Baseline, current: Baseline, tolerances: Mapping[str, float] | None = None, *, significant: bool = False
) -> Verdict:
    """Compare current runs with a baseline; means may fall by `tolerances`, as `parse_tolerances` gives them.

    A `significant` fall is one that a paired randomisation test finds too (p at most 0.05 after Holm's correction over
    the falls of one measure); others do not count then.

    Raises:
        ListconError: a tolerance is of a measure that the baseline does not have.
    """
    tolerances = tolerances or parse_tolerances(())
    if idle := [measure for measure in tolerances if measure and measure not in baseline.measures]:
        raise ListconError(f"--tolerance {idle[0]}: {baseline.path} has {', '.join(baseline.measures)} alone")
    changes: list[MetricChange] = []
    not_comparable: dict[RunKey, str] = {}
    signatures: dict[RunKey, tuple[Signature, Signature]] = {}
    for old in baseline.runs:
        same = _like(old, [run for run in current.runs if run.key == old.key])
        if reason := _why_not_comparable(old, same, current):
            not_comparable[old.key] = reason
            continue
        (new,) = same
        signatures[old.key] = (old.signature, new.signature)
        for measure in old.values:
            after = new.by_query(measure)
            by_query = {query_id: (value, after[query_id]) for query_id, value in old.by_query(measure).items()}
            tolerance = tolerances.get(measure, tolerances[""])
            changes.append(MetricChange(old.key, measure, old.means[measure], new.means[measure], tolerance, by_query))
    if significant:
        changes = _tested(changes)
    known = {run.key for run in baseline.runs}
    differences = [
        f"{name}: {now} (baseline: {before})"
        for old_signature, signature in signatures.values()
        for name, (before, now) in old_signature.differences(signature).items()
    ]
    unknown = [f"{run.key}: not in the baseline, not compared" for run in current.runs if run.key not in known]
    return Verdict(
        changes=changes,
        not_comparable=not_comparable,
        notes=list(dict.fromkeys([*differences, *unknown])),
        changed=_worst([change for change in changes if change.failed]),
        signatures=signatures,
    )


def _like(old: BaselineRun, runs: Sequence[BaselineRun]) -> Sequence[BaselineRun]:
    """Of several runs, those on the same data and, of these, those of the same model; all of them where none is."""
    for name in ("data_revision", "model", "model_revision"):
        runs = [run for run in runs if getattr(run.signature, name) == getattr(old.signature, name)] or runs
    return runs


def _why_not_comparable(old: BaselineRun, same: Sequence[BaselineRun], current: Baseline) -> str | None:
    """Why a run of the baseline cannot be compared with the current runs of its key; None when it can."""
    if len(same) > 1:
        models = "; ".join(f"{run.signature.model}@{run.signature.model_revision}" for run in same)
        return f"{len(same)} runs of it in {current.path} ({models}): name the folder of one with --current"
    if not same:
        others = [f"{run.key.mode}, {run.key.dtype}" for run in current.runs if run.key.task == old.key.task]
        if others:
            return f"{current.path} has the task in another mode or dtype ({'; '.join(others)})"
        return f"{current.path} has no run of the task"
    (new,) = same
    before, now = old.signature.data_revision, new.signature.data_revision
    if before != now:
        return f"other data: revision {now}, the baseline's is {before}"
    if odd := sorted({*old.query_ids} ^ {*new.query_ids}):
        return f"other queries: {len(new.query_ids)}, the baseline has {len(old.query_ids)}; {odd[0]} is in one alone"
    if absent := [measure for measure in old.values if measure not in new.values]:
        return f"no {', '.join(absent)} in the current run"
    for measure in old.values:
        if old.by_query(measure).keys() != new.by_query(measure).keys():
            counted = (len(run.by_query(measure)) for run in (new, old))
            return "{} counts other queries: {}, in the baseline {}".format(measure, *counted)
    return None


def _tested(changes: Sequence[MetricChange]) -> list[MetricChange]:
    """Give every fall its p-value, corrected over the falls of the same measure."""
    p_values: dict[tuple[RunKey, str], float] = {}
    for measure in {change.measure for change in changes}:
        falls = [change for change in changes if change.measure == measure and change.fell]
        differences = [[[now - before for before, now in fall.by_query.values()]] for fall in falls]
        found = [randomisation_test(row, resamples=resamples_for(len(falls))).item() for row in differences]
        p_values |= zip(((fall.key, measure) for fall in falls), holm(found), strict=True)
    return [replace(change, p=p_values.get((change.key, change.measure))) for change in changes]


def _worst(failed: Sequence[MetricChange]) -> list[ChangedQuery]:
    """The queries that fell most, each once a run, by the measure that fell most."""
    worst: dict[tuple[RunKey, str], ChangedQuery] = {}
    for change in failed:
        for query_id, (before, after) in change.by_query.items():
            seen = worst.get((change.key, query_id))
            if after - before < (seen.after - seen.before if seen else -_ROUNDING):
                worst[change.key, query_id] = ChangedQuery(change.key, query_id, change.measure, before, after)
    return sorted(worst.values(), key=lambda query: query.after - query.before)[:_MAX_CHANGED]


def as_text(verdict: Verdict, style: Style = "terminal", *, width: int | None = None) -> str:
    """The verdict for people: what fell, what rose, which queries changed, and what is not comparable.

    The terminal gets the fields in which the signatures differ, Markdown the full signatures as well.
    """
    summary = f"{len(verdict.changes) - len(verdict.failed)} of {len(verdict.changes)} metrics hold"
    if verdict.not_comparable:
        summary += f"; not comparable: {count_of(len(verdict.not_comparable), 'run')}"
    parts = [heading(summary, style)]
    for title, changes in (
        ("Fell", verdict.failed),
        ("Fell, but not significantly", verdict.tolerated),
        ("Rose", verdict.risen),
    ):
        if changes:
            parts += [heading(title, style), _changes_table(changes, style, width)]
    if verdict.changed:
        parts += [heading("Queries that fell most", style), _queries_table(verdict.changed, style, width)]
    if verdict.not_comparable:
        rows = [[str(key), reason] for key, reason in verdict.not_comparable.items()]
        parts += [heading("Not comparable", style), table(["Run", "Why"], rows, style, width=width)]
    if verdict.notes:
        notes = "\n".join(f"- {escaped(note, style)}" for note in verdict.notes)
        parts += [heading("Other than in the baseline", style), notes]
    if verdict.signatures and style == "markdown":
        signatures = "\n".join(f"- {code(str(now), style)}" for _, now in verdict.signatures.values())
        parts += [heading("Signatures", style), signatures]
    return "\n\n".join(parts)


def as_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict for programs; numbers from 0 to 1."""
    return {
        "holds": not verdict.failed and not verdict.not_comparable,
        "metrics": [
            {
                **change.key._asdict(),
                "measure": change.measure,
                "baseline": change.before,
                "now": change.after,
                "tolerance": change.tolerance,
                "p_holm": change.p,
                "failed": change.failed,
            }
            for change in verdict.changes
        ],
        "not_comparable": [{**key._asdict(), "reason": reason} for key, reason in verdict.not_comparable.items()],
        "changed": [{**query.key._asdict(), **asdict(query), "key": str(query.key)} for query in verdict.changed],
        "notes": list(verdict.notes),
        "signatures": [
            {**key._asdict(), "baseline": str(before), "now": str(now)}
            for key, (before, now) in verdict.signatures.items()
        ],
    }


def as_junit(verdict: Verdict) -> str:
    """The verdict as JUnit XML: a test case a measure; a fall is a failure, what is not comparable an error."""
    suite = ElementTree.Element(
        "testsuite",
        name="listcon-eval check",
        tests=str(len(verdict.changes) + len(verdict.not_comparable)),
        failures=str(len(verdict.failed)),
        errors=str(len(verdict.not_comparable)),
        skipped="0",
    )
    properties = ElementTree.SubElement(suite, "properties")
    for key, signatures in verdict.signatures.items():
        for which, signature in zip(("baseline", "current"), signatures, strict=True):
            name = f"{which} signature of {key}"
            ElementTree.SubElement(properties, "property", name=name, value=str(signature))
    for change in verdict.changes:
        case = _case(suite, change.key, change.measure)
        if change.failed:
            failure = ElementTree.SubElement(case, "failure", type="regression", message=_sentence(change))
            own = [query for query in verdict.changed if (query.key, query.measure) == (change.key, change.measure)]
            failure.text = _queries_table(own, "terminal", None) if own else None
        elif change.fell or change.rose:
            ElementTree.SubElement(case, "system-out").text = _sentence(change)
    for key, reason in verdict.not_comparable.items():
        ElementTree.SubElement(_case(suite, key, "comparable"), "error", type="not comparable", message=reason)
    ElementTree.indent(suite)
    content = _NOT_IN_XML.sub("\ufffd", ElementTree.tostring(suite, encoding="unicode"))
    return f'<?xml version="1.0" encoding="utf-8"?>\n{content}\n'


def _case(suite: ElementTree.Element, key: RunKey, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=".".join(key), name=name, time="0")


def _sentence(change: MetricChange) -> str:
    said = f"{percent(change.before)} to {percent(change.after)} percent ({100 * change.change:+.2f}"
    tested = "" if change.p is None else f", p = {change.p:.4f} (Holm)"
    return f"{change.key}: {change.measure} went from {said}, tolerance {percent(change.tolerance)}{tested})"


def _changes_table(changes: Sequence[MetricChange], style: Style, width: int | None) -> str:
    tested = any(change.p is not None for change in changes)
    rows = [
        [
            *change.key,
            change.measure,
            percent(change.before),
            percent(change.after),
            f"{100 * change.change:+.2f}",
            percent(change.tolerance),
            *(["-" if change.p is None else f"{change.p:.4f}"] if tested else []),
        ]
        for change in changes
    ]
    headers = [*_RUN, "Measure", "Baseline", "Now", "Change", "Tolerance", *(["p (Holm)"] if tested else [])]
    return table(headers, rows, style, width=width)


def _queries_table(queries: Sequence[ChangedQuery], style: Style, width: int | None) -> str:
    rows = [
        [*query.key, query.query_id, query.measure, percent(query.before), percent(query.after)] for query in queries
    ]
    return table([*_RUN, "Query", "Measure", "Baseline", "Now"], rows, style, width=width)
