"""The benchmarks run: each script's smallest case, so that none rots unseen."""

from __future__ import annotations

import importlib
import json
import math
import os
from pathlib import Path

import pytest
import torch

from rightreasons.experiments import baselines, features
from rightreasons.models import adapt
from tests.experiments.kept import kept_in

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALLEST = {
    "cam": ["LeNet", "256: GradCAM"],
    "faithfulness": ["LeNet", "PixelFlipping"],
    "gradient": ["LeNet", ": Saliency"],
    "lrp": ["LeNet", "LRP epsilon_plus_flat"],
    "perturbation": ["LeNet", "Occlusion, 49"],
    "second_order": ["layer_cam"],
    "shapley": ["LeNet", "DeepSHAP, one"],
}

FROZEN = """
title = "Frozen"
description = "Two heads."
source = "our own"

[run.data]
name = "digits"
images = 60
test_images = 50
seed = 0
features = { trunk = "tiny", layer = "1" }

[run.model]
name = "attention_head"
settings = { hidden = 0 }

[run.training]
epochs = 1

[arms.dense.model.settings]
hidden = 8
"""


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    workloads = importlib.import_module("workloads")
    few = tuple(part[:64] for part in workloads.digits())
    monkeypatch.setattr(workloads, "digits", lambda: few)  # the network is trained on them
    threads = torch.get_num_threads()
    yield importlib.import_module
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", SMALLEST)
def test_a_script_prints_and_records_its_smallest_case(script, name, tmp_path, capsys):
    cases = script(name).CASES
    out = tmp_path / "record.json"
    given = ["--rounds", "1", "--batch", "2", "--no-peers", "--out", str(out), "--only", *SMALLEST[name]]
    rows = script("measure").main("", cases, given)
    assert rows
    assert all(row.cpu > 0 for row in rows)
    record = json.loads(out.read_text())
    assert record["setting"]["rounds"] == 1
    assert [row["method"] for row in record["rows"]] == [row.method for row in rows]
    assert rows[0].method in capsys.readouterr().out


def test_every_bar_of_the_issue_stands_in_a_script(script):
    bars = {}
    for name in SMALLEST:
        bars |= {case.name: (case.at_most, case.megabytes) for case in script(name).CASES}
    expected = {
        "LeNet, 256: Saliency": (1.05, None),
        "LeNet, 256: IntegratedGradients, 50": (1.0, 220),
        "ResNet-50, 4: IntegratedGradients, 8": (1.0, 420),
        "LeNet, 256: GradCAM": (1.3, 150),
        "ResNet-50, 4: EigenCAM": (1.2, None),
        "LeNet, 32: ScoreCAM": (0.75, None),
        "ResNet-18, 1: AblationCAM": (0.01, None),
        "LeNet, 256: LRP epsilon": (1.4, None),
        "ResNet-50, 4: LRP epsilon_gamma_box": (2.0, None),
        "LeNet, 1: LIME, 1000 samples": (0.33, None),
    }
    assert {name: bars.get(name) for name in expected} == expected


def test_a_floor_counts_its_passes(script, monkeypatch):
    measure = script("measure")
    work = script("workloads").Workload("none", torch.nn.Sequential(), torch.zeros(3, 1, 2, 2), "")
    floor = measure.passes(2, 50)
    assert floor.name == "2 F + 50 FB"
    assert [count for count, _ in floor.parts(work)] == [2, 50]
    seconds = iter(range(1, 100))
    # The call takes what the floor does: the first timed pass one second, the next two, and so on.
    monkeypatch.setattr(measure, "timed", lambda run: (float(next(seconds)), 1.0))
    monkeypatch.setattr(measure, "memory", lambda run: math.nan)
    case = measure.Case("none", 3, "method", lambda work: lambda: None, floor, at_most=0.1, megabytes=1)
    row = measure.measure(case, work, "ours", lambda: None, rounds=1)
    # 1 + 2 seconds for the forward passes; 8 of the 50 are run, 3 to 10 seconds, and stand for all.
    assert row.cpu == pytest.approx(11 / (3 + 52 * 50 / 8))
    assert "0.1 met; 1 MB not measured" in row.line()


def test_a_bar_that_is_missed_is_said(script):
    row = script("measure").Row("w", "m", "ours", "F", 1.2, 1.1, 1.3, 1.2, 200, asked=1.0, asked_megabytes=150)
    assert "1 NOT MET; 150 MB NOT MET" in row.line()


def test_the_cost_of_a_step_can_be_taken(script):
    costs = script("step_cost")
    batch, cases = costs.random_batch(2), costs.cases()
    for case in (costs.Case(None), cases["RRR()"], cases["swapped, borrowed"]):
        assert all(seconds >= 0 for seconds in costs.timed(costs.step(batch, case)))


def test_baselines_of_the_other_class_are_judged_by_all_replacements(script, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(baselines, "learnt_parts", kept_in(tmp_path / "kept"))
    study = script("contrastive_baselines")
    monkeypatch.setattr(study, "CHUNK", 20)
    given = ["--epochs", "2", "--images", "30", "--steps", "8", "--run", str(tmp_path / "run")]
    record = study.main([*given, "--out", str(tmp_path / "told.json")])
    assert json.loads((tmp_path / "told.json").read_text()) == record
    assert set(record["baselines"]) == {"nearest", "generated"}
    ahead = record["ahead"]
    assert {"random", "gradient", "difference, nearest", "IG, black", "DeepLIFT, generated"} <= set(ahead)
    assert all(set(row) == {"black", "blurred", "nearest", "generated", "noise", "held-out"} for row in ahead.values())
    assert ahead["IG, nearest"]["nearest"]["count"] == 30
    # A map that sums to the change of the lead is the better one at it.
    assert ahead["IG, nearest"]["nearest"]["value"] < ahead["random"]["nearest"]["value"]
    # What belongs to either of the two does not judge them.
    judged = [name for name in record["verdicts"] if name.startswith("IG, nearest over black")]
    assert [name.rpartition(" by ")[2] for name in judged] == ["blurred", "generated", "noise", "held-out"]
    gain = record["verdicts"]["IG, nearest over black, by noise"]["value"]
    both = [ahead[f"IG, {name}"]["noise"]["value"] for name in ("black", "nearest")]
    assert gain == pytest.approx(100 * (both[0] - both[1]), abs=1e-6)
    said = capsys.readouterr().out
    assert "by held-out" in said
    assert "*" in said


def test_the_variants_of_a_frozen_network_are_timed_beside_its_pass(script, monkeypatch, tmp_path, capsys):
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 4, stride=4), torch.nn.ReLU())
    monkeypatch.setattr(features, "TRUNKS", {"tiny": lambda: adapt(network, "1")})
    monkeypatch.setenv("RIGHTREASONS_CACHE", str(tmp_path / "usual"))
    (tmp_path / "frozen.toml").write_text(FROZEN)
    found = script("attention_pass").main([str(tmp_path / "frozen.toml"), "--out", str(tmp_path / "told.json")])
    assert set(found) == {"pass", "plain", "dense", "ratio"}
    assert found["ratio"] == pytest.approx((found["plain"] + found["dense"]) / found["pass"])
    assert json.loads((tmp_path / "told.json").read_text())["seconds"] == found
    assert "the 2 variants" in capsys.readouterr().out
    assert os.environ["RIGHTREASONS_CACHE"] == str(tmp_path / "usual")
    assert not (tmp_path / "usual").exists()


def test_counterfactuals_are_timed_in_batches_alone_and_beside_their_passes(script, tmp_path, capsys):
    costs = script("counterfactuals")
    sizes = ("--images", "3", "--singles", "1", "--rounds", "1", "--epochs", "0", "--steps", "1")
    told = costs.main([*sizes, "--only", "wachter", "nearest_neighbor", "--out", str(tmp_path / "told.json")])
    assert json.loads((tmp_path / "told.json").read_text()) == json.loads(json.dumps(told))
    assert [row["method"] for row in told["rows"]] == ["wachter", "nearest_neighbor"]
    assert all(row["ratio"] == pytest.approx(row["single"] / row["batch"]) for row in told["rows"])
    assert costs.AT_MOST == {"prototype_guided": 100.0, "amortized": 2.0}
    # Every query is a row of a pass, and the replay runs the very same rows.
    assert told["passes"]["forward"] == round(3 * told["rows"][0]["queries"])
    assert told["passes"]["backward"] <= told["passes"]["forward"]
    assert told["passes"]["at_most"] == 1.3
    printed = capsys.readouterr().out
    assert "6,440 to 9,270 ms an image" in printed
    assert "1.3 " in printed


def test_the_passes_that_are_replayed_are_those_that_were_run(script):
    costs = script("counterfactuals")
    ours = costs.work(3, epochs=0)
    sizes = [(3, True), (2, False), (5, True)]
    with costs.recorded(ours.model.network) as again:
        costs.replay(ours, sizes, costs.channels_last)()
    assert again == sizes


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCHMARKS.glob("*.py")))
def test_every_script_can_be_read(script, name):
    assert script(name).__doc__
