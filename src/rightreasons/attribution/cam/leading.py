"""The first principal direction of points, batched, fast where one direction leads, and right on the graph."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

SQUARINGS = 14


def leading_direction(points: Float[Tensor, "batch places maps"], *, graph: bool) -> Float[Tensor, "batch maps"]:
    """The unit vector along which the points' squares sum to most; its sign is left open."""
    places, maps = points.shape[1:]
    across = points if maps <= places else points.mT
    gram = across.mT @ across
    vector = _moving_with(gram) if graph else _dominant(gram)
    direction = vector if maps <= places else (points.mT @ vector[..., None])[..., 0]
    length = direction.norm(dim=1, keepdim=True)
    return direction / torch.where(length > 0, length, 1.0)


def _dominant(gram: Float[Tensor, "batch size size"]) -> Float[Tensor, "batch size"]:
    """The eigenvector of the largest eigenvalue, by squaring the matrix until no other is left in it.

    Where two eigenvalues are so close that this takes too long, by a full decomposition.
    """
    power = _of_trace_one(gram)
    left = torch.ones(len(gram), dtype=torch.bool, device=gram.device)
    for _ in range(SQUARINGS):
        # The sum of the squared eigenvalues of a matrix of trace 1: at 1 there is only one, at 0 the matrix is zero.
        purity = power.square().sum(dim=(1, 2))
        left = (purity > 0) & (purity < 0.99)
        if not left.any():
            break
        power = _of_trace_one(power @ power)
    column = power.diagonal(dim1=1, dim2=2).argmax(dim=1)
    vector = power[torch.arange(len(gram), device=gram.device), :, column, None]
    for _ in range(7):  # Each divides what is left of the others by a hundred or more.
        vector = power @ vector
    vector = vector[..., 0]
    if left.any():
        vector[left] = torch.linalg.eigh(gram[left]).eigenvectors[..., -1]
    return vector


def _of_trace_one(matrices: Float[Tensor, "batch size size"]) -> Float[Tensor, "batch size size"]:
    trace = matrices.diagonal(dim1=1, dim2=2).sum(dim=1)
    return matrices / torch.where(trace > 0, trace, 1.0)[:, None, None]


def _moving_with(gram: Float[Tensor, "batch size size"]) -> Float[Tensor, "batch size"]:
    """The same eigenvector with the gradient of its first-order change, dv = sum_i v_i (v_i' dG v) / (l - l_i).

    torch's own gradient of the decomposition divides by the differences of all pairs of eigenvalues, and those of maps
    that are linearly dependent are all zero.
    """
    values, vectors = torch.linalg.eigh(gram.detach())
    leading, others = vectors[..., -1:], vectors[..., :-1]
    gaps = values[:, -1:] - values[:, :-1]
    sound = gaps > torch.finfo(gaps.dtype).eps * values[:, -1:]
    inverse = torch.where(sound, 1 / torch.where(sound, gaps, 1.0), 0.0)
    change = others @ (inverse[..., None] * (others.mT @ (gram @ leading)))
    moving: Tensor = leading + change - change.detach()
    return moving[..., 0]
