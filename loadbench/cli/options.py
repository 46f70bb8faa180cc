"""Flags made from the scenario's settings: what a scenario file can say, a flag can say too."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from loadbench.plan.scenario import OF_ONE_COMMAND, SECTIONS, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from loadbench.plan.scenario import Setting

# Other names under which a flag is known.
_ALIASES = {"users": ("--concurrency",)}


class ScenarioCommand(click.Command):
    """A command whose help shows the settings' flags by their section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        by_name = {param.name: record for param in self.params if (record := param.get_help_record(ctx)) is not None}
        for section, cls in SECTIONS.items():
            names = [field.name for field in dataclasses.fields(cls) if field.name in by_name]
            records = [by_name.pop(name) for name in names]
            if records:
                with formatter.section(section.capitalize()):
                    formatter.write_dl(records)
        with formatter.section("Options"):
            formatter.write_dl(list(by_name.values()))


def scenario_options(
    *sections: str, without: tuple[str, ...] = (), defaults: Mapping[str, object] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the flags of these sections, or of all that are not of one command alone; `without` names settings.

    `defaults` are the command's own, by setting name.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for setting in reversed(list(settings())):
            wanted = setting.section in sections or (not sections and setting.section not in OF_ONE_COMMAND)
            if wanted and setting.name not in without:
                own = dataclasses.replace(setting, default=(defaults or {}).get(setting.name, setting.default))
                function = _option(own)(function)
        return function

    return decorate


def _option(setting: Setting) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    if setting.kind.switch:
        flag = setting.flag if setting.default is False else f"{setting.flag}/--no-{setting.name.replace('_', '-')}"
        return click.option(flag, setting.name, is_flag=True, default=None, help=setting.help)
    default = "" if setting.default in (None, ()) else f"  [default: {_default(setting)}]"
    return click.option(
        setting.flag,
        *_ALIASES.get(setting.name, ()),
        setting.name,
        metavar=setting.kind.metavar,
        multiple=setting.kind.many,
        default=None,
        help=setting.help + default,
    )


def _default(setting: Setting) -> str:
    shown = setting.kind.show(setting.default)
    return ",".join(str(item) for item in shown) if isinstance(shown, list) else str(shown)


def given(options: dict[str, Any]) -> dict[str, object]:
    """The settings' flags that were given."""
    return {
        setting.name: options[setting.name]
        for setting in settings()
        if options.get(setting.name) is not None and options[setting.name] != ()
    }
