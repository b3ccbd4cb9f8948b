"""Annotations as COCO's JSON, read and written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from rightreasons.core import CorruptData, NotWritten
from rightreasons.data.masks import parsing
from rightreasons.data.masks.annotations import KINDS, Annotations, Conflict, Kind, Marks
from rightreasons.data.masks.labels import Labels
from rightreasons.data.masks.outline import outlines
from rightreasons.data.masks.raster import Region, Size, box, mask_of, polygon
from rightreasons.data.masks.rle import from_runs, from_text, to_runs, to_text

T = TypeVar("T")
Overlap = Literal["union", "even-odd"]
Form = Literal["rle", "polygon"]
LAYOUT = "expected COCO's JSON with the lists images, annotations and categories"


@dataclass(frozen=True)
class _Image:
    """An entry of the list ``images``."""

    name: str
    size: Size


def read_coco(
    path: Path | str,
    *,
    relevant: Sequence[str] | None = None,
    irrelevant: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    conflict: Conflict = "keep",
    overlap: Overlap = "union",
) -> Annotations:
    """The annotations of a COCO file: polygons, run lengths (as numbers or as text), and boxes where there is neither.

    All regions of an image and a kind make one mask, crowds as well as single objects. A pixel is in a polygon when
    its center is.

    Args:
        path: The file.
        relevant: Categories of what a model should look at, see :class:`~rightreasons.data.masks.labels.Labels`.
        irrelevant: Categories of what it should not.
        ignore: Categories that say nothing about it; ``*`` for all others.
        conflict: What becomes of a pixel marked as both: ``keep`` it so, or ``error``.
        overlap: Where the polygons of one annotation overlap: ``union`` counts it as marked, as COCO does;
            ``even-odd`` as a hole, as tools that draw holes write them.

    Raises:
        DataUnavailable: There is no such file.
        CorruptData: It is no such file, or one that contradicts itself; the message names the annotation or image.
    """
    if overlap not in get_args(Overlap):
        raise ValueError(f"expected overlap {' or '.join(get_args(Overlap))}, got {overlap!r}")
    labels = Labels(relevant, irrelevant, ignore)
    held = parsing.read_json(path)
    if not isinstance(held, Mapping) or not {"images", "annotations", "categories"} <= held.keys():
        raise CorruptData(f"{path}: {LAYOUT}")
    try:
        return Annotations(_marks(held, labels, overlap), conflict=conflict)
    except CorruptData as error:
        raise CorruptData(f"{path}: {error}") from error


def _marks(held: Mapping[str, Any], labels: Labels, overlap: Overlap) -> Iterator[tuple[str, Marks]]:
    images, categories = _images(held["images"]), _categories(held["categories"])
    drawn = [parsing.table(item, "an annotation") for item in parsing.rows(held["annotations"], "annotations")]
    used = [_known(categories, item, "category_id") for item in drawn]
    kinds = labels.kinds(used, categories.values(), "the file")
    by_image: dict[int, list[tuple[Mapping[str, Any], Kind]]] = {}
    for item, label in zip(drawn, used, strict=True):
        _known(images, item, "image_id")
        if (kind := kinds[label]) is not None:
            by_image.setdefault(item["image_id"], []).append((item, kind))
    for number, items in by_image.items():
        image = images[number]
        masks: dict[Kind, list[Region]] = {}
        for item, kind in items:
            masks.setdefault(kind, []).append(_region(item, image, overlap))
        yield image.name, Marks(**{kind: mask_of(*regions) for kind, regions in masks.items()})


def _images(listed: Any) -> dict[int, _Image]:
    images: dict[int, _Image] = {}
    for item in parsing.rows(listed, "images"):
        number = parsing.whole(parsing.table(item, "an image").get("id"), "the id of an image")
        told = f"image {number}"
        if number in images:
            raise CorruptData(f"{told} is in the file twice")
        name = parsing.text(item.get("file_name"), f"the file_name of {told}")
        height, width = (parsing.side(item.get(key), f"the {key} of {name}") for key in ("height", "width"))
        images[number] = _Image(name, (height, width))
    return images


def _categories(listed: Any) -> dict[int, str]:
    categories: dict[int, str] = {}
    for item in parsing.rows(listed, "categories"):
        number = parsing.whole(parsing.table(item, "a category").get("id"), "the id of a category")
        if number in categories:
            raise CorruptData(f"category {number} is in the file twice")
        categories[number] = parsing.text(item.get("name"), f"the name of category {number}")
    return categories


def _known(entries: Mapping[int, T], item: Mapping[str, Any], key: str) -> T:
    """The image or category that an annotation belongs to."""
    number = item.get(key)
    if not isinstance(number, int) or number not in entries:
        raise CorruptData(f"{_told(item)} has {key} {number!r}, which the file does not list")
    return entries[number]


def _told(item: Mapping[str, Any]) -> str:
    return f"annotation {item.get('id', 'without an id')}"


def _region(item: Mapping[str, Any], image: _Image, overlap: Overlap) -> Region:
    told = f"{_told(item)} of {image.name}"
    shape = item.get("segmentation")
    if isinstance(shape, Mapping):
        return _from_rle(shape, image.size, told)
    if shape:
        return _from_polygons(parsing.rows(shape, f"polygons in {told}"), image.size, told, overlap)
    if item.get("bbox") is None:
        raise CorruptData(f"{told} has neither a segmentation nor a bbox")
    return _from_box(item["bbox"], image.size, told)


def _from_rle(shape: Mapping[str, Any], size: Size, told: str) -> Region:
    own = [parsing.whole(side, f"the size of {told}") for side in parsing.rows(shape.get("size"), f"sides in {told}")]
    if tuple(own) != size:
        raise CorruptData(f"{told} is {'x'.join(map(str, own))}, but its image is {size[0]}x{size[1]} (height x width)")
    counts = shape.get("counts")
    try:
        runs = (
            from_text(counts)
            if isinstance(counts, str)
            else [parsing.whole(run, "a run length") for run in parsing.rows(counts, "run lengths")]
        )
        return from_runs(runs, size)
    except CorruptData as error:
        raise CorruptData(f"{told}: {error}") from error


def _from_polygons(shape: Sequence[Any], size: Size, told: str, overlap: Overlap) -> Region:
    rings = [parsing.points(ring, f"a polygon of {told}") for ring in shape]
    corners = np.array([point for ring in rings for point in ring])
    _check_inside(*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist(), size=size, told=told)
    if overlap == "even-odd":
        return polygon(rings, size)
    return np.asarray(np.logical_or.reduce([polygon([ring], size) for ring in rings]), np.bool_)


def _from_box(shape: Any, size: Size, told: str) -> Region:
    sides = [
        parsing.number(side, f"the bbox of {told}") for side in parsing.rows(shape, f"numbers for a bbox in {told}")
    ]
    if len(sides) != 4 or min(sides[2:]) < 0:
        raise CorruptData(f"expected a bbox [x, y, width, height] for {told}, got {sides}")
    left, top, width, height = sides
    _check_inside(left, top, left + width, top + height, size=size, told=told)
    return box((left, top), width, height, size)


def _check_inside(left: float, top: float, right: float, bottom: float, *, size: Size, told: str) -> None:
    """Refuse what lies wholly outside, as masks of larger images do; what only sticks out is cut off."""
    if left >= size[1] or top >= size[0] or right < 0 or bottom < 0:
        raise CorruptData(f"{told} lies outside of its image, which is {size[0]}x{size[1]} (height x width)")


def write_coco(annotations: Annotations, path: Path | str, *, form: Form = "rle", threshold: float = 0.5) -> None:
    """Write COCO's JSON with the categories relevant and irrelevant, one annotation an image and kind.

    Read again, masks of 0 and 1 are the same bit for bit; COCO has no shares, so of others the pixels of at least
    ``threshold`` are marked.

    Args:
        annotations: What to write.
        path: The file; one that stands there is replaced.
        form: ``rle`` for compressed run lengths, or ``polygon`` for outlines, where a hole hangs on its outline by a
            cut; an empty mask is an ``rle`` either way.
        threshold: Share from which on a pixel is marked.

    Raises:
        ValueError: No such form, or a threshold that is not above 0 and at most 1.
        NotWritten: A full disk, for example.
    """
    if form not in get_args(Form):
        raise ValueError(f"expected form {' or '.join(get_args(Form))}, got {form!r}")
    if not 0 < threshold <= 1:
        raise ValueError(f"expected a threshold above 0 and at most 1, got {threshold}")
    images: list[dict[str, Any]] = []
    drawn: list[dict[str, Any]] = []
    for number, name in enumerate(annotations, start=1):
        height, width = annotations.size(name)
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        marks = annotations[name]
        for category, kind in enumerate(KINDS, start=1):
            mask = marks.of(kind)
            if mask is not None:
                own = {"id": len(drawn) + 1, "image_id": number, "category_id": category}
                drawn.append(own | _shape((mask[0] >= threshold).numpy(), form))
    categories = [{"id": number, "name": kind} for number, kind in enumerate(KINDS, start=1)]
    held = {"images": images, "annotations": drawn, "categories": categories}
    try:
        Path(path).write_text(json.dumps(held), encoding="utf-8")
    except OSError as error:
        raise NotWritten(f"cannot write {path}: {error.strerror or error}") from error


def _shape(region: Region, form: Form) -> dict[str, Any]:
    if form == "polygon" and region.any():
        shape: Any = [[side for corner in ring for side in corner] for ring in outlines(region)]
    else:
        shape = {"size": list(region.shape), "counts": to_text(to_runs(region))}
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    bbox = [0, 0, 0, 0]
    if len(rows):
        left, top = int(columns[0]), int(rows[0])
        bbox = [left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top]
    return {"segmentation": shape, "area": int(region.sum()), "bbox": bbox, "iscrowd": 0}
