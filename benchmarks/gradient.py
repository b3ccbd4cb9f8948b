"""What the gradients of the pixels cost, ours beside captum and zennit, as multiples of the passes they need.

    python benchmarks/gradient.py --rounds 5 --threads 1 --out gradient.json

The floor is a forward pass with the way back to the images (FB) for each step of a path and each noisy copy. captum's
integrated gradients and noise run as they are by default, everything at once, and as they are when told to split.
"""

from __future__ import annotations

from typing import Any

from measure import Case, Make, heatmap, main, passes, peer
from workloads import Run, Workload

from rightreasons.attribution import (
    ExpectedGradients,
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    Saliency,
    Smoothed,
    SmoothGrad,
)


def captum(name: str, **settings: Any) -> Make:
    """captum's method of that name."""

    def make(work: Workload) -> Run | None:
        attr = peer("captum.attr")
        if attr is None:
            return None
        method = getattr(attr, name)(work.network)
        return lambda: method.attribute(work.inputs, target=work.target, **settings)

    return make


def captum_noise(samples: int, **settings: Any) -> Make:
    """captum's gradient under noise."""

    def make(work: Workload) -> Run | None:
        attr = peer("captum.attr")
        if attr is None:
            return None
        method = attr.NoiseTunnel(attr.Saliency(work.network))
        asked = {"nt_type": "smoothgrad", "nt_samples": samples, "stdevs": 0.15, "abs": False, **settings}
        return lambda: method.attribute(work.inputs, target=work.target, **asked)

    return make


def captum_path(work: Workload, steps: int, **settings: Any) -> Run | None:
    """captum's integrated gradients, the target named so that it can be repeated."""
    return captum("IntegratedGradients", n_steps=steps, method="gausslegendre", **settings)(work)


def zennit(name: str, **settings: Any) -> Make:
    """zennit's attributor of that name."""

    def make(work: Workload) -> Run | None:
        attribution, targets = peer("zennit.attribution"), peer("torch.nn.functional")
        if attribution is None or targets is None:
            return None
        method = getattr(attribution, name)(work.network, **settings)
        classes = work.network(work.inputs[:1]).shape[1]

        def run() -> None:
            method(work.inputs, targets.one_hot(work.target, classes).float())

        return run

    return make


def path(network: str, batch: int, steps: int, megabytes: float) -> Case:
    """Integrated gradients."""
    peers: dict[str, Make] = {
        "captum, split": lambda work: captum_path(work, steps, internal_batch_size=len(work.inputs)),
        "captum": lambda work: captum_path(work, steps),
        "zennit": zennit("IntegratedGradients", n_iter=steps),
    }
    method = IntegratedGradients(steps=steps)
    name = f"IntegratedGradients, {steps}"
    return Case(network, batch, name, heatmap(method), passes(both=steps), 1.0, megabytes, peers=peers)


def noisy(network: str, batch: int, samples: int) -> list[Case]:
    """SmoothGrad, and the wrapper that does the same to any method."""
    peers = {"captum, split": captum_noise(samples, nt_samples_batch_size=1), "captum": captum_noise(samples)}
    peers["zennit"] = zennit("SmoothGrad", noise_level=0.15, n_iter=samples)
    floor, method, wrapped = passes(both=samples), SmoothGrad(samples), Smoothed(samples=samples)
    return [
        Case(network, batch, f"SmoothGrad, {samples}", heatmap(method), floor, peers=peers),
        Case(network, batch, f"Smoothed(Saliency), {samples}", heatmap(wrapped), floor),
    ]


def expected(work: Workload) -> Run | None:
    """Expected gradients from the images themselves."""
    return heatmap(ExpectedGradients(work.inputs, samples=8))(work)


def cases() -> list[Case]:
    """The issue's rows of this family, on both networks."""
    listed = []
    for network, batch in (("LeNet", 256), ("ResNet-50", 4)):
        once, zennits = passes(both=1), {"zennit": zennit("Gradient")}
        peers = {"captum": captum("Saliency", abs=False), **zennits}
        products = {"captum": captum("InputXGradient")}
        listed += [
            Case(network, batch, "Saliency", heatmap(Saliency()), once, 1.05, peers=peers),
            Case(network, batch, "InputXGradient", heatmap(InputXGradient()), once, 1.05, peers=products),
            Case(network, batch, "GuidedBackprop", heatmap(GuidedBackprop()), once),
            path(network, batch, *((50, 220) if network == "LeNet" else (8, 420))),
            *noisy(network, batch, 10 if network == "LeNet" else 4),
            Case(network, batch, "ExpectedGradients, 8", expected, passes(both=8)),
        ]
    return listed


CASES = cases()

if __name__ == "__main__":
    main(__doc__, CASES)
