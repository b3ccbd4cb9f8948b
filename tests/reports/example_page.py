"""A page about invented results on real 8x8 digits, for the tests and to look at."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from rightreasons.metrics import Estimate
from rightreasons.reports import (
    Comparison,
    ControlRow,
    Curve,
    Example,
    Heatmap,
    PageContent,
    Panel,
    Protocol,
    Published,
)

NAN = float("nan")


def estimate(value, margin=0.008, count=10_000):
    return Estimate(value, value - margin, value + margin, count)


def decoyed(number):
    """A digit at 28x28 with a gray patch in a corner, its class and the patch's mask."""
    digits = load_digits()
    image = np.pad(np.kron(digits.images[number] / 16, np.ones((3, 3))), 2)
    mask = np.zeros((28, 28))
    rows, columns = [(slice(0, 4), slice(24, 28)), (slice(24, 28), slice(0, 4))][number % 2]
    mask[rows, columns] = 1
    image[rows, columns] = 0.35 + 0.06 * (number % 10)
    return image, int(digits.target[number]), mask


def maps(image, mask, share, seed):
    """A signed and an unsigned map with about this share in the mask."""
    rng = np.random.default_rng(seed)
    signed = rng.normal(size=image.shape) * (image + 0.05) * (1 - mask)
    signed *= (1 - share) / np.abs(signed).sum()
    patch = rng.normal(0.8, 0.5, size=image.shape) * mask
    signed += patch * share / np.abs(patch).sum()
    smooth = np.kron(np.abs(signed).reshape(7, 4, 7, 4).mean((1, 3)), np.ones((4, 4)))
    return {"Saliency": Heatmap(signed * 3e-4, True), "Grad-CAM": Heatmap(smooth, False)}


def example(number):
    image, truth, mask = decoyed(number)
    other = (truth + 1 + number % 5) % 10 if number % 4 else truth
    return Example(
        image,
        str(truth),
        mask,
        (
            Panel("before", str(other), 0.97 - 0.03 * number, other == truth, maps(image, mask, 0.72, number)),
            Panel("after", str(truth), 0.99 - 0.02 * number, True, maps(image, mask, 0.02, 100 + number)),
        ),
    )


HEADLINE = (
    Comparison(
        "Accuracy without the shortcut",
        "Share of test images named rightly when the patch has a random shade.",
        estimate(0.5162, 0.0098),
        estimate(0.9607, 0.0037),
        estimate(0.4445, 0.0101),
        True,
        bound=estimate(0.9611, 0.0037),
    ),
    Comparison(
        "Worst class",
        "Accuracy on the class that fares worst.",
        estimate(0.213, 0.025, 1009),
        estimate(0.931, 0.014, 1009),
        estimate(0.718, 0.028, 1009),
        True,
        bound=estimate(0.934, 0.014, 1009),
    ),
    Comparison(
        "Answers changed by a swap of the patch",
        "Share of predictions that change when nothing but the patch's shade does.",
        estimate(0.602, 0.0096),
        estimate(0.004, 0.0012),
        estimate(-0.598, 0.0097),
        False,
        bound=estimate(0.0, 0.0),
    ),
    Comparison(
        "Saliency inside the patch",
        "Share of the saliency map that lies on pixels that should not matter; trained through.",
        estimate(0.683, 0.004),
        estimate(0.011, 0.001),
        estimate(-0.672, 0.004),
        False,
    ),
    Comparison(
        "Grad-CAM inside the patch",
        "The same of an explainer that the training never saw.",
        estimate(0.311, 0.005),
        estimate(0.062, 0.003),
        estimate(-0.249, 0.006),
        False,
    ),
    Comparison(
        "Artefact relevance",
        "Mean signed relevance of the patch for the class named, in logits.",
        estimate(3.82, 0.21),
        estimate(-0.04, 0.06),
        estimate(-3.86, 0.22),
        False,
        unit="",
    ),
)

CURVES = (
    Curve(
        "Accuracy on validation images without the shortcut",
        "epoch",
        {
            "before": [0.82, 0.80, 0.74, 0.68, 0.63, 0.58, 0.55, 0.52],
            "after (RRR)": [0.61, 0.79, 0.86, 0.91, 0.934, 0.949, 0.957, 0.961],
            "clean bound": [0.90, 0.928, 0.941, 0.948, 0.953, 0.957, 0.96, 0.961],
        },
        "The longer the plain model trains, the more it cheats.",
        "%",
    ),
    Curve(
        "Training loss of the revised model, by part",
        "epoch",
        {
            "task": [1.9, 1.21, 0.84, 0.61, 0.5, 0.42, 0.37, 0.34],
            "explanation": [0.62, 0.3, 0.17, NAN, 0.09, 0.07, 0.055, 0.05],
        },
    ),
)

CONTROLS = (
    ControlRow(
        "Zero mask",
        "The same loss with an empty mask.",
        estimate(0.519, 0.0098),
        "like before: nothing is penalized",
        True,
    ),
    ControlRow(
        "Random mask",
        "Masks of the same size at random places.",
        estimate(0.543, 0.0097),
        "close to before: the place matters",
        True,
    ),
    ControlRow(
        "Wrong mask",
        "The digit is marked as what should not matter.",
        estimate(0.187, 0.0076),
        "worse than before",
        False,
    ),
    ControlRow("Clean bound", "Trained on images without any patch.", estimate(0.9611, 0.0037), "an upper end", None),
)


def content(**changes):
    fields = {
        "title": "A digit classifier, caught cheating and repaired",
        "verdict": "Before, the model read the gray patch in the corner and named 51.6 % of the digits rightly once "
        "the patch no longer gave the answer away; after revision it reads the digit: 96.1 %, as good as a model that "
        "never saw a patch.",
        "protocol": Protocol(
            "decoy/rrr",
            "Every training image carries a 4x4 patch in a random corner whose shade tells its class; in test images "
            "the shade is random. MLP 784-50-30-10, 64 epochs, weight 1000.",
            "Ross et al. 2017, arXiv:1703.03717, section 4",
            (
                Published("Plain", "51.55 %", "authors' notebook, arXiv:1703.03717"),
                Published("RRR", "96.07 %", "authors' notebook, arXiv:1703.03717"),
                Published("Clean", "96.11 %", "authors' notebook, arXiv:1703.03717"),
            ),
        ),
        "device": "CPU, 2 cores, seed 0",
        "data_note": "Invented results on the 8x8 digits of scikit-learn, for this test only.",
        "headline": HEADLINE,
        "examples": tuple(example(number) for number in range(8)),
        "curves": CURVES,
        "controls": CONTROLS,
        "config": '[loss]\nname = "rrr"\nweight = 1000.0\n\n[training]\nepochs = 64\nbatch_size = 256\n',
        "rerun": ("rightreasons demo --seed 0 --out demo", "rightreasons prove before.safetensors after.safetensors"),
        "environment": {"python": "3.11.2", "torch": "2.13.0", "rightreasons": "0.1.0", "commit": "0123456"},
        "notes": (
            "The patch's shade in test images is drawn anew; a model that ignores it loses nothing.",
            "Five seeds gave 95.6 to 96.2 %.",
        ),
        "trained_through": "Saliency",
    }
    return PageContent(**{**fields, **changes})
