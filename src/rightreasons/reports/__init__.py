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
from rightreasons.reports.proof import Story, comparison_page, proof_page, study_page, verdict
from rightreasons.reports.sheets import data_sheet, reveal_sheet

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
    "Story",
    "comparison_page",
    "contact_sheet",
    "data_sheet",
    "heatmap_png",
    "proof_page",
    "render",
    "reveal_sheet",
    "study_page",
    "verdict",
    "write",
]
