"""From a configuration to the things it names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from torch import nn

from rightreasons.attribution import ATTRIBUTIONS
from rightreasons.attribution.from_data import settings_from
from rightreasons.core import (
    Attribution,
    BadModel,
    Catalogue,
    ExplanationLoss,
    MissingAnnotation,
    RightReasonsError,
)
from rightreasons.data import (
    DATASETS,
    DECOYS,
    Annotated,
    Augmentation,
    Degraded,
    ImageDataset,
    ImageFolder,
    OfClasses,
    Rescaled,
    WithMasks,
    decoy,
    drawn,
    load,
    read_annotations,
    split,
    split_as_held,
    with_annotations,
)
from rightreasons.data.dataset import Split
from rightreasons.experiments.config import (
    DataConfig,
    ModelConfig,
    RecipeConfig,
    RunConfig,
    TermConfig,
    TrainingConfig,
)
from rightreasons.experiments.features import TrunkSettings, with_features
from rightreasons.experiments.making import called
from rightreasons.models import MODELS, AdaptedClassifier, adapt, build
from rightreasons.models.checkpoints import load_weights
from rightreasons.supervision import LOSSES
from rightreasons.training import RECIPES, FitSettings, Objective, Recipe, Term, weight_of

T = TypeVar("T")
TITLES = {
    "ablation_cam": "Ablation-CAM",
    "cam": "CAM",
    "chefer_relevance": "Chefer relevance",
    "deconv_net": "DeconvNet",
    "deep_lift": "DeepLIFT",
    "deep_shap": "DeepSHAP",
    "deep_taylor": "Deep Taylor",
    "eigen_cam": "Eigen-CAM",
    "grad_cam": "Grad-CAM",
    "grad_cam_plus_plus": "Grad-CAM++",
    "gradient_shap": "GradientSHAP",
    "guided_backprop": "Guided backprop",
    "hi_res_cam": "HiRes-CAM",
    "input_x_gradient": "Input x gradient",
    "kernel_shap": "KernelSHAP",
    "layer_cam": "Layer-CAM",
    "lime": "LIME",
    "lrp": "LRP",
    "rise": "RISE",
    "score_cam": "Score-CAM",
    "smooth_grad": "SmoothGrad",
    "x_grad_cam": "XGrad-CAM",
}
FOLDER_TEST_SHARE = 0.2
CHECKED = 256


def check_names(config: RunConfig) -> None:
    """Refuse a name that does not exist before any data are fetched or folders made for it.

    Raises:
        ValueError: The message lists those that exist.
    """
    if ":" not in config.model.name and not config.model.name.endswith(".py"):
        MODELS[config.model.name]
    if config.data.decoy and config.data.decoy not in DECOYS:
        raise ValueError(f"no decoy named {config.data.decoy!r}. There are: {', '.join(DECOYS)}")
    for term in config.terms.values():
        LOSSES[term.loss]
        weight_of(term.weight)
        if term.attribution:
            ATTRIBUTIONS[term.attribution]
    build_recipe(config.recipe)
    if config.data.features:
        called(TrunkSettings, config.data.features, "features")
    if build_fit_settings(config.training, config.seed, config.data.pixels).watches and not config.data.validation:
        raise ValueError(
            "expected a share of the training images to validate on (data.validation), got 0: training.schedule "
            "'plateau' and training.patience follow from it"
        )


@dataclass(frozen=True)
class Splits:
    """The images of a run.

    Attributes:
        train: To train on, with masks.
        validation: Held out of the training images, decoys and all; ``None`` if no share was asked for.
        test: Never trained on or selected by.
    """

    train: ImageDataset
    validation: ImageDataset | None
    test: ImageDataset


def build_data(config: DataConfig, *, seed: int, folder: Path | None = None) -> Splits:
    """The images.

    Args:
        config: Which.
        seed: Of decoys, splits and annotations.
        folder: Where the user's own copy of a named data set lies.
    """
    sources = _sources(config, seed, folder)
    train, validation = _trained_on(sources["train"], config, seed)
    return Splits(train, validation, _tested_on(sources["test"], config, seed))


def build_test(config: DataConfig, *, seed: int, folder: Path | None = None) -> ImageDataset:
    """The images to test on alone.

    Args:
        config: Which.
        seed: Of decoys and splits.
        folder: Where the user's own copy of a named data set lies.
    """
    return _tested_on(_sources(config, seed, folder, parts=("test",))["test"], config, seed)


def _tested_on(source: ImageDataset, config: DataConfig, seed: int) -> ImageDataset:
    test = shown(source, config, "test", seed=seed)
    if config.test_images:
        test = drawn(test, config.test_images, seed)
    return _features(test, config)


def build_training(
    config: DataConfig, *, seed: int, folder: Path | None = None
) -> tuple[ImageDataset, ImageDataset | None]:
    """The images to train on and those held out of them: all that a choice may see. No test image is opened.

    Args:
        config: Which.
        seed: Of decoys, splits and annotations.
        folder: Where the user's own copy of a named data set lies.
    """
    return _trained_on(_sources(config, seed, folder, parts=("train",))["train"], config, seed)


def _trained_on(source: ImageDataset, config: DataConfig, seed: int) -> tuple[ImageDataset, ImageDataset | None]:
    """The training images with their decoys and masks, and those held out, whose masks stay as they are."""
    train, validation = shown(source, config, "train", seed=seed), None
    if config.validation:
        train, validation = split(train, config.validation, seed) if train.held is None else split_as_held(train)
    if config.images:
        train = drawn(train, config.images, seed)
    if config.annotated < 1:
        train = Annotated(train, share=config.annotated, seed=seed)
    if config.degrade:
        train = called(partial(Degraded, train), {"seed": seed, **config.degrade}, "degrade")
    if config.masks != "true":
        train = WithMasks(train, config.masks, seed=seed)
    return _features(train, config), None if validation is None else _features(validation, config)


def _features(data: ImageDataset, config: DataConfig) -> ImageDataset:
    """The features of a frozen network in the place of the images, if asked for."""
    if not config.features:
        return data
    return with_features(data, called(TrunkSettings, config.features, "features"))


def _sources(
    config: DataConfig, seed: int, folder: Path | None, *, parts: Sequence[Split] = ("train", "test")
) -> dict[Split, ImageDataset]:
    """The images as they are; of a folder the test part is listed in any case, as it may be a share of it."""
    if config.name in DATASETS:
        if config.test:
            raise ValueError(f"expected no test folder with {config.name}, which has its own test images")
        if config.annotations:
            raise ValueError(f"expected no annotations with {config.name}: they belong to the images of a folder")
        return {part: load(config.name, part, folder=folder) for part in parts}
    if not config.name or not Path(config.name).is_dir():
        raise ValueError(
            f"no data set and no folder of images is named {config.name!r}. "
            f"Data sets: {', '.join(DATASETS)}; a folder has one sub-folder a class"
        )
    root = Path(config.name)
    if not config.test and {"train", "test"} <= {entry.name for entry in root.iterdir() if entry.is_dir()}:
        raise ValueError(f"{root} holds train and test: name them as --data {root / 'train'} --test {root / 'test'}")
    if folder is not None:
        raise ValueError("expected no folder of data files with a folder of images")
    train = _folder(config.name, config)
    if config.test:
        own, held_out = _annotated([train, _folder(config.test, config, classes=train.classes)], config)
        return {"train": own, "test": held_out}
    (whole,) = _annotated([train], config)
    rest, held_out = split(whole, FOLDER_TEST_SHARE, seed)
    return {"train": rest, "test": held_out}


def open_folder(path: str, config: DataConfig, *, classes: tuple[str, ...] | None = None) -> ImageDataset:
    """The image folder of that path, with the annotations of the configuration."""
    (folder,) = _annotated([_folder(path, config, classes=classes)], config)
    return folder


def _folder(path: str, config: DataConfig, *, classes: tuple[str, ...] | None = None) -> ImageFolder:
    return ImageFolder(path, classes=classes, size=config.resize or None, channels=cast(Literal[1, 3], config.channels))


def _annotated(folders: Sequence[ImageFolder], config: DataConfig) -> Sequence[ImageDataset]:
    """The folders with the annotations of the configuration, each of which must fit an image of one of them."""
    if not config.annotations:
        return folders
    annotations = read_annotations(config.annotations)
    return [
        with_annotations(folder, annotations, others=[other for other in folders if other is not folder])
        for folder in folders
    ]


def shown(data: ImageDataset, config: DataConfig, part: Split, *, seed: int) -> ImageDataset:
    """The images of the classes that are kept with their decoy, in the range that the model takes."""
    if config.classes:
        data = OfClasses(data, config.classes)
    if config.decoy:
        data = decoy(
            data,
            config.decoy,
            split=part,
            # Training and test images must not share corners and greys.
            seed=2 * seed + (part == "test"),
            size=config.decoy_size,
            foreground=config.foreground,
        )
    return data if config.pixels == data.pixel_range else Rescaled(data, *config.pixels)


def build_model(config: ModelConfig, shape: tuple[int, int, int], classes: int, *, seed: int) -> AdaptedClassifier:
    """The network, its initial weights drawn from the seed or read from the file, adapted to the data."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _network(config, shape, classes)
    if config.weights:
        load_weights(network, config.weights)
    return adapt(network, config.layer or None, mean=config.mean, std=config.std)


def _network(config: ModelConfig, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The network; whatever the user's own code or settings raise is told as a model that cannot be made."""
    try:
        return build(config.name, shape, classes, settings=config.settings)
    except RightReasonsError:
        raise
    except Exception as error:
        if ":" not in config.name and not config.settings:
            raise
        raise BadModel(f"model {config.name} cannot be made: {type(error).__name__}: {error}") from error


def build_objective(terms: Mapping[str, TermConfig], data: ImageDataset) -> Objective:
    """Cross-entropy and the explanation losses."""
    return Objective({name: Term(build_loss(term, data), weight_of(term.weight)) for name, term in terms.items()})


def build_loss(config: TermConfig, data: ImageDataset) -> ExplanationLoss:
    """An explanation loss; what its explainer or its noise must know of the data is filled in."""
    settings = dict(config.settings)
    class_ = LOSSES[config.loss]
    known = {f.name for f in dataclasses.fields(class_)}  # type: ignore[arg-type]
    if config.attribution:
        if "attribution" not in known:
            raise ValueError(f"loss {config.loss!r} takes no attribution, got {config.attribution!r}")
        settings["attribution"] = build_attribution(config.attribution, data, config.attribution_settings)
    if {"low", "high"} <= known:
        settings = dict(zip(("low", "high"), data.pixel_range, strict=True)) | settings
    return make(LOSSES, config.loss, settings)


def build_attribution(name: str, data: ImageDataset, settings: Mapping[str, Any] | None = None) -> Attribution:
    """An attribution; references and the baseline come from the data unless they are set."""
    filled = settings_from(ATTRIBUTIONS[name], data) | dict(settings or {})
    return make(ATTRIBUTIONS, name, filled)


def build_recipe(config: RecipeConfig) -> Recipe | None:
    """The recipe of that name; ``None`` without a name.

    Raises:
        ValueError: No such recipe, settings that it does not have, or settings without a recipe.
    """
    if config.name:
        return make(RECIPES, config.name, config.settings)
    if config.settings:
        raise ValueError(f"expected the name of a recipe with its settings, got settings {dict(config.settings)} alone")
    return None


def title_of(attribution: Attribution) -> str:
    """Its name for a reader."""
    name = ATTRIBUTIONS.name_of(attribution)
    return TITLES.get(name, name.replace("_", " ").capitalize())


def make(catalogue: Catalogue[T], name: str, settings: Mapping[str, Any]) -> T:
    """An instance of the class of that name.

    Raises:
        ValueError: No such name, or a setting that it does not have.
    """
    return called(catalogue[name], settings, f"{catalogue.family} {name!r}")


def build_fit_settings(config: TrainingConfig, seed: int, pixels: tuple[float, float] = (0.0, 1.0)) -> FitSettings:
    """How to train, on pixels in this range."""
    values = dataclasses.asdict(config)
    moves = values.pop("augmentation")
    if "irrelevant" in moves:
        moves = dict(zip(("low", "high"), pixels, strict=True)) | moves
    move = called(Augmentation, moves, "augmentation") if moves else None
    return FitSettings(**values, seed=seed, augmentation=move)


def build_run(config: RunConfig, *, folder: Path | None = None) -> tuple[Splits, AdaptedClassifier, Objective]:
    """All three: images, model and objective."""
    splits = build_data(config.data, seed=config.data_seed, folder=folder)
    if config.uses_masks and config.data.masks == "true":
        _refuse_unmarked(splits.train)
    model = build_model(config.model, splits.train.shape, len(splits.train.classes), seed=config.seed)
    return splits, model, build_objective(config.terms, splits.train)


def _refuse_unmarked(data: ImageDataset) -> None:
    """Refuse masks that are all empty or all full, with which an explanation loss would teach nothing and say nothing.

    Raises:
        MissingAnnotation: There are masks, and none has a marked pixel, or all of a kind cover their whole images.
    """
    drawn: set[str] = set()
    in_part: set[str] = set()
    for start in range(0, len(data), CHECKED):
        batch = data.batch(torch.arange(start, min(start + CHECKED, len(data))))
        masks = {"relevant": batch.relevant, "irrelevant": batch.irrelevant}
        found = {kind: mask.flatten(1) > 0 for kind, mask in masks.items() if mask is not None}
        if not found:
            return
        drawn |= {kind for kind, marks in found.items() if bool(marks.any())}
        in_part |= {kind for kind, marks in found.items() if bool((marks.any(1) & ~marks.all(1)).any())}
        if drawn and drawn == in_part:
            return
    if not drawn:
        raise MissingAnnotation(
            f"every mask of {data.name} is empty: nobody has marked a pixel, so nothing can be learned"
        )
    kind = min(drawn - in_part)
    raise MissingAnnotation(
        f"every mask of {kind} pixels of {data.name} covers its whole image: nothing is left beside it, so nothing can "
        "be learned"
    )
