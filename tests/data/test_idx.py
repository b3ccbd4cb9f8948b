import pytest
import torch
from tests.data.idx_files import format_idx

from rightreasons.core import CorruptData
from rightreasons.data.idx import parse_idx


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4), (0, 5)])
def test_what_is_written_is_read(shape):
    values = torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert torch.equal(parse_idx(format_idx(values), "made"), values)


def test_the_bytes_are_those_of_the_format():
    content = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6])
    assert parse_idx(content, "made").tolist() == [[1, 2, 3], [4, 5, 6]]
    assert format_idx(torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.uint8)) == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "got nothing"),
        (b"<html>", "got 3c 68 74 6d"),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01\x00", "00 00 0d 01"),
        (b"\x00\x00\x08\x00", "00 00 08 00"),
        (b"\x00\x00\x08\x02\x00\x00\x00\x01", "header of 12 bytes, got 8"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x03\x01\x02", "expected 11 bytes"),
        (b"\x00\x00\x08\x01\x00\x00\x00\x03\x01\x02\x03\x04", "got 12"),
    ],
)
def test_damage_is_named(content, message):
    with pytest.raises(CorruptData, match=message) as caught:
        parse_idx(content, "train-images")
    assert "train-images" in str(caught.value)
