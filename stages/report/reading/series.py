"""How a run used the machine over time: reads resources.csv, which may be anybody's."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError

from cache.errors import Refused
from cache.printable import printable
from stages.report.reading.about import Part
from stages.report.reading.runs import Count, Name, Run, Seconds

RESOURCES = "resources.csv"

_LIMIT = 32_000_000
"""Bytes; a larger file is not read."""
_LINES, _SAMPLES_A_SEED = 200_000, 1_000
_CELL = 500
"""Characters."""


class Sample(Part):
    """One moment of a seed.  None: not measured."""

    seed: Count
    seconds: Seconds
    """Since the seed's start."""
    phase: Name
    rss_bytes: Count | None = None
    cpu_seconds: Seconds | None = None
    """Since the seed's start, all threads."""
    gpu_utilisation_percent: Annotated[float, Field(ge=0, le=100)] | None = None
    gpu_memory_bytes: Count | None = None


def _in_order(samples: list[Sample]) -> list[Sample]:
    latest: dict[int, Sample] = {}
    for sample in samples:
        before = latest.get(sample.seed, sample)
        if sample.seconds < before.seconds:
            raise ValueError(f"seed {sample.seed}: seconds go back from {before.seconds:g}")
        if (sample.cpu_seconds or math.inf) < (before.cpu_seconds or 0):
            raise ValueError(f"seed {sample.seed}: CPU seconds go back at {sample.seconds:g} s")
        latest[sample.seed] = sample
    if samples and max(Counter(s.seed for s in samples).values()) > _SAMPLES_A_SEED:
        raise ValueError(f"a seed has more than {_SAMPLES_A_SEED} lines")
    return samples


def _without_empty(cells: object) -> object:
    return {k: v for k, v in cells.items() if v != ""} if isinstance(cells, dict) else cells


_SAMPLES = TypeAdapter(
    Annotated[list[Annotated[Sample, BeforeValidator(_without_empty)]], AfterValidator(_in_order)]
)


def read_series(path: Path) -> list[Sample]:
    """The samples in their order, of all seeds; times of a seed never go back.

    Raises:
        Refused: the file is not what train writes, with the first thing that is wrong.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    if path.stat().st_size > _LIMIT:
        raise _strange(path, f"it is larger than {_LIMIT} bytes")
    try:
        return _SAMPLES.validate_python(_rows(path.read_bytes().decode()))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        line, *rest = [*first["loc"], ""]
        where = f"line {int(line) + 2}, {rest[0]}: " if isinstance(line, int) else ""
        raise _strange(path, f"{where}{first['msg']}") from None
    except (ValueError, csv.Error) as error:
        raise _strange(path, str(error)) from None


def series_of(run: Run) -> list[Sample] | None:
    """Of the run's first seed; None: not recorded.

    Raises:
        Refused: as `read_series`.
    """
    first = run.runs[0].seed
    for folder in run.folders:
        try:
            samples = read_series(folder / RESOURCES)
        except OSError:
            continue
        mine = [sample for sample in samples if sample.seed == first]
        if mine:
            return mine
    return None


def _rows(text: str) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    known = set(Sample.model_fields)
    if reader.fieldnames is None or not {"seed", "seconds", "phase"} <= set(reader.fieldnames):
        raise ValueError("its first line must name seed, seconds, phase and what was measured")
    rows: list[dict[str, str]] = []
    for row in reader:
        if len(rows) == _LINES:
            raise ValueError(f"it has more than {_LINES} lines")
        cells = {name: cell for name, cell in row.items() if name in known and cell is not None}
        if any(len(cell) > _CELL for cell in cells.values()):
            raise ValueError(f"a cell has more than {_CELL} characters")
        rows.append(cells)
    return rows


def _strange(path: Path, why: str) -> Refused:
    return Refused(
        f"{path} is not what lgr-pipe train writes ({printable(why)[:300]}). Run train again, or "
        "delete this file: only what it used over time is then missing from the report."
    )
