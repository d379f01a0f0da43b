"""Kill commands at random moments, over and over: what `make soak` and tests/test_soak.py do.

After each kill (-9, of the process alone, as the kernel does it when memory is
short) the same command must end with what an undisturbed run makes, and with
nothing else on the disk.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from cache.care.verify import verify
from cache.schema import read_manifest
from tests.command import without_costs
from tests.making import nothing
from tests.replicas import idx, put

Words = tuple[object, ...]
DIGITS = 5000  # three units of crops of 32 x 32
STORES = ("zarr", "hdf5")


class Zygote:
    """Starts commands at once (tests/zygote.py).  Use as a context manager."""

    def __init__(self, *prefix: str) -> None:
        """`prefix`: what its own command begins with, such as unshare."""
        self._prefix = prefix

    def __enter__(self) -> Zygote:
        self._process = subprocess.Popen(
            [*self._prefix, sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "NO_COLOR": "1"},
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, **what: object) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(what), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def start(self, words: Words, log: Path, largest: int = 0) -> int:
        """Process id of a command; `largest`: bytes that a file may have, as on a full disk."""
        return self._ask(argv=[str(word) for word in words], log=str(log), largest=largest)

    def wait(self, pid: int) -> int:
        """Exit status; below 0: killed by this signal."""
        return self._ask(wait=pid)

    def kill(self, pid: int) -> int:
        """Exit status, of whoever had ended before; what it has started must end with it."""
        # Whoever has ended is a zombie until it is waited for: the id is not used again.
        children = psutil.Process(pid).children(recursive=True)
        os.kill(pid, signal.SIGKILL)
        status = self.wait(pid)
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive, f"what was killed has started processes that live on: {alive}"
        return status

    def run(self, words: Words, log: Path, *, largest: int = 0) -> int:
        return self.wait(self.start(words, log, largest))

    def shell(self, *words: str) -> int:
        return self._ask(shell=words)


@dataclass
class Case:
    """A command whose end is known."""

    name: str
    words: Callable[[Path], Words]
    """The command, of the folder where it is to work."""
    before: Callable[[Path], object] = lambda _: None
    """What the folder must hold at the start."""
    whole: dict[str, object] = field(default_factory=dict)
    """What an undisturbed run leaves: see `left`."""
    seconds: float = 0.0
    """That it took."""


def left(folder: Path) -> dict[str, object]:
    """All that lies in `folder`, by name: of caches and runs what must be equal, else the size."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            found[name] = "folder"
        elif path.name == "manifest.json":
            found[name] = read_manifest(path.parent).model_dump()
            report = verify(path.parent, nothing)
            assert not report.faults, report.faults
        elif path.name == "metrics.json":
            found[name] = without_costs(json.loads(path.read_text()))
        elif path.name in ("log.jsonl", "resources.csv"):
            found[name] = "file"  # seconds and memory are never the same twice
        elif path.suffix in (".csv", ".jsonl", ".zip") or path.name == "replay.safetensors":
            found[name] = path.read_bytes()
        else:
            found[name] = "file"
    return found


class Soak:
    """All cases, on inputs that are made once."""

    def __init__(self, folder: Path, zygote: Zygote, seed: int = 0) -> None:
        self.folder, self.zygote = folder, zygote
        self._random = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.moments: Counter[str] = Counter()
        """How far the command was when it was killed."""
        self._inputs()
        self.cases = {case.name: case for case in self._cases()}

    def must(self, *words: object) -> str:
        """Run to the end; what it has said."""
        log = self.folder / "log"
        assert self.zygote.run(words, log) == 0, (words, log.read_text())
        return log.read_text()

    def _inputs(self) -> None:
        inputs = self.folder / "inputs"
        rng = np.random.default_rng(0)
        labels = (np.arange(DIGITS) % 10).astype(np.uint8)
        pixels = rng.integers(0, 60, (DIGITS, 28, 28)).astype(np.uint8)
        for row, label in enumerate(labels):  # a bar whose place says which class it is
            pixels[row, 2 * label : 2 * label + 4, 4:24] += 190
        for part, count in (("train", DIGITS), ("t10k", 500)):
            put(inputs / f"MNIST/raw/{part}-images-idx3-ubyte", idx(pixels[:count]))
            put(inputs / f"MNIST/raw/{part}-labels-idx1-ubyte", idx(labels[:count]))
        for row in range(300):  # two units of crops of 100 x 100
            path = inputs / "photos" / ("calm", "tense")[row % 2] / f"{row}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (60, 60, 3), dtype=np.uint8)).save(path)
        digits = ("--dataset", "mnist", "--root", inputs)
        self._digits: Words = digits
        self._photos: Words = ("--dataset", "folder", "--root", inputs / "photos",
                               "--face-crop", "off", "--workers", 2)  # fmt: skip
        self.must("crop", *digits, "--out", inputs / "crops")
        self._root: Words = ("--backbone", "lenet", "--weights", "random")
        for store in STORES:
            self.must("extract", "--crops", inputs / "crops", *self._root, "--store", store,
                       "--out", inputs / f"latents-{store}")  # fmt: skip

    def _cases(self) -> Iterator[Case]:
        inputs, digits, photos, root = (
            self.folder / "inputs",
            self._digits,
            self._photos,
            self._root,
        )
        crops, shards = inputs / "crops", self.folder / "shards"
        for store in STORES:
            at = ("--store", store, "--out")
            yield Case(f"crop {store}", lambda d, at=at: ("crop", *digits, *at, d / "c"))
            yield Case(f"crop photos {store}", lambda d, at=at: ("crop", *photos, *at, d / "c"))
            yield Case(
                f"extract {store}",
                lambda d, at=at: ("extract", "--crops", crops, *root, *at, d / "l"),
            )
            yield Case(
                f"extract with crops {store}",
                lambda d, at=at: ("extract", *digits, "--crops", d / "c", *root, *at, d / "l"),
            )
            yield Case(
                f"crop again {store}",
                lambda d, at=at: ("crop", *digits, *at, d / "c", "--overwrite"),
                lambda d, store=store: self.must(
                    "crop", *digits, "--store", store, "--out", d / "c"
                ),
            )
            other = STORES[1 - STORES.index(store)]
            yield Case(
                f"convert to {store}",
                lambda d, store=store, other=other: (
                    "cache", "convert", inputs / f"latents-{other}", d / "l", "--store", store
                ),
            )  # fmt: skip
            yield Case(
                f"train on {store}",
                lambda d, store=store: (
                    "train", "--strategy", "lgr+d", "--cache", inputs / f"latents-{store}",
                    "--tasks", 5, "--iters", 40, "--seeds", "0,1", "--resume", "--out", d / "r",
                ),
            )  # fmt: skip
            yield Case(
                f"repair {store}",
                lambda d, other=other: (
                    "cache", "repair", d / "l", "--from", inputs / f"latents-{other}"
                ),
                lambda d, store=store: _damaged(inputs / f"latents-{store}", d / "l"),
            )  # fmt: skip
            yield Case(
                f"export {store}",
                lambda d, store=store: (
                    "cache", "export", inputs / f"latents-{store}", d / "l.zip", "--to", "zip"
                ),
            )  # fmt: skip
        for store in STORES:
            for shard in ("0/2", "1/2"):
                self.must("extract", *digits, "--crops", shards / store / "c", *root, "--store",
                           store, "--out", shards / store / "l", "--shard", shard)  # fmt: skip
            yield Case(
                f"finalize {store}",
                lambda d: ("extract", "finalize", "--crops", d / "c", "--out", d / "l"),
                lambda d, store=store: shutil.copytree(shards / store, d, dirs_exist_ok=True),
            )

    @contextmanager
    def fresh(self, case: Case) -> Iterator[Path]:
        folder = self.folder / "work"
        folder.mkdir()
        try:
            case.before(folder)
            yield folder
        finally:
            shutil.rmtree(folder)

    def undisturbed(self, name: str) -> Case:
        """The case, with its end known."""
        case = self.cases[name]
        if not case.whole:
            with self.fresh(case) as folder:
                started = time.monotonic()
                self.must(*case.words(folder))
                case.seconds = time.monotonic() - started
                case.whole = left(folder)
        return case

    def kill(self, name: str, times: int = 1) -> None:
        """Kill the command `times` times in a row, at random moments; then let it end."""
        case = self.undisturbed(name)
        with self.fresh(case) as folder:
            before = len(list(folder.rglob("*")))
            done = 0
            while done < times:
                moment = self._random.uniform(0, case.seconds)
                pid = self.zygote.start(case.words(folder), self.folder / "log")
                time.sleep(moment)
                if self.zygote.kill(pid) != -signal.SIGKILL:
                    assert left(folder) == case.whole  # it was quicker
                    shutil.rmtree(folder)
                    folder.mkdir()
                    case.before(folder)
                    continue
                done += 1
                self.moments[_moment(folder, before)] += 1
            self.kills[name] += times
            self.must(*case.words(folder))
            assert left(folder) == case.whole, (
                name,
                sorted(left(folder).keys() ^ case.whole.keys()),
            )


def _damaged(cache: Path, copy: Path) -> None:
    """A copy with one byte that is not as it was, among the latents."""
    shutil.copytree(cache, copy)
    (largest,) = sorted(copy.rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)[
        -1:
    ]
    with largest.open("r+b") as file:
        file.seek(largest.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def _moment(folder: Path, before: int) -> str:
    there = [p.name for p in folder.rglob("*")]
    if {"manifest.json", "metrics.json"} & set(there):
        return "a finished folder was in its place"
    if any(name.startswith("cache-") for name in there):
        return "a store was being made"
    if len(there) > before:
        return "work in progress was on the disk"
    return "nothing was on the disk yet"
