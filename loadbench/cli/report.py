"""`loadbench report`."""

from __future__ import annotations

from pathlib import Path

import click

from loadbench.core.errors import BadInput

FORMATS = ("text", "markdown", "csv", "json")


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write it there instead of to stdout.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of run.json.")
def command(run: Path | None, *, form: str, out: Path | None, schema: bool) -> None:
    """Show a run again. RUN is its folder, or a run.json."""
    from loadbench.report.formats import render, schema_text  # noqa: PLC0415 - only the command itself needs it
    from loadbench.results.folder import read_run  # noqa: PLC0415

    if schema:
        content = schema_text()
    elif run is None:
        raise BadInput("which run?", hint="name a run folder, as in results/20260101T120000Z-sweep")
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
