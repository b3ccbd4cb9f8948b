"""Training of the networks that make images: autoencoders, and the generator of counterfactuals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import closing as ended
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from rightreasons.core import Batch, Classifier, CorruptData, ResumeRefused
from rightreasons.core.hooks import modes_kept
from rightreasons.core.tensors import weights_digest
from rightreasons.counterfactuals.search import lead_of
from rightreasons.data.dataset import ImageDataset, stream
from rightreasons.models.autoencoder import VAE, Autoencoder, ClassGenerator
from rightreasons.models.checkpoints import fill, packable, write_whole
from rightreasons.training.evaluation import device_of
from rightreasons.training.monitor import Bar

_KEY = "rightreasons"

Loss = Callable[[Batch, torch.Generator], Tensor]
"""The loss of a batch whose images lie from 0 to 1; the generator is for its draws."""


@dataclass(frozen=True)
class AutoencodeSettings:
    """How to train a network that makes images, with Adam and a rate that falls to 0 along a cosine.

    Attributes:
        epochs: Passes over the data.
        batch_size: Images a step.
        lr: Learning rate at the start, above 0.
        divergence: Weight of a variational autoencoder's divergence from its prior; 1 is the evidence lower bound.
        seed: The order of the images and all draws follow from it; the initial weights are the caller's.
        progress: Show a bar over the steps; it is no part of what a checkpoint must agree with.

    Raises:
        ValueError: A number out of range.
    """

    epochs: int = 5
    batch_size: int = 128
    lr: float = 2e-3
    divergence: float = 1.0
    seed: int = 0
    progress: bool = False

    @property
    def asked(self) -> dict[str, float]:
        """What steers the training."""
        return {name: value for name, value in asdict(self).items() if name != "progress"}

    def __post_init__(self) -> None:
        for name, value in self.asked.items():
            least = {"epochs": 1, "batch_size": 1}.get(name, 0)
            if name != "seed" and not (math.isfinite(value) and value >= least):
                raise ValueError(f"expected {name} of at least {least}, got {value}")
        if self.lr == 0:
            raise ValueError("expected a learning rate lr above 0, got 0")


@dataclass(frozen=True)
class GeneratorSettings(AutoencodeSettings):
    """How to train a generator of counterfactuals against a classifier that stays as it is.

    The loss is ``max(0, lead - lead of the target) + nearness * |x' - x|_1 + plausibility * |x' - AE(x', target)|^2``,
    the mean over images whose targets are drawn evenly from the classes that are not predicted.

    Attributes:
        lead: By how much the target's logit is to exceed all others.
        nearness: Weight of the sum of absolute changes.
        plausibility: Weight of the squares of what the autoencoder does not reproduce.
    """

    epochs: int = 1
    lr: float = 5e-4
    lead: float = 6.0
    nearness: float = 0.01
    plausibility: float = 0.05


def fit_autoencoder(
    network: Autoencoder | VAE,
    data: ImageDataset,
    settings: AutoencodeSettings | None = None,
    *,
    checkpoint: str | Path | None = None,
) -> list[float]:
    """Train an autoencoder in place: mean squared error, or the evidence lower bound of a variational one.

    Args:
        network: It is left in evaluation mode.
        data: Images; of a conditional one ``target`` is the class that its decoder is told.
        settings: How.
        checkpoint: A file that is written after each epoch, and from which a run that was killed goes on.

    Returns:
        The mean loss of each epoch; of the variational one in nats an image.

    Raises:
        ResumeRefused: The file is that of another run.
        CorruptData: The file is damaged.
    """
    settings = settings or AutoencodeSettings()

    def loss(batch: Batch, draws: torch.Generator) -> Tensor:
        if isinstance(network, VAE):
            return evidence(network, batch.inputs, batch.target, draws, divergence=settings.divergence)
        return F.mse_loss(network(batch.inputs), batch.inputs)

    return _Run(network, data, settings, type(network).__name__).train(loss, checkpoint)


def fit_generator(
    generator: ClassGenerator | VAE,
    model: Classifier,
    autoencoder: Autoencoder | VAE,
    data: ImageDataset,
    settings: GeneratorSettings | None = None,
    *,
    checkpoint: str | Path | None = None,
) -> list[float]:
    """Train a generator of counterfactuals in place, against a frozen classifier; see :class:`GeneratorSettings`.

    Args:
        generator: It is left in evaluation mode. A copy of the conditional autoencoder needs few steps, as it makes
            images of any class already; a ``ClassGenerator`` that knows nothing needs many more, at a higher rate.
        model: The classifier; it predicts in evaluation mode and is left as it was.
        autoencoder: What says how real an image looks; a conditional one is told the target.
        data: Training images, in the range that the classifier expects.
        settings: How.
        checkpoint: As for :func:`fit_autoencoder`.

    Returns:
        The mean loss of each epoch.

    Raises:
        ValueError: An autoencoder that is not conditional stands in the generator's place.
        ResumeRefused: The file is that of another run.
        CorruptData: The file is damaged.
    """
    settings = settings or GeneratorSettings()
    against = " and ".join(weights_digest(network)[:16] for network in (model.network, autoencoder))
    told = f"{type(generator).__name__} against {against}"
    with modes_kept(model.network), modes_kept(autoencoder):
        model.network.eval()
        autoencoder.eval()
        loss = _flipping(generator, model, autoencoder, settings, data.pixel_range)
        return _Run(generator, data, settings, told).train(loss, checkpoint)


def _flipping(
    generator: ClassGenerator | VAE,
    model: Classifier,
    autoencoder: Autoencoder | VAE,
    settings: GeneratorSettings,
    pixel_range: tuple[float, float],
) -> Loss:
    """The generator's loss, with fresh targets for each batch."""
    (low, high), classes = pixel_range, generator.classes
    if classes is None:
        raise ValueError("expected a generator that is told the class, got an autoencoder that is not conditional")

    def loss(batch: Batch, draws: torch.Generator) -> Tensor:
        inputs = batch.inputs
        with torch.no_grad():
            predicted = model(low + (high - low) * inputs).argmax(dim=1)
        step = torch.randint(1, classes, (len(inputs),), generator=draws).to(predicted.device)
        target = (predicted + step) % classes
        images = generator(inputs, target)
        short = F.relu(settings.lead - lead_of(model(low + (high - low) * images), target, predicted))
        near = (images - inputs).abs().sum(dim=(1, 2, 3))
        implausible = (images - reproduced(autoencoder, images, target)).square().sum(dim=(1, 2, 3))
        total: Tensor = (short + settings.nearness * near + settings.plausibility * implausible).mean()
        return total

    return loss


def evidence(
    network: VAE,
    images: Float[Tensor, "batch channels height width"],
    target: Int[Tensor, " batch"],
    draws: torch.Generator,
    *,
    divergence: float = 1.0,
) -> Float[Tensor, ""]:
    """Minus the evidence lower bound, in nats an image: cross-entropy of the pixels plus the divergence from the prior.

    Source: Kingma and Welling 2014, arXiv:1312.6114, Eq. 10, with Bernoulli pixels.
    """
    mean, log_variance = network.posterior(images)
    noise = torch.randn(mean.shape, generator=draws).to(mean)
    logits = network.logits(mean + noise * (log_variance / 2).exp(), target)
    pixels = F.binary_cross_entropy_with_logits(logits, images, reduction="sum")
    away = (mean.square() + log_variance.exp() - log_variance - 1).sum() / 2
    return (pixels + divergence * away) / len(images)


def reproduced(network: Autoencoder | VAE, images: Tensor, target: Int[Tensor, " batch"]) -> Tensor:
    """The images as an autoencoder reproduces them, a conditional one under these classes."""
    out: Tensor = network(images, target) if isinstance(network, VAE) else network(images)
    return out


class _Run:
    """One training, epoch by epoch."""

    def __init__(self, network: nn.Module, data: ImageDataset, settings: AutoencodeSettings, what: str) -> None:
        if not len(data):
            raise ValueError("expected at least one image to train on, got an empty data set")
        self.network, self.data, self.settings = network, data, settings
        self.weights = list(network.parameters())
        self.optimizer = torch.optim.Adam(self.weights, lr=settings.lr, fused=True)
        self.losses: list[float] = []
        self.description = {
            "what": what,
            "data": f"{data.name}, {len(data)} images, hash {data.sampled_fingerprint()[:12]}",
            **settings.asked,
        }

    def train(self, loss: Loss, checkpoint: str | Path | None) -> list[float]:
        path = None if checkpoint is None else Path(checkpoint)
        if path is not None and path.exists():
            self._resume(path)
        each, done = math.ceil(len(self.data) / self.settings.batch_size), len(self.losses)
        epochs, shown = self.settings.epochs, self.settings.progress and done < self.settings.epochs
        with torch.enable_grad(), ended(Bar(epochs=epochs, total=epochs * each, done=done * each, shown=shown)) as bar:
            self.network.train()
            while len(self.losses) < epochs:
                bar.epoch(len(self.losses) + 1)
                self.losses.append(self._epoch(loss, len(self.losses), bar))
                if path is not None:
                    self._keep(path)
        self.network.eval()
        return self.losses

    def _epoch(self, loss: Loss, epoch: int, bar: Bar) -> float:
        draws = stream(self.settings.seed, f"epoch {epoch} of images")
        rows = torch.split(torch.randperm(len(self.data), generator=draws), self.settings.batch_size)
        total, steps = 0.0, self.settings.epochs * len(rows)
        for number, row in enumerate(rows):
            for group in self.optimizer.param_groups:
                group["lr"] = self.settings.lr * (1 + math.cos(math.pi * (epoch * len(rows) + number) / steps)) / 2
            value = loss(self._batch(row), draws)
            self.optimizer.zero_grad()
            # Into these weights alone: other networks on the graph keep their gradients as they are.
            torch.autograd.backward(value, inputs=self.weights)
            self.optimizer.step()
            total += value.item() * len(row)
            bar.step({"loss": value.item()})
        self.optimizer.zero_grad()
        return total / len(self.data)

    def _batch(self, row: Int[Tensor, " batch"]) -> Batch:
        """Images from 0 to 1, where the network is."""
        low, high = self.data.pixel_range
        batch = self.data.batch(row)
        device, kind = device_of(self.network), self.weights[0].dtype
        inputs = ((batch.inputs - low) / (high - low)).to(device, kind)
        return Batch(inputs=inputs, target=batch.target.to(device))

    def _keep(self, path: Path) -> None:
        tensors = {f"weights.{name}": value for name, value in self.network.state_dict().items()}
        for number, row in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in row.items()}
        header = json.dumps({"description": self.description, "losses": self.losses})
        write_whole(path, safetensors.torch.save(packable(tensors), metadata={_KEY: header}))

    def _resume(self, path: Path) -> None:
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})[_KEY])
                tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, json.JSONDecodeError, KeyError) as error:
            raise CorruptData(f"{path} is damaged or no checkpoint of such a training; remove it") from error
        wanted, saved = json.loads(json.dumps(self.description)), header["description"]
        if differing := [n for n in wanted if saved.get(n) != wanted[n]]:
            told = "; ".join(f"{n} was {saved.get(n)} and is now {wanted[n]}" for n in differing)
            raise ResumeRefused(f"{path} belongs to another run: {told}")
        fill(self.network, {n[8:]: v for n, v in tensors.items() if n.startswith("weights.")}, str(path))
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("optimizer."):
                _, number, key = name.split(".")
                # A fused step needs the moments in the memory layout of their weight.
                weight = self.weights[int(number)]
                laid_out = torch.empty_like(weight).copy_(value) if value.shape == weight.shape else value
                state.setdefault(int(number), {})[key] = laid_out
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.losses = header["losses"]
