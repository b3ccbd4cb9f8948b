"""The small networks of the published protocols."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from rightreasons.core import BadModel


class MLP(nn.Sequential):
    """A fully connected ReLU network.

    With ``hidden=(50, 30)`` and ``initial_sd=0.1`` it is the network of Ross et al. 2017, section 4 (784-50-30-10).

    Args:
        shape: Channels, height and width of an image.
        classes: Number of classes.
        hidden: Widths of the hidden layers.
        initial_sd: Standard deviation of normal initial weights and biases; ``None`` keeps torch's own.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (1, 28, 28),
        classes: int = 10,
        *,
        hidden: Sequence[int] = (50, 30),
        initial_sd: float | None = None,
    ) -> None:
        widths = [math.prod(shape), *hidden, classes]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(*layers[:-1])
        if initial_sd is not None:
            for parameter in self.parameters():
                nn.init.normal_(parameter, std=initial_sd)


class LeNet(nn.Module):
    """Two convolutions with max-pooling, two dense layers.

    The defaults are the network of the CDEP protocol (Rieger et al. 2020): 20 and 50 filters of 5x5, dense 800-256-10.

    Args:
        shape: Channels, height and width of an image.
        classes: Number of classes.
        filters: Filters of the two convolutions.
        kernel: Their size in pixels; for images under 16 pixels take 3 with ``padding=1``.
        padding: Zeros around the image at each convolution.
        hidden: Width of the dense layer.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (1, 28, 28),
        classes: int = 10,
        *,
        filters: tuple[int, int] = (20, 50),
        kernel: int = 5,
        padding: int = 0,
        hidden: int = 256,
    ) -> None:
        super().__init__()
        channels, height, width = shape
        rows, columns = (_after_two(side, kernel, padding) for side in (height, width))
        self.conv1 = nn.Conv2d(channels, filters[0], kernel, padding=padding)
        self.conv2 = nn.Conv2d(filters[0], filters[1], kernel, padding=padding)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()
        self.fc1 = nn.Linear(filters[1] * rows * columns, hidden)
        self.fc2 = nn.Linear(hidden, classes)

    def forward(self, inputs: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """The logits."""
        # Pooling before ReLU gives the same numbers as after it, on a quarter of the elements.
        maps = self.relu(self.pool(self.conv1(inputs)))
        maps = self.relu(self.pool(self.conv2(maps)))
        return self.fc2(self.relu(self.fc1(maps.flatten(1))))  # type: ignore[no-any-return]


def _after_two(size: int, kernel: int, padding: int) -> int:
    """Side of the map after two convolutions, each with a 2x2 pooling behind it."""
    side = size
    for _ in range(2):
        side = (side + 2 * padding - kernel + 1) // 2
    if side < 1:
        raise BadModel(f"images of {size} pixels are too small for two convolutions of {kernel}, padding {padding}")
    return side


class BaselineCNN(nn.Sequential):
    """The 225,610-parameter baseline of the attention-and-counterfactuals paper, its section 6.2.4.

    Conv 32 (3x3), pool, conv 64 (3x3), pool, dense 128, dropout 0.5, dense 10; He-normal convolutions, zero biases.
    The count holds for 28x28 images of three channels. It returns logits; the paper's softmax belongs to the loss.

    Args:
        shape: Channels, height and width of an image.
        classes: Number of classes.
        dropout: Share of the dense layer that is dropped in training.
    """

    def __init__(self, shape: tuple[int, int, int] = (3, 28, 28), classes: int = 10, *, dropout: float = 0.5) -> None:
        channels, height, width = shape
        rows, columns = (_after_two(side, 3, 0) for side in (height, width))
        super().__init__(
            nn.Conv2d(channels, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * rows * columns, 128),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(128, classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


class SmallResNet(nn.Sequential):
    """A residual network in miniature: a stem, one basic block a width, global average pooling, one dense layer.

    Each layer with a stride halves the image: the stem, and every block but the first. With widths 16, 32 and 64 it has
    some 77,000 weights, where ResNet-18 has 11 million; it is for protocols that ask for a ResNet, on a processor.

    Source: the basic block of He et al. 2016, arXiv:1512.03385; widths and depth are ours.

    Args:
        shape: Channels, height and width of an image.
        classes: Number of classes.
        widths: Channels of the blocks.
    """

    def __init__(
        self, shape: tuple[int, int, int] = (1, 64, 64), classes: int = 2, *, widths: Sequence[int] = (16, 32, 64)
    ) -> None:
        stem = [nn.Conv2d(shape[0], widths[0], 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(widths[0])]
        blocks = [
            BasicBlock(before, after, stride=1 if number == 0 else 2)
            for number, (before, after) in enumerate(pairwise([widths[0], *widths]))
        ]
        super().__init__(
            *stem, nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes)
        )


class SmallVGG(nn.Sequential):
    """A VGG in miniature: 3x3 convolutions with BatchNorm in blocks, each block's maps pooled, one dense layer.

    The first block is a single convolution of 5x5 whose maps are pooled before they are normalized: the many elements
    of the full size cost the most and need the least. With the defaults it has some 464,000 weights.

    Source: Simonyan and Zisserman 2015, arXiv:1409.1556, with BatchNorm; widths, depth and the first block are ours.

    Args:
        shape: Channels, height and width of an image.
        classes: Number of classes.
        widths: Channels of the blocks, at least two.
        depth: Convolutions of each block but the first.
        dropout: Share of the pooled features that is dropped in training.

    Raises:
        ValueError: Fewer than two widths, or a depth below 1.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (1, 28, 28),
        classes: int = 10,
        *,
        widths: Sequence[int] = (32, 64, 128),
        depth: int = 3,
        dropout: float = 0.2,
    ) -> None:
        if len(widths) < 2 or depth < 1:
            raise ValueError(f"expected two widths or more and a depth of at least 1, got {tuple(widths)} and {depth}")
        layers: list[nn.Module] = [
            nn.Conv2d(shape[0], widths[0], 5, padding=2, bias=False),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for before, after in pairwise(widths):
            for first in [before] + [after] * (depth - 1):
                layers += [nn.Conv2d(first, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.MaxPool2d(2, ceil_mode=True)]
        layers[-1] = nn.AdaptiveMaxPool2d(1)
        super().__init__(*layers, nn.Flatten(), nn.Dropout(dropout), nn.Linear(widths[-1], classes))


class BasicBlock(nn.Module):
    """Two convolutions of 3x3 with BatchNorm beside a shortcut; the shortcut is a convolution where shapes change."""

    def __init__(self, before: int, after: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU()
        same = before == after and stride == 1
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after))
        )

    def forward(self, inputs: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch _ _ _"]:
        """The maps of the block."""
        maps = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(inputs)))))
        return self.relu(maps + self.shortcut(inputs))  # type: ignore[no-any-return]
