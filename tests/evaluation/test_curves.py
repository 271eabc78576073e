"""Curves: a well-formed picture whose points lie where their numbers say."""

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from msth_taichi.evaluation.curves import SHOWN, curves_svg, ticks

SVG = "{http://www.w3.org/2000/svg}"


def test_points_rise_with_their_values_and_names_are_escaped():
    root = ElementTree.fromstring(curves_svg("a < b", "frame", "dB", {"x & y": [(0, 20.0), (5, 30.0), (10, 25.0)]}))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"a < b", "frame", "dB", "x & y", "20", "30", "10"} <= set(texts)
    curve = next(root.iter(f"{SVG}polyline")).get("points").split()
    (x0, y0), (x1, y1), (x2, y2) = ((float(v) for v in point.split(",")) for point in curve)
    assert x0 < x1 < x2 and x1 == pytest.approx((x0 + x2) / 2)
    assert y2 == pytest.approx((y0 + y1) / 2, abs=0.1) and y1 < y0  # an SVG's y runs down


def test_even_factors_are_even_steps_on_a_logarithmic_axis():
    root = ElementTree.fromstring(curves_svg("", "", "", {"a": [(0, 0.001), (1, 0.01), (2, 0.1)]}, logarithmic=True))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"0.001", "0.01", "0.1"} <= set(texts)
    low, middle, high = (float(circle.get("cy")) for circle in root.iter(f"{SVG}circle"))
    assert middle == pytest.approx((low + high) / 2, abs=0.1) and high < low


def test_of_many_curves_the_legend_says_how_many_more():
    curves = {f"camera {index}": [(0, index)] for index in range(SHOWN + 3)}
    root = ElementTree.fromstring(curves_svg("", "", "", curves))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert "and 3 more" in texts and f"camera {SHOWN}" not in texts
    assert len(list(root.iter(f"{SVG}circle"))) == SHOWN + 3


@pytest.mark.parametrize(("low", "high"), [(27.3, 31.8), (0, 299), (24.0, 24.0), (100, 100.0), (0.011, 0.012), (-3, 9)])
def test_ticks_are_even_few_and_enclose(low, high):
    values = ticks(low, high)
    assert values[0] <= low and values[-1] >= high and 2 <= len(values) <= 9
    steps = [b - a for a, b in pairwise(values)]
    assert steps == pytest.approx([steps[0]] * len(steps)) and steps[0] > 0
