"""JUnit XML, which build servers show as test results: a test case for each gate, or for each objective of a run.

There is no standard; this is what Jenkins, GitLab, GitHub actions and others read alike: `testsuites`, `testsuite` with
its counts, `testcase` with a `failure` where it failed, an `error` where it could not be decided, and `skipped` where
it is no gate, which the exit code ignores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from loadbench.core.text import printable
from loadbench.report.compare import gate_change

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from loadbench.results.compare import Comparison
    from loadbench.results.run import LevelResult, Run, Status

# (class, name, "failure", "error", "skipped" or "", message, text)
_Case = tuple[str, str, str, str, str]


def compare_junit(comparison: Comparison) -> str:
    """A test case for each gate, with a line for each level that it was checked at."""
    cases = []
    for gate in comparison.gates:
        lines, wrong = [], []
        for check in gate.checks:
            place = f" at {check.level}" if check.level and "@" not in gate.rule else ""
            seen = "; ".join(text for text in (gate_change(check), check.note) if text)
            lines.append(f"{check.decision:9}  {gate.rule}{place}" + (f": {seen}" if seen else ""))
            if check.decision != "PASS":
                wrong.append(" ".join(lines[-1].split()))
        kind = "" if gate.passed else "error" if gate.passed is None else "failure"
        cases.append(("loadbench.compare", gate.rule, kind, "; ".join(wrong), "\n".join(lines)))
    return _document("loadbench compare", cases, note=comparison.conclusion)


def run_junit(run: Run) -> str:
    """For each level whether it is valid, and each of its objectives; models and runs that failed are errors."""
    statuses = {level.verdict.status for level in run.levels}
    # A server beyond its limit is a finding, unless no level shows a load that it keeps up with.
    errors: set[Status] = {"INVALID"} if "VALID" in statuses else {"INVALID", "OVERLOADED"}
    # As in the exit code: what could not be decided is an error, unless the user says what it is.
    undecided = {"pass": "", "fail": "failure"}.get(str(run.scenario.get("slo", {}).get("undecided")), "error")
    cases = [case for level in run.levels for case in _level_cases(level, errors, undecided)]
    cases += [
        ("loadbench.models", status.model, "error", f"{status.status}: {status.reason}", "")
        for status in run.models
        if status.status != "ok"
    ]
    if not run.complete:
        cases.append(("loadbench.run", "complete", "error", "the run was stopped or is still running", ""))
    return _document(f"loadbench {run.name}", cases, note=run.question, timestamp=run.started_at)


def _level_cases(level: LevelResult, errors: Collection[Status], undecided: str) -> list[_Case]:
    # Build servers make packages of the dots in a class name.
    name = f"loadbench.{level.model.replace('.', '_')}.{level.load.label.replace('.', '_')}"
    reasons = [f"{reason.message}; {reason.advice}" for reason in level.verdict.reasons]
    kind = "error" if level.verdict.status in errors else ""
    cases = [(name, "valid", kind, "; ".join(reasons) if kind else "", "\n".join(reasons))]
    for decided in level.objectives:
        value = "" if decided.value is None else f"value {decided.value:.6g}"
        interval = ""
        if decided.interval is not None:
            ends = ["infinite" if end is None else f"{end:.6g}" for end in decided.interval]
            interval = f"interval {' to '.join(ends)}"
        message = ", ".join(text for text in (decided.decision, value, interval, decided.note) if text)
        kind = {"PASS": "", "FAIL": "failure", "UNDECIDED": undecided}[decided.decision]
        if decided.decision != "PASS" and not decided.gate:
            kind, message = "skipped", f"{message}; no gate (--fail-on)"
        cases.append((name, decided.rule, kind, message if kind else "", message))
    return cases


def _document(name: str, cases: Sequence[_Case], *, note: str, timestamp: str = "") -> str:
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(kind == "failure" for _, _, kind, _, _ in cases)),
        "errors": str(sum(kind == "error" for _, _, kind, _, _ in cases)),
    }
    skipped = str(sum(kind == "skipped" for _, _, kind, _, _ in cases))
    root = ET.Element("testsuites", counts)
    suite = ET.SubElement(root, "testsuite", {"name": printable(name), **counts, "skipped": skipped, "time": "0"})
    if timestamp:
        # The type of this attribute has no time zone.
        suite.set("timestamp", printable(timestamp.removesuffix("Z")))
    for classname, title, kind, message, text in cases:
        case = ET.SubElement(
            suite, "testcase", {"classname": printable(classname), "name": printable(title), "time": "0"}
        )
        if kind:
            about = {"message": printable(message)} | ({"type": kind} if kind != "skipped" else {})
            ET.SubElement(case, kind, about).text = _lines(text)
        elif text:
            ET.SubElement(case, "system-out").text = _lines(text)
    if note:
        ET.SubElement(suite, "system-out").text = _lines(note)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _lines(text: str) -> str:
    """Line by line, without what XML cannot hold."""
    return "\n".join(map(printable, text.split("\n")))
