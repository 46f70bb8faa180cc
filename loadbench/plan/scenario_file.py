"""The scenario file: TOML or JSON, with sections of settings, personas, and the question that it answers.

Every message names file and line, the key, what was found, what is wanted, and for a misspelt name the nearest known
one. An unknown key is an error: a setting that is silently ignored is worse than none.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from loadbench.core.bounded import read_file
from loadbench.core.errors import BadInput
from loadbench.core.text import SURROGATE
from loadbench.plan.input_files import NOT_STDIN
from loadbench.plan.personas import PERSONA_SETTINGS, Persona
from loadbench.plan.setting_types import THINK, TOKENS, TURNS
from loadbench.plan.settings import SECTIONS, Entry, Origin, Source, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from loadbench.plan.settings import Setting

# A scenario is written by hand; a larger file was not.
_MOST_BYTES = 4 * 1024 * 1024
# The place of each may be looked for in the whole file.
_MOST_PERSONAS = 200


def read(setting: Setting, value: object, origin: Origin) -> Entry:
    """A setting as it was written; raises `BadInput` with its place, and what may have been meant."""
    try:
        return Entry(setting, setting.type.read(value), origin)
    except (ValueError, OSError) as error:
        single = value[0] if isinstance(value, (list, tuple)) and len(value) == 1 else value
        example, text, words = setting.type.example, str(single).strip(), setting.type.metavar.split("|")
        near = difflib.get_close_matches(text.lower(), words, n=1)
        hint = f"write it as in {example!r}" if example else ""
        if words[0] == "TIME" and re.fullmatch(r"\d+(\.\d+)?", text):
            hint = f"did you mean {text}s?"
        elif words[0] == "URL" and re.fullmatch(r"[\w.-]+(:\d+)?(/[\w./-]*)?", text):
            hint = f"did you mean http://{text}?"
        elif near and words[0].islower():
            hint = f"did you mean {near[0]}?"
        elif isinstance(error, OSError) or "No such file" in str(error):
            hint = NOT_STDIN if text.removeprefix("@") == "-" else "name a file that can be read"
        raise BadInput(f"{origin.place}: {error}", hint=hint) from None


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint for a name that is not known."""
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
            raw = read_file(path, _MOST_BYTES)
        except OSError as error:
            hint = NOT_STDIN if str(path) == "-" else "name a scenario file (TOML or JSON)"
            if re.match(r"https?:/", str(path)):
                hint = "this is a server: name it with --url"
            raise BadInput(f"{path}: {error.strerror or error}", hint=hint) from None
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
                raise BadInput(f"{self.place('question')}: question: found {question!r}, want a text")
            return question.strip()
        first = self.text.lstrip().split("\n", 1)[0]
        return first.lstrip("# ").strip() if first.startswith("#") else ""

    def entries(self) -> list[Entry]:
        """Every setting in it, read; raises `BadInput` for what is unknown or wrong."""
        known = {setting.key: setting for setting in settings()}
        entries: list[Entry] = []
        for section, values in self.content.items():
            if section in {"question", "personas"}:
                continue
            if section == "vary":  # its names are those of other sections
                entries.append(read(known["grid.vary"], values, Origin(Source.SCENARIO, self.place(section), section)))
                continue
            if section not in SECTIONS:
                raise self._unknown(section, "", (*SECTIONS, "personas", "vary"))
            if not isinstance(values, dict):
                problem = f"{section}: found {values!r}, want a table of settings"
                raise BadInput(
                    f"{self.place(section)}: {problem}", hint=f"write [{section}], and its settings below it"
                )
            for name, value in values.items():
                key = f"{section}.{SYNONYMS.get((section, name), name)}"
                if key == "target.model" and isinstance(value, str) and value.endswith(".json"):  # as with --models
                    key = "target.model_set"
                if key not in known:
                    names = [setting.name for setting in known.values() if setting.section == section]
                    raise self._unknown(name, section, names)
                origin = Origin(Source.SCENARIO, self.place(section, name), f"{section}.{name}")
                if known[key].confirms:
                    hint = f"give {known[key].flag} on the command line"
                    raise BadInput(f"{origin.place}: only you can confirm this, and no file", hint=hint)
                entries.append(read(known[key], value, origin))
        for place, entry in enumerate(entries):
            twin = next((one for one in entries[:place] if one.setting is entry.setting), None)
            if twin is not None:
                message = f"{entry.origin.place}: the same setting as {twin.origin.key}"
                raise BadInput(message, hint="give one of them")
        return entries

    def personas(self) -> tuple[Persona, ...]:
        """The scenario's own personas, a table each; raises `BadInput` for what is unknown or wrong in one."""
        tables = self.content.get("personas", {})
        if not isinstance(tables, dict):
            raise BadInput(f"{self.place('personas')}: personas: found {tables!r}, want a table for each")
        if len(tables) > _MOST_PERSONAS:
            problem = f"personas: found {len(tables):,}, want at most {_MOST_PERSONAS}"
            raise BadInput(f"{self.place('personas')}: {problem}", hint="leave out those that no mix names")
        return tuple(
            read_persona(name, table, place=partial(self.place, f"personas.{name}")) for name, table in tables.items()
        )

    def _unknown(self, name: str, section: str, known: Iterable[str]) -> BadInput:
        names = list(known)
        hint = nearest(name, names)
        elsewhere = [setting.section for setting in settings() if setting.name == name]
        if elsewhere:
            hint = f"it belongs in [{elsewhere[0]}]"
        problem = f"{section}.{name}: an unknown key" if section else f"{name}: an unknown section"
        return BadInput(f"{self.place(section or name, name if section else '')}: {problem}", hint=hint)

    def place(self, section: str, name: str = "") -> str:
        """File and line of a key, as well as can be found in the text."""
        line = _find_line(self.text, section, name)
        return f"{self.path}:{line}" if line else str(self.path)


# Plural and singular are easily confused, and mean the same.
SYNONYMS = {
    ("target", "models"): "model",
    ("target", "headers"): "header",
    ("load", "rates"): "rate",
    ("load", "concurrency"): "users",
    ("slo", "slo"): "objectives",
}

PERSONA_TYPES = {"input_tokens": TOKENS, "output_tokens": TOKENS, "think": THINK, "turns": TURNS}


def read_persona(name: str, table: object, *, place: Callable[[str], str]) -> Persona:
    """One persona from its table in a scenario file; `place` says where a key of it stands. Raises `BadInput`."""
    if not isinstance(table, dict) or not table:
        raise BadInput(f"{place('')}: personas.{name}: found {table!r}, want a table of its settings")
    if not name or any(sign in name for sign in ":,") or name != name.strip():
        raise BadInput(f"{place('')}: {name!r} cannot be a persona's name", hint="write it without colons and commas")
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in PERSONA_TYPES:
            hint = nearest(key, PERSONA_SETTINGS)
            raise BadInput(f"{place(key)}: personas.{name}.{key}: an unknown key", hint=hint)
        try:
            values[key] = PERSONA_TYPES[key].read(value)
        except ValueError as error:
            raise BadInput(f"{place(key)}: personas.{name}.{key}: {error}") from None
    return Persona(name=name, **values)


def _parse(path: Path, text: str) -> dict[str, object]:
    def unrepeated(pairs: list[tuple[str, object]]) -> dict[str, object]:
        # As in TOML: of two values of one key, JSON would silently take the last.
        counts = Counter(name for name, _ in pairs)
        for name, value in pairs:
            if counts[name] > 1:
                raise BadInput(f"{path}: {name} is given twice in one object", hint="give it once")
            if SURROGATE.search(f"{name}{value}"):
                raise BadInput(f"{path}: {name!r}: found {value!r}, want text that is valid Unicode")
        return dict(pairs)

    parse: Callable[[str], object] = tomllib.loads
    if path.suffix.lower() == ".json":
        parse = partial(json.loads, object_pairs_hook=unrepeated)
    try:
        content = parse(text)
    except (json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        where = re.search(r"line (\d+)", str(error))
        line = f":{where[1]}" if where else ""
        reason = re.sub(r"\s*\(at .*\)$|: line \d+ column .*", "", str(error))
        language = "JSON" if isinstance(error, json.JSONDecodeError) else "TOML"
        hint = "fix the file at this line"
        if where and "\\" in text.split("\n")[int(where[1]) - 1]:
            hint += "; in a path, write \\\\ or / for \\"
        raise BadInput(f"{path}{line}: not {language}: {reason}", hint=hint) from None
    except RecursionError:
        raise BadInput(f"{path}: nested too deeply", hint="a scenario has sections and settings only") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: found a {type(content).__name__}, want an object with sections")
    return content


def _find_line(text: str, section: str, name: str) -> int | None:
    """The line of `name` after the head of `section`, in TOML or JSON; comments may deceive it, tables may not."""
    inside = not name
    wanted = name or section
    head = re.compile(rf"\s*(\[+\s*\"?{re.escape(section)}\"?\s*[\].]|\"?{re.escape(section)}\"?\s*[:=.])")
    key = re.compile(rf"(^|[\s{{,.\[])\"?{re.escape(wanted)}\"?\s*[]:=.]")
    for number, line in enumerate(text.splitlines(), start=1):
        if not inside and head.match(line):
            inside = True
        if inside and not line.lstrip().startswith("#") and key.search(line):
            return number
    return None
