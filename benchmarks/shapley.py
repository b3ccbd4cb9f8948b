"""What DeepLIFT, DeepSHAP and GradientSHAP cost, beside captum and shap, as multiples of the passes they need.

    python benchmarks/shapley.py --rounds 5 --threads 1 --out shapley.json

DeepLIFT against a black image is counted in a forward pass of the baselines and one with the way back; DeepSHAP of all
ten classes against ten images in a pass with the way back for each of these (shap's own cost is that for each class);
GradientSHAP in one such pass a sample.
"""

from __future__ import annotations

import torch
from measure import Case, Make, heatmap, main, passes, peer
from workloads import Run, Workload, digits

from rightreasons.attribution import DeepLIFT, DeepSHAP, GradientSHAP
from rightreasons.models import adapt

REFERENCES = 10
SAMPLES = 20


def references(work: Workload) -> torch.Tensor:
    """Digits that are not explained, or noise."""
    if work.name.startswith("LeNet"):
        return digits()[0][-REFERENCES:]
    return torch.rand(REFERENCES, *work.inputs.shape[1:], generator=torch.Generator().manual_seed(1))


def all_classes(work: Workload) -> Run:
    """Ours for every class."""
    model, method = adapt(work.network), DeepSHAP(references(work))
    return lambda: method.all_classes(model, work.inputs)


def one_class(work: Workload) -> Run | None:
    """Ours for the target."""
    return heatmap(DeepSHAP(references(work)))(work)


def gradient_shap(work: Workload) -> Run | None:
    """Ours."""
    return heatmap(GradientSHAP(references(work), samples=SAMPLES))(work)


def shap_all_classes(work: Workload) -> Run | None:
    """shap's DeepExplainer, which has every class at once."""
    shap = peer("shap")
    if shap is None:
        return None
    explainer = shap.DeepExplainer(work.network, references(work))
    return lambda: explainer.shap_values(work.inputs, check_additivity=False)


def captum(name: str, *, background: bool = False, **settings: object) -> Make:
    """captum's method of this name."""

    def make(work: Workload) -> Run | None:
        attr = peer("captum.attr")
        if attr is None:
            return None
        method = getattr(attr, name)(work.network)
        start = references(work) if background else torch.zeros_like(work.inputs)
        return lambda: method.attribute(work.inputs, start, target=work.target, **settings)

    return make


def deep_lift(network: str, batch: int, at_most: float) -> list[Case]:
    """Both rules of DeepLIFT; captum has one."""
    floor, rescale, cancel = passes(forward=1, both=1), heatmap(DeepLIFT()), heatmap(DeepLIFT(rule="reveal_cancel"))
    return [
        Case(network, batch, "DeepLIFT", rescale, floor, at_most, peers={"captum": captum("DeepLift")}),
        Case(network, batch, "DeepLIFT, reveal-cancel", cancel, floor),
    ]


CASES = [
    *deep_lift("LeNet", 256, 1.7),
    *deep_lift("ResNet-50", 4, 1.5),
    Case(
        "LeNet", 8, "DeepSHAP, 10 classes", all_classes, passes(both=REFERENCES), 4.0, peers={"shap": shap_all_classes}
    ),
    Case(
        *("LeNet", 8, "DeepSHAP, one class", one_class, passes(both=REFERENCES)),
        peers={"captum": captum("DeepLiftShap", background=True)},
    ),
    Case(
        *("LeNet", 256, "GradientSHAP", gradient_shap, passes(both=SAMPLES)),
        peers={"captum": captum("GradientShap", background=True, n_samples=SAMPLES, stdevs=0.1)},
        rounds=3,
    ),
]

if __name__ == "__main__":
    main(__doc__, CASES)
