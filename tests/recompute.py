"""The figures of a run, computed once more from `requests.jsonl` alone: by sorting, in whole nanoseconds, with nothing
of loadbench in it.

    python tests/recompute.py results/20260101T120000Z-sweep

prints what differs from `run.json`, and nothing where nothing does. From `run.json` it takes the bounds of each level's
window and the number of arrivals that were missed, of which no request tells; all the rest is to be compared.
"""

from __future__ import annotations

import json
import math
import sys
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

QUANTILES = {"p50": "0.5", "p90": "0.9", "p95": "0.95", "p99": "0.99", "p999": "0.999"}
# A quantile is the top of its bucket: above the true value, by 0.1 % or 511 ns at most.
BUCKET, LEAST_NS = 0.001, 511
NOT_FAILED = {"ok", "cancelled", "abandoned", "gave_up"}


def read(folder: Path) -> tuple[dict, dict[int, list[dict]]]:
    """The result, and the requests of each of its levels."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    of_level: dict[int, list[dict]] = {number: [] for number in range(len(run["levels"]))}
    for text in (folder / "requests.jsonl").read_text(encoding="utf-8").split("\n"):
        if text:
            request = json.loads(text)
            of_level[request["level"]].append(request)
    return run, of_level


def differences(folder: Path) -> list[str]:
    """What `run.json` says otherwise than its requests do."""
    run, of_level = read(folder)
    return [
        f"level {number}: {difference}"
        for number, level in enumerate(run["levels"])
        for difference in level_differences(level, of_level[number])
    ]


def level_differences(level: dict, requests: list[dict]) -> list[str]:
    """Of one level; one that was stopped in its warm-up has no window, and no figures."""
    found = []
    if level["window_s"] == 0:
        return found
    for name, expected in figures(level, requests).items():
        told = level
        for key in name.split("."):
            told = told[key]
        if not same(told, expected):
            found.append(f"{name}: {told} in run.json, {expected} by its requests")
    measured = [request for request in requests if request["phase"] == "measured"]
    answered = [request for request in measured if request["outcome"] == "ok"]
    failed = sum(request["outcome"] not in {"ok", "cancelled"} for request in measured)
    for name, values in distributions(answered).items():
        found += metric_differences(name, level["metrics"][name], sorted(values))
    for name in ("ttft_s", "e2e_s", "tpot_s"):
        found += failure_differences(name, level["metrics"][name], failed)
    return found + peak_differences(level, requests)


def same(told: object, expected: object) -> bool:
    """Equal; floats but for their rounding."""
    if isinstance(told, float) and isinstance(expected, (int, float, Fraction)):
        return math.isclose(told, expected, rel_tol=1e-9, abs_tol=1e-12)
    return told == expected


def figures(level: dict, requests: list[dict]) -> dict[str, object]:
    """What is counted: outcomes, tokens, rates, concurrency."""
    opens, closes = level["window_ns"]
    span = closes - opens
    measured = [request for request in requests if request["phase"] == "measured"]
    answered = [request for request in measured if request["outcome"] == "ok"]
    made = [request for request in requests if request["outcome"] in NOT_FAILED]
    answers = sum(request["outcome"] == "ok" and opens < request["end_ns"] <= closes for request in made)
    output = sum(output_inside(request, opens, closes) for request in made)
    prompts = sum(
        request["input_tokens"] or 0
        for request in made
        if request["first_token_ns"] is not None and opens < request["first_token_ns"] <= closes
    )
    sent = sum(request["sent_ns"] is not None and opens <= request["sent_ns"] < closes for request in requests)
    return {
        "window_s": span / 1e9,
        "outcomes": counted(request["outcome"] for request in measured),
        "tokens.input": sum(request["input_tokens"] or 0 for request in answered),
        "tokens.output": sum(request["output_tokens"] or 0 for request in answered),
        "tokens.source": counted(request["token_source"] for request in answered),
        "finish_reasons": counted(request["finish_reason"] or "none" for request in answered),
        "offered_per_s": (len(measured) + level["missed"]) * 1e9 / span,
        "achieved_per_s": sent * 1e9 / span,
        "throughput.requests_per_s": answers * 1e9 / span,
        "throughput.output_tokens_per_s": output * 1e9 / span,
        "throughput.total_tokens_per_s": (output + prompts) * 1e9 / span,
        "concurrency.mean": sum(overlap(request, opens, closes) for request in requests) / span,
    }


def counted(names: object) -> dict[str, int]:
    """How often each occurs."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def stamps(request: dict) -> list[int]:
    """When its events came."""
    if request["first_token_ns"] is None:
        return []
    return list(accumulate(request["event_gaps_ns"], initial=request["first_token_ns"]))


def output_inside(request: dict, opens: int, closes: int) -> int:
    """Its tokens by the stamps of their events; where an event's own are unknown, so many events' share of all."""
    inside = [opens < stamp <= closes for stamp in stamps(request)]
    if request["output_tokens"] is None or not any(inside):
        return 0
    if request["event_tokens"] is not None:
        return sum(tokens for tokens, is_inside in zip(request["event_tokens"], inside, strict=True) if is_inside)
    before = inside.index(True)
    until = before + sum(inside)
    total = request["output_tokens"]
    return total * until // len(inside) - total * before // len(inside)


def overlap(request: dict, opens: int, closes: int) -> int:
    """How long it was in flight inside the window."""
    if request["sent_ns"] is None:
        return 0
    return max(0, min(request["end_ns"], closes) - max(request["sent_ns"], opens))


def distributions(answered: list[dict]) -> dict[str, list[int]]:
    """Each latency in ns: a value for each request that has it, or for each gap; ITL as often as it has tokens."""
    found: dict[str, list[int]] = {name: [] for name in (*SPANS, "tpot_s", "tpot_classic_s", "event_gap_s", "itl_s")}
    for request in answered:
        for name, (start, end) in SPANS.items():
            # A head that came before the whole request was sent has no time.
            if request[start] is not None and request[end] is not None and request[end] >= request[start]:
                found[name].append(request[end] - request[start])
        found["event_gap_s"] += request["event_gaps_ns"]
        tokens = request["event_tokens"]
        for gap, held in zip(request["event_gaps_ns"], [] if tokens is None else tokens[1:], strict=False):
            found["itl_s"] += [round(gap / held)] * held if held else []
        hidden = request.get("hidden_tokens", 0)
        first_tokens = tokens[0] if tokens else None if hidden is None else 1 + hidden
        for name, first in (("tpot_s", first_tokens), ("tpot_classic_s", 1)):
            rest = 0 if first is None else (request["output_tokens"] or 0) - first
            # Tokens that came in one read have no pace.
            if rest >= 1 and request["first_token_ns"] is not None:
                span_ns = request["last_token_ns"] - request["first_token_ns"]
                found[name] += [round(span_ns / rest)] if span_ns > 0 else []
    return found


SPANS = {
    "ttfb_s": ("sent_ns", "first_byte_ns"),
    "ttft_s": ("sent_ns", "first_token_ns"),
    "ttft_response_s": ("due_ns", "first_token_ns"),
    "ttfo_s": ("sent_ns", "first_visible_ns"),
    "e2e_s": ("sent_ns", "last_token_ns"),
    "e2e_response_s": ("due_ns", "last_token_ns"),
    "stream_end_s": ("sent_ns", "end_ns"),
}


def metric_differences(name: str, told: dict | None, values: list[int]) -> list[str]:
    """Count, mean and ends are exact, quantiles to the width of a bucket."""
    if told is None or not values:
        return [] if told is None and not values else [f"{name}: {told} in run.json, {len(values)} values in requests"]
    exact = {"count": len(values), "mean": sum(values) / len(values) / 1e9, "min": values[0] / 1e9}
    exact["max"] = values[-1] / 1e9
    found = [f"{name}.{key}: {told[key]}, not {value}" for key, value in exact.items() if not same(told[key], value)]
    for key, p in QUANTILES.items():
        true_ns = values[math.ceil(Fraction(p) * len(values)) - 1]
        above_ns = told[key] * 1e9 - true_ns
        if not -0.5 <= above_ns <= max(LEAST_NS, BUCKET * true_ns) + 0.5:
            found.append(f"{name}.{key}: {told[key]}, not {true_ns / 1e9}")
    return found


def failure_differences(name: str, told: dict | None, failed: int) -> list[str]:
    """With failures as infinite, a quantile is infinite (null) exactly where its rank lies among them."""
    if told is None:
        return []
    total = told["count"] + failed
    return [
        f"{name}.with_failures.{key}: {told['with_failures'][key]} with {failed} failures among {total}"
        for key, p in QUANTILES.items()
        if (told["with_failures"][key] is None) != (math.ceil(Fraction(p) * total) > told["count"])
    ]


def peak_differences(level: dict, requests: list[dict]) -> list[str]:
    """A request is in flight from between its due moment and its leaving: the peak lies between those two counts."""
    opens, closes = level["window_ns"]
    least, most = (peak(requests, start, opens, closes) for start in ("sent_ns", "due_ns"))
    told = level["concurrency"]["peak"]
    return [] if least <= told <= most else [f"concurrency.peak: {told}, not from {least} to {most}"]


def peak(requests: list[dict], start: str, opens: int, closes: int) -> int:
    """The most at once inside the window; an end goes before a start at the same moment."""
    spans = [(request[start], request["end_ns"]) for request in requests if request[start] is not None]
    spans = [(begin, end) for begin, end in spans if begin < closes and end > opens]
    changes = [(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans]
    return max(accumulate(change for _, change in sorted(changes)), default=0)


if __name__ == "__main__":
    told = differences(Path(sys.argv[1]))
    sys.stdout.writelines(f"{line}\n" for line in told)
    sys.exit(bool(told))
