from __future__ import annotations

import sys

import pytest
import torch

from rightreasons.attribution.perturbation import LIME, FeatureAblation
from rightreasons.attribution.perturbation.regions import grid, segmented
from rightreasons.core import MissingExtra
from rightreasons.models import adapt
from tests.networks import images, network


def test_superpixels_without_scikit_image_say_which_extra_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    inputs, target = images(1)
    with pytest.raises(MissingExtra, match=r"rightreasons\[superpixels\]"):
        FeatureAblation(segments="slic")(adapt(network("relu")), inputs, target)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_superpixels_follow_edges(channels):
    pytest.importorskip("skimage")
    inputs = torch.zeros(2, channels, 48, 48)
    inputs[:, :, :, 19:] = 5.0
    inputs[:, :, 27:] += 2.0
    inputs[1] = inputs[1].flip(1, 2)
    labels = segmented(inputs, "slic", cells=4)
    assert labels.shape == (2, 48, 48)
    for image, seen in zip(labels, inputs, strict=True):
        assert image.unique().tolist() == list(range(int(image.max()) + 1))
        assert 4 <= image.max() < 40
        mixed = sum(len(seen[0][image == label].unique()) > 1 for label in image.unique())
        squares = grid(48, 48, cells=4)
        assert mixed < sum(len(seen[0][squares == label].unique()) > 1 for label in range(16))


def test_methods_run_on_superpixels():
    pytest.importorskip("skimage")
    inputs, target = images(3)
    model = adapt(network("relu"))
    method = LIME(segments="slic", cells=3, samples=50)
    together = method(model, inputs, target)
    apart = torch.cat([method(model, inputs[i : i + 1], target[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, apart, rtol=1e-9, atol=1e-12)


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    "segments", [lambda x: torch.zeros(12, 12, dtype=torch.long), lambda x: torch.zeros(len(x), 12, 12)]
)
def test_regions_that_do_not_fit_are_refused(segments):
    inputs, target = images(2)
    with pytest.raises(ValueError, match="expected segments to be whole numbers"):
        FeatureAblation(segments=segments)(adapt(network("relu")), inputs, target)
