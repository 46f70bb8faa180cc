"""Two sides measured in turn: their servers and models, how often, and in which order.

A *block* is one level on one side; a *pair* is the same level on both sides, one right after the other, with the same
prompts, lengths and arrivals; a *repeat* is one pair of every level. Each repeat has new prompts and arrivals (its seed
is the scenario's plus the repeat's number), so that the server's cache of the previous repeat does not help, and so
that repeats differ by everything that chance changes.

The order of the sides follows the Thue-Morse sequence (AB BA BA AB ...). Over every two repeats, both sides come first
equally often; over four, a steady drift of the machine cancels; over eight, a curved one does (Prouhet, 1851: the sums
of powers of the places are equal). Every other level begins with the other side; the seed decides which side begins.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from loadbench.core.errors import BadInput
from loadbench.core.units import format_duration
from loadbench.plan.scenario import with_not_used
from loadbench.plan.settings import DEFAULT, USUAL_REPEATS, Origin, Source, setting_of, settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from loadbench.plan.scenario import Scenario

SIDES = ("a", "b")
# With a budget alone, there are no more repeats than this: a difference that needs more is too small to matter.
_MOST_IN_BUDGET = 20
# The settings that a side may have of its own. Headers are not among them: they hold commas.
_PER_SIDE = {setting.name: setting for setting in settings("compare") if setting.per_side}
# A server named without its scheme; reading the URL reports what is missing.
_HOST_AND_PORT = re.compile(r"[\w.-]+:\d+(/.*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairing:
    """`repeats` times, or as often as fits into `budget_ns`. Before each block both sides rest for `settle_ns`."""

    repeats: int | None = None
    budget_ns: int | None = None
    settle_ns: int = setting_of("compare.settle").default

    @classmethod
    def of(cls, scenario: Scenario) -> Pairing:
        """As the scenario's settings say."""
        settings = scenario.compare
        return cls(repeats=settings.repeats, budget_ns=settings.budget, settle_ns=settings.settle)

    @property
    def most(self) -> int:
        """The largest number of repeats."""
        if self.repeats is not None:
            return self.repeats
        return USUAL_REPEATS if self.budget_ns is None else _MOST_IN_BUDGET

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


def blocks(repeat: int, levels: int, *, seed: int) -> Iterator[Block]:
    """The blocks of one repeat in their order."""
    for level in range(levels):
        first = 0 if a_first(repeat, level, seed=seed) else 1
        yield Block(repeat, level, first)
        yield Block(repeat, level, 1 - first)


def order_text(repeats: int, level: int, *, seed: int) -> str:
    """The order at one level over the repeats, as in `AB BA BA AB`."""
    return " ".join("AB" if a_first(repeat, level, seed=seed) else "BA" for repeat in range(repeats))


def at_repeat(scenario: Scenario, repeat: int) -> Scenario:
    """The scenario with this repeat's seed."""
    return replace(scenario, work=replace(scenario.work, seed=scenario.work.seed + repeat))


def planned_ns(scenario: Scenario, pairing: Pairing) -> int | None:
    """How long one repeat takes, by the plan without drains; `None` for levels by number of requests."""
    extent = scenario.extent
    if extent.duration_ns is None:
        return None
    block_ns = pairing.settle_ns + extent.warm_up_ns + extent.duration_ns + extent.cool_down_ns
    return 2 * len(scenario.loads) * block_ns


def check_budget(scenario: Scenario, pairing: Pairing) -> None:
    """Raises `BadInput` if not even one repeat fits into the budget."""
    one_ns = planned_ns(scenario, pairing) or 0
    if pairing.budget_ns is not None and one_ns > pairing.budget_ns:
        budget, one = format_duration(pairing.budget_ns), format_duration(one_ns)
        raise BadInput(
            f"{scenario.place('compare.budget')} {budget}: one repeat takes {one}",
            hint=f"{USUAL_REPEATS} take {format_duration(USUAL_REPEATS * one_ns)}; or measure fewer levels",
        )


def is_target(text: str) -> bool:
    """Whether a side is written as a server to measure; if not, it is a saved run."""
    named = "://" in text or _HOST_AND_PORT.fullmatch(text) is not None
    return named or text.partition("=")[0].strip() in _PER_SIDE


def one_address(url: str) -> str:
    """A URL in one spelling of its host, so that two URLs of one server are equal."""
    return re.sub(r"^(https?://)localhost(?=[:/]|$)", r"\g<1>127.0.0.1", url.rstrip("/"), flags=re.IGNORECASE)


def sides(scenario: Scenario, *, a: str = "", b: str = "") -> tuple[Scenario, Scenario]:
    """The scenario of each side: a URL, or settings of the target as in `url=http://127.0.0.1:8080,model=phi`.

    What a side does not say, the scenario says. Raises `BadInput` for what cannot be used, for settings that have no
    effect on either side, and for two sides that are equal unless `same` allows it.
    """
    both = (
        _side(scenario, a, scenario.compare.a_model, flag="--a"),
        _side(scenario, b, scenario.compare.b_model, flag="--b"),
    )
    for flag, text, one, other in (("--a", a, *both), ("--b", b, both[1], both[0])):
        if one.simulated and not other.simulated and "profile" not in text:
            raise BadInput(f"{flag}: names no server", hint=f"{flag} URL, or --url where both are at one")
    for key, shared in scenario.values.entries.items():
        needs = [setting_of(key).unmet(side.values) for side in both]
        if scenario.is_set(key) and not shared.is_off and needs[0] is not None and needs[1] is not None:
            message = f"{scenario.place(key)}: has no effect on either side: {needs[0].reason}"
            raise BadInput(message, hint=needs[0].remedy)
    if _identity(both[0]) == _identity(both[1]) and not scenario.compare.same:
        raise BadInput(
            "both sides are the same server and model",
            hint="if you mean to see how much two measurements of one server differ, use --same",
        )
    return both


def _identity(scenario: Scenario) -> tuple[object, ...]:
    target = scenario.target
    url = None if target.url is None else one_address(target.url)
    return (url, target.model, target.api, target.profile if url is None else None)


def _side(scenario: Scenario, text: str, model: str | None, *, flag: str) -> Scenario:
    written = _read(text, flag)
    if model:
        if "model" in written:
            raise BadInput(f"{flag}-model: {flag} names a model already", hint="give one of them")
        written["model"] = model
    origins = dict(scenario.origins)
    changes: dict[str, Any] = {}
    for name, value in written.items():
        setting = _PER_SIDE[name]
        try:
            changes[name] = setting.type.read(value)
        except ValueError as error:
            raise BadInput(f"{flag}: {name}: {error}") from None
        origins[setting.key] = Origin(Source.FLAG, flag)
    if "profile" in changes:
        if "url" in changes:
            raise BadInput(f"{flag}: url and profile: one is a server and the other simulates one", hint="give one")
        changes["url"] = None
        origins["target.url"] = DEFAULT
    side = with_not_used(replace(scenario, target=replace(scenario.target, **changes), origins=origins))
    for name in changes:
        need = _PER_SIDE[name].unmet(side.values)
        if need is not None:
            raise BadInput(f"{flag}: {name}: has no effect: {need.reason}", hint=need.remedy)
    if len(side.target.model or ()) > 1:
        raise BadInput(f"{flag}: one model is compared with one other", hint=f"choose with {flag}-model")
    return side


def _read(text: str, flag: str) -> dict[str, str]:
    """The settings that a side is written with."""
    if not text:
        return {}
    if text.partition("=")[0].strip() not in _PER_SIDE:
        return {"url": text}
    written: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        name = name.strip()
        if not equals or name not in _PER_SIDE:
            hint = f"known: {', '.join(_PER_SIDE)}"
            raise BadInput(f"{flag}: {part!r}: want settings as in url=URL,model=ID", hint=hint)
        if name in written:
            raise BadInput(f"{flag}: {name} is given twice", hint="give it once")
        written[name] = value
    return written
