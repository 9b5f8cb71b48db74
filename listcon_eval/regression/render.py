"""A verdict as text for people and as JUnit XML for build servers."""

from collections.abc import Sequence
from typing import Literal
from xml.etree import ElementTree

from tabulate import tabulate

from listcon_eval.regression.baseline import Key
from listcon_eval.regression.check import Finding, Verdict

Style = Literal["terminal", "markdown"]
_TABULATE = {"terminal": "simple", "markdown": "github"}


def as_text(verdict: Verdict, style: Style = "terminal") -> str:
    """The verdict for people: what fell, what rose, which queries moved, and what could not be judged."""
    parts = [_title(_summary(verdict), style)]
    for heading, findings in (
        ("Fell", verdict.failed),
        ("Fell, but not significantly", verdict.tolerated),
        ("Rose", verdict.risen),
    ):
        if findings:
            parts += [_title(heading, style), _table(findings, style)]
    if verdict.failed:
        parts += [_title("Queries that fell most", style), _queries(verdict.failed, style)]
    if verdict.unjudged:
        rows = [[str(key), reason] for key, reason in verdict.unjudged.items()]
        parts += [_title("Could not be judged", style), _tabulated(["Run", "Why"], rows, style)]
    if verdict.notes:
        parts.append("\n".join(f"- {note}" for note in verdict.notes))
    if verdict.signatures:
        parts += [_title("Signatures", style), "\n".join(_signatures(verdict, style))]
    return "\n\n".join(parts)


def as_junit(verdict: Verdict) -> str:
    """The verdict as JUnit XML: a test case a measure; a fall is a failure, what cannot be judged an error."""
    suite = ElementTree.Element(
        "testsuite",
        name="listcon-eval check",
        tests=str(len(verdict.findings) + len(verdict.unjudged)),
        failures=str(len(verdict.failed)),
        errors=str(len(verdict.unjudged)),
        skipped="0",
    )
    for finding in verdict.findings:
        case = _case(suite, finding.key, finding.measure)
        if finding.failed:
            failure = ElementTree.SubElement(case, "failure", type="regression", message=_sentence(finding))
            failure.text = _queries([finding], "terminal")
        elif finding.fell or finding.rose:
            ElementTree.SubElement(case, "system-out").text = _sentence(finding)
    for key, reason in verdict.unjudged.items():
        ElementTree.SubElement(_case(suite, key, "judged"), "error", type="not judged", message=reason)
    properties = ElementTree.Element("properties")
    for key, (before, after) in verdict.signatures.items():
        for which, signature in (("baseline", before), ("current", after)):
            ElementTree.SubElement(properties, "property", name=f"{which} signature of {key}", value=signature)
    suite.insert(0, properties)
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _case(suite: ElementTree.Element, key: Key, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=".".join(key), name=name, time="0")


def _summary(verdict: Verdict) -> str:
    held = len(verdict.findings) - len(verdict.failed)
    judged = f"{held} of {len(verdict.findings)} metrics hold"
    return f"{judged}; {len(verdict.unjudged)} runs could not be judged" if verdict.unjudged else judged


def _sentence(finding: Finding) -> str:
    said = f"{100 * finding.before:.2f} to {100 * finding.after:.2f} percent ({100 * finding.change:+.2f}"
    tested = "" if finding.p is None else f", p = {finding.p:.4f} (Holm)"
    return f"{finding.key}: {finding.measure} went from {said}, tolerance {100 * finding.tolerance:.2f}{tested})"


def _table(findings: Sequence[Finding], style: Style) -> str:
    tested = any(finding.p is not None for finding in findings)
    rows = [
        [
            *finding.key,
            finding.measure,
            f"{100 * finding.before:.2f}",
            f"{100 * finding.after:.2f}",
            f"{100 * finding.change:+.2f}",
            f"{100 * finding.tolerance:.2f}",
            *([f"{finding.p:.4f}"] if finding.p is not None else []),
        ]
        for finding in findings
    ]
    headers = ["Task", "Mode", "Precision", "Measure", "Baseline", "Now", "Change", "Tolerance"]
    return _tabulated([*headers, *(["p (Holm)"] if tested else [])], rows, style)


def _queries(findings: Sequence[Finding], style: Style) -> str:
    rows = [
        [*finding.key, finding.measure, query.query_id, f"{100 * query.before:.2f}", f"{100 * query.after:.2f}"]
        for finding in findings
        for query in finding.queries
    ]
    return _tabulated(["Task", "Mode", "Precision", "Measure", "Query", "Baseline", "Now"], rows, style)


def _signatures(verdict: Verdict, style: Style) -> list[str]:
    mark = "`" if style == "markdown" else ""
    return [
        line
        for before, after in verdict.signatures.values()
        for line in (f"- now {mark}{after}{mark}", *([f"  baseline {mark}{before}{mark}"] if before != after else []))
    ]


def _title(text: str, style: Style) -> str:
    return f"**{text}**" if style == "markdown" else text


def _tabulated(headers: Sequence[str], rows: Sequence[Sequence[str]], style: Style) -> str:
    if style == "markdown":
        rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return tabulate(rows, headers=headers, tablefmt=_TABULATE[style], disable_numparse=True)
