"""What the levels of a run mean for the exit code, and so for a build server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.core.errors import ExitCode

if TYPE_CHECKING:
    from loadbench.results.run import Run


def exit_code_of(run: Run, *, undecided: str | None = None) -> ExitCode:
    """What the measurement says; the first that holds. `undecided` is what a gate that is not certain counts as."""
    if not run.complete:
        return ExitCode.INTERRUPTED
    if any(status.status == "failed" for status in run.models):
        return ExitCode.TARGET_UNAVAILABLE
    statuses = {level.verdict.status for level in run.levels}
    if "INVALID" in statuses:
        return ExitCode.INVALID
    decisions = {one.decision for level in run.levels for one in level.objectives if one.gate}
    if "FAIL" in decisions or ("UNDECIDED" in decisions and undecided == "fail"):
        return ExitCode.GATE_FAILED
    if "OVERLOADED" in statuses and "VALID" not in statuses:
        return ExitCode.INVALID
    # A level may be inconclusive by itself, as where there are too few responses: so are its gates then.
    open_gates = "UNDECIDED" in decisions or any(
        level.verdict.status == "INCONCLUSIVE" and any(one.gate for one in level.objectives) for level in run.levels
    )
    excused = {"undecided"} if undecided == "pass" else set()
    if undecided == "pass":
        open_gates = False
    if run.command == "workshop":  # its rounds are given: a report of a few responses is what was asked
        excused.add("too_few_answers")
    if any({reason.code for reason in level.verdict.reasons} <= excused for level in run.levels):
        statuses.add("VALID")
    none_is_valid = statuses and "VALID" not in statuses
    return ExitCode.INCONCLUSIVE if open_gates or none_is_valid else ExitCode.OK
