"""Small networks that make images of images: an autoencoder, a variational one, and a generator of other classes.

All take images in the range from 0 to 1, of any size whose sides four divides, and give such images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class Autoencoder(nn.Module):
    """Convolutions down to a quarter of each side and up again: images to images.

    Source: the autoencoder of one class of Schut et al. 2021, arXiv:2103.08951 (16, 8 and 8 filters of 3x3,
    max-pooling by 2, upsampling to the nearest), of which IM1 and IM2 are made. Ours: ReLU behind all convolutions but
    the last. That one ends as it is, so that a pixel may come out slightly beyond its range: behind a sigmoid the mean
    squared error of mostly black images may let the network die.

    Args:
        shape: Channels, height and width of an image.
        widths: Filters of the two convolutions that are pooled.
        code: Channels of the encoding.

    Raises:
        ValueError: Four does not divide a side, or a width is below 1.
    """

    def __init__(
        self, shape: tuple[int, int, int] = (1, 28, 28), *, widths: tuple[int, int] = (16, 8), code: int = 8
    ) -> None:
        super().__init__()
        channels, _, _ = _checked(shape, first=widths[0], second=widths[1], code=code)
        wide, narrow = widths
        self.encoder = nn.Sequential(
            *_convolution(channels, wide), nn.MaxPool2d(2), *_convolution(wide, narrow), nn.MaxPool2d(2)
        )
        self.code = nn.Sequential(*_convolution(narrow, code))
        self.decoder = nn.Sequential(
            *_convolution(code, narrow),
            nn.Upsample(scale_factor=2),
            *_convolution(narrow, wide),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(wide, channels, 3, padding=1),
        )
        _fast(self)

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch code"]:
        """The encodings, flat."""
        return self.code(self.encoder(images)).flatten(1)  # type: ignore[no-any-return]

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The images as it reproduces them."""
        return self.decoder(self.code(self.encoder(images)))  # type: ignore[no-any-return]


class VAE(nn.Module):
    """A variational autoencoder; with ``classes`` a conditional one, whose decoder is told the class.

    The encoder sees the image alone. In the conditional one the divergence from the prior makes it leave out what the
    class tells the decoder, so that an encoding is style and decodes under any class.

    Source: Kingma and Welling 2014, arXiv:1312.6114; conditional: Sohn et al. 2015, without the class in the encoder.

    Args:
        shape: Channels, height and width of an image.
        latent: Dimensions of the latent space.
        widths: Filters of the two convolutions with stride 2.
        classes: Number of classes; ``None``: it is not conditional.

    Raises:
        ValueError: Four does not divide a side, or a number is below 1.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (1, 28, 28),
        *,
        latent: int = 16,
        widths: tuple[int, int] = (32, 64),
        classes: int | None = None,
    ) -> None:
        super().__init__()
        told = 1 if classes is None else classes
        channels, rows, columns = _checked(shape, first=widths[0], second=widths[1], latent=latent, classes=told)
        self.latent, self.classes = latent, classes
        wide, deep = widths
        cells = deep * rows * columns
        self.encoder = nn.Sequential(*_halving(channels, wide), *_halving(wide, deep), nn.Flatten())
        self.moments = nn.Linear(cells, 2 * latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent + (classes or 0), cells),
            nn.ReLU(),
            nn.Unflatten(1, (deep, rows, columns)),
            *_doubling(deep, wide),
            nn.ConvTranspose2d(wide, channels, 4, stride=2, padding=1),
        )
        _fast(self)

    def posterior(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
        """Mean and log-variance of the encoding."""
        mean, log_variance = self.moments(self.encoder(images)).chunk(2, dim=1)
        return mean, log_variance

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch latent"]:
        """The mean of the encoding."""
        return self.posterior(images)[0]

    def logits(
        self, latent: Float[Tensor, "batch latent"], target: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        """The decoded pixels before the sigmoid.

        Raises:
            ValueError: It is conditional and no class is given.
        """
        if self.classes is not None:
            if target is None:
                raise ValueError(f"expected a class for each encoding, {self.classes} classes, got None")
            latent = torch.cat([latent, F.one_hot(target, self.classes).to(latent)], dim=1)
        return self.decoder(latent)  # type: ignore[no-any-return]

    def decode(
        self, latent: Float[Tensor, "batch latent"], target: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        """The image of an encoding, where it is conditional under that class."""
        return self.logits(latent, target).sigmoid()

    def forward(
        self, images: Float[Tensor, "batch channels height width"], target: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        """The images as it reproduces them; where it is conditional, under these classes."""
        return self.decode(self.encode(images), target)


class ClassGenerator(nn.Module):
    """An image and a class to an image of that class, in one pass: down to a quarter of each side and up, with skips.

    What it makes of the pixels is a gain for what is there and something to put there: ``x' = keep * x + (1 - keep) *
    put``. The class enters at each level as a shift and a scale of each channel.

    Args:
        shape: Channels, height and width of an image.
        classes: Number of classes.
        widths: Filters at the image's size, at half and at a quarter of its sides.

    Raises:
        ValueError: Four does not divide a side, or a number is below 1.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (1, 28, 28),
        classes: int = 10,
        *,
        widths: tuple[int, int, int] = (8, 24, 48),
    ) -> None:
        super().__init__()
        named = dict(zip(("first", "second", "third"), widths, strict=True))
        channels, rows, columns = _checked(shape, classes=classes, **named)
        self.channels, self.classes = channels, classes
        wide, middle, deep = widths
        self.start = nn.Sequential(*_convolution(channels, wide))
        self.down = nn.Sequential(*_halving(wide, middle))
        self.bottom = nn.Sequential(*_halving(middle, deep))
        self.places = nn.Embedding(classes, deep * rows * columns)
        self.mix = nn.Sequential(*_convolution(2 * deep, deep), *_convolution(deep, deep))
        self.up = nn.Sequential(*_doubling(deep, middle))
        self.told = nn.Embedding(classes, 2 * middle)
        self.join = nn.Sequential(*_convolution(2 * middle, middle))
        self.last = nn.Sequential(*_doubling(middle, wide))
        self.end = nn.Conv2d(2 * wide, 2 * channels, 3, padding=1)
        _fast(self)

    def forward(
        self, images: Float[Tensor, "batch channels height width"], target: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The images as they would be of these classes."""
        fine = self.start(images)
        half = self.down(fine)
        quarter = self.bottom(half)
        maps = self.mix(torch.cat([quarter, self.places(target).view_as(quarter)], dim=1))
        scale, shift = self.told(target)[..., None, None].chunk(2, dim=1)
        maps = self.join(torch.cat([self.up(maps) * (1 + scale) + shift, half], dim=1))
        keep, put = self.end(torch.cat([self.last(maps), fine], dim=1)).sigmoid().chunk(2, dim=1)
        made: Tensor = keep * images + (1 - keep) * put
        return made


def _checked(shape: tuple[int, int, int], **numbers: int) -> tuple[int, int, int]:
    """Channels, and a quarter of each side."""
    channels, height, width = shape
    for name, value in {"channels": channels, **numbers}.items():
        if value < 1:
            raise ValueError(f"expected {name} to be at least 1, got {value}")
    if height < 4 or width < 4 or height % 4 or width % 4:
        raise ValueError(f"expected images whose sides four divides, got {height} x {width}")
    return channels, height // 4, width // 4


def _convolution(before: int, after: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(before, after, 3, padding=1), nn.ReLU()


def _halving(before: int, after: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(before, after, 4, stride=2, padding=1), nn.ReLU()


def _doubling(before: int, after: int) -> tuple[nn.Module, nn.Module]:
    return nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), nn.ReLU()


def _fast(network: nn.Module) -> None:
    """Weights with channels last in memory, in which convolutions on a CPU are fastest."""
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
