"""Where settings come from: flag, then environment, then scenario file, then default; the first that speaks wins.

Every message names the place (the flag, the variable, or file and line), the key, what was found, what is wanted, and
for a misspelt name the nearest known one. An unknown key is an error, in a file as in the environment: a setting that
is silently ignored is worse than none.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import tomllib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from loadbench.core.errors import BadInput
from loadbench.plan.models import read_models
from loadbench.plan.scenario import SECTIONS, Scenario, settings
from loadbench.plan.setting_types import ALL_OBJECTIVES
from loadbench.plan.workload import complete, read_persona

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from loadbench.plan.personas import Persona
    from loadbench.plan.scenario import Setting

# A scenario is written by hand; what is larger was not.
_MOST_BYTES = 4 * 1024 * 1024
# Variables of this prefix that are not settings.
_OTHER_VARIABLES = frozenset({"LOADBENCH_API_KEY", "LOADBENCH_COMPLETE"})


@dataclass(frozen=True, slots=True)
class Given:
    """One setting as somebody gave it: the value read, and the place as messages name it."""

    setting: Setting
    value: object
    place: str


def resolve(
    *,
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    file: Path | None = None,
    default_name: str = "sweep",
    also: Mapping[str, tuple[str, object]] | None = None,
    defaults: Mapping[str, object] | None = None,
    searches: bool = False,
) -> Scenario:
    """The scenario in force. `flags` are by setting name, those that were not given left out.

    `also` has further variables, (name, value) by setting name, which come after those of the environment; `defaults`
    are a command's own, as settings hold them. Either may be silenced by another of its group. A command that
    `searches` chooses its loads itself.
    Raises `BadInput` for anything that cannot be used.
    """
    document = ScenarioFile.read(file) if file is not None else None
    sources = [
        ("flag", list(_from_flags(flags))),
        ("environment", list(_from_environment(environment))),
        ("environment", list(_from_variables(also or {}))),
        ("scenario", document.given() if document is not None else []),
    ]
    chosen = _merge(sources)
    _take_endpoint(chosen, environment)
    _determine(chosen)
    personas = document.personas() if document is not None else ()
    complete(chosen, personas, searches=searches)
    _add_defaults(chosen, default_name, defaults or {})
    if "report.name" not in chosen:
        chosen["report.name"] = (file.stem if file is not None else default_name, "default")
    scenario = _with_models(_build(chosen, question=document.question if document is not None else ""))
    scenario = dataclasses.replace(scenario, work=dataclasses.replace(scenario.work, personas=personas))
    _refuse_unfixed(scenario)
    _refuse_idle_rules(scenario)
    return scenario


def _refuse_idle_rules(scenario: Scenario) -> None:
    """A rule that nothing is held against would pass for one that is met."""
    if ALL_OBJECTIVES in (scenario.slo.fail_on or ()) and not scenario.slo.objectives:
        place = scenario.origins["slo.fail_on"].partition(" ")[2]
        raise BadInput(f"{place}: there are no objectives to fail on", hint="give some with --slo, or name a rule here")
    labels = {load.label for load in scenario.loads}
    for rule in (*scenario.objectives, *(scenario.slo.abort_on or ())):
        if rule.at and rule.at not in labels:
            raise BadInput(f"{rule.rule}: no level has {rule.at}", hint=f"levels are {', '.join(sorted(labels))}")


def _merge(sources: list[tuple[str, list[Given]]]) -> dict[str, tuple[object, str]]:
    """Value and origin by key. A source that speaks for a group silences the later ones about all of that group."""
    chosen: dict[str, tuple[object, str]] = {}
    for origin, given in sources:
        taken = {setting.group for setting in settings() if setting.group and setting.key in chosen}
        _refuse_both(given)
        for one in given:
            if one.setting.key not in chosen and one.setting.group not in taken:
                chosen[one.setting.key] = (one.value, f"{origin} {one.place}")
    return chosen


# By these other programs are told where the server is, in the order in which they are asked.
ENDPOINT_VARIABLES = ("FOUNDRY_LOCAL_ENDPOINT", "OPENAI_BASE_URL")


def _take_endpoint(chosen: dict[str, tuple[object, str]], environment: Mapping[str, str]) -> None:
    """The URL from where other programs have it, unless one was meant for us, or the simulated server was asked for."""
    if {"target.url", "target.profile", "target.adapter"} & set(chosen):
        return
    (url,) = (setting for setting in settings() if setting.key == "target.url")
    for variable in ENDPOINT_VARIABLES:
        if environment.get(variable, "").strip():
            chosen[url.key] = (_read(url, environment[variable], variable).value, f"environment {variable}")
            return


_RANKS = ("flag", "environment", "scenario")
# What a deterministic run is, as far as settings say it.
_DETERMINED: Mapping[str, object] = {"work.temperature": 0.0, "work.unique": False, "work.output_tokens": None}


def _determine(chosen: dict[str, tuple[object, str]]) -> None:
    """Fill in what a deterministic run needs; who asks for both it and something else, from as near, is told."""
    wanted, asked = chosen.get("work.deterministic", (False, ""))
    if not wanted:
        return
    source, _, place = asked.partition(" ")
    for key, value in _DETERMINED.items():
        found, origin = chosen.get(key, (value, ""))
        nearer = bool(origin) and _RANKS.index(origin.partition(" ")[0]) <= _RANKS.index(source)
        if found != value and nearer:
            raise BadInput(
                f"{origin.partition(' ')[2]} and {place} exclude each other",
                hint="a deterministic run has temperature 0, prompts as they are, and --max-tokens",
            )
        chosen[key] = value, asked


def _refuse_unfixed(scenario: Scenario) -> None:
    work = scenario.work
    if work.deterministic and work.prompt is None and work.prompts is None:
        place = scenario.origins["work.deterministic"].partition(" ")[2]
        raise BadInput(f"{place}: there are no given prompts", hint="give them with --prompts or --prompt")


def _add_defaults(chosen: dict[str, tuple[object, str]], command: str, defaults: Mapping[str, object]) -> None:
    """A command's own defaults, as if it were one more source."""
    taken = {setting.group for setting in settings() if setting.group and setting.key in chosen}
    for setting in settings():
        if setting.name in defaults and setting.key not in chosen and setting.group not in taken:
            chosen[setting.key] = defaults[setting.name], command


def _with_models(scenario: Scenario) -> Scenario:
    """The scenario with the models of its file, where one is named."""
    target, origins = scenario.target, scenario.origins
    if target.model_set is None:
        return scenario
    made = dataclasses.replace(target, model=tuple(model.name for model in read_models(target.model_set)))
    return dataclasses.replace(scenario, target=made, origins={**origins, "target.model": origins["target.model_set"]})


def _refuse_both(given: list[Given]) -> None:
    first: dict[str, Given] = {}
    for one in given:
        group = one.setting.group
        if group and group in first:
            raise BadInput(
                f"{first[group].place} and {one.place} exclude each other",
                hint=f"give {first[group].setting.name} or {one.setting.name}, not both",
            )
        first[group] = one


def _build(chosen: dict[str, tuple[object, str]], *, question: str) -> Scenario:
    groups = {setting.group for setting in settings() if setting.key in chosen} - {""}
    sections: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
    origins = {}
    for setting in settings():
        if setting.key in chosen:
            sections[setting.section][setting.name], origins[setting.key] = chosen[setting.key]
        else:
            # Another of its group was given: this one is out of force, whatever its default.
            sections[setting.section][setting.name] = None if setting.group in groups else setting.default
            origins[setting.key] = "default"
    made = {section: SECTIONS[section](**values) for section, values in sections.items()}
    return Scenario(**made, question=question, origins=origins)


def _from_flags(flags: Mapping[str, object]) -> Iterable[Given]:
    for setting in settings():
        if setting.name in flags:
            yield _read(setting, flags[setting.name], setting.flag)


def _from_variables(variables: Mapping[str, tuple[str, object]]) -> Iterable[Given]:
    for setting in settings():
        if setting.name in variables:
            variable, value = variables[setting.name]
            yield _read(setting, value, variable)


def _from_environment(environment: Mapping[str, str]) -> Iterable[Given]:
    known = {setting.variable: setting for setting in settings()}
    for name, value in environment.items():
        if not name.startswith("LOADBENCH_") or name in _OTHER_VARIABLES or name.endswith("_COMPLETE"):
            continue
        if name in known:
            yield _read(known[name], value, name)
        elif environment.get("LOADBENCH_API_KEY_ENV") != name:
            raise BadInput(f"{name}: an unknown environment variable", hint=_nearest(name, known))


def _read(setting: Setting, value: object, place: str) -> Given:
    try:
        return Given(setting, setting.kind.read(value), place)
    except ValueError as error:
        raise BadInput(f"{place}: {error}") from None


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"


@dataclass(frozen=True, slots=True)
class ScenarioFile:
    """A scenario file, parsed but not yet read: TOML by default, JSON by its suffix, the same keys in both."""

    path: Path
    text: str
    content: dict[str, object]

    @classmethod
    def read(cls, path: Path) -> ScenarioFile:
        """Parse the file; raises `BadInput` with file and line."""
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror or error}", hint="name a scenario file (TOML or JSON)") from None
        if len(raw) > _MOST_BYTES:
            raise BadInput(f"{path}: {len(raw)} bytes are too many for a scenario", hint="is it another file?")
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = raw[: error.start].count(b"\n") + 1
            raise BadInput(f"{path}:{line}: not UTF-8 text", hint="save it as UTF-8") from None
        return cls(path, text, _parse(path, text))

    @property
    def question(self) -> str:
        """What the scenario answers: its `question`, or its first line if that is a comment."""
        question = self.content.get("question")
        if question is not None:
            if not isinstance(question, str):
                raise BadInput(f"{self._place('question')}: question: found {question!r}, want a text")
            return question.strip()
        first = self.text.lstrip().split("\n", 1)[0]
        return first.lstrip("# ").strip() if first.startswith("#") else ""

    def given(self) -> list[Given]:
        """Every setting in it, read; raises `BadInput` for what is unknown or wrong."""
        known = {setting.key: setting for setting in settings()}
        found: list[Given] = []
        for section, values in self.content.items():
            if section in {"question", "personas"}:
                continue
            if section not in SECTIONS:
                raise self._unknown(section, "", (*SECTIONS, "personas"))
            if not isinstance(values, dict):
                raise BadInput(f"{self._place(section)}: {section}: found {values!r}, want a table of settings")
            found += [self._one(known, section, name, value) for name, value in values.items()]
        return found

    def personas(self) -> tuple[Persona, ...]:
        """The scenario's own personas, a table each; raises `BadInput` for what is unknown or wrong in one."""
        tables = self.content.get("personas", {})
        if not isinstance(tables, dict):
            raise BadInput(f"{self._place('personas')}: personas: found {tables!r}, want a table for each")
        return tuple(
            read_persona(name, table, place=partial(self._place, f"personas.{name}")) for name, table in tables.items()
        )

    def _one(self, known: dict[str, Setting], section: str, name: str, value: object) -> Given:
        key = f"{section}.{_SYNONYMS.get((section, name), name)}"
        if key not in known:
            raise self._unknown(
                name, section, [setting.name for setting in known.values() if setting.section == section]
            )
        return _read(known[key], value, f"{self._place(section, name)}: {section}.{name}")

    def _unknown(self, name: str, section: str, known: Iterable[str]) -> BadInput:
        names = list(known)
        hint = _nearest(name, names)
        elsewhere = [setting for setting in settings() if setting.name == name]
        if section and elsewhere:
            hint = f"it belongs in [{elsewhere[0].section}]"
        what = f"{section}.{name}: an unknown key" if section else f"{name}: an unknown section"
        return BadInput(f"{self._place(section or name, name if section else '')}: {what}", hint=hint)

    def _place(self, section: str, name: str = "") -> str:
        """File and line of a key, as well as can be found in the text."""
        line = _find_line(self.text, section, name)
        return f"{self.path}:{line}" if line else str(self.path)


# Plural and singular are easily confused, and mean the same.
_SYNONYMS = {
    ("target", "models"): "model",
    ("target", "headers"): "header",
    ("load", "rates"): "rate",
    ("load", "concurrency"): "users",
    ("slo", "slo"): "objectives",
}


def _parse(path: Path, text: str) -> dict[str, object]:
    parse: Callable[[str], object] = json.loads if path.suffix.lower() == ".json" else tomllib.loads
    try:
        content = parse(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}:{error.lineno}: not JSON: {error.msg}", hint="mend it there") from None
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"line (\d+)", str(error))
        line = f":{where[1]}" if where else ""
        reason = re.sub(r"\s*\(at .*\)$", "", str(error))
        raise BadInput(f"{path}{line}: not TOML: {reason}", hint="mend it there") from None
    except RecursionError:
        raise BadInput(f"{path}: nested too deeply", hint="a scenario has sections and settings only") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: found a {type(content).__name__}, want an object with sections")
    return content


def _find_line(text: str, section: str, name: str) -> int | None:
    """The line of `name` after the head of `section`, in TOML or JSON; comments may deceive it, tables may not."""
    inside = not name
    wanted = name or section
    head = re.compile(rf"\s*(\[\s*\"?{re.escape(section)}\"?\s*\]|\"?{re.escape(section)}\"?\s*[:=.])")
    key = re.compile(rf"(^|[\s{{,.\[])\"?{re.escape(wanted)}\"?\s*[]:=.]")
    for number, line in enumerate(text.splitlines(), start=1):
        if not inside and head.match(line):
            inside = True
        if inside and not line.lstrip().startswith("#") and key.search(line):
            return number
    return None
