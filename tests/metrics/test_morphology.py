"""Strokes drawn with a round pen, of which length, thickness and slant are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from rightreasons.metrics import Morphology, digit_morphology, morphology_change
from rightreasons.metrics.morphology import _length, _strokes, _thinned

MIDDLE = (14.0, 14.0)


def stroke(length=14.0, radius=1.5, degrees=0.0, middle=MIDDLE, side=28, fine=8):
    """A straight line of a round pen; each pixel holds the share of it that is covered."""
    lean = math.radians(degrees)
    along = torch.tensor([-math.cos(lean), math.sin(lean)], dtype=torch.float64)
    places = (torch.arange(side * fine, dtype=torch.float64) + 0.5) / fine
    off = torch.stack(torch.meshgrid(places, places, indexing="ij"), dim=-1) - torch.tensor(middle).double()
    nearest = (off @ along).clamp(-length / 2, length / 2)[..., None] * along
    covered = ((off - nearest).norm(dim=-1) <= radius).double()
    return covered.view(side, fine, side, fine).mean(dim=(1, 3))[None, None]


def ring(inner=5.0, outer=8.0):
    return torch.maximum(stroke(0, outer) - stroke(0, inner), torch.zeros(()).double())


@pytest.mark.parametrize("radius", [1.0, 1.5, 2.2])
@pytest.mark.parametrize("degrees", [0, 12, 30, -30])
def test_a_stroke_of_a_round_pen_has_the_measures_that_it_was_drawn_with(radius, degrees):
    found = digit_morphology(stroke(14.0, radius, degrees))
    assert float(found.area) == pytest.approx(2 * radius * 14 + math.pi * radius**2, rel=0.03)
    assert float(found.thickness) == pytest.approx(2 * radius, abs=0.25)
    # Steps across corners make a leaning line up to a tenth longer.
    assert float(found.length) == pytest.approx(14, rel=0.01 if degrees == 0 else 0.1)
    assert float(found.slant) == pytest.approx(degrees, abs=2.1)
    high = 14 * math.cos(math.radians(degrees)) + 2 * radius
    assert 0.9 * high < float(found.height) < 0.98 * high


def test_width_and_height_leave_two_percent_out_on_each_side_and_lean_with_the_stroke():
    image = torch.zeros(1, 1, 28, 28)
    image[..., 4:24, 10:16] = 1
    found = digit_morphology(image)
    assert float(found.width) == pytest.approx(0.98 * 6, abs=0.05)
    assert float(found.height) == pytest.approx(0.98 * 20, abs=0.05)
    assert float(found.area) == pytest.approx(120, rel=0.01)
    leaning = torch.zeros(1, 1, 28, 28)
    for row in range(20):
        leaning[..., 4 + row, 13 - row // 2 : 19 - row // 2] = 1
    found = digit_morphology(leaning)
    assert float(found.slant) == pytest.approx(math.degrees(math.atan(0.5)), abs=0.5)
    assert float(found.width) == pytest.approx(0.98 * 6, abs=0.4)


def test_a_line_is_as_long_wherever_and_however_thick_it_is():
    lengths = [digit_morphology(stroke(10, r, 90, (y, 14.0))).length for r, y in ((1.0, 6.0), (2.0, 14.0), (1.5, 20.5))]
    torch.testing.assert_close(torch.cat(lengths), torch.full((3,), 10.0).double(), atol=0.3, rtol=0)


def test_a_ring_keeps_its_hole_and_its_length_is_that_around_the_middle():
    strokes = _strokes(ring(), 4)
    ((_, skeleton),) = _thinned(strokes)
    assert ndimage.label(~skeleton)[1] == 2
    found = digit_morphology(ring())
    # A chain of steps along and across is up to 8 % longer than a curve.
    assert 2 * math.pi * 6.5 < float(found.length) < 1.09 * 2 * math.pi * 6.5
    assert float(found.thickness) == pytest.approx(3, abs=0.25)
    assert float(found.slant) == pytest.approx(0, abs=0.5)


def test_a_skeleton_is_one_pixel_wide_in_one_piece_and_inside_the_stroke():
    images = torch.cat([ring(), stroke(degrees=20, radius=3), torch.maximum(stroke(20, 2), stroke(20, 2, 90))])
    for mask, skeleton in _thinned(_strokes(images, 4)):
        assert not (skeleton & ~mask).any()
        assert ndimage.label(skeleton, np.ones((3, 3)))[1] == 1
        square = skeleton[1:, 1:] & skeleton[1:, :-1] & skeleton[:-1, 1:] & skeleton[:-1, :-1]
        assert square.sum() <= 1, "but for the middle of a crossing"


def test_corners_are_cut_only_where_nothing_leads_around_them():
    line = np.zeros((5, 5), dtype=bool)
    line[[0, 1, 2, 2], [0, 1, 2, 3]] = True
    around = line.copy()
    around[0, 1] = True
    for turned, expected in ((line, 2 * math.sqrt(2) + 1), (around, 3 + math.sqrt(2))):
        for view in (turned, turned.T, turned[::-1], turned.T[::-1]):
            assert _length(view) == pytest.approx(expected)


def test_neither_the_range_of_values_nor_faint_noise_nor_the_batch_matters():
    images = torch.cat([stroke(degrees=15), stroke(10, 2), ring()])
    plain = digit_morphology(images)
    noise = 0.2 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for other in (2 * images - 1, 255 * images, torch.where(images > 0, images, noise)):
        torch.testing.assert_close(vars(digit_morphology(other)), vars(plain), rtol=0.02, atol=0.5)
    single = [vars(digit_morphology(image[None])) for image in images]
    assert all(torch.equal(torch.cat([one[name] for one in single]), getattr(plain, name)) for name in vars(plain))
    mirrored = digit_morphology(images.flip(3))
    torch.testing.assert_close(mirrored.slant, -plain.slant, atol=0.01, rtol=0)


def test_an_image_without_a_stroke_has_no_measures():
    found = digit_morphology(torch.cat([torch.zeros(1, 1, 28, 28), torch.full((1, 1, 28, 28), 0.3)]))
    assert all(getattr(found, name).isnan().all() for name in vars(found))
    with pytest.raises(ValueError, match="scale of at least 1, got 0"):
        digit_morphology(stroke(), scale=0)


def test_changes_are_shares_of_the_original_and_degrees():
    def one(*values):
        return Morphology(*(torch.tensor([v]).double() for v in values))

    change = morphology_change(one(100, 40, 2, -10, 8, 20), one(80, 50, 3, 5, 8, 25))
    expected = {"area": 0.2, "length": 0.25, "thickness": 0.5, "slant": 15, "width": 0, "height": 0.25}
    assert {name: float(getattr(change, name)) for name in expected} == pytest.approx(expected)
    assert float(change.relative_slant) == pytest.approx(1.5)
    upright = morphology_change(one(100, 0, 2, 0, 8, 20), one(80, 50, 3, 5, 8, 25))
    assert float(upright.slant) == 5
    assert upright.relative_slant.isnan().all()
    assert upright.length.isnan().all()


def test_a_change_of_the_pen_is_one_of_thickness_and_area_and_a_lean_one_of_slant_alone():
    plain, thick, leaning = (digit_morphology(s) for s in (stroke(), stroke(radius=2.2), stroke(degrees=20)))
    swollen, sheared = morphology_change(plain, thick), morphology_change(plain, leaning)
    assert float(swollen.thickness) == pytest.approx(2.2 / 1.5 - 1, abs=0.1)
    assert float(swollen.length) < 0.02
    assert float(swollen.slant) < 1
    assert float(sheared.slant) == pytest.approx(20, abs=1)
    assert float(sheared.thickness) < 0.05


def test_a_stroke_in_a_single_row_leans_nowhere():
    line = torch.zeros(1, 1, 9, 9)
    line[..., 4, 2:7] = 1
    found = digit_morphology(line, scale=1)
    assert (float(found.slant), float(found.area), float(found.length)) == (0.0, 5.0, 4.0)


@pytest.mark.wrong_types
def test_colors_are_refused():
    with pytest.raises(ValueError, match="images of one channel, got 3"):
        digit_morphology(torch.rand(2, 3, 9, 9))
