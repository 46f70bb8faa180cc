"""Any server, asked anything: addresses, headers, fields of one's own, lists of models, and the words of errors."""

from __future__ import annotations

import base64
import json

import pytest

from tests.cli.any_server import Reply, any_server, chat, ollama, responses
from tests.cli.typed import typed

SHORT = ("--users", "1", "--requests", "2", "--warm-up", "0s", "--telemetry", "off", "--no-live")
SECRET = "AIzaSy-very-secret-0123456789"
ROUTES = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "ollama": "/api/chat",
}


def sweep(tmp_path, *arguments, command="sweep", **variables):
    """A short sweep, and its run.json if there is one."""
    done = typed(command, *arguments, *SHORT, cwd=tmp_path, **variables)
    assert "Traceback" not in done.stderr
    runs = list(tmp_path.rglob("run.json"))
    return done, json.loads(runs[-1].read_text()) if runs else {}


def everything(tmp_path, done):
    """All that was printed or kept."""
    return done.stdout + done.stderr + "".join(p.read_text("utf-8") for p in tmp_path.rglob("*") if p.is_file())


def measured(run):
    """The number of good responses."""
    return sum(level["outcomes"].get("ok", 0) for level in run["levels"])


# Fields of one's own.


@pytest.mark.parametrize("api", sorted(ROUTES))
def test_fields_are_merged_into_every_body(api, tmp_path):
    """First requests and measured ones have them; null leaves a field out, objects are merged, the last value wins."""
    seed = {"options": {"seed": None, "mirostat": 1}} if api == "ollama" else {"seed": None}
    first = {"top_k": 3, "chat_template_kwargs": {"enable_thinking": False, "a": 1}}
    second = {"top_k": 4, "chat_template_kwargs": {"a": None, "b": [None, {"c": None}]}}
    with any_server() as server:
        fields = [flag for part in (seed, first, second) for flag in ("--extra-body", json.dumps(part))]
        done, run = sweep(tmp_path, "--url", server.root, "--api", api, *fields)
    assert (measured(run), len(server.posts) >= 4) == (2, True), done.stderr
    for got in server.posts:
        assert got.path == ROUTES[api]
        assert got.body["top_k"] == 4
        assert got.body["chat_template_kwargs"] == {"enable_thinking": False, "b": [None, {"c": None}]}
        assert "seed" not in got.body
        if api == "ollama":
            assert got.body["options"].keys() == {"num_predict", "temperature", "mirostat"}
    assert run["scenario"]["target"]["extra_body"] == [seed, first, second]


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ('[target.extra_body]\nmin_p = 0.5\n[target.extra_body.nested]\nlist = [1, "a"]\n', {"min_p": 0.5}),
        ("[target]\nextra_body = [{ min_p = 1 }, { min_p = 2 }]\n", {"min_p": 2}),
        ('[target]\nextra_body = \'{"min_p": 7, "temperature": null}\'\n', {"min_p": 7}),
        ('[target]\nextra_body = "@fields.json"\n', {"min_p": 9}),
        ("", {"min_p": 11}),
    ],
)
def test_fields_may_be_in_a_file_or_a_variable(written, sent, tmp_path):
    """As a table, a list of tables, text, a file; or in the environment."""
    (tmp_path / "fields.json").write_text('\ufeff{"min_p": 9}', encoding="utf-8")
    (tmp_path / "s.toml").write_text(written)
    variables = {} if written else {"LOADBENCH_EXTRA_BODY": '{"min_p": 11}'}
    with any_server() as server:
        sweep(tmp_path, "s.toml", "--url", server.root, **variables)
        assert {got.body["min_p"] for got in server.posts} == {*sent.values()}


def test_workers_send_the_same_fields(tmp_path):
    """Bodies are made where they are sent."""
    with any_server() as server:
        url = f"{server.root}/v1?team=blue&token={SECRET}"
        options = ("--workers=2", "--users=2", "--requests=8", "--warm-up=0s", "--telemetry=off")
        fields = ("--extra-body", '{"top_k": 3}', "--max-tokens-field=max_new_tokens", "--header-env=X-Key: MY_KEY")
        done = typed("sweep", "--url", url, *options, *fields, cwd=tmp_path, MY_KEY="sesame-opens")
    assert len(server.posts) >= 8
    for got in server.posts:
        assert got.path == f"/v1/chat/completions?team=blue&token={SECRET}"
        assert (got.body["top_k"], got.body["max_new_tokens"] in {64, 1}) == (3, True)
        assert "max_tokens" not in got.body
        assert got.headers["x-key"] == ["sesame-opens"]
    assert not any(secret in everything(tmp_path, done) for secret in (SECRET, "sesame-opens"))


@pytest.mark.parametrize(("api", "old"), [("chat", "max_tokens"), ("responses", "max_output_tokens")])
def test_limit_has_the_name_that_the_server_wants(api, old, tmp_path):
    """Of each API it is its own field that is renamed."""
    with any_server() as server:
        options = ("--api", api, "--max-tokens", "9", "--max-tokens-field", "max_completion_tokens")
        sweep(tmp_path, "--url", server.root, *options)
    limits = [(got.body.get("max_completion_tokens"), old in got.body) for got in server.posts]
    # The second first request is for its first token alone.
    assert {*limits} == {(9, False), (1, False)}


def test_limit_and_temperature_of_a_body_are_those_settings(tmp_path):
    """They are recorded as what was requested, and what is left out as not sent."""
    with any_server() as server:
        body = '{"max_tokens": 11, "temperature": null}'
        _, run = sweep(tmp_path, "--url", server.root, "--extra-body", body)
    assert {got.body["max_tokens"] for got in server.posts} == {11, 1}
    assert not any("temperature" in got.body for got in server.posts)
    work = run["scenario"]["work"]
    assert (work["max_tokens"], work["temperature"]) == (11, None)
    assert run["origins"]["work.max_tokens"] == "flag --extra-body"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--max-tokens=9", '--extra-body={"max_tokens": 8}'), "--extra-body has another max_tokens"),
        (("--temperature=1", '--extra-body={"temperature": 0.5}'), "--extra-body has another temperature"),
        (("--output-tokens=9", '--extra-body={"max_completion_tokens": 8}'), "each request draws its own"),
        (('--extra-body={"max_tokens": 8, "max_new_tokens": 9}',), "limit the same"),
        (('--extra-body={"options": {"num_predict": 8}, "max_tokens": 9}',), "limit the same"),
        (('--extra-body={"max_tokens": 0}',), "want a whole number of at least 1"),
        (("--extra-body=@missing.json",), "missing.json: No such file"),
        (("--extra-body=@broken.json",), "broken.json: not JSON at line 2, column 7"),
        (("--extra-body=[]",), "--extra-body: found an array, want a JSON object"),
        (("--extra-body=null",), "--extra-body: found null, want a JSON object"),
        (('--extra-body={"a": [1, {"b": -Infinity}]}',), "-Infinity is no JSON"),
        (('--extra-body={"a": [1, {"b": 1e400}]}',), "a[1].b: found inf"),
        (('--extra-body={"a": {"b": 1, "b": 1}}',), "'b' is given twice in one object"),
        (('--extra-body={"stream": null}',), "stream cannot be changed"),
        (('--extra-body={"best_of": 4}',), "best_of must be 1"),
        (('--extra-body={"input": "x"}',), "input cannot be changed: give prompts with --prompts"),
        (("--api=ollama", "--max-tokens-field=n_predict"), "Ollama has one name for it"),
        (("--max-tokens-field=stream",), "the name of a field that limits a response"),
    ],
)
def test_what_would_measure_something_else_is_refused(arguments, reason, tmp_path):
    """With the place and the reason, before anything is sent."""
    (tmp_path / "broken.json").write_text('{\n "a": x}')
    done, _ = sweep(tmp_path, "--url", "http://127.0.0.1:1", "--dry-run", "--verbose", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr


def test_weaker_limit_gives_way_to_that_of_a_body(tmp_path):
    """As any setting of a file gives way to a flag; the plan lists it."""
    (tmp_path / "s.toml").write_text("[work]\nmax_tokens = 9\n")
    arguments = ("s.toml", "--url", "http://h", "--dry-run", "--verbose", "--extra-body", '{"max_tokens": 8}')
    done, _ = sweep(tmp_path, *arguments)
    assert "not used: work.max_tokens (s.toml:2): overridden by --extra-body" in done.stdout


def test_plan_shows_the_first_request(tmp_path):
    """The whole body as it will be sent, with secrets masked, and the same as the first that comes."""
    with any_server() as server:
        url = f"{server.root}/v1/responses?sig={SECRET}"
        body = json.dumps({"top_k": 3, "metadata": {"access_token": SECRET, "n": None}})
        arguments = ("--url", url, "--model", "m", "--extra-body", body, "--header", f"X-Team: {SECRET}")
        done, _ = sweep(tmp_path, *arguments, "--dry-run", "--verbose")
        lines = done.stdout.splitlines()
        at = lines.index("first request:")
        shown = json.loads("\n".join(lines[at:]).partition("\n{")[2].join(["{", ""]))
        assert not server.got
        sweep(tmp_path, *arguments)
    sent = server.posts[0].body
    assert sent["metadata"] == {"access_token": SECRET}
    assert shown == {**sent, "metadata": {"access_token": "***"}}
    assert lines[at + 1] == f"POST {server.root}/v1/responses?sig=***"
    assert "X-Team: ***" in lines
    assert SECRET not in everything(tmp_path, done)


def test_secret_that_a_server_repeats_is_not_kept(tmp_path):
    """Of the body, the query or a header: it echoes all of them, and redirects with them."""

    def echo(got):
        if len(server.posts) < 4:
            return chat("m")
        where = f"{got.path} {got.headers['x-team']} {got.body['api_key']}"
        return Reply({"error": where}, status=400) if len(server.posts) == 4 else Reply(status=307, headers=back(got))

    def back(got):
        return {"Location": f"https://elsewhere{got.path}"}

    with any_server(answer=echo) as server:
        secrets = ("--header", f"X-Team: {SECRET}1", "--extra-body", json.dumps({"api_key": f"{SECRET}2"}))
        done, run = sweep(tmp_path, "--url", f"{server.root}/v1?key={SECRET}", *secrets)
    details = [failure["detail"] for level in run["levels"] for failure in level["failures"]]
    assert any("key=***" in detail for detail in details)
    assert any("HTTP 307: redirects to https://elsewhere/v1/chat/completions?key=***" in detail for detail in details)
    assert SECRET not in everything(tmp_path, done)


def test_secret_in_a_row_is_sent_and_not_kept(tmp_path):
    """A server that repeats it in an error does so in the run folder otherwise."""
    rows = [{"prompt": "Why?"}, {"prompt": "How?", "extra_body": {"metadata": {"api_key": SECRET}}}]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def echo(got):
        return Reply({"error": f"bad: {got.body}"}, status=400) if "metadata" in got.body else chat("m")

    with any_server(answer=echo) as server:
        done, run = sweep(tmp_path, "--url", server.root, "--prompts", "p.jsonl", "--max-tokens", "4")
        plan, _ = sweep(tmp_path, "--url", server.root, "--prompts", "p.jsonl", "--dry-run", "--verbose")
    assert {got.body.get("metadata", {}).get("api_key") for got in server.posts} == {None, SECRET}
    (tmp_path / "p.jsonl").unlink()
    assert "'api_key': '***'" in run["levels"][0]["failures"][0]["detail"]
    assert SECRET not in everything(tmp_path, done) + plan.stdout


# Addresses.


@pytest.mark.parametrize(
    ("path", "posted", "lists"),
    [
        ("/gw/deployments/gpt-x?api-version=2025-01-01-preview", "/gw/deployments/gpt-x/chat/completions", None),
        (f"/v1beta/openai/?key={SECRET}", "/v1beta/openai/chat/completions", "/v1beta/openai/models"),
        ("/api/v1", "/api/v1/chat/completions", "/api/v1/models"),
        ("/openai/v1/", "/openai/v1/chat/completions", "/openai/v1/models"),
        ("/compatible-mode/v1?", "/compatible-mode/v1/chat/completions", "/compatible-mode/v1/models"),
        ("/proxy/llm", "/proxy/llm/v1/chat/completions", "/proxy/llm/v1/models"),
        ("/proxy/llm", "/proxy/llm/chat/completions", "/proxy/llm/models"),
        ("/proxy/llm", "/proxy/llm/chat/completions", None),
        ("", "/v1/chat/completions", None),
        ("/v1/models", "/v1/chat/completions", "/v1/models"),
        ("/v1/chat/completions/", "/v1/chat/completions/", "/v1/models"),
        ("/chat/completions", "/chat/completions", "/v1/models"),
        ("/models?api-version=2024-05-01-preview", "/models/chat/completions", None),
    ],
)
def test_address_is_used_as_it_was_given(path, posted, lists, tmp_path):
    """With its query on every request; the list of models shows where the base is, else the given path is meant."""

    def listed(asked):
        return Reply({"data": [{"id": "m"}]}) if asked.partition("?")[0] == lists else None

    with any_server(listed) as server:
        done, run = sweep(tmp_path, "--url", server.root + path, "--model", "m")
    assert measured(run) == 2, done.stderr
    query = path.partition("?")[2]
    assert {got.path for got in server.posts} == {posted + (f"?{query}" if query else "")}
    assert {got.path.partition("?")[2] for got in server.got} == {query}
    assert ("warning: no list of models" in done.stderr) == (lists is None)
    assert SECRET not in everything(tmp_path, done)


@pytest.mark.parametrize("api", sorted(ROUTES))
def test_route_in_full_decides_the_api(api, tmp_path):
    """It is the only one that is asked, whatever else is there."""
    speak = {"responses": responses, "ollama": ollama}.get(api, chat)
    path = f"/only{ROUTES[api]}"
    with any_server(lambda _: None, lambda got: speak("m") if got.path == path else None) as server:
        done, run = sweep(tmp_path, "--url", server.root + path, "--model", "m")
    assert measured(run) == 2, done.stderr
    assert run["scenario"]["target"]["api"] == api
    assert {got.path for got in server.posts} == {path}


def test_route_that_contradicts_the_api_is_refused(tmp_path):
    """Of one source; a route on the command line overrides a file's API."""
    url = ("--url", "http://h/v1/responses")
    done, _ = sweep(tmp_path, *url, "--api", "chat", "--dry-run", "--verbose")
    assert done.returncode == 2
    assert "--api chat: --url ends in a route of the responses API" in done.stderr
    (tmp_path / "s.toml").write_text('[target]\napi = "completions"\n')
    done, _ = sweep(tmp_path, "s.toml", *url, "--dry-run", "--verbose")
    assert "not used: target.api (s.toml:2): overridden by --url" in done.stdout


def test_every_request_of_a_list_has_the_query(tmp_path):
    """Also those that look for further lists, as of Ollama."""

    def listed(asked):
        route, _, query = asked.partition("?")
        models = {"models": [{"name": "a", "model": "a"}]} if route.startswith("/api/") else {"data": [{"id": "a"}]}
        return Reply(models) if query == f"key={SECRET}&v=%7e1" else Reply({}, status=401)

    with any_server(listed) as server:
        done = typed("models", "--url", f"{server.root}/v1?key={SECRET}&v=%7e1", cwd=tmp_path)
    assert [got.path.partition("?")[0] for got in server.got] == ["/v1/models", "/api/tags", "/api/ps"]
    assert "/api/ps" in done.stdout
    assert SECRET not in everything(tmp_path, done)


@pytest.mark.parametrize("command", ["sweep", "doctor", "models"])
@pytest.mark.parametrize("transport", ["fast", "httpx"])
def test_redirect_to_no_url_is_reported(command, transport, tmp_path):
    """Of the list and of a request; it is no reason to break off."""
    away = Reply(b"", 307, headers={"Location": "http://[bad/?ticket=1"})
    flags = () if command == "models" else ("--transport", transport, "--model", "m")
    with any_server(lambda _: away, lambda _: away) as server:
        done = typed(command, "--url", server.root, *flags, cwd=tmp_path)
    assert done.returncode == 6
    assert "Traceback" not in done.stderr
    assert "307" in done.stdout + done.stderr or "redirect" in done.stdout + done.stderr


# Headers.


@pytest.mark.parametrize(
    ("arguments", "variables", "sent"),
    [
        ((), {}, None),
        ((), {"LOADBENCH_API_KEY": "k-env"}, "Bearer k-env"),
        (("--header", "authorization: Basic abc"), {"LOADBENCH_API_KEY": "k-env"}, "Basic abc"),
        (("--header-env", "Authorization: Bearer MY_KEY"), {"LOADBENCH_API_KEY": "k", "MY_KEY": "x"}, "Bearer x"),
        (("--header-env", "AUTHORIZATION:MY_KEY"), {"MY_KEY": "Token t"}, "Token t"),
        (("--api-key-env", "MY_KEY"), {"LOADBENCH_API_KEY": "k", "MY_KEY": "x"}, "Bearer x"),
        (
            ("--api-key-env", "MY_KEY"),
            {"LOADBENCH_HEADER_ENV": "Authorization: OTHER", "OTHER": "o", "MY_KEY": "x"},
            "Bearer x",
        ),
        (("--header", "api-key: azure"), {"LOADBENCH_API_KEY": "k-env"}, "Bearer k-env"),
    ],
)
def test_one_authorization_is_sent(arguments, variables, sent, tmp_path):
    """Whoever gives it; a key that merely lies in the environment gives way, and a flag beats a variable."""
    with any_server() as server:
        sweep(tmp_path, "--url", server.root, *arguments, **variables)
    assert {tuple(got.headers.get("authorization", ())) for got in server.got} == {(sent,) if sent else ()}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--header", "Authorization: a", "--api-key-env", "MY_KEY"), "--header and --api-key-env: authorization"),
        (("--header", "X-Key: a", "--header-env", "x-key: MY_KEY"), "--header and --header-env: x-key is given twice"),
        (("--header-env", "X-Key: MISSING"), "--header-env X-Key: MISSING: this environment variable is not set"),
        (("--header-env", "X-Key: sk-12 34"), "want a header and the environment variable that holds its value"),
        (("--header-env", "Host: MY_KEY"), "Host is a header that loadbench sets itself"),
        (("--header-env", "X-Key: BROKEN"), "--header-env X-Key: BROKEN: characters that a header cannot have"),
    ],
)
def test_headers_that_cannot_be_sent_are_refused(arguments, reason, tmp_path):
    """Two of one name, a variable that is not set, a value that is no header's; the value is not shown."""
    values = {"MY_KEY": "sesame-1", "BROKEN": "sesame-2\n"}
    done, _ = sweep(tmp_path, "--url", "http://127.0.0.1:1", *arguments, **values)
    assert done.returncode == 2
    assert reason in done.stderr
    assert not any(word in done.stderr for word in ("sesame", "sk-12"))


def test_user_of_an_address_is_a_header(tmp_path):
    """It is decoded, and shown nowhere."""
    with any_server() as server:
        url = server.root.replace("http://", "http://me:p%40ss-w%C3%B6rd@")
        done, run = sweep(tmp_path, "--url", url, LOADBENCH_API_KEY="other")
    basic = base64.b64encode("me:p@ss-wörd".encode()).decode()
    assert {tuple(got.headers["authorization"]) for got in server.got} == {(f"Basic {basic}",)}
    assert run["scenario"]["target"]["url"] == server.root.replace("http://", "http://***@")
    assert not any(text in everything(tmp_path, done) for text in ("p%40ss", "p@ss", basic))


# Lists of models.


@pytest.mark.parametrize(
    ("document", "model"),
    [
        ({"data": [{"id": "a"}]}, "a"),
        ([{"id": "a/b:free"}], "a/b:free"),
        (["a"], "a"),
        ({"data": ["a"]}, "a"),
        ({"models": [{"name": "a:latest", "model": "a:latest", "size": 7}]}, "a:latest"),
        ({"models": ["a"]}, "a"),
        ({"models": [{"name": "models/gem", "supportedGenerationMethods": ["generateContent"]}]}, "models/gem"),
        ({"object": "list", "data": [{"object": "model", "name": "a"}]}, "a"),
        ({"data": [{"id": None, "name": "a"}, {"id": None}, {"id": ""}, None, [], 7.5, True]}, "a"),
        ({"data": [{"id": "a"}, {"id": "a"}]}, "a"),
        ({"data": [{"id": 7}]}, "7"),
        ({"a": {"type": "llm"}}, "a"),
        ({"data": {"a": {}}}, "a"),
        ({"data": [{"id": "modèle ü/7B"}]}, "modèle ü/7B"),
        ({"data": [{"id": "a", "type": "chat"}, {"id": "e", "type": "embedding"}, {"id": "r", "type": "rerank"}]}, "a"),
        ({"data": [{"id": "a"}, {"id": "text-embedding-3-small"}, {"id": "whisper-1"}]}, "a"),
        ({"data": [{"id": "a"}, {"id": "e", "capabilities": ["embedding"]}]}, "a"),
        ({"data": [{"id": "a"}, {"id": "e", "capabilities": {"embeddings": True, "chat_completion": False}}]}, "a"),
    ],
)
def test_only_model_of_a_list_is_tested(document, model, tmp_path):
    """In whatever shape the list is; a model that generates no text is not the one."""
    with any_server(lambda path: Reply(document) if path.endswith("/models") else None) as server:
        done, run = sweep(tmp_path, "--url", server.root)
    assert measured(run) == 2, done.stderr
    assert {got.body["model"] for got in server.posts} == {model}


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"data": [{"id": "a"}, {"id": "b"}], "has_more": True}, "it lists a, b and more"),
        ({"data": [{"id": "a"}], "has_more": True}, "it lists a and more"),
        ({"data": [{"id": "a"}], "next": "/v1/models?page=2"}, "it lists a and more"),
        ({"data": [{"id": "nomic-embed-text"}]}, "no model that generates text is listed"),
        ({"data": []}, "the list of models is empty"),
        ({"data": None}, "the list of models is empty"),
        ({"data": [{"id": None}]}, "the list of models is empty"),
        (None, "its list of models is 'null'"),
        ("x", "its list of models is"),
        ({"error": {"message": "no lists here"}}, "its list of models is 'no lists here'"),
        ({"status": "ok"}, "its list of models is"),
    ],
)
def test_without_a_model_the_choice_is_the_users(document, reason, tmp_path):
    """There are several, or none that could be meant."""
    with any_server(lambda path: Reply(document) if path.endswith("/models") else None) as server:
        done, _ = sweep(tmp_path, "--url", server.root)
        assert done.returncode in {2, 6}
        assert reason in done.stderr
        assert "--model" in done.stderr
        assert not server.posts
        assert measured(sweep(tmp_path, "--url", server.root, "--model", "a")[1]) == 2


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (None, "HTTP 404: Not Found"),
        (Reply({"error": {"message": "Missing scopes: api.model.read"}}, status=403), "HTTP 403: Missing scopes"),
        (Reply({"error": {"message": "who are you?"}}, status=401), "HTTP 401: who are you?"),
        (Reply(b"", status=500), "HTTP 500: no body"),
        (Reply(b"<!doctype html><title>Sign in</title>", kind="text/html"), "an HTML page (Sign in)"),
        (Reply(status=302, headers={"Location": "/login"}), "HTTP 302, redirects to http://127.0.0.1"),
        (Reply(b"{", kind="application/json"), "its list of models is '{'"),
        (Reply({"data": [{"id": "a"}, {"id": "mm"}]}), "has no model 'm', did you mean 'mm'?"),
    ],
)
def test_list_is_advice_where_the_model_is_named(reply, words, tmp_path):
    """What is wrong with it is a warning, also for the doctor, and the model is measured."""
    with any_server(lambda path: reply if path.endswith("/models") else None) as server:
        done, run = sweep(tmp_path, "--url", server.root, "--model", "m")
        checked = typed("doctor", "--url", server.root, "--model", "m", cwd=tmp_path)
    assert "warning: " in done.stderr
    assert words in done.stderr
    assert measured(run) == 2
    assert checked.returncode == 0, checked.stdout
    assert words in checked.stdout


@pytest.mark.parametrize("name", ["llama3", "gem"])
def test_alias_of_a_listed_model_is_no_doubt(name, tmp_path):
    """Ollama's tag and Gemini's prefix may be left out."""
    listed = {"models": [{"name": "llama3:latest"}, {"name": "models/gem"}]}
    with any_server(lambda path: Reply(listed) if path.endswith("/models") else None) as server:
        done, run = sweep(tmp_path, "--url", server.root, "--model", name)
    assert "warning" not in done.stderr
    assert measured(run) == 2


def test_server_that_is_not_there_is_still_a_bar(tmp_path):
    """A model's name does not help then."""
    with any_server() as server:
        url = server.root
    done, _ = sweep(tmp_path, "--url", url, "--model", "m")
    assert done.returncode == 6
    assert "error: " in done.stderr
    assert "warning" not in done.stderr


# The server's words.


@pytest.mark.parametrize(
    ("reply", "words", "advice"),
    [
        (Reply({"error": {"message": "maximum context length is 16"}}, 400), "context length is 16", "--max-tokens"),
        (Reply({"errors": [{"message": "Incorrect API key provided"}]}, 401), "Incorrect API", "LOADBENCH_API_KEY"),
        (Reply({"message": "Forbidden"}, 403), "HTTP 403: Forbidden", "--header-env"),
        (Reply({"error": "model 'm' not found"}, 404), "model 'm' not found", "loadbench models"),
        (Reply(b"404 page not found", 404, "text/plain"), "404 page not found", "--url"),
        (Reply({"msg": "slow down"}, 429, headers={"Retry-After": "7"}), "slow down (Retry-After: 7)", "--users"),
        (Reply(b"<html><title>413 Too Large</title></html>", 413, "text/html"), "413 Too Large", "shorter prompts"),
        (Reply({"error": {"message": "Loading model", "code": 503}}, 503), "Loading model", "wait until"),
        (Reply(b"", 502), "HTTP 502: no body", "proxy"),
        (Reply(b"", 308, headers={"Location": "/v2/chat"}), "redirects to http://127.0.0.1", "--url"),
        (Reply({"detail": [{"loc": ["body", "x"], "msg": "bad\u001b[31m"}]}, 422), "body.x: bad[31m", "--extra-body"),
    ],
)
def test_words_of_a_failure_come_with_what_to_do(reply, words, advice, tmp_path):
    """At the first request as the error, and within a level once below the table."""
    arguments = ("--model", "m", "--strict-request")
    with any_server(answer=lambda _: reply) as server:
        done, _ = sweep(tmp_path, "--url", server.root, *arguments)
    assert done.returncode == 6
    assert words in done.stderr
    assert advice in done.stderr
    (tmp_path / "level").mkdir()
    with any_server(answer=lambda _: chat("m") if len(server.posts) < 5 else reply) as server:
        done, run = sweep(tmp_path / "level", "--url", server.root, *arguments)
    (failure,) = [one for level in run["levels"] for one in level["failures"]]
    assert words in failure["detail"]
    assert advice in failure["advice"]
    assert done.stdout.count(failure["advice"]) == 1


# Other commands.


def test_run_whose_address_has_a_secret_is_scored_with_the_address_given_again(tmp_path):
    """The run did not keep it; what is no secret is reused, with the headers' variables and the fields."""
    (tmp_path / "prompts.txt").write_text("why?\n")
    prompts = ("--prompts", "prompts.txt")
    with any_server() as server:
        url = f"{server.root}/v1?key={SECRET}"
        own = ("--header-env", "X-Key: MY_KEY", "--extra-body", '{"top_k": 3}')
        sweep(tmp_path, "--url", url, *prompts, *own, MY_KEY="sesame-opens")
        (run,) = (tmp_path / "results").iterdir()
        refused = typed("score", "stub", str(run), cwd=tmp_path, MY_KEY="sesame-opens")
        assert refused.returncode == 2
        assert "the run: target.url has a secret, which is not kept" in refused.stderr
        assert "--url" in refused.stderr
        server.got.clear()
        done = typed("score", "stub", str(run), "--url", url, "--extra-body", '{"top_k": 4}', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {got.body["top_k"] for got in server.posts} == {4}
    assert not any(secret in everything(tmp_path, done) for secret in (SECRET, "sesame-opens"))


def test_fields_of_a_run_are_reused_but_not_for_its_judge(tmp_path):
    """A judge's responses have another form."""
    (tmp_path / "prompts.txt").write_text("why?\n")
    with any_server() as server:
        sweep(tmp_path, "--url", server.root, "--prompts", "prompts.txt", "--extra-body", '{"top_k": 3}')
        (run,) = (tmp_path / "results").iterdir()
        server.got.clear()
        typed("score", "stub", str(run), cwd=tmp_path)
        assert {got.body.get("top_k") for got in server.posts} == {3}
        server.got.clear()
        typed("score", "judge", str(run), "--judge-model", "m", cwd=tmp_path)
        assert {got.body.get("top_k") for got in server.posts} == {None}


def test_sides_have_their_own_fields_addresses_and_headers(tmp_path):
    """One server can be compared with itself under other fields; the difference is a caveat."""
    options = ("--users=1", "--requests=2", "--warm-up=0s", "--repeats=1", "--settle=0s", "--telemetry=off")
    with any_server() as server:
        a = f"url={server.root}/v1?team=blue"
        b = f'url={server.root}/v1/responses,extra_body={{"top_k": 3, "x": [1, 2]}},header_env=X-Key: MY_KEY'
        done = typed("compare", a, b, *options, cwd=tmp_path, MY_KEY="sesame-opens")
    assert "saved in" in done.stderr, done.stderr
    seen = {(got.path, got.body.get("top_k"), *got.headers.get("x-key", ())) for got in server.posts}
    assert seen == {("/v1/chat/completions?team=blue", None), ("/v1/responses", 3, "sesame-opens")}
    assert "target.extra_body" in done.stdout
    assert "sesame" not in everything(tmp_path, done)
    limit = typed("compare", a, f'{b},extra_body={{"max_tokens": 3}}', cwd=tmp_path)
    assert "--b: extra_body is given twice" in limit.stderr
    limit = typed("compare", a, f'url={server.root},extra_body={{"max_tokens": 3}}', cwd=tmp_path)
    assert "--b: extra_body: both sides have the same limits of output" in limit.stderr
    api = typed("compare", a, f"url={server.root}/v1/responses,api=chat", cwd=tmp_path)
    assert "--b: api is chat, and the URL ends in a route of responses" in api.stderr
    same = typed("compare", a, f"url={server.root}/v1?team=red", *options, "--dry-run", "--verbose", cwd=tmp_path)
    assert same.returncode == 0, same.stderr


@pytest.mark.parametrize("path", ["", "/api/chat"])
def test_ollama_alone_lists_its_models(path, tmp_path):
    """Where only its own routes are."""
    tags = Reply({"models": [{"name": "a:1b", "model": "a:1b", "capabilities": ["completion"]}]})
    with any_server(lambda asked: tags if asked == "/api/tags" else None) as server:
        done, run = sweep(tmp_path, "--url", server.root + path, "--api", "ollama")
    assert measured(run) == 2, done.stderr
    assert {(got.path, got.body["model"]) for got in server.posts} == {("/api/chat", "a:1b")}


def test_models_says_why_there_are_none(tmp_path):
    """A server without a list is no error."""
    with any_server(lambda _: Reply({"message": "no such thing"}, status=404)) as server:
        done = typed("models", "--url", server.root, cwd=tmp_path)
    assert (done.returncode, "HTTP 404: no such thing" in done.stderr) == (0, True)
