"""Checkpoints: a run that was killed goes on at the task where it was.

    RUN/checkpoints/
        settings.json            what decides the run's figures
        seed-0/
            task-3.safetensors   what answers after task 3; kept for every task
            resume.safetensors   all that is needed to go on; the latest only, for it can be large
            result.safetensors   when the seed is done, instead of it: figures and answers

Each file is whole or not there: what it is about (one JSON text) and a digest over that text and
all tensors are in its own metadata.  Files are untrusted: bounded, validated, never unpickled.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from blake3 import blake3
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cache.errors import Refused
from cache.files import sync, write_json
from cache.fingerprint import canonical_json, differences, fingerprint
from cache.printable import printable
from pipeline.tensors import DTYPES, HEADER_LIMIT, bytes_of, dtype_of, write_tensors

_SETTINGS, _RESUME, _RESULT = "settings.json", "resume.safetensors", "result.safetensors"
_ABOUT, _DIGEST = "lgr-pipe", "digest"
"""Keys of the metadata."""
_MOST_TASKS = 100_000
_SHOWN = 500  # characters of a parser's complaint that are passed on


class _About(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal["lgr-pipe checkpoint 1"] = "lgr-pipe checkpoint 1"
    settings: str
    """Fingerprint of the run's settings."""
    seed: int


class _Task(_About):
    kind: Literal["task"] = "task"
    learnt: int = Field(ge=1, le=_MOST_TASKS)


class _Resume(_About):
    kind: Literal["resume"] = "resume"
    learnt: int = Field(ge=1, le=_MOST_TASKS)
    record: dict[str, Any]


class _Result(_About):
    kind: Literal["result"] = "result"
    entry: dict[str, Any]


class _Settings(BaseModel):
    """settings.json."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: Literal["lgr-pipe checkpoints 1"] = "lgr-pipe checkpoints 1"
    settings: dict[str, Any]


_Kind = TypeVar("_Kind", _Task, _Resume, _Result)


@dataclass(frozen=True)
class Saved:
    """Where a seed's run can go on."""

    learnt: int
    """Tasks learnt, 1-based: at least 1, at most 100 000; who resumes knows how many there are."""
    state: dict[str, Tensor]
    """On the CPU, in memory of their own."""
    record: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run; one process at a time writes them, or, after `tidy`, one for each
    seed."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        """`folder`: RUN/checkpoints.  `settings` (JSON): all that decides the run's figures.

        Does not touch the disk.
        """
        self.folder = folder
        self._settings: dict[str, Any] = json.loads(canonical_json(settings))
        self._key = fingerprint(settings)
        self._begun: set[int] = set()
        self._tidy: set[int] = set()

    def tidy(self, seeds: Iterable[int]) -> None:
        """Remove what a kill left half written, before several processes write these seeds."""
        seeds = list(seeds)
        for folder in (self.folder, *map(self._folder, seeds)):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink()
        self._tidy.update(seeds)

    def save(
        self,
        seed: int,
        learnt: int,
        model: dict[str, Tensor],
        state: dict[str, Tensor],
        record: dict[str, Any],
    ) -> None:
        """After task `learnt` (1-based): `model`, then `state` and `record` in one file.

        Tensors of any device, layout and shape, also 0-d and with shared storage, of the dtypes
        that numpy has.  `record` is JSON (None, not NaN, for what is undefined) and comes back in
        the same order.  While it runs, the disk holds the last `state` and this one.

        Raises:
            OSError: it cannot be written; the checkpoint before is as it was.
            Refused: the folder holds checkpoints of a run with other settings.
            ValueError: another dtype, no JSON, or a `learnt` out of range.
        """
        about: dict[str, Any] = {"settings": self._key, "seed": seed, "learnt": learnt}
        task, resume = _Task(**about), _Resume(**about, record=record)
        folder = self._begin(seed)
        _write(folder / f"task-{learnt}.safetensors", task, model)
        _write(folder / _RESUME, resume, state)

    def latest(self, seed: int) -> Saved | None:
        """The state that was saved last; None where there is none.

        Raises:
            Refused: it is damaged, foreign, or of other settings.
        """
        found = self._read(seed, _RESUME, _Resume)
        return found and Saved(found[0].learnt, found[1], found[0].record)

    def finish(
        self, seed: int, entry: dict[str, Any], arrays: Mapping[str, NDArray[np.generic]]
    ) -> None:
        """The seed is done: its result, and only then no more state to go on from.

        Raises:
            OSError, Refused, ValueError: as `save`.
        """
        result = _Result(settings=self._key, seed=seed, entry=entry)
        folder = self._begin(seed)
        # np.array, for its copy is writable, contiguous and, unlike ascontiguousarray's, 0-d.
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
        _write(folder / _RESULT, result, tensors)
        (folder / _RESUME).unlink(missing_ok=True)

    def finished(self, seed: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]] | None:
        """`entry` and `arrays` of a seed that is done; None of one that is not.

        Raises:
            Refused: they are damaged, foreign, or of other settings.
        """
        found = self._read(seed, _RESULT, _Result)
        if found is None:
            return None
        (self._folder(seed) / _RESUME).unlink(missing_ok=True)  # killed just before, in `finish`
        return found[0].entry, {name: tensor.numpy() for name, tensor in found[1].items()}

    def refuse_other(self) -> None:
        """Raise Refused if the checkpoints here are of a run with other settings, naming each."""
        path = self.folder / _SETTINGS
        if not path.is_file():
            return
        try:
            if path.stat().st_size > HEADER_LIMIT:
                raise ValueError(f"it is longer than {HEADER_LIMIT} bytes")
            found = _Settings.model_validate(json.loads(path.read_bytes())).settings
            lines = differences(self._settings, found)
        except (ValueError, RecursionError) as error:
            raise self._damaged(path, error) from None
        if lines:
            shown = "\n  ".join(printable(line[:_SHOWN]) for line in lines[:20])
            more = f"\n  and {len(lines) - 20} more" if len(lines) > 20 else ""
            raise Refused(
                f"{self.folder} holds checkpoints of a run with other settings:\n  {shown}{more}\n"
                "Use the settings that are found there, or start anew: --overwrite, not --resume."
            )

    def refuse_link(self) -> None:
        """Raise Refused if `clear` would."""
        if self.folder.is_symlink():
            raise Refused(
                f"{self.folder} is a symbolic link, and what it leads to is not deleted: "
                "remove the link, or choose another --out."
            )

    def clear(self) -> None:
        """Remove all that was ever written here, and nothing else; links are not followed.

        Raises:
            Refused: the folder itself is a symbolic link.
        """
        self.refuse_link()
        if not self.folder.is_dir():
            return
        self._begun.clear()
        for seed in sorted(self.folder.iterdir()):
            if not re.fullmatch(r"seed-\d+", seed.name):
                continue
            if seed.is_symlink():
                seed.unlink()
            elif seed.is_dir():
                _remove_ours(seed)
        _remove_ours(self.folder)  # the settings last: until then they say whose the rest is

    def _folder(self, seed: int) -> Path:
        return self.folder / f"seed-{seed:d}"

    def _begin(self, seed: int) -> Path:
        """The seed's folder, made if need be; without what a kill left half written."""
        folder = self._folder(seed)
        if seed in self._begun:
            return folder
        self.refuse_other()
        folder.mkdir(parents=True, exist_ok=True)
        if seed not in self._tidy:
            self.tidy([seed])
        if not (self.folder / _SETTINGS).exists():
            about = _Settings(settings=self._settings)
            write_json(self.folder / _SETTINGS, about.model_dump())
        sync(self.folder)
        sync(self.folder.parent)
        self._begun.add(seed)
        return folder

    def _read(
        self, seed: int, name: str, kind: type[_Kind]
    ) -> tuple[_Kind, dict[str, Tensor]] | None:
        path = self._folder(seed) / name
        if not path.is_file():
            return None
        try:
            about, tensors = _load(path, kind)
        except (SafetensorError, ValueError, RecursionError) as error:
            raise self._damaged(path, error) from None
        if (about.settings, about.seed) != (self._key, seed):
            raise Refused(f"{path} is of a run with other settings or seeds. {self._advice}")
        return about, tensors

    def _damaged(self, path: Path, error: Exception) -> Refused:
        why = " ".join(str(error).splitlines()[:3])
        return Refused(
            f"{path} is damaged or no checkpoint: {printable(why[:_SHOWN])}. {self._advice}"
        )

    @property
    def _advice(self) -> str:
        return f"Delete {self.folder}, or run with --overwrite and without --resume, to start anew."


def _write(path: Path, about: _About, tensors: Mapping[str, Tensor]) -> None:
    """One safetensors file, whole or not there."""
    plain = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    text = json.dumps(about.model_dump(), allow_nan=False)
    write_tensors(path, {_ABOUT: text, _DIGEST: _digest(text, plain)}, plain)


def _load(path: Path, kind: type[_Kind]) -> tuple[_Kind, dict[str, Tensor]]:
    """What `_write` wrote.

    Raises:
        SafetensorError, ValueError, RecursionError: it is not that.
    """
    with path.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
    if length > HEADER_LIMIT:
        raise ValueError(f"the header is longer than {HEADER_LIMIT} bytes")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if not {_ABOUT, _DIGEST} <= metadata.keys():
            raise ValueError("lgr-pipe has not written it")
        text, digest = metadata[_ABOUT], metadata[_DIGEST]
        about = kind.model_validate(_plain_json(text))
        names = list(file.keys())
        if not all(file.get_slice(name).get_dtype() in DTYPES.values() for name in names):
            raise ValueError("it holds a dtype that is never written")
        # A copy: what safe_open gives is the file itself, which the next save replaces.
        tensors = {name: file.get_tensor(name).clone() for name in names}
    if _digest(text, tensors) != digest:
        raise ValueError("it does not have its digest")
    return about, tensors


def _plain_json(text: str) -> Any:
    """Raises ValueError: no JSON, or NaN or infinity, which metrics.json could not hold."""
    value = json.loads(text)
    json.dumps(value, allow_nan=False)  # "NaN" is read as one, and 1e999 as infinity
    return value


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """Of everything that a file says: names, dtypes, shapes, values."""
    found = blake3(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        found.update(f"\n{name} {dtype_of(name, tensor)} {list(tensor.shape)}\n".encode())
        found.update(bytes_of(tensor))
    return f"blake3:{found.hexdigest()}"


def _remove_ours(folder: Path) -> None:
    """The files that are written into a folder, and the folder if nothing is left in it."""
    for path in sorted(folder.iterdir()):
        unfinished = re.fullmatch(r"\.(.+)\.[0-9a-f]{12}\.tmp", path.name)
        name = unfinished[1] if unfinished else path.name
        ours = re.fullmatch(r"settings\.json|(task-\d+|resume|result)\.safetensors", name)
        if ours and (path.is_symlink() or path.is_file()):
            path.unlink()
    with contextlib.suppress(OSError):  # somebody else's file is in it
        folder.rmdir()
