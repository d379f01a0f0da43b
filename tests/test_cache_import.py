"""A cache sent as a zip file: back to what it was, and nothing else than that, whatever comes."""

from __future__ import annotations

import json
import os
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from cache.care.verify import verify
from cache.errors import Refused
from cache.schema import MANIFEST, PROVENANCE, SAMPLES, read_manifest
from cache.share import zip_listing
from cache.share.export import export
from cache.share.unzip import unzip
from cache.store import STORES
from tests.command import Run
from tests.making import nothing
from tests.test_cache_verify import make


def _ok(done: Any, code: int = 0) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    return str(done.stdout) + str(done.stderr)


def _bar(*_: object) -> Callable[[int], None]:
    return nothing


def _zipped(source: Path) -> Path:
    out = source.with_name(f"{source.name}.zip")
    export(source, out, "zip", crops=True, names=True, overwrite=False, tick=nothing)
    return out


Files = dict[str, bytes]


def _files(file: Path) -> Files:
    with zipfile.ZipFile(file) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def _rewritten(file: Path, files: Files, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(file, "w", compression) as opened:
        for name, raw in files.items():
            opened.writestr(name, raw)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("kind", ["latents", "crops"])
def test_there_and_back(tmp_path: Path, here: Run, store: str, kind: Any) -> None:
    a, b = make(tmp_path / "a", store, kind=kind), tmp_path / "deep" / "b"
    file = _zipped(a)
    said = json.loads(_ok(here("cache", "import", file, b, "--json")))
    assert (said["made"], said["rows"], said["store"]) == (True, 20, store)
    _ok(here("cache", "verify", b))
    _ok(here("cache", "diff", a, b))
    for path in a.rglob("*"):
        if path.is_file():
            assert (b / path.relative_to(a)).read_bytes() == path.read_bytes()
    assert "nothing to do" in _ok(here("cache", "import", file, b))
    assert sorted(p.name for p in b.parent.iterdir()) == ["b"]


def test_what_is_there_already(tmp_path: Path, here: Run) -> None:
    file = _zipped(make(tmp_path / "a", "zarr"))
    b, folder = make(tmp_path / "b", "zarr", settings={"seed": 1}), tmp_path / "folder"
    folder.mkdir()
    (folder / "thesis.tex").write_text("x")
    assert "add --overwrite" in _ok(here("cache", "import", file, b), 2)
    assert "exists already" in _ok(here("cache", "import", file, folder, "--overwrite"), 2)
    assert read_manifest(b).settings["seed"] == 1
    _ok(here("cache", "import", file, b, "--overwrite"))
    assert read_manifest(b) == read_manifest(tmp_path / "a")
    assert "There is no file" in _ok(here("cache", "import", tmp_path / "none", b), 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "a.zip", "b", "folder"]


def test_other_zip_programs_will_do(tmp_path: Path, here: Run) -> None:
    """Stored, with or without the folder around it."""
    file = _zipped(make(tmp_path / "a", "hdf5"))
    _rewritten(file, {name.partition("/")[2]: raw for name, raw in _files(file).items()})
    _ok(here("cache", "import", file, tmp_path / "b"))
    _ok(here("cache", "diff", tmp_path / "a", tmp_path / "b"))


def test_64_bit_files(tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 4 GB were 2 kB and 65,536 entries two."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 2000)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    file = _zipped(make(tmp_path / "a", "zarr"))
    assert b"PK\6\6" in file.read_bytes()
    _ok(here("cache", "import", file, tmp_path / "b"))
    _ok(here("cache", "diff", tmp_path / "a", tmp_path / "b"))


# strangers' files


def _top(files: Files) -> str:
    return next(iter(files)).partition("/")[0]


def _escaping(file: Path, files: Files) -> None:
    _rewritten(file, files | {"../../escaped": b"x"})


def _absolute(file: Path, files: Files) -> None:
    _rewritten(file, files | {"/tmp/escaped": b"x"})


def _inner_escape(file: Path, files: Files) -> None:
    _rewritten(file, files | {f"{_top(files)}/data.zarr/../../escaped": b"x"})


def _extra(file: Path, files: Files) -> None:
    _rewritten(file, files | {f"{_top(files)}/run.py": b"x"})


def _commanding(file: Path, files: Files) -> None:
    _rewritten(file, files | {f"{_top(files)}/\x1b[2J\u202e": b"x"})


def _missing(file: Path, files: Files) -> None:
    _rewritten(file, {n: raw for n, raw in files.items() if "latents/c/1/0" not in n})


def _headless(file: Path, files: Files) -> None:
    _rewritten(file, {n: raw for n, raw in files.items() if MANIFEST not in n})


def _compressed(file: Path, files: Files) -> None:
    bomb = {f"{_top(files)}/{SAMPLES}": b"0" * 10**7}
    _rewritten(file, files | bomb, zipfile.ZIP_DEFLATED)


def _twice(file: Path, files: Files) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(file, "a") as opened:
        opened.writestr(f"{_top(files)}/{SAMPLES}", b"{}")


def _link(file: Path, files: Files) -> None:
    _rewritten(file, {n: raw for n, raw in files.items() if SAMPLES not in n})
    entry = zipfile.ZipInfo(f"{_top(files)}/{SAMPLES}")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(file, "a") as opened:
        opened.writestr(entry, b"/etc/passwd")


def _folder(file: Path, files: Files) -> None:
    _rewritten(file, files | {f"{_top(files)}/more/": b""})


def _encrypted(file: Path, _: Files) -> None:
    raw = bytearray(file.read_bytes())
    raw[raw.rindex(b"PK\1\2") + 8] |= 1
    file.write_bytes(raw)


def _lying(file: Path, _: Files) -> None:
    """The last entry says that it has 4 GB."""
    raw = bytearray(file.read_bytes())
    place = raw.rindex(b"PK\1\2")
    raw[place + 20 : place + 28] = struct.pack("<2L", 0xFFFFFFF0, 0xFFFFFFF0)
    file.write_bytes(raw)


def _directory(file: Path, _: Files) -> None:
    raw = bytearray(file.read_bytes())
    raw[-10:-6] = struct.pack("<L", 0xFFFFFFF0)
    file.write_bytes(raw)


def _misplaced(file: Path, _: Files) -> None:
    """The directory says that it lies further behind than it does."""
    raw = bytearray(file.read_bytes())
    raw[-6:-2] = struct.pack("<L", struct.unpack("<L", raw[-6:-2])[0] + 1)
    file.write_bytes(raw)


def _half(file: Path, _: Files) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _another_file(file: Path, _: Files) -> None:
    file.write_bytes(b"GIF89a" * 100)


def _changed(file: Path, files: Files) -> None:
    name = f"{_top(files)}/{PROVENANCE}"
    _rewritten(file, files | {name: files[name].replace(b"2026", b"2025")})


def _absurd(file: Path, files: Files) -> None:
    """A manifest with its digest, of more rows than anything has."""
    name = f"{_top(files)}/{MANIFEST}"
    said = json.loads(files[name])
    said["rows"] = 10**12
    del said["shard_digests"]
    for column in said["columns"].values():
        column["shape"][0] = 10**12
    from cache.schema import Manifest, content_digest

    found = Manifest.model_validate(said)
    found = found.model_copy(update={"content": content_digest(found.columns)}).sealed()
    _rewritten(file, files | {name: json.dumps(found.model_dump(mode="json")).encode()})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_escaping, "does not belong to a cache"),
        (_absolute, "does not belong to a cache"),
        (_inner_escape, "does not belong to a cache"),
        (_extra, "run.py does not belong to a cache"),
        (_commanding, "does not belong to a cache"),
        (_missing, "latents/c/1/0 is missing"),
        (_headless, "holds no manifest.json"),
        (_compressed, "is compressed. Unzip it yourself"),
        (_twice, "two entries of one name"),
        (_link, "is no plain file"),
        (_folder, "is no plain file"),
        (_encrypted, "is encrypted"),
        (_lying, "more than it has bytes"),
        (_directory, "more than any of ours"),
        (_misplaced, "lies before the file begins"),
        (_half, "is no zip file"),
        (_another_file, "is no zip file"),
        (_changed, "is not whole: provenance.json"),
        (_absurd, "most of its shards are missing"),
    ],
)
def test_a_hostile_file_is_a_sentence(
    tmp_path: Path, here: Run, spoil: Callable[[Path, Files], None], says: str
) -> None:
    source = make(tmp_path / "a", "zarr")
    file = _zipped(source)
    spoil(file, _files(file))
    said = _ok(here("cache", "import", file, tmp_path / "in" / "b"), 2)
    assert says in said
    assert "cache repair" not in said, "there is no cache yet"
    assert not set(said) & set("\x1b\u202e")
    assert [p for p in tmp_path.rglob("*") if p.is_file() and source not in p.parents] == [file]
    assert not Path("/tmp/escaped").exists()


def test_too_many_entries(tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make(tmp_path / "a", "zarr")
    file = _zipped(source)
    monkeypatch.setattr(zip_listing, "MOST", 5)
    assert "entries, more than 5" in _ok(here("cache", "import", file, tmp_path / "b"), 2)
    monkeypatch.setattr("cache.share.export_zip.MOST", 5)
    words = ("cache", "export", source, tmp_path / "b.zip", "--to", "zip")
    assert "cache convert --store hdf5" in _ok(here(*words), 2)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("good")
    return _zipped(make(folder / "a", "hdf5", rows=4)).read_bytes()


@settings(max_examples=150)
@given(
    changes=some.lists(
        some.tuples(some.floats(0, 1, exclude_max=True), some.binary(min_size=1, max_size=8)),
        min_size=1,
        max_size=3,
    ),
    near_the_end=some.booleans(),
    cut=some.integers(0, 40),
)
def test_any_bytes_are_refused_or_harmless(
    good: bytes, changes: list[tuple[float, bytes]], near_the_end: bool, cut: int
) -> None:
    """Where the directory is, most bytes mean something."""
    raw, base = bytearray(good), len(good) - 600 if near_the_end else 0
    for where, what in changes:
        place = base + int(where * (len(raw) - base))
        raw[place : place + len(what)] = what
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.zip").write_bytes(raw[: len(raw) - cut] if cut > 30 else raw)
        try:
            unzip(folder / "a.zip", folder / "b", overwrite=False, bar=_bar)
        except Refused:
            assert [p.name for p in folder.iterdir()] == ["a.zip"]
        else:
            assert not verify(folder / "b", nothing).faults


KILLED = """
import os, signal, sys
from pathlib import Path
from cache import beside
from cache.share import unzip as room
left = int(sys.argv[3])
def one_less(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
rename = Path.rename
def counted_rename(self, target):
    one_less()
    done = rename(self, target)
    one_less()
    return done
Path.rename = counted_rename
room.unzip(Path(sys.argv[1]), Path(sys.argv[2]), overwrite=True, bar=lambda *_: one_less)
"""


@pytest.mark.parametrize("moment", [2, 8, 12, 13, 14, 15])
def test_a_kill_leaves_nothing_half(tmp_path: Path, here: Run, moment: int) -> None:
    """Unpacking 4 files, verifying (4 files, 3 shards), around each of two renames."""
    file = _zipped(make(tmp_path / "a", "hdf5"))
    b = make(tmp_path / "b", "hdf5", settings={"seed": 1})
    command = [sys.executable, "-c", KILLED, str(file), str(b), str(moment)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    if b.exists():
        assert not verify(b, nothing).faults
    assert len(os.listdir(tmp_path)) > 3, "nothing was under way"  # noqa: PTH208
    _ok(here("cache", "import", file, b, "--overwrite"))
    assert read_manifest(b) == read_manifest(tmp_path / "a")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "a.zip", "b"]
