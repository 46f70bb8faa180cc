"""Runs whose reports are kept under tests/data/golden, to be read by people. To write these, the schema of `run.json`
and the sample report in the README again, then look at the diff:

python -m tests.report.golden
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import msgspec

from loadbench.analyze.level.machine import with_machine
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.load import Closed, Open
from loadbench.plan.objective import parse_objective
from loadbench.plan.settings import CostSettings
from loadbench.record.outcome import Outcome, TokenSource
from loadbench.report.formats import render
from loadbench.report.render_text import PLAIN_WIDTH
from loadbench.report.run import notes
from loadbench.results import run as run_types
from loadbench.results.folder import read_run
from loadbench.results.run import LevelResult, ModelStatus, Run, ServerInfo
from loadbench.results.telemetry import FirstTokenBreakdown, Gauge, ServerHistogram, Telemetry
from loadbench.session.schemas import document_schema
from tests.building import MS, S, a_failure, a_level, a_recording, a_run, a_sample

FOLDER = Path(__file__).parents[1] / "data" / "golden"
FORMATS = {"text": "txt", "markdown": "md", "csv": "csv"}
# Everything in one name that a terminal, a table, a page or a spreadsheet might take for more than a name.
HOSTILE = '=cmd()|`<script>alert(1)</script>`\x1b[31m\r\n| x | y |\n# z\u202e"[a](javascript:b)'


def level(users: int, *, tokens_per_s: float, count: int = 100) -> LevelResult:
    """A level of so many users with this throughput, its latencies rising with the users."""
    samples = [a_sample(n, due_ns=n * S, ttft_ns=(80 + n * 7 % 20) * users * MS) for n in range(count)]
    made = a_level(recording=a_recording(samples, window_ns=200 * S), load=Closed(users))
    throughput = msgspec.structs.replace(made.throughput, output_tokens_per_s=tokens_per_s)
    concurrency = msgspec.structs.replace(made.concurrency, mean=float(users), peak=users)
    valid = msgspec.structs.replace(made.verdict, status="VALID", reasons=[])
    return msgspec.structs.replace(made, throughput=throughput, concurrency=concurrency, verdict=valid)


def bending() -> Run:
    """A simulated sweep whose throughput stops growing at 4 users."""
    rates = {1: 38.2, 2: 74.9, 4: 118.0, 8: 119.5}
    run = a_run(*(level(users, tokens_per_s=rate) for users, rate in rates.items()), simulated=True)
    return msgspec.structs.replace(run, question="How many users does one machine bear?")


def models() -> Run:
    """Two models at rates, of which one fails at times, and a third that is not there."""
    load = Open(0.5, parse_arrivals("poisson"))
    good = a_level((a_sample(n, due_ns=n * S) for n in range(40)), load=load)
    mixed = [a_sample(n, due_ns=n * S, token_source=TokenSource.EVENTS, model="small") for n in range(8)]
    mixed += [a_failure(Outcome.HTTP_ERROR, number=n, due_ns=n * S, detail="HTTP 503: busy") for n in range(8, 10)]
    bad = msgspec.structs.replace(a_level(mixed, load=load), model="small")
    statuses = [
        ModelStatus("m", "ok"),
        ModelStatus("small", "ok"),
        ModelStatus("gone", "failed", "has no model 'gone'"),
    ]
    return msgspec.structs.replace(a_run(good, bad), models=statuses)


def stopped() -> Run:
    """A run that was stopped in its second level."""
    cut = a_recording([a_sample()], interrupted=True)
    return a_run(level(1, tokens_per_s=38.2), a_level(recording=cut, load=Closed(2)), complete=False)


def objectives() -> Run:
    """Two levels held against objectives and gates: the second is too slow for one, and cannot tell of another."""
    rules = [parse_objective(rule) for rule in ("ttft_p50<150ms", "ttft_p90<1s", "failures<10%", "e2e_max<2s")]
    rules[1] = dataclasses.replace(rules[1], gate=True)
    quick = [a_sample(n, due_ns=n * S) for n in range(99)]
    slow = [a_sample(n, due_ns=n * S, ttft_ns=(140 if n % 9 else 1200) * MS) for n in range(99)]
    failed = a_failure(Outcome.HTTP_ERROR, number=99, due_ns=99 * S, detail="HTTP 503: busy")
    return a_run(
        a_level(recording=a_recording(quick, objectives=rules)),
        a_level(recording=a_recording([*slow, failed], objectives=rules), load=Closed(2)),
    )


def machine() -> Run:
    """Two levels on a machine with a board and a metered processor, which serves vLLM."""
    spread = ServerHistogram(
        source="vllm:time_to_first_token_seconds", count=120, mean=0.08, p50=0.07, p90=0.11, p99=None
    )
    prices = CostSettings(purchase=9000.0, kwh_price=0.3, currency="EUR")
    levels = []
    for users, rate in ((1, 38.2), (8, 240.5)):
        made = level(users, tokens_per_s=rate)
        first = FirstTokenBreakdown(
            source=spread.source, count=120, client_s=0.089, queue_s=0.012 * users, prefill_s=0.06, rest_s=0.009
        )
        made = msgspec.structs.replace(made, server_histograms={"first_token_s": spread}, first_token=first)
        levels.append(with_machine(made, _seen(users), idle={"gpu0": 55.0, "package0": 20.0}, prices=prices))
    return a_run(*levels)


def _seen(users: int) -> Telemetry:
    means = {
        "gpu0_use": 0.1 * users,
        "gpu0_memory_bytes": 6.5e9,
        "process_rss_bytes": 1.5e9,
        "host_cpu_share": 0.25,
        "server_running": 0.9 * users,
        "server_queued": 0.0,
        "server_kv_use": 0.031 * users,
    }
    gauges = {name: Gauge(mean=mean, min=0.0, max=mean, last=mean, readings=200) for name, mean in means.items()}
    counters = {
        "gpu0_energy_j_total": 20_000.0 + 2_000.0 * users,
        "package0_energy_j_total": 6_000.0,
        "process_cpu_s_total": 210.0,
        "sampler_cpu_s_total": 0.5,
    }
    return Telemetry(gauges=gauges, counters=counters)


def empty() -> Run:
    """A run that came to no level."""
    return msgspec.structs.replace(
        a_run(simulated=True, complete=False), levels=[], models=[ModelStatus("m", "failed", "connection refused")]
    )


def hostile() -> Run:
    """Foreign text wherever a server or a file can put it."""
    failed = a_level([a_failure(Outcome.HTTP_ERROR, detail=HOSTILE), a_sample(1, model=HOSTILE)])
    levels = [msgspec.structs.replace(one, model=HOSTILE, target=HOSTILE) for one in (a_level(), failed)]
    return msgspec.structs.replace(
        a_run(*levels, simulated=True),
        name=HOSTILE,
        started_at=HOSTILE,
        question=HOSTILE,
        models=[ModelStatus(HOSTILE, "failed", HOSTILE)],
        environment={"cpu": HOSTILE, "python": HOSTILE},
        servers=[ServerInfo(url=HOSTILE, name=HOSTILE, version=HOSTILE)],
    )


def all_notes(run: Run) -> list[str]:
    """The notes of a run's report, whatever they are about."""
    return [line for lines in notes(run) for line in lines]


RUNS = {
    "bending": bending,
    "models": models,
    "objectives": objectives,
    "stopped": stopped,
    "machine": machine,
    "empty": empty,
    "hostile": hostile,
}


def golden(name: str, form: str) -> str:
    """The report that is kept."""
    return (FOLDER / f"{name}.{FORMATS[form]}").read_text(encoding="utf-8")


def json_schema() -> dict[str, object]:
    """The JSON Schema of `run.json`."""
    return document_schema("run")


if __name__ == "__main__":
    schema = Path(run_types.__file__).with_name("run.schema.json")
    schema.write_text(json.dumps(json_schema(), indent=2) + "\n", encoding="utf-8", newline="\n")
    readme = Path(__file__).parents[2] / "README.md"
    text = readme.read_text(encoding="utf-8")
    (folder,) = set(re.findall(r"results/[0-9TZ]+-[a-z0-9-]+", text))
    sample = render(read_run(readme.parent / folder), "text", width=PLAIN_WIDTH)
    block = re.escape(sample.split("\n", 1)[0]) + r"\n.*?(?=```)"
    readme.write_text(re.sub(block, lambda _: sample, text, flags=re.DOTALL), encoding="utf-8", newline="\n")
    FOLDER.mkdir(parents=True, exist_ok=True)
    for run_name, build in RUNS.items():
        for form_name, suffix in FORMATS.items():
            (FOLDER / f"{run_name}.{suffix}").write_text(
                render(build(), form_name, width=PLAIN_WIDTH), encoding="utf-8", newline="\n"
            )
    from tests.report import test_compare_reports

    test_compare_reports.write()
