"""JUnit XML, which build servers show as test results: a test case for each gate, or for each objective of a run.

There is no standard; this is what Jenkins, GitLab, GitHub actions and others read alike: `testsuites`, `testsuite` with
its counts and `properties`, `testcase` with a `failure` where a gate failed, an `error` where it could not be decided,
and `skipped` where it is no gate, which the exit code ignores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from xml.etree import ElementTree as ET

from loadbench.analyze.capacity.exit_code import exit_code_of as exit_code_of_search
from loadbench.analyze.compare.gates import standing
from loadbench.analyze.level.exit_code import exit_code_of
from loadbench.core.errors import ExitCode
from loadbench.core.text import printable
from loadbench.plan.cells import cell_text
from loadbench.report.compare import gate_change
from loadbench.report.values import reason_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from loadbench.results.capacity import Capacities, Capacity
    from loadbench.results.compare import Comparison
    from loadbench.results.compare_capacity import CapacityComparison
    from loadbench.results.grid import Grid
    from loadbench.results.run import LevelResult, Run

# (class, name, "failure", "error", "skipped" or "", message, text)
Case: TypeAlias = tuple[str, str, str, str, str]
# As in the exit code: what could not be decided is an error, unless the user says what it is.
_UNDECIDED = {"pass": "", "fail": "failure"}


class Suite(NamedTuple):
    """Test cases, with `facts` about what was tested."""

    name: str
    cases: Sequence[Case]
    facts: Mapping[str, str] = {}
    note: str = ""
    time_s: float = 0.0


def compare_junit(comparison: Comparison, *, undecided: str | None = None) -> str:
    """A test case for each gate, with a line for each level that it was checked at."""
    return _document([compare_suite(comparison, undecided=undecided)])


def compare_suite(comparison: Comparison, *, undecided: str | None = None) -> Suite:
    """The test cases of a comparison; `undecided` is what a gate that is not certain counts as, for the exit code
    too."""
    kinds = {"passed": "", "failed": "failure", "undecided": _UNDECIDED.get(str(undecided), "error")}
    cases: list[Case] = []
    for gate in comparison.gates:
        lines, wrong = [], []
        for check in gate.checks:
            place = f" at {check.level}" if check.level and "@" not in gate.rule else ""
            seen = "; ".join(text for text in (gate_change(check), check.note) if text)
            lines.append(f"{check.decision:9}  {gate.rule}{place}" + (f": {seen}" if seen else ""))
            if check.decision != "PASS":
                wrong.append(" ".join(lines[-1].split()))
        kind = kinds.get(standing(gate, comparison.left_out), "error")
        cases.append(("loadbench.compare", gate.rule, kind, "; ".join(wrong), "\n".join(lines)))
    if not comparison.comparisons:
        cases.append(("loadbench.compare", "comparison", "error", comparison.conclusion, ""))
    if comparison.ended_early:
        # The exit code is not 0 then, whatever the gates say of the repeats up to there.
        cases.append(("loadbench.compare", "complete", "error", f"ended early: {comparison.ended_early}", ""))
    return Suite("loadbench compare", cases, note=comparison.conclusion)


def search_suite(capacity: Capacity, *, undecided: str | None = None) -> Suite:
    """The test case of a capacity search, as its exit code has it: failed where no load meets the objectives, an error
    where there is no answer."""
    code = exit_code_of_search(capacity, undecided=undecided)
    kind = {ExitCode.OK: "", ExitCode.GATE_FAILED: "failure"}.get(code, "error")
    said = capacity.conclusion or "the search is under way, or was killed"
    case = ("loadbench.capacity", f"{capacity.model}: {', '.join(capacity.objectives)}", kind, said, said)
    return Suite(f"loadbench capacity: {capacity.model}", [case])


def searches_junit(capacities: Capacities, *, undecided: str | None = None) -> str:
    """A suite for each model that was searched; one that could not be is an error."""
    return _document(searches_suites(capacities, undecided=undecided))


def searches_suites(capacities: Capacities, *, undecided: str | None = None) -> list[Suite]:
    """The suites of a search of several models."""
    suites = [search_suite(capacity, undecided=undecided) for capacity in capacities.searches]
    searched = {capacity.model for capacity in capacities.searches}
    for model in capacities.folders:
        if model not in searched:
            problem = capacities.failed.get(model, "not searched")
            suites.append(
                Suite(f"loadbench capacity: {model}", [("loadbench.capacity", model, "error", problem, problem)])
            )
    return suites


def grid_junit(grid: Grid, runs: Mapping[int, Run]) -> str:
    """The suites of every cell; one that failed or was not measured is an error."""
    return _document(grid_suites(grid, runs), timestamp=grid.started_at)


def grid_suites(grid: Grid, runs: Mapping[int, Run]) -> list[Suite]:
    """The suites of the cells of a grid, whose names are those of the runs."""
    suites: list[Suite] = []
    for place, cell in enumerate(grid.cells):
        named = cell_text(cell.values)
        if cell.status == "complete" and place in runs:
            suites += run_suites(runs[place])
            continue
        problem = cell.status if cell.error is None else f"{cell.error.message}; {cell.error.advice}"
        suites.append(Suite(f"loadbench {grid.name} {named}", [("loadbench.grid", named, "error", problem, problem)]))
    if suites:
        suites[0] = suites[0]._replace(note=grid.conclusion)
    return suites


def sides_junit(comparison: CapacityComparison, *, undecided: str | None = None) -> str:
    """A suite for the search of each side; one that was not searched is an error."""
    return _document(sides_suites(comparison, undecided=undecided))


def sides_suites(comparison: CapacityComparison, *, undecided: str | None = None) -> list[Suite]:
    """The suites of the searches of two sides."""
    suites = []
    for side in (comparison.a, comparison.b):
        name = f"loadbench compare --capacity: {side.name.upper()}"
        if side.capacity is None:
            problem = side.problem or "not searched"
            suites.append(Suite(name, [("loadbench.capacity", side.name.upper(), "error", problem, problem)]))
        else:
            suites.append(search_suite(side.capacity, undecided=undecided)._replace(name=name))
    return [suites[0]._replace(note=comparison.conclusion), *suites[1:]]


def run_junit(run: Run, capacity: Capacity | None = None) -> str:
    """The test cases of a run; those of a capacity search begin with its answer."""
    found = [] if capacity is None else [search_suite(capacity, undecided=undecided_of(run))]
    return _document([*found, *run_suites(run)], timestamp=run.started_at)


def undecided_of(run: Run) -> str | None:
    """What a gate that is not certain counts as, by the run's own setting: "pass", "fail", or nothing of these."""
    value = run.scenario.get("slo", {}).get("undecided")
    return value if value in _UNDECIDED else None


def run_suites(run: Run) -> list[Suite]:
    """A suite for each level, whose properties are its load and verdict, with a test case for each objective.

    Only gates fail. A gate that could not be decided is an error, and so is one of a level that is INVALID. Without
    objectives a level has one test case, its verdict, which is skipped where it is not VALID. Models that cannot be
    tested and a run that was stopped are errors, in a suite of the run.
    """
    undecided = _UNDECIDED.get(str(undecided_of(run)), "error")
    suites = [_level_suite(run, level, undecided) for level in run.levels]
    cases = [
        ("loadbench.models", status.model, "error", f"{status.status}: {status.reason}", "")
        for status in run.models
        if status.status != "ok"
    ]
    if not run.complete:
        cases.append(("loadbench.run", "complete", "error", "the run was stopped or is still running", ""))
    code = exit_code_of(run, undecided=undecided_of(run))
    has_gates = any(one.gate for level in run.levels for one in level.objectives)
    kinds = {kind for suite in suites for _, _, kind, _, _ in suite.cases} | {kind for _, _, kind, _, _ in cases}
    if has_gates and code is not ExitCode.OK and not kinds & {"failure", "error"}:
        # Every gate passes, and the measurement does not count.
        of_levels = (f"{one.load.label} is {one.verdict.status}" for one in run.levels if one.verdict.status != "VALID")
        cases.append(("loadbench.run", "verdict", "error", f"exit code {int(code)}: {', '.join(of_levels)}", ""))
    if cases or not suites:
        suites.append(Suite(f"loadbench {run.name}", cases))
    if run.question:
        suites[0] = suites[0]._replace(note=run.question)
    return suites


def _level_suite(run: Run, level: LevelResult, undecided: str) -> Suite:
    # Build servers make packages of the dots in a class name.
    name = f"loadbench.{level.model.replace('.', '_')}.{level.load.label.replace('.', '_')}"
    verdict = level.verdict
    reasons = [f"{reason_text(reason.message, reason.code)}; {reason.advice}" for reason in verdict.reasons]
    cases: list[Case] = []
    for decided in level.objectives:
        value = "" if decided.value is None else f"value {decided.value:.6g}"
        interval = ""
        if decided.interval is not None:
            ends = ["infinite" if end is None else f"{end:.6g}" for end in decided.interval]
            interval = f"interval {' to '.join(ends)}"
        message = ", ".join(text for text in (decided.decision, value, interval, decided.note) if text)
        kind = {"PASS": "", "FAIL": "failure", "UNDECIDED": undecided}[decided.decision]
        if decided.gate and verdict.status == "INVALID":
            kind, message = "error", f"the level is INVALID: {'; '.join([*reasons, message])}"
        elif decided.decision != "PASS" and not decided.gate:
            kind, message = "skipped", f"{message}; no gate (--fail-on)"
        cases.append((name, decided.rule, kind, message if kind else "", message))
    if not cases:
        kind = "" if verdict.status == "VALID" else "skipped"
        cases.append((name, "verdict", kind, "; ".join([verdict.status, *reasons]) if kind else "", ""))
    facts = {
        "loadbench.model": level.model,
        "loadbench.load": level.load.label,
        "loadbench.target": " ".join(level.targets) or level.target,
        "loadbench.verdict": verdict.status,
        "loadbench.reasons": " ".join(reason.code for reason in verdict.reasons),
        "loadbench.advice": "; ".join(reasons),
        "loadbench.simulated": "true" if run.simulated else "",
    }
    return Suite(f"loadbench {run.name}: {level.model} at {level.load.label}", cases, facts, time_s=level.window_s)


def _document(suites: Sequence[Suite], *, timestamp: str = "") -> str:
    root = ET.Element("testsuites", _counts([case for suite in suites for case in suite.cases]))
    for one in suites:
        skipped = str(sum(kind == "skipped" for _, _, kind, _, _ in one.cases))
        about = {"name": printable(one.name), **_counts(one.cases), "skipped": skipped, "time": f"{one.time_s:.6g}"}
        suite = ET.SubElement(root, "testsuite", about)
        if timestamp:
            # The type of this attribute has no time zone.
            suite.set("timestamp", printable(timestamp.removesuffix("Z")))
        facts = {name: value for name, value in one.facts.items() if value}
        if facts:
            properties = ET.SubElement(suite, "properties")
            for name, value in facts.items():
                ET.SubElement(properties, "property", {"name": name, "value": printable(value)})
        for classname, title, kind, message, text in one.cases:
            case = ET.SubElement(
                suite, "testcase", {"classname": printable(classname), "name": printable(title), "time": "0"}
            )
            if kind:
                said = {"message": printable(message)} | ({"type": kind} if kind != "skipped" else {})
                ET.SubElement(case, kind, said).text = _lines(text)
            elif text:
                ET.SubElement(case, "system-out").text = _lines(text)
        if one.note:
            ET.SubElement(suite, "system-out").text = _lines(one.note)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _counts(cases: Sequence[Case]) -> dict[str, str]:
    return {
        "tests": str(len(cases)),
        "failures": str(sum(kind == "failure" for _, _, kind, _, _ in cases)),
        "errors": str(sum(kind == "error" for _, _, kind, _, _ in cases)),
    }


def _lines(text: str) -> str:
    """Line by line, without what XML cannot hold."""
    return "\n".join(map(printable, text.split("\n")))
