"""Each prompt's own figures as tables, one for each level, with what stands out beneath."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

from loadbench.analyze.stats.outliers import MIN_VALUES, RULE, TESTED_FROM
from loadbench.core.text import printable
from loadbench.report.table import duration, equality_notes, load_text, title

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.analyze.level.by_prompt import PromptLatency, PromptStats
    from loadbench.results.run import Run

HEADERS = ("prompt", "hash", "asked", "ok", "TTFT p50", "min", "max", "E2E p50", "min", "max", "tokens", "text")
_MOST_TEXT = 40
# Nobody reads through more; of a large run even a rare outlier makes hundreds.
_MOST_LINES = 20


def by_prompt_text(run: Run, figures: Sequence[PromptStats]) -> str:
    """The report for a terminal; says so where no given prompt was asked."""
    parts = [printable(title(run))]
    texts = {prompt.index: prompt.text for prompt in run.prompts}
    for level in sorted({one.level for one in figures}):
        shown = [one for one in figures if one.level == level]
        body = tabulate(
            [_row(one, texts.get(one.prompt)) for one in shown],
            headers=HEADERS,
            tablefmt="simple",
            colalign=("right",) * (len(HEADERS) - 1) + ("left",),
            disable_numparse=True,
        )
        parts.append(f"{printable(_where(run, level))}\n\n{body}")
    if not figures:
        parts.append("no given prompt was asked in this run: prompts were made, or it was kept by an earlier version")
    notes = [printable(note) for note in _notes(run, figures)]
    if notes:
        parts.append("\n".join(notes))
    return "\n\n".join(parts) + "\n"


def _where(run: Run, level: int) -> str:
    if level >= len(run.levels):
        return f"level {level}"  # killed before it was summed up
    return f"model {run.levels[level].model}, {load_text(run.levels[level])}"


def _row(one: PromptStats, text: str | None) -> list[str]:
    tokens = "-" if one.output_tokens is None else _range(*one.output_tokens)
    return [
        str(one.prompt),
        one.hash,
        str(one.requests),
        str(one.ok),
        *_spread(one.ttft),
        *_spread(one.e2e),
        tokens,
        "" if text is None else _clipped(printable(text)),
    ]


def _spread(spread: PromptLatency | None) -> tuple[str, str, str]:
    if spread is None:
        return "-", "-", "-"
    return duration(spread.p50), duration(spread.min), duration(spread.max)


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"


def _clipped(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 1] + "…"


def _notes(run: Run, figures: Sequence[PromptStats]) -> list[str]:
    found = [line for one in figures for line in _outlier_lines(run, one)]
    if len(found) > _MOST_LINES:
        found[_MOST_LINES:] = [f"  and {len(found) - _MOST_LINES} more; requests.jsonl has every request's marks"]
    if figures and max(one.ok for one in figures) < MIN_VALUES:
        found.append(f"outliers: none can be told apart with fewer than {MIN_VALUES} answers to a prompt")
    elif figures:
        found.insert(0, f"outliers by the {RULE}, each within its prompt and level:" + ("" if found else " none"))
        if any(MIN_VALUES <= one.ok < TESTED_FROM for one in figures):
            found.append(
                f"prompts with under {TESTED_FROM} responses: the rule was not tested with so few; take these as hints"
            )
    return found + equality_notes(run.outputs)


def _outlier_lines(run: Run, one: PromptStats) -> list[str]:
    where = f"prompt {one.prompt} ({one.hash}), {_where(run, one.level)}"
    lines = [
        f"  {where}: request {out.number}, {out.figure} {duration(out.value)} (score {out.score:+.1f})"
        for out in one.outliers
    ]
    if one.outlier_score is not None:
        lines.append(
            f"  {where}: its median time per output token stands out among the prompts (score {one.outlier_score:+.1f})"
        )
    return lines
