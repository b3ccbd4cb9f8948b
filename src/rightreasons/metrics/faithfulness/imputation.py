"""Hidden pixels filled in from those around them: one sparse linear system an image, all solved together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

BETWEEN_CHECKS = 8
"""Steps of the solver between two looks at which images are done."""

NUMBERS_CPU = 2**16
"""Numbers in the images that are solved together on a CPU; more leave its caches."""


def imputed(
    images: Float[Tensor, "batch channels height width"],
    hidden: Bool[Tensor, "batch 1 height width"],
    *,
    tolerance: float = 1e-5,
) -> Float[Tensor, "batch channels height width"]:
    """The images with every hidden pixel the weighted mean of its neighbors, hidden ones among them.

    A direct neighbor weighs twice a diagonal one; at the border of the image those that exist are averaged. The
    equations are symmetric and positive definite and are solved by conjugate gradients, each channel of an image until
    its residual is below ``tolerance`` times the first one or the right side: no image's values depend on the others.
    An image hidden altogether has nothing to be filled in from, and gets its own mean.

    Source: Rong et al. 2022, arXiv:2202.00449, the noisy linear imputation without its noise; weights 1/6 and 1/12.

    Args:
        images: The images; channels are filled in apart.
        hidden: Which pixels are hidden.
        tolerance: At which relative residual the solver ends.
    """
    rows = max(1, NUMBERS_CPU // images[0].numel()) if images.device.type == "cpu" else len(images)
    pairs = zip(torch.split(images, rows), torch.split(hidden, rows), strict=True)
    return torch.cat([_together(some, mask, tolerance) for some, mask in pairs])


def _together(images: Tensor, hidden: Tensor, tolerance: float) -> Tensor:
    exact = images.to(torch.promote_types(images.dtype, torch.float32))
    free = hidden.to(exact.dtype)
    shown = exact * (1 - free)
    count = (1 - free).sum(dim=(2, 3), keepdim=True)
    mean = torch.where(count > 0, shown.sum(dim=(2, 3), keepdim=True) / count, exact.mean(dim=(2, 3), keepdim=True))
    line = images.shape[3] + 2
    inside = _framed(torch.ones_like(free[:1]))
    system = _System(_framed(free * (count > 0)), _smoothed(inside, line), line)
    right = system.free * _smoothed(_framed(shown), line)
    solution = _solved(system, right, start=_framed(free * mean), tolerance=tolerance)
    maps = solution.view(*images.shape[:2], images.shape[2] + 2, line)
    return torch.where(hidden, maps[..., 1:-1, 1:-1].to(images.dtype), images)


def _framed(maps: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels places"]:
    """Each map in a frame of zeros, row after row, so that a neighbor is a fixed way off in memory."""
    return F.pad(maps, (1, 1, 1, 1)).flatten(2)


def _smoothed(maps: Float[Tensor, "batch channels places"], line: int) -> Float[Tensor, "batch channels places"]:
    """The rows of 1 2 1, 2 4 2, 1 2 1 around each place; nothing that means anything in the frame."""
    smoothed = torch.zeros_like(maps)
    smoothed.view(-1)[line + 1 : -(line + 1)] = _inner(maps, line)
    return smoothed


def _inner(maps: Float[Tensor, "batch channels places"], line: int) -> Float[Tensor, " most"]:
    """The same in one row, without the first ``line + 1`` places of the first map and the last of the last."""
    flat = maps.view(-1)
    for way in (1, 1, line, line):
        flat = flat[:-way] + flat[way:]
    return flat


@dataclass(frozen=True, eq=False)
class _System:
    """The matrix of each image on its hidden pixels: 12 times (weights of the neighbors) * pixel - (weighted sum).

    The pixel itself counts four times in both terms, so that the second is two sums along each side.
    """

    free: Float[Tensor, "batch 1 places"]
    weight: Float[Tensor, "1 1 places"]
    line: int

    def __getitem__(self, rows: Tensor) -> _System:
        return _System(self.free[rows], self.weight, self.line)

    def __call__(self, values: Float[Tensor, "batch channels places"]) -> Float[Tensor, "batch channels places"]:
        product = self.weight * values
        product.view(-1)[self.line + 1 : -(self.line + 1)] -= _inner(values, self.line)
        return product.mul_(self.free)


def _solved(system: _System, right: Tensor, *, start: Tensor, tolerance: float) -> Tensor:
    """Conjugate gradients, each channel its own; images that are done leave the batch."""
    solution, values = start.clone(), start
    rows = torch.arange(len(right), device=right.device)
    residual = right - system(start)
    direction, size = residual.clone(), _dot(residual, residual)
    limit = tolerance**2 * torch.maximum(size, _dot(right, right))
    for step in range(10 * right.shape[2]):
        if step % BETWEEN_CHECKS == 0:
            going = (size > limit).flatten(1).any(dim=1)
            solution[rows] = values
            if not going.any():
                break
            rows, system = rows[going], system[going]
            values, residual, direction, size, limit = (v[going] for v in (values, residual, direction, size, limit))
        size = _step(system, values, residual, direction, size)
    return solution


def _step(system: _System, values: Tensor, residual: Tensor, direction: Tensor, size: Tensor) -> Tensor:
    """One step of conjugate gradients, in place; what is left of the squared residuals."""
    moved = system(direction)
    # A channel whose residual is exactly zero stays where it is.
    length = size / _dot(direction, moved).masked_fill(size == 0, 1)
    values.addcmul_(direction, length)
    residual.addcmul_(moved, length, value=-1)
    left = _dot(residual, residual)
    direction.mul_(left / size.masked_fill(size == 0, 1)).add_(residual)
    return left


def _dot(one: Tensor, other: Tensor) -> Float[Tensor, "batch channels 1"]:
    product: Tensor = torch.linalg.vecdot(one, other)
    return product[:, :, None]
