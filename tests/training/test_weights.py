"""Weights that are found in training."""

from __future__ import annotations

import math

import pytest
import torch

from rightreasons.attribution import GradCAM, Saliency
from rightreasons.attribution.cam import AcrossLayers
from rightreasons.supervision import GRADIA, RES, RRR, TAP, Counterexamples, RRRGradCAM
from rightreasons.training import Balance, FitSettings, Objective, Target, Term, TrainingStep, fit, weight_of
from rightreasons.training.weights import Weighing, share_at_irrelevant


def norm(value, model):
    gradients = torch.autograd.grad(value, list(model.parameters()), retain_graph=True, allow_unused=True)
    return math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))


def test_a_balanced_term_pulls_as_hard_as_the_task(tiny, toy):
    model, batch = tiny(dropout=0.0), toy().batch(torch.arange(12))
    step = TrainingStep(model, Objective({"rrr": Term(RRR(), Balance(share=0.5))})).train()
    parts = step(batch)
    ratio = norm(parts["cross_entropy"], model) / norm(parts["rrr"], model)
    assert float(parts["rrr_weight"]) == pytest.approx(0.5 * ratio, rel=1e-4)
    total = parts["cross_entropy"] + parts["rrr_weight"] * parts["rrr"]
    torch.testing.assert_close(parts["loss"], total)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_the_scale_of_a_loss_does_not_matter(scale, tiny, toy):
    """What a sweep over five decades is for: pixels from 0 to 255 or to 1."""

    class Scaled(RRR):
        def __call__(self, model, batch, logits):
            return scale * super().__call__(model, batch, logits)

    results = []
    for loss in (RRR(), Scaled()):
        model = tiny(dropout=0.0)
        fit(model, toy(), Objective({"rrr": Term(loss, Balance())}), FitSettings(epochs=2, batch_size=16))
        results.append(torch.nn.utils.parameters_to_vector(model.parameters()).detach())
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-4)


def test_measurements_are_taken_every_few_steps_and_remembered(tiny, toy):
    model, batch = tiny(dropout=0.0), toy().batch(torch.arange(12))
    step = TrainingStep(model, Objective({"rrr": Term(RRR(), Balance(every=3, relief=0))})).train()
    first = float(step(batch)["rrr_weight"])
    with torch.no_grad():
        for p in model.parameters():
            p *= 1.3
    assert [float(step(batch)["rrr_weight"]) for _ in range(2)] == [first, first]
    fourth = float(step(batch)["rrr_weight"])
    now = norm(step(batch)["cross_entropy"], model) / norm(step(batch)["rrr"], model)
    assert math.log(fourth) == pytest.approx(0.9 * math.log(first) + 0.1 * math.log(now), rel=1e-3)


@pytest.mark.parametrize("relief", [0.0, 0.25])
def test_a_solved_term_lets_go(relief):
    """A squared term at 1, then at 1e-4, then at 16, with gradients 2 * x: its weight against that without relief."""
    task = torch.tensor(1.0, requires_grad=True)
    weighing, weights = Weighing(Balance(relief=relief)), []
    for value in (1.0, 1e-2, 4.0):
        x = torch.tensor(value, requires_grad=True)
        weighing.log_weight.fill_(-math.inf)
        weighing.balance(3 * task, x.square(), [task, x], weighing.rule)
        weights.append(float(weighing.weight(torch.zeros((), dtype=torch.float64))))
    unrelieved = [3 / 2, 3 / 2e-2, 3 / 8]
    assert weights == pytest.approx([unrelieved[0], unrelieved[1] * 1e-4**relief, unrelieved[2]], rel=1e-5)


def test_evaluation_measures_nothing(tiny, toy):
    model, batch = tiny(), toy().batch(torch.arange(12))
    step = TrainingStep(model, Objective({"rrr": Term(RRR(), Balance())})).eval()
    assert float(step(batch)["rrr_weight"]) == 0


def test_a_target_raises_the_weight_while_too_much_lies_in_the_wrong_place_and_lowers_it_then():
    weighing = Weighing(Target(share=0.1, rate=0.5))
    weighing.log_weight.fill_(3.0)
    moved = []
    for share in (0.05, 0.001, 0.2, float("nan"), 0.9, 0.9):
        weighing.ascend(torch.tensor(share), weighing.rule)
        moved.append(math.log(float(weighing.weight(torch.zeros((), dtype=torch.float64)))) - 3)
    lowered = -0.5 * math.log(2)  # then cut off at a factor of e, raised by half of log 2, and never above balance
    expected = [lowered, lowered - 0.5, -0.5, -0.5, 0.0, 0.0]
    assert moved == pytest.approx(expected, abs=1e-6)


def test_a_target_that_was_long_satisfied_comes_back_in_time():
    weighing = Weighing(Target(share=0.1, rate=0.2))
    weighing.log_weight.fill_(0.0)
    for _ in range(500):
        weighing.ascend(torch.tensor(0.0), weighing.rule)
    for _ in range(35):
        weighing.ascend(torch.tensor(1.0), weighing.rule)
    assert float(weighing.weight(torch.zeros(()))) == pytest.approx(1.0)


def test_the_share_is_what_lies_in_irrelevant_pixels_over_chance(tiny, toy):
    model, batch = tiny(dropout=0.0), toy().batch(torch.arange(12))
    values = Saliency(score="sum_log_probabilities").per_channel(model, batch.inputs, batch.target).detach().abs()
    expected = ((values * batch.irrelevant).sum((1, 2, 3)) / values.sum((1, 2, 3))).mean() / 0.5
    torch.testing.assert_close(share_at_irrelevant(RRR(), model, batch), expected)


def test_training_reaches_the_target(tiny, toy):
    model, data = tiny(dropout=0.0), toy()
    batch = data.batch(torch.arange(96))
    before = float(share_at_irrelevant(RRR(), model, batch))
    objective = Objective({"rrr": Term(RRR(), Target(share=0.3))})
    result = fit(model, data, objective, FitSettings(epochs=40, batch_size=16, lr=0.01))
    after = float(share_at_irrelevant(RRR(), model, batch))
    assert before > 0.7
    assert after < 0.4
    assert "rrr_weight" in result.history[-1]


def test_a_resumed_run_goes_on_with_its_weight(tiny, toy, tmp_path):
    objective = Objective({"rrr": Term(RRR(), Target(share=0.05, every=2))})
    whole, halved = tiny(), tiny()
    fit(whole, toy(), objective, FitSettings(epochs=4, batch_size=16))
    fit(halved, toy(), objective, FitSettings(epochs=2, batch_size=16), out=tmp_path)
    fit(halved, toy(), objective, FitSettings(epochs=4, batch_size=16), out=tmp_path, resume=True)
    for a, b in zip(whole.parameters(), halved.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("loss", [Counterexamples(), TAP()])
def test_a_target_needs_a_heatmap(loss):
    with pytest.raises(ValueError, match="not about a heatmap"):
        Term(loss, Target())


@pytest.mark.parametrize("rule", [Balance, Target])
@pytest.mark.parametrize("settings", [{"share": 0.0}, {"share": float("nan")}, {"every": 0}])
def test_wrong_rules_are_refused(rule, settings):
    with pytest.raises(ValueError, match="expected"):
        rule(**settings)


@pytest.mark.parametrize("relief", [-0.1, 1.0, float("nan")])
def test_relief_out_of_range(relief):
    with pytest.raises(ValueError, match="expected relief"):
        Balance(relief=relief)


def test_an_objective_alone_does_not_know_a_weight_that_is_found_in_training(tiny, toy):
    model, batch = tiny(), toy().batch(torch.arange(4))
    with pytest.raises(ValueError, match="found in training"):
        Objective({"rrr": Term(RRR(), Balance())})(model, batch, model(batch.inputs))


def test_activations_alone_need_no_way_back_to_the_image(tiny, toy):
    model, seen = tiny(), []
    model.network.register_forward_pre_hook(lambda module, args: seen.append(args[0].requires_grad))
    batch = toy().batch(torch.arange(8))
    TrainingStep(model, Objective({"tap": Term(TAP())}))(batch)["tap"].backward()
    TrainingStep(model, Objective({"tap": Term(TAP()), "rrr": Term(RRR())}))(batch)["loss"].backward()
    assert seen == [False, True]


def test_several_layers_of_one_method_come_from_the_shared_pass(tiny, toy):
    model, passes = tiny(), []
    model.network.register_forward_hook(lambda *_: passes.append(1))
    both = Objective({"a": Term(GRADIA(AcrossLayers(GradCAM(), ("0", "1")))), "b": Term(RRRGradCAM())})
    assert set(both.layers(model)) == {"0", "1"}
    TrainingStep(model, both)(toy().batch(torch.arange(8)))["loss"].backward()
    assert len(passes) == 1
    assert Objective({"res": Term(RES())}).layers(model) == ("0",)


@pytest.mark.parametrize(
    ("told", "meant"),
    [(3, 3.0), ("0.5", 0.5), ("balance", Balance()), ("balance:0.5", Balance(0.5)), ("target:0.1", Target(0.1))],
)
def test_a_configuration_names_a_weight_in_words(told, meant):
    assert weight_of(told) == meant


@pytest.mark.parametrize("told", ["balanced", "target:much", "balance:-1", "target:2", ""])
def test_a_weight_that_is_none_is_refused(told):
    with pytest.raises(ValueError, match="expected"):
        weight_of(told)


def test_how_far_a_target_is_away_stands_in_the_history(tiny, toy):
    objective = Objective({"rrr": Term(RRR(), Target(share=0.3))})
    line = fit(tiny(dropout=0.0), toy(), objective, FitSettings(epochs=1, batch_size=16)).history[-1]
    assert 0.3 < line["rrr_share"] < 2
    assert (
        "rrr_share"
        not in fit(tiny(), toy(), Objective({"rrr": Term(RRR(), Balance())}), FitSettings(epochs=1)).history[-1]
    )
