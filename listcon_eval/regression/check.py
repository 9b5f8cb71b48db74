"""Hold runs against a baseline: what fell, what rose, what cannot be judged, and which queries moved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from listcon_eval.compare.statistics import LEVEL, holm, randomisation_test
from listcon_eval.errors import ListconError
from listcon_eval.metrics import Measure
from listcon_eval.regression.baseline import Baseline, Entry, Key

DEFAULT_TOLERANCE = 0.001
_MOST_MOVED = 5
_ROUNDING = 1e-6  # of the values in a baseline file


@dataclass(frozen=True)
class Tolerances:
    """How far a mean may fall, as a fraction: 0.001 is a tenth of a percent point.

    Attributes:
        everywhere: for every measure that has none of its own.
        own: measure (as `cmteb:map`) -> its own.
    """

    everywhere: float = DEFAULT_TOLERANCE
    own: Mapping[str, float] = field(default_factory=dict)

    def of(self, measure: str) -> float:
        """The tolerance of a measure."""
        return self.own.get(measure, self.everywhere)

    @classmethod
    def parse(cls, given: Sequence[str]) -> "Tolerances":
        """Read `0.001` and `cmteb:map=0.002`.

        Raises:
            ListconError: something else was given, or a measure that there is not.
        """
        everywhere, own = DEFAULT_TOLERANCE, {}
        for text in given:
            name, separator, value = text.rpartition("=")
            try:
                number = float(value)
            except ValueError:
                number = -1.0
            if not 0 <= number <= 1:
                raise ListconError(f"--tolerance {text}: give a fraction from 0 to 1, such as 0.001 or cmteb:map=0.002")
            if separator:
                own[str(Measure.parse(name))] = number
            else:
                everywhere = number
        return cls(everywhere, own)


class Query(NamedTuple):
    """One query's value then and now."""

    query_id: str
    before: float
    after: float


@dataclass(frozen=True)
class Finding:
    """One measure of one run beside its baseline.

    Attributes:
        key: task, mode and precision.
        measure: the measure, as `cmteb:map`.
        before: the baseline's mean, 0 to 1.
        after: today's.
        tolerance: how far it may fall.
        queries: those that moved in the direction of the mean, the farthest first.
        p: the p-value of the fall, corrected for all falls of the check; None when it was not tested.
    """

    key: Key
    measure: str
    before: float
    after: float
    tolerance: float
    queries: tuple[Query, ...]
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
class Verdict:
    """What a check found.

    Attributes:
        findings: every measure of every run that could be judged.
        unjudged: run by run, why it could not be judged.
        notes: differences that do not stand in the way of judging, such as another model.
        signatures: the signatures of baseline and current run, by key.
    """

    findings: Sequence[Finding]
    unjudged: Mapping[Key, str]
    notes: Sequence[str]
    signatures: Mapping[Key, tuple[str, str]]

    @property
    def failed(self) -> list[Finding]:
        """The measures that fell."""
        return [finding for finding in self.findings if finding.failed]

    @property
    def tolerated(self) -> list[Finding]:
        """The measures that fell by more than the tolerance, but not significantly."""
        return [finding for finding in self.findings if finding.fell and not finding.failed]

    @property
    def risen(self) -> list[Finding]:
        """The measures that rose by more than the tolerance."""
        return [finding for finding in self.findings if finding.rose]


def check(
    baseline: Baseline, current: Baseline, tolerances: Tolerances | None = None, *, significant: bool = False
) -> Verdict:
    """Hold current runs against a baseline.

    Args:
        baseline: the runs that set the numbers.
        current: the runs of today.
        tolerances: how far means may fall.
        significant: count a fall only if a paired randomisation test finds it too (p at most 0.05 after Holm's
            correction over all falls).

    Raises:
        ListconError: the baseline is empty.
    """
    tolerances = tolerances or Tolerances()
    if not baseline.entries:
        raise ListconError(f"{baseline.place} holds no run: write it again with --update")
    findings: list[Finding] = []
    pairs: list[tuple[Entry, Entry]] = []
    unjudged: dict[Key, str] = {}
    notes: list[str] = []
    for entry in baseline.entries:
        found = _match(entry, current)
        reason = found if isinstance(found, str) else _not_comparable(entry, found)
        if reason is not None or isinstance(found, str):
            unjudged[entry.key] = f"{reason}"
            continue
        pairs.append((entry, found))
        notes += _differences(entry, found)
        findings += [_finding(entry, found, measure, tolerances.of(measure)) for measure in entry.values]
    known = {entry.key for entry in baseline.entries}
    notes += [f"{entry.key}: not in the baseline, not judged" for entry in current.entries if entry.key not in known]
    if significant:
        findings = _tested(findings, {old.key: (old, new) for old, new in pairs})
    return Verdict(
        findings,
        unjudged,
        list(dict.fromkeys(notes)),
        {old.key: (old.signature, new.signature) for old, new in pairs},
    )


def _match(entry: Entry, current: Baseline) -> Entry | str:
    """The current run of the same key, or why there is not the one."""
    found = [other for other in current.entries if other.key == entry.key]
    if len(found) == 1:
        return found[0]
    if found:
        models = "; ".join(other.signature.split("|")[1] for other in found)
        return f"{len(found)} runs of it in {current.place} ({models}): name the folder of one with --current"
    same_task = [
        f"{key.mode}, {key.precision}" for key in (other.key for other in current.entries) if key.task == entry.key.task
    ]
    if same_task:
        return f"{current.place} has the task in another mode or precision ({'; '.join(same_task)})"
    return f"{current.place} has no run of the task"


def _not_comparable(old: Entry, new: Entry) -> str | None:
    if old.data_revision != new.data_revision:
        return f"other data: revision {new.data_revision}, the baseline's is {old.data_revision}"
    odd = sorted({*old.query_ids} ^ {*new.query_ids})
    if odd:
        return f"other queries: {len(new.query_ids)}, the baseline has {len(old.query_ids)}; {odd[0]} is in one alone"
    absent = [measure for measure in old.values if measure not in new.values]
    if absent:
        return f"no {', '.join(absent)} in the current run"
    return None


def _differences(old: Entry, new: Entry) -> list[str]:
    """The fields of the two signatures that differ: all that is left after `_not_comparable`."""
    before, after = old.signature.split("|"), new.signature.split("|")
    return [f"other than in the baseline: {b} (baseline: {a})" for a, b in zip(before, after, strict=False) if a != b]


def _finding(old: Entry, new: Entry, measure: str, tolerance: float) -> Finding:
    after = dict(zip(new.query_ids, new.values[measure], strict=True))
    queries = [
        Query(query_id, value, after[query_id])
        for query_id, value in zip(old.query_ids, old.values[measure], strict=True)
    ]
    finding = Finding(old.key, measure, old.mean(measure), new.mean(measure), tolerance, ())
    direction = 1 if finding.change > 0 else -1
    moved = [query for query in queries if direction * (query.after - query.before) > _ROUNDING]
    moved.sort(key=lambda query: -abs(query.after - query.before))
    return replace(finding, queries=tuple(moved[:_MOST_MOVED]))


def _tested(findings: Sequence[Finding], pairs: Mapping[Key, tuple[Entry, Entry]]) -> list[Finding]:
    """Give every fall its p-value."""
    falls = [finding for finding in findings if finding.fell]
    p_values = [float(randomisation_test(_differences_of(finding, *pairs[finding.key]))[0]) for finding in falls]
    corrected = dict(zip(((fall.key, fall.measure) for fall in falls), holm(p_values), strict=True))
    return [replace(finding, p=corrected.get((finding.key, finding.measure))) for finding in findings]


def _differences_of(finding: Finding, old: Entry, new: Entry) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    after = dict(zip(new.query_ids, new.values[finding.measure], strict=True))
    before = zip(old.query_ids, old.values[finding.measure], strict=True)
    return np.array([after[query_id] - value for query_id, value in before])
