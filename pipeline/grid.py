"""The grid of a sweep: its points, and the settings that `train` would make of each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel, ConfigDict

from cache.errors import Refused
from cache.fingerprint import fingerprint
from cache.reader import Cache
from pipeline.caches.match import Said, said_by
from pipeline.params import Params, TrainParams, deciding, resolve, sections_of_cache, trace
from stages.report.sweep.points import Value

VALIDATION = 0.1
"""Share of the training rows that is held out where nobody says how many."""
_MOST_POINTS = 10_000
_NOT_IN_A_GRID = {
    "seeds": "seeds repeat a point: give --seeds 0-9",
    "validation": "accuracies of different rows cannot be compared: give --validation 0.1",
    "evaluate-on": "a sweep never looks at the test rows",
    "period": "it decides no figure",
    "resident": "it decides no figure but by the order of batches: give --resident disk",
    "resident-memory": "it decides no figure but by the order of batches",
}

Words = list[str]
"""Of a command line."""


class Settings(BaseModel):
    """All that decides a point's figures, as run.json and sweep.json have it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: str
    train: dict[str, Any]
    options: dict[str, Any]

    @property
    def key(self) -> str:
        return fingerprint(self.model_dump())

    def flat(self, *, options: bool = True) -> dict[str, Any]:
        """By the names that they have on the command line."""
        full = {"precision": "fp32"}  # which `deciding` does not tell
        both = {
            "strategy": self.strategy,
            **full,
            **self.train,
            **(self.options if options else {}),
        }
        return {name.replace("_", "-"): value for name, value in both.items()}


@dataclass(frozen=True)
class Planned:
    """A point that is to be there."""

    options: dict[str, Value]
    """The grid's options here."""
    settings: Settings
    words: Words
    """`train`'s options for it, without --out."""


def parse_grids(texts: Sequence[str]) -> dict[str, list[str]]:
    """
    >>> parse_grids(["generator-units=200,400", "--iters=500"])
    {'generator-units': ['200', '400'], 'iters': ['500']}

    Raises:
        Refused: no grid, no NAME=VALUES, an option or a value twice, or too many points.
    """
    grids: dict[str, list[str]] = {}
    for text in texts:
        name, equals, listed = text.partition("=")
        name = name.strip().removeprefix("--").replace("_", "-")
        values = [value.strip() for value in listed.split(",")]
        if not (equals and name and all(values)):
            raise Refused(f"--grid must look like iters=500,1000, got {text!r}.")
        if name in grids:
            raise Refused(f"--grid {name} is given twice: put all its values into one.")
        if len(values) != len(set(values)):
            raise Refused(f"--grid {name} has a value twice: {listed}.")
        grids[name] = values
    if not grids:
        raise Refused("A sweep needs a grid, for example --grid generator-units=200,400,800.")
    count = 1
    for values in grids.values():
        count *= len(values)
    if count > _MOST_POINTS:
        raise Refused(f"The grid has {count} points; at most {_MOST_POINTS} can be swept at once.")
    return grids


def plan(
    grids: dict[str, list[str]], words: Words, settings_of: Callable[[Words], Settings]
) -> list[Planned]:
    """All points, those of the last grid in turn first; each one's settings are checked.

    `words`: options of `train` that all points share.

    Raises:
        Refused: settings that cannot be used, or two points with the same.
    """
    for name in grids.keys() & _NOT_IN_A_GRID.keys():
        raise Refused(f"--grid {name}: {_NOT_IN_A_GRID[name]}.")
    points: dict[str, Planned] = {}
    for values in itertools.product(*grids.values()):
        given = [f"--{name}={value}" for name, value in zip(grids, values, strict=True)]
        settings = settings_of([*words, *given])
        flat = settings.flat()
        strange = [name for name in grids if name not in flat]
        if strange:
            raise Refused(f"--grid {strange[0]}: it is no setting of a run that can be varied.")
        if settings.key in points:
            raise Refused(f"Two points of the grid are the same: {' '.join(given)} is there twice.")
        options = {name: flat[name] for name in grids}
        points[settings.key] = Planned(options, settings, [*words, *given])
    return list(points.values())


class TrainReader:
    """What `train` would make of some words of its command line, by its own parser."""

    def __init__(self, context: typer.Context) -> None:
        """`context`: of another command of the same program."""
        group: Any = context.parent
        self._group = group
        self._command = group.command.get_command(group, "train")

    def options(self, words: Words) -> tuple[dict[str, Any], Words]:
        """`train`'s own options by name, None where not given, and what is left over.

        Words that it does not take end the program as they do in `train`.
        """
        with self._command.make_context("train", [*words, "--out="], self._group) as context:
            return context.params, context.args

    def params(self, words: Words) -> Params:
        """Raises Refused as `train` does."""
        given, _ = self.options(words)
        fields = {field: given[field] for field in TrainParams.model_fields}
        return resolve(path_of(given, "params"), {"train": fields}, given["preset"])

    def settings(self, words: Words) -> Settings:
        """Of a run.

        Raises:
            Refused: as `train` does.
        """
        from pipeline.cli_train import extra_options
        from pipeline.stage_two import read_options

        given, rest = self.options(words)
        params = self.params(words)
        own = {**params.options.get(given["strategy"], {}), **extra_options(rest)}
        return Settings(
            strategy=given["strategy"],
            train=deciding(params.train.model_dump(mode="json")),
            options=asdict(read_options(given["strategy"], own)),
        )

    def said(self, words: Words) -> Said:
        """What they say of the cache that is wanted."""
        given, _ = self.options(words)
        sections = sections_of_cache(given)
        return said_by(trace(path_of(given, "params"), sections, given["preset"]))

    def check_tasks(self, points: Sequence[Planned], cache: Cache) -> None:
        """That the cache has the rows for each point's tasks and for validation.

        Raises:
            Refused: as `train` does.
        """
        from pipeline.stage_two import scenario_of

        deciding = ("scenario", "tasks", "class_order", "uneven", "validation")
        kinds = {tuple(p.settings.train[name] for name in deciding): p for p in points}
        for point in kinds.values():
            scenario_of(cache, TrainParams.model_validate(point.settings.train))

    def evaluation(self, words: Words, validation: float | None) -> Words:
        """The words that keep all accuracies to validation rows.

        Raises:
            Refused: `words` ask for something else.
        """
        given, _ = self.options(words)
        if given["evaluate_on"] not in (None, "validation"):
            raise Refused(
                f"--evaluate-on {given['evaluate_on']}: a sweep is for choosing, and "
                "never looks at the test rows. Train the chosen point with train."
            )
        for name in ("resume", "show_config"):
            if given[name]:
                raise Refused(f"--{name.replace('_', '-')} is of no use in a sweep: leave it out.")
        if validation is None:
            validation = (
                resolve(path_of(given, "params"), {}, given["preset"]).train.validation
                or VALIDATION
            )
        return [f"--validation={validation}", "--evaluate-on=validation"]


def path_of(given: dict[str, Any], name: str) -> Path | None:
    """An option of `train` that names a place."""
    return None if given[name] is None else Path(given[name])
