"""What class activation maps cost, ours beside those of grad-cam and captum, as multiples of a forward pass.

    python benchmarks/cam.py --rounds 7 --threads 1 --out cam.json

The floor of the methods that score masked images, or images without a map, is a forward pass a map and one more.
"""

from __future__ import annotations

from measure import Case, Make, agreement, heatmap, main, passes, peer
from torch import Tensor
from workloads import Run, Workload

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


def grad_cam(name: str) -> Make:
    """grad-cam's map."""

    def make(work: Workload) -> Run | None:
        package, targets = peer("pytorch_grad_cam"), peer("pytorch_grad_cam.utils.model_targets")
        if package is None or targets is None:
            return None
        chosen = [targets.ClassifierOutputTarget(int(label)) for label in work.target]
        method = getattr(package, name)(model=work.network, target_layers=[work.network.get_submodule(work.layer)])
        return lambda: method(input_tensor=work.inputs, targets=chosen)

    return make


def captum_grad_cam(work: Workload) -> Run | None:
    """captum's Grad-CAM."""
    attr = peer("captum.attr")
    if attr is None:
        return None
    method = attr.LayerGradCam(work.network, work.network.get_submodule(work.layer))

    def run() -> Tensor:
        values: Tensor = method.attribute(work.inputs, work.target)
        return values

    return run


def cheap() -> list[Case]:
    """The methods of one pass."""
    bars: dict[type[Attribution], tuple[float, float]] = {
        GradCAM: (1.3, 1.0),
        GradCAMPlusPlus: (1.5, 1.2),
        LayerCAM: (1.5, 1.2),
        EigenCAM: (1.5, 1.2),
        XGradCAM: (1.5, 1.2),
        HiResCAM: (1.5, 1.2),
    }
    cases = []
    for network, batch, place in (("LeNet", 256, 0), ("ResNet-50", 4, 1)):
        for method, most in bars.items():
            name = method.__name__
            peers = {"grad-cam": grad_cam(name), **({"captum": captum_grad_cam} if method is GradCAM else {})}
            memory = 150 if method is GradCAM else None
            cases.append(
                Case(network, batch, name, heatmap(method()), passes(1), most[place], megabytes=memory, peers=peers)
            )
    # Before its pooled head alone a network has plain class activation maps.
    return [*cases, Case("ResNet-50", 4, "CAM", heatmap(CAM()), passes(1), 1.2)]


def scored() -> list[Case]:
    """The methods of as many passes as there are maps."""
    cases = []
    for network, batch, maps, most, rounds in (("LeNet", 32, 64, 0.75, None), ("ResNet-18", 1, 512, 0.7, 2)):
        exact, half = ScoreCAM(), ScoreCAM(bfloat16=True)
        floor, note, peers = passes(maps + 1), agreement(half, exact), {"grad-cam": grad_cam("ScoreCAM")}
        cases += [
            Case(network, batch, "ScoreCAM", heatmap(exact), floor, most, peers=peers, rounds=rounds),
            Case(network, batch, "ScoreCAM, bfloat16", heatmap(half), floor, 0.5, rounds=rounds, note=note),
        ]
    return cases


def ablated() -> list[Case]:
    """Ablation-CAM behind a head that is not linear, behind one that is, and one convolution before."""
    last = AblationCAM("7.1.body.3")
    peers = {"grad-cam": grad_cam("AblationCAM")}
    return [
        Case("LeNet", 32, "AblationCAM", heatmap(AblationCAM()), passes(65), peers=peers),
        Case("ResNet-18", 1, "AblationCAM", heatmap(AblationCAM()), passes(513), 0.01, peers=peers, rounds=2),
        Case("ResNet-18", 1, "AblationCAM, last conv", heatmap(last), passes(513), 0.01),
    ]


CASES = [*cheap(), *scored(), *ablated()]

if __name__ == "__main__":
    main(__doc__, CASES)
