"""Annotations in whatever form they come."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from rightreasons.core import CorruptData
from rightreasons.data.masks import parsing
from rightreasons.data.masks.annotations import KINDS, Annotations, Conflict
from rightreasons.data.masks.coco import read_coco
from rightreasons.data.masks.label_studio import Agreement, read_label_studio
from rightreasons.data.masks.labels import Labels
from rightreasons.data.masks.png import read_png

log = logging.getLogger(__name__)


def read_annotations(
    path: Path | str,
    *,
    relevant: Sequence[str] | None = None,
    irrelevant: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    conflict: Conflict = "keep",
    agreement: Agreement = "union",
) -> Annotations:
    """The annotations of a COCO file, a Label Studio export or a folder of PNG masks, whichever it is.

    Where every mask of a kind is blank, a warning says how many they are.

    Args:
        path: The file or folder.
        relevant: Labels (of a folder: folders) of what a model should look at; the usual names by default.
        irrelevant: Labels of what it should not.
        ignore: Labels that say nothing about it; ``*`` for all others. Folders of other names are ignored anyhow.
        conflict: What becomes of a pixel marked as both: ``keep`` it so, or ``error``.
        agreement: Of several annotators in Label Studio: ``union``, or ``majority``.

    Raises:
        DataUnavailable: There is no such file or folder.
        CorruptData: It is of none of these forms, or damaged.
    """
    annotations = _read(path, Labels(relevant, irrelevant, ignore), conflict, agreement)
    for kind, count in annotations.blank().items():
        log.warning("all %d %s masks of %s are blank: no pixel is marked in them", count, kind, path)
    return annotations


def _read(path: Path | str, named: Labels, conflict: Conflict, agreement: Agreement) -> Annotations:
    relevant, irrelevant, ignore = named.relevant, named.irrelevant, named.ignore
    if Path(path).is_dir():
        return read_png(path, relevant=relevant or KINDS[:1], irrelevant=irrelevant or KINDS[1:], conflict=conflict)
    held = parsing.read_json(path)
    if isinstance(held, Mapping) and "annotations" in held and "images" in held:
        return read_coco(path, relevant=relevant, irrelevant=irrelevant, ignore=ignore, conflict=conflict)
    if isinstance(held, list):
        return read_label_studio(
            path, relevant=relevant, irrelevant=irrelevant, ignore=ignore, conflict=conflict, agreement=agreement
        )
    raise CorruptData(f"{path} is neither COCO's JSON nor an export of Label Studio")
