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


class StridedCNN(nn.Sequential):
    """Convolutions that halve the image themselves, dropout behind every block, one hidden dense layer.

    A block is two convolutions of 3x3 without padding and one of 5x5 with a stride of 2, each with BatchNorm and ReLU.
    With the defaults it has some 442,000 weights. Dropout this strong wants many epochs.

    Source: strides in the place of pooling as in Springenberg et al. 2015, arXiv:1412.6806; the rest is ours.

    Args:
        shape: Channels, height and width of an image.
        classes: Number of classes.
        widths: Channels of each block.
        hidden: Width of the dense layer.
        dropout: Share of the values that is dropped in training, behind each block and the dense layer.

    Raises:
        ValueError: No widths.
        BadModel: The images are too small for so many blocks.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (1, 28, 28),
        classes: int = 10,
        *,
        widths: Sequence[int] = (32, 80),
        hidden: int = 128,
        dropout: float = 0.4,
    ) -> None:
        if not widths:
            raise ValueError("expected one width or more, got none")
        layers: list[nn.Module] = []
        channels, height, width = shape
        for after in widths:
            height, width = (height - 3) // 2, (width - 3) // 2
            layers += [*_normalized(channels, after, 3), *_normalized(after, after, 3)]
            layers += [*_normalized(after, after, 5, stride=2, padding=2), nn.Dropout(dropout)]
            channels = after
        if min(height, width) < 1:
            raise BadModel(f"images of {shape[1]}x{shape[2]} pixels are too small for {len(widths)} blocks")
        dense = [nn.Linear(channels * height * width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()]
        super().__init__(*layers, nn.Flatten(), *dense, nn.Dropout(dropout), nn.Linear(hidden, classes))


def _normalized(before: int, after: int, kernel: int, *, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    """A convolution, BatchNorm and ReLU."""
    convolution = nn.Conv2d(before, after, kernel, stride=stride, padding=padding, bias=False)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU()]


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
