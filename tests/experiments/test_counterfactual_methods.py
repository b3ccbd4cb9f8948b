"""The table of counterfactual methods: what is measured, written down, and not measured again."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch

from rightreasons.cli.show_methods import fitting
from rightreasons.experiments import ModelConfig, TrainingConfig
from rightreasons.experiments.counterfactual import (
    MethodRecords,
    MethodsProtocol,
    measuring,
    method_rows,
    run_methods,
    write_methods_csv,
)
from rightreasons.experiments.counterfactual.methods import COLUMNS
from rightreasons.metrics.counterfactual import im1
from tests.experiments.conftest import RESOURCES

PROTOCOL = MethodsProtocol(
    data=("digits",),
    first=60,
    images=20,
    real=60,
    model=ModelConfig("mlp", {"hidden": [20]}),
    oracle=ModelConfig("mlp", {"hidden": [30]}),
    training=TrainingConfig(epochs=2, batch_size=128, lr=0.01),
    steps=1,
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Three cells, their records, and what was said; the networks lie in the folder."""
    folder = tmp_path_factory.mktemp("methods")
    cells = PROTOCOL.cells(1, ("wachter", "amortized", "runner-up"))
    held = MethodRecords([folder / "records"])
    said = list(run_methods(cells, held, folder / "out", RESOURCES))
    return folder, cells, held, said


def test_each_cell_is_one_record_with_every_measure_and_its_interval(measured):
    folder, cells, held, _ = measured
    assert {path.stem for path in (folder / "records").iterdir()} == {cell.name for cell in cells}
    for cell in cells:
        found = held.of(cell).results
        for name in COLUMNS:
            told = found[name]
            assert told["value"] is None or told["low"] <= told["value"] <= told["high"]
        assert found["validity"]["count"] == found["oracle"]["count"] == 20
        assert found["l2"]["count"] == round(20 * found["validity"]["value"])
        assert found["im1_real"]["value"] > 0
        assert found["milliseconds"] > 0


def test_what_a_record_holds_is_not_measured_again_and_another_setting_is(measured, monkeypatch):
    folder, cells, _, said = measured
    assert len(said) == 1 + len(cells)
    again = MethodRecords([folder / "records"])
    assert list(run_methods(cells, again, folder / "out", RESOURCES)) == []
    assert [row.cell for row in method_rows(cells, again)] == list(cells)
    other = replace(PROTOCOL, images=19).cells(1, ("wachter", "runner-up"))
    assert method_rows(other, again) == ()
    (folder / "records" / f"{cells[0].name}.json").unlink()
    monkeypatch.setattr(measuring, "train", lambda *_: pytest.fail("trained before anything was asked for"))
    missing = run_methods(cells, MethodRecords([folder / "records"]), folder / "out", RESOURCES)
    assert "digits" in next(missing)


def test_a_damaged_record_is_told_and_measured_again(measured, tmp_path):
    _, cells, _, _ = measured
    (tmp_path / f"{cells[0].name}.json").write_text("{")
    held = MethodRecords([tmp_path])
    assert len(held.unread) == 1
    assert held.of(cells[0]) is None


def test_im1_is_that_of_the_images_found(measured):
    folder, cells, held, _ = measured
    cell = cells[0]
    runs = {name: PROTOCOL.run("digits", getattr(PROTOCOL, name), 0) for name in ("model", "oracle")}
    bench = measuring.bench("digits", 0, runs, folder / "out", RESOURCES, part=(60, 20, 60, 1))
    target = bench.target(cell.kind)
    found = bench.method(cell.method)(bench.model, bench.asked.inputs, target)
    original = bench.model(bench.asked.inputs).argmax(dim=1)
    scores = im1(found.images, target, original, bench.judges[0])[found.valid]
    assert held.of(cell).results["im1"]["value"] == pytest.approx(scores.double().mean().item(), rel=1e-4)
    assert (bench.target("random") != original).all()
    assert not torch.equal(bench.target("random"), target)


def test_the_csv_has_a_line_a_row_with_intervals(measured):
    folder, cells, held, _ = measured
    write_methods_csv(method_rows(cells, held), folder / "t.csv")
    lines = list(csv.DictReader((folder / "t.csv").read_text().splitlines()))
    assert [line["method"] for line in lines] == [cell.method for cell in cells]
    assert float(lines[0]["l2_low"]) <= float(lines[0]["l2"]) <= float(lines[0]["l2_high"])


def test_real_images_are_never_among_those_asked_about(tmp_path):
    runs = {name: PROTOCOL.run("digits", getattr(PROTOCOL, name), 0) for name in ("model", "oracle")}
    with pytest.raises(ValueError, match="before image 60"):
        measuring.bench("digits", 0, runs, tmp_path, RESOURCES, part=(60, 20, 61, 1))


def test_unknown_rows_are_refused():
    with pytest.raises(ValueError, match="no row 'wachtr'"):
        PROTOCOL.cells(1, ("wachtr",))
    assert len(PROTOCOL.cells(2)) == 2 * len(PROTOCOL.methods) * 2


def test_what_does_not_fit_goes_on_below_with_the_first_column():
    header, lines = ["method", "first", "second"], [["wachter", "1.45 [1.40, 1.50]", "0.99"]]
    assert fitting(header, lines, width=80) == [(header, lines)]
    parts = fitting(header, lines, width=26)
    assert [part[0] for part in parts] == [["method", "first"], ["method", "second"]]
    assert [part[1] for part in parts] == [[["wachter", "1.45 [1.40, 1.50]"]], [["wachter", "0.99"]]]
    assert fitting(header, lines, width=5) == parts
