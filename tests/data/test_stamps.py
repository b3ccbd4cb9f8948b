"""The photographs' own packages are not needed here: a folder of drawn pictures under their names stands for them."""

import numpy as np
import pytest
import torch
from PIL import Image

from rightreasons.core import CorruptData, DataUnavailable
from rightreasons.data import DECOYS, decoy, load, split_as_held, stamps
from rightreasons.data.stamps import BOX, FOLDS, IMAGES, STAMPS, WALLPAPERS, Wallpapers, parted, photographs


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Ten cut-outs of each kind, ellipses in a color of their own, and all wallpapers in one grey each."""
    root = tmp_path_factory.mktemp("packages")
    rows, columns = np.mgrid[:60, :90]
    inside = ((rows - 30) / 25) ** 2 + ((columns - 45) / 40) ** 2 < 1
    for place, base in (("birds", 10), ("mammals", 120)):
        (root / "stamps" / place / "cartoon").mkdir(parents=True)
        for number in range(10):
            pixels = np.full((60, 90, 4), base + 10 * number, np.uint8)
            pixels[..., 3] = 255 * inside
            Image.fromarray(pixels).save(root / "stamps" / place / f"{place}-{number}.png")
        Image.fromarray(pixels).save(root / "stamps" / place / "cartoon" / "drawn.png")
    (root / "walls").mkdir()
    for number, name in enumerate(name for names in WALLPAPERS.values() for name in names):
        Image.new("RGB", (480, 460), (10 * number, 60, 200)).save(root / "walls" / name)
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def fewer(monkeypatch, cache):
    monkeypatch.setenv("RIGHTREASONS_CACHE", str(cache))
    monkeypatch.setattr(stamps, "IMAGES", {"train": 20, "validation": 12, "test": 14})


def whole_of(data):
    return data.batch(torch.arange(len(data)))


def colors(data, batch):
    """The color of each cut-out, which names its source: a multiple of ten."""
    values = batch.inputs[:, 0] * 25.5
    return [set(v[m > 0].round().int().tolist()) for v, m in zip(values, batch.relevant[:, 0], strict=True)]


def test_cut_outs_and_wallpapers_are_read_once_and_kept(packages, cache):
    held = photographs(packages, cache)
    assert sum(key.startswith("stamp/bird/") for key in held) == 10
    assert not [key for key in held if "drawn" in key]
    assert held["stamp/bird/birds-3"].shape == (4, 85, BOX)
    assert len([key for key in held if key.startswith("wallpaper/")]) == sum(map(len, WALLPAPERS.values()))
    assert photographs(None, cache) is held


def test_images_of_both_classes_with_their_exact_masks(packages):
    data = STAMPS("train", folder=packages)
    assert data.classes == ("bird", "mammal")
    assert len(data) == 32
    assert torch.bincount(data.target).tolist() == [16, 16]
    batch = whole_of(data)
    assert batch.inputs.shape == (32, 3, BOX, BOX)
    assert all(len(found) == 1 for found in colors(data, batch)), "nothing but the cut-out is inside its mask"
    assert (batch.inputs[(batch.relevant == 0).expand(-1, 3, -1, -1)] == 128 / 255).all()
    areas = batch.relevant.sum(dim=(1, 2, 3))
    assert areas.max() > 1.5 * areas.min(), "some are larger"


def test_no_source_is_in_two_parts(packages):
    train, validation = split_as_held(STAMPS("train", folder=packages))
    parts = [train, validation, STAMPS("test", folder=packages)]
    sources = [set.union(*colors(part, whole_of(part))) for part in parts]
    assert [len(part) for part in parts] == [20, 12, 14]
    assert [len(found) for found in sources] == [8, 6, 6]
    assert len(set.union(*sources)) == 20


def test_sources_are_dealt_out_the_same_way_every_time():
    names = [f"wallpaper/made/{k}" for k in range(12)]
    assert parted(names) == parted(names)
    assert sorted(name for own in parted(names).values() for name in own) == sorted(names)
    assert [len(parted(names)[fold]) for fold in FOLDS] == [5, 3, 4]


def test_patches_come_from_the_wallpapers_of_the_images_part_and_group(packages, cache):
    photographs(packages, cache)
    positions = torch.arange(60)
    seen = {}
    for fold in range(3):
        for family in range(2):
            walls = Wallpapers(32, 0, torch.full((60,), fold))
            patches = walls.draw(positions, torch.full((60,), family))
            assert patches.shape == (60, 3, 32, 32)
            seen[fold, family] = set((patches[:, 0, 0, 0] * 25.5).round().int().tolist())
    found = [value for values in seen.values() for value in values]
    assert len(found) == len(set(found)) == 24


def test_the_wallpaper_decoy(packages):
    data = decoy(STAMPS("train", folder=packages), "decoy/wallpaper", split="train", seed=1, size=160)
    batch = whole_of(data)
    assert batch.inputs.shape == (32, 3, 160, 160)
    assert all(len(found) == 1 for found in colors(data, batch))
    outside = (batch.inputs[:, 2] * 25.5).round()[batch.relevant[:, 0] == 0]
    assert set(outside.tolist()) == {20.0}, "the wallpapers' blue"
    assert DECOYS["decoy/wallpaper"].size == 224


def test_no_wallpaper_is_behind_images_of_two_parts(packages):
    parts = {
        part: decoy(STAMPS(part, folder=packages), "decoy/wallpaper", split=part, size=160)
        for part in ("train", "test")
    }
    seen = []
    for data in (*split_as_held(parts["train"]), parts["test"]):
        batch = whole_of(data)
        tens = (batch.inputs[:, 0] * 25.5).round()[batch.relevant[:, 0] == 0]
        seen.append(set(tens.tolist()))
    assert all(len(found) > 4 for found in seen)
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataUnavailable, match="cut-outs of birds"):
        photographs(tmp_path, tmp_path / "cache")
    assert not (tmp_path / "cache" / "photographs" / "photographs.safetensors").exists()


def test_a_damaged_file_is_removed(tmp_path):
    path = tmp_path / "photographs" / "photographs.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"nothing")
    with pytest.raises(CorruptData, match="is damaged"):
        photographs(None, tmp_path)
    assert not path.exists()


@pytest.mark.slow
@pytest.mark.network
def test_the_packages_themselves(tmp_path):
    data = load("stamps", "test", cache=tmp_path)
    assert len(data) == stamps.IMAGES["test"]
    assert IMAGES["test"] == 750
