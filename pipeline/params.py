"""Settings: defaults, overridden by params.yaml, overridden by the command line.

The models below are the only place where a default or a limit is written;
`--help` shows them from here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cache.errors import Refused
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

    @field_validator("face_crop", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return "off" if value is False else value  # what YAML makes of a bare off


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


class Params(_Section):
    """The whole of params.yaml."""

    dataset: DatasetParams = DatasetParams()
    draw: DrawParams = DrawParams()
    crop: CropParams = CropParams()
    extract: ExtractParams = ExtractParams()
    store: Literal["zarr", "hdf5"] = "zarr"
    """How caches are stored: zarr (a folder) or hdf5 (one file)"""
    train: TrainParams = TrainParams()
    strategies: tuple[str, ...] = ()
    """What DVC trains"""
    options: dict[str, dict[str, Option]] = Field(default_factory=dict)
    """Options of single strategies, by name"""

    @field_validator("strategies", "options")
    @classmethod
    def _strategies_exist(cls, value: Any) -> Any:
        for name in value:
            if name not in strategies.names():
                raise ValueError(
                    f"there is no strategy {name!r}; there are {', '.join(strategies.names())}"
                )
        return value


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


def resolve(path: Path | None, overrides: dict[str, Any]) -> Params:
    """Defaults, then the file, then what the command line gave (None: not given).

    Raises:
        Refused: no such file, or mistakes in it or on the command line, all named at once.
    """
    merged = _load(path) if path is not None else {}
    for section, values in overrides.items():
        if isinstance(values, dict):
            given = {key: value for key, value in values.items() if value is not None}
            under = merged.get(section)
            merged[section] = {**(under if isinstance(under, dict) else {}), **given}
        elif values is not None:
            merged[section] = values
    try:
        return Params.model_validate(merged)
    except ValidationError as error:
        lines = "\n  ".join(_sentence(mistake) for mistake in error.errors())
        source = f"{path} or the command line" if path is not None else "the command line"
        raise Refused(f"Settings that cannot be used, from {source}:\n  {lines}") from None


def _load(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"{path} is no YAML: {error}") from None
    if not isinstance(loaded, dict):
        raise Refused(f"{path} must hold sections such as dataset: and train:.")
    return loaded


def _sentence(mistake: Any) -> str:
    where = ".".join(str(part) for part in mistake["loc"])
    message = mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] == "extra_forbidden":
        return f"{where}: there is no such setting"
    return f"{where}: {message} (got {mistake['input']!r})"
