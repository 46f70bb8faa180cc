"""Settings of what is watched beside the requests, and of what they cost: how they are written, and what is refused."""

from __future__ import annotations

import os
import re
import sys

import pytest

from loadbench.core.errors import BadInput
from loadbench.core.units import NS_PER_S
from loadbench.plan import setting_types
from loadbench.plan.sources import resolve


@pytest.mark.parametrize(
    ("written", "read", "shown"),
    [
        ("20", (20.0, 20.0), "20..20"),
        ("15..30", (15.0, 30.0), "15..30"),
        (" 15 .. 30 ", (15.0, 30.0), "15..30"),
        (250, (250.0, 250.0), "250..250"),
        ([15, 30], (15.0, 30.0), "15..30"),
        ("0.5..1e3", (0.5, 1000.0), "0.5..1000"),
    ],
)
def test_watts_are_a_number_or_a_range(written, read, shown):
    """As text, as a number or a list from a file; what is shown is read back as the same."""
    assert setting_types.WATTS.read(written) == read
    assert setting_types.WATTS.show(read) == shown
    assert setting_types.WATTS.read(shown) == read


@pytest.mark.parametrize("written", ["", "0", "30..15", "a..b", "1..2..3", "-5", "nan", "inf", "0..10", [], None, True])
def test_what_are_no_watts_is_refused(written):
    """With what was found and what is wanted."""
    with pytest.raises(ValueError, match=r"want watts above 0, as in 20 or 15\.\.30"):
        setting_types.WATTS.read(written)


def test_intervals_have_bounds():
    """A tenth of a second to ten; the page may be left alone."""
    assert setting_types.INTERVAL.read("500ms") == NS_PER_S // 2
    assert setting_types.OPTIONAL_INTERVAL.read("none") is None
    for written in ("0", "99ms", "11s", "none"):
        with pytest.raises(ValueError, match=r"100ms to 10s|is not a duration"):
            setting_types.INTERVAL.read(written)


def test_scenario_file_says_what_the_flags_say(tmp_path):
    """Both have sections of their own."""
    file = tmp_path / "mine.toml"
    file.write_text(
        '[telemetry]\nsampling = "on"\ninterval = "500ms"\npage_interval = "none"\n'
        '[cost]\npurchase = 900\nkwh_price = 0.3\nwatts = "15..30"\ncurrency = "EUR"\n'
    )
    by_file = resolve(flags={}, environment={}, file=file)
    by_flags = resolve(
        flags={
            "sampling": "on",
            "interval": "500ms",
            "page_interval": "none",
            "purchase": "900",
            "kwh_price": "0.3",
            "watts": "15..30",
            "currency": "EUR",
        },
        environment={},
    )
    assert (by_file.telemetry, by_file.cost) == (by_flags.telemetry, by_flags.cost)
    assert by_file.cost.lifetime == 3.0


@pytest.mark.parametrize("flags", [{"server_pid": "0"}, {"purchase": "-1"}, {"lifetime": "0"}, {"sampling": "maybe"}])
def test_absurd_settings_are_refused_by_name(flags):
    """The flag is in the message."""
    (name,) = flags
    with pytest.raises(BadInput, match="--telemetry" if name == "sampling" else f"--{name.replace('_', '-')}"):
        resolve(flags=flags, environment={})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("X: \u00e9", "in printable ASCII"),
        ("X: a\rb", "in printable ASCII"),
        ("X: a\x1bb", "in printable ASCII"),
        ("Content-Length: 3", "Content-Length is a header that loadbench sets itself"),
        ("hOST: evil", "hOST is a header that"),
        ("Content-Type: text/plain", "Content-Type is a header that"),
        ("Transfer-Encoding: chunked", "Transfer-Encoding is a header that"),
        ("Accept: */*", "Accept is a header that"),
        ("accept-encoding: gzip", "accept-encoding is a header that"),
    ],
)
def test_headers_that_cannot_be_sent_are_refused(line, reason):
    """What no header holds, and what would be sent a second time."""
    with pytest.raises(ValueError, match=reason):
        setting_types.HEADERS.read([line])


def test_headers_are_read_by_name_and_value():
    """A tab is a character of a value, spaces around it are not, and each name is given once."""
    written = ["X-Team:  blue\tsky ", "User-Agent: me", "Connection: close", "X-Empty:"]
    read = (("X-Team", "blue\tsky"), ("User-Agent", "me"), ("Connection", "close"), ("X-Empty", ""))
    assert setting_types.HEADERS.read(written) == read
    with pytest.raises(ValueError, match="authorization is given twice"):
        setting_types.HEADERS.read(["Authorization: a", "authorization: b"])


@pytest.mark.parametrize("type_", [setting_types.TEXT, setting_types.PATH, setting_types.MODELS, setting_types.URL])
def test_text_that_is_not_unicode_is_refused(type_):
    """Half a surrogate pair comes from JSON, or from bytes of the command line."""
    for text in ("a\ud800", "\udcff"):
        with pytest.raises(ValueError, match=r"found '.*\\ud.*', want .*valid Unicode"):
            type_.read(text)


def test_path_has_no_nul():
    """No system has such a file."""
    for type_ in (setting_types.PATH, setting_types.DIRECTORY):
        with pytest.raises(ValueError, match="want a path without NUL"):
            type_.read("a\0b")


def test_path_has_control_characters_only_if_it_is_there(tmp_path):
    """They come from a path of Windows that was written into a file as it is: `\\n` is a new line there."""
    with pytest.raises(ValueError, match="without control characters"):
        setting_types.PATH.read(f"{tmp_path}/C:\new")
    if sys.platform != "win32":
        (tmp_path / "a\tb").touch()
        assert setting_types.PATH.read(f"{tmp_path}/a\tb") == tmp_path / "a\tb"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_file_that_is_read_more_than_once_is_no_pipe(tmp_path):
    """Each worker reads it, and the second would find nothing or wait for ever."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", os.devnull):
        with pytest.raises(ValueError, match="cannot be read twice: save it to a file first"):
            setting_types.PATH.read(str(path))
    assert setting_types.PATH.read(str(tmp_path)) == tmp_path
    assert setting_types.PATH.read(str(tmp_path / "none")) == tmp_path / "none"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("HTTPS://Example.ORG:8443/V1/", "https://example.org:8443/V1"),
        ("Http://[::1]:80", "http://[::1]:80"),
        ("http://h/a%20b", "http://h/a%20b"),
        ("http://Bücher.de/é?q=ü", "http://xn--bcher-kva.de/%C3%A9?q=%C3%BC"),
        ("http://h/v1/Chats/", "http://h/v1/Chats"),
        ("http://h/v1/chat/completions/", "http://h/v1/chat/completions/"),
        ("http://Me:Pass%20Word@H:8/v1/?api-version=2024-10-21", "http://Me:Pass%20Word@h:8/v1?api-version=2024-10-21"),
    ],
)
def test_url_has_scheme_and_host_in_lower_case(written, read):
    """TLS depends on the scheme; the path keeps its case."""
    assert setting_types.URL.read(written) == read


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("http://h/a b", "write a space as %20"),
        ("http://h/a\tb", "write a space as %20"),
        ("http://h,b", "found 'http://h,b', want a URL"),
        ("ftp://h", "found 'ftp://h', want a URL"),
        ("http://h/v1#top", "want a URL without a fragment"),
        ("http://h:x/v1", "want a URL"),
        ("http://a..ü/v1", "want a URL"),
        ("http://h/v1/embeddings", "/embeddings is a route of another API"),
        ("http://h/api/generate", "/generate is a route of another API"),
    ],
)
def test_url_that_cannot_be_used_says_why(written, reason):
    """The reason is in the message."""
    with pytest.raises(ValueError, match=re.escape(reason)):
        setting_types.URL.read(written)


def test_url_that_is_wrong_shows_no_secret():
    """Neither a password nor a key of the query is repeated."""
    for written in ("http://me:sesame@h#x", "http://me:sesame@", "ftp://h?key=sesame"):
        with pytest.raises(ValueError, match="URL") as caught:
            setting_types.URL.read(written)
        assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("type_", [setting_types.THINK, setting_types.TOKENS, setting_types.TURNS])
def test_empty_text_is_no_distribution(type_):
    """It is not 0."""
    for written in ("", " "):
        with pytest.raises(ValueError, match=r"is not a duration|want a whole number"):
            type_.read(written)
    assert setting_types.THINK.read(0).mean == 0


def test_number_too_large_for_a_float_is_refused():
    """JSON and TOML have whole numbers of any length."""
    with pytest.raises(ValueError, match="want a number from 0 to 2"):
        setting_types.number(0, 2).read(10**400)


def test_rates_have_labels_of_their_own():
    """Two rates with one label could not be told apart; as text and as number they have the same bounds."""
    assert setting_types.RATES.read("0.333333,0.333334") == (0.333333, 0.333334)
    for written in ("0.3333333,0.3333334", [1000000, "1e6"]):
        with pytest.raises(ValueError, match="each value once"):
            setting_types.RATES.read(written)
    for written in ("1e-300", 1e-300, "1e12"):
        with pytest.raises(ValueError, match="want a number from 1e-09 to 1e"):
            setting_types.RATES.read(written)


@pytest.mark.parametrize("zone", ["ü", "ü" * 64, "x" * 64, "a..b", "\u202e", "a\x1bb"])
def test_zone_that_no_socket_takes_is_refused(zone):
    """Of an address to listen on and of one to send from; other zones are left to the system."""
    with pytest.raises(ValueError, match="a port, as in 9464"):
        setting_types.LISTENING.read(f"[fe80::7%{zone}]:9464")
    with pytest.raises(ValueError, match="an IP address of this machine"):
        setting_types.LOCAL_ADDRESSES.read([f"fe80::7%{zone}"])
    assert setting_types.LISTENING.read("[fe80::7%eth0.12]:9464") == ("fe80::7%eth0.12", 9464)
    assert setting_types.LOCAL_ADDRESSES.read(["fe80::7%3"]) == ("fe80::7%3",)
