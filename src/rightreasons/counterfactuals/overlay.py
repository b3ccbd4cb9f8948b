"""What of a change is worth drawing, its edges, and the way from the original across the boundary."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rightreasons.attribution.forward import evaluated
from rightreasons.core import Classifier
from rightreasons.core.settings import check_counts
from rightreasons.core.tensors import check_pair
from rightreasons.counterfactuals.growing_spheres import thinned
from rightreasons.counterfactuals.search import Limits, Search

VISIBLE = 5 / 255
"""A change of a pixel above it is seen, in a range of one."""

LEAST = 3
"""Passes that are always made: of the original, of the changed image, and of what is shown."""


@dataclass(frozen=True, eq=False)
class Overlay:
    """The part of a change that matters and is seen; the rest is left out, and counted.

    Attributes:
        images: The originals with nothing but that part changed.
        change: That part, in units of the pixels' range; positive where something was added.
        needless: Pixels whose change was left out because the class stays without it.
        faint: Pixels whose change was left out because nobody would see it.
        valid: Whether the part alone flips the model.
        queries: Images that ran forward for each original.
    """

    images: Float[Tensor, "batch channels height width"]
    change: Float[Tensor, "batch channels height width"]
    needless: Int[Tensor, " batch"]
    faint: Int[Tensor, " batch"]
    valid: Bool[Tensor, " batch"]
    queries: Int[Tensor, " batch"]

    @property
    def drawn(self) -> Bool[Tensor, "batch 1 height width"]:
        """The pixels that are drawn."""
        return changed_pixels(self.change)

    @property
    def signed(self) -> Float[Tensor, "batch 1 height width"]:
        """One signed value a pixel: the change of the channel that changes most."""
        return self.change.gather(1, self.change.abs().argmax(dim=1, keepdim=True))


def overlay(
    model: Classifier,
    inputs: Float[Tensor, "batch channels height width"],
    images: Float[Tensor, "batch channels height width"],
    target: Int[Tensor, " batch"],
    *,
    pixel_range: tuple[float, float] = (0.0, 1.0),
    limits: Limits = Limits(max_queries=1000),
    visible: float = VISIBLE,
) -> Overlay:
    """Leave out of each change what does not matter, then what is not seen.

    Of an image that flips the model the smallest changes are undone, blocks at a time, while it stays flipped; of one
    that does not, there is nothing to keep, and all that is seen stays.

    Args:
        model: The classifier.
        inputs: The originals.
        images: The changed images.
        target: The class asked for, or :data:`~rightreasons.core.ANY_OTHER`.
        pixel_range: Smallest and largest value of a pixel.
        limits: What it may cost, and by how much the target has to lead.
        visible: A change above it is seen, in a range of one.

    Raises:
        ValueError: The tensors do not go together, or the budget has no room for the three passes that are always made.
    """
    check_pair(inputs, target)
    if images.shape != inputs.shape:
        raise ValueError(f"expected changed images of shape {tuple(inputs.shape)}, got {tuple(images.shape)}")
    if limits.max_queries is not None:
        if limits.max_queries < LEAST:
            raise ValueError(f"expected max_queries of at least {LEAST}, got {limits.max_queries}")
        # The last pass, of what is shown, is set aside.
        limits = replace(limits, max_queries=limits.max_queries - 1)
    width = pixel_range[1] - pixel_range[0]
    with torch.inference_mode(False):
        # Copies: tensors of inference mode cannot be used outside it.
        inputs, images, target = (t.detach().clone() for t in (inputs, images.to(inputs), target.to(inputs.device)))
        search = Search(model, inputs, target, _length, limits)
    needed = _needed(search, images)
    change = (needed - inputs) / width
    seen = change.abs().amax(dim=1, keepdim=True) > visible
    shown = torch.where(seen, needed, inputs)
    with search.running():
        valid = search.flipped(search.logits(shown, search.all), search.all)
    kept, all_changed = changed_pixels(change), changed_pixels(images - inputs)
    return Overlay(
        images=shown,
        change=torch.where(seen, change, 0),
        needless=_count(all_changed) - _count(kept),
        faint=_count(kept & ~seen),
        valid=valid,
        queries=search.result().queries,
    )


def _needed(search: Search, images: Float[Tensor, "batch channels height width"]) -> Tensor:
    """The images without the changes that their class does not need."""
    with search.running():
        candidates = images.clone()
        valid = search.flipped(search.logits(candidates, search.all), search.all)
        for _ in thinned(search, candidates, search.all[valid]):
            pass
    return candidates


def way(
    inputs: Float[Tensor, "batch channels height width"],
    images: Float[Tensor, "batch channels height width"],
    *,
    frames: int = 21,
) -> Float[Tensor, "frames batch channels height width"]:
    """The straight way from the originals to the changed images, both ends included.

    Raises:
        ValueError: Fewer than two frames.
    """
    check_counts(frames=frames)
    if frames < 2:
        raise ValueError(f"expected at least two frames, got {frames}")
    shares = torch.linspace(0, 1, frames, dtype=inputs.dtype, device=inputs.device)
    return torch.lerp(inputs[None], images[None], shares.view(-1, 1, 1, 1, 1))


def way_probabilities(
    model: Classifier, frames: Float[Tensor, "frames batch channels height width"]
) -> Float[Tensor, "frames batch classes"]:
    """The probabilities of all classes in each frame; in evaluation mode."""
    image = torch.arange(frames.shape[1], device=frames.device).repeat(len(frames))
    return evaluated(model, frames.flatten(0, 1), image).softmax(dim=1).view(*frames.shape[:2], -1)


def edges(images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 1 height width"]:
    """Where each image is steepest, a pixel wide, as a share of its steepest point; zero elsewhere.

    Sobel's operator over the channels' mean. A pixel counts where it is steeper than the one before it and not less
    steep than the one behind it, across or down, whichever way the image changes more.
    """
    gray = F.pad(images.mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = gray.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    slopes = F.conv2d(gray, torch.stack((across, across.T))[:, None])
    steep: Tensor = torch.linalg.vector_norm(slopes, dim=1, keepdim=True)
    beside = F.pad(steep, (1, 1, 1, 1))
    left, right = beside[..., 1:-1, :-2], beside[..., 1:-1, 2:]
    above, below = beside[..., :-2, 1:-1], beside[..., 2:, 1:-1]
    sideways = slopes[:, :1].abs() >= slopes[:, 1:].abs()
    crest = torch.where(sideways, (steep > left) & (steep >= right), (steep > above) & (steep >= below))
    peak = steep.amax(dim=(1, 2, 3), keepdim=True)
    return torch.where(crest, steep, 0) / torch.where(peak > 0, peak, 1)


def changed_pixels(change: Float[Tensor, "batch channels height width"]) -> Bool[Tensor, "batch 1 height width"]:
    """Where any channel changes."""
    return (change != 0).any(dim=1, keepdim=True)


def _count(pixels: Bool[Tensor, "batch 1 height width"]) -> Int[Tensor, " batch"]:
    return pixels.flatten(1).sum(dim=1)


def _length(inputs: Tensor, images: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm((images - inputs).flatten(1), dim=1)
    return length
