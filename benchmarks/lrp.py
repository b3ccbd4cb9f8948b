"""What relevance propagation costs, ours beside zennit and captum, as multiples of the passes it cannot do without.

    python benchmarks/lrp.py --rounds 7 --threads 1 --out lrp.json

LeNet on 28x28 images, batch 256, and a ResNet-50 of torchvision's form on 224x224 images, batch 4. Every measurement is
paired with its floor run just before it: a forward and backward pass to the image (FB), or a forward pass more
(F + FB) for rules that need the sum of some contributions. The table shows medians of the pairs' CPU-time ratios, so a
load on the machine that lasts longer than a pair cancels. ``--training`` adds what a loss on the map costs. A peer that
is not installed is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import MagicMock

import torch
import torch.nn.functional as F
from cam import resnet
from torch import Tensor, nn

from rightreasons.attribution import LRP, DeconvNet, DeepTaylor, GuidedBackprop, InputXGradient
from rightreasons.core import Attribution
from rightreasons.models import LeNet, adapt

Run = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """Median ratio of CPU times to the floor, its quartiles, and what was asked."""

    network: str
    method: str
    whose: str
    floor: str
    ratio: float
    low: float
    high: float
    at_most: float | None = None


METHODS: dict[str, tuple[Attribution, str, tuple[float | None, float | None]]] = {
    "input x gradient": (InputXGradient(), "FB", (1.05, 1.05)),
    "guided backprop": (GuidedBackprop(), "FB", (None, None)),
    "deconv net": (DeconvNet(), "FB", (None, None)),
    "LRP epsilon": (LRP("epsilon"), "FB", (1.4, 1.2)),
    "LRP epsilon_plus": (LRP("epsilon_plus"), "F + FB", (1.0, 1.6)),
    "LRP epsilon_plus_flat": (LRP("epsilon_plus_flat"), "F + FB", (None, None)),
    "LRP epsilon_gamma_box": (LRP("epsilon_gamma_box"), "F + FB", (1.6, 2.0)),
    "LRP epsilon_alpha2_beta1": (LRP("epsilon_alpha2_beta1"), "2F + 2FB", (None, None)),
    "deep Taylor": (DeepTaylor(), "F + FB", (None, None)),
}
ZENNIT = {
    "LRP epsilon_plus": "EpsilonPlus",
    "LRP epsilon_plus_flat": "EpsilonPlusFlat",
    "LRP epsilon_gamma_box": "EpsilonGammaBox",
    "LRP epsilon_alpha2_beta1": "EpsilonAlpha2Beta1",
    "guided backprop": "GuidedBackprop",
    "deconv net": "DeconvNet",
}


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    """Our LeNet, and a ResNet-50 of random weights whose BatchNorm has seen some noise."""
    torch.manual_seed(0)
    deep = resnet((3, 4, 6, 3), bottleneck=True).train()
    with torch.no_grad():
        deep(torch.randn(8, 3, 96, 96))
    return {
        "LeNet": (LeNet().eval().requires_grad_(False), torch.rand(256, 1, 28, 28)),
        "ResNet-50": (deep.eval().requires_grad_(False), torch.rand(4, 3, 224, 224)),
    }


def floors(network: nn.Module, inputs: Tensor, target: Tensor) -> dict[str, Run]:
    """The passes to count in."""

    def forward() -> None:
        with torch.no_grad():
            network(inputs)

    def both() -> None:
        leaf = inputs.clone().requires_grad_()
        torch.autograd.grad(network(leaf).gather(1, target[:, None]).sum(), leaf)

    return {
        "FB": both,
        "F + FB": lambda: (forward(), both()),
        "2F + 2FB": lambda: (forward(), both(), forward(), both()),
    }


def ours(method: Attribution, network: nn.Module, inputs: Tensor, target: Tensor) -> Run:
    """A map off the graph."""
    model = adapt(network)

    def run() -> None:
        with torch.no_grad():
            method(model, inputs, target)

    return run


def zennit(name: str, network: nn.Module, inputs: Tensor, target: Tensor) -> Run | None:
    """The same composite of zennit's, as its documentation uses it."""
    if importlib.util.find_spec("zennit") is None or (name not in ZENNIT and name != "LRP epsilon"):
        return None
    for part in ("torchvision", "torchvision.models", "torchvision.models.resnet", "torchvision.models.vgg"):
        sys.modules.setdefault(part, MagicMock())  # it asks for it, and nothing here needs it
    composites, rules, types = (importlib.import_module(f"zennit.{part}") for part in ("composites", "rules", "types"))
    if name == "LRP epsilon":
        layers = [*composites.layer_map_base(), (types.Linear, rules.Epsilon())]
        composite = composites.LayerMapComposite(layers)
    else:
        composite = getattr(composites, ZENNIT[name])(**({"low": 0.0, "high": 1.0} if "box" in name else {}))

    def run() -> None:
        with composite.context(network) as modified:
            leaf = inputs.clone().requires_grad_()
            logits = modified(leaf)
            torch.autograd.grad(logits, leaf, F.one_hot(target, logits.shape[1]).to(logits))

    return run


def captum(name: str, network: nn.Module, inputs: Tensor, target: Tensor) -> Run | None:
    """Captum's, where it has the method and bears the network."""
    if importlib.util.find_spec("captum") is None:
        return None
    attr = importlib.import_module("captum.attr")
    peers = {"guided backprop": "GuidedBackprop", "deconv net": "Deconvolution", "input x gradient": "InputXGradient"}
    if name not in peers:
        return None
    method = getattr(attr, peers[name])(network)
    return lambda: method.attribute(inputs, target=target)


def paired(run: Run, floor: Run, rounds: int) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of the ratios of CPU times."""
    run()
    ratios = []
    for _ in range(rounds):
        below = cpu_time(floor)
        ratios.append(cpu_time(run) / below)
    low, middle, high = statistics.quantiles(ratios, n=4)
    return low, middle, high


def cpu_time(run: Run) -> float:
    """Seconds of processor time."""
    start = time.process_time()
    run()
    return time.process_time() - start


def first_order(rounds: int, only: str | None) -> list[Row]:
    """Every method on every network, ours and the peers'."""
    rows = []
    for place, (name, (network, inputs)) in enumerate(networks().items()):
        if only and only != name:
            continue
        target = torch.arange(len(inputs)) % 10
        floor = floors(network, inputs, target)
        for method, (attribution, passes, asked) in METHODS.items():
            runs = {
                "ours": ours(attribution, network, inputs, target),
                "zennit": zennit(method, network, inputs, target),
                "captum": captum(method, network, inputs, target),
            }
            for whose, run in runs.items():
                if run is not None:
                    low, middle, high = paired(run, floor[passes], rounds)
                    limit = asked[place] if whose == "ours" else None
                    rows.append(Row(name, method, whose, passes, middle, low, high, limit))
                    print(line(rows[-1]), flush=True)
    return rows


def training(rounds: int) -> list[Row]:
    """A training step through each map on LeNet, over twice the map's own cost plus a plain step."""
    network, inputs = LeNet(), torch.rand(256, 1, 28, 28)
    target, parameters, model = torch.arange(256) % 10, list(network.parameters()), adapt(network)

    def plain() -> None:
        torch.autograd.grad(F.cross_entropy(network(inputs), target), parameters)

    rows = []
    for method, (attribution, _, _) in METHODS.items():

        def step(attribution: Attribution = attribution) -> None:
            loss = F.cross_entropy(network(inputs), target) + attribution(model, inputs, target).square().mean()
            torch.autograd.grad(loss, parameters)

        once = ours(attribution, network, inputs, target)
        low, middle, high = paired(step, lambda once=once: (once(), once(), plain()), rounds)
        rows.append(Row("LeNet, trained", method, "ours", "2 maps + step", middle, low, high, 1.0))
        print(line(rows[-1]), flush=True)
    return rows


def line(r: Row) -> str:
    """One row in columns."""
    asked = "" if r.at_most is None else f"{r.at_most:.2f} " + ("met" if r.ratio <= r.at_most else "NOT MET")
    quartiles = f"{r.low:.2f}-{r.high:.2f}"
    return f"{r.network:15}{r.method:26}{r.whose:8}{r.floor:14}{r.ratio:6.2f}  {quartiles:12}{asked}".rstrip()


def main() -> None:
    """Measure, print, and write what was printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="measured pairs, at least 2")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--network", choices=["LeNet", "ResNet-50"], help="only this one")
    parser.add_argument("--training", action="store_true", help="also a loss on the map")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    asked = parser.parse_args()
    if asked.rounds < 2:
        parser.error(f"expected at least 2 rounds, got {asked.rounds}")
    torch.set_num_threads(asked.threads)
    print(f"{'network':15}{'method':26}{'whose':8}{'floor':14}{'CPU':>6}  {'quartiles':12}at most")
    rows = first_order(asked.rounds, asked.network) + (training(asked.rounds) if asked.training else [])
    if asked.out:
        setting = {"threads": asked.threads, "torch": torch.__version__, "rounds": asked.rounds}
        asked.out.write_text(json.dumps({"setting": setting, "rows": [asdict(r) for r in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
