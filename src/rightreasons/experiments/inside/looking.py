"""Show a network some images and write down what lies inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.core import BadModel
from rightreasons.experiments.inside.asked import FeatureSettings, Looked, cell_of, look_at
from rightreasons.experiments.inside.measures import BlockView, LayerView, joined
from rightreasons.experiments.record import Record, environment, make_record
from rightreasons.experiments.reveal.sample import origin
from rightreasons.experiments.run import accelerator_for, make_folder
from rightreasons.experiments.subject import Subject
from rightreasons.models import (
    AdaptedClassifier,
    AttentionBlock,
    Inside,
    LayerOutput,
    PositionAttention,
    check_layers,
    inside,
    layer_outputs,
    layers_with_maps,
)
from rightreasons.models.checkpoints import write_whole
from rightreasons.training import modes_kept

FEATURES, RAW = "features.json", "features.safetensors"
# A pass holds the maps of all chosen layers.
CHUNK = 8


@dataclass(frozen=True, eq=False)
class InsideView:
    """What lies inside a network for some images; everything on the CPU.

    Attributes:
        looked: The images.
        probabilities: Of all classes.
        layers: The chosen ones.
        blocks: All attention blocks.
        settings: What was asked.
        classes: Names of the classes.
        pixel_range: Of the images.
        record: As it was written.
    """

    looked: Looked
    probabilities: Float[Tensor, "images classes"]
    layers: tuple[LayerView, ...]
    blocks: tuple[BlockView, ...]
    settings: FeatureSettings
    classes: tuple[str, ...]
    pixel_range: tuple[float, float]
    record: Record = field(default_factory=lambda: make_record("features", {}, {}))


def offered(subject: Subject, device: str = "auto") -> list[tuple[LayerOutput, bool]]:
    """All layers that run, what they give for an image, and which are shown unless others are named."""
    model = subject.model.to(accelerator_for(device).device)
    outputs = _outputs(model, subject.data.batch(torch.zeros(1, dtype=torch.long)).inputs)
    try:
        chosen = layers_with_maps(model, outputs)
    except BadModel:
        # An MLP, for one, has layers to list and none to show.
        chosen = []
    return [(output, output.name in chosen) for output in outputs]


def look_inside(subject: Subject, settings: FeatureSettings, out: Path, *, device: str = "auto") -> InsideView:
    """Record the maps and the attention; the raw ones go to ``out/features.safetensors``, the rest to the record.

    Args:
        subject: The model and its images.
        settings: What is asked.
        out: Folder to write ``features.json`` and the raw maps into.
        device: Where it runs.

    Raises:
        ValueError: See :class:`FeatureSettings`; or a pixel that asks is not in the image, or nothing can be asked.
        BadModel: A layer has no maps of places, see :func:`rightreasons.models.check_layers`.
    """
    where = accelerator_for(device).device
    model = subject.model.to(where)
    looked = look_at(subject.data, settings)
    outputs = _outputs(model, looked.inputs[:1])
    if settings.layers:
        check_layers(model, outputs, settings.layers)
    layers = settings.layers or tuple(layers_with_maps(model, outputs))
    settings = replace(settings, layers=layers, queries=_queries(model, settings, looked))
    found = _passes(model, looked.inputs, layers)
    make_folder(out)
    view = _viewed(found, outputs, subject, settings, looked)
    _write_raw(view, out)
    record = make_record(
        "features", {**asdict(settings), **origin(subject)}, _results(view), environment=environment(str(where))
    )
    record.write(out / FEATURES)
    return replace(view, record=record)


def _outputs(model: AdaptedClassifier, inputs: Tensor) -> tuple[LayerOutput, ...]:
    where = next(model.parameters(), inputs).device
    return layer_outputs(model, inputs.to(where))


def _queries(model: AdaptedClassifier, settings: FeatureSettings, looked: Looked) -> tuple[tuple[int, int], ...]:
    """The pixels that ask; the middle unless others are named, and none where no block is asked."""
    height, width = looked.inputs.shape[2:]
    asked = any(isinstance(module, PositionAttention) for module in model.network.modules())
    if settings.queries and not asked:
        blocks = sorted({type(m).__name__ for m in model.network.modules() if isinstance(m, AttentionBlock)})
        has = f"the network has {', '.join(blocks)} only" if blocks else "the network has no attention block"
        raise ValueError(f"a pixel asks a PositionAttention block, and {has}: leave the query out")
    for query in settings.queries:
        cell_of(query, (height, width), (height, width))
    return settings.queries or (((width // 2, height // 2),) if asked else ())


def _passes(model: AdaptedClassifier, inputs: Tensor, layers: Sequence[str]) -> Inside:
    """All images, some at a time."""
    where = next(model.parameters(), inputs).device
    with modes_kept(model):
        model.eval()
        chunks: list[Tensor] = [torch.arange(i, min(i + CHUNK, len(inputs))) for i in range(0, len(inputs), CHUNK)]
        parts = [inside(model.rows(rows), inputs[rows].to(where), layers) for rows in chunks]
    return Inside(
        torch.cat([part.logits.cpu() for part in parts]),
        {name: torch.cat([part.maps[name].float().cpu() for part in parts]) for name in layers},
        {name: joined([part.attention[name] for part in parts]) for name in parts[0].attention},
    )


def _viewed(
    found: Inside, outputs: Sequence[LayerOutput], subject: Subject, settings: FeatureSettings, looked: Looked
) -> InsideView:
    known = {output.name: output for output in outputs}
    size = (looked.inputs.shape[2], looked.inputs.shape[3])
    layers = [LayerView(name, known[name].kind, maps, known[name].rectified) for name, maps in found.maps.items()]
    return InsideView(
        looked=looked,
        probabilities=found.logits.float().softmax(dim=1),
        layers=tuple(layers),
        blocks=tuple(BlockView(name, told, size, settings.queries) for name, told in found.attention.items()),
        settings=settings,
        classes=tuple(subject.data.classes),
        pixel_range=subject.data.pixel_range,
    )


def _write_raw(view: InsideView, out: Path) -> None:
    raw = {f"maps.{layer.name}": layer.maps.contiguous() for layer in view.layers}
    for block in view.blocks:
        raw |= {f"attention.{block.name}.{k}": v.contiguous() for k, v in block.attention.weights.items()}
    write_whole(out / RAW, safetensors.torch.save(raw))


def _results(view: InsideView) -> dict[str, Any]:
    return {
        "layers": {layer.name: layer.told(view.settings.maps) for layer in view.layers},
        "attention": {block.name: block.told() for block in view.blocks},
        "images": [_told(view, row) for row in range(len(view.looked.names))],
    }


def _told(view: InsideView, row: int) -> Mapping[str, Any]:
    looked, (chance, best) = view.looked, view.probabilities[row].max(dim=0)
    return {
        "name": looked.names[row],
        "position": None if looked.index is None else int(looked.index[row]),
        "truth": None if looked.truth is None else view.classes[int(looked.truth[row])],
        "predicted": view.classes[int(best)],
        "probability": float(chance),
        "attention": {block.name: block.told_of(row) for block in view.blocks},
    }
