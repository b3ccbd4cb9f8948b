"""Moving activations along concept directions: P-ClArC and A-ClArC."""

from __future__ import annotations

import copy

from jaxtyping import Float
from torch import Tensor, nn

from rightreasons.concepts.directions import orthonormal
from rightreasons.core import BadModel
from rightreasons.core.hooks import find_layer


class Projection(nn.Module):
    """Gives activations a fixed place along some directions and leaves all else: a - V^T V (a - z).

    With ``reference`` z the mean activation of clean images it takes an artifact out (P-ClArC, after training); with
    that of images with the artifact it puts it into all images (A-ClArC), so that layers behind it, trained on, learn
    that it says nothing.

    Source: Anders et al. 2022, arXiv:1912.11425; several directions are a subspace here.

    Args:
        directions: One a row, (directions, features); need not be orthogonal.
        reference: Where activations are moved to, (features,).
    """

    basis: Tensor
    reference: Tensor

    def __init__(self, directions: Float[Tensor, "directions features"], reference: Float[Tensor, " features"]) -> None:
        super().__init__()
        if reference.shape != directions.shape[1:]:
            raise ValueError(
                f"expected a reference of shape {tuple(directions.shape[1:])}, got {tuple(reference.shape)}"
            )
        self.register_buffer("basis", orthonormal(directions.detach()))
        self.register_buffer("reference", reference.detach().clone())

    def forward(self, activation: Tensor) -> Tensor:
        """The moved activations: maps (B, K, h, w), tokens (B, T, D) or features (B, D)."""
        features = 1 if activation.ndim == 4 else -1
        last = activation.movedim(features, -1)
        along = (last - self.reference.to(last)) @ self.basis.to(last).mT
        return (last - along @ self.basis.to(last)).movedim(-1, features)


def inserted(network: nn.Module, layer: str, module: nn.Module) -> nn.Module:
    """A copy of the network in which the module runs on what a layer hands on; weights are copied along.

    Raises:
        BadModel: There is no such layer.
    """
    twin = copy.deepcopy(network)
    find_layer(twin, layer)
    parent, _, name = layer.rpartition(".")
    holder = twin.get_submodule(parent) if parent else twin
    inner = getattr(holder, name, None)
    if not isinstance(inner, nn.Module):
        raise BadModel(f"layer {layer!r} cannot be exchanged")
    setattr(holder, name, nn.Sequential(inner, module))
    return twin.train(network.training)
