from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution import AcrossLayers, GradCAM, Saliency
from rightreasons.core import Batch, ExplanationLoss
from rightreasons.models import adapt
from rightreasons.supervision import RES, RRR
from rightreasons.training import Objective, Term, TrainingStep
from tests.networks import NETWORKS, SIDE, images, network


@dataclass(frozen=True)
class LogitSize(ExplanationLoss):
    def __call__(self, model, batch, logits):
        return logits.square().mean()


@dataclass(frozen=True)
class Holder(ExplanationLoss):
    inner: object

    def __call__(self, model, batch, logits):
        return logits.sum() * 0


def test_total_is_task_plus_weighted_terms_and_parts_are_unweighted(tiny, toy):
    model, batch = tiny(dropout=0.0), toy().batch(torch.arange(8))
    logits = model(batch.inputs)
    parts = Objective({"size": Term(LogitSize(), 0.5), "again": Term(LogitSize(), 2.0)})(model, batch, logits)
    task, size = F.cross_entropy(logits, batch.target), (logits**2).mean()
    assert list(parts) == ["loss", "cross_entropy", "size", "again"]
    torch.testing.assert_close(parts["loss"], task + 2.5 * size)
    torch.testing.assert_close(parts["size"], size)
    torch.testing.assert_close(parts["cross_entropy"], task)


@pytest.mark.parametrize("name", ["loss", "cross_entropy", "not a name", ""])
def test_taken_or_unusable_names_are_refused(name):
    with pytest.raises(ValueError, match="expected an identifier"):
        Objective({name: Term(LogitSize())})


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_unusable_weights_are_refused(weight):
    with pytest.raises(ValueError, match="expected a finite weight"):
        Term(LogitSize(), weight)


@pytest.mark.wrong_types
def test_a_term_must_be_an_explanation_loss():
    with pytest.raises(ValueError, match="expected an explanation loss, got Saliency"):
        Term(Saliency())


def test_gradients_equal_a_plain_double_backward(tiny, toy):
    model, batch = tiny(dropout=0.0), toy().batch(torch.arange(12))
    model.double()
    batch = replace(batch, inputs=batch.inputs.double(), irrelevant=batch.irrelevant.double())
    TrainingStep(model, Objective({"rrr": Term(RRR(), 3.0)}))(batch)["loss"].backward()
    ours = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()

    inputs = batch.inputs.clone().requires_grad_()
    logits = model.network(inputs)
    (gradient,) = torch.autograd.grad(logits.log_softmax(1).sum(), inputs, create_graph=True)
    penalty = ((gradient * batch.irrelevant) ** 2).sum((1, 2, 3)).mean()
    (F.cross_entropy(logits, batch.target) + 3 * penalty).backward()
    for mine, parameter in zip(ours, model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-10, atol=1e-12)


def test_all_terms_share_one_forward_pass(tiny, toy):
    model, passes = tiny(), []
    model.network.register_forward_hook(lambda *_: passes.append(1))
    objective = Objective({"rrr": Term(RRR()), "res": Term(RES(GradCAM())), "size": Term(LogitSize())})
    batch = toy().batch(torch.arange(8))
    TrainingStep(model, objective)(batch)["loss"].backward()
    assert len(passes) == 1
    assert not batch.inputs.requires_grad
    assert batch.inputs.grad is None


def test_layers_are_those_that_are_explained(tiny):
    model = tiny()
    assert Objective({"rrr": Term(RRR())}).layers(model) == ()
    both = Objective({"a": Term(RES(GradCAM())), "b": Term(RES(GradCAM(layer="2"))), "c": Term(RES(GradCAM()))})
    assert both.layers(model) == (model.layer, "2")


def test_a_loss_on_several_layers_shares_the_pass(tiny, toy):
    model, passes, layers = tiny(), [], ["0", "1"]
    objective = Objective({"res": Term(RES(AcrossLayers(GradCAM(), layers)))})
    assert objective.layers(model) == tuple(layers)
    model.network.register_forward_hook(lambda *_: passes.append(1))
    TrainingStep(model, objective)(toy().batch(torch.arange(8)))["loss"].backward()
    assert len(passes) == 1


def test_modules_in_losses_are_found_however_deep():
    module = nn.Linear(1, 1)
    objective = Objective({"a": Term(Holder(module)), "b": Term(Holder(Holder(module))), "c": Term(LogitSize())})
    assert objective.modules() == {"a_inner": module, "b_inner_inner": module}


def test_own_weights_of_a_loss_get_a_gradient_even_without_annotations(tiny, toy):
    data = toy(annotated=torch.zeros(96, dtype=torch.bool))
    for loss in (RES(GradCAM(), imputation="learned"), Holder(nn.Linear(1, 1))):
        step = TrainingStep(tiny(), Objective({"res": Term(loss)}))
        step(data.batch(torch.arange(8)))["loss"].backward()
        own = list(step.modules_of_losses.parameters())
        assert own
        assert all(p.grad is not None and not p.grad.any() for p in own)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_network_trains_through_its_explanation(name):
    """Attention in particular: its fast kernels have no double backward, and the recorded pass must not take them."""
    net, (inputs, target) = network(name, dtype=torch.float32).train(), images(4, dtype=torch.float32)
    batch = Batch(inputs, target, irrelevant=torch.ones(4, 1, SIDE, SIDE))
    TrainingStep(adapt(net), Objective({"rrr": Term(RRR(), 1.0)}))(batch)["rrr"].backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


@pytest.mark.wrong_types
@pytest.mark.parametrize("value", [RRR(), (RRR(), 0.1), 1.0])
def test_a_value_that_is_no_term_is_refused(value):
    with pytest.raises(ValueError, match=r"expected a Term under 'rrr', got .*; write Term\(loss, weight\)"):
        Objective({"rrr": value})
