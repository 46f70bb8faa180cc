"""The settings: each is declared here, once.

A declaration is a field of its section's class: its type, its default, its help, the commands that take it, what it
needs to have an effect, and whether two measurements with different values may be compared. The command line makes its
flags from the declarations, `loadbench.plan.sources` its checks of files and variables, `run.json` its record of what
was in force, `compare` and `capacity --resume` their checks of equal work. No list of setting names stands elsewhere.

A command named here is one of `loadbench --help`; `judge` is `loadbench score judge`, `score` is `loadbench score
stub`, and `compare-saved` is `loadbench compare` of saved runs, which measures nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from loadbench.core.units import NS_PER_S
from loadbench.plan import setting_types as types
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.load import DRAIN_NS, MAX_IN_FLIGHT
from loadbench.plan.personas import PERSONAS, Cast, Persona, cast_of
from loadbench.plan.server_url import origin_of
from loadbench.plan.shares import Share
from loadbench.plan.trace_formats import AUTO, FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from loadbench.plan.abandonment import Abandonment
    from loadbench.plan.arrivals import Arrivals
    from loadbench.plan.cluster import Cluster
    from loadbench.plan.distribution import Distribution
    from loadbench.plan.gate import GateRule
    from loadbench.plan.objective import Objective
    from loadbench.plan.pattern import Pattern
    from loadbench.plan.setting_types import SettingType
    from loadbench.plan.vary import Varied


# Student's t of fewer pairs has wide intervals: of 3 they are twice as wide for the same error as of 8. Two more than 6
# let a busy machine disturb as many, and let the order of sides cancel a curved drift.
FEWEST_DECIDING = 6
USUAL_REPEATS = 8

# The length of generated prompts that other tools default to.
DEFAULT_INPUT_TOKENS = 128


class Source(IntEnum):
    """Where a value comes from, the strongest first."""

    FLAG = 0
    RUN = 1  # the saved run whose answers are scored
    ENVIRONMENT = 2
    WORKSHOP = 3  # the workshop's own variables, BENCH_…
    SCENARIO = 4
    COMMAND = 5  # the command's own default, or what a persona, a trace or a pattern brings
    DEFAULT = 6


_SOURCE_NAMES = {Source.RUN: "run", Source.WORKSHOP: "environment", Source.COMMAND: ""}


class Origin(NamedTuple):
    """Where a value comes from: `--users`, `LOADBENCH_USERS`, or `s.toml:3` with the key that stands there."""

    source: Source
    where: str = ""
    key: str = ""

    @property
    def place(self) -> str:
        """As messages name it."""
        return ": ".join(part for part in (self.where, self.key) if part)

    def __str__(self) -> str:
        """As `run.json` and `--dry-run` name it: `flag --users`."""
        return f"{_SOURCE_NAMES.get(self.source, self.source.name.lower())} {self.place}".strip()


DEFAULT = Origin(Source.DEFAULT)


class Comparable(StrEnum):
    """What follows for a comparison, or for a resumed search, when two values of a setting differ."""

    FREE = "free"  # nothing
    RESUME = "resume"  # a search cannot be resumed
    CAVEAT = "caveat"  # that, and a comparison says so
    SEED = "seed"  # the same prompts were not sent: a caveat of its own
    LENGTHS = "lengths"  # what depends on the length of responses is not compared
    PROMPTS = "prompts"  # what depends on prompts is not compared


@dataclass(frozen=True, slots=True)
class Entry:
    """A setting's value and where it comes from."""

    setting: Setting
    value: Any
    origin: Origin

    @property
    def is_off(self) -> bool:
        """Whether it only says that something is off which is off anyway, as `insecure = false` does."""
        return self.value is False and self.setting.default is False

    @property
    def shown(self) -> str:
        """Its place, with the value if that is one of a few words: `--telemetry off`."""
        words = self.setting.type.metavar.split("|")
        return f"{self.origin.place} {self.value}" if self.value in words else self.origin.place


class Values:
    """The settings that have a value, by key; `value` fills in the command's defaults. Needs are checked on this."""

    def __init__(
        self, command: str, entries: Mapping[str, Entry], personas: Mapping[str, Persona] = MappingProxyType(PERSONAS)
    ) -> None:
        self.command = command
        self.entries = entries
        self.personas = personas

    def value(self, key: str) -> Any:
        """The value in force; `None` where another setting of its group was given."""
        if key in self.entries:
            return self.entries[key].value
        setting = setting_of(key)
        others = (entry for entry in self.entries.values() if entry.setting.group == setting.group)
        if setting.group and not all(entry.is_off for entry in others):
            return None
        return setting.default_in(self.command)

    def is_set(self, key: str) -> bool:
        """Whether the user set it, rather than another setting that brings it."""
        return key in self.entries and self.entries[key].origin.source < Source.COMMAND

    @property
    def urls(self) -> tuple[str, ...]:
        """The URL of each server, or that of the judge's server."""
        judge = self.value("judge.url")
        return (judge,) if judge else self.value("target.url") or ()

    @property
    def loop(self) -> str:
        """What drives the load: `users`, a `rate`, or a `trace`."""
        if self.command == "capacity":
            return str(self.value("capacity.by"))
        if self.value("load.trace") is not None:
            return "trace"
        return "users" if self.value("load.rate") is None else "rate"

    @property
    def most_users(self) -> float:
        """The most users of a closed loop, or of a search."""
        return self.value("capacity.at_most") if self.command == "capacity" else max(self.value("load.users") or (1,))

    @property
    def most_in_flight(self) -> float:
        """The most requests at one time."""
        most = self.most_users if self.loop == "users" else self.value("load.max_in_flight")
        return min(most, self.value("load.requests") or most)

    @property
    def simulated(self) -> bool:
        """Whether the simulated server is measured."""
        named = self.urls or self.value("target.adapter") is not None or self.value("target.server_cmd") is not None
        return not named and self.value("target.kind") != "foundry"

    @property
    def may_be_foundry(self) -> bool:
        """Whether the server is, or may turn out to be, Foundry Local."""
        kind = self.value("target.kind")
        return kind == "foundry" or (kind == "auto" and bool(self.urls or self.value("target.server_cmd")))

    @property
    def commands_to_confirm(self) -> list[Entry]:
        """The commands that a scenario file chooses, and not the user, and the variables, by which it can as well."""
        keys = ("target.server_cmd", "compare.a_cmd", "compare.b_cmd", "target.server_env", "grid.vary")
        return [entry for key in keys if (entry := self.entries.get(key)) and entry.origin.source is Source.SCENARIO]

    @property
    def thinks(self) -> bool:
        """Whether users pause between a response and their next request."""
        names = [share.name for share in self.value("work.mix") or ()]
        names += [self.value("work.persona")] if self.value("work.persona") else []
        known = [self.personas[name] for name in names if name in self.personas]
        return self.loop == "users" and (self.value("load.think") is not None or any(one.think for one in known))


class Need(NamedTuple):
    """What else must hold for a setting to have an effect; `on` are the keys of the settings that decide it."""

    on: tuple[str, ...]
    met: Callable[[Values], object]
    reason: str
    remedy: str
    search_remedy: str = ""  # in a capacity search
    overrides: bool = False  # a stronger setting overrides the one that takes its effect

    def remedy_in(self, command: str) -> str:
        """What to do, in this command."""
        return (command == "capacity" and self.search_remedy) or self.remedy


def _with(*keys: str, reason: str, remedy: str) -> Need:
    """Any of these must be set."""
    return Need(keys, lambda values: any(values.value(key) not in (None, False) for key in keys), reason, remedy)


def _without(*keys: str, reason: str, remedy: str = "leave one of them out", overrides: bool = False) -> Need:
    """None of these may be set."""
    return Need(
        keys,
        lambda values: all(values.value(key) in (None, False) for key in keys),
        reason,
        remedy,
        overrides=overrides,
    )


_LOADS = ("load.users", "load.rate", "load.trace", "capacity.by")
_SERVER = ("target.url", "target.adapter", "target.kind", "target.server_cmd", "target.profile")


def _with_users(reason: str) -> Need:
    remedy = "leave it out, or use --users"
    return Need(_LOADS, lambda values: values.loop == "users", reason, remedy, "leave it out, or search --by users")


def _with_rate(reason: str) -> Need:
    remedy = "leave it out, or use --rate"
    return Need(_LOADS, lambda values: values.loop == "rate", reason, remedy, "leave it out, or search --by rate")


_NO_TRACE = _without(
    "load.trace", reason="a trace decides what is sent, and when", remedy="leave it out, or give no trace"
)
_OVER_HTTP = _without("target.adapter", reason="a model in this process has no connection", remedy="leave it out")
_WITH_BODY = _without(
    "target.adapter", reason="a model in this process gets messages and limits only", remedy="leave it out"
)
_MODELS_OF_SERVER = _without("target.adapter", reason="an adapter is one model", remedy="leave it out")
_OVER_TLS = Need(
    ("target.url", "judge.url", "target.adapter"),
    lambda values: any(url.startswith("https:") for url in values.urls),
    "only a connection over TLS has certificates",
    "leave it out, or give an https:// URL",
)
_FOUNDRY = Need(
    _SERVER,
    lambda values: values.may_be_foundry,
    "only Foundry Local loads models on request",
    "leave it out, or use --target foundry",
)
_LOADS_MODELS = Need(
    _SERVER,
    lambda values: values.may_be_foundry or values.value("target.adapter") is not None,
    "only Foundry Local and adapters load models on request",
    "leave it out, or use --target foundry or --adapter",
)
# Whether a server is Foundry Local is known once it answers: what needs that is checked again then.
FOUNDRY_NEEDS = frozenset({_FOUNDRY, _LOADS_MODELS})
_IN_PROCESS = {"chat", "completions"}  # the APIs that adapters speak
_SAMPLED = Need(
    ("telemetry.sampling", *_SERVER[:4]),
    lambda values: (
        values.value("telemetry.sampling") == "on"
        or (values.value("telemetry.sampling") == "auto" and not values.simulated)
    ),
    "this machine is not sampled",
    "leave it out, or use --telemetry on",
)
_OF_STARTED = _with(
    "target.server_cmd", reason="loadbench starts no server", remedy="leave it out, or give --server-cmd"
)
_MESSAGES = Need(
    ("target.api",),
    lambda values: values.value("target.api") != "completions",
    "the completions endpoint takes one text, and no messages",
    "leave it out, or give --api chat",
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One declaration."""

    type: SettingType[Any]
    default: Any
    help: str
    helps: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of commands that need another text
    section: str = ""
    name: str = ""
    commands: frozenset[str] = frozenset()  # that take it
    refused: Mapping[str, str] | None = None  # why a command does not take it
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of commands whose default is another
    needs: tuple[Need, ...] = ()
    group: str = ""  # only one setting of a group may be given
    flag_name: str = ""  # what flag and variable are called, where that is not its name
    aliases: tuple[str, ...] = ()  # further flags
    argument_of: str = ""  # the command that takes it as its argument, without a flag
    comparable: Comparable | None = None
    per_side: bool = False  # a side of a comparison may have its own
    reused: str = ""  # by `score` from the run: "always", or for its "server" alone
    workshop_variables: tuple[str, ...] = ()  # which set it too, in the workshop
    one_value: Mapping[str, str] = dataclasses.field(default_factory=dict)  # why a command takes no second value
    decides_answers: str = ""  # another value may change the answers to given prompts: the "server" or the "request"
    when_deterministic: tuple[Any, ...] = ()  # its value in a deterministic run
    guarded: bool = False  # chooses a server, a key, a program or a file: taken only from a run that is the user's own
    bound: bool = False  # a key, or whom to trust: for the server that its source names, and for no other
    confirms: bool = False  # an answer of the user's, which no file can give

    @property
    def key(self) -> str:
        """As messages and records name it: `load.users`."""
        return f"{self.section}.{self.name}"

    @property
    def flag(self) -> str:
        """As the command line names it: `--warm-up`."""
        return "--" + self.flag_name.replace("_", "-")

    @property
    def flags(self) -> tuple[str, ...]:
        """Every flag that sets it."""
        negative = ("--no-" + self.flag_name.replace("_", "-"),) if self.type.is_flag and self.default else ()
        return (self.flag, *negative, *self.aliases)

    @property
    def variable(self) -> str:
        """As the environment names it: `LOADBENCH_WARM_UP`."""
        return "LOADBENCH_" + self.flag_name.upper()

    def default_in(self, command: str) -> Any:
        """The default of this command."""
        return self.defaults.get(command, self.default)

    def why_not(self, command: str) -> str:
        """Why this command does not take it."""
        shown = {"score": "score stub", "judge": "score judge"}.get(command, command)
        return (self.refused or {}).get(command) or _REFUSED.get(command) or f"has no effect in `loadbench {shown}`"

    def unmet(self, values: Values) -> Need | None:
        """The first of its needs that does not hold."""
        return next((need for need in self.needs if not need.met(values)), None)


# Which commands take a setting.
_USER_LOADS = frozenset({"sweep", "compare"})  # the user chooses the load
_LOADS_CHOSEN = _USER_LOADS | {"replay"}
_MANY_USERS = _LOADS_CHOSEN | {"capacity"}
_MEASURING = _MANY_USERS | {"workshop"}
_GENERATING = _USER_LOADS | {"capacity"}  # the user chooses the prompts, which may be generated
_SENDING = _MEASURING | {"score", "judge", "doctor"}
_ANY_SERVER = _SENDING | {"models"}
# Why the others do not.
_REFUSED = {"compare-saved": "is for measuring, and these runs are saved"}
_WORKSHOP = "the workshop's benchmark is one user who sends given prompts in rounds; use `loadbench sweep`"
_LOAD_REFUSED = {
    "capacity": "capacity chooses the load itself; see --at-most",
    "replay": "the trace decides it",
    "workshop": _WORKSHOP,
    "score": "each response is collected once, without load",
}
_LENGTH_REFUSED = {**_LOAD_REFUSED, "capacity": "capacity chooses how long each load is measured; see --budget"}
_PROMPTS_REFUSED = {**_LOAD_REFUSED, "score": "responses are collected for given prompts; use --prompts"}
_ONE_MODEL = {"compare": "each side has one model"}


def setting(type_: SettingType[Any], default: Any, text: str, **declared: Any) -> Any:
    """A field with its declaration: see `Setting`. What it does not say, its section's class says."""
    return dataclasses.field(
        default=default, repr=not type_.secret, metadata={"setting": Setting(type_, default, text, **declared)}
    )


# The declarations, as tables.
# fmt: off


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSettings:
    """The server under test."""

    COMMANDS: ClassVar = _ANY_SERVER
    COMPARABLE: ClassVar = Comparable.RESUME

    url: tuple[str, ...] | None = setting(types.URLS, None,
        "The server's URL, with or without /v1; repeat the flag for servers that share the load, each request to the "
        "next. Default: the simulated server.",
        commands=_ANY_SERVER - {"judge"},
        helps={
            **dict.fromkeys(("workshop", "models", "doctor"), "The server's URL. Default: the simulated server."),
            "compare": "The server of both sides, unless A or B names one. Default: the simulated server.",
            "score": "The server's URL. Default: the server of RUN; without RUN, the simulated server.",
        },
        refused={"judge": "use --judge-url"}, group="target", per_side=True,
        one_value={
            "compare": "a side is one server; measure several with `loadbench sweep`, and compare the saved runs",
            "workshop": "the workshop's benchmark measures one server; use `loadbench sweep`",
            "score": "each response is collected once, from one server",
            "models": "the models of one server are listed",
            "doctor": "one server is checked at a time",
        },
        aliases=("--base-url",), decides_answers="server", reused="always", guarded=True)
    adapter: str | None = setting(types.TEXT, None,
        "Test a model in this process instead of a server: onnx-genai:FOLDER, transformers:MODEL, or your own adapter.",
        commands=_SENDING - {"compare", "judge"},
        refused={
            "compare": "two servers are measured in turn, and no adapter; measure it with `loadbench sweep`, "
            "and compare the saved runs",
            "judge": "use --judge-url",
            "models": "an adapter is one model and has no list; `loadbench doctor` checks it",
        },
        group="target", decides_answers="server", reused="always", guarded=True)
    model: tuple[str, ...] | None = setting(types.MODELS, None,
        "A model to test; repeat the flag for several, or give `all`. Required if the server lists more than one.",
        helps={
            "compare": "The model of both sides, unless A, B, --a-model or --b-model names one.",
            "score": "A model that responds; repeat the flag for several. Default: the models of RUN.",
        },
        commands=_SENDING - {"judge"}, refused={"judge": "use --judge-model", "models": "all models are listed"},
        group="model", per_side=True, workshop_variables=("BENCH_MODELS", "FOUNDRY_LOCAL_ALIAS"))
    model_set: Path | None = setting(types.PATH, None,
        "Test the models of a JSON file: names, or an object whose keys are aliases.",
        helps={"compare": "Take the model, and what is known of it, from a JSON file."},
        commands=_SENDING - {"judge"},
        refused={"judge": "use --judge-model", "models": "all models are listed"}, group="model", flag_name="models",
        guarded=True)
    mix_models: tuple[Share, ...] | None = setting(types.MODEL_MIX, None,
        "Send the requests of each level to several models by weight, as in 'qwen2.5:3b=3,phi-4-mini=1'.",
        commands=_MANY_USERS - {"compare"},
        refused={
            "compare": "each side has one model; measure mixes with `loadbench sweep`, and compare the saved runs",
            "workshop": "the workshop's benchmark tests one model after another",
            **dict.fromkeys(("score", "doctor"), "each model is tested alone; use --model"),
            "judge": "use --judge-model", "models": "all models are listed",
        },
        needs=(_MODELS_OF_SERVER,), group="model", comparable=Comparable.CAVEAT)
    api: str = setting(types.choice("chat", "completions", "responses", "ollama"), "chat",
        "The API: OpenAI's chat completions, completions or responses, or Ollama's chat.", commands=_SENDING,
        refused={"models": "no request is sent to a model"},
        needs=(Need(
            ("target.adapter",),
            lambda values: not values.value("target.adapter") or values.value("target.api") in _IN_PROCESS,
            "a model in this process takes chats and completions only", "leave it out",
        ),),
        comparable=Comparable.CAVEAT, per_side=True, decides_answers="request", reused="always")
    transport: str = setting(types.choice("fast", "httpx"), "fast",
        "The HTTP client: loadbench's own, which reads kernel timestamps, or httpx.", commands=_SENDING,
        refused={"models": "no request is sent to a model"}, needs=(_OVER_HTTP,), reused="always")
    source_address: tuple[str, ...] = setting(types.LOCAL_ADDRESSES, (),
        "Connect from this address of this machine; repeat the flag for several, which take turns; one without a port "
        "left is passed over. One address has only as many connections to a server as it has ports, some 28,000.",
        needs=(_OVER_HTTP,), comparable=Comparable.FREE)
    profile: str = setting(types.TEXT, "slot-server",
        "The profile of the simulated server; `loadbench serve --list` lists them.", commands=_ANY_SERVER - {"judge"},
        refused={"judge": "use --judge-url"},
        needs=(Need(
            _SERVER[:4], lambda values: values.simulated, "it is a profile of the simulated server",
            "leave it out, or leave out what names a server", overrides=True,
        ),),
        per_side=True, decides_answers="server", reused="always")
    header: tuple[tuple[str, str], ...] = setting(types.HEADERS, (),
        "A request header, as in 'X-Team: blue'; repeat the flag for several.", needs=(_OVER_HTTP,), guarded=True,
        bound=True)
    header_env: tuple[tuple[str, str, str], ...] = setting(types.HEADER_VARIABLES, (),
        "A request header whose value is in an environment variable, as in 'X-Key: TEAM_KEY'; repeat the flag for "
        "several.",
        needs=(_OVER_HTTP,), per_side=True, reused="server", guarded=True, bound=True)
    extra_body: tuple[dict[str, Any], ...] = setting(types.JSON_OBJECTS, (),
        "Merge this JSON object into the body of each request; null leaves a field out. Repeat the flag for several.",
        commands=_SENDING, refused={"models": "no request is sent to a model"}, needs=(_WITH_BODY,),
        comparable=Comparable.CAVEAT, per_side=True, decides_answers="request", reused="server", guarded=True)
    max_tokens_field: str | None = setting(types.FIELD_NAME, None,
        "The name of the field that limits a response, as in max_completion_tokens. Default: that of the API.",
        commands=_SENDING, refused={"models": "no request is sent to a model"},
        needs=(
            _WITH_BODY,
            Need(
                ("target.api",), lambda values: values.value("target.api") != "ollama",
                "Ollama has one name for it, options.num_predict", "leave it out",
            ),
        ),
        per_side=True, reused="server")
    api_key_env: str = setting(types.TEXT, "LOADBENCH_API_KEY",
        "The environment variable that holds the API key.", commands=_ANY_SERVER - {"judge"},
        refused={"judge": "use --judge-key-env"}, needs=(_OVER_HTTP,), per_side=True, reused="server", guarded=True,
        bound=True)
    cacert: Path | None = setting(types.PATH, None,
        "Trust the certificates in this PEM file instead of the system's.", needs=(_OVER_TLS,), group="certificates",
        per_side=True, reused="server", guarded=True, bound=True)
    insecure: bool = setting(types.FLAG, False,
        "Do not verify the server's certificate. The result records this.",
        helps=dict.fromkeys(("doctor", "models", "score", "judge"), "Do not verify the server's certificate."),
        needs=(_OVER_TLS,), group="certificates", per_side=True, reused="server", guarded=True, bound=True)
    yes_load: tuple[str, ...] | None = setting(types.HOSTS, None,
        "Load this host although it is a public API, or neither this machine nor in a private network; repeat the flag "
        "for several. Without it, loadbench asks at the terminal.",
        commands=_MEASURING | {"score", "judge"},
        refused=dict.fromkeys(("doctor", "models"), "a few requests are sent, and no load"),
        needs=(Need(
            ("target.url", "judge.url", "target.kind"),
            lambda values: {origin_of(url)[1] for url in values.urls} & {*(values.value("target.yes_load") or ())}
            or (values.value("target.kind") == "foundry" and not values.urls),
            "no server that is measured has this host", "name the host of --url",
        ),),
        comparable=Comparable.FREE, guarded=True, confirms=True)
    server_cmd: tuple[str, ...] | None = setting(types.COMMAND, None,
        "Start the server with this command, without a shell, and end it after the run; {port} is filled in with the "
        "port of --url, or with a free one.",
        helps={"compare": "The command that starts the server of each side, unless --a-cmd or --b-cmd gives one."},
        commands=_MEASURING,
        refused=dict.fromkeys(("score", "judge", "doctor", "models"), "start the server yourself, and give its --url"),
        needs=(
            _without(
                "target.adapter", reason="a model in this process needs no server", remedy="leave one of them out",
            ),
            Need(
                ("target.url",), lambda values: len(values.urls) < 2, "it starts one server, and several are named",
                "give one URL, or start the servers yourself",
            ),
        ),
        per_side=True, decides_answers="server", guarded=True)
    server_env: tuple[tuple[str, str], ...] = setting(types.VARIABLES, (),
        "An environment variable for the command of --server-cmd, as in CUDA_VISIBLE_DEVICES=0; repeat the flag for "
        "several. Values are not shown and not saved.",
        commands=_MEASURING, needs=(_OF_STARTED,), per_side=True, guarded=True)
    ready_url: str | None = setting(types.STARTED_URL, None,
        "The started server is ready when this URL responds with success, as in http://127.0.0.1:{port}/health. "
        "Default: when it lists its models.",
        commands=_MEASURING, needs=(_OF_STARTED,), comparable=Comparable.FREE, per_side=True, guarded=True)
    ready_timeout: int | None = setting(types.OPTIONAL_DURATION, 300 * NS_PER_S,
        "How long the started server may take until it is ready.",
        commands=_MEASURING, needs=(_OF_STARTED,), comparable=Comparable.FREE, per_side=True)
    yes_run: bool = setting(types.FLAG, False,
        "Run the server command of the scenario file. Without it, loadbench shows it and asks at the terminal.",
        commands=_MEASURING,
        needs=(Need(
            ("target.server_cmd", "compare.a_cmd", "compare.b_cmd", "target.server_env", "grid.vary"),
            lambda values: values.commands_to_confirm, "no scenario file gives a command", "leave it out",
        ),),
        comparable=Comparable.FREE, confirms=True)
    strict_request: bool = setting(types.FLAG, False,
        "Fail if the server refuses a field of a request by name, instead of renaming it or leaving it out.",
        commands=_SENDING, refused={"models": "no request is sent to a model"}, needs=(_OVER_HTTP,),
        comparable=Comparable.FREE, reused="always")
    kind: str = setting(types.choice("auto", "openai", "foundry"), "auto",
        "The kind of server. auto: detect it; foundry: Foundry Local, which is found on this machine without --url.",
        helps={"judge": "The kind of the judge's server. auto: detect it; foundry: Foundry Local."},
        needs=(
            _OVER_HTTP,
            Need(
                _SERVER, lambda values: values.value("target.kind") == "auto" or not values.simulated,
                "the simulated server is of one kind", "leave it out, or give --url",
            ),
        ),
        flag_name="target", reused="always", guarded=True)
    load: bool = setting(types.FLAG, True,
        "Foundry Local: load each model before its test if it is not in memory.", commands=_SENDING,
        refused={"models": "use `loadbench models --load MODEL`"}, needs=(_FOUNDRY,))
    time_loads: bool = setting(types.FLAG, False,
        "Foundry Local and adapters: unload each model before its test and measure how long loading takes.",
        commands=_MEASURING,
        needs=(
            _LOADS_MODELS,
            Need(
                ("target.load",), lambda values: values.value("target.load") is not False,
                "a model that may not be loaded cannot be loaded again", "leave one of them out",
            ),
        ))
    allow_alias: bool = setting(types.FLAG, False,
        "Foundry Local: with several models, also accept an alias that stands for several variants (CPU, GPU).",
        commands=_SENDING - {"compare", "judge"}, refused={**_ONE_MODEL, "judge": "one model judges"},
        needs=(
            _FOUNDRY,
            Need(
                ("target.model", "target.model_set", "target.mix_models"),
                lambda values: len(values.value("target.model") or ()) > 1
                or values.value("target.model_set") or values.value("target.mix_models"),
                "one model may always be named by its alias", "leave it out, or name several models",
            ),
        ))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """How hard, and for how long."""

    COMMANDS: ClassVar = _USER_LOADS
    REFUSED: ClassVar = _LOAD_REFUSED
    COMPARABLE: ClassVar = Comparable.CAVEAT

    users: tuple[int, ...] | None = setting(types.USERS, (1, 2, 4, 8, 16),
        "Closed loop: virtual users at each level, as in 1,2,4; auto doubles them until throughput stops growing.",
        defaults={"workshop": (1,)},
        group="load", aliases=("--concurrency",), comparable=Comparable.FREE)
    rate: tuple[float, ...] | None = setting(types.RATES, None,
        "Open loop: requests per second at each level, as in 0.5,1,2 or 30/min.", group="load",
        aliases=("--request-rate",), comparable=Comparable.FREE)
    arrivals: Arrivals = setting(types.ARRIVALS, parse_arrivals("poisson"),
        "Open loop: how requests are spaced; CV is the coefficient of variation of the gaps.", commands=_GENERATING,
        needs=(_NO_TRACE, _with_rate("users send their next request after a response, not by arrivals")))
    pattern: Pattern | None = setting(types.PATTERN, None,
        "Open loop: TIME:FACTOR points that multiply --rate, as in 0s:0.2,9h:1,24h:0.2; or a file of them; or day.",
        needs=(_NO_TRACE, _with_rate("a pattern changes a rate, and there is none")), guarded=True)
    trace: Path | None = setting(types.PATH, None,
        "Replay the requests in this file: a trace in one of the formats of --trace-format, or a saved run.",
        commands=_LOADS_CHOSEN, group="load", argument_of="replay", guarded=True)
    trace_format: str = setting(types.choice(AUTO, *FORMATS), AUTO,
        "The format of the trace, and with it the unit of its times. auto: by its columns and lengths.",
        commands=_LOADS_CHOSEN,
        needs=(_with("load.trace", reason="there is no trace", remedy="leave it out, or give --trace"),))
    limit: int | None = setting(types.whole(1), None,
        "Replay only the first N requests of the trace.", commands=_LOADS_CHOSEN,
        needs=(_with("load.trace", reason="there is no trace", remedy="leave it out, or give --trace"),))
    time_scale: float = setting(types.number(1e-3, 1e6), 1.0,
        "Speed up the pattern or trace by this factor: with 60, an hour takes a minute.", commands=_LOADS_CHOSEN,
        needs=(
            _with(
                *("load.pattern", "load.trace"), reason="there is no pattern and no trace to speed up",
                remedy="leave it out, or give --pattern or --trace",
            ),
        ))
    think: Distribution | None = setting(types.THINK, None,
        "Closed loop: the think time between a response and the user's next request, as in 10s or lognormal:20s,0.5.",
        commands=_GENERATING, needs=(_NO_TRACE, _with_users("only users think between two requests")))
    abandon: Abandonment | None = setting(types.ABANDON, None,
        "Users who give up: disconnect this share of the requests if the response takes longer, as in 5%@2s, or "
        "if its first token does, as in 5%@first:2s. The patience may be a distribution, as in 5%@lognormal:4s,0.5.",
        commands=_MANY_USERS)
    duration: int | None = setting(types.POSITIVE_DURATION, 10 * NS_PER_S,
        "How long to measure each level, as in 30s or 2m.", commands=_LOADS_CHOSEN, refused=_LENGTH_REFUSED,
        helps={"replay": "Stop the replay after this time. Default: the whole trace."}, group="extent")
    requests: int | None = setting(types.whole(1), None,
        "Measure this number of requests at each level instead of a duration.",
        refused={**_LENGTH_REFUSED, "replay": "a trace has its own number of requests; see --limit"},
        needs=(
            _without(
                "load.trace", reason="a trace has its own number of requests", remedy="leave it out, or use --limit",
            ),
        ),
        aliases=("--num-prompts",), group="extent")
    max_total: int = setting(types.POSITIVE_DURATION, 15 * NS_PER_S * 60,
        "Without --duration and --requests a level lasts 10s, or longer until it has enough responses; "
        "all levels together then take no longer than this.",
        commands=frozenset({"sweep"}),
        refused={
            **_LENGTH_REFUSED, "compare": "each block of a comparison lasts --duration; see --budget",
        },
        needs=(Need(
            ("load.duration", "load.requests", "load.trace", "load.pattern"),
            lambda values: not any(
                values.is_set(f"load.{name}") for name in ("duration", "requests", "trace", "pattern")
            ),
            "the length of each level is given", "leave it out, or leave --duration and --requests out",
        ),),
        comparable=Comparable.FREE)
    warm_up: int | None = setting(types.DURATION, None,
        "How long to apply the load before measuring starts; the load continues without a pause. "
        "Default: 2s, or longer if responses take longer.",
        helps={
            "replay": "Replay this much of the trace before measuring starts. Default: 0s.",
            "workshop": "How long to send requests before measuring starts.",
        },
        commands=_MEASURING, defaults={"workshop": 0})
    cool_down: int = setting(types.DURATION, 0,
        "How long the load continues after measuring ends, as in 5s.", commands=_LOADS_CHOSEN,
        refused=_LENGTH_REFUSED,
        needs=(
            _without("load.requests", reason="a level ends with the last of its requests"),
            Need(
                ("load.trace",), lambda values: values.loop != "trace" or values.is_set("load.duration"),
                "a trace that is measured to its end leaves no load after it",
                "leave it out, or end the measurement earlier with --duration",
            ),
        ))
    drain: int = setting(types.DURATION, DRAIN_NS,
        "How long to wait for the requests in flight after the load ends, as in 30s.", commands=_MEASURING)
    ramp: int | None = setting(types.DURATION, NS_PER_S,
        "Closed loop: spread the users' first requests over this time (no longer than the warm-up).",
        commands=_GENERATING, defaults={"capacity": None},
        needs=(
            _with_users("an open loop has no users to spread"),
            Need(
                ("load.users",),
                lambda values: values.most_users > 1,
                "one user cannot be spread", "leave it out, or use more users",
            ),
            Need(
                ("load.warm_up",),
                lambda values: values.value("load.warm_up") is None
                or values.value("load.warm_up") >= (values.value("load.ramp") if "load.ramp" in values.entries else 1),
                "users start during the warm-up, which is shorter", "leave it out, or use a longer --warm-up",
            ),
        ))
    keep_warm: int | None = setting(types.OPTIONAL_DURATION, None,
        "Send a one-token request, which is not part of the results, whenever nothing was in flight for this long.",
        commands=frozenset({"sweep", "replay", "workshop"}),
        refused={
            **_LOAD_REFUSED, "capacity": "a search leaves no model idle",
            "compare": "it would load the side that rests; every level begins with a warm-up",
        })
    workers: int | None = setting(types.whole(1, 10_000), None,
        "The number of client processes that share the load. Default: by the load and the CPU cores.",
        commands=_MANY_USERS, refused={**_LOAD_REFUSED, "workshop": "one user needs one process"},
        needs=(
            _without(
                "target.adapter", reason="one process holds the model", remedy="leave it out, or measure a server",
            ),
            Need(
                ("load.users", "capacity.by", "capacity.at_most", "load.max_in_flight", "load.requests"),
                lambda values: (values.value("load.workers") or 1) <= values.most_in_flight,
                "fewer requests than workers are ever in flight",
                "give fewer workers: one for each request at most, and with --cluster local:N not more than N",
            ),
        ),
        comparable=Comparable.FREE)
    cluster: Cluster | None = setting(types.CLUSTER, None,
        "Make the load on a Ray cluster, by a worker on each core or --workers in all: local:N starts N nodes on this "
        "machine, auto takes the cluster of this machine or of RAY_ADDRESS, ray://HOST:PORT another. Needs "
        "loadbench[ray].",
        commands=_MANY_USERS, refused={**_LOAD_REFUSED, "workshop": "one user needs one process"},
        needs=(
            _without(
                "target.adapter", reason="one process holds the model", remedy="leave it out, or measure a server",
            ),
            Need(
                ("target.source_address",), lambda values: not values.value("target.source_address"),
                "its nodes have addresses of their own", "leave one of them out",
            ),
        ),
        comparable=Comparable.FREE, guarded=True)
    insecure_cluster: bool = setting(types.FLAG, False,
        "Use a cluster without token authentication that other machines can reach: whoever reaches it can run programs "
        "on its nodes and read what they are sent, keys too.",
        commands=_MANY_USERS, refused={**_LOAD_REFUSED, "workshop": "one user needs one process"},
        needs=(_with("load.cluster", reason="there is no cluster", remedy="leave it out, or give --cluster"),),
        comparable=Comparable.FREE, guarded=True)
    gather_requests: bool = setting(types.FLAG, False,
        "Copy the request logs of a cluster's workers into the run folder after each level; else they stay on their "
        "nodes, but for those of this machine (local:N). Reports by prompt need them.",
        commands=_MANY_USERS, refused={**_LOAD_REFUSED, "workshop": "one user needs one process"},
        needs=(_with("load.cluster", reason="there is no cluster", remedy="leave it out, or give --cluster"),),
        comparable=Comparable.FREE)
    max_in_flight: int = setting(types.whole(1, 100_000), MAX_IN_FLIGHT,
        "Open loop: send no request while this many are in flight; requests held back are counted as missed.",
        commands=_MANY_USERS,
        needs=(Need(
            _LOADS, lambda values: values.loop != "users", "each user has one request in flight at most",
            "leave it out, or use --rate", "leave it out, or search --by rate",
        ),))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkSettings:
    """Which prompts are sent."""

    COMMANDS: ClassVar = _GENERATING
    REFUSED: ClassVar = _PROMPTS_REFUSED
    COMPARABLE: ClassVar = Comparable.PROMPTS

    prompt: str | None = setting(types.TEXT, None,
        "Send this text as the prompt.", commands=_GENERATING | {"workshop", "score"},
        defaults={"workshop": "Explain retrieval augmented generation briefly."}, needs=(_NO_TRACE,), group="work",
        reused="always", workshop_variables=("BENCH_PROMPT",))
    prompts: Path | None = setting(types.PATH, None,
        "Send the prompts in this file: text lines, JSON, JSON lines or CSV, also compressed with gzip; rows may be "
        "texts, OpenAI messages or batches, ShareGPT, MT-bench, Alpaca.",
        commands=_GENERATING | {"workshop", "score"}, needs=(_NO_TRACE,), group="work", reused="always", guarded=True)
    input_tokens: Distribution | None = setting(types.TOKENS, None,
        f"Generate prompts of this many tokens, as in 128 or lognormal:512,0.6. Default: {DEFAULT_INPUT_TOKENS}.",
        needs=(_NO_TRACE,), group="work")
    output_tokens: Distribution | None = setting(types.TOKENS, None,
        "Draw each request's max_tokens from this distribution, as in uniform:64,256.",
        commands=_GENERATING | {"workshop"}, refused={**_PROMPTS_REFUSED, "score": "use --max-tokens"},
        needs=(_NO_TRACE,), comparable=Comparable.LENGTHS,
        when_deterministic=(None,))
    max_tokens: int = setting(types.whole(1, 10_000_000), 64,
        "The maximum number of output tokens of a response.", commands=_GENERATING | {"workshop", "score"},
        defaults={"workshop": 120},
        needs=(
            _NO_TRACE,
            _without("work.output_tokens", reason="each request draws its own max_tokens", overrides=True),
        ),
        comparable=Comparable.LENGTHS, reused="always",
        workshop_variables=("BENCH_MAX_TOKENS",), decides_answers="request")
    exact_output: bool = setting(types.FLAG, False,
        "Make every response exactly as long as its max_tokens, where the server can be told so (ignore_eos, "
        "min_tokens); a trial shows whether it can.",
        commands=_MEASURING, refused={"score": "a response that is rated ends by itself"},
        needs=(_without(
            "target.adapter", reason="a model in this process ends its responses itself", remedy="leave it out",
        ),),
        comparable=Comparable.LENGTHS, decides_answers="request")
    persona: str | None = setting(types.TEXT, None,
        "Use the prompt lengths, output lengths and think times of one kind of user: chat, rag, summariser, code, "
        "or one that the scenario file defines.",
        needs=(_NO_TRACE,), group="who")
    mix: tuple[Share, ...] | None = setting(types.MIX, None,
        "Mix several personas by weight, as in chat:3,rag:1.", needs=(_NO_TRACE,), group="who")
    turns: Distribution | None = setting(types.TURNS, None,
        "Closed loop: conversations of this many turns, as in 4 or uniform:2,6; a request contains all earlier turns.",
        needs=(_NO_TRACE, _with_users("a conversation continues when its user has read the response"), _MESSAGES))
    system: str | None = setting(types.TEXT, None,
        "The system message of every request.", commands=_MEASURING | {"score"}, needs=(_MESSAGES,),
        decides_answers="request", reused="always")
    temperature: float | None = setting(types.number(0, 10), 0.0,
        "The sampling temperature.", commands=_MEASURING,
        refused={
            "score": "responses to be scored are collected at temperature 0", "judge": "a judge has temperature 0",
        },
        defaults={"workshop": 0.2}, when_deterministic=(0.0,),
        comparable=Comparable.CAVEAT, workshop_variables=("BENCH_TEMPERATURE",),
        decides_answers="request")
    seed: int = setting(types.whole(0, 2**53), 0,
        "The seed of prompts, arrivals and think times; it is also sent with every request.",
        helps=dict.fromkeys(("replay", "workshop", "score"), "The seed of prompts, also sent with every request."),
        commands=_MEASURING | {"score"}, comparable=Comparable.SEED, decides_answers="request", reused="always")
    unique: bool = setting(types.FLAG, True,
        "Prefix each prompt with a unique string so that prefix caching cannot help. --no-unique sends it as it is.",
        commands=_MEASURING, refused={"score": "each prompt is sent once, as it is"}, defaults={"score": False},
        when_deterministic=(False,),
        decides_answers="request")
    deterministic: bool = setting(types.FLAG, False,
        "Send given prompts unchanged at temperature 0, and check whether equal prompts get equal responses.",
        commands=_GENERATING | {"workshop"}, refused={**_PROMPTS_REFUSED, "score": "each prompt is sent once"},
        needs=(_NO_TRACE,),
        decides_answers="request")
    personas: tuple[Persona, ...] = ()  # the scenario's own: a table each, and no setting

    @property
    def known(self) -> dict[str, Persona]:
        """Every persona that can be named."""
        return PERSONAS | {persona.name: persona for persona in self.personas}

    @property
    def cast(self) -> Cast | None:
        """The personas of the run, with the scenario's own lengths in place of theirs; `None` without personas.

        Given prompts have no lengths to draw, and the responses of a deterministic run are limited by `max_tokens`.
        """
        shares = (Share(self.persona, 1.0),) if self.persona is not None else self.mix or ()
        if not shares and self.turns is None:
            return None
        over = Persona(name="", input_tokens=self.input_tokens, output_tokens=self.output_tokens, turns=self.turns)
        idle = [] if self.prompt is None and self.prompts is None else ["input_tokens"]
        idle += ["output_tokens"] if self.deterministic else []
        return cast_of(shares, self.known, over, idle=idle) if shares else Cast((over,), (1.0,))


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """Time limits of a request, and when a level is invalid."""

    COMMANDS: ClassVar = _SENDING
    COMPARABLE: ClassVar = Comparable.RESUME

    connect_timeout: int | None = setting(types.OPTIONAL_DURATION, 5 * NS_PER_S,
        "Time limit for connecting, as in 5s; none: no limit.", commands=_ANY_SERVER, needs=(_OVER_HTTP,),
        reused="always")
    first_token_timeout: int | None = setting(types.OPTIONAL_DURATION, 120 * NS_PER_S,
        "Time limit for the first token.", reused="always")
    idle_timeout: int | None = setting(types.OPTIONAL_DURATION, 60 * NS_PER_S,
        "Time limit between two reads of a response.", reused="always")
    timeout: int | None = setting(types.OPTIONAL_DURATION, 600 * NS_PER_S,
        "Time limit for a whole request, as in 10m.", commands=_ANY_SERVER, reused="always")
    failures: float = setting(types.SHARE, 0.01,
        "Above this share of failed requests a level is INVALID, or OVERLOADED where the server refused the load (an "
        "objective on failures is separate).",
        commands=_MEASURING)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectiveSettings:
    """What the results are held against."""

    COMMANDS: ClassVar = _MEASURING
    COMPARABLE: ClassVar = Comparable.RESUME

    objectives: tuple[Objective, ...] | None = setting(types.OBJECTIVES, None,
        "An objective (SLO), as in 'ttft_p95<1s' or 'tpot_p95<80ms@users=8'; repeat the flag for several.",
        flag_name="slo")
    fail_on: tuple[Objective | str, ...] | None = setting(types.GATES, None,
        "Exit with 3 if this objective is missed, and with 5 if that is not certain; slo: any objective of --slo.",
        commands=_MEASURING - {"capacity", "compare"},
        refused={"capacity": "a search exits with 3 if not even the lowest load meets its objectives; use --slo"})
    undecided: str | None = setting(types.choice("pass", "fail"), None,
        "Count a gate that too little was measured to decide as passed, or as failed; by default it exits with 5.",
        helps={
            "capacity": "What a search without a sufficient answer exits with: pass: 0, fail: 3. Default: 5.",
            "compare": "Count a --fail-on that is not certain as passed, or as failed; by default it exits with 5.",
        },
        commands=_MEASURING | {"compare-saved"},
        needs=(Need(
            ("slo.fail_on", "compare.fail_on"),
            lambda values: values.command == "capacity"
            or values.value("slo.fail_on" if values.command not in {"compare", "compare-saved"} else "compare.fail_on"),
            "it is for gates", "add --fail-on, or leave it out",
        ),),
        comparable=Comparable.FREE)
    abort_on: tuple[Objective, ...] | None = setting(types.ABORTS, None,
        "Abort a level when this rule holds, and skip the model's remaining levels, as in 'failures>20%'.",
        helps=dict.fromkeys(("replay", "capacity", "workshop"), "Abort a test when this holds, as in 'failures>20%'."))


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacitySettings:
    """How the highest load that meets the objectives is searched for."""

    COMMANDS: ClassVar = frozenset({"capacity"})
    COMPARABLE: ClassVar = Comparable.RESUME

    by: str = setting(types.choice("users", "rate"), "users",
        "What to count: users (closed loop), or requests per second (open loop).")
    at_most: float = setting(types.number(1e-6, 1e5), 200.0,
        "The highest load to try, in users or requests/s.")
    budget: int = setting(types.POSITIVE_DURATION, 1200 * NS_PER_S,
        "Time budget for the whole search, as in 20m.", comparable=Comparable.FREE)
    confidence: float = setting(types.CONFIDENCE, 0.95,
        "Confidence level of the reported range.")
    require: str = setting(types.choice("likely", "proven"), "likely",
        "The weakest answer that exits with 0: likely (by the model, verified), or proven (by the search's tests).",
        comparable=Comparable.FREE)
    curve: bool = setting(types.FLAG, True,
        "With --think: first measure throughput at rising load without think time, to find the bottleneck.",
        needs=(Need(
            ("capacity.by", "load.think"), lambda values: values.thinks,
            "without think time the search itself measures the curve", "leave it out, or give --think",
        ),),
        comparable=Comparable.FREE)
    precision: float = setting(types.SHARE, 0.2,
        "Stop once the likely range is within ± this share of its middle; with --require proven, the proven range "
        "within half of it.")
    devices_for: int | None = setting(types.whole(1), None,
        "Also report how many servers like this one N users need.",
        needs=(Need(
            ("capacity.by",), lambda values: values.loop == "users", "it is for a number of users",
            "leave it out, or search --by users",
        ), Need(
            ("target.url",), lambda values: len(values.urls) < 2, "it counts servers like the one that is searched",
            "leave it out, or search one server",
        )),
        comparable=Comparable.FREE)
    headroom: float = setting(types.BELOW_ALL, 0.2,
        "With --devices-for: the share of each server's capacity to keep free.",
        needs=(
            _with(
                "capacity.devices_for", reason="it is the share of each server to keep free",
                remedy="leave it out, or give --devices-for",
            ),
        ),
        comparable=Comparable.FREE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSettings:
    """How two sides are measured in turn and compared."""

    COMMANDS: ClassVar = frozenset({"compare"})

    a_model: str | None = setting(types.TEXT, None,
        "The model of side A; of saved runs, only its levels.", commands=frozenset({"compare", "compare-saved"}))
    b_model: str | None = setting(types.TEXT, None,
        "The model of side B; of saved runs, only its levels.", commands=frozenset({"compare", "compare-saved"}))
    a_cmd: tuple[str, ...] | None = setting(types.COMMAND, None,
        "The command that starts the server of side A, as --server-cmd does.", guarded=True)
    b_cmd: tuple[str, ...] | None = setting(types.COMMAND, None,
        "The command that starts the server of side B, as --server-cmd does.", guarded=True)
    repeats: int | None = setting(types.whole(1, 100), None,
        f"How often to measure every level on each side. Default: {USUAL_REPEATS}, or as many as fit into --budget.")
    budget: int | None = setting(types.POSITIVE_DURATION, None,
        "Time budget: do not start a repeat that would exceed it, as in 20m.")
    until: float | None = setting(types.HALF_WIDTH, None,
        f"Repeat until the ratio is known this closely (half its interval, as in 3%), at least {USUAL_REPEATS} times, "
        "and at most as --repeats and --budget allow.",
        needs=(_with(
            "compare.repeats", "compare.budget",
            reason="nothing limits the number of repeats",
            remedy="give --budget, as in 20m, or --repeats, the most of them",
        ),))
    settle: int = setting(types.DURATION, NS_PER_S,
        "How long to wait before each level, so that the previous one has no effect on it.")
    keep_up: bool = setting(types.FLAG, False,
        "Keep both sides up at the same time, where they fit: two models of Foundry Local or Ollama are both loaded. "
        "Without it only one side is up at a time.",
        needs=(Need(
            (*_SERVER[:4], "target.load"),
            lambda values: not values.simulated and values.value("target.load") is not False,
            "loadbench starts no server and loads no model for either side", "leave it out",
        ),),
        comparable=Comparable.RESUME)
    same: bool = setting(types.FLAG, False,
        "Allow A and B to be the same server and model, to see how much repeated measurements differ.")
    confidence: float = setting(types.CONFIDENCE, 0.95,
        "Confidence level of every interval and decision.", commands=frozenset({"compare", "compare-saved"}))
    fail_on: tuple[GateRule, ...] | None = setting(types.CHANGES, None,
        "The largest allowed change from A to B: 'ttft_p95>5%' fails (exit code 3) if B's TTFT p95 is clearly more "
        "than 5 % higher than A's, and gives exit code 5 if that is not certain; repeat the flag for several.",
        commands=frozenset({"compare", "compare-saved"}))


@dataclass(frozen=True, slots=True, kw_only=True)
class GridSettings:
    """What a sweep varies besides the load: each combination of the values is a cell, which is swept by itself."""

    COMMANDS: ClassVar = frozenset({"sweep"})
    REFUSED: ClassVar = {"compare": "two sides are compared; vary settings with `loadbench sweep`"}

    vary: tuple[Varied, ...] | None = setting(types.VARY, None,
        "Sweep a grid: every combination of these values of any setting of a scenario, as in input_tokens=128,1024; "
        "repeat the flag for further names, or for each value of a name whose values have commas.",
        guarded=True)
    budget: int | None = setting(types.POSITIVE_DURATION, None,
        "With --vary: the time for the whole grid, as in 20m; the levels are as long as fit into it.",
        needs=(_with(
            "grid.vary", reason="one sweep has --max-total for its levels", remedy="leave it out, or use --max-total",
        ),))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkshopSettings:
    """The workshop's benchmark."""

    COMMANDS: ClassVar = frozenset({"workshop"})

    rounds: int = setting(types.whole(1, 10_000), 3,
        "How often each prompt is sent to each model.", workshop_variables=("BENCH_ROUNDS",))
    shape: str = setting(types.choice("script", "sample", "notebook", "stable"), "script",
        "Layout of the JSON: of the workshop's script, sample or notebook; stable: loadbench's, for version control.")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSettings:
    """The model that judges responses."""

    COMMANDS: ClassVar = frozenset({"judge"})

    model: str | None = setting(types.TEXT, None,
        "The model that judges. Required.", flag_name="judge_model")
    url: str | None = setting(types.URL, None,
        "The judge's server. Default: the server of RUN.", flag_name="judge_url", guarded=True)
    api_key_env: str | None = setting(types.TEXT, None,
        "The environment variable that holds the API key of the judge's server.", flag_name="judge_key_env",
        guarded=True, bound=True)
    judgings: int = setting(types.whole(1, 9), 1,
        "How often the judge scores each response.")
    # Room for a dozen facets and a sentence; a model that reasons first needs more.
    max_tokens: int = setting(types.whole(1, 10_000_000), 512,
        "The maximum number of output tokens of the judge's response.", flag_name="judge_max_tokens",
        aliases=("--max-tokens",))


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetrySettings:
    """What is sampled while requests run."""

    COMMANDS: ClassVar = _MEASURING

    sampling: str = setting(types.choice("auto", "on", "off"), "auto",
        "Sample the server's process and this machine, if the server runs on it. auto: on, unless it is simulated.",
        flag_name="telemetry")
    interval: int = setting(types.INTERVAL, NS_PER_S,
        "Time between two samples of the machine, from 100ms to 10s.", needs=(_SAMPLED,),
        flag_name="telemetry_interval")
    page_interval: int | None = setting(types.OPTIONAL_INTERVAL, 2 * NS_PER_S,
        "How often to scrape the server's /metrics page while a level runs; none: only before and after it.",
        needs=(
            _OVER_HTTP,
            Need(
                ("telemetry.sampling",), lambda values: values.value("telemetry.sampling") != "off",
                "nothing is sampled", "leave one of them out",
            ),
        ))
    server_pid: int | None = setting(types.whole(1), None,
        "The process ID of the server. Default: the process that listens at its port.",
        needs=(
            _SAMPLED,
            _without(
                "target.server_cmd", reason="the process of a server that is started is known", remedy="leave it out",
            ),
        ))


@dataclass(frozen=True, slots=True, kw_only=True)
class CostSettings:
    """What the machine under test costs."""

    COMMANDS: ClassVar = _MEASURING

    purchase: float | None = setting(types.MONEY, None,
        "The price of the machine, as in 2000.", per_side=True)
    lifetime: float = setting(types.number(0.01, 100), 3.0,
        "The years over which --purchase is spread.",
        needs=(
            _with("cost.purchase", reason="there is no price to spread", remedy="leave it out, or give --purchase"),
        ),
        per_side=True)
    hourly: float | None = setting(types.MONEY, None,
        "The price of the machine per hour: rent or upkeep.", per_side=True)
    kwh_price: float | None = setting(types.MONEY, None,
        "The price of a kilowatt-hour, as in 0.30.",
        needs=(Need(
            ("cost.watts", "telemetry.sampling", *_SERVER[:4]),
            lambda values: values.value("cost.watts") is not None or _SAMPLED.met(values),
            "no energy is measured", "leave it out, or give --watts, or use --telemetry on",
        ),))
    watts: tuple[float, float] | None = setting(types.WATTS, None,
        "The machine's power under load in watts, an estimate for machines without a meter, as in 20 or 15..30.",
        per_side=True)
    currency: str | None = setting(types.TEXT, None,
        "The currency of these prices, as in EUR.",
        needs=(
            _with(
                *("cost.purchase", "cost.hourly", "cost.kwh_price"), reason="there is no price",
                remedy="leave it out, or give a price",
            ),
        ))


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSettings:
    """Where results go."""

    COMMANDS: ClassVar = _MEASURING

    name: str = setting(types.TEXT, "sweep",
        "The name of the run, part of its folder's name.", defaults={name: name for name in sorted(_MEASURING)})
    out: Path | None = setting(types.DIRECTORY, None,
        "The folder in which run folders are made. Default: results.", guarded=True)
    keep_texts: bool = setting(types.FLAG, False,
        "Keep the texts of prompts and responses in the run folder.")
    otlp: str | None = setting(types.URL, None,
        "Send metrics to this OpenTelemetry collector while the run goes on, as in http://127.0.0.1:4318.",
        guarded=True)
    prometheus: tuple[str, int] | None = setting(types.LISTENING, None,
        "Serve metrics for Prometheus at this port while the run goes on, on 127.0.0.1 unless an address is given.",
        guarded=True)


# fmt: on

SECTIONS: dict[str, Any] = {
    "target": TargetSettings,
    "load": LoadSettings,
    "work": WorkSettings,
    "limits": LimitSettings,
    "slo": ObjectiveSettings,
    "capacity": CapacitySettings,
    "compare": CompareSettings,
    "grid": GridSettings,
    "workshop": WorkshopSettings,
    "judge": JudgeSettings,
    "telemetry": TelemetrySettings,
    "cost": CostSettings,
    "report": ReportSettings,
}


@cache
def settings(command: str = "") -> tuple[Setting, ...]:
    """Every setting by section, or those that a command takes."""
    declared = []
    for section, cls in SECTIONS.items():
        for field in dataclasses.fields(cls):
            if "setting" not in field.metadata:
                continue
            one: Setting = field.metadata["setting"]
            whole = dataclasses.replace(
                one,
                section=section,
                name=field.name,
                flag_name=one.flag_name or field.name,
                commands=one.commands or cls.COMMANDS,
                refused=getattr(cls, "REFUSED", {}) if one.refused is None else one.refused,
                comparable=one.comparable or getattr(cls, "COMPARABLE", Comparable.FREE),
            )
            if not command or command in whole.commands:
                declared.append(whole)
    return tuple(declared)


@cache
def setting_of(key: str) -> Setting:
    """The setting of a key such as `load.users`; raises `KeyError`."""
    return {setting.key: setting for setting in settings()}[key]
