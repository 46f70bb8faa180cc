"""The URL of a server: its parts, what may be shown of it, and its spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.plan.server_url import ServerUrl, normal_url, redirect_target, shown_url, with_query


@pytest.mark.parametrize(
    ("url", "base", "route", "api"),
    [
        ("http://h", "http://h", "", ""),
        ("https://h/openai/v1", "https://h/openai/v1", "", ""),
        ("http://h/v1/chat/completions", "http://h/v1", "http://h/v1/chat/completions", "chat"),
        ("http://h/v1/completions/", "http://h/v1", "http://h/v1/completions/", "completions"),
        ("http://u:p@h/responses?x=1", "http://h", "http://h/responses", "responses"),
        ("http://[::1]:9/api/chat", "http://[::1]:9", "http://[::1]:9/api/chat", "ollama"),
        ("http://h/v1/models", "http://h/v1", "", ""),
        ("http://h/models", "http://h", "", ""),
        ("http://h/models?api-version=1", "http://h/models", "", ""),
        ("http://h/api/tags", "http://h", "", ""),
        ("http://h/openai/status", "http://h", "", ""),
        ("http://h/mychat/completions", "http://h/mychat", "http://h/mychat/completions", "completions"),
    ],
)
def test_parts(url, base, route, api):
    """The base can be shown; a route that was given in full names its API."""
    parsed = ServerUrl.parse(normal_url(url))
    assert (parsed.base, parsed.route, parsed.api) == (base, route, api)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h/v1", "http://h/v1"),
        ("http://h/v1?api-version=2024-10-21-preview", "http://h/v1?api-version=2024-10-21-preview"),
        ("http://h/v1?key=k", "http://h/v1?key=***"),
        ("http://h/v1?subscription-key=0123&debug=1", "http://h/v1?subscription-key=***&debug=1"),
        ("http://h/v1?apiKey=abc&code=1&sig=x", "http://h/v1?apiKey=***&code=***&sig=***"),
        ("http://h/v1?x=0123456789abcdef", "http://h/v1?x=***"),
        ("http://me@h/v1", "http://***@h/v1"),
        ("http://me:pass@h:8/v1?flag", "http://***@h:8/v1?flag"),
    ],
)
def test_what_is_shown(url, shown):
    """Neither users nor values that may be secrets; versions are no secrets."""
    assert shown_url(normal_url(url)) == shown


_SECRET = st.text("abcdefghijklmnopqrstuvwxyz0123456789+%/=", min_size=8).filter(lambda text: "%" not in text)


@given(_SECRET, _SECRET, st.sampled_from(["key", "api_key", "token", "Signature", "x", "q"]))
def test_no_secret_is_shown(password, value, name):
    """Whatever the secret and the parameter's name."""
    url = normal_url(f"https://user:{password.replace('/', '%2F')}@host/v1?{name}={value}&api-version=1")
    assert shown_url(url) == f"https://***@host/v1?{name}=***&api-version=1"
    parsed = ServerUrl.parse(url)
    assert parsed.base == "https://host/v1"
    assert {password, value} <= set(parsed.secrets)
    assert normal_url(url) == url


def test_query_is_added_to_what_is_there():
    """Some routes have a query of their own."""
    assert [with_query("http://h", "a=1"), with_query("http://h?b=2", "a=1"), with_query("http://h", "")] == [
        "http://h?a=1",
        "http://h?b=2&a=1",
        "http://h",
    ]


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("", "nowhere"),
        ("/login?ticket=abcdef0123&api-version=2024-10-21", "http://h/login?ticket=***&api-version=2024-10-21"),
        ("https://me:sesame@other/v1", "https://***@other/v1"),
        ("chat/completions/", "http://h/v1/chat/completions/"),
        ("http://[bad/", "'http://[bad/', which is no URL"),
    ],
)
def test_target_of_a_redirect_is_shown_without_secrets(location, shown):
    """Whatever a server sends as a Location; what follows a login page's question mark opens it."""
    assert redirect_target("http://h/v1/models?key=sesame-opens", location) == shown
