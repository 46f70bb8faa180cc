"""`loadbench schema`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from loadbench.cli.command import Command
from loadbench.cli.measuring import print_report, write_file

# Those of `session/schemas.py`, which the help need not import.
NAMES = (
    *("run", "capacity", "capacities", "compare", "compare-capacity", "grid", "baseline", "annotation", "quality"),
    *("selfcheck", "models", "doctor", "scenario"),
)


@click.command(
    cls=Command,
    examples=("loadbench schema", "loadbench schema compare", "loadbench schema scenario --out scenario.schema.json"),
)
@click.argument("name", type=click.Choice(NAMES), default="run")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write to this file instead of stdout.")
def command(*, name: str, out: Path | None) -> None:
    """Print the JSON Schema of a document that loadbench writes, or of scenario files.

    NAME is what --json of a command prints (run, capacity, compare, grid, selfcheck, models, doctor), a file (baseline,
    annotation, quality, capacities for several models, compare-capacity for two sides), or scenario. Default: run. An
    editor with this schema completes the keys of a scenario and explains them.
    """
    from loadbench.session.schemas import document_schema, scenario_schema  # noqa: PLC0415 - not for the help

    schema = scenario_schema() if name == "scenario" else document_schema(name)
    content = json.dumps(schema, indent=2) + "\n"
    if out is not None:
        sys.exit(write_file("--out", out, content))
    print_report(content, "json")
