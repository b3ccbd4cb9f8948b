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
from rightreasons.data.named import DATASETS, Loader, load
from rightreasons.data.splits import split

__all__ = [
    "DATASETS",
    "DECOYS",
    "Annotated",
    "ArrayDataset",
    "Augmentation",
    "ColorDecoy",
    "ColorProtocol",
    "DecoyDataset",
    "ImageDataset",
    "ImageFolder",
    "Loader",
    "PatchDecoy",
    "PatchProtocol",
    "Rescaled",
    "Split",
    "Subset",
    "WithMasks",
    "Wrapper",
    "augment",
    "decoy",
    "load",
    "split",
    "swapped",
    "whole",
]
