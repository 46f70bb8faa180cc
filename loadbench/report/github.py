"""What GitHub shows of a step: its summary, as Markdown, and annotations, which are lines that a step prints.

A missed gate and one that could not be decided are errors, a level that is not VALID is a warning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from loadbench.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from loadbench.report.junit import Suite

# The variable that names a step's summary, and the size from which on GitHub refuses it.
SUMMARY: Final = "GITHUB_STEP_SUMMARY"
MOST_BYTES: Final = 1 << 20
# It shows the first ten errors and the first ten warnings of a step.
_MOST_SHOWN = 10


def annotation_lines(suites: Iterable[Suite]) -> list[str]:
    """The lines, with as many as are shown."""
    errors, warnings = [], []
    for suite in suites:
        place = " of ".join(suite.facts[name] for name in ("loadbench.load", "loadbench.model") if name in suite.facts)
        for _, title, kind, message, _ in suite.cases:
            if kind in {"failure", "error"}:
                words = f"{title} at {place}: {message}" if place else f"{title}: {message}"
                errors.append(f"::error title=loadbench::{_escaped(words)}")
        verdict = suite.facts.get("loadbench.verdict", "VALID")
        if verdict != "VALID":
            words = f"{place} is {verdict}: {suite.facts['loadbench.advice']}"
            warnings.append(f"::warning title=loadbench::{_escaped(words)}")
    return [*errors[:_MOST_SHOWN], *warnings[:_MOST_SHOWN]]


def _escaped(text: str) -> str:
    """Text that ends no line and begins no other command."""
    return printable(text).replace("%", "%25")
