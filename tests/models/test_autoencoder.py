import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.core import CorruptData, ResumeRefused
from rightreasons.core.tensors import weights_digest
from rightreasons.data.arrays import ArrayDataset
from rightreasons.models import adapt
from rightreasons.models.autoencoder import VAE, Autoencoder, ClassGenerator
from rightreasons.training.autoencode import (
    AutoencodeSettings,
    GeneratorSettings,
    evidence,
    fit_autoencoder,
    fit_generator,
)

SHAPE = (1, 8, 12)


def seeded(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def vae(classes=2):
    return seeded(lambda: VAE(SHAPE, latent=2, widths=(4, 8), classes=classes))


def bars(count=64):
    """Class 0 is bright on the left, class 1 on the right."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 60, (count, *SHAPE), generator=generator)
    target = torch.arange(count) % 2
    images[target == 0, ..., :6] += 180
    images[target == 1, ..., 6:] += 180
    return ArrayDataset(images.to(torch.uint8), target, classes=("left", "right"), name="bars")


class Sides(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(10.0))

    def forward(self, x):
        return self.gain * torch.stack([x[..., :6].mean(dim=(1, 2, 3)), x[..., 6:].mean(dim=(1, 2, 3))], dim=1)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 4, 8)])
def test_images_come_out_in_their_shape_and_from_0_to_1(shape):
    images, target = torch.rand(2, *shape), torch.tensor([0, 2])
    for made in (
        VAE(shape)(images),
        VAE(shape, classes=3)(images, target),
        ClassGenerator(shape, 3)(images, target),
    ):
        assert made.shape == images.shape
        assert made.min() >= 0
        assert made.max() <= 1
    assert Autoencoder(shape)(images).shape == images.shape
    assert Autoencoder(shape).encode(images).shape == (2, 8 * shape[1] * shape[2] // 16)
    assert VAE(shape, latent=5).encode(images).shape == (2, 5)


def test_the_class_changes_what_is_decoded():
    images = torch.rand(1, *SHAPE)
    for network in (vae(), seeded(lambda: ClassGenerator(SHAPE, 2))):
        one, other = (network(images, torch.tensor([label])) for label in (0, 1))
        assert not torch.equal(one, other)


@pytest.mark.wrong_types
def test_sizes_are_checked():
    for make in (Autoencoder, VAE, ClassGenerator):
        with pytest.raises(ValueError, match="sides four divides, got 10 x 8"):
            make((1, 10, 8))
    with pytest.raises(ValueError, match="expected latent"):
        VAE(SHAPE, latent=0)
    with pytest.raises(ValueError, match="expected a class for each encoding"):
        vae()(torch.rand(1, *SHAPE))
    for name, value in (("epochs", 0), ("lr", math.nan), ("lr", 0.0), ("divergence", -1.0)):
        with pytest.raises(ValueError, match=rf"expected (a learning rate )?{name}"):
            AutoencodeSettings(**{name: value})
    with pytest.raises(ValueError, match="expected nearness"):
        GeneratorSettings(nearness=-1.0)


def test_the_evidence_is_that_of_bernoulli_pixels_and_a_normal_prior():
    network, images, target = vae(), torch.rand(3, *SHAPE), torch.tensor([0, 1, 1])
    found = evidence(network, images, target, torch.Generator().manual_seed(4), divergence=0.5)
    noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(4))
    mean, log_variance = network.posterior(images)
    spread = log_variance.exp().sqrt()
    decoded = network.decode(mean + noise * spread, target)
    pixels = F.binary_cross_entropy(decoded, images, reduction="none").sum(dim=(1, 2, 3))
    posterior, prior = torch.distributions.Normal(mean, spread), torch.distributions.Normal(0.0, 1.0)
    away = torch.distributions.kl_divergence(posterior, prior).sum(dim=1)
    torch.testing.assert_close(found, (pixels + 0.5 * away).mean(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [vae, lambda: seeded(lambda: Autoencoder(SHAPE))])
def test_training_brings_the_loss_down_and_a_killed_run_goes_on_to_the_same_weights(make, tmp_path):
    settings, path = AutoencodeSettings(epochs=3, batch_size=16, lr=1e-2), tmp_path / "one.safetensors"
    whole = make()
    losses = fit_autoencoder(whole, bars(), settings)
    assert losses[-1] < losses[0]
    assert not whole.training

    class Killed(Exception):
        pass

    class Interrupted(ArrayDataset):
        def batch(self, index):
            self.left -= 1
            if self.left < 0:
                raise Killed
            return super().batch(index)

    data = bars()
    cut = Interrupted(data.images, data.target, classes=data.classes, name=data.name)
    cut.left = 1 + 6  # one for the fingerprint, four for the first epoch
    with pytest.raises(Killed):
        fit_autoencoder(make(), cut, settings, checkpoint=path)
    resumed = make()
    assert fit_autoencoder(resumed, bars(), settings, checkpoint=path) == losses
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_file_of_another_run_and_a_damaged_one_are_refused(tmp_path):
    path, settings = tmp_path / "run.safetensors", AutoencodeSettings(batch_size=32, epochs=1)
    fit_autoencoder(vae(), bars(), settings, checkpoint=path)
    with pytest.raises(ResumeRefused, match="seed was 0 and is now 1"):
        fit_autoencoder(vae(), bars(), AutoencodeSettings(batch_size=32, epochs=1, seed=1), checkpoint=path)
    path.write_bytes(b"no checkpoint at all")
    with pytest.raises(CorruptData, match="damaged"):
        fit_autoencoder(vae(), bars(), settings, checkpoint=path)


def test_training_shows_where_it_is_and_one_that_is_over_shows_nothing(tmp_path, capsys):
    path, settings = tmp_path / "vae.safetensors", AutoencodeSettings(epochs=2, batch_size=32)
    fit_autoencoder(vae(), bars(), settings, checkpoint=path)
    assert capsys.readouterr().err == ""
    shown = replace(settings, progress=True)
    fit_autoencoder(vae(), bars(), shown, checkpoint=path)
    assert capsys.readouterr().err == ""
    fit_autoencoder(vae(), bars(), shown)
    assert "epoch 2/2: 100%" in capsys.readouterr().err


def test_a_generator_learns_to_flip_a_classifier_that_stays_as_it_is():
    network = Sides().train()
    model, data = adapt(nn.Sequential(nn.Identity(), network), layer="0"), bars()
    before, generator = weights_digest(network), seeded(lambda: ClassGenerator(SHAPE, 2, widths=(4, 8, 8)))
    settings = GeneratorSettings(epochs=25, batch_size=16, lr=1e-2, nearness=0.001, plausibility=0.0)
    losses = fit_generator(generator, model, seeded(lambda: Autoencoder(SHAPE)), data, settings)
    assert losses[-1] < 0.5 * losses[0]
    batch = data.batch(torch.arange(len(data)))
    with torch.no_grad():
        predicted = model(batch.inputs).argmax(dim=1)
        flipped = model(generator(batch.inputs, 1 - predicted)).argmax(dim=1) == 1 - predicted
    assert flipped.float().mean() > 0.9
    assert weights_digest(network) == before
    assert network.gain.grad is None
    assert network.training


def test_a_fingerprint_is_that_of_the_weights():
    one, other = vae(), vae()
    assert weights_digest(one) == weights_digest(other)
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    assert weights_digest(one) != weights_digest(other)
