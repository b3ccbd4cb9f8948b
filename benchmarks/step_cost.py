"""What a training step with an explanation loss costs, as a multiple of a plain step.

    python benchmarks/step_cost.py --rounds 40 --threads 1 --out step_cost.json

LeNet, 28x28 random images, batch 256, the step of the training loop: clear gradients, forward, backward to the weights,
Adam. Every measurement is paired with a plain step run just before it, and the table shows the median of the pairs'
ratios, so a load on the machine that lasts longer than a pair cancels. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from measure import processor, timed
from torch import Tensor, nn
from workloads import Run

from rightreasons.attribution import ExpectedGradients, GradCAM, IntegratedGradients, Saliency, SmoothGrad
from rightreasons.core import Batch, ExplanationLoss
from rightreasons.data import Augmentation
from rightreasons.models import LeNet, adapt
from rightreasons.supervision import (
    CDEP,
    GRADIA,
    HAICS,
    HINT,
    LOSSES,
    RES,
    RRR,
    TAP,
    Counterexamples,
    Energy,
    RRRGradCAM,
)
from rightreasons.training.objective import Objective, Term, TrainingStep


@dataclass(frozen=True)
class Case:
    """A loss, or an augmentation in its place, the floor by counting passes, and what was asked of it."""

    loss: ExplanationLoss | None
    floor: float | None = None
    at_most: float | None = None
    augmentation: Augmentation | None = None


@dataclass(frozen=True)
class Row:
    """Multiples of a plain step: medians over the rounds; ``low`` and ``high`` are the quartiles of ``cpu``."""

    name: str
    floor: float | None
    at_most: float | None
    cpu: float
    low: float
    high: float
    wall: float
    plainly: float
    milliseconds: float


def random_batch(size: int) -> Batch:
    """MNIST-like: noise images, a disc of 21 % of the pixels that matters, a 4x4 patch in a corner that does not."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(size, 1, 28, 28, generator=generator)
    target = torch.randint(10, (size,), generator=generator)
    down, right = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    disc = ((down - 13.5) ** 2 + (right - 13.5) ** 2 < 53).float()
    patch = torch.zeros(size, 1, 28, 28)
    for image, corner in enumerate(torch.randint(4, (size,), generator=generator).tolist()):
        top, left = 24 * (corner // 2), 24 * (corner % 2)
        patch[image, :, top : top + 4, left : left + 4] = 1
    return Batch(inputs, target, relevant=disc.expand(size, 1, 28, 28).contiguous(), irrelevant=patch)


def cases() -> dict[str, Case]:
    """Every loss of the catalogue, and settings of it that are asked about.

    Counting passes, forward being 1 and a plain step 3 (its backward pass takes two products a layer): the gradient of
    the pixels adds 1 and differentiating it again 2, so RRR costs 6 / 3; a class activation map the same, for the
    layers behind it alone; each point of a path 1 more for a forward pass of its own; a copied image a plain step;
    the part in a contextual decomposition, which runs beside the whole, a plain step; activations that are there
    already nothing.
    """
    maps = 1 + share_behind_the_map()
    chosen = {
        "RRR(Saliency())": Case(RRR(Saliency()), 2.0, 2.2),
        "RRR()": Case(RRR(), 2.0, 2.2),
        "RRR(IntegratedGradients(steps=4))": Case(RRR(IntegratedGradients(steps=4)), path(4)),
        "RRR(SmoothGrad(samples=4))": Case(RRR(SmoothGrad(samples=4)), path(4)),
        "RRR(ExpectedGradients(samples=8))": Case(RRR(ExpectedGradients(references(), samples=8)), path(8), 10.0),
        "RRR(GradCAM())": Case(RRR(GradCAM()), maps),
        "RRRGradCAM()": Case(RRRGradCAM(), maps, 1.4),
        "GRADIA()": Case(GRADIA(), maps, 1.4),
        "HINT()": Case(HINT(), maps, 1.4),
        "Energy()": Case(Energy(), maps, 1.4),
        "HAICS()": Case(HAICS(), maps),
        "RES()": Case(RES(), maps, 1.4),
        "RES(imputation='learned')": Case(RES(imputation="learned"), maps, 1.4),
        "CDEP()": Case(CDEP(), 2.0, 3.0),
        "TAP()": Case(TAP(), 1.0, 1.15),
        "Counterexamples(share=1)": Case(Counterexamples(share=1.0), 2.0, 1.6),
        "Counterexamples(share=0.5)": Case(Counterexamples(share=0.5), 1.5, 1.6),
        "noise in place": in_place(irrelevant="uniform"),
        "noise in place, shifts": in_place(irrelevant="uniform", shift=1),
        "swapped, borrowed": in_place(irrelevant="swapped", borrow=4, grow=1),
    }
    covered = {type(case.loss) for case in chosen.values() if case.loss}
    return chosen | {f"{loss.__name__}()": Case(loss()) for loss in LOSSES.values() if loss not in covered}


def in_place(**settings: Any) -> Case:
    """Irrelevant pixels replaced at each step: nothing more runs through the network."""
    return Case(None, 1.0, 1.5, Augmentation(**settings))


def path(points: int) -> float:
    """A plain step, and a forward pass, a gradient of the pixels and its derivative at each point."""
    return 1 + points * (1 + 1 + 2) / 3


def references() -> Tensor:
    """Images like those of the batch."""
    return torch.rand(100, 1, 28, 28, generator=torch.Generator().manual_seed(1))


def share_behind_the_map() -> float:
    """The part of LeNet's multiplications that lies behind its last convolution."""
    counted: dict[str, int] = {}

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        each = layer.weight[0].numel() if isinstance(layer, nn.Conv2d | nn.Linear) else 0
        counted[type(layer).__name__] = counted.get(type(layer).__name__, 0) + each * output[0].numel()

    network = LeNet()
    for layer in network.children():
        layer.register_forward_hook(count)
    network(torch.zeros(1, 1, 28, 28))
    return counted["Linear"] / sum(counted.values())


def step(batch: Batch, case: Case, *, plainly: bool = False, bfloat16: bool = False) -> Run:
    """A training step of a new LeNet, the same for all.

    Written plainly, the explanation takes a forward pass of its own and ``loss.backward()`` fills every leaf; the loop
    shares the pass and asks for the weights alone.
    """
    torch.manual_seed(0)
    model = adapt(LeNet())
    objective = Objective({"term": Term(case.loss)} if case.loss else {})
    training = TrainingStep(model, objective, bfloat16=bfloat16).train()
    training.lay_out(batch.inputs[:1])
    generator = torch.Generator().manual_seed(0)
    weights = list(training.parameters())
    # So small a rate that the last round meets the weights of the first.
    optimizer = torch.optim.Adam(weights, lr=1e-9, fused=True)

    def shared() -> None:
        optimizer.zero_grad(set_to_none=True)
        given = case.augmentation(batch, generator) if case.augmentation else batch
        training(given)["loss"].backward(inputs=weights)
        optimizer.step()

    def alone() -> None:
        optimizer.zero_grad(set_to_none=True)
        given = case.augmentation(batch, generator) if case.augmentation else batch
        torch.autograd.backward(training.objective(model, given, model(given.inputs))["loss"])
        optimizer.step()

    return alone if plainly else shared


def measure(batch: Batch, listed: dict[str, Case], rounds: int, *, bfloat16: bool) -> tuple[float, list[Row]]:
    """Milliseconds of a plain step, and a row a case: rounds of (plain, case, case written plainly) for each case."""
    plain = step(batch, Case(None))
    steps = {
        name: [step(batch, case, bfloat16=bfloat16), step(batch, case, plainly=True)] for name, case in listed.items()
    }
    pairs: dict[str, list[tuple[tuple[float, float], ...]]] = {name: [] for name in listed}
    for number in range(rounds + 1):
        for name, (ours, written) in steps.items():
            taken = (timed(plain), timed(ours), timed(written))
            if number:  # The first round warms up.
                pairs[name].append(taken)
    plain_seconds = [taken[0][0] for each in pairs.values() for taken in each]
    return 1e3 * statistics.median(plain_seconds), [row(name, listed[name], pairs[name]) for name in listed]


def row(name: str, case: Case, pairs: list[tuple[tuple[float, float], ...]]) -> Row:
    """The medians of one case."""
    ratios = [ours[0] / plain[0] for plain, ours, _ in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Row(
        name,
        case.floor,
        case.at_most,
        cpu=middle,
        low=low,
        high=high,
        wall=statistics.median(ours[1] / plain[1] for plain, ours, _ in pairs),
        plainly=statistics.median(written[0] / plain[0] for plain, _, written in pairs),
        milliseconds=1e3 * statistics.median(ours[0] for _, ours, _ in pairs),
    )


def table(rows: list[Row]) -> str:
    """The rows in columns; a figure above what was asked is marked."""
    lines = [f"{'loss':35}{'floor':>7}{'CPU':>7}  {'quartiles':12}{'wall':>6}{'plainly':>9}{'CPU ms':>9}  at most"]
    for r in rows:
        floor = f"{r.floor:.2f}" if r.floor is not None else "-"
        asked = "" if r.at_most is None else f"{r.at_most:.2f} " + ("met" if r.cpu <= r.at_most else "NOT MET")
        lines.append(
            f"{r.name:35}{floor:>7}{r.cpu:7.2f}  {f'{r.low:.2f}-{r.high:.2f}':12}{r.wall:6.2f}{r.plainly:9.2f}"
            f"{r.milliseconds:9.1f}  {asked}".rstrip()
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write what was printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="measured pairs a loss, at least 2")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument(
        "--bfloat16", action="store_true", help="our steps in bfloat16, still as multiples of a plain step in float32"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="LOSS", help="cases whose names start with one of these"
    )
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    asked = parser.parse_args()
    if asked.rounds < 2:
        parser.error(f"expected at least 2 rounds, got {asked.rounds}")
    torch.set_num_threads(asked.threads)
    setting = {
        "cpu": processor(),
        "threads": asked.threads,
        "torch": torch.__version__,
        "network": "LeNet",
        "data": "random images 1x28x28, all annotated",
        "batch_size": asked.batch_size,
        "rounds": asked.rounds,
        "bfloat16": asked.bfloat16,
    }
    print(", ".join(f"{name} {value}" for name, value in setting.items()))
    known = cases()
    if asked.bfloat16:  # What was asked, and what passes say, is about steps in one precision.
        known = {"plain": Case(None)} | {n: replace(case, floor=None, at_most=None) for n, case in known.items()}
    listed = {n: case for n, case in known.items() if not asked.only or n.startswith(tuple(asked.only))}
    if not listed:
        parser.error(f"expected the beginning of one of {', '.join(cases())}, got {' '.join(asked.only)}")
    batch = random_batch(asked.batch_size)
    plain, rows = measure(batch, listed, asked.rounds, bfloat16=asked.bfloat16)
    print(f"plain step: {plain:.1f} ms of CPU; all other figures but the last column are multiples of it")
    print(table(rows))
    if asked.out:
        content = {"setting": setting, "plain_milliseconds": plain, "rows": [asdict(r) for r in rows]}
        asked.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
