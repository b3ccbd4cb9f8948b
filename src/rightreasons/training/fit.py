"""The training loop."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import DistributedType, DynamoBackend, broadcast_object_list
from torch import Tensor

from rightreasons.core import Batch, ResumeRefused, TrainingDiverged
from rightreasons.data.dataset import ImageDataset
from rightreasons.data.marks import annotated_images
from rightreasons.models import AdaptedClassifier, check_fits
from rightreasons.models.checkpoints import fill
from rightreasons.training.checkpoint import FILE_NAME, Progress, finite, load_checkpoint, save_checkpoint
from rightreasons.training.evaluation import evaluate, modes_kept
from rightreasons.training.loading import epoch_order, fetch, seed_generators, share, stream_seed
from rightreasons.training.monitor import Bar, Meter, can_defer, deferred_interrupt
from rightreasons.training.objective import Objective, TrainingStep
from rightreasons.training.schedule import Watched, rate
from rightreasons.training.settings import FitSettings, describe, held_back, make_optimizer

Check = Callable[[AdaptedClassifier], float | Mapping[str, float]]

_AUGMENTATION, _DRAWN = 1, 2
"""They end the keys of the random numbers of augmentation and of drawn images."""

_PLAIN_OR_DATA_PARALLEL = {
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
}


@dataclass(frozen=True)
class FitResult:
    """What a run leaves beside the trained weights.

    Attributes:
        history: One dictionary an epoch: ``epoch`` (from 1), ``loss``, the parts by name, ``seconds`` of its steps
            (``cpu_seconds``, on a CPU, of this process alone), and what was validated (``<name>_accuracy`` for a data
            set); with a schedule ``lr``, that of its last step; ``annotated_share``, of how many of a step's images
            the terms are means, where it is not all.
        seconds: Duration of this call.
        steps: Steps over all epochs, those before an interruption included.
        resumed_from: The step at which an earlier run was taken up, or ``None``.
        best_epoch: The epoch, from 1, whose weights were taken; ``None`` where the last were.
    """

    history: list[dict[str, float]]
    seconds: float
    steps: int
    resumed_from: int | None
    best_epoch: int | None = None


def fit(
    model: AdaptedClassifier,
    data: ImageDataset,
    objective: Objective,
    settings: FitSettings = FitSettings(),
    *,
    validate: Mapping[str, ImageDataset | Check] | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    accelerator: Accelerator | None = None,
    progress: bool = True,
) -> FitResult:
    """Train a classifier on data under an objective.

    CPU, GPU, several processes and, unless the settings name it, precision are those of the user's own Accelerate
    configuration. The random numbers of every step follow from the seed, the epoch, the step and the process, so a run
    that was killed and resumed ends in the weights of one that was not, to the bit where the device's arithmetic is
    deterministic. torch's global generators are seeded inside and given back as they were. The model is trained in
    training mode, gets the modes back that it came in, and stays on the accelerator's device. A sub-module that comes
    in evaluation mode inside a network in training mode (a frozen BatchNorm) stays in evaluation mode; where the whole
    network comes in evaluation mode, as after loading, all of it trains.

    With several processes each takes its share of a batch and gradients are averaged. A term of the objective is a mean
    over annotated images, so it is the joint batch's mean only where the shares hold equally many of them. Accelerate
    1.15 starts several processes on CPUs by ``accelerate launch --multi_gpu --num_processes 2`` or ``torchrun``; with
    ``--cpu`` it starts one, unless MPI is there.

    Ctrl-C in a single process leaves a checkpoint at the very step; a second Ctrl-C stops at once. With several
    processes a run goes on from its last epoch.

    Args:
        model: Made by ``adapt``; its weights are changed in place.
        data: What to train on.
        objective: What to minimize.
        settings: How.
        validate: After each epoch: the accuracy on a data set, or what a function of the model returns, by name. What
            a plateau or early stopping follows from stands under ``validation``, and from no other.
        out: A folder for ``checkpoint.safetensors``, written after each epoch; ``None`` keeps nothing.
        resume: Go on from the checkpoint in ``out`` where there is one.
        accelerator: Where to run; by default what the environment says.
        progress: Show a bar.

    Raises:
        BadModel: The network cannot take these images.
        ValueError: A label is out of the model's range, the Accelerate configuration cannot train explanations, or
            nothing stands under ``validation`` where training is to follow from it.
        TrainingDiverged: A loss or weight is not finite; the last good checkpoint stays.
        ResumeRefused: The checkpoint belongs to a run with other settings.
        NotWritten: The checkpoint could not be written; the last one stays.
    """
    started = time.perf_counter()
    accelerator = accelerator or default_accelerator()
    _refuse_unsupported(accelerator, objective)
    _refuse_unwatchable(settings, validate or {})
    devices = [accelerator.device.index or 0] if accelerator.device.type == "cuda" else []
    with modes_kept(model), torch.random.fork_rng(devices):
        loop = _Loop(model, data, objective, settings, accelerator=accelerator)
        path = Path(out) / FILE_NAME if out is not None else None
        resumed_from = loop.resume(path) if resume and path is not None and path.is_file() else None
        loop.run(path, validate or {}, progress=progress)
    at = loop.at
    best = loop.watched.epoch if at.best is not None else None
    return FitResult(at.history, time.perf_counter() - started, at.steps, resumed_from, best)


def default_accelerator() -> Accelerator:
    """What the environment says; processes started together on a machine without a GPU are joined on the CPU.

    Left alone, Accelerate would let each of them train by itself.
    """
    return Accelerator(cpu=_started_together() > 1 and not torch.accelerator.is_available())


def _started_together() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


class _Loop:
    """One run: what is trained, how far it is, and the steps."""

    def __init__(
        self,
        model: AdaptedClassifier,
        data: ImageDataset,
        objective: Objective,
        settings: FitSettings,
        *,
        accelerator: Accelerator,
    ) -> None:
        if len(data) == 0:
            raise ValueError("expected at least one image to train on, got none")
        self.model, self.data, self.settings, self.accelerator = model, data, settings, accelerator
        self.device = accelerator.device
        self.step = TrainingStep(model, objective, bfloat16=settings.precision == "bf16").to(self.device)
        first = data.batch(torch.tensor([0])).inputs.to(self.device)
        check_fits(model, first, data.target)
        self.step.lay_out(first)
        self.weights = [p for p in self.step.parameters() if p.requires_grad]
        if not self.weights:
            raise ValueError("expected at least one weight that requires a gradient, got none")
        self.raw_optimizer = make_optimizer(self.weights, settings)
        self.prepared, self.optimizer = accelerator.prepare(self.step, self.raw_optimizer)
        self.description = describe(model, data, objective, settings) | {
            "processes": accelerator.num_processes,
            "mixed_precision": accelerator.mixed_precision,
        }
        self.held_back = held_back(model)
        self.generator = torch.Generator()
        # Without a loss or an augmentation that would look at them none are drawn.
        borrows = getattr(settings.augmentation, "borrow", 0) > 0
        self.drawn = settings.annotated_batch if objective.terms or borrows else 0
        self.annotated = annotated_images(data) if self.drawn else torch.empty(0, dtype=torch.long)
        self.at = Progress()
        # Weights are partly updated: what a second Ctrl-C leaves must not be saved.
        self.between = False

    def resume(self, path: Path) -> int:
        """Take up the run in this file and return its step."""
        self.at, scaler = load_checkpoint(path, self.step, self.raw_optimizer, description=self.description)
        if self.at.epoch > self.settings.epochs:
            raise ResumeRefused(f"{path} is at epoch {self.at.epoch} already, past the {self.settings.epochs} wanted")
        if self.accelerator.scaler is not None and scaler is not None:
            self.accelerator.scaler.load_state_dict(scaler)
        return self.at.steps

    @property
    def watched(self) -> Watched:
        """What validation has told so far."""
        return Watched(**(self.at.watched or {}))

    def run(self, path: Path | None, validate: Mapping[str, ImageDataset | Check], *, progress: bool) -> None:
        """All epochs that are left, and the best weights back where they are asked for."""
        shown = progress and self.accelerator.is_main_process
        steps = len(self.order(0))
        bar = Bar(epochs=self.settings.epochs, total=self.settings.epochs * steps, done=self.at.steps, shown=shown)
        # Processes would stop at different steps, so only a single one can stop between two.
        defers = path is not None and self.accelerator.num_processes == 1 and can_defer()
        try:
            while self.at.epoch < self.settings.epochs and not self.watched.stops(self.settings):
                bar.epoch(self.at.epoch + 1)
                line = self.epoch(bar, defers=defers) | self.validated(validate)
                with deferred_interrupt(defers):
                    self.at = self.after(line)
                    self.save(path)
        except KeyboardInterrupt:
            if defers and self.at.steps and not self.between:
                self.save(path)
            raise
        finally:
            bar.close()
        if self.at.best is not None:
            fill(self.step, self.at.best, "the checkpoint")

    def after(self, line: dict[str, float]) -> Progress:
        """The progress when an epoch is over, and what follows from its validation."""
        at, settings = self.at, self.settings
        over = Progress(at.epoch + 1, 0, at.steps, [*at.history, line], watched=at.watched, best=at.best)
        if settings.watches:
            name = f"validation_{settings.monitor}"
            if name not in line:
                raise ValueError(f"expected the check 'validation' to return {settings.monitor!r}, by that name")
            watched = self.watched.seen(line[name], over.epoch, settings)
            over.watched = asdict(watched)
            if settings.patience and watched.epoch == over.epoch:
                over.best = {name: value.detach().clone() for name, value in self.step.state_dict().items()}
        return over

    def order(self, epoch: int) -> list[Tensor]:
        """The batches of an epoch, over all processes together."""
        s = self.settings
        return epoch_order(len(self.data), s.batch_size, seed=s.seed, epoch=epoch, drop_last=s.drop_last)

    def own_order(self, epoch: int, step: int) -> list[Tensor]:
        """This process's batches of an epoch from a step on, each with the annotated images drawn for it at its end."""
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        order = [share(rows, process, processes) for rows in self.order(epoch)[step:]]
        return [self.with_drawn(rows, (epoch, step + place, process)) for place, rows in enumerate(order)]

    def with_drawn(self, rows: Tensor, place: tuple[int, int, int]) -> Tensor:
        """A batch with the annotated images that are drawn for the losses at this place of the run at its end."""
        if not self.drawn:
            return rows
        self.generator.manual_seed(stream_seed(self.settings.seed, *place, _DRAWN))
        picked = torch.randint(len(self.annotated), (self.drawn,), generator=self.generator)
        return torch.cat([rows, self.annotated[picked]])

    def epoch(self, bar: Bar, *, defers: bool) -> dict[str, float]:
        """The steps of the present epoch that are left; returns its line in the history."""
        at = self.at
        order = self.own_order(at.epoch, at.step)
        steps = len(self.order(0)) * self.settings.epochs
        meter = Meter(at.epoch + 1, 1 if self.device.type == "cpu" else 50, at.meter)
        self.train_mode()
        with deferred_interrupt(defers) as stop_if_asked:
            try:
                for batch in fetch(self.data, order, self.settings.workers):
                    self.set_rate(steps)
                    bar.step(self.update(batch, meter))
                    stop_if_asked()
            finally:
                at.meter = meter.state()
        counting = (name for name, term in self.step.objective.terms.items() if term.loss.counts_annotated)
        means = meter.means(self.across_processes) | meter.share(counting, self.across_processes)
        lr = {"lr": rate(self.settings, self.watched, at.steps - 1, steps)} if self.settings.schedule else {}
        # On a CPU that others use too, only the time that this process worked tells what a step costs.
        times = {name: took for name, took in meter.times().items() if name == "seconds" or self.device.type == "cpu"}
        return {"epoch": float(at.epoch + 1), **means, **lr, **times}

    def train_mode(self) -> None:
        """Put everything into training mode but what the user holds in evaluation mode."""
        self.step.train()
        for module in self.held_back:
            module.training = False

    def set_rate(self, steps: int) -> None:
        """Give the optimizer the learning rate of the next step; it follows from the progress, so none is saved."""
        if self.settings.schedule:
            for group in self.raw_optimizer.param_groups:
                group["lr"] = rate(self.settings, self.watched, self.at.steps, steps)

    def update(self, batch: Batch, meter: Meter) -> Mapping[str, float]:
        """One step; returns the parts that were read last."""
        at, settings = self.at, self.settings
        place = (settings.seed, at.epoch, at.step, self.accelerator.process_index)
        seed_generators(stream_seed(*place), self.device)
        if settings.augmentation is not None:
            # A stream of its own: dropout must not follow from how an image was moved.
            given, generator = len(batch), self.generator.manual_seed(stream_seed(*place, _AUGMENTATION))
            batch = settings.augmentation(batch, generator)
            if (found := len(batch)) != given:
                raise ValueError(f"expected {given} images back from the augmentation, in their order, got {found}")
        drawn = self.drawn if self.step.objective.terms else 0
        batch = batch[: len(batch) - self.drawn + drawn]  # Those that only lent an augmentation their masks are gone.
        images = self.images(batch, len(batch) - drawn)
        if batch.inputs.device != self.device:
            batch = batch.to(self.device, non_blocking=True)
        parts = self.prepared(batch, drawn)
        meter.add(parts, images=images, step=at.steps + 1)
        self.between = True
        self.descend(parts["loss"])
        at.step, at.steps = at.step + 1, at.steps + 1
        self.between = False
        return meter.latest

    def images(self, batch: Batch, every: int) -> dict[str, int]:
        """How many images each part of the loss is a mean of: ``every``; a term, of the annotated ones of the batch."""
        objective = self.step.objective
        annotated = len(batch) if batch.annotated is None else int(batch.annotated.sum())
        weights = [f"{name}_{kind}" for name in self.step.weighings for kind in ("weight", "share")]
        return dict.fromkeys(("loss", objective.task_name, *weights), every) | dict.fromkeys(objective.terms, annotated)

    def descend(self, loss: Tensor) -> None:
        """Gradients for the weights alone (one for the recorded inputs would be work for nothing), and the update."""
        self.raw_optimizer.zero_grad(set_to_none=True)
        if self.accelerator.scaler is None:
            # Accelerate's calls do the same here, but look for optional packages at each step.
            loss.backward(inputs=self.weights)  # type: ignore[no-untyped-call]
            self.raw_optimizer.step()
        else:
            self.accelerator.backward(loss, inputs=self.weights)
            self.optimizer.step()

    def across_processes(self, values: list[float]) -> list[float]:
        """Each number added up over the processes."""
        if self.accelerator.num_processes == 1:
            return values
        own = torch.tensor(values, device=self.device, dtype=torch.float64)
        total: Tensor = self.accelerator.reduce(own, reduction="sum")
        return [float(value) for value in total]

    def validated(self, validate: Mapping[str, ImageDataset | Check]) -> dict[str, float]:
        """What is validated, measured by the main process and told to all."""
        found: list[dict[str, float]] = [{}]
        if self.accelerator.is_main_process:
            with modes_kept(self.model):
                self.model.eval()
                for name, check in validate.items():
                    followed = self.settings.watches and name == "validation"
                    found[0] |= self.checked(name, check, loss=followed)
        broadcast_object_list(found)
        return found[0]

    def checked(self, name: str, check: ImageDataset | Check, *, loss: bool) -> dict[str, float]:
        """One validation: of a data set in the precision of the steps, of a function as it comes."""
        if isinstance(check, ImageDataset):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.step.halved):
                found = evaluate(self.model, check)
            entropy = {f"{name}_loss": F.cross_entropy(found.logits.double(), found.target).item()} if loss else {}
            return {f"{name}_accuracy": found.accuracy} | entropy
        value = check(self.model)
        if isinstance(value, Mapping):
            return {f"{name}_{key}": float(number) for key, number in value.items()}
        return {name: float(value)}

    def save(self, path: Path | None) -> None:
        """Write the checkpoint, unless a weight is not finite."""
        if not finite(self.step):
            raise TrainingDiverged(
                f"a weight is not finite after step {self.at.steps} (epoch {self.at.epoch}), though the loss was. "
                "Try a lower learning rate or a lower weight of the explanation loss"
            )
        if path is None or not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None
        save_checkpoint(path, self.step, self.raw_optimizer, self.at, description=self.description, scaler=scaler)


def _refuse_unwatchable(settings: FitSettings, validate: Mapping[str, ImageDataset | Check]) -> None:
    if settings.watches and "validation" not in validate:
        asked = "schedule plateau" if settings.schedule == "plateau" else f"patience {settings.patience}"
        raise ValueError(
            f"expected validation images for {asked}, got none: hold a share of the training images out and pass it "
            "as validate={'validation': ...}; test images are never selected by"
        )


def _refuse_unsupported(accelerator: Accelerator, objective: Objective) -> None:
    kind = accelerator.distributed_type
    if kind not in _PLAIN_OR_DATA_PARALLEL:
        raise ValueError(
            f"expected one process or data-parallel ones, got {kind.value}; configure Accelerate without it"
        )
    if accelerator.num_processes < _started_together():
        raise ValueError(
            f"{_started_together()} processes were started together, but Accelerate joined "
            f"{accelerator.num_processes}; on CPUs set ACCELERATE_USE_CPU=true"
        )
    if accelerator.gradient_accumulation_steps != 1:
        raise ValueError(
            f"expected no gradient accumulation, got {accelerator.gradient_accumulation_steps} steps; "
            "take a smaller batch size instead"
        )
    plugin = accelerator.state.dynamo_plugin
    if objective.explains() and plugin.backend != DynamoBackend.NO:
        raise ValueError("torch.compile has no double backward, so explanations cannot be trained; configure none")
