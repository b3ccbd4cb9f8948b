import base64
import io

import numpy as np
import pytest
from PIL import Image

from rightreasons.reports.canvas import MARGIN
from rightreasons.reports.figures import (
    DIVERGING,
    LEVELS,
    SEQUENTIAL,
    Heatmap,
    as_picture,
    color_bar_png,
    contact_sheet,
    data_uri,
    end_of_scale,
    heatmap_png,
    image_png,
    mask_outline,
    share_inside,
)


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def lightness(colors):
    """L* by its definition, written apart from the library."""
    values = colors / 255
    linear = np.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return 116 * np.cbrt(luminance) - 16


def test_sequential_colors_darken_evenly():
    steps = np.diff(lightness(SEQUENTIAL))
    assert len(SEQUENTIAL) == LEVELS
    # Rounding to eight bits costs some tenths.
    assert np.abs(steps - steps.mean()).max() < 0.4
    assert lightness(SEQUENTIAL[:1]) > 97
    assert lightness(SEQUENTIAL[-1:]) < 20


def test_diverging_colors_are_centered_and_balanced():
    light = lightness(DIVERGING)
    assert len(DIVERGING) == LEVELS
    assert light.argmax() == LEVELS // 2
    assert np.abs(light - light[::-1]).max() < 4
    assert (DIVERGING[0] != DIVERGING[-1]).any()


def test_zero_of_a_signed_map_is_the_middle_color_whatever_its_range():
    picture = opened(heatmap_png(np.array([[-0.1, 0.0, 5.0]]), signed=True))
    assert (picture[0, 1] == DIVERGING[LEVELS // 2]).all()
    assert (picture[0, 2] == DIVERGING[-1]).all()
    expected = round((LEVELS - 1) * (1 - 0.1 / end_of_scale(np.array([-0.1, 0.0, 5.0]))) / 2)
    assert (picture[0, 0] == DIVERGING[expected]).all()


def test_an_unsigned_map_starts_at_zero_and_clips():
    picture = opened(heatmap_png(np.array([[-3.0, 0.0, 1.0, 2.0, 9.0]]), signed=False, scale=2.0))
    assert (picture[0] == SEQUENTIAL[[0, 0, LEVELS // 2, LEVELS - 1, LEVELS - 1]]).all()


def test_undefined_values_are_gray_and_zeros_are_nothing():
    picture = opened(heatmap_png(np.array([[np.nan, 0.0]]), signed=False))
    assert (picture[0, 0] == 128).all()
    assert (picture[0, 1] == SEQUENTIAL[0]).all()


def test_a_map_of_nothing_but_nan_is_gray():
    assert (opened(heatmap_png(np.full((2, 3), np.nan), signed=True)) == 128).all()


def test_wrong_maps_are_refused():
    with pytest.raises(ValueError, match=r"expected a heat map of shape \(H, W\), got shape \(1, 2, 2\)"):
        heatmap_png(np.zeros((1, 2, 2)), signed=True)
    with pytest.raises(ValueError, match="expected a positive scale, got 0"):
        heatmap_png(np.zeros((2, 2)), signed=True, scale=0)


def test_end_of_scale():
    assert end_of_scale(np.zeros((4, 4))) == 1
    assert end_of_scale(np.array([np.nan])) == 1
    assert end_of_scale(-np.arange(101.0)) == 99
    sparse = np.zeros(1000)
    sparse[3] = -7
    assert end_of_scale(sparse) == 7


def test_color_bar_runs_through_the_map():
    assert (opened(color_bar_png(signed=True))[0] == DIVERGING).all()
    assert (opened(color_bar_png(signed=False))[0] == SEQUENTIAL).all()


def test_images_survive_the_file():
    image = np.linspace(0, 1, 2 * 3 * 3).reshape(2, 3, 3)
    assert (opened(image_png(image)) == np.rint(image * 255)).all()
    assert as_picture(image[..., :1]).mode == as_picture(image[..., 0]).mode == "L"
    with pytest.raises(ValueError, match=r"got shape \(2, 3, 2\)"):
        as_picture(image[..., :2])


def test_data_uri_holds_the_file():
    uri = data_uri(b"\x89PNG")
    assert base64.b64decode(uri.removeprefix("data:image/png;base64,")) == b"\x89PNG"


def border_length(path):
    total = 0
    for stroke in path.split("M")[1:]:
        letter = "H" if "H" in stroke else "V"
        start, end = stroke.split(letter)
        total += int(end) - int(start.split()[0 if letter == "H" else 1])
    return total


def test_outline_of_one_pixel_and_of_none():
    mask = np.zeros((4, 5))
    assert mask_outline(mask) == ""
    mask[1, 2] = 1
    assert mask_outline(mask) == "M2 1H3M2 2H3M2 1V2M3 1V2"


def test_outline_is_as_long_as_the_border():
    mask = np.random.default_rng(0).random((9, 7)) > 0.6
    expected = 0
    for y in range(9):
        for x in range(7):
            for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                inside = 0 <= y + dy < 9 and 0 <= x + dx < 7 and mask[y + dy, x + dx]
                expected += mask[y, x] and not inside
    assert border_length(mask_outline(mask)) == expected


def test_share_inside():
    values, mask = np.array([[3.0, -1.0], [np.nan, -4.0]]), np.array([[1, 0], [1, 1]])
    assert share_inside(values, mask, signed=True) == pytest.approx(7 / 8)
    assert share_inside(values, mask, signed=False) == 1
    assert np.isnan(share_inside(np.zeros((2, 2)), mask, signed=True))


def test_contact_sheet_shows_every_map_and_both_bars():
    images, values = np.zeros((3, 4, 6)), np.zeros((3, 4, 6))
    values[1, 0, 0] = -1
    maps = {"Saliency": Heatmap(values, True), "Grad-CAM": Heatmap(np.abs(values), False)}
    sheet = contact_sheet(images, maps, ["a", "a very long label " * 20, "c"], cell=60)
    pixels = np.asarray(sheet)
    found = [(pixels == color).all(-1).sum() for color in (DIVERGING[0], DIVERGING[-1], SEQUENTIAL[-1])]
    assert min(found) > 0
    # The purple pixel is enlarged tenfold to 10x10 and stands in the bar once more.
    assert found[0] >= 100
    fewer = contact_sheet(images[:1], {}, ["a"], cell=60)
    assert sheet.height - fewer.height == 2 * (sheet.height - contact_sheet(images[:2], {}, ["a", "b"], cell=60).height)


def test_contact_sheet_shows_further_images_between_the_images_and_their_maps():
    images, maps = [np.zeros((4, 4))] * 2, {"Saliency": Heatmap(np.zeros((2, 4, 4)), True)}
    plain = contact_sheet(images, maps, ["a", "b"], cell=60)
    red = np.broadcast_to([1.0, 0.0, 0.0], (4, 4, 3))
    more = contact_sheet({"input": images, "nearest 3": [red] * 2}, maps, ["a", "b"], cell=60)
    assert more.height == plain.height
    found = (np.asarray(more) == [255, 0, 0]).all(-1)
    assert found.sum() == 2 * 60 * 60
    assert np.flatnonzero(found.any(axis=0))[0] - MARGIN == more.width - plain.width
    with pytest.raises(ValueError, match=r"got \[1, 2\]"):
        contact_sheet({"input": images, "nearest 3": images[:1]}, maps, ["a", "b"])


def test_contact_sheet_refuses_what_does_not_go_together():
    with pytest.raises(ValueError, match=r"got \[1, 2\]"):
        contact_sheet(np.zeros((2, 4, 4)), {}, ["a"])
    with pytest.raises(ValueError, match="at least one"):
        contact_sheet([], {}, [])
