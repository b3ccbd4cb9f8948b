"""RES: explanation supervision that allows for inexact, incomplete and binary annotations."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rightreasons.attribution import GradCAM
from rightreasons.core import Attribution, Batch, Classifier, ExplanationLoss
from rightreasons.core.protocols import require_differentiable
from rightreasons.core.tensors import resized
from rightreasons.supervision.annotation import (
    annotated_only,
    comparable,
    connected_zero,
    marked_images,
    masks_of,
    mean_over,
    nothing_annotated,
    ratio_of_sums,
)


@dataclass(frozen=True)
class RES(ExplanationLoss):
    """A threshold term with slack, and a distance to the smoothed annotation, on annotated pixels only.

    With M the heatmap divided by its own largest absolute value, F = ``relevant``, C = ``irrelevant``, H = F - C:
    max(0, |tanh(slope (M - a)) - sign H| - slack) + |M - h(F, C)|, where each |.| is the mean absolute difference over
    the pixels of an image weighted by the absolute value of H, and the result is the mean over annotated images that
    have a pixel with H != 0. The threshold a is the one of :func:`adaptive_threshold`. The comparison is made at the
    resolution of the inputs.

    Source: Gao et al. 2022 (RES, KDD), sections 3.2-3.3, Eqs. 5-8. The paper names neither the norm nor the distance d;
    both means are our definition, so that slack and weight do not depend on how much was drawn. Its masks are binary;
    that a pixel which is marked in part (at the border of a resized mask) counts in part is our definition, too. Its a
    belongs to the whole training set, ours to the annotated images of a batch. Its slack is 0.001 and 0.01 on its two
    data sets; it gives no slope.

    Args:
        attribution: What makes the map.
        imputation: The map h from the masks to values in [0, 1]: "gaussian" (:func:`gaussian_imputation`, RES-G),
            "learned" (a new :class:`LearnedImputation`, RES-L), a module called with F and C, or ``None`` for F itself.
        slack: Disagreement of an image with its annotation that costs nothing (the paper's alpha).
        slope: Steepness of the tanh that stands for the threshold (the paper's gamma).
        kernel_size: Side of the smoothing kernel in pixels, odd; ``None`` takes an eighth of the image's smaller side
            for "gaussian" (3 of 28 pixels, 29 of 224) and 5 for "learned", which is made before it sees an image and
            keeps the size itself (here it becomes ``None``). Refused where no kernel is made.
    """

    attribution: Attribution = field(default_factory=GradCAM)
    imputation: Literal["gaussian", "learned"] | nn.Module | None = "gaussian"
    slack: float = 0.01
    slope: float = 5.0
    kernel_size: int | None = None

    def __post_init__(self) -> None:
        require_differentiable(self.attribution, type(self).__name__)
        if not isinstance(self.imputation, nn.Module) and self.imputation not in ("gaussian", "learned", None):
            raise ValueError(f"expected imputation as 'gaussian', 'learned', a module or None, got {self.imputation!r}")
        if self.slack < 0:
            raise ValueError(f"expected slack of at least 0, got {self.slack}")
        if not 0 < self.slope < math.inf:
            raise ValueError(f"expected a positive, finite slope, got {self.slope}")
        if self.kernel_size is not None:
            _check_odd(self.kernel_size)
            if self.imputation not in ("gaussian", "learned"):
                raise ValueError(
                    "expected kernel_size only with imputation 'gaussian' or 'learned', "
                    f"got {self.kernel_size} with {self.imputation!r}"
                )
        if self.imputation == "learned":
            object.__setattr__(self, "imputation", LearnedImputation(self.kernel_size or 5))
            # Else a copy made by dataclasses.replace would ask for a kernel beside the module it already has.
            object.__setattr__(self, "kernel_size", None)

    def __call__(self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        """The mean over annotated images with a pixel that counts."""
        if nothing_annotated(batch):
            return connected_zero(logits, self.imputation if isinstance(self.imputation, nn.Module) else None)
        relevant, irrelevant = masks_of(batch, type(self).__name__)
        heatmap = self.attribution(model, batch.inputs, batch.target)
        relevant, irrelevant, heatmap = annotated_only(batch, relevant, irrelevant, heatmap)
        maps, side = comparable(heatmap), relevant - irrelevant
        weights = side.abs()
        projected = (self.slope * (maps - adaptive_threshold(maps, relevant, irrelevant))).tanh()
        disagreement = ratio_of_sums(weights * (projected - side.sign()).abs(), weights)
        distance = ratio_of_sums(weights * (maps - self.imputed(relevant, irrelevant)).abs(), weights)
        return mean_over((disagreement - self.slack).relu() + distance, marked_images(weights))

    def imputed(
        self, relevant: Float[Tensor, "batch 1 height width"], irrelevant: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """h(F, C), what the map should look like on annotated pixels.

        Raises:
            ValueError: The module returns another shape than that of the masks.
        """
        if self.imputation == "gaussian":
            return gaussian_imputation(relevant, irrelevant, kernel_size=self.kernel_size)
        if not isinstance(self.imputation, nn.Module):
            return relevant
        values: Tensor = self.imputation(relevant, irrelevant)
        if values.shape != relevant.shape:
            raise ValueError(
                f"expected the imputation to return shape {tuple(relevant.shape)}, got {tuple(values.shape)}"
            )
        return values


@torch.no_grad()
def adaptive_threshold(
    heatmap: Float[Tensor, "batch 1 height width"],
    relevant: Float[Tensor, "batch 1 height width"],
    irrelevant: Float[Tensor, "batch 1 height width"],
) -> Float[Tensor, ""]:
    """The threshold a, one for all images, that the most annotated pixels agree with; no gradient runs through it.

    A pixel is annotated where the masks differ by at least 0.5, binarized as the metrics binarize them. It agrees if M
    >= a where ``relevant`` is the larger mask, if M < a where ``irrelevant`` is. As a grows past a value of M, relevant
    pixels of that value are lost and irrelevant ones gained, so the most is reached at a value of M or just above all
    of them; after one sort, O(m log m), running counts give all these cases. Of several best ones the smallest is
    taken; where nothing is annotated a is 0. Pixels count alike, so the larger mask has more say.

    Source: Gao et al. 2022 (RES), Eqs. 6-7. The listing in appendix A.4 is not followed: read as bounds on a, its two
    lists ("greater or equal" from C, "less" from F) exchange the strictness of Eq. 7 (a > M on C, a <= M on F), so
    that a pixel of C counts as below its own value; its second loop never sets v; and a value above all of M, which
    Eq. 7 needs where C prevails, is not tried.
    """
    marked = ((relevant - irrelevant).abs() >= 0.5).flatten().nonzero()[:, 0]
    if not len(marked):
        return heatmap.new_zeros(())
    values, order = heatmap.flatten()[marked].sort()
    up = (relevant > irrelevant).flatten()[marked[order]].long()
    above_all = torch.nextafter(values[-1], values.new_tensor(math.inf))
    # gained[k]: pixels more that agree with a above the k smallest values than with a below all.
    gained = F.pad((1 - 2 * up).cumsum(0), (1, 0))
    # Equal values lie on the same side of any threshold, so there is a cut only before the first of them.
    first = F.pad(values[1:] != values[:-1], (1, 1), value=True)
    best = torch.where(first, gained, -1).argmax()
    return torch.cat((values, above_all[None]))[best]


def gaussian_imputation(
    relevant: Float[Tensor, "batch 1 height width"],
    irrelevant: Float[Tensor, "batch 1 height width"],
    *,
    kernel_size: int | None = None,
) -> Float[Tensor, "batch 1 height width"]:
    """h(F, C) = G * F in [0, 1]: the relevant mask seen through a Gaussian window, whose boundary is a slope.

    Irrelevant and unmarked pixels enter as 0; pixels outside the image do not count. How F and C make one map is our
    definition, for the paper only says that a k x k kernel is applied to them. Where all pixels are annotated it equals
    (1 + G * (F - C)) / 2, the smoothed difference of section 3.2 in the [0, 1] of section 3.2.1; without F it is 0
    on all of C.

    Source: Gao et al. 2022 (RES), section 3.2.2.

    Args:
        relevant: F.
        irrelevant: C; pixels that are not in F are 0 with and without it.
        kernel_size: Odd side of the window, which reaches two standard deviations to each side; ``None`` takes an
            eighth of the image's smaller side.
    """
    size = kernel_size if kernel_size is not None else _odd_eighth(min(relevant.shape[-2:]))
    _check_odd(size)
    # Two products with band matrices: some ten times as fast on a CPU as convolutions of one channel.
    down, across = (_window_matrix(side, size).to(relevant) for side in relevant.shape[-2:])
    return down @ relevant @ across.T


class LearnedImputation(nn.Module):
    """h(F, C) as :func:`gaussian_imputation` makes it, with kernels that are trained along with the model.

    Each kernel starts as a Gaussian and is kept non-negative with sum 1 (a softmax of its weights). So h stays in
    [0, 1] without clipping, has a gradient everywhere, and cannot leave the annotation to follow the model's map. The
    paper does not say how it keeps the range; this is our definition, as is one channel a layer.

    Source: Gao et al. 2022 (RES), section 3.2.2 and appendix A.5.

    Args:
        kernel_size: Side of the kernel in pixels, or one side a layer.
        stride: Of every layer; the result is brought back to the resolution of the masks (bilinear).
        padding: Of every layer; ``None`` takes half of its kernel, which must then be odd.
    """

    def __init__(self, kernel_size: int | tuple[int, ...] = 5, *, stride: int = 1, padding: int | None = None) -> None:
        super().__init__()
        sizes = (kernel_size,) if isinstance(kernel_size, int) else tuple(kernel_size)
        for size in sizes:
            if padding is None:
                _check_odd(size)
            elif not 0 <= padding < size:
                raise ValueError(f"expected padding from 0 to less than the kernel size {size}, got {padding}")
        if not sizes or stride < 1:
            raise ValueError(f"expected at least one kernel and a stride of at least 1, got {sizes} and {stride}")
        self.stride = stride
        self.padding = padding
        self.kernels = nn.ParameterList(_log_gaussian(s)[:, None] + _log_gaussian(s)[None, :] for s in sizes)

    @classmethod
    def shallow(cls) -> LearnedImputation:
        """The paper's choice for masks of 224 x 224: one 64 x 64 kernel, padding 16, stride 32."""
        return cls(64, stride=32, padding=16)

    @classmethod
    def deep(cls) -> LearnedImputation:
        """The paper's deep variant: kernels 7, 3, 3, 3, 3 with padding 3, 1, 1, 1, 1 and stride 2."""
        return cls((7, 3, 3, 3, 3), stride=2)

    def forward(
        self, relevant: Float[Tensor, "batch 1 height width"], irrelevant: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch 1 height width"]:
        """h(F, C); ``irrelevant`` pixels are 0 before smoothing, as all that are not in F.

        Raises:
            ValueError: The masks are smaller than a kernel.
        """
        values = relevant
        for weights in self.kernels:
            size = weights.shape[0]
            padding = size // 2 if self.padding is None else self.padding
            if min(values.shape[-2:]) + 2 * padding < size:
                raise ValueError(
                    f"expected masks of at least {size - 2 * padding} pixels a side for a kernel of {size} "
                    f"with padding {padding}, got {tuple(values.shape[-2:])}"
                )
            kernel = weights.flatten().softmax(dim=0).view_as(weights)
            values = _smoothed(values, kernel, stride=self.stride, padding=(padding, padding))
        return resized(values, (relevant.shape[-2], relevant.shape[-1]))

    def extra_repr(self) -> str:
        """The settings."""
        sizes = tuple(weights.shape[0] for weights in self.kernels)
        return f"kernel_size={sizes}, stride={self.stride}, padding={self.padding}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


def _smoothed(mask: Tensor, kernel: Tensor, *, stride: int = 1, padding: tuple[int, int] = (0, 0)) -> Tensor:
    """The mean of the mask in a window around each place, weighted by the kernel, over pixels inside the image."""
    kernel = kernel[None, None].to(mask)
    inside = F.conv2d(torch.ones_like(mask[:1]), kernel, stride=stride, padding=padding)
    return F.conv2d(mask, kernel, stride=stride, padding=padding) / inside


def _log_gaussian(size: int) -> Float[Tensor, " size"]:
    """The logarithm of a Gaussian, not normalized, whose window reaches two standard deviations to each side."""
    places = torch.arange(size) - (size - 1) / 2
    return -(places**2) / (2 * (size / 4) ** 2)


def _window_matrix(side: int, size: int) -> Float[Tensor, "side side"]:
    """Row i holds the Gaussian window around place i, cut off at the border, with sum 1."""
    places = torch.arange(side)
    apart = places[:, None] - places
    window = torch.where(apart.abs() <= size // 2, -(apart**2) / (2 * (size / 4) ** 2), -math.inf)
    return window.softmax(dim=1)


def _odd_eighth(side: int) -> int:
    return max(3, side // 8 | 1)


def _check_odd(size: int) -> None:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"expected an odd, positive kernel size, got {size}")
