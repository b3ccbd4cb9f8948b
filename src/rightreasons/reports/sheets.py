"""Contact sheets of data and of what a model looks at."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from rightreasons.core import Batch
from rightreasons.data import ImageDataset
from rightreasons.data.dataset import stream
from rightreasons.data.marks import marks
from rightreasons.experiments import Revealed
from rightreasons.reports.figures import Array, Heatmap, contact_sheet, figure

SHOWN = 8
ACROSS = 7
"""Maps beside an image; further ones come below, beside the image again."""


def reveal_sheet(found: Revealed) -> Image.Image:
    """One row an image: the image, its map by each explainer, and what the model said."""
    maps = {name: Heatmap(values[:, 0].numpy(), found.signed[name]) for name, values in found.heatmaps.items()}
    labels = []
    for row in range(len(found.batch)):
        truth, prediction, confidence, *_ = found.told(row)
        verdict = "right" if truth == prediction else f"wrong, truth {truth}"
        labels.append(f"says {prediction} ({confidence}): {verdict} [{found.names[row]}]")
    names, images = list(maps), _columns(found)
    across = ACROSS + 1 - len(images)
    blocks = [names[i : i + across] for i in range(0, len(names), across)]
    sheets = [contact_sheet(images, {name: maps[name] for name in block}, labels) for block in blocks]
    whole = Image.new("RGB", (max(s.width for s in sheets), sum(s.height for s in sheets)), "white")
    for number, sheet in enumerate(sheets):
        whole.paste(sheet, (0, sum(s.height for s in sheets[:number])))
    return whole


def picture_figure(found: Revealed, *, title: str, against: str = "", overlay: bool = False) -> Image.Image:
    """A picture and its maps by all explainers side by side, with what the model said beneath it."""
    prediction, confidence = found.said(0)
    said = f"says {prediction} ({confidence})" + (f", explained against {against}" if against else "")
    maps = {name: Heatmap(values[0, 0].numpy(), found.signed[name]) for name, values in found.heatmaps.items()}
    picture = {name: images[0] for name, images in _columns(found).items()}
    return figure(picture, maps, title=title, label=said, overlay=overlay)


def data_sheet(data: ImageDataset, *, seed: int = 0) -> Image.Image:
    """Some images, drawn at random, with their masks and classes; half of them with a mask, where there are as many."""
    batch = data.batch(_some(data, seed))
    masks = {"relevant": batch.relevant, "irrelevant": batch.irrelevant}
    maps = {name: Heatmap(mask[:, 0].numpy()) for name, mask in masks.items() if mask is not None}
    return contact_sheet(pictures(batch, data.pixel_range), maps, [data.classes[int(t)] for t in batch.target])


def _some(data: ImageDataset, seed: int) -> Int[Tensor, " shown"]:
    """The positions of the images to show, in their order."""
    order = torch.randperm(len(data), generator=stream(seed, "sheet"))
    if data[0].relevant is not None or data[0].irrelevant is not None:
        marked = marks(data)[1][order]
        half = SHOWN // 2
        order = torch.cat([order[marked][:half], order[~marked], order[marked][half:]])
    return order[:SHOWN].sort().values


def _columns(found: Revealed) -> dict[str, list[Array]]:
    """The images, and those of another class at which maps begin."""
    columns = {"input": pictures(found.batch, found.pixel_range)}
    for start in found.starts.values():
        columns[start.title] = pictures(replace(found.batch, inputs=start.images), found.pixel_range)
    return columns


def pictures(batch: Batch, pixel_range: tuple[float, float]) -> list[Array]:
    """The images as (H, W) or (H, W, 3) in [0, 1]."""
    low, high = pixel_range
    images = ((batch.inputs.detach().cpu() - low) / (high - low)).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return [np.squeeze(image, axis=2) if image.shape[2] == 1 else image for image in images]
