"""`train --jobs 2`: the same bits, and what becomes of it when anything ends in the middle.

All commands are forked from one process that has imported what is heavy and computed nothing: in
pytest's own, torch's autograd may have been at work, which it is not after a fork.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from cache.errors import Refused
from pipeline import seeds_at_once
from stages.report.reading.find import read_about
from stages.report.reading.hosts import hosts
from stages.report.reading.runs import Run as Read
from stages.report.terminal.show import _last
from tests.command import Run
from tests.test_runs import (
    World,
    events_of,
    figures_of,
    make_vectors,
    metrics_of,
    ok,
    refused,
    world,  # noqa: F401  # a fixture
)

SEEDS = ("--seeds", "0-3")
SAME = ("lr", "lgr+d", "nr")

DRIVER = """
import json, os, resource, signal, sys, time, traceback
import psutil
import pipeline.cli_train, pipeline.image_root, pipeline.stage_two
from pipeline import cli
from pipeline.checkpoints import Checkpoints
from pipeline.events import Events
from stages import strategies
from stages.train.recorder import Recorder

for name in strategies.names():
    strategies.module(name)

def before(owner, name, when, do):
    original = getattr(owner, name)
    def instead(*words, **named):
        if when(*words, **named):
            do()
        return original(*words, **named)
    setattr(owner, name, instead)

def end(number):
    os.kill(os.getpid(), number)

def end_parent():
    print(json.dumps([child.pid for child in psutil.Process().children()]), file=sys.stderr)
    sys.stderr.flush()
    end(signal.SIGKILL)

def mistaken():
    raise ValueError("a mistake")

seen = []
def third(log, event, **fields):  # in the process that writes the log
    seen.append(event)
    return seen.count("checkpoint") == 3
def second_task_of_1(checkpoints, seed, learnt, *rest):  # in the worker that is at it
    return (seed, learnt) == (1, 2)

def arm(hook):
    if hook == "Ctrl-C":
        before(Events, "write", third, lambda: end(signal.SIGINT))
    elif hook == "parent":
        before(Events, "write", third, end_parent)
    elif hook == "worker":
        before(Checkpoints, "save", second_task_of_1, lambda: end(signal.SIGKILL))
    elif hook == "mistake":
        before(Checkpoints, "save", second_task_of_1, mistaken)
    elif hook == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

for hook, words, said in json.loads(sys.argv[1]):
    child = os.fork()
    if child:
        print(json.dumps(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])), flush=True)
        continue
    code = 70
    try:
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        # A shell lets what it starts in the background ignore Ctrl-C, and that is inherited.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        arm(hook)
        sys.argv = ["lgr-pipe", *words]
        cli.main()
        code = 0
    except SystemExit as end_:
        code = end_.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stderr.flush()
        os._exit(code)
"""


@dataclass(frozen=True)
class Ended:
    out: Path
    words: list[str]
    code: int
    said: str


Drive = Callable[..., list[Ended]]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("vectors")
    return World(root / "none", make_vectors(root / "latents"))


def drive(folder: Path, *cases: tuple[str, list[str]]) -> list[Ended]:
    """Each hook and command in turn."""
    said = [folder / f"{k}.txt" for k in range(len(cases))]
    asked = [[*case, str(path)] for case, path in zip(cases, said, strict=True)]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(asked)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "300"},
        cwd=Path(__file__).parent.parent,
        check=True,
    )
    codes = [json.loads(line) for line in done.stdout.splitlines()]
    return [
        Ended(Path(words[words.index("--out") + 1]), words, code, path.read_text())
        for (_, words), code, path in zip(cases, codes, said, strict=True)
    ]


def well(ended: Ended) -> Path:
    assert ended.code == 0, ended.said
    return ended.out


HOOKS = {"Ctrl-C": 1, "parent": 3, "worker": 2, "mistake": 2, "full": 2}
"""What ends a run of two at once, and how many are at once when it goes on."""


@pytest.fixture(scope="module")
def ended(
    world: World,  # noqa: F811
    vectors: World,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Ended]:
    root = tmp_path_factory.mktemp("ended")
    cases = {}
    for name in SAME:
        of = world if name == "nr" else vectors
        cases[f"{name} in turn"] = "", of.words(name, root / f"{name} 1", *SEEDS)
        cases[name] = "", of.words(name, root / f"{name} 2", *SEEDS, "--jobs", 2)
    for hook in HOOKS:
        cases[hook] = hook, vectors.words("lgr+d", root / hook, *SEEDS, "--jobs", 2)
    hot = vectors.words("lr", root / "hot", *SEEDS, "--jobs", 2, "--lr", "1e30")
    cases["diverging"] = "", hot
    cases["threads"] = "", vectors.words("lr", root / "t", *SEEDS, "--jobs", 3, "--threads", 2)
    return dict(zip(cases, drive(root, *cases.values()), strict=True))


@pytest.fixture(scope="module")
def resumed(
    ended: dict[str, Ended], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[list[str], Ended]]:
    """By hook: what was there of tasks, and the same command with --resume."""
    kept = {hook: list(weights_of(ended[hook].out)) for hook in HOOKS}
    cases = [
        ("", [*ended[hook].words, "--resume", "--jobs", str(jobs)]) for hook, jobs in HOOKS.items()
    ]
    found = drive(tmp_path_factory.mktemp("resumed"), *cases)
    return {hook: (kept[hook], end) for hook, end in zip(HOOKS, found, strict=True)}


def weights_of(out: Path) -> dict[str, bytes]:
    files = sorted((out / "checkpoints").rglob("task-*.safetensors"))
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


@pytest.mark.parametrize("name", SAME)
def test_the_same_bits_as_one_after_the_other(ended: dict[str, Ended], name: str) -> None:
    alone, shared = well(ended[f"{name} in turn"]), well(ended[name])
    assert figures_of(shared) == figures_of(alone)
    assert weights_of(shared) == weights_of(alone)
    assert len(weights_of(shared)) == 12
    assert not list(shared.rglob("*.tmp"))


def test_costs_say_how_many_there_were(ended: dict[str, Ended]) -> None:
    alone, shared = ended["lgr+d in turn"], ended["lgr+d"]
    assert "at once" not in alone.said
    assert "2 seeds at once, 1 thread each: their seconds are those of a machine" in shared.said
    about = {key: read_about(ended[key].out) for key in ("lgr+d in turn", "lgr+d", "threads")}
    found = [(a.seeds_at_once, a.threads) for a in about.values() if a]
    assert found == [(1, 1), (2, 1), (3, 2)]
    assert about["lgr+d"] is not None
    assert about["lgr+d"].machine().endswith(", 2 seeds at once")
    runs = [
        Read.model_validate(metrics_of(e.out)).model_copy(update={"about": read_about(e.out)})
        for e in (alone, shared)
    ]
    assert len(hosts(runs)) == 2  # costs of the two are not compared as if they were alike
    for entry in metrics_of(shared.out)["runs"]:
        total = entry["resources"]["total"]
        assert total["wall_seconds"] > 0
        assert total["rss_peak_bytes"] > total["rss_growth_bytes"]


def test_one_log_of_whole_lines_that_name_their_seed(ended: dict[str, Ended]) -> None:
    events = events_of(ended["lgr+d"].out)
    assert {event["seed"] for event in events} == {0, 1, 2, 3}
    alone = events_of(ended["lgr+d in turn"].out)
    names = [event["event"] for event in alone]
    for seed in range(4):
        assert [e["event"] for e in events if e["seed"] == seed] == names[: len(names) // 4]


def test_a_look_at_it_keeps_seeds_apart() -> None:
    events: list[dict[str, Any]] = [
        {"event": "seed", "seed": 0, "steps_done": 0},
        {"event": "seed", "seed": 1, "steps_done": 0},
        {"event": "learning", "seed": 1, "task": 1},
        {"event": "losses", "seed": 1, "iteration": 7, "solver": 0.5, "seconds": 3.0},
        {"event": "learning", "seed": 0, "task": 2},
        {"event": "losses", "seed": 0, "iteration": 50, "solver": 0.1},
    ]
    assert _last(events) == (1, 1, None, {"solver": 0.5}, 7)


ENDS = {
    "Ctrl-C": (130, "with --resume goes on from there"),
    "parent": (-signal.SIGKILL, ""),
    "worker": (1, "seed 1 is not done: its process was ended by signal 9"),
    "mistake": (1, "ValueError: a mistake"),
    "full": (1, "make room and run it again"),
}


@pytest.mark.parametrize("hook", HOOKS)
def test_it_goes_on_as_if_nothing_had_been(
    ended: dict[str, Ended], resumed: dict[str, tuple[list[str], Ended]], hook: str
) -> None:
    halted, (code, says) = ended[hook], ENDS[hook]
    assert halted.code == code, halted.said
    assert says in halted.said
    assert ("Traceback" in halted.said) is (hook == "mistake")
    kept, again = resumed[hook]
    assert kept or hook == "full"
    out, whole = well(again), ended["lgr+d in turn"].out
    assert figures_of(out) == figures_of(whole)
    assert weights_of(out) == weights_of(whole)
    assert not list(out.rglob("*.tmp"))
    about = read_about(out)
    assert about is not None
    assert about.seeds_at_once == max(2, HOOKS[hook])  # whatever it went on with


def test_workers_end_with_a_parent_that_is_killed(ended: dict[str, Ended]) -> None:
    workers = json.loads(ended["parent"].said.splitlines()[-1])
    assert len(workers) == 2
    alive = [psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)]
    left = [one for one in psutil.wait_procs(alive, timeout=10)[1] if one.status() != "zombie"]
    assert not left


def test_what_failed_is_in_the_log(ended: dict[str, Ended]) -> None:
    for hook, why in (("worker", "signal 9, for lack of memory perhaps"), ("mistake", "a mistake")):
        last = {e["event"]: e for e in events_of(ended[hook].out)}["failed"]
        assert last["seed"] == 1
        assert why in last["why"]
    assert "in _save" in ended["mistake"].said  # where, in the worker
    assert "SeedFailed" in ended["mistake"].said


def test_divergence(ended: dict[str, Ended]) -> None:
    """As one after the other: nothing is left that --resume or --overwrite would be for."""
    hot = ended["diverging"]
    assert hot.code == 2
    assert "Error: Training diverged" in hot.said
    assert "Traceback" not in hot.said
    assert sorted(path.name for path in hot.out.iterdir()) == ["log.jsonl", "run.json"]
    # Not the last line for sure: until the other worker is ended, it tells what it does.
    failed = [event for event in events_of(hot.out) if event["event"] == "failed"]
    assert failed
    assert all("diverged" in event["why"] for event in failed)


def test_refusals(
    here: Run, vectors: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = vectors.words("lr", tmp_path / "r", "--jobs", 2)
    refused(here(*words, "--resident", "disk"), "--jobs 2", "on disk", "--resident ram")
    assert not (tmp_path / "r").exists()
    with pytest.raises(Refused, match="on cuda: use --device cpu"):
        seeds_at_once.refuse(2, "cuda", "auto")
    monkeypatch.setattr(seeds_at_once.sys, "platform", "darwin")
    with pytest.raises(Refused, match="safe on Linux only: leave --jobs out"):
        seeds_at_once.refuse(2, "cpu", "ram")
    seeds_at_once.refuse(1, "cuda", "disk")
    ok(here(*words, "--seeds", "5"))  # a single one is learnt as ever
