"""The table of counterfactual methods: what is measured, written down, and not measured again."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest
import torch

from rightreasons.cli.show_methods import _tables, fitting, tell
from rightreasons.core import Counterfactuals
from rightreasons.data.arrays import ArrayDataset
from rightreasons.experiments import ModelConfig, TrainingConfig
from rightreasons.experiments.counterfactual import (
    MethodRecords,
    MethodsProtocol,
    measuring,
    method_rows,
    run_methods,
    write_methods_csv,
)
from rightreasons.experiments.counterfactual.methods import COLUMNS, FURTHER_COLUMNS, ROLES, SHAPE_COLUMNS
from rightreasons.experiments.counterfactual.published import PROTOCOL_TOLD, PUBLISHED_CHANGES
from rightreasons.metrics import digit_morphology, morphology_change
from rightreasons.metrics.counterfactual import boundary, cout, im1, neighbor_ratio
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
    neighbors=20,
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
        for name in (*COLUMNS, *FURTHER_COLUMNS, *SHAPE_COLUMNS):
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


def test_the_means_are_those_of_the_images_found(measured):
    folder, cells, held, _ = measured
    cell = cells[0]
    runs = {role: PROTOCOL.run("digits", role, 0) for role in ROLES}
    bench = measuring.bench("digits", 0, runs, folder / "out", RESOURCES, sizes=PROTOCOL.sizes)
    target = bench.target(cell.kind)
    found = bench.method(cell.method)(bench.model, bench.asked.inputs, target)
    original = bench.model(bench.asked.inputs).argmax(dim=1)
    scores = im1(found.images, target, original, bench.judges[0])[found.valid]
    assert held.of(cell).results["im1"]["value"] == pytest.approx(scores.double().mean().item(), rel=1e-4)
    means = {
        "cout": cout(bench.model, bench.asked.inputs, found.images, target, original),
        "overshoot": boundary(bench.model, bench.asked.inputs, found.images, target, original).overshoot,
        "neighbor_ratio": neighbor_ratio(
            *(found.images, target, bench.neighbors.inputs, bench.neighbors.target),
            real=bench.real.inputs,
            real_labels=bench.real.target,
        ),
        "slant_change": changed(bench.asked.inputs, found.images).slant,
        "area_change": changed(bench.asked.inputs, found.images).area,
    }
    for name, values in means.items():
        expected = values[found.valid].double().nanmean().item()
        assert held.of(cell).results[name]["value"] == pytest.approx(expected, rel=1e-4)
    assert (bench.target("random") != original).all()
    assert not torch.equal(bench.target("random"), target)


def changed(before, after):
    return morphology_change(digit_morphology(before), digit_morphology(after))


def test_of_each_class_so_many_training_images_are_looked_among():
    labels = torch.tensor([0] * 30 + [1] * 5 + [2] * 40)
    data = ArrayDataset(
        torch.arange(75, dtype=torch.uint8).view(75, 1, 1, 1), labels, classes=("a", "b", "c"), name="three"
    )
    some = measuring.some_of_each_class(data, 20)
    assert torch.bincount(some.target).tolist() == [20, 5, 20]
    assert torch.equal(labels[some.index], some.target)
    assert len(set(some.index.tolist())) == 45
    assert torch.equal(measuring.some_of_each_class(data, 20).index, some.index)


def test_what_is_not_valid_has_no_way_and_images_that_are_no_strokes_have_no_shape(measured):
    folder = measured[0]
    runs = {role: PROTOCOL.run("digits", role, 0) for role in ROLES}
    bench = measuring.bench("digits", 0, runs, folder / "out", RESOURCES, sizes=PROTOCOL.sizes)
    none = torch.zeros(20, dtype=torch.long)
    found = Counterfactuals(bench.asked.inputs, none.bool(), none, none, none, 1.0)
    scores = measuring._scores(bench, found, bench.target("random"))
    assert all(scores[name].isnan().all() for name in (*FURTHER_COLUMNS, *SHAPE_COLUMNS, "l2"))
    scores = measuring._scores(replace(bench, data="fashion_mnist"), found, bench.target("random"))
    assert not set(SHAPE_COLUMNS) & set(scores)


def test_the_shape_stands_beside_what_was_published_where_the_question_is_the_same(measured, capsys):
    _, cells, held, _ = measured
    rows = method_rows(cells, held)
    tell(rows)
    told = capsys.readouterr().out
    assert "slant (degrees)" in told
    assert "COUT" in told
    assert "LeapFactual" not in told
    same = [replace(row, cell=replace(row.cell, data="mnist", kind="random")) for row in rows]
    tell(same)
    assert PROTOCOL_TOLD in capsys.readouterr().out
    *_, (header, lines) = _tables(same)
    assert [line[0] for line in lines] == ["wachter", "amortized", *(f"{n}, published" for n in PUBLISHED_CHANGES)]
    leap = dict(zip(header, lines[2], strict=True))
    assert (leap["valid"], leap["area"], leap["slant (degrees)"], leap["slant (share)"]) == (
        "0.99",
        "0.166",
        "-",
        "1.955",
    )
    tell([replace(row, results={k: v for k, v in row.results.items() if k not in SHAPE_COLUMNS}) for row in rows])
    assert "slant" not in capsys.readouterr().out


def test_the_csv_has_a_line_a_row_with_intervals(measured):
    folder, cells, held, _ = measured
    write_methods_csv(method_rows(cells, held), folder / "t.csv")
    lines = list(csv.DictReader((folder / "t.csv").read_text().splitlines()))
    assert [line["method"] for line in lines] == [cell.method for cell in cells]
    assert {"cout", "neighbor_ratio_high", "slant_change_count"} <= set(lines[0])
    assert float(lines[0]["l2_low"]) <= float(lines[0]["l2"]) <= float(lines[0]["l2_high"])


def test_real_images_are_never_among_those_asked_about(tmp_path):
    runs = {role: PROTOCOL.run("digits", role, 0) for role in ROLES}
    with pytest.raises(ValueError, match="before image 60"):
        measuring.bench("digits", 0, runs, tmp_path, RESOURCES, sizes=replace(PROTOCOL, real=61).sizes)
    with pytest.raises(ValueError, match=r"at least \d+ test images"):
        measuring.bench("digits", 0, runs, tmp_path, RESOURCES, sizes=replace(PROTOCOL, images=10_000).sizes)
    with pytest.raises(ValueError, match="one training image of a class, got 0"):
        replace(PROTOCOL, neighbors=0).sizes  # noqa: B018


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


def test_the_oracle_is_another_network_where_both_are_of_one_kind():
    twins = replace(PROTOCOL, oracle=PROTOCOL.model)
    assert twins.run("digits", "model", 3).seed != twins.run("digits", "oracle", 3).seed
