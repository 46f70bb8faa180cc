"""What a search's conclusion means for the exit code, and so for a build server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.core.errors import ExitCode

if TYPE_CHECKING:
    from loadbench.results.capacity import Capacity

_EXIT_CODES = {
    "found": ExitCode.OK,
    "at_least": ExitCode.OK,
    "none": ExitCode.GATE_FAILED,
    "client": ExitCode.INVALID,
    "interrupted": ExitCode.INTERRUPTED,
}


def exit_code_of(capacity: Capacity, *, undecided: str | None = None) -> ExitCode:
    """The exit code of a search's conclusion; `undecided` is what one without a sufficient answer counts as."""
    answer, no_answer = capacity.answer, {"pass": ExitCode.OK, "fail": ExitCode.GATE_FAILED}.get(str(undecided))
    no_answer = ExitCode.INCONCLUSIVE if no_answer is None else no_answer
    if capacity.status == "client" and answer is not None and answer.low is not None:
        return ExitCode.OK  # the answer holds as a lower bound
    if (
        capacity.status == "found"
        and answer is not None
        and (capacity.require, answer.strength) == ("proven", "likely")
    ):
        return no_answer
    return no_answer if capacity.status == "inconclusive" else _EXIT_CODES[capacity.status]
