"""Maps of few images, of a whole data set in shards, and of a picture."""

import csv
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from rightreasons.attribution import Saliency
from rightreasons.core import CorruptData, MissingExtra, NotWritten, ResumeRefused
from rightreasons.data import Rescaled, Subset
from rightreasons.data.arrays import ArrayDataset
from rightreasons.data.folder import file_of, name_of
from rightreasons.experiments import (
    RevealSettings,
    Storage,
    reveal_images,
    reveal_picture,
    summarize,
)
from rightreasons.experiments.build import build_attribution
from rightreasons.experiments.reveal.index import opened_whole
from rightreasons.experiments.reveal.shards import packed, read_shard, restored, write_shard
from tests.experiments.revealing import ALL, revealed
from tests.pictures import SIDE


def files(folder):
    """What a reader takes away, byte by byte."""
    found = [folder / "index.jsonl", folder / "index.csv", *sorted((folder / "shards").iterdir())]
    return {path.name: path.read_bytes() for path in found}


def test_shards_and_index_hold_what_each_method_says_of_each_image(subject, tmp_path):
    maps = revealed(subject, tmp_path)
    lines = list(maps.lines())
    batch = subject.data.batch(torch.arange(30))
    logits = subject.model(batch.inputs).detach()
    assert [line["position"] for line in lines] == list(range(30))
    assert len(list((tmp_path / "shards").iterdir())) == 5
    for name in ("saliency", "grad_cam"):
        expected = build_attribution(name, subject.data)(subject.model, batch.inputs, logits.argmax(1)).detach()
        found = torch.stack([maps.heatmap(line, name) for line in lines])
        torch.testing.assert_close(found, expected)
        for line, heat, mask, other in zip(lines, expected, batch.irrelevant, batch.relevant, strict=True):
            told = line["methods"][name]
            assert told["sum"] == pytest.approx(float(heat.sum()), rel=1e-4, abs=1e-6)
            assert told["max_abs"] == pytest.approx(float(heat.abs().max()), rel=1e-5)
            assert told["irrelevant"] == pytest.approx(float((heat.abs() * mask).sum() / heat.abs().sum()), rel=1e-4)
            positive = heat.clamp(min=0)
            assert told["relevant"] == pytest.approx(float((positive * other).sum() / positive.sum()), rel=1e-4)
    probabilities = logits.softmax(1)
    for line, row, truth in zip(lines, probabilities, batch.target, strict=True):
        classes = subject.data.classes
        assert (line["label"], line["prediction"]) == (classes[int(truth)], classes[int(row.argmax())])
        assert line["confidence"] == pytest.approx(float(row.max()), rel=1e-5)
        assert line["name"].endswith(f"photos/{classes[int(truth)]}/{line['name'].rpartition('/')[2]}")


def test_the_table_says_the_same_as_the_lines(subject, tmp_path):
    maps = revealed(subject, tmp_path)
    with (tmp_path / "index.csv").open(newline="") as file:
        for row, line in zip(csv.DictReader(file), maps.lines(), strict=True):
            assert float(row["saliency.irrelevant"]) == line["methods"]["saliency"]["irrelevant"]
            assert (row["name"], int(row["row"]), row["shard"]) == (line["name"], line["row"], line["shard"])


@pytest.mark.parametrize("half", [False, True])
def test_parquet_holds_the_same_as_safetensors(subject, tmp_path, half):
    pytest.importorskip("pyarrow")
    found = [revealed(subject, tmp_path / kind, storage=Storage(12, kind, half)) for kind in ("safetensors", "parquet")]
    lines = [[{**line, "shard": ""} for line in maps.lines()] for maps in found]
    assert lines[0] == lines[1]
    for line, other in zip(*(maps.lines() for maps in found), strict=True):
        assert found[0].heatmap(line, "saliency").equal(found[1].heatmap(other, "saliency"))
    assert other["shard"] == "00002-of-00003.parquet"
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(tmp_path / "parquet" / "shards" / other["shard"])
    assert len(table["saliency"][0].as_py()) == SIDE * SIDE


def test_rows_in_the_middle_of_a_long_parquet_shard(tmp_path):
    pytest.importorskip("pyarrow")
    columns = {"a": torch.randn(250, 1, 2, 3), "n": torch.arange(250)}
    write_shard(tmp_path / "x.parquet", columns, {})
    held = read_shard(tmp_path / "x.parquet", ("a", "n"), slice(170, 230))
    assert held["n"].equal(torch.arange(170, 230))
    assert held["a"].equal(columns["a"][170:230])
    assert read_shard(tmp_path / "x.parquet")["a"].equal(columns["a"])


def test_parquet_without_its_library_is_told_before_any_work(subject, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"rightreasons\[parquet\]"):
        revealed(subject, tmp_path / "maps", storage=Storage(format="parquet"))
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_half_precision_neither_overflows_nor_vanishes(scale):
    maps = torch.randn(3, 1, 8, 8) * scale
    maps[2] = 0
    largest = maps.abs().amax(dim=(1, 2, 3))
    stored = packed(maps, largest)
    assert stored.dtype == torch.float16
    assert (restored(stored, largest) - maps).abs().max() <= 1e-3 * scale * 4
    assert restored(stored, largest)[2].eq(0).all()


def test_a_stopped_run_does_what_is_missing_and_ends_in_the_same_bytes(subject, tmp_path):
    revealed(subject, tmp_path / "whole")
    revealed(subject, tmp_path / "stopped")
    shards = tmp_path / "stopped" / "shards"
    for name in ("index.jsonl", "index.csv", "shards/00001-of-00005.safetensors"):
        (tmp_path / "stopped" / name).unlink()
    (shards / ".0abc.partial").write_text("half")
    kept = {path: path.stat().st_mtime_ns for path in shards.glob("*-of-*")}
    revealed(subject, tmp_path / "stopped")
    assert len(kept) == 4
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("settings", "storage", "told"),
    [
        (replace(ALL, target="true"), Storage(7), "target was 'predicted' and is now 'true'"),
        (replace(ALL, against="left"), Storage(7), "against was '' and is now 'left'"),
        (replace(ALL, images=20), Storage(7), "images was 30 and is now 20"),
        (
            replace(ALL, methods=("saliency",)),
            Storage(7),
            "explainers.grad_cam.method was 'GradCAM' and is now not set",
        ),
        (ALL, Storage(8), "storage.size was 7 and is now 8"),
        (ALL, Storage(7, half=True), "storage.half was False and is now True"),
    ],
)
def test_another_configuration_is_refused_and_says_what_differs(subject, tmp_path, settings, storage, told):
    revealed(subject, tmp_path)
    before = files(tmp_path)
    with pytest.raises(ResumeRefused, match="--overwrite") as error:
        revealed(subject, tmp_path, settings, storage)
    assert told in str(error.value)
    assert files(tmp_path) == before
    fresh = revealed(subject, tmp_path, settings, storage, overwrite=True)
    assert all((tmp_path / "shards" / line["shard"]).exists() for line in fresh.lines())
    assert len(list((tmp_path / "shards").iterdir())) == len(fresh.record.results["shards"])


def test_other_weights_or_images_are_refused(subject, tmp_path):
    revealed(subject, tmp_path)
    weight = next(subject.model.parameters())
    with torch.no_grad():
        weight[0] += 1
        try:
            with pytest.raises(ResumeRefused, match="weights was"):
                revealed(subject, tmp_path)
        finally:
            weight[0] -= 1
    fewer = replace(subject, data=Subset(subject.data, range(1, 30)))
    with pytest.raises(ResumeRefused, match="fingerprint was"):
        revealed(fewer, tmp_path)


def test_a_few_and_all_do_not_share_a_folder(subject, tmp_path):
    reveal_images(subject, RevealSettings(images=2), tmp_path / "few", device="cpu")
    with pytest.raises(ResumeRefused, match="the maps of a few images"):
        revealed(subject, tmp_path / "few")
    revealed(subject, tmp_path / "all")
    with pytest.raises(ResumeRefused, match="name another folder"):
        reveal_images(subject, RevealSettings(images=2), tmp_path / "all", device="cpu")
    (tmp_path / "all" / "reveal.json").unlink()
    with pytest.raises(ResumeRefused, match="maps without a record"):
        revealed(subject, tmp_path / "all")


def test_a_damaged_shard_is_named(subject, tmp_path):
    revealed(subject, tmp_path)
    shard = tmp_path / "shards" / "00002-of-00005.safetensors"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(CorruptData, match=r"00002-of-00005\.safetensors is damaged .* remove it and run"):
        revealed(subject, tmp_path)
    shard.unlink()
    revealed(subject, tmp_path)


def test_images_that_are_drawn_keep_their_positions(subject, tmp_path):
    maps = revealed(subject, tmp_path / "a", replace(ALL, images=9))
    positions = [line["position"] for line in maps.lines()]
    few = reveal_images(subject, RevealSettings(images=9), tmp_path / "few", device="cpu")
    assert positions == few.index.tolist()
    torch.testing.assert_close(maps.heatmap(list(maps.lines())[8], "saliency"), few.heatmaps["Saliency"][8])


def test_a_picture_of_the_data_is_explained_as_the_data_is(subject, tmp_path):
    position = 17
    name = file_of(subject.data, position)
    found = reveal_picture(subject, type(tmp_path)(name), RevealSettings(("saliency", "grad_cam")), device="cpu")
    inputs = subject.data[position].inputs
    assert found.batch.inputs.equal(inputs)
    expected = Saliency()(subject.model, inputs, subject.model(inputs).argmax(1)).detach()
    torch.testing.assert_close(found.heatmaps["Saliency"], expected)
    assert found.shares == {}
    assert found.said(0)[0] in subject.data.classes


def test_a_picture_takes_the_form_of_the_images(subject, tmp_path):
    Image.fromarray(np.zeros((50, 20), np.uint8)).save(tmp_path / "gray.png")
    turned = replace(subject, data=Rescaled(subject.data, -1.0, 1.0))
    found = reveal_picture(turned, tmp_path / "gray.png", RevealSettings(), device="cpu")
    assert found.batch.inputs.shape == (1, 3, SIDE, SIDE)
    assert found.batch.inputs.eq(-1).all()


def test_what_is_no_picture_is_told(subject, tmp_path):
    (tmp_path / "x.png").write_text("hello")
    for path, told in ((tmp_path / "x.png", "it is no image file"), (tmp_path / "y.png", "no picture")):
        with pytest.raises(CorruptData, match=told):
            reveal_picture(subject, path, RevealSettings(), device="cpu")
    with pytest.raises(ValueError, match="true class"):
        reveal_picture(subject, tmp_path / "x.png", RevealSettings(target="true"), device="cpu")


def test_an_images_file_is_found_behind_parts_and_changes(subject):
    inner = Subset(Rescaled(subject.data, 0.0, 255.0), [5, 20, 7])
    assert file_of(Subset(inner, [1]), 0) == file_of(subject.data, 20)
    assert file_of(subject.data, 20).as_posix().endswith("photos/right/13.png")
    assert name_of(Subset(inner, [1]), 0) == "right/13.png"


def test_a_few_images_are_called_by_their_files(subject, tmp_path):
    found = reveal_images(subject, RevealSettings(images=3), tmp_path, device="cpu")
    files = [subject.data.entries[position].image for position in found.index.tolist()]
    assert found.names == tuple(f"{file.parent.name}/{file.name}" for file in files)
    results = json.loads((tmp_path / "reveal.json").read_text())["results"]
    assert results["files"] == [file.as_posix() for file in files]


def test_images_without_files_are_called_by_their_positions():
    images, target = torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 0])
    data = ArrayDataset(images, target, classes=["a", "b"], name="x")
    part = Subset(data, [2, 1])
    assert [name_of(part, 0), name_of(part, 1, otherwise="image {:,}")] == ["0", "image 1"]
    assert file_of(part, 0) is None


def test_the_ends_of_what_was_measured_are_shown():
    rng = np.random.default_rng(0)
    lines = [
        {
            "position": row,
            "label": "ab"[row % 2],
            "prediction": "a",
            "confidence": float(rng.random()),
            "methods": {
                "m": {"sum": 1.0, "max_abs": float(row > 3), "irrelevant": float(rng.random()), "relevant": None}
            },
        }
        for row in range(500)
    ]
    found = summarize(iter(lines), ["m"], images=500, shown=25)
    by = sorted(lines, key=lambda line: line["confidence"])
    assert found.shown["least confident"] == by[:5]
    assert found.shown["most confident"] == by[:-6:-1]
    worst = sorted(lines, key=lambda line: -line["methods"]["m"]["irrelevant"])
    assert found.shown["most on irrelevant pixels"] == worst[:5]
    assert len(found.shown["drawn at random"]) == 10
    assert (found.right, found.classes) == (250, {"a": (250, 250), "b": (250, 0)})
    assert found.methods["m"].irrelevant.value == pytest.approx(
        np.mean([x["methods"]["m"]["irrelevant"] for x in lines])
    )
    assert found.methods["m"].relevant.value is None
    assert found.methods["m"].empty == 4


def test_a_file_that_fails_on_the_way_leaves_the_old_one(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), opened_whole(tmp_path / "a") as file:
        file.write(str(1 / 0))
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    with pytest.raises(NotWritten, match="cannot write"), opened_whole(tmp_path / "none" / "a"):
        pass


def test_shards_stay_small_whatever_the_maps():
    assert Storage().rows(28 * 28) == 1000
    assert Storage().rows(26 * 224 * 224) == 2**27 // (4 * 26 * 224 * 224)
    assert Storage(half=True).rows(26 * 224 * 224) == 2**27 // (2 * 26 * 224 * 224)
    assert Storage(size=5).rows(1) == 5
    assert Storage().rows(2**40) == 1


def test_wrong_storage_is_refused():
    with pytest.raises(ValueError, match="at least one image a shard"):
        Storage(0)


def test_the_record_says_what_was_asked(subject, tmp_path):
    revealed(subject, tmp_path)
    held = json.loads((tmp_path / "reveal.json").read_text())
    assert held["kind"] == "reveal_all"
    assert held["results"]["finished"] is True
    assert held["config"]["explainers"]["saliency"] == {"method": "Saliency", "score": "'logit'"}
    about = safetensors.safe_open(tmp_path / "shards" / "00000-of-00005.safetensors", "pt").metadata()
    assert json.loads(about["rightreasons"])["explainers"] == held["config"]["explainers"]
