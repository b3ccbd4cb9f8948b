from itertools import pairwise

import numpy as np
import pytest

from rightreasons.data import Marks
from rightreasons.data.masks.outline import outlines
from rightreasons.data.masks.raster import box, ellipse, mask_of, polygon, stroke

SIZE = (60, 80)


def plain_polygon(rings, size):
    """Even-odd by a ray to the left from each pixel's center."""
    region = np.zeros(size, bool)
    for row in range(size[0]):
        for column in range(size[1]):
            x, y, crossed = column + 0.5, row + 0.5, 0
            for ring in rings:
                for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True):
                    crossed += (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) < x
            region[row, column] = crossed % 2
    return region


def test_polygons_are_even_odd_at_the_centers():
    rng = np.random.default_rng(0)
    for corners in (3, 4, 5, 9):
        rings = [[tuple(p) for p in rng.uniform(-5, 30, (corners, 2)).tolist()] for _ in range(2)]
        assert np.array_equal(polygon(rings, (25, 25)), plain_polygon(rings, (25, 25)))


def test_a_hole_and_the_area():
    outer = [(10.2, 5.1), (70.4, 8.3), (66.9, 50.2), (14.7, 55.0)]
    inner = [(30.0, 20.0), (50.0, 20.0), (50.0, 40.0), (30.0, 40.0)]
    whole, holed = polygon([outer], SIZE), polygon([outer, inner], SIZE)
    shoelace = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(outer, outer[1:] + outer[:1], strict=True)) / 2
    assert whole.sum() == pytest.approx(shoelace, rel=0.005)
    assert whole.sum() - holed.sum() == 400
    assert not holed[20:40, 30:50].any()


def test_what_lies_outside_is_cut_off():
    assert polygon([[(-100, -100), (300, -100), (300, 300), (-100, 300)]], SIZE).all()
    assert not polygon([[(100, 0), (120, 0), (120, 30)]], SIZE).any()
    assert polygon([], SIZE).sum() == 0


def test_boxes():
    region = box((3, 2), 10, 5, SIZE)
    assert region.sum() == 50
    assert region[2:7, 3:13].all()
    quarter = box((40, 20), 10, 5, SIZE, rotation=90)
    assert quarter[20:30, 35:40].all()
    assert quarter.sum() == 50
    turned = box((40, 10), 30, 20, SIZE, rotation=30)
    assert turned.sum() == pytest.approx(600, rel=0.02)
    rows, columns = np.nonzero(turned)
    center = (
        40 + 15 * np.cos(np.pi / 6) - 10 * np.sin(np.pi / 6),
        10 + 15 * np.sin(np.pi / 6) + 10 * np.cos(np.pi / 6),
    )
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == pytest.approx(center, abs=0.2)


def test_ellipses():
    region = ellipse((40, 30), 20, 10, SIZE)
    assert region.sum() == pytest.approx(np.pi * 200, rel=0.01)
    assert region[30, 20:60].all()
    upright = ellipse((40, 30), 20, 10, SIZE, rotation=90)
    assert upright[10:50, 40].all()
    assert not upright[30, 20:29].any()
    assert not ellipse((40, 30), 0, 10, SIZE).any()


def test_strokes_against_all_distances():
    points = [(5.0, 5.0), (60.0, 20.0), (30.0, 50.0), (-10.0, 50.0)]
    drawn = stroke(points, 7, SIZE)
    x, y = np.meshgrid(np.arange(80) + 0.5, np.arange(60) + 0.5)
    along = np.linspace(0, 1, 2001)
    expected = np.zeros(SIZE, bool)
    for (x0, y0), (x1, y1) in pairwise(points):
        for share in along:
            expected |= np.hypot(x - x0 - share * (x1 - x0), y - y0 - share * (y1 - y0)) <= 3.5
    assert np.array_equal(drawn, expected)
    dot = stroke([(20.0, 20.0)], 6, SIZE)
    assert dot.sum() == pytest.approx(np.pi * 9, rel=0.15)
    assert not stroke([], 3, SIZE).any()
    assert not stroke([(-40.0, -40.0), (-30.0, 500.0)], 3, SIZE).any()
    with pytest.raises(ValueError, match="positive width"):
        stroke(points, 0, SIZE)


def test_scribbles_and_boxes_make_marks():
    scribble = mask_of(stroke([(2.0, 2.0), (30.0, 2.0)], 2, SIZE), stroke([(2.0, 50.0), (2.0, 9.0)], 2, SIZE))
    marks = Marks(relevant=mask_of(box((10, 10), 5, 5, SIZE)), irrelevant=scribble)
    assert marks.relevant.shape == (1, *SIZE)
    assert marks.relevant.sum() == 25
    assert scribble[0, 1:3, 2:30].all()
    assert scribble[0, 9:50, 1:3].all()
    with pytest.raises(ValueError, match="expected at least one region"):
        mask_of()


def test_outlines_lead_back_to_the_pixels():
    rng = np.random.default_rng(2)
    for _ in range(100):
        region = rng.random(rng.integers(1, 25, 2)) < rng.random()
        drawn = np.zeros_like(region)
        for ring in outlines(region):
            drawn |= polygon([[(float(x), float(y)) for x, y in ring]], region.shape)
        assert np.array_equal(drawn, region)


def test_the_outline_of_a_box_has_four_corners_and_a_hole_hangs_on_it():
    region = box((3, 2), 10, 5, SIZE)
    assert sorted(outlines(region)[0]) == [(3, 2), (3, 7), (13, 2), (13, 7)]
    region[4, 6] = False
    (ring,) = outlines(region)
    assert len(ring) == 4 + 1 + 4 + 2
