import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pytest

from rightreasons.core import NotWritten
from rightreasons.metrics import Estimate
from rightreasons.reports import Comparison, ControlRow, Curve, Example, Heatmap, Panel, render, write
from rightreasons.reports.page import linked
from tests.reports.example_page import HEADLINE, NAN, content, estimate, example

VOID = {"meta", "link", "img", "br", "input", "hr"}
UNDEFINED = Estimate(NAN, NAN, NAN, 0)


class Page(HTMLParser):
    """Elements with their attributes; raises where tags do not close as they opened."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


@pytest.fixture(scope="module")
def text():
    return render(content())


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_nothing_is_loaded(page, text):
    for tag, attrs in page.elements:
        assert attrs.get("src", "data:").startswith("data:"), tag
        if tag != "a":
            assert attrs.get("href", "#").startswith(("data:", "#")), tag
    assert not page.all("script")
    assert "@import" not in text
    assert "url(" not in text
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_links_lead_to_papers_only(page):
    assert {link["href"] for link in page.all("a")} == {"https://arxiv.org/abs/1703.03717"}


def test_every_image_says_what_it_shows(page):
    images = page.all("img")
    assert len(images) > 8 * 5
    assert all(image.get("alt", "").strip() for image in images)
    assert any("Saliency heat map before; 72\N{NO-BREAK SPACE}% irrelevant." in image["alt"] for image in images)


def test_tables_have_captions_and_scopes(page):
    assert len(page.all("table")) == len(page.all("caption")) == 3
    assert all(cell.get("scope") in ("col", "row") for cell in page.all("th"))


def test_ids_are_unique_and_references_lead_somewhere(page):
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    used = [attrs["href"][1:] for attrs in page.all("use")]
    used += [attrs[name] for _, attrs in page.elements for name in ("aria-labelledby", "for") if name in attrs]
    assert used
    assert set(used) <= set(ids)


def test_both_color_bars_stand_in_every_card(page):
    bars = [image["alt"] for image in page.all("img") if image["alt"].startswith("Color bar")]
    # In the legend and in each of the eight cards; that of the telling example also at the top.
    example, method = content().telling
    assert len(bars) == 2 + 8 * 2 + 1
    assert sum("purple" in bar for bar in bars) == 1 + 8 + example.methods[method]


def test_what_matters_is_said_in_words(page):
    told = " ".join(page.text.split()).replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        "51.6 %",
        "96.1 %",
        "+44.5 points",
        "decoy/rrr",
        "✕ wrong",
        "✓ right",
        "irrelevant: 2 % of pixels",
        "not trained on",
        "trained through",
        "✕ not as expected",
        "for the reader",
        "n = 10,000",
        "rightreasons demo --seed 0 --out demo",
        "95 % interval, paired bootstrap",
        "-0.040".replace("-", "\N{MINUS SIGN}"),
    ):
        assert words in told, words
    assert "nan" not in re.findall(r"[a-z]+", told.lower())


@pytest.mark.wrong_types
def test_all_that_the_caller_writes_is_escaped():
    evil = "</style><script>alert('x')</script>\"&"
    panel = Panel("before", evil, 0.5, False, {evil: Heatmap(np.ones((2, 2)), True)})
    row = replace(HEADLINE[0], name=evil, explanation=evil, of=evil)
    curve = Curve(evil, evil, {evil: [0.1, 0.2]}, evil)
    control = ControlRow(evil, evil, estimate(0.5), evil)
    shown = content(
        title=evil,
        verdict=evil,
        device=evil,
        data_note=evil,
        headline=(row,),
        examples=(Example(np.zeros((2, 2)), evil, np.eye(2), (panel,)),),
        curves=(curve,),
        controls=(control,),
        config=evil,
        rerun=(evil,),
        environment={evil: evil},
        notes=(evil + " https://example.org/a\"onclick='x'",),
        interval=evil,
        protocol=replace(content().protocol, id=evil, description=evil, source=evil, published=((evil, evil, evil),)),
    )
    page = Page(render(shown))
    assert not page.all("script")
    assert not any("onclick" in attrs for _, attrs in page.elements)
    assert page.text.count(evil) > 15


def test_the_class_that_fares_worst_is_named():
    told = Page(render(content(headline=(replace(HEADLINE[0], of="8 before, 3 after"),)))).text
    assert "It is 8 before, 3 after." in told
    assert "It is" not in Page(render(content(headline=HEADLINE[:1]))).text


def test_undefined_estimates_are_called_so():
    row = Comparison("Worst class", "None seen.", UNDEFINED, estimate(0.5), UNDEFINED, True, bound=UNDEFINED)
    half = replace(HEADLINE[1], before=Estimate(0.4, NAN, NAN, 1), difference=Estimate(0.1, NAN, NAN, 1))
    control = ControlRow("Zero mask", "Not run.", UNDEFINED, "like before")
    panel = Panel("before", "3", NAN, False, {"Saliency": Heatmap(np.zeros((28, 28)), True)})
    card = replace(example(0), panels=(panel,))
    text = render(content(headline=(row, half), controls=(control,), examples=(card,)))
    told = Page(text).text
    assert told.count("not defined") >= 5
    assert "no interval" in told
    assert "not judged" in told
    assert "map is all zero" in told
    assert not re.search(r"(?<![a-z])nan(?![a-z])", re.sub(r"base64,[^\"]*", "", text).lower())


@pytest.mark.parametrize(
    ("low", "high", "higher", "word"),
    [
        (0.1, 0.2, True, "better"),
        (0.1, 0.2, False, "worse"),
        (-0.2, -0.1, False, "better"),
        (-0.2, -0.1, True, "worse"),
        (-0.1, 0.2, True, "no clear change"),
        (0.0, 0.2, True, "no clear change"),
        (NAN, NAN, True, "not judged"),
    ],
)
def test_judgement_follows_the_interval(low, high, higher, word):
    row = replace(HEADLINE[0], difference=Estimate(0.15, low, high, 9), higher_is_better=higher)
    assert row.judgement == word


def test_the_smallest_page():
    page = Page(
        render(content(headline=(), examples=(), curves=(), controls=(), config="", rerun=(), environment={}, notes=()))
    )
    assert page.all("h1")
    assert not page.all("img")
    assert not page.all("figure")


def shares(shown):
    """By method, the share of the absolute values on the mask, before and after."""
    inside = np.asarray(shown.mask) > 0.5
    return {
        name: [abs(p.heatmaps[name][0])[inside].sum() / abs(p.heatmaps[name][0]).sum() for p in shown.panels]
        for name in shown.methods
    }


def test_the_example_at_the_top_is_a_repaired_one():
    shown = content()
    top, method = shown.telling
    assert top is next(e for e in shown.examples if not e.panels[0].correct and e.panels[1].correct)
    falls = {name: before - after for name, (before, after) in shares(top).items()}
    assert method == max(falls, key=falls.get)
    assert content(examples=(replace(example(0), mask=None),)).telling is not None
    assert content(examples=()).telling is None


def test_color_images_without_mask_and_maps_of_one_run_only():
    heat = {"Saliency": Heatmap(np.ones((128, 96)), True)}
    panels = (Panel("before", "cat", 0.9, True, heat), Panel("after", "dog", 0.6, False, {}))
    page = Page(render(content(examples=(Example(np.full((128, 96, 3), 0.5), "cat", None, panels),))))
    assert "not computed" in page.text
    assert not page.all("use")
    assert any("smooth" in figure.get("class", "") for figure in page.all("figure"))


@pytest.mark.wrong_types
def test_wrong_examples_are_refused():
    with pytest.raises(ValueError, match=r"expected the mask of the image's size \(4, 4\), got shape \(2, 2\)"):
        Example(np.zeros((4, 4, 3)), "a", np.zeros((2, 2)), ())
    panel = Panel("after", "a", 1.0, True, {"Saliency": Heatmap(np.zeros((1, 4, 4)), True)})
    with pytest.raises(ValueError, match=r"heat map 'Saliency' .* got shape \(1, 4, 4\)"):
        Example(np.zeros((4, 4)), "a", None, (panel,))
    with pytest.raises(ValueError, match="expected run 'before' or 'after', got 'middle'"):
        Panel("middle", "a", 1.0, True, {})


def test_addresses_become_links():
    assert linked("see arXiv:1703.03717.") == 'see <a href="https://arxiv.org/abs/1703.03717">arXiv:1703.03717</a>.'
    assert linked("http://plain.org <b>") == "http://plain.org &lt;b&gt;"


def test_the_same_results_make_the_same_page(text):
    assert render(content()) == text


def test_write_is_whole_or_nothing(tmp_path, monkeypatch, text):
    path = write(content(), tmp_path / "new" / "index.html")
    assert path.read_text(encoding="utf-8") == text

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(NotWritten, match="No space left on device; the file that stood there before is untouched"):
        write(content(title="other"), path)
    assert path.read_text(encoding="utf-8") == text
    assert list(path.parent.iterdir()) == [path]


def luminance(color):
    values = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return np.dot(
        [((v + 0.055) / 1.055) ** 2.4 if v > 0.04045 else v / 12.92 for v in values], [0.2126, 0.7152, 0.0722]
    )


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast_meets_wcag_aa(scheme):
    style = (resources.files("rightreasons.reports") / "templates" / "page.css").read_text(encoding="utf-8")
    colors = {n: pair[scheme] for n, *pair in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)}
    inks = ("ink", "soft", "before", "after", "bound", "other0", "other1", "other2", "other3")
    pairs = [(ink, ground) for ink in inks for ground in ("page", "card")]
    pairs += [("before", "before-tint"), ("after", "after-tint"), ("ink", "faint"), ("soft", "card")]
    for ink, ground in pairs:
        dark, light = sorted((luminance(colors[ink]), luminance(colors[ground])))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


def test_light_colors_are_the_same_for_browsers_without_light_dark():
    style = (resources.files("rightreasons.reports") / "templates" / "page.css").read_text(encoding="utf-8")
    fallback = dict(re.findall(r"--([\w-]+): (#\w{6})", style))
    assert fallback == dict(re.findall(r"--([\w-]+): light-dark\((#\w{6}), ", style))
