import csv
import io
import json
import math
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from torch import nn

from rightreasons.attribution import LRP, GradCAM, IntegratedGradients, Saliency
from rightreasons.core import Attribution, BadModel, CorruptData, NotConserved
from rightreasons.data import Subset, load
from rightreasons.metrics import (
    METRICS,
    Deletion,
    EdgeDetector,
    EnergyInMask,
    Insertion,
    MaxSensitivity,
    PixelFlipping,
    QualityTable,
    RandomHeatmap,
    Sparseness,
    bootstrap,
    evaluate_attributions,
    paired_bootstrap,
)
from rightreasons.models import adapt

METRIC_NAMES = ["deletion", "sparseness", "max_sensitivity"]


class Counts(nn.Module):
    """A small network that counts the images it has seen."""

    def __init__(self):
        super().__init__()
        self.seen = 0
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.last = nn.Conv2d(1, 4, 3), nn.Linear(144, 10)

    def forward(self, x):
        self.seen += len(x)
        return self.last(self.first(x).relu().flatten(1))


class Stubborn(Attribution):
    """Explains nothing."""

    differentiable = False
    signed = False

    def attribute(self, model, inputs, target, *, graph):
        raise BadModel("the network is not to its liking")


@pytest.fixture(scope="module")
def digits():
    return load("digits", "test")


@pytest.fixture(scope="module")
def table(digits):
    methods = {"gradient": Saliency(), "stubborn": Stubborn(), "ig": IntegratedGradients(steps=4)}
    return evaluate_attributions(Counts(), digits, methods, METRIC_NAMES, images=20, batch_size=8, seed=3)


def test_the_scores_are_those_of_the_metrics_themselves(table, digits):
    model, batch = adapt(Counts().eval()), digits.batch(torch.tensor(table.index))
    with torch.no_grad():
        predicted = model(batch.inputs).argmax(1)
    assert list(table.classes) == predicted.tolist()
    batch = type(batch)(batch.inputs, predicted)
    metrics = {"deletion": Deletion(), "sparseness": Sparseness()}
    for name, method in {"gradient": Saliency(), "ig": IntegratedGradients(steps=4)}.items():
        heatmap = method(model, batch.inputs, predicted).detach()
        metrics["max_sensitivity"] = MaxSensitivity(attribution=method)
        for metric, kind in metrics.items():
            torch.testing.assert_close(table[name, metric].scores, kind(model, batch, heatmap), rtol=1e-4, atol=1e-5)


def test_means_ranks_and_leads(table):
    for measure in table.measures:
        cells = {name: table[name, measure.name] for name in ("gradient", "ig")}
        control = table["random heatmap", measure.name]
        for cell in cells.values():
            assert cell.estimate == bootstrap(cell.scores, seed=3)
            assert cell.lead == paired_bootstrap(control.scores, cell.scores, seed=3).difference
        order = sorted(cells, key=lambda name: cells[name].estimate.value, reverse=measure.higher_is_better)
        assert [cells[name].rank for name in order] == [1, 2]
        assert cells[order[0]].leading
        assert control.rank is None
        assert not control.leading


def test_a_method_that_cannot_explain_the_network_is_told_and_the_controls_stand_last(table):
    assert table.names == ("gradient", "stubborn", "ig", "random heatmap", "edge detector")
    assert [row.control for row in table.rows] == [False, False, False, True, True]
    assert [row.reason for row in table.rows] == ["", "the network is not to its liking", "", "", ""]
    assert not table.rows[1].cells
    with pytest.raises(KeyError):
        table["stubborn", "deletion"]
    with pytest.raises(KeyError):
        table["nobody", "deletion"]


@dataclass(frozen=True)
class Falters(Attribution):
    """The gradient, with a NaN in the map of each digit 3."""

    differentiable: ClassVar[bool] = False
    signed: ClassVar[bool] = True

    def attribute(self, model, inputs, target, *, graph):
        maps = Saliency().attribute(model, inputs, target, graph=graph)
        maps[target == 3, 0, 0, 0] = math.nan
        return maps


def test_a_map_that_is_not_finite_has_no_score_and_the_others_keep_theirs(digits):
    names = ["deletion", "sparseness", "dead_map", "max_sensitivity", "random_logit"]
    metrics = {**{name: METRICS[name]() for name in names}, "plain": MaxSensitivity(relative=False)}
    methods = {"gradient": Saliency(), "falters": Falters()}
    found = evaluate_attributions(Counts(), digits, methods, metrics, images=24, batch_size=8, target="true", seed=1)
    threes = torch.tensor(found.classes) == 3
    assert 0 < int(threes.sum()) < 24
    assert [row.not_finite for row in found.rows] == [0, int(threes.sum()), 0, 0]
    for name in metrics:
        expected = found["gradient", name].scores.masked_fill(threes, math.nan)
        scores = found["falters", name].scores
        if name == "random_logit":  # the other class is never 3 where it was 3, but may be one elsewhere
            assert scores[threes].isnan().all()
        else:
            torch.testing.assert_close(scores, expected, equal_nan=True)
        assert found["falters", name].estimate.count == int(scores.isfinite().sum())
    again = QualityTable.from_json(found.to_json())
    assert again.rows[1].not_finite == int(threes.sum())
    line = next(line for line in csv.DictReader(io.StringIO(found.to_csv())) if line["method"] == "falters")
    assert int(line["not_finite"]) == int(threes.sum())


@dataclass(frozen=True)
class Refuses(Attribution):
    """The gradient, but not at one of its calls."""

    differentiable: ClassVar[bool] = False
    signed: ClassVar[bool] = True
    error: type
    refused: int
    calls: list = field(default_factory=list)

    def attribute(self, model, inputs, target, *, graph):
        self.calls.append(len(inputs))
        if len(self.calls) == self.refused:
            raise self.error("relevance was lost")
        return Saliency().attribute(model, inputs, target, graph=graph)


@pytest.mark.parametrize("error", [BadModel, NotConserved])
@pytest.mark.parametrize(("name", "refused"), [("max_sensitivity", 4), ("parameter_randomization", 5)])
def test_what_cannot_explain_a_changed_image_or_network_is_that_cells_reason(digits, error, name, refused):
    """A call of the metric's in the second batch: the first of one, or of two (a layer each)."""
    kind = METRICS[name](samples=1) if name == "max_sensitivity" else METRICS[name]()
    metrics, methods = (
        {"sparseness": Sparseness(), name: kind},
        {"gradient": Saliency(), "refuses": Refuses(error, refused)},
    )
    found = evaluate_attributions(Counts(), digits, methods, metrics, images=8, batch_size=4)
    cell = found["refuses", name]
    assert cell.reason == "relevance was lost"
    assert cell.scores.isnan().all()
    assert (cell.estimate.count, cell.rank, cell.lead) == (0, None, None)
    assert found.rows[1].reason == ""
    assert found["gradient", name].reason == ""
    assert found["gradient", name].rank == 1
    torch.testing.assert_close(found["refuses", "sparseness"].scores, found["gradient", "sparseness"].scores)
    assert QualityTable.from_json(found.to_json())["refuses", name].reason == "relevance was lost"
    lines = csv.DictReader(io.StringIO(found.to_csv()))
    assert [line["reason"] for line in lines if line["method"] == "refuses"] == ["", "relevance was lost"]


def test_a_method_that_does_not_conserve_relevance_is_told(digits):
    class Loses(Stubborn):
        def attribute(self, model, inputs, target, *, graph):
            raise NotConserved("relevance was lost in linear")

    found = evaluate_attributions(Counts(), digits, {"loses": Loses()}, ["sparseness"], images=4)
    assert found.rows[0].reason == "relevance was lost in linear"


def test_metrics_without_a_seed_draw_their_own_noise(digits):
    metrics = {"one": MaxSensitivity(seed=None), "other": MaxSensitivity(seed=None)}
    found = evaluate_attributions(Counts(), digits, ["saliency"], metrics, images=4)
    assert not torch.equal(found["saliency", "one"].scores, found["saliency", "other"].scores)


def test_any_other_error_is_raised(digits):
    class Broken(Stubborn):
        def attribute(self, model, inputs, target, *, graph):
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        evaluate_attributions(Counts(), digits, {"broken": Broken()}, ["sparseness"], images=4)


def test_passes_are_shared(digits):
    """Insertion hides what deletion leaves, and pixel flipping what deletion hides."""

    def passes(**metrics):
        network = Counts()
        evaluate_attributions(network, digits, {"gradient": Saliency()}, metrics, images=4)
        return network.seen

    alone = passes(sparseness=Sparseness())
    one, other = (passes(metric=kind) - alone for kind in (Deletion(), PixelFlipping(baseline=Deletion().baseline)))
    both = passes(one=Deletion(), other=PixelFlipping(baseline=Deletion().baseline)) - alone
    assert both < one + other
    assert both == max(one, other)


def test_metrics_of_stability_share_the_maps_of_noisy_copies(digits):
    def passes(*names):
        network = Counts()
        evaluate_attributions(network, digits, ["saliency"], names, images=4)
        return network.seen

    assert passes("max_sensitivity") == passes("max_sensitivity", "local_lipschitz", "avg_sensitivity")
    other = {"one": MaxSensitivity(), "other": MaxSensitivity(radius=0.2)}
    found = evaluate_attributions(Counts(), digits, ["saliency"], other, images=4)
    assert not torch.equal(found["saliency", "one"].scores, found["saliency", "other"].scores)
    own = {"one": MaxSensitivity(), "other": MaxSensitivity(attribution=EdgeDetector())}
    found = evaluate_attributions(Counts(), digits, ["saliency"], own, images=4)
    assert not torch.equal(found["saliency", "one"].scores, found["saliency", "other"].scores)


def test_the_model_is_evaluated_in_evaluation_mode_and_left_as_it_was(digits):
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(), nn.Flatten(), nn.Linear(108, 10))
    before = {name: values.clone() for name, values in network.state_dict().items()}
    found = [
        evaluate_attributions(network, digits, ["saliency"], ["sparseness", "parameter_randomization"], images=6)
        for _ in range(2)
    ]
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[name], values) for name, values in network.state_dict().items())
    plain = [json.loads(one.to_json()) for one in found]
    for one in plain:
        for row in one["rows"]:
            row["seconds"] = 0
    assert plain[0] == plain[1]


def test_the_true_class_and_all_images(digits):
    some = Subset(digits, torch.tensor([3, 9, 11, 200, 7]))
    found = evaluate_attributions(Counts(), some, {"cam": GradCAM("first")}, ["sparseness"], target="true")
    assert found.classes == tuple(digits.target[[3, 9, 11, 200, 7]].tolist())
    assert found.index == (0, 1, 2, 3, 4)


def test_measures_without_a_mask_have_no_score_and_no_rank(digits):
    found = evaluate_attributions(Counts(), digits, ["saliency"], {"energy": EnergyInMask()}, images=4)
    cell = found["saliency", "energy"]
    assert (cell.estimate.count, cell.rank, cell.leading) == (0, None, False)
    assert cell.verdict(True) == "undefined"


def test_named_methods_get_what_they_must_know_of_the_data(digits):
    found = evaluate_attributions(Counts(), digits, ["expected_gradients", "occlusion"], ["sparseness"], images=2)
    assert [row.reason for row in found.rows] == [""] * 4


def test_json_and_csv(table):
    again = QualityTable.from_json(table.to_json())
    assert again.to_json() == table.to_json()
    torch.testing.assert_close(again["ig", "deletion"].scores, table["ig", "deletion"].scores)
    lines = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert len(lines) == 4 * 3 + 1
    (line,) = [line for line in lines if (line["method"], line["metric"]) == ("ig", "deletion")]
    assert float(line["mean"]) == table["ig", "deletion"].estimate.value
    (line,) = [line for line in lines if line["method"] == "stubborn"]
    assert line["reason"] == "the network is not to its liking"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": 3}'])
def test_what_is_no_table_is_refused(text):
    with pytest.raises(CorruptData, match="expected a table of quality"):
        QualityTable.from_json(text)


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("methods", "metrics", "settings", "told"),
    [
        (["salency"], ["deletion"], {}, "unknown attribution 'salency'"),
        (["saliency"], ["deletino"], {}, "unknown metric 'deletino'"),
        ("saliency", ["deletion"], {}, "expected a list of names, got the name 'saliency'"),
        ([], ["deletion"], {}, "expected methods and metrics, got 0 and 1"),
        (["saliency"], [], {}, "expected methods and metrics, got 1 and 0"),
        ({"random heatmap": Saliency()}, ["deletion"], {}, "expected another name than that of a control"),
        ({"lrp": LRP}, ["deletion"], {}, "expected 'lrp' to be of type Attribution"),
        (["saliency"], {"i": Insertion}, {}, "expected 'i' to be of type Metric"),
        (["saliency"], ["deletion"], {"target": "wished"}, "expected target predicted or true, got 'wished'"),
        (["saliency"], ["deletion"], {"images": 0}, "expected at least one image"),
        (["saliency"], ["deletion"], {"batch_size": 0}, "expected at least one image"),
    ],
)
def test_wrong_questions_are_refused_before_anything_runs(digits, methods, metrics, settings, told):
    with pytest.raises(ValueError, match=told):
        evaluate_attributions(Counts(), digits, methods, metrics, **settings)


def test_the_random_heatmap_is_the_images_own():
    inputs = torch.rand(4, 2, 6, 6)
    inputs[3] = inputs[0]
    target, model = torch.zeros(4, dtype=torch.long), adapt(nn.Flatten())
    maps = RandomHeatmap()(model, inputs, target)
    assert torch.equal(maps[0], maps[3])
    assert not torch.equal(maps[0], maps[1])
    torch.testing.assert_close(RandomHeatmap()(model, inputs[1:2], target[:1]), maps[1:2])
    assert not torch.equal(RandomHeatmap(1)(model, inputs, target), maps)
    assert abs(float(maps.mean())) < 0.3
    assert not math.isclose(float(maps.std()), 0)


def test_the_edge_detector_finds_an_edge_and_no_border():
    inputs = torch.zeros(1, 1, 6, 6)
    inputs[..., 3:] = 1
    found = EdgeDetector()(adapt(nn.Flatten()), inputs, torch.zeros(1, dtype=torch.long))[0, 0]
    assert found[2].tolist() == [0, 0, 4, 4, 0, 0]
    assert torch.equal(found, found[:1].expand(6, 6))
