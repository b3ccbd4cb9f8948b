"""Directions in a layer's activations along which a concept, such as an artifact, can be read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rightreasons.core import BadModel, Classifier
from rightreasons.core.hooks import captured, modes_kept

Direction = Float[Tensor, " features"]


def activations_at(
    model: Classifier,
    inputs: Float[Tensor, "images channels height width"],
    *,
    layer: str | None = None,
    at_once: int = 256,
) -> Float[Tensor, "images features"]:
    """What a layer hands on for each image, the mean over its places; the model runs in evaluation mode.

    Args:
        model: The classifier.
        inputs: Images.
        layer: Name of the layer; ``None`` takes the model's own.
        at_once: Images that run through the model at once.

    Raises:
        BadModel: There is no such layer, or it gives no features.
    """
    name = layer or model.layer
    if name is None:
        raise BadModel("this network has no layer of its own to read concepts from; name one")
    found = []
    with modes_kept(model.network), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model.network.eval()
        for part in torch.split(inputs, at_once):
            with captured(model.network, (name,)) as activations:
                model(part)
            if name not in activations:
                raise BadModel(f"layer {name!r} does not run in a pass; choose another")
            found.append(by_feature(activations[name], name))
    return torch.cat(found)


def by_feature(activation: Tensor, layer: str) -> Float[Tensor, "images features"]:
    """One number a feature: maps (B, K, h, w) and tokens (B, T, D) by their mean over places.

    Raises:
        BadModel: Another shape.
    """
    if activation.ndim == 4:
        return activation.mean(dim=(2, 3))
    if activation.ndim == 3:
        return activation.mean(dim=1)
    if activation.ndim == 2:
        return activation
    raise BadModel(f"layer {layer!r} gives shape {tuple(activation.shape)}, expected features, maps or tokens")


def signal_direction(activations: Float[Tensor, "images features"], present: Bool[Tensor, " images"]) -> Direction:
    """How the activations change with the concept: their covariance with its presence, at unit length.

    Unlike the normal of a classifier it does not turn away from the concept to cancel other signals.

    Source: Haufe et al. 2014, doi:10.1016/j.neuroimage.2013.10.067 (pattern); as concept vector Pahde et al. 2022,
    arXiv:2202.03482.

    Raises:
        ValueError: The concept is in all images or in none, or activations do not differ with it.
    """
    _check_both(activations, present)
    signs = present.to(activations.dtype)
    centered = signs - signs.mean()
    return _unit((activations - activations.mean(dim=0)).mT @ centered)


def svm_direction(
    activations: Float[Tensor, "images features"], present: Bool[Tensor, " images"], *, strength: float = 1.0
) -> Direction:
    """The normal of a linear support vector machine that tells images with the concept from those without.

    Classes weigh alike, and features are standardized for the fit.

    Source: Kim et al. 2018, arXiv:1711.11279, section 3.2.

    Args:
        activations: One row an image.
        present: Whether the concept is in it.
        strength: Of the regularization's inverse, as scikit-learn's ``C``.

    Raises:
        ValueError: The concept is in all images or in none.
    """
    from sklearn.svm import LinearSVC

    _check_both(activations, present)
    values = activations.detach().double().cpu()
    spread = values.std(dim=0).clamp(min=torch.finfo(values.dtype).eps)
    standardized = ((values - values.mean(dim=0)) / spread).numpy()
    machine = LinearSVC(C=strength, class_weight="balanced", dual=False, random_state=0)
    machine.fit(standardized, present.cpu().numpy().astype(np.int64))
    normal = torch.as_tensor(machine.coef_[0]) / spread
    return _unit(normal.to(activations))


def orthonormal(
    directions: Sequence[Direction] | Float[Tensor, "directions features"],
) -> Float[Tensor, "rank features"]:
    """An orthonormal basis of what the directions span.

    Raises:
        ValueError: No direction, or one that is zero or depends on the others.
    """
    stacked = directions if isinstance(directions, Tensor) else torch.stack(list(directions))
    if stacked.ndim != 2 or not len(stacked):
        raise ValueError(f"expected directions of shape (directions, features), got {tuple(stacked.shape)}")
    basis, triangle = torch.linalg.qr(stacked.mT.double())
    sizes = triangle.diagonal().abs()
    if bool((sizes <= 1e-8 * stacked.norm(dim=1).max()).any()):
        raise ValueError("expected directions that are independent of each other, got one that is not")
    rows: Tensor = basis.mT.to(stacked)
    return rows


def _unit(direction: Tensor) -> Direction:
    size = direction.norm()
    if not bool(size > 0):
        raise ValueError("the activations do not change with the concept, so it has no direction in this layer")
    unit: Tensor = direction / size
    return unit


def _check_both(activations: Tensor, present: Tensor) -> None:
    if len(activations) != len(present):
        raise ValueError(f"expected one answer an image, {len(activations)}, got {len(present)}")
    if bool(present.all()) or not bool(present.any()):
        raise ValueError("expected images with the concept and images without it")
