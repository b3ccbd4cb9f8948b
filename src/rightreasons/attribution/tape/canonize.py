"""BatchNorm behind a layer becomes a part of that layer, as it is at inference."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from rightreasons.attribution.tape.linear_map import Weighted
from rightreasons.attribution.tape.step import Step
from rightreasons.core import BadModel

_NAMES = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
_NATIVE = ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps", "cudnn_enabled")


def folded(steps: list[Step]) -> list[Step]:
    """The same steps, with each BatchNorm that reads a layer's output made one with that layer.

    The fold is exact, its ``eps`` included. To other readers of that output the layer stays as it is.

    Raises:
        BadModel: A BatchNorm is in training mode.
    """
    merged = list(steps)
    for number, step in enumerate(steps):
        if step.operator != "batch_norm":
            continue
        scale, shift = affine(step)
        before = merged[step.parents[0]]
        if before.linear is None or (before.linear.map.kind == "dense" and before.value.ndim > 2):
            continue
        merged[number] = replace(
            before, value=step.value, linear=_folded(before.linear, scale, shift), layer=before.layer or step.layer
        )
    return merged


def _folded(linear: Weighted, scale: Tensor, shift: Tensor) -> Weighted:
    bias = shift if linear.bias is None else linear.bias * scale + shift
    return Weighted(linear.map, linear.map.scaled(linear.weight, scale), bias)


def affine(step: Step, batch: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What a BatchNorm multiplies each channel by, and what it adds.

    Args:
        step: The BatchNorm.
        batch: What it read; with it one in training mode is taken with the statistics of this batch.

    Raises:
        BadModel: It is in training mode and no batch is given.
    """
    names = _NATIVE if step.call is torch.batch_norm else _NAMES
    given = dict(zip(names, step.args, strict=False)) | step.kwargs
    mean, variance = given.get("running_mean"), given.get("running_var")
    if given.get("training") or mean is None or variance is None:
        if batch is None:
            raise BadModel(
                "a network cannot be explained operator by operator with BatchNorm in training mode, where images of "
                "a batch depend on each other; call eval() on the network or on its BatchNorm layers"
            )
        axes = tuple(i for i in range(batch.ndim) if i != 1)
        mean, variance = batch.mean(axes), batch.var(axes, correction=0)
    scale = (variance + given.get("eps", 1e-5)).rsqrt()
    if given.get("weight") is not None:
        scale = scale * given["weight"]
    shift = -mean * scale
    return scale, shift if given.get("bias") is None else shift + given["bias"]
