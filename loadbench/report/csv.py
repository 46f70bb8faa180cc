"""The report as CSV: a row per level, every figure in its base unit (seconds, tokens, per second), unrounded.

Where a level has several models or servers, a row for each of them follows the level's. Its field `part` says which of
the two it is; in rows of levels that is empty.
"""

from __future__ import annotations

import csv as stdlib_csv
import io
from typing import TYPE_CHECKING

from msgspec.structs import asdict

from loadbench.core.text import printable
from loadbench.results.run import ClosedLoad

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadbench.results.run import LevelResult, Metric, Run

# The columns of a run without levels.
_FIRST = ("run", "started_at", "simulated", "target", "model")
_RATES = ("requests_per_s", "output_tokens_per_s", "total_tokens_per_s")
_POINTS = ("count", "mean", "min", "p50", "p90", "p95", "p99", "p999", "max")


def csv(run: Run) -> str:
    """Header and rows. An unknown figure is an empty field."""
    return csv_of_several([(run, {})])


def csv_of_several(runs: Sequence[tuple[Run, Mapping[str, str]]]) -> str:
    """Header and rows of several runs; what tells each from the others has the first columns."""
    records = [
        _fit({**facts, **record})
        for run, facts in runs
        for level in run.levels
        for record in (_record(run, level), *_parts(run, level))
    ]
    first = [*(name for _, facts in runs for name in facts), *_FIRST]
    columns = list(dict.fromkeys([*first, *(column for record in records for column in record)]))
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
        "target": " ".join(level.targets) or level.target,
        "model": level.model,
        **({"part": None} if level.by_model or level.by_server else {}),
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
    record.update(_points(level.metrics))

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


def _points(metrics: Mapping[str, Metric | None]) -> dict[str, object]:
    return {
        f"{name}_{point}": None if metric is None else getattr(metric, point)
        for name, metric in metrics.items()
        for point in _POINTS
    }


def _parts(run: Run, level: LevelResult) -> Iterator[dict[str, object]]:
    """A record for each model of a mix, and for each of several servers: their figures add up to the level's."""
    whole = _record(run, level)
    of_level = {name: whole[name] for name in (*_FIRST, "part", "users", "rate_per_s", "window_s") if name in whole}
    for part, column, groups in (("model", "model", level.by_model), ("server", "target", level.by_server)):
        for name, group in groups.items():
            record = {**of_level, "part": part, column: name}
            if group.throughput is not None:
                record.update({rate: getattr(group.throughput, rate) for rate in _RATES})
            record |= {"input_tokens": group.input_tokens, "output_tokens": group.output_tokens}
            record.update({f"outcome_{outcome}": count for outcome, count in group.outcomes.items()})
            yield record | _points(group.metrics)


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
