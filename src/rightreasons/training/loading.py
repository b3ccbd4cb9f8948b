"""Which images come when: a function of the seed alone, so that a resumed run sees what the first would have seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import DataLoader

from rightreasons.core import Batch
from rightreasons.data.dataset import ImageDataset, whole


def stream_seed(*key: int) -> int:
    """A seed for the random numbers of one place in a run; other places get unrelated ones.

    Args:
        key: The run's seed and the place, such as epoch, step and process.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the CPU and of ``device`` (dropout draws from them)."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed asks every backend
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def epoch_order(
    images: int, batch_size: int, *, seed: int, epoch: int, drop_last: bool = False
) -> list[Int[Tensor, " batch"]]:
    """The batches of one epoch: a permutation from (seed, epoch), cut into pieces.

    Args:
        images: Number of images in the data set.
        batch_size: Images a batch, over all processes together.
        seed: The run's seed.
        epoch: Which epoch, from 0.
        drop_last: Leave out a last batch that is smaller, unless it is the only one.
    """
    generator = torch.Generator().manual_seed(stream_seed(seed, epoch))
    order = torch.randperm(images, generator=generator)
    batches = [order[start : start + batch_size] for start in range(0, images, batch_size)]
    if drop_last and len(batches) > 1 and len(batches[-1]) < batch_size:
        batches.pop()
    return batches


def share(rows: Int[Tensor, " batch"], process: int, processes: int) -> Int[Tensor, " share"]:
    """The part of a batch that is one process's, equal in size for all.

    A batch that does not divide evenly is filled up with its own first images: these count twice in it (more often
    where it has fewer images than there are processes), so the mean of the processes' gradients is not exactly the
    mean over the batch. Take a batch size that the number of processes divides, and ``drop_last``, to avoid this.
    """
    if processes == 1:
        return rows
    size = -(-len(rows) // processes) * processes
    return rows.repeat(-(-size // len(rows)))[:size][process::processes]


def fetch(data: ImageDataset, order: Sequence[Int[Tensor, " _"]], workers: int = 0) -> Iterable[Batch]:
    """The batches in this order: in this process, or by workers where reading an image is slow.

    Without workers the data set is asked directly, which spares a small network the loader's share of each step.
    """
    if workers == 0:
        return map(data.batch, order)
    return DataLoader(
        data,
        batch_sampler=[rows.tolist() for rows in order],
        collate_fn=whole,  # type: ignore[arg-type]
        num_workers=workers,
        # Its own generator: the loader would draw from the global one.
        generator=torch.Generator(),
    )
