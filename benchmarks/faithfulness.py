"""What the metrics of faithfulness cost, ours beside quantus, as a multiple of the network's own passes.

    python benchmarks/faithfulness.py --rounds 5 --threads 1 --out faithfulness.json

The floor of a metric is as many forward passes as it has changed images, on the batch that is scored, by the network
alone. Ours can fall below 1: it runs images of several steps together and puts channels last in memory. ROAD's floor
knows nothing of the linear systems that fill in the removed pixels, which are most of its cost. The last case is all
metrics of two heatmaps with shared passes over all of them without. Quantus has no sample of infidelity without a pass
for every patch of the image, 490 here where it says 10.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from measure import Case, Floor, Make, main, passes, peer
from torch import Tensor
from workloads import Run, Workload

from rightreasons.attribution import InputXGradient, Saliency
from rightreasons.core import Batch
from rightreasons.metrics import (
    ROAD,
    Deletion,
    FaithfulnessCorrelation,
    FaithfulnessEstimate,
    Infidelity,
    Insertion,
    Monotonicity,
    PixelFlipping,
    RegionPerturbation,
    Responses,
    SensitivityN,
)
from rightreasons.metrics.faithfulness import Faithfulness
from rightreasons.models import adapt

TENTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
TOGETHER: tuple[Faithfulness, ...] = (
    *(PixelFlipping(28), Deletion(28), Insertion(28), Monotonicity(28), RegionPerturbation(7)),
    *(FaithfulnessCorrelation(50), SensitivityN(20), FaithfulnessEstimate(7), Infidelity(50)),
)


def explained(work: Workload) -> tuple[Batch, Tensor, Tensor]:
    """The batch with two heatmaps."""
    model, batch = adapt(work.network), Batch(work.inputs, work.target)
    with torch.no_grad():
        maps = [method(model, batch.inputs, batch.target) for method in (InputXGradient(), Saliency())]
    return batch, maps[0], maps[1]


def ours(metric: Faithfulness) -> Make:
    def make(work: Workload) -> Run:
        (batch, heatmap, _), model = explained(work), adapt(work.network)
        return lambda: metric(model, batch, heatmap)

    return make


def together(work: Workload) -> Run:
    """All metrics of both heatmaps with shared passes."""
    (batch, *maps), model = explained(work), adapt(work.network)

    def run() -> None:
        responses = Responses(model, batch)
        for metric in TOGETHER:
            for heatmap in maps:
                metric.with_responses(responses, heatmap)

    return run


def apart() -> Floor:
    """The same without."""

    def parts(work: Workload) -> Sequence[tuple[int, Run]]:
        (batch, *maps), model = explained(work), adapt(work.network)
        return [(1, lambda: [metric(model, batch, heatmap) for metric in TOGETHER for heatmap in maps])]

    return Floor("each alone", parts)


def quantus(name: str, **settings: object) -> Make:
    """Its metric on the same heatmaps."""

    def make(work: Workload) -> Run | None:
        package = peer("quantus")
        if package is None:
            return None
        batch, heatmap, _ = explained(work)
        quiet = {"abs": False, "normalise": False, "disable_warnings": True, "display_progressbar": False}
        metric = getattr(package, name)(**quiet, **settings)
        arrays = {"x_batch": batch.inputs.numpy(), "y_batch": batch.target.numpy(), "a_batch": heatmap.numpy()}
        return lambda: metric(model=work.network, **arrays, channel_first=True, device="cpu")

    return make


def case(
    network: str,
    batch: int,
    metric: Faithfulness,
    steps: int,
    *,
    at_most: float | None = None,
    peer: Make | None = None,
) -> Case:
    name = f"{type(metric).__name__}, {steps}" + (" of noise" if getattr(metric, "change", "") == "gaussian" else "")
    peers = {} if peer is None else {"quantus": peer}
    return Case(network, batch, name, ours(metric), passes(steps), at_most, peers=peers)


FLIPPING = quantus("PixelFlipping", features_in_step=28, perturb_baseline=0.0)
IMPUTING = quantus("ROAD", percentages=[round(100 * share) for share in TENTHS])
SQUARES = quantus("Infidelity", n_perturb_samples=10, perturb_patch_sizes=[4], perturb_baseline=0.0)
SETS = quantus("FaithfulnessCorrelation", nr_runs=100, subset_size=224, perturb_baseline=0.0)
REGIONS = quantus("RegionPerturbation", patch_size=4, regions_evaluation=49, perturb_baseline=0.0)

CASES = [
    case("LeNet", 256, PixelFlipping(28), 28, at_most=1.1, peer=FLIPPING),
    case("LeNet", 32, ROAD(TENTHS), 10, at_most=2.0, peer=IMPUTING),
    # Of 490 squares some 340 are different, and run; the floor is that of quantus.
    case("LeNet", 32, Infidelity(490), 490, at_most=1.2, peer=SQUARES),
    case("LeNet", 32, Infidelity(50, "gaussian"), 50, at_most=1.2),
    case("LeNet", 32, FaithfulnessCorrelation(100, share=224 / 784), 100, peer=SETS),
    case("LeNet", 32, RegionPerturbation(4, baseline=0.0), 49, peer=REGIONS),
    Case("LeNet", 32, "9 metrics, 2 heatmaps", together, apart()),
    case("ResNet-50", 4, PixelFlipping(21), 21, at_most=1.1),
    case("ResNet-50", 4, ROAD((0.25, 0.5, 0.75)), 3),
]

if __name__ == "__main__":
    main(__doc__, CASES)
