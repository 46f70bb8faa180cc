"""Energy and cost: figures by hand, the source of each, and what is not known, which stays null."""

from __future__ import annotations

import msgspec
import pytest

from loadbench.analyze.level.cost import cost, energy, meter_watts
from loadbench.analyze.level.machine import with_machine
from loadbench.plan.settings import CostSettings
from loadbench.results.run import LevelResult, Throughput
from loadbench.results.telemetry import Gauge, Telemetry
from tests.building import a_level

YEAR_S = 365.25 * 24 * 3600


def level(*, tokens_per_s: float = 100.0, requests_per_s: float = 2.0, model: str = "m") -> LevelResult:
    """50 tokens a request, in a window of 100 s; 11 tokens each by its answers' own count."""
    made = Throughput(requests_per_s=requests_per_s, output_tokens_per_s=tokens_per_s, total_tokens_per_s=tokens_per_s)
    return msgspec.structs.replace(a_level(), throughput=made, model=model)


def gauge(mean: float) -> Gauge:
    """One that stood still."""
    return Gauge(mean=mean, min=mean, max=mean, last=mean, readings=10)


def metered(*, resets: list[str] | None = None, power: float | None = None, **joules: float) -> Telemetry:
    """What the counters rose by, and a board's power."""
    gauges = {} if power is None else {"gpu0_power_w": gauge(power)}
    counters = {f"{name}_energy_j_total": amount for name, amount in joules.items()}
    return Telemetry(gauges=gauges, counters=counters, resets=resets or [])


@pytest.mark.parametrize(
    ("telemetry", "expected"),
    [
        (None, {}),
        (Telemetry(), {}),
        (metered(gpu0=5000.0), {"gpu0": 50.0}),
        (metered(package0=1000.0, dram0=200.0), {"dram0": 2.0, "package0": 10.0}),
        (metered(power=70.0), {"gpu0": 70.0}),
        # The counter knows what the power between two readings was.
        (metered(power=70.0, gpu0=5000.0), {"gpu0": 50.0}),
        (metered(gpu0=5000.0, resets=["gpu0_energy_j_total"]), {}),
        (metered(power=70.0, gpu0=5000.0, resets=["gpu0_energy_j_total"]), {"gpu0": 70.0}),
    ],
)
def test_watts_of_each_meter(telemetry, expected):
    """A counter's rise over the window's 100 s; without one the mean power; a counter that began anew is none."""
    assert meter_watts(telemetry, 100.0) == expected


def test_energy_of_a_board():
    """50 W at 100 tokens/s and 2 requests/s: 0.5 J a token, 25 J a request, 2 tokens a joule, over 100 s 5000 J."""
    used = energy(level(), {"gpu0": 50.0}, idle={"gpu0": 20.0}, estimate=(1.0, 2.0))
    assert used is not None
    assert (used.source, used.meters, used.watts, used.joules) == ("board", ["gpu0"], 50.0, 5000.0)
    assert (used.joules_per_output_token, used.joules_per_request, used.tokens_per_joule) == (0.5, 25.0, 2.0)
    assert (used.idle_watts, used.watts_range) == (20.0, None)
    assert (used.joules_per_output_token_above_idle, used.joules_per_request_above_idle) == (0.3, 15.0)


def test_workshops_index_is_kept_under_its_own_name():
    """100 tokens/s × 11 tokens a request × 0.5 J a token: W × tokens per request."""
    used = energy(level(), {"gpu0": 50.0}, idle={}, estimate=None)
    assert used is not None
    assert used.workshop_cost_index == 100 * 11 * 0.5


@pytest.mark.parametrize(
    ("meters", "source"),
    [
        ({"gpu0": 1.0, "gpu1": 1.0}, "board"),
        ({"package0": 1.0, "dram0": 1.0}, "package"),
        ({"gpu0": 1.0, "package0": 1.0, "package1": 1.0}, "board+package"),
    ],
)
def test_source_says_what_was_metered(meters, source):
    """Accelerators are boards; CPU and its memory packages."""
    used = energy(level(), meters, idle={}, estimate=None)
    assert used is not None
    assert (used.source, used.watts) == (source, len(meters))


def test_idle_of_other_meters_is_not_taken_off():
    """What was not metered before the load cannot be subtracted."""
    used = energy(level(), {"gpu0": 50.0, "package0": 30.0}, idle={"gpu0": 20.0}, estimate=None)
    assert used is not None
    assert used.idle_watts is used.joules_per_output_token_above_idle is None


def test_estimate_is_called_one_and_has_its_range():
    """15 to 30 W: figures at 22.5 W, and the range beside them."""
    used = energy(level(), {}, idle={}, estimate=(15.0, 30.0))
    assert used is not None
    assert (used.source, used.meters, used.watts, used.watts_range) == ("estimate", [], 22.5, (15.0, 30.0))
    assert used.joules_per_output_token == 0.225


def test_nothing_metered_and_nothing_given_is_null():
    """No watts are made up."""
    assert energy(level(), {}, idle={}, estimate=None) is None


def test_level_that_made_nothing_has_no_energy_per_token():
    """A division by nothing is null, and not infinite."""
    used = energy(level(tokens_per_s=0.0, requests_per_s=0.0), {"gpu0": 50.0}, idle={"gpu0": 20.0}, estimate=None)
    assert used is not None
    assert used.joules == 5000.0
    assert used.joules_per_output_token is used.joules_per_request is used.workshop_cost_index is None
    assert used.tokens_per_joule == 0.0


# Money.


def test_cost_of_a_million_tokens_by_its_parts():
    """At 100 tokens/s a million take 10,000 s: a third of a year's price a year, 2 an hour, 50 W at 0.36 a kWh."""
    prices = CostSettings(purchase=YEAR_S, lifetime=1.0, hourly=7.2, kwh_price=0.36, currency="EUR")
    used = energy(level(), {"gpu0": 50.0}, idle={}, estimate=None)
    found = cost(level(), used, prices)
    assert found is not None
    assert found.parts == pytest.approx({"purchase": 10_000, "hourly": 20, "electricity": 0.05})
    assert found.per_million_output_tokens == pytest.approx(10_020.05)
    assert (found.currency, found.range, found.energy_source) == ("EUR", None, "board")


def test_cost_by_an_estimate_has_its_range():
    """15 to 30 W at 0.36 a kWh and 10,000 s: 0.015 to 0.03, and 20 for the hours."""
    used = energy(level(), {}, idle={}, estimate=(15.0, 30.0))
    found = cost(level(), used, CostSettings(hourly=7.2, kwh_price=0.36))
    assert found is not None
    assert found.range == pytest.approx((20.015, 20.03))
    assert found.per_million_output_tokens == pytest.approx(20.0225)
    assert found.energy_source == "estimate"


def test_part_that_is_not_known_leaves_no_sum():
    """Electricity without a meter: the other part stands, and a sum of it alone would be too little."""
    found = cost(level(), None, CostSettings(hourly=7.2, kwh_price=0.36))
    assert found is not None
    assert found.parts == {"hourly": pytest.approx(20.0), "electricity": None}
    assert found.per_million_output_tokens is None


def test_no_price_no_cost():
    """Watts alone are no money; a price of nothing is one."""
    assert cost(level(), None, CostSettings(watts=(15.0, 30.0))) is None
    free = cost(level(), None, CostSettings(hourly=0.0))
    assert free is not None
    assert free.per_million_output_tokens == 0.0


def test_level_that_made_nothing_has_no_cost_per_token():
    """However dear the machine was."""
    found = cost(level(tokens_per_s=0.0), None, CostSettings(hourly=7.2))
    assert found is not None
    assert found.per_million_output_tokens is None


# A level with all of it.


def with_gauges(
    model: str = "qwen2.5-0.5b-instruct-cuda-gpu:3", *, tokens_per_s: float = 100.0, **means: float
) -> LevelResult:
    """A level beside which these gauges stood."""
    telemetry = Telemetry(gauges={name: gauge(mean) for name, mean in means.items()})
    return with_machine(
        level(model=model, tokens_per_s=tokens_per_s), telemetry, idle={}, prices=CostSettings(watts=(20.0, 20.0))
    )


def codes(made: LevelResult) -> set[str]:
    """Of its caveats, those that a quiet level has not."""
    return {reason.code for reason in made.caveats} - {reason.code for reason in a_level().caveats}


@pytest.mark.parametrize(
    ("model", "uses", "tokens_per_s", "expected"),
    [
        ("qwen2.5-0.5b-instruct-cuda-gpu:3", [0.0], 100.0, {"cpu_fallback"}),
        ("phi-4-mini-trtrtx-gpu", [0.01, 0.0], 100.0, {"cpu_fallback"}),
        ("qwen2.5-0.5b-instruct-cuda-gpu:3", [0.9], 100.0, set()),
        ("qwen2.5-0.5b-instruct-cuda-gpu:3", [0.0, 0.9], 100.0, set()),
        ("qwen2.5-0.5b-instruct-cuda-gpu:3", [], 100.0, set()),
        ("qwen2.5-0.5b-instruct-cuda-gpu:3", [0.0], 0.0, set()),
        ("qwen2.5-0.5b-instruct-generic-cpu:4", [0.0], 100.0, set()),
        ("mygpuless", [0.0], 100.0, set()),
    ],
)
def test_silent_fallback_to_the_cpu_is_noticed(model, uses, tokens_per_s, expected):
    """A model named after the GPU that answers while every GPU is idle; without a GPU to look at nothing is said."""
    means = {f"gpu{number}_use": use for number, use in enumerate(uses)}
    assert codes(with_gauges(model, tokens_per_s=tokens_per_s, **means)) == expected


@pytest.mark.parametrize(
    ("gauges", "meters", "expected"),
    [
        ({"gpu0_process_memory_bytes": 0.0, "gpu0_use": 0.0}, {"gpu0": 100.0}, (None, {"unmetered"})),
        (
            {"gpu0_process_memory_bytes": 0.0, "gpu0_use": 0.0},
            {"gpu0": 100.0, "package0": 300.0},
            (["package0"], set()),
        ),
        ({"gpu0_process_memory_bytes": 1.0, "gpu0_use": 0.0}, {"gpu0": 100.0}, (["gpu0"], set())),
        ({"gpu0_use": 0.0}, {"gpu0": 100.0}, (["gpu0"], set())),
        # In a container the driver may not know the server's process.
        ({"gpu0_process_memory_bytes": 0.0, "gpu0_use": 0.5}, {"gpu0": 100.0}, (["gpu0"], set())),
        (
            {"gpu0_process_memory_bytes": 0.0, "gpu0_use": 0.0, "gpu1_process_memory_bytes": 9.0, "gpu1_use": 0.9},
            {"gpu0": 100.0, "gpu1": 400.0},
            (["gpu1"], set()),
        ),
    ],
)
def test_board_that_the_server_does_not_use_is_not_its_energy(gauges, meters, expected):
    """What an idle board draws is no energy of a server on the CPU; where nothing else is metered, it is not known."""
    counters = {f"{name}_energy_j_total": joules for name, joules in meters.items()}
    telemetry = Telemetry(gauges={name: gauge(mean) for name, mean in gauges.items()}, counters=counters)
    made = with_machine(level(), telemetry, idle={}, prices=CostSettings())
    assert (None if made.energy is None else made.energy.meters, codes(made)) == expected


def test_clocks_that_were_held_down_are_a_caveat():
    """For more than a twentieth of the window, by heat or by power; the worse board is named."""
    made = with_gauges("m", gpu0_throttled_heat=0.04, gpu1_throttled_heat=0.5, gpu0_throttled_power=0.05)
    assert codes(made) == {"throttled_heat"}
    (reason,) = (reason for reason in made.caveats if reason.code == "throttled_heat")
    assert "gpu1" in reason.message
    assert "50 %" in reason.message


def test_counters_that_should_stand_still():
    """A processor that was throttled, and a server's process that was replaced."""
    telemetry = Telemetry(counters={"host_throttled_total": 3.0, "process_restarts_total": 1.0})
    assert codes(with_machine(level(), telemetry, idle={}, prices=CostSettings())) == {
        "throttled_cpu",
        "process_restarted",
    }
    still = Telemetry(counters={"host_throttled_total": 0.0, "process_restarts_total": 0.0})
    assert codes(with_machine(level(), still, idle={}, prices=CostSettings())) == set()


def test_level_without_telemetry_keeps_what_the_user_gave():
    """An estimate needs no meter, and a level without either has null in all three."""
    made = with_machine(level(), None, idle={}, prices=CostSettings(watts=(15.0, 30.0)))
    assert made.telemetry is None
    assert made.energy is not None
    bare = with_machine(level(), None, idle={}, prices=CostSettings())
    assert bare.telemetry is bare.energy is bare.cost is None
    assert bare == level()


def with_meters(**watts: float):
    """A level over which these meters showed so many watts."""
    gauges = {
        f"{name}_power_w": Gauge(mean=value, min=value, max=value, last=value, readings=9)
        for name, value in watts.items()
    }
    return with_machine(a_level(), Telemetry(gauges=gauges), idle={"battery0": 6.0}, prices=CostSettings())


def test_battery_is_the_meter_of_the_whole_machine():
    """Where there is no other: it feeds what the others show, so it is not added to them."""
    used = with_meters(battery0=17.5).energy
    assert used is not None
    assert (used.source, used.meters, used.watts, used.idle_watts) == ("machine", ["battery0"], 17.5, 6.0)
    both = with_meters(battery0=17.5, gpu0=9.0).energy
    assert both is not None
    assert (both.source, both.meters, both.watts) == ("board", ["gpu0"], 9.0)
