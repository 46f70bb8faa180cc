"""The properties of a simulated server, and the exact result of a closed loop against it.

The engine (`loadbench.sim.batching`) works in steps. A step admits waiting requests while there are slots and memory,
and prefills them one after another; then one decode step gives one token to every running request. With `P` prompt
tokens, `N` output tokens and `m` running requests

    prefill of one request   p    = prefill_base + prefill_per_token · P     its first token comes at the end of it
    one decode step          d(m) = decode_base + decode_per_sequence · m    all next tokens come at the end of it

A closed loop of `n` users without think time, all with the same `P` and `N`, keeps `m = min(n, c)` requests running,
where `c` is the number of slots, or of requests that fit into the KV memory if that is less. A request takes part in
`N − 1` decode steps, and in that time each running request is replaced once, so that `m` prefills go by:

    time from slot to end    T    = m·p + (N − 1)·d(m)
    requests per second      X    = m / T                  output tokens per second = N·X
    mean E2E                 E    = n / X                  (Little's law; for n ≤ c that is T)
    mean wait for a slot     W    = E − T = T·(n/c − 1)    for n > c, else 0

These hold however the users start. How `T` divides into TTFT and decoding depends on which requests are prefilled
together: a request waits for the prefills before its own. Users who all start in one instant stay together, and

    mean TTFT                W + p·(m + 1)/2               mean TPOT = (T − p·(m + 1)/2) / (N − 1)

Users whose requests are each prefilled alone have TTFT `W + p` instead, and the rest of `T` is decoding. For `N = 1`
nothing is decoded: the engine is one queue of prefills, X = 1/p and TTFT = E2E = n·p.

At noise 0 all of this is exact, to the nanosecond, for whole cycles of every user, because a request that arrives when
another one finishes is still admitted to the step that begins then. With noise each duration is multiplied by an
independent factor of mean 1, so that the formulas hold for the mean over many requests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from loadbench.core.errors import BadInput
from loadbench.core.units import NS_PER_S


@dataclass(frozen=True, slots=True)
class Profile:
    """One kind of server. Times are in seconds; `noise` is the coefficient of variation of each duration."""

    name: str
    model: str
    slots: int  # requests that run at once
    kv_tokens: int  # prompt and output tokens that all running requests can reserve together
    context: int  # prompt and output tokens of one request
    prefill_base_s: float
    prefill_per_token_s: float
    decode_base_s: float
    decode_per_sequence_s: float
    description: str
    noise: float = 0.03

    def __post_init__(self) -> None:
        if self.slots < 1 or not 1 <= self.context <= self.kv_tokens:
            raise ValueError(f"profile {self.name}: needs slots ≥ 1 and 1 ≤ context ≤ kv_tokens")
        if min(self.prefill_base_s, self.decode_base_s) <= 0:
            raise ValueError(f"profile {self.name}: prefill_base_s and decode_base_s must be above 0")
        if min(self.prefill_per_token_s, self.decode_per_sequence_s, self.noise) < 0:
            raise ValueError(f"profile {self.name}: times and noise must not be negative")

    def prefill_ns(self, prompt_tokens: int) -> int:
        """Duration of the prefill of one prompt, without noise."""
        return max(1, round((self.prefill_base_s + self.prefill_per_token_s * prompt_tokens) * NS_PER_S))

    def decode_ns(self, running: int) -> int:
        """Duration of one decode step with this number of running requests, without noise."""
        return max(1, round((self.decode_base_s + self.decode_per_sequence_s * running) * NS_PER_S))

    def tokens_per_s(self, users: int, prompt_tokens: float, output_tokens: float) -> float:
        """What each of so many users without think time gets, by the formulas above; the memory is taken as enough."""
        running = min(users, self.slots)
        prefill_s = self.prefill_base_s + self.prefill_per_token_s * prompt_tokens
        decode_s = self.decode_base_s + self.decode_per_sequence_s * running
        cycle_s = running * prefill_s + (output_tokens - 1) * decode_s
        return output_tokens * running / users / cycle_s

    @property
    def gather_ns(self) -> int:
        """How long the step after a finished request stays open for the user's next request.

        A client needs some milliseconds before it sends that; otherwise it would wait for one decode step that is not
        in the formulas. It is less than any prefill or decode step, and so delays nothing.
        """
        return max(1, min(4_000_000, round(min(self.prefill_base_s, self.decode_base_s) * NS_PER_S * 0.75)))

    def exact(self) -> Profile:
        """The same profile without noise."""
        return replace(self, noise=0.0)

    def faster(self, times: float) -> Profile:
        """The same profile with every duration divided by `times`, for tests in real time."""
        if not 0 < times < math.inf:
            raise ValueError(f"a speed must be above 0, not {times:g}")
        return replace(
            self,
            prefill_base_s=self.prefill_base_s / times,
            prefill_per_token_s=self.prefill_per_token_s / times,
            decode_base_s=self.decode_base_s / times,
            decode_per_sequence_s=self.decode_per_sequence_s / times,
        )


# fmt: off
_ALL = (
    # name, model, slots, KV tokens, context, prefill: base and per token, decode: base and per sequence
    Profile("slot-server", "sim-chat", 8, 65_536, 8_192, 0.001, 0.00008, 0.005, 0.0005,
            "a small model on a fast desktop; a clear knee at its 8 slots"),
    Profile("cpu-laptop", "sim-laptop-7b", 4, 16_384, 4_096, 0.020, 0.003, 0.060, 0.012,
            "a quantised 7B model on a laptop's CPU; prompts are expensive, batching gains little"),
    Profile("small-gpu", "sim-gpu-7b", 16, 8_192, 8_192, 0.005, 0.00015, 0.012, 0.0004,
            "a 7B model on a GPU with 8 GB; batching is cheap until the KV memory is full"),
)
# fmt: on
PROFILES = {profile.name: profile for profile in _ALL}
DEFAULT_PROFILE = "slot-server"


def profile_named(name: str) -> Profile:
    """The profile of this name; raises `BadInput` with the known names."""
    if name not in PROFILES:
        raise BadInput(f"--profile: there is no profile {name!r}", hint=f"the profiles are {', '.join(PROFILES)}")
    return PROFILES[name]
