"""`loadbench replay`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from loadbench.cli.options import ScenarioCommand, given, scenario_options

# What a trace decides: no flags for it.
_DECIDED = (
    *("users", "rate", "arrivals", "pattern", "trace", "think", "requests", "ramp", "prompt", "prompts"),
    *("input_tokens", "output_tokens", "max_tokens", "persona", "mix", "turns", "deterministic"),
)


@click.command(cls=ScenarioCommand)
@click.argument("file", metavar="TRACE", type=click.Path(path_type=Path))
@scenario_options(without=_DECIDED)
@click.option("--json", "as_json", is_flag=True, help="Print run.json on stdout, and nothing else there.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--no-live", is_flag=True, help="Progress in plain lines, also on a terminal.")
@click.option("--dry-run", is_flag=True, help="Show what is in the trace, the settings and the time; send nothing.")
def command(file: Path, *, as_json: bool, quiet: bool, no_live: bool, dry_run: bool, **options: Any) -> None:
    """Ask again what was asked once: at the offsets of a trace, with its lengths of prompts and answers.

    TRACE is a CSV of Azure's (TIMESTAMP,ContextTokens,GeneratedTokens) or BurstGPT's, JSON lines of Mooncake's
    (timestamp, input_length, output_length, hash_ids), or a run of loadbench's own: its folder, or its requests.jsonl.
    """
    from loadbench.plan.sources import resolve  # noqa: PLC0415 - only the command itself needs it

    resolved = resolve(flags={**given(options), "trace": str(file)}, environment=os.environ, default_name="replay")
    if dry_run:
        from loadbench.report.plan import plan_text  # noqa: PLC0415

        click.echo(plan_text(resolved), nl=False)
        return
    from loadbench.session.setup import run_sweep  # noqa: PLC0415

    sys.exit(run_sweep(resolved, environment=os.environ, as_json=as_json, quiet=quiet, live=not no_live))
