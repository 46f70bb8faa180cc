"""`loadbench replay`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.measuring import report_option, resume_option, run_options, settings_of_resumed
from loadbench.cli.options import ScenarioCommand, setting_flags, setting_options
from loadbench.cli.run_names import RUN_OR_FILE
from loadbench.cli.sweep import measure
from loadbench.core.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path


@click.command(
    cls=ScenarioCommand,
    examples=(
        "loadbench scenarios copy replay",
        "loadbench replay scenarios/azure.csv --url http://127.0.0.1:8080/v1",
        "loadbench replay scenarios/azure.csv --url http://127.0.0.1:8080/v1 --time-scale 2 --limit 100",
    ),
)
@click.argument("file", metavar="TRACE", required=False, type=RUN_OR_FILE)
@setting_options("replay")
@resume_option
@report_option
@run_options(json="run.json", dry_run="Show what is in the trace, the settings and the time.")
def command(file: Path | None, **options: Any) -> None:
    """Replay a recorded trace at its original times and lengths.

    TRACE is CSV or JSON lines, also compressed with gzip, in the format of Azure
    (TIMESTAMP,ContextTokens,GeneratedTokens), of BurstGPT (Timestamp,Request tokens,Response tokens), or of Mooncake,
    Qwen-Bailian, guidellm or aiperf (timestamp,input_length,output_length,hash_ids); or a saved run of loadbench: its
    folder, its requests.jsonl, `last`, or its name. With --resume, the trace of that run is used.
    """
    from loadbench.plan.sources import resolve  # noqa: PLC0415 - the help needs nothing of it

    flags = setting_flags("replay", options)
    if file is not None:
        flags["trace"] = str(file)
    elif options["resume"] is None:
        raise BadInput("TRACE: is missing", hint="name a trace file or a saved run, as in loadbench replay azure.csv")
    before = settings_of_resumed(options["resume"], "sweep", file=None)
    measure(resolve(flags=flags, environment=os.environ, command="replay", **before), **options)
