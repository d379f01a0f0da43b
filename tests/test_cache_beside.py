"""A folder in which something is made is never deleted under its maker, and never begun in while
it is deleted."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cache import beside
from cache.care.collect import collect, remove
from cache.errors import CacheUnfinishedError

_RMTREE, _RENAME = shutil.rmtree, Path.rename


def _is_locked(folder: Path) -> bool:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _left(tmp_path: Path) -> Path:
    folder = tmp_path / ".a.convert-0123456789ab"
    folder.mkdir()
    return folder


def test_tidy_holds_the_lock_while_it_deletes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = _left(tmp_path), []

    def rmtree(path: Path, **options: Any) -> None:
        seen.append(_is_locked(path))
        _RMTREE(path, **options)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    beside.tidy(tmp_path / "a", "convert")
    assert seen == [True]
    assert not folder.exists()


def test_gc_holds_the_lock_while_it_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen = _left(tmp_path), []

    def rename(path: Path, to: Path) -> Path:
        seen.append(_is_locked(path))
        return _RENAME(path, to)

    (verdict,) = collect(tmp_path, 0)
    monkeypatch.setattr(Path, "rename", rename)
    assert remove(verdict, 0) == ""
    assert seen == [True]
    assert not folder.exists()


def test_gc_leaves_what_was_begun_after_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _left(tmp_path)
    (verdict,) = collect(tmp_path, 0)
    assert verdict.goes
    handle = os.open(folder, os.O_RDONLY)
    monkeypatch.setattr("cache.care.collect._judge", lambda *_: verdict)  # before it was locked
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert "at work" in remove(verdict, 0)
    os.close(handle)
    assert folder.exists()
    assert remove(verdict, 0) == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["open", "flock"])
def test_a_maker_whose_folder_was_deleted_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Deleted between its making and its lock."""
    where: Any = os if moment == "open" else fcntl
    real = getattr(where, moment)

    def late(*words: Any) -> Any:
        for path in tmp_path.iterdir():
            path.rmdir()
        return real(*words)

    monkeypatch.setattr(where, moment, late)
    maker = beside.scratch(tmp_path / "a", "convert")
    with pytest.raises(CacheUnfinishedError, match="run the command again"), maker:
        pass


def test_a_maker_keeps_its_folder(tmp_path: Path) -> None:
    with beside.scratch(tmp_path / "a", "convert") as folder:
        beside.tidy(tmp_path / "a", "convert")
        assert folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_what_only_begins_like_ours_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "a"
    mine = tmp_path / ".a.convert-my_own_notes"
    (mine / "keep").mkdir(parents=True)
    other = tmp_path / ".a.replaced-b.work-0123456789ab.16.2"
    other.mkdir()
    beside.tidy(out, "convert")
    beside.forget(out)
    assert mine.is_dir()
    assert other.is_dir()
