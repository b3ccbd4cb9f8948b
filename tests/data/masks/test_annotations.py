import pytest
import torch

from rightreasons.core import CorruptData
from rightreasons.data import Annotations, Marks


def spot(row, column, value=1.0, size=(4, 6)):
    mask = torch.zeros(1, *size)
    mask[0, row, column] = value
    return mask


def test_marks_come_back_as_they_were():
    odd = torch.rand(1, 5, 7, generator=torch.Generator().manual_seed(0))
    annotations = Annotations(
        {"cat/a.png": Marks(spot(1, 2), odd[:, :4, :6]), "b.png": Marks(irrelevant=spot(0, 0, 0.2))}
    )
    assert list(annotations) == ["cat/a.png", "b.png"]
    assert torch.equal(annotations["cat/a.png"].relevant, spot(1, 2))
    assert torch.equal(annotations["cat/a.png"].irrelevant, odd[:, :4, :6])
    assert annotations["b.png"].relevant is None
    assert torch.allclose(annotations["b.png"].irrelevant, spot(0, 0, 0.2))
    assert annotations.size("b.png") == (4, 6)
    assert repr(annotations) == "Annotations(2 images: 1 relevant, 2 irrelevant)"
    with pytest.raises(KeyError):
        annotations["c.png"]


def test_large_masks_are_kept_small():
    annotations = Annotations({"a.png": Marks(spot(5, 5, size=(1000, 1000)))})
    assert len(annotations._packed["a.png"][0].data) < 10_000


def test_a_name_that_comes_twice_is_merged():
    annotations = Annotations(
        [("a.png", Marks(spot(0, 0))), ("./a.png", Marks(spot(0, 1), spot(0, 1))), ("b\\c.png", Marks(spot(0, 0)))]
    )
    assert list(annotations) == ["a.png", "b/c.png"]
    assert torch.equal(annotations["a.png"].relevant, spot(0, 0) + spot(0, 1))
    assert torch.equal(annotations["a.png"].irrelevant, spot(0, 1))
    assert annotations.counts() == {
        "images annotated": 2,
        "with relevant pixels": 2,
        "with irrelevant pixels": 1,
        "with pixels marked as both": 1,
    }
    other = Annotations({"a.png": Marks(irrelevant=spot(3, 3))})
    assert torch.equal(annotations.merged(other)["a.png"].irrelevant, spot(0, 1) + spot(3, 3))
    assert list(annotations.renamed(lambda name: name.rpartition("/")[2])) == ["a.png", "c.png"]


def test_a_conflict_is_kept_or_refused():
    both = {"a.png": Marks(spot(0, 0) + spot(1, 1), spot(1, 1))}
    assert Annotations(both)["a.png"].both == 1
    with pytest.raises(CorruptData, match=r"^a.png has 1 pixels that are marked as relevant and as irrelevant$"):
        Annotations(both, conflict="error")
    assert Annotations({"a.png": Marks(spot(0, 0), spot(1, 1))}, conflict="error")["a.png"].both == 0


@pytest.mark.parametrize("name", ["", "/", "../a.png", "a/../../b.png", "a\0.png"])
def test_names_that_leave_their_folder(name):
    with pytest.raises(CorruptData, match="expected the name of an image file inside a folder"):
        Annotations({name: Marks(spot(0, 0))})


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("masks", "told"),
    [
        ((None, None), "got neither"),
        ((spot(0, 0)[0], None), r"mask \(1, H, W\), got torch.float32 \(4, 6\)"),
        ((None, spot(0, 0).bool()), "got torch.bool"),
        ((spot(0, 0, 1.5), None), "got 0 to 1.5"),
        ((spot(0, 0, float("nan")), None), "in"),
        ((spot(0, 0), spot(0, 0, size=(6, 4))), "got 4x6 and 6x4"),
        ((torch.zeros(1, 0, 3), None), "got torch.float32"),
    ],
)
def test_what_is_no_mask(masks, told):
    with pytest.raises(ValueError, match=told):
        Marks(*masks)


def test_marks_of_two_sizes_under_one_name():
    with pytest.raises(CorruptData, match=r"a.png is annotated twice: expected marks of one size, got 4x6 and 3x3"):
        Annotations([("a.png", Marks(spot(0, 0))), ("a.png", Marks(spot(0, 0, size=(3, 3))))])


@pytest.mark.wrong_types
def test_an_unknown_way_with_conflicts():
    with pytest.raises(ValueError, match="expected conflict keep or error, got 'drop'"):
        Annotations(conflict="drop")
