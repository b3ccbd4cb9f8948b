import torch

from rightreasons.attribution import Saliency
from rightreasons.core import Batch
from rightreasons.models import adapt
from rightreasons.supervision import RRR


def plain_rrr(model, batch) -> float:
    """Image by image, pixel by pixel, from the paper's formula."""
    total = 0.0
    for i in range(len(batch)):
        x = batch.inputs[i : i + 1].clone().requires_grad_()
        (gradient,) = torch.autograd.grad(torch.log(torch.softmax(model(x), dim=1)).sum(), x)
        for channel in range(x.shape[1]):
            for row in range(x.shape[2]):
                for column in range(x.shape[3]):
                    a = float(batch.irrelevant[i, 0, row, column])
                    total += (a * float(gradient[0, channel, row, column])) ** 2
    return total / len(batch)


def test_rrr_is_the_formula_of_the_paper(model, batch):
    found = RRR()(model, batch, model(batch.inputs))
    torch.testing.assert_close(float(found.detach()), plain_rrr(model, batch))


def test_a_linear_model_by_hand():
    # Scores w.x with Saliency(logit): the gradient of class 0 is its weight, whatever the image.
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 2, bias=False)).double()
    linear[1].weight.data = torch.tensor([[1.0, 2, 3, 4, -1, -2, -3, -4], [0.0] * 8]).double()
    irrelevant = torch.tensor([[1.0, 0.5], [0.0, 0.0]]).double().view(1, 1, 2, 2)
    batch = Batch(torch.rand(1, 2, 2, 2).double(), torch.tensor([0]), irrelevant=irrelevant)
    found = RRR(Saliency())(adapt(linear), batch, torch.zeros(1, 2))
    # Channels of opposite sign: 1 and -1 at the first pixel, 2 and -2 at the second, which counts half.
    assert float(found.detach()) == 1 + 1 + 1 + 1


def test_the_pixel_range_scales_lambda_with_its_square(batch):
    class Divided(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x / 255)

    from tests.networks import network

    unit = RRR()(adapt(network("softplus")), batch, torch.zeros(4, 3))
    bytes_ = Batch(batch.inputs * 255, batch.target, irrelevant=batch.irrelevant)
    raw = RRR()(adapt(Divided(network("softplus"))), bytes_, torch.zeros(4, 3))
    torch.testing.assert_close(raw * 255**2, unit)
