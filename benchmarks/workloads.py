"""The networks that the heat maps are timed on, with their images: the same for every script."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

Run = Callable[[], object]


@dataclass(frozen=True, eq=False)
class Workload:
    """A network with the images it is explained on.

    Attributes:
        name: Of the network, and how many images.
        network: In evaluation mode; takes no part of the library.
        inputs: The images.
        layer: The end of its last convolutional stage.
    """

    name: str
    network: nn.Sequential
    inputs: Tensor
    layer: str

    @property
    def target(self) -> Tensor:
        """The classes that are explained: 0 to 9, one after another."""
        return torch.arange(len(self.inputs)) % 10

    def forward(self) -> None:
        """F: a forward pass of the network alone."""
        with torch.inference_mode():
            self.network(self.inputs)

    def both(self) -> None:
        """FB: a forward pass and the way back to the images."""
        leaf = self.inputs.clone().requires_grad_()
        torch.autograd.grad(self.network(leaf).gather(1, self.target[:, None]).sum(), leaf)


def workload(network: str, batch: int, *, noise: bool = False) -> Workload:
    """One of ``LeNet`` (28x28 digits), ``ResNet-18`` and ``ResNet-50`` (noise of 3x224x224).

    Args:
        network: Its name.
        batch: Images.
        noise: Noise for LeNet too: a digit's black parts spare a method that hides them some passes.
    """
    build, layer = NETWORKS[network]
    if network == "LeNet" and not noise:
        inputs = digits()[0][:batch]
    else:
        shape = (1, 28, 28) if network == "LeNet" else (3, 224, 224)
        inputs = torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0))
    return Workload(f"{network}, {batch}", build(), inputs, layer)


@cache
def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's 1797 digits at 28x28."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    return F.interpolate(images, size=(28, 28), mode="bilinear"), torch.tensor(data.target)


@cache
def lenet() -> nn.Sequential:
    """Two convolutions of 32 and 64 filters and two dense layers; ``"4"`` is the second ReLU.

    Trained for a moment, so that it has dead filters as real networks do.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10)),
        )
        images, target = digits()
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        for _ in range(5):
            for rows in torch.split(torch.randperm(len(images)), 64):
                optimizer.zero_grad()
                torch.autograd.backward(F.cross_entropy(network(images[rows]), target[rows]))
                optimizer.step()
        optimizer.zero_grad()
    return network.eval()


class Residual(nn.Module):
    """A block of torchvision's ResNet: basic (two 3x3) or bottleneck (1x1, 3x3, 1x1 to four times the width)."""

    def __init__(self, channels: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        out = 4 * width if bottleneck else width
        shapes = [(channels, width, 1), (width, width, 3), (width, out, 1)] if bottleneck else None
        shapes = shapes or [(channels, width, 3), (width, out, 3)]
        strides = [1, stride, 1] if bottleneck else [stride, 1]
        layers: list[nn.Module] = []
        for (a, b, size), step in zip(shapes, strides, strict=True):
            layers += [nn.Conv2d(a, b, size, step, size // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers[:-1])
        self.beside: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.beside = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        activated: Tensor = self.relu(self.body(x) + self.beside(x))
        return activated


@cache
def resnet(depths: tuple[int, ...], *, bottleneck: bool) -> nn.Sequential:
    """torchvision's layout: ``"4"`` to ``"7"`` are its layer1 to layer4.

    Weights are random and BatchNorm has seen some noise.
    """
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    channels = 64
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for stage, depth in enumerate(depths):
            width, blocks = 64 * 2**stage, []
            for block in range(depth):
                blocks.append(Residual(channels, width, 2 if stage and not block else 1, bottleneck=bottleneck))
                channels = 4 * width if bottleneck else width
            layers.append(nn.Sequential(*blocks))
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))
        with torch.no_grad():
            network.train()(torch.randn(8, 3, 96, 96))
    return network.eval()


NETWORKS: dict[str, tuple[Callable[[], nn.Sequential], str]] = {
    "LeNet": (lenet, "4"),
    "ResNet-18": (lambda: resnet((2, 2, 2, 2), bottleneck=False), "7"),
    "ResNet-50": (lambda: resnet((3, 4, 6, 3), bottleneck=True), "7"),
}
