"""The sections of a report, a task each: figures with captions that say in words what they show."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from listcon_eval.report import facts, figures
from listcon_eval.report.figures import MODES_EQUAL, Curve
from listcon_eval.report.material import System, TaskMaterial


@dataclass(frozen=True)
class Numbers:
    """A small table below a figure: the names of its columns and its rows, as text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Section:
    """One thing that is shown of a task.

    Attributes:
        key: its short name: file name and anchor.
        title: its heading.
        caption: what is seen, in words and numbers.
        figure: the figure; None when the section does not apply.
        absent: why it does not apply; None when it does.
        notes: what has to be known to read it rightly.
        numbers: the numbers behind it.
    """

    key: str
    title: str
    caption: str = ""
    figure: Figure | None = None
    absent: str | None = None
    notes: tuple[str, ...] = field(default=())
    numbers: Numbers | None = None


def sections(material: TaskMaterial, progress: Callable[[], None] = lambda: None) -> list[Section]:
    """All sections of a task, drawn.

    Args:
        material: the task.
        progress: called after each.
    """
    found = []
    with figures.drawing():
        for part in (_distribution, _modes, _length, _positions, _rounds, _time):
            found += list(part(material))
            progress()
    return found


def _distribution(material: TaskMaterial) -> Iterator[Section]:
    rows = tuple(
        (
            system.name,
            _percent(system.ap.mean()),
            *(_percent(float(value)) for value in _quartiles(system)),
            str(int((system.ap == 0).sum())),
            str(int((system.ap == 1).sum())),
        )
        for system in material.systems
    )
    yield Section(
        "ap",
        "Average precision by query",
        f"How many of the {len(material.query_ids)} queries have which AP ({material.measure}); the line is the mean.",
        figures.ap_distribution(material),
        notes=()
        if str(material.measure) == "cmteb:map"
        else ("A TREC run file holds neither the order nor the texts of candidates, so AP is mteb's here.",),
        numbers=Numbers(("Run", "Mean", "25 %", "Median", "75 %", "Queries at 0", "Queries at 100"), rows),
    )


def _quartiles(system: System) -> list[float]:
    return [float(value) for value in np.quantile(system.ap, [0.25, 0.5, 0.75])]


def _modes(material: TaskMaterial) -> Iterator[Section]:
    title = "Iterative against conventional inference"
    for number, (conventional, iterative) in enumerate(material.mode_pairs):
        rose, stayed, fell = facts.count_changes(conventional.ap, iterative.ap)
        mean = 100 * float((iterative.ap - conventional.ap).mean())
        yield Section(
            f"modes-{number + 1}" if number else "modes",
            title,
            f"Each point is a query, larger where several coincide. Iterative inference ({iterative.name}) is better "
            f"than conventional ({conventional.name}) on {rose} queries, the same on {stayed} and worse on {fell}; "
            f"{_signed(mean)} points on average.",
            figures.mode_scatter(conventional, iterative),
        )
    if not material.mode_pairs:
        yield Section("modes", title, absent=_no_pair(material))


def _no_pair(material: TaskMaterial) -> str:
    modes = [system.run.record.mode for system in material.systems if system.run.record is not None]
    if "iterative" not in modes:
        return "No run here used iterative inference: give a run of `listcon-eval run --mode iterative` (or both)."
    return (
        "No model here was run in both modes with one precision: give the conventional run beside the iterative one "
        "(`listcon-eval run --mode both`)."
    )


def _length(material: TaskMaterial) -> Iterator[Section]:
    title = "Gain of iterative inference by list length"
    if not material.mode_pairs:
        yield Section("length", title, absent=_no_pair(material))
        return
    rows = []
    for conventional, iterative in material.mode_pairs:
        for found in facts.gain_by_length(material.lengths, 100 * (iterative.ap - conventional.ap)):
            span = str(found.shortest) if found.shortest == found.longest else f"{found.shortest} to {found.longest}"
            rows.append(
                (f"{iterative.letter} over {conventional.letter}", span, str(found.queries), _signed(found.gain))
            )
    short = int((material.lengths <= MODES_EQUAL).sum())
    notes = []
    if short:
        same = f"{short} of {len(material.lengths)} queries have at most {MODES_EQUAL} candidates"
        notes.append(f"{same}: both modes are the same there.")
    if material.lengths.min() == material.lengths.max():
        notes.append(f"Every list has {material.lengths[0]} candidates, so nothing can be said of other lengths.")
    yield Section(
        "length",
        title,
        "Points are queries, the line joins the means of queries of similar length.",
        figures.gain_by_length(material, material.mode_pairs),
        notes=tuple(notes),
        numbers=Numbers(("Runs", "Candidates", "Queries", "Mean gain, points"), tuple(rows)),
    )


def _positions(material: TaskMaterial) -> Iterator[Section]:
    title = "Where relevant passages stood before and after"
    after = [Curve(s.name, facts.ranks_of_relevant(material, s), s) for s in material.systems]
    relevant = len(after[0].ranks)
    if relevant == 0:
        yield Section("positions", title, absent="No candidate of this task is judged relevant.")
        return
    before, note = _before(material)
    if material.before is not None:
        place = material.systems.index(material.before)
        before = [Curve(material.before.name, after.pop(place).ranks, None)]
    curves = [*before, *after]
    depths = np.array([1, 5, 10, 20, 100])
    rows = tuple(
        (
            f"{'after' if curve.system else 'before'}, {curve.name}",
            _median(curve.ranks),
            *(_percent(share) for share in facts.share_within(curve.ranks, depths)),
        )
        for curve in curves
    )
    yield Section(
        "positions",
        title,
        f"The share of the {relevant} relevant passages that stand within the first k.",
        figures.relevant_positions(curves, int(material.lengths.max())),
        notes=(note, "A tied passage counts in equal shares at each of the ranks it can have."),
        numbers=Numbers(("Order", "Median rank", *(f"Within {k}, %" for k in depths)), rows),
    )


def _median(ranks: NDArray[np.int64]) -> str:
    median = float(np.median(ranks.mean(axis=1)))
    return f"{median:g}" if median < facts.NOT_RANKED / 2 else "not ranked"


def _before(material: TaskMaterial) -> tuple[list[Curve], str]:
    """The curve of the data's candidate order where that is what stood before, and what has to be known of it."""
    if material.before is not None:
        return [], f"Before is the ranking of {material.before.name}, over the same candidates."
    if not material.is_in_candidate_order:
        return [], (
            "TREC run files do not hold the order of the candidates, so there is no curve for before, and relevant "
            "documents that they do not list are not counted."
        )
    order = [Curve("candidate order of the data", facts.candidate_places(material), None)]
    first, both = facts.positives_first(material)
    if not first:
        return order, "Before is the order in which the data lists its candidates."
    return order, (
        f"Before is the order in which the data lists its candidates, and in {first} of {both} queries it lists the "
        "relevant ones first, as the original C-MTEB layout does: that order is no first stage's ranking, and nothing "
        "can be better than it. Give a run such as BM25 for a real one."
    )


def _rounds(material: TaskMaterial) -> Iterator[Section]:
    title = "Rounds of iterative inference"
    iterative = [system for system in material.systems if system.is_iterative]
    for number, system in enumerate(iterative):
        found = facts.rounds(material, system)
        lost = sum(row.dropped_relevant for row in found)
        relevant = lost + sum(row.kept_relevant for row in found)
        rows = tuple(
            (
                str(row.number),
                *(str(value) for value in row[1:]),
                _share(row.dropped_relevant + row.kept_relevant, relevant),
            )
            for row in found
        )
        yield Section(
            f"rounds-{number + 1}" if number else "rounds",
            title,
            f"{system.name}: of {relevant} relevant passages {lost} ({_share(lost, relevant)} %) were dropped before "
            "the last round of their list, from which none comes back.",
            figures.rounds(found),
            notes=() if len(found) > 1 else (f"No list is longer than {MODES_EQUAL} candidates: one round each.",),
            numbers=Numbers(
                ("Round", "Dropped", "of these relevant", "Last round", "of these relevant", "Share of relevant, %"),
                rows,
            ),
        )
    if not iterative:
        yield Section("rounds", title, absent="No run here used iterative inference, so there are no rounds.")


def _time(material: TaskMaterial) -> Iterator[Section]:
    title = "Time by phase and throughput"
    timed = [(system, found) for system in material.systems if (found := facts.times(system)) is not None]
    if not timed:
        yield Section("time", title, absent="No run here says how long it took (a TREC run file does not).")
        return
    phases = facts.phases_of([found for _, found in timed])
    rows = tuple(
        (
            system.name,
            *(f"{found.seconds.get(phase, 0.0):.2f}" for phase in phases),
            f"{found.total:.2f}",
            _rate(found.passages, found.ranking),
            _rate(found.queries, found.ranking),
        )
        for system, found in timed
    )
    notes = [
        "Phases can overlap, so their sum can be more than the time on the clock. Loading the model is left out; "
        "throughput leaves out measuring too."
    ]
    reusing = [s.letter for s, found in timed if found.seconds.get("encode") == 0 and found.seconds.get("list", 0) > 0]
    if reusing:
        notes.append(
            f"{', '.join(reusing)} encoded nothing: both modes of one start share their features, so its throughput is "
            "of ranking alone."
        )
    resumed = [s.letter for s, _ in timed if (s.provenance or {}).get("chunks_of_an_earlier_start")]
    if resumed:
        notes.append(
            f"{', '.join(resumed)} went on with the work of an earlier start: its time is not in these figures."
        )
    yield Section(
        "time",
        title,
        "Seconds of each run by phase: " + "; ".join(f"{s.letter} {found.total:.2f} s" for s, found in timed) + ".",
        figures.phases([system for system, _ in timed], [found for _, found in timed]),
        notes=tuple(notes),
        numbers=Numbers(("Run", *(f"{phase}, s" for phase in phases), "Sum, s", "Passages/s", "Queries/s"), rows),
    )


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.0f}" if seconds > 0 else "-"


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def _signed(points: float) -> str:
    return f"{round(points, 2) + 0.0:+.2f}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def figures_of(found: Sequence[Section]) -> list[tuple[str, Figure]]:
    """The figures of sections with their short names."""
    return [(section.key, section.figure) for section in found if section.figure is not None]
