"""Annotations as Label Studio exports them (its JSON, not JSON-MIN)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from rightreasons.core import CorruptData
from rightreasons.data.folder import SUFFIXES
from rightreasons.data.masks import parsing
from rightreasons.data.masks.annotations import LEVELS, Annotations, Conflict, Kind, Marks
from rightreasons.data.masks.labels import Labels
from rightreasons.data.masks.raster import Size, box, ellipse, polygon, stroke
from rightreasons.data.masks.rle import unpack_brush

Agreement = Literal["union", "majority"]
Mask = NDArray[np.float32]
USUAL = ("image", "img")
CHANNELS = 4
PER_CENT = 100
# Uploaded files get eight hexadecimal digits before their names.
SHAPES = {"x", "points", "rle", "vertices", "imageDataURL"}
UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")


class _Drawn(NamedTuple):
    """One region: what was drawn, with its labels."""

    value: Mapping[str, Any]
    labels: tuple[str, ...]
    size: Size
    told: str


class _Task(NamedTuple):
    """One image with the regions of each of its annotators."""

    name: str
    annotators: list[list[_Drawn]]
    told: str


def read_label_studio(
    path: Path | str,
    *,
    relevant: Sequence[str] | None = None,
    irrelevant: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    conflict: Conflict = "keep",
    agreement: Agreement = "union",
) -> Annotations:
    """The annotations of a Label Studio export: brush, polygon, rectangle, ellipse and key point labels.

    Names are those of the images as they were uploaded, without the digits that Label Studio puts before them; of a
    link the path. Canceled annotations and predictions are left out. A key point is a dot as wide as it was shown.

    Args:
        path: The exported JSON.
        relevant: Labels of what a model should look at, see :class:`~rightreasons.data.masks.labels.Labels`.
        irrelevant: Labels of what it should not.
        ignore: Labels that say nothing about it; ``*`` for all others.
        conflict: What becomes of a pixel marked as both: ``keep`` it so, or ``error``.
        agreement: Of several annotators of an image: ``union`` takes what any of them marked, ``majority`` what more
            than half of them did; who submitted an annotation without regions counts.

    Raises:
        DataUnavailable: There is no such file.
        CorruptData: It is no such file, or one that contradicts itself; the message names the task.
    """
    if agreement not in get_args(Agreement):
        raise ValueError(f"expected agreement {' or '.join(get_args(Agreement))}, got {agreement!r}")
    labels = Labels(relevant, irrelevant, ignore)
    held = parsing.read_json(path)
    try:
        tasks = [_task(item) for item in _listed(held)]
        used = [label for task in tasks for regions in task.annotators for drawn in regions for label in drawn.labels]
        kinds = labels.kinds(used, (), "the export")
        return Annotations(
            ((task.name, marks) for task in tasks if (marks := _marks(task, kinds, agreement))), conflict=conflict
        )
    except CorruptData as error:
        raise CorruptData(f"{path}: {error}") from error


def _listed(held: Any) -> Sequence[Any]:
    tasks = parsing.rows(held, "tasks, as Label Studio exports them")
    if tasks and not (isinstance(tasks[0], Mapping) and "data" in tasks[0]):
        raise CorruptData('expected tasks with "data" and "annotations": export as JSON, not as JSON-MIN')
    return tasks


def _task(item: Any) -> _Task:
    held = parsing.table(item, "a task")
    told = f"task {held.get('id', 'without an id')}"
    submitted = held.get("annotations", held.get("completions"))
    annotators = [
        _regions(one.get("result"), told)
        for one in (
            parsing.table(value, "an annotation") for value in parsing.rows(submitted, f"annotations in {told}")
        )
        if not one.get("was_cancelled")
    ]
    sizes = {drawn.size for regions in annotators for drawn in regions}
    if len(sizes) > 1:
        raise CorruptData(f"{told} has regions of images of {len(sizes)} sizes")
    return _Task(_image_name(parsing.table(held.get("data"), f"the data of {told}"), told), annotators, told)


def _regions(result: Any, told: str) -> list[_Drawn]:
    """What an annotator drew; where shape and label are two entries of one id, that with the label counts."""
    items = [parsing.table(item, "a result") for item in parsing.rows(result, f"results in {told}")]
    shown = [(item, value) for item in items if (value := _shape(item.get("value")))]
    labeled = {item.get("id") for item, value in shown if _labels(value)}
    regions = []
    for item, value in shown:
        where = f"region {item.get('id', 'without an id')} of {told}"
        labels = _labels(value)
        if labels:
            regions.append(_Drawn(value, labels, _size(item, where), where))
        elif item.get("id") not in labeled:
            raise CorruptData(f"{where} has no label")
    return regions


def _shape(value: Any) -> Mapping[str, Any] | None:
    """What was drawn; ``None`` for other results, such as choices, texts and ratings."""
    drawn = isinstance(value, Mapping) and SHAPES & value.keys()
    return value if drawn else None


def _labels(value: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(
        parsing.text(label, "a label")
        for key, listed in value.items()
        if key.endswith("labels")
        for label in parsing.rows(listed, f"texts for {key}")
    )


def _size(item: Mapping[str, Any], told: str) -> Size:
    if item.get("image_rotation"):
        raise CorruptData(
            f"{told} was drawn on the image turned by {item['image_rotation']} degrees: turn it back first"
        )
    height, width = (parsing.side(item.get(f"original_{key}"), f"the {key} of {told}") for key in ("height", "width"))
    return height, width


def _marks(task: _Task, kinds: Mapping[str, Kind | None], agreement: Agreement) -> Marks | None:
    """The masks of a task; ``None`` if nothing was marked."""
    masks: dict[Kind, list[Mask]] = {}
    for regions in task.annotators:
        own: dict[Kind, Mask] = {}
        for drawn in regions:
            for kind in {kind for label in drawn.labels if (kind := kinds[label]) is not None}:
                region = _mask(drawn)
                own[kind] = np.maximum(own[kind], region) if kind in own else region
        for kind, mask in own.items():
            masks.setdefault(kind, []).append(mask)
    agreed = {kind: _agreed(drawn, len(task.annotators), agreement) for kind, drawn in masks.items()}
    return Marks(agreed.get("relevant"), agreed.get("irrelevant")) if agreed else None


def _agreed(masks: Sequence[Mask], annotators: int, agreement: Agreement) -> Float[Tensor, "1 height width"]:
    stack = torch.from_numpy(np.stack(masks))
    if agreement == "union" or annotators == 1:
        return stack.amax(dim=0, keepdim=True)
    return (2 * (stack >= 0.5).sum(dim=0, keepdim=True) > annotators).to(torch.float32)


def _mask(drawn: _Drawn) -> Mask:
    value, told = drawn.value, drawn.told
    if "rle" in value:
        return _brush(value["rle"], drawn.size, told)
    if "points" in value:
        listed = parsing.rows(value["points"], f"corners for {told}")
        flat = [side for point in listed for side in parsing.rows(point, f"x and y in {told}")]
        corners = parsing.points(flat, told)
        scaled = [(_pixels(x, drawn.size[1]), _pixels(y, drawn.size[0])) for x, y in corners]
        return polygon([scaled], drawn.size).astype(np.float32)
    return _simple(value, drawn.size, told).astype(np.float32)


def _simple(value: Mapping[str, Any], size: Size, told: str) -> NDArray[np.bool_]:
    """Rectangle, ellipse or key point; sides are in per cent of the image's."""

    def side(key: str, whole: int) -> float:
        return _pixels(parsing.number(value.get(key), f"{key} of {told}"), whole)

    height, width = size
    rotation = parsing.number(value.get("rotation", 0), f"the rotation of {told}")
    if "x" not in value:
        raise CorruptData(
            f"{told} is of a form that is not known: draw brush, polygon, rectangle, ellipse or key point"
        )
    place = (side("x", width), side("y", height))
    if "radiusX" in value:
        return ellipse(place, side("radiusX", width), side("radiusY", height), size, rotation=rotation)
    if "height" in value:
        return box(place, side("width", width), side("height", height), size, rotation=rotation)
    # At least the pixel that it lies in.
    return stroke([place], max(side("width", width), math.sqrt(2)), size)


def _pixels(share: float, whole: int) -> float:
    return share * whole / PER_CENT


def _brush(code: Any, size: Size, told: str) -> Mask:
    """The alpha channel of what a brush packed."""
    listed = parsing.rows(code, f"bytes for the brush of {told}")
    try:
        data = bytes(listed)
    except (TypeError, ValueError) as error:
        raise CorruptData(f"expected whole numbers from 0 to 255 for the brush of {told}: {error}") from error
    try:
        values = unpack_brush(data, size[0] * size[1] * CHANNELS)
    except CorruptData as error:
        raise CorruptData(f"{told}, an image of {size[0]}x{size[1]}: {error}") from error
    alpha = values.reshape(*size, CHANNELS)[..., -1]
    return np.asarray(alpha / np.float32(LEVELS), np.float32).clip(0, 1)


def _image_name(data: Mapping[str, Any], told: str) -> str:
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    usual = [key for key in texts if key in USUAL]
    links = usual[:1] or [key for key, value in texts.items() if Path(file_of(value)).suffix.lower() in SUFFIXES]
    if not links:
        raise CorruptData(f"{told} names no image file in its data, which has: {', '.join(data) or 'nothing'}")
    if len(links) > 1:
        raise CorruptData(f"{told} names {len(links)} image files ({', '.join(links)}): expected one, called image")
    return file_of(texts[links[0]])


def file_of(link: str) -> str:
    """The image file that a link of Label Studio leads to.

    Of an upload the name without the digits before it, of a local file its path, of another link its path.
    """
    parts = urlsplit(link.replace("\\", "/"))
    if parts.path.endswith("/local-files/") and (local := parse_qs(parts.query).get("d")):
        return local[0]
    path = unquote(parts.path)
    if "/upload/" in path:
        return UPLOADED.sub("", path.rpartition("/")[2])
    return path.strip("/")
