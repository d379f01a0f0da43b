"""Files of runs that are read for what is replayed: latents of strangers, and whose faces are
shown."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cache.errors import Refused
from cache.reader import Cache
from stages.report.numbers import embed
from stages.report.reading.faces import of_people, real_crops
from stages.report.reading.replay_file import REPLAY, read_replay
from stages.report.reading.runs import Run
from stages.report.sections.replayed import section
from tests.made_runs import Made, write_run
from tests.making import make_cache
from tests.test_report_replayed import figures, flat, one, said, study

Edit = Callable[[dict[str, Any]], object]
ABOUT = {"format": "lgr-pipe replay", "seed": "0", "learnt": "3", "kind": "generated"}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here is about t-SNE, which takes a second."""
    monkeypatch.setattr(embed, "available", lambda: False)


# --- files of strangers ------------------------------------------------------------------


def _shape(name: str, *shape: int) -> Edit:
    return lambda arrays: arrays.update({name: np.zeros(shape, arrays[name].dtype)})


def _value(name: str, value: float) -> Edit:
    return lambda arrays: arrays[name].reshape(-1).__setitem__(0, value)


def _dtype(name: str, dtype: str) -> Edit:
    return lambda arrays: arrays.update({name: arrays[name].astype(dtype)})


STRANGE: dict[str, tuple[Edit, str]] = {
    "nan": (_value("points", np.nan), "no usable number"),
    "huge": (_value("points", 1e30), "no usable number"),
    "points": (_shape("points", 2001, 5), "2001 x 5"),
    "components": (_shape("points", 600, 51), "600 x 51"),
    "flat": (_shape("points", 600), "2 axes"),
    "dtype": (_dtype("points", "float64"), "F64"),
    "flag": (_value("generated", 2), "real from replayed"),
    "one kind": (_shape("generated", 600), "real from replayed"),
    "class": (_value("label", 8), "8 classes"),
    "negative": (_value("label", -1), "8 classes"),
    "short": (_shape("label", 3), "600 of"),
    "too much": (_value("explained", 2), "more than all"),
    "missing": (lambda arrays: arrays.pop("explained"), "no explained"),
    "more": (lambda arrays: arrays.update(weights=np.zeros(3)), "weights"),
    "wide": (_shape("images", 8, 32, 33, 3), "(8, 32, 33, 3)"),
    "many": (_shape("images", 25, 8, 8, 3), "(25, 8, 8, 3)"),
    "unlabelled": (lambda arrays: arrays.pop("image_labels"), "no image_labels"),
    "row": (_value("real_rows", -5), "rows of a cache"),
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_file_is_refused_and_the_rest_shown(tmp_path: Path, name: str) -> None:
    edit, why = STRANGE[name]
    run = one(tmp_path, Made("dgr", faces=True))
    path = run.folders[0] / REPLAY
    arrays = {key: array.copy() for key, array in load_file(path).items()}
    edit(arrays)
    save_file(arrays, path, metadata=ABOUT)
    with pytest.raises(Refused, match=re.escape(why)):
        read_replay(run)
    blocks = flat(section(study(tmp_path), ""))
    assert "The latents of dgr are not shown" in said(blocks, "warning")
    assert "replayed-variance" in figures(blocks)


@pytest.mark.parametrize(
    "change", [{"format": "other"}, {"learnt": "4000"}, {"learnt": "x"}, {"kind": "drawn"}]
)
def test_strange_metadata_are_refused(tmp_path: Path, change: dict[str, str]) -> None:
    run = one(tmp_path, Made("lgr"))
    path = run.folders[0] / REPLAY
    save_file(load_file(path), path, metadata=ABOUT | change)
    with pytest.raises(Refused, match="is not what lgr-pipe train writes"):
        read_replay(run)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x80\x04N.",
        (1 << 40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (60_000).to_bytes(8, "little") + b"[" * 60_000,
    ],
)
def test_bytes_that_are_no_safetensors_are_refused(tmp_path: Path, raw: bytes) -> None:
    run = one(tmp_path, Made("lgr"))
    (run.folders[0] / REPLAY).write_bytes(raw)
    with pytest.raises(Refused):
        read_replay(run)


def test_a_pipe_and_an_endless_file_are_not_read(tmp_path: Path) -> None:
    run = one(tmp_path, Made("lgr"))
    path = run.folders[0] / REPLAY
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Refused, match="no plain file"):
        read_replay(run)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(Refused, match="larger than"):
        read_replay(run)


def test_a_file_of_nothing_is_none(tmp_path: Path) -> None:
    run = one(tmp_path, Made("lgr"))
    nothing = {
        "points": np.empty((0, 0), np.float32),
        "generated": np.empty(0, np.uint8),
        "label": np.empty(0, np.int16),
        "explained": np.empty(0, np.float32),
    }
    about = {**ABOUT, "learnt": "0", "kind": "none"}
    save_file(nothing, run.folders[0] / REPLAY, metadata=about)
    assert read_replay(run) is None


# --- faces -------------------------------------------------------------------------------


def test_whose_faces_are_nobodys() -> None:
    nobodys = ("drawn", "mnist", "fashion-mnist", "cifar10", "cifar100")
    assert not any(of_people(name) for name in nobodys)
    assert all(of_people(name) for name in ("ckplus", "rafdb", "affectnet", "folder", "mine", ""))


@pytest.mark.parametrize(
    ("dataset", "asked", "shown"),
    [("drawn", False, True), ("rafdb", False, False), ("rafdb", True, True), ("x", False, False)],
)
def test_people_are_shown_only_when_asked(
    tmp_path: Path, dataset: str, asked: bool, shown: bool
) -> None:
    write_run(tmp_path / "dgr", Made("dgr", faces=True, changes={"dataset": dataset}))
    blocks = flat(section(study(tmp_path), "", show_faces=asked))
    assert ("replayed-faces-dgr" in figures(blocks)) == shown
    assert ("--show-faces" in said(blocks, "note")) == (not shown)


def faces_of(folder: Path, dataset: str = "drawn", **about: Any) -> Run:
    return one(folder, Made("dgr", faces=True, changes={"dataset": dataset}, about=about))


def test_real_crops_are_those_rows(tmp_path: Path, crops: Path) -> None:
    rows = np.array([40, 3])
    found = real_crops(faces_of(tmp_path, crops=str(crops)), rows, None)
    with Cache(crops) as cache:
        wanted = cache.bulk()[rows]
        names = [cache.manifest.classes[k] for k in cache.side("label")[rows]]
    assert (found.images == wanted).all()
    assert list(found.names) == names
    assert not found.proven


@pytest.mark.parametrize("same", [True, False])
def test_crops_are_compared_with_the_latents(tmp_path: Path, crops: Path, same: bool) -> None:
    """Where the run's own latent cache still is: by the fingerprint in its settings."""
    with Cache(crops) as cache:
        key = cache.manifest.fingerprint
    settings = {"kind": "latents", "crops": key if same else "blake2b:" + 40 * "0"}
    make_cache(tmp_path / "latents", "zarr", np.zeros((4, 3), np.float32), settings_=settings)
    with Cache(tmp_path / "latents") as cache:
        key = cache.manifest.fingerprint
    run = faces_of(tmp_path / "runs", cache=str(tmp_path / "latents"))
    run = run.model_copy(update={"cache_fingerprint": key})
    if same:
        assert real_crops(run, np.array([1]), crops).proven
    else:
        with pytest.raises(Refused, match="the run's latents were made of"):
            real_crops(run, np.array([1]), crops)


def test_crops_of_another_data_set_are_not_shown(tmp_path: Path, crops: Path) -> None:
    """A run that claims to be of digits does not get at the faces of a cache beside it."""
    run = faces_of(tmp_path, dataset="mnist", crops=str(crops))
    with pytest.raises(Refused, match="holds crops of drawn, the run is of mnist"):
        real_crops(run, np.array([1]), None)
    (figure,) = (f for n, f in figures(flat(section(study(tmp_path), ""))).items() if "faces" in n)
    assert "No real crops beside them" in figure.caption


@pytest.mark.parametrize("where", [None, "http://127.0.0.1:9/crops", "nowhere", "a\0b", "/dev"])
def test_places_that_hold_no_crops(tmp_path: Path, where: str | None) -> None:
    run = faces_of(tmp_path)
    assert run.about is not None
    run = run.model_copy(update={"about": run.about.model_copy(update={"crops": where})})
    with pytest.raises(Refused):
        real_crops(run, np.array([1]), None)


def test_rows_that_there_are_not(tmp_path: Path, crops: Path) -> None:
    with pytest.raises(Refused, match="rows that"):
        real_crops(faces_of(tmp_path), np.array([96]), crops)
