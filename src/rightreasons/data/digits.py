"""The digits that come with scikit-learn: real handwriting without any download."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from rightreasons.data.arrays import ArrayDataset
from rightreasons.data.dataset import ImageDataset, Split
from rightreasons.data.splits import split as stratified

TEST_SHARE = 0.2
SPLIT_SEED = 0


def load_digits(split: Split = "train", *, folder: Path | None = None, cache: Path | None = None) -> ImageDataset:
    """1,797 handwritten digits of 8x8 pixels; 1,438 to train and 359 to test, the same ones every time.

    The 17 grey values 0 ... 16 are spread evenly over 0 ... 255. The source has no split of its own: a fifth of each
    class, drawn once under a fixed seed, is the test set. Writers are not known, so both parts may hold digits of
    the same hand.

    Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, its test part as scikit-learn has it.

    Raises:
        ValueError: A folder was named; these digits come with scikit-learn.
    """
    if folder is not None:
        raise ValueError(f"expected no folder, as the digits come with scikit-learn, got {folder}")
    from sklearn.datasets import load_digits as bundled

    raw = bundled()
    images = torch.from_numpy(np.rint(raw.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    target = torch.from_numpy(np.asarray(raw.target, dtype=np.int64))
    data = ArrayDataset(images, target, classes=[str(digit) for digit in range(10)], name="digits")
    parts = dict(zip(("train", "test"), stratified(data, TEST_SHARE, SPLIT_SEED), strict=True))
    part = parts[split]
    return ArrayDataset(images[part.index], part.target, classes=data.classes, name=f"digits/{split}")
