"""Explain a data set of any size: streamed, in shards, taken up where it was stopped, by one process or several."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from rightreasons.attribution.forward import rows_at_once
from rightreasons.core import Batch, ResumeRefused
from rightreasons.core.tensors import content
from rightreasons.data.folder import file_of
from rightreasons.experiments.explain import contrasted, explained_class
from rightreasons.experiments.record import Record, environment, make_record
from rightreasons.experiments.reveal.index import (
    FACTS,
    LINES,
    MEASURES,
    TABLE,
    RevealedMaps,
    column,
    write_index,
)
from rightreasons.experiments.reveal.methods import Explainers, RevealSettings, build_explainers, class_number, drawn
from rightreasons.experiments.reveal.sample import HEATMAPS, REVEALED, SHARDS, origin
from rightreasons.experiments.reveal.shards import (
    Columns,
    Shard,
    Storage,
    packed,
    pyarrow_parquet,
    shards_of,
    write_shard,
)
from rightreasons.experiments.run import accelerator_for, make_folder
from rightreasons.experiments.subject import Subject
from rightreasons.metrics import ArtifactRelevance, EnergyInMask
from rightreasons.models import AdaptedClassifier
from rightreasons.training import device_of, modes_kept
from rightreasons.training.loading import stream_seed

KIND = "reveal_all"
PAGE = "index.html"
_WAIT = 0.2
_TOLD = 40


@dataclass(frozen=True)
class Conduct:
    """How the work is done; nothing here changes a number.

    Attributes:
        device: ``auto`` (what Accelerate finds), ``cpu`` or ``cuda``.
        overwrite: Remove what another configuration left in the folder.
        progress: Show a bar.
    """

    device: str = "auto"
    overwrite: bool = False
    progress: bool = False


def reveal_all(
    subject: Subject,
    settings: RevealSettings,
    out: Path,
    storage: Storage = Storage(),
    conduct: Conduct = Conduct(),
) -> RevealedMaps | None:
    """Explain images without holding them or their maps in memory.

    ``out`` gets ``reveal.json`` first, then ``shards/``, each file whole, in the end ``index.jsonl`` and
    ``index.csv``. The same call goes on after the shards that are there, and ends in the same files as one that was
    never stopped. Processes that were launched together, over one file system, share the shards; the main one writes
    the index.

    Args:
        subject: Model and images.
        settings: What to explain; of ``images``, as many are drawn at random, or ``None`` takes all.
        out: The folder.
        storage: How maps are written.
        conduct: How the work is done.

    Returns:
        The maps; ``None`` in a process that is not the main one.

    Raises:
        ResumeRefused: ``out`` holds what another configuration made; the message says what differs.
        MissingExtra: Parquet without pyarrow.
        NotWritten: A full disk, for example.
    """
    if storage.format == "parquet":
        pyarrow_parquet()
    accelerator = accelerator_for(conduct.device)
    subject.model.to(accelerator.device)
    # What has to be trained the main process trains; the others find it in the cache.
    with accelerator.main_process_first() if settings.generates else nullcontext():
        explainers = build_explainers(subject, settings)
    work = _Work(subject, settings, out, storage, explainers)
    _prepare(work, accelerator, overwrite=conduct.overwrite)
    own = work.shards[accelerator.process_index :: accelerator.num_processes]
    _explain_shards(work, own, progress=conduct.progress and accelerator.is_main_process)
    if not accelerator.is_main_process:
        return None
    # No barrier: it would give up on a process that has a shard more to do than the others.
    while not all(shard.path.exists() for shard in work.shards):
        time.sleep(_WAIT)
    write_index(out, work.shards, list(work.methods), classes=subject.data.classes, name=work.name)
    work.record(str(accelerator.device), finished=True).write(out / REVEALED)
    return RevealedMaps(out)


class _Work:
    """What is asked, resolved: the images, the methods, the shards."""

    def __init__(
        self, subject: Subject, settings: RevealSettings, out: Path, storage: Storage, explainers: Explainers
    ) -> None:
        self.subject, self.settings, self.out, self.explainers = subject, settings, out, explainers
        self.data, self.methods = subject.data, explainers.methods
        self.half = storage.half
        self.against = class_number(settings.against, self.data.classes)
        count = len(self.data)
        whole = settings.images is None or settings.images >= count
        self.positions = torch.arange(count) if whole else drawn(count, settings.images, settings.seed)
        _, height, width = self.data.shape
        size = storage.rows(len(self.methods) * height * width)
        self.shards = shards_of(out / SHARDS, len(self.positions), size, storage.format)
        self.config = self._config({"size": size, "format": storage.format, "half": storage.half})

    def _config(self, storage: Mapping[str, Any]) -> dict[str, Any]:
        settings, model = self.settings, self.subject.model
        return {
            **origin(self.subject),
            "images": len(self.positions),
            "explainers": self.explainers.settings,
            "target": settings.target,
            "against": settings.against,
            # Older folders, whose maps have the methods' own baselines, are taken up again.
            **({"baseline": settings.baseline} if settings.baseline else {}),
            "seed": settings.seed,
            "layer": model.layer,
            "weights": _digest_of(model),
            "fingerprint": f"{self.data.sampled_fingerprint()[:32]} {self._names_digest()}",
            "storage": dict(storage),
        }

    def _names_digest(self) -> str:
        digest = hashlib.sha256()
        for position in self.positions.tolist():
            digest.update(f"{position} {self.name(position)};".encode(errors="backslashreplace"))
        return digest.hexdigest()[:16]

    def name(self, position: int) -> str:
        """The file of an image, if it has one."""
        file = file_of(self.data, position)
        return "" if file is None else file.as_posix()

    def record(self, device: str, *, finished: bool) -> Record:
        """What was asked, and what it gives."""
        titles = self.explainers.titles
        methods = {key: {"title": titles[key], "signed": method.signed} for key, method in self.methods.items()}
        results = {
            "finished": finished,
            "shards": [shard.path.name for shard in self.shards],
            "classes": list(self.data.classes),
            "methods": methods,
            "unfit": dict(self.explainers.unfit),
        }
        return make_record(KIND, self.config, results, environment=environment(device))


def _digest_of(model: AdaptedClassifier) -> str:
    """SHA-256 over all weights and buffers, and what is done to the pixels."""
    digest = hashlib.sha256()
    tensors = {**model.state_dict(), "mean": model.mean, "std": model.std}
    for name, value in tensors.items():
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
            digest.update(content(value))
    return digest.hexdigest()[:32]


def _prepare(work: _Work, accelerator: Accelerator, *, overwrite: bool) -> None:
    """The folder, with a record of what is going to lie in it; all processes refuse alike."""
    if not overwrite:
        _refuse_other(work)
    # No process may read what the main one is about to remove or write.
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        make_folder(work.out)
        if overwrite and _differs(work):
            _clear(work.out)
        make_folder(work.out / SHARDS)
        for partial in (work.out / SHARDS).glob(".*.partial"):
            partial.unlink(missing_ok=True)
        if not (work.out / REVEALED).exists():
            work.record(str(accelerator.device), finished=False).write(work.out / REVEALED)
    accelerator.wait_for_everyone()


def _differs(work: _Work) -> str:
    """What another configuration left in the folder, in words; empty if there is nothing in the way."""
    if not (work.out / REVEALED).exists():
        return "maps without a record" if (work.out / SHARDS).exists() else ""
    held = Record.read(work.out / REVEALED)
    if held.kind != KIND:
        return "the maps of a few images"
    before, now = dict(_flat(held.config)), dict(_flat(work.config))
    keys = [key for key in dict.fromkeys([*now, *before]) if before.get(key) != now.get(key)]
    told = [f"{key} was {_short(before.get(key))} and is now {_short(now.get(key))}" for key in keys[:4]]
    more = f", and {len(keys) - 4} more" if len(keys) > 4 else ""
    return f"other maps: {'; '.join(told)}{more}" if keys else ""


def _refuse_other(work: _Work) -> None:
    found = _differs(work)
    if found:
        raise ResumeRefused(f"{work.out} holds {found}. Name another folder with --out, or give --overwrite")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: object) -> str:
    told = "not set" if value is None else " ".join(repr(value).split())
    return told if len(told) <= _TOLD else f"{told[:_TOLD]}..."


def _clear(out: Path) -> None:
    """Remove what this command writes, and nothing else."""
    shards = [*(out / SHARDS).glob("*-of-*.safetensors"), *(out / SHARDS).glob("*-of-*.parquet")]
    for path in (out / REVEALED, *shards, *(out / name for name in (LINES, TABLE, PAGE, HEATMAPS))):
        path.unlink(missing_ok=True)


def _explain_shards(work: _Work, shards: Sequence[Shard], *, progress: bool) -> None:
    todo = [shard for shard in shards if not shard.path.exists()]
    images = sum(shard.stop - shard.start for shard in shards)
    done = images - sum(shard.stop - shard.start for shard in todo)
    methods = len(work.methods)
    device = device_of(work.subject.model)
    devices = [device.index or 0] if device.type == "cuda" else []
    with (
        # Methods differ so much in cost that only the mean over all of them tells the time that is left.
        tqdm(total=images * methods, initial=done * methods, unit="map", smoothing=0, disable=not progress) as bar,
        modes_kept(work.subject.model),
        torch.no_grad(),
        torch.random.fork_rng(devices),
    ):
        work.subject.model.eval()
        for shard in todo:
            about = {"images": [shard.start, shard.stop], "explainers": work.explainers.settings}
            write_shard(shard.path, _shard_columns(work, work.positions[shard.start : shard.stop], bar), about)


def _shard_columns(work: _Work, positions: Int[Tensor, " rows"], bar: tqdm) -> Columns:
    """The columns of a shard, filled batch by batch."""
    rows = len(positions)
    first = work.data[int(positions[0])].inputs.to(device_of(work.subject.model))
    kind = torch.float16 if work.half else torch.float32
    columns = {name: torch.empty(rows, dtype=torch.int64) for name in FACTS}
    columns["probability"] = torch.empty(rows)
    for name in work.methods:
        columns |= {column(name, measure): torch.empty(rows) for measure in MEASURES}
        columns[name] = torch.empty((rows, 1, *first.shape[-2:]), dtype=kind)
    step = rows_at_once(None, first)
    for start in range(0, rows, step):
        some = slice(start, min(rows, start + step))
        for name, values in _batch_columns(work, positions[some], bar):
            columns[name][some] = values
    return columns


def _batch_columns(work: _Work, positions: Int[Tensor, " rows"], bar: tqdm) -> Iterator[tuple[str, Tensor]]:
    model, settings = work.subject.model, work.settings
    batch = work.data.batch(positions).to(device_of(model))
    # Methods that draw at random without a seed of their own draw the same whichever process comes here, and when.
    torch.manual_seed(stream_seed(settings.seed, int(positions[0])))
    probabilities = model(batch.inputs).softmax(dim=1)
    target = explained_class(probabilities, batch, settings.target)
    confidence, predicted = probabilities.float().max(dim=1)
    yield from zip(FACTS, (positions, batch.target, target, predicted, confidence), strict=True)
    asked = contrasted(model, work.against)
    for name, method in work.methods.items():
        bar.set_description(name, refresh=True)
        maps = method(asked, batch.inputs, target).float()
        yield from _map_columns(name, model, batch, maps, half=work.half)
        bar.update(len(batch))


def _map_columns(
    name: str, model: AdaptedClassifier, batch: Batch, maps: Float[Tensor, "batch 1 height width"], *, half: bool
) -> Iterator[tuple[str, Tensor]]:
    """The maps and the numbers that tell of them; the shares are NaN where there is no mask or no finite map."""
    largest = maps.abs().amax(dim=(1, 2, 3))
    finite = largest.isfinite()
    sound = torch.where(finite.view(-1, 1, 1, 1), maps, torch.zeros_like(maps))
    sums = maps.double().sum(dim=(1, 2, 3)).float()
    shares = (ArtifactRelevance()(model, batch, sound), EnergyInMask()(model, batch, sound))
    for measure, values in zip(MEASURES, (sums, largest, *shares), strict=True):
        yield column(name, measure), values
    yield name, packed(maps, largest) if half else maps
