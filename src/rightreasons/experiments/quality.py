"""How good the explanations of a subject are, written down."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from rightreasons.attribution import ATTRIBUTIONS
from rightreasons.experiments.explain import Target
from rightreasons.experiments.record import Record, environment, make_record
from rightreasons.experiments.run import accelerator_for, make_folder
from rightreasons.experiments.subject import Subject
from rightreasons.metrics import METRICS, QualityTable, evaluate_attributions

QUALITY = "quality.json"
QUICK = ("deletion", "insertion", "max_sensitivity", "parameter_randomization", "sparseness")
"""What is measured unless told otherwise: faithfulness twice, stability, a sanity check, complexity.

Not where a map lies: masks say what the model should look at, so an explainer that shows a model's cheating would come
out worst.
"""


@dataclass(frozen=True)
class QualitySettings:
    """What to evaluate.

    Attributes:
        methods: Names of explainers.
        metrics: Names of measures; none takes a quick set.
        images: How many images, drawn at random.
        target: ``predicted`` or ``true``: the class that is explained.
        batch_size: Images at a time.
        seed: Of the draw, the random control and the intervals.

    Raises:
        ValueError: An unknown name, no method, no image, or another target.
    """

    methods: tuple[str, ...] = ("saliency", "integrated_gradients", "grad_cam")
    metrics: tuple[str, ...] = ()
    images: int = 64
    target: Target = "predicted"
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        if self.target not in get_args(Target):
            raise ValueError(f"expected target {' or '.join(get_args(Target))}, got {self.target!r}")
        if not self.methods or self.images < 1 or self.batch_size < 1:
            counts = f"{len(self.methods)}, {self.images} and {self.batch_size}"
            raise ValueError(f"expected methods, images and a batch size of at least 1, got {counts}")
        for catalogue, names in ((ATTRIBUTIONS, self.methods), (METRICS, self.metrics)):
            for name in names:
                catalogue[name]


def assess(
    subject: Subject, settings: QualitySettings, out: Path, *, device: str = "auto", progress: bool = False
) -> tuple[QualityTable, Record]:
    """Evaluate explainers on a subject; the table goes to ``out/quality.json`` as a record."""
    make_folder(out)
    where = accelerator_for(device).device
    metrics = settings.metrics or QUICK
    table = evaluate_attributions(
        subject.model.to(where),
        subject.data,
        settings.methods,
        metrics,
        target=settings.target,
        images=settings.images,
        batch_size=settings.batch_size,
        seed=settings.seed,
        progress=progress,
    )
    origin = {"run": subject.run.record.key} if subject.run is not None else {}
    config = {**asdict(settings), "metrics": metrics, "data": subject.data.name, **origin}
    config["model"] = repr(subject.model.network)
    record = make_record("evaluate", config, json.loads(table.to_json()), environment=environment(str(where)))
    record.write(out / QUALITY)
    return table, record


def read_quality(path: str | Path) -> QualityTable:
    """The table in a record of ``assess``.

    Raises:
        CorruptData: The file holds no such record.
    """
    return QualityTable.from_json(json.dumps(Record.read(path).results))
