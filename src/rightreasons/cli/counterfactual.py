"""Find what would have flipped a classifier."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rightreasons.cli.options import Channels, Data, DataFolder, Decoy, Device, Model, Out, Quiet, Resize, Seed, Weights

if TYPE_CHECKING:
    from rightreasons.reports import CounterfactualPage

EXAMPLES = """
**Examples**

rightreasons counterfactual runs/plain --misclassified --out flips

rightreasons counterfactual runs/plain --index 3 --index 17 --target any --method growing_spheres --queries 1000

rightreasons counterfactual runs/plain --image photo.png --image more/ --target cat --set norm=l1 --set tv=0.1

rightreasons counterfactual --model lenet --weights mine.pt --data mnist --method nearest_neighbor --images 20
"""

SHOWN = 20
"""Lines in the terminal."""


def counterfactual(
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run; or give --model and --weights.")] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="A picture of your own, or a folder of them; several times.")
    ] = None,
    index: Annotated[list[int] | None, typer.Option(help="Position of an image in the data; several times.")] = None,
    misclassified: Annotated[
        bool, typer.Option("--misclassified", help="Images that the model gets wrong; the target is their true class.")
    ] = False,
    images: Annotated[int, typer.Option(help="How many images are drawn at random, where none are named.")] = 8,
    target: Annotated[
        str,
        typer.Option(help="runner-up, true, any, or a class; unless given, true if --misclassified, else runner-up."),
    ] = "",
    method: Annotated[
        str,
        typer.Option(
            help="wachter, growing_spheres, cem, nearest_neighbor, prototype_guided, latent_search or amortized."
        ),
    ] = "wachter",
    set: Annotated[list[str] | None, typer.Option(help="Of the method: norm=l1 or cells=[2,4]; several times.")] = None,
    budget_seconds: Annotated[
        float | None, typer.Option(help="Time after which the search ends with the best found.")
    ] = None,
    queries: Annotated[int | None, typer.Option(help="Images that may run forward for each original.")] = None,
    data: Data = None,
    decoy: Decoy = None,
    resize: Resize = None,
    channels: Channels = None,
    model: Model = None,
    weights: Weights = None,
    out: Out = Path("counterfactual"),
    seed: Seed = 0,
    device: Device = "auto",
    data_folder: DataFolder = None,
    quiet: Quiet = False,
) -> None:
    """Find the smallest change of images that flips a classifier.

    Writes OUT/index.html with all of them, OUT/counterfactual.json with the numbers, and OUT/images/ with the pictures.
    """
    from rightreasons.cli import show
    from rightreasons.cli.pictures import picture_names, squashed
    from rightreasons.cli.settings import changed, data_config, one_process
    from rightreasons.counterfactuals import COUNTERFACTUALS
    from rightreasons.experiments import (
        CounterfactualSettings,
        ModelConfig,
        Question,
        Resources,
        counterfactuals,
        open_subject,
    )
    from rightreasons.experiments.counterfactual import needed_parts
    from rightreasons.experiments.making import check_settings
    from rightreasons.reports import write_counterfactuals

    one_process("counterfactual")
    _check_use(run, model or weights, images)
    limits = _given(max_seconds=budget_seconds, max_queries=queries)
    settings = CounterfactualSettings(
        method=method,
        target=target,
        settings=_settings(set or []) | limits,
        images=images,
        index=tuple(index or ()),
        pictures=picture_names(image or ()),
        misclassified=misclassified,
        seed=seed,
    )
    check_settings(COUNTERFACTUALS[method], settings.settings, f"{COUNTERFACTUALS.family} {method!r}")
    network = changed(ModelConfig(), name=model, weights=weights and str(weights))
    asked = data_config(data, decoy=decoy, resize=resize, channels=channels)
    resources = Resources(device, data_folder, show.progress(quiet))
    subject = open_subject(run, Question(asked, network, "", seed), resources)
    if needed_parts(COUNTERFACTUALS[method]):
        show.note(f"{method} needs networks that are trained on the training images, once; they are kept in the cache")
    squashed(image or (), subject.data.shape)
    page = write_counterfactuals(counterfactuals(subject, settings, out, resources), out, rerun=show.this_command())
    _tell(page, limited=bool(limits))
    show.written(out, "index.html", "counterfactual.json", "images/")


def _check_use(run: Path | None, network: str | Path | None, images: int) -> None:
    """Refuse two networks, and a draw of no image.

    Raises:
        ValueError: By option.
    """
    if run is not None and run.is_dir() and network:
        raise ValueError(f"{run} is a run and has its own network: leave out --model and --weights, or the run")
    if images < 1:
        raise ValueError(f"expected at least one image (--images), got {images}")


def _given(**limits: float | None) -> dict[str, float]:
    """The limits that the user has set."""
    return {name: value for name, value in limits.items() if value is not None}


def _settings(given: Sequence[str]) -> dict[str, Any]:
    """Values by name: TOML where it is, else text; a list becomes a tuple.

    Raises:
        ValueError: No ``name=value``.
    """
    found: dict[str, Any] = {}
    for text in given:
        name, equals, told = text.partition("=")
        if not (name.isidentifier() and equals and told):
            raise ValueError(f"expected --set name=value, got {text!r}")
        try:
            value = tomllib.loads(f"value = {told}")["value"]
        except tomllib.TOMLDecodeError:
            value = told
        found[name] = tuple(value) if isinstance(value, list) else value
    return found


def _tell(page: CounterfactualPage, *, limited: bool) -> None:
    """One line an image, then the result; ``limited``: the user set time or queries."""
    from rightreasons.cli import show

    rows = []
    for told in page.answers.record.results["images"][:SHOWN]:
        nearness = told["distances"]["l2"], told["distances"]["l0"]
        rows.append(
            (
                told["name"],
                told["predicted"],
                told["becomes"],
                "yes" if told["valid"] else "no",
                f"{nearness[0]:.2f}",
                f"{nearness[1]:,.0f}",
                f"{told['queries']:,}",
            )
        )
    show.table(("", "says", "becomes", "valid", "L2", "pixels", "queries"), rows)
    more = len(page.answers.asked.names) - len(rows)
    if more:
        show.note(f"and {more} more")
    show.say(page.verdict)
    missed = int((~page.answers.valid).sum())
    if missed:
        limit = "more time or queries" if limited else "another --method"
        show.warn(f"{missed} not valid: the best found is kept and shown as such; {limit} may reach them")
