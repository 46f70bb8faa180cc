"""One request on a timeline: when each of its marks came, and what figures follow from them."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING

from loadbench.core.text import printable, shortened
from loadbench.core.units import NS_PER_S
from loadbench.record.outcome import Outcome
from loadbench.report.document import Document, Heading, Notes, Table, Text
from loadbench.report.values import clipped, counted, duration, significant

if TYPE_CHECKING:
    from loadbench.record.trial import Trial

SCHEMA = "loadbench.try/1"
# Columns of the bar on a wide screen; on a narrow one it has what the others leave, or is left out.
_BAR, _FEWEST, _OTHERS = 32, 8, 70
_LONGEST_HEADER = 120


def marks_of(trial: Trial) -> list[tuple[str, int, str]]:
    """(mark, ns since the request was taken up, what was seen) in the order of time. A mark that did not happen is not
    among them."""
    sample, steps = trial.sample, trial.steps
    marks: list[tuple[str, int | None, str]] = []
    if steps is not None and sample.connected_ns is not None:
        parts = [("name found", steps.name_ns), ("TCP connected", steps.tcp_ns), ("TLS agreed", steps.tls_ns)]
        at_ns = sample.connected_ns - (sample.connect_ns or 0)
        for name, part_ns in parts:
            if part_ns is not None:
                at_ns += part_ns
                marks.append((name, at_ns, f"took {duration(part_ns / NS_PER_S)}"))
    elif sample.reused:
        marks.append(("connected", sample.connected_ns, "on a connection that was kept"))
    else:
        marks.append(("connected", sample.connected_ns, ""))
    events, gaps = sample.event_ns, sample.event_gaps()
    marks += [
        ("request sent", sample.sent_ns, f"{trial.body_bytes:,} bytes of body"),
        ("headers", sample.headers_ns, "" if sample.status is None else f"HTTP {sample.status}"),
        ("first byte of the body", sample.first_byte_ns, ""),
        ("first token", sample.first_token_ns, ""),
    ]
    if sample.first_visible_ns != sample.first_token_ns:
        marks.append(("first visible text", sample.first_visible_ns, "tokens before it are reasoning"))
    if gaps:
        longest = max(range(len(gaps)), key=gaps.__getitem__)
        median = statistics.median(gaps)
        if gaps[longest] > 2 * median:
            text = f"after {duration(gaps[longest] / NS_PER_S)}, the longest gap; half of them are at most "
            text += duration(median / NS_PER_S)
            marks.append((f"event {longest + 2} of {len(events)}", events[longest + 1], text))
    marks += [
        ("last token", sample.last_token_ns, f"{counted(len(events), 'event')} in {counted(sample.reads, 'read')}"),
        ("end", sample.end_ns, str(sample.outcome)),
    ]
    known = [(name, at_ns - trial.began_ns, text) for name, at_ns, text in marks if at_ns is not None]
    return sorted(known, key=lambda mark: mark[1])


def figures_of(trial: Trial) -> dict[str, float | int | str | None]:
    """The figures of the request by the names of `run.json`: seconds, tokens; null where one is not defined."""
    sample, gaps = trial.sample, trial.sample.event_gaps()

    def seconds(value_ns: float | None) -> float | None:
        return None if value_ns is None else value_ns / NS_PER_S

    tpot_ns = sample.tpot()
    return {
        "ttfb_s": seconds(sample.since_sent(sample.first_byte_ns)),
        "ttft_s": seconds(sample.since_sent(sample.first_token_ns)),
        "ttft_response_s": seconds(sample.since_due(sample.first_token_ns)),
        "e2e_s": seconds(sample.since_sent(sample.last_token_ns)),
        "tpot_s": seconds(tpot_ns),
        "event_gap_p50_s": seconds(statistics.median(gaps)) if gaps else None,
        "event_gap_max_s": seconds(max(gaps)) if gaps else None,
        "output_tokens_per_s": NS_PER_S / tpot_ns if tpot_ns else None,
        "input_tokens": sample.input_tokens,
        "cached_tokens": sample.cached_tokens,
        "output_tokens": sample.output_tokens,
        "reasoning_tokens": sample.reasoning_tokens,
        "token_source": str(sample.token_source),
    }


def one_request_document(trial: Trial, *, show_text: bool, width: int | None = None) -> Document:
    """What was sent, what came and when, for a screen of this width."""
    sample, figures = trial.sample, figures_of(trial)
    marks = marks_of(trial)
    whole_ns, size = max(1, marks[-1][1]) if marks else 1, _BAR if width is None else min(_BAR, width - _OTHERS)
    rows, before_ns = [], 0
    for name, at_ns, text in marks:
        begin, end = (round(size * ns / whole_ns) for ns in (before_ns, at_ns))
        bar = "·" * min(begin, size - 1) + ("█" * (end - begin) or "|")
        bars = [bar.ljust(size, "·")] if size >= _FEWEST else []
        rows.append([f"{at_ns / 1e6:,.2f}", f"+{(at_ns - before_ns) / 1e6:,.2f}", name, *bars, text])
        before_ns = at_ns
    names = ["at (ms)", "step (ms)", "mark", *(["timeline"] if size >= _FEWEST else []), "seen"]
    where = "simulated server, not a real one" if trial.simulated else trial.url
    title = f"{sample.outcome}: {trial.model} at {where}"
    blocks: list[Heading | Text | Notes | Table] = []
    if sample.outcome is not Outcome.OK or sample.detail:
        blocks.append(Text([sample.detail]))
    blocks += [Heading("Timeline"), Table(names, rows, "rr" + "l" * (len(names) - 2))]
    lines = []
    for name, key in (("TTFT", "ttft_s"), ("E2E", "e2e_s"), ("TPOT", "tpot_s"), ("longest gap", "event_gap_max_s")):
        value = figures[key]
        lines.append([name, duration(value) if isinstance(value, float) else "-"])
    speed = figures["output_tokens_per_s"]
    lines.append(["decoding", f"{significant(speed)} tok/s" if isinstance(speed, float) else "-"])
    usage = f"{sample.output_tokens if sample.output_tokens is not None else 'unknown'} (by {sample.token_source})"
    if sample.reasoning_tokens:
        usage += f", {sample.reasoning_tokens} of them reasoning"
    lines.append(["output tokens", usage])
    read = "unknown" if sample.input_tokens is None else str(sample.input_tokens)
    lines.append(["input tokens", read + (f", {sample.cached_tokens} from the cache" if sample.cached_tokens else "")])
    timings = sample.timings
    if timings is not None and timings.first_token_ns is not None:
        lines.append(["TTFT by the server", duration(timings.first_token_ns / NS_PER_S)])
    lines.append(["finish reason", sample.finish_reason or "none"])
    if sample.model not in {None, trial.model}:
        lines.append(["model of the response", str(sample.model)])
    blocks += [Heading("Figures"), Table([], lines, "ll")]
    blocks += [Heading("Request"), Text([f"{trial.method} {trial.url}", *_headers(trial.headers)])]
    body = json.dumps(shortened(trial.body), indent=2, ensure_ascii=False)
    blocks.append(Text([f"  {line}" for line in body.splitlines()] if trial.body is not None else []))
    status = "no response" if sample.status is None else f"HTTP {sample.status}"
    blocks += [Heading("Response"), Text([status, *_headers(trial.response_headers)])]
    if show_text:
        text = sample.text or "(none)"
        blocks += [Heading("Text"), Text([f"  {line}" for line in text.splitlines()])]
    notes = []
    if trial.tries > 1:
        notes.append(f"the server refused {counted(trial.tries - 1, 'request')} before it, which were adapted")
    if trial.reads and sample.merged_reads:
        notes.append(f"{counted(sample.merged_reads, 'read')} brought several events at once")
    if not show_text and sample.outcome is Outcome.OK:
        notes.append("--show-text shows the text of the response")
    if sample.input_tokens is not None:
        length = (
            f"this one has {counted(sample.input_tokens, 'token')}, those of a sweep may have more (--input-tokens)"
        )
        notes.append(f"TTFT depends on the length of the prompt: {length}")
    notes.append("one request says little about a server: `loadbench sweep` measures it")
    return Document(title, [*blocks, Notes(notes)])


def one_request_json(trial: Trial) -> dict[str, object]:
    """The same for programs; times of marks are ns since the request was taken up."""
    sample = trial.sample
    return {
        "schema": SCHEMA,
        "simulated": trial.simulated,
        "model": trial.model,
        "outcome": str(sample.outcome),
        "detail": sample.detail,
        "tries": trial.tries,
        "marks": [{"mark": name, "at_ns": at_ns, "seen": text} for name, at_ns, text in marks_of(trial)],
        "event_ns": [at_ns - trial.began_ns for at_ns in sample.event_ns],
        "event_tokens": None if sample.event_tokens is None else list(sample.event_tokens),
        "connect_ns": None if trial.steps is None else trial.steps._asdict(),
        "figures": figures_of(trial),
        "finish_reason": sample.finish_reason,
        "request": {"method": trial.method, "url": trial.url, "headers": trial.headers, "body": trial.body},
        "response": {
            "status": sample.status,
            "headers": trial.response_headers,
            "bytes": trial.response_bytes,
            "reads": trial.reads,
            "model": sample.model,
            "text": sample.text,
        },
    }


def _headers(headers: list[tuple[str, str]]) -> list[str]:
    return [f"  {clipped(printable(f'{name}: {value}'), _LONGEST_HEADER)}" for name, value in headers]
