"""Data sets by name."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, get_args, runtime_checkable

from rightreasons.data.dataset import ImageDataset, Split
from rightreasons.data.digits import load_digits
from rightreasons.data.mnist import FASHION_MNIST, MNIST
from rightreasons.data.squares import GROUPS, Squares
from rightreasons.data.stamps import STAMPS
from rightreasons.data.toy_colors import ToyColors


@runtime_checkable
class Loader(Protocol):
    """What loads a split of a named data set."""

    def __call__(self, split: Split, *, folder: Path | None = None, cache: Path | None = None) -> ImageDataset:
        """The images of a split."""
        ...


DATASETS: Mapping[str, Loader] = MappingProxyType(
    {
        "mnist": MNIST,
        "fashion_mnist": FASHION_MNIST,
        "digits": load_digits,
        "stamps": STAMPS,
        "toy_colors": ToyColors("corners"),
        "toy_colors_by_corners": ToyColors("top"),
        "squares_symmetric": Squares(GROUPS["symmetric"]),
        "squares_asymmetric": Squares(GROUPS["asymmetric"]),
    }
)


def load(
    name: str, split: Split = "train", *, folder: Path | str | None = None, cache: Path | str | None = None
) -> ImageDataset:
    """A data set by name.

    Args:
        name: One of ``DATASETS``.
        split: ``train`` or ``test``, as published.
        folder: Where the user's own copy of the files is; nothing is fetched then.
        cache: Where fetched files are kept; ``RIGHTREASONS_CACHE`` or the system's cache folder by default.

    Raises:
        ValueError: No such data set or split.
        DataUnavailable: No source has it, or the folder does not.
        CorruptData: A file is not the published one.
    """
    if name not in DATASETS:
        near = get_close_matches(name, DATASETS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"no data set named {name!r}.{hint} There are: {', '.join(DATASETS)}")
    if split not in get_args(Split):
        raise ValueError(f"expected split train or test, got {split!r}")
    return DATASETS[name](
        split, folder=None if folder is None else Path(folder), cache=None if cache is None else Path(cache)
    )
