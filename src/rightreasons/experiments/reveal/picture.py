"""What a model looks at in one picture of the user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from rightreasons.core import Batch, CorruptData
from rightreasons.data import ImageDataset
from rightreasons.data.dataset import Wrapper
from rightreasons.data.folder import LEVELS, read_pixels
from rightreasons.experiments.explain import explain
from rightreasons.experiments.reveal.methods import RevealSettings, build_explainers, class_number
from rightreasons.experiments.reveal.sample import Revealed, revealed
from rightreasons.experiments.run import accelerator_for
from rightreasons.experiments.subject import Subject


class _OnePicture(Wrapper):
    """A picture in the form of a data set's images; its class is not known."""

    def __init__(self, data: ImageDataset, inputs: Float[Tensor, "1 channels height width"]) -> None:
        super().__init__(data, "one picture")
        self.inputs = inputs
        self.target = torch.zeros(1, dtype=torch.int64)

    def batch(self, index: Tensor) -> Batch:
        return Batch(inputs=self.inputs[index], target=self.target[index], index=index)


def reveal_picture(subject: Subject, path: Path, settings: RevealSettings, *, device: str = "auto") -> Revealed:
    """Explain a picture, brought to the size, channels and pixel range of the subject's images.

    Raises:
        CorruptData: No such file, or it is no picture.
        ValueError: The true class is to be explained, which nobody knows.
    """
    if settings.target == "true":
        raise ValueError("nobody knows the true class of a picture of your own: leave out --target true")
    model = subject.model.to(accelerator_for(device).device)
    data = _OnePicture(subject.data, read_picture(path, subject.data))
    explainers = build_explainers(subject, settings)
    found = explain(model, data, explainers.methods, against=class_number(settings.against, subject.data.classes))
    return revealed(subject, data.batch(torch.zeros(1, dtype=torch.int64)), found, explainers, names=(path.name,))


def read_picture(path: Path, data: ImageDataset) -> Float[Tensor, "1 channels height width"]:
    """A picture in the size, channels and pixel range of the data's images.

    Raises:
        CorruptData: No such file, or it is a folder or no picture.
    """
    if path.is_dir():
        raise CorruptData(f"{path} is a folder, and one picture is explained at a time")
    if not path.is_file():
        raise CorruptData(f"no picture {path}")
    channels, height, width = data.shape
    image = read_pixels(path, channels)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image, dtype=np.float32)).div_(LEVELS).view(1, height, width, channels)
    low, high = data.pixel_range
    return pixels.permute(0, 3, 1, 2).contiguous() * (high - low) + low
