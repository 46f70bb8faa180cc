"""The scenario: everything that decides what a run does, in one frozen value.

Each setting is declared once, here: its section and name (the same in a scenario file, as a flag and as an environment
variable), its kind, its default, its help. The command line makes its flags from these declarations, the file reader
its checks, the result its record of what was in force. `loadbench.plan.sources` decides which source wins.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loadbench.core.units import NS_PER_S
from loadbench.plan import setting_types
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.load import Closed, LevelDuration, Load, Open
from loadbench.plan.pattern import Patterned
from loadbench.plan.personas import PERSONAS, Cast, Persona, Share, cast_of
from loadbench.plan.traces import Replayed, read_trace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from loadbench.plan.arrivals import Arrivals
    from loadbench.plan.distribution import Distribution
    from loadbench.plan.objective import Objective
    from loadbench.plan.pattern import Pattern
    from loadbench.plan.setting_types import SettingType


# Where no warm-up is asked for: connections are made, caches are warm, users are spread.
LEAST_WARM_UP_NS = 2 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Setting:
    """One declaration. `group` names settings of which only one may be given."""

    section: str
    name: str
    kind: SettingType[Any]
    default: object
    help: str
    group: str
    word: str  # what flag and variable are called

    @property
    def key(self) -> str:
        """As messages and records name it: `load.users`."""
        return f"{self.section}.{self.name}"

    @property
    def flag(self) -> str:
        """As the command line names it: `--warm-up`."""
        return "--" + self.word.replace("_", "-")

    @property
    def variable(self) -> str:
        """As the environment names it: `LOADBENCH_WARM_UP`."""
        return "LOADBENCH_" + self.word.upper()


def _setting(kind: SettingType[Any], default: Any, text: str, *, group: str = "", word: str = "") -> Any:
    """A field with its declaration; that each default is of its kind is tested. `word` stands for its name in flags."""
    return dataclasses.field(default=default, metadata={"kind": kind, "help": text, "group": group, "word": word})


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSettings:
    """What is tested."""

    url: str | None = _setting(
        setting_types.URL,
        None,
        "The server, with or without /v1; without it the simulated server is used.",
        group="target",
    )
    adapter: str | None = _setting(
        setting_types.TEXT,
        None,
        "A model in this process instead of a server: onnx-genai:FOLDER, transformers:MODEL, or one of your own.",
        group="target",
    )
    model: tuple[str, ...] | None = _setting(
        setting_types.MODELS,
        None,
        "A model to test; repeat it for several. Default: the only one that the server lists.",
        group="model",
    )
    model_set: Path | None = _setting(
        setting_types.PATH,
        None,
        "Test the models of this file: names, or an object by alias (models.json).",
        group="model",
        word="models",
    )
    api: str = _setting(
        setting_types.choice("chat", "completions", "responses", "ollama"),
        "chat",
        "Which route: OpenAI's chat completions, completions or responses, or Ollama's own chat.",
    )
    transport: str = _setting(
        setting_types.choice("fast", "httpx"),
        "fast",
        "How requests travel: by the stamping transport, or by stock httpx.",
    )
    profile: str = _setting(
        setting_types.TEXT, "slot-server", "The simulated server's profile (see `loadbench serve --help`)."
    )
    header: tuple[tuple[str, str], ...] = _setting(setting_types.HEADERS, (), "A further request header.")
    api_key_env: str = _setting(
        setting_types.TEXT, "LOADBENCH_API_KEY", "The environment variable that holds the API key, if it is set."
    )
    cacert: Path | None = _setting(
        setting_types.PATH, None, "A PEM file of certificates to trust, instead of the system's."
    )
    insecure: bool = _setting(
        setting_types.FLAG, False, "Do not verify the server's certificate. Recorded in the result."
    )
    kind: str = _setting(
        setting_types.choice("auto", "openai", "foundry"),
        "auto",
        "What the server is. foundry: Foundry Local, found on this machine if no --url is given.",
        word="target",
    )
    load: bool = _setting(
        setting_types.FLAG, True, "Foundry Local: load a model that is not loaded, before it is tested."
    )
    time_loads: bool = _setting(
        setting_types.FLAG,
        False,
        "Foundry Local, adapters: unload each model before its test, and time how it loads again.",
    )
    allow_alias: bool = _setting(
        setting_types.FLAG,
        False,
        "Foundry Local: test several models by aliases that may mean one of several variants.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """How hard, and for how long."""

    users: tuple[int, ...] | None = _setting(
        setting_types.USERS, (1, 2, 4, 8, 16), "Closed loop: virtual users of each level, in this order.", group="load"
    )
    rate: tuple[float, ...] | None = _setting(
        setting_types.RATES,
        None,
        "Open loop: requests per second of each level, in this order (also as 30/min).",
        group="load",
    )
    arrivals: Arrivals = _setting(
        setting_types.ARRIVALS, parse_arrivals("poisson"), "Open loop: how requests are spaced; CV is that of the gaps."
    )
    pattern: Pattern | None = _setting(
        setting_types.PATTERN,
        None,
        "Open loop: how the rate changes: day, points as in 0s:0.2,9h:1,24h:0.2, or a file of them; a level is a pass.",
    )
    trace: Path | None = _setting(
        setting_types.PATH,
        None,
        "Replay the requests of this file (Azure, BurstGPT, Mooncake, a run of ours).",
        group="load",
    )
    limit: int | None = _setting(setting_types.whole(1), None, "Replay the first so many requests of the trace.")
    time_scale: float = _setting(
        setting_types.number(1e-3, 1e6), 1.0, "Pattern or trace so many times as fast: at 60 an hour takes a minute."
    )
    think: Distribution | None = _setting(
        setting_types.THINK,
        None,
        "Closed loop: a user's pause between an answer and the next request, as 10s or lognormal:20s,0.5.",
    )
    duration: int | None = _setting(
        setting_types.POSITIVE_DURATION,
        10 * NS_PER_S,
        "How long each level is measured, as in 30s or 2m.",
        group="extent",
    )
    requests: int | None = _setting(
        setting_types.whole(1), None, "Measure this many requests a level instead of a duration.", group="extent"
    )
    warm_up: int | None = _setting(
        setting_types.DURATION,
        None,
        "Load before the measurement, handed over undrained. Default: 2s, or as long as an answer takes.",
    )
    cool_down: int = _setting(
        setting_types.DURATION, 0, "Load after the measurement ends, so that its last requests see it too."
    )
    drain: int = _setting(
        setting_types.DURATION, 30 * NS_PER_S, "How long requests in flight may still take at a level's end."
    )
    ramp: int = _setting(
        setting_types.DURATION, NS_PER_S, "Closed loop: the users' first requests are spread over this time."
    )
    keep_warm: int | None = _setting(
        setting_types.OPTIONAL_DURATION,
        None,
        "Ask a light prompt, one token, whenever nothing was in flight for so long; in no figure, but counted.",
    )
    workers: int | None = _setting(
        setting_types.whole(1, 256), None, "Client processes that share the load (default: by the load and the cores)."
    )
    max_in_flight: int = _setting(
        setting_types.whole(1, 100_000),
        10_000,
        "Open loop: arrivals beyond this many in flight are missed, and counted.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkSettings:
    """What is asked."""

    prompt: str | None = _setting(setting_types.TEXT, None, "Ask this text.", group="work")
    prompts: Path | None = _setting(
        setting_types.PATH, None, "Ask the prompts of this file: .json, .jsonl, or one a line.", group="work"
    )
    input_tokens: Distribution | None = _setting(
        setting_types.TOKENS,
        None,
        "Generate prompts of so many tokens, as in 128 or lognormal:512,0.6 (default: 128).",
        group="work",
    )
    output_tokens: Distribution | None = _setting(
        setting_types.TOKENS, None, "Draw each request's max_tokens from this, instead of --max-tokens."
    )
    max_tokens: int = _setting(setting_types.whole(1, 10_000_000), 64, "The longest answer asked for.")
    persona: str | None = _setting(
        setting_types.TEXT,
        None,
        "Ask as this kind of user does: chat, rag, summariser, code, or one of the scenario file's own.",
        group="who",
    )
    mix: tuple[Share, ...] | None = _setting(
        setting_types.MIX, None, "Ask as several kinds of users do, by weight, as in chat:3,rag:1.", group="who"
    )
    turns: Distribution | None = _setting(
        setting_types.TURNS,
        None,
        "Closed loop: conversations of so many turns, each with all before it: 4 or uniform:2,6.",
    )
    system: str | None = _setting(
        setting_types.TEXT, None, "A system message before each conversation, the same for all."
    )
    temperature: float | None = _setting(setting_types.number(0, 10), 0.0, "Sampling temperature.")
    seed: int = _setting(setting_types.whole(0, 2**53), 0, "Seed of prompts, arrivals and think times, and sent along.")
    unique: bool = _setting(
        setting_types.FLAG,
        True,
        "Begin each prompt afresh, so that no prefix cache flatters (--no-unique leaves it as it is).",
    )
    personas: tuple[Persona, ...] = ()  # the scenario's own; no setting, but a table for each

    @property
    def known(self) -> dict[str, Persona]:
        """Every persona that can be named."""
        return PERSONAS | {persona.name: persona for persona in self.personas}

    @property
    def cast(self) -> Cast | None:
        """Who asks, with what is said here put in place of what they say; `None` where nobody in particular does."""
        shares = (Share(self.persona, 1.0),) if self.persona is not None else self.mix or ()
        if not shares and self.turns is None:
            return None
        over = Persona(name="", input_tokens=self.input_tokens, output_tokens=self.output_tokens, turns=self.turns)
        return cast_of(shares, self.known, over) if shares else Cast((over,), (1.0,))

    deterministic: bool = _setting(
        setting_types.FLAG, False, "Given prompts as they are, at temperature 0; the answers to each are compared."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """When to give up."""

    connect_timeout: int | None = _setting(setting_types.OPTIONAL_DURATION, 5 * NS_PER_S, "To be connected.")
    first_token_timeout: int | None = _setting(setting_types.OPTIONAL_DURATION, 120 * NS_PER_S, "To the first token.")
    idle_timeout: int | None = _setting(
        setting_types.OPTIONAL_DURATION, 60 * NS_PER_S, "From one read to the next, after that."
    )
    timeout: int | None = _setting(setting_types.OPTIONAL_DURATION, 600 * NS_PER_S, "For a whole request.")
    failures: float = _setting(
        setting_types.SHARE, 0.01, "The share of failed requests above which a level is invalid."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSettings:
    """What it should come to."""

    objectives: tuple[Objective, ...] | None = _setting(
        setting_types.OBJECTIVES,
        None,
        "An objective, as 'ttft_p95<1s', 'failures<1%' or 'tpot_p95<80ms@users=8'; repeat it for several.",
        word="slo",
    )
    fail_on: tuple[Objective | str, ...] | None = _setting(
        setting_types.GATES,
        None,
        "Exit with 3 where this objective is missed, and with 5 where that is not sure; slo: any.",
    )
    abort_on: tuple[Objective, ...] | None = _setting(
        setting_types.ABORTS,
        None,
        "Give a level up, and the model's further ones, as in 'failures>20%' or 'ttft_p50>30s'.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacitySettings:
    """How the highest load that meets the objectives is searched for."""

    by: str = _setting(
        setting_types.choice("users", "rate"),
        "users",
        "What the answer counts: users who think, or requests per second.",
    )
    at_most: float = _setting(
        setting_types.number(1e-6, 1e5), 200.0, "Search no further than so many users, or requests/s."
    )
    budget: int = _setting(
        setting_types.POSITIVE_DURATION, 1200 * NS_PER_S, "The time for the whole search, as in 20m."
    )
    confidence: float = _setting(setting_types.CONFIDENCE, 0.95, "With which the range holds the true capacity.")
    curve: bool = _setting(
        setting_types.FLAG, True, "Where users think: first measure loads without it, which say what is in the way."
    )
    precision: float = _setting(setting_types.SHARE, 0.2, "The search ends once the range is no wider than this share.")
    devices_for: int | None = _setting(setting_types.whole(1), None, "Say how many such devices so many people need.")
    headroom: float = _setting(setting_types.SHARE, 0.2, "The share of each device that is then left free.")


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """What is watched beside the requests."""

    sampling: str = _setting(
        setting_types.choice("auto", "on", "off"),
        "auto",
        "Sample the server's process and this machine, if the server is on it. auto: unless it is simulated.",
        word="telemetry",
    )
    interval: int = _setting(
        setting_types.INTERVAL, NS_PER_S, "Between two samples of the machine.", word="telemetry_interval"
    )
    page_interval: int | None = _setting(
        setting_types.OPTIONAL_INTERVAL,
        2 * NS_PER_S,
        "Between two looks at the server's /metrics while a level runs; none: only before and after it.",
    )
    server_pid: int | None = _setting(
        setting_types.whole(1), None, "The server's process. Default: the one that listens."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CostSettings:
    """What it costs to run the machine that is tested."""

    purchase: float | None = _setting(setting_types.MONEY, None, "The machine's price.")
    lifetime: float = _setting(setting_types.number(0.01, 100), 3.0, "The years over which the price is spread.")
    hourly: float | None = _setting(setting_types.MONEY, None, "The machine's price per hour, rent or upkeep.")
    kwh_price: float | None = _setting(setting_types.MONEY, None, "The price of a kilowatt-hour.")
    watts: tuple[float, float] | None = _setting(
        setting_types.WATTS, None, "What it draws under load, where nothing meters it, as in 20 or 15..30: an estimate."
    )
    currency: str | None = _setting(setting_types.TEXT, None, "The unit of these prices, for the reports: EUR.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """Where it goes."""

    name: str = _setting(setting_types.TEXT, "sweep", "The run's name, part of its folder's.")
    out: Path | None = _setting(setting_types.DIRECTORY, None, "Where run folders are made (default: results).")
    keep_texts: bool = _setting(
        setting_types.FLAG, False, "Keep prompts and answers as texts in the run folder, for whoever may read it."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A whole scenario; `question` is what it answers, `origins` tells of each setting where it came from."""

    target: TargetSettings = TargetSettings()
    load: LoadSettings = LoadSettings()
    work: WorkSettings = WorkSettings()
    limits: LimitSettings = LimitSettings()
    slo: ObjectiveSettings = ObjectiveSettings()
    capacity: CapacitySettings = CapacitySettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    cost: CostSettings = CostSettings()
    report: ReportSettings = ReportSettings()
    question: str = ""
    origins: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def simulated(self) -> bool:
        """Whether the embedded simulated server is what is tested."""
        return self.target.url is None and self.target.adapter is None and self.target.kind != "foundry"

    @property
    def keeps_answers(self) -> bool:
        """Whether the text of each answer is wanted, be it for its digest alone."""
        return self.work.deterministic or self.report.keep_texts

    @property
    def loads(self) -> tuple[Load, ...]:
        """The levels' loads, in the order in which they run."""
        load = self.load
        if load.trace is not None:
            replayed = Replayed(read_trace(load.trace, limit=load.limit), load.time_scale)
            return (Open(replayed.rate_per_s, replayed),)
        if load.rate is not None:
            arrivals = load.arrivals
            paced = arrivals if load.pattern is None else Patterned(arrivals, load.pattern.scaled(load.time_scale))
            return tuple(Open(rate, paced) for rate in load.rate)
        assert load.users is not None  # noqa: S101 - one of the three always is
        return tuple(Closed(users, self.think) for users in load.users)

    @property
    def climbs(self) -> bool:
        """Whether a search for users begins with a ladder of loads without think time; else it measures such anyway."""
        return self.capacity.curve and self.capacity.by == "users" and self.think is not None

    @property
    def think(self) -> Distribution | None:
        """The users' pause: the one that was given, or that of each persona."""
        cast = self.work.cast
        return self.load.think if self.load.think is not None or cast is None else cast.think

    @property
    def extent(self) -> LevelDuration:
        """How long each level goes on."""
        load = self.load
        return LevelDuration(
            duration_ns=load.duration if load.requests is None else None,
            requests=load.requests,
            warm_up_ns=LEAST_WARM_UP_NS if load.warm_up is None else load.warm_up,
            cool_down_ns=load.cool_down if load.requests is None else 0,
            drain_ns=load.drain,
        )

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Every objective once, those that are gates only at the end, each marked whether it is one."""
        asked = self.slo.fail_on or ()
        gates = {rule for rule in asked if not isinstance(rule, str)}
        named = self.slo.objectives or ()
        every = dict.fromkeys([*named, *(rule for rule in asked if not isinstance(rule, str))])
        return tuple(
            dataclasses.replace(rule, gate=rule in gates or setting_types.ALL_OBJECTIVES in asked) for rule in every
        )

    def objectives_at(self, load: Load) -> tuple[Objective, ...]:
        """Those that speak of a level of this load."""
        return tuple(objective for objective in self.objectives if objective.applies(load))

    @property
    def most_in_flight(self) -> int:
        """The most requests that any level may have in flight."""
        if self.load.users is not None:
            return max(self.load.users)
        return self.load.max_in_flight

    def effective(self) -> dict[str, dict[str, object]]:
        """Every setting in force, defaults filled in, as people write them; fit for JSON, and without secrets.

        What belongs to one command alone is left out where nobody has set it.
        """
        sections: dict[str, dict[str, object]] = {}
        for setting in settings():
            if setting.section in OF_ONE_COMMAND and getattr(self, setting.section) == SECTIONS[setting.section]():
                continue
            value = getattr(getattr(self, setting.section), setting.name)
            sections.setdefault(setting.section, {})[setting.name] = (
                setting.kind.show(value) if value is not None else None
            )
        cast = self.work.cast
        if cast is not None and cast.personas[0].name:
            sections["personas"] = {persona.name: persona.shown() for persona in cast.personas}
        return sections


SECTIONS: dict[str, type] = {
    "target": TargetSettings,
    "load": LoadSettings,
    "work": WorkSettings,
    "limits": LimitSettings,
    "slo": ObjectiveSettings,
    "capacity": CapacitySettings,
    "telemetry": TelemetrySettings,
    "cost": CostSettings,
    "report": ReportSettings,
}

# Each of the command of its name alone.
OF_ONE_COMMAND = frozenset({"capacity"})


def settings() -> Iterator[Setting]:
    """Every setting there is, by section."""
    for section, cls in SECTIONS.items():
        for field in dataclasses.fields(cls):
            if "kind" not in field.metadata:
                continue
            meta = field.metadata
            word = meta["word"] or field.name
            yield Setting(section, field.name, meta["kind"], field.default, meta["help"], meta["group"], word)
