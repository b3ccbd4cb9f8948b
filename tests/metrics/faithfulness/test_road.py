import numpy as np
import pytest
import torch
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from rightreasons.metrics import ROAD, Responses
from rightreasons.metrics.faithfulness import imputed
from tests.metrics.faithfulness.cases import curved_case, pixels_in_order

WEIGHTS = {(i, j): 1 / 6 if 0 in (i, j) else 1 / 12 for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)}


def solved_exactly(image, hidden):
    """The weighted mean of the neighbors that exist, for every hidden pixel, by a sparse LU factorization."""
    height, width = hidden.shape
    number = {place: n for n, place in enumerate(zip(*np.nonzero(hidden.numpy()), strict=True))}
    matrix, right = lil_matrix((len(number), len(number))), np.zeros((len(number), image.shape[0]))
    for (i, j), row in number.items():
        for (down, across), weight in WEIGHTS.items():
            other = (i + down, j + across)
            if not (0 <= other[0] < height and 0 <= other[1] < width):
                continue
            matrix[row, row] += weight
            if other in number:
                matrix[row, number[other]] -= weight
            else:
                right[row] += weight * image[:, other[0], other[1]].numpy()
    solution = spsolve(matrix.tocsc(), right).reshape(len(number), -1)
    filled = image.clone()
    for place, row in number.items():
        filled[:, place[0], place[1]] = torch.from_numpy(solution[row])
    return filled


def masks(side, shares):
    """Scattered ones, and the pixels within smooth blobs, for each share."""
    scattered = torch.rand(len(shares), 1, side, side)
    blobs = torch.nn.functional.avg_pool2d(torch.rand(len(shares), 1, side + 6, side + 6), 7, 1)
    found = []
    for maps in (scattered, blobs):
        ranks = maps.flatten(1).argsort(1, descending=True).argsort(1).view_as(maps)
        found += [rank < share * side**2 for rank, share in zip(ranks, shares, strict=True)]
    return torch.stack(found)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-4), (torch.float32, 1e-4)])
def test_imputation_against_a_sparse_solver(dtype, error):
    hidden = masks(28, (0.05, 0.3, 0.6, 0.9, 0.98))
    images = torch.rand(len(hidden), 3, 28, 28, dtype=torch.float64)
    expected = torch.stack([solved_exactly(image, mask[0]) for image, mask in zip(images, hidden, strict=True)])
    found = imputed(images.to(dtype), hidden)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=error)
    assert torch.equal(found[~hidden.expand_as(found)], images.to(dtype)[~hidden.expand_as(found)])


def test_a_tighter_tolerance_comes_closer():
    hidden = masks(14, (0.5, 0.9))
    images = torch.rand(len(hidden), 1, 14, 14, dtype=torch.float64)
    expected = torch.stack([solved_exactly(image, mask[0]) for image, mask in zip(images, hidden, strict=True)])
    torch.testing.assert_close(imputed(images, hidden, tolerance=1e-12), expected, rtol=0, atol=1e-10)


def test_each_image_and_channel_is_filled_in_alone():
    hidden = masks(14, (0.2, 0.5, 0.9))
    images = torch.rand(len(hidden), 2, 14, 14)
    together = imputed(images, hidden)
    apart = [imputed(images[i : i + 1], hidden[i : i + 1]) for i in range(len(hidden))]
    torch.testing.assert_close(together, torch.cat(apart), rtol=0, atol=1e-6)


def test_what_is_hidden_does_not_show_through():
    hidden = masks(14, (0.5, 0.9))
    images = torch.rand(len(hidden), 1, 14, 14)
    other = torch.where(hidden, torch.rand_like(images) * 50, images)
    assert torch.equal(imputed(images, hidden), imputed(other, hidden))


def test_extremes_of_imputation():
    images = torch.rand(2, 1, 8, 8)
    nothing, everything = (torch.full_like(images, value).bool() for value in (0, 1))
    assert torch.equal(imputed(images, nothing), images)
    mean = images.mean((2, 3), keepdim=True).expand_as(images)
    torch.testing.assert_close(imputed(images, everything), mean)
    one = everything.clone()
    one[:, :, 3, 3] = False
    torch.testing.assert_close(imputed(images, one), images[:, :, 3:4, 3:4].expand_as(images))
    black = torch.zeros_like(images)
    assert torch.equal(imputed(black, one), black)
    half = imputed(images.bfloat16(), one)
    assert half.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["correct", "probability"])
def test_road_against_a_loop(kind):
    model, batch, heatmap = curved_case()
    with torch.no_grad():
        batch = type(batch)(batch.inputs, model(batch.inputs).argmax(1))
    noise = 0.01 * torch.randn(3, 2, 12, 12, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    expected = []
    for x, h, t in zip(batch.inputs, heatmap[:, 0], batch.target, strict=True):
        row = []
        for share, extra in zip((0.1, 0.5, 0.85), noise, strict=True):
            hidden = torch.zeros(12, 12, dtype=torch.bool)
            for place in pixels_in_order(h)[: int(share * 144)]:
                hidden[place] = True
            with torch.no_grad():
                logits = model((solved_exactly(x, hidden) + hidden * extra)[None])[0]
            row.append(float(logits.argmax() == t) if kind == "correct" else float(logits.softmax(0)[t]))
        expected.append(row)
    expected = torch.tensor(expected, dtype=torch.float64)
    metric = ROAD((0.1, 0.5, 0.85), score=kind, seed=4)
    torch.testing.assert_close(metric.curve(Responses(model, batch), heatmap), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(metric(model, batch, heatmap), expected.mean(1), rtol=0, atol=1e-5)
