"""Which fields a server refuses by name, read from the words of real servers, gateways and validators."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.targets.refusals import is_alternative, refusals
from loadbench.wire.openai import error_text

SENT: dict[str, Any] = {
    "model": "m",
    "messages": [],
    "max_tokens": 8,
    "temperature": 0.0,
    "seed": 1,
    "stream": True,
    "stream_options": {"include_usage": True},
    "ignore_eos": True,
    "min_tokens": 8,
}
OLLAMA: dict[str, Any] = {"model": "m", "messages": [], "stream": True, "options": {"num_predict": 3, "seed": 1}}

# What servers say, and what they refuse by it; `field>name` is a proposed name, `field=` is refused for its value.
WORDS = [
    # OpenAI and Azure
    (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        "max_tokens>max_completion_tokens",
    ),
    (
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
        "temperature=",
    ),
    ("Unrecognized request argument supplied: stream_options", "stream_options"),
    ("Unrecognized request arguments supplied: seed, stream_options", "seed stream_options"),
    ("Unknown parameter: 'stream_options.include_usage'.", "stream_options"),
    ("Validation error at #/stream_options: Extra inputs are not permitted", "stream_options"),
    (
        "The parameter `max_tokens` is deprecated in favor of `max_completion_tokens`",
        "max_tokens>max_completion_tokens",
    ),
    ("The 'stream_options' parameter is only supported when streaming is enabled.", "stream_options"),
    # Pydantic, in the versions of vLLM and others
    ("body.seed: Extra inputs are not permitted", "seed"),
    (
        "body.seed: Extra inputs are not permitted; body.stream_options.x: Extra inputs are not permitted",
        "seed stream_options",
    ),
    ("1 validation error for ChatCompletionRequest seed extra fields not permitted (type=value_error.extra)", "seed"),
    ("[{'type': 'extra_forbidden', 'loc': ('body', 'seed'), 'msg': 'Extra inputs are not permitted'}]", "seed"),
    ("Extra inputs are not permitted, field: 'seed', value: 0", "seed"),
    ("seed: Unexpected keyword argument", "seed"),
    ("create() got an unexpected keyword argument 'stream_options'", "stream_options"),
    # Go, Rust, Java, .NET, JavaScript, Ruby, PHP, JSON Schema, protobuf
    ('json: unknown field "stream_options"', "stream_options"),
    ("unknown field `seed`, expected one of `model`, `messages`, `max_tokens` at line 1 column 20", "seed"),
    ('Unrecognized field "seed" (class Request), not marked as ignorable', "seed"),
    ("The JSON property 'seed' could not be mapped to any .NET member contained in type 'Request'.", "seed"),
    ('"seed" is not allowed', "seed"),
    ("Unrecognized key(s) in object: 'seed'", "seed"),
    ("unknown keyword: :seed", "seed"),
    ("found unpermitted parameter: :seed", "seed"),
    ("The seed field is prohibited.", "seed"),
    ("Additional properties are not allowed ('seed' was unexpected)", "seed"),
    ("Additional properties are not allowed ('seed', 'stream_options' were unexpected)", "seed stream_options"),
    ('Invalid JSON payload received. Unknown name "seed": Cannot find field.', "seed"),
    # Others
    ("property 'seed' is unsupported", "seed"),
    ("'body.seed' : property 'body.seed' is unsupported", "seed"),
    ("Argument not supported on this model: seed", "seed"),
    ("extraneous key [seed] is not permitted, please reformat your input and try again.", "seed"),
    ("invalid request: parameter 'seed' is not a valid field", "seed"),
    ("`temperature` is deprecated for this model.", "temperature"),
    ("invalid temperature: only 1 is allowed for this model", "temperature="),
    ("Input validation error: `temperature` must be strictly positive", "temperature="),
    (
        "azure does not support parameters: ['stream_options', 'seed'], for model=gpt. To drop these, …",
        "stream_options seed",
    ),
    ("This model does not support the 'seed' parameter.", "seed"),
    ("Invalid parameter: seed", "seed"),
    ("Parameter 'streamOptions' is not supported", "stream_options"),
    ("Unknown field max_tokens, did you mean max_new_tokens?", "max_tokens>max_new_tokens"),
    ("Unknown parameter 'seed'. Did you mean 'random_seed'?", "seed>random_seed"),
    ("Unsupported parameter: 'temperature'. Use 'top_p' instead.", "temperature"),
    ("Unsupported parameters: 'ignore_eos', 'min_tokens'", "ignore_eos min_tokens"),
    ("不支持的参数: seed", "seed"),
    ("Parameters 'temperature', 'top_p' and 'seed' are not supported with this model.", "temperature seed"),
    ("The following parameters are not supported: seed, temperature", "seed temperature"),
    ("gpt-5 models don't support temperature=0.0. Only temperature=1 is supported.", "temperature="),
    ("o3 only supports the default temperature", "temperature="),
    ("Setting `temperature`=0 is not supported", "temperature="),
    ("models don't support max_tokens=100000", "max_tokens="),
    ("seed: this parameter isn't supported", "seed"),
    ("seed: field not permitted", "seed"),
    ("Unexpected field(s): seed", "seed"),
    (r'[{"error": {"message": "Unknown name \"seed\": Cannot find field."}}]', "seed"),
    # The name is only quoted, or its value is at fault.
    ('Unsupported parameter: \'max_tokens\'. Request: {"temperature":0.2,"stream":true,"seed":1}', "max_tokens"),
    ("max_tokens must be at least 16", ""),
    ("Invalid 'max_tokens': integer below minimum value. Expected a value >= 16, but got 8 instead.", ""),
    ("temperature must be between 0 and 2", ""),
    ("Invalid parameter: temperature must be in range [0, 2]", ""),
    ("temperature is not allowed to be empty", ""),
    ("max_tokens is too large: 9999. This model supports at most 4096 completion tokens", ""),
    ("This model's maximum context length is 4096 tokens. However, you requested 5000 tokens", ""),
    ("min_tokens must be less than or equal to max_tokens=8, got 9.", ""),
    ("tools is not supported", ""),
    ("The model `m` does not exist", ""),
    ("too many requests, please slow down", ""),
]


@pytest.mark.parametrize(("words", "expected"), WORDS)
def test_a_field_is_refused_where_words_next_to_its_name_say_so(words: str, expected: str) -> None:
    """Each of them, with the name that is proposed, and nothing that merely occurs in the text."""
    found = [
        one.field + (f">{one.instead}" if one.instead else "") + "=" * one.by_value for one in refusals(words, SENT)
    ]
    assert found == expected.split()


EXTRA = {"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}
UNKNOWN = '{"error": {"message": "Unknown parameter: \'seed\'."}}'


@pytest.mark.parametrize(
    "body",
    [
        {"detail": [EXTRA]},
        {"object": "error", "message": {"detail": [{**EXTRA, "loc": ["body", "seed", "x"]}]}},
        {"object": "Error", "message": [EXTRA]},
        {"error": {"message": "Invalid request", "param": "seed", "code": "unsupported_parameter"}},
        {"error": {"message": "Provider returned error", "code": 400, "metadata": {"raw": UNKNOWN}}},
        {"error": {"message": "failed", "cause": UNKNOWN}},
        {"error": {"message": UNKNOWN, "type": "upstream_error"}},
        {"error": 'json: unknown field "seed"'},
    ],
)
def test_the_words_are_found_wherever_the_error_has_them(body: dict[str, Any]) -> None:
    """Validators list places, and gateways quote the error behind them."""
    assert [one.field for one in refusals(error_text(orjson.dumps(body)), SENT)] == ["seed"]


def test_a_field_inside_another_is_named_by_its_path() -> None:
    """Ollama has the sampling parameters one level deeper; servers name them with or without it."""
    for words in (
        "unknown field 'options.seed'",
        "options.seed: Extra inputs are not permitted",
        "Unsupported option: seed",
    ):
        assert [one.field for one in refusals(words, OLLAMA)] == ["options.seed"]
    assert [one.field for one in refusals("options is not supported", OLLAMA)] == ["options"]


def test_another_name_must_mean_the_same() -> None:
    """A limit is a limit under any name; a name that is sent already is taken."""
    assert is_alternative("max_tokens", "max_new_tokens", SENT)
    assert is_alternative("max_tokens", "num_predict", SENT)
    assert not is_alternative("max_tokens", "max_retries", SENT)
    assert not is_alternative("max_tokens", "min_tokens", {})
    assert not is_alternative("min_tokens", "max_tokens", SENT)
    assert is_alternative("stop", "stop_sequences", SENT)
    assert not is_alternative("temperature", "Only the default", SENT)


@given(st.text(max_size=300))
def test_any_text_is_read(words: str) -> None:
    """Whatever a server says, only fields that were sent are found in it."""
    assert all(one.field in SENT for one in refusals(words, SENT))
