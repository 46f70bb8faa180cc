"""Where settings come from: a flag, else the environment, else the scenario file, else the default.

A stronger source overrides a weaker one, also if it gives another setting that excludes the first: `--rate` overrides
the `users` of a scenario file, and with them what has an effect with users only. Such a setting is not used, nor is one
that the command does not take from file or environment; `Scenario.unused` lists them. Two settings of one source that
exclude each other are refused with the reason, and so is a setting without effect.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import shlex
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from loadbench.core.errors import BadInput
from loadbench.core.secrets import MASK
from loadbench.core.text import some
from loadbench.plan.cells import may_vary, names_in_command, values_of_cell, varied_setting
from loadbench.plan.extra_body import LIMIT_FIELDS, limits_of, value_of
from loadbench.plan.models import read_models
from loadbench.plan.personas import PERSONAS
from loadbench.plan.scenario import Scenario, Unused, with_entries, with_not_used
from loadbench.plan.scenario_file import ScenarioFile, nearest, read, read_persona
from loadbench.plan.server_command import chooses_port, names_in
from loadbench.plan.server_url import PORT, ServerUrl, origin_of
from loadbench.plan.setting_types import ALL_OBJECTIVES, URLS
from loadbench.plan.settings import DEFAULT, SECTIONS, Entry, Origin, Source, Values, setting_of, settings
from loadbench.plan.workload import bring

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterator, Mapping, Sequence
    from pathlib import Path

    from loadbench.plan.personas import Persona
    from loadbench.plan.settings import Need, Setting

# Variables of our prefix that are not settings.
_OTHER_VARIABLES = frozenset({"LOADBENCH_API_KEY", "LOADBENCH_COMPLETE"})
# A flag that other tools have for what are two settings here: the users, or beside a rate the most in flight.
MAX_CONCURRENCY = "max_concurrency"
# The variables in which other programs keep the server's address, in the order in which they are read.
ENDPOINT_VARIABLES = ("FOUNDRY_LOCAL_ENDPOINT", "OPENAI_BASE_URL")
# Of a value that is shown; longer paths and URLs are rare, and a file may hold anything.
_MOST_SHOWN = 200


def resolve(
    *,
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    file: Path | None = None,
    command: str = "sweep",
    reused: Mapping[str, object] | None = None,
    reused_personas: Mapping[str, object] | None = None,
    foreign: str = "",
    key_variables: Sequence[str] = (),
    cell: int = 0,
) -> Scenario:
    """The scenario in force for a command. `flags` has the values of its flags by setting name, as they were written,
    or an `Entry` that the file has in another place, and that is there instead. Of a grid it is that of one `cell`.

    `reused` has values of a saved run by key, for commands that score its answers or continue it, `reused_personas` its
    personas; `foreign` is the name of a run that is not this user's own. `key_variables` are variables that hold API
    keys besides those that the settings name. Raises `BadInput` for anything that cannot be used.
    """
    document = ScenarioFile.read(file) if file is not None else None
    tables = reused_personas or {}
    own = tuple(read_persona(name, table, place=lambda _: "the run") for name, table in tables.items())
    own = document.personas() if document is not None else own
    personas = PERSONAS | {persona.name: persona for persona in own}
    choice = _Choice(command, Values(command, {}, personas))
    moved = {name: value for name, value in flags.items() if isinstance(value, Entry)}
    concurrency = flags.get(MAX_CONCURRENCY)
    flags = {name: value for name, value in flags.items() if name not in {MAX_CONCURRENCY, *moved}}
    given = [
        *_from_flags(command, flags),
        *_from_run(reused or {}, flags, command=command, foreign=foreign),
        *choice.from_environment(environment),
        *_from_workshop_variables(command, environment),
        *(one for one in (document.entries() if document is not None else ()) if one.setting.name not in moved),
        *moved.values(),
    ]
    if concurrency is not None:
        given.insert(0, _most_at_once(command, concurrency, given))
    varied = _of_cell(given, command, cell)
    of_cell = {entry.setting.key for entry in varied}
    # A grid's record has the values of one of its cells. What else its source gives would be the same setting twice,
    # which is refused below.
    given = [one for one in given if one.origin.source is not Source.RUN or one.setting.key not in of_cell]
    given = sorted([*given, *varied], key=lambda entry: entry.origin.source)
    for entry in given:
        choice.take(entry)
    named_keys = [entry.value for entry in given if entry.setting.name == "api_key_env"]
    named_keys += [environment.get(setting.variable) for setting in settings() if setting.name == "api_key_env"]
    named_keys += [line[-1] for entry in given if entry.setting.name == "header_env" for line in entry.value]
    _refuse_unknown_variables(environment, {*key_variables, *named_keys})
    choice.settle_groups()
    is_named = {"target.url", "target.profile", "target.adapter", "target.server_cmd", "compare.a_cmd", "compare.b_cmd"}
    if not is_named & set(choice.entries):
        choice.take_endpoint(environment)
    choice.settle_started()
    choice.settle_single()
    own_urls = {entry.origin.source: entry.value for entry in given if entry.setting.key == "target.url"}
    choice.settle_keys({Source.ENVIRONMENT: _urls_of(environment), **own_urls})
    choice.settle_route()
    choice.settle_body()
    choice.settle_needs()
    choice.settle_deterministic()
    personas |= choice.settle_turns(personas)
    own = tuple(personas[persona.name] for persona in own)
    choice.unused += bring(choice.entries, personas, command=command)
    scenario = choice.scenario(document.question if document is not None else "")
    _check_cell(scenario, varied)
    if file is not None and "report.name" not in choice.entries:
        name = Entry(setting_of("report.name"), file.stem, Origin(Source.COMMAND, str(file)))
        scenario = with_entries(scenario, {"report.name": name})
    named = {scenario.work.persona, *(share.name for share in scenario.work.mix or ())}
    unused = scenario.unused
    for key in [f"personas.{persona.name}" for persona in own if persona.name not in named]:
        place = document.place(key) if document is not None else ""
        unused += (Unused(key, Origin(Source.SCENARIO, place, key), "no work.persona or work.mix names it"),)
    work = dataclasses.replace(scenario.work, personas=own)
    if environment.get("LOADBENCH_API_KEY") and not gets_default_key(scenario, environment, scenario.target.url or ()):
        origin = Origin(Source.ENVIRONMENT, "LOADBENCH_API_KEY")
        unused += (Unused("target.api_key_env", origin, "this server is not the one that the key is for"),)
    scenario = dataclasses.replace(scenario, work=work, unused=unused)
    if scenario.target.model_set is not None:
        names = tuple(model.name for model in read_models(scenario.target.model_set))
        models = Entry(setting_of("target.model"), names, scenario.origins["target.model_set"])
        scenario = with_entries(scenario, {"target.model": models})
    if command not in setting_of("target.server_cmd").commands and any(
        PORT in url for url in scenario.target.url or ()
    ):
        place = scenario.place("target.url")
        raise BadInput(f"{place}: {PORT} is for a server that loadbench starts", hint="give the port of the server")
    if scenario.finds_levels and command != "sweep":
        reason = "both sides are measured at the same loads, which must be known beforehand"
        raise BadInput(f"{scenario.place('load.users')} auto: {reason}", hint="list them, as in --users 1,2,4,8")
    _refuse_idle_rules(scenario)
    return with_not_used(scenario)


def reusable(record: Mapping[str, Mapping[str, object]], *, same_server: bool) -> dict[str, object]:
    """What `resolve` may reuse of a run's settings, by key; those of its server only for the same server."""
    return {
        setting.key: value
        for setting in settings()
        if setting.reused == "always" or (setting.reused and same_server)
        if (value := record.get(setting.section, {}).get(setting.name)) is not None
    }


def recorded(record: Mapping[str, Mapping[str, object]], origins: Mapping[str, str]) -> dict[str, object]:
    """What somebody set in a run, by key, for `resolve` to continue it: not its name and folder, nor a confirmation."""
    values = {
        setting.key: value
        for setting in settings()
        if setting.key not in {"report.name", "report.out"} and not setting.confirms
        if origins.get(setting.key, "").partition(" ")[0] in {"flag", "environment", "scenario", "run"}
        if (value := record.get(setting.section, {}).get(setting.name)) is not None
    }
    # What another setting brings is recorded too, as given where that was: the models of a file, a persona's limit.
    for brought, by in (
        *(("target.model", by) for by in ("target.model_set", "compare.a_model", "compare.b_model")),
        ("work.output_tokens", "work.max_tokens"),
    ):
        if by in values and origins.get(brought) == origins[by]:
            values.pop(brought, None)
    return values


def choices(values: Mapping[str, object]) -> dict[str, object]:
    """What values of a run's record, by key, choose of servers, keys, programs and files. A default is no choice."""
    return {
        setting.key: value
        for setting in settings()
        if setting.guarded and (value := values.get(setting.key)) not in (None, [], {})
        if setting.default is None or value != setting.type.show(setting.default)
    }


def as_flags(values: Mapping[str, object], *, command: str, given: Collection[str] = ()) -> list[str]:
    """Values of a run's record, by key, as the flags of a command that give them again; not those that are given."""
    groups = {one.group for one in settings(command) if one.name in given} - {""}
    flags: list[str] = []
    for key, value in values.items():
        setting = next((one for one in settings(command) if one.name == setting_of(key).name), setting_of(key))
        if setting.name in given or setting.group in groups:
            continue
        items = [f"{name}: {text}" for name, text in value.items()] if isinstance(value, dict) else value
        for item in items if isinstance(items, list) else [items]:
            text = shlex.quote(item if isinstance(item, str) else json.dumps(item))
            name = "" if (command, key) == ("replay", "load.trace") else f"{setting.flag} "  # it is the argument there
            flags.append(setting.flag if setting.type.is_flag else f"{name}{text[:_MOST_SHOWN]}")
    return flags


def elsewhere(urls: Sequence[str], own: Sequence[str]) -> bool:
    """Whether URLs name another server, by scheme, host or port, than those that a key was given with, if any were."""
    return bool(own) and not {*map(origin_of, urls)} <= {*map(origin_of, own)}


def gets_default_key(scenario: Scenario, environment: Mapping[str, str], urls: Sequence[str]) -> bool:
    """Whether a key that merely lies in LOADBENCH_API_KEY is for these servers: not for another than that of
    LOADBENCH_URL, and not for a judge's own.
    """
    key, given = setting_of("target.api_key_env"), scenario.origins.get("target.api_key_env", DEFAULT).source
    # A run records the default too.
    if scenario.is_set(key.key) and (given is not Source.RUN or scenario.target.api_key_env != key.default):
        return True
    return scenario.judge.url is None and not elsewhere(urls, _urls_of(environment))


def _urls_of(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Those of LOADBENCH_URL, also for a command that does not take it."""
    with suppress(ValueError):
        return URLS.read(environment.get(setting_of("target.url").variable))
    return ()


def api_of_route(url: Entry) -> Entry | None:
    """The API that a URL names by ending in its route; `None` if it ends in none. Raises `BadInput` for several."""
    urls = [url.value] if isinstance(url.value, str) else url.value
    apis = sorted({ServerUrl.parse(one).api for one in urls} - {""})
    if len(apis) > 1:
        raise BadInput(f"{url.origin.place}: routes of the APIs {' and '.join(apis)}", hint="all servers need one API")
    return Entry(setting_of("target.api"), apis[0], url.origin) if apis else None


def _from_run(
    reused: Mapping[str, object], flags: Mapping[str, object], *, command: str, foreign: str
) -> Iterator[Entry]:
    """Raises `BadInput` for a value with a secret, which the run did not keep, and for what only the user may choose if
    the run is not the user's own, unless flags give these again.
    """
    again = as_flags(choices(reused), command=command, given=flags) if foreign else []
    if again:
        raise BadInput(
            f"{foreign} is not in the history of your own runs, or was changed since. Only you choose servers, keys, "
            f"programs and files; it names {some(again, separator=' ')}",
            hint="give them again as flags if you trust them, or others",
        )
    for key, value in reused.items():
        setting = setting_of(key)
        if setting.name in flags:
            continue
        if MASK in json.dumps(value):
            raise BadInput(f"the run: {key} has a secret, which is not kept", hint=f"give it again with {setting.flag}")
        yield read(setting, value, Origin(Source.RUN, "the run"))


def _from_flags(command: str, flags: Mapping[str, object]) -> Iterator[Entry]:
    """Raises `BadInput` for what the command does not take."""
    for name, value in flags.items():
        named = [setting for setting in settings() if setting.name == name]
        setting = next((setting for setting in named if command in setting.commands), named[0])
        if command not in setting.commands:
            raise BadInput(f"{setting.flag}: {setting.why_not(command)}", hint="leave it out")
        flag = setting.flags[1] if setting.type.is_flag and setting.default and value is False else setting.flag
        place = setting.name.upper() if setting.argument_of == command else flag
        yield read(setting, value, Origin(Source.FLAG, place))


def _of_cell(given: Sequence[Entry], command: str, cell: int) -> list[Entry]:
    """The settings that a grid varies, with the values of one of its cells; raises `BadInput` for what is none."""
    by_key = {entry.setting.key: entry for entry in reversed(given)}
    vary = by_key.get("grid.vary")
    if vary is None or command not in vary.setting.commands:
        return []
    texts = list(by_key["target.server_cmd"].value) if "target.server_cmd" in by_key else []
    texts += (
        [value for _, value in by_key["target.server_env"].value] if texts and "target.server_env" in by_key else []
    )
    in_command = set().union(*map(names_in, texts))
    entries: list[Entry] = []
    for varied, text in values_of_cell(vary.value, cell):
        setting = varied_setting(varied.name, in_command)
        origin = Origin(vary.origin.source, vary.origin.where, varied.name)
        if setting is None:  # it is in the server's command, or nowhere
            continue
        if not may_vary(setting):
            raise BadInput(f"{origin.place}: cannot be varied", hint="it is not about what is measured")
        twin = next((one for one in entries if one.setting is setting), None)
        if twin is not None:
            raise BadInput(f"{origin.place}: the same setting as {twin.origin.key}", hint="give one of them")
        entry = read(setting, text, origin)
        if MASK in json.dumps(setting.type.show(entry.value), default=str):
            message = f"{origin.place}: has a secret, and what is varied is shown and kept"
            raise BadInput(message, hint="use a setting that names a variable, such as header_env or api_key_env")
        entries.append(entry)
    return entries


def _check_cell(scenario: Scenario, varied: Sequence[Entry]) -> None:
    """Raises `BadInput` for a name that is neither a setting nor in the server's command, and for a setting that is
    varied although something else sets it."""
    filled = names_in_command(scenario)
    for one in scenario.grid.vary or ():
        if varied_setting(one.name) is None and one.name not in filled:
            place = f"{scenario.place('grid.vary')}: {one.name}"
            if scenario.target.server_cmd is not None:
                hint = f"write {{{one.name}}} in it where the value belongs"
                raise BadInput(f"{place}: neither a setting of a sweep nor in the server's command", hint=hint)
            # A name of the user's own is likely, so that only a slip of the finger is taken for a setting.
            known = [setting.name for setting in settings(scenario.command) if may_vary(setting)]
            near = difflib.get_close_matches(one.name, known, n=1, cutoff=0.8)
            own = f"{{{one.name}}} has to be in --server-cmd, where the value belongs"
            hint = f"did you mean {near[0]}? Otherwise {own}" if near else own
            raise BadInput(f"{place}: no setting of a sweep", hint=hint)
    for entry in varied:
        other = scenario.origins[entry.setting.key]
        if other != entry.origin:
            raise BadInput(f"{entry.origin.place}: {other.place} sets it too", hint="leave one of them out")


def _most_at_once(command: str, value: object, given: Sequence[Entry]) -> Entry:
    """The setting that `--max-concurrency` is: the users of a closed loop, or the most in flight beside a rate, a trace
    or a search by rate. Raises `BadInput` if that is given too.
    """
    loads = [entry for entry in given if entry.setting.group == "load" or entry.setting.key == "capacity.by"]
    strongest = min(loads, key=lambda entry: entry.origin.source, default=None)
    is_open = command == "replay" or (
        strongest is not None and (strongest.setting.name in {"rate", "trace"} or strongest.value == "rate")
    )
    setting = setting_of(
        "load.max_in_flight" if is_open else f"{'capacity.at_most' if command == 'capacity' else 'load.users'}"
    )
    flag = "--" + MAX_CONCURRENCY.replace("_", "-")
    twin = next((entry for entry in given if entry.setting is setting and entry.origin.source is Source.FLAG), None)
    if twin is not None:
        raise BadInput(f"{flag} and {twin.origin.place} are the same setting", hint="give one of them")
    return read(setting, value, Origin(Source.FLAG, flag))


def _refuse_unknown_variables(environment: Mapping[str, str], key_variables: Container[str]) -> None:
    """Raises `BadInput` for a variable of our prefix that is no setting and holds no API key."""
    known = [setting.variable for setting in settings()]
    for name in environment:
        other = name in _OTHER_VARIABLES or name in key_variables or name.endswith("_COMPLETE")
        if name.startswith("LOADBENCH_") and name not in known and not other:
            raise BadInput(f"{name}: an unknown environment variable", hint=nearest(name, known))


def _from_workshop_variables(command: str, environment: Mapping[str, str]) -> Iterator[Entry]:
    """Of a setting's variables the first that says anything."""
    for setting in settings(command) if command == "workshop" else ():
        for variable in setting.workshop_variables:
            text = environment.get(variable, "").strip()
            items = [item.strip() for item in text.split(",") if item.strip()]
            if items:
                value = items if setting.type.multiple else text
                yield read(setting, value, Origin(Source.WORKSHOP, variable))
                break


class _Choice:
    """The values that win, by key, and those that do not."""

    def __init__(self, command: str, values: Values) -> None:
        self.command = command
        self.entries: dict[str, Entry] = {}
        self._values = Values(command, self.entries, values.personas)
        self.unused: list[Unused] = []
        self._overriders: dict[str, Entry] = {}

    def from_environment(self, environment: Mapping[str, str]) -> Iterator[Entry]:
        """The settings of `LOADBENCH_…` variables; those of other commands are noted as not used."""
        for name, value in environment.items():
            named = [setting for setting in settings() if setting.variable == name]
            taken = next((setting for setting in named if self.command in setting.commands), None)
            origin = Origin(Source.ENVIRONMENT, name)
            if taken is not None:
                yield read(taken, value, origin)
            elif named:
                self._note_unused(named[0], origin)

    def _note_unused(self, setting: Setting, origin: Origin) -> None:
        self.unused.append(Unused(setting.key, origin, setting.why_not(self.command)))

    def take(self, entry: Entry) -> None:
        """The first value of a setting wins; sources come in their order."""
        winner = self.entries.get(entry.setting.key)
        if self.command not in entry.setting.commands and entry.origin.source is not Source.RUN:
            self._note_unused(entry.setting, entry.origin)
        elif winner is None:
            self.entries[entry.setting.key] = entry
        elif winner.origin.source is Source.RUN and winner.value != entry.value:
            self.unused.append(Unused(entry.setting.key, entry.origin, "overridden by the run"))

    def _override(self, entry: Entry, by: Entry) -> None:
        del self.entries[entry.setting.key]
        self._overriders[entry.setting.key] = by
        if entry.origin.source is not Source.RUN:
            self.unused.append(Unused(entry.setting.key, entry.origin, f"overridden by {by.origin.place}"))

    def settle_groups(self) -> None:
        """Of settings that exclude each other the strongest stays; two of one source are refused."""
        strongest: dict[str, Entry] = {}
        for entry in sorted(self.entries.values(), key=lambda entry: entry.origin.source):
            group = entry.setting.group
            if not group or entry.is_off:
                continue
            winner = strongest.setdefault(group, entry)
            if winner is entry:
                continue
            if winner.origin.source == entry.origin.source and entry.origin.source is not Source.RUN:
                raise BadInput(
                    f"{winner.origin.place} and {entry.origin.place} exclude each other", hint="leave one of them out"
                )
            self._override(entry, winner)

    def settle_single(self) -> None:
        """Refuse several values where the command takes one; of a saved run's it takes the first."""
        for key, entry in self.entries.items():
            reason = entry.setting.one_value.get(self.command, "")
            if reason and len(entry.value) > 1:
                if entry.origin.source is not Source.RUN:
                    raise BadInput(f"{entry.origin.place}: {reason}", hint="give one")
                self.entries[key] = Entry(entry.setting, entry.value[:1], entry.origin)

    def take_endpoint(self, environment: Mapping[str, str]) -> None:
        """The URL from where other programs keep it."""
        for variable in ENDPOINT_VARIABLES:
            text = environment.get(variable, "").strip()
            if text and self.command in setting_of("target.url").commands:
                self.take(read(setting_of("target.url"), text, Origin(Source.ENVIRONMENT, variable)))
                return

    def settle_started(self) -> None:
        """A command that says where its port belongs names the server: a URL of a weaker source is another's, and so
        are the keys of that source."""
        command, url = self.entries.get("target.server_cmd"), self.entries.get("target.url")
        if command is None or url is None or url.origin.source <= command.origin.source:
            return
        variables = self.entries.get("target.server_env")
        if chooses_port(command.value, () if variables is None else variables.value):
            self._override(url, command)
            for entry in list(self.entries.values()):
                if entry.setting.bound and entry.origin.source == url.origin.source:
                    self._override(entry, command)

    def settle_keys(self, own_urls: Mapping[Source, Sequence[str]]) -> None:
        """A key does not follow to another server than that of its source, if a stronger one names it; to a judge's own
        server only those of flags do.
        """
        url = self.entries.get("judge.url") or self.entries.get("target.url")
        if url is None:
            return
        for entry in list(self.entries.values()):
            source = entry.origin.source
            if url.setting.section == "judge":
                follows = source is Source.FLAG or entry.setting.section == "judge"
            else:
                follows = source <= url.origin.source or not elsewhere(url.value, own_urls.get(source, ()))
            if entry.setting.bound and not follows:
                self._override(entry, url)

    def settle_route(self) -> None:
        """A URL that ends in a route decides the API; one that another source names is overridden, or refused."""
        url = self.entries.get("judge.url") or self.entries.get("target.url")
        routed = None if url is None else api_of_route(url)
        if url is None or routed is None or self.command not in routed.setting.commands:
            return
        given = self.entries.get(routed.setting.key)
        if given is not None and given.value != routed.value:
            if given.origin.source <= url.origin.source and given.origin.source is not Source.RUN:
                raise BadInput(
                    f"{given.origin.place} {given.value}: {url.origin.place} ends in a route of the {routed.value} API",
                    hint="leave one of them out, or give the URL without its route",
                )
            self._override(given, url)
        if given is None or given.value != routed.value:
            self.entries[routed.setting.key] = routed

    def settle_body(self) -> None:
        """What an extra body says of fields that have settings of their own is the value of these settings."""
        entry = self.entries.get("target.extra_body")
        if entry is None:
            return
        limits = {name: value for name, value in limits_of(entry.value).items() if value is not None}
        if len(set(map(str, limits.values()))) > 1:
            raise BadInput(f"{entry.origin.place}: {' and '.join(limits)} limit the same", hint="give one of them")
        fields = dict.fromkeys(limits, "work.max_tokens")
        fields |= dict.fromkeys(("temperature", "options.temperature"), "work.temperature")
        for name, key in fields.items():
            setting, value = setting_of(key), value_of(entry.value, name)
            if value is ... or self.command not in setting.commands:
                continue
            own = Entry(setting, None, entry.origin) if value is None else read(setting, value, entry.origin)
            given = self.entries.get(key)
            if given is not None and given.value != own.value:
                if given.origin.source <= entry.origin.source:
                    raise BadInput(
                        f"{given.origin.place}: {entry.origin.place} has another {name}", hint="give one of them"
                    )
                self._override(given, entry)
            self.entries[key] = own
            if name == LIMIT_FIELDS[self._values.value("target.api")]:
                # Requests with a length of their own have that one, as with --max-tokens.
                rest = tuple({other: value for other, value in part.items() if other != name} for part in entry.value)
                entry = self.entries[entry.setting.key] = dataclasses.replace(entry, value=tuple(filter(None, rest)))

    def settle_needs(self) -> None:
        """A setting without effect is overridden by the stronger one that takes its effect, or refused."""
        unused = True
        while unused:
            unused = False
            for entry in list(self.entries.values()):
                need = self._unmet(entry)
                if need is None:
                    continue
                by = self._blamed(need, entry)
                searched = self.command == "capacity" and "load.rate" in need.on
                if entry.origin.source is Source.RUN:
                    del self.entries[entry.setting.key]
                elif searched and entry.origin.source is not Source.FLAG:
                    # It was for the load of another command.
                    del self.entries[entry.setting.key]
                    self.unused.append(Unused(entry.setting.key, entry.origin, need.reason))
                elif by is not None and by.origin.source < entry.origin.source:
                    self._override(entry, by)
                elif by is not None and need.overrides and by.origin.source > entry.origin.source:
                    self._override(by, entry)
                else:
                    continue
                unused = True
        for entry in self.entries.values():
            need = self._unmet(entry)
            if need is not None:
                by = self._blamed(need, entry)
                blamed = "" if by is None else f" with {by.shown}"
                message = f"{entry.origin.place}: has no effect{blamed}: {need.reason}"
                raise BadInput(message, hint=need.remedy_in(self.command))

    def _unmet(self, entry: Entry) -> Need | None:
        """What depends on a setting that each side of a comparison may set itself is checked for the sides."""
        need = None if entry.is_off else entry.setting.unmet(self._values)
        by_side = need is not None and self.command == "compare" and any(setting_of(key).per_side for key in need.on)
        return None if by_side else need

    def _blamed(self, need: Need, entry: Entry) -> Entry | None:
        """The strongest of the settings that a need depends on, in force or overriding another: of those without which
        the need would be met, if there are any.
        """
        involved = [self.entries.get(key) or self._overriders.get(key) for key in need.on if key != entry.setting.key]
        found = [one for one in involved if one is not None]
        without = [{key: other for key, other in self.entries.items() if other is not one} for one in found]
        met = [need.met(Values(self.command, others, self._values.personas)) for others in without]
        causes = [one for one, is_met in zip(found, met, strict=True) if is_met]
        return min(causes or found, key=lambda one: one.origin.source, default=None)

    def settle_deterministic(self) -> None:
        """Set what a deterministic run needs. Another value overrides it if its source is stronger, and is refused if
        it is the same.
        """
        deterministic = self.entries.get("work.deterministic")
        if deterministic is None or not deterministic.value:
            return
        origin = deterministic.origin
        if not {"work.prompt", "work.prompts"} & set(self.entries) and self._values.value("work.prompt") is None:
            by = self._overriders.get("work.prompt") or self._overriders.get("work.prompts")
            if by is not None and by.origin.source < origin.source:
                self._override(deterministic, by)
                return
            raise BadInput(f"{origin.place}: there are no given prompts", hint="give them with --prompts or --prompt")
        decided = [setting for setting in settings(self.command) if setting.when_deterministic]
        given = [self.entries[setting.key] for setting in decided if setting.key in self.entries]
        others = [entry for entry in given if (entry.value,) != entry.setting.when_deterministic]
        strongest = min(others, key=lambda entry: entry.origin.source, default=None)
        if strongest is not None and strongest.origin.source < origin.source:
            self._override(deterministic, strongest)
            return
        for setting in decided:
            (value,) = setting.when_deterministic
            entry = self.entries.get(setting.key)
            if entry is not None and entry.value != value:
                if entry.origin.source == origin.source:
                    raise BadInput(
                        f"{entry.origin.place} and {origin.place} exclude each other",
                        hint="a deterministic run has temperature 0, unchanged prompts, and --max-tokens",
                    )
                self._override(entry, deterministic)
            self.entries[setting.key] = Entry(setting, value, origin)

    def settle_turns(self, personas: Mapping[str, Persona]) -> dict[str, Persona]:
        """The named personas whose turns are overridden, without them: by a load that a stronger source gives."""
        persona, mix = self.entries.get("work.persona"), self.entries.get("work.mix")
        who, turns = persona or mix, setting_of("work.turns")
        names = [persona.value] if persona is not None else [share.name for share in mix.value] if mix else []
        changed = {}
        for name in names:
            if who is None or name not in personas or personas[name].turns is None or turns.key in self.entries:
                continue
            origin = who.origin._replace(key=f"personas.{name}.turns")
            entry, need = Entry(turns, personas[name].turns, origin), turns.unmet(self._values)
            by = None if need is None else self._blamed(need, entry)
            if by is not None and by.origin.source < who.origin.source:
                self.unused.append(Unused(origin.key, origin, f"overridden by {by.origin.place}"))
                changed[name] = dataclasses.replace(personas[name], turns=None)
        return changed

    def scenario(self, question: str) -> Scenario:
        """The scenario of these values, with the command's defaults."""
        sections: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
        origins = {}
        for setting in settings():
            entry = self.entries.get(setting.key)
            value = self._values.value(setting.key) if entry is None else entry.value
            origin = DEFAULT if entry is None else entry.origin
            if entry is None and value not in (None, setting.default) and self.command in setting.defaults:
                origin = Origin(Source.COMMAND, self.command)
            sections[setting.section][setting.name], origins[setting.key] = value, origin
        made = {section: SECTIONS[section](**values) for section, values in sections.items()}
        unused = tuple(dict.fromkeys(self.unused))
        return Scenario(**made, question=question, command=self.command, origins=origins, unused=unused)


def _refuse_idle_rules(scenario: Scenario) -> None:
    """A rule that nothing is held against would pass for one that is met. A search has a range of loads."""
    if ALL_OBJECTIVES in (scenario.slo.fail_on or ()) and not scenario.slo.objectives:
        place = scenario.place("slo.fail_on")
        raise BadInput(f"{place}: there are no objectives to fail on", hint="give some with --slo, or name a rule here")
    if scenario.command != "compare-saved":  # its levels are not known yet
        labels = set() if scenario.command == "capacity" else {load.label for load in scenario.loads}
        refuse_rules_without_level(scenario, labels)


def refuse_rules_without_level(scenario: Scenario, labels: Collection[str]) -> None:
    """Raises `BadInput` for a rule at a level that is not measured; `labels` are those of the levels that are."""
    searches = scenario.command == "capacity"
    for key in ("slo.objectives", "slo.fail_on", "slo.abort_on", "compare.fail_on"):
        for rule in scenario.values.value(key) or ():
            if not isinstance(rule, str) and rule.at and rule.at not in labels:
                why = "the search chooses the loads itself" if searches else f"no level has {rule.at}"
                hint = f"leave out @{rule.at}" if searches else f"levels are {', '.join(sorted(labels))}"
                raise BadInput(f"{scenario.place(key)}: {rule.rule}: {why}", hint=hint)
