"""Caches from strangers: what is no plain file, manifests that claim too much, odd tables."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache.care.verify import Fault
from cache.digest import file_digest
from cache.errors import CacheDamagedError, Refused
from cache.files import write_json_lines
from cache.listing import found_files, read_provenance
from cache.reader import Cache
from cache.schema import MANIFEST, MANIFEST_LIMIT, PROVENANCE, SAMPLES, Manifest
from cache.store import STORES
from pipeline.console import say
from tests.command import Run
from tests.hostile import SECRET, little_memory, read_all, refused
from tests.test_cache_verify import check, make, reseal


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# what is no plain file


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's name is short
        made.bind(path.name)
        os.chdir(here)


STRANGE: dict[str, Callable[[Path], object]] = {
    "pipe": _pipe,
    "socket": _socket,
    "device": lambda p: p.symlink_to("/dev/zero"),
    "folder": lambda p: p.mkdir(),
    "circle": lambda p: p.symlink_to(p.name),
    "nowhere": lambda p: p.symlink_to("nowhere"),
}
FILES = {
    "zarr": (MANIFEST, SAMPLES, "data.zarr/label/zarr.json", "data.zarr/latents/c/1/0"),
    "hdf5": (PROVENANCE, "data.h5"),
}


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize(("of", "name"), [(of, n) for of, names in FILES.items() for n in names])
def test_what_is_no_file_is_never_opened(tmp_path: Path, kind: str, of: str, name: str) -> None:
    path = make(tmp_path / "c", of)
    (path / name).unlink()
    STRANGE[kind](path / name)
    if name == MANIFEST:
        with pytest.raises(Refused, match=r"holds no manifest\.json"):
            check(path)
        return
    assert check(path).faults
    with pytest.raises(Refused, match=r"no plain file|is missing"):
        read_provenance(path) if name == PROVENANCE else read_all(path)


@pytest.mark.parametrize("inside", ["", "latents", "latents/c", "latents/c/1"])
def test_a_folder_that_is_a_link_is_not_followed(tmp_path: Path, inside: str) -> None:
    path = make(tmp_path / "c", "zarr")
    shutil.move(path / "data.zarr" / inside, tmp_path / "elsewhere")
    (path / "data.zarr" / inside).symlink_to(tmp_path / "elsewhere")
    refused(path, "is a link, not a folder; not read")


def test_links_to_files_as_dvc_makes_them_are_read(tmp_path: Path, store: str) -> None:
    """All files of a cache are links into another folder, named by digests."""
    path = make(tmp_path / "c", store)
    (tmp_path / "dvc").mkdir()
    for name in found_files(path)[0]:
        kept = tmp_path / "dvc" / file_digest(path / name).removeprefix("blake3:")
        shutil.move(path / name, kept)
        (path / name).symlink_to(kept)
    read_all(path)
    assert check(path).faults == []


@pytest.mark.parametrize("said", [SECRET, f'{{"{SECRET}": 1}}', f'{{"kind": "{SECRET}"}}'])
@pytest.mark.parametrize("name", [MANIFEST, SAMPLES, "data.zarr/label/zarr.json"])
def test_nothing_of_a_linked_file_is_told(tmp_path: Path, name: str, said: str) -> None:
    """A link may lead to a file that the stranger could not read, but the reader can."""
    path = make(tmp_path / "c", "zarr")
    (tmp_path / "secret").write_text(said)
    (path / name).unlink()
    (path / name).symlink_to(tmp_path / "secret")
    with pytest.raises(CacheDamagedError) as error:
        read_all(path)
    assert SECRET not in str(error.value)
    assert not any(SECRET in f.what for f in check(path).faults)


def test_folders_in_folders_are_not_followed_without_end(tmp_path: Path) -> None:
    path = make(tmp_path / "c", "zarr")
    (path / "/".join(["x"] * 40)).mkdir(parents=True)
    assert Fault("/".join(["x"] * 13), "is neither a file nor a folder; it is not opened.") in (
        check(path).faults
    )


# manifests and tables


def test_a_huge_manifest_is_not_parsed(tmp_path: Path) -> None:
    path = make(tmp_path / "c", "zarr")
    with (path / MANIFEST).open("r+b") as file:
        file.truncate(MANIFEST_LIMIT + 1)
    refused(path, f"larger than {MANIFEST_LIMIT} bytes; not read")


def test_a_huge_provenance_is_not_parsed(tmp_path: Path) -> None:
    path = make(tmp_path / "c", "zarr")
    with (path / PROVENANCE).open("r+b") as file:
        file.truncate(1 << 34)
    with little_memory():
        assert any("larger than" in f.what for f in check(path).faults)


LONG = "x" * 2000
CLAIMS: dict[str, Callable[[dict[str, Any]], object]] = {
    "classes": lambda s: s["classes"].__setitem__(0, "a\x1b[2J"),
    "classes ": lambda s: s.update(classes=["a"] * 40_000),
    "classes  ": lambda s: s["classes"].__setitem__(0, LONG),
    "info": lambda s: s["info"].update(dataset=LONG),
    "info ": lambda s: s["info"].update(backbone=LONG),
    "info  ": lambda s: s["info"].update(images={str(k): 1 for k in range(100)}),
    "columns": lambda s: s["columns"]["label"].update(shape=[-20]),
    "columns ": lambda s: s["columns"]["label"].update(shape=[10**30]),
    "columns  ": lambda s: s["columns"].update({f"c{k}": s["columns"]["label"] for k in range(40)}),
    "columns   ": lambda s: s["columns"]["label"].update(dtype="object"),
    "rows": lambda s: s.update(rows=10**4000),
    "shard_rows": lambda s: s.update(shard_rows=0),
    "fingerprint": lambda s: s.update(fingerprint=LONG),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_manifest_that_claims_too_much(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "c", "hdf5")
    said = json.loads((path / MANIFEST).read_text())
    CLAIMS[name](said)
    (path / MANIFEST).write_text(json.dumps(said))
    refused(path, f"is not a manifest of schema 2: {name.strip()}: ")


def test_a_column_is_named_in_ascii(tmp_path: Path) -> None:
    path = make(tmp_path / "c", "hdf5")
    for name in ("../label", "a b", "ﬁ"):
        reseal(path, lambda s, n=name: s["columns"].update({n: s["columns"]["label"]}))
        refused(path, "is no name for a column")
        reseal(path, lambda s, n=name: s["columns"].pop(n))


def test_more_than_the_memory_that_is_free_is_not_begun(tmp_path: Path) -> None:
    path = make(tmp_path / "c", "zarr")
    with Cache(path) as cache:
        column = cache.manifest.columns["latents"]
        many = column.model_copy(update={"shape": (1 << 40, 24)})
        claimed = {**cache.manifest.columns, "latents": many}
        cache.manifest = cache.manifest.model_copy(update={"columns": claimed, "rows": 1 << 40})
        with pytest.raises(Refused, match="GB of memory"):
            cache.bulk()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("id", "../../etc/passwd", "leads out"),
        ("id", "a/../../b", "leads out"),
        ("id", "/etc/passwd", "leads out"),
        ("id", "a\x00b", "no plain text"),
        ("id", "a\x1b[2Jb", "no plain text"),
        ("id", "a\u202eb", "no plain text"),
        ("id", "\ud800", "half a character"),
        ("id", "x" * 5000, "at most 4096 characters"),
        ("id", ["a"], "its id is no text"),
        ("label", 3, "its label is no text"),
        ("label", "a\nb", "no plain text"),
        ("subject", None, "its subject is no text"),
        ("subject", {"a": 1}, "its subject is no text"),
        ("split", 0, "its split is no text"),
        ("status", "\x07", "no plain text"),
        ("reason", "x" * 70_000, "its reason is no text of at most"),
        ("row", -1, "its row is no number"),
        ("row", True, "its row is no number"),
        ("crop", 1 << 40, "its crop is no number"),
        ("crop", "7", "its crop is no number"),
    ],
)
def test_a_line_of_the_table_that_none_of_ours_states(
    tmp_path: Path, field: str, value: object, says: str
) -> None:
    path = make(tmp_path / "c", "hdf5")
    table = [json.loads(line) for line in (path / SAMPLES).read_text().splitlines()]
    table[4][field] = value
    (path / SAMPLES).write_text("".join(f"{json.dumps(row)}\n" for row in table))
    reseal(path, lambda said: said)
    refused(path, rf"samples\.jsonl, line 5: .*{says}")


@pytest.mark.parametrize("name", ["a/b.png", "ä ö/ü 1.png", "..png", "a..b/c", "0001", "a\\b", "~"])
def test_ids_as_data_sets_have_them_pass(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / "c", "hdf5")
    table = [json.loads(line) for line in (path / SAMPLES).read_text().splitlines()]
    table[4]["id"] = name
    write_json_lines(path / SAMPLES, table)
    reseal(path, lambda said: said)
    with Cache(path) as cache:
        assert cache.samples()[4]["id"] == name


def test_a_cache_without_a_column_is_a_sentence(tmp_path: Path) -> None:
    with (
        Cache(make(tmp_path / "c", "zarr")) as cache,
        pytest.raises(CacheDamagedError, match="has no column status"),
    ):
        cache.side("status")


def test_what_we_write_passes(tmp_path: Path, store: str) -> None:
    """Many rows a shard, and a single one."""
    read_all(make(tmp_path / "a", store, kind="crops", rows=100))
    read_all(make(tmp_path / "b", store, rows=1))
    assert Manifest.model_validate(json.loads((tmp_path / "a" / MANIFEST).read_text())).intact


def test_a_sentence_does_not_command_a_terminal(here: Run, tmp_path: Path) -> None:
    """Whatever raises it: here it names a path."""
    said = here("cache", "info", tmp_path / "x\x1b[2J\u202e").stderr
    assert "There is no cache at" in said
    assert "x\\x1b[2J\\u202e: no such folder" in said
    assert not set(said) & set("\x1b\u202e")


def test_a_sentence_of_many_lines_keeps_them(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\n  b\x1b[2J\r\n\x07")
    assert capsys.readouterr().err == "a\n  b\\x1b[2J\\r\n\\x07\n"


def test_another_file_does_not_pass_for_a_provenance(tmp_path: Path) -> None:
    """A link to somebody's notebook: what provenance says is copied and exported."""
    path = make(tmp_path / "c", "zarr")
    (tmp_path / "private.ipynb").write_text(json.dumps({"cells": [SECRET]}, indent=1) + "\n")
    (path / PROVENANCE).unlink()
    (path / PROVENANCE).symlink_to(tmp_path / "private.ipynb")
    faults = check(path).faults
    assert [fault.what for fault in faults if "is not the provenance of a cache" in fault.what]
    assert SECRET not in str(faults)
