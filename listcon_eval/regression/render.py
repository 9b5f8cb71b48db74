"""A verdict as text for people, as JSON for programs, and as JUnit XML for build servers."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from listcon_eval.errors import count_of
from listcon_eval.regression.baseline import RunKey
from listcon_eval.regression.check import ChangedQuery, MetricChange, Verdict
from listcon_eval.tables import Style, code, escaped, heading, table

# XML 1.0 has no way to write these characters, not even escaped.
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_RUN = ("Task", "Mode", "Dtype")


def as_text(verdict: Verdict, style: Style = "terminal", *, width: int | None = None) -> str:
    """The verdict for people: what fell, what rose, which queries changed, and what is not comparable.

    The terminal gets the fields in which the signatures differ, Markdown the full signatures as well.
    """
    parts = [heading(_summary(verdict), style)]
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
            name = _xml(f"{which} signature of {key}")
            ElementTree.SubElement(properties, "property", name=name, value=_xml(str(signature)))
    for change in verdict.changes:
        case = _case(suite, change.key, change.measure)
        if change.failed:
            failure = ElementTree.SubElement(case, "failure", type="regression", message=_xml(_sentence(change)))
            own = [query for query in verdict.changed if (query.key, query.measure) == (change.key, change.measure)]
            failure.text = _xml(_queries_table(own, "terminal", None)) if own else None
        elif change.fell or change.rose:
            ElementTree.SubElement(case, "system-out").text = _xml(_sentence(change))
    for key, reason in verdict.not_comparable.items():
        ElementTree.SubElement(_case(suite, key, "comparable"), "error", type="not comparable", message=_xml(reason))
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, key: RunKey, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=_xml(".".join(key)), name=_xml(name), time="0")


def _xml(text: str) -> str:
    """Text that XML can hold: characters that it cannot become U+FFFD."""
    return _NOT_IN_XML.sub("\ufffd", text)


def _summary(verdict: Verdict) -> str:
    held = f"{len(verdict.changes) - len(verdict.failed)} of {len(verdict.changes)} metrics hold"
    return f"{held}; not comparable: {count_of(len(verdict.not_comparable), 'run')}" if verdict.not_comparable else held


def _sentence(change: MetricChange) -> str:
    said = f"{100 * change.before:.2f} to {100 * change.after:.2f} percent ({100 * change.change:+.2f}"
    tested = "" if change.p is None else f", p = {change.p:.4f} (Holm)"
    return f"{change.key}: {change.measure} went from {said}, tolerance {100 * change.tolerance:.2f}{tested})"


def _changes_table(changes: Sequence[MetricChange], style: Style, width: int | None) -> str:
    tested = any(change.p is not None for change in changes)
    rows = [
        [
            *change.key,
            change.measure,
            f"{100 * change.before:.2f}",
            f"{100 * change.after:.2f}",
            f"{100 * change.change:+.2f}",
            f"{100 * change.tolerance:.2f}",
            *(["-" if change.p is None else f"{change.p:.4f}"] if tested else []),
        ]
        for change in changes
    ]
    headers = [*_RUN, "Measure", "Baseline", "Now", "Change", "Tolerance", *(["p (Holm)"] if tested else [])]
    return table(headers, rows, style, width=width)


def _queries_table(queries: Sequence[ChangedQuery], style: Style, width: int | None) -> str:
    rows = [
        [*query.key, query.query_id, query.measure, f"{100 * query.before:.2f}", f"{100 * query.after:.2f}"]
        for query in queries
    ]
    return table([*_RUN, "Query", "Measure", "Baseline", "Now"], rows, style, width=width)
