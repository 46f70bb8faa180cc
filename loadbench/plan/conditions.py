"""The conditions that two measurements must share to be parts of one: a resumed search compares them key by key.

Each setting declares whether it counts (`Setting.comparable`). A prompt file counts by its content.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import orjson

from loadbench.core.errors import BadInput
from loadbench.plan.settings import Comparable, settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loadbench.plan.scenario import Scenario


def conditions(scenario: Scenario) -> dict[str, object]:
    """The conditions by key, as people write them; raises `BadInput` for a prompt file that cannot be read."""
    record = scenario.effective()
    values: dict[str, object] = {
        setting.key: record[setting.section][setting.name]
        for setting in settings(scenario.command)
        if setting.comparable is not Comparable.FREE and setting.key not in scenario.not_used
    }
    values |= {f"personas.{name}": persona for name, persona in record.get("personas", {}).items()}
    path = scenario.work.prompts
    if path is not None:
        try:
            with path.open("rb") as file:
                values["work.prompts"] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
        except OSError as error:
            raise BadInput(f"{path}: {error.strerror or error}", hint="name a prompt file") from None
    plain: dict[str, object] = orjson.loads(orjson.dumps(values, option=orjson.OPT_NON_STR_KEYS, default=str))
    return plain


def differing(now: Mapping[str, object], then: Mapping[str, object]) -> list[str]:
    """The keys of `now` whose values differ. Keys that only `then` has are settings without effect, recorded before;
    those that it lacks are settings that are newer, and then the default was in force."""
    defaults = {setting.key: setting.type.show(setting.default) for setting in settings() if setting.default is False}
    return sorted(key for key, value in now.items() if then.get(key, defaults.get(key)) != value)


def content_hash(conditions: dict[str, object]) -> str:
    """Sixteen hexadecimal digits that identify the conditions."""
    return hashlib.sha256(orjson.dumps(conditions, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
