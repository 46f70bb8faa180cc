"""The command line: options → scenario → check or dry run → session → print → exit code, one file a command.

A command is imported when it is called, so that `loadbench --help` is quick.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import Any

import click

from loadbench import __version__
from loadbench.core.errors import BadInput, ExitCode, LoadbenchError
from loadbench.core.signals import end_as_ctrl_c_does
from loadbench.core.text import printable

# In the order in which the help shows them; each is `command` in the module of its name.
COMMANDS = {
    "sweep": "Measure a server at rising load, level by level.",
    "replay": "Replay a recorded trace at its original times and lengths.",
    "capacity": "Find the highest load at which every objective holds.",
    "report": "Show a saved run again, in any format.",
    "compare": "Compare two servers or two saved runs: which is faster?",
    "models": "List a server's models; on Foundry Local, load and download them.",
    "doctor": "Check the server, its models, a first response and this machine.",
    "workshop": "Run the workshop's benchmark, and write its files.",
    "score": "Rate responses: by people, or by a second model.",
    "select": "Choose a model: speed, quality, size and license in one table.",
    "selfcheck": "Check loadbench's timing error and highest load on this machine.",
    "serve": "Run the simulated server.",
    "scenarios": "List or copy the scenario files that come with loadbench.",
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
        """Run the command. Ctrl-C and a closed pipe get our exit codes; click would exit with 1."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(ExitCode.INTERRUPTED)
        except BrokenPipeError:
            # The reader of our output has gone: exit as well, and do not fail again when stdout is flushed.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(ExitCode.OK)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="loadbench")
def root() -> None:
    """Load tests for language-model servers.

    Begin with `loadbench doctor --url URL`, then `loadbench sweep --url URL`. Without --url, loadbench measures its
    simulated server. `loadbench COMMAND --help` explains a command.

    Exit codes: 0 done, 2 bad command line or scenario, 3 a gate (--fail-on) failed, 4 the measurement is invalid,
    5 inconclusive, 6 the server cannot be reached or lacks the model, 130 interrupted.
    """


def _report(error: LoadbenchError) -> ExitCode:
    click.echo(f"error: {printable(error.message)}", err=True)
    if error.hint:
        click.echo(f"hint: {printable(error.hint)}", err=True)
    return error.exit_code


class _Notices(logging.Handler):
    """Prints what takes its time."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(printable(record.getMessage()), err=True)


def main() -> None:
    """Run the command line and exit with its code. A mistake of the user or the server ends in one clear message."""
    for stream in (sys.stdout, sys.stderr):
        # A stream whose encoding lacks a character, like a Windows pipe, shows `?` for it instead of failing.
        if isinstance(stream, TextIOWrapper):
            with suppress(OSError):
                stream.reconfigure(errors="replace")
    end_as_ctrl_c_does()
    log = logging.getLogger("loadbench")
    log.setLevel(logging.INFO)
    log.handlers = [_Notices()]
    try:
        root(prog_name="loadbench")
    except LoadbenchError as error:
        sys.exit(_report(error))
    except OSError as error:
        # A path that the system refuses as such (too long, say) is the user's; what names no file is our fault.
        if not error.filename:
            raise
        sys.exit(_report(BadInput(f"{error.filename}: {error.strerror}", hint="name another path")))
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                # Nobody reads the stream any more. What is left in it must not fail again when the interpreter exits.
                with suppress(OSError, ValueError):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
