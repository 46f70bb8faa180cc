"""`loadbench replay`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from loadbench.cli.measuring import resume_option, run_options, settings_of_resumed
from loadbench.cli.options import ScenarioCommand, setting_flags, setting_options
from loadbench.cli.sweep import measure


@click.command(cls=ScenarioCommand)
@click.argument("file", metavar="TRACE", required=False, type=click.Path(path_type=Path))
@setting_options("replay")
@resume_option
@run_options(json="run.json", dry_run="Show what is in the trace, the settings and the time.")
def command(file: Path | None, **options: Any) -> None:
    """Replay a recorded trace at its original times and lengths.

    TRACE is CSV or JSON lines, also compressed with gzip, in the format of Azure
    (TIMESTAMP,ContextTokens,GeneratedTokens), of BurstGPT (Timestamp,Request tokens,Response tokens), or of Mooncake,
    Qwen-Bailian, guidellm or aiperf (timestamp,input_length,output_length,hash_ids); or a saved run of loadbench: its
    folder or its requests.jsonl. With --resume, the trace of that run is used.
    """
    from loadbench.plan.sources import resolve  # noqa: PLC0415 - the help needs nothing of it

    flags = setting_flags("replay", options)
    if file is not None:
        flags["trace"] = str(file)
    elif options["resume"] is None:
        raise click.UsageError("Missing argument 'TRACE'.")
    before = settings_of_resumed(options["resume"], "sweep", file=None)
    measure(resolve(flags=flags, environment=os.environ, command="replay", **before), **options)
