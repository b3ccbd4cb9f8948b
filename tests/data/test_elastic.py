import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, map_coordinates

from rightreasons.core import Batch
from rightreasons.data import Augmentation, augment
from rightreasons.data.elastic import displacements

SIMARD = Augmentation(elastic=34, elastic_smoothness=4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def field(number, seed=0, size=(28, 28), strength=34.0, smoothness=4.0):
    return displacements(number, size, strength=strength, smoothness=smoothness, generator=generator(seed))


def test_displacements_are_smoothed_even_noise():
    noise = 2 * torch.rand(3, 2, 20, 24, generator=generator(), dtype=torch.float64).numpy() - 1
    expected = 7.5 * gaussian_filter(noise, sigma=(0, 0, 2.5, 2.5), mode="constant")
    np.testing.assert_allclose(field(3, size=(20, 24), strength=7.5, smoothness=2.5), expected, atol=1e-5)


def test_the_size_of_a_displacement_is_as_told():
    middle = field(200, size=(64, 64))[..., 20:44, 20:44]
    assert float(middle.std()) == pytest.approx(34 / (4 * 6.14), rel=0.05)
    assert abs(float(middle.mean())) < 0.1


def test_a_batch_gets_what_its_images_would_get():
    drawn = generator(3)
    singles = [displacements(1, (9, 11), strength=20, smoothness=2, generator=drawn) for _ in range(5)]
    torch.testing.assert_close(field(5, 3, (9, 11), 20, 2), torch.cat(singles), rtol=0, atol=1e-6)


def test_an_image_is_read_at_the_displaced_places():
    image = torch.rand(1, 1, 20, 28, generator=generator(1))
    moved = augment(Batch(image, torch.zeros(1).long()), SIMARD, generator(2)).inputs[0, 0]
    drawn = generator(2)
    augment(Batch(image, torch.zeros(1).long()), Augmentation(scale=1e-9), drawn)  # takes what comes before
    right, down = displacements(1, (20, 28), strength=34, smoothness=4, generator=drawn)[0].numpy()
    rows, columns = np.mgrid[:20, :28]
    expected = map_coordinates(image[0, 0].numpy(), [rows + down, columns + right], order=1, mode="constant")
    inside = (rows + down > 0) & (rows + down < 19) & (columns + right > 0) & (columns + right < 27)
    assert inside.mean() > 0.7
    np.testing.assert_allclose(moved.numpy()[inside], expected[inside], atol=1e-4)


def test_masks_move_with_the_images():
    marked = torch.zeros(8, 1, 24, 24)
    marked[:, :, 8:16, 6:18] = 1
    batch = Batch(marked.clone(), torch.zeros(8).long(), relevant=marked, irrelevant=1 - marked)
    moved = augment(batch, Augmentation(elastic=30, elastic_smoothness=3, rotation=15, shift=2), generator())
    torch.testing.assert_close(moved.inputs, moved.relevant, rtol=0, atol=1e-6)
    assert not torch.allclose(moved.inputs, batch.inputs, atol=0.1)
    assert (moved.inputs[0] - moved.inputs[1]).abs().max() > 0.1
    inner = (slice(None), slice(None), slice(6, 18), slice(6, 18))
    torch.testing.assert_close(moved.irrelevant[inner], (1 - moved.relevant)[inner], rtol=0, atol=1e-5)


def test_no_elasticity_draws_nothing_and_changes_nothing():
    batch = Batch(torch.rand(4, 1, 12, 12, generator=generator()), torch.zeros(4).long())
    drawn, other = generator(5), generator(5)
    plain = augment(batch, Augmentation(rotation=15), drawn)
    same = augment(batch, Augmentation(rotation=15, elastic=0.0, elastic_smoothness=9.0), other)
    assert plain.inputs.equal(same.inputs)
    assert drawn.get_state().equal(other.get_state())
    one, again = (augment(batch, SIMARD, generator(7)).inputs for _ in range(2))
    assert one.equal(again)


@pytest.mark.parametrize(
    "settings", [{"elastic": -1.0}, {"elastic": float("nan")}, {"elastic": 5.0, "elastic_smoothness": 0.0}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match="expected elastic"):
        Augmentation(**settings)
