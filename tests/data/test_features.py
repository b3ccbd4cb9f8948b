import pytest
import torch
from torch import nn

from rightreasons.core import BadModel, CorruptData
from rightreasons.data import Annotated, ArrayDataset, FeatureDataset, Subset
from rightreasons.data.features import features_key, on_cells


class Counting(nn.Module):
    """A convolution that counts the images it has seen."""

    def __init__(self, bias=0.0):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 4, stride=4)
        nn.init.constant_(self.conv.weight, 0.01)
        nn.init.constant_(self.conv.bias, bias)
        self.drop = nn.Dropout(0.5)
        self.seen = 0

    def forward(self, inputs):
        self.seen += len(inputs)
        return self.drop(self.conv(inputs))


def images(number=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (number, 1, 8, 8), generator=generator, dtype=torch.uint8)
    relevant = torch.zeros(number, 1, 8, 8)
    relevant[:, :, :4, :3] = 1
    relevant[:, :, 4:, 4:] = 0.25
    group = torch.arange(number) % 3
    data = ArrayDataset(pixels, torch.arange(number) % 2, classes=["a", "b"], name="noise", relevant=relevant)
    data.group = group
    return data


def whole_of(data):
    return data.batch(torch.arange(len(data)))


def test_the_features_are_those_of_the_part_in_evaluation_mode_and_it_keeps_its_mode(tmp_path):
    part, data = Counting(), images()
    features = FeatureDataset(data, part, tmp_path, told="a part")
    assert features.shape == (3, 2, 2)
    with torch.no_grad():
        torch.testing.assert_close(whole_of(features).inputs, part.conv(whole_of(data).inputs))
    assert part.training
    assert features.name == "noise + features of a part"
    assert torch.equal(features.target, data.target)
    assert torch.equal(whole_of(features).group, data.group)
    assert features.pixel_range == tuple(float(v) for v in whole_of(features).inputs.aminmax())


def test_they_are_computed_once(tmp_path):
    part, data = Counting(), images()
    first = whole_of(FeatureDataset(data, part, tmp_path)).inputs
    assert part.seen == 40
    again = whole_of(FeatureDataset(data, part, tmp_path)).inputs
    assert part.seen == 40
    assert torch.equal(first, again)


@pytest.mark.parametrize("other", [(Counting(), images(seed=1)), (Counting(0.5), images()), (Counting(), images(39))])
def test_other_weights_or_other_images_have_their_own(tmp_path, other):
    before = features_key(Counting(), images())
    assert features_key(Counting(), images()) == before
    assert features_key(*other) != before


def test_other_masks_on_the_same_images_do_not_run_the_part_again(tmp_path):
    part, data = Counting(), images()
    FeatureDataset(data, part, tmp_path)
    some = FeatureDataset(Annotated(data, count=4), part, tmp_path)
    assert part.seen == 40
    assert int(whole_of(some).annotated.sum()) == 4
    assert whole_of(some).relevant.flatten(1).any(dim=1).sum() == 4


def test_masks_come_to_the_grid_by_the_mean_of_their_area(tmp_path):
    batch = whole_of(FeatureDataset(images(), Counting(), tmp_path))
    assert batch.relevant.shape == (40, 1, 2, 2)
    # 12 of 16 pixels; none; none; a quarter everywhere.
    assert batch.relevant[0, 0].tolist() == [[1.0, 0.0], [0.0, 0.0]]
    half = torch.zeros(1, 1, 4, 4)
    half[..., :2, :] = 1
    assert on_cells(half, (1, 1)).item() == 1.0
    half[..., 0, 0] = 0
    assert on_cells(half, (1, 1)).item() == 0.0
    assert on_cells(None, (1, 1)) is None


def test_a_part_of_the_features_is_the_features_of_the_part(tmp_path):
    features = FeatureDataset(images(), Counting(), tmp_path)
    some = Subset(features, [5, 3])
    assert torch.equal(whole_of(some).inputs, whole_of(features).inputs[[5, 3]])
    over = features.over(Subset(images(), [5, 3]))
    torch.testing.assert_close(whole_of(over).inputs, whole_of(some).inputs)
    assert torch.equal(whole_of(over).relevant, whole_of(some).relevant)


def test_a_damaged_file_is_removed(tmp_path):
    part, data = Counting(), images()
    FeatureDataset(data, part, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorruptData, match="is damaged"):
        FeatureDataset(data, part, tmp_path)
    assert not path.exists()
    FeatureDataset(data, part, tmp_path)
    assert part.seen == 80


def test_a_part_without_maps_is_refused(tmp_path):
    with pytest.raises(BadModel, match="expected maps"):
        FeatureDataset(images(), nn.Flatten(), tmp_path)
