"""`lgr-pipe train` end to end: kills, foreign checkpoints, protocols, validation rows, costs."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cache.parts import Parts, Plan
from cache.schema import Info
from cache.writer import Content, publish
from pipeline.checkpoints import Checkpoints
from tests.command import Run, without_costs
from tests.making import make_crops, make_latents

CLASSES = ("calm", "glad", "angry", "sad", "afraid", "proud")
FLAT = ("accuracy_matrix.csv", "curve.csv", "predictions.csv", "replay.safetensors")
OPTIONS: dict[str, tuple[str, ...]] = {
    "none": (),
    "joint": (),
    "cumulative": (),
    "lr": ("--buffer-size", "12", "--buffer-policy", "balanced"),
    "nr": ("--buffer-size", "12"),
    "lgr+d": ("--generator-units", "16", "--z", "4"),
}


@dataclass(frozen=True)
class World:
    """Tiny images of six classes, their crops, and latents of a random LeNet."""

    crops: Path
    latents: Path

    def words(self, strategy: str, out: Path, *more: object) -> list[str]:
        """The command: three tasks, two seeds; what is given later prevails."""
        crops = ("--crops", self.crops) if strategy == "nr" else ()
        given = (
            "train", "--strategy", strategy, "--cache", self.latents, "--out", out, "--tasks", 3,
            "--iters", 8, "--batch-size", 6, "--lr", "0.003", "--seeds", "0-1", "--device", "cpu",
            *OPTIONS[strategy], *crops, *more,
        )  # fmt: skip
        return [str(word) for word in given]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Gratings, one direction a class: 8 images each to learn and 3 to test."""
    root = tmp_path_factory.mktemp("gratings")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32] / 3
    for k, name in enumerate(CLASSES):
        angle = k * np.pi / len(CLASSES)
        for split, count in (("train", 8), ("test", 3)):
            folder = root / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                wave = np.sin(x * np.cos(angle) + y * np.sin(angle) + rng.uniform(0, 6))
                noisy = np.clip(128 + 60 * wave + rng.normal(0, 40, wave.shape), 0, 255)
                Image.fromarray(noisy.astype(np.uint8)).convert("RGB").save(folder / f"{i}.png")
    make_crops(root / "crops", ("folder", root / "images"), face_crop="off", size=32)
    make_latents(root / "lenet", root / "crops", "lenet")
    return World(root / "crops", root / "lenet")


def make_vectors(out: Path, *, turn: int = 0, noise: float = 0.0) -> Path:
    """A latent cache of 6 numbers a row, 8 rows to learn and 4 to test of each class; the test
    rows' labels are turned by `turn`, their values moved by `noise`."""
    rng = np.random.default_rng(1)
    labels, split = np.arange(72) % 6, (np.arange(72) >= 48).astype(np.uint8)
    rows = (np.eye(6)[labels] * 0.6 + rng.random((72, 6)) * 0.4).astype(np.float32)
    rows[split == 1] *= 1 - noise
    labels = np.where(split == 1, (labels + turn) % 6, labels).astype(np.int16)
    info = Info(dataset="d", backbone="b", weights="w", value_range=(0.0, 1.0))
    plan = Plan(
        kind="latents", settings={"kind": "latents"}, dtype="float32", row_shape=(6,), rows=72,
        unit_rows=72, store="zarr", classes=CLASSES, info=info,
    )  # fmt: skip
    parts = Parts(out, plan).start()
    parts.write(0, rows, {"first": 0})
    side = {"label": labels, "subject": np.full(72, -1, dtype=np.int32), "split": split}
    samples = [{"row": k, "id": f"{k}.png"} for k in range(72)]
    content = Content(side, samples, CLASSES, info, {"made": "now"})
    publish(parts, content, store="zarr", overwrite=False, shard_rows=64)
    return out


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("vectors")
    return World(root / "none", make_vectors(root / "latents"))


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stderr


def refused(done: subprocess.CompletedProcess[str], *says: str) -> str:
    flat = " ".join(done.stderr.split())
    assert done.returncode == 2, flat
    assert "Traceback" not in flat
    for text in says:
        assert text in flat, flat
    return flat


def metrics_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return found


def figures_of(out: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What must be equal for equal settings."""
    return without_costs(metrics_of(out)), {name: (out / name).read_bytes() for name in FLAT}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def events_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


# --- killed, interrupted, resumed ---------------------------------------------------------

DRIVER = """
import contextlib, json, os, signal, sys
from pathlib import Path
import pipeline.cli_train, pipeline.image_root, pipeline.stage_two
from pipeline import cli
from pipeline.events import Events
from stages import strategies

for name in strategies.names():
    strategies.module(name)

def arm(number, where, count):
    owner, name = {"rename": (Path, "replace"), "event": (Events, "write")}[where]
    original, left = getattr(owner, name), [count]

    def once(*words, **named):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), number)
        return original(*words, **named)

    setattr(owner, name, once)

for number, where, count, words, said in json.loads(sys.argv[1]):
    child = os.fork()
    if child:
        _, status, usage = os.wait4(child, 0)
        seconds = usage.ru_utime + usage.ru_stime
        print(json.dumps([os.waitstatus_to_exitcode(status), seconds, usage.ru_maxrss * 1024]))
        continue
    code = 70
    try:
        out = os.open(said, os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 2)
        # A shell lets what it starts in the background ignore Ctrl-C, and that is inherited.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if number:
            arm(number, where, count)
        sys.argv = ["lgr-pipe", *words]
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.stderr.flush()
        os._exit(code)
"""
"""Runs commands in processes of their own, each ended by a signal as it comes to its n-th rename
(of a file that is whole) or event of the log.  A fork: the imports are paid for once."""

# With three tasks and two seeds: run.json is rename 1, settings.json 2; task-k and resume of seed 0
# are 3 to 8, its result 9; seed 1's are 10 to 16; the flat files are 17 to 21, run.json again 22,
# metrics.json 23.
# A seed has 14 events: seed, three times (learning, losses, learnt, checkpoint), finished.
KILLS = [
    ("lr", "rename", 2),
    ("lr", "rename", 5),
    ("lr", "event", 20),
    ("lgr+d", "rename", 4),
    ("lgr+d", "rename", 23),
    ("nr", "event", 7),
    ("nr", "rename", 14),
    ("nr", "rename", 22),
    ("joint", "rename", 4),
    ("cumulative", "rename", 6),
]
STOP = ("lr", "event", 9)
LONG = ("--iters", 100, "--batch-size", 128, "--period", "0.02")


def driven(cases: list[list[Any]]) -> list[tuple[int, float, int]]:
    """Exit code, CPU seconds and peak resident bytes of each."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(cases)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "300"},
        cwd=Path(__file__).parent.parent,
        check=True,
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@dataclass(frozen=True)
class Driven:
    out: Path
    words: list[str]
    code: int
    cpu_seconds: float
    peak_bytes: int
    said: str


@pytest.fixture(scope="module")
def stopped(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Driven]:
    """All cases of KILLS, STOP, and None: a long run that nobody disturbs."""
    root = tmp_path_factory.mktemp("stopped")
    wanted: dict[Any, tuple[int, str, int, list[str]]] = {}
    for k, (strategy, where, count) in enumerate(KILLS):
        words = world.words(strategy, root / str(k))
        wanted[KILLS[k]] = (signal.SIGKILL, where, count, words)
    wanted[STOP] = (signal.SIGINT, *STOP[1:], world.words("lr", root / "stop"))
    wanted[None] = (0, "", 0, world.words("lgr+d", root / "long", *LONG))
    cases = [[*case, str(root / f"{k}.txt")] for k, case in enumerate(wanted.values())]
    return {
        key: Driven(
            Path(words[words.index("--out") + 1]), words, *result, Path(case[-1]).read_text()
        )
        for (key, (*_, words)), case, result in zip(
            wanted.items(), cases, driven(cases), strict=True
        )
    }


@pytest.fixture(scope="module")
def undisturbed(
    here: Run, world: World, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("undisturbed")
    for strategy in OPTIONS:
        ok(here(*world.words(strategy, root / strategy)))
    return {strategy: root / strategy for strategy in OPTIONS}


@pytest.mark.parametrize("case", KILLS, ids=lambda case: " ".join(map(str, case)))
def test_a_killed_run_goes_on_as_if_nothing_had_been(
    here: Run,
    stopped: dict[Any, Driven],
    undisturbed: dict[str, Path],
    case: tuple[str, str, int],
) -> None:
    killed = stopped[case]
    assert killed.code == -signal.SIGKILL, killed.said
    assert not (killed.out / "metrics.json").exists()
    before = sorted(killed.out.rglob("*"))
    refused(here(*killed.words), "a run that was not finished", "--resume", "--overwrite")
    assert sorted(killed.out.rglob("*")) == before
    ok(here(*killed.words, "--resume"))
    assert figures_of(killed.out) == figures_of(undisturbed[case[0]])
    assert not list(killed.out.rglob("*.tmp"))
    assert len(events_of(killed.out)) > 10  # every line is whole
    for entry in metrics_of(killed.out)["runs"]:
        assert entry["resources"]["total"]["wall_seconds"] > 0
        assert {"solver", "evaluation", "load", "other"} <= entry["resources"]["phases"].keys()


def test_ctrl_c_says_how_to_go_on(
    here: Run, stopped: dict[Any, Driven], undisturbed: dict[str, Path]
) -> None:
    halted = stopped[STOP]
    assert halted.code == 130, halted.said
    assert "with --resume goes on from there" in halted.said
    assert "Traceback" not in halted.said
    ok(here(*halted.words, "--resume"))
    assert figures_of(halted.out) == figures_of(undisturbed["lr"])


def test_resuming_asks_for_the_same_settings(here: Run, world: World, tmp_path: Path) -> None:
    out = tmp_path / "r"
    ok(here(*world.words("lr", out), "--seeds", "0"))
    before = figures_of(out)
    for words, says in (
        (("--lr", "0.004"), "train.lr: expected 0.004, found 0.003"),
        (("--buffer-size", "13"), "options.buffer_size: expected 13, found 12"),
        (("--protocol", "released"), "train.protocol"),
        (("--scenario", "class"), "train.scenario"),
        (("--strategy", "none"), "strategy: expected"),
    ):
        given = [*world.words("lr", out, *words), "--resume"]
        if words[0] == "--strategy":
            given = [*world.words("none", out), "--resume"]
        refused(here(*given), says)
    assert figures_of(out) == before
    other = World(world.crops, make_vectors(tmp_path / "other"))
    refused(here(*other.words("lr", out), "--resume"), "cache: expected")
    refused(here(*world.words("lr", out), "--resume", "--overwrite"), "give one of them")


def test_more_seeds_are_added_to_a_finished_run(
    here: Run, world: World, undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    """Also where there is nothing yet, as in a job that may be the first or may be sent again."""
    out = tmp_path / "r"
    ok(here(*world.words("lr", out, "--seeds", "0"), "--resume"))
    seed = (out / "checkpoints" / "seed-0" / "result.safetensors").read_bytes()
    refused(here(*world.words("lr", out)), "finished run", "--overwrite")
    ok(here(*world.words("lr", out), "--resume"))
    assert figures_of(out) == figures_of(undisturbed["lr"])
    ok(here(*world.words("lr", out), "--resume"))  # nothing to do
    assert figures_of(out) == figures_of(undisturbed["lr"])
    assert (out / "checkpoints" / "seed-0" / "result.safetensors").read_bytes() == seed
    shutil.rmtree(out / "checkpoints")
    refused(here(*world.words("lr", out), "--resume"), "without its checkpoints")


def test_two_processes_are_not_at_work_in_one_folder(
    here: Run, world: World, tmp_path: Path
) -> None:
    out = tmp_path / "r"
    out.mkdir()
    handle = os.open(out, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    refused(here(*world.words("lr", out)), "Another run is at work")
    assert not list(out.iterdir())
    os.close(handle)
    ok(here(*world.words("lr", out)))


def test_what_cannot_begin_costs_no_result(
    here: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r"
    ok(here(*world.words("lr", out), "--seeds", "0"))
    before = figures_of(out)
    groups = ("--class-order", "calm;glad,angry;sad,afraid,proud", "--uneven")
    again = [*world.words("lr", out), "--overwrite"]
    refused(here(*again, "--protocol", "released", *groups), "Put the largest task first")
    refused(here(*again, "--scenario", "domain", *groups), "tasks of one size")
    refused(here(*again, "--tensorboard", out / "board"), "choose a folder beside it")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    refused(here(*again, "--tensorboard", tmp_path / "board"), "lgr-pipe[tensorboard]")
    (out / "checkpoints").rename(tmp_path / "elsewhere")
    (out / "checkpoints").symlink_to(tmp_path / "elsewhere")
    refused(here(*again), "is a symbolic link")
    assert figures_of(out) == before
    new = world.words("lr", tmp_path / "new", "--protocol", "released", *groups)
    refused(here(*new), "Put the largest task first")
    assert not (tmp_path / "new").exists()


def test_overwriting_leaves_nothing_of_the_run_before(
    here: Run, world: World, undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "r"
    ok(here(*world.words("none", out, "--seeds", "5-7", "--tasks", "2")))
    ok(here(*world.words("lr", out), "--overwrite"))
    assert figures_of(out) == figures_of(undisturbed["lr"])
    kept = {str(p.relative_to(out)) for p in out.rglob("*")}
    assert kept == {str(p.relative_to(undisturbed["lr"])) for p in undisturbed["lr"].rglob("*")}
    assert {event["seed"] for event in events_of(out) if "seed" in event} == {0, 1}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_disk_that_fills_up_leaves_a_run_to_go_on_with(
    here: Run,
    world: World,
    undisturbed: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, open_, left = tmp_path / "r", Path.open, [9]

    def filling(self: Path, mode: str = "r", *words: Any, **named: Any) -> Any:
        """From the 9th file that is written on, there is no room."""
        left[0] -= self.name.endswith(".tmp")
        full = left[0] <= 0 and self.name.endswith(".tmp")
        if full:
            open_(self, mode).close()
        return open_(Path("/dev/full") if full else self, mode, *words, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", filling)
        done = here(*world.words("lr", out))
    assert done.returncode == 1
    assert "No space left on device. What was finished is kept" in done.stderr
    assert not list(out.rglob("*.tmp"))
    assert not (out / "metrics.json").exists()
    ok(here(*world.words("lr", out), "--resume"))
    assert figures_of(out) == figures_of(undisturbed["lr"])


# --- checkpoints from someone else ----------------------------------------------------------

State = dict[str, torch.Tensor]
Record = dict[str, Any]


@dataclass(frozen=True)
class Base:
    """What a run saves of seed 0 after its second task, and when it is done."""

    settings: dict[str, Any]
    model: State
    state: State
    record: Record
    entry: dict[str, Any]
    arrays: dict[str, Any]


@pytest.fixture(scope="module")
def bases(here: Run, world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Base]:
    root, found, save = tmp_path_factory.mktemp("bases"), {}, Checkpoints.save
    for strategy in ("lr", "lgr+d"):
        kept: list[Any] = []

        def spy(self: Checkpoints, *words: Any, kept: list[Any] = kept) -> None:
            kept.append(deepcopy(words))  # of tensors that go on learning
            save(self, *words)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Checkpoints, "save", spy)
            ok(here(*world.words(strategy, root / strategy, "--seeds", "0")))
        folder = root / strategy / "checkpoints"
        settings = json.loads((folder / "settings.json").read_text())["settings"]
        done = Checkpoints(folder, settings).finished(0)
        assert done is not None
        _, learnt, model, state, record = kept[1]
        assert learnt == 2
        found[strategy] = Base(settings, model, state, record, *done)
    return found


Change = Callable[[int, State, Record], object]


def _set(name: str, value: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    def change(_: int, state: State, __: Record) -> None:
        state[name] = value(state[name])

    return change


def _without(*starts: str) -> Change:
    def change(_: int, state: State, __: Record) -> None:
        gone = [name for name in state if name.startswith(starts)]
        assert gone
        for name in gone:
            del state[name]

    return change


def _record(**values: Any) -> Change:
    return lambda _, __, record: record.update(values)


def _row(name: str, value: Any) -> Change:
    def change(_: int, __: State, record: Record) -> None:
        record[name] = [*record[name][:-1], value]

    return change


def _resources(path: tuple[str, ...], value: Any) -> Change:
    def change(_: int, __: State, record: Record) -> None:
        inner = record["resources"]
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value

    return change


def _replay(**values: Any) -> Change:
    return lambda _, __, record: record["replay"][-1].update(values)


RECORDS: dict[str, Change] = {
    "no step": _record(rows=[], also_rows=[], seconds=[]),
    "a step less": lambda _, __, record: [
        record[k].pop() for k in ("rows", "also_rows", "seconds")
    ],
    "a step more": lambda _, __, record: [
        record[k].append(record[k][-1]) for k in ("rows", "also_rows", "seconds")
    ],
    "many steps": lambda _, __, record: [
        record[k].extend([record[k][-1]] * 9) for k in ("rows", "also_rows", "seconds")
    ],
    "short row": _row("rows", [0.5, 0.5]),
    "long row": _row("rows", [0.5] * 4),
    "unknown accuracy": _row("rows", [0.5, None, 0.5]),
    "row of text": _row("rows", ["0.5", "0.5", "0.5"]),
    "row of truths": _row("rows", [True, True, True]),
    "no row": _row("rows", None),
    "above one": _row("rows", [0.5, 0.5, 1.5]),
    "also of an unmet task": _row("also_rows", [0.5, 0.5, 0.5]),
    "no also": _record(also_rows=[]),
    "untrained": _record(untrained=[]),
    "untrained unknown": _record(untrained=[None, None, None]),
    "negative seconds": _record(seconds=[1.0, -1.0]),
    "fewer seconds": _record(seconds=[1.0]),
    "strange": _record(more=1),
    "no resources": _record(resources=None),
    "resources of text": _record(resources="much"),
    "a phase of text": _resources(("phases", "solver"), "much"),
    "negative wall": _resources(("total", "wall_seconds"), -1.0),
    "no samples": _resources(("total", "samples"), None),
    "strange problem": _resources(("problems",), [3]),
    "strange figure": _resources(("total", "colour"), 1),
    "no resources of the record": lambda _, __, record: record["resources"].pop("record"),
    "no replay": lambda _, __, record: record.pop("replay"),  # as before it was recorded
    "a replay of nothing": _row("replay", {}),
    "a replay of another task": _replay(learnt=3),
    "a replay before any task": _replay(learnt=0),
    "the same replay twice": lambda _, __, record: record["replay"].append(record["replay"][-1]),
    "labels of other classes": _replay(labels={"calm": 3}),
    "labels of text": _replay(labels="many"),
    "a replay of another kind": _replay(kind="invented"),
    "negative spread": _replay(variance_ratio=-0.5),
    "agreement above one": _replay(ncm_agreement=1.5),
    "strange in the replay": _replay(more=1),
    "no series": lambda _, __, record: record.pop("series"),
    "a series of numbers": _record(series=[1, 2]),
    "a longer series than any": lambda _, __, record: record.update(series=record["series"] * 300),
    "a phase with an escape": lambda _, __, record: record["series"][0].update(phase="\x1b[2J"),
}
TENSORS: dict[str, tuple[str, Change]] = {
    "nothing": ("lr", lambda _, state, __: state.clear()),
    "no top": ("lr", _without("top.")),
    "no optimiser": ("lr", _without("optimiser.")),
    "no second moment": ("lr", _without("optimiser.0.exp_avg_sq")),
    "no step": ("lr", _without("optimiser.2.step")),
    "no buffer": ("lr", _without("buffer.")),
    "no dropout": ("lr", _without("dropout")),
    "one more": ("lr", lambda _, state, __: state.update({"x\x1b[2J": torch.ones(1)})),
    "one more moment": ("lr", lambda _, s, __: s.update({"optimiser.9.exp_avg": torch.ones(1)})),
    "short weight": ("lr", _set("top.hidden.weight", lambda w: w[:5])),
    "turned weight": ("lr", _set("top.output.weight", lambda w: w.T)),
    "double weight": ("lr", _set("top.output.weight", torch.Tensor.double)),
    "whole weight": ("lr", _set("top.output.weight", torch.Tensor.long)),
    # Adam reads past the end of these
    "short moment": ("lr", _set("optimiser.0.exp_avg", lambda m: m.flatten()[:2])),
    "moment of one": ("lr", _set("optimiser.0.exp_avg_sq", lambda m: m[:1, :1])),
    "whole moment": ("lr", _set("optimiser.1.exp_avg", torch.Tensor.long)),
    "steps": ("lr", _set("optimiser.0.step", lambda s: s.repeat(3))),
    "random state of floats": ("lr", _set("dropout", torch.Tensor.float)),
    "short random state": ("lr", _set("dropout", lambda d: d[:9])),
    "empty random state": ("lr", _set("dropout", torch.zeros_like)),
    "one latent for all": ("lr", _set("buffer.values", lambda v: v[:1])),
    "too many rows": ("lr", lambda _, state, __: [
        state.update({k: torch.cat([state[k]] * 2)}) for k in state if k in (
            "buffer.values", "buffer.targets", "buffer.tasks")]),
    "wide rows": ("lr", _set("buffer.values", lambda v: v.repeat(1, 2))),
    "whole rows": ("lr", _set("buffer.values", torch.Tensor.long)),
    "unknown class": ("lr", _set("buffer.targets", lambda t: t + 50)),
    "negative class": ("lr", _set("buffer.targets", lambda t: t - 50)),
    "unknown task": ("lr", _set("buffer.tasks", lambda t: t + 50)),
    "negative task": ("lr", _set("buffer.tasks", lambda t: t - 3)),
    "seen less": ("lr", _set("buffer.seen", lambda s: s * 0)),
    "seen nowhere": ("lr", _set("buffer.seen", lambda s: -s)),
    "places are missing": ("lr", _set("buffer.slots", lambda s: s[:-1])),
    "fewer kinds": ("lr", _set("buffer.kinds", lambda k: k[:-1])),
    "kinds of pairs": ("lr", _set("buffer.kinds", lambda k: k[:, :2])),
    "no generator": ("lgr+d", _without("vae.")),
    "no generator's moments": ("lgr+d", _without("vae_optimiser.")),
    "short generator": ("lgr+d", _set("vae.output.weight", lambda w: w[:-1])),
    "three numbers of tasks": ("lgr+d", _set("learnt", lambda _: torch.zeros(3))),
    "endless tasks": ("lgr+d", _set("learnt", lambda n: n * torch.inf)),
    "noise of floats": ("lgr+d", _set("noise", torch.Tensor.double)),
    "fewer labels of points": ("lr", _set("shown.label", lambda v: v[:-1])),
    "no points": ("lr", _without("shown.points")),
    "points that are none": ("lr", _set("shown.points", lambda p: p * torch.nan)),
    "strange points": ("lr", lambda _, state, __: state.update({"shown.x": torch.ones(1)})),
}  # fmt: skip


def _crafted(out: Path, base: Base, change: Change, learnt: int = 2) -> None:
    state = {name: tensor.clone() for name, tensor in base.state.items()}
    record = json.loads(json.dumps(base.record))
    change(learnt, state, record)
    checkpoints = Checkpoints(out / "checkpoints", base.settings)
    checkpoints.save(0, learnt, base.model, state, record)


def _refuses(here: Run, words: list[str]) -> None:
    out = Path(words[words.index("--out") + 1])
    before = sorted(p for p in out.rglob("*"))
    said = refused(here(*words, "--resume"), "checkpoint", "without --resume")
    assert said.isprintable()
    assert sorted(p for p in out.rglob("*")) == before


def test_a_checkpoint_made_by_hand_is_as_good_as_a_runs_own(
    here: Run, world: World, bases: dict[str, Base], undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    """The way of the tests below changes nothing.  What it cost before is in the costs."""
    for strategy, base in bases.items():
        out = tmp_path / strategy
        _crafted(out, base, _resources(("total", "wall_seconds"), 5000.0))
        ok(here(*world.words(strategy, out), "--resume"))
        assert figures_of(out) == figures_of(undisturbed[strategy])
        first, second = (entry["resources"]["total"] for entry in metrics_of(out)["runs"])
        assert 5000 < first["wall_seconds"] < 5060
        assert 0 < second["wall_seconds"] < 60
        assert first["samples"] > base.record["resources"]["total"]["samples"]
        lines = table(out / "resources.csv")
        seconds = [float(line["seconds"]) for line in lines if line["seed"] == "0"]
        before = [sample["seconds"] for sample in base.record["series"]]
        assert seconds == sorted(seconds)
        assert seconds[: len(before)] == before
        assert min(seconds[len(before) :]) > 5000  # goes on where the first part ended
        assert 0 < float(lines[-1]["seconds"]) < 60  # of the other seed, which was not resumed


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_that_does_not_fit_is_refused(
    here: Run, world: World, bases: dict[str, Base], tmp_path: Path, name: str
) -> None:
    _crafted(tmp_path / "r", bases["lr"], RECORDS[name])
    _refuses(here, world.words("lr", tmp_path / "r"))


@pytest.mark.parametrize("name", TENSORS)
def test_a_state_that_does_not_fit_is_refused(
    here: Run, world: World, bases: dict[str, Base], tmp_path: Path, name: str
) -> None:
    strategy, change = TENSORS[name]
    _crafted(tmp_path / "r", bases[strategy], change)
    _refuses(here, world.words(strategy, tmp_path / "r"))


@pytest.mark.parametrize("learnt", [1, 3, 4, 1000])
def test_other_tasks_learnt_than_the_record_says_are_refused(
    here: Run, world: World, bases: dict[str, Base], tmp_path: Path, learnt: int
) -> None:
    _crafted(tmp_path / "r", bases["lr"], lambda *_: None, learnt)
    _refuses(here, world.words("lr", tmp_path / "r"))


def test_a_state_of_numbers_that_are_none_is_refused(
    here: Run, world: World, bases: dict[str, Base], tmp_path: Path
) -> None:
    nan = _set("top.output.weight", lambda w: w * torch.nan)
    _crafted(tmp_path / "r", bases["lr"], nan)
    refused(here(*world.words("lr", tmp_path / "r"), "--resume"), "diverged")


ENTRIES: dict[str, Callable[[dict[str, Any], dict[str, Any]], object]] = {
    "empty": lambda entry, _: entry.clear(),
    "no accuracy": lambda entry, _: entry.pop("average_accuracy"),
    "accuracy of text": lambda entry, _: entry.update(average_accuracy="high"),
    "no floor": lambda entry, _: entry.pop("majority_floor"),
    "another seed": lambda entry, _: entry.update(seed=1),
    "no matrix": lambda entry, _: entry.update(accuracy_matrix=None),
    "short matrix": lambda entry, _: entry["accuracy_matrix"].pop(),
    "short row": lambda entry, _: entry["accuracy_matrix"][0].pop(),
    "text in the matrix": lambda entry, _: entry["accuracy_matrix"][0].__setitem__(0, "x"),
    "also of text": lambda entry, _: entry.update(also="x"),
    "also too short": lambda entry, _: entry["also"]["accuracy_matrix"].pop(),
    "untrained": lambda entry, _: entry.update(untrained_accuracy=[]),
    "negative seconds": lambda entry, _: entry.update(train_seconds=-1),
    "no resources": lambda entry, _: entry.pop("resources"),
    "no replay": lambda entry, _: entry.pop("replay"),
    "no series": lambda entry, _: entry.pop("series"),
    "a replay of other tasks": lambda entry, _: entry["replay"][0].update(learnt=3),
    "points of other classes": lambda _, arrays: arrays["shown.label"].fill(6),
    "resources of text": lambda entry, _: entry.update(resources={"total": "much"}),
    "no rows": lambda _, arrays: arrays.pop("rows"),
    "other rows": lambda _, arrays: arrays.update(rows=arrays["rows"] + 1),
    "other tasks": lambda _, arrays: arrays.update(tasks=arrays["tasks"] * 0),
    "no answers": lambda _, arrays: arrays.pop("answers"),
    "unknown answers": lambda _, arrays: arrays.update(answers=arrays["answers"] + 6),
    "answers of floats": lambda _, arrays: arrays.update(answers=arrays["answers"] / 2),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_a_result_that_does_not_fit_is_refused(
    here: Run, world: World, bases: dict[str, Base], tmp_path: Path, name: str
) -> None:
    base = bases["lr"]
    entry, arrays = json.loads(json.dumps(base.entry)), dict(base.arrays)
    ENTRIES[name](entry, arrays)
    Checkpoints(tmp_path / "r" / "checkpoints", base.settings).finish(0, entry, arrays)
    words = world.words("lr", tmp_path / "r", "--seeds", "0")
    refused(here(*words, "--resume"), "without --resume")
    assert not (tmp_path / "r" / "metrics.json").exists()


# --- protocols, validation rows ---------------------------------------------------------------


def test_the_released_protocol_changes_lr_and_nothing_else(
    here: Run, world: World, undisturbed: dict[str, Path], tmp_path: Path
) -> None:
    for strategy, same in (("lr", False), ("none", True)):
        ok(here(*world.words(strategy, tmp_path / strategy), "--protocol", "released"))
        released, corrected = (
            without_costs(metrics_of(out)) for out in (tmp_path / strategy, undisturbed[strategy])
        )
        assert (released.pop("protocol"), corrected.pop("protocol")) == ("released", "corrected")
        assert (released == corrected) == same
        assert (released["runs"] == corrected["runs"]) == same


def test_validation_never_looks_at_a_test_row(here: Run, tmp_path: Path) -> None:
    """Test labels turned and test latents moved: other caches, the same figures; but not
    evaluated on the test rows, where both are seen."""
    worlds = [
        World(tmp_path, make_vectors(tmp_path / name, turn=turn, noise=noise))
        for name, turn, noise in (("a", 0, 0.0), ("b", 1, 0.0), ("c", 0, 0.9))
    ]
    for k, (where, kinds) in enumerate((("validation", 1), ("test", 3))):
        found = []
        for world in worlds:
            out = tmp_path / f"{k}-{world.latents.name}"
            words = world.words("lr", out, "--validation", "0.25", "--evaluate-on", where)
            ok(here(*words, "--iters", 60, "--lr", "0.01", "--seeds", 0))
            metrics = without_costs(metrics_of(out))
            assert (metrics["evaluated_on"], metrics["validation"]) == (where, 0.25)
            files = [(out / name).read_bytes().hex() for name in FLAT]
            found.append(json.dumps([metrics["runs"], files]))
        assert len(set(found)) == kinds
    rows = {int(row["row"]) for row in table(tmp_path / "0-a" / "predictions.csv")}
    assert len(rows) == 12
    assert max(rows) < 48


def test_early_stopping_ends_early_says_so_and_repeats(
    here: Run, vectors: World, tmp_path: Path
) -> None:
    logs = []
    for name in ("a", "b"):
        words = vectors.words("lr", tmp_path / name, "--validation", "0.25", "--early-stopping", 2)
        ok(here(*words, "--iters", 1000, "--lr", "0.01"))
        logs.append(
            [
                {k: v for k, v in event.items() if k not in ("seconds", "wall_seconds")}
                for event in events_of(tmp_path / name)
            ]
        )
    assert logs[0] == logs[1]
    assert figures_of(tmp_path / "a") == figures_of(tmp_path / "b")
    ends = [event["iteration"] for event in logs[0] if event["event"] == "stopped early"]
    assert len(ends) == 6  # three tasks, two seeds
    assert all(100 <= end < 1000 and end % 50 == 0 for end in ends)
    last = [event["iteration"] for event in logs[0] if event["event"] == "losses"]
    assert max(last) == max(sum(ends[:3]), sum(ends[3:]))


# --- what it costs, what it tells -----------------------------------------------------------------


def test_the_meter_agrees_with_an_outside_look(stopped: dict[Any, Driven]) -> None:
    """What the system has counted for the process, which also starts and reads and writes."""
    long = stopped[None]
    assert long.code == 0, long.said
    metrics = metrics_of(long.out)
    reports = [metrics["load"], *(entry["resources"]["total"] for entry in metrics["runs"])]
    cpu = sum(report["cpu_seconds"] for report in reports)
    assert 0.25 * long.cpu_seconds < cpu <= long.cpu_seconds  # imports take most on a slow disk
    peak = max(report["rss_peak_bytes"] for report in reports)
    assert 0.9 * long.peak_bytes < peak <= long.peak_bytes * 1.01
    for entry in metrics["runs"]:
        resources = entry["resources"]
        figures = [resources["total"], *resources["phases"].values()]
        for name in ("gpu_utilisation_percent", "gpu_memory_peak_bytes"):
            assert {figure[name] for figure in figures} == {None}
        assert resources["total"]["gpu_allocated_peak_bytes"] is None
        total = resources["total"]["wall_seconds"]
        parts = [figure["wall_seconds"] for figure in resources["phases"].values()]
        assert sum(parts) == pytest.approx(total, abs=1e-3)
        # sampled five times as often as usual, where it takes less than 1 %
        assert resources["sampling_cpu_seconds"] < 0.05 * total
        assert resources["total"]["samples"] > 5


def test_a_log_tells_a_run_in_order(undisturbed: dict[str, Path]) -> None:
    for strategy, out in undisturbed.items():
        events = events_of(out)
        assert all(event["seconds"] >= 0 for event in events)
        assert all(a["seconds"] <= b["seconds"] for a, b in pairwise(events))
        names = [event["event"] for event in events]
        step = ["learning", "losses", "learnt", "checkpoint"]
        steps = 1 if strategy == "joint" else 3
        assert names == ["seed", *step * steps, "finished"] * 2, strategy
        assert [event["seed"] for event in events if event["event"] == "seed"] == [0, 1]
        learnt = [event for event in events if event["event"] == "learnt"][:steps]
        assert [event["task"] for event in learnt] == ([3] if steps == 1 else [1, 2, 3])
        matrix = metrics_of(out)["runs"][0]["accuracy_matrix"]
        assert [event["accuracies"] for event in learnt] == matrix[-steps:]


def test_tensorboard_draws_the_curve(here: Run, world: World, tmp_path: Path) -> None:
    """Accuracy on the tasks learnt so far, as in curve.csv; unmet ones do not count."""
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    ok(here(*world.words("lr", tmp_path / "r"), "--tensorboard", tmp_path / "board"))
    board = module.EventAccumulator(str(tmp_path / "board"))
    board.Reload()
    for seed in ("0", "1"):
        drawn = [(p.step, p.value) for p in board.Scalars(f"seed {seed}/accuracy")]
        lines = [row for row in table(tmp_path / "r" / "curve.csv") if row["seed"] == seed]
        assert [step for step, _ in drawn] == [int(row["learnt"]) for row in lines] == [1, 2, 3]
        wanted = [float(row["accuracy"]) for row in lines]
        assert [value for _, value in drawn] == pytest.approx(wanted, rel=1e-6)


# --- figures, from the answers and nothing else -----------------------------------------------


def _by_hand(pairs: list[tuple[str, str]]) -> tuple[list[list[int]], list[float], float]:
    """Confusion matrix, recall and macro-F1 of (target, answer), over CLASSES."""
    counts = Counter(pairs)
    confusion = [[counts[target, answer] for answer in CLASSES] for target in CLASSES]
    recall, f1 = [], []
    for name in CLASSES:
        right = counts[name, name]
        asked = sum(target == name for target, _ in pairs)
        answered = sum(answer == name for _, answer in pairs)
        recall.append(right / asked)
        f1.append(2 * right / (asked + answered))
    return confusion, recall, sum(f1) / len(f1)


@pytest.mark.parametrize("scenario", ["task", "class"])
def test_figures_follow_from_the_predictions(
    here: Run, vectors: World, tmp_path: Path, scenario: str
) -> None:
    out = tmp_path / "r"
    ok(here(*vectors.words("lgr+d", out, "--scenario", scenario, "--iters", 4)))
    metrics, answers = metrics_of(out), table(out / "predictions.csv")
    matrix = {
        (row["seed"], row["scenario"], row["learnt"], row["task"]): float(row["accuracy"])
        for row in table(out / "accuracy_matrix.csv")
    }
    other = {"task": "class", "class": "task"}[scenario]
    task_of = {name: str(k // 2 + 1) for k, name in enumerate(metrics["class_order"])}
    levels = set()
    for entry in metrics["runs"]:
        seed = str(entry["seed"])
        mine = [row for row in answers if row["seed"] == seed]
        assert sorted(int(row["row"]) for row in mine) == list(range(48, 72))
        assert all(row["target"] == CLASSES[int(row["row"]) % 6] for row in mine)
        assert all(row["task"] == task_of[row["target"]] for row in mine)
        for kind, column in ((scenario, "answer"), (other, "also")):
            for task in ("1", "2", "3"):
                rows = [row for row in mine if row["task"] == task]
                accuracy = sum(row[column] == row["target"] for row in rows) / len(rows)
                assert accuracy == matrix[seed, kind, "3", task]
                levels.add(accuracy)
            if kind == "task":  # never an answer of another task
                assert all(task_of[row[column]] == row["task"] for row in mine)
        confusion, recall, macro_f1 = _by_hand([(row["target"], row["answer"]) for row in mine])
        assert entry["confusion"] == confusion
        assert entry["recall"] == pytest.approx(recall)
        assert entry["macro_f1"] == pytest.approx(macro_f1)
        assert entry["balanced_accuracy"] == pytest.approx(sum(recall) / 6)
        last = [matrix[seed, scenario, "3", task] for task in ("1", "2", "3")]
        assert entry["average_accuracy"] == pytest.approx(sum(last) / 3)
        assert entry["also"]["average_accuracy"] == pytest.approx(
            sum(matrix[seed, other, "3", task] for task in ("1", "2", "3")) / 3
        )
        best = [max(matrix[seed, scenario, str(i), str(j)] for i in range(j, 3)) for j in (1, 2)]
        assert entry["forgetting"] == pytest.approx(sum(best) / 2 - sum(last[:2]) / 2)
    assert len(levels) > 2
