"""`loadbench try`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.measuring import look, say, terminal_width
from loadbench.cli.options import ScenarioCommand, scenario_argument, setting_flags, setting_options
from loadbench.core.errors import BadInput, ExitCode
from loadbench.plan.settings import settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from loadbench.plan.settings import Setting

# Of a sweep's settings, those without effect on a single request.
_IDLE = frozenset({"target.yes_load", "target.time_loads", "limits.failures", "work.deterministic", "work.turns"})


def _shapes_request(setting: Setting) -> bool:
    return setting.section in {"target", "work", "limits"} and setting.key not in _IDLE


class _TryCommand(ScenarioCommand):
    """Says of a sweep's other flags that one request has none."""

    def refusal(self, error: click.UsageError, ctx: click.Context, written: Sequence[str]) -> BadInput:
        if isinstance(error, click.NoSuchOption) and any(error.option_name in one.flags for one in settings("sweep")):
            hint = "leave it out, or use `loadbench sweep`"
            return BadInput(f"{error.option_name}: has no effect on a single request", hint=hint)
        return super().refusal(error, ctx, written)


@click.command(
    cls=_TryCommand,
    reads=True,
    examples=(
        "loadbench try --url http://127.0.0.1:8080/v1 --model large",
        "loadbench try --url http://127.0.0.1:8080/v1 --model large --prompt 'Explain caching.' --show-text",
        "loadbench try --max-tokens 16   # the simulated server",
    ),
)
@scenario_argument
@setting_options("sweep", only=_shapes_request)
@click.option("--show-text", is_flag=True, help="Show the text of the response.")
@click.option("--json", "as_json", is_flag=True, help="Print marks, figures, request and response as JSON on stdout.")
def command(scenario: Path | None, *, show_text: bool, as_json: bool, **options: Any) -> None:
    """Send one request and show its marks on a timeline: connecting, sent, headers, first token, gaps, last token.

    It is sent as a sweep with the same settings would send its first one; SCENARIO is a TOML or JSON file. Values of
    headers that you give, and of cookies, are not shown. Exits with 6 if there is no complete response.
    """
    # ruff: noqa: PLC0415 - the help needs nothing of what is imported in functions
    import orjson

    from loadbench.core import event_loop
    from loadbench.core.text import printable_json
    from loadbench.plan.sources import resolve
    from loadbench.record.outcome import Outcome
    from loadbench.report.one_request import one_request_document, one_request_json
    from loadbench.report.render_text import render_text
    from loadbench.session.one_request import send_one
    from loadbench.session.setup import check
    from loadbench.targets.error_hints import advice_for

    resolved = resolve(flags=setting_flags("sweep", options), environment=os.environ, file=scenario)
    check(resolved, os.environ)
    trial = event_loop.run(lambda: send_one(resolved, os.environ, keep_text=show_text, say=say))
    if as_json:
        click.echo(printable_json(orjson.dumps(one_request_json(trial), option=orjson.OPT_INDENT_2)))
    else:
        click.echo(
            render_text(one_request_document(trial, show_text=show_text, width=terminal_width()), **look()), nl=False
        )
    if trial.sample.outcome is not Outcome.OK:
        hint = advice_for(trial.sample.detail)
        if hint:
            say(f"hint: {hint}")
        sys.exit(ExitCode.TARGET_UNAVAILABLE)
