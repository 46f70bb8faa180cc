"""`loadbench report`."""

from __future__ import annotations

from pathlib import Path

import click

from loadbench.core.errors import BadInput

FORMATS = ("text", "markdown", "csv", "json")
# Those of `report/others.py`, which the help need not import.
TOOLS = ("vllm", "sglang", "guidellm", "aiperf", "llmperf", "loadgen")


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option(
    "--as", "tool", type=click.Choice(TOOLS), help="Set that tool's figures beside ours, and say why they differ."
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write it there instead of to stdout.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of run.json.")
def command(run: Path | None, *, form: str, tool: str | None, out: Path | None, schema: bool) -> None:
    """Show a run again. RUN is its folder, or a run.json."""
    from loadbench.report.formats import render, schema_text  # noqa: PLC0415 - only the command itself needs it
    from loadbench.results.folder import read_run  # noqa: PLC0415

    if tool is not None and form != "text":
        raise BadInput(f"--as {tool}: is told as text, and not as {form}", hint="leave --format out")
    if schema:
        content = schema_text()
    elif run is None:
        raise BadInput("which run?", hint="name a run folder, as in results/20260101T120000Z-sweep")
    elif tool is not None:
        content = _beside(run, tool)
    else:
        content = render(read_run(run), form)
    if out is None:
        # What programs read is UTF-8 whatever the terminal speaks.
        click.echo(content if form == "text" and not schema else content.encode(), nl=False)
        return
    try:
        out.write_text(content, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--out {out}: {error.strerror or error}", hint="name a file that can be written") from None


def _beside(path: Path, tool: str) -> str:
    """The requests lie beside the result."""
    from loadbench.report.beside import beside  # noqa: PLC0415
    from loadbench.results.folder import read_run  # noqa: PLC0415
    from loadbench.results.requests import read_requests  # noqa: PLC0415

    run = read_run(path)
    return beside(run, tool, read_requests((path if path.is_dir() else path.parent) / "requests.jsonl"))
