"""Flags made from the declared settings: each setting of a scenario file has a flag of the commands that take it."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from loadbench.cli.command import Command
from loadbench.core.errors import BadInput
from loadbench.plan import gate, objective
from loadbench.plan.settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from click.shell_completion import CompletionItem

    from loadbench.plan.settings import Setting

# The headings of the help in their order, each with the sections, or single settings, that stand under it.
_HEADINGS = {
    "Server": "target",
    "Request": "target.api target.header target.header_env target.extra_body target.max_tokens_field "
    "target.strict_request work.system work.max_tokens work.output_tokens work.exact_output work.temperature work.seed",
    "Load": "load",
    "Data": "work",
    "Limits": "limits",
    "Objectives": "slo",
    "Search": "capacity",
    "Comparison": "compare",
    "Grid": "grid",
    "Workshop": "workshop",
    "Judge": "judge",
    "Telemetry": "telemetry",
    "Cost": "cost",
    "Output": "report",
}
_HEADING_OF = {key: heading for heading, keys in _HEADINGS.items() for key in keys.split()}
# Metavars that the help explains, below the options.
_VALUES = {
    "TIME": "A number and its unit: 250ms, 30s, 2m, 1h.",
    "DIST": "N | uniform:MIN,MAX | normal:MEAN,SD | lognormal:MEAN,SIGMA (of the logarithm) | exponential:MEAN",
    "RULE": f"As in ttft_p95<1s: a latency ({', '.join(objective.LATENCIES)}; docs/metrics.md defines them) with "
    f"{', '.join(objective.POINTS)}; or "
    f"{', '.join((objective.FAILURES, *objective.RATES))}. With @users=8 or @rate=0.5: at this level only.",
    "CHANGE": f"As in ttft_p95>5%: a latency ({', '.join(gate.FIGURES)}) with {', '.join(gate.POINTS)}; or "
    f"{', '.join((objective.FAILURES, *objective.RATES, gate.ENERGY, gate.COST))}. With @users=8: at this level only.",
}


class SettingOption(click.Option):
    """The flag of one setting, for one command."""

    def __init__(self, names: Sequence[str], *, setting: Setting, command: str, **attributes: Any) -> None:
        self.setting = setting
        self.command = command
        super().__init__(names, **attributes)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What completes a value."""
        from loadbench.cli.complete import setting_values  # noqa: PLC0415 - only a shell asks

        return setting_values(ctx, self.setting.key, self.setting.type.metavar, incomplete)

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The flag and what it does. Its aliases have a heading of their own."""
        shown = copy(self)
        shown.opts = [name for name in self.opts if name not in self.setting.aliases]
        return click.Option.get_help_record(shown, ctx)


class ScenarioCommand(Command):
    """A command with flags of settings, which says why it does not take another's flag."""

    @property
    def _setting_options(self) -> list[SettingOption]:
        return [param for param in self.params if isinstance(param, SettingOption)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; raises `BadInput` for what cannot be read, for the flag of a setting that this command does
        not take, and for a flag that is given twice, or under two names, where the last would win.
        """
        written = list(args)
        rest = super().parse_args(ctx, args)
        if ctx.resilient_parsing:  # a shell asks for what completes it
            return rest
        names = {arg.partition("=")[0] for arg in written}
        given = [param for param in self.make_parser(ctx).parse_args(written)[2] if isinstance(param, click.Option)]
        for option in [option for option in given if given.count(option) > 1 and not option.multiple]:
            flags = [flag for flag in (*option.opts, *option.secondary_opts) if flag in names]
            if len(flags) > 1:
                raise BadInput(f"{' and '.join(flags)} are the same setting", hint="give one of them")
            if not option.is_flag:
                raise BadInput(f"{flags[0]} is given twice", hint="give it once")
        return rest

    def refusal(self, error: click.UsageError, ctx: click.Context, written: Sequence[str]) -> BadInput:
        """As every command's; of another command's setting, why this one does not take it."""
        options = self._setting_options
        if isinstance(error, click.NoSuchOption) and options:
            named = next((setting for setting in settings() if error.option_name in setting.flags), None)
            if named is not None:
                return BadInput(f"{error.option_name}: {named.why_not(options[0].command)}", hint="leave it out")
        return super().refusal(error, ctx, written)

    def records(self, ctx: click.Context) -> dict[str, list[tuple[str, str]]]:
        """The options by heading, those of the command's own section first; then what the words for values mean, and
        other names of options."""
        shown, rest = self._setting_options, super().records(ctx)
        own = [option for option in shown if option.setting.section == option.command]
        found: dict[str, list[tuple[str, str]]] = {_HEADING_OF[option.setting.section]: [] for option in own}
        found |= {heading: [] for heading in _HEADINGS if heading not in found}
        for option in shown:
            heading = _HEADING_OF.get(option.setting.key) or _HEADING_OF[option.setting.section]
            if (record := option.get_help_record(ctx)) is not None:
                found[heading].append(record)
        found["Output"] += rest["Output"]
        found["Options"] = rest["Options"]
        words = {word for option in shown for word in option.setting.type.metavar.split("|")}
        found["Values"] = [(word, text) for word, text in _VALUES.items() if word in words]
        aliases = [
            (", ".join(option.setting.aliases), option.setting.flag) for option in shown if option.setting.aliases
        ]
        if any(param.name == "max_concurrency" for param in self.params):
            most = {"capacity": "--at-most; by rate --max-in-flight", "replay": "--max-in-flight"}
            aliases.append(("--max-concurrency", most.get(shown[0].command, "--users; with --rate --max-in-flight")))
        return {**found, "Aliases": aliases}


def scenario_argument(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add [SCENARIO]."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from loadbench.cli.complete import scenario_files  # noqa: PLC0415 - only a shell asks

        return scenario_files(ctx, param, incomplete)

    file = click.Path(path_type=Path)
    return click.argument("scenario", required=False, type=file, shell_complete=complete)(function)


def setting_options(
    command: str, only: Callable[[Setting], bool] = lambda _: True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the flags of the settings that a command takes, or `only` of some of them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        taken = [setting for setting in settings(command) if only(setting)]
        for setting in reversed(taken):
            if setting.argument_of != command:
                function = _option(setting, command)(function)
        if any(setting.key == "load.max_in_flight" for setting in taken):
            function = click.option("--max-concurrency", metavar="N", hidden=True)(function)
        return function

    return decorate


def default_text(setting: Setting, command: str) -> str:
    """The default of this command as people write it; empty where it has none, or where the help says what it is."""
    default = setting.default_in(command)
    if default in (None, {}, ""):
        return ""
    if setting.type.is_flag:
        return setting.flag[2:] if default else ""
    if setting.type.metavar == "PERCENT":
        return f"{100 * default:g}%"
    default = setting.type.show(default)
    default = ",".join(map(str, default)) if isinstance(default, list) else default
    if isinstance(default, float):
        return f"{default:g}"
    return "" if default in (None, {}) else str(default)


def _option(setting: Setting, command: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    is_flag, metavar, text = setting.type.is_flag, setting.type.metavar, setting.helps.get(command, setting.help)
    names = ["/".join(setting.flags)] if is_flag else setting.flags
    default = default_text(setting, command)
    if default and "Default:" not in text:
        text += f"  [default: {default}]"
    return click.option(
        *names,
        setting.name,
        cls=SettingOption,
        setting=setting,
        command=command,
        is_flag=is_flag,
        metavar=None if is_flag else metavar,
        multiple=setting.type.multiple,
        default=None,
        help=text,
    )


def setting_flags(command: str, options: dict[str, Any]) -> dict[str, object]:
    """The values of the settings' flags that the user gave, by setting name."""
    names = [*(setting.name for setting in settings(command)), "max_concurrency"]
    return {name: options[name] for name in names if options.get(name) is not None and options[name] != ()}
