"""The figures of each given prompt: a table for each level, and the outliers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loadbench.analyze.stats.outliers import MIN_VALUES, RULE, TESTED_FROM
from loadbench.report.document import Block, Document, Heading, Notes, Table, Text
from loadbench.report.run import equality_notes, is_search, level_place, title
from loadbench.report.values import clipped, duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.analyze.level.by_prompt import PromptStats
    from loadbench.results.run import Run

_HEADERS = (
    *("prompt", "hash", "sent", "ok", "TTFT p50", "TTFT min", "TTFT max", "E2E p50", "E2E min", "E2E max"),
    *("tokens", "text"),
)
_RANK = "043203104213"
_MOST_TEXT = 40
# Nobody reads more lines; in a large run even a rare outlier makes hundreds.
_MOST_LINES = 20


def by_prompt_document(run: Run, figures: Sequence[PromptStats]) -> Document:
    """A table for each level; says so where the run had no given prompts."""
    texts = {prompt.index: prompt.text or "" for prompt in run.prompts}
    blocks: list[Block] = []
    for index in sorted({prompt.level for prompt in figures}):
        rows = []
        for prompt in figures:
            if prompt.level != index:
                continue
            cells = [str(prompt.prompt), prompt.hash, str(prompt.requests), str(prompt.ok)]
            for spread in (prompt.ttft, prompt.e2e):
                cells += ["-"] * 3 if spread is None else map(duration, (spread.p50, spread.min, spread.max))
            low, high = prompt.output_tokens or ("-", "-")
            cells.append(str(low) if low == high else f"{low}–{high}")
            rows.append([*cells, clipped(texts.get(prompt.prompt, ""), _MOST_TEXT)])
        heading = level_place(run, index)
        if index < len(run.levels):
            level = run.levels[index]
            # As in the choice of a level in time.
            doubtful = level.verdict.status in {"INVALID", "INCONCLUSIVE"} and not is_search(run)
            heading = f"model {level.model}, {level.load.label}" + f", {level.verdict.status}" * doubtful
        blocks += [Heading(heading), Table(_HEADERS, rows, "r" * (len(_HEADERS) - 1) + "l", rank=_RANK)]
    if not figures:
        blocks.append(
            Text(["no given prompt was sent in this run: its prompts were generated, or an earlier version made it"])
        )
    return Document(title(run), [*blocks, Notes(_notes(run, figures))])


def _notes(run: Run, figures: Sequence[PromptStats]) -> list[str]:
    lines = []
    for prompt in figures:
        where = f"  prompt {prompt.prompt} ({prompt.hash}), {level_place(run, prompt.level)}"
        for outlier in prompt.outliers:
            value = f"{outlier.figure} {duration(outlier.value)} (score {outlier.score:+.1f})"
            lines.append(f"{where}: request {outlier.number}, {value}")
        if prompt.outlier_score is not None:
            score = f"(score {prompt.outlier_score:+.1f})"
            lines.append(f"{where}: its median time per output token is an outlier among the prompts {score}")
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"  and {len(lines) - _MOST_LINES} more; requests.jsonl has the marks of every request"]
    if figures and max(prompt.ok for prompt in figures) < MIN_VALUES:
        lines.append(f"outliers: not looked for, which takes {MIN_VALUES} responses to a prompt or more")
    elif figures:
        none = "" if lines else " none"
        lines.insert(0, f"outliers by the {RULE}, each within its prompt and level:{none}")
        if any(MIN_VALUES <= prompt.ok < TESTED_FROM for prompt in figures):
            lines.append(
                f"prompts with under {TESTED_FROM} responses: the rule was not tested with so few; take these as hints"
            )
    return lines + equality_notes(run.outputs or ())
