"""Asks before a machine is loaded that may be somebody else's (a public API, or an address outside private networks),
and before a command runs that a scenario file has chosen."""

from __future__ import annotations

import signal
import socket
import sys
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import anyio

from loadbench.client.faults import explain
from loadbench.core.errors import BadInput, Interrupted, TargetUnavailable
from loadbench.core.text import beginning, printable, some
from loadbench.plan.cells import names_in_command
from loadbench.plan.server_command import MOST_SHOWN, join_words, shown_command
from loadbench.plan.server_url import origin_of, shown_url
from loadbench.plan.settings import Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadbench.plan.scenario import Scenario

# This machine, which 0.0.0.0 and :: also reach, the private networks of RFC 1918 and RFC 4193, and those of one link.
# What Python calls private differs between its versions, and is more.
_OURS = tuple(
    ip_network(text)
    for text in (
        *("127.0.0.0/8", "0.0.0.0/32", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"),
        *("::1/128", "::/128", "fc00::/7", "fe80::/10"),
    )
)
# Who answers under these names sends a bill, also where a name leads to a gateway in a private network.
_PUBLIC_APIS = (
    *("openai.com", "azure.com", "anthropic.com", "googleapis.com", "amazonaws.com", "mistral.ai", "groq.com", "x.ai"),
    *("openrouter.ai", "deepseek.com", "cohere.com", "cohere.ai", "together.xyz", "together.ai", "fireworks.ai"),
    *("perplexity.ai", "huggingface.co", "huggingface.cloud", "cerebras.ai", "sambanova.ai", "deepinfra.com"),
    *("nvidia.com", "replicate.com", "github.ai", "aliyuncs.com", "moonshot.ai", "moonshot.cn", "bigmodel.cn", "z.ai"),
    *("siliconflow.com", "siliconflow.cn", "volces.com", "minimax.io", "ai21.com", "nebius.com", "hyperbolic.xyz"),
    *("novita.ai", "databricks.com", "cloudflare.com", "ollama.com", "ibm.com", "inference.net", "friendli.ai"),
)


async def confirm_load(scenario: Scenario, *, say: Callable[[str], None]) -> dict[str, tuple[str, ...]]:
    """Have the user confirm each host that is a public API, or neither this machine nor in a private network.

    --yes-load confirms it, or an answer at the terminal. Returns the addresses of each host, for `keep_addresses`: what
    a name leads to later was not confirmed. Raises `BadInput` where neither does, `TargetUnavailable` for
    a host that is not found, and `Interrupted` for Ctrl-C.
    """
    key = "judge.url" if scenario.judge.url is not None else "target.url"
    unknown: dict[str, str] = {}
    kept: dict[str, tuple[str, ...]] = {}
    for url in scenario.target.url or ():
        _, host, port = origin_of(url)
        try:
            found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            what, hint = explain(error)
            raise TargetUnavailable(f"{shown_url(url)}: {what}", hint=hint) from None
        kept[host] = tuple(dict.fromkeys(str(entry[4][0]) for entry in found))
        addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
        inner = [getattr(address, "ipv4_mapped", None) or address for address in addresses]
        ours = all(any(address in network for network in _OURS) for address in inner)
        public = any(host == name or host.endswith(f".{name}") for name in _PUBLIC_APIS)
        if ours and not public:
            continue
        kind = "a public API" if public else "neither this machine nor in a private network"
        fact = f"{host} ({some([*dict.fromkeys(map(str, addresses))])}) is {kind}"
        if host in (scenario.target.yes_load or ()):
            say(f"{fact}; it is loaded, as --yes-load says")
        else:
            unknown[host] = printable(fact)
    if not unknown:
        return kept
    place, facts = scenario.place(key), "; ".join(unknown.values())
    allowed = " ".join(f"--yes-load {host}" for host in unknown)
    confirmed = _confirmed(f"{facts}.\nMay you load it, and pay for it?")
    if confirmed is None:
        raise BadInput(f"{place}: {facts}", hint=f"if you may load it, and pay for it, add {allowed}")
    if not confirmed:
        raise BadInput(f"{place}: not confirmed: {facts}", hint=f"type yes, or add {allowed}")
    return kept


def confirm_command(*scenarios: Scenario, say: Callable[[str], None]) -> None:
    """Have the user confirm a server command of a scenario file, or one for which a file sets variables, which may be
    the PATH: --yes-run does, or an answer at the terminal. For the sides of a comparison there is one question.

    Raises `BadInput` where neither does, and `Interrupted` for Ctrl-C. What the user gives needs no confirmation.
    """
    wanted: dict[str, str] = {}
    hint, allowed = "add --yes-run", False
    for scenario in scenarios:
        place, shown = _of_file(scenario)
        if len(shown) > MOST_SHOWN:
            shown, hint = beginning(shown, MOST_SHOWN), "read all of it in the file first; then add --yes-run"
        if shown:
            wanted.setdefault(printable(shown), place)
        allowed = allowed or bool(scenario.target.yes_run)
    if not wanted:
        return
    if allowed:
        for shown, place in wanted.items():
            say(f"{place} runs {shown}, as --yes-run allows")
        return
    facts = "; ".join(f"{place}: wants to run {shown}" for shown, place in wanted.items())
    lines, one = "".join(f"\n  {shown}" for shown in wanted), len(wanted) == 1
    places = " and ".join(wanted.values())
    what = "wants to run this command" if one else "want to run these commands"
    confirmed = _confirmed(f"{places} {what} on this machine:{lines}\nMay {'it' if one else 'they'}?")
    if confirmed is None:
        raise BadInput(facts, hint=f"if {'it' if one else 'they'} may, {hint}")
    if not confirmed:
        raise BadInput(f"not confirmed: {facts}", hint=f"type yes, or {hint}")


def _of_file(scenario: Scenario) -> tuple[str, str]:
    """Where a file chooses what is run, and the command with all that it chooses; empty if it chooses nothing."""
    keys = ("target.server_cmd", "target.server_env")
    of_file = [key for key in keys if key in {entry.setting.key for entry in scenario.values.commands_to_confirm}]
    command, variables = scenario.target.server_cmd, scenario.target.server_env
    given = scenario.values.entries.get("grid.vary")
    filled = [one for one in scenario.grid.vary or () if one.name in names_in_command(scenario)]
    if filled and given is not None and given.origin.source is Source.SCENARIO:
        of_file.append("grid.vary")
    if not of_file or command is None:
        return "", ""
    # All of what the file says: `sh -c 'token=$(rm …)'` has no secret in it, though it looks like one.
    shown = join_words(command) if keys[0] in of_file else shown_command(command)
    if variables:
        texts = [f"{name}={value}" if keys[1] in of_file else name for name, value in variables]
        shown += f", with {' and '.join(join_words([text]) for text in texts)} in its environment"
    if filled:
        shown += "".join(f", {{{one.name}}} being {' or '.join(map(repr, one.values))}" for one in filled)
    return scenario.place(of_file[0]), shown


def _confirmed(question: str) -> bool | None:
    """The user's answer at the terminal; `None` where there is none. Raises `Interrupted` for Ctrl-C."""
    if not all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        return None
    sys.stderr.write(f"{question} Type yes to begin:\n")
    sys.stderr.flush()
    # The event loop waits here as well, and would keep Ctrl-C to itself.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        raise Interrupted("stopped before any request was sent") from None
    finally:
        signal.signal(signal.SIGINT, handler or signal.SIG_DFL)
    return answer.strip().lower() in {"y", "yes"}
