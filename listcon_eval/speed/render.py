"""Measurements as text for a terminal, and as a Markdown file that several machines can share."""

import re
from collections.abc import Sequence
from statistics import median

from tabulate import tabulate

from listcon_eval.inference.memory import in_words
from listcon_eval.speed.records import Measurement, Timing

_PREFACE = """# Benchmarks

Made by `listcon-eval bench --output`; a section a machine and model, a part a workload, written anew by the next run
on the same. All ratios are of times measured in one run, taking turns: the median, and the least and the most over the
repeats.

- **published procedure**: one query at a time, its texts padded to its longest, transformers' own BertModel; iterative
  inference encodes every surviving text again in every round. Measured on a few lists spread over the workload.
- **features kept**: the same, every text of a query encoded once.
- **engine**: what `listcon-eval run` does, from texts to scores, on the whole workload.

Ratios compare the time a passage, since the lists of the reference are a part of the workload. Rankings are compared up
to exact ties of the procedure's scores; where a list's order differs, the line says how far apart the scores were that
changed places: the same float32 sums, taken in another order, are some 1e-7 apart.

How much can there be to gain? The device's own matrix product, measured beside, is what no encoder exceeds: the line of
the engine says the ratio that encoding alone would have at all of it, and that of the encoder how much of it
transformers uses already.
"""


def as_text(measurement: Measurement) -> str:
    """One measurement for a terminal."""
    lines = [
        f"{measurement.workload}; {measurement.mode} inference, precision {measurement.precision}",
        "",
        _ways(measurement, "simple"),
        "",
        *_facts(measurement),
    ]
    return "\n".join(lines)


def markdown_with(existing: str | None, measurements: Sequence[Measurement], command: str) -> str:
    """The Markdown file with measurements of one run put in.

    Args:
        existing: the file as it is; None for a new one.
        measurements: those of one run: one machine and model.
        command: the command that made them.

    Returns:
        The file with their parts, one a workload and mode, in the section of their machine and model: each in the place
        of the one of the same workload, or added.
    """
    first = measurements[0]
    title = f"{first.model}, {first.precision}: {first.machine}"
    sections = _split(existing or "", "## ")
    parts = _split(sections.get(title, ""), "### ")
    used = ", ".join(f"{name} {number}" for name, number in first.versions.items())
    for measurement in measurements:
        heading = f"{measurement.workload}, {measurement.mode}"
        facts = "\n".join(f"- {fact}" for fact in _facts(measurement))
        parts[heading] = (
            f"### {heading}\n\n```bash\n{command}\n```\n\n{used}.\n\n{_ways(measurement, 'github')}\n\n{facts}\n"
        )
    sections[title] = "\n".join([f"## {title}\n", *(part.rstrip("\n") + "\n" for part in parts.values())])
    return "\n".join([_PREFACE, *(section.rstrip("\n") + "\n" for section in sections.values())])


def _split(text: str, mark: str) -> dict[str, str]:
    """The parts of a Markdown text under headings of one level, by heading, without what stands before them."""
    parts = re.split(rf"^(?={mark})", text, flags=re.MULTILINE)
    return {part.partition("\n")[0].removeprefix(mark): part for part in parts if part.startswith(mark)}


def _ways(measurement: Measurement, style: str) -> str:
    """The table of the ways of ranking."""
    named = [
        ("published procedure", measurement.published),
        ("features kept", measurement.kept),
        ("engine", measurement.engine),
    ]
    headers = ("Way", "Lists", "Passages", "Seconds", "ms a query", "Times the published")
    rows = [
        (
            name,
            timing.queries,
            timing.passages,
            _spread(median(timing.seconds), timing.seconds, ".2f"),
            f"{timing.milliseconds_a_query:.1f}",
            _ratio(timing, measurement.published),
        )
        for name, timing in named
        if timing is not None
    ]
    return tabulate(rows, headers=headers, tablefmt=style, colalign=("left", *["right"] * 5), disable_numparse=True)


def _ratio(timing: Timing, published: Timing | None) -> str:
    if published is None or timing is published:
        return "-"
    middle, *ends = timing.times_faster_than(published)
    return "x" + _spread(middle, ends, ".1f")


def _facts(measurement: Measurement) -> list[str]:
    """What there is to say of the engine, a line each."""
    spent = measurement.seconds
    whole = sum(measurement.engine.seconds)
    phases = ", ".join(f"{name} {seconds / whole:.0%}" for name, seconds in measurement.phases.items())
    memory = in_words(
        measurement.host_bytes,
        measurement.device_bytes,
        memory=measurement.host_budget,
        device_memory=measurement.device_budget,
    )
    encoder = measurement.encoder
    ratio, *ends = encoder.times_faster
    fast, plain = (encoder.tokens / median(seconds) for seconds in (encoder.seconds, encoder.plain_seconds))

    def share(tokens_a_second: float) -> float:
        return tokens_a_second * encoder.flop / encoder.tokens / measurement.ceiling

    facts = [
        f"engine: {measurement.distinct_texts / spent:,.0f} distinct texts/s, {measurement.tokens / spent:,.0f} "
        f"tokens/s, {measurement.flop_a_second / 1e9:,.1f} GFLOP/s: "
        f"{measurement.flop_a_second / measurement.ceiling:.0%} of this device's matrix product "
        f"({measurement.ceiling / 1e9:,.0f} GFLOP/s)"
        + (f"; encoding alone at all of it would be x{most:.0f}" if (most := measurement.most_times_faster) else ""),
        f"phases, which overlap, as shares of its time: {phases}",
        f"peak memory of the engine, the model included: {memory}",
        f"encoder alone, {encoder.batches} batches sorted by length: {fast:,.0f} tokens/s, "
        f"x{_spread(ratio, ends, '.2f')} of transformers' BertModel sorted and padded ({plain:,.0f} tokens/s); "
        f"at {share(fast):.0%} and {share(plain):.0%} of the matrix product; {encoder.path}",
    ]
    if measurement.busy is not None:
        facts.append(f"the device was at work in {measurement.busy:.0%} of the time of encoding (profiled)")
    if (agreement := measurement.agreement) is not None:
        facts.append(
            f"rankings identical to the published procedure's, but for its exact ties: {agreement.identical} of "
            f"{agreement.lists} lists"
            + (
                f"; largest difference of its scores put in another order: {agreement.largest_gap:.1e}"
                if agreement.largest_gap
                else ""
            )
        )
    return facts


def _spread(middle: float, values: Sequence[float], form: str) -> str:
    """A number with the least and the most of its repeats."""
    if len(set(values)) < 2:
        return f"{middle:{form}}"
    return f"{middle:{form}} ({min(values):{form}} to {max(values):{form}})"
