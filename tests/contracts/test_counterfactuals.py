"""The rules of the spine, held against every counterfactual of the catalogue."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
import torch
from torch import nn

from rightreasons.core import ANY_OTHER, BadModel, Counterfactual
from rightreasons.counterfactuals import COUNTERFACTUALS, runner_up
from rightreasons.models import adapt
from tests.contracts.test_attributions import snapshot
from tests.counterfactuals.tiny import Cells, Toward
from tests.networks import CLASSES, SIDE, images, network

SETTINGS = {
    "growing_spheres": {"samples": 4, "growth": 1.5, "cells": (4, 2), "bisections": 3, "max_queries": 90},
    "wachter": {"steps": 15, "bisections": 4},
    "cem": {"steps": 8, "rounds": 2, "step_size": 0.1},
    "nearest_neighbor": {"references": images(40, seed=9)[0], "halvings": 4},
    "prototype_guided": {
        "encoder": Cells(),
        "references": images(40, seed=9)[0],
        "labels": torch.arange(40) % CLASSES,
        "steps": 15,
    },
    "latent_search": {"autoencoder": Cells(), "nearness": 0.3, "steps": 20, "step_size": 0.3, "lead": 0.01},
    # Three images of which both networks are sure, one a class.
    "amortized": {"generator": Toward(images(1000, seed=5)[0][[503, 290, 813]]), "passes": 2, "refine": 5},
}
every_method = pytest.mark.parametrize("method", list(COUNTERFACTUALS))
every_net = pytest.mark.parametrize("net", ["relu", "transformer"])


def make(name: str, **settings) -> Counterfactual:
    return COUNTERFACTUALS[name](**{**SETTINGS.get(name, {}), **settings})


def steep(name: str = "relu", **settings) -> nn.Module:
    """A network whose classes are all within reach: centered logits of some size."""
    plain = network(name, **settings)
    with torch.no_grad():
        logits = plain(images(64, seed=7)[0].to(next(plain.parameters()).dtype))
    return nn.Sequential(plain, Centered(logits.mean(dim=0), logits.std(dim=0))).eval()


class Centered(nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, logits):
        return 3 * (logits - self.mean) / self.std


def asked(model, inputs):
    return runner_up(model, inputs)


@every_method
@every_net
def test_what_is_called_valid_is_valid_and_no_pixel_leaves_its_range(method, net):
    model, (inputs, _) = adapt(steep(net)), images(6)
    target = asked(model, inputs)
    found = make(method)(model, inputs, target)
    assert found.images.shape == inputs.shape
    assert found.images.dtype == inputs.dtype
    assert found.valid.any()
    assert torch.equal(found.target, target)
    assert torch.equal(model(found.images).argmax(dim=1)[found.valid], target[found.valid])
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert not found.images.requires_grad
    assert found.seconds > 0


class Counted(nn.Module):
    """A network that knows how many images ran through it, and how many ran back."""

    def __init__(self, inside):
        super().__init__()
        self.inside, self.forward_rows, self.backward_rows = inside, 0, 0

    def forward(self, x):
        self.forward_rows += len(x)
        if x.requires_grad:
            x = x.clone()
            x.register_hook(lambda slope: setattr(self, "backward_rows", self.backward_rows + len(slope)))
        return self.inside(x)


@every_method
def test_every_row_that_runs_forward_or_backward_is_counted(method):
    counted, (inputs, _) = Counted(steep()), images(5)
    model = adapt(counted, layer="inside.0.3")
    target = asked(model, inputs)
    counted.forward_rows = 0
    found = make(method, max_batch=4)(model, inputs, target)
    assert int(found.queries.sum()) == counted.forward_rows
    assert int(found.gradients.sum()) == counted.backward_rows
    assert bool(found.gradients.any()) != COUNTERFACTUALS[method].black_box


@every_method
@every_net
def test_a_batch_equals_its_singles(method, net):
    model, (inputs, _) = adapt(steep(net)), images(4)
    target = asked(model, inputs)
    together = make(method)(model, inputs, target)
    for i in (0, 3):
        apart = make(method)(model, inputs[i : i + 1], target[i : i + 1])
        torch.testing.assert_close(together.images[i : i + 1], apart.images, rtol=1e-6, atol=1e-9)
        for name in ("valid", "queries", "gradients"):
            assert torch.equal(getattr(together, name)[i : i + 1], getattr(apart, name)), name


@every_method
def test_each_image_meets_the_model_that_is_made_for_it(method):
    """A classifier with something beside each image has to be told which images it sees."""
    inputs, _ = images(4)
    plain = steep()
    shift = torch.tensor([[0.0, 0, 0], [9, 0, 0], [0, 9, 0], [0, 0, 9]], dtype=torch.float64)

    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.plain = plain

        def forward(self, x, shift):
            return self.plain(x) + shift

    model = adapt(Shifted(), layer="plain.0.3").besides((shift,))
    target = asked(model, inputs)
    together = make(method)(model, inputs, target)
    for i in (1, 3):
        apart = make(method)(model.rows(torch.tensor([i])), inputs[[i]], target[[i]])
        torch.testing.assert_close(together.images[[i]], apart.images, rtol=1e-6, atol=1e-9)


@every_method
def test_the_same_seed_gives_the_same_images_whether_gradients_are_enabled_or_not(method):
    model, (inputs, _) = adapt(steep()), images()
    target = asked(model, inputs)
    first = make(method)(model, inputs, target)
    torch.rand(3)
    with torch.no_grad():
        off = make(method)(model, inputs, target)
    with torch.inference_mode():
        inference = make(method)(model, inputs.clone(), target.clone())
    assert torch.equal(first.images, off.images)
    assert torch.equal(first.images, inference.images.clone())


@every_method
@pytest.mark.parametrize("training", [False, True])
def test_the_model_predicts_in_evaluation_mode_and_is_left_as_it_was(method, training):
    model, (inputs, _) = adapt(steep("batch_norm")), images()
    target = asked(model, inputs)
    expected = make(method)(model, inputs, target)
    model.train(training)
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    next(model.parameters()).requires_grad_(False)
    before = snapshot(model)
    items = []
    for found in make(method).improve(model, inputs, target):
        assert torch.is_grad_enabled()
        items.append(found)
        if len(items) in (1, 3):
            assert snapshot(model) == before
    torch.testing.assert_close(items[-1].images, expected.images)
    assert snapshot(model) == before
    assert not inputs.requires_grad
    with pytest.raises(ValueError, match="pixels from 0"):
        make(method)(model, inputs + 5, target)
    assert snapshot(model) == before


@every_method
def test_what_comes_later_is_better_and_the_call_gives_the_last(method):
    model, (inputs, _) = adapt(steep()), images(5)
    target, made = asked(model, inputs), make(method)
    items = list(made.improve(model, inputs, target))
    assert len(items) > 2
    for before, after in pairwise(items):
        assert (after.valid >= before.valid).all()
        assert (after.queries >= before.queries).all()
        assert after.seconds >= before.seconds
        both = before.valid
        lengths = [made.distance(inputs, item.images)[both] for item in (before, after)]
        assert (lengths[1] <= lengths[0]).all()
    called = made(model, inputs, target)
    assert torch.equal(called.images, items[-1].images)
    assert torch.equal(called.queries, items[-1].queries)


@every_method
def test_any_other_class_may_be_asked_for(method):
    model, (inputs, _) = adapt(steep()), images(5)
    found = make(method)(model, inputs, torch.full((5,), ANY_OTHER))
    before, after = (model(x).argmax(dim=1) for x in (inputs, found.images))
    assert found.valid.any()
    assert (before != after)[found.valid].all()


class Never(nn.Module):
    """A network that gives no image the class 2."""

    def __init__(self):
        super().__init__()
        self.inside = steep()

    def forward(self, x):
        return self.inside(x) - torch.tensor([0.0, 0.0, 300.0], dtype=x.dtype)


@every_method
def test_a_class_out_of_reach_is_not_valid_and_the_most_probable_image_is_kept(method):
    model, (inputs, _) = adapt(Never(), layer="inside.0.3"), images(4)
    target = torch.full((4,), 2)
    found = make(method)(model, inputs, target)
    assert not found.valid.any()
    assert torch.isfinite(found.images).all()
    before, after = (model(x).softmax(dim=1)[:, 2] for x in (inputs, found.images))
    assert (after > before).all()


@every_method
def test_one_image_out_of_reach_does_not_spoil_the_others(method):
    model, (inputs, _) = adapt(Never(), layer="inside.0.3"), images(6)
    target = asked(model, inputs)
    alone = make(method)(model, inputs[1:], target[1:])
    target[0] = 2
    found = make(method)(model, inputs, target)
    assert not found.valid[0]
    assert torch.equal(found.valid[1:], alone.valid)
    assert alone.valid.any()
    assert torch.equal(model(found.images).argmax(dim=1)[found.valid], target[found.valid])


@every_method
def test_a_budget_of_queries_is_kept_for_each_image(method):
    model, (inputs, _) = adapt(steep()), images(4)
    found = make(method, max_queries=23)(model, inputs, asked(model, inputs))
    assert found.queries.max() <= 23
    assert found.queries.max() > 5


@every_method
def test_a_budget_of_time_ends_the_search_with_the_best_found(method):
    model, (inputs, _) = adapt(steep()), images(4)
    target = asked(model, inputs)
    found = make(method, max_seconds=1e-9)(model, inputs, target)
    assert found.queries.max() < make(method)(model, inputs, target).queries.max()
    assert torch.isfinite(found.images).all()


@every_method
def test_a_black_box_needs_no_gradient_and_others_say_that_none_comes(method):
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = steep()

        def forward(self, x):
            return self.inside(torch.from_numpy(x.detach().numpy().copy())).detach()

    model, (inputs, _) = adapt(Detached(), layer="inside.0.3"), images()
    target = asked(model, inputs)
    if COUNTERFACTUALS[method].black_box:
        assert make(method)(model, inputs, target).valid.any()
    else:
        with pytest.raises(BadModel, match="no gradient"):
            make(method)(model, inputs, target)


@every_method
def test_another_range_of_pixels_scales_the_search(method):
    """Images from -1 to 1 under a network that maps them back are the same question."""

    class Halved(nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = steep()

        def forward(self, x):
            return self.inside((x + 1) / 2)

    model, wide, (inputs, _) = adapt(steep()), adapt(Halved(), layer="inside.0.3"), images()
    target = asked(model, inputs)
    settings = {k: 2 * v - 1 for k, v in SETTINGS[method].items() if k == "references"}
    found = make(method, low=-1.0, high=1.0, **settings)(wide, 2 * inputs - 1, target)
    narrow = make(method)(model, inputs, target)
    assert torch.equal(found.valid, narrow.valid)
    # Changes of the same size may change places by rounding.
    assert (((found.images + 1) / 2 - narrow.images).abs() > 1e-6).double().mean() < 0.01


@every_method
def test_bad_input_is_refused_by_name(method):
    model, (inputs, _) = adapt(steep()), images(4)
    target = asked(model, inputs)
    own = model(inputs).argmax(dim=1)
    same = torch.where(torch.tensor([False, True, False, True]), own, target)
    with pytest.raises(ValueError, match="the class itself for images 1, 3"):
        make(method).improve(model, inputs, same)
    outside = inputs.clone()
    outside[2, 0, 0, 0] = 1.5
    with pytest.raises(ValueError, match="other values in image 2"):
        make(method)(model, outside, target)
    outside[2, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="other values in image 2"):
        make(method)(model, outside, target)
    with pytest.raises(ValueError, match=f"expected 0 to {CLASSES - 1}, got 7"):
        make(method)(model, inputs, torch.full((4,), 7))
    with pytest.raises(ValueError, match="expected 0 to"):
        make(method)(model, inputs, torch.full((4,), -2))
    with pytest.raises(ValueError, match="empty batch"):
        make(method)(model, inputs[:0], target[:0])


@pytest.mark.wrong_types
@every_method
def test_inputs_and_target_must_go_together(method):
    model, (inputs, _) = adapt(steep()), images(4)
    target = asked(model, inputs)
    with pytest.raises(ValueError, match="one target an input"):
        make(method)(model, inputs, target[:2])
    with pytest.raises(ValueError, match="class numbers"):
        make(method)(model, inputs, target.double())
    with pytest.raises(ValueError, match=r"adapt\(network\)"):
        make(method)(object(), inputs, target)
    with pytest.raises(ValueError, match="images"):
        make(method)(model, inputs.flatten(2), target)


@every_method
def test_half_precision_is_no_obstacle(method):
    settings = {"references": SETTINGS[method]["references"].bfloat16()} if "references" in SETTINGS[method] else {}
    model, (inputs, _) = adapt(steep(dtype=torch.bfloat16)), images(3, dtype=torch.bfloat16)
    found = make(method, **settings)(model, inputs, asked(model, inputs))
    assert found.images.dtype == torch.bfloat16
    assert torch.isfinite(found.images).all()


@every_method
def test_a_method_is_its_settings_and_cannot_be_changed(method):
    made = make(method)
    assert type(made).__name__ in repr(made)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.low = -1.0
    for name, value in (("low", 1.0), ("lead", -1.0), ("max_queries", 0), ("max_seconds", 0.0), ("max_batch", 0)):
        with pytest.raises(ValueError, match=f"expected .*{name}"):
            make(method, **{name: value})


def test_the_images_are_of_the_size_the_tests_are_written_for():
    assert images()[0].shape[-2:] == (SIDE, SIDE)
