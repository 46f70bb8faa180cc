"""Of each setting: a value that is not its default, and what else must be given so that it has an effect.

`also` are companions by setting name; `drop` are flags of the command's baseline that exclude the setting or a
companion, `swap` those that only the setting itself takes the place of. `shows` names what must differ when the setting
is given: see `tests.settings.observe`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loadbench.plan.settings import settings

if TYPE_CHECKING:
    from collections.abc import Mapping

COMMANDS = ("sweep", "replay", "capacity", "compare", "workshop", "score", "judge", "models", "doctor")
URL = "http://127.0.0.1:1"
# A file that tests write: four requests within 30 ms.
TRACE = "trace.csv"
TRACE_TEXT = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2026-01-01 00:00:00.0{at}0000,{length},4\n" for at, length in (("0", 5), ("1", 6), ("2", 7), ("3", 8))
)
# Another, with times in seconds.
LENGTHS = "lengths.jsonl"
LENGTHS_TEXT = "".join(f'{{"timestamp": 0.0{at}, "input_length": {at}, "output_length": 4}}\n' for at in range(1, 4))


@dataclass(frozen=True)
class Row:
    """One setting."""

    value: Any
    also: Mapping[str, Any] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    shows: str = ""
    swap: tuple[str, ...] = ()


# The flags of each command that every row starts from, by setting name.
BASE: dict[str, dict[str, Any]] = {
    "sweep": {"url": URL, "users": "1", "requests": "2", "warm_up": "0s", "drain": "2s", "max_tokens": "4"},
    "replay": {"url": URL, "trace": TRACE, "drain": "2s"},
    "capacity": {
        "url": URL,
        "objectives": ("e2e_p95<9s",),
        "at_most": "2",
        "budget": "700ms",
        "warm_up": "5ms",
        "drain": "2s",
        "max_tokens": "4",
    },
    "compare": {"users": "1", "requests": "2", "warm_up": "0s", "drain": "2s", "settle": "0s", "repeats": "1"},
    "workshop": {"url": URL, "rounds": "1", "max_tokens": "4"},
    "score": {"url": URL, "prompt": "Say hello.", "max_tokens": "4"},
    "judge": {"model": "judge", "url": URL},
    "models": {"url": URL},
    "doctor": {"url": URL},
}
# Flags without which a command does not run: the setting's row replaces their value.
REQUIRED = {
    ("capacity", "budget"),
    ("capacity", "objectives"),
    ("judge", "model"),
    ("replay", "trace"),
    ("score", "prompt"),
}
_RATE = {"rate": "50"}
_BY_RATE = ("users",)
_SWEPT = ("users", "rate", "requests", "max_tokens")
_TIMED = {"duration": "200ms"}
_TEXT = {"prompt": "Say hello."}
_HTTPS = {"url": "https://127.0.0.1:1", "judge_url": "https://127.0.0.1:1"}
_FOUNDRY = {"kind": "foundry"}
_SAMPLED = {"sampling": "on"}
_STARTED = {"server_cmd": "llama-server --port {port}"}

ROWS: dict[str, Row] = {
    "target.url": Row("http://127.0.0.1:2", shows="server"),
    "target.adapter": Row("echo:mine", shows="target", swap=("url", "model")),
    "target.model": Row(("other",), shows="model"),
    "target.model_set": Row("models.json", shows="model"),
    "target.mix_models": Row(("m=1,other=1",), shows="model", swap=("model",)),
    "target.api": Row("completions", shows="paths"),
    "target.transport": Row("httpx", shows="transport"),
    "target.source_address": Row(("127.0.0.1",), shows="sources"),
    "target.profile": Row("small-gpu", drop=("url",), shows="profile"),
    "target.header": Row(("X-Walk: yes",), shows="headers"),
    "target.header_env": Row(("X-Walk: WALK_KEY",), shows="headers"),
    "target.extra_body": Row(('{"top_k": 7}',), shows="extra"),
    "target.max_tokens_field": Row("max_new_tokens", shows="limits"),
    "target.api_key_env": Row("WALK_KEY", shows="headers"),
    "target.cacert": Row("ca.pem", _HTTPS, shows="trusted"),
    "target.insecure": Row(True, _HTTPS, shows="trusted"),
    "target.yes_load": Row(("127.0.0.1",)),
    "target.server_cmd": Row("llama-server --port {port}"),
    "target.server_env": Row(("WALK=yes",), _STARTED),
    "target.ready_url": Row("http://127.0.0.1:{port}/health", _STARTED),
    "target.ready_timeout": Row("9s", _STARTED),
    "target.yes_run": Row(True, drop=("url",)),
    "target.strict_request": Row(True),
    "target.kind": Row("foundry", shows="paths"),
    "target.load": Row(False, _FOUNDRY),
    "target.time_loads": Row(True, {"adapter": "echo:mine"}, drop=("url",), shows="loads"),
    "target.allow_alias": Row(True, {**_FOUNDRY, "model": ("one", "two")}),
    "load.users": Row("2", shows="plan.load"),
    "load.rate": Row("50", shows="plan.load", swap=_BY_RATE),
    "load.arrivals": Row("constant", {**_RATE, "by": "rate"}, drop=_BY_RATE, shows="plan.load"),
    "load.pattern": Row("0s:1,1s:2", _RATE, drop=_BY_RATE, shows="plan.load"),
    "load.trace": Row("other.csv", shows="plan.load", swap=_SWEPT),
    "load.trace_format": Row("mooncake", {"trace": LENGTHS}, _SWEPT, "plan.load"),
    "load.limit": Row("3", {"trace": TRACE}, _SWEPT, "plan.load"),
    "load.time_scale": Row("2", {"trace": TRACE}, _SWEPT, "plan.load"),
    "load.think": Row("10ms", shows="plan.load"),
    "load.abandon": Row("50%@first:9s", shows="plan.abandon"),
    "load.duration": Row("150ms", shows="plan.duration", swap=("requests",)),
    "load.requests": Row("3", _TIMED, shows="plan.duration", swap=("duration",)),
    "load.warm_up": Row("20ms", shows="plan.duration"),
    "load.cool_down": Row("20ms", _TIMED, ("requests",), "plan.duration"),
    "load.max_total": Row("5m", drop=("requests",)),
    "load.drain": Row("1500ms", shows="plan.duration"),
    "load.ramp": Row("30ms", {"users": "2", "warm_up": "50ms"}, shows="plan.ramp_ns"),
    "load.keep_warm": Row("10s", shows="kept_warm"),
    "load.workers": Row("2", {"users": "2"}, shows="workers"),
    "load.cluster": Row("local:1", shows="cluster"),
    "load.insecure_cluster": Row(True, {"cluster": "local:1"}),
    "load.gather_requests": Row(True, {"cluster": "local:1"}),
    "load.max_in_flight": Row("77", {**_RATE, "by": "rate"}, drop=_BY_RATE, shows="plan.most_in_flight"),
    "work.prompt": Row("Walk.", shows="prompts"),
    "work.prompts": Row("prompts.txt", shows="prompts", swap=("prompt",)),
    "work.input_tokens": Row("3", shows="prompts"),
    "work.output_tokens": Row("7", shows="lengths", swap=("max_tokens",)),
    "work.max_tokens": Row("9", shows="lengths"),
    "work.exact_output": Row(True, shows="exact"),
    "work.persona": Row("summariser", shows="prompts"),
    "work.mix": Row(("summariser",), shows="prompts"),
    "work.turns": Row("2", shows="messages"),
    "work.system": Row("Be brief.", shows="messages"),
    "work.temperature": Row("0.5", shows="temperature"),
    "work.seed": Row("5", shows="seed"),
    "work.unique": Row(False, _TEXT, shows="prompts"),
    "work.deterministic": Row(True, _TEXT, shows="prompts"),
    "limits.connect_timeout": Row("3s", shows="connect"),
    "limits.first_token_timeout": Row("4s", shows="timeouts"),
    "limits.idle_timeout": Row("4s", shows="timeouts"),
    "limits.timeout": Row("50s", shows="timeouts"),
    "limits.failures": Row("90%", shows="verdicts"),
    "slo.objectives": Row(("e2e_p50<9s",), shows="objectives"),
    "slo.fail_on": Row(("e2e_p50<1ms",), shows="gates"),
    "slo.undecided": Row("fail", {"fail_on": ("e2e_p95<9s",)}, shows="undecided"),
    "slo.abort_on": Row(("e2e_p50>9m",), shows="abort_rules"),
    "capacity.by": Row("rate", shows="plan.load"),
    "capacity.at_most": Row("1", shows="grid"),
    "capacity.budget": Row("900ms", shows="budget"),
    "capacity.confidence": Row("70%", shows="evidence"),
    "capacity.curve": Row(False, {"think": "5ms"}, shows="curve"),
    "capacity.precision": Row("50%", shows="precision"),
    "capacity.require": Row("proven", shows="required"),
    "capacity.devices_for": Row("9"),
    "capacity.headroom": Row("40%", {"devices_for": "9"}),
    "compare.a_model": Row("other", shows="model"),
    "compare.b_model": Row("other", shows="model"),
    "compare.a_cmd": Row("llama-server --port {port}"),
    "compare.b_cmd": Row("llama-server --port {port}"),
    "compare.repeats": Row("2", shows="repeats"),
    "compare.budget": Row("9m", shows="pairing"),
    "compare.until": Row("3%", {"repeats": "1"}, shows="pairing"),
    "compare.settle": Row("10ms", shows="pairing"),
    "compare.keep_up": Row(True, {"url": URL, "same": True}, shows="paths"),
    "compare.same": Row(True, {"url": URL}, shows="same"),
    "compare.confidence": Row("80%", shows="confidence"),
    "compare.fail_on": Row(("ttft_p95>5%",), shows="changes"),
    "grid.vary": Row(("temperature=0.5",), shows="temperature"),
    "grid.budget": Row("8s", {"vary": ("temperature=0.5",)}, drop=("requests",), shows="plan.duration"),
    "workshop.rounds": Row("2", shows="plan.duration"),
    "workshop.shape": Row("stable", shows="stdout"),
    "judge.model": Row("other", shows="model"),
    "judge.url": Row("http://127.0.0.1:2", shows="server"),
    "judge.api_key_env": Row("WALK_KEY", shows="headers"),
    "judge.judgings": Row("2", shows="count"),
    "judge.max_tokens": Row("99", shows="lengths"),
    "telemetry.sampling": Row("on", shows="sampled"),
    "telemetry.interval": Row("500ms", _SAMPLED, shows="watch"),
    "telemetry.page_interval": Row("5s", shows="page"),
    "telemetry.server_pid": Row("1", _SAMPLED, shows="watch"),
    "cost.purchase": Row("1000", shows="cost"),
    "cost.lifetime": Row("2", {"purchase": "1000"}, shows="cost"),
    "cost.hourly": Row("3", shows="cost"),
    "cost.kwh_price": Row("0.5", {"watts": "20"}, shows="cost"),
    "cost.watts": Row("20", shows="cost"),
    "cost.currency": Row("EUR", {"hourly": "3"}, shows="cost"),
    "report.name": Row("walk", shows="folder"),
    "report.out": Row("elsewhere", shows="folder"),
    "report.keep_texts": Row(True, shows="texts"),
    "report.otlp": Row("http://127.0.0.1:1", shows="exported"),
    "report.prometheus": Row("0", shows="exported"),
}

# What makes a setting idle, by the reason of its need: the flags to add, and those to leave out.
BLOCKERS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "it is for gates": ({"undecided": "pass"}, ("fail_on",)),
    "the length of each level is given": ({"duration": "1s"}, ("requests",)),
    "a trace decides what is sent, and when": ({"trace": TRACE}, (*_SWEPT, "prompt")),
    "a trace has its own number of requests": ({"trace": TRACE}, _SWEPT),
    "the simulated server is of one kind": ({"profile": "small-gpu"}, ("url",)),
    "a model in this process has no connection": ({"adapter": "echo:mine"}, ("url",)),
    "a model in this process ends its responses itself": ({"adapter": "echo:mine"}, ("url",)),
    "one process holds the model": ({"adapter": "echo:mine"}, ("url",)),
    "an adapter is one model": ({"adapter": "echo:mine"}, ("url",)),
    "a model in this process takes chats and completions only": ({"adapter": "echo:mine", "api": "ollama"}, ("url",)),
    "a model in this process gets messages and limits only": ({"adapter": "echo:mine"}, ("url",)),
    "Ollama has one name for it, options.num_predict": ({"api": "ollama"}, ()),
    "only a connection over TLS has certificates": ({"url": URL}, ()),
    "no server that is measured has this host": ({"url": "http://127.0.0.2:1"}, ("adapter",)),
    "only Foundry Local loads models on request": ({"kind": "openai"}, ()),
    "only Foundry Local and adapters load models on request": ({"url": URL, "kind": "openai"}, ("adapter",)),
    "a model that may not be loaded cannot be loaded again": ({"load": False, **_FOUNDRY, "url": URL}, ("adapter",)),
    "loadbench starts no server and loads no model for either side": ({"load": False, "url": URL}, ()),
    "one model may always be named by its alias": ({"model": ("one",)}, ()),
    "it is a profile of the simulated server": ({"url": URL}, ()),
    "users send their next request after a response, not by arrivals": ({"users": "2", "by": "users"}, ("rate",)),
    "a pattern changes a rate, and there is none": ({"users": "2"}, ("rate",)),
    "there is no trace": ({}, ("trace", "time_scale")),
    "there is no pattern and no trace to speed up": ({}, ("trace", "limit")),
    "only users think between two requests": ({"rate": "2", "by": "rate"}, ("users",)),
    "a conversation continues when its user has read the response": ({"rate": "2", "by": "rate"}, ("users",)),
    "the completions endpoint takes one text, and no messages": ({"api": "completions"}, ()),
    "one sweep has --max-total for its levels": ({}, ("vary",)),
    "a level ends with the last of its requests": ({"requests": "3"}, ("duration",)),
    "a trace that is measured to its end leaves no load after it": ({"trace": TRACE}, (*_SWEPT, "duration")),
    "an open loop has no users to spread": ({"rate": "2", "by": "rate"}, ("users",)),
    "one user cannot be spread": ({"users": "1"}, ()),
    "users start during the warm-up, which is shorter": ({"warm_up": "10ms"}, ()),
    "fewer requests than workers are ever in flight": ({"users": "1", "at_most": "1"}, ("rate",)),
    "each user has one request in flight at most": ({"users": "2", "by": "users"}, ("rate",)),
    "its nodes have addresses of their own": ({"source_address": ("127.0.0.1",)}, ()),
    "there is no cluster": ({}, ("cluster",)),
    "each request draws its own max_tokens": ({"output_tokens": "7"}, ()),
    "nothing limits the number of repeats": ({}, ("repeats", "budget")),
    "without think time the search itself measures the curve": ({}, ("think",)),
    "it is for a number of users": ({"by": "rate"}, ()),
    "it counts servers like the one that is searched": ({"url": (URL, "http://127.0.0.1:2")}, ()),
    "it is the share of each server to keep free": ({}, ("devices_for",)),
    "this machine is not sampled": ({"sampling": "off"}, ()),
    "no energy is measured": ({"sampling": "off"}, ("watts",)),
    "nothing is sampled": ({"sampling": "off"}, ()),
    "there is no price to spread": ({}, ("purchase",)),
    "a model in this process needs no server": ({"adapter": "echo:mine"}, ("url",)),
    "it starts one server, and several are named": ({"url": (URL, "http://127.0.0.1:2")}, ()),
    "loadbench starts no server": ({}, ("server_cmd",)),
    "no scenario file gives a command": (_STARTED, ("adapter",)),
    "the process of a server that is started is known": (_STARTED, ("adapter",)),
    "there is no price": ({}, ("purchase", "hourly", "kwh_price")),
}


def flags_for(command: str, key: str, **more: Any) -> dict[str, Any]:
    """The baseline of a command with the companions of a setting, without the setting itself."""
    row = ROWS[key]
    taken = {setting.name for setting in settings(command)}
    name = key.partition(".")[2]
    flags = {**BASE[command], **row.also, **more}
    if command == "compare" and "fail_on" in row.also:
        flags["fail_on"] = ("ttft_p95>5%",)  # there it is a change
    if command == "judge" and "judge_url" in row.also:
        flags["url"] = row.also["judge_url"]
    dropped = {*row.drop, *(() if (command, name) in REQUIRED else (name,))}
    return {flag: value for flag, value in flags.items() if flag in taken and flag not in dropped}


def given_for(key: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The same flags with the setting itself."""
    row = ROWS[key]
    kept = {flag: value for flag, value in flags.items() if flag not in row.swap}
    return {**kept, key.partition(".")[2]: row.value}
