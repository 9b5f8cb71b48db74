"""The sections of a task in a report: figures with captions that say what they show."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from listcon_eval.comparison.statistics import count_wins
from listcon_eval.metrics import CARD_MAP
from listcon_eval.report import figures, run_data
from listcon_eval.report.figures import MODES_EQUAL, Curve
from listcon_eval.report.run_data import TaskResults


@dataclass(frozen=True)
class Numbers:
    """A small table below a figure: the names of its columns and its rows, as text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """A figure with its caption, or the reason why there is none.

    Attributes:
        key: the short name for files and links.
        title: its heading.
        caption: what is seen, in words and numbers.
        figure: the figure; None when the section does not apply.
        absent: why it does not apply; None when it does.
        notes: what a reader has to know to read it correctly.
        numbers: the numbers of the figure.
    """

    key: str
    title: str
    caption: str = ""
    figure: Figure | None = None
    absent: str | None = None
    notes: tuple[str, ...] = ()
    numbers: Numbers | None = None


def sections(results: TaskResults) -> list[Section]:
    """All sections of a task, drawn."""
    parts = (_distribution, _modes, _length, _positions, _rounds, _time)
    with figures.drawing():
        return [section for part in parts for section in part(results)]


def _distribution(results: TaskResults) -> Iterator[Section]:
    rows = tuple(
        (
            system.name,
            _percent(system.ap.mean()),
            *(_percent(value) for value in np.quantile(system.ap, [0.25, 0.5, 0.75])),
            str(int((system.ap == 0).sum())),
            str(int((system.ap == 1).sum())),
        )
        for system in results.systems
    )
    about_measure = (
        ()
        if results.measure == CARD_MAP
        else ("A TREC run file holds neither the order nor the texts of candidates, so AP is mteb's here.",)
    )
    yield Section(
        "ap",
        "Average precision by query",
        f"How many of the {len(results.query_ids)} queries have which AP ({results.measure}); the line is the mean.",
        figures.ap_distribution(results),
        notes=(*(note for system in results.systems for note in system.run.notes), *about_measure),
        numbers=Numbers(("Run", "Mean", "25 %", "Median", "75 %", "Queries at 0", "Queries at 100"), rows),
    )


def _modes(results: TaskResults) -> Iterator[Section]:
    title = "Iterative against conventional inference"
    for number, (conventional, iterative) in enumerate(results.mode_pairs):
        rose, stayed, fell = count_wins(iterative.ap - conventional.ap)
        mean = 100 * float((iterative.ap - conventional.ap).mean())
        yield Section(
            f"modes-{number + 1}" if number else "modes",
            title,
            f"Each point is a query, larger where several coincide. Iterative inference ({iterative.name}) is better "
            f"than conventional ({conventional.name}) on {rose} queries, the same on {stayed} and worse on {fell}; "
            f"{_signed(mean)} points on average.",
            figures.mode_scatter(conventional, iterative),
        )
    if not results.mode_pairs:
        yield Section("modes", title, absent=_no_pair(results))


def _no_pair(results: TaskResults) -> str:
    modes = [system.run.result.mode for system in results.systems if system.run.result is not None]
    if "iterative" not in modes:
        return "No run here used iterative inference: give a run of `listcon-eval run --mode iterative` (or both)."
    return (
        "No model here was run in both modes with the same settings: give the conventional run with the iterative "
        "one (`listcon-eval run --mode both`)."
    )


def _length(results: TaskResults) -> Iterator[Section]:
    title = "Gain of iterative inference by list length"
    if not results.mode_pairs:
        yield Section("length", title, absent=_no_pair(results))
        return
    rows = [
        (
            f"{iterative.letter} over {conventional.letter}",
            span(found.min_length, found.max_length),
            str(found.queries),
            _signed(found.gain),
        )
        for conventional, iterative in results.mode_pairs
        for found in run_data.gain_by_length(results.lengths, 100 * (iterative.ap - conventional.ap))
    ]
    notes = []
    if short := int((results.lengths <= MODES_EQUAL).sum()):
        same = f"{short} of {len(results.lengths)} queries have at most {MODES_EQUAL} candidates"
        notes.append(f"{same}: both modes are the same there.")
    yield Section(
        "length",
        title,
        "Points are queries, the line joins the means of queries of similar length.",
        figures.gain_by_length(results, results.mode_pairs),
        notes=tuple(notes),
        numbers=Numbers(("Runs", "Candidates", "Queries", "Mean gain, points"), tuple(rows)),
    )


def _positions(results: TaskResults) -> Iterator[Section]:
    title = "Ranks of relevant passages before and after"
    after = [Curve(s.name, run_data.ranks_of_relevant(results, s), s) for s in results.systems]
    relevant = len(after[0].ranks)
    if relevant == 0:
        yield Section("positions", title, absent="No candidate of this task is judged relevant.")
        return
    before, note = _before(results)
    if results.before is not None:
        place = results.systems.index(results.before)
        before = [Curve(results.before.name, after.pop(place).ranks, None)]
    curves = [*before, *after]
    depths = np.array([1, 5, 10, 20, 100])
    rows = tuple(
        (
            f"{'after' if curve.system else 'before'}, {curve.name}",
            _median(curve.ranks),
            *(_percent(share) for share in run_data.share_within(curve.ranks, depths)),
        )
        for curve in curves
    )
    yield Section(
        "positions",
        title,
        f"The share of the {relevant} relevant passages within the first k.",
        figures.relevant_positions(curves, int(results.lengths.max())),
        notes=(note, "A tied passage counts in equal shares at each of the ranks it can have."),
        numbers=Numbers(("Order", "Median rank", *(f"Within {k}, %" for k in depths)), rows),
    )


def _median(ranks: NDArray[np.int64]) -> str:
    median = float(np.median(ranks.mean(axis=1)))
    return f"{median:g}" if median < run_data.NOT_RANKED / 2 else "not ranked"


def _before(results: TaskResults) -> tuple[list[Curve], str]:
    """The curve of the data's candidate order if that is the first stage, and a note on what "before" is."""
    if results.before is not None:
        return [], f"Before is the ranking of {results.before.name}, over the same candidates."
    if not results.has_candidate_order:
        return [], (
            "TREC run files do not hold the order of the candidates, so there is no curve for before, and relevant "
            "documents that they do not list are not counted."
        )
    order = [Curve("candidate order of the data", run_data.candidate_places(results), None)]
    first, both = run_data.positives_first(results)
    if not first:
        return order, "Before is the order in which the data lists its candidates."
    return order, (
        f"Before is the order in which the data lists its candidates, and in {first} of {both} queries it lists the "
        "relevant ones first, as the original C-MTEB layout does: that order comes from the judgements, so nothing "
        "can be better than it. Give a first stage's run, such as BM25, with --before."
    )


def _rounds(results: TaskResults) -> Iterator[Section]:
    title = "Rounds of iterative inference"
    iterative = [system for system in results.systems if system.is_iterative]
    for number, system in enumerate(iterative):
        found = run_data.round_counts(results, system)
        lost = sum(row.dropped_relevant for row in found)
        relevant = lost + sum(row.kept_relevant for row in found)
        rows = tuple((*map(str, row), _share(row.dropped_relevant + row.kept_relevant, relevant)) for row in found)
        yield Section(
            f"rounds-{number + 1}" if number else "rounds",
            title,
            f"{system.name}: of {relevant} relevant passages {lost} ({_share(lost, relevant)} %) were dropped before "
            "the last round of their list; a dropped passage does not come back.",
            figures.rounds(found),
            notes=() if len(found) > 1 else (f"No list is longer than {MODES_EQUAL} candidates: one round each.",),
            numbers=Numbers(
                ("Round", "Dropped", "of these relevant", "Last round", "of these relevant", "Share of relevant, %"),
                rows,
            ),
        )
    if not iterative:
        yield Section("rounds", title, absent="No run here used iterative inference, so there are no rounds.")


def _time(results: TaskResults) -> Iterator[Section]:
    title = "Time by phase and throughput"
    timed = [(system, found) for system in results.systems if (found := run_data.phase_times(system)) is not None]
    if not timed:
        yield Section("time", title, absent="No run here says how long it took (a TREC run file does not).")
        return
    phases = run_data.phases_of([found for _, found in timed])
    rows = tuple(
        (
            system.name,
            *(f"{found.seconds.get(phase, 0.0):.2f}" for phase in phases),
            f"{sum(found.seconds.values()):.2f}",
            _rate(found.passages, found.ranking),
            _rate(found.queries, found.ranking),
        )
        for system, found in timed
    )
    notes = [
        "Phases can overlap, so their sum can be more than the time on the clock. Loading the model is left out; "
        "throughput leaves out the computing of metrics too."
    ]
    reusing = [s.letter for s, found in timed if found.seconds.get("encode") == 0 and found.seconds.get("list", 0) > 0]
    if reusing:
        notes.append(
            f"{', '.join(reusing)} encoded nothing: both modes of one run share their features, so its throughput is "
            "that of ranking alone."
        )
    resumed = [s.letter for s, _ in timed if s.provenance is not None and s.provenance.resumed_chunks]
    if resumed:
        notes.append(
            f"{', '.join(resumed)} resumed an interrupted run: the time before the interrupt is not in these figures."
        )
    yield Section(
        "time",
        title,
        "Seconds of each run by phase: "
        + "; ".join(f"{s.letter} {sum(found.seconds.values()):.2f} s" for s, found in timed)
        + ".",
        figures.phases([system for system, _ in timed], [found for _, found in timed]),
        notes=tuple(notes),
        numbers=Numbers(("Run", *(f"{phase}, s" for phase in phases), "Sum, s", "Passages/s", "Queries/s"), rows),
    )


def span(shortest: int, longest: int) -> str:
    """A range of lengths in words."""
    return str(shortest) if shortest == longest else f"{shortest} to {longest}"


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.0f}" if seconds > 0 else "-"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def _signed(points: float) -> str:
    return f"{round(points, 2) + 0.0:+.2f}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"
