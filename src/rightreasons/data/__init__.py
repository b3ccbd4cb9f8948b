"""Real images, decoys over them, and the user's own folders."""

from rightreasons.data.arrays import ArrayDataset, Rescaled, Subset
from rightreasons.data.controls import Annotated, WithMasks
from rightreasons.data.dataset import ImageDataset, Split, Wrapper, whole
from rightreasons.data.decoyed import DecoyDataset
from rightreasons.data.decoys import (
    DECOYS,
    WITHOUT_SIGN,
    ColorDecoy,
    ColorProtocol,
    PatchDecoy,
    PatchProtocol,
    decoy,
    swapped,
)
from rightreasons.data.features import FeatureDataset
from rightreasons.data.folder import ImageFolder
from rightreasons.data.geometry import Augmentation, augment
from rightreasons.data.groups import Grouped, groups_of
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
from rightreasons.data.pasted import PastedDecoy, TextureProtocol
from rightreasons.data.selection import OfClasses, drawn
from rightreasons.data.splits import split, split_as_held
from rightreasons.data.squares import squares
from rightreasons.data.stamps import STAMPS, Stamps
from rightreasons.data.tag import TagDecoy, TagProtocol
from rightreasons.data.toy_colors import toy_colors

__all__ = [
    "DATASETS",
    "DECOYS",
    "STAMPS",
    "WITHOUT_SIGN",
    "Annotated",
    "Annotations",
    "ArrayDataset",
    "Augmentation",
    "ColorDecoy",
    "ColorProtocol",
    "DecoyDataset",
    "Degraded",
    "FeatureDataset",
    "Grouped",
    "ImageDataset",
    "ImageFolder",
    "Loader",
    "Marks",
    "Noise",
    "OfClasses",
    "PastedDecoy",
    "PatchDecoy",
    "PatchProtocol",
    "Rescaled",
    "Split",
    "Stamps",
    "Subset",
    "TagDecoy",
    "TagProtocol",
    "TextureProtocol",
    "WithAnnotations",
    "WithMasks",
    "Wrapper",
    "augment",
    "decoy",
    "degrade",
    "drawn",
    "groups_of",
    "load",
    "measure",
    "read_annotations",
    "read_coco",
    "read_label_studio",
    "read_png",
    "split",
    "split_as_held",
    "squares",
    "swapped",
    "toy_colors",
    "whole",
    "with_annotations",
    "write_coco",
    "write_png",
]
