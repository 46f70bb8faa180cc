"""Data sets as levels send them, in virtual time: dialogues turn by turn, rows in turn, each with its own settings."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from loadbench.engine.level import LevelSpec, level_plan
from loadbench.plan.load import Shard
from loadbench.plan.prompt_source import prompt_source
from loadbench.plan.prompts import Prompt, TextPrompts
from loadbench.plan.sources import resolve
from tests.engine.scripted import Act, run_scripted
from tests.engine.test_workload import Asked

if TYPE_CHECKING:
    from pathlib import Path

S = 1_000_000_000
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
TURNS = [["a1", "a2"], ["b1"], ["c1", "c2", "c3"], ["d1", "d2"], ["e1"]]


def flags(folder: Path, rows: list[Any], **others: str) -> dict[str, str]:
    """A level of twenty seconds with this data set."""
    file = folder / "p.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    given = {"users": "1", "max_tokens": "6", "duration": "20s", "warm_up": "2s", "prompts": str(file)}
    return {name: value for name, value in (given | others).items() if value}


def said(body: dict[str, Any], role: str = "user") -> list[str]:
    """What this role said, without the nonce."""
    return [message["content"].split()[-1] for message in body["messages"] if message["role"] == role]


@pytest.fixture
def dialogues(tmp_path):
    """Five dialogues of one to three turns, with one user."""
    return Asked(flags(tmp_path, [{"turns": turns} for turns in TURNS]))


def test_a_dialogue_is_played_turn_by_turn(dialogues):
    """Each row's turns in order, then the next row's, each with the server's responses and one nonce."""
    plays = [turns[: number + 1] for turns in TURNS for number in range(len(turns))]
    assert len(dialogues.bodies) > 2 * len(plays)
    for number, body in enumerate(dialogues.bodies):
        assert said(body) == plays[number % len(plays)]
        roles = [message["role"] for message in body["messages"]]
        assert roles == (["user", "assistant"] * 3)[: len(roles)]
        if len(roles) > 1:
            assert body["messages"][:-2] == dialogues.bodies[number - 1]["messages"]
            assert len(body["messages"][-2]["content"].split()) == 6
    assert len({body["messages"][0]["content"] for body in dialogues.bodies if len(body["messages"]) == 1}) > 5
    turns = Counter(one.request.turn for one in dialogues.samples)
    assert turns[1] > turns[2] > turns[3] > 0
    assert all(one.request.warm == (one.request.turn > 1) for one in dialogues.samples)
    assert all((one.request.prompt_index is None) == (one.request.turn > 1) for one in dialogues.samples)


def test_users_take_rows_in_turn_wherever_they_run(tmp_path):
    """Three users begin with the first three rows and go on with every third; two workers send the same."""
    given = flags(tmp_path, [{"turns": turns} for turns in TURNS], users="3")
    whole = Asked(given)
    begun = {user: [said(body)[0] for body in _of_user(whole, user) if len(body["messages"]) == 1] for user in range(3)}
    assert {user: texts[:3] for user, texts in begun.items()} == {
        0: ["a1", "d1", "b1"],
        1: ["b1", "e1", "c1"],
        2: ["c1", "a1", "d1"],
    }
    for index in (0, 1):
        part = Asked(given, shard=Shard(index, 2))
        for user in range(3):
            theirs = _of_user(part, user)
            assert bool(theirs) == (user % 2 == index)
            both = min(len(theirs), len(_of_user(whole, user)))
            prompts = [body["messages"][0] for body in theirs[:both]]
            assert prompts == [body["messages"][0] for body in _of_user(whole, user)[:both]]


def _of_user(asked: Asked, user: int) -> list[dict[str, Any]]:
    """The bodies of a user's requests, which begin with one of its prompts."""
    source = prompt_source(asked.scenario.work, key="m/0", calibration=None)
    firsts = {source.next(3 * taken + user, user).text for taken in range(100)}
    return [body for body in asked.bodies if body["messages"][0]["content"] in firsts]


def test_a_rate_sends_the_first_turn_alone(tmp_path):
    """No user is there to read the response; nor in the workshop's benchmark, where each prompt has one."""
    rows = [{"turns": turns} for turns in TURNS]
    asked = Asked(flags(tmp_path, rows, users="", rate="5"))
    assert {one.request.turn for one in asked.samples} == {None}
    assert [said(body) for body in asked.bodies][:6] == [["a1"], ["b1"], ["c1"], ["d1"], ["e1"], ["a1"]]
    given = flags(tmp_path, rows, users="", duration="", warm_up="")
    workshop = resolve(flags=given, environment={}, command="workshop")
    assert not level_plan(workshop, LevelSpec(load=workshop.loads[0], key="k")).plays_turns


def test_a_failed_turn_ends_its_dialogue():
    """The next row follows, with its first turn."""
    prompts = [Prompt(f"{row}1", turns=2, then=(Prompt(f"{row}2"),)) for row in "abc"]
    source = TextPrompts(prompts, unique=False)
    taken = []
    # The second, fourth, … request fails; a row's second turn comes only after a response.
    ran = run_scripted(
        resolve(flags={"users": "1"}, environment={}).loads[0],
        lambda number: taken.append(number) or Act(first_ns=S, status=500 if number in (0, 3) else 200),
        plan={"prompts": source},
        duration_ns=20 * S,
    )
    positions = [(one.request.turn, one.request.prompt_index) for one in ran.by_number()][:7]
    assert positions == [(1, 0), (1, 1), (2, None), (1, 2), (1, 0), (2, None), (1, 1)]


def test_each_row_has_its_own_limit_fields_and_system_message(tmp_path):
    """The row's limit applies to each of its turns, and the others' that of the flag."""
    system, tools = {"role": "system", "content": "Be kind."}, [{"type": "function", "function": {"name": "f"}}]
    rows = [
        {"messages": [system, {"role": "user", "content": "a1"}], "temperature": 0.5, "output_tokens": 3},
        {"turns": ["b1", "b2"], "max_tokens": 5, "tools": tools},
        {"prompt": "c1", "extra_body": {"top_k": 7, "seed": None}},
    ]
    asked = Asked(flags(tmp_path, rows), system="Be brief.")
    first, second, third, fourth = asked.bodies[:4]
    assert [body["max_tokens"] for body in asked.bodies[:4]] == [3, 5, 5, 6]
    assert (first["temperature"], first["messages"][0]) == (0.5, system)
    assert second["tools"] == third["tools"] == tools
    assert "tools" not in fourth
    assert fourth["top_k"] == 7
    # A row's own system message takes the place of the run's, and is as cached as that.
    leads = [body["messages"][0]["content"] for body in (second, third, fourth)]
    assert leads == ["Be brief."] * 3
    assert [one.request.warm for one in sorted(asked.samples, key=lambda one: one.due_ns)][:4] == [
        True,
        True,
        True,
        False,
    ]


def test_drawn_limits_are_drawn_for_each_turn(tmp_path):
    """By seed: the same again, and not one for the whole dialogue."""
    rows = [{"turns": ["a1", "a2", "a3"]}, {"turns": ["b1", "b2"], "max_tokens": 40}]
    given = flags(tmp_path, rows, output_tokens="uniform:2,30", max_tokens="")
    drawn = [[body["max_tokens"] for body in Asked(given).bodies][:10] for _ in range(2)]
    assert drawn[0] == drawn[1]
    assert drawn[0][3:5] == [40, 40]
    assert len(set(drawn[0][:3] + drawn[0][5:8])) > 3


def test_the_nonce_is_in_the_first_text_of_the_user():
    """Before an image, which would be cached; a system message stays as it is, and so does what follows."""
    system, user = {"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}
    cases = [
        ([system, user, {"role": "assistant", "content": "So."}, user], 1),
        ([{"role": "user", "content": [{"type": "text", "text": "Why?"}, IMAGE]}], 0),
        ([{"role": "user", "content": [IMAGE, {"type": "text", "text": "Why?"}]}], 0),
        ([{"role": "user", "content": [IMAGE]}], 0),
    ]
    source = TextPrompts([Prompt("", messages=tuple(messages)) for messages, _ in cases])
    for number, (messages, at) in enumerate(cases):
        sent, again = (source.next(number + repeat * len(cases), None) for repeat in (0, 1))
        assert sent.warm == (messages[0] is system)
        assert [one for place, one in enumerate(sent.messages) if place != at] == messages[:at] + messages[at + 1 :]
        content, before = sent.messages[at]["content"], messages[at]["content"]
        assert content != again.messages[at]["content"]
        if isinstance(before, str):
            assert content.split(maxsplit=1)[1] == before
        elif before[0] == IMAGE:
            assert content[0]["type"] == "text"
            assert content[1:] == before
        else:
            assert content[0]["text"].split()[1:] == ["Why?"]
            assert content[1:] == before[1:]
    unchanged = TextPrompts([Prompt("", messages=tuple(messages)) for messages, _ in cases], unique=False)
    assert [unchanged.next(number, None).messages for number in range(4)] == [tuple(one) for one, _ in cases]
    with_tools = Prompt("Why?", fields={"tools": [{}]})
    assert TextPrompts([with_tools]).next(0, None).warm
