"""The tiny networks that every contract is held against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

CLASSES = 3
SIDE = 12


def relu_cnn() -> nn.Module:
    return _cnn(nn.ReLU())


def softplus_cnn() -> nn.Module:
    return _cnn(nn.Softplus(beta=3))


def _cnn(activation: nn.Module) -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        activation,
        nn.MaxPool2d(2),
        nn.Conv2d(4, 5, 3),
        activation,
        nn.Flatten(),
        nn.Linear(45, 8),
        activation,
        nn.Linear(8, CLASSES),
    )
    nn.init.constant_(network[3].bias, 0.4)  # so that no class activation map is all zero
    return network


def pooled_cnn() -> nn.Module:
    """Ends as class activation mapping asks for: the mean over places, then one linear layer."""
    middle = nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))
    nn.init.normal_(middle[1].bias, mean=0.4, std=0.2)
    nn.init.uniform_(middle[1].running_var, 0.5, 1.5)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        middle,
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, CLASSES),
    )


class BatchNormCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2))
        self.second = nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
        self.head = nn.Linear(45, CLASSES)
        nn.init.constant_(self.second[0].bias, 0.4)  # so that no class activation map is all zero
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)

    def forward(self, x):
        return self.head(self.second(self.first(x)).flatten(1))


class ResidualCNN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4 * 36, CLASSES)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.stem(x)), 2)
        x = F.relu(x + self.conv2(F.relu(self.conv1(x))))
        return self.head(x.flatten(1))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, 2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TinyTransformer(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.patch = nn.Conv2d(2, width, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.5)
        self.place = nn.Parameter(torch.randn(1, 10, width) * 0.5)
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.place
        return self.head(self.norm(self.blocks(x))[:, 0])


class VariedCNN(nn.Module):
    """Strided, dilated, grouped and transposed convolutions, SiLU and GELU, an average and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.strided = nn.Conv2d(2, 4, 3, stride=2, padding=1)
        self.dilated = nn.Conv2d(4, 4, 3, dilation=2, padding=2)
        self.grouped = nn.Conv2d(4, 6, 3, groups=2)
        self.transposed = nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1)
        self.last = nn.Conv2d(8, 4, 2, stride=2)
        self.head = nn.Linear(4 * 4, CLASSES)
        nn.init.constant_(self.last.bias, 0.4)  # so that no class activation map is all zero
        nn.init.normal_(self.head.weight)

    def forward(self, x):
        x = F.silu(self.strided(x))
        x = F.gelu(self.dilated(x))
        wide = torch.cat([self.transposed(F.silu(self.grouped(x)))[..., 1:7, 1:7], x], dim=1)
        return self.head(F.avg_pool2d(F.gelu(self.last(wide)), 2, stride=1).flatten(1))


NETWORKS = {
    "relu": relu_cnn,
    "softplus": softplus_cnn,
    "batch_norm": BatchNormCNN,
    "residual": ResidualCNN,
    "transformer": TinyTransformer,
    "pooled": pooled_cnn,
    "varied": VariedCNN,
}


def network(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return NETWORKS[name]().to(dtype).eval()


def images(count: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(count, 2, SIDE, SIDE, generator=generator, dtype=torch.float64).to(dtype)
    return inputs, torch.arange(count) % CLASSES
