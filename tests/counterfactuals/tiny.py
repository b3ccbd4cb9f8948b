"""Untrained networks for the methods that need one, of the size of the contracts' images."""

import torch
import torch.nn.functional as F
from torch import nn


class Cells(nn.Module):
    """Encodes the mean of each cell of 2x2 pixels; decodes flat cells."""

    def __init__(self, shape=(2, 12, 12)):
        super().__init__()
        self.shape = shape[0], shape[1] // 2, shape[2] // 2

    def encode(self, images):
        return F.avg_pool2d(images, 2).flatten(1).clamp(0.02, 0.98).logit()

    def decode(self, latent, target):
        return F.interpolate(latent.sigmoid().view(-1, *self.shape), scale_factor=2)


class Toward(nn.Module):
    """Most of the way to one fixed image of each class."""

    def __init__(self, goals, share=0.9):
        super().__init__()
        self.share = share
        self.register_buffer("goals", goals)

    def forward(self, images, target):
        return torch.lerp(images, self.goals[target], self.share)
