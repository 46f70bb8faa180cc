"""What settings bring with them: a persona its lengths and its think time, a pattern and a trace the level's length.

A value that somebody gave is used in place of what another setting brings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from loadbench.core.errors import BadInput
from loadbench.core.units import format_duration
from loadbench.plan.distribution import Constant
from loadbench.plan.personas import PERSONA_SETTINGS
from loadbench.plan.scenario import Unused
from loadbench.plan.scenario_file import nearest
from loadbench.plan.settings import Entry, Origin, Source, Values, setting_of
from loadbench.plan.trace_files import read_trace
from loadbench.plan.traces import Replayed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.plan.personas import Persona


def bring(entries: dict[str, Entry], personas: Mapping[str, Persona], *, command: str) -> list[Unused]:
    """Add what the given settings bring with them; returns the settings that have no effect then.

    Raises `BadInput` for unknown personas, and for conversations where they cannot be had.
    """
    values = Values(command, entries, personas)
    _bring_personas(entries, personas, values)
    scale = values.value("load.time_scale")
    unused = []
    if values.loop == "trace":
        limit, form = values.value("load.limit"), values.value("load.trace_format")
        trace = read_trace(values.value("load.trace"), limit=limit, form=form)
        unused = _bring_window(entries, Replayed(trace, scale))
    elif (pattern := values.value("load.pattern")) is not None:
        try:
            pass_ns = pattern.scaled(scale).length_ns
        except ValueError:
            place = entries["load.time_scale"].origin.place
            raise BadInput(f"{place}: nothing is left of the pattern", hint="use a smaller factor") from None
        if not {"load.duration", "load.requests"} & set(entries):
            _add(entries, "load.duration", pass_ns, "pattern")
    warm_up, ramp = entries.get("load.warm_up"), setting_of("load.ramp").default_in(command)
    if warm_up is not None and values.loop == "users" and "load.ramp" not in entries and warm_up.value < (ramp or 0):
        _add(entries, "load.ramp", warm_up.value, "the warm-up")
    return unused


def _add(entries: dict[str, Entry], key: str, value: Any, by: str) -> None:
    entries[key] = Entry(setting_of(key), value, Origin(Source.COMMAND, by))


def _bring_personas(entries: dict[str, Entry], personas: Mapping[str, Persona], values: Values) -> None:
    """A persona's settings become the scenario's own unless they are given; in a mix each persona keeps its own."""
    persona, mix = entries.get("work.persona"), entries.get("work.mix")
    if persona is None and mix is None:
        return
    names = [persona.value] if persona is not None else [share.name for share in mix.value] if mix is not None else []
    by = (persona or mix).origin.place  # type: ignore[union-attr]
    for name in names:
        if name not in personas:
            raise BadInput(f"{by}: there is no persona {name!r}", hint=nearest(name, personas))
        if personas[name].turns is not None and "work.turns" not in entries:
            need = setting_of("work.turns").unmet(values)
            if need is not None:
                raise BadInput(f"{by}: {name} has turns, and {need.reason}", hint=need.remedy_in(values.command))
    if "work.max_tokens" in entries and "work.output_tokens" not in entries:
        limit = entries["work.max_tokens"]
        entries["work.output_tokens"] = Entry(setting_of("work.output_tokens"), Constant(limit.value), limit.origin)
    if persona is None:
        return
    fixed = {"work.prompt", "work.prompts"} & set(entries)
    for name in PERSONA_SETTINGS:
        value = getattr(personas[persona.value], name)
        key = f"{'load' if name == 'think' else 'work'}.{name}"
        idle = (name == "think" and values.loop != "users") or (name == "input_tokens" and fixed)
        if value is not None and not idle and key not in entries:
            _add(entries, key, value, f"persona {persona.value}")


def _bring_window(entries: dict[str, Entry], trace: Replayed) -> list[Unused]:
    """The whole trace is measured but its warm-up, and nothing after its end, where there is no load.

    Returns the duration that was given if it is longer.
    """
    if "load.warm_up" not in entries:
        _add(entries, "load.warm_up", 0, "trace")
    warm_up = entries["load.warm_up"]
    left_ns = trace.window_ns - warm_up.value
    if left_ns <= 0:
        lasts = format_duration(trace.window_ns)
        raise BadInput(
            f"{warm_up.origin.place}: nothing of the trace, which lasts {lasts}, would be left to measure",
            hint="use a shorter warm-up",
        )
    duration, api = entries.get("load.duration"), entries.get("target.api")
    unused = []
    if trace.has_sessions and api is not None and api.value == "completions":
        raise BadInput(
            f"{api.origin.place}: the trace has sessions, and the completions endpoint takes one text, and no messages",
            hint="leave it out, or give --api chat",
        )
    if duration is not None and duration.value > left_ns and not trace.has_sessions:
        unused.append(Unused("load.duration", duration.origin, f"the trace ends after {format_duration(left_ns)}"))
    if duration is None or (duration.value >= left_ns and not trace.has_sessions):
        cool_down = entries.get("load.cool_down")
        if cool_down is not None and cool_down.value:
            raise BadInput(
                f"{cool_down.origin.place}: has no effect: the trace is measured to its end",
                hint="leave it out, or use a shorter --duration",
            )
        if trace.has_sessions:  # whose end only the server decides
            _add(entries, "load.requests", len(trace.trace), "trace")
        else:
            _add(entries, "load.duration", left_ns, "trace")
    return unused
