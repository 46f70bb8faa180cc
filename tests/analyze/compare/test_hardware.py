"""On what two sides ran: what was promised, what was seen, and where the two do not agree."""

from __future__ import annotations

import msgspec
import pytest

from loadbench.analyze.compare.compare import compare
from loadbench.analyze.compare.hardware import device
from loadbench.results.models import Model
from loadbench.results.run import ModelStatus
from loadbench.results.telemetry import Gauge, Telemetry
from tests.analyze.comparing import lucky

BOARD = "NVIDIA L4"


def side(model="m", *, rate=100.0, catalogue=None, asked=None, use=None, name="trial"):
    """Six runs; `use` is how busy telemetry saw the board, and `catalogue` what the server says of the model."""
    seen = None
    if use is not None:
        seen = Telemetry(gauges={"gpu0_use": Gauge(mean=use, min=use, max=use, last=use, readings=9)})
    return [
        msgspec.structs.replace(
            run,
            environment={**run.environment, "telemetry": {"boards": [{"name": BOARD}]}},
            models=[ModelStatus(model, "ok", catalogue=catalogue, asked=asked)],
            levels=[msgspec.structs.replace(level, model=model, telemetry=seen) for level in run.levels],
        )
        for run in lucky({1: rate}, name=name)
    ]


def codes(a, b):
    """Of the caveats."""
    return {one.code for one in compare(a, b, paired=True).caveats}


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        (side(), None),
        (side("phi-generic-cpu"), "cpu"),
        (side("phi-cuda-gpu:3", use=0.9), f"gpu ({BOARD})"),
        (side("phi-cuda-gpu:3", use=0.0), "gpu (no GPU in use)"),
        (side("phi-cpu", use=0.0), "cpu"),
        (side("phi", catalogue=Model(id="phi-npu", device="NPU")), "npu"),
        (side("phi", asked="phi-generic-cpu"), "cpu"),
        (side(use=0.5), BOARD),
    ],
)
def test_a_side_is_where_it_was_promised_and_seen(runs, told):
    """By the catalogue before the name, with the board that was in use; nothing where nothing is known."""
    assert device(runs) == told


def test_two_devices_that_are_alike_are_suspected_to_be_one():
    """A model for the GPU that is as fast as the one for the CPU may run on the CPU; one of another speed does not."""
    assert "devices_alike" in codes(side("phi-generic-cpu"), side("phi-generic-gpu", rate=101.0))
    assert "devices_alike" not in codes(side("phi-generic-cpu"), side("phi-generic-gpu", rate=200.0))
    assert "devices_alike" in codes(side(use=0.0), side(use=0.9, rate=101.0))


@pytest.mark.parametrize("use", [0.0, 0.9])
def test_a_board_that_is_idle_or_busy_on_both_sides_is_one_device(use):
    """Whatever the speed: what was promised to be CPU and GPU was the same."""
    assert "same_device" in codes(side("phi-cpu", use=use), side("phi-gpu", use=use, rate=150.0))
    assert "same_device" not in codes(side("phi-cpu", use=0.0), side("phi-gpu", use=0.9, rate=150.0))


def test_a_catalogue_that_has_both_on_one_device_is_believed():
    """However the two are called."""
    cpu = Model(id="phi", device="CPU")
    assert "same_device" in codes(side("phi-cpu", catalogue=cpu), side("phi-gpu", catalogue=cpu, rate=150.0))


def test_an_alias_is_the_model_that_it_stands_for():
    """Two names of one variant at one server are one target."""
    a, b = side("phi", asked="phi-cpu:2"), side("phi-cpu:2", name="other")
    assert "same_target" in codes(a, b)
    assert "same_target" not in codes(side("phi", asked="phi-gpu:2"), b)


def test_what_telemetry_says_may_be_anything():
    """A result of another version, or one that was edited, is no reason to fail."""
    for about in (None, [], {"boards": None}, {"boards": [None, {}]}, {"boards": "x"}):
        runs = [msgspec.structs.replace(run, environment={"telemetry": about}) for run in side(use=0.9)]
        assert device(runs) == "GPU 0"


def test_variants_of_one_model_are_no_two_models():
    """By the catalogue's alias, or by their ids but for what says the device."""
    cuda, cpu = "qwen2.5-0.5b-instruct-cuda-gpu:3", "qwen2.5-0.5b-instruct-generic-cpu:4"
    assert "two_variants" in codes(side(cuda), side(cpu))
    aliased = [Model(id=name, alias="phi-4") for name in ("x", "y")]
    assert "two_variants" in codes(side("x", catalogue=aliased[0]), side("y", catalogue=aliased[1]))
    assert "two_models" in codes(side(cuda), side("qwen2.5-1.5b-instruct-generic-cpu:4"))
    assert not {"two_models", "two_variants"} & codes(side(cuda), side(cuda))
