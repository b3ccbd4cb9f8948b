"""Models that look elsewhere than the ones before: marks, shares and rounds against plain versions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from rightreasons.core import CorruptData
from rightreasons.data import ArrayDataset
from rightreasons.models import adapt
from rightreasons.supervision import RRR
from rightreasons.training import (
    FindAnotherExplanation,
    FitSettings,
    Objective,
)
from rightreasons.training.recipes import find_another as finding
from rightreasons.training.recipes.find_another import Marked, marks_of, packed, share_inside
from tests.training.shortcut_images import (
    SETTINGS,
    mlp,
    quiet,
    shortcut,
)


def test_marks_are_the_pixels_above_a_share_of_the_largest_gradient_of_the_sum_of_log_probabilities():
    model, data = mlp(), shortcut(images=40)
    found = torch.cat([marks_of(size, 0.4) for _, size in finding._sizes(model, data)])
    for i in range(len(data)):
        image = data[i].inputs.requires_grad_()
        (gradient,) = torch.autograd.grad(torch.log_softmax(model(image), dim=1).sum(), image)
        assert found[i].equal((gradient.abs() > 0.4 * gradient.abs().max())[0])
    assert 0 < found.float().mean() < 1


def test_a_color_pixel_counts_by_its_largest_channel_and_no_gradient_gives_no_mark():
    model = adapt(nn.Sequential(nn.Flatten(), nn.Linear(8, 2)))
    with torch.no_grad():
        model.network[1].weight.copy_(torch.tensor([[3, 0, 5, 0, 4, -9, 0, 1], [0.0] * 8]))
    images = torch.randint(0, 255, (3, 2, 2, 2), dtype=torch.uint8)
    data = ArrayDataset(images, torch.zeros(3).long(), classes=["a", "b"], name="two channels")
    ((_, sizes),) = finding._sizes(model, data)
    assert (sizes / sizes.amax(dim=(1, 2, 3), keepdim=True)).view(3, 4).allclose(torch.tensor([4 / 9, 1, 5 / 9, 1 / 9]))
    assert not marks_of(torch.zeros(2, 1, 3, 3), 0.5).any()


def test_marks_are_packed_eight_a_byte_and_come_back_as_masks():
    marks = torch.rand(5, 1, 3, 7) > 0.5
    pixels = torch.zeros(5, 1, 3, 7, dtype=torch.uint8)
    masks = {"relevant": torch.ones(5, 1, 3, 7), "annotated": torch.zeros(5, dtype=torch.bool)}
    data = Marked(ArrayDataset(pixels, torch.zeros(5).long(), classes=["a"], name="flat", **masks), packed(marks))
    assert data.marks.shape == (5, 3)
    batch = data.batch(torch.tensor([4, 1]))
    assert batch.irrelevant.equal(marks[[4, 1]].float())
    assert batch.annotated_rows().all()
    assert batch.relevant is None
    assert data.area() == pytest.approx(marks.float().mean().item())
    with pytest.raises(ValueError, match="expected packed marks"):
        Marked(data, packed(marks[:4]))


def test_the_share_inside_marks():
    size = torch.tensor([[1.0, 3.0], [0.0, 4.0]]).view(1, 1, 2, 2)
    marks = torch.tensor([[True, False], [False, True]]).view(1, 1, 2, 2)
    assert share_inside(size, marks).item() == pytest.approx(5 / 8)
    assert share_inside(size * 0, marks).isnan().all()


def test_each_round_is_kept_from_what_all_earlier_ones_looked_at(tmp_path):
    data, settings = shortcut(images=300), replace(SETTINGS, batch_size=20)
    seen = []

    def watched(model, data, objective, settings, **more):
        seen.append((data, objective))
        return quiet(model, data, objective, settings, **more)

    result = FindAnotherExplanation(rounds=2)(mlp(), data, Objective(), settings, fit=watched, out=tmp_path)
    first_model = mlp()
    quiet(first_model, data, Objective(), settings)
    (first, plain), (second, kept), (third, _) = seen
    assert first is data
    assert not plain.terms
    assert isinstance(kept.terms["rrr"].loss, RRR)
    assert (second.marks | third.marks).equal(third.marks)
    assert not second.marks.equal(third.marks)
    assert [line["round"] for line in result.report] == [0, 1, 2]
    assert [line.get("marked_share") for line in result.report] == [None, second.area(), third.area()]
    # The patch is where the plain model looks, and what the next one is kept from.
    marks = second.of(torch.arange(len(data))).float().mean(dim=0)[0]
    assert marks[4:, 4:].mean() > 0.9 > 10 * marks[:4].mean()
    plain_share = torch.cat([share_inside(size, second.of(index)) for index, size in finding._sizes(first_model, data)])
    assert result.report[1]["gradient_share"] < 0.5 * plain_share.mean()


def test_marks_are_stored_once_and_only_for_their_own_model(tmp_path, monkeypatch):
    data, settings = shortcut(images=100), FitSettings(epochs=1)
    recipe = FindAnotherExplanation()
    recipe(mlp(), data, Objective(), settings, fit=quiet, out=tmp_path)
    file = tmp_path / "round-0" / "marks.safetensors"
    before = file.read_bytes()
    made = []
    monkeypatch.setattr(finding, "packed", lambda marks: made.append(1) or packed(marks))
    recipe(mlp(), data, Objective(), settings, fit=quiet, out=tmp_path)
    assert not made
    recipe(mlp(seed=1), data, Objective(), settings, fit=quiet, out=tmp_path)
    assert made
    assert file.read_bytes() != before
    file.write_bytes(b"nothing")
    with pytest.raises(CorruptData, match="is damaged; remove it"):
        recipe(mlp(), data, Objective(), settings, fit=quiet, out=tmp_path)
