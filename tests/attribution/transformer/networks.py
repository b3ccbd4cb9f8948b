"""Transformers written in the ways that libraries write them, tiny, with random weights."""

from __future__ import annotations

import math
from collections import OrderedDict
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

CLASSES = 3
SIZE = (8, 12)
PATCH = 4
TOKENS = 6


class EncoderBlock(nn.Module):
    """A block with the operators of torchvision's VisionTransformer: nn.MultiheadAttention without its weights."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        norm = partial(nn.LayerNorm, eps=1e-6)
        self.ln_1 = norm(width)
        self.self_attention = nn.MultiheadAttention(width, heads, dropout=0.1, batch_first=True)
        self.dropout = nn.Dropout(0.1)
        self.ln_2 = norm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(0.1), nn.Linear(2 * width, width), nn.Dropout(0.1)
        )

    def forward(self, input):
        torch._assert(input.dim() == 3, f"expected three axes, got {input.shape}")
        x = self.ln_1(input)
        x, _ = self.self_attention(x, x, x, need_weights=False)
        x = self.dropout(x)
        x = x + input
        return x + self.mlp(self.ln_2(x))


class TorchvisionViT(nn.Module):
    """The operators of torchvision's VisionTransformer."""

    def __init__(self, width: int = 8, heads: int = 2, layers: int = 2) -> None:
        super().__init__()
        self.conv_proj = nn.Conv2d(2, width, kernel_size=PATCH, stride=PATCH)
        self.class_token = nn.Parameter(torch.randn(1, 1, width) * 0.5)
        self.pos_embedding = nn.Parameter(torch.randn(1, TOKENS + 1, width) * 0.3)
        self.dropout = nn.Dropout(0.1)
        self.layers = nn.Sequential(
            OrderedDict((f"encoder_layer_{i}", EncoderBlock(heads, width)) for i in range(layers))
        )
        self.ln = nn.LayerNorm(width, eps=1e-6)
        self.heads = nn.Sequential(OrderedDict(head=nn.Linear(width, CLASSES)))

    def forward(self, x):
        n, _, h, w = x.shape
        x = self.conv_proj(x)
        x = x.reshape(n, -1, (h // PATCH) * (w // PATCH)).permute(0, 2, 1)
        x = torch.cat([self.class_token.expand(n, -1, -1), x], dim=1)
        x = self.ln(self.layers(self.dropout(x + self.pos_embedding)))
        return self.heads(x[:, 0])


class TimmAttention(nn.Module):
    """Queries, keys and values by one layer; fused or written out."""

    def __init__(self, width: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.num_heads, self.scale, self.fused = heads, (width // heads) ** -0.5, fused
        self.qkv = nn.Linear(width, 3 * width)
        self.attn_drop = nn.Dropout(0.0)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, c // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v, dropout_p=0.0)
        else:
            q = q * self.scale
            attn = (q @ k.transpose(-2, -1)).softmax(dim=-1)
            x = self.attn_drop(attn) @ v
        return self.proj(x.transpose(1, 2).reshape(b, n, c))


class TimmBlock(nn.Module):
    def __init__(self, width: int, heads: int, *, fused: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = TimmAttention(width, heads, fused=fused)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.gamma = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x):
        x = x + self.attn(self.norm1(x)) * self.gamma
        return x + self.mlp(self.norm2(x)) * self.gamma


class TimmViT(nn.Module):
    """No class token: the logits read the mean of the patches; or one, and registers behind it."""

    def __init__(self, width: int = 8, heads: int = 2, *, fused: bool = True, prefixes: int = 0) -> None:
        super().__init__()
        self.patch = nn.Conv2d(2, width, kernel_size=PATCH, stride=PATCH)
        self.prefix = nn.Parameter(torch.randn(1, prefixes, width))
        self.place = nn.Parameter(torch.randn(1, TOKENS + prefixes, width) * 0.3)
        self.blocks = nn.Sequential(*[TimmBlock(width, heads, fused=fused) for _ in range(2)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1) + self.place
        x = self.norm(self.blocks(x))
        return self.head(x[:, 0] if self.prefix.shape[1] else x.mean(dim=1))


class StockEncoder(nn.Module):
    """torch's own nn.TransformerEncoder over patches, in either order of its axes."""

    def __init__(self, *, batch_first: bool = True, norm_first: bool = False) -> None:
        super().__init__()
        self.patch = nn.Conv2d(2, 8, PATCH, PATCH)
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.1, "gelu", batch_first=batch_first, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.batch_first = batch_first
        self.head = nn.Linear(8, CLASSES)
        for parameter in self.encoder.parameters():  # the copies of one layer are the same at first
            nn.init.normal_(parameter, std=0.4)

    def forward(self, x):
        x = self.patch(x).flatten(2).mT
        x = self.encoder(x if self.batch_first else x.transpose(0, 1))
        return self.head(x.mean(1 if self.batch_first else 0))


class WrittenOut(nn.Module):
    """An nn.MultiheadAttention, with its weights, by plain operators."""

    def __init__(self, module: nn.MultiheadAttention) -> None:
        super().__init__()
        self.module = module

    def forward(self, query, key, value, need_weights=False):
        heads, width = self.module.num_heads, self.module.embed_dim
        weights = self.module.in_proj_weight.split(width)
        biases = self.module.in_proj_bias.split(width)
        q, k, v = (
            F.linear(part, w, b).unflatten(-1, (heads, -1)).transpose(1, 2)
            for part, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        mixed = (q @ k.mT / math.sqrt(width // heads)).softmax(-1) @ v
        return self.module.out_proj(mixed.transpose(1, 2).flatten(2)), None


NETWORKS = {
    "torchvision": TorchvisionViT,
    "timm fused": TimmViT,
    "timm unfused": partial(TimmViT, fused=False),
    "timm with registers": partial(TimmViT, prefixes=3),
    "stock encoder": StockEncoder,
    "stock encoder, tokens first": partial(StockEncoder, batch_first=False, norm_first=True),
}


def network(name: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = NETWORKS[name]().double().eval()
        for name, parameter in made.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter, std=0.1)
        return made


def images(count: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(count, 2, *SIZE, generator=generator, dtype=torch.float64)
    return inputs, torch.arange(count) % CLASSES
