"""What the words of servers mean: good and bad ends in every spelling, errors, signs of life."""

from __future__ import annotations

import pytest

from loadbench.wire.vocabulary import Ending, ending_of, is_error_event, is_keep_alive, reads_like_error

GOOD = """
stop length tool_calls function_call tool_use eos eos_token stop_sequence end_turn max_tokens model_length STOP
MAX_TOKENS COMPLETE complete STOP_SEQUENCE TOOL_CALL FINISH_REASON_STOP FINISH_REASON_MAX_TOKENS FINISHED LENGTH
STOP_CRITERIA_MET
endoftext end_of_text maximum_tokens eosFound stopStringFound maxPredictedTokensReached contextLengthReached toolCalls
model_context_window_exceeded context_length_exceeded token_limit limit word eogToken stopTrigger maxTokens functionCall
pause_turn load repetition incomplete normal done finish success eot end
"""
FILTERED = """
content_filter content-filter content_filtered SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII IMAGE_SAFETY LANGUAGE
sensitive guardrail_intervened refusal IMAGE_PROHIBITED_CONTENT
"""
FAILED = """
error ERROR network_error insufficient_system_resource abort aborted cancelled canceled timeout time_limit failed
failure ERROR_TOXIC ERROR_LIMIT USER_CANCEL userStopped modelUnloaded unload malformed_function_call
MALFORMED_FUNCTION_CALL
UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS finish_reason_unspecified stop_error length_error max_retries endpoint_down
function_call_error malformed_model_output server_overloaded engine_crash preempted quota_exceeded rate_limit
timed_out connection_lost out_of_memory internal interrupted
"""
NONE = ["", "null", "None", "NULL", "nil", "not_finished", " null ", "undefined"]
UNKNOWN = ["moonrise", "OTHER", "unknown", "whatever", "7", "no_image", "?"]


@pytest.mark.parametrize(
    ("words", "ending"),
    [
        (GOOD.split(), Ending.GOOD),
        ([*FILTERED.split(), "content_filter: PROHIBITED_CONTENT"], Ending.FILTERED),
        (FAILED.split(), Ending.FAILED),
        (NONE[1:], Ending.NONE),
        (UNKNOWN[:-1], Ending.UNKNOWN),
    ],
)
def test_ends_are_told_apart(words, ending):
    """The finish reasons that servers document, and some that they do not."""
    assert {word: ending_of(word) for word in words} == dict.fromkeys(words, ending)


@pytest.mark.parametrize("name", ["error", "ERROR", "exception", "response.failed", "stream-error", "err", "timeout"])
def test_event_names_of_errors(name):
    """They fail the request, whatever their data says."""
    assert is_error_event(name)


@pytest.mark.parametrize("name", ["", "message", "ping", "deferred", "response.mcp_call.failed", "response.completed"])
def test_event_names_of_no_error(name):
    """A step of a response may fail without it; a name may have the letters by chance."""
    assert not is_error_event(name)


@pytest.mark.parametrize(
    ("data", "is_error"),
    [
        (b"Internal Server Error", True),
        (b'{"result": {"state": "failed"}}', True),
        (b'{"message": "The upstream server is timing out"}', True),
        (b"no healthy upstream", True),
        (b'{"sources": ["a", "b"], "error": null, "failed": 0, "errors": []}', False),
        (b'{"documents": ["%b error"]}' % (b"x" * 300), False),
        (b'{"choices": [{"delta": {"content": "an error', False),  # cut in generated text
        (b'{"error": {"message": "out of', True),
        (b'{"default": 1}', False),
        (b'{"warnings": ["temperature is not supported"], "sources": []}', False),
        (b'{"warning": "slow", "message": "out of memory"}', True),
        (b'{"status": {"description": "3 sites, no errors", "done": true}}', False),
        (b"hello", False),
        (b"[1, 2]", False),
    ],
)
def test_what_reads_like_an_error(data, is_error):
    """Words of errors in messages and keys; not in documents, not in the text of a frame that was cut."""
    assert reads_like_error(data) is is_error


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("progress", b'{"value": 0.5}'),
        ("message", b'{"id": "x", "prompt_progress": {"total": 36, "processed": 20}}'),
        ("message", b'{"status": "loading"}'),
        ("message", b'{"status": "queued", "position": 3}'),
    ],
)
def test_progress_is_a_sign_of_life(event, data):
    """That of the prompt, of a model that is loaded, or of a queue."""
    assert is_keep_alive(event, data)


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("message", b"hello"),
        ("message", b"ping pong is a game for two\nhello"),
        ("message", b'{"sources": []}'),
        ("message", b'{"type": "ping", "error": "no memory"}'),
        ("message", b": upstream error"),
        ("shopping", b"hello"),
        ("message", b"7"),
    ],
)
def test_what_is_no_sign_of_life(event, data):
    """Whatever says something else, or more."""
    assert not is_keep_alive(event, data)


@pytest.mark.parametrize(
    ("data", "is_error"),
    [
        (b"x" * (64 * 1024 - 6) + b" error", True),
        (b"x" * (64 * 1024 - 5) + b" error", False),
        (b'["%b error"]' % (b"x" * 294), True),
        (b'["%b error"]' % (b"x" * 295), False),
        (b'{"a":{"a":{"a":{"a":{"error":"x"}}}}}', True),
        (b'{"a":{"a":{"a":{"a":{"a":{"error":"x"}}}}}}', False),
        (b"[%b1]" % (b"1," * 99) + b"", False),
        (b"[%b" % (b"1," * 99) + b'"error"]', True),
        (b"[%b" % (b"1," * 100) + b'"error"]', False),
    ],
)
def test_words_of_errors_are_looked_for_at_the_beginning(data, is_error):
    """Of 64 KiB of text, of strings up to 300 characters, of five levels and a hundred items."""
    assert reads_like_error(data) is is_error


@pytest.mark.parametrize(
    "data", [b": hello there", b"(null", b'{"type":"ping","a":{"a":{"a":{"a":{"a":{"error":1}}}}}}']
)
def test_a_comment_is_a_sign_of_life(data):
    """Whatever it says; and so is what stands for nothing, and what has an error where nobody looks."""
    assert is_keep_alive("message", data)
    assert not is_keep_alive("message", b'{"type":"ping","a":{"a":{"a":{"a":{"error":1}}}}}')
