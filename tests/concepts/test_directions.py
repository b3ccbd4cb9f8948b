import pytest
import torch
from torch import nn

from rightreasons.concepts import Projection, activations_at, inserted, orthonormal, signal_direction, svm_direction
from rightreasons.core import BadModel, Batch
from rightreasons.models import adapt
from rightreasons.supervision import RRClArC
from tests.networks import images, network


def planted(count=200, seed=0):
    """Features of which the third holds the concept; the first is noise that a classifier must cancel from it."""
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(count, generator=generator) < 0.4
    noise = torch.randn(count, generator=generator, dtype=torch.float64)
    features = 0.1 * torch.randn(count, 5, generator=generator, dtype=torch.float64)
    features[:, 0] += noise
    features[:, 2] += present.double() + noise
    return features, present


def test_the_signal_direction_is_the_covariance_with_the_concept():
    features, present = planted()
    found = signal_direction(features, present)
    expected = torch.stack([torch.cov(torch.stack([f, present.double()]))[0, 1] for f in features.T])
    torch.testing.assert_close(found, expected / expected.norm())
    assert abs(float(found[2])) > 0.9


def test_a_classifiers_normal_turns_away_to_cancel_the_noise_and_the_signal_does_not():
    features, present = planted(2000)
    normal, signal = svm_direction(features, present), signal_direction(features, present)
    assert float(normal[0]) < -0.5
    assert abs(float(signal[0])) < 0.2
    assert float(normal.norm()) == pytest.approx(1)
    scores = features @ normal
    assert scores[present].mean() > scores[~present].mean() + 0.5


@pytest.mark.parametrize("fit", [signal_direction, svm_direction])
def test_a_concept_must_be_in_some_images_and_not_in_others(fit):
    features, _ = planted(10)
    with pytest.raises(ValueError, match="with the concept and images without"):
        fit(features, torch.ones(10, dtype=torch.bool))


def test_activations_are_means_over_places_in_evaluation_mode():
    model, (inputs, _) = adapt(network("batch_norm")).train(), images(5)
    found = activations_at(model, inputs, layer="first.2", at_once=2)
    assert model.network.training
    inner = model.network.eval().first
    torch.testing.assert_close(found, inner[2](inner[1](inner[0](inputs))).mean((2, 3)).detach())
    with pytest.raises(BadModel, match="no layer named"):
        activations_at(model, inputs, layer="nothing")


def test_a_basis_spans_what_was_given():
    directions = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    basis = orthonormal(directions)
    torch.testing.assert_close(basis @ basis.T, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(directions @ basis.T @ basis, directions)
    with pytest.raises(ValueError, match="independent"):
        orthonormal(torch.stack([directions[0], 2 * directions[0]]))


@pytest.mark.parametrize("shape", [(4, 5, 3, 3), (4, 7, 5), (4, 5)])
def test_a_projection_gives_each_place_the_reference_along_the_directions_and_leaves_the_rest(shape):
    generator = torch.Generator().manual_seed(0)
    activation = torch.randn(shape, generator=generator, dtype=torch.float64)
    directions = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    reference = torch.randn(5, generator=generator, dtype=torch.float64)
    moved = Projection(directions, reference)(activation)
    last = moved.movedim(1 if len(shape) == 4 else -1, -1)
    before = activation.movedim(1 if len(shape) == 4 else -1, -1)
    torch.testing.assert_close(last @ directions.T, (reference @ directions.T).expand(*last.shape[:-1], 2))
    rest = torch.linalg.svd(directions).Vh[2:]
    torch.testing.assert_close(last @ rest.T, before @ rest.T)


def test_an_inserted_projection_makes_a_network_blind_to_a_direction():
    net, (inputs, _) = network("relu"), images(6)
    model = adapt(net)
    direction = torch.nn.functional.one_hot(torch.tensor(2), 5).double()[None]
    blind = inserted(net, "3", Projection(direction, torch.zeros(5, dtype=torch.float64)))
    assert isinstance(net[3], nn.Conv2d)  # the network itself is left alone
    with torch.no_grad():
        blind[3][0].bias[2] += 5
    changed = adapt(blind)(inputs)
    with torch.no_grad():
        blind[3][0].bias[2] -= 5
    torch.testing.assert_close(adapt(blind)(inputs), changed)
    assert not torch.allclose(changed, model(inputs))


def batch_of():
    inputs, target = images(4)
    return Batch(inputs, target)


@pytest.mark.parametrize("answer", ["target", "max", "all", "log_probabilities"])
def test_rr_clarc_is_the_squared_derivative_along_the_direction(answer):
    model, batch = adapt(network("softplus")), batch_of()
    direction = torch.randn(5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    direction = direction / direction.norm()
    trace = model.trace(batch.inputs, ("3",))
    score = {
        "target": trace.logits[torch.arange(4), batch.target],
        "max": trace.logits.max(1).values,
        "all": trace.logits.sum(1),
        "log_probabilities": trace.logits.log_softmax(1).sum(1),
    }[answer]
    (slopes,) = torch.autograd.grad(score.sum(), trace.activations["3"])
    expected = torch.einsum("bkhw,k->bhw", slopes, direction).square().sum() / 4
    found = RRClArC(direction[None], layer="3", answer=answer)(model, batch, trace.logits)
    torch.testing.assert_close(found.detach(), expected)
    cosine = RRClArC(3 * direction[None], layer="3", answer=answer, size="cosine")(model, batch, trace.logits)
    assert 0 < float(cosine.detach()) < 1


def test_a_few_steps_make_the_answer_deaf_to_the_direction():
    model, batch = adapt(network("softplus")), batch_of()
    loss = RRClArC(torch.ones(1, 5, dtype=torch.float64), layer="3", answer="target")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    values = []
    for _ in range(30):
        value = loss(model, batch, model(batch.inputs))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.3 * values[0]


@pytest.mark.wrong_types
def test_what_does_not_fit_is_refused():
    model, batch = adapt(network("softplus")), batch_of()
    with pytest.raises(BadModel, match="directions have 4 features"):
        RRClArC(torch.ones(1, 4, dtype=torch.float64), layer="3")(model, batch, torch.zeros(4, 3))
    with pytest.raises(ValueError, match="answer to be one of"):
        RRClArC(torch.ones(1, 5), answer="some")
    with pytest.raises(ValueError, match="expected a reference"):
        Projection(torch.ones(1, 5), torch.ones(4))
