"""What the perturbation methods cost, ours beside captum and lime, as a multiple of the network's own passes.

    python benchmarks/perturbation.py --rounds 5 --threads 1 --out perturbation.json

The floor of a method is as many forward passes as it has masked images, on the batch that is explained, by the network
alone in inference mode; of a method that optimizes, forward and backward passes. Each round runs the floor, ours and
each peer one after another; the table shows the medians over the rounds of method / floor of the same round, so that a
load on the machine that lasts longer cancels. Ours can fall below 1: it runs images of several masks together, puts
channels last in memory, and skips windows that change nothing (one case has black halves). Weights and images are
random.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from rightreasons.attribution import LIME, RISE, KernelSHAP, MeaningfulPerturbation, Occlusion
from rightreasons.attribution.perturbation.regions import grid
from rightreasons.core import Attribution
from rightreasons.models import LeNet, adapt

Run = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A method of ours, what it must be compared with, and what was asked of it."""

    name: str
    network: nn.Module
    inputs: Tensor
    ours: Attribution
    passes: int
    peers: dict[str, Run] = field(default_factory=dict)
    at_most: float | None = None
    backward: bool = False


@dataclass(frozen=True)
class Row:
    """Medians of CPU and wall time over those of the floor, and the quartiles of CPU."""

    case: str
    method: str
    cpu: float
    low: float
    high: float
    wall: float
    at_most: float | None


class Bottleneck(nn.Module):
    """The block of ResNet-50."""

    def __init__(self, channels: int, middle: int, stride: int) -> None:
        super().__init__()
        out = 4 * middle
        self.body = nn.Sequential(
            *(nn.Conv2d(channels, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU()),
            *(nn.Conv2d(middle, middle, 3, stride, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU()),
            *(nn.Conv2d(middle, out, 1, bias=False), nn.BatchNorm2d(out)),
        )
        self.way = nn.Identity()
        if channels != out:
            self.way = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.way(x))


def resnet50() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    channels = 64
    for middle, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(blocks):
            layers.append(Bottleneck(channels, middle, stride if number == 0 else 1))
            channels = 4 * middle
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)).eval()


def captum_occlusion(network: nn.Module, inputs: Tensor, window: int, stride: int, at_once: int) -> Run:
    from captum.attr import Occlusion as Peer

    shape = (inputs.shape[1], window, window), (inputs.shape[1], stride, stride)
    return lambda: Peer(network).attribute(
        inputs,
        sliding_window_shapes=shape[0],
        strides=shape[1],
        target=torch.zeros(len(inputs), dtype=torch.long),
        perturbations_per_eval=at_once,
    )


def captum_surrogate(name: str, network: nn.Module, inputs: Tensor, *, samples: int, cells: int, at_once: int) -> Run:
    import captum.attr

    labels = grid(*inputs.shape[2:], cells=cells)[None, None].expand(1, inputs.shape[1], -1, -1)
    peer = getattr(captum.attr, name)(network)
    return lambda: peer.attribute(
        inputs,
        target=torch.zeros(len(inputs), dtype=torch.long),
        feature_mask=labels,
        n_samples=samples,
        perturbations_per_eval=at_once,
    )


def lime_image(network: nn.Module, inputs: Tensor, *, samples: int, cells: int) -> Run:
    """The lime package with our grid, so that segmentation costs neither anything."""
    from lime.lime_image import LimeImageExplainer

    channels = inputs.shape[1]
    image = inputs[0].expand(3, -1, -1).permute(1, 2, 0).double().numpy()
    labels = grid(*inputs.shape[2:], cells=cells).numpy()

    def predict(images):
        with torch.inference_mode():
            batch = torch.as_tensor(images).permute(0, 3, 1, 2)[:, :channels].float()
            return network(batch).softmax(1).numpy()

    def run() -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            explainer = LimeImageExplainer(random_state=0)
            explainer.explain_instance(
                image, predict, top_labels=1, num_samples=samples, segmentation_fn=lambda _: labels
            )

    return run


def cases() -> list[Case]:
    torch.manual_seed(0)
    lenet, large = LeNet().eval(), resnet50()
    digits, pictures = torch.rand(256, 1, 28, 28), torch.rand(4, 3, 224, 224)
    half = digits.clone()
    half[:, :, :, 14:] = 0
    few, pair, one = digits[:8], digits[:16], digits[:1]
    made = [
        Case("LeNet, 256 images, 49 windows", lenet, digits, Occlusion(4), 49, at_most=0.9),
        Case("LeNet, 256 half black, 49 windows", lenet, half, Occlusion(4), 49),
        Case("LeNet, 16 images, 625 windows", lenet, pair, Occlusion(4, 1), 625, at_most=0.9),
        Case("LeNet, 8 images, 200 samples", lenet, few, KernelSHAP(cells=7, samples=200), 200, at_most=0.6),
        Case("LeNet, 8 images, 200 samples", lenet, few, LIME(cells=7, samples=200), 200),
        Case("LeNet, 1 image, 1000 samples", lenet, one, LIME(cells=7, samples=1000), 1000, at_most=0.33),
        Case("LeNet, 8 images, 1000 masks", lenet, few, RISE(1000), 1000),
        Case("LeNet, 256 images, 20 steps", lenet, digits, MeaningfulPerturbation(20), 20, backward=True),
        Case("ResNet-50, 4 images, 16 windows", large, pictures, Occlusion(56), 16, at_most=1.0),
        Case("ResNet-50, 1 image, 40 samples", large, pictures[:1], KernelSHAP(cells=5, samples=40), 40),
        Case("ResNet-50, 1 image, 60 samples", large, pictures[:1], LIME(cells=7, samples=60), 60, at_most=0.75),
    ]
    for case in made:
        case.peers.update(peers_of(case))
    return made


def peers_of(case: Case) -> dict[str, Run]:
    """What is installed of captum and lime, captum one perturbation at a time, its default, and many."""
    found: dict[str, Run] = {}
    ours = case.ours
    many = 8 if case.inputs.shape[-1] > 100 else 50
    if importlib.util.find_spec("captum"):
        for label, at_once in (("captum", 1), (f"captum, {many} at once", many)):
            if isinstance(ours, Occlusion):
                stride = ours.stride or ours.window
                found[label] = captum_occlusion(case.network, case.inputs, ours.window, stride, min(at_once, 16))
            if isinstance(ours, KernelSHAP | LIME):
                name = "Lime" if isinstance(ours, LIME) else "KernelShap"
                settings = {"samples": ours.samples, "cells": ours.cells, "at_once": at_once}
                found[label] = captum_surrogate(name, case.network, case.inputs, **settings)
    if importlib.util.find_spec("lime") and isinstance(ours, LIME) and len(case.inputs) == 1:
        found["lime"] = lime_image(case.network, case.inputs, samples=ours.samples, cells=ours.cells)
    return found


def floor(case: Case) -> None:
    if case.backward:
        inputs = case.inputs.clone().requires_grad_()
        for _ in range(case.passes):
            torch.autograd.grad(case.network(inputs).sum(), inputs)
        return
    with torch.inference_mode():
        for _ in range(case.passes):
            case.network(case.inputs)


def ours(case: Case) -> None:
    with torch.no_grad():
        case.ours(adapt(case.network), case.inputs, torch.zeros(len(case.inputs), dtype=torch.long))


def timed(run: Run) -> tuple[float, float]:
    """CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def measure(case: Case, rounds: int) -> list[Row]:
    runs: dict[str, Run] = {"ours": lambda: ours(case), **case.peers}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    case.network.requires_grad_(False)
    for number in range(rounds + 1):
        base = timed(lambda: floor(case))
        for name, run in runs.items():
            cpu, wall = timed(run)
            if number:  # The first round warms up.
                taken[name].append((cpu / base[0], wall / base[1]))
    return [row(case, name, pairs) for name, pairs in taken.items()]


def row(case: Case, name: str, pairs: list[tuple[float, float]]) -> Row:
    low, middle, high = statistics.quantiles([cpu for cpu, _ in pairs], n=4, method="inclusive")
    wall = statistics.median(wall for _, wall in pairs)
    title = f"{type(case.ours).__name__}: {case.name}"
    return Row(title, name, middle, low, high, wall, case.at_most if name == "ours" else None)


def line(r: Row) -> str:
    asked = "" if r.at_most is None else f"{r.at_most:.2f} " + ("met" if r.cpu <= r.at_most else "NOT MET")
    return f"{r.case:55}{r.method:22}{r.cpu:7.2f}  {f'{r.low:.2f}-{r.high:.2f}':12}{r.wall:6.2f}  {asked}".rstrip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds, at least 2")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    asked = parser.parse_args()
    if asked.rounds < 2:
        parser.error(f"expected at least 2 rounds, got {asked.rounds}")
    torch.set_num_threads(asked.threads)
    warnings.simplefilter("ignore")
    print(
        f"torch {torch.__version__}, {asked.threads} threads, {asked.rounds} rounds; multiples of the network's passes"
    )
    print(f"{'case':55}{'method':22}{'CPU':>7}  {'quartiles':12}{'wall':>6}  at most")
    rows = []
    for case in cases():
        if asked.only in f"{type(case.ours).__name__}: {case.name}":
            found = measure(case, asked.rounds)
            print("\n".join(map(line, found)), flush=True)
            rows += found
    if asked.out:
        content = {"torch": torch.__version__, "threads": asked.threads, "rows": [asdict(r) for r in rows]}
        asked.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
