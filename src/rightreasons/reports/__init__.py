"""Pages and figures from recorded results."""

from rightreasons.reports.figures import Heatmap, contact_sheet, heatmap_png
from rightreasons.reports.page import (
    Comparison,
    ControlRow,
    Curve,
    Example,
    PageContent,
    Panel,
    Protocol,
    Published,
    render,
    write,
)

__all__ = [
    "Comparison",
    "ControlRow",
    "Curve",
    "Example",
    "Heatmap",
    "PageContent",
    "Panel",
    "Protocol",
    "Published",
    "contact_sheet",
    "heatmap_png",
    "render",
    "write",
]
