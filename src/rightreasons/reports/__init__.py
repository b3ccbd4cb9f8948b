"""Pages and figures from recorded results."""

from rightreasons.reports.counterfactual import CounterfactualPage, render_counterfactuals, write_counterfactuals
from rightreasons.reports.figures import Heatmap, contact_sheet, figure, heatmap_png
from rightreasons.reports.gallery import Gallery, write_gallery
from rightreasons.reports.inside import InsidePage, render_inside, write_inside
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
from rightreasons.reports.quality import QualityPage, render_quality, write_quality
from rightreasons.reports.quality_sheet import quality_picture
from rightreasons.reports.sheets import data_sheet, picture_figure, reveal_sheet
from rightreasons.reports.table import TablePage, render_table, write_table
from rightreasons.reports.tokens import token_html, token_strip

__all__ = [
    "Comparison",
    "ControlRow",
    "CounterfactualPage",
    "Curve",
    "Example",
    "Gallery",
    "Heatmap",
    "InsidePage",
    "PageContent",
    "Panel",
    "Protocol",
    "Published",
    "QualityPage",
    "Story",
    "TablePage",
    "comparison_page",
    "contact_sheet",
    "data_sheet",
    "figure",
    "heatmap_png",
    "picture_figure",
    "proof_page",
    "quality_picture",
    "render",
    "render_counterfactuals",
    "render_inside",
    "render_quality",
    "render_table",
    "reveal_sheet",
    "study_page",
    "token_html",
    "token_strip",
    "verdict",
    "write",
    "write_counterfactuals",
    "write_gallery",
    "write_inside",
    "write_quality",
    "write_table",
]
