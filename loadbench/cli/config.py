"""`loadbench config`."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.command import Command
from loadbench.cli.measuring import print_document, refuse_wide, wide_option
from loadbench.cli.options import setting_flags

if TYPE_CHECKING:
    from loadbench.plan.scenario import Scenario

# The commands whose settings are shown, and the module of each; `try` takes those of `sweep`.
_COMMANDS = {
    **{name: name for name in ("sweep", "replay", "capacity", "compare", "workshop", "doctor", "models")},
    "try": "sweep",
}


@click.command(
    cls=Command,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    examples=(
        "loadbench config",
        "loadbench config sweep --url http://127.0.0.1:8080/v1 --users 1,4",
        "loadbench config capacity --all --slo 'ttft_p95<1s'",
    ),
)
@click.option("--all", "every", is_flag=True, help="Show every setting, with its flag and variable.")
@wide_option
@click.option("--json", "as_json", is_flag=True, help="Print every setting as JSON on stdout.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[COMMAND] [SCENARIO] [FLAGS]...")
def command(words: tuple[str, ...], *, every: bool, as_json: bool, wide: bool) -> None:
    """Show the settings that a command would have, and where each comes from: flag, variable, file, or default.

    What follows is a command line as you would type it, without `loadbench`; without COMMAND it is that of `sweep`. By
    default only what differs from the defaults is shown. Nothing is sent, and secrets are not shown.
    """
    # ruff: noqa: PLC0415 - the help needs nothing of what is imported in functions
    from loadbench.report.config import config_document, config_json

    # Wherever they stand: nobody writes them for the command that is shown.
    every, as_json, wide = every or "--all" in words, as_json or "--json" in words, wide or "--wide" in words
    words = tuple(word for word in words if word not in {"--all", "--json", "--wide"})
    refuse_wide("JSON" if as_json else "text", wide=wide)
    named = words[0] if words and words[0] in _COMMANDS else "sweep"
    scenario = _scenario(named, list(words[1:] if words and words[0] in _COMMANDS else words))
    if as_json:
        import orjson

        from loadbench.core.text import printable_json

        click.echo(printable_json(orjson.dumps(config_json(scenario, named), option=orjson.OPT_INDENT_2)))
        return
    document = config_document(scenario, named, every=every, environment=os.environ)
    print_document(document, wide=wide)


def _scenario(named: str, arguments: list[str]) -> Scenario:
    """The scenario of a command line; raises `BadInput` for what that command refuses."""
    from loadbench.plan.sources import resolve

    name = _COMMANDS[named]
    module = importlib.import_module(f"loadbench.cli.{'try_request' if named == 'try' else name}")
    with module.command.make_context(f"loadbench {named}", arguments) as ctx:
        given: dict[str, Any] = dict(ctx.params)
    flags = setting_flags(name, given)
    if name == "replay" and given.get("file") is not None:
        flags["trace"] = str(given["file"])
    file = None if name == "replay" else given.get("scenario")
    return resolve(flags=flags, environment=os.environ, file=file, command=name)
