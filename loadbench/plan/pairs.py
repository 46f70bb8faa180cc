"""Two sides measured in turn: their servers and models, how often, and in which order.

A *block* is one level on one side; a *pair* is the same level on both sides, one right after the other, with the same
prompts, lengths and arrivals; a *repeat* is one pair of every level. Each repeat has new prompts and arrivals (its seed
is the scenario's plus the repeat's number), so that the server's cache of the previous repeat does not help, and so
that repeats differ by everything that chance changes.

The order of the sides follows the Thue-Morse sequence (AB BA BA AB ...). Over every two repeats, both sides come first
equally often; over four, a steady drift of the machine cancels; over eight, a curved one does (Prouhet, 1851: the sums
of powers of the places are equal). Every other level begins with the other side; the seed decides which side begins.

Where only one side can be up at a time, starting it costs more than a level is worth. Then a side measures all levels
of a repeat in one *turn*, and the repeat is two turns (AB), each with a fresh start. A pair is still the same level
on both sides within one repeat, and the order of the turns is that of the sequence. So the two halves of every pair
lie one turn apart, in the one direction as often as in the other: what is said above of drifts holds, and drift
within a repeat makes differences within pairs larger, and so the intervals wider. Both sides measure the levels in
the same order, so that each level comes after the same ones. A side that ends a repeat and begins the next one is
started again all the same: a start decides where memory lies and which core does what, for as long as it runs, and
pairs that shared one would not be independent.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from loadbench.core.errors import BadInput
from loadbench.core.units import format_duration
from loadbench.plan.extra_body import limits_of
from loadbench.plan.scenario import leave_out, with_entries, with_not_used
from loadbench.plan.scenario_file import ScenarioFile, read
from loadbench.plan.server_command import chooses_port
from loadbench.plan.server_url import ServerUrl
from loadbench.plan.settings import DEFAULT, USUAL_REPEATS, Entry, Origin, Source, setting_of, settings
from loadbench.plan.sources import MAX_CONCURRENCY, api_of_route, elsewhere, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from loadbench.plan.scenario import Scenario
    from loadbench.plan.settings import Setting

SIDES: Final = ("a", "b")
# With a budget alone, there are no more repeats than this: a difference that needs more is too small to matter, unless
# a width of the interval was asked for.
_MOST_IN_BUDGET = 20
_MOST_UNTIL = 100
# The settings that a side may have of its own. Headers are not among them: they hold commas.
_PER_SIDE = {setting.name: setting for setting in settings("compare") if setting.per_side}
_NAMES = {setting.name for setting in settings()}
_VARIABLES = setting_of("target.server_env").name
# A server named without its scheme; reading the URL reports what is missing.
# Objects and headers have commas too: the next setting begins with its name.
_NEXT_SETTING = re.compile(r",(?=\s*\w+\s*=)")
_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/.*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """`repeats` times, or as often as fits into `budget_ns`. Before each block both sides rest for `settle_ns`.

    If `until` is given, the pairs end earlier where the ratio is known this closely. With `one_up` only one side is up
    at a time: a repeat is two turns, and `starts_ns` is what starting both sides once takes, as far as that is known.
    """

    repeats: int | None = None
    until: float | None = None
    budget_ns: int | None = None
    settle_ns: int = setting_of("compare.settle").default
    one_up: bool = False
    starts_ns: int = 0

    @classmethod
    def of(cls, scenario: Scenario, *, one_up: bool = False) -> Pairing:
        """As the scenario's settings say."""
        settings = scenario.compare
        return cls(
            repeats=settings.repeats,
            until=settings.until,
            budget_ns=settings.budget,
            settle_ns=settings.settle,
            one_up=one_up,
        )

    @property
    def most(self) -> int:
        """The largest number of repeats."""
        if self.repeats is not None:
            return self.repeats
        if self.budget_ns is None:
            return USUAL_REPEATS
        return _MOST_IN_BUDGET if self.until is None else _MOST_UNTIL

    def fits(self, *, spent_ns: int, repeat_ns: int) -> bool:
        """Whether one more repeat of this length is within the budget."""
        return self.budget_ns is None or spent_ns + repeat_ns <= self.budget_ns


@dataclass(frozen=True, slots=True)
class Block:
    """One level on one side; `repeat` and `level` count from 0, `side` is 0 for A and 1 for B."""

    repeat: int
    level: int
    side: int


def a_first(repeat: int, level: int, *, seed: int) -> bool:
    """Whether A comes before B in this pair."""
    begins = random.Random(f"{seed}/order").getrandbits(1)
    return (repeat.bit_count() + level + begins) % 2 == 0


def blocks(repeat: int, levels: int, *, seed: int, one_up: bool = False) -> Iterator[Block]:
    """The blocks of one repeat in their order; with `one_up` all of one side come before those of the other."""
    if one_up:
        first = 0 if a_first(repeat, 0, seed=seed) else 1
        yield from (Block(repeat, level, side) for side in (first, 1 - first) for level in range(levels))
        return
    for level in range(levels):
        first = 0 if a_first(repeat, level, seed=seed) else 1
        yield Block(repeat, level, first)
        yield Block(repeat, level, 1 - first)


def order_text(repeats: int, level: int, *, seed: int, one_up: bool = False) -> str:
    """The order at one level over the repeats, as in `AB BA BA AB`; with `one_up` it is that of the turns."""
    level = 0 if one_up else level
    return " ".join("AB" if a_first(repeat, level, seed=seed) else "BA" for repeat in range(repeats))


def one_up(a: Scenario, b: Scenario) -> bool | None:
    """Whether only one side is up at a time: loadbench starts a side's server, or both are models of one service that
    loads them on request. `None` where it takes the server's answer to know whether it is one."""
    if a.compare.keep_up or b.compare.keep_up:
        return False
    if a.target.server_cmd is not None or b.target.server_cmd is not None:
        return True
    if not a.target.load or a.simulated or b.simulated or a.target.kind == "openai":
        return False
    if (a.url and one_address(a.url)) != (b.url and one_address(b.url)):
        return False
    return True if a.target.kind == "foundry" else None


def at_repeat(scenario: Scenario, repeat: int) -> Scenario:
    """The scenario with this repeat's seed."""
    return replace(scenario, work=replace(scenario.work, seed=scenario.work.seed + repeat))


def planned_ns(scenario: Scenario, pairing: Pairing) -> int | None:
    """How long one repeat takes, with its starts, by the plan without drains; `None` for levels by number of
    requests."""
    extent = scenario.extent
    if extent.duration_ns is None:
        return None
    block_ns = pairing.settle_ns + extent.warm_up_ns + extent.duration_ns + extent.cool_down_ns
    return 2 * len(scenario.loads) * block_ns + pairing.starts_ns


def _server_hint(flag: str, other: Scenario) -> str:
    """How the side of this flag gets a server: by a command first, where the other side has one."""
    by_command = f"{flag}-cmd COMMAND starts one; or " if other.target.server_cmd is not None else ""
    return f"{by_command}{flag} URL, or --url where both are at one"


def check_budget(scenario: Scenario, pairing: Pairing) -> None:
    """Raises `BadInput` if not even one repeat fits into the budget."""
    one_ns = planned_ns(scenario, pairing) or 0
    if pairing.budget_ns is not None and one_ns > pairing.budget_ns:
        budget, one = format_duration(pairing.budget_ns), format_duration(one_ns)
        starts = f", of which starting both sides takes {format_duration(pairing.starts_ns)}" * (pairing.starts_ns > 0)
        raise BadInput(
            f"{scenario.place('compare.budget')} {budget}: one repeat takes {one}{starts}",
            hint=f"{USUAL_REPEATS} take {format_duration(USUAL_REPEATS * one_ns)}; or measure fewer levels",
        )


def is_target(text: str) -> bool:
    """Whether a side is written as a server to measure; if not, it is a saved run."""
    named, name = "://" in text or _HOST_AND_PORT.fullmatch(text) is not None, text.partition("=")[0].strip()
    return named or name in _PER_SIDE or (name in _NAMES and not Path(text).exists())


def one_address(url: str) -> str:
    """A URL in one spelling of its host and without /v1, so that two URLs of one server are equal."""
    url = ServerUrl.parse(url).base.rstrip("/").removesuffix("/v1").rstrip("/")
    return re.sub(r"^(https?://)localhost(?=[:/]|$)", r"\g<1>127.0.0.1", url, flags=re.IGNORECASE)


def sides(scenario: Scenario, *, a: str = "", b: str = "") -> tuple[Scenario, Scenario]:
    """The scenario of each side: a URL, or settings of the target as in `url=http://127.0.0.1:8080,model=phi`.

    A side takes from the scenario what it does not set itself. A setting of the scenario that has no effect on either
    side is overridden by a stronger source, or refused; so is one of the load or the prompts, which both sides share,
    if it has no effect on one. Raises `BadInput` for this, for what cannot be used, and for two sides that are
    equal unless `same` allows it.
    """
    texts = {"a": a, "b": b}
    for name, text in texts.items():
        for own, word, what in (("model", "model", "a model"), ("cmd", "server_cmd", "a command")):
            if getattr(scenario.compare, f"{name}_{own}") and word in _read(text, f"--{name}"):
                scenario = leave_out(scenario, f"compare.{name}_{own}", f"--{name} names {what} already")
    settled = False
    while not settled:
        (side_a, idle_a), (side_b, idle_b) = (_side(scenario, name, text) for name, text in texts.items())
        for flag, text, side, other in (("--a", a, side_a, side_b), ("--b", b, side_b, side_a)):
            if side.simulated and not other.simulated and "profile" not in text:
                raise BadInput(f"{flag}: names no server", hint=_server_hint(flag, other))
        settled = True
        for key, (reason, by) in (idle_b | idle_a).items():
            on_both = key in idle_a and key in idle_b
            if on_both or key.startswith(("load.", "work.")):
                where = "either side" if on_both else "side A" if key in idle_a else "side B"
                scenario = leave_out(scenario, key, f"has no effect on {where}: {reason}", by=by)
                settled = False
    is_same = _identity(side_a) == _identity(side_b)
    if is_same and not scenario.compare.same:
        raise BadInput(
            "both sides are the same server and model",
            hint="if you mean to see how much two measurements of one server differ, use --same",
        )
    if scenario.is_set("compare.same") and scenario.compare.same and not is_same:
        side_a, side_b = (
            leave_out(side, "compare.same", "has no effect: the two sides differ") for side in (side_a, side_b)
        )
    return side_a, side_b


def searched_sides(
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    file: Path | None = None,
    *,
    a: str = "",
    b: str = "",
    before: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
    key_variables: Sequence[str] = (),
) -> tuple[Scenario, Scenario]:
    """The scenario of the capacity search of each side, of which every setting is one of `loadbench capacity`.

    `before` has what `resolve` takes from searches that are continued. Raises `BadInput` for what cannot be used, and
    for two sides that are equal unless `same` allows it.
    """
    of_sides = {f"{name}_{own}" for name in SIDES for own in ("model", "cmd")} | {"same"}
    of_file = {} if file is None else {entry.setting.key: entry for entry in ScenarioFile.read(file).entries()}
    own_settings = {setting.name for setting in settings("capacity")} | of_sides | {MAX_CONCURRENCY}
    for name in flags:
        if name not in own_settings:
            setting = next(one for one in settings("compare") if one.name == name)
            reason = setting.why_not("capacity") if setting.refused else "has no effect with --capacity"
            raise BadInput(f"{setting.flag}: {reason}", hint="leave it out")
    made = []
    for name, text, reused in zip(SIDES, (a, b), before, strict=True):
        own: dict[str, object] = {**_read(text, f"--{name}")}
        for word, key in (("model", f"compare.{name}_model"), ("server_cmd", f"compare.{name}_cmd")):
            of_side = setting_of(key)
            named = flags.get(of_side.name) or environment.get(of_side.variable)
            if named and word in own and of_side.name in flags:
                raise BadInput(f"{of_side.flag}: --{name} has its own already", hint="leave one of them out")
            if not named and key in of_file and of_side.guarded and word not in own:
                # It stays the file's: the user confirms such a command.
                own[word] = replace(of_file[key], setting=_PER_SIDE[word])
                continue
            named = named or (of_file[key].value if key in of_file else None)
            if named:
                own.setdefault(word, (named,) if word == "model" else named)
        groups = {_group(_PER_SIDE[word]) for word in own} - {""}
        shared = {
            word: value
            for word, value in flags.items()
            if word not in of_sides | {setting.name for setting in settings("capacity") if _group(setting) in groups}
        }
        try:
            scenario = resolve(
                flags={**shared, **own},
                environment=environment,
                file=file,
                command="capacity",
                key_variables=key_variables,
                **reused,
            )
        except BadInput as error:
            error.message = f"{name.upper()}: {error.message}"
            raise
        if len(scenario.target.model or ()) > 1 or scenario.target.model == ("all",):
            place = scenario.place("target.model")
            raise BadInput(f"{place}: one model is compared with one other", hint="choose with --a-model and --b-model")
        if scenario.report.name == setting_of("report.name").default_in("capacity"):
            name_of_both = setting_of("report.name").default_in("compare")
            scenario = replace(scenario, report=replace(scenario.report, name=name_of_both))
        keys = {f"compare.{word}" for word in of_sides}
        made.append(replace(scenario, unused=tuple(one for one in scenario.unused if one.key not in keys)))
    side_a, side_b = made
    for flag, text, side, other in (("--a", a, side_a, side_b), ("--b", b, side_b, side_a)):
        if side.simulated and not other.simulated and "profile" not in text:
            raise BadInput(f"{flag}: names no server", hint=_server_hint(flag, other))
    if _identity(side_a) == _identity(side_b) and not flags.get("same"):
        raise BadInput(
            "both sides are the same server and model",
            hint="if you mean to see how much two searches of one server differ, use --same",
        )
    return side_a, side_b


def settled_sides(a: Scenario, b: Scenario) -> tuple[Scenario, Scenario]:
    """Two sides that have all of their settings already, as those of a comparison that is continued.

    Raises `BadInput` for a flag that has no effect on one of them.
    """
    sides = []
    for name, scenario in zip(SIDES, (a, b), strict=True):
        side, idle = _side(scenario, name, "")
        for key, (reason, by) in idle.items():
            leave_out(scenario, key, f"has no effect on side {name.upper()}: {reason}", by=by)
        sides.append(side)
    return sides[0], sides[1]


def _identity(scenario: Scenario) -> tuple[object, ...]:
    target = scenario.target
    url = None if scenario.url is None else one_address(scenario.url)
    query = "" if scenario.url is None else ServerUrl.parse(scenario.url).query
    own = (query, target.api, target.extra_body, target.max_tokens_field, target.server_cmd, target.server_env)
    return (url, target.model, *own, target.profile if scenario.simulated else None)


def _side(scenario: Scenario, name: str, text: str) -> tuple[Scenario, dict[str, tuple[str, Source]]]:
    """The scenario of a side, and the shared settings without effect on it: why, and the source that decides this."""
    flag = f"--{name}"
    own: dict[str, Entry] = {}
    for word, value in _read(text, flag).items():
        setting = _PER_SIDE[word]
        try:
            own[setting.key] = Entry(setting, setting.type.read(value), Origin(Source.FLAG, flag, word))
        except ValueError as error:
            raise BadInput(f"{flag}: {word}: {error}") from None
        if setting.one_value and len(own[setting.key].value) > 1:
            raise BadInput(f"{flag}: {word}: {setting.one_value['compare']}", hint="give one")
    if limits_of(own["target.extra_body"].value if "target.extra_body" in own else ()):
        raise BadInput(f"{flag}: extra_body: both sides have the same limits of output", hint="use --max-tokens")
    url = own.get("target.url") or scenario.values.entries.get("target.url")
    routed = None if url is None else api_of_route(url)
    if routed is not None and {"target.url", "target.api"} & set(own):
        given = own.setdefault("target.api", replace(routed, origin=Origin(Source.FLAG, flag, "url")))
        if given.value != routed.value:
            hint = "leave out api, or give the URL without its route"
            raise BadInput(f"{flag}: api is {given.value}, and the URL ends in a route of {routed.value}", hint=hint)
    for key, of_side in (("target.model", f"compare.{name}_model"), ("target.server_cmd", f"compare.{name}_cmd")):
        value = getattr(scenario.compare, of_side.partition(".")[2])
        if value:
            origin = scenario.origins.get(of_side, Origin(Source.FLAG, setting_of(of_side).flag))
            own[key] = read(setting_of(key), value, origin)

    # What the side sets, and what that excludes.
    groups: dict[str, Entry] = {}
    for entry in own.values():
        group = _group(entry.setting)
        if group and not entry.is_off and groups.setdefault(group, entry) is not entry:
            raise BadInput(
                f"{flag}: {groups[group].setting.name} and {entry.setting.name} exclude each other", hint="give one"
            )
    shared = {key: entry for key, entry in scenario.values.entries.items() if scenario.is_set(key)}
    left = _left_to_other(own, shared)
    idle: dict[str, tuple[str, Source]] = dict.fromkeys(left, (f"side {name.upper()} has another server", Source.FLAG))
    changes: dict[str, Entry | None] = dict.fromkeys(left)
    for setting in settings("compare"):
        if setting.key in own or (setting.section == "target" and _group(setting) in groups):
            changes[setting.key] = own.get(setting.key)
            if setting.key in shared and not shared[setting.key].is_off:
                winner = own.get(setting.key) or groups[_group(setting)]
                idle[setting.key] = f"{winner.origin.where} sets {winner.setting.name}", Source.FLAG

    # What then has no effect.
    side, unmet = with_entries(scenario, changes), True
    while unmet:
        unmet = False
        for key, entry in side.values.entries.items():
            need = None if entry.is_off or not side.is_set(key) else entry.setting.unmet(side.values)
            if need is None:
                continue
            if key in own:
                raise BadInput(f"{flag}: {entry.setting.name}: has no effect: {need.reason}", hint=need.remedy)
            by = min(
                (side.origins.get(other, DEFAULT).source for other in need.on if other != key), default=Source.DEFAULT
            )
            unmet, idle[key] = True, (need.reason, by)
            side = with_entries(side, {key: None})
    need, cast = setting_of("work.turns").unmet(side.values), side.work.cast
    names = [persona.name for persona in cast.personas if persona.turns is not None] if cast is not None else []
    if need is not None and names:
        raise BadInput(f"{flag}: persona {names[0]} has turns, and {need.reason}", hint="leave out its turns")
    if len(side.target.model or ()) > 1:
        place = side.place("target.model")
        raise BadInput(f"{place}: one model is compared with one other", hint="choose with --a-model and --b-model")
    return with_not_used(side), idle


def _left_to_other(own: Mapping[str, Entry], shared: Mapping[str, Entry]) -> list[str]:
    """What is for the shared server alone, since a side has another one and no flag gives it: the shared keys, and the
    address, where a command of the side has a port of its own."""
    url, command, common = own.get("target.url"), own.get("target.server_cmd"), shared.get("target.url")
    if common is None or common.origin.source is Source.FLAG:
        return []
    keys = [key for key, one in shared.items() if one.setting.bound and one.origin.source is common.origin.source]
    if url is not None:
        return keys if elsewhere(url.value, common.value) else []
    is_weaker = command is not None and common.origin.source > command.origin.source
    return ["target.url", *keys] if is_weaker and command is not None and chooses_port(command.value) else []


def _group(setting: Setting) -> str:
    """The settings of which a side may have one only: a profile stands for a server."""
    return "target" if setting.name == "profile" else setting.group


def _read(text: str, flag: str) -> dict[str, str | list[str]]:
    """The settings that a side is written with. Variables of its server are repeated, or follow the first one."""
    if not text:
        return {}
    if text.partition("=")[0].strip() not in _NAMES:
        return {"url": text}
    written: dict[str, str | list[str]] = {}
    variables: list[str] = []
    name = ""
    for part in _NEXT_SETTING.split(text):
        before, (name, equals, value) = name, part.partition("=")
        name = name.strip()
        if name == _VARIABLES or (before == _VARIABLES and name not in _NAMES):
            variables.append(value if name == _VARIABLES else part.strip())
            written[_VARIABLES], name = variables, _VARIABLES
            continue
        if not equals or name not in _PER_SIDE:
            hint = f"known: {', '.join(_PER_SIDE)}"
            raise BadInput(f"{flag}: {part!r}: want settings as in url=URL,model=ID", hint=hint)
        if name in written:
            raise BadInput(f"{flag}: {name} is given twice", hint="give it once")
        written[name] = value
    return written
