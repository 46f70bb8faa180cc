"""What a run exports while it goes on: one thing for the event loop, sums for everybody else."""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadbench.core.errors import BadInput
from loadbench.live.conventions import CONVENTIONS
from loadbench.live.metrics_feed import Distribution, MetricsFeed
from loadbench.live.prometheus import PrometheusEndpoint, page
from loadbench.plan.load import Phase
from loadbench.record.outcome import Outcome
from loadbench.record.timings import Timings
from tests.building import MS, S, a_failure, a_sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.live.metrics_feed import Metric

URL = "http://127.0.0.1:8080/v1"


class Kept:
    """Keeps what it is given."""

    name = "--kept"

    def __init__(self) -> None:
        self.seen: list[Sequence[Metric]] = []
        self.threads: set[int] = set()
        self.is_closed = False

    def export(self, metrics: Sequence[Metric], *, last: bool) -> None:
        self.seen.append(metrics)
        self.threads.add(threading.get_ident())

    def close(self) -> None:
        self.is_closed = True


def exported(*samples, model="m", api="chat", **environment: str) -> dict[str, Metric]:
    """What is exported of these requests in the end, by name."""
    kept = Kept()
    with MetricsFeed([kept], environment, about={"loadbench.simulated": "false"}, say=pytest.fail) as feed:
        for sample in samples:
            feed.sample_ended(sample, model, URL, api)
    assert kept.is_closed
    assert threading.get_ident() not in kept.threads
    return {metric.instrument.name: metric for metric in kept.seen[-1]}


def test_the_event_loop_only_keeps_the_sample() -> None:
    """It reads nothing of it, so a request costs the same however many events it has."""

    class Untouchable:
        def __getattribute__(self, name: str) -> object:
            pytest.fail(f"{name} was read")

    feed = MetricsFeed([], {}, about={}, say=pytest.fail)
    feed.sample_ended(Untouchable(), "m", URL, "chat")  # type: ignore[arg-type]
    assert len(feed._ended) == 1


def test_every_request_and_event_is_counted_once() -> None:
    """In the buckets of its value, with sum, minimum and maximum."""
    samples = [a_sample(n, due_ns=n * S, ttft_ns=(30 + n) * MS, gaps_ns=20 * MS) for n in range(100)]
    found = exported(*samples)
    ((attributes, duration),) = found["gen_ai.client.operation.duration"].points
    assert isinstance(duration, Distribution)
    assert sum(duration.counts) == 100
    assert duration.sum == pytest.approx(sum((sample.end_ns - sample.sent_ns) / 1e9 for sample in samples))
    ((_, first),) = found["gen_ai.client.operation.time_to_first_chunk"].points
    assert dict(zip((*first.bounds, math.inf), first.counts, strict=True))[0.04] == 11  # 30 to 40 ms, 40 included
    assert (first.min, first.max) == (pytest.approx(0.03), pytest.approx(0.129))
    ((_, gaps),) = found["gen_ai.client.operation.time_per_output_chunk"].points
    assert sum(gaps.counts) == 1000
    assert dict(zip(gaps.bounds, gaps.counts, strict=False))[0.02] == 1000
    usage = {
        dict(attributes)["gen_ai.token.type"]: value for attributes, value in found["gen_ai.client.token.usage"].points
    }
    assert {kind: (sum(one.counts), one.sum) for kind, one in usage.items()} == {
        "input": (100, 5000),
        "output": (100, 1100),
    }
    assert dict(attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
        "server.address": "127.0.0.1",
        "server.port": 8080,
    }


def test_failures_have_their_kind_and_phases_are_apart() -> None:
    """`error.type` is the outcome; a request of the warm-up is one."""
    found = exported(
        a_sample(), a_sample(1, phase=Phase.WARM_UP), a_failure(Outcome.RESET, number=2), api="completions"
    )
    requests = {
        (dict(attributes)["loadbench.outcome"], dict(attributes)["loadbench.phase"]): (
            value,
            dict(attributes).get("error.type"),
        )
        for attributes, value in found["loadbench.requests"].points
    }
    assert requests == {
        ("ok", str(Phase.MEASURED)): (1, None),
        ("ok", str(Phase.WARM_UP)): (1, None),
        ("reset", str(Phase.MEASURED)): (1, "reset"),
    }
    names = {dict(attributes)["gen_ai.operation.name"] for attributes, _ in found["loadbench.requests"].points}
    assert names == {"text_completion"}


def test_what_the_server_reports_has_the_names_of_servers() -> None:
    """Queue and prefill are its time to first token; decoding is per token after the first."""
    timed = a_sample(timings=Timings(queue_ns=10 * MS, prefill_ns=40 * MS, decode_ns=200 * MS, output_tokens=11))
    found = exported(timed)
    values = {name: found[name].points[0].value.sum for name in found if name.startswith("gen_ai.server.")}
    assert values == {
        "gen_ai.server.time_to_first_token": pytest.approx(0.05),
        "gen_ai.server.request.duration": pytest.approx(0.25),
        "gen_ai.server.time_per_output_token": pytest.approx(0.02),
    }
    assert not [name for name in exported(a_sample()) if name.startswith("gen_ai.server.")]


def test_the_environment_chooses_the_conventions() -> None:
    """The newest names where the variable says so, among other words."""
    named = exported(a_sample(), OTEL_SEMCONV_STABILITY_OPT_IN="http, gen_ai_latest_experimental")
    assert "gen_ai.client.token.usage" not in named
    assert named["gen_ai.client.inference.operation.output_tokens"].points[0].value.sum == 11
    assert all(one.bounds == tuple(sorted(set(one.bounds))) for table in CONVENTIONS.values() for one in table.values())
    assert "gen_ai.client.token.usage" in exported(a_sample(), OTEL_SEMCONV_STABILITY_OPT_IN="http")


def test_foreign_names_are_labels_and_no_more() -> None:
    """Quotes, line ends and backslashes of a model's name are read back as they were, control characters as `?`."""
    name = 'a"b\\c}\n{x="y"'
    families = list(text_string_to_metric_families(page(list(exported(a_sample(model=name), model=name).values()))))
    models = {sample.labels.get("gen_ai_request_model") for family in families for sample in family.samples}
    assert models - {None} == {'a"b\\c}?{x="y"'}


def test_a_server_with_many_names_fills_no_memory(monkeypatch) -> None:
    """From a number of series on, new ones are left out; those that are there go on."""
    monkeypatch.setattr("loadbench.live.metrics_feed._MOST_SERIES", 20)
    samples = [a_sample(number, model=f"m{number}") for number in range(100)]
    found = exported(*samples, *(a_sample(number, model="m0") for number in range(50)))
    assert sum(len(metric.points) for metric in found.values()) <= 41
    first = next(
        value
        for attributes, value in found["loadbench.requests"].points
        if ("gen_ai.response.model", "m0") in attributes
    )
    assert first == 51


@pytest.mark.parametrize("host", ["ù" * 64, "a..b", "192.0.2.7", "fe80::1%no.such.zone"])
def test_a_place_where_nothing_can_listen_is_bad_input(host: str) -> None:
    """Whichever way Python says so."""
    with pytest.raises(BadInput, match=r"^--prometheus .+:0: ."):
        PrometheusEndpoint(host, 0)


class Stuck(Kept):
    """Takes nothing until it is closed."""

    name = "--stuck"

    def __init__(self) -> None:
        super().__init__()
        self.closed = threading.Event()

    def export(self, metrics: Sequence[Metric], *, last: bool) -> None:
        super().export(metrics, last=last)
        self.closed.wait()

    def close(self) -> None:
        super().close()
        self.closed.set()


class Broken(Kept):
    """Raises each time."""

    name = "--broken"

    def export(self, metrics: Sequence[Metric], *, last: bool) -> None:
        super().export(metrics, last=last)
        raise ValueError("a\x1bb")

    def close(self) -> None:
        super().close()
        raise RuntimeError("closed twice")


@pytest.mark.parametrize("other", [Stuck, Broken])
def test_no_exporter_waits_for_another(other, monkeypatch) -> None:
    """One that is stuck, or fails each time, is reported once; the others go on, and all are closed."""
    monkeypatch.setattr("loadbench.live.metrics_feed.PERIOD_S", 0.01)
    monkeypatch.setattr("loadbench.live.metrics_feed._END_S", 0.1)
    said: list[str] = []
    exporters = [other(), Kept(), other()]
    with MetricsFeed(exporters, {}, about={}, say=said.append):
        before = 0
        for _ in range(3):
            while len(exporters[1].seen) == before:
                time.sleep(0.001)
            before = len(exporters[1].seen)
    assert all(exporter.is_closed for exporter in exporters)
    assert len(said) == 2
    assert all(text.startswith(f"{other.name}: ") and text.isprintable() for text in said)
    assert other is Stuck or len(exporters[0].seen) > 1


def test_what_cannot_be_counted_ends_only_the_metrics(monkeypatch) -> None:
    """It is reported, and the exporters get what was counted before, as the last."""
    monkeypatch.setattr("loadbench.live.metrics_feed.PERIOD_S", 0.01)
    said: list[str] = []
    kept = Kept()
    with MetricsFeed([kept], {}, about={}, say=said.append) as feed:
        while not kept.seen:
            time.sleep(0.001)
        feed.sample_ended(None, "m", URL, "chat")  # type: ignore[arg-type]
    assert kept.is_closed
    assert kept.seen[-1]
    assert [text.partition(":")[0] for text in said] == ["metrics"]
