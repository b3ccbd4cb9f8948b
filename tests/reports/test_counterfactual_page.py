"""The gallery of counterfactuals: what it draws, what it says, and that it lives by itself."""

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from rightreasons.data.arrays import ArrayDataset
from rightreasons.experiments import CounterfactualSettings, Resources, counterfactuals
from rightreasons.experiments.subject import Subject
from rightreasons.models import adapt
from rightreasons.reports.counterfactual import CounterfactualPage, _reduced, render_counterfactuals, verdict
from rightreasons.reports.overlays import (
    ADDED,
    FAINTEST,
    REMOVED,
    Slice,
    difference_layer,
    difference_picture,
    edge_layer,
    slice_picture,
    way_gif,
)
from tests.reports.test_browser import CHROMIUM, FLAGS, brightness, opened

CLASSES = ("<b>ä</b>", '"猫"', "plain & dog")


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    data = ArrayDataset(pictures, torch.arange(40) % 3, classes=CLASSES, name="<noise>")
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    asked = CounterfactualSettings(images=5, target="any", settings={"steps": 20}, frames=5)
    subject = Subject(adapt(network.eval()), data, None)
    return counterfactuals(subject, asked, tmp_path_factory.mktemp("flips"), Resources("cpu"))


@pytest.fixture(scope="module")
def text(answers):
    return render_counterfactuals(CounterfactualPage(answers, "rightreasons counterfactual <run>"))


def test_removed_is_red_added_is_blue_and_nothing_drawn_is_a_ghost():
    difference = np.zeros((3, 4))
    difference[0, 0], difference[1, 2], difference[2, 3] = -0.5, 0.5, 0.001
    layer = np.asarray(difference_layer(difference))
    assert layer.shape == (3, 4, 4)
    assert tuple(layer[0, 0, :3]) == REMOVED
    assert tuple(layer[1, 2, :3]) == tuple(layer[2, 3, :3]) == ADDED
    assert layer[0, 0, 3] == layer[1, 2, 3] == 255
    assert layer[2, 3, 3] >= int(255 * FAINTEST)
    assert (layer[..., 3] > 0).sum() == 3
    assert not np.asarray(difference_layer(np.zeros((2, 2))))[..., 3].any()
    with pytest.raises(ValueError, match="difference of shape"):
        difference_layer(np.zeros((2, 2, 3)))


def test_the_original_lies_beneath_in_gray():
    image = np.random.default_rng(0).random((4, 4, 3))
    difference = np.zeros((4, 4))
    difference[1, 1] = 1.0
    found = np.asarray(difference_picture(image, difference)).astype(int)
    assert tuple(found[1, 1]) == ADDED
    rest = np.ones((4, 4), dtype=bool)
    rest[1, 1] = False
    assert (found.max(axis=2) - found.min(axis=2))[rest].max() == 0
    gray = np.asarray(Image.fromarray(np.rint(255 * image).astype(np.uint8)).convert("L"))
    assert np.array_equal(found[..., 0][rest], gray[rest])


def test_edges_that_are_not_steep_are_not_drawn():
    layer = np.asarray(edge_layer(np.array([[0.0, 0.1], [0.5, 1.0]])))
    assert (layer[..., 3] > 0).tolist() == [[False, False], [True, True]]
    assert layer[1, 1, 3] == 255


def test_the_way_goes_there_and_back():
    start, end = np.zeros((8, 8)), np.full((8, 8), 0.8)
    with Image.open(io.BytesIO(way_gif(start, end, frames=5))) as animation:
        values = []
        for frame in range(animation.n_frames):
            animation.seek(frame)
            values.append(np.asarray(animation.convert("L"))[0, 0] / 255)
        assert animation.size == (168, 168)
    assert values == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 0.6, 0.4, 0.2], abs=0.01)


@pytest.mark.parametrize("color", [False, True])
def test_a_slice_shows_three_pictures_and_the_map(color):
    image = np.random.default_rng(0).random((8, 8, 3) if color else (8, 8))
    difference = np.zeros((8, 8))
    difference[2, 3] = -1.0
    with_map = Slice(image, image, difference, np.linspace(-1, 1, 64).reshape(8, 8))
    labels = ("says 5 (99 %)", "says 6 (51 %)", "1 pixel drawn")
    wide = slice_picture(with_map, title="image 3", labels=labels)
    narrow = slice_picture(with_map._replace(contrast=None), title="image 3", labels=labels)
    assert wide.width > 1.2 * narrow.width
    assert REMOVED in {color for _, color in narrow.getcolors(10**6)}
    with pytest.raises(ValueError, match="expected 3 labels"):
        slice_picture(with_map, title="", labels=("one",))


def test_the_verdict_counts_and_gives_intervals(answers):
    told = verdict(answers)
    valid = int(answers.found.valid.sum())
    assert valid == 5
    assert told.startswith("5 of 5 counterfactuals are valid (100.0\N{NO-BREAK SPACE}%, 95 % interval 47.8 to 100.0")
    mean = float(answers.distances.l2.mean())
    assert re.search(r"L2 ([\d.]+)", told)[1] == f"{mean:.3f}" if mean < 1 else f"{mean:.2f}"
    pixels = answers.distances.l0
    assert f"over the 5 images from {pixels.min():.0f} to {pixels.max():.0f}." in told
    assert re.search(r"visibly changed pixels [\d,.]+ \(", told) is None
    back = replace(answers, way=answers.way.flip(0))
    assert not back.valid.any()
    # The model's word counts, not the larger lead that a method may have wished for.
    wished = replace(answers, found=replace(answers.found, valid=torch.zeros(5, dtype=torch.bool)))
    assert verdict(wished) == told
    assert verdict(back).startswith("0 of 5 counterfactuals are valid")
    assert verdict(back).endswith("Those that came nearest are shown.")


def test_names_are_text_and_no_markup(text):
    assert "<b>ä</b>" not in text
    assert "&lt;b&gt;ä&lt;/b&gt;" in text
    assert "&lt;noise&gt;" in text
    assert "rightreasons counterfactual &lt;run&gt;" in text


def test_every_card_has_its_pictures_and_the_chances_on_the_way(answers, text):
    page = CounterfactualPage(answers)
    assert len(page.cards) == text.count('<figure class="card') == 5
    for card in page.cards:
        row = card.row
        start, other = int(answers.asked.predicted[row]), int(answers.other[row])
        steps = json.loads(card.steps)
        assert steps == [[round(1000 * float(w[row, k])) for k in (start, other)] for w in answers.way]
        assert card.pair == f"{CLASSES[start]} → {CLASSES[other]}"
    assert sum(count for _, count in page.pairs) == 5
    assert "no training image of" in text


def test_large_pictures_are_averaged_for_the_page_and_keep_their_form():
    large = torch.rand(1, 3, 448, 300)
    small = _reduced(large, 224)
    assert small.shape == (1, 3, 224, 150)
    torch.testing.assert_close(small[0, 0, 0, 0], large[0, 0, :2, :2].mean())
    assert _reduced(large, 500) is large


def test_what_is_not_valid_is_said_to_be_so(answers):
    row = answers.record.results["images"][0]
    images = [{**row, "valid": False}, *answers.record.results["images"][1:]]
    results = {**answers.record.results, "images": images}
    page = CounterfactualPage(replace(answers, record=replace(answers.record, results=results)))
    shown = render_counterfactuals(page)
    assert shown.count("not valid: best found") == 1
    assert shown.count('data-verdict="not"') == 1


def test_the_page_loads_nothing(text):
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert addresses
    assert all(address.startswith("data:") or address.startswith("#") for address in addresses)
    assert "default-src 'none'" in text


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(text, encoding="utf-8")
    return path.as_uri()


in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


@pytest.mark.slow
@in_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 768, 1200])
def test_no_errors_no_requests_and_no_sideways_scrolling(browser, address, width, scheme):
    page = opened(browser, address, width=width, scheme=scheme)
    assert page.trouble == []
    assert [url for url in page.requests if not url.startswith("data:")] == [address]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert (brightness(page) < 60) == (scheme == "dark")
    page.close()


@pytest.mark.slow
@in_a_browser
def test_one_walks_along_the_way_by_keyboard(browser, address, answers):
    page = opened(browser, address)
    card = page.locator(".card").first
    slider = card.locator("input[type=range]")
    opacity = "e => getComputedStyle(e.querySelector('.changed')).opacity"
    assert float(card.evaluate(opacity)) == 1
    slider.focus()
    page.keyboard.press("Home")
    assert float(card.evaluate(opacity)) == 0
    assert card.locator(".where").inner_text() == "Original"
    page.keyboard.press("ArrowRight")
    assert float(card.evaluate(opacity)) == pytest.approx(0.25)
    start = int(answers.asked.predicted[0])
    expected = f"{100 * round(1000 * float(answers.way[1, 0, start])) / 1000:.1f}"
    assert card.locator("td.now .figure").first.inner_text().startswith(expected)
    card.get_by_role("button").click()
    card.locator(".where", has_text="Counterfactual").wait_for(timeout=5000)
    page.close()


@pytest.mark.slow
@in_a_browser
def test_the_gallery_is_filtered_and_layers_are_switched(browser, address, answers):
    page = opened(browser, address)
    pair = CounterfactualPage(answers).pairs[0]
    page.locator("select[name=pair]").select_option(pair[0])
    assert page.locator(".card:visible").count() == pair[1]
    page.locator("select[name=pair]").select_option("")
    page.locator("select[name=verdict]").select_option("not")
    assert page.locator(".card:visible").count() == 0
    page.get_by_role("button", name="Reset").click()
    page.locator("#shown", has_text="5 shown").wait_for(timeout=5000)
    layer = page.locator(".layer.edges").first
    assert not layer.is_visible()
    page.get_by_label("Edges").check()
    assert layer.is_visible()
    page.get_by_label("Contours").check()
    assert page.locator("svg.contours").first.is_visible()
    page.locator("input[name=cover]").fill("40")
    shown = page.locator(".layer.difference").first.evaluate("e => getComputedStyle(e).opacity")
    assert float(shown) == pytest.approx(0.4)
    page.close()


def test_few_images_have_no_interval_and_own_pictures_no_data_set(answers, text):
    page = CounterfactualPage(answers)
    assert {row.name for row in page.figures if row.ends} == {"Valid"}
    assert "Of fewer than 6 images a mean has no interval." in text
    assert page.data == "<noise>"
    own = replace(answers, asked=replace(answers.asked, truth=None, index=None))
    assert CounterfactualPage(own).data == "5 pictures of your own"
