"""Settings of what is watched beside the requests, and of what they cost: how they are written, and what is refused."""

from __future__ import annotations

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
