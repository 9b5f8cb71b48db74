"""Compare runs with a baseline: what fell, what rose, what is not comparable, and which queries changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from listcon_eval.comparison.statistics import LEVEL, holm, randomisation_test, resamples_for
from listcon_eval.errors import ListconError
from listcon_eval.metrics import Measure
from listcon_eval.regression.baseline import Baseline, BaselineRun, RunKey
from listcon_eval.results import Signature

DEFAULT_TOLERANCE = 0.001
_MAX_CHANGED = 10
_ROUNDING = 1e-6  # of the values in a baseline file
Pairs = dict[RunKey, tuple[BaselineRun, BaselineRun]]


@dataclass(frozen=True)
class Tolerances:
    """How far a mean may fall, as a fraction: 0.001 is a tenth of a percent point."""

    default: float = DEFAULT_TOLERANCE  # for every measure that has none of its own
    by_measure: Mapping[str, float] = field(default_factory=dict)  # measure (as `cmteb:map`) -> its own

    def of(self, measure: str) -> float:
        """The tolerance of a measure."""
        return self.by_measure.get(measure, self.default)

    @classmethod
    def parse(cls, given: Sequence[str]) -> "Tolerances":
        """Read `0.001` and `cmteb:map=0.002`.

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
        return cls(found.pop("", DEFAULT_TOLERANCE), found)


@dataclass(frozen=True)
class MetricChange:
    """One measure of one run beside its baseline."""

    key: RunKey
    measure: str  # the measure, as `cmteb:map`
    before: float  # the baseline's mean, 0 to 1
    after: float  # today's
    tolerance: float  # how far it may fall
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
    baseline: Baseline, current: Baseline, tolerances: Tolerances | None = None, *, significant: bool = False
) -> Verdict:
    """Compare current runs with a baseline.

    Args:
        baseline: the runs that set the numbers.
        current: the runs of today.
        tolerances: how far means may fall.
        significant: count a fall only if a paired randomisation test finds it too (p at most 0.05 after Holm's
            correction over the falls of one measure).

    Raises:
        ListconError: a tolerance is of a measure that the baseline does not have.
    """
    tolerances = tolerances or Tolerances()
    known_measures = dict.fromkeys(measure for run in baseline.runs for measure in run.values)
    if idle := [measure for measure in tolerances.by_measure if measure not in known_measures]:
        raise ListconError(f"--tolerance {idle[0]}: {baseline.path} has {', '.join(known_measures)} alone")
    pairs: Pairs = {}
    not_comparable: dict[RunKey, str] = {}
    for old in baseline.runs:
        same = _like(old, [run for run in current.runs if run.key == old.key])
        if reason := _why_not_comparable(old, same, current):
            not_comparable[old.key] = reason
        else:
            pairs[old.key] = (old, same[0])
    changes = [
        MetricChange(key, measure, old.means[measure], new.means[measure], tolerances.of(measure))
        for key, (old, new) in pairs.items()
        for measure in old.values
    ]
    if significant:
        changes = _tested(changes, pairs)
    known = {run.key for run in baseline.runs}
    differences = [
        f"{name}: {now} (baseline: {before})"
        for old, new in pairs.values()
        for name, (before, now) in old.signature.differences(new.signature).items()
    ]
    unknown = [f"{run.key}: not in the baseline, not compared" for run in current.runs if run.key not in known]
    return Verdict(
        changes=changes,
        not_comparable=not_comparable,
        notes=list(dict.fromkeys([*differences, *unknown])),
        changed=_worst([change for change in changes if change.failed], pairs),
        signatures={key: (old.signature, new.signature) for key, (old, new) in pairs.items()},
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


def _tested(changes: Sequence[MetricChange], pairs: Pairs) -> list[MetricChange]:
    """Give every fall its p-value, corrected over the falls of the same measure."""
    p_values: dict[tuple[RunKey, str], float] = {}
    for measure in {change.measure for change in changes}:
        falls = [change for change in changes if change.measure == measure and change.fell]
        resamples = resamples_for(len(falls))
        found = [
            randomisation_test([list(_by_query(change, pairs).values())], resamples=resamples).item()
            for change in falls
        ]
        p_values |= zip(((fall.key, measure) for fall in falls), holm(found), strict=True)
    return [replace(change, p=p_values.get((change.key, change.measure))) for change in changes]


def _by_query(change: MetricChange, pairs: Pairs) -> dict[str, float]:
    """Query id -> today's value less the baseline's."""
    old, new = (run.by_query(change.measure) for run in pairs[change.key])
    return {query_id: new[query_id] - value for query_id, value in old.items()}


def _worst(failed: Sequence[MetricChange], pairs: Pairs) -> list[ChangedQuery]:
    """The queries that fell most, each once a run, by the measure that fell most."""
    largest: dict[tuple[RunKey, str], tuple[float, str]] = {}
    for change in failed:
        for query_id, difference in _by_query(change, pairs).items():
            seen = largest.get((change.key, query_id), (0.0, ""))
            if difference < -_ROUNDING and difference < seen[0]:
                largest[change.key, query_id] = (difference, change.measure)
    ordered = sorted(largest.items(), key=lambda item: item[1][0])[:_MAX_CHANGED]
    return [
        ChangedQuery(key, query_id, measure, *(run.by_query(measure)[query_id] for run in pairs[key]))
        for (key, query_id), (_, measure) in ordered
    ]
