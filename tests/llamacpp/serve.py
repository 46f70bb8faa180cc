"""llama.cpp's own C++ server, as it is compiled into the `xllamacpp` wheel, in a process of its own.

    python -m tests.llamacpp.serve MODEL --port 0 --parallel 4 --threads 1 --alias tiny --ctx 8192

Prints one line, `READY http://127.0.0.1:PORT`, once the model is loaded. Ends on SIGTERM, on SIGINT, and when its
standard input ends: a test that dies takes its server with it. (So give it an open stdin: `</dev/null` ends it at
once.)

Every request pays for its whole prompt: the prompt cache is off, in the slots and in memory, unless `--cache 1`.
`--ctx` is the sum over all slots; each request may use `ctx / parallel` tokens. `--threads 1` is right on a shared
machine: with more threads than free cores, the spinning barriers between them cost far more than they gain.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until told to stop."""
    import xllamacpp  # noqa: PLC0415 (one platform's wheel)

    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    server = xllamacpp.Server(_parameters(_options(arguments)))
    sys.stdout.write(f"READY {server.listening_address}\n")
    sys.stdout.flush()
    while os.read(sys.stdin.fileno(), 4096):
        pass
    _leave()


def _leave(*_signal: object) -> None:
    # No orderly goodbye: joining the server's threads would wait for answers that nobody will read.
    os._exit(0)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve a GGUF model on 127.0.0.1 with llama.cpp.")
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--parallel", type=int, default=4, help="slots: requests that are answered together")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--alias", default="tiny", help="the model's name on the wire")
    parser.add_argument("--ctx", type=int, default=8192, help="tokens of context over all slots")
    parser.add_argument("--http-threads", type=int, default=0, help="0 leaves it to llama.cpp")
    parser.add_argument("--cache", type=int, default=0, help="1 keeps each slot's prompt for the next of its kind")
    parser.add_argument("--api-key", default="", help="demand this key")
    return parser.parse_args(arguments)


def _parameters(options: argparse.Namespace) -> object:
    import xllamacpp  # noqa: PLC0415

    wanted = xllamacpp.CommonParams()
    wanted.model.path = options.model
    wanted.model_alias = {options.alias}
    wanted.hostnames = ["127.0.0.1"]
    wanted.port = options.port
    wanted.n_parallel = options.parallel
    wanted.n_ctx = options.ctx
    wanted.cpuparams.n_threads = wanted.cpuparams_batch.n_threads = options.threads
    if options.http_threads:
        wanted.n_threads_http = options.http_threads
    if options.api_key:
        wanted.api_keys = [options.api_key]
    wanted.cont_batching = True
    wanted.cache_prompt = bool(options.cache)
    wanted.cache_ram_mib = 0
    wanted.slot_prompt_similarity = 0.1 if options.cache else 0.0
    wanted.endpoint_metrics = wanted.endpoint_slots = wanted.endpoint_props = True
    wanted.ui = wanted.warmup = wanted.fit_params = False
    return wanted


if __name__ == "__main__":
    main()
