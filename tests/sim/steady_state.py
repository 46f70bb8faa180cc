"""The formulas of `loadbench.plan.sim_profile` for a closed loop in its steady state: what a measurement must find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loadbench.core.units import NS_PER_S

if TYPE_CHECKING:
    from loadbench.plan.sim_profile import Profile


@dataclass(frozen=True, slots=True)
class SteadyState:
    """The result of a closed loop; times in seconds. TPOT is `None` for responses of one token."""

    requests_per_s: float
    output_tokens_per_s: float
    ttft_mean_s: float
    e2e_mean_s: float
    tpot_s: float | None


def capacity(profile: Profile, *, input_tokens: int, output_tokens: int) -> int:
    """The number of requests of this size that run at once: the slots, or as many as fit into the KV memory."""
    return min(profile.slots, profile.kv_tokens // (input_tokens + output_tokens))


def steady_state(profile: Profile, users: int, *, input_tokens: int, output_tokens: int) -> SteadyState:
    """The formulas, for users without think time who begin together. `input_tokens` as the server counts them.

    Raises `ValueError` if there is no user, or if such a request does not fit into the context.
    """
    if users < 1 or output_tokens < 1 or input_tokens + output_tokens > profile.context:
        raise ValueError(f"no steady state of {users} users with {input_tokens} + {output_tokens} tokens")
    batch = min(users, capacity(profile, input_tokens=input_tokens, output_tokens=output_tokens))
    prefill_s = profile.prefill_ns(input_tokens) / NS_PER_S
    steps = output_tokens - 1
    in_slot_s = batch * prefill_s + steps * profile.decode_ns(batch) / NS_PER_S
    to_first_s = prefill_s * (batch + 1) / 2
    per_s = batch / in_slot_s
    e2e_s = users / per_s
    return SteadyState(
        requests_per_s=per_s,
        output_tokens_per_s=per_s * output_tokens,
        ttft_mean_s=e2e_s - in_slot_s + to_first_s if steps else e2e_s,
        e2e_mean_s=e2e_s,
        tpot_s=(in_slot_s - to_first_s) / steps if steps else None,
    )
