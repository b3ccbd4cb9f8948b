"""The rules that every explanation loss keeps, held against the whole catalogue."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from rightreasons.core import Attribution, BadModel, ExplanationLoss, MissingAnnotation, NotDifferentiable
from rightreasons.models import Recorded, adapt, record
from rightreasons.supervision import LOSSES, RES, res
from tests.networks import SIDE, network

SETTINGS = {"counterexamples": {"seed": 0}, "recolored": {"seed": 0}}
VARIANTS = {
    **{name: (name, SETTINGS.get(name, {})) for name in LOSSES},
    "res_learned": ("res", {"imputation": "learned"}),
    "res_plain": ("res", {"imputation": None}),
    "counterexamples_swapped": ("counterexamples", {"seed": 0, "noise": "swapped", "copies": 2}),
}
every_loss = pytest.mark.parametrize("name", VARIANTS)
MASK_FREE = {"recolored", "color_gradient"}
every_loss_of_masks = pytest.mark.parametrize("name", [name for name in VARIANTS if name not in MASK_FREE])
# Either kind of mask is enough for these; the others ask for one kind.
EITHER = {"haics", "res"}
NEEDED = {name: "relevant" if name in ("gradia", "hint", "energy") else "irrelevant" for name in LOSSES}
# Losses that refuse an operator they have no rule for, by name.
NO_TRANSFORMER = {"cdep", "ibp_ex", "r4"}
EXPLAINING = [n for n in LOSSES if "attribution" in {item.name for item in dataclasses.fields(LOSSES[n])}]
every_explaining_loss = pytest.mark.parametrize("name", EXPLAINING)


def make(name: str, **settings) -> ExplanationLoss:
    key, own = VARIANTS[name]
    return LOSSES[key](**{**own, **settings})


@dataclass(frozen=True)
class Opaque(Attribution):
    differentiable: ClassVar[bool] = False
    signed: ClassVar[bool] = False

    def attribute(self, model, inputs, target, *, graph):
        raise AssertionError("never called")


@dataclass(frozen=True)
class Fixed(Attribution):
    """The pixels times a number, so that the heatmap is known."""

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = True
    factor: float = 1.0

    def attribute(self, model, inputs, target, *, graph):
        return model.trace(inputs).logits.sum() * 0 + self.factor * inputs


def weights_of(loss: ExplanationLoss) -> list[nn.Parameter]:
    return [p for f in dataclasses.fields(loss) for p in module_parameters(getattr(loss, f.name))]


def module_parameters(value: object) -> list[nn.Parameter]:
    return list(value.parameters()) if isinstance(value, nn.Module) else []


@every_loss
def test_a_loss_is_a_finite_positive_scalar_with_a_gradient(name, model, batch):
    value = make(name)(model, batch, model(batch.inputs))
    assert value.shape == ()
    assert float(value.detach()) > 0
    gradients = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
    assert any(g is not None and g.abs().sum() > 0 for g in gradients)


@every_loss
@pytest.mark.parametrize("net", ["softplus", "residual", "transformer"])
def test_its_gradient_agrees_with_central_differences(name, net, batch, alive_for, monkeypatch):
    model, loss = adapt(network(net)), make(name)
    batch = alive_for(model, batch)
    if net == "transformer" and name in NO_TRANSFORMER:
        with pytest.raises(BadModel, match="operator 'layer_norm'"):
            loss(model, batch, model(batch.inputs))
        return
    if isinstance(loss, RES):
        hold_threshold(monkeypatch)

    def value():
        return loss(model, batch, model(batch.inputs))

    own = [getattr(loss, f.name) for f in dataclasses.fields(loss)]
    own = [module.double() for module in own if isinstance(module, nn.Module)]
    parameters = [*model.parameters(), *(p for module in own for p in module.parameters())]
    gradients = torch.autograd.grad(value(), parameters, allow_unused=True, materialize_grads=True)
    generator = torch.Generator().manual_seed(3)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    found = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    assert abs(found) > 1e-6 or (name == "rbr" and abs(found) > 1e-9)  # the product of two small gradients
    assert found == pytest.approx(difference(value, parameters, direction), rel=1e-5)


def hold_threshold(monkeypatch) -> None:
    """Keep the first threshold: no gradient runs through it, so differences must not see it move either."""
    search, kept = res.adaptive_threshold, []

    def held(*maps):
        kept.append(search(*maps))
        return kept[0]

    monkeypatch.setattr(res, "adaptive_threshold", held)


def difference(value, parameters, direction, step: float = 1e-6) -> float:
    values = []
    with torch.no_grad():
        for sign in (1, -2, 1):
            for p, d in zip(parameters, direction, strict=True):
                p += sign * step * d
            values.append(float(value()))
    return (values[0] - values[1]) / (2 * step)


@every_loss
def test_only_annotated_images_count(name, model, batch):
    rows = torch.tensor([True, False, True, False])
    partly = replace(batch, annotated=rows)
    if name in ("counterexamples_swapped", "recolored"):
        pytest.skip("its copies take pixels or colors from all images")
    # A seed ties the copies to the index: keep them the same.
    found = make(name)(model, partly, model(partly.inputs))
    alone = batch[rows]
    torch.testing.assert_close(found, make(name)(model, alone, model(alone.inputs)))


@every_loss
def test_masks_of_images_that_are_not_annotated_are_not_read(name, model, batch):
    rows = torch.tensor([True, False, True, True])
    spoiled = {k: torch.where(rows.view(-1, 1, 1, 1), getattr(batch, k), 1.0) for k in ("relevant", "irrelevant")}
    first, second = replace(batch, annotated=rows), replace(batch, annotated=rows, **spoiled)
    logits = model(batch.inputs)
    torch.testing.assert_close(make(name)(model, first, logits), make(name)(model, second, logits))


@every_loss
def test_a_batch_without_annotations_gives_a_zero_that_reaches_every_weight(name, model, batch):
    loss = make(name)
    for kept in (batch, replace(batch, relevant=None, irrelevant=None)):
        value = loss(model, replace(kept, annotated=torch.zeros(4, dtype=torch.bool)), model(batch.inputs))
        assert float(value.detach()) == 0
        gradients = torch.autograd.grad(value, [*model.parameters(), *weights_of(loss)])
        assert all(not g.any() for g in gradients)


@every_loss_of_masks
def test_a_batch_without_masks_is_refused_by_name(name, model, batch):
    loss = make(name)
    with pytest.raises(MissingAnnotation, match=type(loss).__name__):
        loss(model, replace(batch, relevant=None, irrelevant=None), model(batch.inputs))


@pytest.mark.parametrize("name", sorted(set(LOSSES) - MASK_FREE - EITHER))
def test_the_kind_of_mask_that_is_missing_is_named_and_that_which_there_is(name, model, batch):
    missing = NEEDED[name]
    there = {"relevant": "irrelevant", "irrelevant": "relevant"}[missing]
    loss = make(name)
    told = f"{type(loss).__name__} needs masks of {missing} pixels and the batch has only masks of {there} pixels"
    with pytest.raises(MissingAnnotation, match=told):
        loss(model, replace(batch, **{missing: None}), model(batch.inputs))


@pytest.mark.parametrize("name", ["haics", "res", "res_learned"])
@pytest.mark.parametrize("kind", ["relevant", "irrelevant"])
def test_a_missing_kind_counts_as_all_zero_where_one_is_enough(name, kind, model, batch):
    logits = model(batch.inputs)
    zero = replace(batch, **{kind: torch.zeros_like(batch.relevant)})
    found = make(name)(model, replace(batch, **{kind: None}), logits)
    torch.testing.assert_close(found, make(name)(model, zero, logits))
    assert found > 0


@pytest.mark.wrong_types
@every_loss_of_masks
@pytest.mark.parametrize("shape", [(4, SIDE, SIDE), (4, 1, SIDE, SIDE - 1), (3, 1, SIDE, SIDE), (4, 2, SIDE, SIDE)])
def test_masks_of_another_shape_are_refused(name, shape, model, batch):
    wrong = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"expected (ir)?relevant masks of shape \(4, 1, 12, 12\), got"):
        make(name)(model, replace(batch, relevant=wrong, irrelevant=wrong), model(batch.inputs))


@pytest.mark.wrong_types
@every_loss
@pytest.mark.parametrize("annotated", [torch.tensor([0, 1]), torch.ones(3, dtype=torch.bool)])
def test_annotated_must_be_one_boolean_an_image(name, annotated, model, batch):
    with pytest.raises(ValueError, match="expected annotated as 4 booleans"):
        make(name)(model, replace(batch, annotated=annotated), model(batch.inputs))


@every_explaining_loss
def test_an_attribution_that_is_not_differentiable_is_refused_at_construction_by_name(name):
    with pytest.raises(NotDifferentiable, match=f"{LOSSES[name].__name__} .* Opaque is not"):
        LOSSES[name](attribution=Opaque())


@every_explaining_loss
def test_a_dead_map_gives_no_nan(name, model, batch):
    value = make(name, attribution=Fixed(0.0))(model, batch, model(batch.inputs))
    assert torch.isfinite(value)
    gradients = torch.autograd.grad(value, list(model.parameters()))
    assert all(torch.isfinite(g).all() for g in gradients)


@every_explaining_loss
def test_a_dead_class_activation_map_gives_no_nan(name, batch):
    network_ = network("relu")
    nn.init.constant_(network_[3].bias, -100)
    model = adapt(network_)
    value = make(name)(model, batch, model(batch.inputs))
    assert torch.isfinite(value)
    gradients = torch.autograd.grad(value, list(model.parameters()), allow_unused=True, materialize_grads=True)
    assert all(torch.isfinite(g).all() for g in gradients)


@every_loss_of_masks
def test_annotated_images_with_empty_masks_give_a_zero_on_the_graph(name, model, batch):
    empty = torch.zeros_like(batch.relevant)
    value = make(name)(model, replace(batch, relevant=empty, irrelevant=empty), model(batch.inputs))
    assert float(value.detach()) == 0
    assert not torch.autograd.grad(value, next(iter(model.parameters())))[0].any()


class Counted(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.passes = 0

    def forward(self, x):
        self.passes += 1
        return self.inner(x)


@every_explaining_loss
@pytest.mark.parametrize("annotated", [None, torch.tensor([True, False, True, False])])
def test_a_recorded_pass_is_used_again_also_when_only_some_images_are_annotated(name, annotated, batch):
    counted = Counted(network("softplus"))
    model = adapt(counted)
    inputs = batch.inputs.clone().requires_grad_()
    recorded = record(model, inputs, (model.layer,))
    assert isinstance(recorded, Recorded)
    value = make(name)(recorded, replace(batch, inputs=inputs, annotated=annotated), recorded.logits)
    assert counted.passes == (2 if name == "rbr" else 1)  # the influence takes a pass of its own
    plain = make(name)(model, replace(batch, annotated=annotated), recorded.logits)
    torch.testing.assert_close(value, plain)


@every_loss
def test_a_loss_is_its_settings_and_cannot_be_changed(name):
    loss = make(name)
    assert repr(loss).startswith(f"{type(loss).__name__}(")
    assert "\n" not in repr(loss)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(loss, dataclasses.fields(loss)[0].name, None)


@every_loss
def test_half_precision_is_no_obstacle(name, batch):
    model = adapt(network("softplus", dtype=torch.bfloat16))
    half = replace(batch, inputs=batch.inputs.bfloat16(), relevant=batch.relevant.float())
    value = make(name)(model, half, model(half.inputs))
    assert torch.isfinite(value)
    value.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_gives_finite_numbers(name, dtype, batch):
    """Weights and images in single precision, as Accelerate has them, one image without a mark."""
    model, loss = adapt(network("softplus", dtype=torch.float32)), make(name)
    some = torch.tensor([1.0, 1.0, 0.0, 1.0]).view(-1, 1, 1, 1)
    masks = {kind: getattr(batch, kind).float() * some for kind in ("relevant", "irrelevant")}
    single = replace(batch, inputs=batch.inputs.float(), **masks)
    with torch.autocast("cpu", dtype=dtype):
        value = loss(model, single, model(single.inputs))
    assert torch.isfinite(value)
    value.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@every_loss
def test_without_gradients_the_value_is_the_same(name, model, batch):
    with torch.no_grad():
        value = make(name)(model, batch, model(batch.inputs))
    torch.testing.assert_close(value, make(name)(model, batch, model(batch.inputs)).detach())


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("rbr", "energy")])
def test_a_few_steps_lower_the_loss(name, batch):
    model, loss = adapt(network("softplus")), make(name)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    values = []
    for _ in range(15):
        value = loss(model, batch, model(batch.inputs))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.98 * values[0]


def test_the_catalogue_names_losses_as_the_papers_do():
    assert LOSSES["res"] is RES
    assert {"rrr", "rrr_grad_cam", "hint", "tap", "pgd_ex"} <= set(LOSSES)
