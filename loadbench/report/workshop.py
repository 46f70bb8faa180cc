"""The workshop's files: its JSON in three shapes, its Markdown table, a CSV, and one for version control.

The keys are those of its script, its seed sample and its notebook, so that programs that read theirs read ours too. The
values are correct (`loadbench.analyze.level.workshop_stats`); those that the workshop computes wrongly are kept under
`legacy_…`. Added are `status`, and `error` for a model that failed.

    script     alias, latency_avg, latency_p95, tokens_per_sec_avg, rounds, first_token_latency_avg
    sample     model, rounds, latency_avg, latency_p95, tokens_per_sec_avg, sample
    notebook   alias, model_id, latency_avg_s … sample_output
    stable     what stays the same when a run is repeated, and the timings apart
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Final

from loadbench.analyze.level.workshop_stats import mean
from loadbench.core.text import printable_json
from loadbench.plan.settings import settings
from loadbench.report.csv import safe
from loadbench.report.document import Document, Notes, Table, Text
from loadbench.report.run import equality_notes, title
from loadbench.report.values import reason_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from loadbench.analyze.level.workshop_stats import ModelRounds
    from loadbench.results.requests import RequestRecord
    from loadbench.results.run import Run

STABLE: Final = "loadbench.benchmark/1"
_HEADERS = ("Model", "Avg Latency (s)", "p95 (s)", "Tokens/sec", "Rounds", "First Token (s)")
# Characters of a response that the workshop shows.
_SAMPLE, _SAMPLE_OUTPUT = 160, 200


def workshop_json(rows: Sequence[ModelRounds], shape: str, *, first_token: bool = True) -> str:
    """The results as the script, the seed sample or the notebook writes them, with models that failed and why."""
    records: list[dict[str, object]] = []
    for row in rows:
        if shape == "script":
            record = _script(row, first_token=first_token)
        else:
            record = _sample(row) if shape == "sample" else _notebook(row)
        if row.status == "ok":
            records.append({**record, "status": row.status})
        else:
            name = next(iter(record))
            records.append({name: record[name], "status": row.status, "error": row.reason})
    return _dumped(records)


def _script(row: ModelRounds, *, first_token: bool) -> dict[str, object]:
    shown = {"first_token_latency_avg": row.first_token_avg} if first_token and row.first_tokens else {}
    return {
        "alias": row.alias,
        "latency_avg": row.latency_avg,
        "latency_p95": row.latency_p95,
        "tokens_per_sec_avg": row.tokens_per_s,
        "rounds": row.rounds,
        **shown,
        "legacy_p95": row.legacy_p95,
        "legacy_total_tokens_per_sec": row.legacy_tokens_per_s,
    }


def _sample(row: ModelRounds) -> dict[str, object]:
    return {
        "model": row.alias,
        "rounds": row.rounds,
        "latency_avg": row.latency_avg,
        "latency_p95": row.latency_p95,
        "tokens_per_sec_avg": row.tokens_per_s,
        "sample": _beginning(row.sample, _SAMPLE),
        "legacy_p95": row.legacy_p95,
        "legacy_total_tokens_per_sec": row.legacy_tokens_per_s,
    }


def _notebook(row: ModelRounds) -> dict[str, object]:
    prompt, completion = row.input_tokens, row.output_tokens
    known = bool(prompt and completion)
    return {
        "alias": row.alias,
        "model_id": row.model,
        "latency_avg_s": row.latency_avg,
        "latency_min_s": min(row.latencies, default=None),
        "latency_max_s": max(row.latencies, default=None),
        "latency_p95_s": row.latency_p95,
        "tokens_per_sec_avg": row.tokens_per_s,
        "avg_prompt_tokens": mean(prompt),
        "avg_completion_tokens": mean(completion),
        "avg_total_tokens": (mean(prompt) or 0) + (mean(completion) or 0) if known else None,
        "prompt_tokens_total": sum(prompt) if prompt else None,
        "completion_tokens_total": sum(completion) if completion else None,
        "total_tokens_sum": sum(prompt) + sum(completion) if known else None,
        "rounds_ok": row.ok,
        "configured_rounds": row.requested,
        "sample_output": _beginning(row.sample, _SAMPLE_OUTPUT),
        "legacy_p95_s": row.legacy_p95,
        "legacy_total_tokens_per_sec": row.legacy_tokens_per_s,
    }


def _beginning(text: str | None, letters: int) -> str | None:
    """The first letters of a response on one line; null where the run did not keep its texts."""
    return None if text is None else text.replace("\n", " ")[:letters]


def workshop_document(run: Run, rows: Sequence[ModelRounds], *, first_token: bool = True) -> Document:
    """The exporter's table with its six columns, and what its figures mean."""
    cells = []
    for row in rows:
        figures = [(row.latency_avg, 2), (row.latency_p95, 2), (row.tokens_per_s, 1)]
        figures.append((row.first_token_avg if first_token else None, 2))
        texts = ["-" if value is None else f"{value:.{digits}f}" for value, digits in figures]
        cells.append([row.alias, *texts[:3], str(row.rounds), texts[3]])
    table = Table(_HEADERS, cells, "l" + "r" * (len(_HEADERS) - 1))
    none = [] if rows else ["no model was measured"]
    return Document("Benchmark report", [Text([title(run), *none]), table, Notes(_notes(run, rows))])


def _notes(run: Run, rows: Sequence[ModelRounds]) -> list[str]:
    """How the figures are made, and what went wrong."""
    few = "; with fewer than 20 responses it is the maximum" if any(0 < row.ok < 20 for row in rows) else ""
    lines = [
        "latency: from request sent to last token; tokens/s: output tokens over latency, the mean over the rounds",
        f"p95: nearest rank, never above the maximum{few}",
    ]
    lines += [f"{row.alias}: {row.status}: {row.reason}" for row in rows if row.status != "ok"]
    for row in rows:
        if row.status == "ok" and row.ok < row.requested:
            missing = f"{row.requested - row.ok} of {row.requested} requests"
            lines.append(f"{row.alias}: {missing} had no complete response and are in no figure")
    for level in run.levels:
        for reason in level.verdict.reasons:
            lines.append(
                f"{level.model}: {level.verdict.status}: {reason_text(reason.message, reason.code)}; {reason.advice}"
            )
    lines += [] if run.complete else ["the run is not complete: it was stopped or is still running"]
    lines += [f"{row.alias}: no token counts" for row in rows if row.status == "ok" and row.tokens_per_s is None]
    return lines + equality_notes(run.outputs or ())


def workshop_csv(rows: Sequence[ModelRounds], *, first_token: bool = True) -> str:
    """A row for each model: the script's keys, unrounded, and the status. An unknown figure is an empty field."""
    records = [{**_script(row, first_token=first_token), "status": row.status, "error": row.reason} for row in rows]
    columns = list(dict.fromkeys(column for record in records for column in record))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: safe(value) if isinstance(value, str) else value for name, value in record.items()} for record in records
    )
    return out.getvalue()


def stable_json(run: Run, rows: Sequence[ModelRounds], requests: Iterable[RequestRecord]) -> str:
    """A result for version control: the same bytes for the same responses, except for the timings.

    No time of day, no machine, no ids; keys in a fixed order; seconds and rates with two significant digits, so that
    what is within a few per cent mostly reads the same. `answers` has the digest of each model's responses to each
    prompt, a single one if they were all equal, and their lengths in tokens.
    """
    seen: dict[tuple[str, int], tuple[set[str], set[int]]] = {}
    for request in requests:
        # A run that was killed has requests of a level that was not summed up.
        known = request.level < len(run.levels) and request.outcome == "ok"
        if known and request.prompt_index is not None and request.answer_hash is not None:
            model = run.levels[request.level].model
            digests, tokens = seen.setdefault((model, request.prompt_index), (set(), set()))
            digests.add(request.answer_hash)
            tokens.update(() if request.output_tokens is None else (request.output_tokens,))
    answers: dict[str, list[dict[str, object]]] = {}
    for (model, prompt), (digests, tokens) in sorted(seen.items()):
        answers.setdefault(model, []).append(
            {"prompt": prompt, "equal": len(digests) == 1, "hashes": sorted(digests), "tokens": sorted(tokens)}
        )
    decisive = [setting for setting in settings() if setting.decides_answers == "request"]
    requested = {setting.name: run.scenario.get(setting.section, {}).get(setting.name) for setting in decisive}
    models = [
        {
            "model": row.alias,
            "status": row.status,
            **({"error": row.reason} if row.status != "ok" else {}),
            "answers": answers.get(row.model, []),
            "timings": {
                "latency_avg": _rounded(row.latency_avg),
                "latency_p95": _rounded(row.latency_p95),
                "tokens_per_sec_avg": _rounded(row.tokens_per_s),
                "first_token_latency_avg": _rounded(row.first_token_avg),
            },
        }
        for row in rows
    ]
    return _dumped(
        {
            "schema": STABLE,
            "question": run.question,
            "settings": requested,
            "rounds": rows[0].rounds if rows else 0,
            "prompts": [prompt.hash for prompt in run.prompts],
            "models": models,
        }
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.1e}")


def _dumped(document: object) -> str:
    return printable_json(json.dumps(document, indent=2, ensure_ascii=False).encode()).decode() + "\n"
