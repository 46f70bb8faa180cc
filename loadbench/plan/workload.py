"""How the settings of load and work hang together: what some bring with them, and which go with which.

A persona brings its lengths and its think time, a pattern and a trace bring the length of a level; what anybody says
himself is put in their place. And what would be ignored is refused: a think time where nobody waits for an answer,
arrivals where users ask. Only what somebody said at a farther place than the load itself, as in a scenario file whose
users a flag has turned into a rate, falls out of force with the load that it was for.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, NamedTuple

from loadbench.core.errors import BadInput
from loadbench.core.units import format_duration
from loadbench.plan.distribution import Constant
from loadbench.plan.personas import PERSONAS, SETTINGS, Persona
from loadbench.plan.setting_types import THINK, TOKENS, TURNS
from loadbench.plan.traces import Replayed, read_trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from loadbench.plan.pattern import Pattern

    Chosen = dict[str, tuple[object, str]]

# By origin, as it begins; whatever has been brought by something else comes last.
_RANKS = ("flag", "environment", "scenario")
_LOADS = ("load.users", "load.rate", "load.trace")


class _Need(NamedTuple):
    """A setting, with which loads it goes, and why it goes with no other."""

    loads: tuple[str, ...]
    why: str
    hint: str


_FIXED = _Need(_LOADS[:2], "a trace says itself what was asked, and when", "leave it out, or give no trace")
_NEEDS: dict[str, _Need] = {
    "load.arrivals": _Need(
        ("load.rate",), "users come when they have read and thought, not by arrivals", "give --rate, or --think"
    ),
    "load.pattern": _Need(("load.rate",), "a pattern changes a rate, and there is none", "give --rate"),
    "load.think": _Need(("load.users",), "without users nobody thinks between two requests", "give --users"),
    "work.turns": _Need(
        ("load.users",), "a conversation goes on when its user has read the answer, not by a rate", "give --users"
    ),
    "load.limit": _Need(("load.trace",), "there is no trace to take the first requests of", "give --trace"),
    "load.requests": _Need(_LOADS[:2], "a trace has its own number of requests", "give --limit"),
    **dict.fromkeys(
        (
            *("work.prompt", "work.prompts", "work.input_tokens", "work.output_tokens", "work.max_tokens"),
            *("work.persona", "work.mix", "work.deterministic"),
        ),
        _FIXED,
    ),
}


def complete(chosen: Chosen, own: Iterable[Persona] = (), *, searches: bool = False) -> None:
    """Add to the settings that were chosen, by key as (value, origin), what these bring with them.

    A command that `searches` for a load has none yet, but says what it counts. Raises `BadInput` for settings that
    nothing is done with, and for personas that nobody knows; `own` are the scenario's.
    """
    _refuse_routes(chosen)
    load = _searched(chosen) if searches else _given(chosen)
    _refuse_unused(chosen, load)
    _bring_persona(chosen, PERSONAS | {persona.name: persona for persona in own}, load)
    _bring_extent(chosen)


class _Load(NamedTuple):
    """What the settings are to go with: which load, how near it was said, and how to ask for another."""

    key: str
    nearness: int
    remedy: str = ""


def _given(chosen: Chosen) -> _Load:
    key = next((key for key in _LOADS if key in chosen), _LOADS[0])
    return _Load(key, _rank(chosen[key][1]) if key in chosen else len(_RANKS))


def _searched(chosen: Chosen) -> _Load:
    """Its own are the flags; what a scenario says of another load is out of force with that."""
    if chosen.get("load.keep_warm", (None, ""))[0] is not None:
        place = _place(chosen["load.keep_warm"][1])
        raise BadInput(f"{place}: a search leaves no model idle, and keeps none warm", hint="leave it out")
    for key in ("load.trace", "load.limit", "load.pattern", "load.time_scale"):
        chosen.pop(key, None)
    by = chosen.get("capacity.by", ("users", ""))[0]
    return _Load(f"load.{by}", 0, f"leave it out, or search --by {'rate' if by == 'users' else 'users'}")


def _rank(origin: str) -> int:
    source = origin.partition(" ")[0]
    return _RANKS.index(source) if source in _RANKS else len(_RANKS)


def _place(origin: str) -> str:
    return origin.partition(" ")[2] or origin


def _refuse_unused(chosen: Chosen, load: _Load) -> None:
    for key, need in _NEEDS.items():
        if key not in chosen or load.key in need.loads:
            continue
        if _rank(chosen[key][1]) > load.nearness:
            del chosen[key]
        elif chosen[key][0] is not False:
            told = _FIXED if load.key == "load.trace" and key != "load.requests" else need
            raise BadInput(f"{_place(chosen[key][1])}: {told.why}", hint=load.remedy or told.hint)
    _refuse_idle_scale(chosen, load.nearness)
    for key in ("work.turns", "work.system"):
        if key in chosen:
            _refuse_without_chat(chosen, _place(chosen[key][1]))


def _refuse_idle_scale(chosen: Chosen, nearness: int) -> None:
    if "load.time_scale" not in chosen or {"load.pattern", "load.trace"} & set(chosen):
        return
    origin = chosen["load.time_scale"][1]
    if _rank(origin) > nearness:
        del chosen["load.time_scale"]
    else:
        raise BadInput(
            f"{_place(origin)}: there is no course of time to be made faster", hint="give --pattern, or replay a trace"
        )


def _refuse_routes(chosen: Chosen) -> None:
    """A model in this process is asked in one shape; other routes are a server's."""
    api, origin = chosen.get("target.api", ("chat", ""))
    if "target.adapter" in chosen and api not in {"chat", "completions"}:
        raise BadInput(
            f"{_place(origin)}: an adapter has no route {api!r}", hint="leave it out: a model in this process has none"
        )


def _refuse_without_chat(chosen: Chosen, place: str) -> None:
    """Plain completions have one text, and no messages."""
    if chosen.get("target.api", ("chat", ""))[0] == "completions":
        raise BadInput(
            f"{place}: the completions endpoint takes one text, and no messages",
            hint="leave it out, or give --api chat",
        )


def _bring_persona(chosen: Chosen, known: Mapping[str, Persona], load: _Load) -> None:
    """What a persona says becomes the scenario's own, where that says nothing; of a mix each keeps its own."""
    named = _named(chosen)
    for name, origin in named:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            raise BadInput(f"{_place(origin)}: there is no persona {name!r}", hint=hint)
        if known[name].turns is not None:
            _refuse_turns(chosen, name, origin, load)
    if named and "work.max_tokens" in chosen and "work.output_tokens" not in chosen:
        limit, origin = chosen["work.max_tokens"]
        assert isinstance(limit, int)  # noqa: S101 - its kind reads nothing else
        chosen["work.output_tokens"] = Constant(limit), origin
    if "work.persona" in chosen:
        _bring(chosen, known[named[0][0]], closed=load.key == "load.users")


def _named(chosen: Chosen) -> list[tuple[str, str]]:
    """(name, origin) of every persona that is asked for."""
    if "work.persona" in chosen:
        name, origin = chosen["work.persona"]
        return [(str(name), origin)]
    shares, origin = chosen.get("work.mix", ((), ""))
    return [(share.name, origin) for share in shares]  # type: ignore[attr-defined]


def _refuse_turns(chosen: Chosen, name: str, origin: str, load: _Load) -> None:
    _refuse_without_chat(chosen, f"{_place(origin)}: {name} has turns")
    need = _NEEDS["work.turns"]
    if load.key not in need.loads:
        raise BadInput(f"{_place(origin)}: {name} has turns, and {need.why}", hint=load.remedy or need.hint)


def _bring(chosen: Chosen, persona: Persona, *, closed: bool) -> None:
    fixed = {"work.prompt", "work.prompts"} & set(chosen)
    for name in SETTINGS:
        section = "load" if name == "think" else "work"
        idle = (name == "think" and not closed) or (name == "input_tokens" and fixed)
        value = getattr(persona, name)
        if value is not None and not idle:
            chosen.setdefault(f"{section}.{name}", (value, f"persona {persona.name}"))


def _bring_extent(chosen: Chosen) -> None:
    """One pass of the pattern, or the whole of the trace."""
    scale, place = chosen.get("load.time_scale", (1.0, ""))
    assert isinstance(scale, float)  # noqa: S101 - its kind reads nothing else
    if "load.trace" in chosen:
        path: Path = chosen["load.trace"][0]  # type: ignore[assignment]
        limit: int | None = chosen.get("load.limit", (None, ""))[0]  # type: ignore[assignment]
        _bring_window(chosen, Replayed(read_trace(path, limit=limit), scale))
    elif "load.pattern" in chosen:
        pattern: Pattern = chosen["load.pattern"][0]  # type: ignore[assignment]
        try:
            pass_ns = pattern.scaled(scale).length_ns
        except ValueError:
            raise BadInput(f"{_place(place)}: nothing is left of the pattern", hint="make it less fast") from None
        if not {"load.duration", "load.requests"} & set(chosen):
            chosen["load.duration"] = pass_ns, "pattern"


def _bring_window(chosen: Chosen, trace: Replayed) -> None:
    """All of a trace is measured but its warm-up, and nothing behind its end: there a rate would be of nothing."""
    warm_up_ns, place = chosen.setdefault("load.warm_up", (0, "trace"))
    assert isinstance(warm_up_ns, int)  # noqa: S101 - its kind reads nothing else
    left_ns = trace.window_ns - warm_up_ns
    if left_ns <= 0:
        lasts = f"which lasts {format_duration(trace.window_ns)}"
        raise BadInput(f"{_place(place)}: nothing of the trace, {lasts}, would be left to measure", hint="warm up less")
    duration_ns = chosen.get("load.duration", (left_ns, ""))[0]
    assert isinstance(duration_ns, int)  # noqa: S101 - its kind reads nothing else
    if duration_ns >= left_ns:
        chosen["load.duration"] = left_ns, "trace"


# A scenario file's own personas.

_READERS: Mapping[str, Callable[[object], object]] = {
    "input_tokens": TOKENS.read,
    "output_tokens": TOKENS.read,
    "think": THINK.read,
    "turns": TURNS.read,
}


def read_persona(name: str, table: object, *, place: Callable[[str], str]) -> Persona:
    """One persona from its table in a scenario file; `place` says where a key of it stands. Raises `BadInput`."""
    if not isinstance(table, dict) or not table:
        raise BadInput(f"{place('')}: personas.{name}: found {table!r}, want a table of its settings")
    if not name or any(sign in name for sign in ":,") or name != name.strip():
        raise BadInput(f"{place('')}: {name!r} cannot be a persona's name", hint="write it without colons and commas")
    read: dict[str, object] = {}
    for key, value in table.items():
        if key not in _READERS:
            near = difflib.get_close_matches(key, SETTINGS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(SETTINGS)}"
            raise BadInput(f"{place(key)}: personas.{name}.{key}: an unknown key", hint=hint)
        try:
            read[key] = _READERS[key](value)
        except ValueError as error:
            raise BadInput(f"{place(key)}: personas.{name}.{key}: {error}") from None
    return Persona(name=name, **read)  # type: ignore[arg-type]
