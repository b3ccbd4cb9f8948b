"""What a linear machine reads from features."""

import pytest
import torch

from rightreasons.metrics.probe import linear_probe


def features(images=400, seed=0):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(3, (images,), generator=generator)
    values = torch.randn(images, 6, generator=generator)
    values[:, 2] = 1e-4 * values[:, 2] + 1e-2 * target
    values[:, 4] = 7.0
    return values, target


def test_it_reads_what_stands_in_a_direction_however_small_on_images_it_has_not_seen():
    read = linear_probe(*features())
    values, target = features(seed=1)
    assert (read(values) == target).float().mean() > 0.99


def test_it_reads_nothing_where_nothing_stands():
    values, target = features()
    values[:, 2] = 0
    tested = features(seed=1)
    found = (linear_probe(values, target)(tested[0]) == tested[1]).float().mean()
    assert 0.2 < found < 0.5


def test_a_single_class_is_refused():
    with pytest.raises(ValueError, match="class"):
        linear_probe(torch.randn(5, 2), torch.zeros(5, dtype=torch.long))
