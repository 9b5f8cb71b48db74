"""The sections of a task in a report: each counts something, draws it, and says in words and numbers what is seen."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from listcon_eval.comparison.statistics import count_wins
from listcon_eval.report import run_data
from listcon_eval.report.figures import INK, MUTED, PALETTE, drawing, new_figure, short, whole_log
from listcon_eval.report.run_data import SystemRun, TaskResults
from listcon_eval.tables import percent

MODES_EQUAL = 20
"""Up to this many candidates both modes give the same ranking."""
_BINS = np.linspace(0, 1, 21)
_MAX_POINTS = 1_500  # above it points are drawn as a picture: an SVG of ten thousand shapes is slow to show
_DASHED = (0, (4, 3))


@dataclass(frozen=True)
class Section:
    """A figure with its caption, or the reason why there is none."""

    key: str  # the short name for files and links
    title: str
    caption: str = ""  # what is seen, in words and numbers
    figure: Figure | None = None  # None when the section does not apply
    absent: str | None = None  # why it does not apply; None when it does
    notes: tuple[str, ...] = ()  # what a reader has to know to read it correctly
    columns: tuple[str, ...] = ()  # of a small table below the figure
    rows: tuple[tuple[str, ...], ...] = ()  # its rows, as text


def sections(results: TaskResults) -> list[Section]:
    """All sections of a task, drawn."""
    parts = (_distribution, _modes, _length, _positions, _rounds, _time)
    with drawing():
        return [section for part in parts for section in part(results)]


def _distribution(results: TaskResults) -> Iterator[Section]:
    """Histograms of per-query AP, one per system, with the mean marked."""
    systems = results.systems
    figure = new_figure(0.7 + 0.62 * len(systems))
    panels = figure.subplots(len(systems), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, system in zip(panels, systems, strict=True):
        counts, _ = np.histogram(system.ap, bins=_BINS)
        axes.bar(_BINS[:-1], counts, width=np.diff(_BINS), align="edge", color=_colour(system), alpha=0.75, linewidth=0)
        axes.axvline(system.ap.mean(), color=INK, linewidth=1.2)
        axes.set_title(short(system.name), loc="left")
        axes.set_title(f"mean {percent(system.ap.mean())}", loc="right")
        axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        axes.set_xlim(0, 1)
    panels[-1].set_xlabel(f"{results.value_name} of a query ({results.measure})")
    figure.supylabel("queries")
    notes = [note for system in systems for note in system.run.notes]
    if any(system.run.result is None for system in systems):
        notes.append(
            "A TREC run file holds neither the order nor the texts of candidates: the protocol is mteb's here."
        )
    yield Section(
        "ap",
        f"{results.value_name} by query",
        f"How many of the {len(results.query_ids)} queries have which {results.value_name} ({results.measure}); the "
        "line is the mean.",
        figure,
        notes=tuple(notes),
        columns=("Run", "Mean", "25 %", "Median", "75 %", "Queries at 0", "Queries at 100"),
        rows=tuple(
            (
                system.name,
                percent(system.ap.mean()),
                *map(percent, np.quantile(system.ap, [0.25, 0.5, 0.75])),
                str((system.ap == 0).sum()),
                str((system.ap == 1).sum()),
            )
            for system in systems
        ),
    )


def _modes(results: TaskResults) -> Iterator[Section]:
    """Iterative against conventional AP: a point for each pair of values, its area the number of queries."""
    title = "Iterative against conventional inference"
    for number, (conventional, iterative) in enumerate(results.mode_pairs, start=1):
        figure = new_figure(4.2)
        axes = figure.subplots()
        values = np.stack([conventional.ap, iterative.ap], axis=1).round(4)
        points, sizes = np.unique(values, axis=0, return_counts=True)
        change = points[:, 1] - points[:, 0]
        for sign, code in ((1, PALETTE[2]), (0, MUTED), (-1, PALETTE[1])):
            own = np.sign(np.where(abs(change) < 1e-4, 0, change)) == sign
            _scatter(axes, points[own, 0], points[own, 1], len(points), s=14 * np.sqrt(sizes[own]), c=code, alpha=0.55)
        axes.axline((0, 0), slope=1, color=MUTED, linewidth=0.8, linestyle=_DASHED)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        unit = results.value_name
        axes.set_xlabel(f"conventional ({conventional.letter}), {unit}")
        axes.set_ylabel(f"iterative ({iterative.letter}), {unit}")
        rose, stayed, fell = count_wins(iterative.ap - conventional.ap)
        yield Section(
            "modes" if number == 1 else f"modes-{number}",
            title,
            f"Each point is a query, larger where several coincide. Iterative inference ({iterative.name}) is better "
            f"than conventional ({conventional.name}) on {rose} queries, the same on {stayed} and worse on {fell}; "
            f"{_signed(100 * (iterative.ap - conventional.ap).mean())} points on average.",
            figure,
        )
    if not results.mode_pairs:
        yield Section("modes", title, absent=_no_pair(results))


def _no_pair(results: TaskResults) -> str:
    if all(system.mode != "iterative" for system in results.systems):
        return "No run here used iterative inference: give a run of `listcon-eval run --mode iterative` (or both)."
    return (
        "No model here was run in both modes with the same settings: give the conventional run with the iterative "
        "one (`listcon-eval run --mode both`)."
    )


def _length(results: TaskResults) -> Iterator[Section]:
    """The gain of iterative inference by list length: each query, and the mean of queries of similar length."""
    title = "Gain of iterative inference by list length"
    if not results.mode_pairs:
        yield Section("length", title, absent=_no_pair(results))
        return
    figure = new_figure(3.1)
    axes = figure.subplots()
    rows: list[tuple[str, ...]] = []
    for conventional, iterative in results.mode_pairs:
        gains, name = 100 * (iterative.ap - conventional.ap), f"{iterative.letter} over {conventional.letter}"
        _scatter(axes, results.lengths, gains, len(gains), s=11, color=_colour(iterative), alpha=0.35)
        bins = run_data.gain_by_length(results.lengths, gains)
        axes.plot(
            (bins["shortest"] + bins["longest"]) / 2,
            bins["gain"],
            color=_colour(iterative),
            marker="o",
            markersize=4.5,
            label=short(f"{name}: mean of similar lengths"),
        )
        rows += [
            (name, span(low, high), str(queries), _signed(gain))
            for low, high, queries, gain in bins.itertuples(index=False, name=None)
        ]
    axes.axhline(0, color=MUTED, linewidth=0.8)
    longest, shortest = int(results.lengths.max()), int(results.lengths.min())
    if shortest <= MODES_EQUAL < longest:
        axes.axvline(MODES_EQUAL + 0.5, color=MUTED, linewidth=0.8, linestyle=_DASHED)
    axes.set(xlabel="candidates of a query", ylabel=f"gain in {results.value_name}, points")
    if longest > 10 * max(shortest, 1):
        whole_log(axes)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.legend(loc="outside lower left")
    short_lists = (results.lengths <= MODES_EQUAL).sum()
    same = f"{short_lists} of {len(results.lengths)} queries have at most {MODES_EQUAL} candidates"
    yield Section(
        "length",
        title,
        "Points are queries, the line joins the means of queries of similar length.",
        figure,
        notes=(f"{same}: both modes are the same there.",) if short_lists else (),
        columns=("Runs", "Candidates", "Queries", "Mean gain, points"),
        rows=tuple(rows),
    )


def _positions(results: TaskResults) -> Iterator[Section]:
    """The share of relevant passages within the first k, before reranking and after."""
    title = "Ranks of relevant passages before and after"
    ranks = {system.name: run_data.ranks_of_relevant(results, system) for system in results.systems}
    looks = {
        system.name: {"color": _colour(system), "linestyle": (0, (5, 2)) if system.place >= len(PALETTE) else "solid"}
        for system in results.systems
    }
    relevant = len(ranks[results.systems[0].name])
    if relevant == 0:
        yield Section("positions", title, absent="No candidate of this task is judged relevant.")
        return
    before: dict[str, NDArray[np.int64]] = {}
    note = "Before is the order in which the data lists its candidates."
    if results.before is not None:
        before = {results.before.name: ranks.pop(results.before.name)}
        note = f"Before is the ranking of {results.before.name}, over the same candidates."
    elif any(system.mode is not None for system in results.systems):
        before = {"candidate order of the data": run_data.candidate_places(results)}
        first, both = run_data.positives_first(results)
        if first:
            note = (
                f"{note[:-1]}, and in {first} of {both} queries it lists the relevant ones first, as the original "
                "C-MTEB layout does: that order comes from the judgements, so nothing can be better than it. Give a "
                "first stage's run, such as BM25, with --before."
            )
    else:
        note = (
            "TREC run files do not hold the order of the candidates, so there is no curve for before, and relevant "
            "documents that they do not list are not counted."
        )
    figure = new_figure(2.8 + 0.18 * len(before | ranks))
    axes = figure.subplots()
    depths = np.unique(np.geomspace(1, max(results.lengths.max(), 2), 200).round().astype(np.int64))
    shown = np.array([1, 5, 10, 20, 100])
    rows = []
    for name, own in (before | ranks).items():
        is_before = name in before
        look: dict[str, Any] = {"color": INK, "linestyle": (0, (2, 2))} if is_before else looks[name]
        label = short(f"before: {name}" if is_before else name)
        axes.step(depths, 100 * run_data.share_within(own, depths), where="post", label=label, **look)
        median = float(np.median(own.mean(axis=1)))
        rows.append(
            (
                f"{'before' if is_before else 'after'}, {name}",
                f"{median:g}" if median < run_data.NOT_RANKED / 2 else "not ranked",
                *map(percent, run_data.share_within(own, shown)),
            )
        )
    whole_log(axes)
    axes.set(xlabel="rank k", ylabel="relevant passages within k, %", ylim=(0, 102))
    figure.legend(loc="outside lower left")
    yield Section(
        "positions",
        title,
        f"The share of the {relevant} relevant passages within the first k.",
        figure,
        notes=(note, "A tied passage counts in equal shares at each of the ranks it can have."),
        columns=("Order", "Median rank", *(f"Within {k}, %" for k in shown)),
        rows=tuple(rows),
    )


def _rounds(results: TaskResults) -> Iterator[Section]:
    """Passages that leave in each round: all of them above, the relevant ones below."""
    title = "Rounds of iterative inference"
    iterative = [system for system in results.systems if system.mode == "iterative"]
    for number, system in enumerate(iterative, start=1):
        found = run_data.round_counts(results, system)
        figure = new_figure(3.4)
        above, below = figure.subplots(2, 1, sharex=True)
        for axes, suffix, name in ((above, "", "passages"), (below, "_relevant", "relevant passages")):
            dropped, kept = found[f"dropped{suffix}"], found[f"kept{suffix}"]
            first = axes.bar(found.index, dropped, color=PALETTE[1], alpha=0.8, width=0.7)
            last = axes.bar(found.index, kept, bottom=dropped, color=PALETTE[0], alpha=0.8, width=0.7)
            axes.set_ylabel(name)
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        below.set_xlabel("round (0 is the first)")
        below.xaxis.set_major_locator(MaxNLocator(10, integer=True))
        names = ["ranked in the last round of their list", "dropped from the tail"]
        figure.legend([last, first], names, loc="outside lower center")
        lost = found["dropped_relevant"].sum()
        relevant = found["dropped_relevant"] + found["kept_relevant"]
        shares = [f"{100 * own / relevant.sum():.1f}" if relevant.any() else "-" for own in (lost, *relevant)]
        yield Section(
            "rounds" if number == 1 else f"rounds-{number}",
            title,
            f"{system.name}: of {relevant.sum()} relevant passages {lost} ({shares[0]} %) were dropped before the last "
            "round of their list; a dropped passage does not come back.",
            figure,
            notes=() if len(found) > 1 else (f"No list is longer than {MODES_EQUAL} candidates: one round each.",),
            columns=(
                "Round",
                "Dropped",
                "of these relevant",
                "Last round",
                "of these relevant",
                "Share of relevant, %",
            ),
            rows=tuple(
                (*map(str, row), share) for row, share in zip(found.itertuples(name=None), shares[1:], strict=True)
            ),
        )
    if not iterative:
        yield Section("rounds", title, absent="No run here used iterative inference, so there are no rounds.")


def _time(results: TaskResults) -> Iterator[Section]:
    """Seconds by phase, one bar per system. Loading the model is left out: it is no work on queries."""
    title = "Time by phase and throughput"
    seconds = {
        system: {phase: spent for phase, spent in system.provenance.seconds.items() if phase != "load"}
        for system in results.systems
        if system.provenance is not None and system.provenance.seconds
    }
    if not seconds:
        yield Section("time", title, absent="No run here says how long it took (a TREC run file does not).")
        return
    figure = new_figure(1.2 + 0.38 * len(seconds))
    axes = figure.subplots()
    phases = list(dict.fromkeys(phase for own in seconds.values() for phase in own))
    start = np.zeros(len(seconds))
    for number, phase in enumerate(phases):
        spent = np.array([own.get(phase, 0.0) for own in seconds.values()])
        colour = PALETTE[number % len(PALETTE)]
        axes.barh(range(len(seconds)), spent, left=start, height=0.62, color=colour, alpha=0.85, label=phase)
        start += spent
    axes.set_yticks(range(len(seconds)), [system.letter for system in seconds])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("seconds")
    figure.legend(loc="outside lower center", ncols=4, columnspacing=1.2)
    notes = [
        "Phases can overlap, so their sum can be more than the time on the clock. Loading the model is left out; "
        "throughput leaves out the computing of metrics too."
    ]
    if reusing := [s.letter for s, own in seconds.items() if own.get("encode") == 0 and own.get("list", 0) > 0]:
        notes.append(
            f"{', '.join(reusing)} encoded nothing: both modes of one run share their features, so its throughput is "
            "that of ranking alone."
        )
    if resumed := [s.letter for s in seconds if s.provenance is not None and s.provenance.resumed_chunks]:
        notes.append(
            f"{', '.join(resumed)} resumed an interrupted run: the time before the interrupt is not in these figures."
        )

    def row(system: SystemRun) -> tuple[str, ...]:
        own = seconds[system]
        ranking = sum(own.values()) - own.get("measure", 0.0)
        counts = (sum(len(entry.doc_ids) for entry in system.rankings.values()), len(system.rankings))
        rates = [f"{count / ranking:,.0f}" if ranking > 0 else "-" for count in counts]
        return (system.name, *(f"{own.get(phase, 0.0):.2f}" for phase in phases), f"{sum(own.values()):.2f}", *rates)

    yield Section(
        "time",
        title,
        "Seconds of each run by phase: "
        + "; ".join(f"{system.letter} {sum(own.values()):.2f} s" for system, own in seconds.items())
        + ".",
        figure,
        notes=tuple(notes),
        columns=("Run", *(f"{phase}, s" for phase in phases), "Sum, s", "Passages/s", "Queries/s"),
        rows=tuple(map(row, seconds)),
    )


def _colour(system: SystemRun) -> str:
    """A system's colour, the same in every figure."""
    return PALETTE[system.place % len(PALETTE)]


def _scatter(axes: Axes, x: NDArray[Any], y: NDArray[Any], points: int, **look: Any) -> None:  # noqa: ANN401
    axes.scatter(x, y, linewidths=0, rasterized=points > _MAX_POINTS, **look)


def span(shortest: int, longest: int) -> str:
    """A range of lengths in words."""
    return str(shortest) if shortest == longest else f"{shortest} to {longest}"


def _signed(points: float) -> str:
    return f"{round(points, 2) + 0.0:+.2f}"
