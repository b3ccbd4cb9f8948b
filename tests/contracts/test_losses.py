"""The rules of the spine, held against every explanation loss of the catalogue, with every attribution."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from rightreasons.attribution import ATTRIBUTIONS, Saliency
from rightreasons.core import Attribution, Batch, MissingAnnotation, NotDifferentiable
from rightreasons.models import adapt
from rightreasons.supervision import LOSSES
from tests.contracts.test_attributions import ASKS_FOR, central_difference, make, snapshot
from tests.networks import SIDE, images, network

EXPLAINED = [name for name, class_ in LOSSES.items() if "attribution" in {f.name for f in fields(class_)}]
SLOW = (pytest.mark.slow,)
SEEDED = {"counterexamples": {"seed": 0}, "recolored": {"seed": 0}}
MASK_FREE = ("recolored", "color_gradient")
every_loss = pytest.mark.parametrize("loss", list(LOSSES))
every_loss_of_masks = pytest.mark.parametrize("loss", [name for name in LOSSES if name not in MASK_FREE])


def batch_of(count: int = 4) -> Batch:
    inputs, target = images(count)
    masks = torch.zeros(2, count, 1, SIDE, SIDE, dtype=torch.float64)
    masks[0, ..., 3:9, 3:9] = 1
    masks[1, ..., :3, :3] = 1
    return Batch(inputs, target, relevant=masks[0], irrelevant=masks[1])


def build(name: str):
    return LOSSES[name](**SEEDED.get(name, {}))


def double(loss):
    """The loss's own weights in the networks' precision."""
    for item in fields(loss):
        if isinstance(getattr(loss, item.name), nn.Module):
            getattr(loss, item.name).double()
    return loss


@every_loss
def test_a_term_is_a_finite_scalar_on_the_graph(loss):
    model, batch = adapt(network("relu")), batch_of()
    value = double(build(loss))(model, batch, model(batch.inputs))
    assert value.shape == ()
    assert torch.isfinite(value)
    assert value.requires_grad


# Every method in a loss on its values per channel and in one on the heatmap; every loss on a gradient and on a map of a
# layer. The rest of the product is slow, and takes the same ways.
PAIRS = [
    pytest.param(loss, method, marks=() if loss in ("rrr", "gradia") or method in ("saliency", "grad_cam") else SLOW)
    for loss in EXPLAINED
    for method in ATTRIBUTIONS
    if loss != "res"
]


@pytest.mark.parametrize(("loss", "method"), PAIRS)
@pytest.mark.parametrize("net", ["softplus"])
def test_any_loss_trains_through_any_attribution(loss, method, net):
    """The gradient with respect to the weights agrees with central differences.

    The threshold of RES jumps from value to value of the map and is held fixed by design; tests/supervision holds it
    fixed in the differences, too.
    """
    if method in ASKS_FOR:
        pytest.skip("does not explain this network")
    if not ATTRIBUTIONS[method].differentiable:
        pytest.skip("makes no such claim")
    model, batch = adapt(network(net)), batch_of()
    term = double(LOSSES[loss](make(method)))
    parameters = list(model.parameters())

    def value():
        return term(model, batch, model(batch.inputs))

    gradients = torch.autograd.grad(value(), parameters, allow_unused=True, materialize_grads=True)
    generator = torch.Generator().manual_seed(1)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    found = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    # Where a ReLU or a maximum switches within one step, the other tells; a wrong gradient agrees with neither.
    expected = [central_difference(value, parameters, direction, step) for step in (1e-6, 1e-7)]
    assert any(found == pytest.approx(difference, rel=1e-5, abs=1e-9) for difference in expected), (found, expected)


@dataclass(frozen=True)
class Opaque(Attribution):
    differentiable: ClassVar[bool] = False
    signed: ClassVar[bool] = True

    def attribute(self, model, inputs, target, *, graph):
        return Saliency().attribute(model, inputs, target, graph=graph)


@pytest.mark.parametrize("loss", EXPLAINED)
def test_an_attribution_that_cannot_be_trained_through_is_refused_by_name(loss):
    with pytest.raises(NotDifferentiable, match="Opaque"):
        LOSSES[loss](Opaque())


@every_loss
@pytest.mark.parametrize("training", [False, True])
def test_a_call_leaves_the_model_as_it_was(loss, training):
    model, batch = adapt(network("batch_norm")).train(training), batch_of()
    logits = model(batch.inputs)
    before = snapshot(model)
    double(build(loss))(model, batch, logits)
    assert snapshot(model) == before


@pytest.mark.parametrize("loss", EXPLAINED)  # the noise of counterexamples has a test of its own
def test_images_without_a_mask_do_not_count(loss):
    model, batch = adapt(network("relu")), batch_of()
    some = torch.tensor([True, False, True, False])
    part = batch[some]
    term = double(build(loss))
    found = term(model, replace(batch, annotated=some), model(batch.inputs))
    torch.testing.assert_close(found, term(model, part, model(part.inputs)))


KINDS = dict.fromkeys(LOSSES, ("relevant", "irrelevant")) | {
    "rrr": ("irrelevant",),
    "counterexamples": ("irrelevant",),
    "gradia": ("relevant",),
}


@every_loss_of_masks
def test_an_annotated_image_whose_mask_of_the_kind_is_empty_does_not_count(loss):
    """Such as an image that a person marked with the other kind of mask alone."""
    model, batch = adapt(network("relu")), batch_of()
    drawn = torch.tensor([True, False, True, False])
    empty = {kind: getattr(batch, kind) * drawn.view(-1, 1, 1, 1) for kind in KINDS[loss]}
    part, term = batch[drawn], double(build(loss))
    found = term(model, replace(batch, annotated=torch.ones(4, dtype=torch.bool), **empty), model(batch.inputs))
    torch.testing.assert_close(found, term(model, part, model(part.inputs)))
    none = {kind: torch.zeros_like(getattr(batch, kind)) for kind in KINDS[loss]}
    value = term(model, replace(batch, **none), model(batch.inputs))
    assert value.item() == 0
    value.backward()


@every_loss
def test_a_batch_without_annotations_gives_a_zero_that_is_on_the_graph(loss):
    model, batch = adapt(network("relu")), batch_of()
    none = replace(batch, annotated=torch.zeros(4, dtype=torch.bool))
    value = double(build(loss))(model, none, model(batch.inputs))
    assert value.item() == 0
    value.backward()


@every_loss_of_masks
def test_data_without_masks_are_refused(loss):
    model, batch = adapt(network("relu")), batch_of()
    bare = Batch(batch.inputs, batch.target)
    with pytest.raises(MissingAnnotation):
        double(build(loss))(model, bare, model(batch.inputs))
