"""The simulated server as a process: `python -m loadbench.sim --profile slot-server --port 0`.

Prints one line, `READY http://127.0.0.1:PORT`, when it serves. Ends on SIGTERM, on SIGINT, and when its standard input
ends, so that must be open (`</dev/null` ends it at once). On the command line, use `loadbench serve` instead.
"""

from __future__ import annotations

import argparse
import gc
import sys
from typing import TYPE_CHECKING

import anyio

from loadbench.core.children import end_with_parent
from loadbench.core.errors import LoadbenchError
from loadbench.plan.sim_profile import DEFAULT_PROFILE, PROFILES
from loadbench.sim.process import from_outside, say_ready
from loadbench.sim.server import serve

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal or the end of standard input; returns the exit code."""
    options = _options(arguments)
    # These objects live until the end: the garbage collector need not visit them between two tokens.
    gc.collect()
    gc.freeze()
    try:
        anyio.run(_serve, options)
    except LoadbenchError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m loadbench.sim", description="The simulated inference server.")
    parser.add_argument("--profile", choices=PROFILES, default=DEFAULT_PROFILE, help="what kind of server it is")
    parser.add_argument("--seed", type=int, default=0, help="seed of its noise and its words")
    parser.add_argument("--speed", type=float, default=1.0, help="divides all its times by this")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--model", action="append", default=[], help="model name to serve; repeatable")
    return parser.parse_args(arguments)


async def _serve(options: argparse.Namespace) -> None:
    stop = anyio.Event()
    end_with_parent(from_outside(stop.set))
    await serve(
        PROFILES[options.profile].faster(options.speed),
        host=options.host,
        port=options.port,
        seed=options.seed,
        models=options.model,
        on_ready=say_ready,
        stop=stop,
    )


if __name__ == "__main__":
    sys.exit(main())
