"""What a sweep would do, before it does it: levels, requests, time, and where each setting comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tabulate import tabulate

from loadbench.core.text import printable
from loadbench.core.units import format_duration
from loadbench.plan.load import Closed, Open
from loadbench.plan.pattern import Patterned
from loadbench.plan.traces import Replayed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.load import Load
    from loadbench.plan.scenario import Scenario

_MOST_SHOWN = 80
_UNFOUND = "Foundry Local, to be found on this machine"


def plan_text(scenario: Scenario) -> str:
    """The plan for people. Nothing was sent to make it: what only the server knows is not in it."""
    models = scenario.target.model or ("the simulated model" if scenario.simulated else "the model that it lists",)
    where = "the simulated server" if scenario.simulated else scenario.target.url or scenario.target.adapter or _UNFOUND
    head = [
        *([scenario.question] if scenario.question else []),
        f"target   {where}",
        f"models   {', '.join(models)}",
        f"work     {work_text(scenario)}",
    ]
    levels = plain_table(
        [[number, *level_cells(scenario, load)] for number, load in enumerate(scenario.loads, start=1)],
        ("level", "load", "measured", "requests", "time"),
    )
    parts = ["\n".join(head), levels, _total(scenario, len(models)), settings_table(scenario)]
    return "\n\n".join(printable_lines(part) for part in parts) + "\n"


def printable_lines(text: str) -> str:
    """Each line fit to be shown."""
    return "\n".join(printable(line) for line in text.split("\n"))


def work_text(scenario: Scenario) -> str:
    """What is asked, in a line."""
    work = scenario.work
    if scenario.load.trace is not None:
        return _trace_text(scenario)
    if work.mix is not None:
        return f"as {', '.join(map(str, work.mix))} ask, each in its lengths and pauses (see personas below)"
    if work.prompt is not None:
        what = "one given prompt"
    elif work.prompts is not None:
        what = f"the prompts of {work.prompts}"
    else:
        what = f"generated prompts of {work.input_tokens or '128'} tokens"
    talk = f", conversations of {work.turns} turns" if work.turns is not None else ""
    return f"{what}, answers of at most {work.output_tokens or work.max_tokens} tokens{talk}"


def _trace_text(scenario: Scenario) -> str:
    (load,) = scenario.loads
    assert isinstance(load, Open)  # noqa: S101 - it is what a trace makes
    assert isinstance(load.arrivals, Replayed)  # noqa: S101
    trace = load.arrivals.trace
    shared = " (with shared beginnings)" if trace.hash_ids else ""
    return (
        f"{load.arrivals}: {len(trace)} requests, {sum(trace.input_tokens) / len(trace):.0f} tokens in{shared} "
        f"and {sum(trace.output_tokens) / len(trace):.0f} out on average"
    )


def level_cells(scenario: Scenario, load: Load) -> tuple[str, str, str, str]:
    """Load, what is measured, requests and time of a level."""
    extent = scenario.extent
    around_ns = extent.warm_up_ns + extent.cool_down_ns
    if extent.requests is not None:
        return (
            load.label,
            f"{extent.requests} requests",
            f"{extent.requests} and the warm-up's",
            "as long as they take",
        )
    assert extent.duration_ns is not None  # noqa: S101 - the other of the two
    if isinstance(load, Closed):
        requests = "as the answers allow"
    elif isinstance(load.arrivals, Replayed):
        requests = f"up to {len(load.arrivals.trace)}"
    else:
        factor = load.arrivals.pattern.mean if isinstance(load.arrivals, Patterned) else 1.0
        requests = f"about {load.rate_per_s * factor * (extent.duration_ns + around_ns) / 1e9:.0f}"
    whole_ns = extent.duration_ns + around_ns
    return load.label, format_duration(extent.duration_ns), requests, f"{format_duration(whole_ns)} and the drain"


def _total(scenario: Scenario, models: int) -> str:
    extent, levels = scenario.extent, len(scenario.loads) * models
    drain = f"at most {format_duration(extent.drain_ns * levels)} of draining"
    if extent.duration_ns is None:
        return f"{_levels(levels)}, {(extent.requests or 0) * levels} measured requests, {drain}"
    load_ns = (extent.warm_up_ns + extent.duration_ns + extent.cool_down_ns) * levels
    return f"{_levels(levels)}, {format_duration(load_ns)} of load, {drain}"


def _levels(number: int) -> str:
    return "1 level" if number == 1 else f"{number} levels"


def settings_table(scenario: Scenario) -> str:
    """Every setting in force and where it comes from."""
    effective = scenario.effective()
    lines = []
    for section, values in effective.items():
        for name, value in values.items():
            origin = scenario.origins.get(f"{section}.{name}", "default")
            if section == "personas":
                origin = "scenario" if name in {persona.name for persona in scenario.work.personas} else "loadbench"
            lines.append((f"{section}.{name}", _clipped(_shown(value)), origin))
    return plain_table(lines, ("setting", "value", "from"))


def _shown(value: object) -> str:
    if isinstance(value, dict) and value:
        return "; ".join(f"{name} {part}" for name, part in value.items())
    return "-" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _clipped(text: str) -> str:
    """A prompt may be longer than a table is wide."""
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + "…"


def plain_table(lines: Sequence[Sequence[object]], headers: tuple[str, ...]) -> str:
    """A table of texts."""
    return str(tabulate(lines, headers=headers, tablefmt="simple", disable_numparse=True))
