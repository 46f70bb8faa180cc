"""`loadbench report`."""

from __future__ import annotations

from pathlib import Path

import click

from loadbench.core.errors import BadInput

FORMATS = ("text", "markdown", "csv", "junit", "json")
# Those of `report/other_tools.py`, which the help need not import.
TOOLS = ("vllm", "sglang", "guidellm", "aiperf", "llmperf", "loadgen")


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True)
@click.option(
    "--as", "tool", type=click.Choice(TOOLS), help="Set that tool's figures beside ours, and say why they differ."
)
@click.option("--by-prompt", is_flag=True, help="Show each given prompt's own figures, and what stands out.")
@click.option("--by-user", is_flag=True, help="Show whether the users of each closed level were served alike.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write it there instead of to stdout.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of run.json.")
def command(
    run: Path | None, *, form: str, tool: str | None, by_prompt: bool, by_user: bool, out: Path | None, schema: bool
) -> None:
    """Show a run again. RUN is its folder, or a run.json."""
    from loadbench.report.formats import render, schema_text  # noqa: PLC0415 - only the command itself needs it
    from loadbench.results.folder import read_run  # noqa: PLC0415
    from loadbench.results.quality import read_quality  # noqa: PLC0415

    if by_prompt and (tool is not None or form != "text"):
        raise BadInput("--by-prompt: is told as text, by itself", hint="leave --format and --as out")
    if by_user and (tool is not None or by_prompt or form != "text"):
        raise BadInput("--by-user: is told as text, by itself", hint="leave --format, --by-prompt and --as out")
    if tool is not None and form != "text":
        raise BadInput(f"--as {tool}: is told as text, and not as {form}", hint="leave --format out")
    if schema:
        content = schema_text()
    elif run is None:
        raise BadInput("which run?", hint="name a run folder, as in results/20260101T120000Z-sweep")
    elif tool is not None:
        content = _beside(run, tool)
    elif by_prompt:
        content = _by_prompt(run)
    elif by_user:
        content = _by_user(run)
    else:
        folder = run if run.is_dir() else run.parent
        content = _answer(folder, form) + render(read_run(run), form, quality=read_quality(folder))
    if out is None:
        # What programs read is UTF-8 whatever the terminal speaks.
        click.echo(content if form == "text" and not schema else content.encode(), nl=False)
        return
    try:
        out.write_text(content, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--out {out}: {error.strerror or error}", hint="name a file that can be written") from None


def _answer(folder: Path, form: str) -> str:
    """What a capacity search has found, before its levels; empty for other runs, and for programs."""
    from loadbench.report.capacity import capacity_markdown, capacity_text  # noqa: PLC0415
    from loadbench.results.capacity import FILE, read_capacity  # noqa: PLC0415

    shown = {"text": capacity_text, "markdown": capacity_markdown}.get(form)
    return "" if shown is None or not (folder / FILE).is_file() else shown(read_capacity(folder)) + "\n"


def _beside(path: Path, tool: str) -> str:
    """The requests lie beside the result."""
    from loadbench.report.render_text import render_text  # noqa: PLC0415
    from loadbench.report.tool_comparison import tool_comparison_document  # noqa: PLC0415
    from loadbench.results.folder import read_run  # noqa: PLC0415
    from loadbench.results.requests import read_requests  # noqa: PLC0415

    run = read_run(path)
    requests = read_requests((path if path.is_dir() else path.parent) / "requests.jsonl")
    return render_text(tool_comparison_document(run, tool, requests))


def _by_prompt(path: Path) -> str:
    from loadbench.analyze.level.by_prompt import by_prompt  # noqa: PLC0415
    from loadbench.report.by_prompt import by_prompt_document  # noqa: PLC0415
    from loadbench.report.render_text import render_text  # noqa: PLC0415
    from loadbench.results.folder import read_run  # noqa: PLC0415
    from loadbench.results.requests import read_requests  # noqa: PLC0415

    folder = path if path.is_dir() else path.parent
    return render_text(by_prompt_document(read_run(path), by_prompt(read_requests(folder / "requests.jsonl"))))


def _by_user(path: Path) -> str:
    from loadbench.analyze.level.fairness import fairness  # noqa: PLC0415
    from loadbench.report.by_user import by_user_document  # noqa: PLC0415
    from loadbench.report.render_text import render_text  # noqa: PLC0415
    from loadbench.results.folder import read_run  # noqa: PLC0415
    from loadbench.results.requests import read_requests  # noqa: PLC0415

    folder = path if path.is_dir() else path.parent
    return render_text(by_user_document(read_run(path), fairness(read_requests(folder / "requests.jsonl"))))
