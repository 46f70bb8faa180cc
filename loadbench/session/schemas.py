"""The JSON Schema (2020-12) of each document that loadbench writes, and of scenario files.

Those of documents are made of their types, that of scenario files of the settings' declarations. They say which keys
there are and what values look like; what else must hold, such as that a level has users or a rate, only loadbench says.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

import msgspec

from loadbench.engine.selfcheck import SelfCheck
from loadbench.plan.personas import PERSONA_SETTINGS
from loadbench.plan.scenario_file import PERSONA_TYPES, SYNONYMS
from loadbench.plan.settings import SECTIONS, setting_of, settings
from loadbench.results.capacity import Capacities, Capacity
from loadbench.results.compare import Comparison
from loadbench.results.compare_capacity import CapacityComparison
from loadbench.results.grid import Grid
from loadbench.results.models import Catalogue
from loadbench.results.quality import Annotation, Quality
from loadbench.results.run import Run
from loadbench.results.saved import Baseline
from loadbench.targets.check_result import CheckReport

if TYPE_CHECKING:
    from collections.abc import Mapping

DIALECT = "https://json-schema.org/draft/2020-12/schema"
DOCUMENTS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "run": Run,
    "capacity": Capacity,
    "capacities": Capacities,
    "compare": Comparison,
    "grid": Grid,
    "compare-capacity": CapacityComparison,
    "baseline": Baseline,
    "annotation": Annotation,
    "quality": Quality,
    "selfcheck": SelfCheck,
    "models": Catalogue,
    "doctor": CheckReport,
}


def document_schema(name: str) -> dict[str, Any]:
    """That of a document; the same for every version of Python."""

    def any_value(kind: type) -> dict[str, object]:
        """A setting or a fact of the environment may have any value."""
        if kind is object:
            return {"description": "Any value."}
        raise NotImplementedError(kind)

    kind = DOCUMENTS[name]
    schema = msgspec.json.schema(kind, schema_hook=any_value)
    for definition in schema["$defs"].values():
        # Up to Python 3.12 a docstring keeps the indentation of its lines.
        definition["description"] = inspect.cleandoc(definition.get("description", ""))
    return {"$schema": DIALECT, "title": f"loadbench.{name}/1", **schema}


def scenario_schema() -> dict[str, Any]:
    """That of scenario files, TOML or JSON: sections of settings, personas, and the question that they answer."""
    sections: dict[str, Any] = {}
    for section, declared in SECTIONS.items():
        of_section = [one for one in settings() if one.section == section and not one.confirms]
        names = {one.name: one for one in of_section}
        names |= {also: names[name] for (where, also), name in SYNONYMS.items() if where == section and name in names}
        sections[section] = {
            "type": "object",
            "description": inspect.cleandoc(declared.__doc__ or ""),
            "properties": {name: {"description": one.help, **one.type.form} for name, one in names.items()},
            "additionalProperties": False,
        }
    persona = {
        "type": "object",
        "properties": {name: dict(PERSONA_TYPES[name].form) for name in PERSONA_SETTINGS},
        "minProperties": 1,
        "additionalProperties": False,
    }
    question = {"type": "string", "description": "What the scenario answers. Default: a comment in its first line."}
    vary = {"description": setting_of("grid.vary").help, **setting_of("grid.vary").type.form}
    personas = {"type": "object", "description": "Kinds of users.", "additionalProperties": persona}
    return {
        "$schema": DIALECT,
        "title": "a scenario of loadbench",
        "type": "object",
        "properties": {"question": question, **sections, "vary": vary, "personas": personas},
        "additionalProperties": False,
    }
