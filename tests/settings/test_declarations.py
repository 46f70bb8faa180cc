"""Every command × every setting: taken and in force, or refused with the reason; nothing is ignored in silence."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from loadbench.core.errors import BadInput
from loadbench.plan.pairs import sides
from loadbench.plan.settings import setting_of, settings
from loadbench.plan.sources import recorded, resolve
from tests.settings.table import (
    BASE,
    BLOCKERS,
    COMMANDS,
    LENGTHS,
    LENGTHS_TEXT,
    ROWS,
    TRACE,
    TRACE_TEXT,
    flags_for,
    given_for,
)

PAIRS = [(command, setting.key) for command in COMMANDS for setting in settings()]
TAKEN = [(command, key) for command, key in PAIRS if command in setting_of(key).commands]
REFUSED = [pair for pair in PAIRS if pair not in TAKEN]
NEEDS = [(command, key, need.reason) for command, key in TAKEN for need in setting_of(key).needs]


@pytest.fixture(autouse=True)
def _files(tmp_path, monkeypatch):
    """The files that rows name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models.json").write_text('["other"]', encoding="utf-8")
    (tmp_path / TRACE).write_text(TRACE_TEXT, encoding="utf-8")
    (tmp_path / LENGTHS).write_text(LENGTHS_TEXT, encoding="utf-8")
    (tmp_path / "other.csv").write_text(TRACE_TEXT.replace(",4", ",5"), encoding="utf-8")
    (tmp_path / "command.toml").write_text('[target]\nserver_cmd = "llama-server --port {port}"', encoding="utf-8")
    (tmp_path / "prompts.txt").write_text("One.\nTwo.\n", encoding="utf-8")


def resolved(command, flags, environment=None):
    """The scenario; of a comparison that of side A, whose sides are two servers unless the flags name one."""
    file = None
    if "yes_run" in {**flags, **{name.lower().removeprefix("loadbench_"): 1 for name in environment or {}}}:
        file = Path("command.toml")
    scenario = resolve(flags=flags, environment=environment or {}, command=command, file=file)
    if command != "compare":
        return scenario
    url = flags.get("url")
    named = {"profile", "adapter"} & set(flags)
    if url is not None or named or flags.get("kind") == "foundry":
        b = "model=one" if "same" in flags else "model=two"
        return sides(scenario, a="model=one", b=b)[0] if not scenario.target.model else scenario
    return sides(scenario, a="http://127.0.0.1:1", b="http://127.0.0.1:2")[0]


def test_every_setting_has_a_row():
    """A new setting needs a row here, which says how to see its effect; and no row is left over."""
    assert set(ROWS) == {setting.key for setting in settings()}
    assert set(BLOCKERS) == {need.reason for setting in settings() for need in setting.needs}
    assert {command for setting in settings() for command in setting.commands} == {*COMMANDS, "compare-saved"}


@pytest.mark.parametrize(("command", "key"), TAKEN)
def test_a_setting_that_is_taken_is_in_force(command, key):
    """With what it needs, it is resolved to its value, recorded with its flag as the origin, and never overridden."""
    setting, value = setting_of(key), ROWS[key].value
    scenario = resolved(command, given_for(key, flags_for(command, key)))
    assert key not in scenario.not_used
    assert str(scenario.origins[key]).startswith("flag ")
    assert getattr(getattr(scenario, setting.section), setting.name) == setting.type.read(value)
    assert scenario.effective()[setting.section][setting.name] is not None or value == "none"
    assert scenario.unused == ()


@pytest.mark.parametrize(("command", "key"), [pair for pair in TAKEN if pair[0] in {"sweep", "capacity"}])
def test_a_run_is_continued_with_the_settings_of_its_record(command, key):
    """What the record says, read again, is the same; a secret, the folder and a confirmation are not taken from it."""
    scenario = resolved(command, given_for(key, flags_for(command, key)))
    record = orjson.loads(orjson.dumps(scenario.effective(), option=orjson.OPT_NON_STR_KEYS))
    reused = recorded(record, scenario.recorded_origins())
    if key in {"target.header", "target.server_env"}:
        with pytest.raises(BadInput, match="has a secret, which is not kept"):
            resolve(flags={}, environment={}, command=command, reused=reused)
        return
    again = resolve(flags={}, environment={}, command=command, reused=reused)
    before, after = scenario.effective(), again.effective()
    if key == "target.yes_run":  # whose run has the name of its file
        before["report"].pop("name")
        after["report"].pop("name")
    if key in {"target.yes_load", "target.yes_run", "report.name", "report.out"}:
        assert key not in reused
        before[setting_of(key).section].pop(setting_of(key).name)
        after[setting_of(key).section].pop(setting_of(key).name)
    assert after == before


@pytest.mark.parametrize(("command", "key"), REFUSED)
def test_a_setting_that_is_not_taken_is_refused_or_listed(command, key):
    """As a flag it is refused with the reason; as a variable it is listed as not used; it is recorded in neither."""
    setting = setting_of(key)
    if not [other for other in settings(command) if other.name == setting.name]:
        with pytest.raises(BadInput) as caught:
            resolve(flags={**BASE[command], setting.name: ROWS[key].value}, environment={}, command=command)
        named = [other for other in settings() if other.name == setting.name]
        assert caught.value.message in {f"{other.flag}: {other.why_not(command)}" for other in named}
        assert len(setting.why_not(command)) > 10
    if not [other for other in settings(command) if other.variable == setting.variable]:
        scenario = resolve(flags=BASE[command], environment={setting.variable: "1"}, command=command)
        (unused,) = scenario.unused
        named = [other for other in settings() if other.variable == setting.variable]
        assert str(unused) in {f"{setting.variable}: {other.why_not(command)}" for other in named}
        in_force = scenario.effective().get(setting.section, {}).get(setting.name)
        assert in_force is None or setting.default_in(command) != setting.default
        assert not scenario.is_set(key)


@pytest.mark.parametrize(("command", "key", "reason"), NEEDS)
def test_a_setting_without_effect_is_refused_or_overridden(command, key, reason):
    """A flag that would have no effect is refused with the reason. A variable is, too, or overridden by a flag."""
    setting, value = setting_of(key), ROWS[key].value
    add, drop = BLOCKERS[reason]
    taken = {other.name for other in settings(command)}
    flags = {
        name: given
        for name, given in {**flags_for(command, key), **add}.items()
        if name in taken and name not in (*drop, *ROWS[key].swap) and name != setting.name
    }
    if any(name not in taken for name in add if name not in {"by", "users", "rate"}):
        pytest.skip("the command does not take what would make it idle")
    if command == "replay" and {"users", "rate"} & set(add):
        pytest.skip("a replay has a trace's load")
    if command == "capacity" and "by" not in add and {"users", "rate"} & set(add):
        pytest.skip("a search has no such load")
    if isinstance(add.get("url"), tuple) and command in setting_of("target.url").one_value:
        pytest.skip("the command takes one URL")
    if (command, key) == ("capacity", "slo.undecided"):
        pytest.skip("a search is a gate itself")
    value = {"target.api": "ollama", "target.kind": "openai"}.get(key, value)
    with pytest.raises(BadInput) as caught:
        resolved(command, {**flags, setting.name: value})
    assert reason in caught.value.message
    typed = setting.flags[1] if value is False else setting.flag
    assert caught.value.message.startswith(f"{typed}: has no effect")
    assert caught.value.hint
    if setting.type.multiple or value is True or value is False or key == "target.api":
        return
    refusal, scenario = "", None
    try:
        scenario = resolved(command, flags, {setting.variable: str(value)})
    except BadInput as error:
        refusal = error.message
    if scenario is None:
        assert refusal.startswith(f"{setting.variable}: has no effect")
        assert reason in refusal
    else:
        assert not scenario.is_set(key)
        default = setting.default_in(command)
        recorded = scenario.effective()[setting.section][setting.name]
        # Users who start within a shorter warm-up are spread over that.
        brought = None if default is None else setting.type.show(default)
        brought = "10ms" if key == "load.ramp" and add.get("warm_up") == "10ms" else brought
        assert recorded is None or recorded == brought
        assert setting.variable in {value.origin.where for value in scenario.unused}
