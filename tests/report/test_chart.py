"""The chart, read back from its SVG: places, words, colours."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadbench.report.chart import band_note, svg
from loadbench.report.document import Chart, Mark, Series

SVG = "{http://www.w3.org/2000/svg}"
A = Series("A", [(1, 95.0), (2, 150.0), (4, 214.0), (8, 221.0)], [(1, 90, 99), (2, 140, 160), (4, 205, 222)])
B = Series("B", [(1, 96.0), (2, 151.0), (4, None), (8, 299.0)])


def drawn(*series: Series, **over) -> ET.Element:
    """The picture, parsed."""
    settings = {"title": "Output", "y": "output tokens/s"} | over
    return ET.fromstring(svg(Chart(name="output", series=series, **settings)))


def places(picture: ET.Element, cls: str) -> list[list[tuple[float, float]]]:
    """The corners of each path of this class."""
    found = []
    for path in picture.iter(f"{SVG}path"):
        if cls in path.get("class", "").split():
            pairs = re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path.get("d", ""))
            found.append([(float(x), float(y)) for x, y in pairs])
    return found


def words(picture: ET.Element) -> list[str]:
    """Every text that is shown."""
    return [text.text or "" for text in picture.iter(f"{SVG}text")]


def lines(picture: ET.Element, number: int) -> list[list[tuple[float, float]]]:
    """The parts of a series' line; the last is that of the legend."""
    return places(picture, f"lb-line{number}")


def test_doubling_the_load_is_the_same_way_everywhere():
    """1, 2, 4 and 8 users stand at equal distances, and a value stands as high as it is large."""
    (line, _legend) = lines(drawn(A), 0)
    xs = [x for x, _ in line]
    steps = [right - left for left, right in pairwise(xs)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)
    ys = [y for _, y in line]
    scale = (ys[0] - ys[3]) / (221 - 95)
    assert ys[0] - ys[1] == pytest.approx(scale * (150 - 95), abs=0.2)


@pytest.mark.parametrize("xs", [(181.2, 183.1), (1000.1, 1000.9), (1e-4, 5e-3), (40_000.0, 40_002.0)])
def test_no_two_ticks_have_the_same_name(xs):
    """However near they are: with as many decimals as tell them apart."""
    named = [
        text.text
        for text in drawn(Series("A", [(x, 1.0) for x in xs]), log_x=False, scatter=True).iter(f"{SVG}text")
        if "lb-x" in text.get("class", "").split()
    ]
    assert len(named) > 2
    assert len(set(named)) == len(named)


def test_missing_point_breaks_its_line():
    """Over a load that was not measured nothing is drawn: two parts, and no marker in between."""
    *parts, _legend = lines(drawn(B), 0)
    assert [len(part) for part in parts] == [2, 1]
    assert len(places(drawn(B), "lb-fill0")) == 3 + 1


def test_band_goes_round_its_intervals():
    """The area has the upper ends forward and the lower ends back, around the line."""
    picture = drawn(A)
    (area,) = places(picture, "lb-band")
    line = lines(picture, 0)[0]
    assert [x for x, _ in area] == [x for x, _ in line[:3]] + [x for x, _ in reversed(line[:3])]
    for (_, upper), (_, value), (_, lower) in zip(area[:3], line, reversed(area[3:]), strict=False):
        assert upper < value < lower


def test_lone_interval_is_a_bar():
    """One interval alone has no area, and is seen all the same."""
    picture = drawn(Series("A", [(4, 10.0)], [(4, 8.0, 12.0)]))
    assert places(picture, "lb-band") == []
    assert len(places(picture, "lb-bar")) == 1


def test_axes_have_names_and_the_loads():
    """Both names with their units, a tick for each load, and 0 on the axis of values."""
    shown = words(drawn(A, B))
    assert {"Output", "users", "output tokens/s", "A", "B", "1", "2", "4", "8", "0", "200"} <= set(shown)


def test_many_loads_have_round_ticks():
    """Loads that would run into each other give way to powers of two."""
    shown = words(drawn(Series("A", [(load, 1.0) for load in range(1, 65)])))
    assert {"1", "2", "4", "8", "16", "32", "64"} <= set(shown)
    assert "63" not in shown


def test_ratios_are_symmetric():
    """On the logarithmic axis half and double are as far from 1."""
    picture = drawn(Series("b / a", [(1, 0.5), (2, 1.0), (4, 2.0)]), log_y=True, across=[Mark(1, "no difference")])
    ys = [y for _, y in lines(picture, 0)[0]]
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2)
    (mark,) = places(picture, "lb-mark")
    assert mark[0][1] == pytest.approx(ys[1], abs=0.2)
    assert "no difference" in words(picture)


def test_mark_down_stands_at_its_load():
    """The load of a crossover lies between those that it lies between."""
    picture = drawn(A, down=[Mark(math.sqrt(8), "crossover")])
    (mark,) = places(picture, "lb-mark")
    xs = [x for x, _ in lines(picture, 0)[0]]
    assert mark[0][0] == pytest.approx((xs[1] + xs[2]) / 2, abs=0.2)


def test_picture_says_in_words_what_it_shows():
    """A title and a description that are named as the picture's, with every value."""
    picture = drawn(A, B)
    title, description = picture.find(f"{SVG}title"), picture.find(f"{SVG}desc")
    assert picture.get("role") == "img"
    assert picture.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
    assert title.text == "Output"
    assert "A: 95 at 1, 150 at 2, 214 at 4, 221 at 8." in description.text
    assert "B: 96 at 1, 151 at 2, 299 at 8." in description.text


def test_two_pictures_have_ids_of_their_own():
    """Several fit into one page."""
    ids = [{part.get("id") for part in picture.iter() if part.get("id")} for picture in (drawn(A), drawn(B))]
    assert ids[0].isdisjoint(ids[1])


@given(st.text())
def test_foreign_text_is_text(text):
    """Whatever a model is called, the picture can be parsed and nothing in it is run."""
    picture = drawn(Series(text, [(1, 1.0)]), title=text, y=text, across=[Mark(0.5, text)])
    allowed = {"svg", "title", "desc", "style", "rect", "g", "text", "path"}
    assert {part.tag.removeprefix(SVG) for part in picture.iter()} <= allowed
    assert all(not name.startswith("on") for part in picture.iter() for name in part.attrib)


def test_names_that_are_too_long_are_cut():
    """A legend or title that would run out of the picture ends in an ellipsis; the whole title stands in `title`."""
    picture = drawn(Series("m" * 500, [(1, 1.0)]), title="t" * 500)
    assert max(len(text) for text in words(picture)) < 80
    assert picture.find(f"{SVG}title").text == "t" * 500


def test_legend_wraps():
    """Many series have as many rows as they need, and the plot begins below the last."""
    many = [Series(f"a series with a long name, {number}", [(1, 1.0), (2, 2.0)]) for number in range(6)]
    picture = drawn(*many)
    rows = sorted({float(text.get("y")) for text in picture.iter(f"{SVG}text") if "a series" in (text.text or "")})
    assert len(rows) == 3
    assert min(y for part in lines(picture, 0)[:-1] for _, y in part) > rows[-1]
    assert all(
        0 <= x <= 720 and 0 <= y <= 420 for number in range(6) for part in lines(picture, number) for x, y in part
    )


@given(
    st.lists(
        st.tuples(
            st.floats(1e-3, 1e6),
            st.none() | st.floats(0, 1e12, allow_subnormal=False),
            st.floats(0, 2),
            st.floats(1, 9),
        ),
        max_size=8,
        unique_by=lambda point: point[0],
    )
)
def test_everything_stays_inside(points):
    """Whatever the values, lines and bands lie within the picture."""
    points = sorted(points, key=lambda point: point[0])
    band = [(x, y * low, y * high) for x, y, low, high in points if y is not None]
    picture = drawn(Series("A", [(x, y) for x, y, _, _ in points], band))
    for cls in ("lb-line", "lb-band", "lb-bar", "lb-fill0"):
        assert all(0 <= x <= 720 and 0 <= y <= 420 for path in places(picture, cls) for x, y in path)


@pytest.mark.parametrize(
    "series", [(), (Series("A", []),), (Series("A", [(1, None)]),), (Series("A", [(1, math.inf)]),)]
)
def test_nothing_to_show_is_said(series):
    """Without a value there is a picture all the same, which says so."""
    assert "nothing to show" in words(drawn(*series))


def test_what_has_no_logarithm_is_refused():
    """0 users have no place on an axis in powers of two."""
    with pytest.raises(ValueError, match="0 cannot be on a logarithmic axis"):
        drawn(Series("A", [(0, 1.0), (1, 1.0)]))
    drawn(Series("A", [(0, 1.0), (1, 1.0)]), log_x=False)


def boxes(picture: ET.Element, *texts: str) -> list[tuple[float, float, float, float]]:
    """About where these texts are: left, top, right, bottom."""
    found = []
    for text in picture.iter(f"{SVG}text"):
        if text.text in texts:
            x, y, wide = float(text.get("x")), float(text.get("y")), 7 * len(text.text)
            left = x - {"start": 0, "middle": wide / 2, "end": wide}[text.get("text-anchor")]
            found.append((left, y - 9, left + wide, y + 2))
    return found


def covers(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and one[2] > other[0] and one[1] < other[3] and one[3] > other[1]


def test_every_point_has_its_label_beside_it():
    """On no point and on no other label, also where points are close to each other."""
    points = [(100.0, 1.0), (104.0, 1.02), (107.0, 1.05), (109.0, 1.4), (110.0, 1.41)]
    labels = ["n1", "n2", "n4", "n8", "n16"]
    picture = drawn(Series("A", points, labels=labels), scatter=True, log_x=False, x="tokens/s")
    found = boxes(picture, *labels)
    assert len(found) == 5
    discs = [(x - 4, y - 4, x + 4, y + 4) for ((x, y),) in places(picture, "lb-fill0")[:-1]]
    assert len(discs) == 5
    assert not any(covers(label, disc) for label in found for disc in discs)
    assert not any(covers(one, other) for place, one in enumerate(found) for other in found[place + 1 :])


def test_caption_of_a_mark_lies_on_no_point():
    """It goes to the side, or below its line."""
    points = [(float(place), 91.0 if place % 2 else 92.0) for place in range(1, 9)]
    picture = drawn(Series("A", points), log_x=False, across=[Mark(91, "likely at most 91")])
    (caption,) = boxes(picture, "likely at most 91")
    assert not any(covers(caption, (x - 4, y - 4, x + 4, y + 4)) for ((x, y),) in places(picture, "lb-fill0"))


def test_name_of_an_axis_does_not_reach_its_labels():
    """However long those are: the plot begins farther to the right."""
    for high in (0.4, 400.0, 123_000.0):
        picture = drawn(Series("A", [(1, high / 2), (2, high)]), seconds=high < 1)
        name = next(part for part in picture.iter(f"{SVG}g") if part.get("class") == "lb-name")
        at = float(re.match(r"translate\((\d+)", name.get("transform"))[1])
        labels = [text for text in picture.iter(f"{SVG}text") if text.get("text-anchor") == "end"]
        # A digit of DejaVu Sans is 0.636 of its height wide.
        assert all(float(text.get("x")) - 0.636 * 13 * len(text.text) > at for text in labels)


def test_axis_begins_at_its_floor():
    """What is lower lies on the edge, and takes nothing from the rest."""
    series = Series("A", [(0.0, 1e-6), (1.0, 0.01), (2.0, 0.02)])
    ((begin, *others),) = lines(drawn(series, log_x=False, log_y=True, dense=True, floor=0.001), 0)[:1]
    assert begin[1] == 420 - 56
    assert all(y < 300 for _, y in others)


def contrast(color: str, ground: str) -> float:
    """WCAG 2's contrast ratio."""

    def luminance(text: str) -> float:
        parts = [int(text[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(color), luminance(ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_colors_are_readable_in_light_and_dark():
    """Every line has a contrast of 3 and text one of 4.5 against its ground, as WCAG 2.1 AA asks."""
    style = drawn(A).find(f"{SVG}style").text
    light, dark = style.split("@media(prefers-color-scheme:dark)")
    for rules in (light, dark):
        ground = re.search(r"\.lb-ground\{fill:(#\w{6})", rules)[1]
        ink = re.search(r"\.lb-chart text\{fill:(#\w{6})", rules)[1]
        drawn_in = re.findall(r"\.lb-line\d\{stroke:(#\w{6})", rules)
        assert contrast(ink, ground) >= 4.5
        assert len(set(drawn_in)) == 6
        assert all(contrast(color, ground) >= 3 for color in drawn_in)


@pytest.mark.parametrize(
    ("ends", "arrows", "note"),
    [
        ((), True, ""),
        (((1.0, -math.inf, math.inf),), True, ""),
        (((1.0, 2.0, 3.0),), True, "Band: the 95 % interval."),
        (((1.0, 2.0, 3.0), (2.0, 2.0, math.inf)), True, "Band: the 95 % interval; an arrow where nothing bounds it"),
        (((1.0, 2.0, math.inf),), True, "Arrow: nothing bounds the 95 % interval from above."),
        (((1.0, 2.0, math.inf),), False, ""),
    ],
)
def test_captions_speak_of_bands_and_arrows_that_are_drawn(ends, arrows, note):
    """And of no others."""
    text = band_note([Series("p95", [(1.0, 2.5), (2.0, 2.5)], ends, arrows=arrows)])
    assert text.startswith(note)
    assert bool(text) is bool(note)
