"""One machine, one model, two devices: serve it on the CPU and on the GPU, and compare them with loadbench.

    python -m tests.gpu OUT                                the GPU against the CPU
    python -m tests.gpu OUT --shape tiny --device cpu      the same commands where there is no GPU: twice the CPU

Needs torch and transformers. loadbench starts the servers (`--a-cmd`, `--b-cmd`), one at a time, and restarts them
between its turns. Writes run folders and what each command printed into OUT. Two cores are left to the load generator.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from tests.gpu.serving import ROOT, started


def main() -> None:
    """Compare, sweep the second, and check it with doctor."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description="Compare a GPU with the CPU.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"), help="of the second server")
    parser.add_argument("--shape", default="325m", help="of the model, as tests.gpu.serve has them")
    parser.add_argument("--dtype", default="bfloat16", help="of both")
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 1) - 2), help="of the CPU server")
    parser.add_argument("--users", default="1,4")
    parser.add_argument("--duration", default="5s", help="of a level")
    parser.add_argument("--warm-up", default="6s", help="as long as a response takes on the slower side, or longer")
    parser.add_argument("--repeats", default="3")
    parser.add_argument("--sweep-users", default="1,4,16")
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)

    common = ["--shape", options.shape, "--dtype", options.dtype]
    on_gpu = ["--device", options.device, *common]
    serve = [sys.executable, "-m", "tests.gpu.serve", "--port", "{port}"]
    cpu = shlex.join([*serve, "--device", "cpu", "--threads", str(options.threads), *common])
    gpu = shlex.join([*serve, *on_gpu])
    work = ("--input-tokens", "64", "--max-tokens", "32", "--exact-output")
    timing = ("--duration", options.duration, "--warm-up", options.warm_up)
    sampled = ("--telemetry-interval", "200ms", "--out", str(out))
    sides = ("--a-cmd", cpu, "--b-cmd", gpu, "--users", options.users, "--repeats", options.repeats)
    swept = ("--server-cmd", gpu, "--users", options.sweep_users)
    failed = [
        loadbench(out, "compare", *sides, *work, *timing, *sampled, "--name", "cpu-against-gpu"),
        loadbench(out, "sweep", *swept, *work, *timing, *sampled, "--name", "gpu"),
    ]
    with started("tests.gpu.serve", *on_gpu, log=out / "gpu.log") as (_, url):
        failed.append(loadbench(out, "doctor", "--url", url))
    sys.exit(max(failed))


def loadbench(out: Path, command: str, *options: str) -> int:
    """Run a command, keep what it printed, and say how long it took."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "loadbench", command, *options],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    line = f"$ loadbench {command} {' '.join(options)}\n"
    (out / f"{command}.txt").write_text(line + done.stdout, encoding="utf-8")
    print(f"{line}{done.stdout}\n{command}: exit {done.returncode} after {time.monotonic() - began:.0f} s", flush=True)  # noqa: T201
    return done.returncode


if __name__ == "__main__":
    main()
