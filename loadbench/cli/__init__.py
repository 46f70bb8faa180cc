"""The command line: options → scenario → check or dry run → session → print → exit code, one file a command.

A command is imported when it is called, so that `loadbench --help` is quick.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from typing import Any

import click

from loadbench import __version__
from loadbench.cli.command import Group
from loadbench.cli.streams import exit_code_after_output, guard_streams, message_lines
from loadbench.core import collector
from loadbench.core.errors import BadInput, ExitCode, LoadbenchError
from loadbench.core.signals import end_as_ctrl_c_does, end_at_once
from loadbench.core.terminal import color_choice

# In the order in which the help shows them; each is `command` in the module of its name.
COMMANDS = {
    "sweep": "Measure a server at rising load, level by level.",
    "replay": "Replay a recorded trace at its original times and lengths.",
    "capacity": "Find the highest load at which every objective holds.",
    "report": "Show a saved run again, in any format.",
    "plot": "Draw a chart of a saved run, as SVG or PNG.",
    "runs": "List, label and delete saved runs; `report last` shows the newest.",
    "compare": "Compare two servers or two saved runs: which is faster?",
    "try": "Send one request, and show on a timeline what happened when.",
    "import": "Open results of vLLM's, SGLang's, guidellm's or aiperf's benchmark.",
    "models": "List a server's models; on Foundry Local, load and download them.",
    "doctor": "Check the server, its models, a first response and this machine.",
    "workshop": "Run the workshop's benchmark, and write its files.",
    "score": "Rate responses: by people, or by a second model.",
    "select": "Choose a model: speed, quality, size and license in one table.",
    "selfcheck": "Check loadbench's timing error and highest load on this machine.",
    "config": "Show the settings of a command, and where each comes from.",
    "explain": "Explain a word: a figure, a verdict, the code of a reason, an outcome.",
    "completion": "Print the script that completes commands and runs in a shell.",
    "serve": "Run the simulated server.",
    "init": "Write a scenario file by asking.",
    "schema": "Print the JSON Schema of a document, or of scenario files.",
    "scenarios": "List or copy the scenario files that come with loadbench.",
}
# Where the name is a word of the language.
_MODULES = {"try": "try_request", "import": "import_results"}

# Of addresses: what Python and the libraries take before anything is measured (120 MB on x86-64), and a little more.
_LEAST_MEMORY = 200_000_000
# In messages of errors that are no `MemoryError`: of threads, and of libraries that are loaded.
_NO_MEMORY = ("can't start new thread", "failed to map segment", "cannot allocate memory", "Cannot allocate memory")


class _LazyGroup(Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = importlib.import_module(f"loadbench.cli.{_MODULES.get(name, name)}").command
        assert isinstance(command, click.Command)  # noqa: S101 - each of our modules has one
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """As click does; its own messages have colours where ours do."""
        return super().make_context(info_name, args, parent, **{"color": color_choice(), **extra})

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Ctrl-C gets our exit code; click would exit with 1."""
        if not {"-h", "--help"} & {*sys.argv}:
            _refuse_too_little_memory()
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(ExitCode.INTERRUPTED)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


# The documents have the same of every code.
_HELP = f"""Load tests for language-model servers.

Begin with `doctor`, then `sweep`. Without --url, loadbench measures its simulated server. `loadbench COMMAND --help`
explains a command.

Exit codes: {", ".join(f"{code.value} {code.meaning}" for code in ExitCode)}.
"""


@click.group(
    cls=_LazyGroup,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples=(
        "loadbench doctor --url http://127.0.0.1:8080/v1",
        "loadbench sweep --url http://127.0.0.1:8080/v1 --users 1,2,4,8",
        "loadbench capacity --url http://127.0.0.1:8080/v1 --slo 'ttft_p95<1s'",
        "loadbench sweep --users 1,2 --requests 20   # the simulated server",
    ),
)
@click.version_option(__version__, prog_name="loadbench")
def root() -> None:
    """The command line."""


def _refuse_too_little_memory() -> None:
    """Raise `BadInput` for a limit under which the libraries cannot be loaded: some end the process, without a word."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - not on Windows

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return
        # They would reserve 32 MB of addresses for each core, and loadbench solves no equations.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        if limit < _LEAST_MEMORY:
            allowed, least = limit >> 20, _LEAST_MEMORY >> 20
            hint = f"raise the limit: ulimit -v {_LEAST_MEMORY // 1024}"
            raise BadInput(f"this process may have {allowed} MiB of memory, and loadbench needs {least} MiB", hint=hint)


def _report(error: LoadbenchError) -> ExitCode:
    lines = message_lines(f"error: {error.message}")
    click.echo(click.style("error:", fg="red") + lines.removeprefix("error:"), err=True, color=color_choice())
    if error.hint:
        click.echo(message_lines(f"hint: {error.hint}"), err=True)
    return error.exit_code


def _of_this_machine(error: BaseException) -> LoadbenchError | None:
    """What this machine or its limits did not allow, for the user; `None` for an error of loadbench."""
    try:
        from loadbench.client.faults import causes, explain, is_shortage  # noqa: PLC0415 - the help needs nothing of it
    except (OSError, MemoryError, ImportError) as other:
        # Not even this can be loaded any more.
        hint = "raise the limits of this process (ulimit -a), or reduce the load"
        return LoadbenchError(
            f"{str(error) or type(error).__name__}, and then {str(other) or 'out of memory'}", hint=hint
        )
    kept = "what was measured until then is kept"
    for cause in causes(error):
        if isinstance(cause, MemoryError) or any(words in str(cause) for words in _NO_MEMORY):
            return LoadbenchError("out of memory", hint=f"{kept}; reduce the load, or raise the limit (ulimit -v)")
        if isinstance(cause, FileNotFoundError) and "temporary directory" in str(cause):
            return LoadbenchError("no temporary file can be made", hint="free some space, or set TMPDIR")
        if isinstance(cause, OSError) and is_shortage(cause):
            reason, hint = explain(cause)
            return LoadbenchError(reason, hint=f"{kept}; {hint}" if hint else kept)
        if isinstance(cause, OSError) and cause.filename:
            # A path that the system refuses as such (too long, say) is the user's; what names no file is our fault.
            return BadInput(f"{cause.filename}: {cause.strerror}", hint="name another path")
    return None


class _Notices(logging.Handler):
    """Prints what takes its time."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(message_lines(record.getMessage()), err=True)


def main() -> None:
    """Run the command line and exit with its code. A mistake of the user or the server ends in one clear message."""
    collector.before_imports()
    guard_streams()
    end_as_ctrl_c_does()
    log = logging.getLogger("loadbench")
    log.setLevel(logging.INFO)
    log.handlers = [_Notices()]
    code: str | int | None = ExitCode.OK
    if os.environ.get("_LOADBENCH_COMPLETE", "").startswith("bash"):
        from click.shell_completion import add_completion_class  # noqa: PLC0415 - only a shell asks

        from loadbench.cli.complete import Bash  # noqa: PLC0415 - likewise

        add_completion_class(Bash)
    try:
        root(prog_name="loadbench")
    except SystemExit as end:
        code = end.code
    except LoadbenchError as error:
        code = _report(error)
    except (MemoryError, OSError, RuntimeError, ImportError, BaseExceptionGroup) as error:
        told = _of_this_machine(error)
        if told is None:
            raise
        code = _report(told)
    try:
        code = exit_code_after_output(code) if isinstance(code, int) else code
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    end_at_once(code if isinstance(code, int) else 1)
    sys.exit(code)
