"""What a trained arm is asked beside its accuracy: does it lean on the decoy, and where does it look?

Measured on the test images after training; nothing is chosen by it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.attribution import GradCAM
from rightreasons.core import Attribution, BadModel, Batch
from rightreasons.data import DecoyDataset, ImageDataset, Subset, Wrapper, swapped
from rightreasons.data.dataset import stream
from rightreasons.data.decoys import DECOYS, decoy, unrelated
from rightreasons.data.groups import groups_of, signs_of
from rightreasons.experiments.build import Splits, build_attribution
from rightreasons.experiments.config import RunConfig
from rightreasons.experiments.select import bears_decoy
from rightreasons.metrics import (
    ArtifactRelevance,
    DeadMap,
    IoU,
    MaskF1,
    MaskPrecision,
    MaskRecall,
    prediction_change,
)
from rightreasons.metrics.probe import linear_probe
from rightreasons.models import AdaptedClassifier
from rightreasons.training.evaluation import device_of, evaluate, modes_kept
from rightreasons.training.recipes.dfr import features, last_layer

IMAGES = 512
EXPLAINED = 256
PROBED = 1000
AT_ONCE = 64

SALIENCY: Mapping[str, Any] = {"score": "sum_log_probabilities"}
UNSEEN: Mapping[str, Mapping[str, Any]] = {
    "integrated_gradients": {"score": "log_probability", "steps": 16},
    "occlusion": {"score": "log_probability"},
}
"""Explainers that arms are hardly ever trained through, with their settings: a table takes the first that no arm is."""

OVERLAPS = {"iou": IoU(), "precision": MaskPrecision(), "recall": MaskRecall(), "f1": MaskF1()}
Explainer = Callable[[Batch], Tensor]


def assessment(
    model: AdaptedClassifier,
    splits: Splits,
    config: RunConfig,
    *,
    unseen: str = next(iter(UNSEEN)),
    images: int = IMAGES,
) -> dict[str, Any]:
    """The figures of a trained arm on at most so many test images; what is not defined for the data is left out.

    - with a decoy: ``swap``, the share of predictions that change with the decoy of another class; ``probe``, how well
      a linear probe reads the decoy's class off the features, and its ``probe_chance``;
    - with irrelevant masks: ``saliency`` and ``unseen``, the share of the absolute attribution in the mask as a
      multiple of chance (the mask's share of the image), for the saliency and for an explainer that no arm was trained
      through; ``saliency_share`` and ``unseen_share``, the share itself;
    - with relevant masks, where the network has a layer with a map: ``iou``, ``precision``, ``recall``, ``f1`` of
      Grad-CAM for the true class, binarized at half its largest value, and ``dead``, the share of maps without any.

    Args:
        model: The trained classifier.
        splits: Its images.
        config: Its run.
        unseen: A name in :data:`UNSEEN`.
        images: How many; drawn once for all arms. Attributions take half of them.
    """
    seed = config.data_seed
    test = sample(splits.test, images, seed)
    found: dict[str, Any] = {"images": len(test)}
    with modes_kept(model):
        model.eval()
        if bears_decoy(test):
            found |= {"swap": _changed(model, test, seed)} | probe(model, splits, config, images=images)
        first = test.batch(torch.arange(1))
        some = sample(test, min(EXPLAINED, images), seed)
        if first.irrelevant is not None:
            found |= _leaning(model, some, unseen)
        if first.relevant is not None and model.layer is not None:
            found |= _looking(model, test)
    return found


def sample(data: ImageDataset, count: int, seed: int) -> ImageDataset:
    """So many images of the data, drawn evenly; all where there are no more."""
    if len(data) <= count:
        return data
    return Subset(data, torch.randperm(len(data), generator=stream(seed, "assessment"))[:count].sort().values)


def _changed(model: AdaptedClassifier, test: ImageDataset, seed: int) -> float:
    before, after = (evaluate(model, data).predictions for data in (test, swapped(test, seed)))
    return float(prediction_change(before, after).mean())


def _leaning(model: AdaptedClassifier, test: ImageDataset, unseen: str) -> dict[str, Any]:
    """How much of two explainers' attribution lies in the irrelevant mask."""
    methods = {
        "saliency": build_attribution("saliency", test, SALIENCY),
        "unseen": build_attribution(unseen, test, UNSEEN[unseen]),
    }
    parts: dict[str, list[Tensor]] = {name: [] for name in (*methods, "area")}
    for batch in batches(model, test):
        mask = torch.zeros_like(batch.inputs[:, :1]) if batch.irrelevant is None else batch.irrelevant
        parts["area"].append(mask.mean(dim=(1, 2, 3)).double().cpu())
        for name, method in methods.items():
            heatmap = method(model, batch.inputs, batch.target).detach()
            parts[name].append(ArtifactRelevance()(model, batch, heatmap).double().cpu())
    whole = {name: torch.cat(values) for name, values in parts.items()}
    shares = {f"{name}_share": _mean(whole[name]) for name in methods}
    chances = {name: _mean(whole[name] / whole["area"]) for name in methods}
    return {**chances, **shares, "unseen_explainer": unseen, "chance": float(whole["area"].mean())}


def _looking(model: AdaptedClassifier, test: ImageDataset) -> dict[str, Any]:
    """Grad-CAM against the true masks."""
    metrics = {**OVERLAPS, "dead": DeadMap()}
    scores: dict[str, list[Tensor]] = {name: [] for name in metrics}
    method: Attribution = GradCAM()
    for batch in batches(model, test):
        heatmap = method(model, batch.inputs, batch.target).detach()
        for name, metric in metrics.items():
            scores[name].append(metric(model, batch, heatmap).double().cpu())
    return {name: _mean(torch.cat(values)) for name, values in scores.items()}


def _mean(scores: Float[Tensor, " images"]) -> float:
    """Over the images that have a score."""
    defined = scores[scores.isfinite()]
    return float(defined.mean()) if len(defined) else math.nan


def batches(model: AdaptedClassifier, data: ImageDataset) -> Iterator[Batch]:
    """The images a few at a time, where the weights lie."""
    device = device_of(model)
    for index in torch.split(torch.arange(len(data)), AT_ONCE):
        yield data.batch(index).to(device)


def probe(model: AdaptedClassifier, splits: Splits, config: RunConfig, *, images: int = IMAGES) -> dict[str, Any]:
    """How well a linear probe tells from the last features which sign of the decoy an image bears, and what chance is.

    The probe is a logistic regression on standardized features. It is fitted to held-out training images (to training
    images, where none are held out) and tested on test images; all bear the decoy as it is in training, of another
    class than the one they had, or a tag or none at random, so that the digit tells next to nothing. A model that
    ignores the decoy may still carry it.

    Returns:
        ``probe`` and ``probe_chance``; nothing for a network whose logits do not come out of a linear layer.
    """
    seed = config.data_seed
    source = splits.validation if splits.validation is not None else splits.train
    parts = [sample(source, PROBED, seed), as_in_training(sample(splits.test, images, seed), config)]
    fitted, tested = (unrelated(part, seed + 1) for part in parts)
    try:
        layer = last_layer(model, fitted)
    except BadModel:
        return {}
    values = [features(model, layer, part) for part in (fitted, tested)]
    bearing = [decoy_class(part) for part in (fitted, tested)]
    chance = float(bearing[1].bincount().max()) / len(bearing[1])
    read = linear_probe(values[0], bearing[0])(values[1])
    return {"probe": float((read == bearing[1]).double().mean()), "probe_chance": chance}


def as_in_training(data: ImageDataset, config: RunConfig) -> ImageDataset:
    """The images with the decoy drawn as in training, where its signs are others in the test (``decoy/cdep``)."""
    if isinstance(data, DecoyDataset):
        if data.protocol not in DECOYS:
            return data
        settings = {"size": config.data.decoy_size, "foreground": config.data.foreground}
        return decoy(data.clean, data.protocol, split="train", seed=2 * config.data_seed + 1, **settings)  # type: ignore[arg-type]
    if isinstance(data, Wrapper):
        return data.over(as_in_training(data.data, config))
    return data


def decoy_class(data: ImageDataset) -> Int[Tensor, " images"]:
    """Which sign each image bears: which class's decoy, or whether a tag."""
    group = groups_of(data)
    if group is None:
        raise ValueError(f"expected data with a decoy, got {data.name}")
    return group % signs_of(data)
