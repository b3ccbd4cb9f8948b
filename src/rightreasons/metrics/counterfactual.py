"""How good a counterfactual is: whether it flips the model, how near it is, and how real it looks.

All of it is about tensors: the originals ``inputs``, the changed ``images``, the class asked for, ``target``, and the
class that the model gives the original, ``original``. One number an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rightreasons.attribution.forward import evaluated
from rightreasons.core import ANY_OTHER, Classifier
from rightreasons.core.hooks import evaluating, for_weights
from rightreasons.core.tensors import check_pair, total_variation

Autoencoder = Callable[[Tensor], Tensor]
"""Images to images of the same shape."""

VISIBLE = 5 / 255
"""A change of a pixel above it counts, in a range of one."""

EPSILON = 1e-7


def validity(
    model: Classifier,
    images: Float[Tensor, "batch channels height width"],
    target: Int[Tensor, " batch"],
    *,
    original: Int[Tensor, " batch"] | None = None,
) -> Bool[Tensor, " batch"]:
    """Whether the model gives the image the target; an image whose logits are not finite it gives nothing.

    With a second model, of another seed, architecture or training, it is *oracle* validity: a small change that only
    fools the first one is not valid there.

    Args:
        model: The judge.
        images: The changed images.
        target: The class asked for, or :data:`~rightreasons.core.ANY_OTHER`.
        original: The class that is to be left; needed where any other class was asked for.

    Raises:
        ValueError: Any other class was asked for without ``original``.
    """
    check_pair(images, target)
    each = _probabilities(model, images)
    found, told = each.argmax(dim=1), each.isfinite().all(dim=1)
    if original is None:
        if (target == ANY_OTHER).any():
            raise ValueError("expected original, because the target is any other class, got None")
        return (found == target) & told
    return torch.where(target == ANY_OTHER, found != original, found == target) & told


@dataclass(frozen=True, eq=False)
class Distances:
    """How far an image is from its original, by several measures; sums over all pixels, in units of the pixels' range.

    Attributes:
        l0: Pixels that change visibly, in any channel.
        l1: Sum of the absolute changes.
        l2: Euclidean length.
        linf: Largest change.
        tv: Total variation of the change.
        sparsity: Share of the pixels that do not change visibly.
    """

    l0: Float[Tensor, " batch"]
    l1: Float[Tensor, " batch"]
    l2: Float[Tensor, " batch"]
    linf: Float[Tensor, " batch"]
    tv: Float[Tensor, " batch"]
    sparsity: Float[Tensor, " batch"]


def distances(
    inputs: Float[Tensor, "batch channels height width"],
    images: Float[Tensor, "batch channels height width"],
    *,
    pixel_range: tuple[float, float] = (0.0, 1.0),
    visible: float = VISIBLE,
) -> Distances:
    """All distances of each pair.

    Args:
        inputs: The originals.
        images: The changed images.
        pixel_range: Smallest and largest value of a pixel; distances are in units of the difference.
        visible: A pixel counts as changed above it.
    """
    change = (images - inputs) / (pixel_range[1] - pixel_range[0])
    size = change.flatten(1).abs()
    changed = (change.abs().amax(dim=1) > visible).flatten(1).to(size.dtype)
    length: Tensor = torch.linalg.vector_norm(size, dim=1)
    return Distances(
        l0=changed.sum(dim=1),
        l1=size.sum(dim=1),
        l2=length,
        linf=size.amax(dim=1),
        tv=total_variation(change),
        sparsity=1 - changed.mean(dim=1),
    )


def im1(
    images: Float[Tensor, "batch channels height width"],
    target: Int[Tensor, " batch"],
    original: Int[Tensor, " batch"],
    autoencoders: Sequence[Autoencoder],
) -> Float[Tensor, " batch"]:
    """How much worse the target's autoencoder reproduces the image than that of the class it came from does.

    ``|x - AE_t(x)|^2 / (|x - AE_o(x)|^2 + eps)``: below 1 the image looks like the target. The value depends on how the
    autoencoders were trained, so :func:`im1_anchors` belongs beside it.

    Source: Van Looveren and Klaise 2019, arXiv:1907.02584; means in place of sums, as Schut et al. 2021 take
    them, which changes only the weight of eps = 1e-7.

    Args:
        images: The changed images.
        target: The class asked for.
        original: The class it came from.
        autoencoders: One for each class, trained on that class alone.
    """
    wanted, left = (_error(images, _reproduced(images, of, autoencoders)) for of in (target, original))
    return wanted / (left + EPSILON)


def im2(
    images: Float[Tensor, "batch channels height width"],
    target: Int[Tensor, " batch"],
    autoencoders: Sequence[Autoencoder],
    whole: Autoencoder,
) -> Float[Tensor, " batch"]:
    """How much the target's autoencoder and that of all classes disagree about the image, per unit of brightness.

    ``|AE_t(x) - AE(x)|^2 / (|x|_1 + eps)``; low where the image is like the data.

    Source: Van Looveren and Klaise 2019, arXiv:1907.02584; means in place of sums, as for :func:`im1`.
    """
    everything = _by(whole, images)
    wanted = _reproduced(images, target, autoencoders)
    return _error(wanted, everything) / (images.flatten(1).abs().mean(dim=1) + EPSILON)


@dataclass(frozen=True, eq=False)
class Anchors:
    """Between what IM1 lies: of the originals themselves, and of real images of the target's class."""

    original: Float[Tensor, " batch"]
    real: Float[Tensor, " batch"]


def im1_anchors(
    inputs: Float[Tensor, "batch channels height width"],
    target: Int[Tensor, " batch"],
    original: Int[Tensor, " batch"],
    autoencoders: Sequence[Autoencoder],
    *,
    real: Float[Tensor, "real channels height width"],
    labels: Int[Tensor, " real"],
) -> Anchors:
    """IM1 with the same two classes of each original, and of a real image of the target's class in its place.

    The real images of a class are taken in turn; NaN where there is none.

    Args:
        inputs: The originals.
        target: The class asked for.
        original: The class of each original.
        autoencoders: One for each class.
        real: Real images that no autoencoder was trained on.
        labels: Class of each.
    """
    stand_in, exists = torch.zeros_like(inputs), torch.zeros_like(target, dtype=torch.bool)
    for label in sorted(set(target.tolist())):
        rows, those = (target == label).nonzero()[:, 0], real[labels == label]
        if len(those):
            stand_in[rows] = those[torch.arange(len(rows), device=those.device) % len(those)].to(inputs)
            exists[rows] = True
    found = im1(stand_in, target, original, autoencoders)
    return Anchors(im1(inputs, target, original, autoencoders), found.masked_fill(~exists, torch.nan))


def cout(
    model: Classifier,
    inputs: Float[Tensor, "batch channels height width"],
    images: Float[Tensor, "batch channels height width"],
    target: Int[Tensor, " batch"],
    original: Int[Tensor, " batch"],
    *,
    steps: int = 50,
) -> Float[Tensor, " batch"]:
    """Counterfactual transition: whether the most changed pixels are the ones that flip the model; from -1 to 1.

    Pixels are handed from the changed image into the original, the most changed first; the score is the area under the
    curve of the target's probability minus that under the original class's.

    Source: Khorram and Fuxin 2022 (C3LT), arXiv:2203.15064.

    Raises:
        ValueError: ``steps`` is below 1.
    """
    if steps < 1:
        raise ValueError(f"expected at least one step, got {steps}")
    amounts = (images - inputs).abs().sum(dim=1).flatten(1)
    ranks = amounts.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    pixels, height, width = ranks.shape[1], *inputs.shape[2:]
    curve = []
    for step in range(steps + 1):
        handed = (ranks < round(pixels * step / steps)).view(-1, 1, height, width)
        curve.append(_probabilities(model, torch.where(handed, images, inputs)))
    each = torch.stack(curve)
    gain = _of(each, target) - _of(each, original)
    return torch.trapezoid(gain, dx=1 / steps, dim=0)


@dataclass(frozen=True, eq=False)
class Boundary:
    """Where and how steeply the line from the original to its changed image crosses the boundary.

    Attributes:
        sharpness: Largest slope of the target's probability along the line, which has length 1.
        crossing: Where the target overtakes the original class, from 0 (the original) to 1; NaN where it does not.
        overshoot: How far past this point the changed image lies, ``1 - crossing``.
    """

    sharpness: Float[Tensor, " batch"]
    crossing: Float[Tensor, " batch"]
    overshoot: Float[Tensor, " batch"]


def boundary(
    model: Classifier,
    inputs: Float[Tensor, "batch channels height width"],
    images: Float[Tensor, "batch channels height width"],
    target: Int[Tensor, " batch"],
    original: Int[Tensor, " batch"],
    *,
    steps: int = 50,
    halvings: int = 12,
) -> Boundary:
    """The boundary on the line between the two.

    The slope is that of chords between ``steps`` points; the last crossing among them is refined by bisection. The
    definition is ours.

    Raises:
        ValueError: ``steps`` is below 1.
    """
    if steps < 1:
        raise ValueError(f"expected at least one step, got {steps}")

    def along(place: Float[Tensor, " batch"]) -> Float[Tensor, "batch classes"]:
        return _probabilities(model, torch.lerp(inputs, images, place.to(inputs.dtype).view(-1, 1, 1, 1)))

    places = torch.linspace(0, 1, steps + 1, dtype=torch.float64, device=inputs.device)
    each = torch.stack([along(place.expand(len(inputs))) for place in places])
    rise, ahead = _of(each, target), _of(each, target) > _of(each, original)
    # The last point at which the target is not ahead yet.
    before = (steps - (~ahead).flip(0).int().argmax(dim=0)).clamp(max=steps - 1)
    low, high = places[before], places[before + 1]
    for _ in range(halvings):
        middle = (low + high) / 2
        found = along(middle)
        past = _of(found, target) > _of(found, original)
        low, high = torch.where(past, low, middle), torch.where(past, middle, high)
    crosses = ahead[-1] & ~ahead[0]
    crossing = high.to(rise.dtype).masked_fill(~crosses, torch.nan)
    return Boundary(rise.diff(dim=0).abs().amax(dim=0) * steps, crossing, 1 - crossing)


def neighbor_ratio(
    images: Float[Tensor, "batch channels height width"],
    target: Int[Tensor, " batch"],
    references: Float[Tensor, "references channels height width"],
    labels: Int[Tensor, " references"],
    *,
    real: Float[Tensor, "real channels height width"],
    real_labels: Int[Tensor, " real"],
    k: int = 1,
) -> Float[Tensor, " batch"]:
    """Distance to the target's training images, over what is usual for real images of that class.

    The mean Euclidean distance to the ``k`` nearest references of the class, divided by the mean of the same over the
    ``real`` images of the class: about 1 for an image as real as those. NaN where either has no image of the class, and
    for an image that is one of these references, equal in every pixel: its distance of 0 says nothing.

    Args:
        images: The changed images.
        target: The class asked for.
        references: Training images.
        labels: Class of each.
        real: Real images that are not among the references.
        real_labels: Class of each.
        k: Neighbors.

    Raises:
        ValueError: ``k`` is below 1.
    """
    if k < 1:
        raise ValueError(f"expected at least one neighbor, got {k}")
    ratios = torch.full((len(images),), torch.nan, dtype=images.dtype, device=images.device)
    for label in sorted(set(target.tolist())):
        bank, usual, rows = references[labels == label], real[real_labels == label], target == label
        if len(bank) and len(usual):
            ratio = _nearest(images[rows], bank, k) / _nearest(usual, bank, k).mean()
            ratios[rows] = ratio.masked_fill(_among(images[rows], bank), torch.nan)
    return ratios


def _among(images: Tensor, bank: Tensor) -> Bool[Tensor, " batch"]:
    """Which images are one of the bank; distances by matrix products are not exact enough to tell."""
    known = bank.to(images)
    return torch.stack([(known == image).flatten(1).all(dim=1).any() for image in images])


def _nearest(images: Tensor, bank: Tensor, k: int) -> Float[Tensor, " batch"]:
    flat, known = images.flatten(1), bank.flatten(1).to(images)
    near = torch.cdist(flat, known).topk(min(k, len(bank)), dim=1, largest=False).indices
    # Once more one by one: products of matrices are not exact enough where an image is very near.
    each = [torch.linalg.vector_norm(known[of] - image, dim=1).mean() for image, of in zip(flat, near, strict=True)]
    return torch.stack(each)


def _reproduced(images: Tensor, of: Int[Tensor, " batch"], autoencoders: Sequence[Autoencoder]) -> Tensor:
    """Each image by the autoencoder of its class."""
    made = torch.empty_like(images)
    for label in sorted(set(of.tolist())):
        if not 0 <= label < len(autoencoders):
            raise ValueError(f"expected an autoencoder for each class, got {len(autoencoders)} and class {label}")
        rows = of == label
        made[rows] = _by(autoencoders[label], images[rows])
    return made


def _by(autoencoder: Autoencoder, images: Tensor) -> Tensor:
    """What it makes of them, in evaluation mode and at its weights' precision."""
    with torch.no_grad(), evaluating(autoencoder):
        return autoencoder(for_weights(images, autoencoder)).to(images)


def _error(one: Tensor, other: Tensor) -> Float[Tensor, " batch"]:
    return (one - other).square().flatten(1).mean(dim=1)


def _of(each: Float[Tensor, "... batch classes"], chosen: Int[Tensor, " batch"]) -> Float[Tensor, "... batch"]:
    """What belongs to the chosen class of each image."""
    return each[..., torch.arange(len(chosen), device=each.device), chosen]


def _probabilities(model: Classifier, images: Tensor) -> Float[Tensor, "batch classes"]:
    return evaluated(model, images).softmax(dim=1)
