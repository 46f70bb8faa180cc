"""An endpoint found over real sockets: every way in which it is not there, or not one, is told before the load."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
import trustme

from loadbench.client.client import Client, Endpoint, Timeouts
from loadbench.client.httpx_transport import HttpxTransport
from loadbench.core.clock import MonotonicClock
from loadbench.core.errors import BadInput, ExitCode, TargetUnavailable
from loadbench.plan.scenario import Scenario
from loadbench.plan.server_url import ServerUrl, normal_url
from loadbench.plan.settings import LimitSettings, TargetSettings, WorkSettings
from loadbench.targets import http_get
from loadbench.targets.openai import choose_models, find_endpoint, first_response
from loadbench.targets.target import Target
from loadbench.wire.openai import Api
from tests.client.server import ANSWER, ASK, CLOSE, END, GONE, RST, Server, chunk, head, serving, token, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

MS = 1_000_000
S = 1_000_000_000


def models(*names: str) -> bytes:
    """A list of models as servers answer it."""
    return whole("200 OK", orjson.dumps({"object": "list", "data": [{"id": name} for name in names]}))


NOT_FOUND = whole("404 Not Found", b'{"detail":"Not Found"}')


def found(
    *scripts: list,
    path: str = "",
    environment: Mapping[str, str] | None = None,
    scheme: str = "http",
    server_tls: ssl.SSLContext | None = None,
    limits: LimitSettings | None = None,
    **target: Any,
) -> tuple[Target, Server]:
    """What `find` makes of a server of these scripts, and what that saw."""
    scenario = Scenario(target=TargetSettings(**target), limits=limits or LimitSettings())

    async def main() -> tuple[Target, Server]:
        async with serving(*scripts, tls=server_tls) as server:
            url = f"{scheme}://127.0.0.1:{server.port}{path}"
            return await find_endpoint(scenario, environment or {}, url=url), server

    return asyncio.run(main())


def refused(*script: Any, **options: Any) -> TargetUnavailable:
    """Why there is no target."""
    with pytest.raises(TargetUnavailable) as caught:
        found(list(script), **options)
    assert caught.value.exit_code is ExitCode.TARGET_UNAVAILABLE
    assert "\n" not in str(caught.value)
    return caught.value


# Addresses.


@pytest.mark.parametrize(
    ("given", "bases"),
    [
        ("http://h:1", ["http://h:1/v1"]),
        ("http://h:1/", ["http://h:1/v1"]),
        ("http://h:1/v1", ["http://h:1/v1"]),
        ("http://h:1/v1/", ["http://h:1/v1"]),
        ("http://h:1/v1/chat/completions", ["http://h:1/v1"]),
        ("http://h:1/v1/completions/", ["http://h:1/v1"]),
        ("http://h:1/v1/models", ["http://h:1/v1"]),
        ("http://h:1/api/v3", ["http://h:1/api/v3"]),
        ("http://h:1/api", ["http://h:1/api/v1", "http://h:1/api"]),
        ("http://h:1/chat/completions", ["http://h:1", "http://h:1/v1"]),
        ("https://h/llm/v1/chat/completions", ["https://h/llm/v1"]),
        ("http://[::1]:8080", ["http://[::1]:8080/v1"]),
        ("http://h:1/v1beta", ["http://h:1/v1beta/v1", "http://h:1/v1beta"]),
    ],
)
def test_people_give_server_version_or_route(given, bases):
    """Whatever of the address was copied, the routes are looked for where they are."""
    assert list(ServerUrl.parse(normal_url(given)).bases) == bases


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/", "/v1/models", "/v1/chat/completions"])
def test_each_form_of_the_address_leads_to_the_list(path):
    """The list is asked for below the version, once."""
    target, server = found([ASK, models("a", "b"), GONE], path=path)
    assert [request.line for request in server.requests] == ["GET /v1/models HTTP/1.1"]
    assert target.models == ("a", "b")
    assert target.base_url == server.url()


def test_path_without_a_version_is_tried_with_one_first():
    """Where the version is not found the path is taken as it is."""
    target, server = found([ASK, NOT_FOUND, ASK, models("a"), GONE], path="/api")
    assert [request.line.split()[1] for request in server.requests] == ["/api/v1/models", "/api/models"]
    assert target.base_url.endswith(f":{server.port}/api")
    assert target.models == ("a",)


def test_server_without_a_list_is_a_target_without_models():
    """No list is no fault: a path that was given is meant, and the model has to be named."""
    target, server = found([ASK, NOT_FOUND, ASK, NOT_FOUND, GONE], path="/api")
    assert target.models is None
    assert target.base_url == f"http://127.0.0.1:{server.port}/api"


@pytest.mark.parametrize("status", ["404 Not Found", "405 Method Not Allowed", "500 Oh", "501 No", "503 Busy"])
def test_server_that_fails_to_list_has_no_list(status):
    """It may answer all the same."""
    assert found([ASK, whole(status, b"no"), ASK, whole(status, b"no"), GONE])[0].models is None


# Lists.


@pytest.mark.parametrize(
    ("document", "names"),
    [
        ({"data": [{"id": "a"}, {"id": "b", "object": "model", "extra": [1]}]}, ("a", "b")),
        ([{"id": "a"}], ("a",)),
        ({"data": [{"id": "a"}, {"id": "a"}]}, ("a",)),
        ({"data": [], "object": "list"}, ()),
        ({"data": None, "object": "list"}, ()),
        ({"data": [{"id": 7}]}, ("7",)),
        ({"data": [{"id": f"m{n}"} for n in range(20_000)]}, tuple(f"m{n}" for n in range(20_000))),
    ],
)
def test_lists_of_all_shapes_are_read(document, names):
    """Objects under `data`, a bare list, duplicates, none at all, `null` for none, and twenty thousand."""
    assert found([ASK, whole("200 OK", orjson.dumps(document)), GONE])[0].models == names


_LIST = orjson.dumps({"data": [{"id": "a"}]})
_MEMBERS = b"".join(gzip.compress(_LIST[at : at + 5], mtime=0) for at in range(0, len(_LIST), 5))


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(_LIST, mtime=0)),
        ("gzip", _MEMBERS),
        ("X-GZip", gzip.compress(b"", mtime=0) + _MEMBERS + b"\0\0 what follows the last member"),
        ("deflate", zlib.compress(_LIST)),
        ("deflate", zlib.compress(_LIST, wbits=-15)),
        ("deflate", zlib.compress(_LIST, level=0, wbits=-15)),
    ],
)
@pytest.mark.parametrize("pieces", [1, 3, 1000])
def test_compressed_list_is_read(coding, body, pieces):
    """A server, or what stands before it, may compress a list, as gzip in several members or deflate without a frame,
    in pieces of any size: that is no answer to be measured."""
    fields = f"content-type: application/json\r\ntransfer-encoding: chunked\r\ncontent-encoding: {coding}\r\n"
    size = -(-len(body) // pieces)
    sent = [chunk(body[at : at + size]) for at in range(0, len(body), size)]
    target, _ = found([ASK, head(headers=fields.encode()), *sent, END, GONE])
    assert target.models == ("a",)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(bytes(10_000)) * 1000),
        ("gzip", gzip.compress(bytes(9_000_000))),
        ("gzip", gzip.compress(b"") * 450_000),
        ("deflate", zlib.compress(bytes(9_000_000), wbits=-15)),
    ],
)
def test_a_small_body_that_becomes_a_long_one_is_refused(coding, body):
    """A bomb in one member, in many, and one of many members that have nothing."""
    more = f"content-encoding: {coding}\r\n".encode()
    with pytest.raises(TargetUnavailable, match="the response is too long"):
        found([ASK, whole("200 OK", body, more=more), GONE])


def test_slow_list_is_waited_for():
    """Headers, and then a body in pieces with pauses, are still an answer."""
    body = orjson.dumps({"data": [{"id": "a"}]})
    pieces = [step for at in range(len(body)) for step in (0.002, chunk(body[at : at + 1]))]
    script = [
        ASK,
        head(headers=b"content-type: application/json\r\ntransfer-encoding: chunked\r\n"),
        *pieces,
        END,
        GONE,
    ]
    assert found(script)[0].models == ("a",)


def test_server_names_itself():
    """The header, for the report."""
    target, _ = found([ASK, whole("200 OK", b'{"data":[{"id":"a"}]}', more=b"server: llama.cpp\r\n"), GONE])
    assert target.server == "llama.cpp"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (whole("200 OK", b"<!doctype html><title>Open WebUI</title>", kind="text/html"), "HTML page (Open WebUI)"),
        (whole("200 OK", b"ok", kind="text/plain"), "'ok'"),
        (whole("200 OK", b""), "no body"),
        (whole("200 OK", b'{"data": "a"}'), "not an OpenAI-compatible server"),
        (whole("200 OK", b'{"ok": true}'), "not an OpenAI-compatible server"),
        (whole("200 OK", b'{"error": {"message": "no"}}'), "not an OpenAI-compatible server"),
        (whole("200 OK", b'{"detail": {"message": "no"}}'), "not an OpenAI-compatible server"),
        (whole("200 OK", b'"a"'), "not an OpenAI-compatible server"),
        (whole("200 OK", b"7"), "not an OpenAI-compatible server"),
        (whole("200 OK", b"null"), "not an OpenAI-compatible server"),
        (whole("200 OK", b'{"data": [{"id": "a"'), "not an OpenAI-compatible server"),
    ],
)
def test_what_is_no_list_is_no_such_server(answer, words):
    """A page, a text, some other JSON: it says what is there instead, and what to give."""
    error = refused(ASK, answer, GONE)
    assert words in error.message
    assert "/v1" in error.hint


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_missing_key_is_told_with_the_remedy(status):
    """Who is not let in is told which variable the key belongs in."""
    error = refused(ASK, whole(status, b'{"error":{"message":"bad key"}}'), GONE)
    assert f"HTTP {status[:3]}: bad key" in error.message
    assert "LOADBENCH_API_KEY" in error.hint


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_redirect_is_told_and_not_followed(status):
    """The key stays with whom it was given to, and the user learns the address."""
    script = [ASK, whole(status, b"", more=b"location: https://elsewhere.example/v1/models\r\n"), GONE]
    error = refused(*script)
    assert "redirects to https://elsewhere.example/v1/models" in error.message
    assert "not followed" in error.hint


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ([ASK, CLOSE], "no valid HTTP response"),
        ([ASK, RST], "reset"),
        ([ASK, b"SSH-2.0-OpenSSH_9.2\r\n\r\n", CLOSE], "no valid HTTP response"),
        ([ASK, head(headers=b"content-length: 50\r\n") + b'{"data"', CLOSE], "no valid HTTP response"),
    ],
)
def test_broken_answer_is_no_target(script, words):
    """What breaks off or is not HTTP at all is told as that."""
    error = refused(*script)
    assert words in error.message
    assert error.hint


def test_list_without_end_is_given_up(monkeypatch):
    """What is longer than any list is not read on: memory is not a stranger's to fill."""
    monkeypatch.setattr(http_get, "_MOST_BYTES", 10_000)
    headers = head(headers=b"content-type: application/json\r\ntransfer-encoding: chunked\r\n")
    assert "is too long" in refused(ASK, headers, *[chunk(b" " * 5000)] * 3, GONE).message


@pytest.mark.parametrize(
    "script",
    [
        [ASK, GONE],
        [ASK, head(headers=b"content-length: 50\r\n"), GONE],
        [ASK, head(headers=b"content-length: 5000\r\n"), *[b" ", 0.02] * 1000, GONE],
    ],
)
def test_hung_server_is_given_up(script, monkeypatch):
    """Silence, a body that does not come, a body that comes byte for byte: all of it has its time, and no more."""
    monkeypatch.setattr(http_get, "_WITHIN_S", 0.2)
    error = refused(*script, limits=LimitSettings(connect_timeout=S // 2))
    assert "no response in time" in error.message


def test_nobody_there_is_told():
    """A closed port, with the address and the question that helps."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with pytest.raises(TargetUnavailable, match=rf"127\.0\.0\.1:{port}.*connection refused.*is the server running"):
        asyncio.run(find_endpoint(Scenario(), {}, url=f"http://127.0.0.1:{port}"))


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a..b", "x" * 70])
def test_impossible_name_is_told(host, monkeypatch):
    """A name that cannot be, or is not, known is no crash."""

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(TargetUnavailable, match=host[:10]):
        asyncio.run(find_endpoint(Scenario(), {}, url=f"http://{host}"))


# TLS.


def test_certificates_are_checked_unless_told_otherwise(tmp_path):
    """An unknown CA is refused, a given one trusted, and --insecure asks nobody; the target keeps the context."""
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    script = [ASK, models("a"), GONE]
    secure = {"scheme": "https", "server_tls": context}
    assert "not trusted" in refused(*script, **secure).message
    assert found(script, **secure, cacert=tmp_path / "ca.pem")[0].tls is not None
    assert found(script, **secure, insecure=True)[0].models == ("a",)


def test_wrong_protocol_is_told_both_ways():
    """TLS to a plain port, and plain to a TLS port: each says what to write."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    error = refused(b"HTTP/1.1 400 Bad Request\r\n\r\n", 0.05, CLOSE, scheme="https")
    assert ("does not speak TLS" in error.message, "http://" in error.hint) == (True, True)
    assert "https://" in refused(ASK, models("a"), server_tls=context).hint


def test_bad_ca_file_is_bad_input(tmp_path):
    """The user's own file is the user's to mend."""
    with pytest.raises(BadInput, match="--cacert"):
        found([ASK], scheme="https", cacert=tmp_path / "absent.pem")


# Keys and headers.


def test_key_and_headers_go_along_and_are_not_shown():
    """The key of the environment and the further headers are sent, kept for the load, and in no text."""
    environment = {"LOADBENCH_API_KEY": "sesame-1"}
    target, server = found([ASK, models("a"), GONE], environment=environment, header=(("X-Team", "blue-2"),))
    sent = server.requests[0].headers
    assert (sent["authorization"], sent["x-team"]) == ("Bearer sesame-1", "blue-2")
    assert dict(target.headers) == {"X-Team": "blue-2", "authorization": "Bearer sesame-1"}
    assert not any(secret in repr(target) for secret in ("sesame-1", "blue-2"))


def test_no_key_sends_none():
    """Without the variable there is no header."""
    _, server = found([ASK, models("a"), GONE])
    assert "authorization" not in server.requests[0].headers


def test_named_variable_must_be_set():
    """Whoever names a variable of his own means it."""
    with pytest.raises(BadInput, match=r"MY_KEY.*not set"):
        found([ASK], api_key_env="MY_KEY")
    target, _ = found([ASK, models("a"), GONE], api_key_env="MY_KEY", environment={"MY_KEY": "k"})
    assert target.headers == (("authorization", "Bearer k"),)


@pytest.mark.parametrize("key", ["kéy", "k\ney", "k\x00", "sk-1 ", " "])
def test_key_that_no_header_can_hold_is_bad_input(key):
    """It is refused without being shown."""
    with pytest.raises(BadInput, match="LOADBENCH_API_KEY") as caught:
        found([ASK], environment={"LOADBENCH_API_KEY": key})
    assert not key.strip() or key not in str(caught.value)


def test_header_of_ones_own_is_the_one_that_is_sent():
    """A key that merely lies in the environment gives way to it: there is one such header."""
    header = (("authorization", "Basic x"),)
    for environment in ({}, {"LOADBENCH_API_KEY": "k"}):
        target, server = found([ASK, models("a"), GONE], environment=environment, header=header)
        assert target.headers == header
        assert server.requests[0].headers["authorization"] == "Basic x"


@pytest.mark.parametrize("host", ["xn--", "xn--a", "a..b"])
def test_host_name_that_cannot_exist_is_unavailable(host):
    """Without a traceback of the library that decodes names."""
    with pytest.raises(TargetUnavailable, match=f"^http://{host}:9/v1/models: "):
        asyncio.run(find_endpoint(Scenario(), {}, url=f"http://{host}:9"))


def test_proxy_of_the_environment_is_ignored(monkeypatch):
    """The list comes from the server that is measured."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert found([ASK, models("a"), GONE])[0].models == ("a",)


# Models.

LISTED = Target(base_url="http://h/v1", models=("qwen2.5-0.5b", "phi-4-mini"))


def test_wanted_models_are_checked_against_the_list():
    """All are tested, and there is a note on those that are not listed, with what may have been meant."""
    wanted, missing = choose_models(LISTED, ("phi-4-mini", "qwen2.5-0.5B"))
    assert wanted == ("phi-4-mini", "qwen2.5-0.5B")
    listed = "it lists qwen2.5-0.5b, phi-4-mini"
    assert missing == {"qwen2.5-0.5B": f"has no model 'qwen2.5-0.5B', did you mean 'qwen2.5-0.5b'?; {listed}"}


def test_unknown_model_names_those_there_are():
    """Without a name, the list is shown, of a long one its beginning."""
    with pytest.raises(BadInput, match=r"several models.*it lists qwen2\.5-0\.5b, phi-4-mini"):
        choose_models(LISTED, None)
    many = replace(LISTED, models=tuple(f"m{n}" for n in range(500)))
    with pytest.raises(BadInput, match="m19 and 480 more") as caught:
        choose_models(many, None)
    assert len(str(caught.value)) < 500


def test_only_model_needs_no_name():
    """With one there is no choice; with none or several there is."""
    assert choose_models(replace(LISTED, models=("a",)), None) == (("a",), {})
    with pytest.raises(BadInput, match=r"several models.*--model.*qwen"):
        choose_models(LISTED, None)
    with pytest.raises(BadInput, match=r"the list of models is empty.*--model"):
        choose_models(replace(LISTED, models=()), None)
    with pytest.raises(TargetUnavailable, match=r"no list of models.*--model"):
        choose_models(replace(LISTED, models=None), None)


@pytest.mark.parametrize("listed", [None, ()])
def test_named_models_are_taken_at_their_word_without_a_list(listed):
    """A server without a list may have any."""
    assert choose_models(replace(LISTED, models=listed), ("x",)) == (("x",), {})


def test_endpoint_takes_what_the_scenario_says():
    """Route, temperature, seed and headers are the scenario's and the target's."""
    scenario = Scenario(target=TargetSettings(api="completions"), work=WorkSettings(temperature=None, seed=9))
    endpoint = replace(LISTED, headers=(("a", "b"),)).endpoint("m", scenario)
    assert endpoint == Endpoint(
        base_url="http://h/v1", model="m", api=Api.COMPLETIONS, headers=(("a", "b"),), temperature=None, seed=9
    )


# The first answer.


def asked_first(*script: Any, timeouts: Timeouts | None = None) -> Any:
    """The first answer of a server of this script."""

    async def main() -> Any:
        async with serving(list(script)) as server:
            clock = MonotonicClock()
            transport = HttpxTransport(clock)
            endpoint = Endpoint(base_url=server.url(), model="m")
            client = Client(endpoint, transport, clock=clock, timeouts=timeouts or Timeouts())
            try:
                return await first_response(client, prompt="Hello?", max_tokens=3)
            finally:
                await transport.aclose()

    return asyncio.run(main())


def test_first_answer_is_a_sample():
    """Proof that it works, and what the server counts."""
    sample = asked_first(ASK, ANSWER, GONE)
    assert (sample.output_tokens, sample.input_tokens, sample.request.max_tokens) == (3, 7, 3)


@pytest.mark.parametrize(
    ("script", "words", "hint"),
    [
        ([ASK, whole("404 No", b'{"error":{"message":"no model m"}}'), GONE], "HTTP 404: no model m", "model's name"),
        ([ASK, whole("401 No", b'{"error":"key?"}'), GONE], "HTTP 401: key?", "LOADBENCH_API_KEY"),
        ([ASK, whole("405 No", b""), GONE], "HTTP 405", "path of --url"),
        ([ASK, whole("500 Oh", b'{"error":"out of memory"}'), GONE], "out of memory", ""),
        ([ASK, head() + chunk(b'data: {"error":"no slot"}\n\n') + END, GONE], "stream_error: no slot", ""),
        ([ASK, CLOSE], "reset: ", ""),
        ([ASK, head() + chunk(token()) + END, GONE], "truncated: ", ""),
    ],
)
def test_first_answer_that_fails_says_why(script, words, hint):
    """The server's own words, and what to do where that is known."""
    with pytest.raises(TargetUnavailable) as caught:
        asked_first(*script)
    assert "the first request failed" in caught.value.message
    assert words in caught.value.message
    assert hint in caught.value.hint


def test_first_answer_is_not_waited_for_for_ever():
    """The limits of the load hold for it as well."""
    with pytest.raises(TargetUnavailable, match="timeout_first_token"):
        asked_first(ASK, GONE, timeouts=Timeouts(first_token_ns=50 * MS))


@pytest.mark.parametrize(
    ("api", "status", "words"),
    [
        (Api.OLLAMA, "404 Not Found", "no route for --api ollama"),
        (Api.RESPONSES, "405 Method Not Allowed", "no route for --api responses"),
        (Api.COMPLETIONS, "501 Not Implemented", "no route for --api completions"),
        (Api.RESPONSES, "400 Bad Request", ""),
        (Api.CHAT, "404 Not Found", "check the model's name"),
    ],
)
def test_server_without_the_route_of_an_api_is_told_apart(api, status, words):
    """Chats are what every server has; the other routes may be missing."""

    async def main() -> TargetUnavailable:
        async with serving([ASK, whole(status, b"")]) as server:
            clock = MonotonicClock()
            transport = HttpxTransport(clock, tls=None)
            endpoint = Endpoint(base_url=server.url(), model="m", api=api)
            client = Client(endpoint, transport, clock=clock, timeouts=Timeouts())
            try:
                with pytest.raises(TargetUnavailable) as caught:
                    await first_response(client, prompt="x", max_tokens=1)
            finally:
                await transport.aclose()
            return caught.value

    assert words in asyncio.run(main()).hint
