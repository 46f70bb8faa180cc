"""A result in one line, to be pasted into an issue or a chat: what ran where, and the figures with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.core.text import printable
from loadbench.record.outcome import failed_of
from loadbench.report.capacity import answer_line
from loadbench.report.compare import conclusions
from loadbench.report.run import quantile, server_programs, verdict
from loadbench.report.values import significant, spread

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.results.capacity import Capacity
    from loadbench.results.compare import Comparison
    from loadbench.results.run import Run


def run_lines(run: Run) -> str:
    """A line for each level."""
    where = "the simulated server" if run.simulated else server_programs(run) or run.name
    about = [f"loadbench {run.loadbench_version}", str(run.environment.get("cpu") or ""), run.started_at[:10]]
    lines = []
    for level in run.levels:
        rate, interval = level.throughput.output_tokens_per_s, level.throughput.interval.get("output_tokens_per_s")
        tokens = f"{significant(rate)} tok/s"
        if interval is not None and rate:
            tokens += f" {spread(rate, *interval)}"
        failed, _ = failed_of(level.outcomes)
        figures = [tokens]
        figures += [
            f"{name} p50 {quantile(level.metrics.get(key), 'p50')}"
            for name, key in (("TTFT", "ttft_s"), ("TPOT", "tpot_s"), ("E2E", "e2e_s"))
        ]
        figures += [f"{level.outcomes.get('ok', 0)} ok", f"{failed} failed", verdict(level)]
        head = f"{level.model} on {where}, {level.load.label}"
        lines.append(printable(f"{head}: {', '.join(figures)} ({', '.join(part for part in about if part)})"))
    return "".join(f"{line}\n" for line in lines) or "no level was measured\n"


def comparison_line(comparison: Comparison) -> str:
    """What the comparison means, and the figures."""
    a, b = comparison.a, comparison.b
    said = " ".join(f"{text[:1].upper()}{text[1:].rstrip('.')}." for text in conclusions(comparison))
    # A name that is only the side's letter says nothing.
    of = [
        f"{letter} {side.name} ({side.model})" if side.name.upper() != letter else f"{letter} ({side.model})"
        for letter, side in zip("AB", (a, b), strict=True)
    ]
    return printable(f"{', '.join(of)}: {said}") + "\n"


def capacity_lines(searches: Sequence[Capacity]) -> str:
    """The answer of each search, with what was asked."""
    lines = [
        printable(f"{one.model} under {', '.join(one.objectives)}: {answer_line(one).removeprefix('answer: ')}")
        for one in searches
    ]
    return "".join(f"{line}\n" for line in lines) or "no model was searched\n"
