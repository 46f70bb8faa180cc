"""The command line. Commands are imported when they are called: `--help` needs none of what they need."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

import click

from loadbench import __version__
from loadbench.core.errors import ExitCode, LoadbenchError
from loadbench.core.text import printable

# In the order in which the help shows them; each lives in the module of its name.
COMMANDS = {
    "sweep": "Measure a server at rising load, level by level.",
    "replay": "Ask again what a trace asked: at its offsets, with its lengths.",
    "capacity": "Search for the highest load at which every objective holds.",
    "report": "Show a run again: as text, Markdown, CSV or JSON.",
    "compare": "Compare two servers, or two saved runs: which is faster, and from how many users on.",
    "models": "Show a server's models; load, unload and download them where it is Foundry Local.",
    "doctor": "Check the endpoint, its models, a first answer, and this machine.",
    "workshop": "Run the workshop's benchmark: models, prompts and rounds, its own files.",
    "score": "Rate answers: by people, by a second model, by what prompts expect.",
    "select": "Choose a model: speed, quality, size and licence in one table.",
    "selfcheck": "Measure this machine's own stamp error and ceiling.",
    "serve": "Run the simulated server.",
    "scenarios": "List the scenario files and examples that come with loadbench, or copy them.",
}


class _LazyGroup(click.Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = importlib.import_module(f"loadbench.cli.{name}").command
        assert isinstance(command, click.Command)  # noqa: S101 - each of our modules has one
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Click would end Ctrl-C and a reader who has left with 1: both have codes of their own."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(ExitCode.INTERRUPTED)
        except BrokenPipeError:
            # Whoever read our output has left; leave too, without a second fault when stdout is flushed at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(ExitCode.OK)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="loadbench")
def root() -> None:
    """Load tests for language-model servers, with honest numbers.

    Exit codes: 0 done, 2 bad command line or scenario, 3 a gate failed, 4 the measurement is invalid, 5 inconclusive,
    6 the server cannot be reached or lacks the model, 130 interrupted.
    """


def main() -> None:
    """Run the command line and leave with its exit code. A user's or a server's fault ends in one clear message."""
    for stream in (sys.stdout, sys.stderr):
        _show_what_it_can(stream)
    try:
        root(prog_name="loadbench")
    except LoadbenchError as error:
        click.echo(f"error: {printable(error.message)}", err=True)
        if error.hint:
            click.echo(f"hint: {printable(error.hint)}", err=True)
        sys.exit(error.exit_code)
    finally:
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)


def _flush(stream: TextIO) -> None:
    """Where nobody reads any more, what is left goes nowhere; else the interpreter would end with a code of its own."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _show_what_it_can(stream: TextIO) -> None:
    """A stream whose encoding lacks a character, as on a Windows pipe, shows `?` for it instead of failing."""
    with suppress(AttributeError, OSError):
        stream.reconfigure(errors="replace")  # type: ignore[attr-defined, unused-ignore]
