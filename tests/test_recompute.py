"""Rows made again: verify --recompute tells a wrong cache, repair needs them to the last bit."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from cache.digest import column_digest, row_digests
from cache.fingerprint import fingerprint
from cache.listing import read_provenance, without_list, write_provenance
from cache.reader import Cache
from cache.schema import SAMPLES
from pipeline.caches.recheck import allowed, chosen
from pipeline.caches.recompute import LatentsAgain
from stages.datasets import read
from stages.datasets.sample import limited
from stages.extract.backbones import choose
from stages.extract.random_weights import random_network
from tests.command import Run
from tests.making import make_crops, make_latents
from tests.replicas import make_mnist
from tests.test_cache_repair import bytes_of, flip, whole
from tests.test_cache_verify import relist, reseal


@dataclass(frozen=True)
class Small:
    """Tiny crops and latents that are quickly made again: a LeNet with weights from a file."""

    images: Path
    crops: Path
    latents: Path
    weights: Path
    other_weights: Path

    @property
    def source(self) -> tuple[object, ...]:
        """Of the latents."""
        return "--crops", self.crops, "--weights", self.weights


@pytest.fixture
def small(folder: Path, tmp_path: Path) -> Small:
    """Six images and one that cannot be decoded, three a shard; seven crops, six latents."""
    (folder / "calm" / "broken.png").write_bytes(b"not an image")
    names = ("crops", "latents", "a.safetensors", "b.safetensors")
    found = Small(folder, *(tmp_path / name for name in names))
    for seed, file in enumerate((found.weights, found.other_weights)):
        save_file(random_network(choose("lenet", None), seed).state_dict(), file)
    make_crops(found.crops, ("folder", folder), store="hdf5", unit_rows=3, size=32)
    make_latents(found.latents, found.crops, "lenet", str(found.weights), store="hdf5")
    return found


def _json(done: subprocess.CompletedProcess[str], code: int) -> dict[str, Any]:
    assert done.returncode == code, done.stdout + done.stderr
    found = json.loads(done.stdout)
    first: dict[str, Any] = found[0] if isinstance(found, list) else found
    return first


def _refused(done: subprocess.CompletedProcess[str], says: str) -> None:
    flat = " ".join(done.stderr.split())
    assert done.returncode == 2, done.stdout + flat
    assert says in flat
    assert "Traceback" not in flat


def lie(path: Path, row: int, change: Callable[[np.ndarray], object]) -> None:
    """As somebody whose crop or root was another wrote it: all digests are in order."""
    with h5py.File(path / "data.h5", "r+") as file:
        (bulk,) = file.keys() & {"crops", "latents"}
        rows = file[bulk][:]
        change(rows[row])
        file[bulk][:], file["digest"][:] = rows, row_digests(rows)
    digest = column_digest(row_digests(rows))

    def change_digests(said: dict[str, Any]) -> None:
        said["columns"]["digest"]["digest"] = said["columns"][bulk]["digest"] = digest

    reseal(path, change_digests)
    relist(path)


# the same bits


def test_any_latents_again_are_the_same_bits(crops: Path, latents: Path, small: Small) -> None:
    """In the groups of the first time, whatever is asked for; where rows have no latent, too."""
    for of, made, weights, spans in (
        (crops, latents, None, [(0, 96), (5, 6), (30, 70), (63, 65), (95, 96)]),
        (small.crops, small.latents, str(small.weights), [(0, 6), (1, 4), (5, 6)]),
    ):
        with Cache(made) as cache, LatentsAgain(made, cache.manifest, of, weights) as again:
            for start, stop in spans:
                rows = again.rows(start, stop, Path())
                assert rows.tobytes() == cache.bulk_rows(start, stop).tobytes(), (start, stop)
            for name in ("label", "split", "subject", "row"):
                assert np.array_equal(again.side(name, Path()), cache.side(name))
            assert list(again.table()) == cache.samples()


def test_what_is_rounding() -> None:
    """By hand: 1e-5, of 50 as much of its size; half precision steps by 2**-11 below 1."""
    stored = np.array([[0.5, 50.0, -50.0]], dtype=np.float32)
    assert allowed(stored, None) == pytest.approx(np.array([[1e-5, 5e-4, 5e-4]]), rel=1e-9)
    deviation = np.array([0.1, 10.0, 1e-9])
    assert allowed(stored, deviation) == pytest.approx(np.array([[1e-4, 5e-4, 0.01]]), rel=1e-9)
    half = np.array([[0.75]], dtype=np.float16)
    assert allowed(half, None) == pytest.approx(np.array([[1e-5 + 2**-12]]), rel=1e-9)


def test_rows_are_chosen_once_each() -> None:
    assert chosen(5, 9, 0).tolist() == [0, 1, 2, 3, 4]
    some = [tuple(chosen(1000, 5, seed).tolist()) for seed in range(20)]
    assert all(len(set(rows)) == 5 and list(rows) == sorted(rows) for rows in some)
    assert len(set(some)) == 20
    assert chosen(1000, 5, 3).tolist() == chosen(1000, 5, 3).tolist()


# verify --recompute


def test_a_right_cache_is_confirmed(
    here: Run, drawn: Path, crops: Path, latents: Path, small: Small, tmp_path: Path
) -> None:
    make_latents(
        tmp_path / "half", small.crops, "lenet", "random", dtype="float16", activation="none"
    )
    mnist = make_mnist(tmp_path / "mnist")
    make_crops(tmp_path / "digits", ("mnist", mnist), face_crop="off", size=32)
    for path, count, given in (
        (tmp_path / "digits", 9, ("--root", mnist)),
        (latents, 7, ("--crops", crops)),
        (latents, 96, ("--crops", crops)),
        (crops, 5, ("--root", drawn)),
        (small.crops, 7, ("--root", small.images)),
        (small.latents, 6, small.source),
        (tmp_path / "half", 6, ("--crops", small.crops)),
    ):
        said = _json(here("cache", "verify", path, "--recompute", count, *given, "--json"), 0)
        found = said["recomputed"]
        assert (said["ok"], found["differing"], len(found["rows"])) == (True, [], count)
        assert found["largest"] <= (0.004 if path.name == "half" else 1e-4)
    text = here("cache", "verify", small.crops, "--recompute", 2, "--root", small.images).stdout
    assert "Made again: 2 rows chosen by seed" in text
    assert "2 agree, largest difference 0." in text
    assert _json(here("cache", "verify", latents, "--json"), 0)["recomputed"] is None


def test_a_wrong_latent_is_found(here: Run, small: Small) -> None:
    def off(row: np.ndarray) -> None:
        row[3] += 3e-5 if row[3] < 0.5 else -3e-5

    lie(small.latents, 4, off)
    assert _json(here("cache", "verify", small.latents, "--json"), 0)["ok"]
    words = ("cache", "verify", small.latents, "--recompute", 6, *small.source)
    said = _json(here(*words, "--json"), 1)
    (fault,) = said["faults"]
    assert (fault["where"], fault["rows"]) == ("column latents", [[4, 4]])
    assert said["recomputed"]["differing"] == [4]
    assert said["recomputed"]["largest"] == pytest.approx(3e-5, rel=0.1)
    assert "is not what lenet with its weights gives for these crops" in here(*words).stdout


@pytest.mark.parametrize("what", ["weights", "activation"])
def test_a_wrong_root_is_found(here: Run, small: Small, what: str) -> None:
    """Latents of one root in a cache that says that another made them."""
    weights = small.other_weights if what == "weights" else small.weights

    def other_root(said: dict[str, Any]) -> None:
        root = said["settings"]["root"]
        if what == "weights":
            root["weights"]["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
        else:
            root["activation"] = "none"
        said["fingerprint"] = fingerprint(said["settings"])

    reseal(small.latents, other_root)
    assert _json(here("cache", "verify", small.latents, "--json"), 0)["ok"]
    given = ("--crops", small.crops, "--weights", weights)
    words = ("cache", "verify", small.latents, "--recompute", 3, *given, "--json")
    assert len(_json(here(*words), 1)["recomputed"]["differing"]) == 3


def test_a_wrong_crop_is_found_and_versions_named(here: Run, small: Small) -> None:
    def brighter(row: np.ndarray) -> None:
        row[0, 0, 0] = (int(row[0, 0, 0]) + 5) % 256

    lie(small.crops, 6, brighter)
    words = ("cache", "verify", small.crops, "--recompute", 7, "--root", small.images)
    said = _json(here(*words, "--json"), 1)
    assert said["recomputed"]["differing"] == [6]
    assert said["recomputed"]["largest"] in (5, 251)
    assert "it was made with" not in said["faults"][0]["what"]
    made = without_list(read_provenance(small.crops))
    write_provenance(small.crops, {**made, "versions": {**made["versions"], "pillow": "1.1.7"}})
    assert "made with pillow 1.1.7, here " in here(*words).stdout


def test_what_is_not_given_or_other_is_named(
    here: Run, crops: Path, small: Small, tmp_path: Path
) -> None:
    again = ("cache", "verify", "--recompute", 2)
    _refused(here(*again, small.latents), "--crops DIR")
    _refused(here(*again, small.crops), "--root DIR")
    _refused(here(*again, small.latents, "--crops", crops), "was not made of the crops in")
    _refused(here(*again, small.latents, "--crops", tmp_path / "no"), "There is no cache")
    _refused(here(*again, small.crops, "--root", tmp_path / "no"), "There is no folder")
    of = (*again, small.latents, "--crops", small.crops)
    _refused(here(*of), "--weights FILE")
    _refused(here(*of, "--weights", small.other_weights), "not the weights that made the latents")
    _refused(here(*of, "--weights", small.images / "calm" / "0.png"), "is no safetensors file")
    Image.new("RGB", (40, 40)).save(small.images / "tense" / "0.png")
    found = here("cache", "verify", "--recompute", 7, small.crops, "--root", small.images)
    _refused(found, "1 of 7 images")
    _refused(found, "tense/0.png")
    (small.images / "tense" / "0.png").unlink()
    found = here("cache", "verify", "--recompute", 7, small.crops, "--root", small.images)
    _refused(found, "has no images of these names")


def test_what_is_damaged_is_not_made_again(here: Run, small: Small) -> None:
    flip(small.latents / SAMPLES, 0.5)
    said = _json(here("cache", "verify", small.latents, "--recompute", 1, "--json"), 1)
    assert said["recomputed"] is None
    assert "Nothing was made again" in said["notes"][-1]


# repair


def _spoil(path: Path, *rows: int) -> None:
    with h5py.File(path / "data.h5", "r+") as file:
        (bulk,) = file.keys() & {"crops", "latents"}
        for row in rows:
            file[bulk][row] = 0


def test_repair_of_latents(here: Run, small: Small, tmp_path: Path) -> None:
    pattern = Path(shutil.copytree(small.latents, tmp_path / "pattern"))
    _spoil(small.latents, 1)
    (small.latents / SAMPLES).unlink()
    _refused(here("cache", "repair", small.latents), "--crops DIR")
    words = ("cache", "repair", small.latents, *small.source, "--json")
    said = _json(here(*words), 0)
    assert (said["repaired"], said["made"], said["files"]) == (True, [0], [SAMPLES])
    whole(small.latents, pattern)
    assert _json(here(*words), 0)["repaired"] is False
    assert "nothing to repair" in here("cache", "repair", small.latents).stdout


def test_repair_of_crops(here: Run, small: Small, tmp_path: Path) -> None:
    pattern = Path(shutil.copytree(small.crops, tmp_path / "pattern"))
    _spoil(small.crops, 1, 6)
    damaged = bytes_of(small.crops)
    _refused(here("cache", "repair", small.crops), "--root DIR")
    done = here("cache", "repair", small.crops, "--root", small.images)
    assert "shards made again: number 0, number 2" in done.stdout
    whole(small.crops, pattern)
    # an image is another: refused, and what is there stays
    shutil.rmtree(small.crops)
    for name, content in damaged.items():
        (small.crops / name).parent.mkdir(parents=True, exist_ok=True)
        (small.crops / name).write_bytes(content)
    Image.new("RGB", (40, 40)).save(small.images / "tense" / "2.png")
    done = here("cache", "repair", small.crops, "--root", small.images)
    _refused(done, "are not those that were cropped")
    assert bytes_of(small.crops) == damaged
    done = here("cache", "repair", small.crops, "--from", pattern)
    assert "shards of the equal cache: number 0, number 2" in done.stdout
    whole(small.crops, pattern)


def test_repair_of_all_beside_the_crops(here: Run, drawn: Path, tmp_path: Path) -> None:
    """Of a part of the data set: table, statuses and boxes are made again from the images."""
    pattern, path = tmp_path / "pattern", tmp_path / "crops"
    make_crops(pattern, limited(read("drawn", drawn), 20), unit_rows=8, size=32)
    shutil.copytree(pattern, path)
    for name in ("box", "status"):
        for file in (path / "data.zarr" / name / "c").rglob("0"):
            flip(file, 0.6) if file.is_file() else None
    (path / SAMPLES).write_text("{}\n")
    done = here("cache", "repair", path, "--root", drawn)
    assert done.returncode == 0, done.stderr
    assert "columns restored: box, status" in done.stdout
    assert "files restored: samples.jsonl" in done.stdout
    whole(path, pattern)
    assert bytes_of(path) == bytes_of(pattern)


def test_a_root_of_another_last_bit_is_refused(
    here: Run, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    _spoil(small.latents, 1)
    before, first = bytes_of(small.latents), LatentsAgain.latents

    def latents(self: LatentsAgain, pixels: Any) -> Any:
        return np.nextafter(first(self, pixels), np.float32(9))

    monkeypatch.setattr(LatentsAgain, "latents", latents)
    words = ("cache", "repair", small.latents, *small.source)
    _refused(here(*words), "the last bits differ: repair where it was made")
    assert bytes_of(small.latents) == before


def test_no_cache_no_repair(here: Run, tmp_path: Path) -> None:
    _refused(here("cache", "repair", tmp_path / "no"), "There is no cache")
    (tmp_path / "empty").mkdir()
    _refused(here("cache", "repair", tmp_path / "empty"), "no finished cache")
    assert "Exit code 0" in here("cache", "repair", "--help").stdout
