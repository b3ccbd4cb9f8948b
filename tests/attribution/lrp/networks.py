"""Networks written in the ways that users write them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

CLASSES = 3


def drawn(network: nn.Module, seed: int = 0) -> nn.Module:
    """In double precision and evaluation mode, with BatchNorm statistics that are not the initial ones."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for values, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.3, 0.3),
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 1.5),
            ):
                values.copy_(torch.rand(values.shape, generator=generator) * (high - low) + low)
    return network.double().eval()


class LeNet(nn.Sequential):
    """Modules only."""

    def __init__(self, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__(
            nn.Conv2d(2, 4, 3, padding=1),
            activation(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3),
            activation(),
            nn.Flatten(),
            nn.Linear(96, 8),
            activation(),
            nn.Linear(8, CLASSES),
        )


class Functional(nn.Module):
    """The layers of a LeNet, called by functions, with one ReLU in place and one used as a method."""

    def __init__(self, modules: LeNet) -> None:
        super().__init__()
        self.layers = modules

    def forward(self, x):
        weights = [self.layers[i] for i in (0, 3, 6, 8)]
        x = F.relu_(F.conv2d(x, weights[0].weight, weights[0].bias, padding=1))
        x = F.conv2d(F.max_pool2d(x, 2), weights[1].weight, weights[1].bias)
        x.clamp_(min=0)
        x = F.linear(x.view(len(x), -1), weights[2].weight, weights[2].bias).relu()
        return weights[3](x)


class BatchNorm(nn.Module):
    """BatchNorm behind convolutions and a dense layer, and no bias ahead of one."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3),
            nn.BatchNorm2d(6, eps=1e-2),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(96, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))

    def forward(self, x):
        return self.head(self.features(x))


class BasicBlock(nn.Module):
    """A block as torchvision's ResNet has it: one in-place ReLU used twice, the sum in place."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """A small ResNet of torchvision's form."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = BasicBlock(4, 4, 1)
        self.layer2 = BasicBlock(4, 6, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Spatial(nn.Module):
    """Grouped, dilated, strided and transposed convolutions with smooth activations."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(2, 4, 3, groups=2, padding="same")
        self.dilated = nn.Conv2d(4, 6, 3, dilation=2, stride=2)
        self.up = nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.norm = nn.BatchNorm2d(4)
        self.line = nn.Conv1d(8, 5, 3)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x):
        x = F.gelu(self.grouped(x))
        x = F.silu(self.norm(self.up(F.relu(self.dilated(x)))))
        one, other = F.avg_pool2d(x, 2).chunk(2, dim=1)
        x = torch.cat([one, other * 2, one - other], dim=1)
        x = torch.cat([x, x[:, :2]], dim=1).flatten(2)
        return self.head(F.relu(self.line(x)).mean(-1))


class Products(nn.Module):
    """Squeeze-and-excitation, a product of two branches, attention written out, and three normalizations."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, stride=2)
        self.gate = nn.Linear(4, 4)
        self.group, self.layer, self.rms = nn.GroupNorm(2, 4), nn.LayerNorm(4), nn.RMSNorm(4)
        self.keys = nn.Linear(4, 4)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x):
        x = self.group(F.relu(self.first(x)))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        x = self.layer((x * F.silu(x.flip(1))).flatten(2).transpose(1, 2))
        weights = (x @ self.keys(x).transpose(1, 2) / 2).softmax(-1)
        return self.head(self.rms(x + weights @ x).amax(1))


NETWORKS = {
    "lenet": LeNet,
    "functional": lambda: Functional(LeNet()),
    "batch_norm": BatchNorm,
    "resnet": ResNet,
    "spatial": Spatial,
    "products": Products,
}


def network(name: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return drawn(NETWORKS[name]())
