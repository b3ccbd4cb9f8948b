import os
import resource

import pytest
import torch
from torch import nn

from rightreasons.core import BadModel, NotWritten
from rightreasons.models.checkpoints import load_weights, read_weights, save_weights, write_whole


def _network(classes=3):
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, classes))


class Danger:
    """Runs a command when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "w.pth", "wrapped.pt"])
def test_weights_come_back(tmp_path, name):
    saved, loaded = _network(), _network()
    saved[1].running_mean += 1
    if name == "w.safetensors":
        save_weights(saved, tmp_path / name)
    else:
        state = saved.state_dict()
        torch.save({"state_dict": state, "epoch": 3} if name == "wrapped.pt" else state, tmp_path / name)
    load_weights(loaded, tmp_path / name)
    for key, value in saved.state_dict().items():
        assert loaded.state_dict()[key].equal(value), key


def test_tied_weights_are_saved(tmp_path):
    def tied():
        network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        network[1].weight = network[0].weight
        return network

    saved, loaded = tied(), tied()
    save_weights(saved, tmp_path / "w.safetensors")
    load_weights(loaded, tmp_path / "w.safetensors")
    assert loaded[1].weight is loaded[0].weight
    assert loaded[1].weight.equal(saved[0].weight)


def test_every_misfit_is_named(tmp_path):
    other = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Identity(), nn.Flatten(), nn.Linear(8, 5), nn.Linear(5, 1))
    save_weights(other, tmp_path / "w.safetensors")
    network = _network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(BadModel) as caught:
        load_weights(network, tmp_path / "w.safetensors")
    message = str(caught.value)
    assert "missing: 1.weight, 1.bias, 1.running_mean, 1.running_var and 1 more" in message
    assert "unexpected: 4.bias, 4.weight" in message
    assert "3.weight (5, 8) where the network has (3, 8)" in message
    assert "\n" not in message
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 8, b"this is a photograph, not a model", b"\xff" * 4000])
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadModel, match="is not a file of weights, or is damaged") as caught:
        load_weights(_network(), tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_half_a_file_is_refused(tmp_path, name):
    path = tmp_path / name
    if name == "w.pt":
        torch.save(_network().state_dict(), path)
    else:
        save_weights(_network(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadModel, match="is not a file of weights, or is damaged"):
        load_weights(_network(), path)


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"weight": Danger(tmp_path / "made")}, tmp_path / "w.pt")
    with pytest.raises(BadModel, match="could run code") as caught:
        load_weights(_network(), tmp_path / "w.pt")
    assert not (tmp_path / "made").exists()
    assert "\n" not in str(caught.value)


def test_a_whole_pickled_network_is_refused_with_advice(tmp_path):
    torch.save(_network(), tmp_path / "w.pt")
    with pytest.raises(BadModel, match=r"torch\.save\(network\.state_dict\(\)"):
        load_weights(_network(), tmp_path / "w.pt")


def test_what_is_no_mapping_of_tensors_is_refused(tmp_path):
    for content in ([1, 2], {"a": 1}, torch.ones(3)):
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(BadModel, match="no mapping from names to tensors"):
            read_weights(tmp_path / "w.pt")


def test_missing_files_and_other_kinds_are_refused(tmp_path):
    with pytest.raises(BadModel, match=r"no weights file .*w\.pt"):
        load_weights(_network(), tmp_path / "w.pt")
    with pytest.raises(BadModel, match="no weights file"):
        load_weights(_network(), tmp_path)
    (tmp_path / "w.h5").write_bytes(b"x")
    with pytest.raises(BadModel, match=r"expected weights in a \.safetensors, \.pt or \.pth file, got w\.h5"):
        load_weights(_network(), tmp_path / "w.h5")
    with pytest.raises(ValueError, match=r"ends in \.safetensors, got w\.pt"):
        save_weights(_network(), tmp_path / "w.pt")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(_network(), path)
    before = path.read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, old[1]))
    try:
        with pytest.raises(NotWritten, match=r"^cannot write .*: File too large; the file .* is untouched$"):
            save_weights(_network(), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritten, match=r"cannot write .*: (Not a directory|File exists); nothing was left there"):
        write_whole(tmp_path / "file" / "w.safetensors", b"x")


def test_folders_are_made(tmp_path):
    write_whole(tmp_path / "a" / "b" / "c.bin", b"content")
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == b"content"


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path, monkeypatch):
    path, synced = tmp_path / "w.bin", os.fsync

    def another_writes_meanwhile(descriptor):
        monkeypatch.setattr(os, "fsync", synced)
        write_whole(path, b"second")
        assert path.read_bytes() == b"second"

    monkeypatch.setattr(os, "fsync", another_writes_meanwhile)
    write_whole(path, b"first")
    assert path.read_bytes() == b"first"
    assert [file.name for file in tmp_path.iterdir()] == ["w.bin"]


def test_a_written_file_can_be_read_by_whom_the_mask_allows(tmp_path):
    write_whole(tmp_path / "ours", b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
