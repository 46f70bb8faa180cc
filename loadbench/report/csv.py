"""The report as CSV: a row per level, every figure in its base unit (seconds, tokens, per second), unrounded."""

from __future__ import annotations

import csv as stdlib_csv
import io
from typing import TYPE_CHECKING

from msgspec.structs import asdict

from loadbench.core.text import printable
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from loadbench.results.run import LevelResult, Run

# The columns of a run without levels.
_FIRST = ("run", "started_at", "simulated", "target", "model")
_POINTS = ("count", "mean", "min", "p50", "p90", "p95", "p99", "p999", "max")


def csv(run: Run) -> str:
    """Header and rows. An unknown figure is an empty field."""
    records = [_fit(_record(run, level)) for level in run.levels]
    columns = list(dict.fromkeys([*_FIRST, *(column for record in records for column in record)]))
    out = io.StringIO()
    writer = stdlib_csv.DictWriter(out, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()


def _record(run: Run, level: LevelResult) -> dict[str, object]:
    closed = isinstance(level.load, ClosedLoad)
    record: dict[str, object] = {
        "run": run.name,
        "started_at": run.started_at,
        "simulated": run.simulated,
        "target": level.target,
        "model": level.model,
        "users": level.load.users if isinstance(level.load, ClosedLoad) else None,
        "rate_per_s": None if closed else getattr(level.load, "rate_per_s", None),
        "window_s": level.window_s,
        "verdict": level.verdict.status,
        "reasons": " ".join(reason.code for reason in level.verdict.reasons),
        "offered_per_s": level.offered_per_s,
        "achieved_per_s": level.achieved_per_s,
        "missed": level.missed,
        "requests_per_s": level.throughput.requests_per_s,
        "output_tokens_per_s": level.throughput.output_tokens_per_s,
        "total_tokens_per_s": level.throughput.total_tokens_per_s,
        "in_flight_mean": level.concurrency.mean,
        "in_flight_peak": level.concurrency.peak,
        "input_tokens": level.tokens.input,
        "output_tokens": level.tokens.output,
    }
    record.update({f"outcome_{outcome}": count for outcome, count in level.outcomes.items()})
    if level.goodput is not None:
        record["goodput_requests_per_s"] = level.goodput.requests_per_s
        record["goodput_output_tokens_per_s"] = level.goodput.output_tokens_per_s
        record["attainment"] = level.goodput.attainment
    record.update({decided.rule: decided.decision for decided in level.objectives})
    for name, metric in level.metrics.items():
        for point in _POINTS:
            record[f"{name}_{point}"] = None if metric is None else getattr(metric, point)

    # What was measured alongside the requests.
    if level.telemetry is not None:
        for name, gauge in level.telemetry.gauges.items():
            record.update({f"{name}_{point}": getattr(gauge, point) for point in ("mean", "min", "max", "last")})
        record.update({f"{name}_rise": rise for name, rise in level.telemetry.counters.items()})
    for name, spread in level.server_histograms.items():
        points = ("count", "mean", "p50", "p90", "p99")
        record.update({f"server_histogram_{name}_{point}": getattr(spread, point) for point in points})
    if level.first_token is not None:
        record.update({f"first_token_{name}": value for name, value in asdict(level.first_token).items()})
    if level.energy is not None:
        record.update({f"energy_{name}": _listed(value) for name, value in asdict(level.energy).items()})
    if level.cost is not None:
        record.update({f"cost_{name}": _listed(value) for name, value in asdict(level.cost).items()})
    return record


def _listed(value: object) -> object:
    """A value as a field; several values are separated by spaces."""
    if isinstance(value, dict):
        return " ".join(f"{name}={part}" for name, part in value.items() if part is not None)
    return " ".join(str(part) for part in value) if isinstance(value, (list, tuple)) else value


def _fit(record: dict[str, object]) -> dict[str, object]:
    return {safe(column): safe(value) if isinstance(value, str) else value for column, value in record.items()}


def safe(text: str) -> str:
    """Foreign text that a spreadsheet does not take for a formula, nor a terminal for a command."""
    plain = printable(text)
    return f"'{plain}" if plain.lstrip()[:1] in _FORMULA else plain


# The first letter of a formula, also in full width.
_FORMULA = frozenset("=+-@＝＋－＠")
