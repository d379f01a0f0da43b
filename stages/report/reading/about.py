"""How a run was made: the form of its run.json, which may be anybody's.

Nothing in it decides a figure; it says on what, where and with which command.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cache.printable import printable

RUN = "run.json"


class Part(BaseModel):
    """Of a file; what is not known is not looked at."""

    model_config = ConfigDict(extra="ignore", frozen=True)


Text = Annotated[str, Field(max_length=500), AfterValidator(printable)]
Line = Annotated[str, Field(max_length=10_000), AfterValidator(printable)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Seconds = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
_Option = bool | int | float | Text | None


class Rows(Part):
    """Images of a class, or subjects."""

    train: _Count = 0
    test: _Count = 0
    validation: _Count = 0


class Images(Part):
    """What became of the images: a face was found; none, and the whole image or its middle was
    taken instead, or nothing; it could not be read."""

    found: _Count = 0
    whole: _Count = 0
    center: _Count = 0
    dropped: _Count = 0
    failed: _Count = 0


class DataAbout(Part):
    """What the cache says of its data set and root."""

    classes: Annotated[dict[Text, Rows], Field(max_length=10_000)] = Field(default_factory=dict)
    subjects: Rows | None = None
    images: Images | None = None
    face_crop: Text | None = None
    side: _Count | None = None
    """Pixels of a crop."""
    pretrained: bool | None = None
    trained_on: Text | None = None
    activation: Text | None = None


class StageOne(Part):
    """Seconds that making the caches took, as their provenance tells; None: not known."""

    crop_seconds: _Seconds | None = None
    extract_seconds: _Seconds | None = None
    rows: _Count | None = None
    crop_rows: _Count | None = None


class TrainAbout(Part):
    seeds: Text = ""
    early_stopping: _Count = 0
    period: _Seconds | None = None
    tasks: _Count | None = None
    iters: _Count | None = None


class About(Part):
    """run.json; older ones have less."""

    command: Line = ""
    strategy: Text = ""
    options: Annotated[dict[Text, _Option], Field(max_length=100)] = Field(default_factory=dict)
    train: TrainAbout = Field(default_factory=TrainAbout)
    seeds: Annotated[list[_Count], Field(max_length=100_000)] | None = None
    """Asked for."""
    started: Text | None = None
    cache: Line = ""
    crops: Line | None = None
    cache_bytes: _Count | None = None
    device: Text = ""
    gpu: Text | None = None
    threads: _Count | None = None
    seeds_at_once: _Count | None = None
    """At the most, of all processes that have worked on the run: seconds are of shared cores."""
    cores: _Count | None = None
    processor: Text | None = None
    memory_bytes: _Count | None = None
    platform: Text = ""
    versions: Annotated[dict[Text, Text], Field(max_length=100)] = Field(default_factory=dict)
    data: DataAbout | None = None
    stage_one: StageOne | None = None

    def machine(self) -> str:
        """What costs depend upon, in a line; empty where nothing is recorded."""
        parts = [self.processor or self.platform]
        if self.cores:
            parts.append(f"{self.cores} core{'s' * (self.cores > 1)}")
        if self.memory_bytes:
            parts.append(f"{self.memory_bytes / 1e9:.0f} GB of memory")
        if self.device and self.device != "cpu":
            parts.append(self.gpu or self.device)
        if self.seeds_at_once and self.seeds_at_once > 1:
            parts.append(f"{self.seeds_at_once} seeds at once")
        return ", ".join(part for part in parts if part)


def as_text(value: Any) -> str:
    """An option's value as it is typed."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
