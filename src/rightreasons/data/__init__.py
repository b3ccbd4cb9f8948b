"""Real images, decoys over them, and the user's own folders."""

from rightreasons.data.arrays import ArrayDataset, Rescaled, Subset
from rightreasons.data.controls import Annotated, WithMasks
from rightreasons.data.dataset import ImageDataset, Split, Wrapper, whole
from rightreasons.data.decoys import (
    DECOYS,
    ColorDecoy,
    ColorProtocol,
    DecoyDataset,
    PatchDecoy,
    PatchProtocol,
    decoy,
    swapped,
)
from rightreasons.data.folder import ImageFolder
from rightreasons.data.geometry import Augmentation, augment
from rightreasons.data.masks import (
    Annotations,
    Degraded,
    Marks,
    Noise,
    WithAnnotations,
    degrade,
    measure,
    read_annotations,
    read_coco,
    read_label_studio,
    read_png,
    with_annotations,
    write_coco,
    write_png,
)
from rightreasons.data.named import DATASETS, Loader, load
from rightreasons.data.splits import split

__all__ = [
    "DATASETS",
    "DECOYS",
    "Annotated",
    "Annotations",
    "ArrayDataset",
    "Augmentation",
    "ColorDecoy",
    "ColorProtocol",
    "DecoyDataset",
    "Degraded",
    "ImageDataset",
    "ImageFolder",
    "Loader",
    "Marks",
    "Noise",
    "PatchDecoy",
    "PatchProtocol",
    "Rescaled",
    "Split",
    "Subset",
    "WithAnnotations",
    "WithMasks",
    "Wrapper",
    "augment",
    "decoy",
    "degrade",
    "load",
    "measure",
    "read_annotations",
    "read_coco",
    "read_label_studio",
    "read_png",
    "split",
    "swapped",
    "whole",
    "with_annotations",
    "write_coco",
    "write_png",
]
