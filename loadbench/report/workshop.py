"""The workshop's files: its JSON in three shapes, its Markdown table, a CSV, and one fit for version control.

The keys are those that its script, its seed sample and its notebook write, so that what reads theirs reads ours; the
values are right (`loadbench.analyze.level.workshop_stats`). `status` is added, and with it `error` for a model that
failed. What the
workshop computed wrongly stands under `legacy_…` and nowhere else.

    script     alias, latency_avg, latency_p95, tokens_per_sec_avg, rounds, first_token_latency_avg
    sample     model, rounds, latency_avg, latency_p95, tokens_per_sec_avg, sample
    notebook   alias, model_id, latency_avg_s … sample_output
    stable     what a repeated run leaves the same, apart from what it cannot
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Final

from tabulate import tabulate

from loadbench.analyze.level.workshop_stats import mean
from loadbench.core.text import printable
from loadbench.report.csv import safe
from loadbench.report.render_markdown import escaped
from loadbench.report.run import title

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from loadbench.analyze.level.workshop_stats import ModelRounds
    from loadbench.results.requests import RequestRecord
    from loadbench.results.run import Run

STABLE: Final = "loadbench.benchmark/1"
HEADERS = ("Model", "Avg Latency (s)", "p95 (s)", "Tokens/sec", "Rounds", "First Token (s)")
# Characters of an answer that the workshop shows.
_SAMPLE, _SAMPLE_OUTPUT = 160, 200
# Of the scenario, what decides which answers a deterministic server gives.
_DECISIVE = {"target": ("api",), "work": ("system", "max_tokens", "temperature", "seed", "unique", "deterministic")}


def workshop_json(rows: Sequence[ModelRounds], shape: str, *, first_token: bool = True) -> str:
    """The results as the script, the seed sample or the notebook writes them."""
    make = {"script": _script, "sample": _sample, "notebook": _notebook}[shape]
    return _dumped([_with_status(make(row, first_token=first_token), row) for row in rows])


def _with_status(record: dict[str, object], row: ModelRounds) -> dict[str, object]:
    """What the workshop left out: models that failed are there and say why."""
    if row.status == "ok":
        return {**record, "status": row.status}
    name = next(iter(record))
    return {name: record[name], "status": row.status, "error": row.reason}


def _legacy(row: ModelRounds) -> dict[str, object]:
    return {"legacy_p95": row.legacy_p95, "legacy_total_tokens_per_sec": row.legacy_tokens_per_s}


def _script(row: ModelRounds, *, first_token: bool) -> dict[str, object]:
    told = {"first_token_latency_avg": row.first_token_avg} if first_token and row.first_tokens else {}
    return {
        "alias": row.alias,
        "latency_avg": row.latency_avg,
        "latency_p95": row.latency_p95,
        "tokens_per_sec_avg": row.tokens_per_s,
        "rounds": row.rounds,
        **told,
        **_legacy(row),
    }


def _sample(row: ModelRounds, *, first_token: bool) -> dict[str, object]:  # noqa: ARG001 - this shape has none
    return {
        "model": row.alias,
        "rounds": row.rounds,
        "latency_avg": row.latency_avg,
        "latency_p95": row.latency_p95,
        "tokens_per_sec_avg": row.tokens_per_s,
        "sample": _beginning(row.sample, _SAMPLE),
        **_legacy(row),
    }


def _notebook(row: ModelRounds, *, first_token: bool) -> dict[str, object]:  # noqa: ARG001 - this shape has none
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
    """The first of an answer on one line; null where the run did not keep its texts."""
    return None if text is None else text.replace("\n", " ")[:letters]


def workshop_markdown(run: Run, rows: Sequence[ModelRounds], *, first_token: bool = True) -> str:
    """The exporter's table, its six columns, and what its figures mean."""
    cells = [[escaped(cell) for cell in _cells(row, first_token=first_token)] for row in rows]
    align = ("left", *("right",) * (len(HEADERS) - 1))
    table = tabulate(cells, headers=HEADERS, tablefmt="pipe", colalign=align if cells else None, disable_numparse=True)
    notes = "\n".join(f"- {escaped(note)}" for note in workshop_notes(run, rows))
    return f"# Benchmark report\n\n{escaped(title(run))}\n\n{table}\n\n{notes}\n"


def workshop_text(run: Run, rows: Sequence[ModelRounds], *, first_token: bool = True) -> str:
    """The same for a terminal."""
    cells = [[printable(cell) for cell in _cells(row, first_token=first_token)] for row in rows]
    align = ("left", *("right",) * (len(HEADERS) - 1))
    table = tabulate(
        cells, headers=HEADERS, tablefmt="simple", colalign=align if cells else None, disable_numparse=True
    )
    notes = "\n".join(printable(note) for note in workshop_notes(run, rows))
    return f"{printable(title(run))}\n\n{table}\n\n{notes}\n"


def _cells(row: ModelRounds, *, first_token: bool) -> list[str]:
    return [
        row.alias,
        _fixed(row.latency_avg, 2),
        _fixed(row.latency_p95, 2),
        _fixed(row.tokens_per_s, 1),
        str(row.rounds),
        _fixed(row.first_token_avg if first_token else None, 2),
    ]


def _fixed(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def workshop_notes(run: Run, rows: Sequence[ModelRounds]) -> list[str]:
    """How the figures are made, and what went wrong."""
    answered = [row.ok for row in rows if row.ok]
    few = "; of fewer than 20 answers it is the maximum" if answered and min(answered) < 20 else ""
    found = [
        "latency: request sent to last token; tokens/s: output tokens alone over latency, the mean of the rounds",
        f"p95: nearest rank, never above the maximum{few}",
    ]
    found += [f"{row.alias}: {row.status}: {row.reason}" for row in rows if row.status != "ok"]
    found += [
        f"{row.alias}: {row.requested - row.ok} of {row.requested} requests had no answer and are in no figure"
        for row in rows
        if row.status == "ok" and row.ok < row.requested
    ]
    found += [
        f"{level.model}: {level.verdict.status}: {reason.message}; {reason.advice}"
        for level in run.levels
        for reason in level.verdict.reasons
    ]
    found += [] if run.complete else ["the run is not complete: it was stopped, or is still going on"]
    found += [f"{row.alias}: no token counts" for row in rows if row.status == "ok" and row.tokens_per_s is None]
    return found


def workshop_csv(rows: Sequence[ModelRounds], *, first_token: bool = True) -> str:
    """A row a model: the script's keys, unrounded, and the status. An unknown figure is an empty field."""
    records = [{**_script(row, first_token=first_token), "status": row.status, "error": row.reason} for row in rows]
    columns = list(dict.fromkeys(column for record in records for column in record))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: safe(value) if isinstance(value, str) else value for name, value in one.items()} for one in records
    )
    return out.getvalue()


def stable_json(run: Run, rows: Sequence[ModelRounds], requests: Iterable[RequestRecord]) -> str:
    """A result for version control: the same bytes for the same answers, but for the timings, which stand apart.

    No time of day, no machine, no ids; keys in a fixed order; seconds and rates with two significant digits, so that
    what is within a few per cent mostly reads the same. `answers` has the digest of each model's answers to each
    prompt, one if they were all equal.
    """
    told = _answers(run, requests)
    models = [
        {
            "model": row.alias,
            "status": row.status,
            **({"error": row.reason} if row.status != "ok" else {}),
            "answers": told.get(row.model, []),
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
            "settings": _settings(run.scenario),
            "rounds": rows[0].rounds if rows else 0,
            "prompts": [prompt.hash for prompt in run.prompts],
            "models": models,
        }
    )


def _settings(scenario: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    return {name: scenario.get(section, {}).get(name) for section, names in _DECISIVE.items() for name in names}


def _answers(run: Run, requests: Iterable[RequestRecord]) -> dict[str, list[dict[str, object]]]:
    """By model, for each prompt in order: the digests of its answers and their lengths in tokens, each once."""
    seen: dict[tuple[str, int], tuple[set[str], set[int]]] = {}
    for one in requests:
        # A run that was killed has requests of a level that it did not come to sum up.
        summed_up = one.level < len(run.levels)
        if summed_up and one.outcome == "ok" and one.prompt_index is not None and one.answer_hash is not None:
            digests, tokens = seen.setdefault((run.levels[one.level].model, one.prompt_index), (set(), set()))
            digests.add(one.answer_hash)
            tokens.update(() if one.output_tokens is None else (one.output_tokens,))
    found: dict[str, list[dict[str, object]]] = {}
    for (model, prompt), (digests, tokens) in sorted(seen.items()):
        found.setdefault(model, []).append(
            {"prompt": prompt, "equal": len(digests) == 1, "hashes": sorted(digests), "tokens": sorted(tokens)}
        )
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.1e}")


def _dumped(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
