"""The URL of a server as users give it: the server alone, the base of its API, or a route in full.

    http://127.0.0.1:8080                                            the server; the base is …/v1
    https://host/openai/v1                                           the base
    https://host/openai/deployments/my-gpt?api-version=2024-10-21    the base, and a query of every request
    https://host/chat/completions                                    a route: requests go there and nowhere else

Users and passwords (`http://user:password@host`) become a header. They are never shown, and neither are values of the
query that may be secrets.
"""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import IPv6Address
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from loadbench.core.secrets import MASK, is_secret

# In the URL of a server that loadbench starts, what its port is filled in for.
PORT = "{port}"
_VERSION = re.compile(r"/v\d+$")
# The routes to which loadbench sends requests, and the API of each.
_ROUTES = {"/chat/completions": "chat", "/completions": "completions", "/responses": "responses", "/api/chat": "ollama"}
# Routes that people copy too, below a base. Azure has models below a base of that name, and a query.
_OTHER_ROUTES = re.compile(r"(/v\d+)/models$|/(?:openai/)?status$|/api/tags$")
_LIST_ROUTE = "/models"
# Those of other APIs. Nothing is below them, so requests could only fail.
_FOREIGN_ROUTES = re.compile(
    r"/(embeddings|rerank|messages|generate|generate_stream|completion|infill|embed|images/generations|audio/\w+"
    r"|models/[^/]+:\w+)$"
)
# Hiding a shorter text would hide parts of other words.
_SHORTEST_SECRET = 6
# Values of a query that say which API it is, and are no secrets however long.
_PLAIN_PARAMETER = re.compile(r"version|deployment|model|region|project|provider", re.IGNORECASE)


# What `--insecure` means, for everybody who sees a result.
UNVERIFIED = "the server's certificate was not verified (--insecure): another machine could have responded in its place"


class ServerUrl(NamedTuple):
    """A URL and its parts. `base` can be shown: it has neither user nor query.

    `route` is the URL of requests if it was given in full, and `api` the API of that route.
    """

    base: str
    route: str = ""
    api: str = ""
    query: str = ""
    user: str = ""  # with the password, as `user:password`

    @classmethod
    def parse(cls, url: str) -> ServerUrl:
        """The parts of a URL that `normal_url` has accepted."""
        parts = urlsplit(url)
        userinfo, _, host = parts.netloc.rpartition("@")
        path = parts.path.rstrip("/")
        suffix = next((suffix for suffix in _ROUTES if path.endswith(suffix)), "")
        base = path.removesuffix(suffix) if suffix else _OTHER_ROUTES.sub(r"\1", path)
        base = base if suffix or parts.query else base.removesuffix(_LIST_ROUTE)
        return cls(
            base=urlunsplit((parts.scheme, host, base, "", "")),
            route=urlunsplit((parts.scheme, host, parts.path, "", "")) if suffix else "",
            api=_ROUTES.get(suffix, ""),
            query=parts.query,
            user=":".join(map(unquote, userinfo.partition(":")[::2])) if userinfo else "",
        )

    @property
    def bases(self) -> tuple[str, ...]:
        """The base URLs below which the list of models may be, the likeliest first."""
        below = f"{self.base}/v1"
        if _VERSION.search(self.base):
            return (self.base,)
        if self.route:
            return self.base, below
        return (below, self.base) if urlsplit(self.base).path else (below,)

    @property
    def default_base(self) -> str:
        """The base URL if no list of models shows which one it is: a path that somebody gave is meant."""
        return self.bases[-1] if not self.route else self.base

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown of it, as it was written and decoded."""
        values = [value for name, value in _parameters(self.query) if _is_hidden(name, value)]
        user = [self.user, self.user.partition(":")[2]] if self.user else []
        texts = [text for value in [*values, *user] for text in (value, unquote(value))]
        return tuple(dict.fromkeys(text for text in texts if len(text) >= _SHORTEST_SECRET))


def normal_url(text: str) -> str:
    """The URL with scheme and host in lower case and in ASCII, without a final slash unless it is a route.

    Raises `ValueError` for what is no URL of a server.
    """
    wanted = "want a URL, as in http://127.0.0.1:8080/v1"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"{str(error)[:1].lower()}{str(error)[1:]}: {wanted}") from None
    if not text.isprintable() or " " in text:
        raise ValueError(f"{wanted}; write a space as %20")
    userinfo = parts.netloc.rpartition("@")[0]
    # The text is not repeated from here on if it holds a password.
    found = "" if userinfo or parts.query else f"found {text!r}, "
    # An IPv6 address is valid if `urlsplit` takes it; a name has none of the characters that end one.
    if parts.scheme not in {"http", "https"} or not re.fullmatch(r"[^\s,/\\%<>\"{}|^`\[\]]+", host):
        raise ValueError(f"{found}{wanted}")
    if parts.fragment or text.endswith("#"):
        raise ValueError(f"{found}want a URL without a fragment: what follows # is never sent")
    try:
        host = host if host.isascii() else host.encode("idna").decode()
        for label in host.split("."):
            if label.startswith("xn--") and not label[4:].encode().decode("punycode"):
                raise UnicodeError("there is no name after xn--")  # noqa: TRY301 - as a name that cannot be decoded
    except UnicodeError as error:
        raise ValueError(f"{found}{wanted}: {error}") from None
    if ":" in host:
        with suppress(ValueError):  # one with a zone, say
            # An IPv4 address in the form of IPv6 is the IPv4 address.
            host = str(IPv6Address(host).ipv4_mapped or host)
    host = f"[{host}]" if ":" in host else host
    netloc = (f"{quote(userinfo, safe=_SAFE)}@" if userinfo else "") + host + ("" if port is None else f":{port}")
    path, query = quote(parts.path, safe=_SAFE), quote(parts.query, safe=_SAFE)
    foreign = _FOREIGN_ROUTES.search(path.rstrip("/"))
    if foreign:
        known = ", ".join(_ROUTES)
        raise ValueError(f"{foreign[0]} is a route of another API; want the base of the API, or one of {known}")
    given = urlunsplit((parts.scheme, netloc, path, query, ""))
    return given if ServerUrl.parse(given).route else urlunsplit((parts.scheme, netloc, path.rstrip("/"), query, ""))


# What stays as it is: every character of a URL in ASCII, and what is percent-encoded already.
_SAFE = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def url_of_started(text: str) -> str:
    """As `normal_url`, for the URL of a server that loadbench starts: the port may be `{port}`."""
    if f":{PORT}" not in text:
        return normal_url(text)
    return re.sub(r":0(?=[/?]|$)", f":{PORT}", normal_url(text.replace(f":{PORT}", ":0", 1)), count=1)


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port, that of the scheme if none is given, or not yet known: whom a key is for."""
    parts = urlsplit(url.replace(f":{PORT}", "", 1))
    return parts.scheme, (parts.hostname or "").rstrip("."), parts.port or {"http": 80}.get(parts.scheme, 443)


def shown_url(url: str) -> str:
    """The URL for messages, reports and records: without user and password, and without secrets in its query."""
    parts = urlsplit(url)
    userinfo, _, host = parts.netloc.rpartition("@")
    query = "&".join(
        f"{name}={MASK}" if _is_hidden(name, value) else f"{name}={value}" if value else name
        for name, value in _parameters(parts.query)
    )
    return urlunsplit((parts.scheme, f"{MASK}@{host}" if userinfo else host, parts.path, query, ""))


def with_query(url: str, query: str) -> str:
    """The URL with this query added."""
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url


def redirect_target(url: str, location: str) -> str:
    """Where a response of this URL redirects to, as it may be shown: a server puts passwords and tickets there."""
    try:
        return shown_url(urljoin(url, location)) if location else "nowhere"
    except ValueError:
        return f"{location!r}, which is no URL"


def _parameters(query: str) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (part.partition("=") for part in query.split("&") if part)]


def _is_hidden(name: str, value: str) -> bool:
    """Whether a parameter may be a secret: all but short values and those that say which API it is."""
    return bool(value) and (is_secret(unquote(name)) or not (_PLAIN_PARAMETER.search(name) or len(value) < 8))
