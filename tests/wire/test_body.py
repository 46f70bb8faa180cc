"""The bodies of requests: what each endpoint calls things, and how users and servers change them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.conversation import user_message
from loadbench.wire.body import NO_CHANGES, BodyChanges, limit_in, merged, request_body
from loadbench.wire.formats import address
from loadbench.wire.openai import Api


def body(api: Api, **fields: Any) -> dict[str, Any]:
    """A request's body as the server reads it."""
    usual = {"model": "m", "messages": user_message("Hi ü"), "max_tokens": 7, "temperature": None, "seed": None}
    parsed: dict[str, Any] = orjson.loads(request_body(api, **{**usual, **fields}))
    return parsed


def test_a_chat_request_is_one_user_message_and_requests_usage() -> None:
    """What is not set is left to the server; the number of tokens is always limited."""
    assert body(Api.CHAT) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi ü"}],
        "max_tokens": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_every_message_is_sent_where_messages_are_taken() -> None:
    """With its role, the oldest first."""
    roles = [("system", "Be brief."), ("user", "Why?"), ("assistant", "Because."), ("user", "Really?")]
    messages = [{"role": role, "content": text} for role, text in roles]
    for api, key in ((Api.CHAT, "messages"), (Api.OLLAMA, "messages"), (Api.RESPONSES, "input")):
        assert body(api, messages=messages)[key] == messages


def test_fields_that_make_responses_exactly_as_long_stand_where_the_limit_does() -> None:
    """Among the options of Ollama, else in the body; a least number is the limit itself."""
    exact = BodyChanges(exact=("min_tokens", "ignore_eos"))
    fields = {"min_tokens": 7, "ignore_eos": True}
    assert body(Api.CHAT, changes=exact) == {**body(Api.CHAT), **fields}
    assert body(Api.OLLAMA, changes=exact)["options"] == {"num_predict": 7, **fields}


def test_a_completions_request_has_its_prompt_and_what_is_set() -> None:
    """A temperature and a seed of zero are set, not missing."""
    assert body(Api.COMPLETIONS, temperature=0.0, seed=0) == {
        "model": "m",
        "prompt": "Hi ü",
        "max_tokens": 7,
        "temperature": 0.0,
        "seed": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_responses_request_uses_its_endpoints_names() -> None:
    """Nothing is kept by the server, and no seed is sent, which it does not take."""
    assert body(Api.RESPONSES, temperature=0.0, seed=3) == {
        "model": "m",
        "input": [{"role": "user", "content": "Hi ü"}],
        "max_output_tokens": 7,
        "temperature": 0.0,
        "store": False,
        "stream": True,
    }
    assert address(Api.RESPONSES, "http://h/v1") == "http://h/v1/responses"


def test_an_ollama_request_has_its_limits_under_options() -> None:
    """Its route is next to the versioned ones."""
    assert body(Api.OLLAMA, temperature=0.0, seed=3) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi ü"}],
        "stream": True,
        "options": {"num_predict": 7, "temperature": 0.0, "seed": 3},
    }
    assert address(Api.OLLAMA, "http://h:11434/v1") == "http://h:11434/api/chat"


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merging_follows_rfc_7386(target: object, patch: object, result: object) -> None:
    """The examples of its appendix A."""
    assert merged(target, patch) == result


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(_JSON, _JSON)
def test_merging_twice_changes_nothing_more_and_keeps_its_arguments(target: object, patch: object) -> None:
    """A patch is idempotent, and bodies of other requests are not touched by it."""
    before = orjson.dumps([target, patch])
    once = merged(target, patch)
    assert merged(once, patch) == once
    assert orjson.dumps([target, patch]) == before


@pytest.mark.parametrize("api", Api)
def test_changes_apply_to_every_endpoint(api: Api) -> None:
    """First what is left out, then the additions in their order, that of the request last, then the new names."""
    changes = BodyChanges(
        extra=({"x": {"a": 1, "b": 2}, "y": 1}, {"x": {"a": 3}, "y": None}),
        renamed=(("model", "deployment"), ("x", "z"), ("absent", "there")),
        left_out=frozenset({"stream"}),
    )
    changed = body(api, changes=changes, extra={"x": {"b": None, "c": 4}})
    assert changed["z"] == {"a": 3, "c": 4}
    assert changed["deployment"] == "m"
    assert not {"x", "y", "stream", "model", "absent", "there"} & set(changed)


def test_a_null_leaves_out_a_field_of_our_own() -> None:
    """Also one within another, and what the user adds is sent even where a field of that name was left out."""
    changes = BodyChanges(extra=({"seed": None, "stream_options": {"include_usage": None}, "top_k": 1},))
    assert not {"seed"} & set(body(Api.CHAT, seed=3, changes=changes))
    assert body(Api.CHAT, changes=changes)["stream_options"] == {}
    again = BodyChanges(extra=({"temperature": 1},), left_out=frozenset({"temperature"}))
    assert body(Api.CHAT, temperature=0.0, changes=again)["temperature"] == 1
    assert body(Api.CHAT) == body(Api.CHAT, changes=NO_CHANGES)


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ({"max_tokens": 64}, 64),
        ({"max_completion_tokens": 64, "max_tokens": 32}, 64),
        ({"max_output_tokens": 64}, 64),
        ({"options": {"num_predict": 64, "num_ctx": 4096}}, 64),
        ({"n_predict": 64}, 64),
        ({"max_tokens": 64, "n": 2}, 128),
        ({"max_tokens": 64, "best_of": 3, "n": 1}, 192),
        ({"options": {"num_predict": -1}}, None),
        ({"max_tokens": None, "temperature": 0}, None),
        ({"options": "fast", "n": "many"}, None),
    ],
)
def test_the_limit_of_a_body_is_found_under_any_name(body: dict[str, Any], limit: int | None) -> None:
    """The most that it allows, in all choices together; no limit is none."""
    assert limit_in(orjson.dumps({"model": "m", **body})) == limit
