"""What readings amount to inside a window: by hand, and for whatever readings there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.results.telemetry import Gauge
from loadbench.telemetry import series as series_module
from loadbench.telemetry.series import ReadingSeries

S = 1_000_000_000


def series(*readings: tuple[float, dict[str, float]]) -> ReadingSeries:
    """Readings at these seconds."""
    made = ReadingSeries()
    for at_s, values in readings:
        made.add(round(at_s * S), values)
    return made


def of(name: str, *points: tuple[float, float]) -> ReadingSeries:
    """One name's readings at these seconds."""
    return series(*((at_s, {name: value}) for at_s, value in points))


@pytest.mark.parametrize(
    ("points", "window", "expected"),
    [
        # (time, value) …        opens, closes   mean, min, max, last, readings
        ([(0, 5), (1, 5), (2, 5)], (0, 2), (5, 5, 5, 5, 3)),
        ([(0, 0), (2, 2)], (0, 2), (1, 0, 2, 2, 2)),
        # Edges between two readings are met on the straight line between them.
        ([(0, 0), (2, 2), (4, 4)], (1, 3), (2, 1, 3, 2, 1)),
        # Beyond the first and the last it goes on level.
        ([(1, 4)], (0, 2), (4, 4, 4, 4, 1)),
        # Readings that came at odd times count by time, not by number.
        ([(0, 0), (1, 0), (1.5, 0), (2, 0), (4, 10)], (0, 4), (2.5, 0, 10, 10, 5)),
    ],
)
def test_gauge_over_a_window(points, window, expected):
    """The mean is the area below the lines over the window's length."""
    found = of("x", *points).window(window[0] * S, window[1] * S)
    assert found is not None
    mean, low, high, last, readings = expected
    assert found.gauges == {"x": Gauge(mean=mean, min=low, max=high, last=last, readings=readings)}


def test_gauge_without_a_reading_inside_is_unknown():
    """Between two readings nothing is known of what goes up and down."""
    assert of("x", (0, 1), (10, 1)).window(4 * S, 5 * S) is None


@pytest.mark.parametrize("times", [(0, 1, 2, 4), (6, 8, 9, 10), (4,)])
def test_gauge_that_was_not_read_for_half_a_window_is_unknown(times):
    """As when the sampler dies, or a busy server's page is let alone: a glimpse is not told as the whole."""
    assert of("x", *((at, 5) for at in times)).window(0, 10 * S) is None
    assert of("x", *((at, 5) for at in sorted((*times, 5)))).window(0, 10 * S) is not None


@pytest.mark.parametrize(
    ("points", "window", "rise"),
    [
        ([(0, 100), (10, 200)], (0, 10), 100),
        ([(0, 100), (10, 200)], (2, 7), 50),
        ([(0, 0), (1, 10), (2, 10), (3, 40)], (0.5, 2.5), 5 + 15),
        # Without a reading on both sides there is no telling.
        ([(1, 0), (10, 9)], (0, 10), None),
        ([(0, 0), (9, 9)], (0, 10), None),
        ([(0, 7), (10, 7)], (0, 10), 0),
    ],
)
def test_counter_over_a_window(points, window, rise):
    """It rises in a straight line between readings, of which the window has its share."""
    found = of("x_total", *points).window(round(window[0] * S), round(window[1] * S))
    assert (None if found is None else found.counters) == (None if rise is None else {"x_total": rise})


def test_counter_that_begins_anew_is_noticed():
    """100 to 130, then 20 and 50: 30, what the new one shows, and 30 more; the fall is named, in its window alone."""
    readings = of("x_total", (0, 100), (1, 130), (2, 20), (3, 50), (4, 60))
    found = readings.window(0, 3 * S)
    assert found is not None
    assert (found.counters, found.resets) == ({"x_total": 30 + 20 + 30}, ["x_total"])
    later = readings.window(2 * S, 4 * S)
    assert later is not None
    assert (later.counters, later.resets) == ({"x_total": 40}, [])


def test_names_of_different_times_stand_side_by_side():
    """The server's page is read less often than the machine: each name has its own readings."""
    found = series((0, {"a": 1.0}), (1, {"b": 2.0}), (1, {"a": 3.0}), (2, {"a": 5.0})).window(0, 2 * S)
    assert found is not None
    assert (found.gauges["a"].readings, found.gauges["b"].readings) == (3, 1)
    assert (found.gauges["a"].mean, found.gauges["b"].mean) == (3, 2)


@pytest.mark.parametrize("window", [(2, 2), (3, 2)])
def test_window_without_length_tells_nothing(window):
    """As of a level that was stopped before it was measured."""
    assert of("x", (0, 1), (2, 1), (3, 1)).window(window[0] * S, window[1] * S) is None


POINTS = st.lists(st.tuples(st.integers(0, 1000), st.floats(0, 1e6)), min_size=2, max_size=20, unique_by=lambda p: p[0])


@given(POINTS, st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000))
def test_parts_of_a_window_make_its_whole(points, one, two, three):
    """A counter's rises over two adjoining windows sum to that over both, also where it began anew."""
    first, middle, last = sorted((one, two, three))
    made = ReadingSeries()
    for at, value in sorted(points):
        made.add(at, {"x_total": value})
    parts = [made.window(first, middle), made.window(middle, last), made.window(first, last)]
    if all(parts):
        left, right, whole = (part.counters.get("x_total") for part in parts if part is not None)
        if whole is not None:
            assert left + right == pytest.approx(whole, abs=1e-6)


@given(POINTS, st.integers(0, 1000), st.integers(1, 1000))
def test_forgetting_what_is_over_changes_no_later_window(points, opens, length):
    """What lies before a window may be dropped: its figures stay what they were."""
    kept, dropped = ReadingSeries(), ReadingSeries()
    for at, value in sorted(points):
        for one in (kept, dropped):
            one.add(at, {"x": value, "x_total": value})
    dropped.forget(opens)
    assert dropped.window(opens, opens + length) == kept.window(opens, opens + length)


@given(POINTS)
def test_mean_lies_between_the_least_and_the_most(points):
    """Whatever the readings."""
    made = ReadingSeries()
    for at, value in sorted(points):
        made.add(at, {"x": value})
    found = made.window(100, 900)
    if found is not None:
        gauge = found.gauges["x"]
        assert gauge.min - 1e-6 <= gauge.mean <= gauge.max + 1e-6


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=300), st.integers(0, 290))
def test_long_series_has_the_figures_of_all_its_readings(values, opens):
    """Merged by two again and again, a series keeps its extremes, sums and falls; only edges are less exact."""
    short, whole = ReadingSeries(), ReadingSeries()
    with pytest.MonkeyPatch.context() as patch:
        for made, most in ((short, 11), (whole, 1000)):
            patch.setattr(series_module, "_MOST_KEPT", most)
            for at_s, value in enumerate(values):
                made.add(at_s * S, {"x": value, "x_total": value})
    assert len(short._names["x"]._at) <= 11
    found, exact = (made.window(0, (len(values) - 1) * S) for made in (short, whole))
    assert found is not None
    assert exact is not None
    assert found.resets == exact.resets
    assert found.counters == pytest.approx(exact.counters)
    one, other = found.gauges["x"], exact.gauges["x"]
    assert (one.min, one.max, one.last, one.readings) == (other.min, other.max, other.last, other.readings)
    assert one.mean == pytest.approx(other.mean, abs=1e-6)
    # A counter's rise from within is off by less than what it rose by in the entry that the edge cuts.
    later = [made.window(min(opens, len(values) - 2) * S, (len(values) - 1) * S) for made in (short, whole)]
    rises = [made.counters["x_total"] for made in later if made is not None]
    assert abs(rises[0] - rises[1]) <= max(exact.counters["x_total"], 1e-6)


def test_a_step_long_ago_is_not_in_a_long_window():
    """Entries of one length: the first of a long series reach no further into a window than the last."""
    made = series(*((at, {"x": 100.0 if at < 60 else 400.0}) for at in range(4000)))
    found = made.window(70 * S, 3990 * S)
    assert found is not None
    assert (found.gauges["x"].mean, found.gauges["x"].min) == (pytest.approx(400.0), 400.0)
