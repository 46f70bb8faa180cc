"""Data sets: every form in which people have prompts, as the requests that are sent."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loadbench.core.errors import BadInput
from loadbench.plan import data_sets
from loadbench.plan.data_sets import DataSet, read_data_set, read_data_set_once
from loadbench.plan.prompts import Prompt, TextPrompts
from loadbench.plan.sources import resolve
from loadbench.session.setup import check_data_set
from loadbench.wire.body import request_body
from loadbench.wire.openai import Api

if TYPE_CHECKING:
    from pathlib import Path

USER, SYSTEM = {"role": "user", "content": "Why?"}, {"role": "system", "content": "Be kind."}
ANSWER, NEXT = {"role": "assistant", "content": "So."}, {"role": "user", "content": "And then?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "noon"}
TOOL = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "default": None}}}
LED = {"system": "Be kind."}
WORDS = ["Why?", "How?", "Who?"]
DEVELOPER = {"role": "developer", "content": "x"}
SHARED = [{"from": name, "value": said} for name, said in (("system", "Be kind."), ("gpt", "Hi"), ("human", "Why?"))]
SHARED += [{"from": name, "value": said} for name, said in (("gpt", "So."), ("human", "And then?"), ("gpt", "So."))]
SORT = {"role": "user", "content": "Sort.\n\nb a"}
TEXT, SO = {"type": "text", "text": "Why?"}, {"type": "text", "text": "So."}
AT_URL = {"type": "image_url", "image_url": {"url": "http://x/a.png"}}
PNG = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORAAA"}}
ANTHROPIC_IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORAAA"}}
INPUT_TEXT = {"type": "input_text", "text": "Why?"}
INPUT_IMAGE = {"type": "input_image", "image_url": "http://x/a.png"}
TYPED = {"type": "system", "content": "Be kind."}
QWEN_IMAGE = {"type": "image", "image": "http://x/a.png"}
INLINE = {"mimeType": "image/png", "data": "iVBORAAA"}
USES = {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "now", "input": {}}]}
GIVES, GIVEN = {"type": "tool_result", "tool_use_id": "c1", "content": "noon"}, RESULT
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
PART = {"role": "user", "content": [TEXT]}
OLD_CALL = {"role": "assistant", "content": None, "function_call": {"name": "now", "arguments": "{}"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def read(folder: Path, content: str | bytes, name: str = "p.jsonl") -> DataSet:
    """The data set in a file of this content."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_data_set(path)


def rows(folder: Path, *items: object) -> DataSet:
    """The data set of these rows."""
    return read(folder, "\n".join(map(json.dumps, items)))


def row(folder: Path, item: object) -> Prompt:
    """The prompt of this row."""
    (prompt,) = rows(folder, item, item).prompts[:1]
    return prompt


def played(prompt: Prompt) -> list[list[Any]]:
    """What is sent turn by turn, without the server's responses."""
    return [list(turn.sent) for turn in (prompt, *prompt.then)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.json", json.dumps(["Why?", {"prompt": "How?", "max_tokens": 9, "expected": ["x"]}, {"text": "Who?"}])),
        ("p.jsonl", '"Why?"\n\n{"prompt": "How?", "max_tokens": 9}\r\n{"text": "Who?"}\n'),
        ("p.JSON", "\ufeff" + json.dumps(["Why?", {"prompt": "How?", "max_tokens": 9}, "Who?"])),
        ("p.json", '"Why?"\n{"prompt": "How?", "max_tokens": 9}\n"Who?"'),
        ("p.jsonl", json.dumps(["Why?", {"question": "How?", "output_tokens": 9.0}, {"query": "Who?"}], indent=1)),
        ("p.data", '[\n"Why?", {"prompt": "How?", "max_output_tokens": "9"},\n"Who?"]'),
        ("p", '{"prompt": "Why?"}\n{"prompt": "How?", "max_completion_tokens": 9}\n{"prompt": "Who?"}'),
        ("p.json", json.dumps({"data": ["Why?", {"prompt": "How?", "max_new_tokens": 9}, "Who?"]})),
        ("p.json", json.dumps({"rows": [{"row": {"text": "Why?"}}, {"text": "How?", "max_tokens": 9}, "Who?"]})),
        ("p.json", json.dumps({"text": dict(enumerate(WORDS)), "max_tokens": {0: None, 1: 9.0, 2: None}})),
        ("p.json", json.dumps({"prompt": WORDS, "max_tokens": [None, 9, None]}, indent=1)),
        ("p.csv", "prompt,max_tokens\nWhy?,\nHow?,9\nWho?,\n"),
        ("p.csv", "\ufeffId;Prompt;Max Tokens\r\n0;Why?;\r\n1;How?;9\r\n2;Who?;\r\n"),
        ("p.tsv", "question\toutput_tokens\nWhy?\t\nHow?\t9.0\nWho?\t"),
        ("p.csv", '[\n"Why?", {"prompt": "How?", "max_tokens": 9}, "Who?"]'),
    ],
)  # fmt: skip
@pytest.mark.parametrize("compressed", [False, True])
def test_the_content_shows_the_format(tmp_path, name, content, compressed):
    """Whatever the file is called, and whether it is compressed or not."""
    data = gzip.compress(content.encode()) if compressed else content.encode()
    given = read(tmp_path, data, name + ".gz" * compressed)
    assert given.prompts == (Prompt("Why?"), Prompt("How?", 9), Prompt("Who?"))
    assert (given.rows, given.skipped) == (3, ())


def test_any_other_file_has_a_prompt_per_line(tmp_path):
    """Empty lines are skipped; only line feeds end a line, with or without a carriage return."""
    given = read(tmp_path, "Why?\r\n\n  \nHow\u2028so?\n日本?", "p.txt")
    assert [prompt.text for prompt in given.prompts] == ["Why?", "How\u2028so?", "日本?"]
    assert (given.format, given.rows) == ("text", 3)
    assert read(tmp_path, '{"prompt": "x"}\n', "p.txt").prompts[0].text == '{"prompt": "x"}'
    assert read(tmp_path, "[INST] Why?\nWho?", "p.lst").prompts[0].text == "[INST] Why?"


@pytest.mark.parametrize(
    ("item", "turns"),
    [
        # One request, as it was recorded.
        ({"messages": [USER]}, [[USER]]),
        ([SYSTEM, USER], [[SYSTEM, USER]]),
        ({"messages": [SYSTEM, USER, ANSWER, NEXT]}, [[SYSTEM, USER, ANSWER, NEXT]]),
        ({"messages": json.dumps([SYSTEM, USER])}, [[SYSTEM, USER]]),
        ({"messages": [USER, CALLING, RESULT, ANSWER]}, [[USER, CALLING, RESULT]]),
        ({"messages": [USER, CALLING, RESULT, ANSWER, NEXT, ANSWER]}, [[USER, CALLING, RESULT, ANSWER, NEXT]]),
        ({"messages": [USER, {**ANSWER, "prefix": True}]}, [[USER, {**ANSWER, "prefix": True}]]),
        ({"messages": [USER, ANSWER], "continue_final_message": True}, [[USER, ANSWER]]),
        ({"prompt": [SYSTEM, USER]}, [[SYSTEM, USER]]),
        ({"prompt": "Why?", "system_prompt": "Be kind."}, [[SYSTEM, USER]]),
        ({"system": "Be kind.", "messages": [USER]}, [[SYSTEM, USER]]),
        ({"system": "Be kind.", "messages": [DEVELOPER, USER]}, [[DEVELOPER, USER]]),
        # A dialogue: the user's part of it, turn by turn.
        ({"messages": [SYSTEM, USER, ANSWER, NEXT, ANSWER]}, [[SYSTEM, USER], [NEXT]]),
        ({"messages": [USER, ANSWER]}, [[USER]]),
        ({"messages": [ANSWER, SYSTEM, USER, ANSWER, ANSWER, NEXT, USER, ANSWER]}, [[SYSTEM, USER], [NEXT, USER]]),
        ({"messages": [USER, ANSWER, SYSTEM, NEXT, ANSWER]}, [[USER], [SYSTEM, NEXT]]),
        ({"messages": [USER, ANSWER, {"role": "user", "content": " "}, ANSWER, NEXT, ANSWER]}, [[USER], [NEXT]]),
        ({"conversation": [{**USER, "toxic": False, "hashed_ip": "ab"}, ANSWER, NEXT, ANSWER]}, [[USER], [NEXT]]),
        ({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}, [[USER]]),
        ({"conversations": SHARED}, [[SYSTEM, USER], [NEXT]]),
        ({"conversations": [{"from": "gpt", "value": "Hi"}, {"from": "human", "value": "Why?"}]}, [[USER]]),
        ([{"from": "User", "value": "Why?"}, {"from": "chatgpt", "value": "So."}], [[USER]]),
        ({"conversation": [{"human": "Why?", "assistant": "So."}, {"human": "And then?"}]}, [[USER, ANSWER, NEXT]]),
        ({"dialog": ["Why?", "So.", "And then?", "So."]}, [[USER], [NEXT]]),
        ({"question_id": 80, "turns": ["Why?", "And then?"], "reference": ["x", "y"]}, [[USER], [NEXT]]),
        ({"turns": ["Why?"]}, [[USER]]),
        ({"prompt": ["Why?", "And then?"], "reference": []}, [[USER], [NEXT]]),
        ({"prompt": ["Why?"], "system": "Be kind."}, [[SYSTEM, USER]]),
        ({"id": 1, "data": ["Why?", "So.", "And then?", "So."]}, [[USER], [NEXT]]),
        ({"chat": [{"content": "Why?"}, {"content": "So."}, {"content": "And then?"}]}, [[USER, ANSWER, NEXT]]),
        ({"turns": [{"text": "Why?"}, {"text": "And then?"}]}, [[USER], [NEXT]]),
        # Alpaca and its relatives.
        ({"instruction": "Sort.", "input": "b a", "output": "a b"}, [[SORT]]),
        ({"instruction": "Sort.", "input": " ", "output": "a b"}, [[{"role": "user", "content": "Sort."}]]),
        ({"instruction": "Sort.", "context": "b a", "response": "a b"}, [[SORT]]),
        ({"instruction": "And then?", "history": [["Why?", "So."]], **LED}, [[SYSTEM, USER, ANSWER, NEXT]]),
        ({"prompt": "[1, 2, 3]"}, [[{"role": "user", "content": "[1, 2, 3]"}]]),
        # Requests inside of rows: logs, batches of other providers, preferences, trees of messages.
        ({"custom_id": "a", "params": {"system": "Be kind.", "messages": [USER], "max_tokens": 9}}, [[SYSTEM, USER]]),
        ({"key": "a", "request": {"contents": [{"parts": [{"text": "Why?"}]}]}}, [[{**USER, "content": [TEXT]}]]),
        ({"recordId": "a", "modelInput": {"messages": [USER]}, "max_tokens": 5}, [[USER]]),
        ({"input": {"messages": [USER, ANSWER, NEXT]}, "preferred_output": [ANSWER]}, [[USER, ANSWER, NEXT]]),
        ({"message_tree_id": "a", "prompt": {"text": "Why?", "role": "prompter", "replies": [{}]}}, [[USER]]),
        ({"custom_id": "a", "request": {"body": {"messages": [USER]}}}, [[USER]]),
        ({"body": {"prompt": ["Why?"]}}, [[USER]]),
        # Texts with what belongs to them.
        ({"question": "Why?", "context": "It is so."}, [[{**USER, "content": "It is so.\n\nWhy?"}]]),
        ({"input": "Why?", "context": "It is so.", "answers": ["x"]}, [[{**USER, "content": "It is so.\n\nWhy?"}]]),
        ({"question": "Why?", "passage": " "}, [[USER]]),
        ({"text_input": "Why?"}, [[USER]]),
        ({"role": "user", "content": "Why?"}, [[USER]]),
        ({"text": "Why?", "image": "http://x/a.png"}, [[{**USER, "content": [TEXT, AT_URL]}]]),
        ({"prompt": "Why?", "images": ["iVBORAAA"], **LED}, [[SYSTEM, {**USER, "content": [TEXT, PNG]}]]),
        # Other forms of messages and their parts.
        ({"messages": [TYPED, {"type": "human", "content": "Why?"}]}, [[SYSTEM, USER]]),
        ({"chat_messages": [{"text": "Why?", "sender": "human"}, {"text": "So.", "sender": "assistant"}]}, [[USER]]),
        ({"chat": [{**USER, "role": "User"}, {**ANSWER, "role": "Chatbot"}, NEXT]}, [[USER, ANSWER, NEXT]]),
        ({"input": [{**USER, "content": [INPUT_TEXT, INPUT_IMAGE]}]}, [[{**USER, "content": [TEXT, AT_URL]}]]),
        ({"question": [[SYSTEM, USER], [NEXT]], "function": []}, [[SYSTEM, USER], [NEXT]]),
        ({"chat": [{"input": "Why?", "output": "So."}, {"input": "And then?", "output": ""}]}, [[USER], [NEXT]]),
        ({"conversation_input": [USER, ANSWER, NEXT]}, [[USER, ANSWER, NEXT]]),
        ({"contents": [{"role": "model", "parts": [{"text": "So."}]}, USER]}, [[{**ANSWER, "content": [SO]}, USER]]),
        ({"messages": [{**USER, "content": ["Why?", IMAGE]}]}, [[{**USER, "content": [TEXT, IMAGE]}]]),
        ({"messages": [{**USER, "images": ["iVBORAAA"]}]}, [[{**USER, "content": [TEXT, PNG]}]]),
        ({"messages": [{**USER, "content": [TEXT, ANTHROPIC_IMAGE]}]}, [[{**USER, "content": [TEXT, PNG]}]]),
        ({"messages": [{**USER, "content": [{"inlineData": INLINE}]}]}, [[{**USER, "content": [PNG]}]]),
        ({"messages": [{**USER, "content": [QWEN_IMAGE]}]}, [[{**USER, "content": [AT_URL]}]]),
        ({"messages": [USER, USES, {**USER, "content": [GIVES, TEXT]}]}, [[USER, CALLED, GIVEN, PART]]),
        ({"messages": [USER, USES, {"role": "user", "content": [GIVES]}, ANSWER]}, [[USER, CALLED, GIVEN]]),
        ({"system": [{"type": "text", "text": "Be kind."}], "messages": [USER]}, [[SYSTEM, USER]]),
        ({"systemInstruction": {"parts": [{"text": "Be kind."}]}, "contents": [USER]}, [[SYSTEM, USER]]),
        ({"messages": [USER, OLD_CALL, {"role": "function", "name": "now", "content": "noon"}, ANSWER]},
         [[USER, OLD_CALL, {"role": "function", "name": "now", "content": "noon"}]]),
    ],
)  # fmt: skip
def test_each_form_becomes_what_its_user_sent(tmp_path, item, turns):
    """Requests as recorded, and dialogues turn by turn; what data sets add to messages is not sent."""
    prompt = row(tmp_path, item)
    assert played(prompt) == turns
    if len(turns) > 1:
        assert prompt.turns == len(turns)


def test_the_samples_of_three_data_sets(tmp_path):
    """ShareGPT with a row without turns; MT-bench; rows with a limit each, which is not the recorded response's."""
    shared = [
        {"id": "a", "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
        {"id": "b", "conversations": []},
    ]
    given = read(tmp_path, json.dumps(shared), "p.json")
    assert (given.format, given.rows, given.skipped, given.places) == ("JSON, ShareGPT", 2, (("no prompt", 1),), (1,))
    assert given.prompts[0].output_tokens is None
    assert given.not_sent == ()
    given = rows(tmp_path, *({"prompt": "Why?", "output_tokens": limit} for limit in (10, 11)))
    assert given.limits == (10, 11)
    assert rows(tmp_path, {"turns": ["a", "b"]}, {"turns": ["c"]}).conversations == 1


def test_content_parts_are_passed_on(tmp_path):
    """As they are; what a table fills up with nothing is left out."""
    parts = [{"type": "text", "text": "What is this?", "image_url": None}, {**IMAGE, "text": None}]
    (message,) = row(tmp_path, {"messages": [{"role": "user", "content": parts}]}).messages
    assert message == {"role": "user", "content": [{"type": "text", "text": "What is this?"}, IMAGE]}


def test_fields_of_the_request_are_those_of_the_row(tmp_path):
    """By their names and types, also where a table has them as text; nothing that only has the same name."""
    fields = {"tools": [TOOL], "tool_choice": "auto", "response_format": {"type": "json_object"}, "temperature": 0.7}
    fields |= {"top_p": 1, "stop": ["\n"], "seed": 5, "logit_bias": {"5": -1}, "reasoning_effort": "low", "min_p": 0.1}
    prompt = row(tmp_path, {"messages": [USER], "id": 5, "category": "x", "max_tokens": 7, **fields})
    assert (prompt.fields, prompt.output_tokens) == (fields, 7)
    assert row(tmp_path, {"prompt": "Why?", "temperature": 0.7}).fields == {"temperature": 0.7}
    routed = {"provider": {"order": ["a"]}, "safe_prompt": True, "n": 1}
    assert row(tmp_path, {"messages": [USER], **routed}).fields == routed
    assert row(tmp_path, {"prompt": "Why?", "provider": {"name": "a"}, "n": 5}).fields is None
    none = {"tools": [], "tool_choice": None, "functions": "none", "temperature": True, "reasoning": "It is so."}
    assert row(tmp_path, {"messages": [USER], **none}).fields is None
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["prompt", "temperature", "seed", "tools", "ignore_eos", "stop", "reasoning_effort"])
    writer.writerow(["Why?", "0.5", "3.0", json.dumps([TOOL]), "True", "END", "low"])
    (prompt,) = read(tmp_path, table.getvalue(), "p.csv").prompts
    told = {
        "temperature": 0.5,
        "seed": 3,
        "tools": [TOOL],
        "ignore_eos": True,
        "stop": "END",
        "reasoning_effort": "low",
    }
    assert prompt.fields == told
    assert isinstance(prompt.fields["seed"], int)


def test_an_extra_body_is_kept_as_it_is(tmp_path):
    """With its nulls, which remove a field."""
    extra = {"seed": None, "chat_template_kwargs": {"enable_thinking": False}}
    assert row(tmp_path, {"prompt": "Why?", "extra_body": extra}).extra == extra
    with pytest.raises(BadInput, match="line 1 has an array as its extra_body"):
        rows(tmp_path, {"prompt": "Why?", "extra_body": [1]})


def test_lines_of_a_batch_are_sent_but_for_what_loadbench_decides(tmp_path):
    """The whole body, with fields that nobody knows; a response at its end is continued by the server."""
    body = {"model": "gpt-x", "messages": [SYSTEM, USER, ANSWER], "max_completion_tokens": 9, "stream": False}
    body |= {"tools": [TOOL], "custom": {"a": None}, "metadata": {"b": "c"}, "stream_options": {"x": 1}}
    line = {"custom_id": "r1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    given = rows(tmp_path, line, line)
    (prompt, _) = given.prompts
    assert played(prompt) == [[SYSTEM, USER, ANSWER]]
    assert prompt.fields == {"tools": [TOOL], "custom": {"a": None}, "metadata": {"b": "c"}}
    assert (prompt.output_tokens, given.models, given.urls) == (9, ("gpt-x",), (("/v1/chat/completions", 1),))
    assert given.format == "JSON lines, OpenAI batch"
    plain = rows(tmp_path, {"url": "/v1/completions", "body": {"prompt": "Why?", "max_tokens": 5}})
    assert plain.prompts == (Prompt("Why?", 5),)


def test_a_session_of_requests_is_each_of_them(tmp_path):
    """As aiperf and genai-perf write what they sent: with all messages in each, and its own limit."""
    later = [USER, ANSWER, NEXT]
    session = {"session_id": "s", "payloads": [{"messages": [USER], "max_tokens": 5}, {"messages": later, "top_p": 1}]}
    given = read(tmp_path, json.dumps({"data": [session, {"payload": [{"messages": [NEXT], "model": "m"}]}]}), "p.json")
    assert [played(prompt) for prompt in given.prompts] == [[[USER]], [later], [[NEXT]]]
    assert [(prompt.output_tokens, prompt.fields) for prompt in given.prompts] == [
        (5, None),
        (None, {"top_p": 1}),
        (None, None),
    ]
    assert (given.rows, given.places, given.models) == (3, (1, 1, 2), ("m",))


def test_tools_of_any_form_are_those_of_the_chat_endpoint(tmp_path):
    """With their function around them, and parameters; what is no tool is not sent."""
    plain, schema = {"name": "now", "description": "d"}, {"type": "object"}
    wrapped = {"type": "function", "function": {**plain, "parameters": schema}}
    assert row(tmp_path, {"messages": [USER], "tools": [{**plain, "input_schema": schema}]}).fields == {
        "tools": [wrapped]
    }
    assert row(tmp_path, {"query": "Why?", "tools": json.dumps([{**plain, "parameters": schema}])}).fields == {
        "tools": [wrapped]
    }
    assert row(tmp_path, {"question": [[USER]], "function": [{**plain, "parameters": schema}]}).fields == {
        "tools": [wrapped]
    }
    assert row(tmp_path, {"prompt": "Why?", "tools": [TOOL]}).fields == {"tools": [TOOL]}
    named = rows(tmp_path, {"prompt": "Why?", "tools": ["now", "then"]}, "How?")
    assert (named.prompts[0].fields, named.not_sent) == (None, ("tools",))


def test_numbers_that_json_cannot_hold_are_not_sent(tmp_path):
    """A seed of 97 bits would be another one; lengths of other names are limits too."""
    given = read(tmp_path, '{"prompt": "a", "seed": 123456789012345678901234567890, "num_predict": 5}')
    assert given.prompts == (Prompt("a", 5),)
    assert given.not_sent == ("seed",)
    assert row(tmp_path, {"prompt": "Why?", "max_tokens": "NaN"}).output_tokens is None
    for name in ("output_tokens_count", "output_length", "n_predict"):
        assert row(tmp_path, {"prompt": "Why?", name: "7"}).output_tokens == 7


@pytest.mark.parametrize(
    ("name", "content", "prompts", "beside"),
    [
        ("p.json", {"system": "Be kind.", "id": 5, "prompts": ["a", "b"]}, ["a", "b"], ("system",)),
        ("p.json", {"Data": [{"Question": "a"}, {"Question": "b"}], "Domain": "Web", "Version": 1}, ["a", "b"], ()),
        ("p.json", {"columns": ["prompt", "id"], "index": [0, 1], "data": [["a", 5], ["b", 6]]}, ["a", "b"], ()),
        ("p.csv", "sep=;\nprompt;id\na;5\nb;6\n", ["a", "b"], ()),
        ("p.csv", "\n\nprompts\na\nb\n", ["a", "b"], ()),
        ("p.jsonl", '{"prompt":\n"a"}\n{"prompt":\n"b"}', ["a", "b"], ()),
        ("p.jsonl", {"id": "0", "data": ["a", "So."]}, ["a"], ()),
        ("p.lst", "{{a}}\n{b}", ["{{a}}", "{b}"], ()),
        ("p.json", '[{"prompt": "a", "system": NaN}, {"prompt": "b\\ud83d"}]', ["a", "b\ufffd"], ()),
    ],
)
def test_rows_are_found_in_other_arrangements(tmp_path, name, content, prompts, beside):
    """What stands beside the rows, and may be meant for them, is named."""
    given = read(tmp_path, content if isinstance(content, str) else json.dumps(content), name)
    assert [prompt.text for prompt in given.prompts] == prompts
    assert given.not_sent == beside


def test_columns_that_may_be_meant_for_the_request_are_named(tmp_path):
    """Once for all rows; what only describes a row is not."""
    about = dict.fromkeys(
        ("id", "category", "source", "answer", "output", "reference", "model", "conversation_hash"), "x"
    )
    item = {"prompt": "Why?", "images": ["a.png"], "context": "c", "choices": ["a", "b"], **about}
    assert set(rows(tmp_path, item, item).not_sent) == {"images", "context", "choices"}
    given = rows(tmp_path, {"messages": [{**USER, "images": ["AAAA"]}], "my_field": 1, **about})
    assert set(given.not_sent) == {"images", "my_field"}
    assert rows(tmp_path, {"instruction": "a", "input": "b", "output": "c", "text": "all"}).not_sent == ()
    # What is sent anyway, is not set, or belongs to a response, is not worth a word.
    assert (
        rows(tmp_path, {"prompt": "Why?", "messages": [USER, {**ANSWER, "top_p": 1}], "skip_format": False}).not_sent
        == ()
    )
    assert set(rows(tmp_path, {"turns": [{"text": "a", "delay": 5, "max_tokens": 5}]}).not_sent) == {
        "delay",
        "max_tokens",
    }


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("", "an empty text"),
        ({"prompt": ""}, "no prompt"),
        ({"prompt": " "}, "an empty text"),
        ({"prompt": None, "answer": "x"}, "no prompt"),
        ({"prompt": 5}, "a number as its prompt"),
        ({"prompt": ["a", 5]}, "a number among its turns"),
        ({"prompt": {"a": 5}}, "an object as its prompt"),
        ({"conversations": []}, "no prompt"),
        ({"messages": [SYSTEM]}, "no message of a user"),
        ({"messages": [ANSWER]}, "no message of a user"),
        ({"messages": [{"role": "user", "content": ""}]}, "no message of a user"),
        ({"messages": [{"role": "narrator", "content": "x"}, USER]}, "a message of 'narrator', which is no role"),
        ({"messages": [{"role": "user", "content": 5}]}, "a number as the content of a message"),
        ({"messages": [5]}, "a number among its messages"),
        ({"custom_id": "x", "body": {"model": "m"}}, "no messages in its body"),
        ([], "no message of a user"),
        (None, "an empty row"),
        ({"text": "So.", "role": "assistant", "message_id": "a"}, "a text of the assistant"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": " "}]}]}, "no message of a user"),
        ({"messages": [{"role": "user", "content": [5]}]}, "a number among the parts of a message"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image"}]}], "images": ["a.png"]},
            "an image that its message does not contain",
        ),
        ({"body": {"prompt": ["a", "b"]}}, "several prompts in one request"),
        ({"body": {"prompt": [1, 2]}}, "token numbers as its prompt"),
    ],
)
def test_rows_with_nothing_to_send_are_skipped_and_counted(tmp_path, item, reason):
    """Where all are, that is an error with the reasons, and the columns that there are."""
    given = rows(tmp_path, "Why?", item, item)
    assert (given.rows, given.skipped, len(given.prompts)) == (3, ((reason, 2),), 1)
    with pytest.raises(BadInput, match="none of the 2 rows can be sent") as caught:
        rows(tmp_path, item, item)
    assert reason in caught.value.message
    if isinstance(item, dict):
        assert next(iter(item)) in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("p.txt", "", "no prompts"),
        ("p.txt", "\n \n", "no prompts"),
        ("p.json", "[]", "no prompts"),
        ("p.csv", "prompt\n", "no prompts"),
        ("p.txt", b"good\nb\xffd", "line 2: this is not UTF-8"),
        ("p.json", "[", "not JSON"),
        ("p.json", '["x",\n"y"\n"z"]', "line 3: this is not JSON"),
        ("p.json", "5", "holds a number"),
        ("p.json", '["x", 5]', "item 2 is a number"),
        ("p.json", '["x", true]', "item 2 is true or false"),
        ("p.json", '[{"prompt": "x", "max_tokens": 0}]', "item 1 has the max_tokens 0"),
        ("p.json", '[{"prompt": "x", "max_tokens": true}]', "max_tokens True"),
        ("p.json", '[{"prompt": "x", "output_tokens": 1.5}]', "output_tokens 1.5"),
        ("p.json", '[{"prompt": "x", "max_tokens": "many"}]', "max_tokens 'many'"),
        ("p.jsonl", '"x"\n\n{oops}\n', "line 3: this is not JSON"),
        ("p.jsonl", '{oops}\n"x"\n', "line 1: this is not JSON"),
        ("p.jsonl", "Why?\n", "line 1: this is not JSON"),
        ("p.csv", "Why is that?\nHow so?\n", "line 1: none of its columns is a prompt: 'Why is that"),
        ("p.csv", "prompt,id\nWhy,1\nOh, why,2\n", "line 3: this has 3 columns, and the first line 2"),
        ("p.csv", 'prompt,id\n"Why\nso,1\n', "line 3: this is not CSV"),
        ("p.csv", "prompt,prompt\na,b\n", "line 1: there are two columns 'prompt'"),
        ("p.csv", "prompt,id\ra,5\rb,6\r", "line 1: none of its columns"),
        ("p.csv", "prompt,id\na\rb,5\n", "line 2: this is not CSV"),
        ("p.csv", b'prompt,id\n"a\0b",5\n', "line 2: this has a NUL"),
        ("p.txt", b"Why?\nHow\0?\n", "line 2: this has a NUL"),
        ("p.txt", "Why?\nso\n---\nHow?\n", "line 3: this has ---"),
        ("p.txt", "Why?\rHow?\r", "line 1: this has a carriage return"),
        ("p.txt", "How is that?\n".encode("utf-16-le"), "is UTF-16"),
        ("p.csv", "prompt,id\nHow?,5\n".encode("utf-16-be"), "is UTF-16"),
        ("p.json", "<!DOCTYPE html><html>404", "is a page of HTML"),
        ("p.yaml", "prompts:\n- Why?\n", "a .yaml file is no data set"),
        ("p.py", "print()\n", "a .py file is no data set"),
        ("p.json", "[" * 5000 + "]" * 5000, "nested too deeply|none of the 1 rows can be sent"),
        ("p.jsonl", '{"prompt": "a"},\n{"prompt": "b"},\n', "line 1: this is not JSON: a comma follows a row"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": ', "line 2: this is not JSON"),
        ("p.json", '// mine\n["a"]', "line 1: this is not JSON"),
        ("p.jsonl", '{"prompt": "a", "max_tokens": 1e30}', "max_tokens 1e"),
    ],
)
def test_an_unusable_file_is_bad_input(tmp_path, name, content, reason):
    """The message names the file, the place in it and a remedy."""
    with pytest.raises(BadInput, match=reason) as caught:
        read(tmp_path, content, name)
    assert name in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(("name", "indent"), [("p.json", None), ("p.json", 2), ("p.jsonl", None), ("p.json.gz", None)])
def test_memory_holds_what_is_sent(tmp_path, name, indent):
    """Rows are read one by one, and recorded responses are not kept: all at once, their characters take 50 MB."""
    said = [{"from": "human", "value": "Why? 日本"}, {"from": "gpt", "value": "So. 日本 😀 " * 10_000}]
    row = json.dumps({"id": "a", "conversations": said}, ensure_ascii=False, indent=indent).encode()
    count = 16_000_000 // len(row)
    data = b"\n".join([row] * count) if name == "p.jsonl" else b"[" + b",\n".join([row] * count) + b"]"
    (tmp_path / name).write_bytes(gzip.compress(data, 1) if name.endswith("gz") else data)
    tracemalloc.start()
    given = read_data_set(tmp_path / name)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert {prompt.text for prompt in given.prompts} >= {"Why? 日本"}
    assert given.rows >= count
    assert peak < 20_000_000  # a piece of the file, and its text in characters of 4 bytes before and after it grows


def test_a_file_up_to_the_limit_is_read(tmp_path):
    """Beyond, it is refused with the limit."""
    content = '["Why?", "How?"]'
    with mock.patch("loadbench.plan.data_sets._MAX_FILE_BYTES", len(content)):
        assert len(read(tmp_path, content, "p.json").prompts) == 2
        with pytest.raises(BadInput, match=r"larger than 0 MiB") as caught:
            read(tmp_path, content + " ", "p.json")
    assert caught.value.hint == "use a part of it"


def test_an_unreadable_file_is_bad_input(tmp_path):
    """A file that is not there, and a folder, are named."""
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(BadInput, match="cannot read") as caught:
            read_data_set(path)
        assert str(path) in caught.value.message


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r")).filter(lambda text: text.strip() != "")


@given(
    texts=st.lists(TEXTS, min_size=1, max_size=5),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_out_of_a_table_as_it_went_in(tmp_path, texts, delimiter, end):
    """With quotes, separators and line ends in it, in JSON lines and in CSV."""
    table = io.StringIO(newline="")
    writer = csv.writer(table, delimiter=delimiter, lineterminator=end)
    writer.writerow(["id", "prompt", "max_tokens"])
    writer.writerows([number, text, number + 1] for number, text in enumerate(texts))
    expected = [Prompt(text, number + 1) for number, text in enumerate(texts)]
    assert list(read(tmp_path, table.getvalue(), "p.csv").prompts) == expected
    items = ({"prompt": text, "max_tokens": number + 1} for number, text in enumerate(texts))
    assert list(rows(tmp_path, *items).prompts) == expected


NAMES = ["messages", "role", "content", "from", "value", "text", "body", "turns", "system", "tools", "facets", "type"]
NAMES += [
    "image",
    "source",
    "images",
    "prompt",
    "tool_calls",
    "function",
    "parts",
    "payload",
    "response_format",
    "input",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4) | st.sampled_from(["user", "tool", "image"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
ROLE = st.sampled_from(["user", "assistant", "tool"])
MESSAGE = st.fixed_dictionaries({"role": ROLE, "content": JSON}, optional={"tool_calls": JSON, "images": JSON})
ROW = JSON | st.fixed_dictionaries({"messages": st.lists(MESSAGE, max_size=3), "tools": JSON})
ROW |= st.fixed_dictionaries({"body": st.fixed_dictionaries({"messages": st.lists(JSON | MESSAGE), "tools": JSON})})


@pytest.mark.parametrize("name", ["p.txt", "p.csv", "p.jsonl"])
def test_a_line_without_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch, name):
    """Such as a sparse file: it is read up to the bound of a value. Seen to take 4 GB before, for one of 2 GB."""
    monkeypatch.setattr(data_sets, "_LONGEST_FIELD", 2**20)
    with (tmp_path / name).open("wb") as file:
        file.write(b'{"prompt": "a"}\n' if name == "p.jsonl" else b"prompt\na\n")
        file.truncate(2**26)
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match=rf"{name}, line \d: this is longer than 1 MiB"):
            read_data_set(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


def test_a_large_cell_of_a_table_is_read(tmp_path):
    """Messages in JSON, of millions of letters; a server may not send as much, but this is the user's own file."""
    content = "Straße 🎉 " * 200_000
    out = io.StringIO()
    csv.writer(out).writerows([["messages"], *[[json.dumps([{**USER, "content": content}] * 4)]] * 2])
    prompts = read(tmp_path, out.getvalue(), "p.csv").prompts
    assert [len(prompt.sent) for prompt in prompts] == [4, 4]
    assert prompts[0].sent[0]["content"] == content


@given(items=st.lists(ROW, min_size=1, max_size=4), api=st.sampled_from(["chat", "completions", "responses", "ollama"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_whatever_a_file_holds_it_is_sent_or_refused(tmp_path, items, api):
    """No row breaks the program, by any API: each is sent, counted or refused with its place."""
    file = tmp_path / "p.jsonl"
    file.write_text("\n".join(map(json.dumps, items)))
    read_data_set_once.cache_clear()
    scenario = resolve(flags={"prompts": str(file), "api": api}, environment={})
    try:
        given = read_data_set_once(str(file))
        check_data_set(scenario)
    except BadInput as error:
        refused = error
    else:
        refused = None
    if refused is not None:
        assert refused.hint
        assert "p.jsonl" in refused.message
        return
    assert given.rows == len(given.prompts) + sum(count for _, count in given.skipped)
    source = TextPrompts(given.prompts)
    for prompt in (source.next(number, None) for number in range(len(given.prompts))):
        assert isinstance(prompt.shown, str)
        for turn in (prompt, *prompt.then) if scenario.plays_turns else (prompt,):
            given_body = {"messages": turn.sent, "fields": prompt.fields, "extra": prompt.extra}
            sampled = {"max_tokens": 9, "temperature": 0, "seed": 0}
            assert json.loads(request_body(Api(api), model="m", **sampled, **given_body))
