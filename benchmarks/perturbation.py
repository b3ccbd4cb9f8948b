"""What the perturbation methods cost, ours beside captum and lime, as a multiple of the network's own passes.

    python benchmarks/perturbation.py --rounds 5 --threads 1 --out perturbation.json

The floor of a method is as many forward passes as it has masked images, on the batch that is explained, by the network
alone; of a method that optimizes, forward and backward passes. Ours can fall below 1: it runs images of several masks
together, puts channels last in memory, and runs equal pictures once. The images are noise, where few are equal.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from typing import Any

import numpy as np
import torch
from measure import Case, Make, agreement, heatmap, main, passes, peer
from workloads import Run, Workload

from rightreasons.attribution import LIME, RISE, KernelSHAP, MeaningfulPerturbation, Occlusion
from rightreasons.attribution.perturbation.regions import grid


def captum_occlusion(window: int, stride: int, at_once: int) -> Make:
    def make(work: Workload) -> Run | None:
        attr = peer("captum.attr")
        if attr is None:
            return None
        channels = work.inputs.shape[1]
        shapes = {"sliding_window_shapes": (channels, window, window), "strides": (channels, stride, stride)}
        method = attr.Occlusion(work.network)
        return lambda: method.attribute(work.inputs, target=work.target, perturbations_per_eval=at_once, **shapes)

    return make


def captum_surrogate(name: str, samples: int, cells: int, at_once: int) -> Make:
    def make(work: Workload) -> Run | None:
        attr = peer("captum.attr")
        if attr is None:
            return None
        labels = grid(*work.inputs.shape[2:], cells=cells)[None, None].expand(1, work.inputs.shape[1], -1, -1)
        settings = {"feature_mask": labels, "n_samples": samples, "perturbations_per_eval": at_once}
        method = getattr(attr, name)(work.network)
        return lambda: method.attribute(work.inputs, target=work.target, **settings)

    return make


def lime_image(samples: int, cells: int) -> Make:
    """The lime package with our grid, so that segmentation costs neither anything."""

    def make(work: Workload) -> Run | None:
        package = peer("lime.lime_image") if importlib.util.find_spec("lime") else None
        if package is None:
            return None
        channels = work.inputs.shape[1]
        image = work.inputs[0].expand(3, -1, -1).permute(1, 2, 0).double().numpy()
        labels = grid(*work.inputs.shape[2:], cells=cells).numpy()

        def predict(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            with torch.inference_mode():
                batch = torch.as_tensor(images).permute(0, 3, 1, 2)[:, :channels].float()
                return work.network(batch).softmax(1).numpy()  # type: ignore[no-any-return]

        def run() -> None:
            with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
                explainer = package.LimeImageExplainer(random_state=0)
                settings = {"top_labels": 1, "num_samples": samples, "segmentation_fn": lambda _: labels}
                explainer.explain_instance(image, predict, **settings)

        return run

    return make


def occlusion(network: str, batch: int, window: int, stride: int, at_most: float) -> Case:
    side = 28 if network == "LeNet" else 224
    windows = ((side - window) // stride + 1) ** 2
    peers = {f"captum, {many} at once": captum_occlusion(window, stride, many) for many in (1, 8)}
    ours, name = heatmap(Occlusion(window, stride)), f"Occlusion, {windows} windows"
    return Case(network, batch, name, ours, passes(windows), at_most, peers=peers, noise=True)


def surrogate(network: str, batch: int, method: LIME | KernelSHAP, at_most: float | None, note: str = "") -> Case:
    name = "Lime" if isinstance(method, LIME) else "KernelShap"
    many = 50 if network == "LeNet" else 8
    peers = {f"captum, {n} at once": captum_surrogate(name, method.samples, method.cells, n) for n in (1, many)}
    if isinstance(method, LIME) and batch == 1:
        peers["lime"] = lime_image(method.samples, method.cells)
    title = f"{type(method).__name__}, {method.samples} samples{note}"
    return Case(network, batch, title, heatmap(method), passes(method.samples), at_most, peers=peers, noise=True)


def cases() -> list[Case]:
    rise, meaningful = heatmap(RISE(1000)), heatmap(MeaningfulPerturbation(20))
    exact, half = LIME(cells=7, samples=60), LIME(cells=7, samples=60, bfloat16=True)
    compared = agreement(half, exact)
    return [
        occlusion("LeNet", 256, 4, 4, 0.9),
        occlusion("LeNet", 16, 4, 1, 0.9),
        surrogate("LeNet", 8, KernelSHAP(cells=7, samples=200), 0.6),
        surrogate("LeNet", 8, LIME(cells=7, samples=200), None),
        surrogate("LeNet", 1, LIME(cells=7, samples=1000), 0.33),
        Case("LeNet", 8, "RISE, 1000 masks", rise, passes(1000), noise=True),
        Case("LeNet", 256, "MeaningfulPerturbation, 20", meaningful, passes(both=20), noise=True),
        occlusion("ResNet-50", 4, 56, 56, 1.0),
        surrogate("ResNet-50", 1, KernelSHAP(cells=5, samples=40), None),
        surrogate("ResNet-50", 1, exact, 0.75),
        Case("ResNet-50", 1, "LIME, 60 samples, bfloat16", heatmap(half), passes(60), 0.75, note=compared),
    ]


CASES = cases()

if __name__ == "__main__":
    main(__doc__, CASES)
