"""Is a baseline of the other class worth it? Maps of the prediction against the runner-up, judged by deletion.

    python benchmarks/contrastive_baselines.py --data mnist --model lenet --epochs 4 --images 500 --out contrastive.json

Integrated gradients and DeepLIFT explain by how much the prediction leads the runner-up, from four baselines: black,
the blurred image, the nearest training image of the runner-up, and one generated from the image. Pixels are then
replaced, those that speak most for the prediction first; a map is good if the lead is soon gone. What is printed is the
area under "still ahead" (the mean share of pixels that had to be replaced, in per cent) and that under the lead itself;
low is good.

Pixels replaced by the baseline of a map favor that map (marked *), so every map is judged under every replacement, and
under two that no map begins at: uniform noise, and the nearest *held-out* test image of the runner-up, which is akin to
the nearest training image. The verdicts, a plain baseline against one of the class, count only replacements that belong
to neither. Controls: a random map; the mere difference from the nearest and the generated image, which asks the model
nothing; and the gradient of the lead, which has no baseline.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rightreasons.attribution import (
    Baseline,
    BlurredBaseline,
    ClassBaseline,
    ConstantBaseline,
    DeepLIFT,
    IntegratedGradients,
    Saliency,
    UniformBaseline,
)
from rightreasons.core import Batch
from rightreasons.counterfactuals import runner_up
from rightreasons.data.dataset import stream
from rightreasons.experiments import (
    DataConfig,
    ModelConfig,
    Question,
    Resources,
    RunConfig,
    TrainingConfig,
    open_subject,
    train,
)
from rightreasons.experiments.baselines import NamedBaselines
from rightreasons.experiments.subject import Subject
from rightreasons.metrics import Estimate, bootstrap
from rightreasons.metrics.counterfactual import distances
from rightreasons.metrics.faithfulness import Deletion
from rightreasons.metrics.faithfulness.responses import Responses
from rightreasons.models import contrast

METHODS = {"IG": IntegratedGradients, "DeepLIFT": DeepLIFT}
PLAIN, TARGETED = ("black", "blurred"), ("nearest", "generated")
READINGS = {"ahead": "correct", "lead": "logit"}
BLUR = 5 / 28
"""Standard deviation of the blur over the side of an image: strokes are gone."""
CHUNK = 100


@dataclass(frozen=True, eq=False)
class Case:
    """Images, the class that each is taken for, the runner-up, and what stands for an image."""

    subject: Subject
    batch: Batch
    other: Tensor
    baselines: Mapping[str, Baseline]
    neutral: Mapping[str, Baseline]


def opened(asked: argparse.Namespace, folder: Path) -> Case:
    """A trained network and some test images; the others are held out to replace by."""
    config = RunConfig(
        data=DataConfig(asked.data), model=ModelConfig(asked.model), training=TrainingConfig(epochs=asked.epochs)
    )
    resources = Resources("cpu", progress=False)
    run = train(config, folder, resources)
    subject = open_subject(run.out, Question(), resources)
    order = torch.randperm(len(subject.data), generator=stream(asked.seed, "contrastive baselines"))
    shown, rest = (subject.data.batch(rows) for rows in (order[: asked.images], order[asked.images :]))
    low, high = subject.data.pixel_range
    with torch.no_grad():
        predicted = subject.model(shown.inputs).argmax(dim=1)
    # The names are those of the command line; the class of each image is the contrast's.
    named = NamedBaselines(subject, 0)
    blurred = BlurredBaseline(BLUR * max(subject.data.shape[1:]))
    baselines = {"black": ConstantBaseline(low), "blurred": blurred, **{name: named.of(name) for name in TARGETED}}
    neutral = {"noise": UniformBaseline(low, high), "held-out": ClassBaseline(rest.inputs, rest.target)}
    batch = Batch(inputs=shown.inputs, target=predicted)
    return Case(subject, batch, runner_up(subject.model, shown.inputs), baselines, neutral)


def maps_of(case: Case, seed: int) -> dict[str, Tensor]:
    """The maps by their names, each "method, baseline"."""
    rival, inputs, target = contrast(case.subject.model, case.other), case.batch.inputs, case.batch.target
    draws = torch.Generator().manual_seed(seed)
    found = {"random": torch.rand(inputs[:, :1].shape, generator=draws)}
    found["gradient"] = Saliency()(rival, inputs, target).detach()
    with torch.no_grad():
        for name in TARGETED:
            (start,) = case.baselines[name].facing(rival, inputs)
            found[f"difference, {name}"] = (inputs - start).abs().sum(dim=1, keepdim=True)
        for title, method in METHODS.items():
            for name, baseline in case.baselines.items():
                found[f"{title}, {name}"] = method(baseline=baseline)(rival, inputs, target)
    return found


def areas(case: Case, maps: Mapping[str, Tensor], steps: int) -> dict[str, dict[str, dict[str, Tensor]]]:
    """One number an image by reading, map and replacement."""
    responses = Responses(contrast(case.subject.model, case.other), case.batch)
    found: dict[str, dict[str, dict[str, Tensor]]] = {reading: {name: {} for name in maps} for reading in READINGS}
    for reading, score in READINGS.items():
        for replacement, baseline in {**case.baselines, **case.neutral}.items():
            metric = Deletion(steps, score=score, baseline=baseline)
            for name, heatmap in maps.items():
                found[reading][name][replacement] = metric.with_responses(responses, heatmap)
    return found


def starts(case: Case) -> dict[str, dict[str, Estimate]]:
    """Of the images of the other class: how many the model takes for it, and how far they are from the originals."""
    rival, found = contrast(case.subject.model, case.other), {}
    for name in TARGETED:
        (images,) = case.baselines[name].facing(rival, case.batch.inputs)
        gaps = distances(case.batch.inputs, images, pixel_range=case.subject.data.pixel_range)
        with torch.no_grad():
            taken = case.subject.model(images).argmax(dim=1) == case.other
        found[name] = {"taken": bootstrap(taken.double()), "l2": bootstrap(gaps.l2), "l1": bootstrap(gaps.l1)}
    return found


def verdicts(ahead: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Estimate]:
    """By how much fewer pixels (paired, in per cent) suffice than with a plain one, under what belongs to neither."""
    found = {}
    for title, name, plain in product(METHODS, TARGETED, PLAIN):
        one, other = ahead[f"{title}, {name}"], ahead[f"{title}, {plain}"]
        for replacement in one:
            if replacement not in (name, plain):
                gain = 100 * (other[replacement] - one[replacement]).double()
                found[f"{title}, {name} over {plain}, by {replacement}"] = bootstrap(gain)
    return found


def parts(case: Case) -> list[Case]:
    """The images in chunks."""
    rows = torch.split(torch.arange(len(case.other)), CHUNK)
    return [Case(case.subject, case.batch[row], case.other[row], case.baselines, case.neutral) for row in rows]


def measured(case: Case, *, steps: int, seed: int) -> dict[str, dict[str, dict[str, Tensor]]]:
    """All areas of all images."""
    each = [areas(part, maps_of(part, seed + number), steps) for number, part in enumerate(parts(case))]
    return joined(each)


def joined(each: Sequence[Any]) -> Any:
    """The tensors of all chunks, wherever they lie."""
    if isinstance(each[0], Tensor):
        return torch.cat(list(each))
    return {key: joined([part[key] for part in each]) for key in each[0]}


def shown(found: Mapping[str, Mapping[str, Estimate]], unit: float, title: str) -> None:
    """A table: a row a map, a column a replacement, half the width of the interval behind each mean."""
    columns = list(next(iter(found.values())))
    print(f"\n{title:24}" + "".join(f"{'by ' + name:>16}" for name in columns))
    for name, row in found.items():
        own = name.rpartition(", ")[2]
        cells = [
            f"{unit * cell.value:.1f}+-{unit * (cell.high - cell.low) / 2:.1f}{'*' if by == own else ' '}"
            for by, cell in row.items()
        ]
        print(f"{name:24}" + "".join(f"{text:>16}" for text in cells))


def told(estimate: Estimate) -> str:
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"


def main(given: Sequence[str] | None = None) -> dict[str, object]:
    """Measure, print, and write what was printed."""
    asked = arguments(given)
    torch.set_num_threads(asked.threads)
    case = opened(asked, asked.run or Path("runs") / "contrastive" / f"{asked.data}-{asked.model}-{asked.epochs}")
    print(f"{asked.data}, {asked.model}: {len(case.other)} test images, the prediction against the runner-up")
    begun = starts(case)
    for name, row in begun.items():
        numbers = ", ".join(f"{key} {told(estimate)}" for key, estimate in row.items())
        print(f"{name:10} {numbers} (taken for the runner-up by the model; L2 and L1 from the image)")
    found = measured(case, steps=asked.steps, seed=asked.seed)
    ahead, lead = estimates(found["ahead"]), estimates(found["lead"])
    shown(ahead, 100, "still ahead, %")
    shown(lead, 1, "lead, logits")
    gains = verdicts(found["ahead"])
    print("\npixels saved, in points of per cent; above 0 the baseline of the class is the better one")
    for name, estimate in gains.items():
        print(f"  {name:46}{told(estimate)}")
    setting = {key: str(value) for key, value in vars(asked).items() if key != "out"}
    figures = {"baselines": begun, "verdicts": gains, "ahead": ahead, "lead": lead}
    record = {"setting": setting, **plainly(figures)}
    if asked.out:
        asked.out.write_text(json.dumps(record, indent=1) + "\n")
    return record


def estimates(maps: Mapping[str, Mapping[str, Tensor]]) -> dict[str, dict[str, Estimate]]:
    return {name: {by: bootstrap(values.double()) for by, values in row.items()} for name, row in maps.items()}


def plainly(value: Any) -> Any:
    """Estimates as numbers, for JSON."""
    return asdict(value) if isinstance(value, Estimate) else {key: plainly(inside) for key, inside in value.items()}


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--steps", type=int, default=28, help="steps from the whole image to none of it")
    parser.add_argument("--seed", type=int, default=0, help="of the images drawn and the random map")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--run", type=Path, help="folder of the network; trained there if it is not")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    return parser.parse_args(given)


if __name__ == "__main__":
    main()
