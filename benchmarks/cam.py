"""What class activation maps cost, ours beside those of grad-cam and captum, as multiples of a forward pass.

    python benchmarks/cam.py --rounds 7 --threads 1 --out cam.json

LeNet on 28x28 digits (trained for a moment, so that it has dead filters as real networks do) and ResNets of random
weights on 224x224 noise. Every measurement is paired with a forward pass in inference mode run just before it; the
table shows the median of the pairs' CPU-time ratios over the forward passes that a method needs, so a load on the
machine that lasts longer than a pair cancels. Memory is the growth of the resident set at its peak. Peers that are
not installed are left out.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import MagicMock

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from rightreasons.attribution import (
    CAM,
    AblationCAM,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from rightreasons.core import Attribution
from rightreasons.models import adapt

Call = Callable[[], object]


class Residual(nn.Module):
    """A block of torchvision's ResNet: basic (two 3x3) or bottleneck (1x1, 3x3, 1x1 to four times the width)."""

    def __init__(self, channels: int, width: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        out = 4 * width if bottleneck else width
        shapes = [(channels, width, 1), (width, width, 3), (width, out, 1)] if bottleneck else None
        shapes = shapes or [(channels, width, 3), (width, out, 3)]
        strides = [1, stride, 1] if bottleneck else [stride, 1]
        layers: list[nn.Module] = []
        for (a, b, size), step in zip(shapes, strides, strict=True):
            layers += [nn.Conv2d(a, b, size, step, size // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers[:-1])
        self.beside = nn.Identity()
        if stride != 1 or channels != out:
            self.beside = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.beside(x))


def resnet(depths: tuple[int, ...], *, bottleneck: bool) -> nn.Sequential:
    """torchvision's layout: ``"4"`` to ``"7"`` are its layer1 to layer4."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    layers.append(nn.MaxPool2d(3, 2, 1))
    channels = 64
    for stage, depth in enumerate(depths):
        width, blocks = 64 * 2**stage, []
        for block in range(depth):
            blocks.append(Residual(channels, width, 2 if stage and not block else 1, bottleneck))
            channels = 4 * width if bottleneck else width
        layers.append(nn.Sequential(*blocks))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)).eval()


def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's 1797 digits at 28x28."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    return F.interpolate(images, size=(28, 28), mode="bilinear"), torch.tensor(data.target)


def trained_lenet() -> nn.Sequential:
    """Two convolutions (64 filters in the second) and two dense layers; ``"4"`` is the second ReLU."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    images, target = digits()
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(5):
        for rows in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(network(images[rows]), target[rows]).backward()
            optimizer.step()
    return network.eval()


@dataclass(frozen=True)
class Case:
    """A network, its images, the layer, and how many forward passes the method needs."""

    name: str
    network: nn.Sequential
    inputs: Tensor
    layer: str
    passes: int
    methods: tuple[tuple[str, Attribution, float | None], ...]
    rounds: int | None = None


@dataclass(frozen=True)
class Row:
    """CPU-time ratio to the passes needed, with its quartiles, and the growth of memory in MB."""

    case: str
    method: str
    whose: str
    ratio: float
    low: float
    high: float
    megabytes: float
    at_most: float | None


def cases() -> list[Case]:
    """The issue's table."""
    lenet = trained_lenet()
    images = digits()[0]
    cheap = [(GradCAM, 1.3, 1.0), (GradCAMPlusPlus, 1.5, 1.2), (XGradCAM, 1.5, 1.2), (LayerCAM, 1.5, 1.2)]
    cheap += [(HiResCAM, 1.5, 1.2), (EigenCAM, 1.5, 1.2)]
    r18, r50 = resnet((2, 2, 2, 2), bottleneck=False), resnet((3, 4, 6, 3), bottleneck=True)
    four, one = torch.rand(4, 3, 224, 224), torch.rand(1, 3, 224, 224)
    ablation = (("AblationCAM", AblationCAM("7"), 0.01), ("AblationCAM, last conv", AblationCAM("7.1.body.3"), 0.01))
    score = (("ScoreCAM", ScoreCAM("4"), 0.75), ("ScoreCAM, bfloat16", ScoreCAM("4", bfloat16=True), 0.5))
    scores = tuple((name, ScoreCAM("7", max_batch=16, bfloat16="b" in name), most) for name, _, most in score)
    return [
        Case("lenet 256", lenet, images[:256], "4", 1, tuple((c.__name__, c("4"), m) for c, m, _ in cheap)),
        Case("lenet 32", lenet, images[:32], "4", 65, (*score, ("AblationCAM", AblationCAM("4"), None))),
        Case("resnet50 4", r50, four, "7", 1, (*((c.__name__, c("7"), m) for c, _, m in cheap), ("CAM", CAM(), 1.2))),
        Case("resnet18 1", r18, one, "7", 513, ablation),
        Case("resnet18 1", r18, one, "7", 513, scores, rounds=2),
    ]


def ours(case: Case, method: Attribution) -> Call:
    """Our map of the first classes."""
    model, target = adapt(case.network, case.layer), torch.arange(len(case.inputs)) % 10

    def call() -> Tensor:
        with torch.no_grad():
            return method(model, case.inputs, target)

    return call


def grad_cam(case: Case, name: str) -> Call | None:
    """grad-cam's map, where it is installed and has the method."""
    # It imports transforms of torchvision that its maps do not need.
    for module in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules.setdefault(module, MagicMock())
    try:
        peer = importlib.import_module("pytorch_grad_cam")
        chosen = importlib.import_module("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    except ImportError:
        return None
    if not hasattr(peer, name):
        return None
    targets = [chosen(row % 10) for row in range(len(case.inputs))]
    method = getattr(peer, name)(model=case.network, target_layers=[case.network.get_submodule(case.layer)])
    return lambda: method(input_tensor=case.inputs, targets=targets)


def captum(case: Case, name: str) -> Call | None:
    """captum's Grad-CAM."""
    try:
        attr = importlib.import_module("captum.attr")
    except ImportError:
        return None
    if name != "GradCAM":
        return None
    method = attr.LayerGradCam(case.network, case.network.get_submodule(case.layer))
    target = torch.arange(len(case.inputs)) % 10
    return lambda: method.attribute(case.inputs, target)


def resident(field: str) -> float:
    """MB of resident memory: ``VmRSS`` now, ``VmHWM`` at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return float("nan")


def memory(call: Call) -> float:
    """MB by which the resident set grows at its peak; NaN where the system does not tell."""
    if not Path("/proc/self/clear_refs").exists():
        return float("nan")
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def seconds(call: Call) -> float:
    """CPU seconds."""
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(case: Case, name: str, whose: str, call: Call, rounds: int) -> Row:
    """Pairs of a forward pass and the call."""

    def forward() -> None:
        with torch.inference_mode():
            case.network(case.inputs)

    at_most = next((most for label, _, most in case.methods if label == name), None) if whose == "ours" else None
    grown = memory(call)  # Warms up as well.
    many = case.passes if case.passes < 100 else 3
    ratios = []
    for _ in range(rounds):
        floor = sum(seconds(forward) for _ in range(many)) / many * case.passes
        ratios.append(seconds(call) / floor)
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Row(case.name, name, whose, middle, low, high, grown, at_most)


def agreement(case: Case) -> None:
    """Print how well the bfloat16 map agrees with the full one."""
    labels = {label: method for label, method, _ in case.methods}
    if "ScoreCAM, bfloat16" in labels:
        full, half = (ours(case, labels[label])().flatten() for label in ("ScoreCAM", "ScoreCAM, bfloat16"))
        correlation = torch.corrcoef(torch.stack([full, half]))[0, 1]
        print(f"{case.name}: Score-CAM in bfloat16 correlates {correlation:.5f} with float32", flush=True)


def main() -> None:
    """Measure, print, and write what was printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="measured pairs a method, at least 2")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--cases", nargs="*", default=[], help="words that a case's name must begin with")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    print(f"{platform.processor() or platform.machine()}, {asked.threads} threads, torch {torch.__version__}")
    print(f"{'case':12}{'method':26}{'whose':10}{'ratio':>7}  {'quartiles':14}{'MB':>6}  at most")
    rows = []
    for case in cases():
        if asked.cases and not case.name.startswith(tuple(asked.cases)):
            continue
        for name, method, _ in case.methods:
            peers = {"grad-cam": grad_cam(case, name), "captum": captum(case, name)}
            for whose, call in {"ours": ours(case, method), **peers}.items():
                if call is None:
                    continue
                # A peer that takes minutes is measured as often as it must be for quartiles.
                often = case.rounds or (2 if whose != "ours" and case.passes > 100 else asked.rounds)
                row = measure(case, name, whose, call, often)
                rows.append(row)
                most = (
                    "" if row.at_most is None else f"{row.at_most} {'met' if row.ratio <= row.at_most else 'NOT MET'}"
                )
                spread = f"{row.low:.3f}-{row.high:.3f}"
                print(
                    f"{row.case:12}{name:26}{whose:10}{row.ratio:7.3f}  {spread:14}{row.megabytes:6.0f}  {most}",
                    flush=True,
                )
        agreement(case)
    if asked.out:
        asked.out.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
