"""The page of a whole data set: what it shows, and that it lives by itself."""

import re

import pytest
import torch
from torch import nn

from rightreasons.data.arrays import ArrayDataset
from rightreasons.experiments import Conduct, MethodConfig, RevealSettings, Storage, reveal_all
from rightreasons.experiments.subject import Subject
from rightreasons.models import adapt
from rightreasons.reports.gallery import ORDER, PICTURES, gallery_of, render_gallery, write_gallery
from tests.reports.test_browser import CHROMIUM, FLAGS, brightness, opened

CLASSES = ("<b>ä</b>", '"猫"', "plain & dog")


def case(side=16, images=150):
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8)
    mask = torch.zeros(images, 1, side, side)
    mask[..., : side // 2] = 1
    data = ArrayDataset(pictures, torch.arange(images) % 3, classes=CLASSES, name="<noise>", irrelevant=mask)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return Subject(adapt(network.eval()), data, None)


def revealed(subject, out, methods=("saliency", "grad_cam")):
    return reveal_all(subject, RevealSettings(methods, images=None), out, Storage(50), Conduct("cpu"))


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    subject = case()
    out = tmp_path_factory.mktemp("maps")
    return write_gallery(revealed(subject, out), subject.data, rerun="rightreasons reveal <run>"), out / "index.html"


def test_each_image_is_shown_once_under_its_first_reason(shown):
    gallery, _ = shown
    cards = [card for cards in gallery.groups.values() for card in cards]
    positions = [card.line["position"] for card in cards]
    assert len(positions) == len(set(positions)) <= 60
    assert set(gallery.groups) <= set(ORDER)
    asked = {line["position"] for lines in gallery.summary.shown.values() for line in lines}
    assert set(positions) == asked
    for reason, cards in gallery.groups.items():
        assert all(card.reasons[0] == reason for card in cards)


def test_names_of_classes_and_data_are_text_and_no_markup(shown):
    _, path = shown
    page = path.read_text(encoding="utf-8")
    assert "<b>ä</b>" not in page
    assert "&lt;b&gt;ä&lt;/b&gt;" in page
    assert 'data-label="&#34;猫&#34;"' in page
    assert "&lt;noise&gt;" in page
    assert "rightreasons reveal &lt;run&gt;" in page


def test_the_page_loads_nothing_and_runs_one_script_only(shown):
    _, path = shown
    page = path.read_text(encoding="utf-8")
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)
    assert page.count("<script") == 1
    assert "script-src 'sha256-" in page


def test_many_methods_mean_fewer_images(tmp_path):
    subject = case(side=8, images=80)
    maps = revealed(subject, tmp_path, tuple(MethodConfig("saliency", label=f"s{number}") for number in range(30)))
    cards = [card for cards in gallery_of(maps, subject.data).groups.values() for card in cards]
    assert 8 <= len(cards) <= max(10, PICTURES // (len(maps.titles) + 1))
    assert all(len(card.maps) == len(maps.titles) for card in cards)


def test_large_images_are_reduced_and_a_map_keeps_its_place(tmp_path):
    subject = case(side=200, images=3)
    gallery = gallery_of(revealed(subject, tmp_path), subject.data)
    (card, *_) = next(iter(gallery.groups.values()))
    assert card.size == (112, 112)
    assert "smooth" in render_gallery(gallery)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 768, 1200])
def test_no_errors_no_requests_and_no_sideways_scrolling(browser, shown, width, scheme):
    address = shown[1].as_uri()
    page = opened(browser, address, width=width, scheme=scheme)
    assert page.trouble == []
    assert [url for url in page.requests if not url.startswith("data:")] == [address]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert (brightness(page) > 230) == (scheme == "light")
    page.close()


@pytest.mark.slow
@needs_browser
def test_images_can_be_filtered_by_class_verdict_and_method(browser, shown):
    gallery, path = shown
    cards = [card for cards in gallery.groups.values() for card in cards]
    page = opened(browser, path.as_uri())
    seen = page.locator(".card:visible")
    assert seen.count() == len(cards)
    page.locator("[name=label]").select_option(CLASSES[0])
    of_class = [card for card in cards if card.line["label"] == CLASSES[0]]
    assert seen.count() == len(of_class) < len(cards)
    page.locator("[name=verdict]").select_option("wrong")
    wrong = [card for card in of_class if not card.correct]
    assert seen.count() == len(wrong)
    assert page.locator("#shown").inner_text() == f"{len(wrong)} of {len(cards)} images shown"
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function(f"document.querySelectorAll('.card:not([hidden])').length === {len(cards)}")
    page.locator("[name=method]").select_option("grad_cam")
    assert page.locator("[data-method=saliency]:visible").count() == 0
    assert page.locator("[data-method=grad_cam]:visible").count() == len(cards)
    page.close()


@pytest.mark.slow
@needs_browser
def test_without_scripts_all_images_are_there_and_no_filter(browser, shown):
    gallery, path = shown
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator(".card:visible").count() == sum(map(len, gallery.groups.values()))
    assert page.locator(".filters:visible").count() == 0
    context.close()
