"""How much a run will write, and whether there is room for it: known before anything is measured."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from loadbench.core.units import NS_PER_S
from loadbench.plan.load import Closed
from loadbench.plan.request_lengths import request_lengths
from loadbench.plan.settings import DEFAULT_INPUT_TOKENS
from loadbench.plan.sim_profile import PROFILES
from loadbench.plan.traces import Replayed

if TYPE_CHECKING:
    from loadbench.plan.scenario import Scenario

# Measured: a line of requests.jsonl without its tokens, and what each of these adds; the text of a token.
_REQUEST_BYTES, _TOKEN_BYTES, _TEXT_BYTES = 1_100, 10, 5
# run.json, while it is replaced, the histograms and the report: the run as such, and each level of it.
_RUN_BYTES, _LEVEL_BYTES = 40_000, 60_000
# How fast a server answers is not known before. Few stream more to one user.
_USUAL_TOKENS_PER_S = 100


def usual_tokens_per_s(scenario: Scenario, users: int = 1) -> float:
    """What each of so many users gets: of the simulated server what its profile says, of another one an assumption."""
    profile = PROFILES.get(scenario.target.profile) if scenario.simulated else None
    if profile is None:
        return _USUAL_TOKENS_PER_S
    lengths = request_lengths(scenario) or [(DEFAULT_INPUT_TOKENS, scenario.work.max_tokens)]
    prompt, output = (sum(side) / len(lengths) for side in zip(*lengths, strict=True))
    return profile.tokens_per_s(users, prompt, output)


def usual_output_tokens(scenario: Scenario) -> float:
    """The mean length of a response, as far as it is known before: the most that one may have."""
    lengths = request_lengths(scenario)
    return sum(most for _, most in lengths) / len(lengths) if lengths else float(scenario.work.max_tokens)


def usual_cycle_s(scenario: Scenario, users: int = 1) -> float:
    """How long a response to one of so many users and the think time take at the usual speed."""
    think_s = 0.0 if scenario.think is None else scenario.think.mean / NS_PER_S
    return usual_output_tokens(scenario) / usual_tokens_per_s(scenario, users) + think_s


def speed_text(scenario: Scenario) -> str:
    """How fast a plan takes the server to be."""
    if scenario.simulated and scenario.target.profile in PROFILES:
        return f"at the speed of the profile {scenario.target.profile}"
    return f"assuming {_USUAL_TOKENS_PER_S} tokens/s a user"


def expected_bytes(scenario: Scenario) -> tuple[int, int]:
    """(the least that a run with these loads writes, what it is expected to), in bytes on this machine."""
    models, extent, work = len(scenario.target.model or ("",)), scenario.extent, scenario.work
    least = _RUN_BYTES + _LEVEL_BYTES * models
    if scenario.command == "capacity":
        return least, least
    loads = scenario.loads
    if scenario.leaves_requests:
        return least, _RUN_BYTES + _LEVEL_BYTES * models * len(loads)
    seconds = (extent.warm_up_ns + (extent.duration_ns or 0) + extent.cool_down_ns) / 1e9
    if scenario.waits_for_answers:
        seconds = max(seconds, scenario.load.max_total / 1e9 / len(loads))
    requests = tokens = 0.0
    for load in loads:
        length = float(work.max_tokens)
        if isinstance(load, Closed):
            sent = load.users * usual_tokens_per_s(scenario, load.users) * seconds / length
        elif isinstance(load.arrivals, Replayed):
            sent = load.arrivals.request_count
            length = sum(load.arrivals.trace.output_tokens) / sent
        else:
            sent = load.rate_per_s * seconds
        requests += extent.requests or sent
        tokens += (extent.requests or sent) * length
    token_bytes = _TOKEN_BYTES + _TEXT_BYTES * scenario.report.keep_texts
    whole = _RUN_BYTES + models * (_LEVEL_BYTES * len(loads) + requests * _REQUEST_BYTES + tokens * token_bytes)
    return least, round(whole)


def largest_file() -> int | None:
    """The most bytes that a file of this process may have (`ulimit -f`); `None` without a limit."""
    largest = None
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - not on Windows

        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        largest = None if limit == resource.RLIM_INFINITY else limit
    return largest
