"""Flags made from the declared settings: each setting of a scenario file has a flag of the commands that take it."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import click

from loadbench.core.errors import BadInput
from loadbench.plan import gate, objective
from loadbench.plan.settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadbench.plan.settings import Setting

_HEADINGS = {"slo": "Objectives"}  # of sections whose name is no word
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


class ScenarioCommand(click.Command):
    """A command whose help shows the settings' flags by section, and which says why it does not take another's flag."""

    @property
    def _setting_options(self) -> list[SettingOption]:
        return [param for param in self.params if isinstance(param, SettingOption)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does; raises `BadInput` for the flag of a setting that this command does not take, and for a flag
        that is given twice, or under two names, where the last would win.
        """
        written = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            options = self._setting_options
            named = next((setting for setting in settings() if error.option_name in setting.flags), None)
            if named is None or not options:
                raise
            raise BadInput(f"{error.option_name}: {named.why_not(options[0].command)}", hint="leave it out") from None
        names = {arg.partition("=")[0] for arg in written}
        given = [param for param in self.make_parser(ctx).parse_args(written)[2] if isinstance(param, click.Option)]
        for option in [option for option in given if given.count(option) > 1 and not option.multiple]:
            flags = [flag for flag in (*option.opts, *option.secondary_opts) if flag in names]
            if len(flags) > 1:
                raise BadInput(f"{' and '.join(flags)} are the same setting", hint="give one of them")
            if not option.is_flag:
                raise BadInput(f"{flags[0]} is given twice", hint="give it once")
        return rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The command's own section comes first.
        shown = sorted(self._setting_options, key=lambda option: option.setting.section != option.command)
        for section, options in groupby(shown, key=lambda option: option.setting.section):
            with formatter.section(_HEADINGS.get(section, section.capitalize())):
                formatter.write_dl([record for option in options if (record := option.get_help_record(ctx))])
        # The command's text explains its arguments.
        others = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        with formatter.section("Options"):
            records = [other.get_help_record(ctx) for other in others if not isinstance(other, SettingOption)]
            formatter.write_dl([record for record in records if record])
        words = {word for option in shown for word in option.setting.type.metavar.split("|")}
        with formatter.section("Values"):
            formatter.write_dl([(word, text) for word, text in _VALUES.items() if word in words])


def setting_options(command: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the flags of the settings that a command takes."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for setting in reversed(settings(command)):
            if setting.argument_of != command:
                function = _option(setting, command)(function)
        return function

    return decorate


def _option(setting: Setting, command: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    is_flag, metavar, text = setting.type.is_flag, setting.type.metavar, setting.helps.get(command, setting.help)
    names = ["/".join(setting.flags)] if is_flag else setting.flags
    # The default as people write it, unless the text says what it is.
    default = setting.default_in(command)
    if is_flag:
        default = setting.flag[2:] if default else None
    elif metavar == "PERCENT" and default is not None:
        default = f"{100 * default:g}%"
    elif default is not None:
        default = setting.type.show(default)
        default = ",".join(map(str, default)) if isinstance(default, list) else default
        default = f"{default:g}" if isinstance(default, float) else default
    if default not in (None, {}, "") and "Default:" not in text:
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
    return {
        setting.name: options[setting.name]
        for setting in settings(command)
        if options.get(setting.name) is not None and options[setting.name] != ()
    }
