"""A small table of quality, made up."""

from __future__ import annotations

import math

import torch

from rightreasons.metrics import Cell, Estimate, Measure, MethodRow, QualityTable

DELETION = Measure("deletion", False, "Area under the curve <while> pixels are hidden.", "Deletion()")
GINI = Measure("sparseness", True, "Gini index.", "Sparseness()")
CONTROLS = ("random heatmap", "edge detector")
EMPTY = Measure("iou", True, "Needs a mask.", "IoU()")


def cell(value, rank=None, lead=None, behind=0.0, count=4):
    def around(middle):
        return Estimate(middle, middle - 0.05, middle + 0.05, count)

    if count == 0:
        return Cell(Estimate(math.nan, math.nan, math.nan, 0), torch.full((4,), math.nan))
    more = (None, None) if rank is None else (around(lead), around(behind))
    return Cell(around(value), torch.full((4,), value), rank, *more)


def table(*, masks: bool = False):
    cells = {
        "grad_cam": (cell(0.2, 1, -0.3), cell(0.7, 1, 0.3)),
        "mine <b>": (cell(0.4, 2, -0.02, 0.2, count=3), cell(0.5, 2, 0.1, -0.2)),
        "random heatmap": (cell(0.5), cell(0.4)),
        "edge detector": (cell(0.45), cell(0.3)),
    }
    empty = {"iou": cell(0, count=0)} if masks else {}
    rows = [
        MethodRow(name, f"{name}()", {"deletion": a, "sparseness": b, **empty}, 0.4, control=name in CONTROLS)
        for name, (a, b) in cells.items()
    ]
    rows.insert(2, MethodRow("cam", "CAM()", {}, 0.1, reason="CAM needs a pooled head & has none"))
    measures = (DELETION, GINI, EMPTY) if masks else (DELETION, GINI)
    return QualityTable("digits/test", "predicted", (1, 5, 6, 9), (0, 1, 2, 3), measures, tuple(rows))
