"""The simulated server in the foreground: `loadbench serve`."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import anyio

from loadbench.core.signals import ending_signals
from loadbench.plan.sim_profile import PROFILES, profile_named
from loadbench.sim.process import from_outside, say_ready
from loadbench.sim.server import serve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from loadbench.plan.sim_profile import Profile


def profiles_text() -> str:
    """Each profile with its description."""
    width = max(map(len, PROFILES))
    return "".join(f"{name:{width}}  {profile.description}\n" for name, profile in PROFILES.items())


def serve_until_signal(profile: str, *, host: str, port: int, seed: int, models: Sequence[str]) -> None:
    """Serve until Ctrl-C or SIGTERM; raises `BadInput` for an unknown profile or an address it cannot listen on."""
    anyio.run(_serve, profile_named(profile), host, port, seed, models)


async def _serve(profile: Profile, host: str, port: int, seed: int, models: Sequence[str]) -> None:
    stop = anyio.Event()
    for number in ending_signals():
        signal.signal(number, from_outside(stop.set))
    await serve(profile, host=host, port=port, seed=seed, models=models, on_ready=say_ready, stop=stop)
