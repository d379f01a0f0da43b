"""The way of a row's words, without its pixels: seconds and memory of each step, per row count.

Made-up rows: crops of one pixel and latents of one number, in units of as many rows as real ones
have.  What is left is what every row costs whatever it holds: its line, its record, its digests,
its place in the columns.  Each step runs in a process of its own, which has nothing in memory but
what was imported.

    make bench                                            10,000 and 100,000 rows
    LGR_PIPE_ROWS=1e6,1e7 pytest -m bench -s tests/bench/test_scale.py

10,000,000 rows take half an hour, 15 GB of disk and, for the list of images, 9 GB of memory.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

import cache.stores.zarr_store  # noqa: F401 - lest a step pays for it
from cache.care.verify import verify
from cache.digest import bytes_digest, row_digests
from cache.parts import Parts, Plan
from cache.reader import Cache
from cache.schema import Info, Kind
from pipeline.caches.info import about
from pipeline.extraction_plan import FINALIZE_MEMORY, LIST_MEMORY
from stages.datasets.sample import Sample, build
from stages.extract.crop import publish_crops, rows_digest
from stages.extract.latents import publish_latents
from tests.bench.children import Spent, spent

pytestmark = pytest.mark.bench
QUICK = os.environ.get("QUICK", "") not in ("", "0")
SIZES = [
    round(float(n))
    for n in os.environ.get("LGR_PIPE_ROWS", "1e4" if QUICK else "1e4,1e5").split(",")
]
CLASSES = tuple("abcdefgh")
UNIT_ROWS = 256
"""Of crops of 100 x 100 pixels, and so of their latents."""
_measured: list[tuple[str, int, Spent]] = []


def made_up(rows: int) -> Iterator[dict[str, Any]]:
    """A sample table with names of the usual length, a hundred images of each person."""
    for row in range(rows):
        person = row // 100
        yield {
            "row": row,
            "id": f"person-{person:07d}/image-{row:09d}.jpg",
            "label": CLASSES[row % 8],
            "subject": f"person-{person:07d}",
            "split": "test" if person % 4 == 0 else "train",
            "file": f"blake3:{blake3(row.to_bytes(8, 'little')).hexdigest()}",
        }


def _plan(kind: Kind, rows: int, settings: dict[str, Any]) -> Plan:
    return Plan(
        kind=kind,
        settings={"kind": kind, **settings},
        dtype="uint8" if kind == "crops" else "float16",
        row_shape=(1, 1, 3) if kind == "crops" else (1,),
        rows=rows,
        unit_rows=UNIT_ROWS,
        store="zarr",
        classes=CLASSES,
        info=Info(dataset="made-up", value_range=(0, 1) if kind == "latents" else None),
    )


class Work:
    """Two caches on their way, in a folder."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows = folder, rows
        self.crops, self.latents = folder / "crops", folder / "latents"

    def parts(self, kind: Kind) -> Parts:
        """As `start` has left them."""
        about = json.loads((self.folder / "settings.json").read_text())
        return Parts(self.folder / kind, _plan(kind, self.rows, about[kind]))

    def start(self) -> None:
        """The data set's digest, and its table into the scratch folder."""
        dataset = {"name": "made-up", "rows": self.rows, "classes": list(CLASSES)}
        dataset["digest"] = rows_digest(made_up(self.rows))
        crops = {"dataset": dataset, "crop": {}}
        latents = {"crops": _plan("crops", self.rows, crops).fingerprint, "root": {}}
        about = {"crops": crops, "latents": latents}
        (self.folder / "settings.json").write_text(json.dumps(about))
        self.parts("crops").start(made_up(self.rows))
        self.parts("latents").start()

    def units(self) -> None:
        """All units, without waiting for the disk: real ones take seconds each to make."""
        os.fsync = lambda _: None
        crops, latents = self.parts("crops"), self.parts("latents")
        for unit in crops.plan.units:
            rows = np.array(crops.plan.rows_of(unit), dtype="<u4")
            pixels = rows.view(np.uint8).reshape(-1, 4)[:, :3].reshape(-1, 1, 1, 3)
            n = len(rows)
            boxes = [[10, 20, 300 + k % 7, 310] for k in range(n)]
            note = {"status": [1] * n, "box": boxes, "reason": [""] * n}
            crops.write(unit, pixels, note)
            seen = bytes_digest(row_digests(pixels).tobytes())
            low_high = {"low": 0.0, "high": 1.0}
            values = (rows[:, None] % 1024 / 1024).astype(np.float16)
            latents.write(unit, values, {"device": "cpu", **low_high, "crops": seen})

    def list_images(self) -> None:
        """What each process knows that crops."""
        rows = made_up(self.rows)
        images = (
            Sample(r["id"], self.folder / r["id"], r["label"], r["subject"], r["split"])
            for r in rows
        )
        dataset = build("made-up", images, CLASSES)
        digests = tuple(r["file"] for r in made_up(self.rows))
        assert len(digests) == dataset.size

    def count_missing(self) -> None:
        assert not self.parts("crops").missing()

    def publish_crops(self) -> None:
        publish_crops(self.parts("crops"), store="zarr", overwrite=False, started=time.time())

    def publish_latents(self) -> None:
        with Cache(self.crops) as crops:
            parts = self.parts("latents")
            publish_latents(parts, crops, store="zarr", overwrite=False, started=time.time())

    def load(self) -> None:
        """As `train` does."""
        with Cache(self.latents) as cache:
            for name in ("label", "split", "subject", "row"):
                cache.side(name)
            assert len(cache.bulk()) == self.rows

    def read_table(self) -> None:
        with Cache(self.crops) as cache:
            assert sum(1 for _ in cache.lines()) == self.rows

    def info(self) -> None:
        assert about(self.latents)["rows"] == self.rows

    def verify(self) -> None:
        assert not verify(self.crops, lambda _: None).faults
        assert not verify(self.latents, lambda _: None).faults


STEPS: tuple[Callable[[Work], None], ...] = (
    Work.start,
    Work.units,
    Work.count_missing,
    Work.publish_crops,
    Work.publish_latents,
    Work.load,
    Work.read_table,
    Work.info,
    Work.verify,
    Work.list_images,
)


@pytest.fixture(scope="module", autouse=True)
def _table() -> Iterator[None]:
    yield
    print(f"\n{'step':16} {'rows':>11} {'seconds':>8} {'CPU s':>8} {'MB more':>8} {'bytes/row':>9}")
    for step, rows, s in _measured:
        print(
            f"{step:16} {rows:11,} {s.seconds:8.1f} {s.cpu:8.1f} {s.grown / 1e6:8.0f} "
            f"{s.grown / rows:9.1f}"
        )


@pytest.mark.parametrize("rows", SIZES)
def test_every_step_but_the_pixels(rows: int, tmp_path: Path) -> None:
    """Memory that grows with the rows: columns and names, never lines of a table or records."""
    work = Work(tmp_path, rows)
    for step in STEPS:
        found = spent(partial(step, work))
        _measured.append((step.__name__, rows, found))
        most = LIST_MEMORY if step is Work.list_images else FINALIZE_MEMORY
        assert found.grown < 50e6 + most * rows, step.__name__  # at few rows, what is there once
