"""What relevance propagation costs, ours beside zennit and captum, as multiples of the passes it cannot do without.

    python benchmarks/lrp.py --rounds 7 --threads 1 --out lrp.json

The floor is a forward and backward pass to the image (FB), or a forward pass more (F + FB) for rules that need the sum
of some contributions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from measure import Case, Make, heatmap, main, passes, peer
from workloads import Run, Workload

from rightreasons.attribution import LRP, DeconvNet, DeepTaylor, GuidedBackprop
from rightreasons.core import Attribution

Bars = tuple[float | None, float | None]
METHODS: dict[str, tuple[Attribution, int, Bars]] = {
    "GuidedBackprop": (GuidedBackprop(), 0, (None, None)),
    "DeconvNet": (DeconvNet(), 0, (None, None)),
    "LRP epsilon": (LRP("epsilon"), 0, (1.4, 1.2)),
    "LRP epsilon_plus": (LRP("epsilon_plus"), 1, (1.0, 1.6)),
    "LRP epsilon_plus_flat": (LRP("epsilon_plus_flat"), 1, (None, None)),
    "LRP epsilon_gamma_box": (LRP("epsilon_gamma_box"), 1, (1.6, 2.0)),
    "LRP epsilon_alpha2_beta1": (LRP("epsilon_alpha2_beta1"), 2, (None, None)),
    "DeepTaylor": (DeepTaylor(), 1, (None, None)),
}
ZENNIT = {
    "GuidedBackprop": "GuidedBackprop",
    "DeconvNet": "DeconvNet",
    "LRP epsilon": "",
    "LRP epsilon_plus": "EpsilonPlus",
    "LRP epsilon_plus_flat": "EpsilonPlusFlat",
    "LRP epsilon_gamma_box": "EpsilonGammaBox",
    "LRP epsilon_alpha2_beta1": "EpsilonAlpha2Beta1",
}
CAPTUM = {"GuidedBackprop": "GuidedBackprop", "DeconvNet": "Deconvolution"}


def zennit(name: str) -> Make:
    """The same composite of zennit's, as its documentation uses it; of its rule alone where ``name`` is empty."""

    def make(work: Workload) -> Run | None:
        composites, rules, types = (peer(f"zennit.{part}") for part in ("composites", "rules", "types"))
        if composites is None or rules is None or types is None:
            return None
        if name:
            composite = getattr(composites, name)(**({"low": 0.0, "high": 1.0} if "Box" in name else {}))
        else:
            layers = [*composites.layer_map_base(), (types.Linear, rules.Epsilon())]
            composite = composites.LayerMapComposite(layers)

        def run() -> None:
            with composite.context(work.network) as modified:
                leaf = work.inputs.clone().requires_grad_()
                logits = modified(leaf)
                torch.autograd.grad(logits, leaf, F.one_hot(work.target, logits.shape[1]).to(logits))

        return run

    return make


def captum(name: str) -> Make:
    """captum's method of that name."""

    def make(work: Workload) -> Run | None:
        attr = peer("captum.attr")
        if attr is None:
            return None
        method = getattr(attr, name)(work.network)
        return lambda: method.attribute(work.inputs, target=work.target)

    return make


def peers_of(method: str, network: str) -> dict[str, Make]:
    """captum's stops at a module that is used twice, which a ResNet's is."""
    found = {"zennit": zennit(ZENNIT[method])} if method in ZENNIT else {}
    if method in CAPTUM and network == "LeNet":
        found["captum"] = captum(CAPTUM[method])
    return found


def cases() -> list[Case]:
    """Every method on both networks."""
    listed = []
    for place, (network, batch) in enumerate((("LeNet", 256), ("ResNet-50", 4))):
        for name, (method, more, bars) in METHODS.items():
            floor = passes(2, 2) if more == 2 else passes(more, 1)
            peers = peers_of(name, network)
            listed.append(Case(network, batch, name, heatmap(method), floor, bars[place], peers=peers))
    return listed


CASES = cases()

if __name__ == "__main__":
    main(__doc__, CASES)
