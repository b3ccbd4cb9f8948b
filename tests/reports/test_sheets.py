"""Which images a sheet of data shows."""

import pytest
import torch

from rightreasons.data import ArrayDataset
from rightreasons.reports import sheets
from rightreasons.reports.sheets import SHOWN


def images(marked, count=60):
    mask = torch.zeros(count, 1, 4, 4)
    mask[:marked, 0, 0, 0] = 1
    pixels = torch.zeros(count, 1, 4, 4, dtype=torch.uint8)
    return ArrayDataset(pixels, torch.arange(count) % 2, classes=["a", "b"], name="few", irrelevant=mask)


@pytest.mark.parametrize(("marked", "least"), [(0, 0), (2, 2), (SHOWN // 2, SHOWN // 2), (40, SHOWN // 2)])
def test_masks_are_shown_however_few_there_are(marked, least):
    for seed in range(5):
        rows = sheets._some(images(marked), seed)
        assert len(rows.unique()) == SHOWN
        assert int((rows < marked).sum()) >= least


def test_all_of_a_few_images_are_shown():
    assert sheets._some(images(3, count=3), 0).tolist() == [0, 1, 2]
