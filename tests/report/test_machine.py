"""What was seen beside the requests, as people read it: only what there is, in their units, with its doubts."""

from __future__ import annotations

import msgspec
import pytest

from loadbench.analyze.level.machine import with_machine
from loadbench.plan.settings import CostSettings
from loadbench.report import machine
from loadbench.report.formats import render
from loadbench.results.telemetry import FirstTokenBreakdown, Gauge, Telemetry
from tests.building import a_level, a_run
from tests.report.golden import RUNS, level


def shown(*levels) -> dict[str, list[str]]:
    """Every column's cells by its name."""
    columns: dict[str, list[str]] = {}
    for table in machine.tables(levels):
        columns.update({name: [row[number] for row in table.rows] for number, name in enumerate(table.headers)})
    return columns


def seen(counters: dict[str, float] | None = None, prices: CostSettings | None = None, **means: float):
    """A level at 38.2 tokens/s with these readings."""
    gauges = {name: Gauge(mean=mean, min=mean, max=mean, last=mean, readings=5) for name, mean in means.items()}
    telemetry = Telemetry(gauges=gauges, counters=counters or {}) if gauges or counters else None
    return with_machine(level(1, tokens_per_s=38.2), telemetry, idle={}, prices=prices or CostSettings())


def test_nothing_seen_nothing_shown():
    """A level of which nothing is known but its requests has neither table nor note."""
    assert machine.tables([a_level()]) == []
    assert machine.notes(a_run(a_level())) == []


def test_column_stands_where_any_level_has_it():
    """The others have a dash there."""
    columns = shown(seen(gpu0_use=0.5), seen(host_cpu_share=0.25))
    assert columns == {"load": ["users=1"] * 2, "host CPU": ["-", "25 %"], "GPU": ["50 %", "-"]}


@pytest.mark.parametrize(
    ("means", "name", "cell"),
    [
        ({"process_rss_bytes": 2.5 * 2**30}, "server RSS", "2.50 GiB"),
        ({"process_rss_bytes": 300.0 * 2**20}, "server RSS", "300 MiB"),
        ({"process_rss_bytes": 0.99999 * 2**30}, "server RSS", "1.00 GiB"),
        ({"gpu0_use": 0.123456, "gpu1_use": 0.0}, "GPU", "12.3 %, 0 %"),
        ({"gpu0_memory_bytes": 2.0**30, "gpu1_memory_bytes": 2.0**31}, "GPU mem", "1.00 GiB, 2.00 GiB"),
        ({"gpu0_power_w": 151.23}, "power", "151 W"),
        ({"gpu0_power_w": 76.4}, "J/token", "2.00 J"),
        ({"gpu0_power_w": 76.4}, "tok/s/W", "0.500"),
        ({"server_kv_use": 0.875}, "KV use", "87.5 %"),
        ({"server_queued": 0.0}, "queued", "0"),
    ],
)
def test_cell(means, name, cell):
    """People's units, three digits; zero is a value."""
    assert shown(seen(**means))[name] == [cell]


def test_cpu_is_told_in_cores():
    """Seconds of CPU over those of the window, whose length here is 200 s."""
    assert shown(seen({"process_cpu_s_total": 350.0}))["server CPU"] == ["1.75 cores"]


@pytest.mark.parametrize(
    ("prices", "power", "cost"),
    [
        (CostSettings(watts=(15.0, 30.0)), "15..30 W est.", None),
        (CostSettings(watts=(20.0, 20.0)), "20.0 W est.", None),
        (CostSettings(watts=(10.0, 20.0), kwh_price=0.36), "10..20 W est.", "0.0262..0.0524 est."),
        (CostSettings(hourly=1.0, currency="EUR"), None, "7.27 EUR"),
        (CostSettings(hourly=1.0, watts=(20.0, 20.0), kwh_price=0.0, currency="EUR"), "20.0 W est.", "7.27 EUR est."),
        (CostSettings(hourly=1.0, kwh_price=0.3), None, None),
    ],
)
def test_estimate_is_called_one(prices, power, cost):
    """Watts that somebody gave are marked wherever they went in; a sum with an unknown part is not shown."""
    columns = shown(seen(prices=prices))
    assert columns.get("power") == (None if power is None else [power])
    assert columns.get("per 1M tok") == (None if cost is None else [cost])


def test_cost_without_a_meter_says_what_is_missing():
    """And what to do about it."""
    (note,) = machine.notes(a_run(seen(prices=CostSettings(hourly=1.0, kwh_price=0.3))))
    assert "electricity" in note
    assert "--watts" in note


def test_level_that_made_nothing_lacks_no_meter():
    """No token came, so none has a cost: nobody is told to estimate the watts, which were given."""
    nothing = msgspec.structs.replace(
        a_level(), throughput=msgspec.structs.replace(a_level().throughput, output_tokens_per_s=0.0)
    )
    prices = CostSettings(purchase=1000.0, watts=(15.0, 30.0), kwh_price=0.3)
    made = with_machine(nothing, None, idle={}, prices=prices)
    assert made.cost is not None
    assert made.cost.per_million_output_tokens is None
    assert "purchase and electricity per million" in machine.notes(a_run(made))[-1]


def test_boards_stand_in_the_order_of_their_numbers():
    """Also where there are more than ten."""
    assert shown(seen(gpu10_use=0.1, gpu2_use=0.02, gpu0_use=0.5))["GPU"] == ["50 %, 2 %, 10 %"]


def test_use_by_the_server_stands_in_for_that_of_the_board():
    """As of Intel's boards; where both are known it is the board's, and NPUs have a column of their own."""
    columns = shown(seen(gpu0_use=0.5, gpu0_process_use=0.4, gpu1_process_use=0.3, npu0_use=0.7))
    assert (columns["GPU"], columns["NPU"]) == (["50 %, 30 %"], ["70 %"])


def test_rest_below_zero_is_shown_as_it_is():
    """Where the server tells more than was seen, the table does not hide it."""
    told = FirstTokenBreakdown(source="timings", count=9, client_s=0.1, queue_s=None, prefill_s=0.12, rest_s=-0.02)
    columns = shown(msgspec.structs.replace(a_level(), first_token=told))
    assert (columns["TTFT prefill"], columns["TTFT rest"]) == (["120 ms"], ["-20.0 ms"])
    assert "TTFT queue" not in columns


def test_report_has_the_tables_in_text_and_markdown_and_every_figure_in_csv():
    """The golden run of a machine with meters."""
    run = RUNS["machine"]()
    for form in ("text", "markdown"):
        assert "210 W" in render(run, form)
        assert "75.0 W without load" in render(run, form)
    header, first, _ = render(run, "csv").splitlines()
    fields = dict(zip(header.split(","), first.split(","), strict=True))
    assert fields["gpu0_energy_j_total_rise"] == "22000.0"
    assert fields["energy_source"] == "board+package"
    assert fields["energy_meters"] == "gpu0 package0"
    assert float(fields["energy_joules_per_output_token"]) == pytest.approx(140 / 38.2)
    assert fields["cost_currency"] == "EUR"
    assert fields["server_histogram_first_token_s_p99"] == ""
    assert fields["first_token_rest_s"] == "0.009"
