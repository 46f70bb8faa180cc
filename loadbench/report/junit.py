"""JUnit XML, which build servers show as test results: a test case each gate, or each objective of a run.

There is no standard of it; this is what Jenkins, GitLab, GitHub actions and others read alike: `testsuites`,
`testsuite` with its counts, `testcase` with `failure` where the answer is no and `error` where there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from loadbench.core.text import printable
from loadbench.report import compare_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.compare import Comparison, Gate
    from loadbench.results.run import Decided, LevelResult, Run

# (class, name, "failure" or "error" or nothing, message, text)
_Case = tuple[str, str, str, str, str]
_KINDS = {"PASS": "", "FAIL": "failure", "UNDECIDED": "error"}


def compare_junit(comparison: Comparison) -> str:
    """A test case each gate; without gates none that could fail."""
    cases = [_of_gate(gate) for gate in comparison.gates]
    return _document("loadbench compare", cases, note=comparison.conclusion)


def run_junit(run: Run) -> str:
    """For each level, whether it can be believed, and each of its objectives."""
    cases = [case for level in run.levels for case in (_of_verdict(level), *_of_objectives(level))]
    cases += [
        ("loadbench.models", status.model, "error", f"{status.status}: {status.reason}", "")
        for status in run.models
        if status.status != "ok"
    ]
    if not run.complete:
        cases.append(("loadbench.run", "complete", "error", "the run was stopped, or is still going on", ""))
    return _document(f"loadbench {run.name}", cases, note=run.question, timestamp=run.started_at)


def _of_gate(gate: Gate) -> _Case:
    lines = compare_table.gate_lines(gate)
    kind = "" if gate.passed else "error" if gate.passed is None else "failure"
    wrong = [line for line, check in zip(lines, gate.checks, strict=True) if check.decision != "PASS"]
    return "loadbench.compare", gate.rule, kind, "; ".join(" ".join(line.split()) for line in wrong), "\n".join(lines)


def _of_verdict(level: LevelResult) -> _Case:
    kind = "error" if level.verdict.status == "INVALID" else ""
    reasons = [f"{reason.message}; {reason.advice}" for reason in level.verdict.reasons]
    return _class(level), "valid", kind, "; ".join(reasons) if kind else "", "\n".join(reasons)


def _of_objectives(level: LevelResult) -> list[_Case]:
    return [
        (_class(level), one.rule, _KINDS[one.decision], _message(one) if _KINDS[one.decision] else "", _message(one))
        for one in level.objectives
    ]


def _class(level: LevelResult) -> str:
    """Dots make packages of a class name, and so the model is one name."""
    return f"loadbench.{level.model.replace('.', '_')}.{level.load.label.replace('.', '_')}"


def _message(one: Decided) -> str:
    value = "" if one.value is None else f"value {one.value:.6g}"
    interval = "" if one.interval is None else f"interval {_end(one.interval[0])} to {_end(one.interval[1])}"
    return ", ".join(text for text in (one.decision, value, interval, one.note) if text)


def _end(value: float | None) -> str:
    return "infinite" if value is None else f"{value:.6g}"


def _document(name: str, cases: Sequence[_Case], *, note: str, timestamp: str = "") -> str:
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(kind == "failure" for _, _, kind, _, _ in cases)),
        "errors": str(sum(kind == "error" for _, _, kind, _, _ in cases)),
    }
    root = ET.Element("testsuites", counts)
    suite = ET.SubElement(root, "testsuite", {"name": printable(name), **counts, "skipped": "0", "time": "0"})
    if timestamp:
        # The type of this attribute knows no zone.
        suite.set("timestamp", printable(timestamp.removesuffix("Z")))
    for classname, title, kind, message, text in cases:
        case = ET.SubElement(
            suite, "testcase", {"classname": printable(classname), "name": printable(title), "time": "0"}
        )
        if kind:
            found = ET.SubElement(case, kind, {"message": printable(message), "type": kind})
            found.text = _lines(text)
        elif text:
            ET.SubElement(case, "system-out").text = _lines(text)
    if note:
        ET.SubElement(suite, "system-out").text = _lines(note)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _lines(text: str) -> str:
    """Without what XML cannot hold, line by line."""
    return "\n".join(map(printable, text.split("\n")))
