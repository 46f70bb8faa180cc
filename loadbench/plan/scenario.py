"""The scenario: everything that decides what a run does, in one frozen value.

`loadbench.plan.settings` declares the settings that it holds, `loadbench.plan.sources` decides which source wins.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from loadbench.core.errors import BadInput
from loadbench.core.units import NS_PER_S
from loadbench.plan import setting_types
from loadbench.plan.load import Closed, LevelDuration, Load, Open
from loadbench.plan.pattern import Patterned
from loadbench.plan.settings import (
    DEFAULT,
    SECTIONS,
    CapacitySettings,
    CompareSettings,
    CostSettings,
    Entry,
    GridSettings,
    JudgeSettings,
    LimitSettings,
    LoadSettings,
    ObjectiveSettings,
    Origin,
    ReportSettings,
    Source,
    TargetSettings,
    TelemetrySettings,
    Values,
    WorkSettings,
    WorkshopSettings,
    setting_of,
    settings,
)
from loadbench.plan.trace_files import read_trace
from loadbench.plan.traces import Replayed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.plan.distribution import Distribution
    from loadbench.plan.objective import Objective

# The warm-up if none is given: connections are made, caches fill, users start.
LEAST_WARM_UP_NS = 2 * NS_PER_S
NOT_USED = "not used"


class Unused(NamedTuple):
    """A value that somebody gave and that is not used, and why: a stronger source, or the command does not take it."""

    key: str
    origin: Origin
    reason: str

    def __str__(self) -> str:
        """As `--dry-run` lists it: `load.users (s.toml:5): overridden by --rate`."""
        where = self.origin.where
        return f"{self.key} ({where}): {self.reason}" if self.origin.key else f"{where}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A whole scenario for one command; `question` is what it answers.

    `origins` has where each value comes from, by key; `not_used` are the keys of settings that have no effect here, and
    `unused` the values that were given for such settings.
    """

    target: TargetSettings = TargetSettings()
    load: LoadSettings = LoadSettings()
    work: WorkSettings = WorkSettings()
    limits: LimitSettings = LimitSettings()
    slo: ObjectiveSettings = ObjectiveSettings()
    capacity: CapacitySettings = CapacitySettings()
    compare: CompareSettings = CompareSettings()
    grid: GridSettings = GridSettings()
    workshop: WorkshopSettings = WorkshopSettings()
    judge: JudgeSettings = JudgeSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    cost: CostSettings = CostSettings()
    report: ReportSettings = ReportSettings()
    question: str = ""
    command: str = "sweep"
    origins: dict[str, Origin] = dataclasses.field(default_factory=dict)
    not_used: frozenset[str] = frozenset()
    unused: tuple[Unused, ...] = ()

    @property
    def simulated(self) -> bool:
        """Whether the simulated server is measured."""
        target = self.target
        return target.url is None and target.adapter is None and target.server_cmd is None and target.kind != "foundry"

    @property
    def url(self) -> str | None:
        """The server's URL, or the first of several."""
        return None if self.target.url is None else self.target.url[0]

    @property
    def keeps_answers(self) -> bool:
        """Whether the text of each response is needed, if only for its digest."""
        return self.work.deterministic or self.report.keep_texts

    @property
    def leaves_requests(self) -> bool:
        """Whether the logs of its requests stay on the nodes of a cluster, where its workers write them."""
        cluster = self.load.cluster
        far = cluster is not None and not cluster.local_nodes
        return far and not (self.load.gather_requests or self.keeps_answers)

    @property
    def plays_turns(self) -> bool:
        """Whether conversations go on after their first turn: at a rate, no user reads the response. The workshop's
        benchmark, and answers that are rated, have one response to each prompt.
        """
        return self.values.loop != "rate" and self.command not in {"workshop", "score"}

    @property
    def loads(self) -> tuple[Load, ...]:
        """The levels' loads, in the order in which they run."""
        load = self.load
        if load.trace is not None:
            trace = read_trace(load.trace, limit=load.limit, form=load.trace_format)
            replayed = Replayed(trace, load.time_scale)
            return (Open(replayed.rate_per_s, replayed),)
        if load.rate is not None:
            arrivals = load.arrivals
            paced = arrivals if load.pattern is None else Patterned(arrivals, load.pattern.scaled(load.time_scale))
            return tuple(Open(rate, paced) for rate in load.rate)
        assert load.users is not None  # noqa: S101 - one of the three always is set
        return tuple(Closed(users, self.think) for users in load.users)

    @property
    def measures_curve(self) -> bool:
        """Whether a search first measures the throughput curve without think time."""
        return self.capacity.curve and self.capacity.by == "users" and self.think is not None

    @property
    def think(self) -> Distribution | None:
        """The users' think time: the one that was given, or that of each persona."""
        cast = self.work.cast
        return self.load.think if self.load.think is not None or cast is None else cast.think

    @property
    def extent(self) -> LevelDuration:
        """How long each level takes. The default warm-up is long enough for the ramp."""
        load = self.load
        ramp_ns = load.ramp or 0 if load.users is not None else 0
        return LevelDuration(
            duration_ns=load.duration if load.requests is None else None,
            requests=load.requests,
            warm_up_ns=max(LEAST_WARM_UP_NS, ramp_ns) if load.warm_up is None else load.warm_up,
            cool_down_ns=load.cool_down if load.requests is None else 0,
            drain_ns=load.drain,
        )

    @property
    def finds_levels(self) -> bool:
        """Whether the sweep chooses the users of its levels itself: the loads are those that it may choose."""
        return isinstance(self.load.users, setting_types.AutoUsers)

    @property
    def fewest_levels(self) -> int:
        """The number of its levels; if it finds them itself, three at least: they show that throughput has stopped
        growing."""
        return 3 if self.finds_levels else len(self.loads)

    @property
    def waits_for_answers(self) -> bool:
        """Whether nobody said how long to measure a level of this sweep: until it has enough responses."""
        load = self.load
        given = load.requests is not None or load.trace is not None or load.pattern is not None
        return (
            self.command == "sweep"
            and not given
            and self.origins.get("load.duration", DEFAULT).source is Source.DEFAULT
            and load.duration == setting_of("load.duration").default
        )

    @property
    def waits_for_first_responses(self) -> bool:
        """Whether nobody said how long to warm up in this sweep: until the first responses are there. A pattern and a
        trace begin at a moment that is known beforehand.
        """
        load = self.load
        return self.command == "sweep" and load.warm_up is None and load.trace is None and load.pattern is None

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Every objective once, those that are gates only at the end, each marked whether it is one."""
        fail_on = self.slo.fail_on or ()
        gates = [rule for rule in fail_on if not isinstance(rule, str)]
        every = dict.fromkeys([*(self.slo.objectives or ()), *gates])
        return tuple(
            dataclasses.replace(rule, gate=rule in gates or setting_types.ALL_OBJECTIVES in fail_on) for rule in every
        )

    def objectives_at(self, load: Load) -> tuple[Objective, ...]:
        """Those that apply to a level of this load."""
        return tuple(objective for objective in self.objectives if objective.applies(load.label))

    @property
    def most_in_flight(self) -> int:
        """The most requests that any level may have in flight."""
        if self.load.users is not None:
            return max(self.load.users)
        return self.load.max_in_flight

    def place(self, key: str) -> str:
        """Where a setting was given, as messages name it; its flag if nobody gave it."""
        return self.origins.get(key, DEFAULT).place or setting_of(key).flag

    def is_set(self, key: str) -> bool:
        """Whether somebody gave this setting, rather than the command or the defaults."""
        return self.origins.get(key, DEFAULT).source < Source.COMMAND

    def effective(self) -> dict[str, dict[str, object]]:
        """Every setting in force, defaults filled in, as people write them; fit for JSON, and without secrets.

        A setting that has no effect here is `None`. Sections that only other commands take are left out.
        """
        sections: dict[str, dict[str, object]] = {}
        taken = {setting.section for setting in settings(self.command)}
        for setting in settings():
            section = getattr(self, setting.section)
            if setting.section not in taken and section == SECTIONS[setting.section]():
                continue
            value = None if setting.key in self.not_used else getattr(section, setting.name)
            sections.setdefault(setting.section, {})[setting.name] = None if value is None else setting.type.show(value)
        cast = self.work.cast
        if cast is not None and cast.personas[0].name:
            personas = cast.personas
            if self.load.think is not None or self.values.loop != "users":
                # All users have one think time, or there are no users.
                personas = tuple(dataclasses.replace(persona, think=self.load.think) for persona in personas)
            sections["personas"] = {persona.name: persona.settings() for persona in personas}
        return sections

    def recorded_origins(self) -> dict[str, str]:
        """Where each value comes from, as `run.json` has it."""
        recorded = self.effective()
        return {
            key: NOT_USED if key in self.not_used else str(origin)
            for key, origin in self.origins.items()
            if setting_of(key).section in recorded
        }

    @property
    def values(self) -> Values:
        """The settings on which needs are checked."""
        entries = {
            key: Entry(setting_of(key), getattr(getattr(self, setting_of(key).section), setting_of(key).name), origin)
            for key, origin in self.origins.items()
            if origin.source < Source.DEFAULT
        }
        return Values(self.command, entries, self.work.known)


def with_not_used(scenario: Scenario) -> Scenario:
    """The scenario with a note of the settings that have no effect in it."""
    values = scenario.values
    taken = {entry.setting.group for entry in values.entries.values() if not entry.is_off} - {""}
    cast = scenario.work.cast
    drawn = cast is not None and all(persona.output_tokens is not None for persona in cast.personas)
    not_used = {"work.max_tokens"} if drawn and not scenario.is_set("work.max_tokens") else set()
    for setting in settings():
        origin = scenario.origins.get(setting.key, DEFAULT)
        foreign = scenario.command not in setting.commands or setting.group in taken
        needless = origin.source >= Source.COMMAND and setting.unmet(values) is not None
        if needless or (foreign and origin.source is Source.DEFAULT):
            not_used.add(setting.key)
    return dataclasses.replace(scenario, not_used=frozenset(not_used))


def leave_out(scenario: Scenario, key: str, reason: str, *, by: Source | None = Source.FLAG) -> Scenario:
    """The scenario without a setting that is not used; raises `BadInput` if its source is as strong as `by`."""
    origin = scenario.origins.get(key, Origin(Source.FLAG, setting_of(key).flag))
    if by is not None and origin.source <= by:
        raise BadInput(f"{origin.place}: {reason}", hint="leave it out")
    unused = scenario.unused
    if key != "target.model" or not scenario.is_set("target.model_set"):  # which is reported itself
        unused += (Unused(key, origin, reason),)
    return with_not_used(dataclasses.replace(with_entries(scenario, {key: None}), unused=unused))


def with_entries(scenario: Scenario, entries: Mapping[str, Entry | None]) -> Scenario:
    """The scenario with these settings; `None` takes one back to its default."""
    sections: dict[str, dict[str, Any]] = {}
    for key, entry in entries.items():
        setting = setting_of(key)
        value = setting.default_in(scenario.command) if entry is None else entry.value
        sections.setdefault(setting.section, {})[setting.name] = value
    origins = {key: DEFAULT if entry is None else entry.origin for key, entry in entries.items()}
    changed: dict[str, Any] = {
        section: dataclasses.replace(getattr(scenario, section), **values) for section, values in sections.items()
    }
    return dataclasses.replace(scenario, **changed, origins=scenario.origins | origins)
