"""The two codes against plain versions, written bit by bit from their descriptions."""

import numpy as np
import pytest

from rightreasons.core import CorruptData
from rightreasons.data.masks.rle import from_runs, from_text, to_runs, to_text, unpack_brush


def plain_runs(region):
    runs, value = [0], False
    for x in range(region.shape[1]):
        for y in range(region.shape[0]):
            if region[y, x] != value:
                runs.append(0)
                value = not value
            runs[-1] += 1
    return runs


def plain_text(runs):
    """Each difference in two's complement of 60 bits, in groups of five, the lowest first, no more than needed."""
    text = ""
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        bits = format(value % (1 << 60), "060b")
        groups = [int(bits[60 - 5 * k - 5 : 60 - 5 * k], 2) for k in range(12)]
        while len(groups) > 1 and groups[-1] == (31 if groups[-2] & 16 else 0):
            groups.pop()
        text += "".join(chr(48 + group + 32 * (k < len(groups) - 1)) for k, group in enumerate(groups))
    return text


def packed(values, sizes=(3, 4, 8, 16), word=8):
    """A brush's stream: stretches of one value repeated, all others as they are."""
    bits = format(len(values), "032b") + format(word - 1, "05b") + "".join(format(size - 1, "04b") for size in sizes)
    place = 0
    while place < len(values):
        same = place + 1
        while same < len(values) and values[same] == values[place] and same - place < 1 << sizes[-1]:
            same += 1
        repeated = same - place > 1
        length = same - place if repeated else min(3, len(values) - place)
        group = next(i for i, size in enumerate(sizes) if length <= 1 << size)
        bits += str(int(repeated)) + format(group, "02b") + format(length - 1, f"0{sizes[group]}b")
        bits += "".join(format(int(v), f"0{word}b") for v in values[place : place + (1 if repeated else length)])
        place += length
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def random_regions(count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        yield rng.random(rng.integers(1, 30, 2)) < rng.random()
    yield np.zeros((3, 4), bool)
    yield np.ones((300, 200), bool)


def test_runs_and_text_are_those_of_the_definition_and_lead_back():
    for region in random_regions(100):
        runs = to_runs(region)
        assert runs == plain_runs(region)
        assert to_text(runs) == plain_text(runs)
        assert from_text(to_text(runs)) == runs
        assert np.array_equal(from_runs(runs, region.shape), region)


def test_a_code_from_elsewhere():
    """A square in an image of 700 x 900, encoded by the format's reference implementation."""
    region = np.zeros((700, 900), bool)
    region[100:500, 200:600] = True
    assert to_text(to_runs(region)).startswith("TjX4`<\\900000000")
    assert from_text("TjX4`<\\90") == [140100, 400, 300, 400]
    assert from_text("4231") == [4, 2, 3, 3]


@pytest.mark.parametrize("text", ["ab\x10c", "5é", "52`", "ZZZ\n"])
def test_texts_that_are_no_code(text):
    with pytest.raises(CorruptData, match="compressed run-length code"):
        from_text(text)


@pytest.mark.parametrize("runs", [[3], [2, 5], [-1, 7], [5, -1, 2], []])
def test_runs_that_do_not_fill_the_image(runs):
    with pytest.raises(CorruptData, match=r"over 6 pixels \(2x3\)"):
        from_runs(runs, (2, 3))


@pytest.mark.parametrize(("sizes", "word"), [((3, 4, 8, 16), 8), ((1, 2, 3, 9), 8), ((3, 4, 8, 16), 3)])
def test_a_brush_is_unpacked_whatever_its_sizes(sizes, word):
    rng = np.random.default_rng(1)
    for count in (1, 7, 400, 3000):
        values = np.repeat(rng.integers(0, 1 << word, count), rng.integers(1, 9, count))[:count]
        assert np.array_equal(unpack_brush(packed(values, sizes, word), count), values)
    values = np.repeat([5, 0], 70_000)
    assert np.array_equal(unpack_brush(packed(values, sizes, word), 140_000), values)


def test_the_example_of_the_format():
    """32 bits: 8 numbers; 5: words of 8 bits; 4 x 4: sizes 3, 4, 8, 16; then one number repeated 8 times."""
    assert unpack_brush(bytes([0, 0, 0, 8, 0x39, 0x1B, 0xFC, 0xFF, 0xE0]), 8).tolist() == [255] * 8


def test_a_brush_that_is_cut_off_or_of_another_size():
    code = packed(np.arange(200))
    with pytest.raises(CorruptData, match="ends too early"):
        unpack_brush(code[:-9], 200)
    with pytest.raises(CorruptData, match="ends too early"):
        unpack_brush(code[:3], 200)
    with pytest.raises(CorruptData, match="of 400 numbers, got 200"):
        unpack_brush(code, 400)


@pytest.mark.peers
def test_the_same_as_pycocotools():
    coco = pytest.importorskip("pycocotools.mask")
    for region in random_regions(100):
        theirs = coco.encode(np.asfortranarray(region.astype(np.uint8)))["counts"].decode()
        assert to_text(to_runs(region)) == theirs
