"""The types of values that people write in a scenario, on the command line or in the environment.

A type reads what was written, text from a flag or a typed value from a file, and shows the value again as people
would write it. A value that cannot be used raises `ValueError` with what was found and what is wanted; the caller adds
its place.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from loadbench.core.secrets import masked
from loadbench.core.text import SURROGATE
from loadbench.core.units import format_duration, parse_duration, parse_rate
from loadbench.plan.abandonment import parse_abandonment
from loadbench.plan.arrivals import parse_arrivals
from loadbench.plan.cluster import Cluster, parse_cluster
from loadbench.plan.distribution import parse_distribution
from loadbench.plan.extra_body import read_objects
from loadbench.plan.gate import parse_gate
from loadbench.plan.objective import parse_abort, parse_objective
from loadbench.plan.pattern import parse_pattern
from loadbench.plan.server_command import shown_command, split_words
from loadbench.plan.server_url import normal_url, origin_of, shown_url, url_of_started
from loadbench.plan.shares import parse_shares, read_share
from loadbench.plan.vary import Varied, read_vary, show_vary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadbench.plan.abandonment import Abandonment
    from loadbench.plan.distribution import Distribution
    from loadbench.plan.gate import GateRule
    from loadbench.plan.objective import Objective
    from loadbench.plan.pattern import Pattern
    from loadbench.plan.shares import Share

T = TypeVar("T")

# More than any box serves, fewer than what a slip of the finger asks for.
_MOST_USERS = 100_000
# More users at once than that are for those who know that their server takes them.
_MOST_AUTO_USERS = 256
_MOST_LEVELS = 1_000
# Often enough to fall into a window of some seconds, and not so often that it is a load itself.
_LEAST_INTERVAL_NS, _MOST_INTERVAL_NS = 100_000_000, 10_000_000_000
# Each turn repeats all before it.
_MOST_TURNS = 1_000
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*:([\t -~]*)")
_HEADER_VARIABLE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*:\s*(?:([!-~]+)\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
# Fields of a body that have another meaning.
_OWN_FIELDS = {"model", "messages", "prompt", "input", "stream", "stream_options", "temperature", "seed", "store"}
# Those that the client sends, and those that say where a request ends.
_OWN_HEADERS = {"host", "content-type", "content-length", "transfer-encoding", "accept", "accept-encoding"}


@dataclass(frozen=True, slots=True)
class SettingType(Generic[T]):
    """How one kind of value is read and shown; `metavar` stands for it in the help."""

    metavar: str
    read: Callable[[object], T]
    show: Callable[[T], object] = lambda value: value
    multiple: bool = False  # the flag may be repeated
    is_flag: bool = False  # the flag has no value
    secret: bool = False  # a value may have a secret in it: `show` hides it, and no traceback has the value
    example: str = ""  # for the hint of a message
    # What a scenario file may hold, as JSON Schema; never stricter than `read`.
    form: Mapping[str, object] = field(default_factory=lambda: {"type": "string"}, compare=False)


def _form(*kinds: str, **more: object) -> Mapping[str, object]:
    """One of these types of JSON; `more` are further keywords."""
    return {"type": kinds[0] if len(kinds) == 1 else list(kinds), **more}


_LIST = _form("string", "array")


def _wrong(found: object, wanted: str) -> ValueError:
    shown = f"{found!r}"
    return ValueError(f"found {shown if len(shown) <= 80 else shown[:77] + '...'}, want {wanted}")


def _text(value: object) -> str:
    if isinstance(value, str) and value.strip() and not SURROGATE.search(value):
        return value
    raise _wrong(value, "a text that is not empty, in valid Unicode")


def _path(value: object) -> Path:
    path = Path(_text(value))
    if "\0" in str(path):
        raise _wrong(value, "a path without NUL")
    if re.search(r"[\a\b\t\n\v\f\r\x1b]", str(path)) and not path.exists():
        raise _wrong(value, "a path without control characters: in a file, write \\\\ or / for \\")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise _wrong(value, "a file, not a pipe or device, which cannot be read twice: save it to a file first")
    return path


def _whole(least: int, most: int = 10**12) -> Callable[[object], int]:
    wanted = f"a whole number of at least {least}" + ("" if most == 10**12 else f" and at most {most}")

    def read(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,15}\s*", value):
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise _wrong(value, wanted)

    return read


def _number(least: float, most: float) -> Callable[[object], float]:
    def read(value: object) -> float:
        number = math.nan
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            with suppress(ValueError, OverflowError):
                number = float(value)
        if least <= number <= most:
            return number
        raise _wrong(value, f"a number from {least:g} to {most:g}")

    return read


def _share(value: object) -> float:
    try:
        if isinstance(value, str) and value.strip().endswith("%"):
            return _number(0, 100)(value.strip()[:-1]) / 100
        return _number(0, 1)(value)
    except ValueError:
        raise _wrong(value, "a share from 0% to 100%, or from 0 to 1") from None


def _share_within(least: float, most: float, wanted: str) -> Callable[[object], float]:
    def read(value: object) -> float:
        share = _share(value)
        if least <= share <= most:
            return share
        raise _wrong(value, wanted)

    return read


def _duration(value: object) -> int:
    if isinstance(value, str):
        return parse_duration(value)
    if value == 0 and not isinstance(value, bool):
        return 0
    raise _wrong(value, "a duration in quotes, a number with its unit, as in '250ms', '30s' or '2m'")


def _positive_duration(value: object) -> int:
    duration_ns = _duration(value)
    if duration_ns > 0:
        return duration_ns
    raise _wrong(value, "a duration above zero")


def _or_none(read: Callable[[object], T]) -> Callable[[object], T | None]:
    return lambda value: None if isinstance(value, str) and value.strip().lower() == "none" else read(value)


def _listed(
    read: Callable[[object], T], example: str, *, commas_in_items: bool = False, may_be_none: bool = False
) -> Callable[[object], tuple[T, ...]]:
    """A list without repetitions, or a text with commas. Rules hold no commas, so that an item may be several rules."""

    def read_all(value: object) -> tuple[T, ...]:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, (list, tuple)):
            items = [items]
        if not commas_in_items:
            items = [part for item in items for part in (item.split(",") if isinstance(item, str) else [item])]
        if not (items or may_be_none) or any(isinstance(item, str) and not item.strip() for item in items):
            raise _wrong(value, f"values with single commas between them, as in {example}")
        if len(items) > _MOST_LEVELS:
            raise ValueError(f"found {len(items)} values, want at most {_MOST_LEVELS}")
        values = tuple(read(item.strip() if isinstance(item, str) else item) for item in items)
        # Rates that are equal to six digits have the same label.
        if len({f"{item:g}" if isinstance(item, float) else item for item in values}) < len(values):
            raise _wrong(value, "each value once")
        return values

    return read_all


class AutoUsers(tuple[int, ...]):
    """The loads that `--users auto` may measure; it stops where throughput has stopped growing."""

    __slots__ = ()


AUTO_USERS = AutoUsers(2**power for power in range(_MOST_AUTO_USERS.bit_length()))


def _users(value: object) -> tuple[int, ...]:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return AUTO_USERS
    return _listed(_whole(1, _MOST_USERS), "1,2,4,8; or auto")(value)


def _rate(value: object) -> float:
    return _number(1e-9, 1e9)(parse_rate(value) if isinstance(value, str) else value)


def _flag(value: object) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise _wrong(value, "true or false")


def _url(value: object) -> str:
    return normal_url(_text(value).strip())


def _host(value: object) -> str:
    """As it is in a URL, so that both can be compared."""
    text = _text(value).strip().strip("[]")
    with suppress(ValueError):
        if not set("/@?#") & set(text):
            return origin_of(normal_url(f"http://[{text}]" if ":" in text else f"http://{text}"))[1]
    raise _wrong(value, "the name or address of a host without its port, as in gpu.example.org")


def _ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Raises `ValueError` for what is no address, or has a zone that no socket takes: Python encodes it as a name."""
    if not (text.isascii() and text.isprintable()):
        raise ValueError("an address has ASCII characters only")
    text.encode("idna")
    return ipaddress.ip_address(text)


def _local_address(value: object) -> str:
    text = _text(value).strip().strip("[]")
    with suppress(ValueError):
        address = _ip_address(text)
        address = getattr(address, "ipv4_mapped", None) or address
        if not (address.is_unspecified or address.is_multicast):
            return str(address)
    raise _wrong(value, "an IP address of this machine, as in 127.0.0.2 or 192.168.1.20")


def _field_name(value: object) -> str:
    name = _text(value).strip()
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", name) and name not in _OWN_FIELDS:
        return name
    raise _wrong(value, "the name of a field that limits a response, as in max_completion_tokens")


def _listening(value: object) -> tuple[str, int]:
    """A port of this machine for itself, or an address and a port."""
    host, _, port = str(value).strip().rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    with suppress(ValueError):
        if not isinstance(value, bool) and re.fullmatch(r"[0-9]{1,5}", port) and int(port) < 65536:
            return str(_ip_address(host)), int(port)
    raise _wrong(value, "a port, as in 9464, or an address and a port, as in 0.0.0.0:9464")


def _header_variables(value: object) -> tuple[tuple[str, str, str], ...]:
    """(header, scheme before the value, environment variable) of each."""
    if isinstance(value, dict):
        value = [f"{name}: {text}" for name, text in value.items()]
    lines = value if isinstance(value, (list, tuple)) else [value]
    matches = [_HEADER_VARIABLE.fullmatch(str(line)) for line in lines]
    if None in matches:
        # Somebody may have written the secret itself: it is not repeated.
        raise ValueError("want a header and the environment variable that holds its value, as in 'X-Key: TEAM_KEY'")
    _headers([f"{match[1]}: {match[3]}" for match in matches if match])
    return tuple((match[1], match[2] or "", match[3]) for match in matches if match)


def _urls(value: object) -> tuple[str, ...]:
    """One URL or several, which may be one text: a URL has commas too, but none that a further URL follows."""
    items = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(item, str) and item.strip() for item in items):
        raise _wrong(items[0] if len(items) == 1 else value, "a URL, as in http://127.0.0.1:8080/v1")
    parts = [part for item in items for part in re.split(r",\s*(?=https?://)", _text(item), flags=re.IGNORECASE)]
    if not parts:
        raise _wrong(value, "a URL, as in http://127.0.0.1:8080/v1")
    urls = tuple(url_of_started(part.strip()) for part in parts)
    repeated = next((url for number, url in enumerate(urls) if url in urls[:number]), None)
    if repeated is not None:
        raise ValueError(f"{shown_url(repeated)} is given more than once, want each server once")
    return urls


def _command(value: object) -> tuple[str, ...]:
    """The words of a command: one text, which is split, or a list of them."""
    if isinstance(value, str):
        value = split_words(value)
    words = value if isinstance(value, (list, tuple)) else ()
    if not words or not all(isinstance(word, str) for word in words) or not words[0].strip():
        raise ValueError("want a command and its words, as in 'llama-server -m model.gguf --port {port}'")
    if any("\0" in word or SURROGATE.search(word) for word in words):
        raise ValueError("want a command in valid Unicode, without NUL")
    return tuple(words)


def _variables(value: object) -> tuple[tuple[str, str], ...]:
    """(name, value) of each; a value may be a secret, and is not repeated."""
    if isinstance(value, dict):
        value = [f"{name}={text}" for name, text in value.items()]
    lines = value if isinstance(value, (list, tuple)) else [value]
    matches = [_VARIABLE.fullmatch(str(line)) for line in lines]
    if None in matches or any("\0" in str(line) or SURROGATE.search(str(line)) for line in lines):
        raise ValueError("want a variable and its value, as in CUDA_VISIBLE_DEVICES=0")
    variables = tuple((match[1], match[2]) for match in matches if match)
    repeated = next((name for name, _ in variables if sum(name == other for other, _ in variables) > 1), None)
    if repeated is not None:
        raise ValueError(f"{repeated} is given twice, want each variable once")
    return variables


def _headers(value: object) -> tuple[tuple[str, str], ...]:
    if isinstance(value, dict):
        value = [f"{name}: {text}" for name, text in value.items()]
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, (list, tuple)):
        raise _wrong(value, "headers by name, as in {'X-Team' = 'blue'}")
    headers: list[tuple[str, str]] = []
    for line in value:
        match = _HEADER.fullmatch(line) if isinstance(line, str) else None
        if match is None:
            # The line may hold a secret: it is not repeated.
            raise ValueError("want a header as 'Name: value', on one line, in printable ASCII")
        if (name := match[1]).lower() in _OWN_HEADERS:
            raise ValueError(f"{name} is a header that loadbench sets itself")
        if name.lower() in {earlier.lower() for earlier, _ in headers}:
            raise ValueError(f"{name} is given twice; write one header, its values with commas between them")
        headers.append((name, match[2].strip()))
    return tuple(headers)


def _interval(value: object) -> int:
    interval_ns = _duration(value)
    if _LEAST_INTERVAL_NS <= interval_ns <= _MOST_INTERVAL_NS:
        return interval_ns
    raise _wrong(value, "a duration from 100ms to 10s, as in 500ms or 2s")


def _watts(value: object) -> tuple[float, float]:
    """One number, or the lowest and the highest."""
    parts = value.split("..") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    numbers: list[float] = []
    with suppress(ValueError):
        numbers = [_number(0, 1e6)(part) for part in parts]
    if len(numbers) in {1, 2} and 0 < numbers[0] <= numbers[-1]:
        return numbers[0], numbers[-1]
    raise _wrong(value, "watts above 0, as in 20 or 15..30")


def choice(*words: str) -> SettingType[str]:
    """One of some words."""

    def read(value: object) -> str:
        if isinstance(value, str) and value.strip().lower() in words:
            return value.strip().lower()
        raise _wrong(value, f"{', '.join(words[:-1])} or {words[-1]}")

    return SettingType("|".join(words), read, form={"enum": list(words)})


def whole(least: int, most: int = 10**12) -> SettingType[int]:
    """A whole number within bounds."""
    return SettingType("N", _whole(least, most), form=_form("integer", "string", minimum=least, maximum=most))


def number(least: float, most: float) -> SettingType[float]:
    """A number within bounds."""
    return SettingType("X", _number(least, most), form=_form("number", "string", minimum=least, maximum=most))


def _show_duration(value: int | None) -> object:
    return "none" if value is None else format_duration(value)


def _show_list(values: Sequence[object] | None) -> object:
    return None if values is None else list(values)


def _distribution(
    parse: Callable[[str], float], wanted: str, *, least: float = 0.0, has_unit: bool = False
) -> Callable[[object], Distribution]:
    """A distribution of durations, which have units unless they are 0, or of whole numbers."""

    def read(value: object) -> Distribution:
        is_number = value == 0 if has_unit else isinstance(value, int)
        if isinstance(value, str) or (is_number and not isinstance(value, bool)):
            return parse_distribution(str(value), parse_value=parse, least=least)
        raise _wrong(value, wanted)

    return read


def _abandonment(value: object) -> Abandonment:
    share, at, patience = _text(value).partition("@")
    if not at or patience.strip().lower() in {"", "first:"}:
        raise _wrong(value, "a share of the requests and the patience of their users, as in 5%@2s or 5%@first:2s")
    of_all = 0.0
    with suppress(ValueError):
        of_all = _share(share)
    if not of_all:
        raise _wrong(
            value, "a share above 0% and up to 100% before the @, as in 5%@2s; leave it out if nobody gives up"
        )
    return parse_abandonment(patience, share=of_all)


def _pattern(value: object) -> Pattern:
    if isinstance(value, (list, tuple)):
        for item in value:
            if not isinstance(item, (list, tuple)) or len(item) != 2:
                raise _wrong(item, "a time and a factor, as in ['9h', 1.5]")
        value = ",".join(f"{at}:{factor}" for at, factor in value)
    return parse_pattern(_text(value))


def _shares(separator: str, what: str, example: str, *, least: int = 1) -> Callable[[object], tuple[Share, ...]]:
    """Names and their weights, each name once."""

    def read(value: object) -> tuple[Share, ...]:
        items = [value] if isinstance(value, str) else value
        if isinstance(items, dict):
            comma = next((name for name in items if "," in str(name)), None)
            if comma is not None:
                raise ValueError(f"{comma!r} has a comma, want the name of one {what}")
            shares = tuple(
                read_share(_text(name).strip(), weight, separator=separator) for name, weight in items.items()
            )
        elif isinstance(items, (list, tuple)) and items:
            parsed = (parse_shares(_text(item), separator=separator, what=what, example=example) for item in items)
            shares = tuple(share for part in parsed for share in part)
        else:
            raise _wrong(value, f"{what}s and their weights, as in {example}")
        repeated = [name for name, count in Counter(share.name for share in shares).items() if count > 1]
        if repeated:
            raise ValueError(f"{repeated[0]} is given more than once, want each {what} once")
        if len(shares) < least:
            named = f"only {shares[0].name}" if shares else "none"
            raise ValueError(f"found {named}, want at least {least} {what}s, as in {example}")
        return shares

    return read


def _show_rules(rules: Sequence[Objective | GateRule | str]) -> object:
    return [rule if isinstance(rule, str) else rule.rule for rule in rules]


# In place of a gate: every objective is one.
ALL_OBJECTIVES = "slo"

TEXT = SettingType("TEXT", _text)
CLUSTER: SettingType[Cluster] = SettingType("CLUSTER", lambda value: parse_cluster(_text(value).strip()), str)
PATH: SettingType[Path] = SettingType("FILE", _path, str)
DIRECTORY: SettingType[Path] = SettingType("DIR", _path, str)
URL = SettingType("URL", _url, shown_url)
URLS: SettingType[tuple[str, ...]] = SettingType(
    "URL",
    _urls,
    lambda urls: shown_url(urls[0]) if len(urls) == 1 else [shown_url(url) for url in urls],
    multiple=True,
    secret=True,
    form=_LIST,
)
STARTED_URL = SettingType("URL", lambda value: url_of_started(_text(value).strip()), shown_url)
# The words of a command may hold secrets, and so may the values of variables: neither is shown.
COMMAND: SettingType[tuple[str, ...]] = SettingType("CMD", _command, shown_command, secret=True, form=_LIST)
VARIABLES: SettingType[tuple[tuple[str, str], ...]] = SettingType(
    "K=V",
    _variables,
    lambda variables: {name: "***" for name, _ in variables},
    multiple=True,
    secret=True,
    form=_form("object", "string", "array"),
)
HOSTS: SettingType[tuple[str, ...]] = SettingType(
    "HOST", _listed(_host, "gpu.example.org"), _show_list, multiple=True, form=_LIST
)
LOCAL_ADDRESSES: SettingType[tuple[str, ...]] = SettingType(
    "ADDRESS", _listed(_local_address, "127.0.0.2,127.0.0.3", may_be_none=True), _show_list, multiple=True, form=_LIST
)
MODELS: SettingType[tuple[str, ...]] = SettingType(
    "ID", _listed(_text, "qwen2.5-0.5b,phi-4-mini", commas_in_items=True), _show_list, multiple=True, form=_LIST
)
USERS: SettingType[tuple[int, ...]] = SettingType(
    "N,...|auto",
    _users,
    lambda users: "auto" if isinstance(users, AutoUsers) else _show_list(users),
    form=_form("integer", "string", "array"),
)
RATES: SettingType[tuple[float, ...]] = SettingType(
    "RATE,...", _listed(_rate, "0.5,1,2 or 30/min"), _show_list, form=_form("number", "string", "array")
)
DURATION = SettingType("TIME", _duration, _show_duration, form=_form("string", "integer", maximum=0))
POSITIVE_DURATION = SettingType("TIME", _positive_duration, _show_duration)
OPTIONAL_DURATION: SettingType[int | None] = SettingType("TIME|none", _or_none(_positive_duration), _show_duration)
SHARE = SettingType("PERCENT", _share, form=_form("number", "string"))
BELOW_ALL = SettingType(
    "PERCENT", _share_within(0, 0.9999, "less than 100%, as in 20%"), form=_form("number", "string")
)
HALF_WIDTH = SettingType(
    "PERCENT", _share_within(0.001, 0.5, "from 0.1% to 50%, as in 3%"), example="3%", form=_form("number", "string")
)
INTERVAL = SettingType("TIME", _interval, _show_duration)
OPTIONAL_INTERVAL: SettingType[int | None] = SettingType("TIME|none", _or_none(_interval), _show_duration)
MONEY = SettingType("PRICE", _number(0, 1e12), form=_form("number", "string", minimum=0))
WATTS: SettingType[tuple[float, float]] = SettingType(
    "W|W..W", _watts, lambda ends: f"{ends[0]:g}..{ends[1]:g}", form=_form("number", "string", "array")
)
CONFIDENCE = SettingType(
    "PERCENT",
    _share_within(0.5, 0.9999, "a confidence from 50% to 99.99%"),
    example="95%",
    form=_form("number", "string"),
)
VARY: SettingType[tuple[Varied, ...]] = SettingType(
    "NAME=V1,V2",
    read_vary,
    show_vary,
    multiple=True,
    example="input_tokens=128,1024",
    form=_form("object", "string", "array"),
)
FLAG = SettingType("", _flag, is_flag=True, form=_form("boolean", "string"))
# Header values may be secrets: only the names are ever shown.
HEADERS: SettingType[tuple[tuple[str, str], ...]] = SettingType(
    "'K: V'",
    _headers,
    lambda headers: {name: "***" for name, _ in headers},
    multiple=True,
    secret=True,
    form=_form("object", "string", "array"),
)
# These name variables, which are no secrets.
HEADER_VARIABLES: SettingType[tuple[tuple[str, str, str], ...]] = SettingType(
    "'K: NAME'",
    _header_variables,
    lambda headers: {name: f"{scheme} {variable}".strip() for name, scheme, variable in headers},
    multiple=True,
    form=_form("object", "string", "array"),
)
JSON_OBJECTS: SettingType[tuple[dict[str, Any], ...]] = SettingType(
    "JSON|@FILE", read_objects, masked, multiple=True, secret=True, form=_form("object", "string", "array")
)
FIELD_NAME = SettingType("NAME", _field_name)
LISTENING: SettingType[tuple[str, int]] = SettingType(
    "[ADDRESS:]PORT",
    _listening,
    lambda place: f"[{place[0]}]:{place[1]}" if ":" in place[0] else f"{place[0]}:{place[1]}",
    form=_form("integer", "string"),
)
THINK = SettingType(
    "TIME|DIST",
    _distribution(
        parse_duration, "a duration or a distribution of durations, as in '10s' or 'lognormal:20s,0.5'", has_unit=True
    ),
    str,
    form=_form("string", "integer"),
)
TOKENS = SettingType(
    "N|DIST",
    _distribution(_whole(1, 10**7), "a number of tokens or a distribution of them, as in 128 or 'lognormal:512,0.6'"),
    str,
    form=_form("string", "integer"),
)
TURNS = SettingType(
    "N|DIST",
    _distribution(
        _whole(1, _MOST_TURNS), "a number of turns or a distribution of them, as in 4 or 'uniform:2,6'", least=1
    ),
    str,
    form=_form("string", "integer"),
)
PATTERN = SettingType("day|POINTS|FILE", _pattern, str, form=_LIST)
MIX: SettingType[tuple[Share, ...]] = SettingType(
    "NAME:W,...",
    _shares(":", "persona", "chat:3,rag:1"),
    lambda shares: [str(share) for share in shares],
    multiple=True,
    form=_form("object", "string", "array"),
)
MODEL_MIX: SettingType[tuple[Share, ...]] = SettingType(
    "ID=W,...",
    _shares("=", "model", "'qwen2.5:3b=3,phi-4-mini=1'", least=2),
    lambda shares: [str(share) for share in shares],
    multiple=True,
    form=_form("object", "string", "array"),
)
ABANDON = SettingType("SHARE@PATIENCE", _abandonment, str)
ARRIVALS = SettingType("constant|poisson|gamma:CV", lambda value: parse_arrivals(_text(value)), str)
OBJECTIVES: SettingType[tuple[Objective, ...]] = SettingType(
    "RULE",
    _listed(parse_objective, "ttft_p95<1s,failures<1%"),
    _show_rules,
    multiple=True,
    example="ttft_p95<1s",
    form=_LIST,
)
GATES: SettingType[tuple[Objective | str, ...]] = SettingType(
    "slo|RULE",
    _listed(
        lambda rule: ALL_OBJECTIVES if str(rule).lower() == ALL_OBJECTIVES else parse_objective(rule),
        "slo or ttft_p95<1s",
    ),
    _show_rules,
    multiple=True,
    example="ttft_p95<1s",
    form=_LIST,
)
ABORTS: SettingType[tuple[Objective, ...]] = SettingType(
    "RULE", _listed(parse_abort, "failures>20%"), _show_rules, multiple=True, example="failures>20%", form=_LIST
)
CHANGES: SettingType[tuple[GateRule, ...]] = SettingType(
    "CHANGE",
    _listed(parse_gate, "ttft_p95>5%,failures>1%"),
    _show_rules,
    multiple=True,
    example="ttft_p95>5%",
    form=_LIST,
)
