import pytest
import torch
from torch import nn

from rightreasons.core import ANY_OTHER
from rightreasons.counterfactuals import Amortized, LatentSearch, PrototypeGuided
from rightreasons.models.autoencoder import VAE, ClassGenerator
from tests.counterfactuals.linear import linear, two_classes
from tests.counterfactuals.tiny import Cells, Toward


class Pixels(nn.Module):
    """Encodes an image as its pixels; ``scale`` must not matter."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale

    def encode(self, images):
        return self.scale * images.flatten(1)


def three_classes():
    """A linear model of three classes, five images, their runners-up, and images with the model's labels."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(3, 16, generator=generator, dtype=torch.float64)
    model = linear(weight - weight.mean(dim=1, keepdim=True))
    inputs = torch.rand(5, 1, 4, 4, generator=generator, dtype=torch.float64)
    bank = torch.rand(60, 1, 4, 4, generator=generator, dtype=torch.float64)
    return model, inputs, model(inputs).argsort(dim=1)[:, 1], bank, model(bank).argmax(dim=1)


def test_a_prototype_is_the_mean_of_the_nearest_encodings_of_its_class():
    _, inputs, _, bank, labels = three_classes()
    method = PrototypeGuided(Pixels(2.0), bank, labels, neighbors=4)
    gaps, prototypes = method._nearest(2 * inputs.flatten(1), 4)
    for i, image in enumerate(inputs):
        for label in range(3):
            codes = 2 * bank[labels == label].flatten(1)
            near = sorted(codes, key=lambda code: float((code - 2 * image.flatten()).norm()))[:4]
            expected = torch.stack(near).mean(dim=0)
            torch.testing.assert_close(prototypes[i, label], expected)
            torch.testing.assert_close(gaps[i, label], (expected - 2 * image.flatten()).square().sum())
    assert gaps[:, 3].isinf().all()
    everything = PrototypeGuided(Pixels(), bank, labels, neighbors=None)._nearest(inputs.flatten(1), 3)[1]
    torch.testing.assert_close(everything[2, 1], bank[labels == 1].flatten(1).mean(dim=0))


def test_guidance_leads_nearer_to_the_prototype():
    model, inputs, target, bank, labels = three_classes()
    gaps = []
    for guidance in (1e-6, 10.0):
        method = PrototypeGuided(Pixels(), bank, labels, neighbors=None, guidance=guidance)
        found = method(model, inputs, target)
        assert found.valid.all()
        goals = torch.stack([bank[labels == label].mean(dim=0) for label in target.tolist()])
        gaps.append((found.images - goals).flatten(1).norm(dim=1).mean())
    assert gaps[1] < gaps[0]


def test_an_original_at_its_prototype_is_not_drawn():
    """As a training image that the model gets wrong is, with one neighbor."""
    model, inputs, target, bank, labels = three_classes()
    bank, labels = torch.cat([bank, inputs]), torch.cat([labels, target])
    found = PrototypeGuided(Pixels(), bank, labels, neighbors=1)(model, inputs, target)
    free = PrototypeGuided(Pixels(), bank, labels, neighbors=1, guidance=1e-9)(model, inputs, target)
    torch.testing.assert_close(found.images, free.images)


def test_the_scale_of_the_encodings_does_not_matter():
    model, inputs, target, bank, labels = three_classes()
    plain, scaled = (PrototypeGuided(Pixels(s), bank, labels)(model, inputs, target).images for s in (1.0, 1000.0))
    torch.testing.assert_close(plain, scaled, rtol=1e-4, atol=1e-6)


def test_without_guidance_it_is_the_nearest_flip_of_a_linear_model():
    model, inputs, target, direction = two_classes(gap=0.5)
    bank = torch.rand(4, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    method = PrototypeGuided(
        Pixels(), bank, torch.tensor([0, 1, 0, 1]), guidance=1e-9, sparsity=0.0, rounds=4, weight=0.1
    )
    found = method(model, inputs, target)
    assert found.valid.all()
    least = float(0.51 / direction.norm())
    assert least <= float((found.images - inputs).flatten(1).norm(dim=1).max()) <= 1.25 * least


def test_a_class_without_an_example_gives_the_original_not_valid():
    model, inputs, target, bank, labels = three_classes()
    absent = int(target[0])
    kept = labels != absent
    found = PrototypeGuided(Pixels(), bank[kept], labels[kept])(model, inputs, target)
    assert not found.valid[target == absent].any()
    assert torch.equal(found.images[target == absent], inputs[target == absent])
    assert found.queries[target == absent].tolist() == [1] * int((target == absent).sum())


class Told(nn.Module):
    """A latent model that notes the classes it is told."""

    classes = 3

    def __init__(self):
        super().__init__()
        self.plain, self.seen = Cells((1, 4, 4)), []

    def encode(self, images):
        return self.plain.encode(images)

    def decode(self, latent, target):
        self.seen.append(target.clone())
        return self.plain.decode(latent, target)


def test_the_decoder_is_told_the_target_and_for_any_other_class_the_runner_up():
    model, inputs, target, *_ = three_classes()
    for asked in (target, torch.full_like(target, ANY_OTHER)):
        told = Told()
        LatentSearch(told, steps=1)(model, inputs, asked)
        assert torch.equal(told.seen[0], target)


def test_without_nearness_the_first_valid_image_ends_the_search():
    model, inputs, target, *_ = three_classes()
    cells = Cells((1, 4, 4))
    first, walked = (LatentSearch(cells, nearness=n, steps=40, lead=0.01)(model, inputs, target) for n in (0.0, 0.3))
    assert first.valid.any()
    assert (first.queries[first.valid] < 41).all()
    assert walked.queries.tolist() == [41] * 5
    # The first query is the original, every other a step.
    assert torch.equal(first.gradients, first.queries - 1)


def test_what_is_found_was_decoded():
    model, inputs, target, *_ = three_classes()
    found = LatentSearch(Cells((1, 4, 4)), lead=0.01)(model, inputs, target)
    cells = found.images[found.valid]
    assert torch.equal(cells[..., ::2, ::2], cells[..., 1::2, 1::2])


def test_the_search_starts_at_a_part_of_the_encoding():
    model, inputs, target, *_ = three_classes()
    seen = []

    class Listening(Cells):
        def decode(self, latent, target):
            seen.append(latent.detach().clone())
            return super().decode(latent, target)

    for style in (0.0, 0.4):
        cells = Listening((1, 4, 4))
        LatentSearch(cells, style=style, steps=1)(model, inputs, target)
        torch.testing.assert_close(seen.pop(), style * cells.encode(inputs))


def test_a_generator_that_is_right_needs_one_query_and_one_that_is_not_is_told_so():
    model, inputs, target, bank, _ = three_classes()
    goals = bank[model(bank).softmax(dim=1).argmax(dim=0)]
    right = Amortized(Toward(goals, 1.0))(model, inputs, target)
    assert right.valid.all()
    assert torch.equal(right.images, goals[target])
    assert right.queries.tolist() == [2] * 5
    wrong = Amortized(Toward(goals, 0.0))(model, inputs, target)
    assert not wrong.valid.any()
    assert torch.equal(wrong.images, inputs)


def test_a_second_pass_goes_on_from_the_first_and_refining_goes_back():
    model, inputs, target, bank, _ = three_classes()
    goals = bank[model(bank).softmax(dim=1).argmax(dim=0)]
    once, again = (Amortized(Toward(goals, 0.1), passes=p)(model, inputs, target) for p in (1, 20))
    assert again.valid.sum() > once.valid.sum()
    assert again.queries.max() <= 21
    refined = Amortized(Toward(goals, 1.0), refine=6)(model, inputs, target)
    share = (refined.images - inputs).flatten(1).norm(dim=1) / (goals[target] - inputs).flatten(1).norm(dim=1)
    assert refined.valid.all()
    assert (share < 1).all()
    torch.testing.assert_close(refined.images, torch.lerp(inputs, goals[target], share.view(-1, 1, 1, 1)))


def test_the_networks_that_ship_fit_and_keep_their_modes():
    model = linear(torch.randn(3, 64, generator=torch.Generator().manual_seed(0)), side=8)
    inputs = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    target = (model(inputs).argmax(dim=1) + 1) % 3
    shape = (1, 8, 8)
    vae, generator = VAE(shape, latent=3, widths=(4, 4), classes=3), ClassGenerator(shape, 3, widths=(4, 4, 4))
    methods = (
        LatentSearch(vae, steps=3),
        PrototypeGuided(vae, inputs, target, steps=3),
        Amortized(generator),
    )
    for method in methods:
        found = method(model, inputs, target)
        assert found.images.shape == inputs.shape
        assert vae.training
        assert generator.training
    for network in (vae, generator):
        assert all(weight.grad is None for weight in network.parameters())


@pytest.mark.wrong_types
def test_settings_are_checked():
    model, inputs, target, bank, labels = three_classes()
    for make in (LatentSearch, lambda encoder: PrototypeGuided(encoder, bank, labels)):
        with pytest.raises(ValueError, match="encode"):
            make(object())
    with pytest.raises(ValueError, match="generator"):
        Amortized(3)
    for name, value in (("steps", 0), ("nearness", -1.0), ("style", -0.1), ("step_size", 0.0)):
        with pytest.raises(ValueError, match=f"expected {name}"):
            LatentSearch(Cells(), **{name: value})
    for name, value in (("passes", 0), ("refine", -1)):
        with pytest.raises(ValueError, match=f"expected {name}"):
            Amortized(Cells().encode, **{name: value})
    for name, value in (("neighbors", 0), ("guidance", 0.0), ("sparsity", -1.0), ("rounds", 0), ("weight", 0.0)):
        with pytest.raises(ValueError, match=f"expected {name}"):
            PrototypeGuided(Pixels(), bank, labels, **{name: value})
    with pytest.raises(ValueError, match="one label a reference, 60, got 3"):
        PrototypeGuided(Pixels(), bank, labels[:3])
    with pytest.raises(ValueError, match="references of the images' shape"):
        PrototypeGuided(Pixels(), bank[..., :2], labels)(model, inputs, target)
    with pytest.raises(ValueError, match="knows the model's 3 classes, got one of 2"):
        LatentSearch(VAE((1, 4, 4), classes=2))(model, inputs, target)
