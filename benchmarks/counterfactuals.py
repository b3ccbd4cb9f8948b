"""What a counterfactual costs: in batches, one image at a time, and beside the passes that it cannot do without.

    python benchmarks/counterfactuals.py --images 64 --rounds 7 --threads 1 --out counterfactuals.json

The baseline CNN (225,610 parameters) and the networks that some methods need are trained here, for a moment, on
scikit-learn's digits at 28x28; the images asked about were held out, the target is the runner-up. Every round takes
each method in one batch, and at once after it the same method one image at a time, on the first ``--singles`` of them;
what is printed is the median over the rounds. See benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
import workloads
from measure import processor, timed
from torch import Tensor, nn

from rightreasons.attribution.forward import channels_last
from rightreasons.attribution.from_data import labeled_references, search_settings
from rightreasons.core import Counterfactual
from rightreasons.counterfactuals import COUNTERFACTUALS, runner_up
from rightreasons.data.arrays import ArrayDataset
from rightreasons.experiments.parts import Keep, learnt_parts
from rightreasons.models import AdaptedClassifier, adapt, build

HELD_OUT = 297
AT_MOST = {"prototype_guided": 100.0, "amortized": 2.0}
"""Milliseconds an image, in batches, that were asked."""

PASSES_AT_MOST = 1.3
ALIBI = {
    "seconds": (6.44, 9.27),
    "source": "alibi's documentation of its prototypes (TensorFlow) on MNIST, SeldonIO/alibi 2b9f2060, "
    "docs-gb/source/examples/cfproto_mnist.md: an image at a time, without and with an autoencoder, on a machine and "
    "a network of its own",
}


@dataclass(frozen=True)
class Row:
    """A method: CPU milliseconds an image, their ratio with its quartiles, and wall milliseconds of the batch."""

    method: str
    batch: float
    single: float
    ratio: float
    low: float
    high: float
    wall: float
    valid: float
    queries: float
    at_most: float | None

    def line(self) -> str:
        quartiles = f"{self.low:.1f}-{self.high:.1f}"
        asked = "" if self.at_most is None else f"{self.at_most:g} ms {_judged(self.batch, self.at_most)}"
        return (
            f"{self.method:18}{self.batch:10.2f}{self.single:12.2f}{self.ratio:8.1f}  {quartiles:14}{self.wall:9.2f}"
            f"{self.valid:8.2f}{self.queries:9.0f}  {asked}".rstrip()
        )


HEAD = (
    f"{'ms an image (CPU)':18}{'batch':>10}{'one by one':>12}{'ratio':>8}  {'quartiles':14}{'wall':>9}"
    f"{'valid':>8}{'queries':>9}  asked"
)


@dataclass(frozen=True)
class Passes:
    """The gradient solver over the pure cost of the passes of its very batches, and how many rows they had.

    ``ratio`` counts in passes in the memory layout that the library runs them in, which is the faster one, ``usual`` in
    passes in torch's usual layout.
    """

    ratio: float
    low: float
    high: float
    usual: float
    forward: int
    backward: int
    at_most: float = PASSES_AT_MOST

    def line(self) -> str:
        return (
            f"wachter over its {self.forward:,} rows forward, {self.backward:,} of them back: {self.ratio:.3f} "
            f"({self.low:.3f}-{self.high:.3f}), {self.usual:.3f} in torch's usual layout; {self.at_most:g} "
            f"{_judged(self.ratio, self.at_most)}"
        )


def _judged(found: float, asked: float) -> str:
    return "met" if found <= asked else "NOT MET"


@dataclass(frozen=True, eq=False)
class Work:
    """The network, its training images, and what is asked."""

    model: AdaptedClassifier
    training: ArrayDataset
    inputs: Tensor
    target: Tensor

    def method(self, name: str, folder: Path, steps: int) -> Counterfactual:
        class_ = COUNTERFACTUALS[name]
        filled = search_settings(class_, self.training, labeled_references(self.training))
        return class_(**filled, **learnt_parts(class_, self.model, self.training, Keep(folder, steps)))


def work(images: int, epochs: int) -> Work:
    """A trained network and so many images that it has not seen."""
    pictures, target = workloads.digits()
    cut = max(len(pictures) - HELD_OUT, len(pictures) // 2)
    training = ArrayDataset((255 * pictures[:cut]).byte(), target[:cut], classes=tuple("0123456789"), name="digits")
    network = trained(training, epochs)
    model, inputs = adapt(network), pictures[cut:][:images]
    return Work(model, training, inputs, runner_up(model, inputs))


def trained(data: ArrayDataset, epochs: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build("baseline_cnn", data.shape, len(data.classes))
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(data)), 64):
                batch = data.batch(rows)
                optimizer.zero_grad()
                torch.autograd.backward(F.cross_entropy(network(batch.inputs), batch.target))
                optimizer.step()
        optimizer.zero_grad()
    return network.eval()


def measured(work: Work, name: str, method: Counterfactual, asked: argparse.Namespace) -> Row:
    """Rounds of the batch and of the same method one image at a time."""
    whole = partial(method, work.model, work.inputs, work.target)
    singles = min(asked.singles, len(work.inputs))

    def one_by_one() -> None:
        for row in range(singles):
            method(work.model, work.inputs[row : row + 1], work.target[row : row + 1])

    found = whole()  # Warms up as well.
    rounds = [(timed(whole), timed(one_by_one)) for _ in range(asked.rounds)]
    each, single = 1000 / len(work.inputs), 1000 / singles
    pairs = [(each * batch[0], single * alone[0], each * batch[1]) for batch, alone in rounds]
    low, ratio, high = _quartiles([alone / batch for batch, alone, _ in pairs])
    batch, alone, wall = (statistics.median(column) for column in zip(*pairs, strict=True))
    told = float(found.valid.double().mean()), float(found.queries.double().mean())
    return Row(name, batch, alone, ratio, low, high, wall, *told, AT_MOST.get(name))


def beside_passes(work: Work, method: Counterfactual, rounds: int) -> Passes:
    """Rounds of the network's own passes, in batches of the same sizes, and of the method."""
    whole = partial(method, work.model, work.inputs, work.target)
    with recorded(work.model.network) as sizes:
        whole()
    fast, usual = replay(work, sizes, channels_last), replay(work, sizes, torch.Tensor.contiguous)
    fast(), usual()  # Warms up as well.
    # The method stands between the two.
    taken = [(timed(fast)[0], timed(whole)[0], timed(usual)[0]) for _ in range(rounds)]
    low, ratio, high = _quartiles([whole / fast for fast, whole, _ in taken])
    forward, backward = sum(rows for rows, _ in sizes), sum(rows for rows, back in sizes if back)
    over_usual = statistics.median(whole / usual for _, whole, usual in taken)
    return Passes(ratio, low, high, over_usual, forward, backward)


@contextmanager
def recorded(network: nn.Module) -> Iterator[list[tuple[int, bool]]]:
    """The batches that run through the network meanwhile: how many rows, and whether a way back was kept."""
    sizes: list[tuple[int, bool]] = []

    def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        sizes.append((len(given[0]), torch.is_grad_enabled() and given[0].requires_grad))

    handle = network.register_forward_pre_hook(note)
    try:
        yield sizes
    finally:
        handle.remove()


def replay(work: Work, sizes: Sequence[tuple[int, bool]], layout: Callable[[Tensor], Tensor]) -> Callable[[], None]:
    """Only the passes: each batch forward, and back to the images where this was done."""
    network = work.model.network
    filled = {rows: layout(work.inputs[torch.arange(rows) % len(work.inputs)]) for rows, _ in sizes}
    wanted = {rows: work.target[torch.arange(rows) % len(work.target), None] for rows, _ in sizes}

    def run() -> None:
        for rows, back in sizes:
            if back:
                leaf = filled[rows].detach().requires_grad_()
                torch.autograd.grad(network(leaf).gather(1, wanted[rows]).sum(), leaf)
            else:
                with torch.no_grad():
                    network(filled[rows])

    return run


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(list(values) * (2 if len(values) == 1 else 1), n=4, method="inclusive")
    return low, middle, high


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="asked about in one batch")
    parser.add_argument("--singles", type=int, default=8, help="of them, one at a time")
    parser.add_argument("--rounds", type=int, default=7, help="measured pairs a method")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--epochs", type=int, default=3, help="of the classifier")
    parser.add_argument("--steps", type=int, default=200, help="of training at least, of each network of a method")
    parser.add_argument("--only", nargs="+", default=list(COUNTERFACTUALS), metavar="METHOD", choices=COUNTERFACTUALS)
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    asked = parser.parse_args(given)
    for name in ("images", "singles", "rounds"):
        if getattr(asked, name) < 1:
            parser.error(f"expected --{name} of at least 1, got {getattr(asked, name)}")
    return asked


def main(given: Sequence[str] | None = None) -> dict[str, object]:
    """Measure, print, and write what was printed."""
    asked = arguments(given)
    torch.set_num_threads(asked.threads)
    names = ("images", "singles", "rounds", "threads", "epochs", "steps")
    setting = {"cpu": processor(), "torch": torch.__version__, "network": "baseline_cnn, digits at 28x28"}
    setting |= {name: getattr(asked, name) for name in names}
    print(", ".join(f"{name} {value}" for name, value in setting.items()))
    ours, rows, passes = work(asked.images, asked.epochs), [], None
    print(HEAD)
    with TemporaryDirectory() as folder:
        for name in asked.only:
            method = ours.method(name, Path(folder), asked.steps)
            rows.append(measured(ours, name, method, asked))
            print(rows[-1].line(), flush=True)
            if name == "wachter":
                passes = beside_passes(ours, method, asked.rounds)
    if passes:
        print(passes.line())
    low, high = ALIBI["seconds"]
    print(f"published, prototype-guided: {1000 * low:,.0f} to {1000 * high:,.0f} ms an image; {ALIBI['source']}")
    told = {"setting": setting, "rows": [asdict(row) for row in rows], "passes": passes and asdict(passes)}
    told["published"] = {"prototype_guided": ALIBI}
    if asked.out:
        asked.out.write_text(json.dumps(told, indent=2) + "\n")
    return told


if __name__ == "__main__":
    main()
