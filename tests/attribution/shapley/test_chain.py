"""Heads that are not torch: exact Shapley values by enumeration, and chains of a network and a head."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cross_decomposition import PLSRegression
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge, RidgeClassifier
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from torch import nn

from rightreasons.attribution import ChainedSHAP, DeepSHAP
from rightreasons.attribution.lrp import NotConserved
from rightreasons.attribution.shapley import LinearHead, as_head, meeting
from rightreasons.models import adapt
from tests.attribution.shapley.enumeration import shapley_values
from tests.networks import images, network

FEATURES = 7


def data(classes=0, outputs=1, rows=120):
    dice = np.random.default_rng(0)
    features = dice.normal(size=(rows, FEATURES)).astype(np.float32).astype(np.float64)
    score = features[:, 0] * features[:, 1] + np.abs(features[:, 2]) + 0.5 * features[:, 3]
    if classes:
        return features, np.digitize(score, np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1]))
    return features, score if outputs == 1 else np.stack([score, -2 * score], axis=1)


SMALL = {"random_state": 0}
HEADS = {
    "linear": (LinearRegression(), 0, "predict"),
    "ridge": (Ridge(), 0, "predict"),
    "logistic, two classes": (LogisticRegression(), 2, "decision_function"),
    "logistic, three classes": (LogisticRegression(), 3, "decision_function"),
    "tree": (DecisionTreeRegressor(max_depth=5, **SMALL), 0, "predict"),
    "tree of classes": (DecisionTreeClassifier(max_depth=5, **SMALL), 3, "predict_proba"),
    "stump": (DecisionTreeRegressor(max_depth=1, **SMALL), 0, "predict"),
    "leaf": (DecisionTreeRegressor(min_samples_leaf=100, **SMALL), 0, "predict"),
    "forest": (RandomForestRegressor(5, max_depth=6, **SMALL), 0, "predict"),
    "extra trees": (ExtraTreesRegressor(5, max_depth=6, **SMALL), 0, "predict"),
    "forest of classes": (RandomForestClassifier(5, max_depth=6, **SMALL), 3, "predict_proba"),
    "boosting": (GradientBoostingRegressor(n_estimators=8, **SMALL), 0, "predict"),
    "boosting from zero": (GradientBoostingRegressor(n_estimators=8, init="zero", **SMALL), 0, "predict"),
    "boosting, two classes": (GradientBoostingClassifier(n_estimators=8, **SMALL), 2, "decision_function"),
    "boosting, three classes": (GradientBoostingClassifier(n_estimators=6, **SMALL), 3, "decision_function"),
}


def said(model, how, features):
    scores = getattr(model, how)(features)
    if scores.ndim == 2:
        return scores
    return np.stack([-scores, scores], axis=1) if how == "decision_function" else scores[:, None]


@pytest.mark.parametrize("name", list(HEADS))
def test_a_head_says_what_the_model_says_and_its_shapley_values_are_exact(name):
    model, classes, how = HEADS[name]
    features, labels = data(classes)
    head = as_head(model.fit(features, labels))
    np.testing.assert_allclose(head.scores(features), said(model, how, features), atol=1e-10)
    outputs = head.scores(features[:1]).shape[1]
    examples, baselines = features[:6], features[50:56]
    target = np.arange(6) % outputs
    found = head.shapley(examples, baselines, target)
    for i in range(6):
        expected = shapley_values(lambda row, t=target[i]: head.scores(row[None])[0, t], examples[i], baselines[i])
        np.testing.assert_allclose(found[i], expected, atol=1e-10)


def test_a_feature_that_is_asked_for_twice_counts_as_one():
    features = np.linspace(0, 1, 64)[:, None] * [1.0, -1.0]
    tree = as_head(DecisionTreeRegressor(**SMALL).fit(features, np.sin(9 * features[:, 0])))
    found = tree.shapley(features[3:9], features[40:46], np.zeros(6, dtype=np.int64))
    np.testing.assert_allclose(
        found.sum(axis=1), (tree.scores(features[3:9]) - tree.scores(features[40:46]))[:, 0], atol=1e-12
    )


@pytest.mark.parametrize(
    "model",
    [
        HistGradientBoostingRegressor(max_iter=2),
        GradientBoostingRegressor(n_estimators=2, init=LinearRegression()),
        DecisionTreeRegressor(max_depth=2),
        nn.Linear(2, 2),
    ],
    ids=lambda m: type(m).__name__,
)
def test_heads_without_an_exact_way_are_refused(model):
    several = isinstance(model, DecisionTreeRegressor)
    if not isinstance(model, nn.Module):
        model.fit(*data(outputs=2 if several else 1))
    with pytest.raises(ValueError, match="expected"):
        as_head(model)


REFERENCES = images(4, seed=9)[0]


def features_of(net, inputs):
    with torch.no_grad():
        return net(inputs).numpy()


@pytest.mark.parametrize("name", ["linear", "tree of classes", "boosting, three classes"])
@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_a_chain_sums_to_the_change_of_what_the_head_says(name, rule):
    net = network("batch_norm")
    model, classes, how = HEADS[name]
    many, (inputs, _) = images(80, seed=3)[0], images()
    labels = np.digitize(features_of(net, many)[:, 0], [-0.2, 0.2]) if classes else features_of(net, many) @ [1, 2, 3.0]
    head = model.fit(features_of(net, many), labels)
    target = torch.arange(3) % len(said(head, how, features_of(net, inputs))[0])
    chain = ChainedSHAP(head, REFERENCES, rule, check=True, tolerance=1e-9)
    assert chain.completeness_error(adapt(net), inputs, target).abs().max() < 1e-10
    values = chain(adapt(net), inputs, target)
    change = [said(head, how, features_of(net, x))[:, target] for x in (inputs, REFERENCES)]
    expected = change[0].diagonal() - change[1].mean(axis=0)
    np.testing.assert_allclose(values.sum((1, 2, 3)).numpy(), expected, atol=1e-8)


def test_a_linear_head_is_a_layer_more():
    net, (inputs, target) = network("relu"), images()
    layer = nn.Linear(3, 3).double()
    head = LinearHead(layer.weight.detach().numpy(), layer.bias.detach().numpy())
    found = ChainedSHAP(head, REFERENCES)(adapt(net), inputs, target)
    expected = DeepSHAP(REFERENCES)(adapt(nn.Sequential(net, layer)), inputs, target).detach()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_wrong_sums_and_settings_of_a_chain_are_refused(monkeypatch):
    net, (inputs, target) = network("relu"), images()
    head = LinearHead(np.ones((3, 3)), np.zeros(3))
    with pytest.raises(ValueError, match="at least one image"):
        ChainedSHAP(head, REFERENCES[:0])
    with pytest.raises(ValueError, match="expected a head"):
        ChainedSHAP(net, REFERENCES)
    sweep = meeting.swept
    monkeypatch.setitem(meeting.SWEEPS, "rescale", lambda ends, slopes: 0.9 * sweep(ends, slopes))
    with pytest.raises(NotConserved, match="do not sum"):
        ChainedSHAP(head, REFERENCES, check=True)(adapt(net), inputs, target)


def test_a_tree_compares_features_in_single_precision_as_scikit_learn_does():
    tree = DecisionTreeRegressor(**SMALL).fit([[0.0], [1.0]], [0.0, 1.0])
    above, right = np.array([[0.5 + 1e-9]]), np.array([[1.0]])
    assert tree.predict(above) == [0.0]
    head = as_head(tree)
    assert head.scores(above).tolist() == [[0.0]]
    assert head.shapley(right, above, np.array([0])).tolist() == [[1.0]]


@pytest.mark.parametrize(
    ("model", "classes"),
    [
        (SVC(kernel="linear"), 3),
        (PoissonRegressor(), 0),
        (PLSRegression(2), 0),
    ],
    ids=lambda m: type(m).__name__,
)
def test_weights_that_are_not_what_the_model_says_are_refused(model, classes):
    """Rows of one class against one, the logarithm of the answer, weights of centered features."""
    features, labels = data(classes)
    model.fit(features + 1, labels if classes else np.exp(labels / 4))
    with pytest.raises(ValueError, match="expected a head to be a fitted linear model") as refusal:
        as_head(model)
    assert type(model).__name__ in str(refusal.value)
    assert ". " not in str(refusal.value)


@pytest.mark.parametrize(
    ("model", "classes"),
    [(SVC(kernel="linear"), 2), (LinearSVC(), 3), (RidgeClassifier(), 3), (SVR(kernel="linear"), 0), (Ridge(), 0)],
    ids=lambda m: type(m).__name__ if hasattr(m, "fit") else str(m),
)
def test_other_linear_models_are_taken_also_in_single_precision(model, classes):
    features, labels = data(classes)
    for kind in (np.float32, np.float64):
        head = as_head(model.fit(features.astype(kind), labels.astype(kind) if not classes else labels))
        how = "decision_function" if classes else "predict"
        np.testing.assert_allclose(head.scores(features), said(model, how, features), atol=1e-4)
