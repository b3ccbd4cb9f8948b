"""A convolutional network that ends in the mean of each map."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from rightreasons.core import BadModel


class PooledCNN(nn.Sequential):
    """Convolutions with ReLU and 2x2 max-pooling between them, the mean over the places of each map, a linear layer.

    Grad-CAM on its last convolution says where the score comes from; with one layer it is a head for the maps of a
    frozen network.

    Args:
        shape: Channels, height and width of an image.
        classes: Number of classes.
        widths: Maps of each convolution.
        kernel: Their size, odd; the size of the maps is kept.
        pools: How many of the convolutions, from the first, are followed by a pooling; the last never is.
        dropout: Share of the pooled features that is dropped in training.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (1, 56, 56),
        classes: int = 2,
        *,
        widths: Sequence[int] = (16, 32, 64),
        kernel: int = 3,
        pools: int = 2,
        dropout: float = 0.0,
    ) -> None:
        if not widths or kernel % 2 == 0:
            raise BadModel(f"expected at least one convolution of an odd size, got widths {widths}, kernel {kernel}")
        if not 0 <= pools < len(widths) or min(shape[1:]) >> pools < 1:
            raise BadModel(f"expected fewer poolings than convolutions, and maps left to pool, got {pools}")
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(zip((shape[0], *widths), widths, strict=False)):
            layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] * (number < pools)
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(widths[-1], classes)]
        super().__init__(*layers, *head)
