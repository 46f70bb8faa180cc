"""Fields that users add to every body: how they are written, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.extra_body import limits_of, read_objects, value_of
from loadbench.plan.setting_types import JSON_OBJECTS
from loadbench.wire.body import merged

_NAMES = st.text(max_size=6).filter(lambda name: name not in {"messages", "prompt", "input", "model", "stream", "n"})
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
# Names that meet again, in the objects and on the way to a value.
_FEW = st.sampled_from(["a", "b", "", "a.b"])
_FEW_NAMED = st.dictionaries(
    _FEW, st.recursive(st.none() | st.integers(0, 2), lambda part: st.dictionaries(_FEW, part, max_size=3)), max_size=3
)
_OBJECTS = st.lists(st.dictionaries(_NAMES, _JSON, max_size=4), min_size=1, max_size=3)


@given(_OBJECTS)
def test_every_json_object_is_read_as_it_is(objects):
    """As text, as a table of a file, or as a list of them; and again from what is recorded."""
    written = [json.dumps(part) for part in objects]
    assert read_objects(written) == read_objects(objects) == tuple(objects)
    assert read_objects(written[0]) == read_objects(objects[0]) == (objects[0],)
    shown = JSON_OBJECTS.show(tuple(objects))
    if "***" not in json.dumps(shown):
        assert read_objects(shown) == tuple(objects)


@given(st.lists(_FEW_NAMED, min_size=1, max_size=3), st.lists(_FEW, min_size=1, max_size=3).map(".".join))
def test_value_of_a_field_is_that_of_the_merged_body(objects, name):
    """The last object that names it decides; null leaves it out. A dot leads into an object."""
    body = {}
    for part in objects:
        body = merged(body, part)
    value = value_of(objects, name)
    for step in name.split("."):
        body = body.get(step, ...) if isinstance(body, dict) else ...
    if value is ... or value is None:
        assert body is ...
    elif not isinstance(value, dict):
        assert body == value


def test_limits_are_found_by_all_their_names():
    """Also those of Ollama's options, and those that are left out, alone or with all options."""
    objects = ({"max_tokens": 3, "options": {"num_predict": 5}}, {"max_tokens": None}, {"options": {"seed": 1}})
    assert limits_of(objects) == {"max_tokens": None, "options.num_predict": 5}
    assert limits_of([*objects, {"options": None}]) == {"max_tokens": None, "options.num_predict": None}
    assert limits_of([*objects, {"options": "none"}]) == {"max_tokens": None}


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("{'a': 1}", "not JSON at line 1, column 2"),
        ('{"a": 1,}', "not JSON at line 1"),
        ('{"a": {"b": [NaN]}}', "NaN is no JSON"),
        ('{"a": {"b": [1, -1e999]}}', r"a.b\[1\]: found -inf"),
        ('{"a": {"\\ud800": 1}}', "a: .* is not valid Unicode"),
        ('{"a": ["\\udcff"]}', r"a\[0\]: found text that is not valid Unicode"),
        ('{"a": 18446744073709551616}', "a: found an integer of more than 64 bits"),
        ('{"a": ' + "[" * 200 + "]" * 200 + "}", "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ('{"model": "other"}', "model cannot be changed: use --model"),
        ('{"n": 3}', "n must be 1"),
        ('"text"', "found a string, want a JSON object"),
        ("true", "found true or false, want a JSON object"),
        (7, "found a number, want a JSON object"),
        (["{}", "[]"], "found an array, want a JSON object"),
        ("@", "Is a directory"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_its_place(written, reason):
    """And never with the text itself, which may hold a secret."""
    with pytest.raises(ValueError, match=reason):
        read_objects(written)


def test_model_may_be_left_out_and_one_response_be_asked_for():
    """A deployment needs no model; `n` of 1 is what there is anyway."""
    objects = [{"model": None, "n": 1, "best_of": None, "stream": True, "stream_options": None}]
    assert read_objects(objects) == tuple(objects)


def test_secrets_of_a_body_are_not_shown():
    """By their names, at any depth; other values are."""
    body = {"api_key": "abc", "nested": [{"accessToken": "x", "max_tokens": 5, "token": 7}], "top_k": 1}
    shown = {"api_key": "***", "nested": [{"accessToken": "***", "max_tokens": 5, "token": 7}], "top_k": 1}
    assert JSON_OBJECTS.show((body,)) == [shown]
