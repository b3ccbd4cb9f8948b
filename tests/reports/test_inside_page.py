"""The page of what lies inside a network: what it draws, what it says, and that it lives by itself."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from rightreasons.experiments import FeatureSettings, look_inside
from rightreasons.experiments.inside import ChannelWeights, LayerView
from rightreasons.experiments.inside.measures import PlaceWeights
from rightreasons.models import attach
from rightreasons.reports import InsidePage, render_inside, write_inside
from rightreasons.reports.figures import end_of_scale, heatmap_image
from rightreasons.reports.inside import picture_of
from rightreasons.reports.inside_pictures import (
    DAMPED,
    RAISED,
    heights,
    layer_scale,
    map_picture,
    maps_picture,
    place_picture,
    strip_picture,
    told_of_channels,
    told_of_places,
)
from tests.experiments.test_inside import subject
from tests.reports.test_browser import CHROMIUM, FLAGS, brightness, opened


def view(out, block="cbam", **settings):
    return look_inside(subject(block), FeatureSettings(**settings), out, device="cpu")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("inside")
    return write_inside(view(out, index=(3, 5), maps=5), out, rerun="rightreasons features <run>"), out


@pytest.fixture(scope="module")
def text(written):
    return (written[1] / "index.html").read_text(encoding="utf-8")


def a_layer(signed):
    values = torch.randn(2, 5, 4, 6)
    return LayerView("conv", "Conv2d", values if signed else values.abs())


@pytest.mark.parametrize("signed", [True, False])
def test_one_scale_for_a_layer_or_one_for_each_map(signed):
    layer = a_layer(signed)
    layer.maps[1, 2] *= 0.01
    scale = layer_scale(layer)
    assert scale == end_of_scale(layer.maps.numpy())
    weak = layer.maps[1, 2].numpy()
    shared, own = (np.asarray(map_picture(layer, 1, 2, s).convert("RGB")) for s in (scale, None))
    assert np.array_equal(shared, np.asarray(heatmap_image(weak, signed=signed, scale=scale).convert("RGB")))
    assert np.array_equal(own, np.asarray(heatmap_image(weak, signed=signed).convert("RGB")))
    assert shared.min() > 200 > own.min()


def test_a_grid_holds_every_map_in_its_place():
    layer = a_layer(signed=False)
    picture = maps_picture(layer, 0, [4, 1, 0], None, "conv")
    colors = np.asarray(map_picture(layer, 0, 1, None).convert("RGB"))
    shown = np.asarray(picture)
    # The second of the first row: a cell of 88 pixels, the map of 6 x 4 enlarged in it.
    left, top = 16 + 98, np.argmax((shown[:, 16 + 98 : 16 + 98 + 88] != 255).any(axis=(1, 2)))
    assert top > 0
    cells = {tuple(color) for color in colors.reshape(-1, 3)}
    found = {tuple(color) for color in shown[:, left : left + 88].reshape(-1, 3)}
    assert cells <= found


def test_even_weights_leave_the_image_alone_and_say_so():
    image = np.random.default_rng(0).random((8, 8))
    even = PlaceWeights("weight", torch.full((2, 2), 0.7) + torch.tensor([[0.0, 0.001], [0.0, 0.0]]))
    shown = np.asarray(place_picture(image, even)).astype(int)
    assert (shown.max(axis=2) - shown.min(axis=2)).max() == 0
    assert told_of_places(even) == "even, 0.701 everywhere"
    shares = PlaceWeights("share", torch.full((2, 2), 0.25), 0.25)
    assert told_of_places(shares) == "an even share everywhere"


def test_weights_are_drawn_where_they_are_large_and_the_place_that_asks_has_a_frame():
    values = torch.zeros(4, 4)
    values[0, 3] = 1.0
    image = np.full((8, 8), 0.5)
    bare, framed = (place_picture(image, PlaceWeights("share", values, 1 / 16, cell)) for cell in (None, (2, 1)))
    shown = np.asarray(bare).astype(int)
    colored = shown.max(axis=2) - shown.min(axis=2)
    side = bare.width // 4
    assert colored[:side, 3 * side :].max() > 60
    assert colored[2 * side :].max() == 0
    changed = np.argwhere((np.asarray(framed) != np.asarray(bare)).any(axis=2))
    assert changed.min(axis=0).tolist() == [2 * side, side]
    assert changed.max(axis=0).tolist() == [3 * side - 1, 2 * side - 1]
    assert told_of_places(PlaceWeights("share", values, 1 / 16)) == "0 to 16 times an even share"


def test_a_bar_goes_up_where_a_channel_is_raised():
    weights = ChannelWeights(torch.tensor([0.9, 0.1, 0.5, 0.5]))
    assert heights(weights).tolist() == pytest.approx([1, -1, 0, 0], abs=1e-6)
    strip = np.asarray(strip_picture(weights, 200))
    assert tuple(strip[10, 20]) == RAISED
    assert tuple(strip[50, 70]) == DAMPED
    assert tuple(strip[10, 70]) == tuple(strip[50, 20]) == tuple(strip[10, 120]) == (255, 255, 255)
    even = ChannelWeights(torch.tensor([0.5, 0.50001]))
    assert heights(even).tolist() == [0, 0]
    assert told_of_channels(even) == "Weights are even, 0.5 for every channel."
    assert heights(ChannelWeights(torch.tensor([0.5, 0.51]))).tolist() == pytest.approx([-1, 1])


def test_many_channels_fit_into_a_strip():
    strip = strip_picture(ChannelWeights(torch.rand(1280)), 300)
    assert strip.width == 300
    assert {RAISED, DAMPED} <= {color for _, color in strip.getcolors(10**6)}


def test_every_image_has_its_files(written):
    _, out = written
    names = {"original", "layer-backbone.0", "layer-backbone.3", "layer-block", "attention-block"}
    assert {path.name for path in (out / "images").iterdir()} == {
        f"{row:03d}-{name}.png" for row in range(2) for name in names
    }
    with Image.open(out / "images" / "000-original.png") as image:
        assert image.size == (16, 12)


def test_pictures_of_an_earlier_page_are_removed_and_other_files_stay(tmp_path):
    write_inside(view(tmp_path, index=(3, 5)), tmp_path)
    (tmp_path / "images" / "000-mine.png").touch()
    write_inside(view(tmp_path, "", index=(3,)), tmp_path)
    left = {path.name for path in (tmp_path / "images").iterdir()}
    assert left == {"000-original.png", "000-layer-backbone.0.png", "000-layer-backbone.3.png", "000-mine.png"}


def test_channels_below_zero_are_counted_where_a_relu_follows(text):
    assert re.findall(r'data-label="Below zero">([^<]*)<', text) == ["1", "\N{EN DASH}", "\N{EN DASH}"]


def test_the_page_says_how_many_are_shown_and_counts_the_dead(written, text):
    page, _ = written
    assert page.verdict == "2 images: the maps of 3 layers, and what 1 attention block weighs by."
    assert "5 of 6 maps, 6 \N{MULTIPLICATION SIGN} 8; 1 dead" in text
    assert "5 of 8 maps, 12 \N{MULTIPLICATION SIGN} 16" in text
    assert text.count('<div class="maps">') == 6
    # Maps, then original and places of each image.
    assert text.count('<span class="picture">') == 2 * (3 * 5 + 2)
    assert text.count('title="channel ') == 2 * 3 * 5
    assert "one for all maps and images of a layer" in text
    order = page.view.layers[0].order[:5].tolist()
    found = [int(c) for c in re.findall(r'alt="Map (\d+) of backbone.0', text)]
    assert found == order + order
    assert text.count('<figure class="strip">') == 2
    assert "Most raised:" in text


def test_the_learned_scale_is_printed_and_zero_is_explained(tmp_path):
    idle = render_inside(InsidePage(view(tmp_path, "position_attention", images=1)))
    assert "Its learned scale is 0: the block hands its features on" in idle
    assert "what pixel 8,6 takes" in idle
    assert "changes the features of this image by 0\N{NO-BREAK SPACE}% of their length" in idle
    case = subject("position_attention")
    case.model.network.block.scale.data.fill_(0.25)
    page = render_inside(InsidePage(look_inside(case, FeatureSettings(images=1), tmp_path, device="cpu")))
    assert "Its learned scale is 0.25." in page


def test_each_block_is_told_in_its_own_words(tmp_path):
    for block, told in (
        ("squeeze_excite", "Multiplies each channel by a weight"),
        ("global_context", "Adds to every place the same"),
    ):
        page = render_inside(InsidePage(view(tmp_path, block, images=1)))
        assert told in page
        assert ("upsampled (bilinear)" in page) == (block == "global_context")
    case = subject("")
    case.model.network.block = attach(
        case.model.network.backbone, {"name": "global_context", "gated": True}, 3, channels=6
    ).block
    gated = render_inside(InsidePage(look_inside(case, FeatureSettings(images=1), tmp_path, device="cpu")))
    assert "Adds to each channel itself times a weight" in gated
    bare = render_inside(InsidePage(view(tmp_path, "", images=1)))
    assert "1 image: the maps of 2 layers." in bare
    assert "Attention blocks" not in bare


def test_features_in_the_place_of_images_are_shown_as_their_mean(tmp_path):
    one = view(tmp_path, images=1)
    wide = one.looked.inputs.repeat(1, 2, 1, 1)
    object.__setattr__(one.looked, "inputs", wide)
    assert picture_of(one, 0) == pytest.approx(wide[0].mean(dim=0).numpy())
    page = render_inside(InsidePage(one))
    assert "Mean of the 6 channels given" in page
    assert "<b>Original</b>" not in page


def test_names_are_text_and_no_markup(text):
    assert "<b>ä</b>" not in text
    assert "&lt;noise&gt;" in text
    assert "rightreasons features &lt;run&gt;" in text


def test_the_page_loads_nothing_and_runs_nothing(text):
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "<script" not in text
    assert "default-src 'none'" in text


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 400, 768, 1200])
def test_no_errors_no_requests_and_no_sideways_scrolling(written, width, scheme):
    from playwright.sync_api import sync_playwright

    address = (written[1] / "index.html").as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = opened(browser, address, width=width, scheme=scheme)
        assert page.trouble == []
        assert [url for url in page.requests if not url.startswith("data:")] == [address]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        sizes = page.evaluate(
            "[...document.querySelectorAll('.maps .picture')].map(p => p.getBoundingClientRect().width)"
        )
        assert min(sizes) >= 40
        assert (brightness(page) < 60) == (scheme == "dark")
        browser.close()
