"""Masks as people have them: read, written, joined with images, and made worse on purpose."""

from rightreasons.data.masks.annotations import Annotations, Marks
from rightreasons.data.masks.coco import read_coco, write_coco
from rightreasons.data.masks.degrade import Degraded, Noise, degrade, measure
from rightreasons.data.masks.join import WithAnnotations, with_annotations
from rightreasons.data.masks.label_studio import read_label_studio
from rightreasons.data.masks.png import read_png, write_png
from rightreasons.data.masks.raster import box, ellipse, mask_of, polygon, stroke
from rightreasons.data.masks.read import read_annotations

__all__ = [
    "Annotations",
    "Degraded",
    "Marks",
    "Noise",
    "WithAnnotations",
    "box",
    "degrade",
    "ellipse",
    "mask_of",
    "measure",
    "polygon",
    "read_annotations",
    "read_coco",
    "read_label_studio",
    "read_png",
    "stroke",
    "with_annotations",
    "write_coco",
    "write_png",
]
