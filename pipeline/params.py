"""Settings: defaults, overridden by a preset, by params.yaml, and by the command line.

The models below are the only place where a default or a limit is written;
`--help` shows them from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from cache.errors import Refused
from pipeline import presets
from stages import strategies

Option = int | float | str | bool


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DatasetParams(_Section):
    name: str = "folder"
    """Data set; lgr-pipe datasets lists them"""
    root: Path | None = None
    """Folder that holds the data set"""
    split_seed: int | None = Field(default=None, ge=0)
    """Seed of a split that does not come with the data"""
    images: str | None = None
    """rafdb: original or aligned images"""
    max_per_class: int | None = Field(default=None, ge=0)
    """affectnet: at most so many training images a class (0: all)"""
    limit: int | None = Field(default=None, ge=1)
    """Take only so many images, of all classes and splits in turn: for a quick look"""
    watch: Path | None = None
    """For DVC: the file or folder whose change makes it crop again"""

    def options(self) -> dict[str, Any]:
        """The options of the data set that were given."""
        return self.model_dump(exclude={"name", "root", "limit", "watch"}, exclude_none=True)


class DrawParams(_Section):
    per_class: int = Field(default=120, ge=1, le=100_000)
    """Pictures of each of the eight expressions"""
    seed: int = Field(default=0, ge=0)
    """Other seeds draw other people"""


class CropParams(_Section):
    margin: float = Field(default=0.2, ge=0, le=4, allow_inf_nan=False)
    """Widen the face box by this share of its width and height"""
    size: int | None = Field(default=None, ge=8, le=1024)
    """Width and height of a crop in pixels"""
    upsample: int = Field(default=1, ge=0, le=3)
    """Where no face is found, double the image up to so many times and look again"""
    face_crop: Literal["dlib", "box", "off"] | None = None
    """dlib: find the face; box: take the one that the data set states; off: the whole image"""
    on_missing: Literal["whole", "center", "drop"] = "whole"
    """Where there is no face: the whole image, its middle square, or no latent at all"""
    smallest_face: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)
    """Faster: search first on a copy so reduced that a face of this share of the image's shorter
    side is found still (0.5: half of it), and at full size where that leaves a doubt; 0: always"""

    @field_validator("face_crop", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return "off" if value is False else value  # what YAML makes of a bare off


class PretrainParams(_Section):
    iters: int = Field(default=1000, ge=1)
    """Iterations"""
    batch_size: int = Field(default=32, ge=1)
    """Crops in a batch"""
    lr: float = Field(default=1e-3, gt=0, le=1)
    """Learning rate of Adam"""
    seed: int = Field(default=0, ge=0)
    """Seed"""


class ExtractParams(_Section):
    backbone: str = "vgg16"
    """The root: vgg16, alexnet, resnet18, mobilenet_v2, lenet, or any torchvision classifier
    with --layer; lgr-pipe backbones lists them"""
    layer: str | None = None
    """Where the latent is taken, in torchvision's names"""
    weights: str = "imagenet"
    """imagenet (torchvision's), one of its members by name (IMAGENET1K_V2), random (seeded and
    calibrated), or a FILE"""
    weights_seed: int = Field(default=0, ge=0)
    """Seed of random weights"""
    activation: Literal["sigmoid", "none"] = "sigmoid"
    """Applied to the root's output; generators need sigmoid"""
    normalize: Literal["none", "imagenet"] = "none"
    """imagenet: normalise the input as torchvision does (the paper's code does not)"""
    dtype: Literal["float32", "float16"] = "float32"
    """Type of the stored latents; float16 halves the cache"""


class TrainParams(_Section):
    scenario: Literal["task", "class", "domain"] = "task"
    """task: the task is known at test time; class: it is not, and all classes seen compete;
    domain: every task has the same outputs"""
    tasks: int = Field(default=4, ge=1)
    """How many tasks the classes are cut into"""
    class_order: str = "natural"
    """natural (the data set's), a seed, or groups such as anger,happiness;sadness,surprise"""
    uneven: bool = False
    """Accept tasks of unequal size"""
    iters: int = Field(default=2000, ge=1)
    """Iterations for each task"""
    batch_size: int = Field(default=128, ge=1)
    """Rows of the current task in a batch; replay adds as many"""
    lr: float = Field(default=1e-4, gt=0, allow_inf_nan=False)
    """Learning rate of Adam"""
    seeds: str = "0-2"
    """Seeds, as 0-2 or 0,3,7; each is one full run"""
    protocol: Literal["corrected", "released"] = "corrected"
    """corrected is right; released repeats what the LGR code does where that changes results:
    replayed rows of nr and lr on the first head, and its rule for their buffer"""
    validation: float = Field(default=0.0, ge=0, lt=1, allow_inf_nan=False)
    """Share of each class's training rows that is held out for choosing; never test rows"""
    evaluate_on: Literal["test", "validation"] = "test"
    """What the accuracies are of; validation needs --validation above 0"""
    early_stopping: int = Field(default=0, ge=0)
    """End a task after so many checks, one each 50 iterations, without a better accuracy on its
    validation rows (0: never); needs --validation above 0"""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Factors of matrix products; tf32 (on a GPU) and bf16 (on processors that have it) round
    them: faster where batches and networks are large, and figures are others"""
    period: float = Field(default=0.1, gt=0, le=60, allow_inf_nan=False)
    """Seconds between two samples of memory and GPU"""
    resident: Literal["auto", "ram", "gpu", "disk"] = "auto"
    """Where the latents are while they are learnt from; auto: on the GPU of --device cuda or in
    memory, if 80 % of what is free has room for them, else read from disk as they are needed"""
    resident_memory: int = Field(default=512, ge=1)
    """From disk: MB of latents in memory at a time; with it goes the order of batches"""

    @field_validator("class_order", mode="before")
    @classmethod
    def _order_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds_as_text(cls, value: Any) -> Any:
        text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if isinstance(text, str):
            parse_seeds(text)
        return text

    @model_validator(mode="after")
    def _validation_rows(self) -> Self:
        asks = {
            "evaluate_on: validation": self.evaluate_on == "validation",
            f"early_stopping: {self.early_stopping}": self.early_stopping > 0,
        }
        needing = [ask for ask, is_asked in asks.items() if is_asked]
        if needing and self.validation == 0:
            raise ValueError(
                f"{' and '.join(needing)} cannot be done without validation rows: set validation "
                "above 0, for example --validation 0.1"
            )
        return self


class Params(_Section):
    """The whole of params.yaml, but for `preset`."""

    dataset: DatasetParams = DatasetParams()
    draw: DrawParams = DrawParams()
    crop: CropParams = CropParams()
    pretrain: PretrainParams = PretrainParams()
    extract: ExtractParams = ExtractParams()
    store: Literal["zarr", "hdf5"] = "zarr"
    """How caches are stored: zarr (a folder) or hdf5 (one file)"""
    train: TrainParams = TrainParams()
    backbones: tuple[str, ...] = ()
    """What DVC extracts"""
    strategies: tuple[str, ...] = ()
    """What DVC trains on latents"""
    image_strategies: tuple[str, ...] = ()
    """What DVC trains on crops as well"""
    options: dict[str, dict[str, Option]] = Field(default_factory=dict)
    """Options of single strategies, by name"""

    @field_validator("backbones", "strategies", "image_strategies")
    @classmethod
    def _different_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value):
            raise ValueError("a name is empty")
        if len(set(value)) < len(value):
            raise ValueError("a name is there twice, and DVC makes a stage of each")
        return value

    @field_validator("strategies", "image_strategies", "options")
    @classmethod
    def _strategies_exist(cls, value: Any) -> Any:
        for name in value:
            if name not in strategies.names():
                raise ValueError(
                    f"there is no strategy {name!r}; there are {', '.join(strategies.names())}"
                )
        return value


_RESIDENT = ("resident", "resident_memory")


def deciding(train: Mapping[str, Any]) -> dict[str, Any]:
    """Of the settings of `train`, those that decide a figure.  Where latents are decides none, but
    that batches from disk come in an order of their own.  Full precision is not told: runs of
    before there was a choice have none."""
    free = {"period"} if train.get("resident") == "disk" else {"period", *_RESIDENT}
    if train.get("precision") == "fp32":
        free |= {"precision"}
    return {name: value for name, value in train.items() if name not in free}


def sections_of_cache(given: Mapping[str, Any]) -> dict[str, Any]:
    """The sections for those of `train`'s options that say which cache it is to be."""
    root = {name: given[name] for name in ("backbone", "weights")}
    return {"dataset": {"name": given["dataset"]}, "extract": root}


def parse_seeds(text: str) -> list[int]:
    """
    >>> parse_seeds("0-2")
    [0, 1, 2]
    >>> parse_seeds("7,3")
    [7, 3]

    Raises:
        ValueError: not seeds, none, or one twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"seeds must look like 0-2 or 0,3,7, got {text!r}")
        span = range(int(first), int(last or first) + 1)
        if not 1 <= len(span) <= 10_000:
            raise ValueError(f"seeds must rise from the first to the last, got {part.strip()!r}")
        seeds += span
    if len(seeds) != len(set(seeds)):
        raise ValueError(f"seeds must be different, got {text!r}")
    return seeds


Sources = dict[tuple[Any, ...], str]
"""(section, field) or ("options", strategy, option) -> what gave the value; no defaults."""

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Resolved:
    """Settings, and what gave each."""

    params: Params
    sources: Sources
    preset: tuple[str, str] | None = None
    """Name and source of the preset, where there was one."""


def resolve(path: Path | None, overrides: dict[str, Any], preset: str | None = None) -> Params:
    """The settings alone; see `trace`."""
    return trace(path, overrides, preset).params


def trace(path: Path | None, overrides: dict[str, Any], preset: str | None = None) -> Resolved:
    """Defaults, then the preset (this one, or else the file's `preset:`), then the file, then
    what the command line gave (None: not given).

    Raises:
        Refused: no such file or preset, or mistakes in the file or on the command line, all
            named at once.
    """
    loaded = _load(path) if path is not None else {}
    named = loaded.pop("preset", None)
    name = _preset(named, path) if preset is None else preset
    chosen = presets.load(name) if name is not None else None
    merged: dict[str, Any] = {}
    sources: Sources = {}
    if chosen is not None:
        _lay(merged, chosen.settings, f"preset {name}", sources)
    _lay(merged, loaded, _shown(path), sources)
    _lay(merged, _given(overrides), COMMAND_LINE, sources)
    try:
        params = Params.model_validate(merged)
    except ValidationError as error:
        lines = "\n  ".join(_sentence(mistake) for mistake in error.errors())
        source = f"{path} or the command line" if path is not None else "the command line"
        raise Refused(f"Settings that cannot be used, from {source}:\n  {lines}") from None
    return Resolved(params, sources, (name, chosen.source) if name and chosen else None)


def _load(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a day 2024-99-99
        raise Refused(f"{path} is no YAML: {error}") from None
    if not isinstance(loaded, dict):
        raise Refused(f"{path} must hold sections such as dataset: and train:.")
    return loaded


def _preset(named: Any, path: Path | None) -> str | None:
    if named is not None and named not in presets.names():
        raise Refused(f"{path}: preset must be one of {', '.join(presets.names())}, got {named!r}.")
    return None if named is None else str(named)


def _given(overrides: dict[str, Any]) -> dict[str, Any]:
    """What is not None; sections of which nothing was given are left out."""
    given = {}
    for section, value in overrides.items():
        if isinstance(value, dict):
            value = {key: one for key, one in value.items() if one is not None} or None
        if value is not None:
            given[section] = value
    return given


def _lay(
    under: dict[str, Any],
    over: dict[Any, Any],
    source: str,
    sources: Sources,
    path: tuple[Any, ...] = (),
) -> None:
    """Lay values over others in place: sections, and options of a strategy, are joined.

    A section in which nothing stands takes nothing away.
    """
    for key, value in over.items():
        here = (*path, key)
        if isinstance(value, dict) and len(here) < 3:
            below = under.get(key)
            under[key] = below = below if isinstance(below, dict) else {}
            _lay(below, value, source, sources, here)
        elif value is not None or path:
            under[key] = value
            sources[here] = source


def _shown(path: Path | None) -> str:
    """A file's name, on one line whatever it is."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def _sentence(mistake: Any) -> str:
    where = ".".join(str(part) for part in mistake["loc"])
    message = mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] == "extra_forbidden":
        return f"{where}: there is no such setting"
    if isinstance(mistake["input"], dict) and mistake["type"] == "value_error":
        return f"{where}: {message}"  # of several settings together
    return f"{where}: {message} (got {mistake['input']!r})"
