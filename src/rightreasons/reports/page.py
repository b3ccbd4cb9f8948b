"""One self-contained HTML page that shows what was revised and what it changed.

``PageContent`` holds recorded results as plain numbers and arrays; ``render`` makes the page of it. The page opens from
disk and loads nothing: style, figures and images are inside, and its content security policy forbids the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import jinja2
import numpy as np
from markupsafe import Markup, escape

from rightreasons.experiments import Comparison as Measured
from rightreasons.models.checkpoints import write_whole
from rightreasons.reports import charts
from rightreasons.reports.figures import (
    Array,
    Heatmap,
    as_picture,
    color_bar_png,
    data_uri,
    heatmap_png,
    image_png,
    mask_outline,
    share_inside,
)

if TYPE_CHECKING:
    from rightreasons.metrics import Estimate

Unit = Literal["%", ""]

_SMALL = 96
"""Images up to this side keep their pixels when enlarged."""


class Published(NamedTuple):
    """A number that others published under the same protocol."""

    label: str
    value: str | float
    source: str


@dataclass(frozen=True)
class Protocol:
    """How the numbers were made, and what was published under the same protocol.

    Attributes:
        id: Its name, such as ``decoy/rrr``.
        description: In a sentence or two.
        source: Where it comes from; ``arXiv:...`` becomes a link.
        published: Numbers to compare with.
    """

    id: str
    description: str
    source: str
    published: Sequence[Published] = ()


@dataclass(frozen=True)
class Comparison(Measured):
    """One measure before and after, as the page shows it; its values are fractions if the unit is "%".

    Attributes:
        unit: "%" shows fractions as per cent and differences as points.
    """

    unit: Unit = "%"

    @property
    def chart(self) -> Markup:
        """Before and after as dots with whiskers."""
        rows = {"before": self.before, "after": self.after, **({"bound": self.bound} if self.bound else {})}
        points = {role: (row.value, row.low, row.high) for role, row in rows.items()}
        ticks = charts.shared_ticks([value for point in points.values() for value in point])
        told = ", ".join(f"{role} {charts.number(row.value, self.unit)}" for role, row in rows.items())
        return charts.dots(points, ticks, unit=self.unit, title=f"{self.name}: {told}.")


@dataclass(frozen=True, eq=False)
class Panel:
    """What one model said about an image, and why.

    Attributes:
        run: Which model.
        prediction: The class it named.
        confidence: With what probability.
        correct: Whether that is the truth.
        heatmaps: By the method's name, a map (H, W) and whether it is signed.
    """

    run: Literal["before", "after"]
    prediction: str
    confidence: float
    correct: bool
    heatmaps: Mapping[str, Heatmap]

    def __post_init__(self) -> None:
        if self.run not in ("before", "after"):
            raise ValueError(f"expected run 'before' or 'after', got {self.run!r}")

    @property
    def sure(self) -> str:
        """The confidence in whole per cent; empty if not known."""
        return _percent(self.confidence) if np.isfinite(self.confidence) else ""


@dataclass(frozen=True, eq=False)
class Example:
    """An image with its truth, the pixels that should not matter, and the panels of both models.

    Attributes:
        image: (H, W) or (H, W, 3) in [0, 1].
        truth: Its class.
        mask: (H, W), the irrelevant pixels, drawn as an outline.
        panels: Before and after.
    """

    image: Array
    truth: str
    mask: Array | None
    panels: tuple[Panel, ...]

    def __post_init__(self) -> None:
        size = np.shape(self.image)[:2]
        maps = {f"heat map {name!r}": heat[0] for panel in self.panels for name, heat in panel.heatmaps.items()}
        for name, values in {**maps, **({} if self.mask is None else {"mask": self.mask})}.items():
            if np.shape(values) != size:
                raise ValueError(f"expected the {name} of the image's size {size}, got shape {np.shape(values)}")

    @cached_property
    def uri(self) -> str:
        """The image itself, as an address."""
        return data_uri(image_png(self.image))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return as_picture(self.image).size

    @property
    def style(self) -> str:
        """How the browser enlarges it: small images pixel by pixel."""
        return "pixels" if max(self.size) <= _SMALL else "smooth"

    @cached_property
    def outline(self) -> str:
        """The border of the mask as SVG path data; empty without a mask."""
        return "" if self.mask is None else mask_outline(self.mask)

    @property
    def methods(self) -> dict[str, bool]:
        """The methods in their order, and whether their maps are signed."""
        return {name: heat[1] for panel in self.panels for name, heat in panel.heatmaps.items()}

    @property
    def paired_method(self) -> str:
        """Of the methods with a map of both models, that whose share on the mask fell most; empty if there is none."""
        if len(self.panels) != 2:
            return ""
        shared = [name for name in self.methods if all(name in panel.heatmaps for panel in self.panels)]
        return max(shared, key=self._fall, default="")

    def _fall(self, method: str) -> float:
        """By how much the share of the map on the mask fell; 0 where that is not defined."""
        if self.mask is None:
            return 0.0
        before, after = (
            share_inside(panel.heatmaps[method][0], self.mask, signed=panel.heatmaps[method][1])
            for panel in self.panels
        )
        return before - after if np.isfinite([before, after]).all() else 0.0

    def map_of(self, panel: Panel, method: str) -> str:
        """A panel's map by that method, as an address."""
        values, signed = panel.heatmaps[method]
        return data_uri(heatmap_png(values, signed=signed))

    @property
    def covered(self) -> str:
        """The share of irrelevant pixels in words, which is what a map spread evenly would have on them."""
        share = 0.0 if self.mask is None else float(np.mean(np.asarray(self.mask) > 0.5))
        return f"irrelevant: {_percent(share)} of pixels" if share else ""

    def inside(self, panel: Panel, method: str) -> str:
        """How much of a panel's map lies on irrelevant pixels, in words; empty without a mask."""
        if self.mask is None or not self.covered:
            return ""
        values, signed = panel.heatmaps[method]
        share = share_inside(values, self.mask, signed=signed)
        return f"{_percent(share)} irrelevant" if np.isfinite(share) else "map is all zero"


@dataclass(frozen=True)
class Curve:
    """Values over the epochs, counted from 1; fractions if the unit is "%".

    Attributes:
        name: What is drawn.
        x_label: What the horizontal axis counts.
        series: By label, one value an epoch.
        note: A sentence beneath.
        unit: "%" shows fractions as per cent.
    """

    name: str
    x_label: str
    series: Mapping[str, Sequence[float]]
    note: str = ""
    unit: Unit = ""

    @property
    def chart(self) -> Markup:
        """The lines."""
        return charts.curves(self.name, self.x_label, self.series, unit=self.unit, note=self.note)


@dataclass(frozen=True)
class ControlRow:
    """A run that should fail or succeed for a known reason, and whether it did.

    Attributes:
        name: The control.
        explanation: What was done.
        estimate: What came out; a fraction if the unit is "%".
        expectation: What should come out, in words.
        passed: Whether it did; ``None`` if that is for the reader to judge.
        unit: "%" shows fractions as per cent.
    """

    name: str
    explanation: str
    estimate: Estimate
    expectation: str
    passed: bool | None = None
    unit: Unit = "%"


@dataclass(frozen=True)
class PageContent:
    """All that the page says.

    Attributes:
        title: Of the page.
        verdict: The result in one plain sentence.
        protocol: How the numbers were made.
        device: On what machine.
        data_note: What data, how many images.
        headline: The measures; the first one stands large at the top.
        examples: Images with the maps of both models; the method that was trained through first.
        curves: What happened in training.
        controls: What makes the numbers mean something.
        config: The resolved configuration, as text.
        rerun: Commands that make the numbers again.
        environment: Versions and the like, by name.
        notes: What a careful reader should know.
        interval: What the intervals are.
        trained_through: The method that the loss used; the other ones are marked as checks.
    """

    title: str
    verdict: str
    protocol: Protocol
    device: str
    data_note: str
    headline: tuple[Comparison, ...]
    examples: tuple[Example, ...] = ()
    curves: tuple[Curve, ...] = ()
    controls: tuple[ControlRow, ...] = ()
    config: str = ""
    rerun: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    interval: str = (
        "95 % interval, paired bootstrap over the test images; for the worst class, where the bootstrap fails, exact "
        "binomial bounds over all classes at once"
    )
    trained_through: str | None = None

    @property
    def telling_is_repaired(self) -> bool:
        """Whether the example at the top was wrong before and is right after."""
        found = self.telling
        return found is not None and not found[0].panels[0].correct and found[0].panels[1].correct

    @property
    def telling(self) -> tuple[Example, str] | None:
        """The example at the top, the first one that was repaired if any was, and the method of its maps.

        Examples with a mask come before those without one, whose maps say little.
        """
        shown = sorted((e for e in self.examples if e.paired_method), key=lambda example: not example.covered)
        repaired = [example for example in shown if not example.panels[0].correct and example.panels[1].correct]
        return next(((example, example.paired_method) for example in (*repaired, *shown)), None)


def render(content: PageContent) -> str:
    """The whole page as one HTML text; everything the caller wrote is escaped."""
    signed = {signed for example in content.examples for signed in example.methods.values()}
    bars = {sign: data_uri(color_bar_png(signed=sign)) for sign in sorted(signed)}
    return environment().get_template("page.html").render(page=content, bars=bars)


def write(content: PageContent, path: str | Path) -> Path:
    """Render the page into a file that appears whole or not at all.

    Raises:
        NotWritten: The file cannot be written; an older one is left as it was.
    """
    path = Path(path)
    write_whole(path, render(content).encode())
    return path


def linked(text: str) -> Markup:
    """A text in which ``arXiv:1703.03717`` and https addresses are links; the rest is escaped."""
    return Markup(_ADDRESS.sub(_link, str(escape(text))))


_ADDRESS = re.compile(r"arXiv:(?P<arxiv>\d{4}\.\d{4,5})|https://[\w./~%?=#:+-]*[\w/]")


def _link(match: re.Match[str]) -> str:
    address = f"https://arxiv.org/abs/{match['arxiv']}" if match["arxiv"] else match[0]
    return f'<a href="{address}">{match[0]}</a>'


def interval(estimate: Estimate, unit: str, *, sign: bool = False) -> str:
    """The ends of an estimate's interval in words."""
    if not np.isfinite([estimate.low, estimate.high]).all():
        return "no interval"
    ends = (charts.number(end, unit, sign=sign) for end in (estimate.low, estimate.high))
    low, high = (end.split("\N{NO-BREAK SPACE}")[0] for end in ends)
    return f"{low} to {high}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def environment(**filters: Callable[..., str]) -> jinja2.Environment:
    """Where the pages' templates are made; whatever a caller wrote is escaped.

    Args:
        filters: Of a page of its own, beside ``number``, ``interval`` and ``linked``.
    """
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("rightreasons.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(number=charts.number, interval=interval, linked=linked, **filters)
    return made


def pictures_of_ones_own(count: int) -> str:
    """What stands on a page in the place of a data set."""
    return f"{count:,} {'picture' if count == 1 else 'pictures'} of your own"
