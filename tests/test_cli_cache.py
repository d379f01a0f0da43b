"""The cache commands, as a user types them: info, verify, diff, ls, convert, samples."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import CacheDamagedError
from cache.files import write_json_lines
from cache.parts import unfinished
from cache.reader import Cache
from cache.schema import MANIFEST, PROVENANCE, SAMPLES, read_manifest
from cache.store import STORES
from pipeline.caches.text import age_text
from tests.command import Run
from tests.making import make_cache
from tests.test_cache_verify import make, make_legal, relist, reseal

HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202e\n"


def _ok(done: Any, code: int = 0) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    return str(done.stdout) + str(done.stderr)


def _json(done: Any, code: int = 0) -> Any:
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """A cache whose words would command a terminal, all digests in order."""
    path = make(tmp_path / "shown", "hdf5", settings={"name": f"x{HOSTILE}"})
    table = [json.loads(line) for line in (path / SAMPLES).read_text().splitlines()]
    for row in table:
        row["reason"] = f"x{HOSTILE}"
    write_json_lines(path / SAMPLES, table)
    reseal(path, lambda said: said["info"].update(dataset=f"d{HOSTILE}", backbone=HOSTILE))
    relist(path)
    return path


# info


def test_info_of_crops_and_latents(here: Run, crops: Path, latents: Path) -> None:
    of_crops, of_latents = _ok(here("cache", "info", crops)), _ok(here("cache", "info", latents))
    for word in (
        "crop cache", "96 of 100 x 100 x 3 uint8", "found", "zarr, 2 x 64 rows a shard", "dlib",
        "lgr-pipe crop --dataset drawn --root DIR --face-crop dlib --size 100", "versions.zarr",
    ):  # fmt: skip
        assert word in of_crops, word
    manifest = read_manifest(latents)
    for word in (
        "latent cache", "mobilenet_v2", "random (seed 0, calibrated)", "within 0 to 1, found ",
        f"of {manifest.columns['latents'].shape[1]} float32", manifest.fingerprint,
        read_manifest(crops).fingerprint, "root.activation", "sigmoid",
        "lgr-pipe extract --crops CROPS --backbone mobilenet_v2", "--weights random",
    ):  # fmt: skip
        assert word in of_latents, word


def test_info_counts_rows(here: Run, tmp_path: Path, store: str) -> None:
    said = _json(here("cache", "info", make(tmp_path / "c", store), "--json"))
    assert said["rows_by_split"] == {
        "train": {"calm": 8, "tense": 8},
        "test": {"calm": 2, "tense": 2},
    }
    assert (said["state"], said["kind"], said["store"]) == ("finished", "latents", store)
    assert (said["rows"], said["row_shape"], said["shards"]) == (20, [24], 3)
    assert said["bytes"] == sum(
        p.stat().st_size for p in (tmp_path / "c").rglob("*") if p.is_file()
    )
    assert said["provenance"]["made"] == "2026-01-02T03:04:05+00:00"
    assert "files" not in said["provenance"]


def test_info_of_unfinished_work_says_how_to_go_on(here: Run, tmp_path: Path) -> None:
    rows = np.zeros((10, 6), dtype=np.float32)
    make_cache(tmp_path / "c", "zarr", rows, stop_after=2)
    text = _ok(here("cache", "info", tmp_path / "c"))
    assert "2 of 3 units, of 10 rows" in text
    assert "the same lgr-pipe extract command again" in text
    make_cache(tmp_path / "d", "zarr", rows, stop_after=3)
    said = _json(here("cache", "info", tmp_path / "d", "--json"))
    assert said["state"] == "unfinished"
    assert said["work"][0]["go_on"] == f"lgr-pipe extract finalize --out {tmp_path / 'd'}"
    assert here("cache", "info", tmp_path / "e").returncode == 2


# verify


def test_verify_has_three_exit_codes(here: Run, tmp_path: Path, store: str) -> None:
    good, bad = make(tmp_path / "good", store), make(tmp_path / "bad", store)
    (bad / "strange").write_text("x")
    assert "whole, 20 latents" in _ok(here("cache", "verify", good))
    text = _ok(here("cache", "verify", good, bad), 1)
    assert "bad: 1 fault\n  strange: does not belong to a cache." in text
    said = _json(here("cache", "verify", bad, tmp_path / "none", good, "--json"), 2)
    assert [report["ok"] for report in said] == [False, False, True]
    assert said[0]["faults"][0]["where"] == "strange"
    assert "no such folder" in said[1]["error"]


def test_verify_goes_through_a_folder_of_caches(here: Run, tmp_path: Path) -> None:
    """Each of them by itself; one that has lost its manifest is not passed over."""
    for name in ("a", "deep/b", "deep/c"):
        make(tmp_path / name, "zarr")
    said = _json(here("cache", "verify", tmp_path, "--json"))
    assert [(Path(one["path"]).name, one["ok"]) for one in said] == [
        ("a", True), ("b", True), ("c", True)
    ]  # fmt: skip
    (tmp_path / "deep" / "b" / "manifest.json").unlink()
    said = _json(here("cache", "verify", tmp_path, "--json"), code=2)
    assert [one["ok"] for one in said] == [True, False, True]
    states = {
        Path(one["path"]).name: one["state"]
        for one in _json(here("cache", "ls", tmp_path, "--json"))
    }
    assert states == {"a": "finished", "b": "damaged", "c": "finished"}


def test_verify_names_rows_and_shards(here: Run, tmp_path: Path) -> None:
    path = make(tmp_path / "c", "zarr")
    (path / "data.zarr" / "latents" / "c" / "1" / "0").write_bytes(b"x" * 100)
    text = _ok(here("cache", "verify", path), 1)
    assert (
        "column latents: cannot be read: the store's own checks fail (rows 8-15; shards 1)" in text
    )
    (said,) = _json(here("cache", "verify", path, "--json"), 1)
    assert [8, 15] in [rows for fault in said["faults"] for rows in fault["rows"]]


# what strangers write


@pytest.mark.parametrize("command", ["info", "verify", "samples", "ls"])
def test_a_terminal_is_not_commanded(here: Run, shown: Path, command: str) -> None:
    for words in ((), ("--json",)):
        text = _ok(here("cache", command, shown, *words))
        assert not set(text) & set("\x1b\x07\u202e")
    assert "\\x1b" in _ok(here("cache", "samples", shown))


def test_nor_by_a_difference(here: Run, shown: Path, tmp_path: Path) -> None:
    other = make(tmp_path / "other", "zarr")
    for words in ((), ("--json",)):
        text = _ok(here("cache", "diff", shown, other, *words))
        assert "x1b" in text or "u001b" in text
        assert not set(text) & set("\x1b\x07\u202e")


@pytest.mark.parametrize("command", ["info", "diff", "convert"])
@pytest.mark.parametrize("text", ["[" * 10**5, "", "{}", '{"settings": {"a": NaN}}', "\x1b[2J"])
def test_a_manifest_that_is_none_is_a_sentence(
    here: Run, tmp_path: Path, command: str, text: str
) -> None:
    path = make(tmp_path / "c", "hdf5")
    (path / MANIFEST).write_text(text)
    more = {"diff": (path,), "convert": (tmp_path / "out", "--store", "zarr")}.get(command, ())
    said = _ok(here("cache", command, path, *more), 2)
    assert "is not a manifest of schema 2" in said
    assert "\x1b" not in said
    assert "damaged" in _ok(here("cache", "ls", tmp_path))
    assert _ok(here("cache", "verify", path), 1)


# diff


def test_equal_content_in_whatever_store(here: Run, tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", "zarr"), make(tmp_path / "b", "hdf5")
    assert "equal content" in _ok(here("cache", "diff", a, b))
    assert _json(here("cache", "diff", a, b, "--json"))["same_content"] is True
    c = make(tmp_path / "c", "hdf5", settings={"seed": 1, "root": {"layer": "fc6"}})
    text = _ok(here("cache", "diff", a, c))
    assert "  root: (absent) | {'layer': 'fc6'}" in text
    assert "  seed: 0 | 1" in text


def test_rows_are_matched_by_id(here: Run, tmp_path: Path) -> None:
    """b: rows 19..0 of a as they were, but one with other values and one with another label."""
    ids = [f"{k}.png" for k in range(20)]
    a = make(tmp_path / "a", "zarr")
    with Cache(a) as cache:
        latents = cache.bulk()[::-1].copy()
    latents[4, 7] += 0.25  # 15.png
    latents[5, 0] -= 0.125  # 14.png
    b = make_legal(
        tmp_path / "b", "hdf5", latents, [*ids[:0:-1], "new.png"], labels=[k % 2 for k in range(20)]
    )
    said = _json(here("cache", "diff", a, b, "--json"), 1)
    assert (said["only_a"], said["only_b"]) == (["0.png"], ["new.png"])
    assert said["values"] == 2
    assert said["largest"] == pytest.approx(0.25, abs=1e-6)
    assert said["moved"] == 19
    assert ["1.png", "label", "tense", "calm"] in said["said"]
    text = _ok(here("cache", "diff", a, b), 1)
    assert "Rows only in A: 1: 0.png" in text
    assert "Rows in both with other values: 2, at most by 0.25" in text


def test_other_types_and_lengths_are_said(here: Run, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((6, 5), dtype=np.float32)
    ids = [f"{k}" for k in range(6)]
    a = make_legal(tmp_path / "a", "zarr", rows, ids)
    b = make_legal(tmp_path / "b", "zarr", rows.astype(np.float16), ids)
    c = make_legal(tmp_path / "c", "zarr", rows[:, :3], ids)
    said = _json(here("cache", "diff", a, b, "--json"), 1)
    exact = np.abs(rows.astype(float) - rows.astype(np.float16).astype(float)).max()
    assert said["largest"] == exact
    assert said["shapes"] == ["float32 5", "float16 5"]
    said = _json(here("cache", "diff", a, c, "--json"), 1)
    assert (said["values"], said["largest"], said["shapes"][1]) == (6, None, "float32 3")
    rows[2, 2] = np.nan
    d = make_legal(tmp_path / "d", "zarr", rows, ids)
    said = _json(here("cache", "diff", a, d, "--json"), 1)
    assert (said["values"], said["largest"], said["infinite"]) == (1, 0.0, 1)


def test_crops_and_latents_are_not_compared(here: Run, tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", "zarr"), make(tmp_path / "b", "zarr", kind="crops")
    assert "holds latents" in _ok(here("cache", "diff", a, b), 2)


# ls


def test_ls_tells_states_and_opens_manifests_only(
    here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "No caches below ." in _ok(here("cache", "ls"))
    make(tmp_path / "caches" / "deep" / "good", "zarr", info={"dataset": "faces"})
    for file in (tmp_path / "caches" / "deep" / "good").rglob("*"):
        if file.is_file() and file.name != MANIFEST:
            file.write_text("no longer read")
    bad = make(tmp_path / "caches" / "bad", "hdf5", kind="crops")
    (bad / MANIFEST).write_text("{")
    rows = np.zeros((10, 6), dtype=np.float32)
    make_cache(tmp_path / "caches" / "half", "zarr", rows, stop_after=2)
    (tmp_path / "caches" / "web").mkdir()
    (tmp_path / "caches" / "web" / MANIFEST).write_text('{"name": "of some other program"}')
    lines = _ok(here("cache", "ls")).splitlines()
    assert lines[0].split("  ")[0] == "path"
    assert len(lines) == 4
    (good,) = (line for line in lines if "good" in line)
    assert good.split()[1:5] == ["latents", "faces", "vgg16", "20"]
    assert good.endswith("finished")
    assert any("half" in line and line.endswith("unfinished, 2 of 3 units") for line in lines)
    assert any("bad" in line and line.endswith("damaged manifest") for line in lines)
    said = {Path(e["path"]).name: e for e in _json(here("cache", "ls", "caches", "--json"))}
    assert (said["half"]["units_done"], said["half"]["units"]) == (2, 3)
    assert said["bad"]["problem"]
    assert here("cache", "ls", "nowhere").returncode == 2


def test_ages() -> None:
    assert [age_text(s) for s in (59, 60, 3600, 86400 * 3, -5)] == [
        "0 min", "1 min", "1 h", "3 d", "0 min",
    ]  # fmt: skip


# convert


@pytest.mark.parametrize("kind", ["crops", "latents"])
def test_convert_there_and_back(here: Run, tmp_path: Path, kind: Any, store: str) -> None:
    a = make(tmp_path / "a", store, kind=kind)
    other = "zarr" if store == "hdf5" else "hdf5"
    _ok(here("cache", "convert", a, tmp_path / "b", "--store", other))
    _ok(here("cache", "convert", tmp_path / "b", tmp_path / "c", "--store", store))
    _ok(here("cache", "verify", a, tmp_path / "b", tmp_path / "c"))
    one, two, three = (read_manifest(tmp_path / name) for name in "abc")
    assert (two.store, two.content, two.fingerprint) == (other, one.content, one.fingerprint)
    assert three == one
    assert (tmp_path / "b" / SAMPLES).read_bytes() == (a / SAMPLES).read_bytes()
    made = json.loads((tmp_path / "b" / PROVENANCE).read_text())
    assert made["made"] == "2026-01-02T03:04:05+00:00"
    assert made["converted"]["from"] == store
    with Cache(a) as left, Cache(tmp_path / "b") as right:
        assert left.bulk().tobytes() == right.bulk().tobytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c"]
    assert "nothing to do" in _ok(here("cache", "convert", a, tmp_path / "b", "--store", other))


def test_convert_refuses(here: Run, tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", "zarr"), make(tmp_path / "b", "zarr", settings={"seed": 1})
    words = ("cache", "convert", a)
    assert "add --overwrite" in _ok(here(*words, b, "--store", "hdf5"), 2)
    assert "choose another" in _ok(here(*words, a, "--store", "hdf5", "--overwrite"), 2)
    assert "choose another" in _ok(here(*words, a / "in", "--store", "hdf5"), 2)
    assert "must be zarr or hdf5" in _ok(here(*words, tmp_path / "n", "--store", "npy"), 2)
    crops = make(tmp_path / "crops", "zarr", kind="crops")
    assert "is a cache of crops" in _ok(here(*words, crops, "--store", "hdf5", "--overwrite"), 2)
    assert read_manifest(b).settings["seed"] == 1
    _ok(here(*words, b, "--store", "hdf5", "--overwrite"))
    assert (read_manifest(b).settings["seed"], read_manifest(b).store) == (0, "hdf5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "crops"]


def test_a_damaged_cache_is_not_converted(here: Run, tmp_path: Path) -> None:
    a = make(tmp_path / "a", "zarr")
    chunk = a / "data.zarr" / "latents" / "c" / "2" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-9] + b"123456789")
    said = _ok(here("cache", "convert", a, tmp_path / "b", "--store", "hdf5"), 2)
    assert f"lgr-pipe cache verify {a} tells" in said
    assert f"lgr-pipe cache repair {a} makes" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


@pytest.mark.parametrize("name", [MANIFEST, SAMPLES, "data.h5"])
def test_damage_names_the_cache_wherever_it_is(tmp_path: Path, name: str) -> None:
    """So that the command line can say what puts it right."""
    path = make(tmp_path / "c", "hdf5")
    (path / name).write_bytes(b"{")
    with pytest.raises(CacheDamagedError) as caught, Cache(path) as cache:
        cache.samples()
    assert caught.value.cache == path


KILLED = """
import os, shutil, signal, sys
from pathlib import Path
from cache.care import convert as room
left = int(sys.argv[3])
def one_less(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
rename, rmtree = Path.rename, shutil.rmtree
def counted_rename(self, target):
    one_less()
    done = rename(self, target)
    one_less()
    return done
Path.rename = counted_rename
room.sync_tree = lambda folder: one_less()
store = sys.argv[4]
room.convert(Path(sys.argv[1]), Path(sys.argv[2]), store, overwrite=True, made="now",
             tick=one_less)
"""


@pytest.mark.parametrize("moment", [1, 3, 6, 7, 8, 9, 10, 11])
def test_a_kill_leaves_nothing_half(tmp_path: Path, here: Run, moment: int) -> None:
    """At the shards (1-6), before and after each of the two renames of an --overwrite."""
    store = STORES[moment % 2]
    a, b = make(tmp_path / "a", "zarr"), make(tmp_path / "b", store, settings={"seed": 1})
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(a), str(b), str(moment), store], check=False
    )
    assert done.returncode == -signal.SIGKILL
    if moment < 9:
        assert read_manifest(b).settings["seed"] == 1
    listed = {e["state"] for e in _json(here("cache", "ls", tmp_path, "--json"))}
    assert listed <= {"finished", "set aside"}
    _ok(here("cache", "convert", a, b, "--store", store, "--overwrite"))
    _ok(here("cache", "verify", b))
    _ok(here("cache", "diff", a, b))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_conversion_at_work_is_left_alone(here: Run, tmp_path: Path) -> None:
    a = make(tmp_path / "a", "zarr")
    alive, left = tmp_path / f".b.convert-{0:012}", tmp_path / f".b.convert-{1:012}"
    alive.mkdir()
    left.mkdir()
    handle = os.open(alive, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        _ok(here("cache", "convert", a, tmp_path / "b", "--store", "hdf5"))
        assert alive.exists()
        assert not left.exists()
    finally:
        os.close(handle)


def test_parts_that_are_damaged_are_a_sentence(tmp_path: Path) -> None:
    """read_lines serves work in progress too."""
    make_cache(tmp_path / "c", "zarr", np.zeros((4, 2), dtype=np.float32), stop_after=1)
    parts = unfinished(tmp_path / "c", "latents")
    (parts.scratch / SAMPLES).write_text("{")
    with pytest.raises(CacheDamagedError, match="line 1") as caught:
        list(parts.samples())
    assert caught.value.cache is None, "it is none yet: nothing to verify or repair"


def test_each_help_states_its_exit_codes(here: Run) -> None:
    for command in ("info", "verify", "diff", "ls", "convert", "samples"):
        text = _ok(here("cache", command, "--help"))
        assert "Exit code 0" in text
        assert "--json" in text


def test_no_option_replaces_a_folder_of_other_things(here: Run, tmp_path: Path) -> None:
    """A manifest.json is no rare name."""
    cache, app = make(tmp_path / "cache", "zarr"), tmp_path / "app"
    (app / "src").mkdir(parents=True)
    (app / MANIFEST).write_text('{"name": "ext", "manifest_version": 3}')
    (app / "src" / "thesis.tex").write_text("x")
    notes = make(tmp_path / "noted", "zarr")
    (notes / "notes.txt").write_text("x")
    for out, name in ((app, "src/thesis.tex"), (notes, "notes.txt")):
        done = here("cache", "convert", cache, out, "--store", "hdf5", "--overwrite")
        assert (done.returncode, f"holds other things ({name})" in done.stderr) == (2, True)
        assert (out / name).read_text() == "x"


def test_a_bucket_is_not_written(
    here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a folder named s3: made in its place."""
    monkeypatch.chdir(tmp_path)
    cache = make(tmp_path / "c", "zarr")
    for words in (
        ("cache", "convert", cache, "s3://lab/c", "--store", "hdf5"),
        ("cache", "export", cache, "s3://lab/c.zip", "--to", "zip"),
        ("train", "--strategy", "none", "--cache", cache, "--out", "s3://lab/run"),
    ):
        done = here(*words)
        assert (done.returncode, "only local folders can be written" in done.stderr) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
