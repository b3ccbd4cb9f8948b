"""What people drew, whatever tool they drew it with: masks of two kinds by the name of the image."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.core import CorruptData

Kind = Literal["relevant", "irrelevant"]
Conflict = Literal["keep", "error"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LEVELS = 255


@dataclass(frozen=True, eq=False)
class Marks:
    """What a person marked in one image; a pixel in neither mask is unknown, so nothing is said about it.

    Attributes:
        relevant: Where a model should look, (1, H, W) in [0, 1] at the image's own size; ``None`` if nobody said so.
        irrelevant: Where it should not.

    Raises:
        ValueError: There is no mask at all, or a mask of another form, range or size.
    """

    relevant: Float[Tensor, "1 height width"] | None = None
    irrelevant: Float[Tensor, "1 height width"] | None = None

    def __post_init__(self) -> None:
        masks = {kind: mask for kind in KINDS if (mask := self.of(kind)) is not None}
        if not masks:
            raise ValueError("expected a relevant or an irrelevant mask, got neither")
        for kind, mask in masks.items():
            if mask.ndim != 3 or len(mask) != 1 or not mask.is_floating_point() or not mask.numel():
                raise ValueError(f"expected a float {kind} mask (1, H, W), got {mask.dtype} {tuple(mask.shape)}")
            low, high = (float(value) for value in mask.aminmax())
            if not (low >= 0 and high <= 1):
                raise ValueError(f"expected a {kind} mask in [0, 1], got {low:g} to {high:g}")
        if len({tuple(mask.shape) for mask in masks.values()}) > 1:
            raise ValueError(f"expected masks of one size, got {' and '.join(map(_measure, masks.values()))}")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = next(mask.shape[-2:] for mask in (self.relevant, self.irrelevant) if mask is not None)
        return height, width

    def of(self, kind: Kind) -> Float[Tensor, "1 height width"] | None:
        """The mask of that kind."""
        return self.relevant if kind == "relevant" else self.irrelevant

    def marks(self, kind: Kind) -> bool:
        """Whether any pixel is marked so."""
        mask = self.of(kind)
        return mask is not None and bool(mask.any())

    def merged(self, other: Marks) -> Marks:
        """What either of the two marks: of each pixel the larger value.

        Raises:
            ValueError: They are of different sizes.
        """
        if self.size != other.size:
            raise ValueError(f"expected marks of one size, got {_told(self.size)} and {_told(other.size)}")
        return Marks(*(_union(self.of(kind), other.of(kind)) for kind in KINDS))

    @property
    def both(self) -> int:
        """How many pixels are marked as relevant and as irrelevant."""
        if self.relevant is None or self.irrelevant is None:
            return 0
        return int(((self.relevant > 0) & (self.irrelevant > 0)).sum())


class Annotations(Mapping[str, Marks]):
    """Marks by the name of the image file: a path with ``/``, relative to a folder that nobody needs to know here.

    Partial on purpose: an image that is not in it was not annotated. Masks are kept packed, a few hundred bytes each,
    and unpacked when asked for.

    Args:
        marks: Names with marks; a name that comes again is merged with what it has.
        conflict: ``keep`` leaves a pixel that is marked as both in both masks, ``error`` refuses it.

    Raises:
        ValueError: No such ``conflict``.
        CorruptData: A name is no path inside a folder, marks of one name are of two sizes, or masks conflict.
    """

    def __init__(
        self, marks: Mapping[str, Marks] | Iterable[tuple[str, Marks]] = (), *, conflict: Conflict = "keep"
    ) -> None:
        if conflict not in get_args(Conflict):
            raise ValueError(f"expected conflict {' or '.join(get_args(Conflict))}, got {conflict!r}")
        self._packed: dict[str, tuple[Packed | None, Packed | None]] = {}
        for name, drawn in marks.items() if isinstance(marks, Mapping) else marks:
            self._add(plain_name(name), drawn)
        if conflict == "error":
            self._refuse_conflicts()

    def _add(self, name: str, marks: Marks) -> None:
        if name in self._packed:
            try:
                marks = self[name].merged(marks)
            except ValueError as error:
                raise CorruptData(f"{name} is annotated twice: {error}") from error
        relevant, irrelevant = (None if mask is None else pack(mask) for mask in (marks.relevant, marks.irrelevant))
        self._packed[name] = (relevant, irrelevant)

    def _refuse_conflicts(self) -> None:
        for name, marks in self.items():
            if marks.both:
                raise CorruptData(f"{name} has {marks.both} pixels that are marked as relevant and as irrelevant")

    def __getitem__(self, name: str) -> Marks:
        """The marks of the image of that name."""
        return Marks(*(None if packed is None else unpack(packed) for packed in self._packed[name]))

    def __iter__(self) -> Iterator[str]:
        """The names, in the order of the file."""
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __repr__(self) -> str:
        counts = (f"{sum(masks[i] is not None for masks in self._packed.values())} {KINDS[i]}" for i in range(2))
        return f"Annotations({len(self)} images: {', '.join(counts)})"

    def size(self, name: str) -> tuple[int, int]:
        """Height and width of that image, without unpacking its masks."""
        height, width = next(packed.shape for packed in self._packed[name] if packed is not None)
        return height, width

    def has(self, kind: Kind) -> bool:
        """Whether any image has a mask of that kind."""
        return bool(self._of(kind))

    def check_marks(self) -> None:
        """Refuse marks that cannot tell a model anything.

        Raises:
            CorruptData: No pixel of any image is marked, or every mask of a kind covers its whole image.
        """
        if self and not any(packed.high for kind in KINDS for packed in self._of(kind)):
            raise CorruptData(f"no pixel is marked in any of {len(self)} annotations")
        for kind in KINDS:
            masks = self._of(kind)
            if masks and all(packed.low == 1 for packed in masks):
                raise CorruptData(f"every {kind} mask ({len(masks)}) covers its whole image, so nothing is told apart")

    def blank(self) -> dict[Kind, int]:
        """The kinds of which every mask is blank, no pixel marked, and how many masks these are."""
        masks = {kind: self._of(kind) for kind in KINDS}
        return {kind: len(own) for kind, own in masks.items() if own and not any(packed.high for packed in own)}

    def _of(self, kind: Kind) -> list[Packed]:
        found = (masks[KINDS.index(kind)] for masks in self._packed.values())
        return [packed for packed in found if packed is not None]

    def counts(self) -> dict[str, int]:
        """How many images there are, with marks of either kind, and with pixels marked as both."""
        # One image at a time: masks are packed for a reason.
        found = [(drawn.marks("relevant"), drawn.marks("irrelevant"), drawn.both > 0) for drawn in self.values()]
        told = ("with relevant pixels", "with irrelevant pixels", "with pixels marked as both")
        return {"images annotated": len(self)} | {key: sum(row[i] for row in found) for i, key in enumerate(told)}

    def merged(self, other: Annotations) -> Annotations:
        """What either of the two marks."""
        return Annotations([*self.items(), *other.items()])

    def renamed(self, name: Callable[[str], str]) -> Annotations:
        """The same marks under other names; those that come to share one are merged."""
        return Annotations((name(old), marks) for old, marks in self.items())


class Packed(NamedTuple):
    """A mask in few bytes.

    Attributes:
        data: Compressed values, bytes of 1/255 or floats of 32 bits.
        shape: Height and width.
        bytes_: Whether the values are bytes.
        low: The smallest value.
        high: The largest value.
    """

    data: bytes
    shape: tuple[int, int]
    bytes_: bool
    low: float
    high: float


def pack(mask: Float[Tensor, "1 height width"]) -> Packed:
    """The mask packed without loss (of float32)."""
    values = mask.detach().to("cpu", torch.float32)[0]
    levels = (values * LEVELS).round().to(torch.uint8)
    exact = torch.equal(levels.to(torch.float32).div(LEVELS), values)
    array = (levels if exact else values).contiguous().numpy()
    low, high = (float(value) for value in values.aminmax())
    return Packed(zlib.compress(array.tobytes(), level=1), (values.shape[0], values.shape[1]), exact, low, high)


def unpack(packed: Packed) -> Float[Tensor, "1 height width"]:
    """The mask as it was."""
    array = np.frombuffer(zlib.decompress(packed.data), np.uint8 if packed.bytes_ else np.float32)
    values = torch.from_numpy(array.reshape(1, *packed.shape).astype(np.float32))
    return values.div_(LEVELS) if packed.bytes_ else values


def plain_name(name: str) -> str:
    """The path as all of them are written here: ``/`` between its parts, none of which is empty or leads upwards.

    Raises:
        CorruptData: It is empty or leaves its folder.
    """
    parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", ".")]
    if not parts or ".." in parts or "\0" in name:
        raise CorruptData(f"expected the name of an image file inside a folder, got {name!r}")
    return "/".join(parts)


def _union(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return b if a is None else a
    return torch.maximum(a, b)


def _measure(mask: Tensor) -> str:
    return _told((mask.shape[-2], mask.shape[-1]))


def _told(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
