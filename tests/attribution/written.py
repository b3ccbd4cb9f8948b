"""One function written in many ways, and the two networks that users bring most, in torchvision's manner."""

from __future__ import annotations

import copy
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

CLASSES = 3


class Written(nn.Module):
    """Two convolutions in a residual block between two others; subclasses say the same in other words."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv3 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv4 = nn.Conv2d(4, 5, 3)
        self.head = nn.Linear(80, CLASSES)
        nn.init.constant_(self.conv4.bias, 0.4)

    def forward(self, x):
        x = self.pool(self.relu(self.conv1(x)))
        x = self.relu(self.add(self.conv3(self.relu(self.conv2(x))), x))
        return self.head(self.flat(self.relu(self.conv4(x))))

    def relu(self, x):
        return F.relu(x)

    def pool(self, x):
        return F.max_pool2d(x, 2)

    def add(self, x, y):
        return x + y

    def flat(self, x):
        return torch.flatten(x, 1)


class Modules(Written):
    """Every step a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.act1, self.act2, self.act3, self.act4 = (nn.ReLU() for _ in range(4))
        self.max_pool, self.flatten = nn.MaxPool2d(2), nn.Flatten()

    def forward(self, x):
        x = self.max_pool(self.act1(self.conv1(x)))
        x = self.act3(self.conv3(self.act2(self.conv2(x))) + x)
        return self.head(self.flatten(self.act4(self.conv4(x))))


class OneModule(Written):
    """One ReLU four times."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()


class InPlaceModule(Written):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)


class InPlaceFunction(Written):
    def relu(self, x):
        return F.relu_(x)


class Methods(Written):
    def relu(self, x):
        return x.relu()

    def add(self, x, y):
        return x.add(y)

    def flat(self, x):
        return x.flatten(1)


class Clamped(Written):
    def relu(self, x):
        return x.clamp(min=0)


class Viewed(Written):
    def flat(self, x):
        return x.view(x.size(0), -1)


class Reshaped(Written):
    def flat(self, x):
        return x.reshape(len(x), -1)


class TorchAdd(Written):
    def add(self, x, y):
        return torch.add(x, y)


class AddedInPlace(Written):
    def add(self, x, y):
        x += y
        return x


class PooledByModule(Written):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)


class Frozen(Written):
    def __init__(self) -> None:
        super().__init__()
        self.requires_grad_(False)


WAYS = [
    *(Modules, OneModule, InPlaceModule, InPlaceFunction, Methods, Clamped, Viewed, Reshaped, TorchAdd, AddedInPlace),
    *(PooledByModule, Frozen),
]


class BasicBlock(nn.Module):
    """The block of a ResNet-18: one in-place ReLU twice, the sum in place."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet18(nn.Module):
    """A ResNet-18, an eighth as wide."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = width
        for stage in range(4):
            wide = width * 2**stage
            blocks = [BasicBlock(channels, wide, 2 if stage else 1), BasicBlock(wide, wide, 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            channels = wide
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(channels, CLASSES)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class EncoderBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.dropout = nn.Dropout(0.1)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * width, width), nn.Dropout(0.1)
        )

    def forward(self, given):
        x = self.ln_1(given)
        x, _ = self.self_attention(x, x, x, need_weights=False)
        x = self.dropout(x) + given
        return x + self.mlp(self.ln_2(x))


class VisionTransformer(nn.Module):
    """A ViT as torchvision writes it: one class token, learned places, attention by ``nn.MultiheadAttention``."""

    def __init__(self, side: int = 32, patch: int = 8, width: int = 16) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(3, width, patch, patch)
        self.class_token = nn.Parameter(torch.randn(1, 1, width) * 0.5)
        self.pos_embedding = nn.Parameter(torch.randn(1, (side // patch) ** 2 + 1, width) * 0.5)
        self.dropout = nn.Dropout(0.1)
        self.layers = nn.Sequential(EncoderBlock(width, 2), EncoderBlock(width, 2))
        self.ln = nn.LayerNorm(width, eps=1e-6)
        self.heads = nn.Sequential(nn.Linear(width, CLASSES))

    def forward(self, x):
        x = self.conv_proj(x)
        x = x.reshape(x.shape[0], x.shape[1], -1).permute(0, 2, 1)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = self.ln(self.layers(self.dropout(x + self.pos_embedding)))
        return self.heads(x[:, 0])


def resnet18() -> ResNet18:
    """In float64, its BatchNorm having seen some noise."""
    return copy.deepcopy(_calibrated())


@cache
def _calibrated() -> ResNet18:
    torch.manual_seed(0)
    network = ResNet18().double()
    with torch.no_grad():
        for _ in range(20):
            network(torch.rand(16, 3, 64, 64, dtype=torch.float64))
    return network.eval()


def vision_transformer() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer().double().eval()


def photographs(side: int, count: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, side, side, generator=generator, dtype=torch.float64), torch.arange(count) % CLASSES
